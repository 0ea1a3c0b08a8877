//! Several named arrays in one file: numpy's `.npz`, a zip archive of `.npy` files.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::files::write_atomically;
use crate::npy::{Array, NpyError, NpyHeader};

/// Deflate cannot make more of a byte than this; a larger claim is forged.
const MAX_EXPANSION: u64 = 1040;

/// Reads every array of an `.npz` file, in the file's order.
///
/// # Errors
/// [`NpyError`] naming the file and, where one is at fault, the array.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Array)>, NpyError> {
    each_entry(path, u64::MAX, Array::from_npy_bytes)
}

/// The names and shapes of the arrays of an `.npz` file, without reading their elements.
///
/// # Errors
/// As [`read_npz`], for what can be told from the headers.
pub fn npz_shapes(path: &Path) -> Result<Vec<(String, Vec<usize>)>, NpyError> {
    each_entry(path, NpyHeader::MAX_BYTES as u64, |bytes, name| {
        let header = NpyHeader::parse(bytes).map_err(|why| NpyError::bad(name, why))?;
        Ok(header.shape)
    })
}

/// Calls `read` with the first `limit` bytes of each array's `.npy` form and a name for errors.
fn each_entry<T>(
    path: &Path,
    limit: u64,
    read: impl Fn(&[u8], &str) -> Result<T, NpyError>,
) -> Result<Vec<(String, T)>, NpyError> {
    let file = path.display().to_string();
    let io_error = |source| NpyError::Io { file: file.clone(), source };
    let zip_error = |e: zip::result::ZipError| {
        NpyError::bad(&file, format!("not a usable .npz archive, perhaps truncated: {e}"))
    };
    let opened = File::open(path).map_err(io_error)?;
    let file_size = opened.metadata().map_err(io_error)?.len();
    let mut archive = ZipArchive::new(BufReader::new(opened)).map_err(zip_error)?;
    let mut arrays = Vec::new();
    for i in 0..archive.len() {
        let entry = archive.by_index(i).map_err(zip_error)?;
        let name = entry.name().map_err(zip_error)?.into_owned();
        let Some(name) = name.strip_suffix(".npy") else { continue };
        let inside = format!("{file}, array `{name}`");
        if entry.size() > file_size.saturating_mul(MAX_EXPANSION) {
            let why =
                format!("claims {} bytes, more than the file can hold: corrupt", entry.size());
            return Err(NpyError::bad(&inside, why));
        }
        // Grown as the bytes come, not by the announcement. One byte more than announced is asked for
        // because the checksum is compared at the end of the stream.
        let mut bytes = Vec::new();
        let wanted = entry.size().saturating_add(1).min(limit);
        entry
            .take(wanted)
            .read_to_end(&mut bytes)
            .map_err(|e| NpyError::bad(&inside, format!("corrupt: {e}")))?;
        arrays.push((name.to_owned(), read(&bytes, &inside)?));
    }
    Ok(arrays)
}

/// Writes named arrays as an uncompressed `.npz`, as `numpy.savez` does, whole or not at all.
///
/// # Errors
/// [`NpyError::Write`]; a name used twice is one too.
pub fn write_npz<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
) -> Result<(), NpyError> {
    write_atomically(path, |w| {
        // In memory first: an archive needs a place to go back in, which a device is not, and would
        // wrap the system's errors.
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, array) in arrays {
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .large_file(array.data.len() > 1 << 28);
            zip.start_file(format!("{name}.npy"), options).map_err(io::Error::other)?;
            array.to_npy(&mut zip)?;
        }
        w.write_all(zip.finish().map_err(io::Error::other)?.get_ref())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<(String, Array)> {
        vec![
            ("x".into(), Array::new(vec![2, 2], vec![1f32, 2.0, 3.0, 4.0].into())),
            ("a/b:0".into(), Array::new(vec![1], vec![7i64].into())),
        ]
    }

    fn write(path: &Path, arrays: &[(String, Array)]) -> Result<(), NpyError> {
        write_npz(path, arrays.iter().map(|(n, a)| (n.as_str(), a)))
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        write(&path, &sample()).unwrap();
        assert_eq!(read_npz(&path).unwrap(), sample());
        assert_eq!(
            npz_shapes(&path).unwrap(),
            [("x".into(), vec![2, 2]), ("a/b:0".into(), vec![1])]
        );
    }

    #[test]
    fn compressed_archives_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let zeros = Array::new(vec![1000, 1000], vec![0u8; 1_000_000].into());
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        zip.start_file("z.npy", deflated).unwrap();
        zeros.to_npy(&mut zip).unwrap();
        zip.start_file("readme.txt", deflated).unwrap();
        zip.finish().unwrap();
        assert_eq!(read_npz(&path).unwrap(), [("z".into(), zeros)]);
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        write(&path, &sample()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = read_npz(&path).unwrap_err().to_string();
            assert!(error.contains("a.npz"), "{cut}: {error}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            // No panic; and a flip inside the first array's elements fails its checksum.
            let read = read_npz(&path);
            let elements = 1f32.to_le_bytes();
            let start = whole.windows(4).position(|w| w == elements).unwrap();
            if (start..start + 16).contains(&at) {
                assert!(read.is_err(), "flip at {at}");
            }
        }
        let missing = read_npz(&dir.path().join("none.npz")).unwrap_err().to_string();
        assert!(missing.contains("none.npz"), "{missing}");
        write(&path, &[sample().remove(0), sample().remove(0)]).unwrap_err();
    }
}
