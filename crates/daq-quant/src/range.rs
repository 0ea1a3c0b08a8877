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
}
