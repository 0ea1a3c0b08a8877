//! Tan: the tangent. Opsets 7, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Tan: the tangent.
    Tan,
    libm::tanf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Tan, &[(0.0, 0.0), (1.0, 1.5574077), (-2.0, 2.1850398)]);
    }
}
