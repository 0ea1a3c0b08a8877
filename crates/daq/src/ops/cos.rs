//! Cos: the cosine. Opsets 7, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Cos: the cosine.
    Cos,
    libm::cosf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Cos, &[(0.0, 1.0), (1.0, 0.5403023), (-2.0, -0.41614684), (f32::INFINITY, f32::NAN)]);
    }
}
