//! `daq merge`: the statistics of parts of a dataset become those of the whole.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use daq_quant::observe::CalibrationMethod;
use daq_quant::saved;

use crate::calibrate::{is_statistics, read, write};
use crate::output;

const EXAMPLE: &str = "\
Example:
  daq merge part1.json part2.json part3.json part4.json -o all.json

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Merges statistics by `daq calibrate --shard` into exactly those of one run over all samples.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The statistics of the parts, in any order
    #[arg(value_name = "PART.json", required = true)]
    pub parts: Vec<PathBuf>,
    /// Where to write those of the whole
    #[arg(short, long, value_name = "STATISTICS.json")]
    pub output: PathBuf,
    /// Overwrite files even if this tool did not make them
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let inputs: Vec<_> = args.parts.iter().map(PathBuf::as_path).collect();
    output::check(&args.output, &inputs, "statistics", is_statistics, args.force)?;
    let method = CalibrationMethod::Mse;
    let parts = inputs.iter().map(|p| read(p, method)).collect::<Result<Vec<_>>>()?;
    let texts = inputs.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    for (i, text) in texts.iter().enumerate() {
        // Its samples would count twice.
        if let Some(j) = texts[..i].iter().position(|other| other == text) {
            let (one, two) = (inputs[j].display(), inputs[i].display());
            bail!("{one} and {two} are the same statistics; give each part once");
        }
    }
    write(&args.output, &saved::merge(&parts, method)?, out)
}
