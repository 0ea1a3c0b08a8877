//! The three graphs that a comparison runs: the float one and the 8-bit one showing what every
//! operator computes, and the 8-bit one cut apart, so that each operator takes inputs from outside.

use std::collections::{HashMap, HashSet};

use daq::{DType, Graph, Layout, Op, Value, ValueId};

/// An operator of the 8-bit graph that the float graph has a counterpart of.
pub(super) struct Pair {
    /// Its position in the 8-bit graph.
    pub node: usize,
    /// The float value that its output stands for.
    pub float: String,
    /// Position of the float value among [`Cuts::float`]'s outputs.
    pub float_output: usize,
    /// Position of its output among [`Cuts::accumulated`]'s outputs.
    pub accumulated_output: usize,
    /// Position of its output among [`Cuts::local`]'s outputs; `None` where it runs on floats only.
    pub local_output: Option<usize>,
}

/// The graphs to run, and where the values of each operator are in their outputs.
pub(super) struct Cuts {
    /// The float graph; its own outputs first, then the values that are compared.
    pub float: Graph,
    /// The 8-bit graph; its own outputs first, then those of its operators.
    pub accumulated: Graph,
    /// The 8-bit operators side by side, without a connection.
    pub local: Graph,
    /// What each input of `local` is fed with: a position in the float inputs or outputs.
    pub local_inputs: Vec<(String, Fed)>,
    /// The operators that are compared, in order.
    pub pairs: Vec<Pair>,
}

/// Where a float value is found.
#[derive(Clone, Copy)]
pub(super) enum Fed {
    /// An input of the model, by position.
    Input(usize),
    /// An output of [`Cuts::float`], by position.
    Output(usize),
}

/// For each value of the 8-bit graph the name of the float value that it stands for: the one of its
/// name and shape, or what it was converted from.
fn counterparts(float: &Graph, quantized: &Graph) -> Vec<Option<String>> {
    let floats: HashMap<&str, &Value> = float.values.iter().map(|v| (v.name.as_str(), v)).collect();
    let named = |value: &Value| {
        let found = floats.get(value.name.as_str())?;
        let same = found.dtype == DType::F32 && found.shape == value.shape && found.data.is_none();
        (same && value.data.is_none()).then(|| value.name.clone())
    };
    let mut of: Vec<Option<String>> = quantized.values.iter().map(named).collect();
    for node in &quantized.nodes {
        if let (Op::QuantizeLinear(_) | Op::DequantizeLinear(_), Some(Some(from)), [to]) =
            (&node.op, node.inputs.first(), node.outputs.as_slice())
            && of[*to].is_none()
        {
            of[*to] = of[*from].clone();
        }
    }
    // A model and its original may call inputs and outputs differently.
    let ends = [(&quantized.inputs, &float.inputs), (&quantized.outputs, &float.outputs)];
    for (ours, theirs) in ends {
        for (&ours, &theirs) in ours.iter().zip(theirs) {
            let theirs = &float.values[theirs];
            let same = theirs.shape == quantized.values[ours].shape && theirs.dtype == DType::F32;
            if of[ours].is_none() && same {
                of[ours] = Some(theirs.name.clone());
            }
        }
    }
    of
}

/// Cuts the graphs. Operators without a float counterpart are left out; their names are given too.
pub(super) fn cut(float: &Graph, quantized: &Graph) -> (Cuts, Vec<String>) {
    let of = counterparts(float, quantized);
    let mut cut_float = plain_ends(float.clone());
    let mut accumulated = plain_ends(quantized.clone());
    let mut local = Graph {
        nodes: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        ..plain_ends(quantized.clone())
    };
    let mut outputs: HashMap<String, usize> = HashMap::new();
    for (i, &id) in float.outputs.iter().enumerate() {
        outputs.entry(float.values[id].name.clone()).or_insert(i);
    }
    let mut fed = |name: &str| -> Option<Fed> {
        let id = float.find_value(name)?;
        if let Some(i) = float.inputs.iter().position(|&input| input == id) {
            return Some(Fed::Input(i));
        }
        let next = cut_float.outputs.len();
        let position = *outputs.entry(name.to_owned()).or_insert(next);
        if position == next {
            cut_float.outputs.push(id);
        }
        Some(Fed::Output(position))
    };
    let (mut pairs, mut unmatched, mut given) = (Vec::new(), Vec::new(), HashMap::new());
    for (position, node) in quantized.nodes.iter().enumerate() {
        let [output] = node.outputs.as_slice() else { continue };
        let value = &quantized.values[*output];
        if !matches!(value.dtype, DType::F32 | DType::U8)
            || matches!(node.op, Op::DequantizeLinear(_))
        {
            continue;
        }
        let Some(name) =
            of[*output].clone().filter(|_| value.dtype == DType::F32 || value.is_quantized())
        else {
            unmatched.push(quantized.node_name(node).to_owned());
            continue;
        };
        let Some(Fed::Output(float_output)) = fed(&name) else {
            // The quantization of an input: its rounding is part of every reader's local error.
            continue;
        };
        let activations: Vec<ValueId> = node
            .inputs
            .iter()
            .flatten()
            .copied()
            .filter(|&id| quantized.values[id].data.is_none())
            .collect();
        let codes = value.is_quantized()
            || activations.iter().any(|&id| quantized.values[id].is_quantized());
        let known: Option<Vec<(ValueId, Fed)>> = activations
            .iter()
            .map(|&id| Some((id, of[id].as_deref().and_then(&mut fed)?)))
            .collect();
        let local_output = match known {
            Some(known) if codes && !known.is_empty() => {
                given.extend(known);
                let mut node = node.clone();
                let copy = Value { name: format!("{}@{position}", value.name), ..value.clone() };
                node.outputs = vec![local.add_value(copy)];
                local.outputs.push(node.outputs[0]);
                local.nodes.push(node);
                Some(local.outputs.len() - 1)
            }
            _ => None,
        };
        accumulated.outputs.push(*output);
        let accumulated_output = accumulated.outputs.len() - 1;
        pairs.push(Pair {
            node: position,
            float: name,
            float_output,
            accumulated_output,
            local_output,
        });
    }
    let mut given: Vec<(ValueId, Fed)> = given.into_iter().collect();
    given.sort_unstable_by_key(|(id, _)| *id);
    let local_inputs =
        given.iter().map(|(id, fed)| (local.values[*id].name.clone(), *fed)).collect();
    local.inputs = given.iter().map(|(id, _)| *id).collect();
    local.remove_unused();
    cut_float.remove_unused();
    accumulated.remove_unused();
    unmatched.dedup();
    (Cuts { float: cut_float, accumulated, local, local_inputs, pairs }, unmatched)
}

/// The same graph, its inputs and outputs in plain layout.
fn plain_ends(mut graph: Graph) -> Graph {
    let ends: HashSet<ValueId> = graph.inputs.iter().chain(&graph.outputs).copied().collect();
    ends.into_iter().for_each(|id| graph.values[id].layout = Layout::Plain);
    graph
}
