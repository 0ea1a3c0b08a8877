//! The `daq` command.
fn main() {}
