//! Min: the smallest of its inputs with broadcasting; NaN if one is. Opsets 6, 8, 12, 13.
//!
//! Between zeros of two signs the later input's wins.

use super::binary::binary;
use super::*;

binary! {
    /// ONNX Min.
    Min,
    infer_many,
    |a: f32, b: f32| match a.is_nan() || b.is_nan() {
        true => f32::NAN,
        false if a < b => a,
        false => b,
    },
    integers: Ord::min,
    kernel: daq_kernels::BinaryF32::Min
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats_of_several_inputs() {
        let (a, b) = ([-3f32, 1.], [-1f32, 2.]);
        let y = run_f32(&Min.into(), &[(&[2], &a), (&[2, 1], &b), (&[], &[9.])]);
        assert_eq!((y.shape(), y.data::<f32>()), (&[2, 2][..], &[-3., -1., -3., 1.][..]));
        let y = run_f32(&Min.into(), &[(&[2], &a)]);
        assert_eq!(y.data::<f32>(), a);
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let y = run_f32(&Min.into(), &[(&[4], &[nan, 1., inf, 0.]), (&[4], &[1., nan, 1., -0.0])]);
        assert_near(y.data(), &[nan, nan, 1., 0.]);
        assert!(y.data::<f32>()[3].is_sign_negative());
    }

    #[test]
    fn integers_codes_and_misfits() {
        assert_eq!(run_i64(&Min.into(), &[&[-2, 9], &[7, 5]]), [-2, 5]);
        assert_eq!(run_i32(&Min.into(), &[&[-2, 9], &[7, 5]]), [-2, 5]);
        // Reals 1, 5, -1 and 2, to a scale of 0.1.
        let inputs = [(&[3usize][..], &[20u8, 60, 0][..], 0.1, 10), (&[1][..], &[8u8][..], 0.25, 0)];
        assert_eq!(run_u8(&Min.into(), &inputs, 0.1, 10), [20, 30, 0]);
        assert!(Op::from(Min).infer(&[]).is_err());
        assert!(Op::from(Min).infer(&[floats(&[2]), None]).is_err());
    }
}
