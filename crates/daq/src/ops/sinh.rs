//! Sinh: the hyperbolic sine. Opsets 9, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Sinh: the hyperbolic sine.
    Sinh,
    libm::sinhf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Sinh, &[(0.0, 0.0), (1.0, 1.1752012), (-2.0, -3.6268604)]);
    }
}
