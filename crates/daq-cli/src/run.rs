//! `daq run`: a model on pictures or arrays.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use daq::{DType, Port, Session, Tensor};
use daq_quant::calibrate::Samples;
use daq_quant::dataset::DatasetKind;
use daq_quant::evaluate::{nan_output, ranking};
use daq_quant::npz::{read_npz, write_npz};
use daq_quant::preprocess::Preprocess;
use daq_quant::samples::{PreparedDataset, to_array};
use serde::Serialize;

use crate::backend::BackendArgs;
use crate::dynamic;
use crate::messages;
use crate::model;
use crate::options::{PreprocessArgs, ShapeArgs, threads};
use crate::output;

const EXAMPLE: &str = "\
Example:
  daq run mobilenet_v2.daq cat.jpg --labels classes.txt

Exit codes: 0 done, 1 failed (also where one of several inputs failed), 2 wrong usage.";

/// Runs a model on pictures or arrays and shows what it gives.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The model: .daq or .onnx
    pub model: PathBuf,
    /// Pictures, .npy or .npz files, or folders of them
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Threads that share the work on one input
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Show this many of the best classes
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top: usize,
    /// A file with the names of the classes, one a line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Give the model 8-bit codes: pictures are quantized first, uint8 arrays taken as codes
    #[arg(long = "quant-input", alias = "quant_input")]
    pub quant_input: bool,
    /// Take the model's outputs as 8-bit codes
    #[arg(long = "quant-output", alias = "quant_output")]
    pub quant_output: bool,
    /// Write the outputs to this file, by name; those of several inputs follow each other
    #[arg(short, long, value_name = "OUT.npz")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub backend: BackendArgs,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Take arrays of any shape that the model takes, and pictures of any size: what the model and --size
    /// leave open is theirs. The model is planned again for each new shape. Models in which elements
    /// decide a shape (NonMaxSuppression) run so too
    #[arg(long, conflicts_with_all = ["shapes", "backend", "quant_input", "quant_output"])]
    pub dynamic: bool,
    /// Overwrite OUT.npz even if it is no .npz file
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What the model said about one sample.
#[derive(Serialize)]
pub struct Said {
    pub input: String,
    pub outputs: Vec<Summary>,
}

/// One output.
#[derive(Serialize)]
pub struct Summary {
    name: String,
    shape: Vec<usize>,
    #[serde(rename = "type")]
    dtype: String,
    min: f64,
    max: f64,
    mean: f64,
    /// The best classes, where it is a row of scores.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    class: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    score: f64,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    if let Some(path) = &args.output {
        let inputs: Vec<&Path> =
            args.inputs.iter().chain([&args.model]).map(PathBuf::as_path).collect();
        let ours = |path: &Path| read_npz(path).is_ok();
        output::check(path, &inputs, "an .npz file", ours, args.force)?;
    }
    if args.dynamic {
        return dynamic::run(args, out);
    }
    let graph = model::open(&args.model, &args.shapes)?;
    let names = model::class_names(&graph, args.labels.as_deref())?;
    let settings = args.preprocess.settings(model::preprocess(&graph, &args.model)?)?;
    let mut session = args.backend.model(graph)?.session(args.threads);
    let mut runner = Runner { args, names, settings, kept: Vec::new(), failed: 0, done: 0 };
    let mut said = Vec::new();
    let mut printed = Ok(());
    for path in &args.inputs {
        runner.file(&mut session, path, &mut |one| {
            match args.json {
                true => said.push(one),
                false if printed.is_ok() => printed = print(&one, out),
                false => {}
            }
            // Who reads only the first lines still wants the file.
            match args.output {
                Some(_) => Ok(()),
                None => std::mem::replace(&mut printed, Ok(())),
            }
        })?;
    }
    if let (Some(path), true) = (&args.output, runner.done > 0) {
        runner.write(&session, path)?;
    }
    printed?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&said)?)?;
    }
    let count = runner.failed + runner.done;
    match runner.failed {
        0 => Ok(()),
        n => bail!("{n} of {count} could not be run; see above"),
    }
}

struct Runner<'a> {
    args: &'a Args,
    names: Vec<String>,
    settings: Preprocess,
    /// The outputs of each sample, where they are to be written.
    kept: Vec<Vec<Tensor>>,
    failed: usize,
    done: usize,
}

impl Runner<'_> {
    /// Runs all samples of a file or folder. A sample that cannot be run is reported and counted.
    fn file(
        &mut self,
        session: &mut Session,
        path: &Path,
        say: &mut dyn FnMut(Said) -> Result<()>,
    ) -> Result<()> {
        let graph = session.model().clone();
        let data = PreparedDataset::open(path, graph.graph(), self.settings.clone());
        let data = match data {
            Ok(data) => data,
            Err(e) => {
                self.fail(&e.to_string());
                return Ok(());
            }
        };
        for i in 0..data.len() {
            let pictures = data.dataset.kind() == DatasetKind::Pictures;
            let name = match pictures {
                true => data.dataset.path(i).display().to_string(),
                false if path.is_dir() => path.join(data.name(i)).display().to_string(),
                false => path.with_file_name(data.name(i)).display().to_string(),
            };
            match self.sample(session, &data, i) {
                Ok(outputs) => {
                    self.done += 1;
                    say(self.summary(session, name, &outputs))?;
                    if self.args.output.is_some() {
                        self.kept.push(outputs);
                    }
                }
                Err(e) => {
                    let why = e.to_string();
                    let named = why.starts_with(&name);
                    self.fail(&if named { why } else { format!("{name}: {why}") });
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        messages::line(&format!("error: {why}"));
    }

    fn sample(
        &self,
        session: &mut Session,
        data: &PreparedDataset,
        i: usize,
    ) -> Result<Vec<Tensor>> {
        let mut sample = data.load(i).map_err(|e| anyhow!(e))?;
        for ((name, tensor), port) in sample.iter_mut().zip(session.inputs()) {
            let codes = port.quant.is_some() && tensor.dtype() == DType::U8;
            if codes && !self.args.quant_input {
                bail!(
                    "input `{name}` is uint8; if these are codes of its scale, add --quant-input"
                );
            }
            if self.args.quant_input && tensor.dtype() == DType::F32 {
                *tensor = quantized(port, tensor)?;
            }
        }
        let inputs: Vec<_> = sample.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let dtype = if self.args.quant_output { DType::U8 } else { DType::F32 };
        let outputs = session.run(&inputs, Some(dtype))?;
        if let Some(i) = nan_output(&outputs) {
            let name = &session.outputs()[i].name;
            bail!(
                "output `{name}` became NaN; check the float model's weights and the preprocessing"
            );
        }
        Ok(outputs)
    }

    fn summary(&self, session: &Session, input: String, outputs: &[Tensor]) -> Said {
        let named = session.outputs().into_iter().zip(outputs);
        let outputs = named.map(|(port, t)| summary(port, t, self.args.top, &self.names)).collect();
        Said { input, outputs }
    }

    /// Writes what was kept, the samples after each other along axis 0.
    fn write(&self, session: &Session, path: &Path) -> Result<()> {
        let ports = session.outputs();
        let arrays: Vec<_> = (0..ports.len())
            .map(|o| {
                let first = &self.kept[0][o];
                let mut shape = first.shape().to_vec();
                match shape.first_mut() {
                    Some(dim) => *dim *= self.kept.len(),
                    None => shape.push(self.kept.len()),
                }
                let bytes: Vec<u8> =
                    self.kept.iter().flat_map(|k| k[o].bytes().iter().copied()).collect();
                to_array(&Tensor::from_bytes(first.dtype(), &shape, &bytes))
            })
            .collect();
        write_npz(path, ports.iter().map(|p| p.name.as_str()).zip(&arrays))?;
        Ok(())
    }
}

/// Real numbers as the codes of a port.
fn quantized(port: &Port, tensor: &Tensor) -> Result<Tensor> {
    let Some(quant) = &port.quant else {
        bail!("--quant-input: input `{}` has no scale; use a quantized model", port.name);
    };
    let codes: Vec<u8> =
        tensor.data::<f32>().iter().map(|&x| quant.code(x, 0, 255) as u8).collect();
    Ok(Tensor::from_slice(tensor.shape(), &codes))
}

pub fn summary(port: &Port, tensor: &Tensor, top: usize, names: &[String]) -> Summary {
    let values = as_f32(tensor);
    let fold = |f: fn(f32, f32) -> f32| values.iter().copied().reduce(f).unwrap_or(f32::NAN).into();
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    let classes = match tensor.shape() {
        [n] | [1, n] | [1, n, 1, 1] => *n,
        _ => 0,
    };
    let best = if classes > 1 { ranking(&values) } else { Vec::new() };
    let class = |&class: &usize| Class {
        class,
        name: names.get(class).cloned(),
        score: f64::from(values[class]),
    };
    Summary {
        name: port.name.clone(),
        shape: tensor.shape().to_vec(),
        dtype: tensor.dtype().to_string(),
        min: fold(f32::min),
        max: fold(f32::max),
        mean,
        top: best.iter().take(top).map(class).collect(),
    }
}

/// The elements for showing; large integers lose digits.
fn as_f32(tensor: &Tensor) -> Vec<f32> {
    match tensor.dtype() {
        DType::F32 => tensor.data().to_vec(),
        DType::I32 => tensor.data::<i32>().iter().map(|&v| v as f32).collect(),
        DType::I64 => tensor.data::<i64>().iter().map(|&v| v as f32).collect(),
        DType::I8 => tensor.data::<i8>().iter().map(|&v| f32::from(v)).collect(),
        _ => tensor.bytes().iter().map(|&v| f32::from(v)).collect(),
    }
}

pub fn print(said: &Said, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "{}", said.input)?;
    for o in &said.outputs {
        if o.top.is_empty() {
            let (min, max, mean) = (o.min, o.max, o.mean);
            let shape = output::shape(&o.shape);
            let dtype = &o.dtype;
            writeln!(
                out,
                "  {}: {shape} {dtype}, min {min:.4}, max {max:.4}, mean {mean:.4}",
                o.name
            )?;
            continue;
        }
        for class in &o.top {
            let name = class.name.as_deref().unwrap_or_default();
            let line = match o.dtype.as_str() {
                "f32" => format!("{:9.4}", class.score),
                _ => format!("{:4}", class.score),
            };
            writeln!(out, "{}", format!("  {line}  {:4}  {name}", class.class).trim_end())?;
        }
    }
    Ok(())
}
