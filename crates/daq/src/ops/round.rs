//! Round: the nearest integer, of two the even one. Opsets 11, 22.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Round: the nearest integer, of two the even one.
    Round,
    f32::round_ties_even
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Round, &[(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-1.5, -2.0), (2.4, 2.0), (f32::NAN, f32::NAN)]);
    }
}
