//! `--report`: the page about a quantization, made by `quantize` and by `compare`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory};
use daq::Graph;
use daq_quant::compare::Comparison;
use daq_quant::dataset::DatasetKind;
use daq_quant::files::write_atomically;
use daq_quant::preprocess_check::PreprocessCheck;
use daq_quant::report::{Report, Suggestions, UsedOption};
use daq_quant::samples::PreparedDataset;

use crate::model::{self, OPTIONS};
use crate::{Cli, bench, output};

/// Flags of the commands that make a report.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Report")]
pub struct ReportArgs {
    /// Write a page with verdict, charts and example pictures, which needs no network
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// A file with the names of the classes, one a line, for the report
    #[arg(long = "class-names", alias = "class_names", value_name = "FILE")]
    pub class_names: Option<PathBuf>,
}

impl ReportArgs {
    /// Checks before the work that the page can be written, and the names be read.
    ///
    /// # Errors
    /// What is in the way.
    pub fn check(&self, inputs: &[&Path], force: bool) -> Result<()> {
        if let Some(path) = &self.report {
            output::check(path, inputs, "a report by daq", is_report, force)?;
        }
        Ok(())
    }
}

fn is_report(path: &Path) -> bool {
    std::fs::read_to_string(path)
        .is_ok_and(|text| text.contains("name=\"generator\" content=\"daq "))
}

/// What a page is made of, beside the comparison.
pub struct About<'a> {
    /// The command whose options are shown.
    pub command: &'static str,
    pub float: (&'a Path, &'a Graph),
    pub quantized: (&'a Path, &'a Graph),
    pub data: &'a PreparedDataset,
    pub comparison: &'a Comparison,
    pub check: Option<&'a PreprocessCheck>,
    pub suggestions: Option<&'a Suggestions>,
}

/// Measures both models and writes the page, where one is wanted.
pub fn write(args: &ReportArgs, about: &About) -> Result<()> {
    let Some(path) = &args.report else { return Ok(()) };
    let (float, quantized) = (about.float, about.quantized);
    let names = model::class_names(quantized.1, args.class_names.as_deref())?;
    let pictures = about.data.dataset.kind() == DatasetKind::Pictures;
    let picture = |index: usize| pictures.then(|| about.data.dataset.path(index));
    let speed = bench::speed(float.1, quantized.1)?;
    let report = Report {
        float: float.0,
        quantized: quantized.0,
        sizes: [model::file_size(float.0), model::file_size(quantized.0)],
        speed: Some(speed),
        macs_8bit: macs_8bit(about.comparison),
        comparison: about.comparison,
        check: about.check,
        preprocess: pictures.then_some(&about.data.preprocess),
        pictures: about.comparison.examples.iter().map(|e| picture(e.index)).collect(),
        class_names: &names,
        suggestions: about.suggestions,
        options: used(about.command, quantized.1),
    };
    let page = report.render().map_err(|e| anyhow!("{}: {e:#}", path.display()))?;
    write_atomically(path, |w| w.write_all(page.as_bytes()))?;
    Ok(())
}

fn macs_8bit(c: &Comparison) -> Option<f64> {
    let sum =
        |codes: bool| c.operators.iter().filter(|o| o.codes || !codes).map(|o| o.macs).sum::<u64>();
    (sum(false) > 0).then(|| sum(true) as f64 / sum(false) as f64)
}

/// Every option of the command, and, for `compare`, those that the model was quantized with.
fn used(command: &'static str, quantized: &Graph) -> Vec<UsedOption> {
    let mut used = options(command);
    if command != "quantize"
        && let Some(json) = quantized.metadata.get(OPTIONS)
        && let Ok(flags) = serde_json::from_str::<Vec<String>>(json)
    {
        let value = match flags.is_empty() {
            true => "the defaults".to_owned(),
            false => flags.join(" "),
        };
        used.insert(
            0,
            UsedOption { flag: "quantized with".into(), value, given: !flags.is_empty() },
        );
    }
    used
}

/// Calls `f` with each argument of a command that has a value, from this program's own arguments.
fn arguments<T>(command: &str, f: impl Fn(&Arg, &ArgMatches) -> Option<T>) -> Vec<T> {
    let mut cli = Cli::command();
    cli.build();
    let matches = Cli::command().try_get_matches_from(crate::arguments());
    let matches = matches.as_ref().ok().and_then(ArgMatches::subcommand);
    match (cli.find_subcommand(command), matches) {
        (Some(known), Some((name, matches))) if name == command => known
            .get_arguments()
            .filter(|arg| !arg.is_global_set())
            // Not help, which is no argument to be asked for.
            .filter(|arg| matches.try_contains_id(arg.get_id().as_str()).unwrap_or(false))
            .filter_map(|arg| f(arg, matches))
            .collect(),
        _ => Vec::new(),
    }
}

fn flag(arg: &Arg) -> String {
    match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => arg.get_value_names().map_or(arg.get_id().to_string(), |n| n[0].to_string()),
    }
}

fn values(arg: &Arg, matches: &ArgMatches) -> Vec<String> {
    let raw = matches.get_raw(arg.get_id().as_str());
    raw.into_iter().flatten().map(|v| v.to_string_lossy().into_owned()).collect()
}

fn is_given(arg: &Arg, matches: &ArgMatches) -> bool {
    matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// The options of a command with their values.
fn options(command: &str) -> Vec<UsedOption> {
    arguments(command, |arg, matches| {
        let switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let value = match (switch, values(arg, matches).join(", ")) {
            (true, on) if on == "true" => "on".into(),
            (true, _) => "off".into(),
            (false, value) => value,
        };
        Some(UsedOption { flag: flag(arg), value, given: is_given(arg, matches) })
    })
}

/// Arguments of `daq quantize` that do not decide how a model is quantized.
const OTHERS: [&str; 31] = [
    "model",
    "table",
    "image_dir",
    "statistics",
    "target_agreement",
    "target_sqnr",
    "target_top1",
    "time_budget",
    "output",
    "num_workers",
    "batch_size",
    "samples",
    "seed",
    "force",
    "json",
    "report",
    "class_names",
    "labels",
    "class_offset",
    "resize",
    "interpolation",
    "color",
    "mean",
    "std",
    "pad_value",
    "size",
    "preprocess",
    "shapes",
    "format",
    "verbose",
    "quiet",
];

/// The flags given to `daq quantize` that decide how the model is quantized, for `--suggest` to
/// repeat.
pub fn recipe() -> Vec<String> {
    let flags = arguments("quantize", |arg, matches| {
        if OTHERS.contains(&arg.get_id().as_str()) || !is_given(arg, matches) {
            return None;
        }
        Some(match arg.get_action() {
            ArgAction::SetTrue => vec![flag(arg)],
            _ => values(arg, matches).into_iter().map(|v| format!("{}={v}", flag(arg))).collect(),
        })
    });
    flags.into_iter().flatten().collect()
}
