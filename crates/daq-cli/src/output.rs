//! Where results go and how they look: refusing to overwrite strangers, tables, numbers.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// Whether a write failed because the reader has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    io.or(json) == Some(ErrorKind::BrokenPipe)
}

/// Checks that a result may go to `path`: its folder exists and can be written, it is none of the
/// `inputs`, and what is there already is a file of the same kind by this tool (`ours`), or the
/// user said `force`. Called before the work, so that nobody waits for an error.
///
/// # Errors
/// What is in the way, and what to do.
pub fn check(
    path: &Path,
    inputs: &[&Path],
    kind: &str,
    ours: impl Fn(&Path) -> bool,
    force: bool,
) -> Result<()> {
    let shown = path.display();
    let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    if let Some(input) = inputs.iter().find(|i| same(i, path)) {
        bail!("cannot write {shown}: it is the input {}; give another name", input.display());
    }
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            bail!("cannot write {shown}: it is a folder; give a file name")
        }
        Ok(found) if found.is_file() && !force && !ours(path) => {
            bail!("will not overwrite {shown}: it is not {kind}; give another name, or --force")
        }
        _ => {}
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        let folder = folder.display();
        bail!("cannot write {shown}: the folder {folder} does not exist; create it first");
    }
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return Ok(()); // A device or pipe: nothing is made in its folder.
    }
    if !daq_quant::files::is_writable(&folder) {
        bail!("cannot write {shown}: the folder {} is read-only", folder.display());
    }
    Ok(())
}

/// The folder that a file lies in.
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A path as part of a command that the user may copy.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A table without lines, so that it can be read by people and cut by programs. Columns whose
/// heading begins with `>` are aligned to the right.
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|h| h.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (column, heading) in table.column_iter_mut().zip(headings) {
        column.set_padding((0, 2));
        if heading.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_string()).collect();
    lines.join("\n")
}

/// A count of bytes: `3.6 MB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1000 => format!("{n} bytes"),
        1000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.2} MB", n as f64 / 1e6),
    }
}

/// A count of operations: `300.8 M`; nothing for none.
pub fn macs(n: u64) -> String {
    match n {
        0 => String::new(),
        1..1000 => n.to_string(),
        1000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        _ => format!("{:.1} M", n as f64 / 1e6),
    }
}

/// A share as a percentage: `99.9 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A shape: `1x3x224x224`.
pub fn shape(shape: &[usize]) -> String {
    match shape {
        [] => "scalar".into(),
        _ => shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
    }
}

/// `1 picture`, `2 pictures`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (n, text) in [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB")] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(bytes(13_992_262), "13.99 MB");
        assert_eq!([macs(0), macs(16), macs(1500)], ["", "16", "1.5 k"]);
        assert_eq!(shape(&[1, 3]), "1x3");
        assert_eq!(quoted(Path::new("a b/it's.onnx")), r"'a b/it'\''s.onnx'");
        assert_eq!(quoted(Path::new("../a/b-1.onnx")), "../a/b-1.onnx");
    }

    #[test]
    fn tables_align() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["bcd".into(), "20".into()]];
        assert_eq!(table(&["name", ">n"], rows), "name   n\na      1\nbcd   20");
    }

    #[test]
    fn strangers_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "theirs").unwrap();
        let ours = |p: &Path| std::fs::read(p).unwrap() == b"ours";
        let error = |p: &Path, inputs: &[&Path], force| {
            check(p, inputs, "a table", ours, force).map_err(|e| e.to_string()).err()
        };
        assert!(error(&path, &[], false).unwrap().contains("--force"));
        assert_eq!(error(&path, &[], true), None);
        assert!(error(&path, &[&path], true).unwrap().contains("is the input"));
        std::fs::write(&path, "ours").unwrap();
        assert_eq!(error(&path, &[], false), None);
        assert!(error(dir.path(), &[], true).unwrap().contains("is a folder"));
        assert!(error(&path.join("b"), &[], true).unwrap().contains("does not exist"));
        assert_eq!(error(&dir.path().join("new"), &[], false), None);
    }
}
