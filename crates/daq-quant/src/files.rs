//! Writing result files whole or not at all.
//!
//! Everything the toolkit writes goes through [`write_atomically`]: the bytes go to a temporary file in the
//! same folder, which takes the target's name only when it is complete. A full disk, a failing writer or
//! an interrupt therefore never leaves half a model behind or damages the file that was there before.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Why a file could not be written; every message names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder to write into does not exist.
    #[error("cannot write {}: the folder {} does not exist; create it first", .path.display(), .folder.display())]
    MissingFolder {
        /// The file that was to be written.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// The path names a folder.
    #[error("cannot write {}: it is a folder; give a file name", .0.display())]
    IsFolder(PathBuf),
    /// The folder or file may not be written.
    #[error("cannot write {}: no permission to write there", .0.display())]
    Permission(PathBuf),
    /// The disk is full.
    #[error("cannot write {}: no space left on the disk", .0.display())]
    NoSpace(PathBuf),
    /// The user may not make a file of that size.
    #[error("cannot write {}: it would be larger than the limit of this session (`ulimit -f`)", .0.display())]
    SizeLimit(PathBuf),
    /// Any other failure.
    #[error("cannot write {}: {source}", .path.display())]
    Io {
        /// The file that was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl WriteError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission(path)
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(path),
            io::ErrorKind::FileTooLarge => Self::SizeLimit(path),
            io::ErrorKind::IsADirectory => Self::IsFolder(path),
            _ => Self::Io { path, source },
        }
    }
}

/// Writes `path` by calling `write` on a buffered temporary file beside it, then renames it into place.
///
/// On any failure, `write`'s own included, the temporary file is removed and an existing `path` is as it
/// was. A symbolic link is followed, so that its target is replaced. A path that exists and is no regular
/// file (a device such as `/dev/null`, a pipe) cannot be renamed over and is written directly.
///
/// # Errors
/// [`WriteError`] with the path and the cause.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<(), WriteError> {
    let fail = |source| WriteError::new(path, source);
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match resolved.metadata() {
        Ok(found) if found.is_dir() => return Err(WriteError::IsFolder(path.to_owned())),
        Ok(found) if !found.is_file() => {
            let mut file = File::options().write(true).open(&resolved).map_err(fail)?;
            return fill(&mut file, write).map_err(fail);
        }
        _ => {}
    }
    let folder = match resolved.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if resolved.file_name().is_none() {
        return Err(WriteError::IsFolder(path.to_owned()));
    }
    if !folder.is_dir() {
        return Err(WriteError::MissingFolder { path: path.to_owned(), folder: folder.to_owned() });
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".daq-");
    // Temporary files are private by default; a result should get what the user's umask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut beside = builder.tempfile_in(folder).map_err(fail)?;
    fill(beside.as_file_mut(), write).map_err(fail)?;
    beside.persist(&resolved).map_err(|e| fail(e.error))?;
    Ok(())
}

/// Whether files can be made in `folder`: it has a write permission at all (which would not stop an
/// administrator), and making one works.
pub fn is_writable(folder: &Path) -> bool {
    let marked = |m: std::fs::Metadata| m.is_dir() && !m.permissions().readonly();
    folder.metadata().is_ok_and(marked)
        && tempfile::Builder::new().prefix(".daq-").tempfile_in(folder).is_ok()
}

fn fill(
    file: &mut File,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn writes_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        for text in [&b"first"[..], b"second, longer", b""] {
            write_atomically(&path, |w| w.write_all(text)).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), text);
            assert_eq!(names(dir.path()), ["a.bin"]);
        }
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        std::fs::write(&path, "old").unwrap();
        let error = write_atomically(&path, |w| {
            w.write_all(&[7; 100_000])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(matches!(error, WriteError::NoSpace(_)), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn only_folders_without_a_read_only_mark_are_writable() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_writable(dir.path()));
        assert!(names(dir.path()).is_empty());
        assert!(!is_writable(&dir.path().join("missing")));
        let folder = dir.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let mut permissions = folder.metadata().unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&folder, permissions).unwrap();
        assert!(!is_writable(&folder));
    }

    #[test]
    fn errors_name_the_path_and_the_cause() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no/such/a.bin");
        let text = write_atomically(&missing, |_| Ok(())).unwrap_err().to_string();
        assert!(text.contains("a.bin") && text.contains("does not exist"), "{text}");
        let text = write_atomically(dir.path(), |_| Ok(())).unwrap_err().to_string();
        assert!(text.contains("is a folder"), "{text}");
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let text =
            write_atomically(&dir.path().join("file/a.bin"), |_| Ok(())).unwrap_err().to_string();
        assert!(text.contains("file/a.bin"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_survive() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        write_atomically(Path::new("/dev/null"), |w| w.write_all(b"x")).unwrap();
        assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());

        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomically(&link, |w| w.write_all(b"new")).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"new");

        // As readable as any file that the user makes.
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&real), mode(&plain));
    }
}
