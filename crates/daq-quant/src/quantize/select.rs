//! Which nodes run in 8 bits, and why the others do not.

use std::collections::HashSet;

use daq::ops::Quantization;
use daq::{DType, Graph, Node, Op, ValueId};

use super::{QuantizeOptions, Ranges};
use crate::recover::two_parts;

/// For each node `None` where it is to run in 8 bits, else the reason why it stays in float.
pub(super) fn float_reasons(
    graph: &Graph,
    ranges: &Ranges,
    options: &QuantizeOptions,
) -> Vec<Option<String>> {
    let mut select = Select {
        graph,
        ranges,
        options,
        codes: HashSet::new(),
        before: ancestors(graph, &options.quantize_after),
        after: HashSet::new(),
        between: two_parts::between(graph),
    };
    let named = |name: &String| graph.find_value(name);
    select.after.extend(options.dequantize_after.iter().filter_map(named));
    // Available as codes from the beginning: inputs, and what the user wants quantized.
    let starts =
        graph.inputs.iter().copied().chain(options.quantize_after.iter().filter_map(named));
    let known =
        |id: &ValueId| graph.values[*id].dtype == DType::F32 && has_range(graph, ranges, *id);
    select.codes = starts.filter(known).collect();
    graph.nodes.iter().map(|node| select.decide(node)).collect()
}

/// Whether an operator multiplies by constants, so that in 8 bits it can give floats too.
pub(crate) fn gives_floats(graph: &Graph, op: &Op, inputs: &[Option<ValueId>]) -> bool {
    let weights = inputs.get(1).copied().flatten();
    matches!(op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul(_))
        && weights.is_some_and(|id| graph.values[id].data.is_some())
}

fn has_range(graph: &Graph, ranges: &Ranges, id: ValueId) -> bool {
    super::range_of(graph, ranges, id).is_some()
}

/// The nodes that compute the named tensors, and all before them.
fn ancestors(graph: &Graph, names: &[String]) -> HashSet<usize> {
    let mut values: HashSet<ValueId> = names.iter().filter_map(|n| graph.find_value(n)).collect();
    let mut nodes = HashSet::new();
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|id| values.contains(id)) {
            nodes.insert(i);
            values.extend(node.inputs.iter().flatten());
        }
    }
    nodes
}

struct Select<'a> {
    graph: &'a Graph,
    ranges: &'a Ranges,
    options: &'a QuantizeOptions,
    /// Values that are there as codes: the model's inputs and what 8-bit nodes compute.
    codes: HashSet<ValueId>,
    /// Nodes before `--quantize_after`.
    before: HashSet<usize>,
    /// Values from which on the model is float.
    after: HashSet<ValueId>,
    /// Float operators beside products that read their input in two parts.
    between: Vec<String>,
}

impl Select<'_> {
    fn decide(&mut self, node: &Node) -> Option<String> {
        let reason = self.reason(node);
        if node.inputs.iter().flatten().any(|id| self.after.contains(id)) {
            self.after.extend(&node.outputs);
        } else if reason.is_none() {
            // Without a range an output is float.
            let known =
                |id: &ValueId| !gives_floats(self.graph, &node.op, &node.inputs) || self.known(*id);
            let codes: Vec<_> = node.outputs.iter().copied().filter(known).collect();
            self.codes.extend(codes);
        }
        reason
    }

    fn reason(&self, node: &Node) -> Option<String> {
        use Quantization::{Averages, Moves, Never, Table, Weighted};
        let graph = self.graph;
        let because = |why: &str| Some(why.to_string());
        let value = |id: &ValueId| &graph.values[*id];
        let quantization = node.op.quantization();
        let inputs: Vec<_> = node.inputs.iter().flatten().copied().collect();
        let activations: Vec<_> =
            inputs.iter().copied().filter(|id| value(id).data.is_none()).collect();
        if let Some(why) = self.asked(node) {
            return Some(why);
        }
        if quantization == Never {
            return Some(format!("{} has no 8-bit form", node.op.name()));
        }
        if activations.is_empty() || activations.iter().any(|id| value(id).dtype != DType::F32) {
            return because("its inputs are not floats");
        }
        let reads_only = quantization == Quantization::Codes;
        if !reads_only && node.outputs.iter().any(|id| value(id).dtype != DType::F32) {
            return because("its outputs are not floats");
        }
        if quantization == Weighted
            && let Some(why) = not_weighted(graph, node)
        {
            return Some(why);
        }
        let known = |id: &ValueId| self.codes.contains(id) || has_range(graph, self.ranges, *id);
        if let Some(id) = activations.iter().find(|id| !known(id)) {
            // What an activation clamps is not seen where the operator before does both.
            return match node.op.clamp() {
                Some(_) => because("its input is in float"),
                None => Some(format!("calibration saw no range of its input `{}`", value(id).name)),
            };
        }
        let follows = matches!(quantization, Moves | Averages | Table);
        if follows && !self.codes.contains(&activations[0]) {
            return because("its input is in float");
        }
        let any_codes = activations.iter().any(|id| self.codes.contains(id));
        if quantization != Weighted && !any_codes {
            return because("its inputs are in float");
        }
        if matches!(node.op, Op::Concat(_)) {
            let range = |id: &ValueId| super::range_of(graph, self.ranges, *id);
            let ranges: Vec<_> = activations.iter().filter_map(range).collect();
            if !super::scales::can_share(&ranges) {
                return because("the ranges of its inputs are too different to share one scale");
            }
        }
        let own_scale = !matches!(quantization, Moves | Averages) && !reads_only;
        let needs_range = own_scale && !gives_floats(graph, &node.op, &node.inputs);
        let missing = |id: &&ValueId| needs_range && !self.known(**id);
        if let Some(id) = node.outputs.iter().find(missing) {
            return Some(format!("calibration saw no range of its output `{}`", value(id).name));
        }
        None
    }

    /// Whether the value has a range, its own or that of the activation that is absorbed.
    fn known(&self, id: ValueId) -> bool {
        has_range(self.graph, self.ranges, id) || self.absorbs(id)
    }

    /// Whether the only reader of the value clamps it, in 8 bits: its range is that of the
    /// activation.
    fn absorbs(&self, id: ValueId) -> bool {
        let readers: Vec<_> =
            self.graph.nodes.iter().filter(|n| n.inputs.contains(&Some(id))).collect();
        matches!(readers.as_slice(), [reader] if reader.op.clamp().is_some()
            && has_range(self.graph, self.ranges, reader.outputs[0]) && self.asked(reader).is_none())
    }

    /// What the user asked for.
    fn asked(&self, node: &Node) -> Option<String> {
        let graph = self.graph;
        let outputs = || node.outputs.iter().map(|id| graph.values[*id].name.as_str());
        let is = |name: &String| {
            name == graph.node_name(node) || name == node.op.name() || outputs().any(|o| o == name)
        };
        if let Some(name) = self.options.exclude.iter().find(|n| is(n)) {
            return Some(format!("excluded by --exclude {name}"));
        }
        if self.between.iter().any(|name| name == graph.node_name(node)) {
            return Some("parts the input of a product, or adds the two products".into());
        }
        let own_scale =
            !matches!(node.op.quantization(), Quantization::Moves | Quantization::Averages);
        if let Some(ops) = &self.options.ops
            && own_scale
            && node.op.clamp().is_none()
            && !ops.iter().any(|op| op == node.op.name())
        {
            return Some("not among --ops".into());
        }
        let position = graph.nodes.iter().position(|n| std::ptr::eq(n, node));
        if position.is_some_and(|i| self.before.contains(&i)) {
            return Some("before --quantize_after".into());
        }
        let after = node.inputs.iter().flatten().any(|id| self.after.contains(id));
        after.then(|| "after --dequantize_after".into())
    }
}

/// Why an operator with weights cannot run on codes.
fn not_weighted(graph: &Graph, node: &Node) -> Option<String> {
    let constant = |i: usize| {
        let id = node.inputs.get(i).copied().flatten();
        id.map(|id| graph.values[id].data.is_some())
    };
    let input_constant = constant(0) == Some(true);
    let weights_constant = constant(1) == Some(true);
    let why = match &node.op {
        _ if input_constant => "its input 0 is constant",
        Op::MatMul(_) if !weights_constant => return None,
        Op::MatMul(_) if graph.values[node.inputs[1]?].shape.len() != 2 => {
            "its weights are not a matrix"
        }
        _ if !weights_constant => "its weights are not constant",
        _ if constant(2) == Some(false) => "its bias is not constant",
        Op::Gemm(gemm) if gemm.trans_a => "its input is transposed",
        Op::Gemm(_) if !super::weights::is_row(graph, node) => "its C is not one row",
        _ => return None,
    };
    Some(why.into())
}
