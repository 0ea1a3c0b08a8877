//! Tanh: `tanh(x)`. Opsets 6, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Tanh: the hyperbolic tangent.
    Tanh,
    libm::tanhf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-inf, -1.0),
            (-3.5, -0.99817795),
            (-1.0, -0.7615942),
            (-0.0, -0.0),
            (0.5, 0.46211717),
            (3.5, 0.99817795),
            (inf, 1.0),
            (nan, nan),
        ];
        assert_unary(Tanh, &cases);
    }
}
