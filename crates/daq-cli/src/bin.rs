//! The `daq` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(daq_cli::run(std::env::args_os()))
}
