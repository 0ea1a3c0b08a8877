//! Maintenance commands: `cargo xtask codegen`.

use std::path::Path;

use anyhow::{Context, Result, bail};

mod flatbuffers;
mod protobuf;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    match std::env::args().nth(1).as_deref() {
        Some("codegen") => {
            protobuf::generate(root)?;
            flatbuffers::generate(root)
        }
        _ => bail!("usage: cargo xtask codegen (rewrites the code made from schemas)"),
    }
}
