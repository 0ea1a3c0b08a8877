//! Softplus: `ln(1 + e^x)`. Opsets 1, 22.
//!
//! Computed as `max(x, 0) + ln(1 + e^-|x|)`, which neither overflows nor loses small results.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Softplus: `ln(1 + e^x)`.
    Softplus,
    softplus
}

/// `ln(1 + e^x)`.
pub(super) fn softplus(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + libm::log1pf(libm::expf(-x.abs()))
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let inf = f32::INFINITY;
        let cases = [(0.0, std::f32::consts::LN_2), (1.0, 1.3132617), (-1.0, 0.3132617), (200.0, 200.0)];
        assert_unary(Softplus, &cases);
        assert_unary(Softplus, &[(-20.0, 2.0611537e-9), (inf, inf), (-inf, 0.0)]);
    }
}
