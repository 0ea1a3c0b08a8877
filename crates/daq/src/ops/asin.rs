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
        assert_unary(Asin, &[(0.0, 0.0), (1.0, std::f32::consts::FRAC_PI_2), (-0.5, -std::f32::consts::FRAC_PI_6), (2.0, f32::NAN)]);
    }
}
