//! Sign: -1, 0 or 1; a NaN stays. Opsets 9, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Sign: -1 below zero, 1 above it, else `x`.
    Sign,
    |x: f32| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x },
    integers: i64::signum
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats_and_integers() {
        assert_unary(Sign, &[(-2.5, -1.0), (0.0, 0.0), (1e-30, 1.0), (f32::NAN, f32::NAN)]);
        assert_eq!(run_i64(&Sign.into(), &[&[-7, 0, 9]]), [-1, 0, 1]);
    }
}
