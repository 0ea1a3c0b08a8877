//! Quantizing and converting: the steps of `daq quantize` and `daq convert`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use daq::{DType, Graph, Layout, Tensor};
use daq_quant::calibrate::Samples;
use daq_quant::dataset::DatasetKind;
use daq_quant::files::write_atomically;
use daq_quant::labels::ClassNames;
use daq_quant::onnx::{self, ReadOptions};
use daq_quant::pipeline::{self, Recipe, Recovery, prepare};
use daq_quant::preprocess::Preprocess;
use daq_quant::qdq::{self, FLOAT_OUTPUT};
use daq_quant::quantize::{QuantizeOptions, Weights};
use daq_quant::recover::absorption::ABSORBED;
use daq_quant::recover::equalize::EQUALIZED;
use daq_quant::recover::two_parts;
use daq_quant::samples::{PREPROCESS, PreparedDataset, preprocess_of};
use daq_quant::table::Table;
use daq_quant::target::{Goal, LEAST_SAMPLES, Search};
use daq_quant::{passes, quantize as quantizer};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::to_tensor;
use crate::failed;
use crate::source::Source;

/// The metadata key of the `daq` command that says which version made a file.
const VERSION: &str = "daq.version";

/// The metadata key of the class names, one a line.
const LABELS: &str = "daq.labels";

/// Samples that Python gave.
struct Arrays(Vec<Vec<(String, Tensor)>>);

impl Samples for Arrays {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn name(&self, index: usize) -> String {
        format!("sample {index}")
    }

    fn load(&self, index: usize) -> Result<Vec<(String, Tensor)>, String> {
        let sample = self.0[index].clone();
        let finite =
            |t: &Tensor| t.dtype() != DType::F32 || t.data::<f32>().iter().all(|x| x.is_finite());
        match sample.iter().find(|(_, t)| !finite(t)) {
            Some((name, _)) => Err(format!("its input `{name}` holds NaN or infinity")),
            None => Ok(sample),
        }
    }
}

/// Quantizes a float ONNX model to 8 bits and writes it to `output`: a `.daq` file, or an `.onnx`
/// file in QuantizeLinear/DequantizeLinear form, by its name's ending.
///
/// `model` is a path, bytes, or an `onnx.ModelProto`. `images` is a folder of pictures or arrays, or
/// an iterable of samples (or an object with `get_next`, as onnxruntime's CalibrationDataReader): each
/// an array of the input's shape, the leading axis of 1 left out or not, or a dict of arrays by input
/// name. All samples of an iterable are held in memory.
///
/// `table` names a file for scales and zero points. `preprocess`, for pictures, is a dict or the path
/// of a TOML file. `calibration` is how ranges are chosen (`minmax`, `average`, `percentile`,
/// `percentile:99.9`, `entropy`, `mse`, `best`, `auto`); `recovery` names the passes that win back
/// accuracy, as `--recovery` of the command; `weights` is `per-channel`, `per-tensor` or `asymm`.
/// `exclude` names what stays in float, `two_parts` the products that read their input in two parts.
/// `target_agreement` (a share) or `target_sqnr` (dB) tries recipes from cheap to dear, then leaves the fewest
/// operators in float, until that holds on a third of the samples, which are held back; nothing new begins
/// after `time_budget` seconds.
/// `samples` and `seed` choose some of a folder's files. `threads` (all CPUs where left out) does not
/// change the result. `progress(stage, done, total)` is called as the work goes on, from other threads.
///
/// Returns a dict: `operators`, `operators_8bit`, `samples`, `skipped` and `float_operators` (pairs of
/// a name and the reason), `messages`; with a target also `target`, a dict: `reached`, `agreement`, `expected` (the
/// agreement on other samples) and `expected_error`, `sqnr_db`, all on the `samples` held back; and the `calibration`,
/// `recovery`, `exclude` and `two_parts` that were found.
#[pyfunction]
#[pyo3(signature = (model, images, output, *, table = None, preprocess = None,
    calibration = None, recovery = None, weights = "per-channel", samples = None, seed = 0, threads = None, exclude = vec![], ops = None,
    two_parts = vec![], dequantize_after = vec![], quantize_after = vec![], float_input = false,
    power_of_two_scales = false, target_agreement = None, target_sqnr = None, time_budget = None,
    shapes = None, progress = None))]
pub fn quantize<'py>(
    py: Python<'py>,
    model: Source,
    images: &Bound<'py, PyAny>,
    output: PathBuf,
    table: Option<PathBuf>,
    preprocess: Option<&Bound<'py, PyAny>>,
    calibration: Option<&str>,
    recovery: Option<&str>,
    weights: &str,
    samples: Option<usize>,
    seed: u64,
    threads: Option<usize>,
    exclude: Vec<String>,
    ops: Option<Vec<String>>,
    two_parts: Vec<String>,
    dequantize_after: Vec<String>,
    quantize_after: Vec<String>,
    float_input: bool,
    power_of_two_scales: bool,
    target_agreement: Option<f64>,
    target_sqnr: Option<f64>,
    time_budget: Option<f64>,
    shapes: Option<BTreeMap<String, Vec<usize>>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let value_error = |e: String| PyValueError::new_err(e);
    let method = calibration.map(str::parse).transpose().map_err(value_error)?.unwrap_or_default();
    let recovery: Option<Recovery> = recovery.map(str::parse).transpose().map_err(value_error)?;
    let weights = match weights {
        "per-channel" => Weights::PerChannel,
        "per-tensor" => Weights::PerTensor,
        "asymm" => Weights::Asymmetric,
        other => {
            let why =
                format!("weights: `{other}` is unknown; use per-channel, per-tensor or asymm");
            return Err(PyValueError::new_err(why));
        }
    };
    let goal = goal(target_agreement, target_sqnr).map_err(value_error)?;
    let budget =
        match time_budget {
            Some(_) if goal.is_none() => {
                return Err(value_error(
                    "time_budget: it needs a target, as target_agreement=0.98".into(),
                ));
            }
            Some(seconds) => Some(Duration::try_from_secs_f64(seconds).map_err(|_| {
                value_error(format!("time_budget: {seconds} is no time in seconds"))
            })?),
            None => None,
        };
    let as_daq = match output.extension().and_then(|e| e.to_str()) {
        Some("daq") => true,
        Some("onnx") => false,
        _ => {
            let why = format!("output: {} must end in .daq or .onnx", output.display());
            return Err(PyValueError::new_err(why));
        }
    };
    if model.is_daq() {
        let why = "the model is a .daq file; quantize the float ONNX model that it was made of";
        return Err(failed(why));
    }
    if let Source::Path(path) = &model
        && [Some(&output), table.as_ref()].contains(&Some(path))
    {
        return Err(failed(format!("{} is the input; choose another name", path.display())));
    }
    let options = QuantizeOptions {
        weights,
        dequantize_after,
        quantize_after,
        float_input,
        exclude,
        ops,
        power_of_two_scales,
        ..QuantizeOptions::default()
    };
    let read = ReadOptions { shapes: shapes.unwrap_or_default() };
    let float = py.detach(|| model.onnx(&read))?;
    // With no ranges at all: wrong names are found before calibration takes its time.
    quantizer::quantize(&float, &BTreeMap::new(), &options).map_err(failed)?;
    two_parts::check(&float, &two_parts).map_err(failed)?;

    let (data, carried) = data(&float, images, preprocess, samples, seed)?;
    if goal.is_some() && data.len() < LEAST_SAMPLES {
        let why =
            format!("a target needs at least {LEAST_SAMPLES} samples; there are {}", data.len());
        return Err(failed(why));
    }
    let workers =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let recipe = Recipe {
        method,
        recovery: recovery.unwrap_or_default(),
        two_parts,
        options: options.clone(),
        workers: workers.clamp(1, 1024),
        batch_size: 1,
    };
    let report = Progress { callback: progress, state: Mutex::default() };
    let result = py.detach(|| {
        let Some(goal) = goal else {
            let prepared = prepare(&float, &*data, &recipe, &report)?;
            let quantized = prepared.quantize(&*data, &recipe, &report)?;
            return Ok::<_, pipeline::PipelineError>((prepared, quantized, None));
        };
        let samples = &*data;
        let (float, classes, tried) = (&float, None, &|_: &_| ());
        let found = Search { float, samples, goal, recipe, classes, budget, tried }.run(&report)?;
        let target = (found.fidelity, found.reached, found.recipe);
        Ok((found.prepared, found.quantized, Some(target)))
    });
    // The caller's exception says more than what came of it.
    report.raised()?;
    let (prepared, mut done, target) = result.map_err(failed)?;
    py.detach(|| {
        describe(&mut done.graph, &float, &options, carried);
        if let Some(scales) = &prepared.equalized {
            done.graph.metadata.insert(EQUALIZED.into(), scales.clone());
        }
        if let Some(shifts) = &prepared.absorbed {
            done.graph.metadata.insert(ABSORBED.into(), shifts.clone());
        }
        let unfolded = qdq::unfold(&done.graph);
        let table = match &table {
            Some(path) => Some((path, Table::of(&qdq::fold(&unfolded)).map_err(failed)?)),
            None => None,
        };
        if as_daq {
            // By way of ONNX, as the command does: one model, whichever way it was made.
            let bytes = onnx::to_bytes(&unfolded).map_err(failed)?;
            let mut graph = onnx::read_bytes(&bytes, &ReadOptions::default()).map_err(failed)?;
            passes::optimize(&mut graph);
            write_daq(qdq::fold(&graph), &output)?;
        } else {
            onnx::write(&unfolded, &output).map_err(failed)?;
        }
        if let Some((path, table)) = table {
            write_atomically(path, |w| std::io::Write::write_all(w, table.to_text().as_bytes()))
                .map_err(failed)?;
        }
        PyResult::Ok(())
    })?;
    let calibrated = prepared.calibration;
    let (decisions, messages) = (done.decisions, done.messages);
    let floats: Vec<(String, String)> =
        decisions.iter().filter_map(|d| Some((d.node.clone(), d.float_because.clone()?))).collect();
    let summary = PyDict::new(py);
    summary.set_item("operators", decisions.len())?;
    summary.set_item("operators_8bit", decisions.len() - floats.len())?;
    summary.set_item("samples", calibrated.used)?;
    summary.set_item("skipped", calibrated.skipped)?;
    summary.set_item("float_operators", floats)?;
    summary.set_item("messages", messages)?;
    if let Some((fidelity, reached, recipe)) = target {
        let about = PyDict::new(py);
        about.set_item("reached", reached)?;
        about.set_item("agreement", fidelity.agreement)?;
        about.set_item("expected", fidelity.expected)?;
        about.set_item("expected_error", fidelity.expected_error)?;
        about.set_item("sqnr_db", fidelity.sqnr_db)?;
        about.set_item("samples", fidelity.samples)?;
        about.set_item("calibration", recipe.method.to_string())?;
        about.set_item("recovery", recipe.recovery.to_string())?;
        about.set_item("exclude", recipe.options.exclude)?;
        about.set_item("two_parts", recipe.two_parts)?;
        summary.set_item("target", about)?;
    }
    Ok(summary)
}

/// What is to be reached, where anything is.
fn goal(agreement: Option<f64>, sqnr: Option<f64>) -> Result<Option<Goal>, String> {
    match (agreement, sqnr) {
        (Some(_), Some(_)) => Err("target_agreement and target_sqnr: give one of them".into()),
        (Some(share), None) if !(0.0..=1.0).contains(&share) => {
            Err(format!("target_agreement: {share} is no share from 0 to 1"))
        }
        (Some(share), None) => Ok(Some(Goal::Agreement(share))),
        (None, sqnr) => Ok(sqnr.map(Goal::Sqnr)),
    }
}

/// The samples, and the preprocessing that the model shall carry where they are pictures.
fn data(
    float: &Graph,
    images: &Bound<'_, PyAny>,
    preprocess: Option<&Bound<'_, PyAny>>,
    samples: Option<usize>,
    seed: u64,
) -> PyResult<(Box<dyn Samples + Send>, Option<Preprocess>)> {
    if let Ok(folder) = images.extract::<PathBuf>() {
        let settings = match preprocess {
            None => preprocess_of(float).map_err(failed)?.unwrap_or_default(),
            Some(given) if given.cast::<PyDict>().is_ok() => {
                let json = images.py().import("json")?.call_method1("dumps", (given,))?;
                Preprocess::from_json(&json.extract::<String>()?).map_err(failed)?
            }
            Some(path) => {
                Preprocess::from_toml_file(&path.extract::<PathBuf>()?).map_err(failed)?
            }
        };
        let mut data = PreparedDataset::open(&folder, float, settings).map_err(failed)?;
        if let Some(samples) = samples {
            data.dataset.choose(samples.max(1), seed);
        }
        let pictures = data.dataset.kind() == DatasetKind::Pictures;
        let carried = pictures.then(|| data.preprocess.clone());
        return Ok((Box::new(data), carried));
    }
    let mut all = Vec::new();
    let mut add = |sample: &Bound<'_, PyAny>| {
        all.push(one_sample(float, sample)?);
        PyResult::Ok(())
    };
    if images.hasattr("get_next")? {
        loop {
            let sample = images.call_method0("get_next")?;
            if sample.is_none() {
                break;
            }
            add(&sample)?;
        }
    } else {
        for sample in images.try_iter()? {
            add(&sample?)?;
        }
    }
    Ok((Box::new(Arrays(all)), None))
}

/// A sample: a dict of arrays by input name, or the array of the only input.
fn one_sample(float: &Graph, sample: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Tensor)>> {
    let inputs: Vec<_> = float.inputs.iter().map(|&id| &float.values[id]).collect();
    let tensor = |value: &daq::Value, array: &Bound<'_, PyAny>| {
        let shape = value.layout.physical(&value.shape);
        Ok((value.name.clone(), to_tensor(&value.name, &shape, array, true)?))
    };
    match (sample.cast::<PyDict>(), &inputs[..]) {
        (Ok(named), _) => inputs
            .iter()
            .map(|value| match named.get_item(&value.name)? {
                Some(array) => tensor(value, &array),
                None => Err(failed(format!("a sample has no array for input `{}`", value.name))),
            })
            .collect(),
        (Err(_), [value]) => Ok(vec![tensor(value, sample)?]),
        (Err(_), _) => Err(PyTypeError::new_err(format!(
            "the model has {} inputs; each sample must be a dict of arrays by name",
            inputs.len()
        ))),
    }
}

/// Writes into the model's metadata what the `daq` command wants to know later.
fn describe(
    graph: &mut Graph,
    float: &Graph,
    options: &QuantizeOptions,
    preprocess: Option<Preprocess>,
) {
    let mut outputs = float.outputs.iter().map(|&id| &float.values[id].name);
    if outputs.any(|name| options.dequantize_after.contains(name)) {
        graph.metadata.insert(FLOAT_OUTPUT.into(), "1".into());
    }
    if let Some(settings) = preprocess {
        graph.metadata.insert(PREPROCESS.into(), settings.to_json());
    }
    graph.metadata.insert(VERSION.into(), env!("CARGO_PKG_VERSION").into());
}

fn write_daq(mut graph: Graph, path: &std::path::Path) -> PyResult<()> {
    graph.metadata.insert(VERSION.into(), env!("CARGO_PKG_VERSION").into());
    // Compiling is the last check that whoever opens the file can run it.
    daq::Model::from_graph(graph.clone()).map_err(failed)?;
    let bytes = daq::format::to_bytes(&graph).map_err(failed)?;
    write_atomically(path, |w| std::io::Write::write_all(w, &bytes)).map_err(failed)
}

/// The caller's progress function, the stage that it is told of, and what it raised.
struct Progress {
    callback: Option<Py<PyAny>>,
    state: Mutex<Stage>,
}

#[derive(Default)]
struct Stage {
    what: &'static str,
    done: usize,
    total: usize,
    raised: Option<PyErr>,
}

impl Progress {
    /// Raises what the callback raised.
    fn raised(self) -> PyResult<()> {
        let state = self.state.into_inner().unwrap_or_else(|e| e.into_inner());
        state.raised.map_or(Ok(()), Err)
    }

    fn tell(&self, change: impl FnOnce(&mut Stage)) {
        let Some(callback) = &self.callback else { return };
        let (what, done, total) = {
            let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
            if state.raised.is_some() {
                return;
            }
            change(&mut state);
            (state.what, state.done, state.total)
        };
        // Not while the state is locked: Python may let other threads run meanwhile.
        if let Err(error) = Python::attach(|py| callback.call1(py, (what, done, total)).map(drop)) {
            self.state.lock().unwrap_or_else(|e| e.into_inner()).raised.get_or_insert(error);
        }
    }
}

impl pipeline::Progress for Progress {
    fn stage(&self, what: &'static str, count: usize) {
        self.tell(|s| (s.what, s.done, s.total) = (what, 0, count));
    }

    fn step(&self) {
        self.tell(|s| s.done += 1);
    }
}

/// Makes a `.daq` file of an ONNX model, quantized by whatever tool or float.
///
/// `model` is a path, bytes, or an `onnx.ModelProto`. `table` is a file of scales that override the
/// model's; `input_layout`, `nhwc` or `nchw`, the order in which callers give pictures; `labels` a file
/// of class names, one a line; `shapes` those of inputs that the model leaves open.
#[pyfunction]
#[pyo3(signature = (model, output, *, table = None, input_layout = None, labels = None, shapes = None))]
pub fn convert(
    py: Python<'_>,
    model: Source,
    output: PathBuf,
    table: Option<PathBuf>,
    input_layout: Option<&str>,
    labels: Option<PathBuf>,
    shapes: Option<BTreeMap<String, Vec<usize>>>,
) -> PyResult<()> {
    let layout = match input_layout {
        None => None,
        Some("nhwc") => Some(Layout::ChannelsLast),
        Some("nchw") => Some(Layout::Plain),
        Some(other) => {
            let why = format!("input_layout: `{other}` is unknown; use nhwc or nchw");
            return Err(PyValueError::new_err(why));
        }
    };
    if matches!(&model, Source::Path(path) if *path == output) {
        return Err(failed(format!("{} is the input; choose another name", output.display())));
    }
    py.detach(|| {
        let mut graph = model.graph(&ReadOptions { shapes: shapes.unwrap_or_default() })?;
        if let Some(path) = table {
            let shown = path.display();
            let text = std::fs::read_to_string(&path)
                .map_err(|e| failed(format!("cannot read the table {shown}: {e}")))?;
            let table = Table::from_text(&text).map_err(|e| failed(format!("{shown}: {e}")))?;
            if !graph.values.iter().any(daq::Value::is_quantized) {
                return Err(failed(
                    "the model is float, and a table holds no weights; quantize it",
                ));
            }
            table.apply(&mut graph).map_err(|e| failed(format!("{shown}: {e}")))?;
        }
        if let Some(layout) = layout {
            let inputs = graph.inputs.clone();
            for id in inputs {
                let value = &mut graph.values[id];
                if value.shape.len() == 4 {
                    value.layout = layout;
                }
            }
        }
        if let Some(path) = labels {
            let names = ClassNames::read(&path).map_err(failed)?.names().join("\n");
            graph.metadata.insert(LABELS.into(), names);
        }
        write_daq(graph, &output)
    })
}
