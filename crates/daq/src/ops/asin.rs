//! Asin: the inverse sine. Opsets 7, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Asin: the inverse sine.
    Asin,
    libm::asinf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Asin, &[(0.0, 0.0), (1.0, 1.5707964), (-0.5, -0.5235988), (2.0, f32::NAN)]);
    }
}
