//! Sigmoid: `1 / (1 + exp(-x))`. Opsets 6, 13.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX Sigmoid: the logistic function.
    Sigmoid,
    |x: f32| 1.0 / (1.0 + libm::expf(-x))
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-inf, 0.0),
            (-80.0, 1.804_851_4e-35),
            (-3.5, 0.02931223),
            (-1.0, 0.26894143),
            (0.0, 0.5),
            (0.5, 0.6224593),
            (3.5, 0.9706878),
            (100.0, 1.0),
            (inf, 1.0),
            (nan, nan),
        ];
        assert_unary(Sigmoid, &cases);
    }

    #[test]
    fn codes() {
        // Reals -2, 0, 2 to a scale of 1/256: 0.1192 * 256 = 30.5, 128, 225.5.
        let x = (&[3usize][..], &[0u8, 100, 200][..], 0.02, 100);
        assert_eq!(run_u8(&Sigmoid.into(), &[x], 1.0 / 256.0, 0), [31, 128, 225]);
    }
}
