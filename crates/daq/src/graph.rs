//! The one intermediate representation: float, quantized and foreign models are all a [`Graph`].

use std::collections::{BTreeMap, HashSet};

use crate::check;
use crate::compile::Operand;
use crate::error::{Error, OpError, Result};
use crate::layout::Layout;
use crate::ops::{Op, Spec};
use crate::quant::QuantParams;
use crate::tensor::{DType, Tensor, checked_bytes};

/// A value's position in [`Graph::values`].
pub type ValueId = usize;

/// A tensor that flows through the graph, or a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The tensor's name, unique in the graph.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The logical shape (batch, channels, space).
    pub shape: Vec<usize>,
    /// How its codes stand for real numbers. On an `f32` graph input or output: the scale at which
    /// the caller may give or take codes.
    pub quant: Option<QuantParams>,
    /// The elements, where they are constant; always in plain layout.
    pub data: Option<Tensor>,
    /// The layout in which the caller gives a graph input or takes a graph output; plain elsewhere.
    pub layout: Layout,
}

impl Value {
    /// A value that is computed or given.
    pub fn new(name: impl Into<String>, dtype: DType, shape: &[usize]) -> Self {
        let shape = shape.to_vec();
        Value { name: name.into(), dtype, shape, quant: None, data: None, layout: Layout::Plain }
    }

    /// A constant.
    pub fn constant(name: impl Into<String>, data: Tensor) -> Self {
        let value = Value::new(name, data.dtype(), data.shape());
        Value { data: Some(data), ..value }
    }

    /// The same value with a quantization.
    pub fn with_quant(self, quant: QuantParams) -> Self {
        Value { quant: Some(quant), ..self }
    }

    /// Whether it holds 8-bit codes with a known scale.
    pub fn is_quantized(&self) -> bool {
        self.dtype.is_code() && self.quant.is_some()
    }

    /// The value in its logical shape, as checks see it.
    fn operand(&self) -> Operand<'_> {
        let (quant, data) = (self.quant.as_ref(), self.data.as_ref());
        Operand { dtype: self.dtype, shape: &self.shape, quant, data }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The node's name; may be empty.
    pub name: String,
    /// The operator with its attributes.
    pub op: Op,
    /// The inputs by position; `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// The outputs by position.
    pub outputs: Vec<ValueId>,
    /// The doc string of the model's author.
    pub doc: String,
}

/// A model: values, the nodes that compute them in order, inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    /// The doc string of the model's author.
    pub doc: String,
    /// Key and value strings: the model's metadata.
    pub metadata: BTreeMap<String, String>,
    /// Every value; some may be unused.
    pub values: Vec<Value>,
    /// The nodes, each after those that compute its inputs.
    pub nodes: Vec<Node>,
    /// The values that the caller gives.
    pub inputs: Vec<ValueId>,
    /// The values that the caller takes.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    /// Adds a value.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        self.values.len() - 1
    }

    /// The node's name, or its first output's where it has none.
    pub fn node_name<'a>(&'a self, node: &'a Node) -> &'a str {
        match node.outputs.first() {
            Some(&output) if node.name.is_empty() => &self.values[output].name,
            _ => &node.name,
        }
    }

    /// An operator's problem with the node's name.
    pub fn node_error(&self, node: &Node, source: OpError) -> Error {
        let (node, op) = (self.node_name(node).to_string(), node.op.name().to_string());
        Error::Node { node, op, source }
    }

    /// The value of that name.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.values.iter().position(|v| v.name == name)
    }

    /// Types and shapes of a node's inputs, as [`Op::infer`] takes them.
    pub fn input_specs(&self, node: &Node) -> Vec<Option<Spec>> {
        let spec = |&id: &ValueId| Spec::new(self.values[id].dtype, &self.values[id].shape);
        node.inputs.iter().map(|id| id.as_ref().map(spec)).collect()
    }

    /// For each value, the nodes that read it (a node that reads it twice is listed twice).
    pub fn consumers(&self) -> Vec<Vec<usize>> {
        let mut consumers = vec![Vec::new(); self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for &id in node.inputs.iter().flatten() {
                consumers[id].push(i);
            }
        }
        consumers
    }

    /// For each value, the node that computes it.
    pub fn producers(&self) -> Vec<Option<usize>> {
        let mut producers = vec![None; self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for &id in &node.outputs {
                producers[id] = Some(i);
            }
        }
        producers
    }

    /// Makes every reader of `from`, the graph's outputs included, read `to`.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        let inputs = self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().flatten());
        for id in inputs.chain(&mut self.outputs).filter(|id| **id == from) {
            *id = to;
        }
    }

    /// Removes nodes whose outputs nobody reads, then the values that nobody names.
    pub fn remove_unused(&mut self) {
        let mut used: HashSet<ValueId> = self.outputs.iter().copied().collect();
        let mut keep = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|id| used.contains(id)) {
                keep[i] = true;
                used.extend(node.inputs.iter().flatten());
                used.extend(&node.outputs);
            }
        }
        let mut keep = keep.into_iter();
        self.nodes.retain(|_| keep.next().unwrap_or(true));
        used.extend(&self.inputs);
        let mut renumbered = vec![usize::MAX; self.values.len()];
        let mut next = 0;
        for (id, new) in renumbered.iter_mut().enumerate() {
            if used.contains(&id) {
                *new = next;
                next += 1;
            }
        }
        let mut id = 0..;
        self.values.retain(|_| used.contains(&id.next().unwrap_or(usize::MAX)));
        let inputs =
            self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().flatten().chain(&mut n.outputs));
        for id in inputs.chain(&mut self.inputs).chain(&mut self.outputs) {
            *id = renumbered[*id];
        }
    }

    /// Checks everything that running relies on: ids in range, unique names, each value computed
    /// once and before it is read, constants of their declared type and shape, shapes that agree
    /// with the operators' own inference, quantization that fits its value, sizes within limits.
    pub fn validate(&self) -> Result<()> {
        let count = self.values.len();
        let bad = |why: String| Err(Error::Graph(why));
        let ids = self.nodes.iter().flat_map(|n| n.inputs.iter().flatten().chain(&n.outputs));
        if let Some(id) = ids.chain(&self.inputs).chain(&self.outputs).find(|id| **id >= count) {
            return bad(format!("value {id} is named, but there are only {count}"));
        }
        let mut names = HashSet::new();
        for value in &self.values {
            if !names.insert(value.name.as_str()) {
                return bad(format!("two values are named `{}`", value.name));
            }
            checked_bytes(&value.name, value.dtype, &value.shape)?;
            if let Some(data) = &value.data
                && (data.dtype() != value.dtype || data.shape() != value.shape)
            {
                return bad(format!(
                    "constant `{}` is not of its declared type and shape",
                    value.name
                ));
            }
            if let Some(quant) = &value.quant {
                check_quant(value, quant).or_else(|why| bad(format!("`{}`: {why}", value.name)))?;
            }
        }
        let ends: HashSet<ValueId> = self.inputs.iter().chain(&self.outputs).copied().collect();
        if let Some((_, value)) = self.values.iter().enumerate().find(|(id, value)| {
            value.layout != Layout::Plain && (value.data.is_some() || !ends.contains(id))
        }) {
            return bad(format!("`{}` is not an input or output, but has a layout", value.name));
        }
        let mut known: Vec<bool> = self.values.iter().map(|v| v.data.is_some()).collect();
        for &id in &self.inputs {
            if known[id] {
                return bad(format!("input `{}` is given twice or constant", self.values[id].name));
            }
            known[id] = true;
        }
        for node in &self.nodes {
            for &id in node.inputs.iter().flatten() {
                if !known[id] {
                    return bad(format!(
                        "node `{}` reads `{}` before anything computes it",
                        self.node_name(node),
                        self.values[id].name
                    ));
                }
            }
            let specs =
                node.op.infer(&self.input_specs(node)).map_err(|e| self.node_error(node, e))?;
            if specs.len() < node.outputs.len() {
                return bad(format!("node `{}` has too many outputs", self.node_name(node)));
            }
            let operands: Vec<_> =
                node.inputs.iter().map(|id| id.map(|id| self.values[id].operand())).collect();
            let outputs: Vec<_> =
                node.outputs.iter().map(|&id| self.values[id].operand()).collect();
            check::node(&node.op, &operands, &outputs, &specs)
                .map_err(|e| self.node_error(node, e))?;
            for (&id, spec) in node.outputs.iter().zip(&specs) {
                if std::mem::replace(&mut known[id], true) {
                    return bad(format!("`{}` is computed twice", self.values[id].name));
                }
                if self.values[id].shape != spec.shape {
                    return bad(format!(
                        "`{}` is declared {:?}, but node `{}` computes {:?}",
                        self.values[id].name,
                        self.values[id].shape,
                        self.node_name(node),
                        spec.shape
                    ));
                }
            }
        }
        match self.outputs.iter().find(|&&id| !known[id]) {
            Some(&id) => bad(format!("nothing computes output `{}`", self.values[id].name)),
            None => Ok(()),
        }
    }
}

fn check_quant(value: &Value, quant: &QuantParams) -> Result<(), String> {
    let n = quant.scale.len();
    if n == 0 || quant.zero_point.len() != n {
        return Err(format!("{n} scales and {} zero points", quant.zero_point.len()));
    }
    if n > 1 && value.shape.get(quant.axis) != Some(&n) {
        return Err(format!("{n} scales on axis {} of shape {:?}", quant.axis, value.shape));
    }
    if let Some(scale) = quant.scale.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        return Err(format!("scale {scale} is not positive and finite"));
    }
    let range = match value.dtype {
        DType::I8 => -128..=127,
        DType::I32 => 0..=0,
        DType::U8 | DType::F32 => 0..=255,
        DType::I64 | DType::Bool => return Err(format!("{} with a scale", value.dtype)),
    };
    if quant.axis >= value.shape.len().max(1) {
        return Err(format!("scales along axis {} of shape {:?}", quant.axis, value.shape));
    }
    match quant.zero_point.iter().find(|z| !range.contains(*z)) {
        Some(z) => Err(format!("zero point {z} is outside of {} {range:?}", value.dtype)),
        None => Ok(()),
    }
}
