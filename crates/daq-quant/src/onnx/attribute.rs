//! Attributes of ONNX nodes as daq's neutral ones.

use std::path::Path;

use daq::attrs::{Attr, Attrs};
use daq::{DType, OpError, Tensor};

use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, NodeProto};
use super::tensor::tensor;

/// The attributes of a node in a model of operator set `opset`.
pub(super) fn attributes(
    node: &NodeProto,
    opset: i64,
    folder: Option<&Path>,
) -> Result<Attrs, OpError> {
    let mut attrs = Attrs::of_opset(opset);
    for proto in &node.attribute {
        let name = proto.name.clone().unwrap_or_default();
        let value = attribute(&name, proto, folder)?;
        if attrs.map.insert(name.clone(), value).is_some() {
            return Err(OpError::attribute(name, "is given twice"));
        }
    }
    Ok(attrs)
}

fn attribute(name: &str, proto: &AttributeProto, folder: Option<&Path>) -> Result<Attr, OpError> {
    let unsupported = |what: &str, remedy: &str| {
        Err(OpError::unsupported(format!("attribute `{name}`, {what}"), remedy))
    };
    Ok(match kind(proto) {
        AttributeType::Float => Attr::Float(proto.f.unwrap_or(0.0)),
        AttributeType::Int => Attr::Int(proto.i.unwrap_or(0)),
        AttributeType::String => {
            let text = String::from_utf8(proto.s.clone().unwrap_or_default());
            Attr::Str(text.map_err(|_| OpError::attribute(name, "is not UTF-8 text"))?)
        }
        AttributeType::Floats => Attr::Floats(proto.floats.clone()),
        AttributeType::Ints => Attr::Ints(proto.ints.clone()),
        AttributeType::Tensor => {
            let missing = || OpError::attribute(name, "holds no tensor");
            let value = tensor(proto.t.as_ref().ok_or_else(missing)?, folder);
            Attr::Tensor(value.map_err(|why| OpError::attribute(name, why))?)
        }
        AttributeType::Graph | AttributeType::Graphs => {
            return unsupported(
                "a subgraph",
                "export the model without control flow (If, Loop, Scan), or fold constants before",
            );
        }
        AttributeType::SparseTensor | AttributeType::SparseTensors => {
            return unsupported("a sparse tensor", "store it dense");
        }
        // The functions of a recurrent operator.
        AttributeType::Strings if name == "activations" => {
            let names = proto.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned());
            Attr::Str(names.collect::<Vec<_>>().join(","))
        }
        AttributeType::Strings | AttributeType::Tensors => {
            return unsupported("a list of strings or tensors", "replace the operator");
        }
        AttributeType::TypeProto | AttributeType::TypeProtos => {
            return unsupported("a type", "replace the operator");
        }
        AttributeType::Undefined => {
            return Err(OpError::attribute(name, "has no value"));
        }
    })
}

/// The declared type; early files have none, and the field that is filled tells.
fn kind(proto: &AttributeProto) -> AttributeType {
    let declared = AttributeType::try_from(proto.r#type.unwrap_or(0));
    match declared.unwrap_or(AttributeType::Undefined) {
        AttributeType::Undefined => {}
        declared => return declared,
    }
    [
        (proto.f.is_some(), AttributeType::Float),
        (proto.i.is_some(), AttributeType::Int),
        (proto.s.is_some(), AttributeType::String),
        (proto.t.is_some(), AttributeType::Tensor),
        (proto.g.is_some(), AttributeType::Graph),
        (!proto.floats.is_empty(), AttributeType::Floats),
        (!proto.ints.is_empty(), AttributeType::Ints),
        (!proto.graphs.is_empty(), AttributeType::Graphs),
        (!proto.strings.is_empty(), AttributeType::Strings),
    ]
    .into_iter()
    .find_map(|(filled, kind)| filled.then_some(kind))
    .unwrap_or(AttributeType::Undefined)
}

/// The tensor of a Constant node, in any of the forms that ONNX has had.
pub(super) fn constant(attrs: &Attrs) -> Result<Tensor, OpError> {
    let string =
        ["value_string", "value_strings"].into_iter().find(|name| attrs.map.contains_key(*name));
    if let Some(name) = string {
        return Err(OpError::unsupported(
            format!("the string constant `{name}`"),
            "remove string processing from the model",
        ));
    }
    let forms = [
        attrs.get_tensor("value")?.cloned(),
        attrs.get_float("value_float")?.map(Tensor::scalar),
        attrs.get_floats("value_floats")?.map(|v| Tensor::from_slice(&[v.len()], &v)),
        attrs.get_int("value_int")?.map(Tensor::scalar),
        attrs.get_ints("value_ints")?.map(|v| Tensor::from_slice(&[v.len()], &v)),
    ];
    attrs.all_asked()?;
    let mut given = forms.into_iter().flatten();
    let value = given.next().ok_or_else(|| OpError::attribute("value", "is missing"))?;
    match given.next() {
        None => Ok(value),
        Some(_) => Err(OpError::attribute("value", "is given in two forms; leave one of them out")),
    }
}

/// A constant input as an attribute: numbers and lists of numbers where it is one.
pub(super) fn attr_of(tensor: &Tensor) -> Attr {
    let ints: Vec<i64> = match tensor.dtype() {
        DType::F32 => {
            return match (tensor.shape().len(), tensor.data::<f32>()) {
                (0, data) => Attr::Float(data[0]),
                (1, data) => Attr::Floats(data.to_vec()),
                _ => Attr::Tensor(tensor.clone()),
            };
        }
        DType::I64 => tensor.data::<i64>().to_vec(),
        DType::I32 => tensor.data::<i32>().iter().map(|&v| v.into()).collect(),
        DType::I8 => tensor.data::<i8>().iter().map(|&v| v.into()).collect(),
        _ => tensor.bytes().iter().map(|&v| v.into()).collect(),
    };
    match tensor.shape().len() {
        0 => Attr::Int(ints[0]),
        1 => Attr::Ints(ints),
        _ => Attr::Tensor(tensor.clone()),
    }
}
