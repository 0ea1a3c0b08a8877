//! The daq runtime: one graph type, the operators, plans and sessions.
#![deny(unsafe_code)]

pub mod attrs;
pub mod backend;
mod check;
pub mod compile;
pub mod error;
pub mod format;
pub mod graph;
pub mod layout;
pub mod lint;
mod mmap;
#[cfg(feature = "nnapi")]
pub mod nnapi;
pub mod ops;
pub mod plan;
pub mod quant;
#[cfg(test)]
mod robustness;
pub mod session;
pub mod sessions;
pub mod tensor;

pub use backend::Backend;
pub use error::{Error, OpError, Result};
pub use graph::{Graph, Node, Value, ValueId};
pub use layout::{Layout, LayoutRule};
pub use ops::{Op, Spec};
pub use plan::{Plan, Port};
pub use quant::QuantParams;
pub use session::{Model, Session};
pub use sessions::Sessions;
pub use tensor::{DType, Tensor, TensorView, TensorViewMut};
