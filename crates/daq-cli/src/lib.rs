//! The `daq` command: quantize, convert, inspect, run, evaluate and time models.
//!
//! One file per command; each has its arguments and a `run` that writes what the user asked for to
//! `out`. Everything else (progress, warnings, errors) goes to stderr. A library, so that Python's
//! package has the command too.
#![forbid(unsafe_code)]

mod backend;
mod bench;
mod calibrate;
mod compare;
mod convert;
mod dynamic;
mod eval;
mod inspect;
mod islands;
mod lint;
mod merge;
mod messages;
mod model;
mod options;
mod output;
mod quantize;
mod report;
mod run;
mod suggest;
mod target;

use std::ffi::OsString;
use std::io::Write;
use std::sync::Mutex;

use clap::{Parser, Subcommand};

/// Quantizes vision models to 8 bits and runs them.
///
/// A float ONNX model and a folder of pictures become a quantized model (`quantize`), that becomes
/// one `.daq` file (`convert`), and that runs (`run`, `eval`, `bench`).
#[derive(Parser)]
#[command(name = "daq", version, after_help = START)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say errors only, without a progress bar
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

const START: &str = "\
Start with:
  daq quantize --image_dir pictures model.onnx table.txt
  daq convert quant-model.onnx model.daq
  daq run model.daq picture.jpg

`daq COMMAND --help` ends with an example of each command.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    Quantize(Box<quantize::Args>),
    Calibrate(calibrate::Args),
    Merge(merge::Args),
    Convert(convert::Args),
    Inspect(inspect::Args),
    Lint(lint::Args),
    Run(run::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Compare(compare::Args),
}

/// The arguments of the command that runs, its name first.
static ARGUMENTS: Mutex<Vec<OsString>> = Mutex::new(Vec::new());

fn arguments() -> Vec<OsString> {
    ARGUMENTS.lock().unwrap_or_else(|e| e.into_inner()).clone()
}

/// Runs the command with these arguments, its name first; gives its exit code: 0 done, 1 failed, 2
/// wrong usage. A process runs one at a time.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    *ARGUMENTS.lock().unwrap_or_else(|e| e.into_inner()) = arguments.clone();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(e) => {
            // A closed terminal is no reason to fail otherwise.
            let _ = e.print();
            return e.exit_code() as u8;
        }
    };
    messages::start(cli.verbose, cli.quiet);
    let mut out = std::io::stdout().lock();
    let result = match cli.command {
        Command::Quantize(args) => quantize::run(&args, &mut out),
        Command::Calibrate(args) => calibrate::run(&args, &mut out),
        Command::Merge(args) => merge::run(&args, &mut out),
        Command::Convert(args) => convert::run(&args, &mut out),
        Command::Inspect(args) => inspect::run(&args, &mut out),
        Command::Lint(args) => lint::run(&args, &mut out),
        Command::Run(args) => run::run(&args, &mut out),
        Command::Eval(args) => eval::run(&args, &mut out),
        Command::Bench(args) => bench::run(&args, &mut out),
        Command::Compare(args) => compare::run(&args, &mut out),
    };
    match result.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => 0,
        // `daq inspect model.daq | head` has seen enough.
        Err(e) if output::is_broken_pipe(&e) => 0,
        Err(e) => {
            messages::line(&format!("error: {e}"));
            if e.is::<options::Usage>() { 2 } else { 1 }
        }
    }
}
