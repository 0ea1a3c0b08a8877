//! Sin: the sine. Opsets 7, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Sin: the sine.
    Sin,
    libm::sinf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Sin, &[(0.0, 0.0), (1.0, 0.84147096), (-2.0, -0.9092974), (f32::INFINITY, f32::NAN)]);
    }
}
