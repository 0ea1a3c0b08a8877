//! Where a model comes from: a path, its bytes, or an `onnx.ModelProto`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use daq::Graph;
use daq_quant::onnx::{self, ReadOptions};
use daq_quant::{passes, qdq};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::failed;

/// A model to open.
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// What such a file holds.
    Bytes(Vec<u8>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Source {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Source::Bytes(bytes.as_bytes().to_vec()));
        }
        if object.hasattr("SerializeToString")? {
            let bytes = object.call_method0("SerializeToString")?;
            return Ok(Source::Bytes(bytes.extract::<Vec<u8>>()?));
        }
        object
            .extract()
            .map(Source::Path)
            .map_err(|_| PyTypeError::new_err("a model is a path, bytes, or an onnx.ModelProto"))
    }
}

impl Source {
    /// Whether it is a `.daq` file, by content.
    pub fn is_daq(&self) -> bool {
        match self {
            Source::Path(path) => {
                let mut start = [0; 8];
                let read = File::open(path).and_then(|mut f| f.read_exact(&mut start));
                read.is_ok() && daq::format::is_daq(&start)
            }
            Source::Bytes(bytes) => daq::format::is_daq(bytes),
        }
    }

    /// The ONNX model as it is, simplified.
    pub fn onnx(&self, options: &ReadOptions) -> PyResult<Graph> {
        let read = match self {
            Source::Path(path) => onnx::read(path, options),
            Source::Bytes(bytes) => onnx::read_bytes(bytes, options),
        };
        let mut graph = read.map_err(failed)?;
        passes::optimize(&mut graph);
        Ok(graph)
    }

    /// The model, whichever it is; one that was quantized comes as one on codes.
    pub fn graph(&self, options: &ReadOptions) -> PyResult<Graph> {
        let by_name = matches!(self, Source::Path(p) if p.extension().is_some_and(|e| e == "daq"));
        if !self.is_daq() && !by_name {
            return Ok(qdq::fold(&self.onnx(options)?));
        }
        match self {
            Source::Path(path) => daq::format::read(path),
            Source::Bytes(bytes) => daq::format::from_bytes(bytes),
        }
        .map_err(failed)
    }
}
