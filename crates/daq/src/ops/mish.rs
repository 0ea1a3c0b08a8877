//! Mish: `x * tanh(ln(1 + e^x))` (Misra, 2019). Opsets 18, 22.

use super::softplus::softplus;
use super::unary::unary;
use super::*;

unary! {
    /// ONNX Mish: `x * tanh(softplus(x))`.
    Mish,
    |x: f32| x * libm::tanhf(softplus(x))
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Mish, &[(0.0, 0.0), (1.0, 0.86509836), (-1.0, -0.30340144), (30.0, 30.0)]);
    }
}
