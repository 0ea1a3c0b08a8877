//! Models whose inputs vary in shape, such as a recogniser of text lines: read and planned again
//! for each new shape, the last few of them kept.
//!
//! A [`Graph`](daq::Graph) has static shapes, which its constants depend on, so that a new shape
//! starts from the file. A plan packs the weights, so that each kept one holds them once more.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use daq::{Model, Session, Tensor};

use crate::onnx::{OnnxError, ReadOptions, input_names, read};
use crate::{passes, qdq};

/// How many plans are kept: those of the shapes that came last.
pub const KEPT: usize = 8;

/// The shape of each input, by name.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Why a model did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DynamicError {
    /// The file cannot be read, or not for these shapes.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The model cannot be planned, or does not take the inputs.
    #[error(transparent)]
    Model(#[from] daq::Error),
}

/// An `.onnx` model for inputs of any shape that it takes.
pub struct DynamicModel {
    path: PathBuf,
    names: Vec<String>,
    threads: usize,
    /// The sessions by shapes, that of the last run first.
    kept: VecDeque<(Shapes, Session)>,
    planned: usize,
}

impl DynamicModel {
    /// Opens the model at `path`, whose runs share `threads` threads.
    ///
    /// # Errors
    /// [`DynamicError::Onnx`] where it is no model. What it holds is read with the first run.
    pub fn open(path: impl AsRef<Path>, threads: usize) -> Result<Self, DynamicError> {
        let path = path.as_ref().to_path_buf();
        let names = input_names(&path)?;
        Ok(DynamicModel { path, names, threads, kept: VecDeque::new(), planned: 0 })
    }

    /// The names of the inputs, in order.
    pub fn inputs(&self) -> &[String] {
        &self.names
    }

    /// How often the model was planned.
    pub fn planned(&self) -> usize {
        self.planned
    }

    /// The session for inputs of these shapes.
    ///
    /// # Errors
    /// A shape that the model does not take, or an unknown name.
    pub fn session(&mut self, shapes: Shapes) -> Result<&mut Session, DynamicError> {
        let kept = match self.kept.iter().position(|(known, _)| *known == shapes) {
            Some(i) => self.kept.remove(i),
            None => None,
        };
        let entry = match kept {
            Some(entry) => entry,
            None => {
                let mut graph = read(&self.path, &ReadOptions { shapes: shapes.clone() })?;
                passes::optimize(&mut graph);
                let session = Model::from_graph(qdq::fold(&graph))?.session(self.threads);
                self.planned += 1;
                (shapes, session)
            }
        };
        self.kept.truncate(KEPT - 1);
        self.kept.push_front(entry);
        Ok(&mut self.kept[0].1)
    }

    /// Runs the model on named inputs, whatever their shapes, and gives its outputs in order, real
    /// numbers as `f32`.
    ///
    /// # Errors
    /// As [`session`](Self::session), and inputs of a wrong type.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<Tensor>, DynamicError> {
        let shapes = inputs.iter().map(|(name, t)| (name.to_string(), t.shape().to_vec()));
        let session = self.session(shapes.collect())?;
        Ok(session.run(inputs, Some(daq::DType::F32))?)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::small::*;

    /// Rows of any length, less their mean: the length goes through Shape and Expand.
    fn file() -> tempfile::NamedTempFile {
        let nodes = [
            node("Shape", &["x"], &["s"], &[]),
            node("ReduceMean", &["x"], &["m"], &[ints("axes", &[1])]),
            node("Expand", &["m", "s"], &["e"], &[]),
            node("Sub", &["x", "e"], &["y"], &[]),
        ];
        let model = model(13, &[("x", &[1, -1])], &[], &nodes, &["y"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), model.encode_to_vec()).unwrap();
        file
    }

    #[test]
    fn each_shape_is_planned_once_while_it_is_kept() {
        let file = file();
        let mut model = DynamicModel::open(file.path(), 1).unwrap();
        assert_eq!(model.inputs(), ["x"]);
        let mut run = |n: usize| {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let y = model.run(&[("x", &Tensor::from_slice(&[1, n], &x))]).unwrap();
            let mean = (n - 1) as f32 / 2.0;
            let want: Vec<f32> = x.iter().map(|x| x - mean).collect();
            assert_eq!((y[0].shape(), y[0].data::<f32>()), (&[1, n][..], &want[..]));
            model.planned()
        };
        assert_eq!([run(3), run(4), run(3), run(4)], [1, 2, 2, 2]);
        // Eight others take their places.
        for n in 5..13 {
            run(n);
        }
        assert_eq!([run(12), run(5), run(4)], [10, 10, 11]);
        let flat = Tensor::from_slice(&[3], &[0f32; 3]);
        assert!(model.run(&[("x", &flat)]).is_err());
        assert!(model.run(&[("z", &flat)]).is_err());
    }
}
