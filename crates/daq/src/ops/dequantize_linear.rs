//! DequantizeLinear: `(q - zero_point) * scale`. Opsets 10, 13, 19, 21.
//!
//! Scale, zero point and axis are the input's quantization, not attributes.

use daq_kernels::dequantize_u8_f32;

use super::*;

/// ONNX DequantizeLinear, with one input: 8-bit codes or 32-bit integers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DequantizeLinear {
    /// Whether the data lie channels-last; the axis of a quantization is always logical.
    pub channels_last: bool,
}

impl Operator for DequantizeLinear {
    const NAME: &'static str = "DequantizeLinear";
    const INPUTS: usize = 3;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(DequantizeLinear::default())
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        const CODES: unary::Types =
            unary::Types(&[DType::U8, DType::I8, DType::I32], "u8, i8 and i32");
        let x = CODES.input(inputs, 0)?;
        Ok(vec![Spec { dtype: DType::F32, ..x.clone() }])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let quant = x.quant.map(|quant| quant.in_memory(self.channels_last, x.shape.len()));
        let real = eval::dequantize(&TensorView { quant: quant.as_ref(), ..x });
        outputs[0].data_mut::<f32>().copy_from_slice(&real);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        DequantizeLinear { channels_last: rank >= 3 }
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (x, y, isa) = (compile.input(0)?, compile.outputs.first()?, compile.isa);
        let (scale, zero_point) = elementwise::u8_quant(&x)?;
        let fits = y.dtype == DType::F32 && compile.clamp.is_none();
        fits.then(|| {
            elementwise::unary("dequantize_u8_f32", move |x: &[u8], y: &mut [f32]| {
                dequantize_u8_f32(x, scale, zero_point, y, isa);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QuantParams;

    fn run(op: &Op, x: &Tensor, quant: &QuantParams) -> Vec<f32> {
        let y = eval::evaluate(op, &[Some((x, Some(quant)))], &[]).unwrap();
        y[0].data::<f32>().to_vec()
    }

    #[test]
    fn numbers_worked_out_by_hand() {
        let op: Op = DequantizeLinear::default().into();
        let x = Tensor::from_slice(&[3], &[0u8, 10, 255]);
        assert_eq!(run(&op, &x, &QuantParams::per_tensor(0.5, 10)), [-5., 0., 122.5]);
        let x = Tensor::from_slice(&[3], &[-128i8, 0, 127]);
        assert_eq!(run(&op, &x, &QuantParams::per_tensor(2.0, -1)), [-254., 2., 256.]);
        let x = Tensor::from_slice(&[2], &[-1000i32, 70_000]);
        assert_eq!(run(&op, &x, &QuantParams::per_tensor(0.25, 0)), [-250., 17_500.]);
    }

    #[test]
    fn one_scale_per_channel_in_both_layouts() {
        let quant = QuantParams { scale: vec![1., 2.], zero_point: vec![0, 5], axis: 1 };
        let op: Op = DequantizeLinear::default().into();
        let plain = Tensor::from_slice(&[1, 2, 3], &[1u8, 2, 3, 4, 5, 6]);
        assert_eq!(run(&op, &plain, &quant), [1., 2., 3., -2., 0., 2.]);
        let last = Tensor::from_slice(&[1, 3, 2], &[1u8, 4, 2, 5, 3, 6]);
        assert_eq!(run(&op.to_channels_last(3), &last, &quant), [1., -2., 2., 0., 3., 2.]);
    }

    #[test]
    fn misfits_are_errors() {
        let op = DequantizeLinear::default();
        assert!(op.infer(&[]).is_err());
        assert!(op.infer(&[Some(Spec::new(DType::I64, &[2]))]).is_err());
    }
}
