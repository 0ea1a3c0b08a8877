//! Operators of other operator sets in the form of [`OPSET`].
//!
//! Where only a constant input was an attribute, or the other way round, the operators'
//! [`AttrInput`](daq::ops::AttrInput)s say all there is to say. The tables here hold the rest:
//! renamed operators, moved inputs, other defaults, and newer attributes that the older form
//! expresses differently or not at all.

use std::ops::RangeInclusive;

use daq::attrs::{Attr, OPSET};
use daq::ops::{AttrInput, Op, at_most};
use daq::{DType, Graph, OpError};

use super::call::Call;
use super::proto::tensor_proto::DataType;

type Rewrite = fn(&mut Call, &Graph) -> Result<(), OpError>;

/// An operator, the operator sets in which it has the form, and what makes it ours.
type Rule = (&'static str, RangeInclusive<i64>, Rewrite);

const ANY: RangeInclusive<i64> = 1..=i64::MAX;

/// Before constant inputs become attributes.
const FORMS: &[Rule] = &[
    ("CastLike", ANY, |call, graph| {
        let dtype = call.spec(graph, 1)?.dtype;
        let to = super::tensor::data_type(dtype);
        let remedy = "use Cast";
        let to = to.ok_or_else(|| OpError::unsupported(format!("a cast to {dtype}"), remedy))?;
        call.op = "Cast".into();
        at_most(2, &call.inputs)?;
        call.inputs.truncate(1);
        call.set("to", Attr::Int(to as i64));
        Ok(())
    }),
    ("Scatter", ANY, |call, _| {
        call.op = "ScatterElements".into();
        Ok(())
    }),
    ("Upsample", 7..=8, |call, _| {
        call.op = "Resize".into();
        call.attrs.opset = OPSET;
        Ok(())
    }),
    ("Upsample", 9..=i64::MAX, |call, _| {
        call.op = "Resize".into();
        scales_to_third_input(call)
    }),
    ("Resize", 10..=10, |call, _| scales_to_third_input(call)),
];

/// After constant inputs have become attributes.
const MEANINGS: &[Rule] = &[
    ("Resize", 7..=10, old_resize),
    ("Resize", ANY, resize),
    ("Softmax", 7..=12, flat_softmax),
    ("LogSoftmax", 7..=12, flat_softmax),
    ("Hardmax", 7..=12, flat_softmax),
    ("Pad", ANY, pad),
    ("Split", ANY, split),
    ("Cast", ANY, |call, _| float_for(call, "to")),
    ("EyeLike", ANY, |call, _| float_for(call, "dtype")),
    ("BatchNormalization", 7..=8, |call, _| only(call, "spatial", &Attr::Int(1))),
    ("ReduceMean", ANY, reduce),
    ("ReduceSum", ANY, reduce),
    ("ReduceMax", ANY, reduce),
    ("ReduceMin", ANY, reduce),
    ("ReduceProd", ANY, reduce),
    ("ReduceL1", ANY, reduce),
    ("ReduceL2", ANY, reduce),
    ("ReduceLogSum", ANY, reduce),
    ("ReduceLogSumExp", ANY, reduce),
    ("ReduceSumSquare", ANY, reduce),
];

/// Moves inputs and names of `call` to where ours are.
pub(super) fn forms(call: &mut Call, graph: &Graph) -> Result<(), OpError> {
    apply(FORMS, call, graph, call.attrs.opset)
}

/// Gives the attributes of `call` our meaning; `opset` is the model's.
pub(super) fn meanings(call: &mut Call, graph: &Graph, opset: i64) -> Result<(), OpError> {
    apply(MEANINGS, call, graph, opset)
}

fn apply(rules: &[Rule], call: &mut Call, graph: &Graph, opset: i64) -> Result<(), OpError> {
    let name = call.op.clone();
    for (op, opsets, rewrite) in rules {
        if *op == name && opsets.contains(&opset) {
            rewrite(call, graph)?;
        }
    }
    Ok(())
}

/// Wider and narrower floats are `f32`.
fn float_for(call: &mut Call, name: &str) -> Result<(), OpError> {
    let wide = [DataType::Double, DataType::Float16, DataType::Bfloat16].map(|t| t as i64);
    if call.attrs.get_int(name)?.is_some_and(|to| wide.contains(&to)) {
        call.set(name, Attr::Int(DataType::Float as i64));
    }
    Ok(())
}

/// Removes an attribute that must have one value.
fn only(call: &mut Call, name: &str, wanted: &Attr) -> Result<(), OpError> {
    match call.map().remove(name) {
        Some(found) if found != *wanted => Err(OpError::unsupported(
            format!("attribute `{name}` = {found:?}"),
            format!("export the model with {wanted:?}"),
        )),
        _ => Ok(()),
    }
}

fn scales_to_third_input(call: &mut Call) -> Result<(), OpError> {
    at_most(2, &call.inputs)?;
    if call.inputs.len() == 2 {
        call.inputs.insert(1, None);
    }
    call.attrs.opset = OPSET;
    Ok(())
}

/// Before 11, Resize and Upsample took the element at `y / scale`: down to the element before
/// when they enlarge, up to the one after when they shrink.
fn old_resize(call: &mut Call, _: &Graph) -> Result<(), OpError> {
    let scales = call.attrs.get_floats("scales")?.unwrap_or_default();
    let nearest = call.attrs.get_str("mode")?.is_none_or(|mode| mode == "nearest");
    call.set("coordinate_transformation_mode", Attr::Str("asymmetric".into()));
    if nearest {
        let shrinks = scales.iter().any(|&s| s < 1.0);
        if shrinks && scales.iter().any(|&s| s > 1.0) {
            return Err(OpError::unsupported(
                "a nearest Resize before operator set 11 that shrinks one axis and enlarges another",
                "convert the model to operator set 13",
            ));
        }
        let rounding = if shrinks { "ceil" } else { "floor" };
        call.set("nearest_mode", Attr::Str(rounding.into()));
    }
    Ok(())
}

/// Empty lists count as left out, and scales or sizes of some axes (18) become those of all.
fn resize(call: &mut Call, graph: &Graph) -> Result<(), OpError> {
    let policy = call.attrs.get_str("keep_aspect_ratio_policy")?.map(str::to_owned);
    call.map().remove("keep_aspect_ratio_policy");
    call.map().retain(|name, value| {
        let list = ["roi", "scales", "sizes"].contains(&name.as_str());
        !(list && (*value == Attr::Floats(vec![]) || *value == Attr::Ints(vec![])))
    });
    if call.attrs.map.contains_key("sizes") && call.attrs.map.contains_key("scales") {
        return Err(OpError::attribute("sizes", "is given beside scales; leave one of them out"));
    }
    if let Some(policy) = policy.filter(|policy| policy != "stretch") {
        keep_aspect_ratio(call, graph, &policy)?;
    }
    let Some(axes) = call.attrs.get_ints("axes")? else { return Ok(()) };
    call.map().remove("axes");
    let shape = call.spec(graph, 0)?.shape;
    if let Some(some) = call.attrs.get_floats("scales")? {
        let all = spread(&axes, &some, vec![1.0; shape.len()])?;
        call.set("scales", Attr::Floats(all));
    }
    if let Some(some) = call.attrs.get_ints("sizes")? {
        let all = spread(&axes, &some, shape.iter().map(|&d| d as i64).collect())?;
        call.set("sizes", Attr::Ints(all));
    }
    if let Some(roi) = call.attrs.get_floats("roi")? {
        let (start, end) = roi.split_at(roi.len() / 2);
        let mut all = spread(&axes, start, vec![0.0; shape.len()])?;
        all.extend(spread(&axes, end, vec![1.0; shape.len()])?);
        call.set("roi", Attr::Floats(all));
    }
    Ok(())
}

/// Sizes that all axes get by one scale (18) become that scale.
fn keep_aspect_ratio(call: &mut Call, graph: &Graph, policy: &str) -> Result<(), OpError> {
    let Some(sizes) = call.attrs.get_ints("sizes")? else { return Ok(()) };
    let shape = call.spec(graph, 0)?.shape;
    let axes = call.attrs.get_ints("axes")?.unwrap_or_else(|| (0..shape.len() as i64).collect());
    let lens = axes.iter().map(|&axis| Ok(shape[normalized(axis, shape.len())?]));
    let lens = lens.collect::<Result<Vec<_>, OpError>>()?;
    if lens.len() != sizes.len() || lens.contains(&0) || sizes.iter().any(|&size| size < 1) {
        let why = format!("{sizes:?} do not fit {} axes of {lens:?}", axes.len());
        return Err(OpError::attribute("sizes", why));
    }
    let scales = sizes.iter().zip(&lens).map(|(&size, &len)| size as f32 / len as f32);
    let scale = match policy {
        "not_larger" => scales.fold(f32::INFINITY, f32::min),
        "not_smaller" => scales.fold(0.0, f32::max),
        _ => {
            return Err(OpError::unsupported(
                format!("Resize with keep_aspect_ratio_policy `{policy}`"),
                "use one of stretch, not_larger, not_smaller",
            ));
        }
    };
    call.set("scales", Attr::Floats(vec![scale; sizes.len()]));
    // Sizes are rounded here, halves up, those of scales alone cut.
    let sizes: Vec<_> = lens.iter().map(|&len| scale * len as f32).collect();
    call.map().remove("sizes");
    if sizes.iter().any(|size| size.fract() >= 0.5) {
        let rounded = sizes.iter().map(|size| (size + 0.5).floor() as i64);
        call.set("sizes", Attr::Ints(rounded.collect()));
    }
    Ok(())
}

/// `all` with the elements of `some` at `axes`.
fn spread<T: Copy>(axes: &[i64], some: &[T], mut all: Vec<T>) -> Result<Vec<T>, OpError> {
    if axes.len() != some.len() {
        let why = format!("{} axes for {} values", axes.len(), some.len());
        return Err(OpError::attribute("axes", why));
    }
    for (&axis, &value) in axes.iter().zip(some) {
        let index = normalized(axis, all.len())?;
        all[index] = value;
    }
    Ok(all)
}

fn normalized(axis: i64, rank: usize) -> Result<usize, OpError> {
    let wrapped = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    wrapped
        .and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < rank)
        .ok_or_else(|| OpError::attribute("axis", format!("{axis} is outside of rank {rank}")))
}

/// Before 13, (Log)Softmax worked on all axes from `axis` on at once.
fn flat_softmax(call: &mut Call, graph: &Graph) -> Result<(), OpError> {
    let shape = call.spec(graph, 0)?.shape;
    let rank = shape.len();
    let axis = call.attrs.int("axis", 1)?;
    let axis = if axis == rank as i64 { rank } else { normalized(axis, rank)? };
    call.attrs.opset = OPSET;
    let mut wide = (axis..rank).filter(|&a| shape[a] != 1);
    match (wide.next(), wide.next()) {
        (Some(_), Some(_)) => {
            let flat = |dims: &[usize]| dims.iter().product::<usize>() as i64;
            call.around = Some(vec![flat(&shape[..axis]), flat(&shape[axis..])]);
            call.set("axis", Attr::Int(1));
        }
        (only, _) => {
            let axis = only.unwrap_or(axis.min(rank.saturating_sub(1)));
            call.set("axis", Attr::Int(axis as i64));
        }
    }
    Ok(())
}

/// Paddings of some axes (18) become those of all; the constant becomes a real number.
fn pad(call: &mut Call, graph: &Graph) -> Result<(), OpError> {
    let x = call.spec(graph, 0)?;
    if let Some(axes) = call.attrs.get_ints("axes")? {
        call.map().remove("axes");
        let pads = call.attrs.get_ints("pads")?.unwrap_or_default();
        let (begin, end) = pads.split_at(pads.len() / 2);
        let mut all = spread(&axes, begin, vec![0; x.shape.len()])?;
        all.extend(spread(&axes, end, vec![0; x.shape.len()])?);
        call.set("pads", Attr::Ints(all));
    }
    let number = match call.attrs.map.get("value") {
        Some(Attr::Int(v)) => *v,
        Some(Attr::Ints(v)) if v.len() == 1 => v[0],
        _ => return Ok(()),
    };
    let quant = call.inputs[0].and_then(|id| graph.values[id].quant.as_ref());
    let real = match quant {
        Some(quant) if x.dtype.is_code() && quant.is_per_tensor() => {
            let zero_point = quant.zero_point_of(0);
            (number.clamp(-128, 255) as i32 - zero_point) as f32 * quant.scale_of(0)
        }
        _ => number as f32,
    };
    call.set("value", Attr::Float(real));
    Ok(())
}

/// Where nothing tells the sizes, the number of outputs does.
fn split(call: &mut Call, graph: &Graph) -> Result<(), OpError> {
    if call.attrs.map.contains_key("split") {
        call.map().remove("num_outputs");
        return Ok(());
    }
    let count = call.attrs.int("num_outputs", call.outputs.len() as i64)?;
    let shape = call.spec(graph, 0)?.shape;
    let dim = shape[normalized(call.attrs.int("axis", 0)?, shape.len())?] as i64;
    if count <= 0 || count > dim {
        let why = format!("an axis of {dim} does not give {count} parts");
        return Err(OpError::attribute("num_outputs", why));
    }
    if dim % count == 0 {
        call.set("num_outputs", Attr::Int(count));
        return Ok(());
    }
    call.map().remove("num_outputs");
    let size = (dim + count - 1) / count;
    let sizes: Vec<i64> = (0..count).map(|i| size.min(dim - i * size).max(0)).collect();
    call.set("split", Attr::Ints(sizes));
    Ok(())
}

/// Empty axes mean all axes, or with `noop_with_empty_axes` none.
fn reduce(call: &mut Call, _: &Graph) -> Result<(), OpError> {
    let noop = call.attrs.flag("noop_with_empty_axes", false)?;
    call.map().remove("noop_with_empty_axes");
    if call.attrs.get_ints("axes")?.is_some_and(|axes| !axes.is_empty()) {
        return Ok(());
    }
    call.map().remove("axes");
    if noop {
        call.op = "Identity".into();
        call.map().remove("keepdims");
    }
    Ok(())
}

/// The constant inputs that operator `op` of operator set `opset` has. A newer row takes the place
/// of those before it with its name or at its position.
pub(super) fn attr_inputs(op: &str, opset: i64) -> Vec<&'static AttrInput> {
    let rows: Vec<_> = Op::attr_inputs(op).iter().filter(|row| row.since <= opset).collect();
    let newer = |row: &AttrInput, other: &AttrInput| {
        other.since > row.since && (other.name == row.name || other.index == row.index)
    };
    rows.iter().copied().filter(|row| !rows.iter().any(|other| newer(row, other))).collect()
}

/// What the constant inputs are, whatever the names: used by the reader for each call.
pub(super) fn move_constant_inputs(call: &mut Call, graph: &Graph) -> Result<(), OpError> {
    let opset = call.attrs.opset;
    let rows = attr_inputs(&call.op, opset);
    let given = |row: &&AttrInput| call.inputs.get(row.index).is_some_and(Option::is_some);
    let known = |row: &&AttrInput| rows.iter().any(|known| known.index == row.index);
    let newer = Op::attr_inputs(&call.op).iter().find(|row| given(row) && !known(row));
    if let Some(AttrInput { index, name, since }) = newer {
        return Err(OpError::unsupported(
            format!("input {index} (`{name}`) in operator set {opset}"),
            format!("{} has it from {since}: say so in the model's opset_import", call.op),
        ));
    }
    for input in rows {
        if let Some(data) = call.constant(graph, input.index, input.name)? {
            let value = super::attribute::attr_of(data);
            call.set(input.name, value);
            call.attrs.inputs.insert(input.name);
            call.inputs[input.index] = None;
        }
    }
    while call.inputs.last() == Some(&None) {
        call.inputs.pop();
    }
    Ok(())
}

/// Whether a value may stand for a code: what QuantizeLinear and DequantizeLinear work on.
pub(super) fn is_code(dtype: DType) -> bool {
    dtype.is_code() || dtype == DType::I32
}
