//! Sum: the sum of its inputs with broadcasting. Opsets 6, 8, 13.

use super::binary::binary;
use super::*;

binary! {
    /// ONNX Sum, from the first input to the last.
    Sum,
    infer_many,
    |a: f32, b: f32| a + b,
    integers: i64::wrapping_add
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats_of_several_inputs() {
        let inputs = [(&[2usize][..], &[1f32, 2.][..]), (&[2, 1], &[10., 20.]), (&[], &[0.5])];
        let y = run_f32(&Sum.into(), &inputs);
        assert_eq!((y.shape(), y.data::<f32>()), (&[2, 2][..], &[11.5, 12.5, 21.5, 22.5][..]));
        assert_eq!(run_f32(&Sum.into(), &inputs[..1]).data::<f32>(), [1., 2.]);
        assert!(Op::from(Sum).infer(&[]).is_err());
    }
}
