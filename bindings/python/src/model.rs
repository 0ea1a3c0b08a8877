//! Models that were opened, and their tensors.

use daq::backend::{Backend, Options};
use daq::tensor::Element;
use daq::{DType, Layout, Port, Sessions};
use daq_quant::onnx::ReadOptions;
use numpy::{
    PyArrayDescr, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn,
    PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{to_array, to_tensor};
use crate::failed;
use crate::source::Source;

/// An input or output of a model.
#[pyclass(frozen, get_all, module = "daq")]
pub struct Tensor {
    /// Its name.
    name: String,
    /// Its shape, in the order of `layout`.
    shape: Vec<usize>,
    /// The type in which the model holds it, as numpy calls it: `float32`, `uint8`, `int64`.
    dtype: &'static str,
    /// `plain` (NCHW) or `channels_last` (NHWC).
    layout: &'static str,
    /// real = (code - zero_point) * scale; None where it has no codes.
    scale: Option<f32>,
    /// The code of 0.
    zero_point: Option<i32>,
}

impl Tensor {
    fn of(port: &Port) -> Self {
        Tensor {
            name: port.name.clone(),
            shape: port.shape.clone(),
            dtype: match port.dtype {
                DType::F32 => "float32",
                DType::U8 => "uint8",
                DType::I8 => "int8",
                DType::I32 => "int32",
                DType::I64 => "int64",
                _ => "bool",
            },
            layout: match port.layout {
                Layout::Plain => "plain",
                Layout::ChannelsLast => "channels_last",
            },
            scale: port.quant.as_ref().map(|q| q.scale_of(0)),
            zero_point: port.quant.as_ref().map(|q| q.zero_point_of(0)),
        }
    }
}

#[pymethods]
impl Tensor {
    fn __repr__(&self) -> String {
        let codes = match (self.scale, self.zero_point) {
            (Some(s), Some(z)) => format!(", scale={s}, zero_point={z}"),
            _ => String::new(),
        };
        let Tensor { name, shape, dtype, layout, .. } = self;
        format!("Tensor({name:?}, {shape:?}, {dtype}, {layout}{codes})")
    }
}

/// A model that is ready to run.
///
/// `model` is the path of a `.daq` file (or `.onnx`, float or quantized), its bytes, or an
/// `onnx.ModelProto`. `threads`, 1 to 256, share the work of one call; results are the same bit for
/// bit. Any number of Python threads may call `predict` at the same time.
///
/// `backend` says where it runs: `cpu`; with the feature `nnapi` also on Android's accelerators
/// (`nnapi`), or there where the phone has them (`auto`). `preference` (`low-power`,
/// `fast-single-answer`, `sustained-speed`) and `allow_fp16` (floats may be computed with 16 bits)
/// are for those.
#[pyclass(frozen, module = "daq")]
pub struct Model {
    sessions: Sessions,
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (
        model, *, threads = 1, backend = "cpu", preference = "fast-single-answer", allow_fp16 = false
    ))]
    fn new(
        py: Python<'_>,
        model: Source,
        threads: usize,
        backend: &str,
        preference: &str,
        allow_fp16: bool,
    ) -> PyResult<Self> {
        if !(1..=256).contains(&threads) {
            return Err(PyValueError::new_err(format!("{threads} threads; give 1 to 256")));
        }
        let backend: Backend = backend.parse().map_err(PyValueError::new_err)?;
        let preference = preference.parse().map_err(PyValueError::new_err)?;
        let options = Options { preference, allow_fp16, ..Options::default() };
        py.detach(|| {
            let graph = model.graph(&ReadOptions::default())?;
            let model = daq::Model::on(backend, graph, &options).map_err(failed)?;
            Ok(Model { sessions: Sessions::new(model, threads) })
        })
    }

    /// What it takes, in order.
    #[getter]
    fn inputs(&self) -> Vec<Tensor> {
        self.sessions.model().plan().inputs().map(Tensor::of).collect()
    }

    /// What it gives, in order.
    #[getter]
    fn outputs(&self) -> Vec<Tensor> {
        self.sessions.model().plan().outputs().map(Tensor::of).collect()
    }

    /// Runs the model and gives its outputs by name, as new arrays of the shapes in `outputs`.
    ///
    /// `inputs` holds an array for each input by name, or is the array where there is one input. Each
    /// has the shape in `inputs`; float32 arrays are real numbers, uint8 arrays codes. `dtype`,
    /// float32 or uint8, is what the outputs shall be; integer outputs (indices) stay what they are.
    /// Contiguous arrays are read where they lie, while other Python threads run: none may write to
    /// them until the call is done.
    #[pyo3(signature = (inputs, dtype = None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        inputs: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let wanted = wanted(py, dtype)?;
        let plan = self.sessions.model().plan();
        let given = self.given(inputs)?;
        let direct = match wanted {
            DType::F32 => {
                self.direct::<f32, f32>(py, &given)?.or(self.direct::<u8, f32>(py, &given)?)
            }
            _ => self.direct::<f32, u8>(py, &given)?.or(self.direct::<u8, u8>(py, &given)?),
        };
        if let Some(outputs) = direct {
            return Ok(outputs);
        }
        let tensors: Vec<(&str, daq::Tensor)> = given
            .iter()
            .map(|(port, array)| {
                Ok((port.name.as_str(), to_tensor(&port.name, &port.shape, array, false)?))
            })
            .collect::<PyResult<_>>()?;
        let outputs = py
            .detach(|| {
                let inputs: Vec<_> = tensors.iter().map(|(name, t)| (*name, t)).collect();
                self.sessions.with(|session| session.run(&inputs, Some(wanted)))
            })
            .map_err(failed)?;
        let named = PyDict::new(py);
        for (port, tensor) in plan.outputs().zip(&outputs) {
            named.set_item(&port.name, to_array(py, tensor)?)?;
        }
        Ok(named)
    }
}

impl Model {
    /// The arrays given, with the inputs that they are for.
    fn given<'a, 'py>(
        &'a self,
        inputs: &Bound<'py, PyAny>,
    ) -> PyResult<Vec<(&'a Port, Bound<'py, PyAny>)>> {
        let ports: Vec<&Port> = self.sessions.model().plan().inputs().collect();
        let names = || ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
        let Ok(named) = inputs.cast::<PyDict>() else {
            let [port] = ports[..] else {
                return Err(PyTypeError::new_err(format!(
                    "the model has {} inputs; give a dict of arrays by name: {}",
                    ports.len(),
                    names()
                )));
            };
            if inputs.cast::<PyUntypedArray>().is_err() {
                let found = inputs.get_type().name()?;
                return Err(PyTypeError::new_err(format!(
                    "inputs must be a dict of numpy arrays by name, or an array, not {found}"
                )));
            }
            return Ok(vec![(port, inputs.clone())]);
        };
        for name in named.keys() {
            let name: String = name.extract()?;
            if !ports.iter().any(|p| p.name == name) {
                let names = names();
                return Err(failed(format!(
                    "no input is called `{name}`; the model takes {names}"
                )));
            }
        }
        let one = |port: &'a Port| match named.get_item(&port.name)? {
            Some(array) => Ok((port, array)),
            None => {
                let (name, names) = (&port.name, names());
                Err(failed(format!("input `{name}` is missing; the model takes {names}")))
            }
        };
        ports.iter().map(|&port| one(port)).collect()
    }

    /// Predicts from the arrays as they lie in memory into new ones; None where one is not
    /// contiguous, or of another type or shape, or an output is of whole numbers.
    fn direct<'py, I, O>(
        &self,
        py: Python<'py>,
        given: &[(&Port, Bound<'py, PyAny>)],
    ) -> PyResult<Option<Bound<'py, PyDict>>>
    where
        I: Element + numpy::Element,
        O: Element + numpy::Element,
    {
        let plan = self.sessions.model().plan();
        let mut inputs = Vec::new();
        for (port, array) in given {
            match array.extract::<PyReadonlyArrayDyn<'py, I>>() {
                Ok(array) if array.shape() == port.shape && array.as_slice().is_ok() => {
                    inputs.push(array);
                }
                _ => return Ok(None),
            }
        }
        if plan.outputs().any(|p| !matches!(p.dtype, DType::F32 | DType::U8)) {
            return Ok(None);
        }
        let outputs: Vec<_> =
            plan.outputs().map(|p| PyArrayDyn::<O>::zeros(py, &p.shape[..], false)).collect();
        {
            let inputs: Vec<&[I]> =
                inputs.iter().map(|a| a.as_slice()).collect::<Result<_, _>>()?;
            let mut outputs: Vec<_> = outputs.iter().map(|a| a.readwrite()).collect();
            let mut outputs: Vec<&mut [O]> =
                outputs.iter_mut().map(|a| a.as_slice_mut()).collect::<Result<_, _>>()?;
            py.detach(|| self.sessions.with(|session| session.predict(&inputs, &mut outputs)))
                .map_err(failed)?;
        }
        let named = PyDict::new(py);
        for (port, array) in plan.outputs().zip(outputs) {
            named.set_item(&port.name, array)?;
        }
        Ok(Some(named))
    }
}

/// The outputs' type as Python names it.
fn wanted(py: Python<'_>, dtype: Option<&Bound<'_, PyAny>>) -> PyResult<DType> {
    let Some(dtype) = dtype else { return Ok(DType::F32) };
    let dtype = PyArrayDescr::new(py, dtype)?;
    if dtype.is_equiv_to(&numpy::dtype::<f32>(py)) {
        Ok(DType::F32)
    } else if dtype.is_equiv_to(&numpy::dtype::<u8>(py)) {
        Ok(DType::U8)
    } else {
        Err(PyTypeError::new_err(format!("outputs can be float32 or uint8, not {dtype}")))
    }
}
