//! Operators whose output has a shape that elements decide, computed while reading.
//!
//! Shapes in a [`Graph`] are static, so Range, NonZero, Compress, Unique and NonMaxSuppression need
//! constant inputs; where these come of other nodes, the model is read in [parts](super::parts).
//! Shape and Size need none: shapes are always known.

use daq::ops::at_most;
use daq::{DType, Graph, OpError, Tensor, ValueId};

use super::call::Call;

/// The most elements that Range gives.
const MOST: f64 = (16 << 20) as f64;

/// The most comparisons of boxes that NonMaxSuppression makes.
const MOST_PAIRS: u64 = 1 << 32;

/// The input of such an operator that is not constant, if there is one.
pub(super) fn waits_for(call: &Call, graph: &Graph) -> Option<ValueId> {
    const OPERATORS: [&str; 5] = ["Range", "NonZero", "Compress", "Unique", "NonMaxSuppression"];
    let mut inputs = call.inputs.iter().flatten().copied();
    inputs.find(|&id| OPERATORS.contains(&call.op.as_str()) && graph.values[id].data.is_none())
}

/// The outputs of such an operator; `None` for any other.
pub(super) fn constants(call: &Call, graph: &Graph) -> Result<Option<Vec<Tensor>>, OpError> {
    // And how many inputs the operator has at most.
    let (all, most) = match call.op.as_str() {
        "Shape" => {
            let dims = shape(call, graph)?;
            (vec![Tensor::from_slice(&[dims.len()], &dims)], 1)
        }
        "Size" => {
            let count = call.spec(graph, 0)?.shape.iter().product::<usize>();
            (vec![Tensor::scalar(count as i64)], 1)
        }
        "Range" => (vec![range(call, graph)?], 3),
        "NonZero" => (vec![non_zero(element_input(call, graph, 0)?)], 1),
        "Compress" => (vec![compress(call, graph)?], 2),
        "Unique" => (unique(call, graph)?, 1),
        "NonMaxSuppression" => (vec![non_max_suppression(call, graph)?], 5),
        _ => return Ok(None),
    };
    call.attrs.all_asked()?;
    at_most(most, &call.inputs)?;
    Ok(Some(all))
}

fn shape(call: &Call, graph: &Graph) -> Result<Vec<i64>, OpError> {
    let dims: Vec<i64> = call.spec(graph, 0)?.shape.iter().map(|&d| d as i64).collect();
    let rank = dims.len() as i64;
    let bound = |name, default| -> Result<usize, OpError> {
        let at: i64 = call.attrs.int(name, default)?;
        let at = if at < 0 { at.saturating_add(rank) } else { at };
        Ok(at.clamp(0, rank) as usize)
    };
    let (start, end) = (bound("start", 0)?, bound("end", rank)?);
    Ok(dims[start..end.max(start)].to_vec())
}

/// Input `index`, whose elements decide the output's shape.
fn element_input<'a>(call: &Call, graph: &'a Graph, index: usize) -> Result<&'a Tensor, OpError> {
    let id = call.inputs.get(index).copied().flatten();
    let id = id.ok_or(OpError::MissingInput { index })?;
    graph.values[id].data.as_ref().ok_or_else(|| {
        let what = format!("{} of what is computed at run time", call.op);
        OpError::unsupported(what, "run the model with `daq run --dynamic`")
    })
}

/// The elements as numbers.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F32 => tensor.data::<f32>().iter().map(|&x| x.into()).collect(),
        _ => keys(tensor).into_iter().map(|x| x as f64).collect(),
    }
}

/// The elements as integers in the same order; those of floats follow their bits.
fn keys(tensor: &Tensor) -> Vec<i64> {
    let of_float = |&x: &f32| {
        // Both zeros are one; negative floats are in order of falling bits.
        let bits = (x + 0.0).to_bits() as i32;
        i64::from(bits ^ ((bits >> 31) as u32 >> 1) as i32)
    };
    match tensor.dtype() {
        DType::F32 => tensor.data::<f32>().iter().map(of_float).collect(),
        DType::I64 => tensor.data::<i64>().to_vec(),
        DType::I32 => tensor.data::<i32>().iter().map(|&x| x.into()).collect(),
        DType::I8 => tensor.data::<i8>().iter().map(|&x| x.into()).collect(),
        _ => tensor.bytes().iter().map(|&x| x.into()).collect(),
    }
}

/// The one number of an optional input.
fn number(call: &Call, graph: &Graph, index: usize, default: f64) -> Result<f64, OpError> {
    match call.inputs.get(index).copied().flatten() {
        None => Ok(default),
        Some(_) => {
            Ok(numbers(element_input(call, graph, index)?).first().copied().unwrap_or(default))
        }
    }
}

fn range(call: &Call, graph: &Graph) -> Result<Tensor, OpError> {
    let inputs = [0, 1, 2].map(|i| element_input(call, graph, i));
    let [start, limit, delta] = inputs;
    let (start, limit, delta) = (start?, limit?, delta?);
    let same = [limit, delta].iter().all(|t| t.dtype() == start.dtype());
    if !same || [start, limit, delta].iter().any(|t| t.len() != 1) {
        return Err(OpError::attribute("start", "the inputs must be three numbers of one type"));
    }
    let of = |t: &Tensor| numbers(t)[0];
    let count = ((of(limit) - of(start)) / of(delta)).ceil();
    if count > MOST || count.is_nan() {
        return Err(OpError::attribute("delta", format!("makes {count} elements")));
    }
    let steps = 0..count.max(0.0) as usize;
    Ok(match start.dtype() {
        DType::F32 => {
            let (start, delta) = (start.data::<f32>()[0], delta.data::<f32>()[0]);
            let all: Vec<f32> = steps.map(|i| start + i as f32 * delta).collect();
            Tensor::from_slice(&[all.len()], &all)
        }
        DType::I64 => {
            let (start, delta) = (start.data::<i64>()[0], delta.data::<i64>()[0]);
            let all: Vec<i64> =
                steps.map(|i| start.wrapping_add(delta.wrapping_mul(i as i64))).collect();
            Tensor::from_slice(&[all.len()], &all)
        }
        DType::I32 => {
            let (start, delta) = (start.data::<i32>()[0], delta.data::<i32>()[0]);
            let all: Vec<i32> =
                steps.map(|i| start.wrapping_add(delta.wrapping_mul(i as i32))).collect();
            Tensor::from_slice(&[all.len()], &all)
        }
        dtype => return Err(OpError::Type { index: 0, dtype, allowed: "f32, i32, i64" }),
    })
}

fn non_zero(x: &Tensor) -> Tensor {
    let found: Vec<usize> =
        numbers(x).iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i).collect();
    let mut places = Vec::new();
    for axis in 0..x.shape().len() {
        let inner: usize = x.shape()[axis + 1..].iter().product();
        places.extend(found.iter().map(|i| (i / inner % x.shape()[axis]) as i64));
    }
    Tensor::from_slice(&[x.shape().len(), found.len()], &places)
}

/// The slices `at` along an axis.
fn slices(x: &Tensor, axis: usize, at: &[usize]) -> Tensor {
    let size = x.dtype().size();
    let row = x.shape()[axis + 1..].iter().product::<usize>() * size;
    let pictures = x.bytes().chunks_exact((row * x.shape()[axis]).max(1));
    let rows = pictures.flat_map(|p| at.iter().flat_map(move |&i| &p[i * row..][..row]));
    let bytes: Vec<u8> = rows.copied().collect();
    let mut shape = x.shape().to_vec();
    shape[axis] = at.len();
    Tensor::from_bytes(x.dtype(), &shape, &bytes)
}

/// The axis attribute; `None` for the flattened input.
fn axis(call: &Call, x: &Tensor) -> Result<Option<usize>, OpError> {
    let Some(axis) = call.attrs.get_int("axis")? else { return Ok(None) };
    let rank = x.shape().len() as i64;
    let wrapped = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let index = usize::try_from(wrapped).ok().filter(|&a| a < x.shape().len());
    let outside = || OpError::attribute("axis", format!("{axis} is outside of rank {rank}"));
    index.map(Some).ok_or_else(outside)
}

fn compress(call: &Call, graph: &Graph) -> Result<Tensor, OpError> {
    let (x, condition) = (element_input(call, graph, 0)?, element_input(call, graph, 1)?);
    let (x, axis) = match axis(call, x)? {
        Some(axis) => (x.clone(), axis),
        None => (x.reshaped(&[x.len()]), 0),
    };
    let chosen = numbers(condition).into_iter().enumerate().filter(|(_, c)| *c != 0.0);
    let at: Vec<usize> = chosen.map(|(i, _)| i).filter(|&i| i < x.shape()[axis]).collect();
    Ok(slices(&x, axis, &at))
}

fn unique(call: &Call, graph: &Graph) -> Result<Vec<Tensor>, OpError> {
    let x = element_input(call, graph, 0)?;
    let (x, axis) = match axis(call, x)? {
        Some(axis) => (x.clone(), axis),
        None => (x.reshaped(&[x.len()]), 0),
    };
    let slice_of = |i: usize| keys(&slices(&x, axis, &[i]));
    let all: Vec<Vec<i64>> = (0..x.shape()[axis]).map(slice_of).collect();
    let order = |a: &usize, b: &usize| all[*a].cmp(&all[*b]);
    // Stable, so that the first of equal slices leads its group.
    let mut sorted: Vec<usize> = (0..all.len()).collect();
    sorted.sort_by(order);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in sorted {
        match groups.last_mut() {
            Some(group) if order(&group[0], &i).is_eq() => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    if !call.attrs.flag("sorted", true)? {
        groups.sort_by_key(|group| group[0]);
    }
    let first: Vec<usize> = groups.iter().map(|group| group[0]).collect();
    let mut inverse = vec![0i64; all.len()];
    for (k, group) in groups.iter().enumerate() {
        group.iter().for_each(|&i| inverse[i] = k as i64);
    }
    let list = |v: Vec<i64>| Tensor::from_slice(&[v.len()], &v);
    Ok(vec![
        slices(&x, axis, &first),
        list(first.iter().map(|&i| i as i64).collect()),
        list(inverse),
        list(groups.iter().map(|group| group.len() as i64).collect()),
    ])
}

/// Left, top, right and bottom of a box.
fn corners(b: &[f32], center_point: bool) -> [f32; 4] {
    match center_point {
        true => [b[0] - b[2] / 2.0, b[1] - b[3] / 2.0, b[0] + b[2] / 2.0, b[1] + b[3] / 2.0],
        false => [b[1].min(b[3]), b[0].min(b[2]), b[1].max(b[3]), b[0].max(b[2])],
    }
}

/// The area that two boxes share by the area that they cover.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    let area = |b: &[f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let shared = side(0) * side(1);
    let covered = area(a) + area(b) - shared;
    if covered > 0.0 { shared / covered } else { 0.0 }
}

fn non_max_suppression(call: &Call, graph: &Graph) -> Result<Tensor, OpError> {
    let (boxes, scores) = (element_input(call, graph, 0)?, element_input(call, graph, 1)?);
    let most = number(call, graph, 2, 0.0)?.max(0.0) as usize;
    let threshold = number(call, graph, 3, 0.0)? as f32;
    let least = number(call, graph, 4, f64::NEG_INFINITY)? as f32;
    let center_point = call.attrs.flag("center_point_box", false)?;
    for (index, tensor) in [boxes, scores].into_iter().enumerate() {
        if tensor.dtype() != DType::F32 {
            return Err(OpError::Type { index, dtype: tensor.dtype(), allowed: "f32" });
        }
    }
    let shapes = || vec![boxes.shape().to_vec(), scores.shape().to_vec()];
    let misfit = |why: &str| OpError::Shape { why: why.into(), shapes: shapes() };
    let (&[batch, count, 4], &[batches, classes, same]) = (boxes.shape(), scores.shape()) else {
        return Err(misfit("needs boxes of rank 3 with 4 numbers each, and scores of rank 3"));
    };
    if batch != batches || count != same {
        return Err(misfit("boxes and scores do not fit"));
    }
    let corners: Vec<_> =
        boxes.data::<f32>().chunks_exact(4).map(|b| corners(b, center_point)).collect();
    let mut selected: Vec<i64> = Vec::new();
    let mut pairs = 0u64;
    for (row, scores) in scores.data::<f32>().chunks_exact(count.max(1)).enumerate() {
        let (picture, class) = (row / classes, row % classes);
        let mut order: Vec<usize> = (0..count).filter(|&i| scores[i] > least).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut kept: Vec<usize> = Vec::new();
        pairs =
            pairs.saturating_add((order.len() as u64).saturating_mul(order.len().min(most) as u64));
        if pairs > MOST_PAIRS {
            return Err(misfit("too many boxes are above the score threshold"));
        }
        for i in order {
            let own = &corners[picture * count + i];
            let apart = |&k: &usize| overlap(own, &corners[picture * count + k]) <= threshold;
            if kept.len() < most && kept.iter().all(apart) {
                kept.push(i);
            }
        }
        selected.extend(kept.iter().flat_map(|&i| [picture as i64, class as i64, i as i64]));
    }
    Ok(Tensor::from_slice(&[selected.len() / 3, 3], &selected))
}

#[cfg(test)]
mod tests {
    use super::super::small::*;

    #[test]
    fn what_is_computed_at_run_time_is_refused_by_name() {
        let nodes = [node("NonZero", &["x"], &["y"], &[])];
        let model = model(13, &[("x", &[2])], &[], &nodes, &["y"]);
        let why = read_model(&model).unwrap_err().to_string();
        assert!(why.contains("NonZero of `x`") && why.contains("run --dynamic"), "{why}");
    }

    #[test]
    fn ranges_stop_before_their_limit() {
        let range = |delta: f32| {
            let constants =
                [floats("a", &[], &[1.0]), floats("b", &[], &[2.0]), floats("d", &[], &[delta])];
            let nodes = [
                node("Range", &["a", "b", "d"], &["r"], &[]),
                node("Add", &["x", "r"], &["y"], &[]),
            ];
            read_model(&model(13, &[("x", &[1])], &constants, &nodes, &["y"]))
        };
        let shape = |delta| range(delta).map(|g| g.values[g.outputs[0]].shape.clone());
        assert_eq!(shape(0.5).unwrap(), [2]);
        assert_eq!(shape(0.4).unwrap(), [3]);
        for bad in [0.0, 1e-30, f32::NAN] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
