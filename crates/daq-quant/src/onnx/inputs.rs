//! Types and shapes of a model's inputs, and what to do where they are not fixed.

use daq::DType;

use super::proto::{ValueInfoProto, tensor_shape_proto, type_proto};
use super::tensor::{held, type_name};

/// Type and shape of an input. An open first dimension is a batch of 1; wider and narrower floats
/// are given as `f32`. With `empty`, it may have no elements.
pub(super) fn input_type(
    name: &str,
    proto: &ValueInfoProto,
    wanted: Option<&Vec<usize>>,
    empty: bool,
) -> Result<(DType, Vec<usize>), String> {
    let Some(type_proto::Value::TensorType(tensor)) =
        proto.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Err("is not a tensor; export the model with tensors as inputs".into());
    };
    let data_type = tensor.elem_type.unwrap_or(0);
    let dtype = held(data_type).ok_or_else(|| {
        format!(
            "type {} is not supported; convert the model to float inputs (or uint8, int8, int32, \
             int64, bool)",
            type_name(data_type)
        )
    })?;
    let dims = tensor.shape.as_ref().map(|s| {
        let dims = s.dim.iter().map(|d| match &d.value {
            Some(tensor_shape_proto::dimension::Value::DimValue(n)) => Ok(*n),
            Some(tensor_shape_proto::dimension::Value::DimParam(p)) => Err(p.as_str()),
            None => Err("?"),
        });
        dims.collect::<Vec<_>>()
    });
    if let Some(wanted) = wanted {
        if dims.as_ref().is_some_and(|d| d.len() != wanted.len()) || !empty && wanted.contains(&0) {
            return Err(format!(
                "shape {wanted:?} was given, but the model says {}",
                shown(dims.as_deref())
            ));
        }
        return Ok((dtype, wanted.clone()));
    }
    let known = |i: usize, d: &Result<i64, &str>| match d {
        Ok(n) if *n > 0 => usize::try_from(*n).ok(),
        _ if i == 0 => Some(1),
        _ => None,
    };
    let shape = dims
        .as_ref()
        .and_then(|dims| dims.iter().enumerate().map(|(i, d)| known(i, d)).collect::<Option<_>>());
    let shape = shape.ok_or_else(|| {
        format!(
            "the shape is not fixed ({}); give it, for example `--shape {name}={}`",
            shown(dims.as_deref()),
            example(dims.as_deref())
        )
    })?;
    Ok((dtype, shape))
}

/// The shape of an input, `None` where a dimension is open.
pub(super) fn open_shape(proto: &ValueInfoProto) -> Vec<Option<usize>> {
    let Some(type_proto::Value::TensorType(tensor)) =
        proto.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Vec::new();
    };
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    dims.map(|d| match d.value {
        Some(tensor_shape_proto::dimension::Value::DimValue(n @ 1..)) => usize::try_from(n).ok(),
        _ => None,
    })
    .collect()
}

fn shown(dims: Option<&[Result<i64, &str>]>) -> String {
    let Some(dims) = dims else { return "of unknown rank".into() };
    let text = dims.iter().map(|d| d.map_or_else(str::to_string, |n| n.to_string()));
    format!("[{}]", text.collect::<Vec<_>>().join(", "))
}

/// A shape of the right rank, to show how one is given.
fn example(dims: Option<&[Result<i64, &str>]>) -> String {
    let Some(dims) = dims else { return "1,3,224,224".into() };
    let dim = |(i, d): (usize, &Result<i64, &str>)| match d {
        Ok(n) if *n > 0 => n.to_string(),
        _ => [1, 3].get(i).unwrap_or(&224).to_string(),
    };
    dims.iter().enumerate().map(dim).collect::<Vec<_>>().join(",")
}
