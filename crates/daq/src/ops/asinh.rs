//! Asinh: the inverse hyperbolic sine. Opsets 9, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Asinh: the inverse hyperbolic sine.
    Asinh,
    libm::asinhf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Asinh, &[(0.0, 0.0), (1.0, 0.8813736), (-2.0, -1.4436355)]);
    }
}
