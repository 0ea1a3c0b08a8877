//! Between daq's 8-bit graphs and explicit QuantizeLinear/DequantizeLinear (QDQ) graphs.
//!
//! In a [`Graph`] that daq runs, an operator reads and writes codes. In the QDQ form each operator
//! is a float one between a DequantizeLinear of its inputs and a QuantizeLinear of its outputs.
//! Both mean the same; [`fold`] and [`unfold`] go from one to the other.

use std::collections::{BTreeMap, HashMap};

use daq::ops::{DequantizeLinear, Quantization, QuantizeLinear};
use daq::{DType, Graph, Node, Op, QuantParams, Value, ValueId};

use crate::quantize::{FLOAT_INPUT, gives_floats};

mod by_channel;
mod simplify;

const QUANTIZED: &str = "_QuantizeLinear_Output";
const DEQUANTIZED: &str = "_DequantizeLinear_Output";
/// The float that is quantized just before a graph output.
const UNQUANTIZED: &str = "_QuantizeLinear_Input";

/// The metadata key that says an 8-bit model's outputs are float at its interface.
pub const FLOAT_OUTPUT: &str = "daq.float_output";

/// The metadata key of why operators of a quantized model stayed in float: JSON, the reason by the
/// name of the operator's first output, which, unlike a node's name, is one of its kind.
pub const FLOAT_BECAUSE: &str = "daq.float_because";

/// Why operators of a quantized model stayed in float, by the name of their first output; empty
/// where the model does not say.
pub fn float_because(graph: &Graph) -> BTreeMap<String, String> {
    let json = graph.metadata.get(FLOAT_BECAUSE);
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// Whether the model says of this node that it stays in float.
fn stays_float(graph: &Graph, reasons: &BTreeMap<String, String>, node: &Node) -> bool {
    node.outputs.first().is_some_and(|&id| reasons.contains_key(&graph.values[id].name))
}

/// An 8-bit graph as a QDQ graph with float inputs and outputs of the same names.
pub fn unfold(graph: &Graph) -> Graph {
    unfold_where(graph, |_| true)
}

/// As [`unfold`], but nodes that `wanted` declines stay on codes.
pub(crate) fn unfold_where(graph: &Graph, wanted: impl Fn(&Node) -> bool) -> Graph {
    let mut out = Graph { nodes: Vec::new(), ..graph.clone() };
    let mut unfold = Unfold { out: &mut out, reals: HashMap::new() };
    for &id in &graph.inputs {
        if graph.values[id].is_quantized() {
            unfold.input(id);
        }
    }
    for node in &graph.nodes {
        match &node.op {
            // These stand between floats and codes already.
            Op::QuantizeLinear(_) => unfold.quantize_node(node),
            Op::DequantizeLinear(_) => unfold.dequantize_node(node),
            _ if wanted(node) => unfold.node(node),
            _ => unfold.out.nodes.push(node.clone()),
        }
    }
    unfold.outputs();
    out.remove_unused();
    out
}

struct Unfold<'a> {
    out: &'a mut Graph,
    /// The float side of each value of codes, as readers see it, and of each float that another one
    /// takes the place of.
    reals: HashMap<ValueId, ValueId>,
}

impl Unfold<'_> {
    fn push(&mut self, op: Op, from: ValueId, to: ValueId, name: &str) {
        let suffix =
            if matches!(op, Op::QuantizeLinear(_)) { "QuantizeLinear" } else { "DequantizeLinear" };
        let name = format!("{name}_{suffix}");
        let (inputs, outputs) = (vec![Some(from)], vec![to]);
        self.out.nodes.push(Node { name, op, inputs, outputs, doc: String::new() });
    }

    /// The float input takes over the name; codes follow it.
    fn input(&mut self, id: ValueId) {
        let value = self.out.values[id].clone();
        let name = value.name.clone();
        self.out.values[id].name = format!("{name}{QUANTIZED}");
        let float = Value { dtype: DType::F32, ..value };
        let float = self.out.add_value(float);
        for input in self.out.inputs.iter_mut().filter(|i| **i == id) {
            *input = float;
        }
        self.push(QuantizeLinear::default().into(), float, id, &name);
    }

    /// The float reading of a value of codes, through a DequantizeLinear.
    fn real(&mut self, id: ValueId) -> ValueId {
        if let Some(&real) = self.reals.get(&id) {
            return real;
        }
        let value = &self.out.values[id];
        let codes = value.quant.is_some() && value.dtype != DType::F32;
        if !codes {
            return id;
        }
        let base = value.name.trim_end_matches(QUANTIZED).to_string();
        let real = Value::new(format!("{base}{DEQUANTIZED}"), DType::F32, &value.shape);
        let real = self.out.add_value(real);
        self.push(DequantizeLinear::default().into(), id, real, &base);
        self.reals.insert(id, real);
        real
    }

    fn node(&mut self, node: &Node) {
        let mut node = node.clone();
        for id in node.inputs.iter_mut().flatten() {
            *id = self.real(*id);
        }
        let mut quantize = Vec::new();
        for id in &mut node.outputs {
            let value = &self.out.values[*id];
            if !value.is_quantized() {
                continue;
            }
            // The float tensor keeps the name, so that people find it.
            let name = value.name.clone();
            let float = Value::new(name.clone(), DType::F32, &value.shape);
            self.out.values[*id].name = format!("{name}{QUANTIZED}");
            let float = self.out.add_value(float);
            quantize.push((float, *id, name));
            *id = float;
        }
        self.out.nodes.push(node);
        for (float, codes, name) in quantize {
            self.push(QuantizeLinear::default().into(), float, codes, &name);
        }
    }

    fn quantize_node(&mut self, node: &Node) {
        let mut node = node.clone();
        node.inputs[0] = node.inputs[0].map(|id| self.real(id));
        self.out.nodes.push(node);
    }

    fn dequantize_node(&mut self, node: &Node) {
        let (from, to) = (node.inputs[0], node.outputs[0]);
        let real = from.and_then(|from| self.reals.get(&from).copied());
        if let (Some(real), false) = (real, self.out.outputs.contains(&to)) {
            // An 8-bit node before has read the same codes: one DequantizeLinear serves both.
            self.reals.insert(to, real);
            return;
        }
        if let Some(from) = from {
            self.reals.insert(from, to);
        }
        self.out.nodes.push(node.clone());
    }

    /// Outputs of codes are dequantized, under the name that the output had.
    fn outputs(&mut self) {
        for i in 0..self.out.outputs.len() {
            let id = self.out.outputs[i];
            if !self.out.values[id].is_quantized() {
                continue;
            }
            let codes = self.out.values[id].name.clone();
            let name = codes.trim_end_matches(QUANTIZED).to_string();
            let real = self.real(id);
            if let Some(float) = self.out.find_value(&name) {
                let suffix = if float == id { QUANTIZED } else { UNQUANTIZED };
                self.out.values[float].name = format!("{name}{suffix}");
            }
            self.out.values[real].name = name;
            self.out.values[real].layout = self.out.values[id].layout;
            self.out.outputs[i] = real;
        }
    }
}

/// A QDQ graph as an 8-bit graph: each operator between DequantizeLinear and QuantizeLinear
/// becomes one on codes, and a product of dequantized codes whose output is read as float one from
/// codes to floats. What does not match stays float, with its conversions, and so does what the
/// model says was left in float ([`FLOAT_BECAUSE`]), even between two tensors of codes.
pub fn fold(graph: &Graph) -> Graph {
    let mut out = graph.clone();
    let reasons = float_because(graph);
    simplify::simplify(&mut out, &reasons);
    fold_nodes(&mut out, &reasons);
    fold_inputs(&mut out);
    fold_outputs(&mut out);
    out.remove_unused();
    restore_names(&mut out);
    out
}

fn fold_nodes(graph: &mut Graph, reasons: &BTreeMap<String, String>) {
    let consumers = graph.consumers();
    let producers = graph.producers();
    let mut dropped = vec![false; graph.nodes.len()];
    for i in 0..graph.nodes.len() {
        let node = graph.nodes[i].clone();
        if matches!(node.op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_))
            || stays_float(graph, reasons, &node)
        {
            continue;
        }
        let Some(inputs) = code_inputs(graph, &producers, &node) else { continue };
        let quantizers = match output_quantizers(graph, &consumers, &node) {
            Some(quantizers) => quantizers,
            // A product of codes gives floats where somebody reads them.
            None if gives_floats(graph, &node.op, &inputs) => vec![None],
            None => continue,
        };
        let outputs: Vec<ValueId> = node
            .outputs
            .iter()
            .zip(&quantizers)
            .map(|(&id, q)| q.map_or(id, |q| graph.nodes[q].outputs[0]))
            .collect();
        if !fits(graph, &node, &inputs, &outputs) {
            continue;
        }
        graph.nodes[i].inputs = inputs;
        graph.nodes[i].outputs = outputs;
        for q in quantizers.into_iter().flatten() {
            dropped[q] = true;
        }
    }
    let mut dropped = dropped.into_iter();
    graph.nodes.retain(|_| !dropped.next().unwrap_or(false));
}

/// The codes behind a node's inputs; `None` where a float input is not a DequantizeLinear's.
fn code_inputs(
    graph: &Graph,
    producers: &[Option<usize>],
    node: &Node,
) -> Option<Vec<Option<ValueId>>> {
    let mut any = false;
    let inputs = node
        .inputs
        .iter()
        .map(|id| {
            let Some(id) = *id else { return Some(None) };
            if graph.values[id].dtype != DType::F32 {
                return Some(Some(id));
            }
            let producer = &graph.nodes[producers[id]?];
            any = true;
            match producer.op {
                Op::DequantizeLinear(_) => Some(producer.inputs[0]),
                _ => None,
            }
        })
        .collect::<Option<Vec<_>>>()?;
    any.then_some(inputs)
}

/// The QuantizeLinear of each output; `None` for an output that is not float. Nothing where an
/// output is read as float too.
fn output_quantizers(
    graph: &Graph,
    consumers: &[Vec<usize>],
    node: &Node,
) -> Option<Vec<Option<usize>>> {
    let quantizer = |id: &ValueId| {
        if graph.values[*id].dtype != DType::F32 {
            return Some(None);
        }
        match consumers[*id].as_slice() {
            [reader] if matches!(graph.nodes[*reader].op, Op::QuantizeLinear(_)) => {
                (!graph.outputs.contains(id)).then_some(Some(*reader))
            }
            _ => None,
        }
    };
    node.outputs.iter().map(quantizer).collect()
}

/// Whether the operator runs on these codes.
fn fits(graph: &Graph, node: &Node, inputs: &[Option<ValueId>], outputs: &[ValueId]) -> bool {
    use Quantization::{Averages, Moves, Never, Weighted};
    let value = |id: ValueId| &graph.values[id];
    let quantization = node.op.quantization();
    let per_tensor_u8 = |v: &Value| {
        v.dtype == DType::U8 && v.quant.as_ref().is_some_and(QuantParams::is_per_tensor)
    };
    let codes_out = outputs.iter().all(|&id| value(id).quant.is_none() || per_tensor_u8(value(id)));
    let Some(x) = inputs.first().copied().flatten().map(value) else { return false };
    if quantization == Never || !codes_out || !per_tensor_u8(x) {
        return false;
    }
    match quantization {
        Weighted => weighted_fits(graph, node, inputs),
        Moves | Averages => {
            outputs.iter().all(|&id| value(id).quant == x.quant || value(id).quant.is_none())
        }
        _ => {
            inputs.iter().flatten().all(|&id| value(id).quant.is_none() || per_tensor_u8(value(id)))
        }
    }
}

/// Weights must be constant codes, the bias `i32` at the scale of input times weight.
fn weighted_fits(graph: &Graph, node: &Node, inputs: &[Option<ValueId>]) -> bool {
    let value = |i: usize| inputs.get(i).copied().flatten().map(|id| &graph.values[id]);
    let (Some(x), Some(w)) = (value(0), value(1)) else { return false };
    let (Some(x_quant), Some(w_quant)) = (&x.quant, &w.quant) else { return false };
    if let Op::Gemm(gemm) = &node.op
        && (gemm.trans_a || gemm.alpha != 1.0 || gemm.beta != 1.0)
    {
        return false;
    }
    if !w.dtype.is_code() || (w.data.is_none() && !matches!(node.op, Op::MatMul(_))) {
        return false;
    }
    let Some(bias) = value(2) else { return inputs.get(2).copied().flatten().is_none() };
    let Some(bias_quant) = &bias.quant else { return false };
    let scales_match = |c: usize| {
        let product = x_quant.scale[0] * w_quant.scale_of(c);
        (bias_quant.scale_of(c) / product - 1.0).abs() < 1e-4
    };
    let channels = bias.shape.first().copied().unwrap_or(1);
    bias.dtype == DType::I32
        && bias.data.is_some()
        && bias.shape.len() == 1
        && (0..channels).all(scales_match)
}

/// A float input that is only quantized becomes an input of codes, unless the model says that its
/// inputs are float.
fn fold_inputs(graph: &mut Graph) {
    if graph.metadata.contains_key(FLOAT_INPUT) {
        return keep_scales_of_inputs(graph);
    }
    let consumers = graph.consumers();
    for i in 0..graph.inputs.len() {
        let id = graph.inputs[i];
        let Some(q) = sole_quantizer(graph, &consumers, id) else { continue };
        if !graph.values[graph.nodes[q].outputs[0]]
            .quant
            .as_ref()
            .is_some_and(|q| q.is_per_tensor())
            || graph.values[graph.nodes[q].outputs[0]].dtype != DType::U8
        {
            continue;
        }
        let codes = graph.nodes[q].outputs[0];
        graph.values[codes].layout = graph.values[id].layout;
        // The name goes with the interface.
        let name = graph.values[id].name.clone();
        graph.values[id].name = format!("{name}_float");
        graph.values[codes].name = name;
        graph.inputs[i] = codes;
        graph.nodes[q].inputs[0] = None;
    }
    graph.nodes.retain(|n| !(matches!(n.op, Op::QuantizeLinear(_)) && n.inputs[0].is_none()));
}

fn sole_quantizer(graph: &Graph, consumers: &[Vec<usize>], id: ValueId) -> Option<usize> {
    let is_quantizer = |i: &usize| matches!(graph.nodes[*i].op, Op::QuantizeLinear(_));
    match consumers[id].as_slice() {
        [reader] if is_quantizer(reader) && !graph.outputs.contains(&id) => Some(*reader),
        _ => None,
    }
}

/// A float input keeps the scale of its QuantizeLinear for callers that give codes.
fn keep_scales_of_inputs(graph: &mut Graph) {
    let consumers = graph.consumers();
    for id in graph.inputs.clone() {
        if let Some(q) = sole_quantizer(graph, &consumers, id) {
            graph.values[id].quant = graph.values[graph.nodes[q].outputs[0]].quant.clone();
        }
    }
}

/// An output that is a DequantizeLinear of codes becomes an output of codes.
fn fold_outputs(graph: &mut Graph) {
    let producers = graph.producers();
    for i in 0..graph.outputs.len() {
        let id = graph.outputs[i];
        let Some(producer) = producers[id].map(|p| &graph.nodes[p]) else { continue };
        let (Op::DequantizeLinear(_), Some(codes)) = (&producer.op, producer.inputs[0]) else {
            continue;
        };
        let per_tensor = graph.values[codes].quant.as_ref().is_some_and(QuantParams::is_per_tensor);
        if graph.values[codes].dtype != DType::U8
            || !per_tensor
            || graph.values[codes].data.is_some()
        {
            continue;
        }
        if graph.metadata.contains_key(FLOAT_OUTPUT)
            || graph.outputs.contains(&codes)
            || graph.inputs.contains(&codes)
        {
            graph.values[id].quant = graph.values[codes].quant.clone();
            continue;
        }
        let name = std::mem::take(&mut graph.values[id].name);
        graph.values[id].name = format!("{name}_float");
        graph.values[codes].name = name;
        graph.values[codes].layout = graph.values[id].layout;
        graph.outputs[i] = codes;
    }
}

/// Codes get back the name of the tensor that they stand for, where it is free.
fn restore_names(graph: &mut Graph) {
    let mut taken: std::collections::HashSet<String> =
        graph.values.iter().map(|v| v.name.clone()).collect();
    for value in &mut graph.values {
        if let Some(base) = value.name.strip_suffix(QUANTIZED)
            && !taken.contains(base)
        {
            let base = base.to_string();
            taken.remove(&value.name);
            taken.insert(base.clone());
            value.name = base;
        }
    }
}
