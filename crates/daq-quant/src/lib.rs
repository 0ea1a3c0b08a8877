//! daq-quant
#![forbid(unsafe_code)]

pub mod dataset;
pub mod files;
pub mod labels;
pub mod npy;
pub mod npz;
pub mod preprocess;
