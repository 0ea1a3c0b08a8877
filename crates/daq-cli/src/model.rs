//! Opening a model, whatever its file holds.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use daq::Graph;
use daq_quant::labels::ClassNames;
use daq_quant::onnx::{self, ReadOptions};
use daq_quant::preprocess::Preprocess;
use daq_quant::{passes, qdq, samples};

use crate::options::{ShapeArgs, usage};

/// The metadata key that says which version of this tool made a file.
pub const VERSION: &str = "daq.version";

/// The metadata key of the class names, one a line.
pub const LABELS: &str = "daq.labels";

/// The metadata key of the flags that decided how a model was quantized: a JSON list.
pub const OPTIONS: &str = "daq.options";

/// Opens a `.daq` file or an `.onnx` model, told apart by content. A model that was quantized by
/// whatever tool comes as one on codes.
///
/// # Errors
/// What is wrong with the file, and `--shape` for a `.daq` file, whose shapes are settled.
pub fn open(path: &Path, shapes: &ShapeArgs) -> Result<Graph> {
    if is_daq(path)? {
        if !shapes.shapes.is_empty() {
            let shown = path.display();
            return Err(usage(format!("{shown}: a .daq file's shapes are settled; leave --shape")));
        }
        return Ok(daq::format::read(path)?);
    }
    Ok(qdq::fold(&open_onnx(path, shapes)?))
}

/// Opens an `.onnx` model as it is, simplified.
pub fn open_onnx(path: &Path, shapes: &ShapeArgs) -> Result<Graph> {
    let shapes = shapes.shapes.iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    let mut graph = onnx::read(path, &ReadOptions { shapes })?;
    passes::optimize(&mut graph);
    Ok(graph)
}

/// Whether a file is a `.daq` file: by content, and by name where it is too damaged to tell.
pub fn is_daq(path: &Path) -> Result<bool> {
    let error = |e: std::io::Error| anyhow!("cannot open the model {}: {e}", path.display());
    if path.is_dir() {
        bail!("cannot open the model {}: it is a folder", path.display());
    }
    File::open(path).map_err(error)?;
    Ok(is_daq_content(path) || path.extension().is_some_and(|e| e == "daq"))
}

/// Whether a file's content is that of a `.daq` file.
pub fn is_daq_content(path: &Path) -> bool {
    let mut start = [0; 8];
    File::open(path).and_then(|mut f| f.read_exact(&mut start)).is_ok()
        && daq::format::is_daq(&start)
}

/// The preprocessing that a model carries.
pub fn preprocess(graph: &Graph, path: &Path) -> Result<Option<Preprocess>> {
    samples::preprocess_of(graph).map_err(|e| anyhow!("{}: {e}", path.display()))
}

/// Class names: those of the file where one is given, else those in the model.
pub fn class_names(graph: &Graph, file: Option<&Path>) -> Result<Vec<String>> {
    Ok(match (file, graph.metadata.get(LABELS)) {
        (Some(file), _) => ClassNames::read(file)?.names().to_vec(),
        (None, Some(names)) => names.lines().map(str::to_owned).collect(),
        (None, None) => Vec::new(),
    })
}

/// The size of a file in bytes; 0 where it cannot be told.
pub fn file_size(path: &Path) -> u64 {
    path.metadata().map_or(0, |m| m.len())
}
