//! Atanh: the inverse hyperbolic tangent. Opsets 9, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Atanh: the inverse hyperbolic tangent.
    Atanh,
    libm::atanhf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Atanh, &[(0.0, 0.0), (0.5, 0.54930615), (1.0, f32::INFINITY), (2.0, f32::NAN)]);
    }
}
