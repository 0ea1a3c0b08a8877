//! GlobalAveragePool: the mean of each channel over all of space. Opsets 1, 22.
//!
//! Floats: `(0.0 + x_0 + x_1 + ...) / n` row by row. Codes: `rne(acc * (sa / (sc * n))) + zc` with
//! `acc` the sum of `q - za`.

use daq_kernels::{ConvShape, GlobalAveragePoolF32, GlobalAveragePoolU8, GlobalAveragePoolU8Params};

use super::eval::{quant, requantize};
use super::moves::sized;
use super::pixels::*;
use super::*;

/// ONNX GlobalAveragePool, over any number of spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalAveragePool;

/// The output of a pooling over all of space.
pub(crate) fn global_output(inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
    let x = required(inputs, 0)?;
    let Some(space @ [_, ..]) = x.shape.get(2..) else {
        return Err(shape_error("needs batch, channels and a spatial axis", inputs));
    };
    if space.contains(&0) {
        return Err(shape_error("there is nothing to pool", inputs));
    }
    let mut shape = vec![1; x.shape.len()];
    shape[..2].copy_from_slice(&x.shape[..2]);
    sized(x.dtype, x.shape.clone(), inputs)?;
    sized(x.dtype, shape, inputs)
}

/// Batch, pixels and channels of a channels-last shape.
pub(crate) fn batch_pixels_channels(shape: &[usize]) -> (usize, usize, usize) {
    let last = shape.len() - 1;
    (shape[0], shape[1..last].iter().product(), shape[last])
}

/// A fast kernel for the mean over space of channels-last data.
pub(crate) fn mean_kernel(compile: &Compile) -> Option<Box<dyn Kernel>> {
    let (x, y) = (compile.input(0)?, compile.outputs.first()?);
    let (batch, pixels, channels) = batch_pixels_channels(x.shape);
    if compile.clamp.is_some() || batch * channels == 0 {
        return None;
    }
    if x.dtype == DType::F32 {
        let shape = ConvShape { batch, in_h: 1, in_w: pixels, in_c: channels, ..ConvShape::gemm(1, 1, 1) };
        let kernel = GlobalAveragePoolF32::new(&shape, compile.isa);
        return compiled("global_average_pool_f32", move |inputs, y, pool| {
            let x = inputs[0].expect("checked by infer").data::<f32>();
            pool.for_each_chunk(y.data_mut::<f32>(), channels, |i, y| kernel.run(x, i..i + 1, y));
        });
    }
    let (xq, yq) = (x.quant?, y.quant?);
    if !x.is_quantized() || !y.is_quantized() {
        return None;
    }
    let params = GlobalAveragePoolU8Params {
        pixels,
        channels,
        input_scale: xq.scale[0],
        input_zero_point: xq.zero_point[0] as u8,
        output_scale: yq.scale[0],
        output_zero_point: yq.zero_point[0] as u8,
    };
    let kernel = GlobalAveragePoolU8::new(&params, compile.isa);
    compiled("global_average_pool_u8", move |inputs, y, pool| {
        let x = inputs[0].expect("checked by infer").data::<u8>();
        pool.for_each_chunk(y.data_mut::<u8>(), channels, |i, y| {
            kernel.run(&x[i * pixels * channels..][..pixels * channels], y);
        });
    })
}

impl Operator for GlobalAveragePool {
    const NAME: &'static str = "GlobalAveragePool";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(GlobalAveragePool)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        allow(inputs, 0, &[DType::F32, DType::U8], "f32, u8")?;
        global_output(inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        let (_, pixels, channels) = batch_pixels_channels(x.shape);
        if y.is_empty() {
            return;
        }
        if x.dtype == DType::F32 {
            let pictures = x.data::<f32>().chunks_exact(pixels * channels);
            for (x, y) in pictures.zip(y.data_mut::<f32>().chunks_exact_mut(channels)) {
                y.fill(0.0);
                for x in x.chunks_exact(channels) {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
                }
                y.iter_mut().for_each(|y| *y /= pixels as f32);
            }
            return;
        }
        let (xq, yq) = (quant(&x), y.quant.expect("codes have a quantization"));
        let multiplier = xq.scale[0] / (yq.scale[0] * pixels as f32);
        let pictures = x.data::<u8>().chunks_exact(pixels * channels);
        for (x, y) in pictures.zip(y.bytes.chunks_exact_mut(channels)) {
            for (c, y) in y.iter_mut().enumerate() {
                let codes = x.iter().skip(c).step_by(channels);
                let acc: i64 = codes.map(|&q| i64::from(q) - i64::from(xq.zero_point[0])).sum();
                let acc = acc.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                *y = requantize(acc, multiplier, yq.zero_point[0]);
            }
        }
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
    }

    fn quantization(&self) -> Quantization {
        Quantization::Integer
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        mean_kernel(compile)
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;
    use crate::QuantParams;

    #[test]
    fn means_of_floats_and_codes() {
        let op: Op = GlobalAveragePool.into();
        let x = Tensor::from_slice(&[1, 2, 1, 2], &[1f32, 2., 5., -1.]);
        let y = evaluate_plain(&op, &[Some(&x)]).unwrap();
        assert_eq!((y[0].shape(), y[0].data::<f32>()), (&[1, 2, 1, 1][..], &[1.5, 2.][..]));
        let x = Tensor::from_slice(&[1, 2, 2], &[11u8, 14, 10, 0]);
        let (xq, yq) = (QuantParams::per_tensor(0.5, 10), QuantParams::per_tensor(0.5, 3));
        let y = evaluate(&op, &[Some((&x, Some(&xq)))], &[(DType::U8, yq)]).unwrap();
        // 5 / 2 = 2.5 to even 2, + 3; -10 / 2 + 3 is below the codes.
        assert_eq!(y[0].data::<u8>(), [5, 0]);
        for shape in [vec![1, 2], vec![1, 2, 0]] {
            assert!(op.infer(&[Some(Spec::new(DType::F32, &shape))]).is_err());
        }
    }

    #[test]
    fn kernels_equal_the_reference() {
        let (xq, yq) = (QuantParams::per_tensor(0.031, 101), QuantParams::per_tensor(0.011, 77));
        let op: Op = GlobalAveragePool.into();
        for shape in [[1, 1, 1, 1], [2, 7, 7, 33], [1, 3, 5, 1280], [3, 14, 1, 16]] {
            let out = [shape[0], 1, 1, shape[3]];
            let x = noise(&shape);
            assert_kernel_is_run(&op, &[Some((&x, None))], &[], (DType::F32, &out, None), true);
            let x = code_noise(DType::U8, &shape);
            let output = (DType::U8, &out[..], Some(&yq));
            assert_kernel_is_run(&op, &[Some((&x, Some(&xq)))], &[], output, true);
        }
    }
}
