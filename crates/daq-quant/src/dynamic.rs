//! Models whose shapes are not known before they run. Where those of inputs vary, as with a
//! recogniser of text lines, the model is read and planned again for each new one, the last few of
//! them kept. Where elements decide a shape, as with the boxes that NonMaxSuppression leaves, the model
//! runs in parts, of which what follows such an operator is planned for what came out of it.
//!
//! A [`Graph`] has static shapes, which its constants depend on, so that a new shape
//! starts from the file. A plan packs the weights, so that each kept one holds them once more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use daq::{DType, Graph, Layout, Model, Port, Session, Tensor};

use crate::dataset::InputSpec;
use crate::onnx::parts::{Parts, output_names, split};
use crate::onnx::proto::{ModelProto, TypeProto, type_proto};
use crate::onnx::{OnnxError, ReadOptions, input_specs, model_of, read, read_part, tensor_proto};
use crate::{passes, qdq};

/// How many plans are kept: those of the shapes that came last.
pub const KEPT: usize = 8;

/// The shape of each input, by name.
type Shapes = BTreeMap<String, Vec<usize>>;

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
    source: Source,
    inputs: Vec<InputSpec>,
    threads: usize,
    /// The plans by shapes, that of the last run first.
    kept: VecDeque<(Shapes, Planned)>,
    planned: usize,
}

enum Source {
    File(PathBuf),
    /// A part of the model at that path.
    Part(PathBuf, Box<ModelProto>),
}

/// A model, planned for some shapes.
enum Planned {
    Whole(Session),
    Cut(Box<Cut>),
}

/// A model that is cut at a node whose output has a shape that elements decide.
struct Cut {
    path: PathBuf,
    first: Session,
    /// The names of the outputs of `first` in the model.
    first_outputs: Vec<String>,
    node: ModelProto,
    rest: ModelProto,
    outputs: Vec<String>,
    /// `rest`, once the types of its inputs are known.
    after: Option<DynamicModel>,
    threads: usize,
}

/// Outputs as a model gives them, real numbers as `f32`.
type Outputs = Vec<(Port, Tensor)>;

impl DynamicModel {
    /// Opens the model at `path`, whose runs share `threads` threads.
    ///
    /// # Errors
    /// [`DynamicError::Onnx`] where it is no model. What it holds is read with the first run.
    pub fn open(path: impl AsRef<Path>, threads: usize) -> Result<Self, DynamicError> {
        let path = path.as_ref().to_path_buf();
        let inputs = input_specs(&path)?;
        Ok(DynamicModel { inputs, ..Self::new(Source::File(path), threads) })
    }

    fn new(source: Source, threads: usize) -> Self {
        DynamicModel { source, inputs: Vec::new(), threads, kept: VecDeque::new(), planned: 0 }
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    /// How often the model was planned.
    pub fn planned(&self) -> usize {
        self.planned
    }

    /// The plan for inputs of these shapes.
    fn plan(&mut self, shapes: Shapes) -> Result<&mut Planned, DynamicError> {
        let kept = match self.kept.iter().position(|(known, _)| *known == shapes) {
            Some(i) => self.kept.remove(i),
            None => None,
        };
        let entry = match kept {
            Some(entry) => entry,
            None => {
                let planned = Planned::new(&self.source, &shapes, self.threads)?;
                self.planned += 1;
                (shapes, planned)
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
    /// A shape that the model does not take, an unknown name, or inputs of a wrong type.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, DynamicError> {
        let shapes = inputs.iter().map(|(name, t)| (name.to_string(), t.shape().to_vec()));
        match self.plan(shapes.collect())? {
            Planned::Whole(session) => outputs_of(session, inputs),
            Planned::Cut(cut) => cut.run(inputs),
        }
    }
}

fn outputs_of(session: &mut Session, inputs: &[(&str, &Tensor)]) -> Result<Outputs, DynamicError> {
    let outputs = session.run(inputs, Some(DType::F32))?;
    Ok(session.outputs().into_iter().cloned().zip(outputs).collect())
}

impl Source {
    fn path(&self) -> &Path {
        match self {
            Source::File(path) | Source::Part(path, _) => path,
        }
    }

    fn proto(&self) -> Result<ModelProto, OnnxError> {
        match self {
            Source::File(path) => model_of(path),
            Source::Part(_, proto) => Ok(*proto.clone()),
        }
    }

    fn graph(&self, options: &ReadOptions) -> Result<Graph, OnnxError> {
        match self {
            Source::File(path) => read(path, options),
            Source::Part(path, proto) => read_part(*proto.clone(), path, options),
        }
    }
}

impl Planned {
    fn new(source: &Source, shapes: &Shapes, threads: usize) -> Result<Self, DynamicError> {
        let path = source.path();
        let options = ReadOptions { shapes: shapes.clone() };
        let session = |mut graph| -> Result<Session, DynamicError> {
            passes::optimize(&mut graph);
            Ok(Model::from_graph(qdq::fold(&graph))?.session(threads))
        };
        let at = match source.graph(&options) {
            Ok(graph) => return Ok(Planned::Whole(session(graph)?)),
            Err(OnnxError::Elements { output, .. }) => output,
            Err(other) => return Err(other.into()),
        };
        let bad = |why| OnnxError::Model { file: path.display().to_string(), why };
        let Parts { first, node, mut rest, outputs } = split(source.proto()?, &at).map_err(bad)?;
        let first_outputs = output_names(&first.graph.clone().unwrap_or_default());
        let graph = read_part(first, path, &options)?;
        // What the shapes decide is constant in the rest too.
        let constants = graph.outputs.iter().zip(&first_outputs).filter_map(|(&id, name)| {
            graph.values[id].data.as_ref().map(|data| tensor_proto(name, data))
        });
        let rest_graph = rest.graph.get_or_insert_default();
        let crossing = |name: &str| rest_graph.input.iter().any(|i| i.name() == name);
        let constants: Vec<_> = constants.filter(|t| crossing(t.name())).collect();
        rest_graph.input.retain(|i| !constants.iter().any(|t| t.name() == i.name()));
        rest_graph.initializer.extend(constants);
        let (path, first, after) = (path.to_path_buf(), session(graph)?, None);
        Ok(Planned::Cut(Box::new(Cut {
            path,
            first,
            first_outputs,
            node,
            rest,
            outputs,
            after,
            threads,
        })))
    }
}

impl Cut {
    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs, DynamicError> {
        let outputs = outputs_of(&mut self.first, inputs)?;
        let mut known: HashMap<String, (Port, Tensor)> =
            self.first_outputs.iter().cloned().zip(outputs).collect();
        for (name, tensor) in self.node(&known)? {
            let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
            let port =
                Port { name: name.clone(), dtype, shape, layout: Layout::Plain, quant: None };
            known.insert(name, (port, tensor));
        }
        if let Some(rest) = self.rest.graph.as_ref().filter(|rest| !rest.output.is_empty()) {
            let names: Vec<String> = rest.input.iter().map(|i| i.name().to_string()).collect();
            let tensors = names.iter().map(|name| match known.get(name) {
                Some((_, tensor)) => Ok((name.as_str(), tensor)),
                None => Err(missing(&self.path, name)),
            });
            let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
            let after = self.after.get_or_insert_with(|| {
                let mut part = self.rest.clone();
                let inputs = &mut part.graph.get_or_insert_default().input;
                for (input, (_, tensor)) in inputs.iter_mut().zip(&tensors) {
                    let elem_type = tensor_proto("", tensor).data_type;
                    let tensor = type_proto::Tensor { elem_type, shape: None };
                    let value = Some(type_proto::Value::TensorType(tensor));
                    input.r#type = Some(TypeProto { value, ..Default::default() });
                }
                let source = Source::Part(self.path.clone(), Box::new(part));
                DynamicModel::new(source, self.threads)
            });
            let outputs = after.run(&tensors)?;
            let names = output_names(rest);
            known.extend(names.into_iter().zip(outputs));
        }
        let output =
            |name: &String| known.get(name).cloned().ok_or_else(|| missing(&self.path, name));
        Ok(self.outputs.iter().map(output).collect::<Result<_, _>>()?)
    }

    /// The outputs of the node that is between the parts.
    fn node(
        &self,
        known: &HashMap<String, (Port, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>, OnnxError> {
        let mut node = self.node.clone();
        let graph = node.graph.get_or_insert_default();
        let reads = graph.node.iter().flat_map(|n| &n.input).filter(|name| !name.is_empty());
        let constants = reads.map(|name| match known.get(name) {
            Some((_, tensor)) => Ok(tensor_proto(name, tensor)),
            None => Err(missing(&self.path, name)),
        });
        let mut constants: Vec<_> = constants.collect::<Result<_, _>>()?;
        constants.sort_by(|a, b| a.name().cmp(b.name()));
        constants.dedup_by(|a, b| a.name() == b.name());
        graph.initializer = constants;
        let names = output_names(graph);
        let graph = read_part(node, &self.path, &ReadOptions::default())?;
        let outputs = names.into_iter().zip(&graph.outputs);
        outputs
            .map(|(name, &id)| match &graph.values[id].data {
                Some(tensor) => Ok((name, tensor.clone())),
                None => Err(missing(&self.path, &name)),
            })
            .collect()
    }
}

fn missing(path: &Path, name: &str) -> OnnxError {
    OnnxError::Model { file: path.display().to_string(), why: format!("nothing computes `{name}`") }
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
        let x = InputSpec { name: "x".into(), shape: vec![Some(1), None] };
        assert_eq!(model.inputs(), [x]);
        let mut run = |n: usize| {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let y = model.run(&[("x", &Tensor::from_slice(&[1, n], &x))]).unwrap();
            let mean = (n - 1) as f32 / 2.0;
            let want: Vec<f32> = x.iter().map(|x| x - mean).collect();
            assert_eq!((y[0].1.shape(), y[0].1.data::<f32>()), (&[1, n][..], &want[..]));
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

    /// Boxes of a scaled picture, and those of them that NonMaxSuppression leaves, with as many
    /// numbers as the picture is wide; counts of what is positive.
    fn boxes() -> tempfile::NamedTempFile {
        let nodes = [
            node("Mul", &["boxes", "two"], &["scaled"], &[]),
            node("Identity", &["x"], &["scores"], &[]),
            node(
                "NonMaxSuppression",
                &["scaled", "scores", "most", "overlap", "least"],
                &["kept"],
                &[],
            ),
            node("Gather", &["kept", "last"], &["at"], &[int("axis", 1)]),
            node("Squeeze", &["scaled", "first"], &["flat"], &[]),
            node("Gather", &["flat", "at"], &["chosen"], &[]),
            node("Shape", &["boxes"], &["shape"], &[]),
            node("Cast", &["shape"], &["size"], &[int("to", 1)]),
            node("ReduceMax", &["size"], &["longest"], &[]),
            node("Add", &["chosen", "longest"], &["y"], &[]),
            node("Relu", &["y"], &["positive"], &[]),
            node("NonZero", &["positive"], &["places"], &[]),
            node("Shape", &["places"], &["count"], &[]),
        ];
        let constants = [
            floats("two", &[], &[2.0]),
            longs("most", &[1], &[10]),
            floats("overlap", &[1], &[0.5]),
            floats("least", &[1], &[0.1]),
            longs("last", &[], &[2]),
            longs("first", &[1], &[0]),
        ];
        let outputs = ["kept", "y", "scaled", "count", "places"];
        let inputs = [("boxes", &[1i64, -1, 4][..]), ("x", &[1, 1, -1])];
        let model = model(13, &inputs, &constants, &nodes, &outputs);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), model.encode_to_vec()).unwrap();
        file
    }

    #[test]
    fn what_elements_decide_runs_in_parts() {
        let file = boxes();
        let mut model = DynamicModel::open(file.path(), 1).unwrap();
        // The second box lies on the first, the third apart.
        let boxes = [0f32, 0., 1., 1., 0., 0., 1., 0.9, -3., -3., -2., -2.];
        let boxes = Tensor::from_slice(&[1, 3, 4], &boxes);
        for (scores, kept, planned) in [
            ([0.3f32, 0.9, 0.5], &[1i64, 2][..], 1),
            ([0.9, 0.3, 0.05], &[0], 1),
            ([0.0; 3], &[], 1),
            ([0.3, 0.9, 0.5], &[1, 2], 1),
        ] {
            let x = Tensor::from_slice(&[1, 1, 3], &scores);
            let y = model.run(&[("boxes", &boxes), ("x", &x)]).unwrap();
            let names: Vec<_> = y.iter().map(|(port, _)| port.name.as_str()).collect();
            assert_eq!(names, ["kept", "y", "scaled", "count", "places"]);
            let rows: Vec<i64> = kept.iter().flat_map(|&i| [0, 0, i]).collect();
            assert_eq!((y[0].1.shape(), y[0].1.data::<i64>()), (&[kept.len(), 3][..], &rows[..]));
            // Twice the box and the longest side of [1, 3, 4].
            let all = boxes.data::<f32>();
            let rows = kept.iter().flat_map(|&i| &all[i as usize * 4..][..4]);
            let want: Vec<f32> = rows.map(|x| 2.0 * x + 4.0).collect();
            assert_eq!((y[1].1.shape(), y[1].1.data::<f32>()), (&[kept.len(), 4][..], &want[..]));
            assert_eq!(y[2].1.shape(), [1, 3, 4]);
            let positive = want.iter().filter(|x| **x > 0.0).count();
            assert_eq!(y[3].1.data::<i64>(), [2, positive as i64]);
            assert_eq!(y[4].1.shape(), [2, positive]);
            assert_eq!(model.planned(), planned);
        }
    }
}
