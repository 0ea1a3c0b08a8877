//! Cosh: the hyperbolic cosine. Opsets 9, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Cosh: the hyperbolic cosine.
    Cosh,
    libm::coshf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Cosh, &[(0.0, 1.0), (1.0, 1.5430807), (-2.0, 3.7621956)]);
    }
}
