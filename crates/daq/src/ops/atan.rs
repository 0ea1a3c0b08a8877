//! Atan: the inverse tangent. Opsets 7, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Atan: the inverse tangent.
    Atan,
    libm::atanf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Atan, &[(0.0, 0.0), (1.0, std::f32::consts::FRAC_PI_4), (-1.0, -std::f32::consts::FRAC_PI_4), (f32::INFINITY, std::f32::consts::FRAC_PI_2)]);
    }
}
