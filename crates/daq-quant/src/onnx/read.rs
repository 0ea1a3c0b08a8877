//! From a model file to a graph: node after node, computing at once what is constant.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use daq::attrs::{Attrs, OPSET};
use daq::tensor::checked_bytes;
use daq::{Graph, Node, Op, OpError, QuantParams, Tensor, Value, ValueId};
use prost::Message;

use super::attribute::{attributes, constant};
use super::call::Call;
use super::inputs::{input_type, open_shape};
use super::order::{node_name, sorted};
use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use super::tensor::tensor;
use super::{OnnxError, branch, elements, legacy, qdq, qoperator};
use crate::dataset::InputSpec;

/// The oldest operator set that is read.
pub const MIN_OPSET: i64 = 7;

/// Operators that [`MIN_OPSET`] has as operator set 1 had them: models of them alone may be older.
const UNCHANGED: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LRN",
    "LogSoftmax",
    "MaxPool",
    "Not",
    "Softmax",
    "Softplus",
    "Softsign",
    "Transpose",
];

/// The newest operator set that is read.
pub const MAX_OPSET: i64 = 28;

/// What the user may decide about a model that is read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Shapes of inputs, by name; they take the place of what the model says.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

/// Reads the model at `path`, with external data beside it.
///
/// The graph has static shapes: batches that the model leaves open are 1. Constants are folded.
///
/// # Errors
/// [`OnnxError`] for files that are no model or use what daq does not have.
pub fn read(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Graph, OnnxError> {
    let path = path.as_ref();
    let file = path.display().to_string();
    let model_error = |why: String| OnnxError::Model { file: file.clone(), why };
    let meta = std::fs::metadata(path).map_err(|e| model_error(e.to_string()))?;
    if !meta.is_file() {
        return Err(model_error("is not a file; give an .onnx file".into()));
    }
    let bytes = std::fs::read(path).map_err(|e| model_error(e.to_string()))?;
    import(&bytes, &file, folder(path).as_deref(), options)
}

/// The folder of a file, in which a model's external data are.
fn folder(path: &Path) -> Option<PathBuf> {
    let real = path.canonicalize().ok().and_then(|p| p.parent().map(Path::to_owned));
    real.or_else(|| path.parent().map(Path::to_owned))
}

/// Reads a part of the model at `path`. Its inputs may be empty: so many boxes were found.
pub(crate) fn read_part(
    part: ModelProto,
    path: &Path,
    options: &ReadOptions,
) -> Result<Graph, OnnxError> {
    let file = path.display().to_string();
    import_model(part, &file, folder(path).as_deref(), options, true)
}

/// The inputs of the model at `path`, in order; those with a default left out. One whose rank is open has
/// no dimensions.
///
/// # Errors
/// [`OnnxError::Model`] for a file that is no model.
pub fn input_specs(path: impl AsRef<Path>) -> Result<Vec<InputSpec>, OnnxError> {
    let graph = model_of(path.as_ref())?.graph.unwrap_or_default();
    let given: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let inputs = graph.input.iter().filter(|i| !given.contains(i.name()));
    Ok(inputs.map(|i| InputSpec { name: i.name().to_owned(), shape: open_shape(i) }).collect())
}

/// The metadata of the model at `path`.
///
/// # Errors
/// [`OnnxError::Model`] for a file that is no model.
pub fn metadata(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>, OnnxError> {
    let entries = model_of(path.as_ref())?.metadata_props.into_iter();
    Ok(entries.map(|e| (e.key.unwrap_or_default(), e.value.unwrap_or_default())).collect())
}

/// The model at `path`, as it is written there; it has a graph.
pub(crate) fn model_of(path: &Path) -> Result<ModelProto, OnnxError> {
    let bad = |why: String| OnnxError::Model { file: path.display().to_string(), why };
    let bytes = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    let model = ModelProto::decode(&bytes[..]).ok().filter(|model| model.graph.is_some());
    model.ok_or_else(|| bad("is not an ONNX model; give an .onnx file".into()))
}

/// Reads a model from memory; external data are not available then. Errors call it `model`.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: &[u8], options: &ReadOptions) -> Result<Graph, OnnxError> {
    import(bytes, "model", None, options)
}

fn import(
    bytes: &[u8],
    file: &str,
    folder: Option<&Path>,
    options: &ReadOptions,
) -> Result<Graph, OnnxError> {
    let bad = |why: String| OnnxError::Model { file: file.to_string(), why };
    if let Some(kind) = other_kind(bytes) {
        return Err(bad(format!("is {kind}, not an ONNX model; give an .onnx file")));
    }
    let model = ModelProto::decode(bytes)
        .map_err(|e| bad(format!("is not a complete ONNX model ({e}); export or copy it again")))?;
    import_model(model, file, folder, options, false)
}

/// With `empty`, inputs may have no elements.
fn import_model(
    model: ModelProto,
    file: &str,
    folder: Option<&Path>,
    options: &ReadOptions,
    empty: bool,
) -> Result<Graph, OnnxError> {
    let bad = |why: String| OnnxError::Model { file: file.to_string(), why };
    let unsupported = |what: &str, remedy: &str| OnnxError::Unsupported {
        file: file.to_string(),
        what: what.to_string(),
        remedy: remedy.to_string(),
    };
    let proto = model
        .graph
        .ok_or_else(|| bad("is not an ONNX model: it has no graph; give an .onnx file".into()))?;
    if !model.functions.is_empty() {
        return Err(unsupported(
            "functions of the model itself (`functions`) are",
            "inline them before (onnx.inliner.inline_local_functions)",
        ));
    }
    if !model.training_info.is_empty() {
        return Err(unsupported("training information is", "export the model for inference"));
    }
    if !proto.sparse_initializer.is_empty() {
        return Err(unsupported("sparse initializers are", "store the weights dense"));
    }
    let standard = |d: &Option<String>| matches!(d.as_deref(), None | Some("") | Some("ai.onnx"));
    let versions = model.opset_import.iter().filter(|o| standard(&o.domain));
    // A model of another domain alone: its operators say what is missing.
    let other = (!model.opset_import.is_empty()).then_some(OPSET);
    let opset = versions.filter_map(|o| o.version).max().or(other).ok_or_else(|| {
        bad("names no operator set (`opset_import`); export the model again".into())
    })?;
    let unchanged = |n: &NodeProto| UNCHANGED.contains(&n.op_type.as_deref().unwrap_or_default());
    let opset = match opset {
        1..MIN_OPSET if proto.node.iter().all(unchanged) => MIN_OPSET,
        opset => opset,
    };
    if !(MIN_OPSET..=MAX_OPSET).contains(&opset) {
        return Err(unsupported(
            &format!("operator set {opset} is"),
            &format!(
                "convert the model to one of {MIN_OPSET} to {MAX_OPSET} \
                 (onnx.version_converter.convert_version), 17 for example"
            ),
        ));
    }
    let doc = proto.doc_string.clone().filter(|d| !d.is_empty()).or(model.doc_string);
    let metadata = model.metadata_props.into_iter();
    let graph = Graph {
        name: proto.name.clone().unwrap_or_default(),
        doc: doc.unwrap_or_default(),
        metadata: metadata
            .map(|e| (e.key.unwrap_or_default(), e.value.unwrap_or_default()))
            .collect(),
        ..Graph::default()
    };
    let importer = Importer {
        file,
        folder,
        opset,
        graph,
        ids: HashMap::new(),
        initializers: HashMap::new(),
        reserved: HashSet::new(),
        folded: 0,
        empty,
    };
    importer.run(proto, options)
}

/// What the bytes are, where their beginning shows that they are something else than a model.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    let starts: &[(&[u8], &str)] = &[
        (b"\x89PNG", "a PNG picture"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"GIF8", "a GIF picture"),
        (b"PK\x03\x04", "a zip archive (perhaps a PyTorch model)"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"version https://git-lfs", "a Git LFS pointer without its content"),
        (b"\x93NUMPY", "a numpy array"),
        (b"\x89HDF", "an HDF5 file"),
    ];
    if bytes.is_empty() {
        return Some("an empty file");
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return Some("a TFLite model");
    }
    starts.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| *kind)
}

pub(super) struct Importer<'a> {
    pub(super) file: &'a str,
    folder: Option<&'a Path>,
    opset: i64,
    pub(super) graph: Graph,
    pub(super) ids: HashMap<String, ValueId>,
    /// Initializers that no node has read yet.
    initializers: HashMap<String, TensorProto>,
    /// Every name in the file, so that new ones differ.
    reserved: HashSet<String>,
    /// Elements computed while reading.
    pub(super) folded: usize,
    /// Whether inputs may have no elements.
    empty: bool,
}

impl Importer<'_> {
    fn bad(&self, why: String) -> OnnxError {
        OnnxError::Model { file: self.file.to_string(), why }
    }

    fn node_error(&self, call: &Call, source: OpError) -> OnnxError {
        OnnxError::Node {
            file: self.file.to_string(),
            node: call.label.clone(),
            op: call.op.clone(),
            opset: self.opset,
            source: source.into(),
        }
    }

    fn run(mut self, proto: GraphProto, options: &ReadOptions) -> Result<Graph, OnnxError> {
        for tensor in proto.initializer {
            let name = tensor.name.clone().unwrap_or_default();
            if self.initializers.insert(name.clone(), tensor).is_some() {
                return Err(self.bad(format!("two initializers are named `{name}`")));
            }
        }
        self.inputs(&proto.input, options)?;
        let output_names: Vec<String> =
            proto.output.into_iter().map(|o| o.name.unwrap_or_default()).collect();
        if output_names.is_empty() {
            return Err(self.bad("the graph has no output".into()));
        }
        let mut distinct = HashSet::new();
        if let Some(name) = output_names.iter().find(|&name| !distinct.insert(name)) {
            return Err(self.bad(format!("two outputs are named `{name}`")));
        }
        let given = self.given();
        let nodes = sorted(proto.node, &given, &output_names).map_err(|why| self.bad(why))?;
        let made = nodes.iter().flat_map(branch::made);
        self.reserved = given.into_iter().chain(made).collect();
        let mut read: HashSet<String> = nodes.iter().flat_map(branch::read).collect();
        read.extend(output_names.iter().cloned());
        for node in nodes {
            self.node(node, &read)?;
        }
        for name in &output_names {
            let id = self.value(name, "the graph's outputs")?;
            self.graph.outputs.push(id);
        }
        self.graph.remove_unused();
        let invalid =
            |source| OnnxError::Graph { file: self.file.to_string(), source: Box::new(source) };
        self.graph.validate().map_err(invalid)?;
        Ok(self.graph)
    }

    /// Adds the inputs that are not initializers.
    fn inputs(
        &mut self,
        protos: &[ValueInfoProto],
        options: &ReadOptions,
    ) -> Result<(), OnnxError> {
        for proto in protos {
            let name = proto.name.clone().unwrap_or_default();
            if self.initializers.contains_key(&name) {
                continue;
            }
            let error = |why: String| OnnxError::Input {
                file: self.file.to_string(),
                input: name.clone(),
                why,
            };
            let (dtype, shape) =
                input_type(&name, proto, options.shapes.get(&name), self.empty).map_err(error)?;
            checked_bytes("the input", dtype, &shape).map_err(|e| error(e.to_string()))?;
            let id = self.graph.add_value(Value::new(name.clone(), dtype, &shape));
            self.graph.inputs.push(id);
            if self.ids.insert(name.clone(), id).is_some() {
                return Err(self.bad(format!("two inputs are named `{name}`")));
            }
        }
        if let Some(name) = options.shapes.keys().find(|n| !self.ids.contains_key(*n)) {
            let mut names: Vec<_> = self.ids.keys().map(String::as_str).collect();
            names.sort_unstable();
            return Err(OnnxError::Input {
                file: self.file.to_string(),
                input: name.clone(),
                why: format!("the model has no such input; it has {}", names.join(", ")),
            });
        }
        Ok(())
    }

    /// The value of that name; an initializer becomes one when first read, by `node`.
    fn value(&mut self, name: &str, node: &str) -> Result<ValueId, OnnxError> {
        if let Some(&id) = self.ids.get(name) {
            return Ok(id);
        }
        let Some(proto) = self.initializers.remove(name) else {
            return Err(self.bad(format!("node `{node}` reads `{name}`, which nothing computes")));
        };
        let data = tensor(&proto, self.folder).map_err(|why| OnnxError::Tensor {
            file: self.file.to_string(),
            tensor: name.to_string(),
            node: node.to_string(),
            why,
        })?;
        Ok(self.add(Value::constant(name, data)))
    }

    pub(super) fn add(&mut self, value: Value) -> ValueId {
        let name = value.name.clone();
        let id = self.graph.add_value(value);
        self.ids.insert(name, id);
        id
    }

    /// A name that nothing has.
    pub(super) fn unique(&mut self, wish: &str) -> String {
        let mut name = wish.to_string();
        let mut i = 1;
        while self.reserved.contains(&name) {
            i += 1;
            name = format!("{wish}_{i}");
        }
        self.reserved.insert(name.clone());
        name
    }

    fn node(&mut self, proto: NodeProto, read: &HashSet<String>) -> Result<(), OnnxError> {
        let label = node_name(&proto).to_string();
        let op = proto.op_type.clone().unwrap_or_default();
        let mut call = Call {
            label,
            name: proto.name.clone().unwrap_or_default(),
            doc: proto.doc_string.clone().unwrap_or_default(),
            op,
            attrs: Attrs::of_opset(self.opset),
            inputs: Vec::new(),
            outputs: proto.output.clone(),
            around: None,
        };
        let domain = proto.domain.as_deref().unwrap_or("");
        if let (true, [condition]) = (domain.is_empty() && call.op == "If", &proto.input[..]) {
            let condition = self.value(condition, &call.label)?;
            if let Some(condition) = self.graph.values[condition].data.as_ref() {
                let taken = condition.bytes().first().is_some_and(|&truth| truth != 0);
                return self.branch(&proto, taken, read);
            }
        }
        if !matches!(domain, "" | "ai.onnx") {
            call.op = format!("{domain}.{}", call.op);
            if qoperator::row_named(&call.op).is_none() {
                return Err(self.unknown(&call));
            }
        }
        call.attrs = attributes(&proto, self.opset, self.folder)
            .map_err(|source| self.node_error(&call, source))?;
        if call.op == "Constant" {
            let alone = match proto.input.len() {
                0 => Ok(()),
                count => Err(OpError::TooManyInputs { index: count - 1, most: 0 }),
            };
            let data = alone.and_then(|()| constant(&call.attrs));
            let data = data.map_err(|source| self.node_error(&call, source))?;
            return self.constants(&call, vec![data]);
        }
        for name in &proto.input {
            let id = if name.is_empty() { None } else { Some(self.value(name, &call.label)?) };
            call.inputs.push(id);
        }
        // The file's name of it, whatever it is read as.
        let op = call.op.clone();
        match self.call(&mut call, read) {
            Ok(done) => done,
            Err(source) => {
                call.op = op;
                Err(self.node_error(&call, source))
            }
        }
    }

    /// The names of values that are there before any further node.
    fn given(&self) -> HashSet<String> {
        self.ids.keys().chain(self.initializers.keys()).cloned().collect()
    }

    /// Adds the nodes of the branch that an If with a constant condition takes.
    fn branch(
        &mut self,
        node: &NodeProto,
        taken: bool,
        read: &HashSet<String>,
    ) -> Result<(), OnnxError> {
        let bad = |why| self.bad(format!("node `{}` (If): {why}", node_name(node)));
        let graph = branch::of(node, taken).map_err(bad)?;
        for tensor in graph.initializer {
            let name = tensor.name.clone().unwrap_or_default();
            if self.ids.contains_key(&name) || self.initializers.contains_key(&name) {
                return Err(self.bad(format!("two values are named `{name}`")));
            }
            self.initializers.insert(name, tensor);
        }
        let nodes = sorted(graph.node, &self.given(), &node.output).map_err(|why| self.bad(why))?;
        nodes.into_iter().try_for_each(|node| self.node(node, read))
    }

    /// The outer result is of the operator, the inner one of the model.
    fn call(
        &mut self,
        call: &mut Call,
        read: &HashSet<String>,
    ) -> Result<Result<(), OnnxError>, OpError> {
        if let Some(value) = elements::waits_for(call, &self.graph) {
            return Ok(Err(OnnxError::Elements {
                file: self.file.to_string(),
                node: call.label.clone(),
                op: call.op.clone(),
                value: self.graph.values[value].name.clone(),
                output: call.outputs.iter().find(|o| !o.is_empty()).cloned().unwrap_or_default(),
            }));
        }
        if let Some(constants) = elements::constants(call, &self.graph)? {
            return Ok(self.constants(call, constants));
        }
        let mut quant = None;
        if qdq::is_blocked(call)? {
            return self.emit_blocks(call);
        }
        if call.op == "QuantizeLinear" {
            quant = Some(qdq::take_quant(call, &self.graph)?);
        } else if call.op == "DequantizeLinear" {
            let (_, params) = qdq::take_quant(call, &self.graph)?;
            let codes = call.inputs[0].ok_or(OpError::MissingInput { index: 0 })?;
            match self.read_as(codes, params)? {
                Ok(id) => call.inputs[0] = Some(id),
                Err(e) => return Ok(Err(e)),
            }
        } else if let Some(row) = qoperator::row_named(&call.op) {
            let taken = row.take(call, &self.graph)?;
            if taken.signed {
                return self.emit_through_floats(call, taken);
            }
            for (id, params) in call.inputs.iter_mut().zip(taken.inputs) {
                let (Some(codes), Some(params)) = (*id, params) else { continue };
                match self.read_as(codes, params)? {
                    Ok(codes) => *id = Some(codes),
                    Err(e) => return Ok(Err(e)),
                }
            }
            quant = taken.output;
        } else {
            legacy::forms(call, &self.graph)?;
            legacy::move_constant_inputs(call, &self.graph)?;
            legacy::meanings(call, &self.graph, self.opset)?;
        }
        // Outputs that nobody reads are left out, except where their number says something.
        if call.op != "Split" {
            while call.outputs.len() > 1 && call.outputs.last().is_some_and(|o| !read.contains(o)) {
                call.outputs.pop();
            }
        }
        let Some(op) = Op::from_attrs(&call.op, &call.attrs) else {
            return Ok(Err(self.unknown(call)));
        };
        let op = op?;
        let Some(flat) = call.around.take() else { return self.emit(call, op, quant) };
        self.emit_around(call, op, flat)
    }

    pub(super) fn constants(&mut self, call: &Call, data: Vec<Tensor>) -> Result<(), OnnxError> {
        for (name, data) in call.outputs.iter().zip(data) {
            if !name.is_empty() {
                self.add(Value::constant(name.clone(), data));
            }
        }
        Ok(())
    }

    /// The codes `id` with quantization `quant`: a copy where they have another one already.
    pub(super) fn read_as(
        &mut self,
        id: ValueId,
        quant: QuantParams,
    ) -> Result<Result<ValueId, OnnxError>, OpError> {
        match &self.graph.values[id].quant {
            None => self.graph.values[id].quant = Some(quant),
            Some(present) if *present == quant => {}
            Some(_) => {
                let name = self.unique(&format!("{}_again", self.graph.values[id].name));
                let copy = Value { name, quant: Some(quant), ..self.graph.values[id].clone() };
                let constant = copy.data.is_some();
                let input = id;
                let id = self.add(copy);
                if !constant {
                    let op = Op::from_attrs("Identity", &Attrs::new()).ok_or_else(|| {
                        OpError::unsupported("codes with two scales", "quantize the model again")
                    })??;
                    let (inputs, outputs) = (vec![Some(input)], vec![id]);
                    let (name, doc) = (String::new(), String::new());
                    self.graph.nodes.push(Node { name, op, inputs, outputs, doc });
                }
                return Ok(Ok(id));
            }
        }
        Ok(Ok(id))
    }

    fn unknown(&self, call: &Call) -> OnnxError {
        OnnxError::UnknownOperator {
            file: self.file.to_string(),
            node: call.label.clone(),
            op: call.op.clone(),
            opset: self.opset,
        }
    }
}
