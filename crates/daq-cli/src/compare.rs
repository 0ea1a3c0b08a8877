//! `daq compare`: why an 8-bit model differs from its float original, operator by operator.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use daq::{Graph, Model};
use daq_quant::calibrate::Samples;
use daq_quant::compare::{
    CompareError, CompareOptions, Comparison, HURTS_DB, OperatorError, compare,
};
use daq_quant::evaluate::Classes;
use daq_quant::preprocess_check::{self, PreprocessCheck};
use daq_quant::recover::absorption::{self, ABSORBED};
use daq_quant::recover::equalize::{self, EQUALIZED};
use daq_quant::recover::two_parts::{self, TWO_PARTS};
use daq_quant::report::{Suggestions, Trial};
use daq_quant::samples::PreparedDataset;

use crate::eval::{self, ByName};
use crate::messages::{self, Progress};
use crate::model;
use crate::options::{LabelArgs, PreprocessArgs, SampleArgs, ShapeArgs, positive};
use crate::output::{self, count, percent};
use crate::report::{self, About, ReportArgs};
use crate::suggest::suggest;

const EXAMPLE: &str = "\
Example:
  daq compare mobilenet_v2.onnx quant-mobilenet_v2.onnx --images pictures --samples 100 \\
    --suggest --report report.html

The local error of an operator is its own: it is fed with the float model's activations, quantized. The accumulated
error is that of all of the network up to there.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Shows which operators of an 8-bit model differ most from the float one, and why.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The float model: .onnx or .daq
    #[arg(value_name = "FLOAT.onnx")]
    pub float: PathBuf,
    /// The model quantized from it: .onnx or .daq
    #[arg(value_name = "QUANTIZED")]
    pub quantized: PathBuf,
    /// The folder of pictures (.jpg, .png) or arrays (.npy, .npz)
    #[arg(long, value_name = "DIR", alias = "image_dir", alias = "image-dir", alias = "data")]
    pub images: PathBuf,
    #[command(flatten)]
    pub labels: LabelArgs,
    /// Show this many of the worst operators
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive)]
    pub top: usize,
    /// Show all operators, in order
    #[arg(long, conflicts_with = "top")]
    pub all: bool,
    #[command(flatten)]
    pub samples: SampleArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Quantize again with other flags, and show which would help and how much
    #[arg(long)]
    pub suggest: bool,
    #[command(flatten)]
    pub report: ReportArgs,
    /// Overwrite the report's file even if it is no report
    #[arg(long)]
    pub force: bool,
    /// Print JSON; shares are from 0 to 1
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    args.report.check(&[&args.float, &args.quantized], args.force)?;
    let quantized = model::open(&args.quantized, &shapes_for(&args.quantized, &args.shapes)?)?;
    let mut float = model::open(&args.float, &shapes_for(&args.float, &args.shapes)?)?;
    // Operators can be compared only at the same scales of their channels; quantizing again starts
    // from the model as it was.
    let original = float.clone();
    let made = |key| quantized.metadata.get(key);
    if made(EQUALIZED).is_some_and(|scales| !equalize::repeat(&mut float, scales))
        || made(ABSORBED).is_some_and(|shifts| !absorption::repeat(&mut float, shifts))
        || made(TWO_PARTS).is_some_and(|parts| !two_parts::repeat(&mut float, parts))
    {
        let (quantized, float) = (args.quantized.display(), args.float.display());
        bail!("{quantized} was made of another model than {float}; give its own float model");
    }
    let known = model::preprocess(&quantized, &args.quantized)?;
    let settings = args.preprocess.settings(known)?;
    let mut data = PreparedDataset::open(&args.images, &float, settings)?;
    if let Some(samples) = args.samples.samples {
        data.dataset.choose(samples, args.samples.seed);
    }
    let labels = eval::labels(&args.labels, &args.images)?;
    let workers = args.samples.workers();
    let models = ((&*args.float, &float), (&*args.quantized, &quantized));
    let comparison = measure(models.0, models.1, &data, labels.as_ref(), &args.labels, workers)?;
    messages::skipped(&comparison.skipped);
    let check = preprocess_check::check(&float, &data, workers)?;
    warn(check.as_ref());
    let suggestions = match args.suggest {
        true => Some(suggest(&original, &quantized, &data, &comparison, workers)?),
        false => None,
    };
    let about = About {
        command: "compare",
        float: models.0,
        quantized: models.1,
        data: &data,
        comparison: &comparison,
        check: check.as_ref(),
        suggestions: suggestions.as_ref(),
    };
    report::write(&args.report, &about)?;
    if args.json {
        let mut json = serde_json::to_value(&comparison)?;
        json["preprocessing"] = serde_json::to_value(&check)?;
        json["suggestions"] = serde_json::to_value(&suggestions)?;
        json["report"] = serde_json::to_value(&args.report.report)?;
        writeln!(out, "{json:#}")?;
        return Ok(());
    }
    print(&comparison, args, out)?;
    if let Some(suggestions) = &suggestions {
        print_suggestions(suggestions, out)?;
    }
    if let Some(path) = &args.report.report {
        writeln!(out, "\n{}: open it in a browser", path.display())?;
    }
    Ok(())
}

fn shapes_for(path: &Path, shapes: &ShapeArgs) -> Result<ShapeArgs> {
    Ok(if model::is_daq(path)? { ShapeArgs::default() } else { shapes.clone() })
}

/// Says what is suspicious about the preprocessing.
pub fn warn(check: Option<&PreprocessCheck>) {
    if let Some(warning) = check.and_then(|c| c.warning.as_ref()) {
        log::warn!("{warning}");
    }
}

/// Compares two models, each with the path of its file.
pub fn measure(
    float: (&Path, &Graph),
    quantized: (&Path, &Graph),
    data: &PreparedDataset,
    labels: Option<&ByName>,
    args: &LabelArgs,
    workers: usize,
) -> Result<Comparison> {
    if let Some(labels) = labels {
        let model = Model::from_graph(float.1.clone())?;
        eval::check_classes(&model, labels, args.class_offset, float.0)?;
    }
    let options = CompareOptions {
        classes: labels.map(|l| l as &dyn Classes),
        class_offset: args.class_offset,
        workers,
    };
    let progress = Progress::new("comparing", data.len());
    let comparison = compare(float.1, quantized.1, data, &options, &|| progress.step());
    progress.finish();
    comparison.map_err(|e| {
        let path = if matches!(e, CompareError::NotFloat { .. }) { float.0 } else { quantized.0 };
        anyhow!("{}: {e}", path.display())
    })
}

fn print(c: &Comparison, args: &Args, out: &mut dyn Write) -> Result<()> {
    for (name, share) in
        [("float top-1", c.float_top1), ("8-bit top-1", c.top1), ("agreement", c.agreement)]
    {
        if let Some(share) = share {
            writeln!(out, "{name:11} {:>8}", percent(share))?;
        }
    }
    writeln!(out, "{:11} {:>8}", "SQNR", format!("{:.1} dB", c.sqnr_db))?;
    let skipped = match c.skipped.len() {
        0 => String::new(),
        n => format!(", {n} skipped"),
    };
    writeln!(out, "{}{skipped}\n", count(c.n, "sample"))?;
    match c.first() {
        Some(first) => writeln!(
            out,
            "the first operator that hurts: {} ({}): {}",
            first.node,
            first.op,
            why(first)
        )?,
        None => writeln!(
            out,
            "no operator hurts on its own: each keeps a local SQNR of at least {HURTS_DB} dB"
        )?,
    }
    let chosen: Vec<usize> = match args.all {
        true => (0..c.operators.len()).collect(),
        false => c.worst().into_iter().take(args.top).collect(),
    };
    if !args.all {
        writeln!(
            out,
            "the {} with the largest errors of their own:",
            count(chosen.len(), "operator")
        )?;
    }
    let headings = [
        "#",
        "node",
        "op",
        ">local",
        ">accumulated",
        ">cosine",
        ">max",
        ">clipped",
        ">unused",
        "range",
    ];
    let rows = chosen.into_iter().map(|i| row(i, &c.operators[i])).collect();
    writeln!(out, "\n{}", output::table(&headings, rows))?;
    if !c.unmatched.is_empty() {
        writeln!(out, "\nwithout a counterpart in the float model: {}", c.unmatched.join(", "))?;
    }
    Ok(())
}

fn row(i: usize, o: &OperatorError) -> Vec<String> {
    let db = |d: f64| format!("{d:.1} dB");
    let share = |of: fn(&daq_quant::compare::Spread) -> f64| match o.output.as_ref().map(of) {
        Some(x) if x > 0.0 && x < 0.001 => format!("{:.3} %", 100.0 * x),
        Some(x) => percent(x),
        None => String::new(),
    };
    vec![
        i.to_string(),
        o.node.clone(),
        o.op.into(),
        o.local.map_or(String::new(), |d| db(d.sqnr_db)),
        db(o.accumulated.sqnr_db),
        format!("{:.4}", o.local.unwrap_or(o.accumulated).cosine),
        format!("{:.3}", o.local.unwrap_or(o.accumulated).max),
        share(|s| s.clipped),
        share(|s| s.unused),
        o.output.as_ref().map_or("float".into(), |s| format!("{:.2} to {:.2}", s.low, s.high)),
    ]
}

/// What is wrong with an operator, as far as its numbers say.
fn why(o: &OperatorError) -> String {
    let own = o.local.map_or(f64::NAN, |d| d.sqnr_db);
    let mut text = vec![format!("local SQNR {own:.1} dB")];
    text.extend(o.causes());
    text.join("; ")
}

fn print_suggestions(s: &Suggestions, out: &mut dyn Write) -> Result<()> {
    let db = |d: f64| format!("{d:.1} dB");
    let share = |s: Option<f64>| s.map_or(String::new(), percent);
    let row = |name: &str, t: &Trial, gain: String| {
        vec![db(t.sqnr_db), gain, share(t.agreement), share(t.macs_8bit), name.to_owned()]
    };
    let mut rows = vec![row("(as it is)", &s.base, String::new())];
    rows.extend(s.trials.iter().map(|t| row(&t.flags, t, format!("{:+.1} dB", t.gain_db))));
    let headings = [">SQNR", ">gain", ">agreement", ">MACs in 8 bits", "quantized again with"];
    writeln!(
        out,
        "\nmeasured on {}, calibrated with {}:\n{}",
        count(s.measured, "sample"),
        count(s.calibrated, "sample"),
        output::table(&headings, rows)
    )?;
    match s.trials.first().filter(|t| t.gain_db >= 0.5) {
        Some(best) => writeln!(out, "the best: daq quantize ... {}", best.flags)?,
        None => writeln!(out, "none of these brings half a dB")?,
    }
    Ok(())
}
