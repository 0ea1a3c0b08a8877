//! Floor: `the largest integer that is not above x`. Opsets 6, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Floor: rounds down.
    Floor,
    f32::floor
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-inf, -inf),
            (-3.5, -4.0),
            (-1.0, -1.0),
            (-0.5, -1.0),
            (-0.0, -0.0),
            (0.5, 0.0),
            (3.5, 3.0),
            (inf, inf),
            (nan, nan),
        ];
        assert_unary(Floor, &cases);
    }
}
