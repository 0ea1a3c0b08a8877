//! QuantizeLinear and DequantizeLinear: their scale and zero point become the quantization of the
//! value on the side of the codes.

use daq::attrs::Attr;
use daq::ops::at_most;
use daq::{DType, Graph, OpError, QuantParams, Tensor};

use super::call::Call;
use super::legacy::is_code;
use super::tensor::{dtype, type_name};

/// Takes scale and zero point out of a QuantizeLinear or DequantizeLinear, and leaves one input
/// and no attribute. Gives the codes' type and quantization.
pub(super) fn take_quant(call: &mut Call, graph: &Graph) -> Result<(DType, QuantParams), OpError> {
    let quantize = call.op == "QuantizeLinear";
    let x = call.spec(graph, 0)?;
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
    // Of a wrong type they are wrong also where nothing depends on them.
    let given = call.attrs.int("axis", 1)?;
    other_attributes(call)?;
    if !quantize && codes != x.dtype {
        let allowed = "the type of the zero point";
        return Err(OpError::Type { index: 0, dtype: x.dtype, allowed });
    }
    if !quant.is_per_tensor() {
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
    call.attrs.all_asked()?;
    at_most(3, &call.inputs)?;
    call.inputs.truncate(1);
    call.attrs.map.clear();
    Ok((codes, quant))
}

/// Reads attributes of types that daq does not have.
fn other_attributes(call: &Call) -> Result<(), OpError> {
    call.attrs.int("saturate", 1)?;
    call.attrs.int("precision", 0)?;
    Ok(())
}

/// Whether a QuantizeLinear or DequantizeLinear has a scale for each block of elements.
pub(super) fn is_blocked(call: &Call) -> Result<bool, OpError> {
    let converts = matches!(call.op.as_str(), "QuantizeLinear" | "DequantizeLinear");
    Ok(converts && call.attrs.int("block_size", 0)? != 0)
}

/// What [`take_blocks`] took out of a call: scale and zero point of each element.
pub(super) struct Blocks {
    /// Of the shape of the elements.
    pub scale: Tensor,
    /// As floats, of the shape of the elements.
    pub zero_point: Tensor,
    /// The codes' type.
    pub codes: DType,
}

/// Takes scale and zero point out of a blocked QuantizeLinear or DequantizeLinear.
pub(super) fn take_blocks(call: &mut Call, graph: &Graph) -> Result<Blocks, OpError> {
    let x = call.spec(graph, 0)?;
    other_attributes(call)?;
    let wanted = dtype(call.attrs.int("output_dtype", 0)? as i32);
    let scale = call.constant(graph, 1, "scale")?.ok_or(OpError::MissingInput { index: 1 })?;
    let zero_point = call.constant(graph, 2, "zero point")?;
    if scale.dtype() != DType::F32 {
        return Err(OpError::Type { index: 1, dtype: scale.dtype(), allowed: "float" });
    }
    let codes = match (call.op.as_str(), zero_point) {
        (_, Some(zero_point)) => zero_point.dtype(),
        ("QuantizeLinear", None) => wanted.unwrap_or(DType::U8),
        _ => x.dtype,
    };
    if !codes.is_code() || (call.op == "DequantizeLinear" && codes != x.dtype) {
        return Err(OpError::Type { index: 2, dtype: codes, allowed: "uint8 and int8" });
    }
    check_scales(scale.data(), codes)?;
    let (given, block) = (call.attrs.int("axis", 1)?, call.attrs.int("block_size", 0)?);
    let rank = x.shape.len() as i64;
    let axis = usize::try_from(if given < 0 { given.saturating_add(rank) } else { given });
    let (axis, block) = (axis.unwrap_or(usize::MAX), usize::try_from(block).unwrap_or(0));
    let mut shape = x.shape.clone();
    if let Some(n) = shape.get_mut(axis) {
        *n = n.div_ceil(block.max(1));
    }
    let fits = |t: &Tensor| block > 0 && axis < x.shape.len() && t.shape() == shape;
    if !fits(scale) || !zero_point.is_none_or(fits) {
        let why = format!("scales and zero points must have the shape {shape:?}");
        return Err(OpError::Shape { why, shapes: vec![x.shape.clone(), scale.shape().to_vec()] });
    }
    let inner: usize = x.shape[axis + 1..].iter().product();
    let (blocks, len) = (shape[axis], x.shape[axis]);
    let of = |i: usize| {
        let (row, column) = (i / inner, i % inner);
        (row / len * blocks + row % len / block) * inner + column
    };
    let count: usize = x.shape.iter().product();
    let scales: Vec<f32> = (0..count).map(|i| scale.data::<f32>()[of(i)]).collect();
    let numbers = zero_point.map_or_else(|| vec![0; scale.len()], numbers);
    let zero_points: Vec<f32> = (0..count).map(|i| numbers[of(i)] as f32).collect();
    call.attrs.all_asked()?;
    at_most(3, &call.inputs)?;
    call.inputs.truncate(1);
    call.attrs.map.clear();
    Ok(Blocks {
        scale: Tensor::from_slice(&x.shape, &scales),
        zero_point: Tensor::from_slice(&x.shape, &zero_points),
        codes,
    })
}

/// Refuses scales that stand for no real numbers: `1 / scale` and 255 scales must be finite. That of
/// an `int32` bias is a product of two and may be any positive number.
pub(super) fn check_scales(scales: &[f32], codes: DType) -> Result<(), OpError> {
    let (least, most) = match codes {
        DType::I32 => (f32::from_bits(1), f32::MAX),
        _ => (f32::MIN_POSITIVE, 1e36),
    };
    match scales.iter().find(|s| !(least..=most).contains(*s)) {
        None => Ok(()),
        Some(bad) => Err(OpError::unsupported(
            format!("a scale of {bad:?}"),
            format!("it must lie within {least:?} and {most:?}: quantize the model again"),
        )),
    }
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
    check_scales(&scales, codes)?;
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
