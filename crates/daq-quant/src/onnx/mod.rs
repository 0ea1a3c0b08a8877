//! ONNX models in and out.
//!
//! [`read`] makes a [`Graph`](daq::Graph) of a model of any operator set from 7 on: it settles
//! shapes, moves constant inputs to attributes, rewrites the forms of other operator sets to those
//! of [`OPSET`](daq::attrs::OPSET) and computes what is constant. [`write()`] is its inverse, in one
//! form only.

use daq::OpError;

use crate::files::WriteError;

mod attribute;
mod branch;
mod call;
mod elements;
mod emit;
mod inputs;
mod legacy;
mod order;
pub(crate) mod parts;
#[rustfmt::skip]
#[allow(missing_docs, reason = "made from ONNX's schema, which documents itself")]
pub mod proto;
mod qdq;
mod qoperator;
mod read;
#[cfg(test)]
pub(crate) mod small;
mod tensor;
#[cfg(test)]
mod tests;
mod write;

pub use qoperator::{qoperator, write_qoperator};
pub use read::{MAX_OPSET, MIN_OPSET, ReadOptions, input_specs, metadata, read, read_bytes};
pub(crate) use read::{model_of, read_part};
pub(crate) use write::tensor_proto;
pub use write::{to_bytes, write, write_open};

/// The elements of an ONNX tensor; wider and narrower floats become `f32`.
///
/// # Errors
/// What is wrong with it: a type that daq does not hold, data that do not fit the shape, or data in
/// a file of their own.
pub fn tensor_of(proto: &proto::TensorProto) -> Result<daq::Tensor, String> {
    tensor::tensor(proto, None)
}

/// Why a model could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file cannot be read, is not an ONNX model, or contradicts itself.
    #[error("{file}: {why}")]
    Model {
        /// The file.
        file: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The model uses a feature of ONNX that daq does not have.
    #[error("{file}: {what} not supported; {remedy}")]
    Unsupported {
        /// The file.
        file: String,
        /// The feature, with its verb.
        what: String,
        /// What the user can do.
        remedy: String,
    },
    /// A model input whose type or shape cannot be used.
    #[error("{file}: input `{input}`: {why}")]
    Input {
        /// The file.
        file: String,
        /// The input's name.
        input: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A constant whose type or data cannot be used.
    #[error("{file}: tensor `{tensor}` (of node `{node}`): {why}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// The node that holds or reads it.
        node: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A node that cannot be used.
    #[error("{file}: node `{node}` ({op}, opset {opset}): {source}")]
    Node {
        /// The file.
        file: String,
        /// The node's name, or its first output where it has none.
        node: String,
        /// The operator.
        op: String,
        /// The operator set version that the model asks for.
        opset: i64,
        /// What is wrong.
        source: Box<OpError>,
    },
    /// A node whose output has a shape that elements decide which are computed at run time.
    #[error(
        "{file}: node `{node}`: {op} of `{value}`, which is computed at run time: the shape of its \
         output depends on the elements, and shapes must be fixed; run the model with \
         `daq run --dynamic` (`DynamicModel`), or cut the model before this operator and do the \
         rest outside"
    )]
    Elements {
        /// The file.
        file: String,
        /// The node's name, or its first output where it has none.
        node: String,
        /// The operator.
        op: String,
        /// The input.
        value: String,
        /// The first output.
        output: String,
    },
    /// An operator that daq does not have.
    #[error(
        "{file}: node `{node}`: operator {op} (opset {opset}) is not supported; \
         replace it before export, or see `daq inspect --operators` for the supported ones"
    )]
    UnknownOperator {
        /// The file.
        file: String,
        /// The node's name, or its first output where it has none.
        node: String,
        /// The operator with its domain.
        op: String,
        /// The operator set version that the model asks for.
        opset: i64,
    },
    /// The graph as a whole cannot be used.
    #[error("{file}: {source}")]
    Graph {
        /// The file.
        file: String,
        /// What is wrong.
        source: Box<daq::Error>,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
