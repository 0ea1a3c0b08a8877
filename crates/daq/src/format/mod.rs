//! The `.daq` file: a model in one file whose weights are used where they lie.
//!
//! A FlatBuffers head describes the graph, 64-byte aligned constants follow, and a fixed trailer
//! with a checksum ends the file; docs/format.md has the details. Reading maps the file, checks
//! everything in it and copies no weights.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::mmap;
use crate::tensor::MappedFile;

// The generated accessors read the buffer unchecked: that is how the FlatBuffers library avoids
// checking each field at each access. Only `read::verified` makes a root of foreign bytes, and it
// runs the library's verifier over the whole buffer first.
#[rustfmt::skip]
#[allow(unsafe_code, missing_docs, dead_code, unused_imports, deprecated, clippy::all)]
#[allow(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn, elided_lifetimes_in_paths)]
mod generated;
mod read;
#[cfg(test)]
mod tests;
mod write;

/// The metadata key under which the toolkit keeps how to prepare pictures: JSON that the runtime
/// does not read.
pub const PREPROCESS_KEY: &str = "daq.preprocess";

/// The metadata key under which the toolkit keeps class labels, one a line.
pub const LABELS_KEY: &str = "daq.labels";

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;

/// The first daq that reads [`VERSION`]; an older one tells its user to get it.
const FIRST_READER: &str = "0.1.0";

/// FlatBuffers' file identifier, and the file's last bytes.
const MAGIC: &str = "DAQ1";

/// Where each constant starts: a multiple of this, which any instruction set can load from.
const ALIGN: usize = 64;

/// Length of the trailer: the head's length (u64), the file's length (u64), the checksum of
/// everything before it (u32) and [`MAGIC`].
const TRAILER: usize = 24;

/// Bytes at the end of the trailer that the checksum does not cover: itself and the magic.
const UNCHECKED: usize = 8;

/// What errors call a file that was never on a disk.
const IN_MEMORY: &str = "daq model in memory";

fn file_error(path: impl Into<String>, why: impl ToString) -> Error {
    Error::File { path: path.into(), why: why.to_string() }
}

/// Whether a file that starts with these bytes (8 or more) is a `.daq` file.
pub fn is_daq(first_bytes: &[u8]) -> bool {
    first_bytes.get(4..8) == Some(MAGIC.as_bytes())
}

/// The bytes of a `.daq` file that holds `graph`; equal graphs give equal bytes.
///
/// # Errors
/// Those of [`Graph::validate`]; [`Error::File`] where the graph is beyond the format's limits.
pub fn to_bytes(graph: &Graph) -> Result<Vec<u8>> {
    graph.validate()?;
    let bytes = write::file(graph).map_err(|why| file_error(IN_MEMORY, why))?;
    // The reader is the one judge of the limits: what is written can be read.
    from_bytes(&bytes)?;
    Ok(bytes)
}

/// Writes `graph` to `path`, beside it first: the file appears whole or not at all. A symbolic link
/// is followed; a device or pipe, which must not be replaced, is written directly.
///
/// # Errors
/// Those of [`to_bytes`]; [`Error::File`] where `path` cannot be written. Nothing is left behind.
pub fn write(graph: &Graph, path: &Path) -> Result<()> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let bytes = to_bytes(graph)?;
    let fail = |why: std::io::Error| file_error(path.display().to_string(), why);
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if resolved.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        let mut file = File::options().write(true).open(&resolved).map_err(fail)?;
        return file.write_all(&bytes).map_err(fail);
    }
    let mut name = resolved
        .file_name()
        .ok_or_else(|| file_error(path.display().to_string(), "give the name of a file to write"))?
        .to_os_string();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".tmp{}-{count}", std::process::id()));
    let beside = resolved.with_file_name(name);
    let mut file = File::create(&beside).map_err(fail)?;
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    drop(file);
    written.and_then(|()| fs::rename(&beside, &resolved)).map_err(|why| {
        // The first error is the one to report.
        let _ = fs::remove_file(&beside);
        fail(why)
    })
}

/// Reads a `.daq` file. Its constants are parts of the mapped file, which must not be changed in
/// place while the graph or anything made of it lives (replacing it by renaming is fine).
///
/// # Errors
/// [`Error::File`] with what is wrong and what to do.
pub fn read(path: &Path) -> Result<Graph> {
    let fail = |why: String| file_error(path.display().to_string(), why);
    let file = mmap::open(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
    read::graph(&file).map_err(fail)
}

/// Reads a `.daq` file that is part of another: `len` bytes from `offset` on. They stay mapped, as
/// with [`read`], where the part starts at a multiple of 64, and are copied elsewhere.
///
/// # Errors
/// [`Error::File`] with what is wrong and what to do.
pub fn read_part(file: &File, offset: u64, len: u64) -> Result<Graph> {
    let fail = |why: String| file_error(format!("bytes {offset}.. of an open file"), why);
    let part = mmap::part(file, offset, len).map_err(|e| fail(format!("cannot be read: {e}")))?;
    read::graph(&part).map_err(fail)
}

/// Reads the bytes of a `.daq` file; they are copied once.
///
/// # Errors
/// [`Error::File`] with what is wrong and what to do.
pub fn from_bytes(bytes: &[u8]) -> Result<Graph> {
    read::graph(&MappedFile::from_bytes(bytes)).map_err(|why| file_error(IN_MEMORY, why))
}
