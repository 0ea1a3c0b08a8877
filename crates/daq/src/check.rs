//! What an operator takes besides types and shapes: codes with a scale, weights with theirs on the
//! axis that the operator reads, constant indices within their axis. Every graph passes through
//! here, whichever file it came from, so that kernels and references need not ask again.

use crate::compile::Operand;
use crate::error::OpError;
use crate::ops::{Gather, GatherElements, Op, Quantization, ScatterElements, Spec, normalize_axis};
use crate::quant::QuantParams;
use crate::tensor::DType;

type Checked = Result<(), OpError>;

const ADD_SCALE: &str = "put QuantizeLinear and DequantizeLinear around it, or Cast it to float";
const ONE_SCALE: &str = "quantize activations per tensor";
const PRODUCT: &str = "quantize its input and output to uint8 per tensor and its weights to 8 bits, \
                       or leave it in float between DequantizeLinear and QuantizeLinear";

/// Refuses a node that a plan could not run, or would run with another meaning than the file's.
///
/// `inferred` is what [`Op::infer`] gives for the inputs.
pub(crate) fn node(
    op: &Op,
    inputs: &[Option<Operand>],
    outputs: &[Operand],
    inferred: &[Spec],
) -> Checked {
    if outputs.is_empty() {
        return Err(OpError::unsupported("a node without an output", "remove it"));
    }
    runnable(op, inputs, outputs)?;
    let quantization = op.quantization();
    // Those that may give another type than they take; `runnable` has checked it.
    if matches!(op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_))
        || quantization == Quantization::Weighted
    {
        return Ok(());
    }
    for (i, (output, spec)) in outputs.iter().zip(inferred).enumerate() {
        if output.dtype != spec.dtype {
            return Err(OpError::unsupported(
                format!("output {i} of type {} where {} is computed", output.dtype, spec.dtype),
                "correct its type, or convert it with QuantizeLinear, DequantizeLinear or Cast",
            ));
        }
    }
    use Quantization::{Averages, Codes, FloatInside, Integer, Moves, Never, Table, Weighted};
    let needs_scale = match quantization {
        Never | Moves | Weighted => return Ok(()),
        Codes => false,
        // Plain bytes are moved.
        Integer if matches!(op, Op::Concat(_)) => {
            ports(inputs, outputs).any(|(_, operand)| operand.quant.is_some())
        }
        Averages | Table | Integer | FloatInside => true,
    };
    for (port, operand) in ports(inputs, outputs).filter(|(_, o)| o.dtype.is_code()) {
        match operand.quant {
            None if needs_scale => {
                let what = format!("{} without a scale as {port}", operand.dtype);
                return Err(OpError::unsupported(what, ADD_SCALE));
            }
            Some(quant) if !quant.is_per_tensor() => {
                let what = format!("{} scales for {port}", quant.scale.len());
                return Err(OpError::unsupported(what, ONE_SCALE));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses what the reference computation cannot run: the part of [`node`] that constant folding
/// needs as well.
pub(crate) fn runnable(op: &Op, inputs: &[Option<Operand>], outputs: &[Operand]) -> Checked {
    let input = |i: usize| inputs.get(i).and_then(Option::as_ref);
    match op {
        Op::QuantizeLinear(_) => match outputs.first() {
            Some(y) if y.dtype.is_code() && y.quant.is_some() => Ok(()),
            _ => Err(OpError::unsupported(
                "QuantizeLinear to anything but u8 or i8 with a scale",
                "quantize to uint8",
            )),
        },
        Op::DequantizeLinear(_) => {
            let scaled = input(0).is_some_and(|x| x.quant.is_some());
            match scaled && outputs.first().is_none_or(|y| y.dtype == DType::F32) {
                true => Ok(()),
                false => Err(OpError::unsupported(
                    "DequantizeLinear of numbers without a scale, or to anything but f32",
                    "give it codes with a scale",
                )),
            }
        }
        Op::Gather(Gather { axis })
        | Op::GatherElements(GatherElements { axis })
        | Op::ScatterElements(ScatterElements { axis, .. }) => {
            let rank = input(0).map_or(0, |x| x.shape.len());
            let axis = normalize_axis(*axis, rank)?;
            indices(input(0), input(1), |_| axis)
        }
        Op::GatherND(_) | Op::ScatterND(_) => {
            let depth = input(1).and_then(|i| i.shape.last()).map_or(1, |&depth| depth.max(1));
            let first = match op {
                Op::GatherND(gather) => gather.batch_dims as usize,
                _ => 0,
            };
            indices(input(0), input(1), |i| first + i % depth)
        }
        _ if op.quantization() == Quantization::Weighted => weighted(op, inputs, outputs),
        _ => Ok(()),
    }
}

/// Inputs and outputs with what errors call them.
fn ports<'a>(
    inputs: &'a [Option<Operand<'a>>],
    outputs: &'a [Operand<'a>],
) -> impl Iterator<Item = (String, &'a Operand<'a>)> {
    let given =
        |(i, x): (usize, &'a Option<Operand<'a>>)| Some((format!("input {i}"), x.as_ref()?));
    let inputs = inputs.iter().enumerate().filter_map(given);
    inputs.chain(outputs.iter().enumerate().map(|(i, y)| (format!("output {i}"), y)))
}

/// Products of floats, or of `u8` codes with 8-bit weights into `u8` codes or floats; `infer` has
/// checked that the inputs' types fit one another.
fn weighted(op: &Op, inputs: &[Option<Operand>], outputs: &[Operand]) -> Checked {
    let refuse = |what: String| Err(OpError::unsupported(what, PRODUCT));
    let input = |i: usize| inputs.get(i).and_then(Option::as_ref);
    let (Some(x), Some(w), Some(y)) = (input(0), input(1), outputs.first()) else { return Ok(()) };
    let into_floats = y.dtype == DType::F32 && !matches!(op, Op::ConvTranspose(_));
    if y.dtype != x.dtype && !into_floats {
        return refuse(format!("an output of {} for an input of {}", y.dtype, x.dtype));
    }
    if x.dtype == DType::F32 {
        return Ok(());
    }
    let Some(w_quant) = w.quant else { return refuse("weights without a scale".into()) };
    let mut scales = [1.0; 2];
    for ((port, operand), scale) in [("input", x), ("output", y)].into_iter().zip(&mut scales) {
        match operand.quant {
            _ if operand.dtype == DType::F32 => {}
            Some(quant) if quant.is_per_tensor() => *scale = quant.scale[0],
            Some(quant) => return refuse(format!("{} scales for the {port}", quant.scale.len())),
            None => return refuse(format!("an {port} of codes without a scale")),
        }
    }
    let axis = weights_axis(op, w.shape.len());
    if !w_quant.is_per_tensor() && Some(w_quant.axis) != axis {
        return Err(OpError::unsupported(
            format!("weights of shape {:?} with scales along axis {}", w.shape, w_quant.axis),
            match axis {
                Some(axis) => format!("quantize them along axis {axis} or per tensor"),
                None => "quantize them per tensor".into(),
            },
        ));
    }
    let [x_scale, y_scale] = scales;
    let multiplier = |w: &f32| x_scale * w / y_scale;
    match w_quant.scale.iter().map(multiplier).find(|m| !m.is_finite()) {
        Some(m) => refuse(format!("scales of input, weights and output that combine to {m}")),
        None => bias(input(2), x_scale, w_quant),
    }
}

/// A bias is added to the products, so its scale must be theirs.
fn bias(bias: Option<&Operand>, x_scale: f32, weights: &QuantParams) -> Checked {
    let Some(quant) = bias.and_then(|b| b.quant) else { return Ok(()) };
    let count = quant.scale.len().max(weights.scale.len());
    let repeats = |n: usize| n == 1 || n == count;
    // Scales below this lose digits: the ratio says nothing.
    let agree = |c: usize| {
        let product = x_scale * weights.scale_of(c);
        product < 1e-37 || (quant.scale_of(c) / product - 1.0).abs() < 1e-3
    };
    let fits = repeats(quant.scale.len()) && repeats(weights.scale.len()) && (0..count).all(agree);
    match fits {
        true => Ok(()),
        false => Err(OpError::unsupported(
            "a bias whose scale is not that of input times weights",
            "quantize the bias as int32 at the product of these scales",
        )),
    }
}

/// The axis along which each slice of the weights may have a scale of its own: that of the
/// output's channels. None for a vector, which is one column.
fn weights_axis(op: &Op, rank: usize) -> Option<usize> {
    match op {
        Op::Gemm(gemm) => Some(usize::from(!gemm.trans_b)),
        Op::ConvTranspose(_) => Some(1),
        Op::MatMul(_) if rank < 2 => None,
        Op::MatMul(_) => Some(rank - 1),
        _ => Some(0),
    }
}

/// Refuses constant indices beyond their axis of `x`, which is `axis_of(i)` for the one at `i`.
fn indices(
    x: Option<&Operand>,
    indices: Option<&Operand>,
    axis_of: impl Fn(usize) -> usize,
) -> Checked {
    let (Some(x), Some(indices)) = (x, indices.and_then(|i| i.data)) else { return Ok(()) };
    let all: Vec<i64> = match indices.dtype() {
        DType::I32 => indices.data::<i32>().iter().map(|&i| i.into()).collect(),
        _ => indices.data::<i64>().to_vec(),
    };
    let len = |i: usize| x.shape.get(axis_of(i)).map_or(0, |&len| len as i64);
    match all.iter().enumerate().find(|(i, index)| !(-len(*i)..len(*i)).contains(*index)) {
        Some((i, index)) => Err(OpError::unsupported(
            format!("index {index} on axis {} of length {}", axis_of(i), len(i)),
            "indices must be within the axis: correct the model",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs::{Attr, Attrs};
    use crate::graph::{Graph, Node, Value};
    use crate::layout::Layout;
    use crate::tensor::Tensor;

    fn one(scale: f32) -> Option<QuantParams> {
        Some(QuantParams::per_tensor(scale, 0))
    }

    fn channels(n: usize, axis: usize) -> Option<QuantParams> {
        Some(QuantParams::per_channel(vec![0.1; n], axis))
    }

    type Port<'a> = (DType, &'a [usize], Option<QuantParams>);

    /// What validation says of one node; constant inputs but for the first.
    fn verdict(op: &str, attrs: Attrs, inputs: &[Port], output: Port) -> String {
        let mut g = Graph::default();
        for (i, (dtype, shape, quant)) in inputs.iter().enumerate() {
            let name = format!("in{i}");
            let value = match i {
                0 => Value::new(name, *dtype, shape),
                _ => Value::constant(name, Tensor::zeros(*dtype, shape)),
            };
            g.add_value(Value { quant: quant.clone(), ..value });
        }
        let (dtype, shape, quant) = output;
        let y = g.add_value(Value { quant, ..Value::new("y", dtype, shape) });
        let op = Op::from_attrs(op, &attrs).unwrap().unwrap();
        let inputs = (0..inputs.len()).map(Some).collect();
        let (name, doc) = ("the node".into(), String::new());
        g.nodes.push(Node { name, op, inputs, outputs: vec![y], doc });
        (g.inputs, g.outputs) = (vec![0], vec![y]);
        g.validate().map_or_else(|e| e.to_string(), |()| String::new())
    }

    #[test]
    fn misfits_name_node_operator_and_remedy() {
        use DType::{F32, I8, I32, I64, U8};
        let none = Attrs::new;
        let trans_b = || none().with("transB", Attr::Int(1));
        let x: &[usize] = &[1, 2, 1, 1];
        let (w, y): (&[usize], &[usize]) = (&[3, 2, 1, 1], &[1, 3, 1, 1]);
        let conv = |x_quant, w_quant, y: Port| {
            verdict("Conv", none(), &[(U8, x, x_quant), (I8, w, w_quant)], y)
        };
        let codes: Port = (U8, y, one(0.5));
        let m: &[usize] = &[3, 3];
        let gemm = |attrs, axis| {
            let inputs = [(U8, m, one(0.1)), (I8, m, channels(3, axis))];
            verdict("Gemm", attrs, &inputs, (U8, m, one(0.1)))
        };
        let two = |op: &str, a: Port, b: Port, y: Port| verdict(op, none(), &[a, b], y);
        let unary = |op: &str, a: Port, y: Port| verdict(op, none(), &[a], y);
        let biased = |scale: QuantParams| {
            let inputs = [(U8, x, one(0.5)), (I8, w, channels(3, 0)), (I32, &[3][..], Some(scale))];
            verdict("Conv", none(), &inputs, codes.clone())
        };
        let v: &[usize] = &[2];
        let concat = |quant| {
            let inputs = [(U8, v, None), (U8, v, quant)];
            verdict("Concat", none().with("axis", Attr::Int(0)), &inputs, (U8, &[4], None))
        };
        let cases = [
            (conv(one(0.1), one(0.1), codes.clone()), ""),
            (conv(one(0.1), channels(3, 0), codes.clone()), ""),
            (conv(None, one(0.1), codes.clone()), "codes without a scale"),
            (conv(one(0.1), None, codes.clone()), "weights without a scale"),
            (conv(one(0.1), one(0.1), (U8, y, None)), "codes without a scale"),
            (conv(one(0.1), one(0.1), (F32, y, None)), ""),
            (conv(one(1e30), one(1e30), (F32, y, None)), "combine to inf"),
            (
                two(
                    "ConvTranspose",
                    (U8, x, one(0.1)),
                    (I8, &[2, 3, 1, 1], one(0.1)),
                    (F32, y, None),
                ),
                "an output of f32",
            ),
            (conv(one(0.1), one(0.1), (I8, y, one(0.1))), "an output of i8"),
            (conv(one(0.1), channels(2, 1), codes.clone()), "along axis 0 or per tensor"),
            (conv(one(1e30), one(1e30), codes.clone()), "combine to inf"),
            (biased(QuantParams::per_tensor(0.05, 0)), ""),
            (biased(QuantParams::per_channel(vec![0.05; 3], 0)), ""),
            (biased(QuantParams::per_channel(vec![0.05, 0.05, 0.06], 0)), "a bias whose scale"),
            (gemm(none(), 1), ""),
            (gemm(none(), 0), "along axis 1 or per tensor"),
            (gemm(trans_b(), 0), ""),
            (gemm(trans_b(), 1), "along axis 0 or per tensor"),
            (two("MatMul", (U8, m, one(0.1)), (I8, m, channels(3, 1)), (U8, m, one(1.))), ""),
            (
                two("MatMul", (U8, m, one(0.1)), (I8, m, channels(3, 0)), (U8, m, one(1.))),
                "along axis 1",
            ),
            (
                two("MatMul", (U8, m, one(0.1)), (I8, &[3], channels(3, 0)), (U8, &[3], one(1.))),
                "quantize them per tensor",
            ),
            (
                two(
                    "ConvTranspose",
                    (U8, x, one(0.1)),
                    (I8, &[2, 3, 1, 1], channels(3, 1)),
                    codes.clone(),
                ),
                "",
            ),
            (
                two(
                    "ConvTranspose",
                    (U8, x, one(0.1)),
                    (I8, &[2, 3, 1, 1], channels(2, 0)),
                    codes.clone(),
                ),
                "along axis 1 or per tensor",
            ),
            (two("Conv", (U8, x, one(0.1)), (F32, w, None), codes.clone()), "input 1 has type f32"),
            (
                two("Conv", (I8, x, one(0.1)), (I8, w, one(0.1)), codes.clone()),
                "input 0 has type i8",
            ),
            (two("Conv", (F32, x, None), (F32, w, None), codes.clone()), "an output of u8"),
            (
                verdict(
                    "Conv",
                    none(),
                    &[(U8, x, one(0.1)), (I8, w, one(0.1)), (I64, &[3], None)],
                    codes.clone(),
                ),
                "input 2 has type i64",
            ),
            (
                verdict(
                    "Conv",
                    none(),
                    &[(U8, x, one(0.1)), (I8, w, one(0.1)), (I32, &[2], None)],
                    codes.clone(),
                ),
                "the bias must have shape [3]",
            ),
            (two("Add", (U8, v, one(0.1)), (U8, v, one(0.2)), (U8, v, one(0.3))), ""),
            (
                two("Add", (U8, v, None), (U8, v, one(0.2)), (U8, v, one(0.3))),
                "u8 without a scale as input 0",
            ),
            (
                two("Add", (U8, v, one(0.1)), (U8, v, channels(2, 0)), (U8, v, one(0.3))),
                "2 scales for input 1",
            ),
            (
                two("Add", (U8, v, one(0.1)), (U8, v, one(0.2)), (U8, v, None)),
                "u8 without a scale as output 0",
            ),
            (
                two("Add", (U8, v, one(0.1)), (U8, v, one(0.2)), (F32, v, None)),
                "output 0 of type f32",
            ),
            (two("Add", (U8, v, one(0.1)), (F32, v, None), (F32, v, None)), ""),
            (unary("Relu", (U8, v, None), (U8, v, one(0.1))), "u8 without a scale as input 0"),
            (unary("Relu", (F32, v, None), (I32, v, None)), "output 0 of type i32"),
            (unary("Relu", (F32, v, None), (F32, v, one(0.1))), ""),
            (unary("QuantizeLinear", (F32, v, None), (U8, v, one(0.1))), ""),
            (unary("QuantizeLinear", (F32, v, None), (U8, v, None)), "QuantizeLinear to anything"),
            (
                unary("QuantizeLinear", (F32, v, None), (I32, v, one(0.1))),
                "QuantizeLinear to anything",
            ),
            (
                unary("QuantizeLinear", (F32, v, None), (F32, v, one(0.1))),
                "QuantizeLinear to anything",
            ),
            (unary("DequantizeLinear", (U8, v, one(0.1)), (F32, v, None)), ""),
            (unary("DequantizeLinear", (U8, v, None), (F32, v, None)), "without a scale"),
            (unary("DequantizeLinear", (U8, v, one(0.1)), (I32, v, None)), "anything but f32"),
            (unary("Identity", (I64, v, one(0.1)), (I64, v, None)), "`in0`: i64 with a scale"),
            (unary("GlobalAveragePool", (F32, x, None), (U8, x, one(0.1))), "output 0 of type u8"),
            (concat(None), ""),
            (concat(one(0.1)), "u8 without a scale"),
            (two("Gather", (F32, v, None), (I64, &[], None), (F32, &[], None)), ""),
        ];
        for (i, (why, expected)) in cases.iter().enumerate() {
            assert_eq!(why.is_empty(), expected.is_empty(), "case {i}: {why}, not {expected}");
            assert!(why.contains(expected), "case {i}: {why} does not say {expected}");
            let named = why.contains("node `the node` (") || why.contains("`in0`");
            assert!(why.is_empty() || named, "{why}");
        }
    }

    #[test]
    fn constant_indices_nodes_without_outputs_and_layouts() {
        let mut g = Graph::default();
        g.add_value(Value::new("x", DType::F32, &[2, 3]));
        g.add_value(Value::constant("i", Tensor::from_slice(&[1], &[-3i64])));
        g.add_value(Value::new("y", DType::F32, &[2, 1]));
        let op = Op::from_attrs("Gather", &Attrs::new().with("axis", Attr::Int(1)));
        let (inputs, outputs) = (vec![Some(0), Some(1)], vec![2]);
        let (name, op) = ("pick".into(), op.unwrap().unwrap());
        g.nodes.push(Node { name, op, inputs, outputs, doc: String::new() });
        (g.inputs, g.outputs) = (vec![0], vec![2]);
        g.validate().unwrap();
        let with = |change: &dyn Fn(&mut Graph)| {
            let mut g = g.clone();
            change(&mut g);
            g.validate().unwrap_err().to_string()
        };
        let why = with(&|g| g.values[1].data = Some(Tensor::from_slice(&[1], &[-4i64])));
        assert!(why.contains("`pick` (Gather)") && why.contains("index -4 on axis 1"), "{why}");
        // The same for others that index: rows of pairs for GatherND, which name axes 0 and 1.
        let updates = |g: &mut Graph, shape: &[usize]| {
            let id = g.add_value(Value::constant("u", Tensor::zeros(DType::F32, shape)));
            g.nodes[0].inputs.push(Some(id));
            g.values[2].shape = vec![2, 3];
        };
        for (name, pair, beyond) in [
            ("GatherElements", [1i64, 3], "index 3 on axis 1 of length 3"),
            ("ScatterElements", [-4, 2], "index -4 on axis 1 of length 3"),
            ("GatherND", [2, 2], "index 2 on axis 0 of length 2"),
            ("ScatterND", [0, 3], "index 3 on axis 1 of length 3"),
        ] {
            let of = |pair: [i64; 2]| {
                let mut g = g.clone();
                let attrs = match name.ends_with("Elements") {
                    true => Attrs::new().with("axis", Attr::Int(1)),
                    false => Attrs::new(),
                };
                g.nodes[0].op = Op::from_attrs(name, &attrs).unwrap().unwrap();
                g.values[1] = Value::constant("i", Tensor::from_slice(&[1, 2], &pair));
                match name {
                    "ScatterElements" => updates(&mut g, &[1, 2]),
                    "ScatterND" => updates(&mut g, &[1]),
                    "GatherND" => g.values[2].shape = vec![1],
                    _ => g.values[2].shape = vec![1, 2],
                }
                g.validate().map_err(|e| e.to_string())
            };
            assert_eq!(of([1, 2]), Ok(()), "{name}");
            let why = of(pair).unwrap_err();
            assert!(why.contains(name) && why.contains(beyond), "{why}");
        }
        let why = with(&|g| g.nodes[0].outputs.clear());
        assert!(why.contains("without an output"), "{why}");
        let why = with(&|g| g.values[1].layout = Layout::ChannelsLast);
        assert!(why.contains("`i` is not an input or output, but has a layout"), "{why}");
    }
}
