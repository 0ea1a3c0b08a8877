//! Mapping a file into memory: the one place of this crate that needs `unsafe` of its own.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::tensor::MappedFile;

/// Maps a regular file for reading.
pub(crate) fn open(path: &Path) -> io::Result<MappedFile> {
    // Asked before opening: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    map(&File::open(path)?, 0, None)
}

/// Maps `len` bytes from `offset` of a regular file, or copies them where tensors in them would not
/// be aligned.
pub(crate) fn part(file: &File, offset: u64, len: u64) -> io::Result<MappedFile> {
    let wrong = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let about = file.metadata()?;
    if !about.is_file() {
        return wrong("it is not a regular file".into());
    }
    let size = about.len();
    let Some(len) = offset.checked_add(len).filter(|&end| end <= size).and(len.try_into().ok())
    else {
        return wrong(format!("{len} bytes are wanted, and the file ends at {size}"));
    };
    let mapped = map(file, offset, Some(len))?;
    match offset.is_multiple_of(64) {
        true => Ok(mapped),
        false => Ok(MappedFile::from_bytes(mapped.bytes())),
    }
}

/// Gives the pages of a mapping back; what is read again comes from the file once more.
pub(crate) fn release(map: &memmap2::Mmap) {
    // SAFETY: the mapping is of a file and never written, so its bytes stay what they are, as far as the
    // file does (see `map`).
    #[cfg(unix)]
    let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    #[cfg(not(unix))]
    let _ = map;
}

fn map(file: &File, offset: u64, len: Option<usize>) -> io::Result<MappedFile> {
    let mut options = memmap2::MmapOptions::new();
    options.offset(offset);
    if let Some(len) = len {
        options.len(len);
    }
    // SAFETY: the mapping is private and read-only, and is only ever read as plain bytes, for which
    // every bit pattern is valid. What nobody can check is that the file stays as it is: a process
    // that overwrites it in place changes weights under the running model, and one that shortens
    // it ends this process with SIGBUS on the next read. daq's own writer never does either: it
    // writes beside and renames, which leaves a mapped file as it was. The format's reader verifies
    // the checksum and copies everything but the tensors' elements out before a graph is built, so
    // a later change can spoil numbers, but no offset, shape or index.
    let map = unsafe { options.map(file)? };
    #[cfg(feature = "nnapi")]
    return Ok(MappedFile::of_file(map, file.try_clone()?, offset));
    #[cfg(not(feature = "nnapi"))]
    Ok(MappedFile::new(map))
}
