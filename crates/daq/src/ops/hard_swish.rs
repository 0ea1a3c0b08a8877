//! HardSwish: `x * clamp(x / 6 + 1/2, 0, 1)`. Opset 14.

use super::unary::unary;
use super::*;

unary! {
    /// ONNX HardSwish: the swish made of straight lines.
    HardSwish,
    |x: f32| x * (x * (1.0 / 6.0) + 0.5).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-3.5, -0.0),
            (-1.0, -0.3333333),
            (-0.5, -0.20833333),
            (-0.0, -0.0),
            (0.0, 0.0),
            (0.5, 0.29166666),
            (1.0, 0.6666667),
            (3.5, 3.5),
            (inf, inf),
            (nan, nan),
        ];
        assert_unary(HardSwish, &cases);
    }

    #[test]
    fn codes() {
        // Reals -4, -1, 2, 4: 0, -1/3, 5/3, 4.
        let x = (&[4usize][..], &[0u8, 30, 60, 80][..], 0.1, 40);
        assert_eq!(run_u8(&HardSwish.into(), &[x], 0.5, 1), [1, 0, 4, 9]);
    }
}
