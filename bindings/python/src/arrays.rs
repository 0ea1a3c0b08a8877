//! numpy arrays as tensors and back, by copies.

use daq::{DType, Tensor};
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::failed;

/// An array as a tensor for an input of this name and shape. With `batch`, an array may lack the
/// leading axis where that is 1 long.
pub fn to_tensor(
    name: &str,
    shape: &[usize],
    array: &Bound<'_, PyAny>,
    batch: bool,
) -> PyResult<Tensor> {
    let Ok(untyped) = array.cast::<PyUntypedArray>() else {
        let found = array.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "input `{name}` must be a numpy array of float32 or uint8, not {found}"
        )));
    };
    // Before anything is copied.
    let given = untyped.shape();
    let without_batch =
        batch && shape.split_first().is_some_and(|(&n, rest)| n == 1 && given == rest);
    if given != shape && !without_batch {
        return Err(failed(format!(
            "input `{name}` has shape {given:?}, the model takes {shape:?}"
        )));
    }
    macro_rules! typed {
        ($($t:ty),*) => {
            $(if let Ok(typed) = array.extract::<PyReadonlyArrayDyn<'_, $t>>() {
                let view = typed.as_array();
                return Ok(match view.as_slice() {
                    Some(slice) => Tensor::from_slice(shape, slice),
                    None => Tensor::from_slice(shape, &view.iter().copied().collect::<Vec<$t>>()),
                });
            })*
        };
    }
    typed!(f32, u8, i8, i32, i64);
    Err(PyTypeError::new_err(format!(
        "input `{name}` is {}; give float32 or uint8, as with array.astype(numpy.float32)",
        untyped.dtype()
    )))
}

/// A tensor as a new array.
pub fn to_array<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    fn array<'py, T: numpy::Element>(
        py: Python<'py>,
        data: &[T],
        shape: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyArray1::from_slice(py, data).reshape(shape)?.into_any())
    }
    let shape = tensor.shape();
    match tensor.dtype() {
        DType::F32 => array::<f32>(py, tensor.data(), shape),
        DType::U8 => array::<u8>(py, tensor.data(), shape),
        DType::I8 => array::<i8>(py, tensor.data(), shape),
        DType::I32 => array::<i32>(py, tensor.data(), shape),
        DType::I64 => array::<i64>(py, tensor.data(), shape),
        _ => array(py, &tensor.bytes().iter().map(|&b| b != 0).collect::<Vec<bool>>(), shape),
    }
}
