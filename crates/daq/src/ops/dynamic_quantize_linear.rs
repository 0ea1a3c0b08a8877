//! DynamicQuantizeLinear: floats as `u8` codes at the scale of their own range. Opset 11.

use daq_kernels::{Isa, Pool, RangeF32, quantize_f32_u8, range_f32};

use super::moves::rows_per_task;
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
        let low = x.iter().fold(0f32, |low, &x| low.min(x));
        let high = x.iter().fold(0f32, |high, &x| high.max(x));
        let (scale, zero_point) = params(low, high);
        let code = |x: f32| ((x / scale).round_ties_even() + zero_point).clamp(0.0, 255.0) as u8;
        outputs[0].bytes.iter_mut().zip(x).for_each(|(q, &x)| *q = code(x));
        write_params(outputs, scale, zero_point);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        compile.clamp.is_none().then(|| Box::new(Quantize(compile.isa)) as _)
    }
}

/// Scale and zero point of a range, which is widened to hold 0, so that it has a code of its own.
fn params(low: f32, high: f32) -> (f32, f32) {
    let (low, high) = (low.min(0.0), high.max(0.0));
    // All zeros fit any scale.
    let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
    (scale, (0.0 - low / scale).clamp(0.0, 255.0).round_ties_even())
}

fn write_params(outputs: &mut [TensorViewMut], scale: f32, zero_point: f32) {
    if let Some(output) = outputs.get_mut(1) {
        output.data_mut::<f32>()[0] = scale;
    }
    if let Some(output) = outputs.get_mut(2) {
        output.bytes[0] = zero_point as u8;
    }
}

/// The same in vectors and threads.
struct Quantize(Isa);

impl Kernel for Quantize {
    fn name(&self) -> String {
        "dynamic_quantize_f32_u8".into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let x = inputs[0].expect("checked by infer").data::<f32>();
        let RangeF32 { min, max, finite } = range_f32(x, self.0);
        let (scale, zero_point) = params(min, max);
        if !finite || !scale.is_finite() || scale <= 0.0 {
            return DynamicQuantizeLinear.run(inputs, outputs);
        }
        let part = rows_per_task(pool, x.len(), 1).max(1);
        pool.for_each_chunk(outputs[0].bytes, part, |i, y| {
            quantize_f32_u8(&x[i * part..][..y.len()], scale, zero_point as u8, y, self.0);
        });
        write_params(outputs, scale, zero_point);
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

    #[test]
    fn the_kernel_equals_the_reference() {
        let noise = crate::ops::pixels::noise(&[1003]);
        let positive: Vec<f32> = noise.data::<f32>().iter().map(|x| x.abs() * 1e-3).collect();
        let mut cases = vec![noise.data::<f32>().to_vec(), positive, vec![0.0; 3], vec![1e-45, 0.0]];
        for odd in [f32::NAN, f32::INFINITY, f32::MAX, -0.0] {
            cases.push(vec![-f32::MAX, 1.0, odd]);
        }
        for x in cases {
            let x = Tensor::from_slice(&[x.len()], &x);
            let all = |run: &dyn Fn(&mut [TensorViewMut])| {
                let mut bytes = [x.len(), 4, 1].map(crate::tensor::AlignedBytes::zeroed);
                let kinds = [(DType::U8, x.shape()), (DType::F32, &[]), (DType::U8, &[])];
                let views = bytes.iter_mut().zip(kinds).map(|(bytes, (dtype, shape))| {
                    TensorViewMut { dtype, shape, quant: None, bytes: bytes.as_mut_slice() }
                });
                run(&mut views.collect::<Vec<_>>());
                bytes.map(|bytes| bytes.as_slice().to_vec())
            };
            let inputs = [Some(x.view())];
            let want = all(&|y| DynamicQuantizeLinear.run(&inputs, y));
            for &isa in Isa::ALL.iter().filter(|isa| isa.is_supported()) {
                let found = all(&|y| Quantize(isa).run(&inputs, y, &Pool::new(2)));
                assert!(found == want, "{isa:?} {:?}", x.shape());
            }
        }
    }
}
