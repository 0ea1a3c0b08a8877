//! From a graph to a model file, in one form: operator set [`OPSET`], weights as raw bytes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use daq::attrs::{Attr, OPSET};
use daq::ops::Quantization;
use daq::{DType, Graph, Node, Op, OpError, Tensor, Value, ValueId};
use prost::Message;

use super::OnnxError;
use super::legacy;
use super::proto::attribute_proto::AttributeType;
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use super::qoperator::{self, Row, Slot};
use super::tensor::data_type;
use crate::files::write_atomically;
use crate::open_shapes::OpenAxes;

/// The version of the file format that belongs to [`OPSET`].
const IR_VERSION: i64 = 8;

/// The metadata key that says which version of daq wrote a file.
const VERSION: &str = "daq.version";

/// The most that protobuf holds in a file.
const MAX_BYTES: usize = i32::MAX as usize;

/// Operators that ONNX has had only since a newer operator set; such a model is written in that.
const NEWER: &[(&str, i64)] = &[
    ("BitwiseAnd", 18),
    ("BitwiseNot", 18),
    ("BitwiseOr", 18),
    ("BitwiseXor", 18),
    ("CenterCropPad", 18),
    ("Col2Im", 18),
    ("LpPool", 18),
    ("Mish", 18),
    ("ScatterElements", 18),
    ("ScatterND", 18),
    ("DeformConv", 19),
    ("AffineGrid", 20),
    ("Gelu", 20),
    ("GridSample", 20),
    ("GroupNormalization", 21),
];

/// Constant inputs that ONNX wants as a list of one where daq has a number.
const LISTS_OF_ONE: &[(&str, &str)] = &[("TopK", "k")];

/// Writes the graph as a model file, whole or not at all.
///
/// # Errors
/// [`OnnxError`] for a graph that is invalid or works on codes without QuantizeLinear and
/// DequantizeLinear, and where the file cannot be written.
pub fn write(graph: &Graph, path: impl AsRef<Path>) -> Result<(), OnnxError> {
    write_open(graph, path, &OpenAxes::new())
}

/// As [`write()`], with open axes of inputs and outputs; see [`open_shapes`](crate::open_shapes).
///
/// # Errors
/// As [`write()`].
pub fn write_open(graph: &Graph, path: impl AsRef<Path>, open: &OpenAxes) -> Result<(), OnnxError> {
    let path = path.as_ref();
    let bytes = encode(graph, open, &path.display().to_string())?;
    Ok(write_atomically(path, |file| file.write_all(&bytes))?)
}

/// The graph as the bytes of a model file.
///
/// # Errors
/// As [`write()`].
pub fn to_bytes(graph: &Graph) -> Result<Vec<u8>, OnnxError> {
    encode(graph, &OpenAxes::new(), "model")
}

fn encode(graph: &Graph, open: &OpenAxes, file: &str) -> Result<Vec<u8>, OnnxError> {
    graph
        .validate()
        .map_err(|e| OnnxError::Graph { file: file.to_string(), source: Box::new(e) })?;
    let opset = graph.nodes.iter().map(|node| since(graph, node)).max().unwrap_or(OPSET);
    let mut writer = Writer {
        graph,
        opset,
        names: graph.values.iter().map(|v| v.name.clone()).collect(),
        initializers: Vec::new(),
        scales: HashMap::new(),
        domains: BTreeSet::new(),
    };
    let mut nodes = Vec::new();
    for node in &graph.nodes {
        nodes.push(writer.node(node).map_err(|source| OnnxError::Node {
            file: file.to_string(),
            node: graph.node_name(node).to_string(),
            op: node.op.name().to_string(),
            opset,
            source: source.into(),
        })?);
    }
    let model = writer.model(nodes, open);
    let length = model.encoded_len();
    if length > MAX_BYTES {
        return Err(OnnxError::Model {
            file: file.to_string(),
            why: format!("the model has {length} bytes; an .onnx file holds {MAX_BYTES} at most"),
        });
    }
    Ok(model.encode_to_vec())
}

/// The operator set that a node is written in.
fn since(graph: &Graph, node: &Node) -> i64 {
    match &node.op {
        Op::Resize(resize) if resize.antialias => 18,
        Op::AveragePool(pool) if pool.window.dilations.iter().any(|&d| d != 1) => 19,
        // Then scale and bias were by group.
        Op::GroupNormalization(norm) if by_group(graph, node, norm.num_groups) => 18,
        op => NEWER.iter().find(|(name, _)| *name == op.name()).map_or(OPSET, |(_, since)| *since),
    }
}

/// Whether the scale of a GroupNormalization is one by group.
fn by_group(graph: &Graph, node: &Node, groups: i64) -> bool {
    let scale = node.inputs.get(1).copied().flatten().map(|id| &graph.values[id].shape);
    let channels = node.inputs.first().copied().flatten().map(|id| graph.values[id].shape[1]);
    scale.is_some_and(|s| *s == [groups as usize]) && channels != Some(groups as usize)
}

struct Writer<'a> {
    graph: &'a Graph,
    opset: i64,
    names: HashSet<String>,
    initializers: Vec<TensorProto>,
    /// The names of scale and zero point, by the value that has them.
    scales: HashMap<ValueId, (String, String)>,
    /// Domains beside ONNX that operators come from.
    domains: BTreeSet<&'static str>,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node) -> Result<NodeProto, OpError> {
        let graph = self.graph;
        if let Some(row) = qoperator::row_of(graph, node) {
            return self.qoperator(node, row);
        }
        if let Op::Resize(resize) = &node.op
            && !resize.scales.is_empty()
            && !resize.sizes.is_empty()
        {
            let what = "Resize with sizes that its scale does not give, in an ONNX file,";
            return Err(OpError::unsupported(what, "write a .daq file"));
        }
        let name_of = |id: &ValueId| graph.values[*id].name.clone();
        let mut inputs: Vec<String> =
            node.inputs.iter().map(|id| id.as_ref().map(name_of).unwrap_or_default()).collect();
        let mut attrs = node.op.to_attrs().map;
        let op = node.op.name();
        let coded = match op {
            "QuantizeLinear" => node.outputs.first(),
            "DequantizeLinear" => node.inputs.first().and_then(Option::as_ref),
            _ => None,
        };
        if let Some(&coded) = coded {
            let axis = self.scale_inputs(coded, &mut inputs)?;
            if let Some(axis) = axis {
                attrs.insert("axis".into(), Attr::Int(axis as i64));
            }
        } else {
            self.refuse_codes(node)?;
        }
        if op == "Split" && self.opset < 18 {
            // Without sizes, the number of outputs tells.
            attrs.remove("num_outputs");
        }
        for input in legacy::attr_inputs(op, self.opset) {
            let Some(value) = attrs.remove(input.name) else { continue };
            let first = node.inputs.first().copied().flatten().map(|id| &graph.values[id]);
            let tensor = constant_input(op, input.name, value, first)?;
            let wish = format!("{}_{}", graph.node_name(node), input.name);
            let name = self.initializer(&wish, &tensor);
            inputs.resize(inputs.len().max(input.index + 1), String::new());
            inputs[input.index] = name;
        }
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        Ok(NodeProto {
            op_type: Some(op.to_string()),
            name: Some(node.name.clone()),
            input: inputs,
            output: node.outputs.iter().map(name_of).collect(),
            attribute: attrs.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            doc_string: some_text(&node.doc),
            ..Default::default()
        })
    }

    /// A node that works on codes, as the operator that takes scales and zero points.
    fn qoperator(&mut self, node: &Node, row: &Row) -> Result<NodeProto, OpError> {
        let name_of = |id: ValueId| self.graph.values[id].name.clone();
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let mut inputs = Vec::new();
        for slot in row.slots(node.inputs.len()) {
            let coded = match slot {
                Slot::Tensor(i) => {
                    inputs.push(input(i).map(name_of).unwrap_or_default());
                    continue;
                }
                Slot::InputQuant(i) => input(i),
                Slot::OutputQuant => node.outputs.first().copied(),
            };
            let (scale, zero_point) =
                self.scale_names(coded.ok_or(OpError::MissingInput { index: 0 })?)?;
            inputs.extend([scale, zero_point]);
        }
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        let (domain, op) = row.domain_and_name();
        let attrs = node.op.to_attrs().map.into_iter().chain(row.attributes());
        if !domain.is_empty() {
            self.domains.insert(domain);
        }
        Ok(NodeProto {
            op_type: Some(op.to_string()),
            domain: some_text(domain),
            name: Some(node.name.clone()),
            input: inputs,
            output: node.outputs.iter().map(|&id| self.graph.values[id].name.clone()).collect(),
            attribute: attrs.map(|(name, value)| attribute(name, value)).collect(),
            doc_string: some_text(&node.doc),
            ..Default::default()
        })
    }

    /// Adds scale and zero point of `coded` as inputs; gives the axis where there are several.
    fn scale_inputs(
        &mut self,
        coded: ValueId,
        inputs: &mut Vec<String>,
    ) -> Result<Option<usize>, OpError> {
        let (scale, zero_point) = self.scale_names(coded)?;
        inputs.truncate(1);
        inputs.extend([scale, zero_point]);
        let quant = self.graph.values[coded].quant.as_ref().filter(|q| !q.is_per_tensor());
        Ok(quant.map(|q| q.axis))
    }

    /// The names of scale and zero point of `coded`; an empty one for a zero point left out.
    fn scale_names(&mut self, coded: ValueId) -> Result<(String, String), OpError> {
        let value = &self.graph.values[coded];
        let Some(quant) = &value.quant else {
            let remedy = "give the value a scale and zero point";
            return Err(OpError::unsupported(
                format!("codes `{}` without a scale", value.name),
                remedy,
            ));
        };
        if !self.scales.contains_key(&coded) {
            let shape: &[usize] = if quant.is_per_tensor() { &[] } else { &[quant.scale.len()] };
            let scale = Tensor::from_slice(shape, &quant.scale);
            let scale = self.initializer(&format!("{}_scale", value.name), &scale);
            let codes = || quant.zero_point.iter();
            let zero_point = match value.dtype {
                DType::U8 => {
                    Some(Tensor::from_slice(shape, &codes().map(|&z| z as u8).collect::<Vec<_>>()))
                }
                DType::I8 => {
                    Some(Tensor::from_slice(shape, &codes().map(|&z| z as i8).collect::<Vec<_>>()))
                }
                // Always 0, and left out: not every reader takes an int32 zero point.
                _ => None,
            };
            let zero_point = zero_point
                .map(|z| self.initializer(&format!("{}_zero_point", value.name), &z))
                .unwrap_or_default();
            self.scales.insert(coded, (scale, zero_point));
        }
        Ok(self.scales[&coded].clone())
    }

    /// ONNX has no scale on values: what computes on codes must have been written as float
    /// operators between DequantizeLinear and QuantizeLinear.
    fn refuse_codes(&self, node: &Node) -> Result<(), OpError> {
        let moves = matches!(node.op.quantization(), Quantization::Moves | Quantization::Never);
        let mut values = node.inputs.iter().flatten().map(|&id| &self.graph.values[id]);
        match values.find(|v| v.is_quantized()) {
            Some(value) if !moves => Err(OpError::unsupported(
                format!("computing on the codes `{}` in an ONNX file", value.name),
                "put DequantizeLinear and QuantizeLinear around the operator",
            )),
            _ => Ok(()),
        }
    }

    /// Adds a constant under a name like `wish`.
    fn initializer(&mut self, wish: &str, tensor: &Tensor) -> String {
        let mut name = wish.to_string();
        let mut i = 1;
        while !self.names.insert(name.clone()) {
            i += 1;
            name = format!("{wish}_{i}");
        }
        self.initializers.push(tensor_proto(&name, tensor));
        name
    }

    fn model(mut self, nodes: Vec<NodeProto>, open: &OpenAxes) -> ModelProto {
        let graph = self.graph;
        let read = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        let used: HashSet<ValueId> = read.chain(&graph.outputs).copied().collect();
        let made: HashSet<ValueId> = graph.nodes.iter().flat_map(|n| &n.outputs).copied().collect();
        for (id, value) in graph.values.iter().enumerate().filter(|(id, _)| used.contains(id)) {
            if let Some(data) = value.data.as_ref().filter(|_| !made.contains(&id)) {
                self.initializers.push(tensor_proto(&value.name, data));
            }
        }
        let infos = |ids: &[ValueId]| ids.iter().map(|&id| info(&graph.values[id], open)).collect();
        // With open axes those of the tensors between follow.
        let inner = (0..graph.values.len()).filter(|id| made.contains(id) && open.is_empty());
        let inner: Vec<_> = inner.filter(|id| !graph.outputs.contains(id)).collect();
        let mut metadata = graph.metadata.clone();
        metadata.insert(VERSION.into(), env!("CARGO_PKG_VERSION").into());
        let entry = |(key, value)| StringStringEntryProto { key: Some(key), value: Some(value) };
        let opsets = [("", self.opset)].into_iter().chain(self.domains.iter().map(|d| (*d, 1)));
        let opsets = opsets.map(|(domain, version)| OperatorSetIdProto {
            domain: Some(domain.to_string()),
            version: Some(version),
        });
        let name = if graph.name.is_empty() { "model" } else { &graph.name };
        ModelProto {
            ir_version: Some(IR_VERSION + (self.opset - OPSET).min(1)),
            opset_import: opsets.collect(),
            producer_name: Some("daq".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            metadata_props: metadata.into_iter().map(entry).collect(),
            graph: Some(GraphProto {
                name: Some(name.to_string()),
                doc_string: some_text(&graph.doc),
                node: nodes,
                initializer: self.initializers,
                input: infos(&graph.inputs),
                output: infos(&graph.outputs),
                value_info: infos(&inner),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// An attribute as the constant input that ONNX wants; `first` is the node's input 0, whose type
/// bounds and paddings share.
fn constant_input(
    op: &str,
    name: &str,
    value: Attr,
    first: Option<&Value>,
) -> Result<Tensor, OpError> {
    let typed = matches!((op, name), ("Clip", _) | ("Pad", "value"));
    Ok(match value {
        Attr::Float(v) if typed => number_like(v, first),
        Attr::Float(v) => Tensor::scalar(v),
        Attr::Floats(v) => Tensor::from_slice(&[v.len()], &v),
        Attr::Int(v) if name == "training_mode" => {
            Tensor::from_bytes(DType::Bool, &[], &[(v != 0) as u8])
        }
        Attr::Int(v) if LISTS_OF_ONE.contains(&(op, name)) => Tensor::from_slice(&[1], &[v]),
        Attr::Int(v) => Tensor::scalar(v),
        Attr::Ints(v) => Tensor::from_slice(&[v.len()], &v),
        Attr::Tensor(v) => v,
        Attr::Str(_) => return Err(OpError::attribute(name, "is text, must be a number")),
    })
}

/// A number in the type of `like`, as a code where that holds codes.
fn number_like(v: f32, like: Option<&Value>) -> Tensor {
    let code = |low: i32, high: i32| match like.and_then(|l| l.quant.as_ref()) {
        Some(quant) => quant.code(v, low, high),
        None => v as i32,
    };
    match like.map_or(DType::F32, |l| l.dtype) {
        DType::U8 => Tensor::scalar(code(0, 255) as u8),
        DType::I8 => Tensor::scalar(code(-128, 127) as i8),
        DType::I32 => Tensor::scalar(v as i32),
        DType::I64 => Tensor::scalar(v as i64),
        DType::Bool => Tensor::from_bytes(DType::Bool, &[], &[(v != 0.0) as u8]),
        _ => Tensor::scalar(v),
    }
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn attribute(name: String, value: Attr) -> AttributeProto {
    let of = |kind: AttributeType| AttributeProto {
        name: Some(name.clone()),
        r#type: Some(kind as i32),
        ..Default::default()
    };
    match value {
        Attr::Int(v) => AttributeProto { i: Some(v), ..of(AttributeType::Int) },
        Attr::Float(v) => AttributeProto { f: Some(v), ..of(AttributeType::Float) },
        Attr::Str(v) if name == "activations" => {
            let names = v.split(',').map(|s| s.as_bytes().to_vec()).collect();
            AttributeProto { strings: names, ..of(AttributeType::Strings) }
        }
        Attr::Str(v) => AttributeProto { s: Some(v.into_bytes()), ..of(AttributeType::String) },
        Attr::Ints(v) => AttributeProto { ints: v, ..of(AttributeType::Ints) },
        Attr::Floats(v) => AttributeProto { floats: v, ..of(AttributeType::Floats) },
        Attr::Tensor(v) => {
            AttributeProto { t: Some(tensor_proto("", &v)), ..of(AttributeType::Tensor) }
        }
    }
}

/// A tensor as models hold it.
pub(crate) fn tensor_proto(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: Some(name.to_string()),
        data_type: data_type(tensor.dtype()).map(|t| t as i32),
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        raw_data: Some(tensor.bytes().to_vec()),
        ..Default::default()
    }
}

fn info(value: &Value, open: &OpenAxes) -> ValueInfoProto {
    use tensor_shape_proto::dimension::Value::{DimParam, DimValue};
    let open = open.get(&value.name).map_or(&[][..], Vec::as_slice);
    let dim = |(axis, &d): (usize, &usize)| tensor_shape_proto::Dimension {
        value: Some(match open.contains(&axis) {
            true => DimParam(format!("{}_{axis}", value.name)),
            false => DimValue(d as i64),
        }),
        ..Default::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: data_type(value.dtype).map(|t| t as i32),
        shape: Some(TensorShapeProto { dim: value.shape.iter().enumerate().map(dim).collect() }),
    };
    ValueInfoProto {
        name: Some(value.name.clone()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::small::*;
    use super::*;

    #[test]
    fn resize_has_its_scales_where_onnx_wants_them() {
        let resize = |constant: TensorProto, inputs: &[&str]| {
            let roi = floats("roi", &[8], &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
            let node = node("Resize", inputs, &["y"], &[]);
            read_model(&model(13, &[("x", &[1, 1, 2, 2])], &[constant, roi], &[node], &["y"]))
                .unwrap()
        };
        let scales = floats("c", &[4], &[1.0, 1.0, 2.0, 3.0]);
        for (constant, inputs, position) in [
            (scales, ["x", "roi", "c", ""], 2),
            (longs("c", &[4], &[1, 1, 4, 6]), ["x", "roi", "", "c"], 3),
        ] {
            let graph = resize(constant, &inputs);
            assert_eq!(graph.values[graph.outputs[0]].shape, [1, 1, 4, 6]);
            let written = ModelProto::decode(&to_bytes(&graph).unwrap()[..]).unwrap();
            let inputs = &written.graph.as_ref().unwrap().node[0].input;
            let filled: Vec<_> = (0..inputs.len()).filter(|&i| !inputs[i].is_empty()).collect();
            assert_eq!(filled, [0, position]);
            assert_eq!(read_model(&written).unwrap().nodes[0].op, graph.nodes[0].op);
        }
    }
}
