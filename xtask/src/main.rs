//! Maintenance commands: `cargo xtask codegen`, `conformance`, `digest`, `header`,
//! `instructions`, `tiles`.

use std::path::Path;

use anyhow::{Context, Result, bail};

mod conformance;
mod digest;
mod flatbuffers;
mod header;
mod instructions;
mod protobuf;
mod tiles;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let write = std::env::args().nth(2).as_deref() == Some("--write");
    match std::env::args().nth(1).as_deref() {
        Some("codegen") => {
            protobuf::generate(root)?;
            flatbuffers::generate(root)
        }
        Some("digest") => digest::compare(root, write),
        Some("header") => header::header(root, write),
        Some("instructions") => instructions::count(root, write),
        Some("tiles") => tiles::count(root, write),
        Some("conformance") if std::env::args().len() == 3 => {
            conformance::run(root, &std::env::args().nth(2).unwrap_or_default())
        }
        _ => bail!(
            "usage: cargo xtask codegen (rewrites the code made from schemas)\n       \
             cargo xtask digest [--write] (compares results on all instruction sets)\n       \
             cargo xtask header [--write] (compares or makes the C header)\n       \
             cargo xtask instructions [--write] (counts those of each kernel, under valgrind)\n       \
             cargo xtask tiles [--write] (counts those of the inner loops, in the assembly)\n       \
             cargo xtask conformance DIR (runs ONNX's node tests, writes docs/conformance.md)"
        ),
    }
}

/// Writes generated code; leaves a file that says the same alone, so that nothing is built anew.
fn write_code(path: &Path, code: &str) -> Result<()> {
    if std::fs::read_to_string(path).ok().as_deref() != Some(code) {
        std::fs::write(path, code).with_context(|| path.display().to_string())?;
    }
    println!("{}", path.display());
    Ok(())
}
