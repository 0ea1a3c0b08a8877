//! Softsign: `x / (1 + |x|)`. Opsets 1, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Softsign: `x / (1 + |x|)`.
    Softsign,
    |x: f32| x / (1.0 + x.abs())
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Softsign, &[(0.0, 0.0), (1.0, 0.5), (-3.0, -0.75)]);
    }
}
