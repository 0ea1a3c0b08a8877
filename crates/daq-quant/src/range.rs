//! From a range of real numbers to scale and zero point.

use daq::QuantParams;

/// The smallest scale that is given: of a tensor that was 0 (nearly) everywhere.
const LEAST_SCALE: f64 = 1e-10;

/// The real numbers that a tensor takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The lowest.
    pub min: f32,
    /// The highest.
    pub max: f32,
}

impl Range {
    /// The smallest range that holds both.
    pub fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// Scale and zero point of `u8` codes that cover the range and 0, so that 0 has a code.
    pub fn to_u8(self) -> QuantParams {
        let (min, max) = (f64::from(self.min.min(0.0)), f64::from(self.max.max(0.0)));
        let scale = ((max - min) / 255.0).max(LEAST_SCALE) as f32;
        let zero_point = (-min / f64::from(scale)).round_ties_even().clamp(0.0, 255.0);
        QuantParams::per_tensor(scale, zero_point as i32)
    }

    /// Like [`Range::to_u8`], with a power of two as scale and an even zero point. The scale is
    /// rounded up; the even zero point may leave up to a step and a half at one end to saturation.
    ///
    /// Runtimes that simulate codes in float agree at such scales: dividing by a power of two is
    /// exact, and adding an even number before rounding to even is the same as adding it after.
    pub fn to_u8_power_of_two(self) -> QuantParams {
        let scale = rounded_up(self.to_u8().scale[0], 0);
        let half = (-f64::from(self.min.min(0.0)) / f64::from(scale) / 2.0).round_ties_even();
        QuantParams::per_tensor(scale, 2 * (half.min(127.0) as i32))
    }
}

/// The least number that is not below `scale` (positive) and has a 1 and `bits` binary digits.
pub fn rounded_up(scale: f32, bits: u32) -> f32 {
    let rest = (1 << (f32::MANTISSA_DIGITS - 1 - bits)) - 1;
    f32::from_bits((scale.to_bits() + rest) & !rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_zero_and_zero_has_a_code() {
        for (min, max, scale, zero_point) in [
            (0.0, 255.0, 1.0, 0),
            (-255.0, 0.0, 1.0, 255),
            (-1.0, 1.55, 0.01, 100),
            (5.0, 51.0, 0.2, 0),
            (-51.0, -5.0, 0.2, 255),
        ] {
            let quant = Range { min, max }.to_u8();
            assert!((quant.scale[0] / scale - 1.0).abs() < 1e-6, "{min} {max}: {quant:?}");
            assert_eq!(quant.zero_point, [zero_point], "{min} {max}");
        }
        assert_eq!(Range { min: 0.0, max: 0.0 }.to_u8(), QuantParams::per_tensor(1e-10, 0));
    }

    #[test]
    fn powers_of_two_cover_the_range_with_an_even_zero_point() {
        for (min, max, scale, zero_point) in [
            (0.0, 255.0, 1.0, 0),
            (0.0, 255.5, 2.0, 0),
            (-255.0, 0.0, 1.0, 254),
            (-1.0, 1.55, 1.0 / 64.0, 64),
            (-1.0 / 64.0, 2.0, 1.0 / 64.0, 0),
            (-3.0 / 64.0, 2.0, 1.0 / 64.0, 4),
            (5.0, 51.0, 0.25, 0),
            (0.0, 0.0, 2f32.powi(-33), 0),
        ] {
            let quant = Range { min, max }.to_u8_power_of_two();
            assert_eq!(quant, QuantParams::per_tensor(scale, zero_point), "{min} {max}");
        }
    }

    #[test]
    fn few_digits_are_rounded_up() {
        for (scale, bits, rounded) in [
            (1.0, 3, 1.0),
            (1.01, 3, 1.125),
            (1.9, 3, 2.0),
            (0.3, 3, 0.3125),
            (0.3, 0, 0.5),
            (0.1, 2, 0.109375),
        ] {
            assert_eq!(rounded_up(scale, bits), rounded, "{scale} {bits}");
        }
    }
}
