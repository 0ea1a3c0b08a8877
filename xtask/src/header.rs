//! Makes the C header of the C interface with `cbindgen`. The result is committed, so that building
//! daq needs no such tool.

use std::path::Path;

use anyhow::{Result, ensure};

/// Compares `bindings/c/include/daq.h` with the interface, or rewrites it.
pub fn header(root: &Path, write: bool) -> Result<()> {
    let folder = root.join("bindings/c");
    let path = folder.join("include/daq.h");
    let mut made = Vec::new();
    cbindgen::generate(&folder)?.write(&mut made);
    if write {
        std::fs::write(&path, made)?;
        println!("{}", path.display());
        return Ok(());
    }
    ensure!(
        std::fs::read(&path)? == made,
        "{} is not that of bindings/c/src; run `cargo xtask header --write`",
        path.display()
    );
    println!("{} is that of bindings/c/src", path.display());
    Ok(())
}
