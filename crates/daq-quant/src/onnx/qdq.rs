//! QuantizeLinear and DequantizeLinear: their scale and zero point become the quantization of the
//! value on the side of the codes.

use daq::attrs::Attr;
use daq::{DType, Graph, OpError, QuantParams, Tensor};

use super::call::Call;
use super::legacy::is_code;
use super::tensor::{dtype, type_name};

/// Takes scale and zero point out of a QuantizeLinear or DequantizeLinear, and leaves one input
/// and no attribute. Gives the codes' type and quantization.
pub(super) fn take_quant(call: &mut Call, graph: &Graph) -> Result<(DType, QuantParams), OpError> {
    let quantize = call.op == "QuantizeLinear";
    let x = call.spec(graph, 0)?;
    if call.attrs.int("block_size", 0)? != 0 {
        let remedy = "quantize per tensor or per channel";
        return Err(OpError::unsupported("blocked quantization", remedy));
    }
    let default = match call.attrs.int("output_dtype", 0)? {
        _ if !quantize => Some(x.dtype),
        0 => None,
        other => Some(dtype(other as i32).filter(|&t| is_code(t)).ok_or_else(|| {
            OpError::unsupported(
                format!("codes of type {}", type_name(other as i32)),
                "quantize to uint8 or int8",
            )
        })?),
    };
    let (codes, mut quant) = quantization(call, graph, 1, default)?;
    if !quantize && codes != x.dtype {
        let allowed = "the type of the zero point";
        return Err(OpError::Type { index: 0, dtype: x.dtype, allowed });
    }
    if !quant.is_per_tensor() {
        let given = call.attrs.int("axis", 1)?;
        let rank = x.shape.len() as i64;
        let wrapped = if given < 0 { given.saturating_add(rank) } else { given };
        quant.axis = usize::try_from(wrapped).unwrap_or(usize::MAX);
        if x.shape.get(quant.axis) != Some(&quant.scale.len()) {
            return Err(OpError::Shape {
                why: format!("{} scales do not fit axis {given}", quant.scale.len()),
                shapes: vec![x.shape],
            });
        }
    }
    call.inputs.truncate(1);
    call.attrs.map.clear();
    Ok((codes, quant))
}

/// The scale at input `index` with the zero point after it, and the zero point's type: `default`,
/// or `uint8`, where it is left out.
pub(super) fn quantization(
    call: &Call,
    graph: &Graph,
    index: usize,
    default: Option<DType>,
) -> Result<(DType, QuantParams), OpError> {
    let scale = call.constant(graph, index, "scale")?.ok_or(OpError::MissingInput { index })?;
    let zero_point = call.constant(graph, index + 1, "zero point")?;
    if scale.dtype() != DType::F32 {
        let allowed = "float";
        return Err(OpError::Type { index, dtype: scale.dtype(), allowed });
    }
    let codes = zero_point.map_or(default.unwrap_or(DType::U8), Tensor::dtype);
    if !is_code(codes) {
        let allowed = "uint8, int8 and, for a bias, int32";
        return Err(OpError::Type { index: index + 1, dtype: codes, allowed });
    }
    let scales = scale.data::<f32>().to_vec();
    let zero_points = zero_point.map_or_else(|| vec![0; scales.len()], numbers);
    if zero_points.len() != scales.len() || scales.is_empty() || scale.shape().len() > 1 {
        return Err(OpError::Shape {
            why: format!("{} scales and {} zero points", scales.len(), zero_points.len()),
            shapes: vec![scale.shape().to_vec()],
        });
    }
    if let Some(bad) = scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        return Err(OpError::unsupported(
            format!("a scale of {bad}"),
            "scales must be positive and finite: quantize the model again",
        ));
    }
    if codes == DType::I32 && zero_points.iter().any(|&z| z != 0) {
        return Err(OpError::unsupported("an int32 zero point other than 0", "make it 0"));
    }
    Ok((codes, QuantParams { scale: scales, zero_point: zero_points, axis: 0 }))
}

fn numbers(tensor: &Tensor) -> Vec<i32> {
    match super::attribute::attr_of(&tensor.reshaped(&[tensor.len()])) {
        Attr::Ints(v) => v.into_iter().map(|v| v as i32).collect(),
        _ => Vec::new(),
    }
}
