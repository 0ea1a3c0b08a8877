//! Ceil: the next integer above. Opsets 6, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Ceil: the next integer above.
    Ceil,
    f32::ceil
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Ceil, &[(1.2, 2.0), (-1.2, -1.0), (3.0, 3.0), (-0.5, -0.0), (f32::NAN, f32::NAN)]);
    }
}
