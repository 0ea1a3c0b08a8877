//! `daq calibrate`: statistics of a model's tensors on samples, or on a part of them, as a file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use daq_quant::calibrate::{CalibrateOptions, Calibration, Samples, calibrate};
use daq_quant::files::write_atomically;
use daq_quant::observe::CalibrationMethod;
use daq_quant::samples::PreparedDataset;
use daq_quant::saved::{self, Part};

use crate::messages::{self, Progress};
use crate::model;
use crate::options::{PreprocessArgs, SampleArgs, ShapeArgs};
use crate::output::{self, count};

const EXAMPLE: &str = "\
Example, on four machines (1/4 to 4/4), then on one:
  daq calibrate --image_dir pictures --shard 1/4 model.onnx part1.json
  daq merge part1.json part2.json part3.json part4.json -o all.json
  daq quantize --statistics all.json model.onnx table.txt

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Measures the tensors of a float model on pictures, for `daq quantize --statistics`.
///
/// The statistics serve every --calibration method but auto. Those of parts (see --shard) merge to
/// exactly those of the whole.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The float model
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Where to write the statistics
    #[arg(value_name = "STATISTICS.json")]
    pub output: PathBuf,
    /// A folder of pictures (.jpg, .png) or arrays (.npy, .npz) as the model will see
    #[arg(long = "image_dir", alias = "image-dir", visible_alias = "data", value_name = "DIR")]
    pub image_dir: PathBuf,
    /// Take part I of N of the samples: every Nth from the Ith on
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub shard: Option<(usize, usize)>,
    #[command(flatten)]
    pub samples: SampleArgs,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Overwrite files even if this tool did not make them
    #[arg(long)]
    pub force: bool,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((i, n)) if 1 <= i && i <= n && n <= 1_000_000 => Ok((i, n)),
        _ => Err("must be I/N with I from 1 to N, such as 1/4".into()),
    }
}

/// Reads a file of statistics.
pub fn read(path: &Path, method: CalibrationMethod) -> Result<Calibration> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"));
    let text = text.map_err(|e| anyhow!("{e:#}"))?;
    saved::from_text(&text, method).map_err(|e| anyhow!("{shown}: {e}"))
}

/// Writes a file of statistics, whose target has been checked.
pub fn write(path: &Path, calibration: &Calibration, out: &mut dyn Write) -> Result<()> {
    let text = saved::to_text(calibration);
    write_atomically(path, |w| w.write_all(text.as_bytes()))?;
    let tensors = count(calibration.observers().len(), "tensor");
    let samples = count(calibration.used, "sample");
    writeln!(out, "{}: {tensors}, {samples}", path.display())?;
    Ok(())
}

/// Whether a file holds statistics.
pub fn is_statistics(path: &Path) -> bool {
    read(path, CalibrationMethod::Mse).is_ok()
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let inputs = [args.model.as_path()];
    output::check(&args.output, &inputs, "statistics", is_statistics, args.force)?;
    let float = model::open_onnx(&args.model, &args.shapes)?;
    let settings = args.preprocess.settings(model::preprocess(&float, &args.model)?)?;
    let mut data = PreparedDataset::open(&args.image_dir, &float, settings)?;
    if let Some(samples) = args.samples.samples {
        data.dataset.choose(samples, args.samples.seed);
    }
    let (i, n) = args.shard.unwrap_or((1, 1));
    let part = Part { samples: &data, first: i - 1, count: n };
    let progress = Progress::new("calibrating", part.len());
    let options = CalibrateOptions {
        method: CalibrationMethod::Mse,
        workers: args.samples.workers(),
        batch_size: 1,
    };
    let result = calibrate(&float, &part, &options, &|| progress.step());
    progress.finish();
    let calibration = result.map_err(|e| anyhow!("{}: {e}", args.model.display()))?;
    messages::skipped(&calibration.skipped);
    write(&args.output, &calibration, out)
}
