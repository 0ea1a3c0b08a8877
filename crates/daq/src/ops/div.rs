//! Div: `a / b` with broadcasting. Opsets 7, 13, 14.
//!
//! Integers are divided towards zero; by zero gives 0, and the lowest by -1 wraps to itself.

use super::binary::binary;
use super::*;

binary! {
    /// ONNX Div: division.
    Div,
    infer_two,
    |a: f32, b: f32| a / b,
    integers: |a: i64, b: i64| if b == 0 { 0 } else { a.wrapping_div(b) },
    kernel: daq_kernels::BinaryF32::Div
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats_integers_and_codes() {
        let (a, b) = ([1f32, 0., -1., 7.], [0f32, 0., 0., 2.]);
        let y = run_f32(&Div.into(), &[(&[4], &a), (&[4], &b)]);
        assert_near(y.data(), &[f32::INFINITY, f32::NAN, f32::NEG_INFINITY, 3.5]);
        let y = run_i64(&Div.into(), &[&[7, -7, 7, 5, i64::MIN], &[2, 2, -2, 0, -1]]);
        assert_eq!(y, [3, -3, -3, 0, i64::MIN]);
        let y = run_i32(&Div.into(), &[&[7, -7, 5, i32::MIN], &[2, 2, 0, -1]]);
        assert_eq!(y, [3, -3, 0, i32::MIN]);
        // Reals 1, 6, -1 by 2; by 0 saturates.
        let x = (&[3usize][..], &[20u8, 70, 0][..], 0.1, 10);
        let half = run_u8(&Div.into(), &[x, (&[1], &[20], 0.1, 0)], 0.5, 10);
        assert_eq!(half, [11, 16, 9]);
        assert_eq!(run_u8(&Div.into(), &[x, (&[1], &[0], 0.1, 0)], 0.5, 10), [255, 255, 0]);
    }
}
