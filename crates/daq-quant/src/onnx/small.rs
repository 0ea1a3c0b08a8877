//! Small models for tests, built message by message.

use daq::{Graph, Tensor};
use prost::Message;

use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_proto::DataType;
use super::proto::*;
use super::*;

/// A model of operator set `opset` with float inputs and outputs; dimensions below 0 are open.
pub(crate) fn model(
    opset: i64,
    inputs: &[(&str, &[i64])],
    initializers: &[TensorProto],
    nodes: &[NodeProto],
    outputs: &[&str],
) -> ModelProto {
    let graph = GraphProto {
        name: Some("small".into()),
        node: nodes.to_vec(),
        initializer: initializers.to_vec(),
        input: inputs.iter().map(|(name, dims)| value_info(name, DataType::Float, dims)).collect(),
        output: outputs.iter().map(|n| value_info(n, DataType::Float, &[])).collect(),
        ..Default::default()
    };
    let version = OperatorSetIdProto { domain: Some("".into()), version: Some(opset) };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![version],
        graph: Some(graph),
        ..Default::default()
    }
}

pub(crate) fn value_info(name: &str, data_type: DataType, dims: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |&d: &i64| {
        let value = if d < 0 { Value::DimParam("n".into()) } else { Value::DimValue(d) };
        Dimension { value: Some(value), ..Default::default() }
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(data_type as i32), shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    let r#type = Some(TypeProto { value, ..Default::default() });
    ValueInfoProto { name: Some(name.into()), r#type, ..Default::default() }
}

pub(crate) fn node(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[AttributeProto],
) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    NodeProto {
        op_type: Some(op.into()),
        input: own(inputs),
        output: own(outputs),
        attribute: attributes.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn floats(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(DataType::Float as i32),
        dims: dims.to_vec(),
        float_data: data.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn longs(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(DataType::Int64 as i32),
        dims: dims.to_vec(),
        int64_data: data.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn bytes(name: &str, data_type: DataType, dims: &[i64], data: &[i32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(data_type as i32),
        dims: dims.to_vec(),
        int32_data: data.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..Default::default() }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attribute(name, AttributeType::Int) }
}

pub(crate) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f: Some(f), ..attribute(name, AttributeType::Float) }
}

pub(crate) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { ints: ints.to_vec(), ..attribute(name, AttributeType::Ints) }
}

pub(crate) fn read_model(model: &ModelProto) -> Result<Graph, OnnxError> {
    read_bytes(&model.encode_to_vec(), &ReadOptions::default())
}

/// Computes a graph node by node, without plans.
pub(crate) fn compute(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut values: Vec<Option<Tensor>> = graph.values.iter().map(|v| v.data.clone()).collect();
    for (&id, input) in graph.inputs.iter().zip(inputs) {
        values[id] = Some(input.clone());
    }
    for node in &graph.nodes {
        let inputs: Vec<_> =
            node.inputs.iter().map(|id| id.map(|id| values[id].as_ref().unwrap())).collect();
        let outputs = daq::ops::eval::evaluate_plain(&node.op, &inputs).unwrap();
        for (&id, output) in node.outputs.iter().zip(outputs) {
            values[id] = Some(output);
        }
    }
    graph.outputs.iter().map(|&id| values[id].clone().unwrap()).collect()
}
