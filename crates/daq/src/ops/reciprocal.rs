//! Reciprocal: `1 / x`. Opsets 6, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Reciprocal: `1 / x`.
    Reciprocal,
    |x: f32| 1.0 / x
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Reciprocal, &[(2.0, 0.5), (-4.0, -0.25), (0.0, f32::INFINITY), (f32::INFINITY, 0.0)]);
    }
}
