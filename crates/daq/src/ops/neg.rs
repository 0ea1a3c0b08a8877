//! Neg: `-x`. Opsets 6, 13. The lowest integer wraps to itself.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Neg: the negated number.
    Neg,
    |x: f32| -x,
    integers: i64::wrapping_neg
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-inf, inf),
            (-3.5, 3.5),
            (0.0, -0.0),
            (-0.0, 0.0),
            (0.5, -0.5),
            (nan, nan),
        ];
        assert_unary(Neg, &cases);
    }

    #[test]
    fn integers() {
        assert_eq!(run_i64(&Neg.into(), &[&[-5, 0, 7, i64::MIN]]), [5, 0, -7, i64::MIN]);
        assert_eq!(run_i32(&Neg.into(), &[&[-5, 0, 7, i32::MIN]]), [5, 0, -7, i32::MIN]);
    }
}
