//! `daq quantize`: a float model and a folder of pictures become a quantized model and its table.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use daq::Graph;
use daq_quant::calibrate::Calibration;
use daq_quant::dataset::DatasetKind;
use daq_quant::files::{is_writable, write_atomically};
use daq_quant::observe::CalibrationMethod;
use daq_quant::onnx;
use daq_quant::open_shapes::{self, OpenAxes};
use daq_quant::pipeline::{Prepared, Recipe, Recovery, prepare};
use daq_quant::preprocess_check::{self, PreprocessCheck};
use daq_quant::qdq::{self, FLOAT_OUTPUT};
use daq_quant::quantize::{Decision, QuantizeOptions, Quantized, Weights, quantize};
use daq_quant::recover::{absorption, equalize, two_parts};
use daq_quant::samples::{PREPROCESS, PreparedDataset};
use daq_quant::table::Table;
use daq_quant::target::Fidelity;

use crate::compare;
use crate::eval;
use crate::messages::{self, Stages};
use crate::model::{self, OPTIONS, VERSION};
use crate::options::{
    InputShape, LabelArgs, PreprocessArgs, SampleArgs, ShapeArgs, positive, usage,
};
use crate::output::{self, quoted};
use crate::report::{self, About, ReportArgs};
use crate::target::{self, TargetArgs};

const EXAMPLE: &str = "\
Example:
  daq quantize --image_dir pictures --resize crop:0.875 --samples 100 mobilenet_v2.onnx table.txt

Every flag is also understood with - instead of _, and with _ instead of -.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Quantizes a float .onnx model to 8 bits.
///
/// Runs the model on the pictures to see the range of each tensor, and writes a quantized .onnx
/// model (see --format; other tools read it too) and a table of scales.
#[derive(clap::Args, Clone)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The float model
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Where to write scales and zero points as text
    #[arg(value_name = "TABLE.txt")]
    pub table: PathBuf,
    /// A folder of pictures (.jpg, .png) or arrays (.npy, .npz) as the model will see
    #[arg(
        long = "image_dir",
        alias = "image-dir",
        visible_alias = "data",
        value_name = "DIR",
        required_unless_present = "statistics"
    )]
    pub image_dir: Option<PathBuf>,
    /// Choose ranges by statistics of `daq calibrate`, without pictures; recovery passes, which need
    /// pictures, are left out
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image_dir", "recovery", "report"])]
    pub statistics: Option<PathBuf>,
    /// The quantized model [default: quant-MODEL.onnx beside the model]
    #[arg(short, long, value_name = "FILE.onnx")]
    pub output: Option<PathBuf>,

    #[command(flatten)]
    pub samples: SampleArgs,
    /// Samples that a thread takes at a time
    #[arg(long = "batch_size", alias = "batch-size", value_name = "N", default_value_t = 1,
          value_parser = positive)]
    pub batch_size: usize,
    /// How ranges are chosen: minmax, average, percentile, percentile:99.9, entropy, mse, best or auto
    ///
    /// minmax: all that was seen. average: the mean of each sample's ends. percentile: 99.99 % of the
    /// values. entropy: least Kullback-Leibler divergence. mse: least squared error. best: mse,
    /// average or entropy, whichever has the least measured error of the model's output. auto: for
    /// each tensor the one with the least measured error of the model's output (slow).
    #[arg(long, value_name = "METHOD", default_value_t)]
    pub calibration: CalibrationMethod,
    /// Passes that win back accuracy: equalize, absorption, weight-scales, rounding, bias,
    /// activation-bias; none, default, all
    ///
    /// equalize: scale channels across layers so that activations use their codes. absorption: keep
    /// what a channel never falls below in the bias of the layer behind. weight-scales:
    /// clip weights where that lowers the error. rounding: round weights so that they make up for
    /// each other's errors. bias: correct biases for rounded weights. activation-bias: correct them
    /// for quantized activations, layer by layer (slow).
    #[arg(long, value_name = "PASS,PASS", default_value_t)]
    pub recovery: Recovery,
    /// How weights are quantized
    #[arg(long, value_enum, default_value = "per-channel")]
    pub weights: WeightsArg,
    /// The form of the quantized model
    #[arg(long, value_enum, default_value = "qdq")]
    pub format: Format,

    /// Be float again after this tensor; the model's output gives a float output (repeatable)
    #[arg(long = "dequantize_after", alias = "dequantize-after", value_name = "TENSOR")]
    pub dequantize_after: Vec<String>,
    /// Stay float up to and with this tensor (repeatable)
    #[arg(long = "quantize_after", alias = "quantize-after", value_name = "TENSOR")]
    pub quantize_after: Vec<String>,
    /// Keep the model's inputs float
    #[arg(long = "float_input", alias = "float-input")]
    pub float_input: bool,
    /// Nodes, tensors or operators to leave in float (comma-separated or repeatable)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Products (Conv, Gemm, MatMul) that read their input in two parts, values near 0 and what the rest
    /// exceed them by, each with a scale of its own: more accurate and twice as much work in 8 bits
    /// (comma-separated or repeatable)
    #[arg(
        long = "two-parts",
        alias = "two_parts",
        value_name = "NODE",
        value_delimiter = ',',
        conflicts_with = "statistics"
    )]
    pub two_parts: Vec<String>,
    /// The only operators to quantize, as Conv,Gemm
    #[arg(long, value_name = "OP,OP", value_delimiter = ',')]
    pub ops: Option<Vec<String>>,

    /// Use scales at which runtimes that simulate 8 bits in float give the same bits; costs some
    /// accuracy
    ///
    /// Activation scales are powers of two (rounded up from the calibrated range), zero points
    /// even, weight scales rounded up to 3 mantissa bits: every runtime, also those that simulate
    /// QuantizeLinear/DequantizeLinear models in float, gives the same bits.
    #[arg(long = "power-of-two-scales", alias = "power_of_two_scales")]
    pub power_of_two_scales: bool,

    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// A second shape that the quantized model will run at (repeatable)
    ///
    /// Calibration takes place at --shape. What the model makes of the two shapes tells which axes
    /// stay open in the quantized model: for `daq run --dynamic`, and for other runtimes.
    #[arg(long = "other-shape", alias = "other_shape", value_name = "INPUT=1,3,224,448")]
    pub other_shapes: Vec<InputShape>,
    #[command(flatten)]
    pub labels: LabelArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    /// Overwrite files even if this tool did not make them
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// The form of the quantized model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Float operators between DequantizeLinear and QuantizeLinear
    Qdq,
    /// Integer operators: QLinearConv and others, some of them onnxruntime's own
    Qoperator,
}

/// How weights are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WeightsArg {
    /// Signed, a scale for each output channel
    #[value(alias = "per_channel")]
    PerChannel,
    /// Signed, one scale
    #[value(alias = "per_tensor")]
    PerTensor,
    /// Unsigned, one scale and zero point
    Asymm,
}

impl From<WeightsArg> for Weights {
    fn from(arg: WeightsArg) -> Weights {
        match arg {
            WeightsArg::PerChannel => Weights::PerChannel,
            WeightsArg::PerTensor => Weights::PerTensor,
            WeightsArg::Asymm => Weights::Asymmetric,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    // Nobody should wait for calibration to learn that a name was wrong.
    let (target, moved) = target(args);
    if model::is_daq(&args.model)? {
        let shown = args.model.display();
        bail!("{shown} is a .daq file; quantize the float .onnx model that it was made of");
    }
    let inputs = [args.model.as_path()];
    if args.table == target {
        bail!("{} is given twice, as the model to write and as the table", target.display());
    }
    let by_daq = "a model by daq quantize";
    output::check(&target, &inputs, by_daq, is_own_model, args.force)?;
    output::check(&args.table, &inputs, "a table", is_table, args.force)?;
    args.report.check(&[&args.model, &target, &args.table], args.force)?;
    let labels = match &args.image_dir {
        Some(folder) => eval::labels(&args.labels, folder)?,
        None => None,
    };

    let float = model::open_onnx(&args.model, &args.shapes)?;
    check_options(&float, args)?;
    let other = other_shapes(&float, args)?;
    let start = Instant::now();
    let (made, data) = match &args.image_dir {
        Some(folder) => {
            let settings = args.preprocess.settings(model::preprocess(&float, &args.model)?)?;
            let mut data = PreparedDataset::open(folder, &float, settings)?;
            if let Some(samples) = args.samples.samples {
                data.dataset.choose(samples, args.samples.seed);
            }
            let made = from_samples(&float, &data, labels.as_ref(), args)?;
            messages::skipped(&made.calibration.skipped);
            (made, Some(data))
        }
        None => (from_statistics(&float, args)?, None),
    };
    let time = start.elapsed();
    let check = match &data {
        Some(data) => preprocess_check::check(&float, data, args.samples.workers())?,
        None => None,
    };
    compare::warn(check.as_ref());
    let mut graph = made.quantized.graph.clone();
    describe(&mut graph, &float, args, data.as_ref(), &made);
    let Made { quantized, calibration, float, recipe, target: reached, .. } = made;
    let mut unfolded = qdq::unfold(&graph);
    // The table speaks of what `daq convert` will read.
    let table = Table::of(&qdq::fold(&unfolded))?;
    match args.format {
        Format::Qdq => {
            let open = match &other {
                Some((one, other)) => open_shapes::open(&mut unfolded, one, other)?,
                None => OpenAxes::new(),
            };
            onnx::write_open(&unfolded, &target, &open)?;
        }
        Format::Qoperator => onnx::write_qoperator(&graph, &target)?,
    }
    write_atomically(&args.table, |w| w.write_all(table.to_text().as_bytes()))?;
    if let Some(data) = data.as_ref().filter(|_| args.report.report.is_some()) {
        let graph = model::open(&target, &args.shapes)?;
        let (float, quantized) = ((&*args.model, &float), (&*target, &graph));
        let workers = args.samples.workers();
        let comparison =
            compare::measure(float, quantized, data, labels.as_ref(), &args.labels, workers)?;
        let about = About {
            command: "quantize",
            float,
            quantized,
            data,
            comparison: &comparison,
            check: check.as_ref(),
            suggestions: None,
        };
        report::write(&args.report, &about)?;
    }

    Summary {
        args,
        target,
        moved,
        entries: table.entries.len(),
        calibration,
        time,
        pictures: data.as_ref().is_none_or(|d| d.dataset.kind() == DatasetKind::Pictures),
        recipe,
        reached,
        decisions: quantized.decisions,
        messages: quantized.messages,
        check,
    }
    .print(out)
}

/// The float model as it is read at both shapes; what does not depend on one alone is known before
/// calibration takes its time.
fn other_shapes(float: &Graph, args: &Args) -> Result<Option<(Graph, Graph)>> {
    if args.other_shapes.is_empty() {
        return Ok(None);
    }
    if args.format == Format::Qoperator {
        return Err(usage("--other-shape is for --format qdq; leave one of them"));
    }
    let mut shapes = args.shapes.clone();
    for other in &args.other_shapes {
        shapes.shapes.retain(|s| s.name != other.name);
        shapes.shapes.push(other.clone());
    }
    let other = model::open_onnx(&args.model, &shapes)?;
    open_shapes::open(&mut float.clone(), float, &other)
        .map_err(|e| anyhow!("{}: {e}", args.model.display()))?;
    Ok(Some((float.clone(), other)))
}

/// What to quantize, and how.
pub fn options(args: &Args) -> QuantizeOptions {
    QuantizeOptions {
        weights: args.weights.into(),
        dequantize_after: args.dequantize_after.clone(),
        quantize_after: args.quantize_after.clone(),
        float_input: args.float_input,
        exclude: args.exclude.clone(),
        ops: args.ops.clone(),
        power_of_two_scales: args.power_of_two_scales,
        ..QuantizeOptions::default()
    }
}

/// The quantized model's path, and whether it is not where it was expected: beside the model, or in
/// the current folder where the model's may not be written.
fn target(args: &Args) -> (PathBuf, bool) {
    if let Some(path) = &args.output {
        return (path.clone(), false);
    }
    let name = args.model.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("quant-{name}");
    let beside = args.model.with_file_name(&name);
    match is_writable(&output::folder_of(&beside)) {
        true => (beside, false),
        false => (PathBuf::from(name), true),
    }
}

fn is_own_model(path: &Path) -> bool {
    onnx::metadata(path).is_ok_and(|metadata| metadata.contains_key(VERSION))
}

fn is_table(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| Table::from_text(&text).is_ok())
}

/// Quantizes with no ranges at all: finds wrong names, NaN in weights and models that are quantized
/// already before calibration takes its time.
fn check_options(float: &Graph, args: &Args) -> Result<()> {
    let options = QuantizeOptions {
        dequantize_after: args.dequantize_after.clone(),
        quantize_after: args.quantize_after.clone(),
        exclude: args.exclude.clone(),
        ops: args.ops.clone(),
        ..QuantizeOptions::default()
    };
    quantize(float, &BTreeMap::new(), &options)?;
    two_parts::check(float, &args.two_parts)?;
    Ok(())
}

/// A quantized model and how it came about.
pub struct Made {
    pub quantized: Quantized,
    pub calibration: Calibration,
    /// The float model at the scales of the quantized one.
    pub float: Graph,
    /// These scales.
    pub equalized: Option<String>,
    /// How far its channels are shifted.
    pub absorbed: Option<String>,
    pub recipe: Recipe,
    /// What was asked for, where it was, how near the model comes, and whether that is enough.
    pub target: Option<Reached>,
}

impl Made {
    /// What came of a prepared float model.
    pub fn new(
        quantized: Quantized,
        prepared: Prepared,
        recipe: Recipe,
        target: Option<Reached>,
    ) -> Made {
        let Prepared { float, equalized, absorbed, calibration, .. } = prepared;
        Made { quantized, calibration, float, equalized, absorbed, recipe, target }
    }

    /// The flags that make this model: those given, with what a search has settled.
    fn flags(&self) -> Vec<String> {
        let given = report::recipe();
        if self.target.is_none() {
            return given;
        }
        let settled = ["--calibration=", "--recovery=", "--exclude=", "--two-parts="];
        let mut flags = given;
        flags.retain(|flag| !settled.iter().any(|s| flag.starts_with(s)));
        flags.push(format!("--calibration={}", self.recipe.method));
        flags.push(format!("--recovery={}", self.recipe.recovery));
        flags.extend(self.recipe.options.exclude.iter().map(|name| format!("--exclude={name}")));
        flags.extend(self.recipe.two_parts.iter().map(|name| format!("--two-parts={name}")));
        flags
    }
}

/// How a search for a target ended.
pub struct Reached {
    pub fidelity: Fidelity,
    pub reached: bool,
    pub held_back: usize,
}

/// What `daq quantize` does with these arguments.
pub fn recipe(args: &Args) -> Recipe {
    Recipe {
        method: args.calibration,
        recovery: if args.statistics.is_some() { Recovery::NONE } else { args.recovery },
        two_parts: args.two_parts.clone(),
        options: options(args),
        workers: args.samples.workers(),
        batch_size: args.batch_size,
    }
}

fn from_samples(
    float: &Graph,
    data: &PreparedDataset,
    labels: Option<&eval::ByName>,
    args: &Args,
) -> Result<Made> {
    let named = |e| anyhow!("{}: {e}", args.model.display());
    let recipe = recipe(args);
    if let Some(goal) = args.target.goal()? {
        return target::search(float, data, goal, recipe, labels, args);
    }
    let stages = Stages::default();
    let prepared = prepare(float, data, &recipe, &stages).map_err(named)?;
    let quantized = prepared.quantize(data, &recipe, &stages).map_err(named)?;
    Ok(Made::new(quantized, prepared, recipe, None))
}

fn from_statistics(float: &Graph, args: &Args) -> Result<Made> {
    if args.target.goal()?.is_some() {
        return Err(usage("a target is measured on pictures; give --image_dir, not --statistics"));
    }
    if args.calibration == CalibrationMethod::Auto {
        return Err(usage(
            "--calibration auto measures on pictures; give --image_dir, not --statistics",
        ));
    }
    let path = args.statistics.as_deref().unwrap_or(Path::new(""));
    let calibration = crate::calibrate::read(path, args.calibration)?;
    let known = |name: &String| float.find_value(name).is_some();
    if let Some(name) = calibration.observers().keys().find(|name| !known(name)) {
        let (path, model) = (path.display(), args.model.display());
        bail!("{path} is of another model: {model} has no tensor `{name}`");
    }
    let recipe = recipe(args);
    let quantized = quantize(float, &calibration.ranges_of(float), &recipe.options)?;
    let float = float.clone();
    let (equalized, absorbed, target) = (None, None, None);
    Ok(Made { quantized, calibration, float, equalized, absorbed, recipe, target })
}

/// Writes into the model's metadata what later commands want to know.
fn describe(
    graph: &mut Graph,
    float: &Graph,
    args: &Args,
    data: Option<&PreparedDataset>,
    made: &Made,
) {
    let outputs = float.outputs.iter().map(|&id| &float.values[id].name);
    if outputs.into_iter().any(|name| args.dequantize_after.contains(name)) {
        graph.metadata.insert(FLOAT_OUTPUT.into(), "1".into());
    }
    if let Some(data) = data.filter(|d| d.dataset.kind() == DatasetKind::Pictures) {
        graph.metadata.insert(PREPROCESS.into(), data.preprocess.to_json());
    }
    let options = serde_json::json!(made.flags()).to_string();
    graph.metadata.insert(OPTIONS.into(), options);
    if let Some(scales) = &made.equalized {
        graph.metadata.insert(equalize::EQUALIZED.into(), scales.clone());
    }
    if let Some(shifts) = &made.absorbed {
        graph.metadata.insert(absorption::ABSORBED.into(), shifts.clone());
    }
    graph.metadata.insert(VERSION.into(), env!("CARGO_PKG_VERSION").into());
}

struct Summary<'a> {
    args: &'a Args,
    target: PathBuf,
    moved: bool,
    entries: usize,
    calibration: Calibration,
    time: Duration,
    pictures: bool,
    recipe: Recipe,
    reached: Option<Reached>,
    decisions: Vec<Decision>,
    messages: Vec<String>,
    check: Option<PreprocessCheck>,
}

impl Summary<'_> {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let (model, table) = (&self.args.model, &self.args.table);
        let [before, after] = [model::file_size(model), model::file_size(&self.target)];
        let float: Vec<&Decision> =
            self.decisions.iter().filter(|d| d.float_because.is_some()).collect();
        let total = self.decisions.len();
        let macs = |d: &[&Decision]| d.iter().map(|d| d.macs).sum::<u64>();
        let all = macs(&self.decisions.iter().collect::<Vec<_>>());
        let share = (all > 0).then(|| 1.0 - macs(&float) as f64 / all as f64);
        let used = self.calibration.used;
        let skipped = &self.calibration.skipped;
        let seconds = self.time.as_secs_f64();
        let rate = (used + skipped.len()) as f64 / seconds.max(1e-9);
        let next = self.next();
        if self.args.json {
            let named =
                |(name, why): &(String, String)| serde_json::json!({"name": name, "why": why});
            let in_float = |d: &&Decision| {
                serde_json::json!({"node": d.node, "op": d.op, "macs": d.macs,
                    "why": d.float_because})
            };
            let json = serde_json::json!({
                "output": self.target.display().to_string(),
                "table": table.display().to_string(),
                "table_entries": self.entries,
                "size_before": before,
                "size_after": after,
                "operators": total,
                "operators_8bit": total - float.len(),
                "macs_8bit": share,
                "float_operators": float.iter().map(in_float).collect::<Vec<_>>(),
                "calibration": self.recipe.method.to_string(),
                "recovery": self.recipe.recovery.to_string(),
                "target": self.reached.as_ref().map(|r| serde_json::json!({
                    "reached": r.reached, "held_back": r.held_back,
                    "agreement": r.fidelity.agreement, "expected_agreement": r.fidelity.expected,
                    "expected_error": r.fidelity.expected_error,
                    "sqnr_db": r.fidelity.sqnr_db, "top1": r.fidelity.top1,
                })),
                "samples": used,
                "skipped": skipped.iter().map(named).collect::<Vec<_>>(),
                "seconds": seconds,
                "pictures_per_second": rate,
                "messages": self.messages,
                "preprocessing": self.check,
                "report": self.args.report.report,
                "next": next,
            });
            writeln!(out, "{json:#}")?;
            return Ok(());
        }
        let what = if self.pictures { "picture" } else { "sample" };
        let left_out = match skipped.len() {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        writeln!(
            out,
            "calibrated with {} in {seconds:.1} s ({rate:.1}/s){left_out}",
            output::count(used, what)
        )?;
        if let Some(found) = &self.reached {
            let (method, recovery) = (self.recipe.method, self.recipe.recovery);
            let verdict =
                if found.reached { "reached" } else { "NOT reached; the best found is kept" };
            writeln!(out, "target {verdict}: --calibration {method} --recovery {recovery}")?;
            let measured = target::shown(&found.fidelity);
            writeln!(out, "{measured} on {} held back", output::count(found.held_back, what))?;
        }
        let macs_text =
            share.map_or(String::new(), |s| format!(", {} of the MACs", output::percent(s)));
        writeln!(out, "{} of {total} operators in 8 bits{macs_text}", total - float.len())?;
        if !float.is_empty() {
            let row = |d: &&Decision| {
                let why = d.float_because.clone().unwrap_or_default();
                vec![d.node.clone(), d.op.clone(), output::macs(d.macs), why]
            };
            let rows = float.iter().map(row).collect();
            writeln!(out, "in float:\n{}", output::table(&["node", "op", ">MACs", "why"], rows))?;
        }
        for message in &self.messages {
            writeln!(out, "note: {message}")?;
        }
        if self.moved {
            let folder = output::folder_of(model);
            let folder = folder.display();
            writeln!(out, "note: {folder} is read-only, so the model is in the current folder")?;
        }
        let [before, after] = [before, after].map(output::bytes);
        writeln!(out, "{}: {after} (from {before})", self.target.display())?;
        writeln!(out, "{}: {}", table.display(), entries(self.entries))?;
        if let Some(report) = &self.args.report.report {
            writeln!(out, "{}: open it in a browser", report.display())?;
        }
        writeln!(out, "next: {next}")?;
        Ok(())
    }

    /// The command to run now.
    fn next(&self) -> String {
        let name = self.args.model.with_extension("daq");
        let name = PathBuf::from(name.file_name().unwrap_or_default());
        let (model, table) = (quoted(&self.target), quoted(&self.args.table));
        format!("daq convert {model} {} {table}", quoted(&name))
    }
}

fn entries(n: usize) -> String {
    format!("{n} {}", if n == 1 { "entry" } else { "entries" })
}
