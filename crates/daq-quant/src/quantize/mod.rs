//! Post-training quantization: a float graph and the ranges of its values become an 8-bit graph.
//!
//! Activations are `u8` with a scale and zero point per tensor, weights `i8` symmetric per output
//! channel (or per tensor, or `u8` with a zero point), biases `i32` at the scale of input times
//! weight. See Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018.

mod scales;
mod select;
mod weights;

pub(crate) use select::gives_floats;

use std::collections::{BTreeMap, HashMap, HashSet};

use daq::ops::{DequantizeLinear, Quantization, QuantizeLinear};
use daq::{DType, Graph, Node, Op, Value, ValueId};

use crate::qdq;
use crate::range::Range;
use crate::recover::moments::AllMoments;

/// The ranges of a graph's values by name, from calibration.
pub type Ranges = BTreeMap<String, Range>;

/// The metadata key that says an 8-bit model's inputs stay float at its interface.
pub const FLOAT_INPUT: &str = "daq.float_input";

/// How weights are quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// `i8`, symmetric, one scale per output channel.
    #[default]
    PerChannel,
    /// `i8`, symmetric, one scale per tensor.
    PerTensor,
    /// `u8`, one scale and zero point per tensor.
    Asymmetric,
}

/// What to quantize, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizeOptions {
    /// How weights are quantized.
    pub weights: Weights,
    /// Tensors after which the model is float again.
    pub dequantize_after: Vec<String>,
    /// Tensors before which the model stays float.
    pub quantize_after: Vec<String>,
    /// Keep the model's inputs float, with a QuantizeLinear after them.
    pub float_input: bool,
    /// Nodes, output tensors or operators to leave in float.
    pub exclude: Vec<String>,
    /// The only operators to quantize with scales of their own; all where absent.
    pub ops: Option<Vec<String>>,
    /// Scales at which runtimes that simulate codes in float give the same bits as those that
    /// compute in integers: activation scales are powers of two (rounded up) with even zero points,
    /// weight scales have 3 mantissa bits (rounded up). Costs some accuracy.
    ///
    /// A sum of products of codes, times a weight scale of 4 significant bits, fits the 24 bits of a
    /// float while it is below `2^24 / 15`, so float sums are exact in any order; biases are kept
    /// below half of that. Multiplying or dividing by a power of two is exact too, so that both see
    /// the same number before they round, and ties go the same way whether an even zero point is
    /// added before or after. Operators that are float inside (Softmax) are left to each runtime's
    /// functions.
    pub power_of_two_scales: bool,
    /// Round weights so that they make up for each other's errors; see
    /// [`rounding`](crate::recover::rounding). Needs moments.
    pub error_compensation: bool,
    /// Correct biases for what rounding does to the weights; see [`bias`](crate::recover::bias).
    /// Needs moments.
    pub bias_correction: bool,
    /// Weight scales of least error; see [`weight_scales`](crate::recover::weight_scales). Needs moments.
    pub weight_scales: bool,
}

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// `None` where it runs in 8 bits, else why it does not.
    pub float_because: Option<String>,
    /// Multiply-accumulate operations.
    pub macs: u64,
}

/// A quantized graph and what became of each node.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The 8-bit graph.
    pub graph: Graph,
    /// One entry for each node of the float graph.
    pub decisions: Vec<Decision>,
    /// What the user should know: widened scales, ranges that were missing.
    pub messages: Vec<String>,
}

/// Why a graph cannot be quantized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// An option that names nothing in the model.
    #[error("{option} {name}: the model has no such {kind}; `daq inspect` lists them")]
    UnknownName {
        /// The option.
        option: &'static str,
        /// The name given.
        name: String,
        /// What was looked for.
        kind: &'static str,
    },
    /// Weights that are not numbers.
    #[error(
        "weight `{tensor}` of node `{node}` holds NaN or infinity; repair the float model first"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The node that reads it.
        node: String,
    },
    /// A model that already has 8-bit operators.
    #[error("the model is quantized already (value `{value}`); quantize the float model instead")]
    AlreadyQuantized {
        /// A value of codes.
        value: String,
    },
    /// The graph is not valid.
    #[error(transparent)]
    Graph(#[from] daq::Error),
}

/// Quantizes a float graph. `ranges` holds the range of each float value that calibration saw.
pub fn quantize(
    float: &Graph,
    ranges: &Ranges,
    options: &QuantizeOptions,
) -> Result<Quantized, QuantizeError> {
    quantize_with(float, ranges, options, &AllMoments::new())
}

/// As [`quantize`], with the moments of what the 8-bit operators read, for those recovery passes
/// that `options` ask for.
pub fn quantize_with(
    float: &Graph,
    ranges: &Ranges,
    options: &QuantizeOptions,
    moments: &AllMoments,
) -> Result<Quantized, QuantizeError> {
    quantize_like(float, ranges, options, moments, None)
}

/// As [`quantize_with`], after `like` was made of the same graph, options and moments: weights whose scales
/// are as there take the codes from there, since these depend on nothing else.
pub fn quantize_like(
    float: &Graph,
    ranges: &Ranges,
    options: &QuantizeOptions,
    moments: &AllMoments,
    like: Option<&Graph>,
) -> Result<Quantized, QuantizeError> {
    if let Some(value) = float.values.iter().find(|v| v.quant.is_some()) {
        return Err(QuantizeError::AlreadyQuantized { value: value.name.clone() });
    }
    check_names(float, options)?;
    weights::check_finite(float)?;
    let ranges = &with_shared(float, ranges);
    let (mut graph, absorbed) = absorb_activations(float, ranges, options);
    let reasons = select::float_reasons(&graph, ranges, options);
    let floats = float_outputs(&graph, &reasons, ranges);
    let scales = scales::choose(&graph, &reasons, ranges, options.power_of_two_scales);
    let decisions = decisions(float, &graph, &reasons, &absorbed);
    let mut rewrite =
        Rewrite { graph: &mut graph, scales, floats, codes: HashMap::new(), reals: HashMap::new() };
    rewrite.inputs(options.float_input);
    let mut widened_channels = 0;
    rewrite.nodes(&reasons, options, moments, like, &mut widened_channels)?;
    rewrite.outputs(ranges, options.power_of_two_scales);
    if options.float_input {
        graph.metadata.insert(FLOAT_INPUT.into(), "1".into());
    }
    note_reasons(&mut graph, float, &decisions);
    graph.remove_unused();
    graph.validate()?;
    let mut messages = Vec::new();
    if widened_channels > 0 {
        let fits = match options.power_of_two_scales {
            true => "float sums are exact: their weights are small beside their bias",
            false => "their bias fits in 32 bits: their weights are next to nothing beside it",
        };
        messages.push(format!(
            "the weight scale of {widened_channels} channels was widened so that {fits}"
        ));
    }
    Ok(Quantized { graph, decisions, messages })
}

/// Calibration does not watch what keeps the scale of its input. Where that input stays in float,
/// its range serves the operators behind.
fn with_shared(float: &Graph, ranges: &Ranges) -> Ranges {
    let mut ranges = ranges.clone();
    let name = |id: ValueId| float.values[id].name.as_str();
    for node in &float.nodes {
        if !matches!(node.op.quantization(), Quantization::Moves | Quantization::Averages) {
            continue;
        }
        let Some(range) = node.inputs[0].and_then(|x| ranges.get(name(x)).copied()) else {
            continue;
        };
        for &id in &node.outputs {
            ranges.entry(name(id).to_string()).or_insert(range);
        }
    }
    ranges
}

fn check_names(graph: &Graph, options: &QuantizeOptions) -> Result<(), QuantizeError> {
    let unknown = |option, name: &String, kind| {
        Err(QuantizeError::UnknownName { option, name: name.clone(), kind })
    };
    let tensors = [
        ("--dequantize_after", &options.dequantize_after),
        ("--quantize_after", &options.quantize_after),
    ];
    for (option, names) in tensors {
        if let Some(name) = names.iter().find(|n| graph.find_value(n).is_none()) {
            return unknown(option, name, "tensor");
        }
    }
    let is_op = |name: &String| Op::NAMES.contains(&name.as_str());
    let in_graph = |name: &String| {
        is_op(name)
            || graph.find_value(name).is_some()
            || graph.nodes.iter().any(|n| n.name == *name)
    };
    if let Some(name) = options.exclude.iter().find(|n| !in_graph(n)) {
        return unknown("--exclude", name, "node, tensor or operator");
    }
    match options.ops.iter().flatten().find(|n| !is_op(n)) {
        Some(name) => unknown("--ops", name, "operator"),
        None => Ok(()),
    }
}

/// The range of a value: its own, else that of what operators that move or average made it of.
fn range_of(graph: &Graph, ranges: &Ranges, id: ValueId) -> Option<Range> {
    use Quantization::{Averages, Moves};
    if let Some(range) = ranges.get(&graph.values[id].name) {
        return Some(*range);
    }
    let node = graph.nodes.iter().find(|n| n.outputs.contains(&id))?;
    let follows = matches!(node.op.quantization(), Moves | Averages);
    node.inputs
        .first()
        .copied()
        .flatten()
        .filter(|_| follows)
        .and_then(|x| range_of(graph, ranges, x))
}

/// Drops each activation that saturation to its own range does for free: one that only clamps and
/// is the only reader of an 8-bit operator with a scale of its own. The node takes over the
/// activation's output. Returns the graph and the names of the dropped nodes. An operator that gives
/// floats to a reader of the activation keeps it: nothing saturates them.
fn absorb_activations(
    float: &Graph,
    ranges: &Ranges,
    options: &QuantizeOptions,
) -> (Graph, Vec<String>) {
    let reasons = select::float_reasons(float, ranges, options);
    let consumers = float.consumers();
    let mut graph = float.clone();
    let mut dropped = Vec::new();
    for (i, node) in float.nodes.iter().enumerate() {
        use Quantization::{FloatInside, Integer, Weighted};
        let own_scale = matches!(node.op.quantization(), Weighted | Integer | FloatInside);
        let Some((j, _)) = daq::plan::fused_clamp(float, &consumers, node) else { continue };
        let y = float.nodes[j].outputs[0];
        let floats = select::gives_floats(float, &node.op, &node.inputs)
            && read_as_float(float, &reasons, y);
        if own_scale && reasons[i].is_none() && reasons[j].is_none() && !floats {
            graph.nodes[i].outputs = float.nodes[j].outputs.clone();
            dropped.push(j);
        }
    }
    // Taking over an output moves it earlier, never later, so the order stays valid.
    let names = dropped.iter().map(|&j| float.node_name(&float.nodes[j]).to_string()).collect();
    let mut position = 0..;
    graph.nodes.retain(|_| !position.next().is_some_and(|i| dropped.contains(&i)));
    (graph, names)
}

/// Whether a node in float reads a value that stays within the graph. An output of the graph stays
/// codes, for callers that take them.
fn read_as_float(graph: &Graph, reasons: &[Option<String>], id: ValueId) -> bool {
    let mut nodes = graph.nodes.iter().zip(reasons);
    !graph.outputs.contains(&id)
        && nodes.any(|(n, reason)| reason.is_some() && n.inputs.contains(&Some(id)))
}

/// Values that 8-bit products compute as floats, since a node in float reads them, or the activation
/// that does.
fn float_outputs(graph: &Graph, reasons: &[Option<String>], ranges: &Ranges) -> HashSet<ValueId> {
    let consumers = graph.consumers();
    let mut floats = HashSet::new();
    for (node, _) in graph.nodes.iter().zip(reasons).filter(|(_, reason)| reason.is_none()) {
        if !select::gives_floats(graph, &node.op, &node.inputs) {
            continue;
        }
        let output = node.outputs[0];
        // Without a range there is no scale; else what has not been absorbed is there for its reader.
        let clamp = daq::plan::fused_clamp(graph, &consumers, node).map(|(j, _)| j);
        let activation = clamp.filter(|&j| reasons[j].is_none()).map(|j| graph.nodes[j].outputs[0]);
        let no_range = range_of(graph, ranges, output).is_none();
        if no_range || activation.is_some() || read_as_float(graph, reasons, output) {
            floats.insert(output);
            floats.extend(activation);
        }
    }
    floats
}

fn decisions(
    float: &Graph,
    graph: &Graph,
    reasons: &[Option<String>],
    absorbed: &[String],
) -> Vec<Decision> {
    let by_name: HashMap<&str, &Option<String>> = graph
        .nodes
        .iter()
        .map(|n| n.outputs[0])
        .map(|id| graph.values[id].name.as_str())
        .zip(reasons)
        .collect();
    float
        .nodes
        .iter()
        .map(|node| {
            let name = float.node_name(node).to_string();
            let inputs = float.input_specs(node);
            let outputs = node.op.infer(&inputs).unwrap_or_default();
            let reason = match absorbed.contains(&name) {
                true => None,
                // A node that absorbed its activation has the activation's output.
                false => by_name
                    .get(float.values[node.outputs[0]].name.as_str())
                    .and_then(|r| (*r).clone()),
            };
            let macs = node.op.macs(&inputs, &outputs);
            Decision { node: name, op: node.op.name().to_string(), float_because: reason, macs }
        })
        .collect()
}

/// Says in the graph's metadata what stays in float, so that [`qdq::fold`] leaves it so.
fn note_reasons(graph: &mut Graph, float: &Graph, decisions: &[Decision]) {
    let reasons: BTreeMap<&str, &str> = float
        .nodes
        .iter()
        .zip(decisions)
        .filter_map(|(n, d)| {
            Some((float.values[*n.outputs.first()?].name.as_str(), d.float_because.as_deref()?))
        })
        .collect();
    if !reasons.is_empty() {
        let json = serde_json::json!(reasons).to_string();
        graph.metadata.insert(qdq::FLOAT_BECAUSE.into(), json);
    }
}

/// The graph while its values become codes.
struct Rewrite<'a> {
    graph: &'a mut Graph,
    scales: HashMap<ValueId, daq::QuantParams>,
    /// What 8-bit operators compute as floats.
    floats: HashSet<ValueId>,
    /// The codes of a value, where it has been computed or quantized.
    codes: HashMap<ValueId, ValueId>,
    /// The floats of a value that is computed as codes, where something needs them.
    reals: HashMap<ValueId, ValueId>,
}

impl Rewrite<'_> {
    /// Inputs that have a scale become codes; or stay float, with the scale for callers that give
    /// codes.
    fn inputs(&mut self, float_input: bool) {
        for id in self.graph.inputs.clone() {
            if let Some(quant) = self.scales.get(&id) {
                self.graph.values[id].quant = Some(quant.clone());
                if !float_input {
                    self.graph.values[id].dtype = DType::U8;
                    self.codes.insert(id, id);
                }
            }
        }
    }

    /// The scale of float outputs serves callers that take codes.
    fn outputs(&mut self, ranges: &Ranges, power_of_two: bool) {
        for &id in &self.graph.outputs {
            let value = &mut self.graph.values[id];
            if value.dtype == DType::F32
                && let Some(range) = ranges.get(&value.name)
            {
                value.quant = Some(scales::codes_of(*range, power_of_two));
            }
        }
    }

    fn nodes(
        &mut self,
        reasons: &[Option<String>],
        options: &QuantizeOptions,
        moments: &AllMoments,
        like: Option<&Graph>,
        widened_channels: &mut usize,
    ) -> Result<(), QuantizeError> {
        let nodes = std::mem::take(&mut self.graph.nodes);
        // What calibration may have seen of an output under the name of its activation.
        let mut activations = HashMap::new();
        for node in nodes.iter().filter(|node| node.op.clamp().is_some()) {
            node.inputs[0].and_then(|x| activations.insert(x, node.outputs[0]));
        }
        for (mut node, reason) in nodes.into_iter().zip(reasons) {
            let clamps_floats = node.op.clamp().is_some() && self.floats.contains(&node.outputs[0]);
            if reason.is_some() || clamps_floats {
                node.inputs = node.inputs.iter().map(|id| id.map(|id| self.real(id))).collect();
            } else {
                let weighted = node.op.quantization() == Quantization::Weighted;
                for i in 0..node.inputs.len() {
                    let Some(id) = node.inputs[i] else { continue };
                    let constant = self.graph.values[id].data.is_some();
                    if !(weighted && constant) && self.graph.values[id].dtype != DType::I64 {
                        node.inputs[i] = Some(self.code(id));
                    }
                }
                if weighted {
                    let of = |id: ValueId| moments.get(&self.graph.values[id].name);
                    let output = node.outputs[0];
                    let moments =
                        of(output).or_else(|| activations.get(&output).and_then(|&y| of(y)));
                    weights::quantize(
                        self.graph,
                        &mut node,
                        options,
                        &self.scales,
                        widened_channels,
                        moments,
                        like,
                    )?;
                }
                for &id in node.outputs.iter().filter(|id| !self.floats.contains(id)) {
                    if let Some(quant) = self.scales.get(&id) {
                        let value = &mut self.graph.values[id];
                        value.dtype = DType::U8;
                        value.quant = Some(quant.clone());
                        self.codes.insert(id, id);
                    }
                }
            }
            self.graph.nodes.push(node);
        }
        Ok(())
    }

    /// The value as codes, quantized where it is computed in float.
    fn code(&mut self, id: ValueId) -> ValueId {
        if let Some(&codes) = self.codes.get(&id) {
            return codes;
        }
        let value = &self.graph.values[id];
        let Some(quant) = self.scales.get(&id).cloned() else { return id };
        let name = format!("{}_QuantizeLinear_Output", value.name);
        let codes = Value::new(name, DType::U8, &value.shape).with_quant(quant);
        let codes = self.graph.add_value(codes);
        if let Some(data) = &self.graph.values[id].data {
            let mut tensor = daq::tensor::AlignedBytes::zeroed(data.len());
            let value = &self.graph.values[codes];
            let mut view = daq::TensorViewMut {
                dtype: DType::U8,
                shape: &value.shape,
                quant: value.quant.as_ref(),
                bytes: tensor.as_mut_slice(),
            };
            daq::ops::eval::quantize(data.data(), &mut view);
            let shape = value.shape.clone();
            self.graph.values[codes].data =
                Some(daq::Tensor::from_aligned(DType::U8, &shape, tensor));
        } else {
            self.convert(QuantizeLinear::default().into(), id, codes);
        }
        self.codes.insert(id, codes);
        codes
    }

    /// The value as floats, dequantized where it is computed as codes.
    fn real(&mut self, id: ValueId) -> ValueId {
        if self.graph.values[id].dtype != DType::U8 || self.graph.values[id].quant.is_none() {
            return id;
        }
        if let Some(&real) = self.reals.get(&id) {
            return real;
        }
        let value = &self.graph.values[id];
        let name = format!("{}_DequantizeLinear_Output", value.name);
        let real = Value::new(name, DType::F32, &value.shape);
        let real = self.graph.add_value(real);
        self.convert(DequantizeLinear::default().into(), id, real);
        self.reals.insert(id, real);
        real
    }

    fn convert(&mut self, op: Op, from: ValueId, to: ValueId) {
        let name = self.graph.values[to].name.trim_end_matches("_Output").to_string();
        let (inputs, outputs) = (vec![Some(from)], vec![to]);
        self.graph.nodes.push(Node { name, op, inputs, outputs, doc: String::new() });
    }
}

#[cfg(test)]
mod tests {
    use daq::ops::Attrs;
    use daq::{Model, Tensor};

    use super::*;
    use crate::qdq;
    use daq::QuantParams;

    fn node(
        graph: &mut Graph,
        op: &str,
        inputs: &[ValueId],
        output: &str,
        shape: &[usize],
    ) -> ValueId {
        let op = Op::from_attrs(op, &Attrs::new()).unwrap().unwrap();
        let y = graph.add_value(Value::new(output, DType::F32, shape));
        let inputs = inputs.iter().map(|&i| Some(i)).collect();
        let name = format!("{}_{output}", op.name());
        graph.nodes.push(Node { name, op, inputs, outputs: vec![y], doc: String::new() });
        y
    }

    /// `y = relu(2x + 1)`, then `z = sigmoid(y)`, then `p = log(z)`.
    fn float() -> (Graph, Ranges) {
        let mut g = Graph::default();
        let shape = [1, 1, 2, 2];
        let x = g.add_value(Value::new("x", DType::F32, &shape));
        let w = g.add_value(Value::constant("w", Tensor::from_slice(&[1, 1, 1, 1], &[2f32])));
        let b = g.add_value(Value::constant("b", Tensor::from_slice(&[1], &[1f32])));
        let c = node(&mut g, "Conv", &[x, w, b], "c", &shape);
        let y = node(&mut g, "Relu", &[c], "y", &shape);
        let z = node(&mut g, "Sigmoid", &[y], "z", &shape);
        let p = node(&mut g, "Log", &[z], "p", &shape);
        (g.inputs, g.outputs) = (vec![x], vec![p]);
        let range = |min, max| Range { min, max };
        let ranges = [("x", -1.0, 1.55), ("y", 0.0, 3.0), ("z", 0.5, 0.96), ("p", -0.7, 0.0)];
        let ranges = ranges.map(|(name, min, max)| (name.to_string(), range(min, max)));
        (g, ranges.into())
    }

    fn quantized(options: &QuantizeOptions) -> Quantized {
        let (graph, ranges) = float();
        quantize(&graph, &ranges, options).unwrap()
    }

    fn find<'a>(graph: &'a Graph, name: &str) -> &'a Value {
        &graph.values[graph.find_value(name).unwrap_or_else(|| panic!("no {name} in {graph:?}"))]
    }

    fn ops(graph: &Graph) -> Vec<&str> {
        graph.nodes.iter().map(|n| n.op.name()).collect()
    }

    #[test]
    fn weights_bias_and_scales_are_as_worked_out_by_hand() {
        let Quantized { graph, decisions, .. } = quantized(&QuantizeOptions::default());
        // Relu is absorbed: the convolution computes y, whose codes start at 0.
        assert_eq!(ops(&graph), ["Conv", "Sigmoid", "Log"]);
        assert!(decisions.iter().all(|d| d.float_because.is_none()) && decisions.len() == 4);
        let x = find(&graph, "x");
        assert_eq!(
            (x.dtype, x.quant.clone()),
            (DType::U8, Some(QuantParams::per_tensor(0.01, 100)))
        );
        let w = find(&graph, "w");
        assert_eq!(w.data.as_ref().unwrap().data::<i8>(), [127]);
        assert_eq!(w.quant, Some(QuantParams::per_tensor(2.0 / 127.0, 0)));
        // 1 / (0.01 * 2 / 127) = 6350
        assert_eq!(find(&graph, "b").data.as_ref().unwrap().data::<i32>(), [6350]);
        assert_eq!(find(&graph, "y").quant, Some(QuantParams::per_tensor(3.0 / 255.0, 0)));
    }

    #[test]
    fn qdq_folds_back_to_the_same_graph() {
        let options = QuantizeOptions { dequantize_after: vec!["z".into()], ..Default::default() };
        for options in [QuantizeOptions::default(), options] {
            let graph = quantized(&options).graph;
            let unfolded = qdq::unfold(&graph);
            unfolded.validate().unwrap();
            let names = |ids: &[ValueId]| {
                ids.iter().map(|&i| unfolded.values[i].name.clone()).collect::<Vec<_>>()
            };
            assert_eq!(
                (names(&unfolded.inputs), names(&unfolded.outputs)),
                (vec!["x".into()], vec!["p".into()])
            );
            assert!(
                unfolded
                    .inputs
                    .iter()
                    .chain(&unfolded.outputs)
                    .all(|&i| unfolded.values[i].dtype == DType::F32)
            );
            let folded = qdq::fold(&unfolded);
            folded.validate().unwrap();
            assert_eq!(ops(&folded), ops(&graph));
            let run = |g: &Graph| {
                let mut y = [0f32; 4];
                let mut session = Model::from_graph(g.clone()).unwrap().session(1);
                session.predict(&[&[-1f32, -0.3, 0.2, 1.0]], &mut [&mut y]).unwrap();
                y
            };
            assert_eq!(run(&folded), run(&graph));
            // Explicit conversions mean the same, within one step of the last scale.
            for (a, b) in run(&unfolded).iter().zip(run(&graph)) {
                assert!((a - b).abs() <= 0.7 / 255.0 * 1.01, "{a} {b}");
            }
        }
    }

    #[test]
    fn options_keep_parts_in_float_and_say_why() {
        let one = |name: &str| vec![name.to_string()];
        let with = |f: &dyn Fn(&mut QuantizeOptions)| {
            let mut options = QuantizeOptions::default();
            f(&mut options);
            let q = quantized(&options);
            let why = q
                .decisions
                .into_iter()
                .filter_map(|d| Some(format!("{}: {}", d.op, d.float_because?)));
            (ops(&q.graph).join(" "), why.collect::<Vec<_>>().join("; "), q.graph)
        };
        let (nodes, why, graph) = with(&|o| o.dequantize_after = one("y"));
        assert_eq!(nodes, "Conv Relu Sigmoid Log");
        assert_eq!(why, "Sigmoid: after --dequantize_after; Log: after --dequantize_after");
        assert_eq!(find(&graph, "p").dtype, DType::F32);
        let (nodes, why, _) = with(&|o| o.quantize_after = one("y"));
        assert_eq!(nodes, "Conv Relu QuantizeLinear Sigmoid Log");
        assert_eq!(why, "Conv: before --quantize_after; Relu: before --quantize_after");
        let (nodes, why, _) = with(&|o| o.exclude = one("Sigmoid"));
        assert_eq!(nodes, "Conv Relu Sigmoid Log");
        assert_eq!(why, "Sigmoid: excluded by --exclude Sigmoid; Log: its input is in float");
        let (nodes, _, graph) = with(&|o| o.float_input = true);
        assert_eq!(nodes, "QuantizeLinear Conv Sigmoid Log");
        assert_eq!(find(&graph, "x").dtype, DType::F32);
        let (nodes, why, _) = with(&|o| o.ops = Some(one("Conv")));
        assert_eq!(nodes, "Conv Relu Sigmoid Log");
        assert_eq!(why, "Sigmoid: not among --ops; Log: not among --ops");
    }

    /// Calibration sees no range between an operator and the activation that it absorbs; where that is in
    /// float, none is needed.
    #[test]
    fn a_product_gives_floats_to_what_reads_floats() {
        let run = |q: &Quantized| {
            let mut y = [0f32; 4];
            let mut session = Model::from_graph(q.graph.clone()).unwrap().session(1);
            session.predict(&[&[-1f32, -0.3, 0.2, 1.0]], &mut [&mut y]).unwrap();
            y
        };
        for (exclude, nodes) in [
            (&["Relu", "Log"][..], "Conv Relu Sigmoid Log"),
            (&["Sigmoid"], "Conv Relu Sigmoid Log"),
        ] {
            let exclude = exclude.iter().map(|e| e.to_string()).collect();
            let q = quantized(&QuantizeOptions { exclude, ..Default::default() });
            assert_eq!(ops(&q.graph).join(" "), nodes);
            assert_eq!(q.decisions[0].float_because, None);
            let types = ["x", "c", "y", "z"].map(|name| find(&q.graph, name).dtype);
            assert_eq!(types, [DType::U8, DType::F32, DType::F32, DType::F32]);
            // 2x + 1 of codes a hundredth apart is exact but for rounding of the weight to 127 * 2 / 127.
            let log = |x: f32| (1.0 / (1.0 + (-(2.0 * x + 1.0).max(0.0)).exp())).ln();
            let folded = Quantized { graph: qdq::fold(&qdq::unfold(&q.graph)), ..q.clone() };
            for (a, b) in run(&q).iter().zip([-1.0, -0.3, 0.2, 1.0].map(log)) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            assert_eq!(run(&folded), run(&q));
        }
    }

    /// `y = relu(2x + 1)` is read by an operator in float and by one in 8 bits, which has its own codes of it.
    #[test]
    fn a_product_that_gives_floats_is_quantized_for_others() {
        let (mut g, ranges) = float();
        let y = g.find_value("y").unwrap();
        let e = node(&mut g, "Exp", &[y], "e", &[1, 1, 2, 2]);
        g.outputs.push(e);
        let options = QuantizeOptions { exclude: vec!["Exp".into()], ..Default::default() };
        let q = quantize(&g, &ranges, &options).unwrap();
        let in_float: Vec<_> = q.decisions.iter().filter(|d| d.float_because.is_some()).collect();
        assert_eq!(in_float.len(), 1, "{in_float:?}");
        assert_eq!(ops(&q.graph), ["Conv", "Relu", "QuantizeLinear", "Sigmoid", "Log", "Exp"]);
        let codes = find(&q.graph, "y_QuantizeLinear_Output");
        assert_eq!(codes.quant, Some(QuantParams::per_tensor(3.0 / 255.0, 0)));
        for graph in [q.graph.clone(), qdq::fold(&qdq::unfold(&q.graph))] {
            assert_eq!(ops(&graph).iter().filter(|op| **op == "QuantizeLinear").count(), 1);
            let (mut p, mut e) = ([0f32; 4], [0f32; 4]);
            let mut session = Model::from_graph(graph).unwrap().session(1);
            session.predict(&[&[-1f32, -0.3, 0.2, 1.0]], &mut [&mut p, &mut e]).unwrap();
            // Not rounded: 2 * -1 + 1 is clamped, 2 * -0.3 + 1 = 0.4, 1.4, 3.
            for (e, y) in e.iter().zip([0f32, 0.4, 1.4, 3.0]) {
                assert!((e - y.exp()).abs() < 1e-4 * y.exp(), "{e} {y}");
            }
        }
    }

    /// A sigmoid's codes are 1/256 apart from 0 on, whatever calibration saw.
    #[test]
    fn shares_have_a_scale_of_their_own() {
        let graph = quantized(&QuantizeOptions::default()).graph;
        assert_eq!(find(&graph, "z").quant, Some(QuantParams::per_tensor(1.0 / 256.0, 0)));
    }

    /// Scores from 0 to 1 beside boxes from 0 to 300 would have two codes left.
    #[test]
    fn a_concat_of_very_different_ranges_stays_float() {
        for (boxes, eight_bit) in [(300.0, false), (17.0, false), (15.0, true)] {
            let mut g = Graph::default();
            let shape = [1, 1, 2, 2];
            let x = g.add_value(Value::new("x", DType::F32, &shape));
            let a = node(&mut g, "Relu", &[x], "a", &shape);
            let b = node(&mut g, "Abs", &[x], "b", &shape);
            let op = Op::from_attrs("Concat", &Attrs::new().with("axis", daq::attrs::Attr::Int(1)));
            let y = g.add_value(Value::new("y", DType::F32, &[1, 2, 2, 2]));
            let (op, inputs) = (op.unwrap().unwrap(), vec![Some(a), Some(b)]);
            let name = "join".to_string();
            g.nodes.push(Node { name, op, inputs, outputs: vec![y], doc: String::new() });
            (g.inputs, g.outputs) = (vec![x], vec![y]);
            let range = |name: &str, max| (name.to_string(), Range { min: 0.0, max });
            let ranges = [range("x", 1.0), range("a", 1.0), range("b", boxes), range("y", boxes)];
            let q = quantize(&g, &ranges.into(), &QuantizeOptions::default()).unwrap();
            let why = q.decisions[2].float_because.clone();
            assert_eq!(why.is_none(), eight_bit, "{boxes}: {why:?}");
        }
    }

    /// Calibration does not watch what only moves; where it stays float, its reader is still in 8 bits.
    #[test]
    fn a_reader_of_moved_floats_takes_the_range_of_what_was_moved() {
        let (mut g, mut ranges) = float();
        let (z, p) = (g.find_value("z").unwrap(), g.find_value("p").unwrap());
        g.nodes.pop();
        let t = node(&mut g, "Identity", &[z], "t", &[1, 1, 2, 2]);
        let op = Op::from_attrs("Log", &Attrs::new()).unwrap().unwrap();
        let (name, inputs, outputs) = ("log".to_string(), vec![Some(t)], vec![p]);
        g.nodes.push(Node { name, op, inputs, outputs, doc: String::new() });
        ranges.remove("t");
        let exclude = vec!["Sigmoid".to_string(), "Identity".to_string()];
        let options =
            QuantizeOptions { exclude, quantize_after: vec!["t".into()], ..Default::default() };
        let q = quantize(&g, &ranges, &options).unwrap();
        assert_eq!(q.decisions[4].float_because, None, "{:?}", q.decisions);
    }

    #[test]
    fn asymmetric_weights_have_a_zero_point() {
        let (mut graph, ranges) = float();
        let w = graph.find_value("w").unwrap();
        graph.values[w].data = Some(Tensor::from_slice(&[1, 1, 1, 1], &[-2.55f32]));
        let options = QuantizeOptions { weights: Weights::Asymmetric, ..Default::default() };
        let graph = quantize(&graph, &ranges, &options).unwrap().graph;
        let w = find(&graph, "w");
        assert_eq!(w.data.as_ref().unwrap().data::<u8>(), [0]);
        assert_eq!(w.quant, Some(QuantParams::per_tensor(0.01, 255)));
    }

    #[test]
    fn power_of_two_scales_are_as_worked_out_by_hand() {
        let (graph, ranges) = float();
        for (weights, w_scale) in [
            // 2 / 127 = 1.0079 / 64, up to 1.125 / 64.
            (Weights::PerChannel, 1.125 / 64.0),
            (Weights::PerTensor, 1.125 / 64.0),
            // 2 / 255 = 1.0039 / 128, up to 1.125 / 128.
            (Weights::Asymmetric, 1.125 / 128.0),
        ] {
            let options =
                QuantizeOptions { weights, power_of_two_scales: true, ..Default::default() };
            let graph = quantize(&graph, &ranges, &options).unwrap().graph;
            let quant = |name: &str| find(&graph, name).quant.clone().unwrap();
            assert_eq!(quant("x"), QuantParams::per_tensor(1.0 / 64.0, 64));
            assert_eq!(quant("y"), QuantParams::per_tensor(1.0 / 64.0, 0));
            assert_eq!(quant("w"), QuantParams::per_tensor(w_scale, 0));
            assert_eq!(quant("b"), QuantParams::per_tensor(w_scale / 64.0, 0));
            let code = find(&graph, "b").data.as_ref().unwrap().data::<i32>()[0];
            assert_eq!(code, (64.0 / w_scale).round() as i32);
        }
    }

    #[test]
    fn a_large_bias_leaves_room_for_exact_float_sums() {
        let (mut graph, ranges) = float();
        let b = graph.find_value("b").unwrap();
        graph.values[b].data = Some(Tensor::from_slice(&[1], &[1000f32]));
        let options = QuantizeOptions { power_of_two_scales: true, ..Default::default() };
        let q = quantize(&graph, &ranges, &options).unwrap();
        // At the weight's own scale, 1.125 / 64, the code would be 3.6 million; the scale that
        // leaves 2^19 is 64000 / 2^19, 0.122, and 0.125 has few enough digits.
        assert_eq!(find(&q.graph, "w").quant, Some(QuantParams::per_tensor(0.125, 0)));
        assert_eq!(find(&q.graph, "b").data.as_ref().unwrap().data::<i32>(), [512_000]);
        assert!(q.messages[0].contains("widened"), "{:?}", q.messages);
    }

    #[test]
    fn a_bias_that_would_overflow_widens_the_weight_scale() {
        let (mut graph, mut ranges) = float();
        let b = graph.find_value("b").unwrap();
        graph.values[b].data = Some(Tensor::from_slice(&[1], &[1e9f32]));
        ranges.insert("x".into(), Range { min: 0.0, max: 2.55e-3 });
        let q = quantize(&graph, &ranges, &QuantizeOptions::default()).unwrap();
        let code = find(&q.graph, "b").data.as_ref().unwrap().data::<i32>()[0];
        assert!((code - (1 << 30)).abs() < 100, "{code}");
        assert!(q.messages[0].contains("widened"), "{:?}", q.messages);
    }

    #[test]
    fn bad_models_and_names_are_errors() {
        let (mut graph, ranges) = float();
        let unknown = QuantizeOptions { exclude: vec!["nothing".into()], ..Default::default() };
        let error = quantize(&graph, &ranges, &unknown).unwrap_err().to_string();
        assert!(error.contains("--exclude nothing"), "{error}");
        let w = graph.find_value("w").unwrap();
        graph.values[w].data = Some(Tensor::from_slice(&[1, 1, 1, 1], &[f32::NAN]));
        let error = quantize(&graph, &ranges, &QuantizeOptions::default()).unwrap_err().to_string();
        assert!(error.contains("`w`") && error.contains("NaN"), "{error}");
    }
}
