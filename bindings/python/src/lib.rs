//! daq for Python: numpy arrays in, numpy arrays out. `python/daq/__init__.pyi` has the types.

use std::ffi::OsString;

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

mod arrays;
mod model;
mod source;
mod toolkit;

create_exception!(
    daq,
    DaqError,
    PyValueError,
    "What went wrong: a model that cannot be used, or a call that it does not take."
);

/// An error of the libraries as Python sees it.
fn failed(error: impl std::fmt::Display) -> PyErr {
    DaqError::new_err(error.to_string())
}

/// Runs the `daq` command with these arguments, its name first; gives its exit code.
#[pyfunction]
fn command(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| daq_cli::run(arguments))
}

#[pymodule]
fn _daq(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<model::Model>()?;
    m.add_class::<model::Tensor>()?;
    m.add_function(wrap_pyfunction!(toolkit::quantize, m)?)?;
    m.add_function(wrap_pyfunction!(toolkit::convert, m)?)?;
    m.add_function(wrap_pyfunction!(command, m)?)?;
    m.add("DaqError", m.py().get_type::<DaqError>())?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))
}
