//! Sub: `a - b` with broadcasting. Opsets 7, 13, 14. Integers wrap.

use super::binary::binary;
use super::*;

binary! {
    /// ONNX Sub: subtraction.
    Sub,
    infer_two,
    |a: f32, b: f32| a - b,
    integers: i64::wrapping_sub,
    kernel: daq_kernels::BinaryF32::Sub
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats_integers_and_codes() {
        let y = run_f32(&Sub.into(), &[(&[3], &[1., 2., f32::INFINITY]), (&[1], &[0.25])]);
        assert_eq!(y.data::<f32>(), [0.75, 1.75, f32::INFINITY]);
        let y = run_i64(&Sub.into(), &[&[5, i64::MIN], &[7, 1]]);
        assert_eq!(y, [-2, i64::MAX]);
        assert_eq!(run_i32(&Sub.into(), &[&[5, i32::MIN], &[7, 1]]), [-2, i32::MAX]);
        // Reals 1, 5, 10 minus 2 at a scale of 0.5.
        let (x, two) = (&[20u8, 60, 110][..], &[8u8][..]);
        let inputs = [(&[3usize][..], x, 0.1, 10), (&[1][..], two, 0.25, 0)];
        assert_eq!(run_u8(&Sub.into(), &inputs, 0.5, 4), [2, 10, 20]);
    }
}
