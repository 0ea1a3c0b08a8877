//! Running one operator on its own: constant folding, tests, and the fallback of plans.

use super::{Layout, LayoutRule, Op, OpError, Quantization, Spec};
use crate::check;
use crate::compile::Operand;
use crate::layout::{to_channels_last, to_plain};
use crate::quant::QuantParams;
use crate::tensor::{AlignedBytes, DType, Tensor, TensorView, TensorViewMut, checked_bytes};

/// The quantization of a view of codes.
///
/// # Panics
/// If the view has none; plans give one to every operator that they run on codes.
pub(crate) fn quant<'a>(view: &TensorView<'a>) -> &'a QuantParams {
    view.quant.expect("codes have a quantization")
}

/// Codes of either 8-bit type as integers.
pub(crate) fn codes(view: &TensorView) -> Vec<i32> {
    match view.dtype {
        DType::I8 => view.data::<i8>().iter().map(|&q| q.into()).collect(),
        _ => view.data::<u8>().iter().map(|&q| q.into()).collect(),
    }
}

/// An accumulator as a `u8` code, by the one rule of the kernels; `zero_point` is within 0..=255.
pub(crate) fn requantize(acc: i32, multiplier: f32, zero_point: i32) -> u8 {
    daq_kernels::requantize(acc, multiplier, zero_point as u8)
}

/// Element `at` of a product's output from its sum: a code, or where the output is float the real
/// number, nothing being rounded to a code.
pub(crate) fn store_sum(y: &mut TensorViewMut, at: usize, acc: i32, multiplier: f32) {
    match y.code_quant() {
        Some(quant) => y.bytes[at] = requantize(acc, multiplier, quant.zero_point[0]),
        None => y.data_mut::<f32>()[at] = acc as f32 * multiplier,
    }
}

/// The real numbers of a view: codes through their quantization, other numbers as they are.
#[expect(clippy::unnecessary_cast, reason = "one arm of many types casts f32 to itself")]
pub fn dequantize(view: &TensorView) -> Vec<f32> {
    let Some(quant) = view.quant.filter(|_| view.dtype != DType::F32) else {
        return crate::for_any_type!(view.dtype, T => {
            view.data::<T>().iter().map(|&x| x as f32).collect()
        });
    };
    let inner: usize = view.shape.get(quant.axis + 1..).unwrap_or_default().iter().product();
    let count = quant.scale.len();
    let real = |(i, q): (usize, i32)| {
        let c = if count == 1 { 0 } else { i / inner % count };
        (q - quant.zero_point_of(c)) as f32 * quant.scale_of(c)
    };
    match view.dtype {
        DType::I32 => view.data::<i32>().iter().copied().enumerate().map(real).collect(),
        _ => codes(view).into_iter().enumerate().map(real).collect(),
    }
}

/// Real numbers as the codes of `output` (8-bit), or as plain numbers (saturated to integers)
/// where it has no quantization.
pub fn quantize(real: &[f32], output: &mut TensorViewMut) {
    let Some(quant) = output.quant.filter(|_| output.dtype != DType::F32) else {
        crate::for_any_type!(output.dtype, T => {
            output.data_mut::<T>().iter_mut().zip(real).for_each(|(y, &x)| *y = x as T);
        });
        return;
    };
    let inner: usize = output.shape.get(quant.axis + 1..).unwrap_or_default().iter().product();
    let count = quant.scale.len();
    let of = |i: usize| if count == 1 { 0 } else { i / inner % count };
    let code = |i: usize, x: f32, low, high| {
        let c = of(i);
        QuantParams::per_tensor(quant.scale_of(c), quant.zero_point_of(c)).code(x, low, high)
    };
    match output.dtype {
        DType::I8 => {
            for (i, (q, &x)) in output.data_mut::<i8>().iter_mut().zip(real).enumerate() {
                *q = code(i, x, -128, 127) as i8;
            }
        }
        _ => {
            for (i, (q, &x)) in output.data_mut::<u8>().iter_mut().zip(real).enumerate() {
                *q = code(i, x, 0, 255) as u8;
            }
        }
    }
}

/// Whether an operator takes and gives real numbers here, so that codes are converted around it.
fn in_float(op: &Op, inputs: &[Option<TensorView>], outputs: &[TensorViewMut]) -> bool {
    use Quantization::{Averages, FloatInside, Integer, Table};
    let inputs = inputs.iter().flatten().map(|v| (v.dtype, v.quant));
    let mut all = inputs.chain(outputs.iter().map(|v| (v.dtype, v.quant)));
    match op.quantization() {
        Averages | FloatInside | Table => all.any(|(dtype, _)| dtype.is_code()),
        // Its own form is for codes of one scale only.
        Integer => {
            let whole = |quant: Option<&QuantParams>| quant.is_some_and(|q| q.is_per_tensor());
            all.clone().any(|(dtype, _)| dtype.is_code())
                && !all.all(|(dtype, quant)| dtype.is_code() && whole(quant))
        }
        _ => false,
    }
}

/// Runs an operator on physical views. Codes go through float where the operator has no integer
/// form of its own.
pub(crate) fn run(op: &Op, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
    if !in_float(op, inputs, outputs) {
        return op.run(inputs, outputs);
    }
    let real: Vec<_> = inputs.iter().map(|v| v.as_ref().map(|v| real_tensor(v))).collect();
    let views: Vec<_> = real.iter().map(|t| t.as_ref().map(Tensor::view)).collect();
    let mut float: Vec<_> = outputs
        .iter()
        .map(|o| {
            let real = o.quant.is_some() || o.dtype.is_code();
            let dtype = if real { DType::F32 } else { o.dtype };
            Tensor::zeros(dtype, o.shape)
        })
        .map(|t| (t.dtype(), t.shape().to_vec(), AlignedBytes::zeroed(t.bytes().len())))
        .collect();
    let mut float_views: Vec<_> = float
        .iter_mut()
        .map(|(dtype, shape, bytes)| TensorViewMut {
            dtype: *dtype,
            shape,
            quant: None,
            bytes: bytes.as_mut_slice(),
        })
        .collect();
    op.run(&views, &mut float_views);
    for (float, output) in float_views.iter().zip(outputs) {
        if output.quant.is_some() || output.dtype.is_code() {
            quantize(bytemuck::cast_slice(float.bytes), output);
        } else {
            output.bytes.copy_from_slice(float.bytes);
        }
    }
}

fn real_tensor(view: &TensorView) -> Tensor {
    if view.quant.is_some() || view.dtype.is_code() {
        return Tensor::from_slice(view.shape, &dequantize(view));
    }
    view.to_tensor()
}

/// A tensor with its quantization: what [`evaluate`] takes.
pub type Quantized<'a> = (&'a Tensor, Option<&'a QuantParams>);

/// Runs one operator on plain tensors of logical shape and gives plain outputs.
///
/// `outputs` names type and quantization of the outputs where they are codes; empty for the types
/// that [`Op::infer`] gives.
pub fn evaluate(
    op: &Op,
    inputs: &[Option<Quantized>],
    outputs: &[(DType, QuantParams)],
) -> Result<Vec<Tensor>, OpError> {
    let spec = |t: &Quantized| Spec::new(t.0.dtype(), t.0.shape());
    let specs: Vec<_> = inputs.iter().map(|t| t.as_ref().map(spec)).collect();
    let inferred = op.infer(&specs)?;
    for spec in &inferred {
        checked_bytes("the output", spec.dtype, &spec.shape)
            .map_err(|e| OpError::unsupported(e.to_string(), "check the model's shapes"))?;
    }
    let operands: Vec<_> = inputs
        .iter()
        .map(|t| {
            t.map(|(t, quant)| Operand { dtype: t.dtype(), shape: t.shape(), quant, data: Some(t) })
        })
        .collect();
    let output_operands: Vec<_> = inferred
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let (dtype, quant) = outputs.get(i).map_or((spec.dtype, None), |(d, q)| (*d, Some(q)));
            Operand { dtype, shape: &spec.shape, quant, data: None }
        })
        .collect();
    check::runnable(op, &operands, &output_operands)?;
    let rule = op.layout(&specs);
    let mut tensors: Vec<_> = inputs.iter().map(|t| t.map(|(t, q)| (t.clone(), q))).collect();
    let layout = match rule {
        LayoutRule::ChannelsLast => Layout::ChannelsLast,
        LayoutRule::Plain | LayoutRule::Any => Layout::Plain,
    };
    if let (Layout::ChannelsLast, Some(Some((x, _)))) = (layout, tensors.first_mut()) {
        *x = to_channels_last(x);
    }
    let views: Vec<_> =
        tensors.iter().map(|t| t.as_ref().map(|(t, q)| t.quantized_view(*q))).collect();
    let mut results: Vec<_> = inferred
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let (dtype, quant) = outputs.get(i).map_or((spec.dtype, None), |(d, q)| (*d, Some(q)));
            let shape = layout.physical(&spec.shape);
            let len = shape.iter().product::<usize>() * dtype.size();
            (dtype, quant, shape, AlignedBytes::zeroed(len))
        })
        .collect();
    let mut result_views: Vec<_> = results
        .iter_mut()
        .map(|(dtype, quant, shape, bytes)| TensorViewMut {
            dtype: *dtype,
            shape,
            quant: *quant,
            bytes: bytes.as_mut_slice(),
        })
        .collect();
    run(op, &views, &mut result_views);
    let plain = results.into_iter().zip(&inferred).map(|((dtype, _, shape, bytes), spec)| {
        let tensor = Tensor::from_aligned(dtype, &shape, bytes);
        match layout {
            Layout::ChannelsLast => to_plain(&tensor, &spec.shape),
            Layout::Plain => tensor,
        }
    });
    Ok(plain.collect())
}

/// Runs one operator on plain tensors without quantization.
pub fn evaluate_plain(op: &Op, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
    let inputs: Vec<_> = inputs.iter().map(|t| t.map(|t| (t, None))).collect();
    evaluate(op, &inputs, &[])
}

/// For tests: the output of an operator on inputs that are computed, so that nothing checks their
/// elements.
#[cfg(test)]
pub(crate) fn evaluate_computed(op: &Op, inputs: &[Option<&Tensor>]) -> Tensor {
    let spec = |t: &Option<&Tensor>| t.map(|t| Spec::new(t.dtype(), t.shape()));
    let specs: Vec<_> = inputs.iter().map(spec).collect();
    let Spec { dtype, shape } = op.infer(&specs).unwrap().swap_remove(0);
    let mut data = AlignedBytes::zeroed(shape.iter().product::<usize>() * dtype.size());
    let views: Vec<_> = inputs.iter().map(|t| t.map(Tensor::view)).collect();
    let bytes = data.as_mut_slice();
    op.run(&views, &mut [TensorViewMut { dtype, shape: &shape, quant: None, bytes }]);
    Tensor::from_aligned(dtype, &shape, data)
}
