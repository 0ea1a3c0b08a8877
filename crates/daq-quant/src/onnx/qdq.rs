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
    let scale = call.constant(graph, 1, "scale")?.ok_or(OpError::MissingInput { index: 1 })?;
    let zero_point = call.constant(graph, 2, "zero point")?;
    if scale.dtype() != DType::F32 {
        let allowed = "float";
        return Err(OpError::Type { index: 1, dtype: scale.dtype(), allowed });
    }
    if call.attrs.int("block_size", 0)? != 0 {
        let remedy = "quantize per tensor or per channel";
        return Err(OpError::unsupported("blocked quantization", remedy));
    }
    let codes = match zero_point {
        Some(zero_point) => zero_point.dtype(),
        None if !quantize => x.dtype,
        None => match call.attrs.int("output_dtype", 0)? {
            0 => DType::U8,
            other => dtype(other as i32).filter(|&t| is_code(t)).ok_or_else(|| {
                OpError::unsupported(
                    format!("codes of type {}", type_name(other as i32)),
                    "quantize to uint8 or int8",
                )
            })?,
        },
    };
    if !is_code(codes) {
        let allowed = "uint8, int8 and, for a bias, int32";
        return Err(OpError::Type { index: 2, dtype: codes, allowed });
    }
    if !quantize && codes != x.dtype {
        let allowed = "the type of the zero point";
        return Err(OpError::Type { index: 0, dtype: x.dtype, allowed });
    }
    let scales = scale.data::<f32>().to_vec();
    let count = scales.len();
    let zero_points = match zero_point {
        Some(zero_point) => numbers(zero_point),
        None => vec![0; count],
    };
    if zero_points.len() != count || scale.shape().len() > 1 {
        return Err(OpError::Shape {
            why: format!("{count} scales and {} zero points", zero_points.len()),
            shapes: vec![x.shape, scale.shape().to_vec()],
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
    let mut axis = 0;
    if count != 1 {
        let given = call.attrs.int("axis", 1)?;
        let rank = x.shape.len() as i64;
        let wrapped = if given < 0 { given.saturating_add(rank) } else { given };
        axis = usize::try_from(wrapped).unwrap_or(usize::MAX);
        if x.shape.get(axis) != Some(&count) {
            return Err(OpError::Shape {
                why: format!("{count} scales do not fit axis {given}"),
                shapes: vec![x.shape],
            });
        }
    }
    call.inputs.truncate(1);
    call.attrs.map.clear();
    Ok((codes, QuantParams { scale: scales, zero_point: zero_points, axis }))
}

fn numbers(tensor: &Tensor) -> Vec<i32> {
    match super::attribute::attr_of(&tensor.reshaped(&[tensor.len()])) {
        Attr::Ints(v) => v.into_iter().map(|v| v as i32).collect(),
        _ => Vec::new(),
    }
}
