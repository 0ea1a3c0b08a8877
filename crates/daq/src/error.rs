//! What can go wrong, with where it went wrong and what to do about it.

use crate::tensor::DType;

/// A problem of one operator, before the node's name is known.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// A required input was left out.
    #[error("input {index} is missing")]
    MissingInput {
        /// Position among the operator's inputs.
        index: usize,
    },
    /// More inputs than the operator has.
    #[error("input {index} is one too many: it has at most {most}; remove it")]
    TooManyInputs {
        /// Position of the last one.
        index: usize,
        /// How many the operator has.
        most: usize,
    },
    /// An attribute is unknown, or has a wrong type or value.
    #[error("attribute `{name}`: {why}")]
    Attribute {
        /// The attribute's name in ONNX.
        name: String,
        /// What was wrong and what is allowed.
        why: String,
    },
    /// Shapes that do not fit the operator.
    #[error("{why} (input shapes {shapes:?})")]
    Shape {
        /// What does not fit.
        why: String,
        /// The shapes of the inputs, in order.
        shapes: Vec<Vec<usize>>,
    },
    /// An element type that the operator does not take.
    #[error("input {index} has type {dtype}; allowed: {allowed}")]
    Type {
        /// Position among the operator's inputs.
        index: usize,
        /// The type found.
        dtype: DType,
        /// The types that are allowed.
        allowed: &'static str,
    },
    /// A form of the operator that daq does not run.
    #[error("not supported: {what}; {remedy}")]
    Unsupported {
        /// What is not supported.
        what: String,
        /// What the user can do.
        remedy: String,
    },
}

impl OpError {
    /// An attribute of a wrong type or value.
    pub fn attribute(name: impl Into<String>, why: impl Into<String>) -> Self {
        OpError::Attribute { name: name.into(), why: why.into() }
    }

    /// A form of the operator that daq does not run.
    pub fn unsupported(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        OpError::Unsupported { what: what.into(), remedy: remedy.into() }
    }
}

/// Everything that the runtime reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One node of a model cannot be used.
    #[error("node `{node}` ({op}): {source}")]
    Node {
        /// The node's name, or its first output where it has none.
        node: String,
        /// The operator.
        op: String,
        /// What is wrong.
        source: OpError,
    },
    /// An operator that daq does not have.
    #[error(
        "node `{node}`: operator {op} (opset {opset}) is not supported; \
         replace it before export, or see `daq inspect --operators` for the supported ones"
    )]
    UnknownOperator {
        /// The node's name, or its first output where it has none.
        node: String,
        /// The operator with its domain.
        op: String,
        /// The operator set version that the model asks for.
        opset: i64,
    },
    /// A graph that contradicts itself.
    #[error("the graph is invalid: {0}")]
    Graph(String),
    /// A file that is not what it should be.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A call with inputs that the model does not take.
    #[error("{0}")]
    Call(String),
    /// Android's NNAPI: its library, a device or a driver.
    #[cfg(feature = "nnapi")]
    #[error("NNAPI: {0}")]
    Nnapi(String),
    /// A tensor too large to hold.
    #[error("{what} needs {bytes} bytes, more than the limit of {limit}; check the model's shapes")]
    TooLarge {
        /// What was to be held.
        what: String,
        /// How much it needs.
        bytes: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// More arithmetic than anybody would wait for.
    #[error(
        "{what} needs {operations} operations, more than the limit of {limit}; \
         check the model's shapes (`daq inspect` shows them)"
    )]
    TooLong {
        /// What was to be run.
        what: String,
        /// How much arithmetic it needs, in the unit of
        /// [`MAX_OPERATIONS`](crate::plan::MAX_OPERATIONS).
        operations: u64,
        /// How much is allowed.
        limit: u64,
    },
}

/// The result of everything in the runtime.
pub type Result<T, E = Error> = std::result::Result<T, E>;
