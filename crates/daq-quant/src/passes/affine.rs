//! Folds `y = a[c] * x + b[c]` into the weights beside it: BatchNormalization, and Mul, Add, Sub,
//! Div by constants of one element per channel.
//!
//! After a Conv, ConvTranspose or Gemm: `a * (w x + v) + b = (a w) x + (a v + b)`. Before a Conv
//! that pads nothing: `w (a x + b) + v = (w a) x + (w b + v)`; with padding it would differ at the
//! border, where zeros are not `b`. Computed in f64, written back as f32.

use daq::attrs::Attr;
use daq::{DType, Graph, Node, Op, Tensor, Value, ValueId};

use super::{rename_output, unique};

/// `a` and `b` for each channel (axis 1).
struct Affine {
    a: Vec<f64>,
    b: Vec<f64>,
}

/// Folds what can be folded; whether there was anything.
pub fn fold_affine(graph: &mut Graph) -> bool {
    let mut changed = false;
    let mut i = 0;
    while i < graph.nodes.len() {
        let found = affine(graph, &graph.nodes[i]);
        if let Some((x, affine)) = found
            && (fold_into_producer(graph, i, x, &affine) || fold_into_reader(graph, i, x, &affine))
        {
            changed = true;
        } else {
            i += 1;
        }
    }
    changed
}

/// The elements of a constant as f64.
fn constant(graph: &Graph, id: Option<ValueId>) -> Option<Vec<f64>> {
    let data = graph.values[id?].data.as_ref().filter(|t| t.dtype() == DType::F32)?;
    Some(data.data::<f32>().iter().map(|&v| v.into()).collect())
}

/// What a node does, where it is affine by channel, and to which value.
fn affine(graph: &Graph, node: &Node) -> Option<(ValueId, Affine)> {
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let y = &graph.values[*node.outputs.first()?];
    if node.outputs.len() != 1 || y.dtype != DType::F32 || y.shape.len() < 2 {
        return None;
    }
    let channels = y.shape[1];
    let (x, affine) = if node.op.name() == "BatchNormalization" {
        let of = |i: usize| constant(graph, input(i)).filter(|v| v.len() == channels);
        let (scale, bias, mean, var) = (of(1)?, of(2)?, of(3)?, of(4)?);
        let epsilon: f64 = node.op.to_attrs().float("epsilon", 1e-5).ok()?.into();
        let a: Vec<f64> = scale.iter().zip(&var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let b = (0..channels).map(|c| bias[c] - mean[c] * a[c]).collect();
        (input(0)?, Affine { a, b })
    } else {
        let (left, right) = (input(0)?, input(1)?);
        let by_channel = |id: ValueId| per_channel(graph, id, &y.shape);
        let (x, c, swapped) = match (by_channel(left), by_channel(right)) {
            (None, Some(c)) => (left, c, false),
            (Some(c), None) => (right, c, true),
            _ => return None,
        };
        let all = |v: f64| vec![v; channels];
        let negated = |c: &[f64]| c.iter().map(|v| -v).collect();
        let (a, b) = match (node.op.name(), swapped) {
            ("Mul", _) => (c, all(0.0)),
            ("Add", _) => (all(1.0), c),
            ("Sub", false) => (all(1.0), negated(&c)),
            ("Sub", true) => (all(-1.0), c),
            ("Div", false) => (c.iter().map(|v| 1.0 / v).collect(), all(0.0)),
            _ => return None,
        };
        (x, Affine { a, b })
    };
    let finite = affine.a.iter().chain(&affine.b).all(|v| v.is_finite());
    (finite && graph.values[x].shape == y.shape).then_some((x, affine))
}

/// A constant as one element per channel of `shape`.
fn per_channel(graph: &Graph, id: ValueId, shape: &[usize]) -> Option<Vec<f64>> {
    let data = constant(graph, Some(id))?;
    let dims = &graph.values[id].shape;
    let lead = shape.len().checked_sub(dims.len())?;
    let spread = dims.iter().enumerate().any(|(i, &d)| d != 1 && i + lead != 1);
    match data.len() {
        _ if spread => None,
        1 => Some(vec![data[0]; shape[1]]),
        n if n == shape[1] => Some(data),
        _ => None,
    }
}

/// Whether only one node reads the value, once, and no caller does.
fn single_reader(graph: &Graph, id: ValueId) -> bool {
    let read = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten()).filter(|r| **r == id);
    read.count() == 1 && !graph.outputs.contains(&id)
}

/// Sets input `index` of a node to a constant: in place where nobody else reads the present one.
fn set_constant(
    graph: &mut Graph,
    node: usize,
    index: usize,
    wish: &str,
    shape: &[usize],
    data: &[f64],
) {
    let data: Vec<f32> = data.iter().map(|&v| v as f32).collect();
    let tensor = Tensor::from_slice(shape, &data);
    let present = graph.nodes[node].inputs.get(index).copied().flatten();
    if let Some(id) = present.filter(|&id| single_reader(graph, id)) {
        let value = &mut graph.values[id];
        value.shape = shape.to_vec();
        value.data = Some(tensor);
        return;
    }
    let name = unique(graph, wish);
    let id = graph.add_value(Value::constant(name, tensor));
    let inputs = &mut graph.nodes[node].inputs;
    inputs.resize(inputs.len().max(index + 1), None);
    inputs[index] = Some(id);
}

/// Multiplies the weights (and the bias) of the node that computes `x`, and removes node `i`.
fn fold_into_producer(graph: &mut Graph, i: usize, x: ValueId, affine: &Affine) -> bool {
    let Some(p) = graph.nodes.iter().position(|n| n.outputs.first() == Some(&x)) else {
        return false;
    };
    if !single_reader(graph, x) || graph.values[x].quant.is_some() {
        return false;
    }
    let node = &graph.nodes[p];
    let attrs = node.op.to_attrs();
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let (Some(w_id), Some(mut w)) = (input(1), constant(graph, input(1))) else { return false };
    let w_shape = graph.values[w_id].shape.clone();
    let channels = affine.a.len();
    let group = attrs.int("group", 1).unwrap_or(1).max(1) as usize;
    let mut beta = 1.0;
    // The output channel of weight `k`.
    let channel: Box<dyn Fn(usize) -> usize> = match node.op.name() {
        "Conv" => {
            let each = w.len() / channels.max(1);
            Box::new(move |k| k / each)
        }
        "ConvTranspose" => {
            let (rows, per_group) = (w_shape[0], w_shape[1]);
            let taps: usize = w_shape[2..].iter().product();
            Box::new(move |k| {
                let (row, column) = (k / (per_group * taps), k / taps % per_group);
                row / (rows / group) * per_group + column
            })
        }
        "Gemm" => {
            let columns = w_shape[1];
            let transposed = attrs.flag("transB", false).unwrap_or(false);
            beta = attrs.float("beta", 1.0).unwrap_or(1.0).into();
            Box::new(move |k| if transposed { k / columns } else { k % columns })
        }
        _ => return false,
    };
    let bias = match input(2) {
        None => vec![0.0; channels],
        Some(id) => match per_channel(graph, id, &graph.values[x].shape) {
            Some(bias) if node.op.name() == "Gemm" => bias,
            _ => match constant(graph, Some(id)) {
                Some(bias) if graph.values[id].shape == [channels] => bias,
                _ => return false,
            },
        },
    };
    for (k, w) in w.iter_mut().enumerate() {
        *w *= affine.a[channel(k)];
    }
    let bias: Vec<f64> =
        (0..channels).map(|c| beta * bias[c] * affine.a[c] + affine.b[c]).collect();
    if node.op.name() == "Gemm" && beta != 1.0 {
        let attrs = attrs.with("beta", Attr::Float(1.0));
        let Some(Ok(op)) = Op::from_attrs("Gemm", &attrs) else { return false };
        graph.nodes[p].op = op;
    }
    let (w_name, b_name) = names(graph, p);
    set_constant(graph, p, 1, &w_name, &w_shape, &w);
    set_constant(graph, p, 2, &b_name, &[channels], &bias);
    let y = graph.nodes[i].outputs[0];
    graph.nodes.remove(i);
    rename_output(graph, x, y);
    true
}

/// Names for new weights and bias of a node.
fn names(graph: &Graph, node: usize) -> (String, String) {
    let name = graph.node_name(&graph.nodes[node]);
    (format!("{name}_folded_weights"), format!("{name}_folded_bias"))
}

/// Multiplies the weights of the Conv that alone reads node `i`, and removes node `i`.
fn fold_into_reader(graph: &mut Graph, i: usize, x: ValueId, affine: &Affine) -> bool {
    let y = graph.nodes[i].outputs[0];
    if !single_reader(graph, y) {
        return false;
    }
    let reads = |n: &Node| n.op.name() == "Conv" && n.inputs.first() == Some(&Some(y));
    let Some(r) = graph.nodes.iter().position(reads) else { return false };
    let node = &graph.nodes[r];
    let attrs = node.op.to_attrs();
    let pads = attrs.get_ints("pads").ok().flatten().unwrap_or_default();
    let auto_pad = attrs.get_str("auto_pad").ok().flatten().unwrap_or("NOTSET");
    let unpadded = auto_pad == "VALID" || auto_pad == "NOTSET" && pads.iter().all(|&p| p == 0);
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let (Some(w_id), Some(mut w)) = (input(1), constant(graph, input(1))) else { return false };
    let w_shape = graph.values[w_id].shape.clone();
    let out_channels = w_shape[0];
    let mut bias = match input(2) {
        None => vec![0.0; out_channels],
        Some(_) => match constant(graph, input(2)) {
            Some(bias) => bias,
            None => return false,
        },
    };
    if !unpadded || w.is_empty() {
        return false;
    }
    let group = attrs.int("group", 1).unwrap_or(1).max(1) as usize;
    let taps: usize = w_shape[2..].iter().product();
    let (per_group, each) = (w_shape[1], w_shape[1] * taps);
    for (k, w) in w.iter_mut().enumerate() {
        let out = k / each;
        let c = out / (out_channels / group) * per_group + k / taps % per_group;
        bias[out] += *w * affine.b[c];
        *w *= affine.a[c];
    }
    let (w_name, b_name) = names(graph, r);
    set_constant(graph, r, 1, &w_name, &w_shape, &w);
    set_constant(graph, r, 2, &b_name, &[out_channels], &bias);
    graph.nodes.remove(i);
    graph.replace_uses(y, x);
    true
}
