//! Acosh: the inverse hyperbolic cosine, NaN below 1. Opsets 9, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Acosh: the inverse hyperbolic cosine, NaN below 1.
    Acosh,
    libm::acoshf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Acosh, &[(1.0, 0.0), (2.0, 1.316958), (10.0, 2.993223), (0.5, f32::NAN)]);
    }
}
