//! Runs the node tests of ONNX (`onnx/backend/test/data/node` of its Python package): one model
//! each, with inputs and the outputs that must come of them.
//!
//! A model takes its operands (weights, shapes, scales) as inputs; daq wants many of them constant.
//! So a test is tried as it is; else with every input but the first made constant; else with all of
//! them constant, which runs the operators while reading. What ran is in the result.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use daq::{DType, Model, Tensor};
use daq_quant::onnx::proto::{ModelProto, TensorProto, tensor_shape_proto, type_proto};
use daq_quant::onnx::{OnnxError, ReadOptions, read_bytes, tensor_of};
use prost::Message;

/// Tests whose data are not what the standard says; daq gives what onnxruntime 1.32 gives.
pub const DIFFERENT: &[(&str, &str)] = &[
    (
        "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True",
        "counts what lies beyond the padding",
    ),
    ("test_qlinearmatmul_2D_int8_float16", "wraps a code where the standard saturates"),
    ("test_qlinearmatmul_2D_int8_float32", "wraps a code where the standard saturates"),
    ("test_qlinearmatmul_3D_int8_float16", "wraps a code where the standard saturates"),
    ("test_qlinearmatmul_3D_int8_float32", "wraps a code where the standard saturates"),
    (
        "test_resize_downsample_scales_cubic_align_corners",
        "aligns to the size before it is rounded",
    ),
    (
        "test_resize_downsample_scales_linear_align_corners",
        "aligns to the size before it is rounded",
    ),
];

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All outputs are within the tolerance.
    Passed(Operands),
    /// A wrong output, or a panic.
    Failed(String),
    /// Another output than the test's, for a reason in [`DIFFERENT`].
    Different(&'static str),
    /// An error says what is not supported.
    Unsupported(String),
}

/// Which inputs of a test had to be made constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operands {
    /// None.
    AsGiven,
    /// All but the first.
    Constant,
    /// All: the operators ran while the model was read.
    AllConstant,
}

/// A test with its result.
pub struct Run {
    /// The folder's name.
    pub name: String,
    /// The operator that it is about.
    pub operator: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// Runs every test of a folder, in the order of their names.
pub fn run_all(folder: &Path) -> std::io::Result<Vec<Run>> {
    let mut tests = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if let Ok(bytes) = std::fs::read(path.join("model.onnx")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tests.insert(name, (path, bytes));
        }
    }
    let mut operators = BTreeMap::new();
    for (name, (_, bytes)) in &tests {
        let model = ModelProto::decode(&bytes[..]).unwrap_or_default();
        let nodes = model.graph.map_or_else(Vec::new, |g| g.node);
        operators.insert(name.clone(), nodes.last().map_or("", |n| n.op_type()).to_string());
    }
    let about = |name: &str| {
        // An expanded test is about the function that its nodes make up.
        let whole = name.split("_expanded").next().unwrap_or(name);
        operators.get(whole).or(operators.get(name)).cloned().unwrap_or_default()
    };
    let run = |(name, (path, bytes)): (&String, &(std::path::PathBuf, Vec<u8>))| {
        let known = DIFFERENT.iter().find(|(n, _)| n == name);
        let outcome = match (run(bytes, &path.join("test_data_set_0")), known) {
            (Outcome::Failed(why), Some((_, how))) if !why.contains("panics") => {
                Outcome::Different(how)
            }
            (outcome, _) => outcome,
        };
        Run { name: name.clone(), operator: about(name), outcome }
    };
    Ok(tests.iter().map(run).collect())
}

fn run(model: &[u8], data: &Path) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| try_run(model, data))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
            Outcome::Failed(format!("panics: {}", text.unwrap_or_default()))
        }
    }
}

fn try_run(bytes: &[u8], data: &Path) -> Outcome {
    let Ok(mut model) = ModelProto::decode(bytes) else {
        return Outcome::Unsupported("the model cannot be decoded".into());
    };
    let graph = model.graph.get_or_insert_default();
    let names: Vec<String> = graph.input.iter().map(|i| i.name().to_string()).collect();
    // Inputs and outputs lie in the order of the graph's.
    let file = |kind: &str, i: usize| {
        let bytes = std::fs::read(data.join(format!("{kind}_{i}.pb")));
        TensorProto::decode(&bytes.unwrap_or_default()[..]).unwrap_or_default()
    };
    let mut protos = Vec::new();
    for (i, (input, name)) in graph.input.iter_mut().zip(&names).enumerate() {
        let proto = TensorProto { name: Some(name.clone()), ..file("input", i) };
        // Whatever is open gets the size of the data.
        if let Some(type_proto::Value::TensorType(t)) =
            input.r#type.as_mut().and_then(|t| t.value.as_mut())
            && let Some(shape) = &mut t.shape
        {
            for (dim, &size) in shape.dim.iter_mut().zip(&proto.dims) {
                dim.value = Some(tensor_shape_proto::dimension::Value::DimValue(size));
            }
        } else {
            return Outcome::Unsupported("sequences and optional values".into());
        }
        protos.push(proto);
    }
    let mut expected = Vec::new();
    for i in 0..graph.output.len() {
        let proto = file("output", i);
        let is_tensor = |t: &type_proto::Value| matches!(t, type_proto::Value::TensorType(_));
        let kind = graph.output[i].r#type.as_ref().and_then(|t| t.value.as_ref());
        if !kind.is_some_and(is_tensor) {
            return Outcome::Unsupported("sequences and optional values".into());
        }
        match tensor_of(&proto) {
            Ok(tensor) => expected.push((tensor, is_narrow(&proto))),
            Err(why) => return Outcome::Unsupported(format!("output: {why}")),
        }
    }
    let mut reason = String::new();
    for (kept, operands) in
        [(names.len(), Operands::AsGiven), (1, Operands::Constant), (0, Operands::AllConstant)]
    {
        if operands == Operands::Constant && names.len() < 2 {
            continue;
        }
        let mut model = model.clone();
        let graph = model.graph.get_or_insert_default();
        graph.initializer.extend(protos.iter().skip(kept).cloned());
        match outputs(&model.encode_to_vec(), &names[..kept], &protos) {
            Ok(outputs) => {
                let verdict = compare(&outputs, &expected);
                return verdict.map_or_else(Outcome::Failed, |()| Outcome::Passed(operands));
            }
            Err(why) => reason = why,
        }
    }
    Outcome::Unsupported(reason)
}

/// A test's name, and what is wrong with its outputs.
pub type LightRun = (String, Result<(), String>);

/// Runs the networks `light_*.onnx` of a folder, as ONNX's own runner does: on inputs that count up
/// from 0 to 1.
#[allow(dead_code, reason = "shared with an example")]
pub fn run_light(folder: &Path) -> std::io::Result<Vec<LightRun>> {
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.to_string_lossy().strip_suffix(".onnx").map(str::to_string) else {
            continue;
        };
        let run = || -> Result<(), String> {
            let graph = daq_quant::onnx::read(&path, &ReadOptions::default());
            let model = Model::from_graph(graph.map_err(|e| e.to_string())?);
            let mut session = model.map_err(|e| e.to_string())?.session(1);
            let ports: Vec<_> = session.inputs().into_iter().cloned().collect();
            let input = |port: &daq::Port| {
                let len: usize = port.shape.iter().product();
                let data: Vec<f32> = (0..len).map(|i| (i as f64 / len as f64) as f32).collect();
                Tensor::from_slice(&port.shape, &data)
            };
            let inputs: Vec<Tensor> = ports.iter().map(input).collect();
            let named: Vec<_> = ports.iter().map(|p| p.name.as_str()).zip(&inputs).collect();
            let outputs = session.run(&named, None).map_err(|e| e.to_string())?;
            let expected = (0..outputs.len()).map(|i| {
                let bytes = std::fs::read(format!("{name}_output_{i}.pb"));
                let proto = TensorProto::decode(&bytes.map_err(|e| e.to_string())?[..]);
                Ok((tensor_of(&proto.map_err(|e| e.to_string())?)?, false))
            });
            compare(&outputs, &expected.collect::<Result<Vec<_>, String>>()?)
        };
        runs.push((name.clone(), run()));
    }
    Ok(runs)
}

/// Whether the test computed in half precision, whose last digit is coarser than the tolerance.
fn is_narrow(proto: &TensorProto) -> bool {
    use daq_quant::onnx::proto::tensor_proto::DataType::{Bfloat16, Float16};
    [Float16 as i32, Bfloat16 as i32].contains(&proto.data_type())
}

fn outputs(model: &[u8], names: &[String], protos: &[TensorProto]) -> Result<Vec<Tensor>, String> {
    let graph = read_bytes(model, &ReadOptions::default()).map_err(|e| reason(&e))?;
    let inputs = names.iter().zip(protos);
    let inputs = inputs.map(|(name, proto)| Ok((name.as_str(), tensor_of(proto)?)));
    let inputs: Vec<(&str, Tensor)> = inputs.collect::<Result<_, String>>()?;
    // Inputs that nothing reads are not the model's.
    let graph = daq_quant::qdq::fold(&graph);
    let model = Model::from_graph(graph).map_err(|e| e.to_string())?;
    let mut session = model.session(1);
    let inputs: Vec<_> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    session.run(&inputs, None).map_err(|e| e.to_string())
}

/// An error's text without what differs from test to test.
fn reason(error: &OnnxError) -> String {
    match error {
        OnnxError::Node { source, .. } => source.to_string(),
        OnnxError::UnknownOperator { op, .. } => format!("operator {op}"),
        OnnxError::Input { why, .. } | OnnxError::Tensor { why, .. } => why.clone(),
        OnnxError::Model { why, .. } => why.clone(),
        OnnxError::Unsupported { what, .. } => format!("{what} not supported"),
        other => other.to_string(),
    }
}

/// The tests' own tolerance: `|y - expected| <= 1e-7 + 1e-3 * |expected|`; integers must be equal.
fn compare(outputs: &[Tensor], expected: &[(Tensor, bool)]) -> Result<(), String> {
    if outputs.len() != expected.len() {
        return Err(format!("{} outputs instead of {}", outputs.len(), expected.len()));
    }
    for (i, (y, (want, narrow))) in outputs.iter().zip(expected).enumerate() {
        if y.shape() != want.shape() || y.dtype() != want.dtype() {
            return Err(format!(
                "output {i} is {} {:?} instead of {} {:?}",
                y.dtype(),
                y.shape(),
                want.dtype(),
                want.shape()
            ));
        }
        if want.dtype() != DType::F32 {
            if y.bytes() != want.bytes() {
                return Err(format!("output {i} differs"));
            }
            continue;
        }
        let relative = if *narrow { 4e-3 } else { 1e-3 };
        let close = |y: f32, want: f32| {
            y == want
                || (y.is_nan() && want.is_nan())
                || (y - want).abs() <= 1e-7 + relative * want.abs()
        };
        let pairs = y.data::<f32>().iter().zip(want.data::<f32>());
        if let Some((y, want)) = pairs.into_iter().find(|(y, want)| !close(**y, **want)) {
            return Err(format!("output {i}: {y} instead of {want}"));
        }
    }
    Ok(())
}
