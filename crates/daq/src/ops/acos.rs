//! Acos: the inverse cosine. Opsets 7, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Acos: the inverse cosine.
    Acos,
    libm::acosf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Acos, &[(1.0, 0.0), (0.0, std::f32::consts::FRAC_PI_2), (-1.0, std::f32::consts::PI), (0.5, std::f32::consts::FRAC_PI_3), (2.0, f32::NAN)]);
    }
}
