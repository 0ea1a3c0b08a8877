//! What other runtimes demand of an 8-bit model: the scale rules of NNAPI, by Android's API level, and
//! of TFLite's int8 operators. daq runs any scales; a model for a phone's accelerator must keep these.
//!
//! The rules are those of `NeuralNetworks.h` and of TFLite's quantization specification. Zero points
//! here are of unsigned codes; a runtime with signed ones has them 128 lower.

use std::fmt;
use std::str::FromStr;

use crate::graph::{Graph, Node, ValueId};
use crate::ops::{Op, Quantization};
use crate::quant::QuantParams;
use crate::tensor::DType;

/// Where a model shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// daq's own kernels, which take any scales.
    Cpu,
    /// Android's NNAPI at an API level from 27 on.
    Nnapi(u32),
    /// TFLite's int8 operators.
    Tflite,
}

impl Target {
    /// All targets by name.
    pub const ALL: [(&'static str, Target); 6] = [
        ("cpu", Target::Cpu),
        ("nnapi-27", Target::Nnapi(27)),
        ("nnapi-28", Target::Nnapi(28)),
        ("nnapi-29", Target::Nnapi(29)),
        ("nnapi-30", Target::Nnapi(30)),
        ("tflite", Target::Tflite),
    ];

    /// Whether this is NNAPI before an API level.
    fn before(self, level: u32) -> bool {
        matches!(self, Target::Nnapi(n) if n < level)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Target::ALL.map(|t| t.0).join(", ");
        let found = Target::ALL.iter().find(|t| t.0 == text);
        found.map(|t| t.1).ok_or_else(|| format!("`{text}` is no target; there are {names}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Target::ALL.iter().find(|t| t.1 == *self).map_or("nnapi", |t| t.0);
        f.write_str(name)
    }
}

/// A rule that a model breaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// The tensor that is wrong.
    pub tensor: String,
    /// The rule, and what the model has.
    pub why: String,
    /// What would mend it; `None` where a node cannot run on the target at all.
    pub fix: Option<Fix>,
}

impl Finding {
    /// Whether the node has no form for the target, whatever its scales: it stays on the CPU.
    pub fn is_unsupported(&self) -> bool {
        self.fix.is_none()
    }
}

/// What would make a model keep a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Fix {
    /// Give a value this scale and zero point.
    Quant(ValueId, QuantParams),
    /// Give weights the largest of their scales.
    PerTensor(ValueId),
    /// Make codes -128 -127.
    Narrow(ValueId),
}

/// The rules that a model breaks, node by node.
pub fn lint(graph: &Graph, target: Target) -> Vec<Finding> {
    graph.nodes.iter().flat_map(|node| lint_node(graph, node, target)).collect()
}

/// The rules that one node of a model breaks.
pub fn lint_node(graph: &Graph, node: &Node, target: Target) -> Vec<Finding> {
    match target {
        Target::Cpu => Vec::new(),
        _ => Rules { graph, node, target }.check(),
    }
}

/// A scale, not below either, whose codes reach from the lowest to the highest real number of both.
fn union(a: &QuantParams, b: &QuantParams) -> QuantParams {
    let (low, high) = (a.real(0).min(b.real(0)), a.real(255).max(b.real(255)));
    let scale = ((high - low) / 255.0).max(a.scale[0]).max(b.scale[0]);
    QuantParams::per_tensor(scale, (-low / scale).round_ties_even().clamp(0.0, 255.0) as i32)
}

/// The rules as they apply to one node.
struct Rules<'a> {
    graph: &'a Graph,
    node: &'a Node,
    target: Target,
}

impl Rules<'_> {
    fn check(&self) -> Vec<Finding> {
        let node = self.node;
        let input = node.inputs.first().copied().flatten();
        let (Some(x), Some(&y)) = (input, node.outputs.first()) else { return Vec::new() };
        let quant8 = self.quant(x).is_some() && self.quant(y).is_some();
        if let Some(why) = self.unsupported(quant8) {
            return vec![self.finding(y, why, None)];
        }
        // Floats have no scales to be wrong.
        let (Some(xq), Some(yq)) = (self.quant(x), self.quant(y)) else { return Vec::new() };
        let mut all = Vec::new();
        match &node.op {
            Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm(_) | Op::MatMul(_) => {
                self.product(xq, y, yq, &mut all);
            }
            Op::Concat(_) if self.target.before(29) || self.target == Target::Tflite => {
                self.all_same(y, yq, "Concat", &mut all);
            }
            Op::Max(_) | Op::Min(_) if self.target == Target::Tflite => {
                self.all_same(y, yq, node.op.name(), &mut all);
            }
            Op::Relu(_) | Op::Clip(_) if self.target != Target::Tflite && xq != yq => {
                // What the input loses is what the activation cuts off.
                let why = format!("{} keeps its input's scale", node.op.name());
                all.push(self.set(x, yq.clone(), why));
            }
            Op::GlobalAveragePool(_) | Op::ReduceMean(_) if xq != yq => {
                all.push(self.set(y, xq.clone(), "an average keeps its input's scale".into()));
            }
            Op::Softmax(_) | Op::Sigmoid(_) => self.exactly(y, yq, 1.0 / 256.0, 0, &mut all),
            Op::Tanh(_) => self.exactly(y, yq, 1.0 / 128.0, 128, &mut all),
            Op::Mul(_) if self.target != Target::Tflite => {
                let other = node.inputs.get(1).copied().flatten().and_then(|id| self.quant(id));
                if let Some(other) = other {
                    let product = xq.scale[0] * other.scale[0];
                    self.above(y, yq, product, "the product of its inputs' scales", &mut all);
                }
            }
            op if matches!(op.quantization(), Quantization::Moves | Quantization::Averages)
                && xq != yq =>
            {
                let why = format!("{} keeps its input's scale", op.name());
                all.push(self.set(y, xq.clone(), why));
            }
            _ => {}
        }
        all
    }

    /// Convolutions and matrix products: weights and the output's scale.
    fn product(&self, xq: &QuantParams, y: ValueId, yq: &QuantParams, all: &mut Vec<Finding>) {
        let Some(w) = self.node.inputs.get(1).copied().flatten() else { return };
        let value = &self.graph.values[w];
        let Some(wq) = &value.quant else { return };
        let convolution = matches!(self.node.op, Op::Conv(_) | Op::ConvTranspose(_));
        if !wq.is_per_tensor() && value.dtype == DType::I8 && value.data.is_some() {
            let why = match (convolution, self.target) {
                (false, _) => Some("a fully connected layer has one scale for its weights"),
                (true, Target::Nnapi(level)) if level < 29 => {
                    Some("weights with a scale per channel come with API level 29")
                }
                _ => None,
            };
            if let Some(why) = why {
                let fix = Some(Fix::PerTensor(w));
                return all.push(self.finding(w, why.into(), fix));
            }
        }
        let lowest = value.data.iter().filter(|_| value.dtype == DType::I8);
        if !wq.is_per_tensor() && lowest.flat_map(|d| d.data::<i8>()).any(|&c| c == -128) {
            let why = "weights with a scale per channel are from -127 to 127".into();
            all.push(self.finding(w, why, Some(Fix::Narrow(w))));
        }
        if self.target.before(29) {
            let product = xq.scale[0] * wq.scale[0];
            self.above(y, yq, product, "the product of its input's and weights' scales", all);
        }
    }

    /// An output's scale that must be greater than `product`.
    fn above(
        &self,
        y: ValueId,
        yq: &QuantParams,
        product: f32,
        what: &str,
        all: &mut Vec<Finding>,
    ) {
        if yq.scale[0] > product {
            return;
        }
        let scale = product.next_up();
        let lowest = -yq.zero_point[0] as f32 * yq.scale[0];
        let zero_point = (-lowest / scale).round_ties_even() as i32;
        let why = format!("the output's scale must be greater than {what}, {product:e}");
        all.push(self.set(y, QuantParams::per_tensor(scale, zero_point), why));
    }

    /// An output of a fixed scale.
    fn exactly(&self, y: ValueId, yq: &QuantParams, scale: f32, zero: i32, all: &mut Vec<Finding>) {
        let wanted = QuantParams::per_tensor(scale, zero);
        if *yq != wanted {
            let name = self.node.op.name();
            let why = format!("{name} gives scale 1/{}, zero point {zero}", 1.0 / scale);
            // Not by way of the values that it shares its scale with: this one decides.
            all.push(self.finding(y, why, Some(Fix::Quant(y, wanted))));
        }
    }

    /// Inputs that must have the output's scale.
    fn all_same(&self, y: ValueId, yq: &QuantParams, name: &str, all: &mut Vec<Finding>) {
        for x in self.node.inputs.iter().copied().flatten() {
            if self.quant(x).is_some_and(|q| q != yq) {
                let why = format!("inputs of {name} have the output's scale");
                let (xq, decided) = (self.quant(x).unwrap_or(yq), self.decided(x));
                all.push(if decided {
                    // Two rules for one scale: this node stays.
                    self.finding(y, why, None)
                } else if xq.scale[0] > yq.scale[0] {
                    // Scales grow only, so that this comes to an end where a rule asks for more.
                    self.set(y, union(xq, yq), why)
                } else {
                    self.set(x, yq.clone(), why)
                });
            }
        }
    }

    /// A finding that is mended by giving `id`, and what it has its scale from, a scale.
    fn set(&self, id: ValueId, quant: QuantParams, why: String) -> Finding {
        self.finding(id, why, Some(Fix::Quant(self.source(id), quant)))
    }

    fn finding(&self, id: ValueId, why: String, fix: Option<Fix>) -> Finding {
        Finding {
            node: self.graph.node_name(self.node).into(),
            op: self.node.op.name(),
            tensor: self.graph.values[id].name.clone(),
            why,
            fix,
        }
    }

    fn quant(&self, id: ValueId) -> Option<&QuantParams> {
        let value = &self.graph.values[id];
        value.quant.as_ref().filter(|q| value.is_quantized() && q.is_per_tensor())
    }

    /// The value that a value has its scale from, through operators that keep it.
    fn source(&self, id: ValueId) -> ValueId {
        let keeps = |n: &&Node| {
            let same = matches!(n.op.quantization(), Quantization::Moves | Quantization::Averages);
            n.outputs.contains(&id) && same && n.outputs.first() != self.node.outputs.first()
        };
        match self.graph.nodes.iter().find(keeps).and_then(|n| n.inputs[0]) {
            Some(x) => self.source(x),
            None => id,
        }
    }

    /// Whether a rule fixes a value's scale to a number.
    fn decided(&self, id: ValueId) -> bool {
        let source = self.source(id);
        let fixed = |n: &Node| matches!(n.op, Op::Softmax(_) | Op::Sigmoid(_) | Op::Tanh(_));
        self.graph.nodes.iter().any(|n| n.outputs.contains(&source) && fixed(n))
    }

    /// Why the target has no such operator.
    fn unsupported(&self, quant8: bool) -> Option<String> {
        let name = self.node.op.name();
        let reads_codes = self.node.inputs.first().copied().flatten().and_then(|x| self.quant(x));
        if self.node.op.quantization() == Quantization::Weighted && reads_codes.is_some() && !quant8
        {
            return Some(format!("{name} of codes gives codes there, not floats"));
        }
        let level = match &self.node.op {
            Op::Conv(conv) => {
                let weights = self.node.inputs.get(1).copied().flatten();
                let depthwise =
                    weights.is_some_and(|w| self.graph.values[w].shape.get(1) == Some(&1));
                let grouped = conv.group > 1 && !depthwise;
                let dilated = conv.window.dilations.iter().any(|&d| d > 1);
                if grouped || dilated { 29 } else { 27 }
            }
            Op::Clip(clip) => {
                let known = [(0.0, 6.0), (-1.0, 1.0), (0.0, f32::INFINITY)];
                let bounds =
                    (clip.min.unwrap_or(f32::NEG_INFINITY), clip.max.unwrap_or(f32::INFINITY));
                if !known.contains(&bounds) {
                    return Some(format!("there is no Clip from {} to {}", bounds.0, bounds.1));
                }
                27
            }
            Op::Add(_)
            | Op::AveragePool(_)
            | Op::Concat(_)
            | Op::DepthToSpace(_)
            | Op::DequantizeLinear(_)
            | Op::Flatten(_)
            | Op::Gemm(_)
            | Op::GlobalAveragePool(_)
            | Op::Identity(_)
            | Op::MatMul(_)
            | Op::MaxPool(_)
            | Op::GlobalMaxPool(_)
            | Op::Mul(_)
            | Op::Relu(_)
            | Op::Reshape(_)
            | Op::Sigmoid(_)
            | Op::Softmax(_)
            | Op::SpaceToDepth(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_)
            | Op::Dropout(_) => 27,
            Op::ReduceMean(_) | Op::Slice(_) | Op::Transpose(_) => 28,
            // Before 29, codes were padded with whatever the driver took for zero.
            Op::Pad(_) => 28 + u32::from(quant8),
            Op::Tanh(_) | Op::Sub(_) if !quant8 => {
                if name == "Tanh" {
                    27
                } else {
                    28
                }
            }
            Op::Div(_) if !quant8 => 28,
            Op::ArgMax(_)
            | Op::ConvTranspose(_)
            | Op::Gather(_)
            | Op::LeakyRelu(_)
            | Op::Max(_)
            | Op::Min(_)
            | Op::PRelu(_)
            | Op::QuantizeLinear(_)
            | Op::ReduceMax(_)
            | Op::ReduceMin(_)
            | Op::Resize(_)
            | Op::Split(_)
            | Op::Sub(_)
            | Op::Tanh(_) => 29,
            Op::Exp(_) | Op::Log(_) | Op::Sqrt(_) | Op::Abs(_) | Op::Neg(_) | Op::Pow(_)
                if !quant8 =>
            {
                29
            }
            Op::Elu(_) if !quant8 => 30,
            Op::HardSwish(_) => 30,
            _ => {
                return Some(format!(
                    "there is no {name}{}",
                    if quant8 { " in 8 bits" } else { "" }
                ));
            }
        };
        self.target.before(level).then(|| format!("{name} comes with API level {level}"))
    }
}
