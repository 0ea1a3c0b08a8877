//! Log: `ln(x)`. Opsets 6, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Log: the natural logarithm.
    Log,
    libm::logf
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-1.0, nan),
            (-0.0, -inf),
            (0.0, -inf),
            (0.5, -std::f32::consts::LN_2),
            (1.0, 0.0),
            (3.5, 1.2527629),
            (inf, inf),
            (nan, nan),
        ];
        assert_unary(Log, &cases);
    }
}
