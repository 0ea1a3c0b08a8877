//! daq-quant
#![forbid(unsafe_code)]

pub mod files;
pub mod npy;
pub mod npz;
pub mod preprocess;
