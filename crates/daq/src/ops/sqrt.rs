//! Sqrt: `x^(1/2)`. Opsets 6, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Sqrt: the square root, NaN below zero.
    Sqrt,
    f32::sqrt
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-1.0, nan),
            (-0.0, -0.0),
            (0.0, 0.0),
            (0.5, 0.70710677),
            (2.25, 1.5),
            (inf, inf),
            (nan, nan),
        ];
        assert_unary(Sqrt, &cases);
    }
}
