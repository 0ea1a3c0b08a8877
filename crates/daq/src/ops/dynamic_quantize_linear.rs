//! DynamicQuantizeLinear: floats as `u8` codes at the scale of their own range. Opset 11.

use super::*;

/// ONNX DynamicQuantizeLinear. Gives codes, scale and zero point.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicQuantizeLinear;

impl Operator for DynamicQuantizeLinear {
    const NAME: &'static str = "DynamicQuantizeLinear";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(DynamicQuantizeLinear)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::FLOATS.input(inputs, 0)?;
        let one = |dtype| Spec { dtype, shape: vec![] };
        Ok(vec![Spec::new(DType::U8, &x.shape), one(DType::F32), one(DType::U8)])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer").data::<f32>();
        // The range holds 0, so that it has a code of its own.
        let low = x.iter().fold(0f32, |low, &x| low.min(x));
        let high = x.iter().fold(0f32, |high, &x| high.max(x));
        // All zeros fit any scale.
        let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
        let zero_point = (0.0 - low / scale).clamp(0.0, 255.0).round_ties_even();
        let code = |x: f32| ((x / scale).round_ties_even() + zero_point).clamp(0.0, 255.0) as u8;
        outputs[0].bytes.iter_mut().zip(x).for_each(|(q, &x)| *q = code(x));
        if let Some(output) = outputs.get_mut(1) {
            output.data_mut::<f32>()[0] = scale;
        }
        if let Some(output) = outputs.get_mut(2) {
            output.bytes[0] = zero_point as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn the_range_holds_zero() {
        for (x, codes, scale, zero_point) in [
            ([0f32, 1., 255.], [0u8, 1, 255], 1f32, 0u8),
            ([-1., 0., 254.], [0, 1, 255], 1., 1),
            ([-255., -2., -1.], [0, 253, 254], 1., 255),
            ([0., 0., 0.], [0, 0, 0], 1., 0),
            ([100., 200., 255.], [100, 200, 255], 1., 0),
        ] {
            let x = Tensor::from_slice(&[3], &x);
            let y = evaluate_plain(&DynamicQuantizeLinear.into(), &[Some(&x)]).unwrap();
            assert_eq!(y[0].data::<u8>(), codes);
            assert_eq!((y[1].data::<f32>(), y[2].data::<u8>()), (&[scale][..], &[zero_point][..]));
        }
    }
}
