//! Exp: `e^x`. Opsets 6, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Exp: the exponential function.
    Exp,
    libm::expf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-inf, 0.0),
            (-3.5, 0.030197384),
            (-1.0, 0.36787945),
            (-0.0, 1.0),
            (0.5, 1.6487212),
            (1.0, 2.7182817),
            (3.5, 33.115_45),
            (89.0, inf),
            (inf, inf),
            (nan, nan),
        ];
        assert_unary(Exp, &cases);
    }
}
