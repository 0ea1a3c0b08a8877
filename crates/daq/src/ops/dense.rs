//! Products with constant weights, compiled: what Conv, Gemm and MatMul share.
//!
//! All of them are a [`ConvShape`] over channels-last data; they differ in where the weights and
//! the multipliers come from.

use std::borrow::Cow;
use std::ops::Range;

use daq_kernels::{
    ConvF32, ConvF32Params, ConvI32, ConvShape, ConvU8, ConvU8F32, ConvU8Params, Pool, WeightsU8,
};

use super::pixels::{compiled, over_pixels};
use super::*;
use crate::compile::Operand;
use crate::layout::{self, Layout};
use crate::quant::requantize_multipliers;
use crate::tensor::{AlignedBytes, Element};

/// What a compiled product is made from; weights are `[out_c, in_c / groups, kernel_h, kernel_w]`.
pub(crate) struct Dense<'a> {
    /// The geometry.
    pub(crate) shape: ConvShape,
    /// Floats, or codes of either type.
    pub(crate) weights: &'a Tensor,
    /// One element for each output channel: floats, or 32-bit integers beside codes.
    pub(crate) bias: Option<&'a Tensor>,
    /// `x_scale * w_scale[c] / y_scale`, without the last where codes become floats; empty where all
    /// are floats.
    pub(crate) multipliers: &'a [f32],
    /// Zero points of the weights, one or one for each output channel.
    pub(crate) weight_zero_points: &'a [i32],
}

impl Dense<'_> {
    /// A fast kernel over input 0 and output 0 of `compile`; `None` where types do not fit.
    pub(crate) fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let s = self.shape;
        let (x, y) = (compile.input(0)?, compile.outputs.first()?);
        if s.weight_len() == 0 || y.is_empty() {
            return None;
        }
        if x.dtype == DType::F32 {
            let kernel = self.f32(compile)?;
            return by_pixels(kernel.kernel_name(), s, move |inputs, pixels, y| {
                kernel.run(inputs[0].expect("checked by infer").data(), pixels, y);
            });
        }
        if y.dtype == DType::F32 {
            let new = |params: &ConvU8Params| ConvU8F32::new(params, compile.bounds(), compile.isa);
            let kernel = self.codes(compile, 0, new)?;
            return by_pixels(kernel.kernel_name(), s, move |inputs, pixels, y| {
                kernel.run(inputs[0].expect("checked by infer").bytes, pixels, y);
            });
        }
        Some(Box::new(Product(self.u8(compile)?)))
    }

    /// The float kernel.
    pub(crate) fn f32(&self, compile: &Compile) -> Option<ConvF32> {
        if self.weights.dtype() != DType::F32 || compile.outputs.first()?.dtype != DType::F32 {
            return None;
        }
        let clamp = compile.bounds();
        let bias = self.bias.map_or(&[][..], |b| b.data::<f32>());
        let weights = self.weights.data::<f32>();
        let params = ConvF32Params { shape: self.shape, weights, bias, clamp };
        Some(ConvF32::new(&params, compile.isa))
    }

    /// The kernel from codes to codes.
    pub(crate) fn u8(&self, compile: &Compile) -> Option<ConvU8> {
        let y = compile.outputs.first().filter(|y| y.is_quantized())?;
        if compile.clamp.is_some() {
            return None;
        }
        let zero_point = y.quant?.zero_point[0] as u8;
        self.codes(compile, zero_point, |params| ConvU8::new(params, compile.isa))
    }

    /// A kernel that reads codes.
    fn codes<K>(
        &self,
        compile: &Compile,
        output_zero_point: u8,
        new: impl FnOnce(&ConvU8Params) -> K,
    ) -> Option<K> {
        let x = compile.input(0).filter(Operand::is_quantized)?;
        let unsigned: Vec<u8>;
        let weights = match self.weights.dtype() {
            DType::U8 => {
                unsigned = self.weight_zero_points.iter().map(|&z| z as u8).collect();
                WeightsU8::U8 { codes: self.weights.data(), zero_point: &unsigned }
            }
            DType::I8 if self.weight_zero_points.iter().all(|&z| z == 0) => {
                WeightsU8::I8(self.weights.data())
            }
            _ => return None,
        };
        let params = ConvU8Params {
            shape: self.shape,
            weights,
            bias: self.bias.map_or(&[], |b| b.data::<i32>()),
            input_zero_point: x.quant?.zero_point[0] as u8,
            multipliers: self.multipliers,
            output_zero_point,
        };
        Some(new(&params))
    }
}

/// Multipliers of a product's `channels` sums, and the zero points of its weights; empty for floats.
pub(crate) fn scales<'a>(compile: &Compile<'a>, channels: usize) -> (Vec<f32>, &'a [i32]) {
    match (compile.input(0), compile.input(1), compile.outputs.first()) {
        (Some(Operand { quant: Some(x), dtype, .. }), Some(w), Some(y)) if dtype.is_code() => {
            let Some(w) = w.quant else { return Default::default() };
            (requantize_multipliers(x, w, y.code_quant(), channels), &w.zero_point)
        }
        _ => Default::default(),
    }
}

/// A fast kernel for the sums of `u8` codes and constant weights `[out_c, in_c / groups, kernel_h,
/// kernel_w]`, of which input 2 is the zero point of the codes, and `zero_points` are those of the
/// weights, one or one for each output channel; `None` where inputs do not fit.
pub(crate) fn sums(
    compile: &Compile,
    shape: ConvShape,
    weights: &Tensor,
    zero_points: &[i32],
) -> Option<Box<dyn Kernel>> {
    let one_zero_point = compile.input(2).is_none_or(|z| z.len() == 1);
    let empty = shape.weight_len() == 0 || compile.outputs.first()?.is_empty();
    if compile.input(0)?.dtype != DType::U8 || !one_zero_point || empty || compile.clamp.is_some() {
        return None;
    }
    // Signed codes that have a zero point are moved up into the range of unsigned ones.
    let signed = weights.dtype() == DType::I8;
    let symmetric = signed && zero_points.iter().all(|&z| z == 0);
    let up = if signed { 128 } else { 0 };
    let zero_points: Vec<u8> = zero_points.iter().map(|&z| (z + up) as u8).collect();
    let codes: Cow<[u8]> = match signed && !symmetric {
        true => weights.bytes().iter().map(|q| q ^ 0x80).collect(),
        false => weights.bytes().into(),
    };
    let weights = match symmetric {
        true => WeightsU8::I8(weights.data()),
        false => WeightsU8::U8 { codes: &codes, zero_point: &zero_points },
    };
    let conv = ConvI32::new(shape, weights, compile.isa);
    by_pixels(conv.kernel_name(), shape, move |inputs, pixels, y| {
        let x = inputs[0].expect("checked by infer").bytes;
        let zero_point = inputs.get(2).copied().flatten().map_or(0, |z| z.bytes[0]);
        conv.run(x, zero_point, pixels, y);
    })
}

/// A kernel that computes ranges of the output's pixels, on the threads of the pool.
fn by_pixels<T: Element>(
    name: &'static str,
    shape: ConvShape,
    run: impl Fn(&[Option<TensorView>], Range<usize>, &mut [T]) + Send + Sync + 'static,
) -> Option<Box<dyn Kernel>> {
    compiled(name, move |inputs, y, pool| {
        let run = |pixels, y: &mut [T]| run(inputs, pixels, y);
        over_pixels(pool, y.data_mut(), shape.out_c, shape.out_w, run);
    })
}

/// A product on codes, compiled.
struct Product(ConvU8);

impl Kernel for Product {
    fn name(&self) -> String {
        self.0.kernel_name().into()
    }

    fn product(&self) -> Option<&ConvU8> {
        Some(&self.0)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        self.0.run_on(pool, inputs[0].expect("checked by infer").bytes, outputs[0].bytes, None);
    }
}

/// The elements `index(i)` of a tensor as a tensor of `shape`, whatever their type.
pub(crate) fn permuted(tensor: &Tensor, shape: &[usize], index: impl Fn(usize) -> usize) -> Tensor {
    let size = tensor.dtype().size();
    let mut bytes = vec![0; shape.iter().product::<usize>() * size];
    for (i, out) in bytes.chunks_exact_mut(size).enumerate() {
        out.copy_from_slice(&tensor.bytes()[index(i) * size..][..size]);
    }
    Tensor::from_bytes(tensor.dtype(), shape, &bytes)
}

/// A matrix `[rows, columns]` as `[columns, rows]`, whatever the type of its elements.
pub(crate) fn transposed(matrix: &Tensor, [rows, columns]: [usize; 2]) -> Tensor {
    let mut bytes = AlignedBytes::zeroed(matrix.bytes().len());
    let (size, to) = (matrix.dtype().size(), Layout::ChannelsLast);
    layout::convert(&[1, rows, columns], size, to, matrix.bytes(), bytes.as_mut_slice());
    Tensor::from_aligned(matrix.dtype(), &[columns, rows], bytes)
}

/// Types of a product's inputs: floats with floats, or `u8` codes with 8-bit weights and an `i32` bias.
pub(crate) fn check_types(inputs: &[Option<Spec>]) -> Result<(), OpError> {
    use super::pixels::allow;
    allow(inputs, 0, &[DType::F32, DType::U8], "f32, u8")?;
    if required(inputs, 0)?.dtype == DType::F32 {
        allow(inputs, 1, &[DType::F32], "f32, as input 0")?;
        return allow(inputs, 2, &[DType::F32], "f32, as input 0");
    }
    allow(inputs, 1, &[DType::U8, DType::I8], "u8, i8 where input 0 is u8")?;
    allow(inputs, 2, &[DType::I32], "i32 where input 0 is u8")
}
