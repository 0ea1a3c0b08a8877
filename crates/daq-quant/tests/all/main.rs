//! The tests of the toolkit in one program, which links it once.

mod attributes;
mod common;
mod conformance;
mod models;
mod node_tests;
mod onnx_models;
mod operators;
mod quantized;
mod robustness;
