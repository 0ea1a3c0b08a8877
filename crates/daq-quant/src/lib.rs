//! The daq toolkit: everything between a float ONNX model with a folder of pictures and an 8-bit
//! `.daq` file.
#![forbid(unsafe_code)]

pub mod auto;
pub mod calibrate;
pub mod compare;
pub mod dataset;
pub mod dynamic;
pub mod entropy;
pub mod evaluate;
pub mod files;
pub mod labels;
pub mod lint;
pub mod npy;
pub mod npz;
pub mod observe;
pub mod onnx;
pub mod open_shapes;
pub mod passes;
pub mod pipeline;
pub mod preprocess;
pub mod preprocess_check;
pub mod qdq;
pub mod quantize;
pub mod range;
pub mod recover;
pub mod report;
pub mod samples;
pub mod saved;
pub mod sensitivity;
pub mod table;
pub mod target;
