//! Runs ONNX's node tests and writes what passes to `docs/conformance.md`.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// Runs the tests in `folder`.
pub fn run(root: &Path, folder: &str) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    let folder = std::path::absolute(folder)?;
    let ran = Command::new(cargo)
        .args(["run", "--quiet", "--release", "-p", "daq-quant", "--example", "conformance", "--"])
        .arg(folder)
        .arg("docs/conformance.md")
        .current_dir(root)
        .status()?;
    if !ran.success() {
        bail!("the node tests did not run");
    }
    Ok(())
}
