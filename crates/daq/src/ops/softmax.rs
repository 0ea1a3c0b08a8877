//! Softmax: `exp(x) / sum(exp(x))` along one axis. Opset 13.
//!
//! Before, the sum ran over several axes at once: readers put a Reshape around that form.

use daq_kernels::{SoftmaxU8Params, softmax_f32, softmax_u8};

use super::pixels::{compiled, over_pixels};
use super::*;

/// ONNX Softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax(
    /// Where it runs.
    pub SoftmaxAxis,
);

/// Where Softmax and LogSoftmax run.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxAxis {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl SoftmaxAxis {
    pub(crate) fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        if attrs.opset < 13 {
            let form = format!("the softmax over several axes of opset {}", attrs.opset);
            return Err(OpError::unsupported(form, "convert the model to opset 13 or later"));
        }
        Ok(SoftmaxAxis { axis: attrs.int("axis", -1)? })
    }

    pub(crate) fn to_attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }

    pub(crate) fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::REALS.input(inputs, 0)?;
        normalize_axis(self.axis, x.shape.len())?;
        Ok(vec![x.clone()])
    }

    pub(crate) fn to_channels_last(&self, rank: usize) -> Self {
        SoftmaxAxis { axis: channels_last_axis(self.axis, rank) }
    }

    /// Subtracts the largest element; then the sum of exponentials divides them, or its logarithm
    /// is subtracted. The sum is taken in order.
    pub(crate) fn run(
        &self,
        inputs: &[Option<TensorView>],
        outputs: &mut [TensorViewMut],
        logarithm: bool,
    ) {
        let x = inputs[0].expect("checked by infer");
        let axis = normalize_axis(self.axis, x.shape.len()).expect("checked by infer");
        let (len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
        let (x, y) = (x.data::<f32>(), outputs[0].data_mut::<f32>());
        for start in (0..x.len()).step_by((len * inner).max(1)) {
            for first in start..start + inner {
                let row = || (0..len).map(|k| first + k * inner);
                let largest = row().fold(f32::NEG_INFINITY, |m, i| if x[i] > m { x[i] } else { m });
                let mut sum = 0.0;
                for i in row() {
                    let power = libm::expf(x[i] - largest);
                    sum += power;
                    y[i] = if logarithm { x[i] - largest } else { power };
                }
                let log = libm::logf(sum);
                row().for_each(|i| if logarithm { y[i] -= log } else { y[i] /= sum });
            }
        }
    }
}

impl Operator for Softmax {
    const NAME: &'static str = "Softmax";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        SoftmaxAxis::from_attrs(attrs).map(Softmax)
    }

    fn to_attrs(&self) -> Attrs {
        self.0.to_attrs()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        self.0.infer(inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        self.0.run(inputs, outputs, false);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        Softmax(self.0.to_channels_last(rank))
    }

    fn quantization(&self) -> Quantization {
        Quantization::FloatInside
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (x, y) = (compile.input(0)?, compile.outputs.first()?);
        let axis = normalize_axis(self.0.axis, x.shape.len()).ok()?;
        let len = x.shape[axis];
        let contiguous = x.shape[axis + 1..].iter().all(|&n| n == 1);
        if !contiguous || y.is_empty() || compile.clamp.is_some() {
            return None;
        }
        let (isa, rows) = (compile.isa, x.len() / len);
        let name = daq_kernels::Kernel::pick(daq_kernels::softmax::KERNELS, isa).name;
        if x.dtype == DType::F32 && y.dtype == DType::F32 {
            return compiled(name, move |inputs, y, pool| {
                let x = inputs[0].expect("checked by infer").data::<f32>();
                over_pixels(pool, y.data_mut(), len, rows, |rows, y: &mut [f32]| {
                    softmax_f32(&x[rows.start * len..rows.end * len], len, y, isa);
                });
            });
        }
        if !x.is_quantized() || !y.is_quantized() {
            return None;
        }
        let (xq, yq) = (x.quant?, y.quant?);
        let params = SoftmaxU8Params {
            input_scale: xq.scale[0],
            input_zero_point: u8::try_from(xq.zero_point[0]).ok()?,
            output_scale: yq.scale[0],
            output_zero_point: u8::try_from(yq.zero_point[0]).ok()?,
        };
        compiled(name, move |inputs, y, pool| {
            let x = inputs[0].expect("checked by infer").data::<u8>();
            over_pixels(pool, y.data_mut(), len, rows, |rows, y: &mut [u8]| {
                softmax_u8(&params, &x[rows.start * len..rows.end * len], len, y, isa);
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    fn op(axis: i64) -> Op {
        Softmax::from_attrs(&Attrs::new().with("axis", Attr::Int(axis))).unwrap().into()
    }

    #[test]
    fn axes() {
        let third = 1.0 / 3.0;
        let rows = [0.09003057, 0.244_728_48, 0.665_240_94, third, third, third];
        let columns =
            [0.7310586, 0.880_797, 0.95257413, 0.268_941_43, 0.119_202_92, 0.047_425_874];
        for (axis, shape, want) in [
            (-1, &[2, 3][..], rows),
            (1, &[2, 3], rows),
            (0, &[2, 3], columns),
            (-2, &[1, 2, 3], columns),
            (1, &[1, 2, 3, 1], columns),
        ] {
            let op = op(axis);
            let y = run_f32(&op, &[(shape, &[1., 2., 3., 0., 0., 0.])]);
            assert_near(y.data(), &want);
            assert_eq!(Op::from_attrs("Softmax", &op.to_attrs()), Some(Ok(op)));
        }
        assert_eq!(Op::from_attrs("Softmax", &Attrs::new()), Some(Ok(op(-1))));
        assert!(Softmax::from_attrs(&Attrs::of_opset(12)).is_err());
    }

    #[test]
    fn extremes() {
        let nan = f32::NAN;
        let x = [1000., 0., f32::NEG_INFINITY, 1., nan, 2.];
        let y = run_f32(&op(-1), &[(&[2, 3], &x)]);
        assert_near(y.data(), &[1., 0., 0., nan, nan, nan]);
        assert_eq!(run_f32(&op(-1), &[(&[2, 0], &[])]).len(), 0);
    }

    #[test]
    fn codes() {
        // Reals 0, 0, 1: e^0 / (2 + e) = 0.2119, 0.5761, times 256 = 54.3, 147.5 (147.489).
        let x = (&[1usize, 3][..], &[5u8, 5, 15][..], 0.1, 5);
        assert_eq!(run_u8(&op(-1), &[x], 1.0 / 256.0, 0), [54, 54, 147]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        use super::super::pixels::{assert_kernel_is_run, code_noise, noise};
        use crate::QuantParams;
        let (xq, yq) = (QuantParams::per_tensor(0.06, 100), QuantParams::per_tensor(1. / 256., 0));
        for (axis, shape, kernel) in [
            (-1, vec![3, 1000], true),
            (-1, vec![1, 4420, 2], true),
            (1, vec![2, 21, 1], true),
            (1, vec![2, 3, 4], false),
        ] {
            let x = noise(&shape);
            let out = (DType::F32, &shape[..], None);
            assert_kernel_is_run(&op(axis), &[Some((&x, None))], &[], out, kernel);
            let x = code_noise(DType::U8, &shape);
            let out = (DType::U8, &shape[..], Some(&yq));
            assert_kernel_is_run(&op(axis), &[Some((&x, Some(&xq)))], &[], out, kernel);
        }
    }

    #[test]
    fn channels_last_moves_the_axis() {
        assert_eq!(op(1).to_channels_last(4), op(3));
        assert_eq!(op(-1).to_channels_last(4), op(2));
        assert_eq!(op(1).layout(&[]), LayoutRule::Any);
    }

    #[test]
    fn misfits_are_errors() {
        assert!(op(2).infer(&[floats(&[2, 3])]).is_err());
        assert!(op(-1).infer(&[floats(&[])]).is_err());
        assert!(op(-1).infer(&[Some(Spec::new(DType::I64, &[2]))]).is_err());
        assert!(op(-1).infer(&[]).is_err());
    }
}
