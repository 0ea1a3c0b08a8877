//! Erf: the error function. Opsets 9, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Erf: the error function.
    Erf,
    libm::erff
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (0.0, 0.0),
            (-0.0, -0.0),
            (0.5, 0.5204999),
            (1.0, 0.8427008),
            (-2.0, -0.9953223),
            (2.5001, 0.9995932),
            (3.0, 0.9999779),
            (6.5, 1.0),
            (-inf, -1.0),
            (nan, nan),
        ];
        assert_unary(Erf, &cases);
    }
}
