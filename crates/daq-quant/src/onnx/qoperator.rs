//! The QOperator form: operators that take and give codes, with scales and zero points as inputs.
//!
//! One row of [`ROWS`] says how such an operator stores its inputs; the reader and the writer both
//! follow it. ONNX itself has QLinearConv and QLinearMatMul; the others are onnxruntime's
//! (`com.microsoft`). Operators that only move elements take codes as they are, and what neither
//! has goes through floats, between DequantizeLinear and QuantizeLinear.

use std::path::Path;

use daq::attrs::Attr;
use daq::ops::{Quantization, at_most};
use daq::{DType, Graph, Node, OpError, QuantParams, ValueId};

use super::call::Call;
use super::{OnnxError, qdq};

/// What stands at one place, or at several, of an operator's inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// The next input: codes, scale, zero point.
    Codes,
    /// All inputs that follow, each as codes, scale, zero point.
    AllCodes,
    /// The next input alone: a bias.
    Bias,
    /// The output's scale and zero point.
    Output,
}

/// An operator on codes.
#[derive(Debug)]
pub(super) struct Row {
    /// The float operator that it stands for.
    pub op: &'static str,
    /// Its name, after its domain where that is not ONNX.
    pub name: &'static str,
    parts: &'static [Part],
    /// Attributes beyond the float operator's, with the only value that daq reads and writes.
    attrs: &'static [(&'static str, i64)],
}

/// Operators that are read only: onnxruntime rounds in QLinearSoftmax where Softmax does not, so
/// that one through floats comes nearer to what daq computes.
const READ_ONLY: &[&str] = &["Softmax"];

const WEIGHTED: &[&str] = &["Conv", "Gemm", "MatMul"];
const UNARY: &[Part] = &[Part::Codes, Part::Output];
const BINARY: &[Part] = &[Part::Codes, Part::Codes, Part::Output];
const NCHW: (&str, i64) = ("channels_last", 0);

const ROWS: &[Row] = &[
    row("Conv", "QLinearConv", &[Part::Codes, Part::Codes, Part::Output, Part::Bias], &[]),
    row("MatMul", "QLinearMatMul", BINARY, &[]),
    row("Gemm", "com.microsoft.QGemm", &[Part::Codes, Part::Codes, Part::Bias, Part::Output], &[]),
    row("Add", "com.microsoft.QLinearAdd", BINARY, &[]),
    row("Mul", "com.microsoft.QLinearMul", BINARY, &[]),
    row("GlobalAveragePool", "com.microsoft.QLinearGlobalAveragePool", UNARY, &[NCHW]),
    row("AveragePool", "com.microsoft.QLinearAveragePool", UNARY, &[NCHW]),
    row("Concat", "com.microsoft.QLinearConcat", &[Part::Output, Part::AllCodes], &[]),
    row("Sigmoid", "com.microsoft.QLinearSigmoid", UNARY, &[]),
    row("LeakyRelu", "com.microsoft.QLinearLeakyRelu", UNARY, &[]),
    row("Softmax", "com.microsoft.QLinearSoftmax", UNARY, &[("opset", 13)]),
];

const fn row(
    op: &'static str,
    name: &'static str,
    parts: &'static [Part],
    attrs: &'static [(&'static str, i64)],
) -> Row {
    Row { op, name, parts, attrs }
}

/// The operators that onnxruntime moves `uint8` elements with.
const MOVES: &[&str] = &[
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// An 8-bit graph in the QOperator form: what ONNX and onnxruntime compute on codes stays, the
/// rest goes through floats, and so do inputs and outputs, under the same names.
pub fn qoperator(graph: &Graph) -> Graph {
    crate::qdq::unfold_where(graph, |node| !stays(graph, node))
}

/// Writes an 8-bit graph as a model file in the QOperator form, whole or not at all. The file
/// needs onnxruntime's operators (`com.microsoft`).
///
/// # Errors
/// As [`write`](super::write()).
pub fn write_qoperator(graph: &Graph, path: impl AsRef<Path>) -> Result<(), OnnxError> {
    super::write(&qoperator(graph), path)
}

/// Whether a node of an 8-bit graph can be written as it is.
fn stays(graph: &Graph, node: &Node) -> bool {
    let first = node.inputs.first().copied().flatten();
    let same_scale =
        |id: ValueId| node.outputs.iter().all(|&y| graph.values[y].quant == graph.values[id].quant);
    let moves = MOVES.contains(&node.op.name()) && node.op.quantization() == Quantization::Moves;
    match first {
        Some(id) if moves => is_u8(graph, id) && same_scale(id),
        _ => row_of(graph, node).is_some(),
    }
}

fn is_u8(graph: &Graph, id: ValueId) -> bool {
    let value = &graph.values[id];
    value.dtype == DType::U8 && value.quant.as_ref().is_some_and(QuantParams::is_per_tensor)
}

/// The row by which a node is written; `None` for one that does not work on codes, or not in a way
/// that such an operator has.
pub(super) fn row_of(graph: &Graph, node: &Node) -> Option<&'static Row> {
    let name = node.op.name();
    let row = ROWS.iter().find(|row| row.op == name && !READ_ONLY.contains(&name))?;
    let weighted = WEIGHTED.contains(&row.op);
    let fits = |(i, id): (usize, &Option<ValueId>)| match (i, *id) {
        (_, None) => i > 1,
        (1, Some(id)) if weighted => {
            graph.values[id].dtype.is_code() && graph.values[id].quant.is_some()
        }
        (2, Some(id)) if weighted => graph.values[id].dtype == DType::I32,
        (_, Some(id)) => is_u8(graph, id),
    };
    let inputs = node.inputs.iter().enumerate().all(fits);
    (inputs && node.outputs.iter().all(|&id| is_u8(graph, id))).then_some(row)
}

/// The row of an operator in a file, by its name with its domain.
pub(super) fn row_named(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// One input of an operator in the QOperator form.
pub(super) enum Slot {
    /// The tensor of the node's input `i`, where it has one.
    Tensor(usize),
    /// Scale and zero point, two inputs, of the node's input `i`.
    InputQuant(usize),
    /// Scale and zero point, two inputs, of the output.
    OutputQuant,
}

impl Row {
    /// Domain and name.
    pub fn domain_and_name(&self) -> (&'static str, &'static str) {
        self.name.rsplit_once('.').unwrap_or(("", self.name))
    }

    /// What the inputs are, in order, for a node of `count` inputs.
    pub fn slots(&self, count: usize) -> Vec<Slot> {
        let (mut slots, mut next) = (Vec::new(), 0);
        for part in self.parts {
            match part {
                Part::Codes => {
                    slots.extend([Slot::Tensor(next), Slot::InputQuant(next)]);
                    next += 1;
                }
                Part::AllCodes => {
                    let all = next..count.max(next);
                    slots.extend(all.flat_map(|i| [Slot::Tensor(i), Slot::InputQuant(i)]));
                    next = count;
                }
                Part::Bias => {
                    slots.push(Slot::Tensor(next));
                    next += 1;
                }
                Part::Output => slots.push(Slot::OutputQuant),
            }
        }
        slots
    }

    /// The attributes beyond the float operator's.
    pub fn attributes(&self) -> impl Iterator<Item = (String, Attr)> {
        self.attrs.iter().map(|&(name, value)| (name.to_string(), Attr::Int(value)))
    }

    /// Takes scales and zero points out of `call` and makes it the float operator's. Gives the
    /// quantization of each remaining input, and type and quantization of the output.
    pub fn take(&self, call: &mut Call, graph: &Graph) -> Result<Taken, OpError> {
        for (name, only) in self.attrs {
            let found = call.attrs.int(name, *only)?;
            if found != *only {
                return Err(OpError::unsupported(
                    format!("`{name}` = {found}"),
                    format!("only {only} is; write the model in the QDQ form instead"),
                ));
            }
            call.map().remove(*name);
        }
        let count = match self.parts.contains(&Part::AllCodes) {
            true => call.inputs.len().saturating_sub(2) / 3,
            false => self.parts.iter().filter(|p| **p != Part::Output).count(),
        };
        let (mut inputs, mut quants) = (vec![None; count], vec![None; count]);
        let (mut output, mut signed) = (None, false);
        let mut at = 0;
        for slot in self.slots(count) {
            match slot {
                Slot::Tensor(i) => {
                    inputs[i] = call.inputs.get(at).copied().flatten();
                    at += 1;
                }
                Slot::InputQuant(i) => {
                    let x = call.spec(graph, at - 1)?;
                    let u8_only = !(WEIGHTED.contains(&self.op) && i == 1);
                    if !x.dtype.is_code() {
                        let allowed = "uint8 and int8";
                        return Err(OpError::Type { index: at - 1, dtype: x.dtype, allowed });
                    }
                    signed |= u8_only && x.dtype == DType::I8;
                    let (codes, mut quant) = qdq::quantization(call, graph, at, Some(x.dtype))?;
                    if codes != x.dtype {
                        let allowed = "the type of the codes";
                        return Err(OpError::Type { index: at + 1, dtype: codes, allowed });
                    }
                    let rank = x.shape.len();
                    quant.axis = match (self.op, quant.is_per_tensor()) {
                        (_, true) | ("Conv", _) => 0,
                        ("Gemm", _) if call.attrs.flag("transB", false)? => 0,
                        _ => rank.saturating_sub(1),
                    };
                    let one = quant.is_per_tensor() || !u8_only;
                    let fits = quant.is_per_tensor()
                        || x.shape.get(quant.axis) == Some(&quant.scale.len());
                    if !one || !fits {
                        let why = format!("{} scales do not fit input {i}", quant.scale.len());
                        return Err(OpError::Shape { why, shapes: vec![x.shape] });
                    }
                    quants[i] = Some(quant);
                    at += 2;
                }
                Slot::OutputQuant => {
                    let (dtype, quant) = qdq::quantization(call, graph, at, None)?;
                    if !dtype.is_code() || !quant.is_per_tensor() {
                        return Err(OpError::unsupported(
                            format!("an output of {dtype} codes with {} scales", quant.scale.len()),
                            "quantize activations to 8 bits with one scale, or write QDQ",
                        ));
                    }
                    signed |= dtype == DType::I8;
                    output = Some((dtype, quant));
                    at += 2;
                }
            }
        }
        at_most(at, &call.inputs)?;
        if self.parts.contains(&Part::Bias)
            && let [Some(x), Some(w), bias] = &mut quants[..]
        {
            let scale: Vec<f32> = w.scale.iter().map(|w| x.scale[0] * w).collect();
            qdq::check_scales(&scale, DType::I32)?;
            *bias = Some(QuantParams { zero_point: vec![0; scale.len()], scale, axis: 0 });
        }
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        call.inputs = inputs;
        call.op = self.op.to_string();
        Ok(Taken { inputs: quants, output, signed })
    }
}

/// What [`Row::take`] took out of a call.
pub(super) struct Taken {
    /// The quantization of each input.
    pub inputs: Vec<Option<QuantParams>>,
    /// Type and quantization of the output.
    pub output: Option<(DType, QuantParams)>,
    /// Whether activations are `int8`.
    pub signed: bool,
}

#[cfg(test)]
mod tests {
    use daq::{Model, Tensor};
    use prost::Message;

    use super::super::proto::tensor_proto::DataType;
    use super::super::proto::{AttributeProto, ModelProto, OperatorSetIdProto};
    use super::super::small::*;
    use super::super::to_bytes;
    use super::*;
    use crate::qdq::fold;

    /// `q = QuantizeLinear(x)`, the operator `name` of `inputs` and `y = DequantizeLinear(c)`.
    fn between(name: &str, inputs: &[&str], attributes: &[AttributeProto]) -> ModelProto {
        let (domain, op) = name.rsplit_once('.').unwrap_or(("", name));
        let mut middle = node(op, inputs, &["c"], attributes);
        middle.domain = Some(domain.into());
        let constants = [
            floats("s", &[], &[0.5]),
            bytes("z", DataType::Uint8, &[], &[10]),
            bytes("w", DataType::Int8, &[2, 1, 1, 1], &[3, -2]),
            floats("ws", &[2], &[0.25, 0.5]),
            bytes("wz", DataType::Int8, &[2], &[0, 0]),
            bytes("b", DataType::Int32, &[2], &[4, -8]),
            bytes("yz", DataType::Uint8, &[], &[20]),
            bytes("signed", DataType::Int8, &[], &[0]),
        ];
        let nodes = [
            node("QuantizeLinear", &["x", "s", "z"], &["q"], &[]),
            middle,
            node("DequantizeLinear", &["c", "s", "yz"], &["y"], &[]),
        ];
        let mut model = model(13, &[("x", &[1, 1, 1, 2])], &constants, &nodes, &["y"]);
        let microsoft =
            OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1) };
        model.opset_import.push(microsoft);
        model
    }

    fn run(graph: &Graph, x: &[f32]) -> Vec<f32> {
        let mut session = Model::from_graph(graph.clone()).unwrap().session(1);
        let x = Tensor::from_slice(&[1, 1, 1, 2], x);
        session.run(&[("x", &x)], Some(DType::F32)).unwrap()[0].data().to_vec()
    }

    const CONV: &[&str] = &["q", "s", "z", "w", "ws", "wz", "s", "yz", "b"];

    #[test]
    fn operators_on_codes_are_read_and_written() {
        // x = [5, -2] has the codes [20, 6], of which 10 are the zero point.
        /// The operator, its inputs, what comes out, and the operator in the graph.
        type Case<'a> = (&'a str, &'a [&'a str], &'a [f32], &'a str);
        let cases: [Case; 4] = [
            // (3 * [10, -4] + 4) / 4 = [8.5, -2] and (-2 * [10, -4] - 8) / 2 = [-14, 0], halved.
            ("QLinearConv", CONV, &[4.0, -1.0, -7.0, 0.0], "Conv"),
            (
                "com.microsoft.QLinearAdd",
                &["q", "s", "z", "q", "s", "z", "s", "yz"],
                &[10.0, -4.0],
                "Add",
            ),
            (
                "com.microsoft.QLinearConcat",
                &["s", "yz", "q", "s", "z", "q", "s", "z"],
                &[5.0, -2.0, 5.0, -2.0],
                "Concat",
            ),
            (
                "com.microsoft.QLinearLeakyRelu",
                &["q", "s", "z", "s", "yz"],
                &[5.0, -1.0],
                "LeakyRelu",
            ),
        ];
        for (name, inputs, expected, op) in cases {
            let attributes = match op {
                "Concat" => vec![int("axis", 3)],
                "LeakyRelu" => vec![float("alpha", 0.5)],
                _ => vec![],
            };
            let graph = fold(&read_model(&between(name, inputs, &attributes)).unwrap());
            let found: Vec<_> = graph.nodes.iter().map(|n| n.op.name()).collect();
            assert_eq!(found, [op]);
            assert_eq!(run(&graph, &[5.0, -2.0]), expected, "{name}");
            let written = to_bytes(&qoperator(&graph)).unwrap();
            let model = ModelProto::decode(&written[..]).unwrap();
            let nodes = model.graph.as_ref().unwrap().node.iter();
            let (domain, op) = name.rsplit_once('.').unwrap_or(("", name));
            let written: Vec<_> = nodes.map(|n| n.op_type.as_deref().unwrap()).collect();
            assert_eq!(written, ["QuantizeLinear", op, "DequantizeLinear"]);
            let mut imports = model.opset_import.iter().map(|o| o.domain.as_deref().unwrap());
            assert!(imports.any(|d| d == domain), "{name}");
            let again = fold(&read_model(&model).unwrap());
            assert_eq!(again.nodes.len(), 1, "{name}");
            assert_eq!(run(&again, &[5.0, -2.0]), expected, "{name} again");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let with = |at: usize, name: &'static str| {
            let mut inputs = CONV.to_vec();
            inputs[at] = name;
            ("QLinearConv", inputs, vec![])
        };
        let pool = |channels_last| {
            let name = "com.microsoft.QLinearGlobalAveragePool";
            (name, vec!["q", "s", "z", "s", "yz"], vec![int("channels_last", channels_last)])
        };
        let cases = [
            (with(1, "ws"), "2 scales and 1 zero points"),
            (with(2, "signed"), "input 2 has type i8"),
            (with(7, "signed"), "input 0 has type i8"),
            (with(4, "s"), "1 scales and 2 zero points"),
            (with(0, "w"), "input 2 has type u8"),
            (with(1, ""), "input 1"),
            (with(1, "q"), "input 1 (`scale`, here `q`) computed at run time"),
            (pool(1), "`channels_last` = 1"),
            (("com.microsoft.QLinearFoo", vec!["q"], vec![]), "com.microsoft.QLinearFoo"),
        ];
        for ((name, inputs, attributes), part) in cases {
            let error = read_model(&between(name, &inputs, &attributes)).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(read_model(&between(pool(0).0, &pool(0).1, &pool(0).2)).is_ok());
        // Only the bias, and a zero point of 0, can be left out.
        for missing in 0..CONV.len() - 2 {
            let model = between("QLinearConv", &CONV[..missing], &[]);
            assert!(read_model(&model).is_err(), "{missing} inputs");
        }
    }
}
