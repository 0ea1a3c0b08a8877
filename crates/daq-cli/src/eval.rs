//! `daq eval`: how good a model is on labelled pictures, and how close to its float original.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use daq::Model;
use daq_quant::calibrate::Samples;
use daq_quant::evaluate::{Classes, Evaluate, Scores, evaluate};
use daq_quant::labels::Labels;
use daq_quant::preprocess_check::{self, PreprocessCheck};
use daq_quant::samples::PreparedDataset;

use crate::compare;
use crate::messages::{self, Progress};
use crate::model;
use crate::options::{LabelArgs, PreprocessArgs, SampleArgs, ShapeArgs, usage};
use crate::output::{count, percent};

const EXAMPLE: &str = "\
Example:
  daq eval mobilenet_v2.daq --images pictures --labels pictures/labels.txt \\
    --reference mobilenet_v2.onnx

A line of the labels is a file (relative to the folder) and the number of its class; the rest of the
line is ignored. A file name may hold spaces. Pictures without a label count for the agreement with the reference only.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Scores a model on labelled pictures, and against its float original.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The model: .daq or .onnx
    pub model: PathBuf,
    /// The folder of pictures (.jpg, .png) or arrays (.npy, .npz)
    #[arg(long, value_name = "DIR", alias = "image_dir", alias = "image-dir", alias = "data")]
    pub images: PathBuf,
    #[command(flatten)]
    pub labels: LabelArgs,
    /// The model to compare outputs with
    #[arg(long, value_name = "FLOAT.onnx")]
    pub reference: Option<PathBuf>,
    #[command(flatten)]
    pub samples: SampleArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Print JSON; top1, top5 and agreement are shares from 0 to 1
    #[arg(long)]
    pub json: bool,
}

/// Labels of pictures, by the name of the file.
pub struct ByName(Labels);

impl Classes for ByName {
    fn class(&self, name: &str) -> Option<usize> {
        self.0.class(name)
    }
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let labels = labels(&args.labels, &args.images)?;
    if labels.is_none() && args.reference.is_none() {
        return Err(usage(format!(
            "nothing to compare with: {} has no labels.txt; give --labels or --reference",
            args.images.display()
        )));
    }
    let graph = model::open(&args.model, &args.shapes)?;
    let settings = args.preprocess.settings(model::preprocess(&graph, &args.model)?)?;
    let mut data = PreparedDataset::open(&args.images, &graph, settings)?;
    if let Some(samples) = args.samples.samples {
        data.dataset.choose(samples, args.samples.seed);
    }
    if let Some(labels) = &labels
        && !(0..data.len()).any(|i| labels.class(&data.name(i)).is_some())
    {
        bail!(
            "no label is for a file in {}: names in the labels are relative to that folder; the \
             first file there is {}",
            args.images.display(),
            data.name(0)
        );
    }
    let model = Model::from_graph(graph)?;
    if let Some(labels) = &labels {
        check_classes(&model, labels, args.labels.class_offset, &args.model)?;
    }
    let reference = match &args.reference {
        Some(path) => Some(open_reference(path, &model, &args.shapes)?),
        None => None,
    };
    let options = Evaluate {
        model: &model,
        reference: reference.as_ref(),
        classes: labels.as_ref().map(|l| l as &dyn Classes),
        class_offset: args.labels.class_offset,
        workers: args.samples.workers(),
    };
    let progress = Progress::new("evaluating", data.len());
    let scores = evaluate(&data, &options, &|| progress.step());
    let time = progress.finish();
    let scores = scores.map_err(|e| anyhow!("{}: {e}", args.model.display()))?;
    messages::skipped(&scores.skipped);
    if scores.n == 0 {
        bail!("none of the {} could be used", count(scores.skipped.len(), "sample"));
    }
    // A quantized model saturates what its input's scale does not hold, so the original knows better.
    let judge = reference.as_ref().unwrap_or(&model);
    let check = preprocess_check::check(judge.graph(), &data, args.samples.workers())?;
    compare::warn(check.as_ref());
    let rate = data.len() as f64 / time.as_secs_f64().max(1e-9);
    print(&scores, check.as_ref(), rate, args.json, out)
}

/// The labels that are given, else those in the folder of pictures, where it has some.
pub fn labels(args: &LabelArgs, images: &Path) -> Result<Option<ByName>> {
    let beside = images.join("labels.txt");
    let path = args.labels.clone().or_else(|| beside.is_file().then_some(beside));
    Ok(path.map(|p| Labels::read(&p)).transpose()?.map(ByName))
}

/// A label beyond the model's classes means that the offset or the file is wrong.
pub fn check_classes(model: &Model, labels: &ByName, offset: usize, path: &Path) -> Result<()> {
    let classes: usize = match model.plan().outputs().next() {
        Some(port) => port.shape.iter().product(),
        None => 0,
    };
    let highest = labels.0.highest_class().map_or(0, |c| c.saturating_add(offset));
    match highest < classes {
        true => Ok(()),
        false => bail!(
            "the labels go up to class {highest} (with --class-offset {offset}), but {} has \
             {classes} classes",
            path.display()
        ),
    }
}

fn open_reference(path: &Path, model: &Model, shapes: &ShapeArgs) -> Result<Model> {
    let open = model::open(
        path,
        &if model::is_daq(path)? { ShapeArgs::default() } else { shapes.clone() },
    )?;
    let reference = Model::from_graph(open)?;
    let shapes = |m: &Model| m.plan().inputs().map(|p| p.shape.clone()).collect::<Vec<_>>();
    let (ours, theirs) = (shapes(model), shapes(&reference));
    match ours == theirs {
        true => Ok(reference),
        false => bail!(
            "{}: takes inputs of shape {theirs:?}, the model {ours:?}; they cannot be compared",
            path.display()
        ),
    }
}

fn print(
    scores: &Scores,
    check: Option<&PreprocessCheck>,
    rate: f64,
    json: bool,
    out: &mut dyn Write,
) -> Result<()> {
    if json {
        let skipped: Vec<_> = scores
            .skipped
            .iter()
            .map(|(name, why)| serde_json::json!({"name": name, "why": why}))
            .collect();
        let json = serde_json::json!({
            "top1": scores.top1,
            "top5": scores.top5,
            "n": scores.n,
            "agreement": scores.agreement,
            "sqnr_db": scores.sqnr_db,
            "skipped": skipped,
            "preprocessing": check,
            "pictures_per_second": rate,
        });
        writeln!(out, "{json:#}")?;
        return Ok(());
    }
    let shares = [("top-1", scores.top1), ("top-5", scores.top5), ("agreement", scores.agreement)];
    for (name, share) in shares {
        if let Some(share) = share {
            writeln!(out, "{name:10} {:>8}", percent(share))?;
        }
    }
    if let Some(sqnr) = scores.sqnr_db {
        writeln!(out, "{:10} {:>8}", "SQNR", format!("{sqnr:.1} dB"))?;
    }
    let skipped = match scores.skipped.len() {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    writeln!(out, "{} at {rate:.1}/s{skipped}", count(scores.n, "sample"))?;
    Ok(())
}
