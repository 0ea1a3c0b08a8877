//! QuantizeLinear: `saturate(round(x / scale) + zero_point)`, ties to even. Opsets 10, 13, 19, 21.
//!
//! Scale, zero point and axis are the output's quantization, not attributes.

use daq_kernels::quantize_f32_u8;

use super::*;

/// ONNX QuantizeLinear, with one input: floats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizeLinear {
    /// Whether the data lie channels-last; the axis of a quantization is always logical.
    pub channels_last: bool,
}

impl Operator for QuantizeLinear {
    const NAME: &'static str = "QuantizeLinear";
    const INPUTS: usize = 3;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(QuantizeLinear::default())
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        const FLOAT: unary::Types = unary::Types(&[DType::F32], "f32");
        let x = FLOAT.input(inputs, 0)?;
        Ok(vec![Spec { dtype: DType::U8, ..x.clone() }])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let y = &mut outputs[0];
        let quant = y.quant.map(|quant| quant.in_memory(self.channels_last, x.shape.len()));
        let (dtype, shape, bytes) = (y.dtype, y.shape, &mut *y.bytes);
        let mut y = TensorViewMut { dtype, shape, quant: quant.as_ref(), bytes };
        eval::quantize(x.data(), &mut y);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        QuantizeLinear { channels_last: rank >= 3 }
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (x, y, isa) = (compile.input(0)?, compile.outputs.first()?, compile.isa);
        let (scale, zero_point) = elementwise::u8_quant(y)?;
        let fits = x.dtype == DType::F32 && compile.clamp.is_none();
        fits.then(|| {
            elementwise::unary("quantize_f32_u8", move |x: &[f32], y: &mut [u8]| {
                quantize_f32_u8(x, scale, zero_point, y, isa);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QuantParams;

    #[test]
    fn numbers_worked_out_by_hand() {
        let x = [0.0f32, 0.25, 0.75, -0.75, 1e30, -1e30, f32::NAN, f32::INFINITY];
        let x = Tensor::from_slice(&[8], &x);
        let op: Op = QuantizeLinear::default().into();
        let run = |dtype, quant| eval::evaluate(&op, &[Some((&x, None))], &[(dtype, quant)]);
        let y = run(DType::U8, QuantParams::per_tensor(0.5, 10)).unwrap();
        assert_eq!(y[0].data::<u8>(), [10, 10, 12, 8, 255, 0, 0, 255]);
        let y = run(DType::I8, QuantParams::per_tensor(0.5, -1)).unwrap();
        assert_eq!(y[0].data::<i8>(), [-1, -1, 1, -3, 127, -128, 0, 127]);
    }

    #[test]
    fn one_scale_per_channel_in_both_layouts() {
        let quant = QuantParams { scale: vec![1., 2.], zero_point: vec![0, 5], axis: 1 };
        for (channels_last, shape, x, want) in [
            (false, [1, 2, 3], [1f32, 2., 3., 4., 5., 7.], [1u8, 2, 3, 7, 7, 9]),
            (true, [1, 3, 2], [1., 4., 2., 5., 3., 7.], [1, 7, 2, 7, 3, 9]),
        ] {
            let op = match channels_last {
                false => Op::from(QuantizeLinear::default()),
                true => Op::from(QuantizeLinear::default()).to_channels_last(3),
            };
            let x = Tensor::from_slice(&shape, &x);
            let y = eval::evaluate(&op, &[Some((&x, None))], &[(DType::U8, quant.clone())]);
            assert_eq!(y.unwrap()[0].data::<u8>(), want);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let op = QuantizeLinear::default();
        assert!(op.infer(&[]).is_err());
        assert!(op.infer(&[Some(Spec::new(DType::I32, &[2]))]).is_err());
    }
}
