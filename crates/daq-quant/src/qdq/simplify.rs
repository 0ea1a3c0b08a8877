//! Forms in which others write QDQ graphs, brought to the one that [`fold`](super::fold) matches.
//!
//! All but [`quantize_biases`] leave every code as it was: a quantizer is monotone, so clamping
//! before it is clamping after it, and elements that only move are quantized anywhere.

use std::collections::{BTreeMap, HashMap};

use daq::ops::{DequantizeLinear, Quantization, QuantizeLinear};
use daq::{DType, Graph, Node, Op, QuantParams, Tensor, Value, ValueId};

use super::{by_channel, stays_float};

/// The largest bias in steps: as much again is left to the products.
const MAX_BIAS: f32 = (1 << 30) as f32;

/// Brings a QDQ graph to the form that `fold` matches, but for operators that stay float for a
/// reason.
pub(super) fn simplify(graph: &mut Graph, reasons: &BTreeMap<String, String>) {
    by_channel::move_scales(graph);
    shift_signed(graph);
    quantize_moves(graph, reasons);
    move_clamps(graph, reasons);
    quantize_biases(graph, reasons);
}

/// `int8` activations become `uint8`: codes and zero point grow by 128.
fn shift_signed(graph: &mut Graph) {
    let (producers, consumers) = (graph.producers(), graph.consumers());
    for id in 0..graph.values.len() {
        let value = &graph.values[id];
        let signed = value.dtype == DType::I8
            && value.quant.as_ref().is_some_and(QuantParams::is_per_tensor);
        let outside = graph.inputs.contains(&id) || graph.outputs.contains(&id);
        if !signed || outside || consumers[id].is_empty() {
            continue;
        }
        let made = match producers[id] {
            Some(p) => matches!(graph.nodes[p].op, Op::QuantizeLinear(_)),
            None => value.data.is_some(),
        };
        let read = consumers[id].iter().all(|&reader| {
            let reader = &graph.nodes[reader];
            matches!(reader.op, Op::DequantizeLinear(_))
                && (producers[id].is_some() || !is_weight(graph, &consumers, reader.outputs[0]))
        });
        if !made || !read {
            continue;
        }
        let value = &mut graph.values[id];
        value.dtype = DType::U8;
        if let Some(quant) = &mut value.quant {
            quant.zero_point[0] += 128;
        }
        if let Some(data) = &value.data {
            let bytes: Vec<u8> = data.bytes().iter().map(|b| b ^ 0x80).collect();
            value.data = Some(Tensor::from_bytes(DType::U8, data.shape(), &bytes));
        }
    }
}

/// Whether an operator multiplies by a value, or adds it as a bias.
fn is_weight(graph: &Graph, consumers: &[Vec<usize>], id: ValueId) -> bool {
    consumers[id].iter().any(|&reader| {
        let node = &graph.nodes[reader];
        node.op.quantization() == Quantization::Weighted
            && node.inputs.iter().skip(1).any(|input| *input == Some(id))
    })
}

/// An operator that only moves dequantized codes gets a quantizer of the same scale behind it.
fn quantize_moves(graph: &mut Graph, reasons: &BTreeMap<String, String>) {
    let consumers = graph.consumers();
    // Floats that are quantized where they are read.
    let quantizers = graph.nodes.iter().map(|n| matches!(n.op, Op::QuantizeLinear(_)));
    let quantizers: Vec<bool> = quantizers.collect();
    let followed = |id: ValueId| consumers[id].iter().all(|&reader| quantizers[reader]);
    // The quantization of floats that are dequantized codes, and what to read in their place.
    let mut quants: HashMap<ValueId, QuantParams> = HashMap::new();
    let mut instead: HashMap<ValueId, ValueId> = HashMap::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        for id in node.inputs.iter_mut().flatten() {
            *id = instead.get(id).copied().unwrap_or(*id);
        }
        let first = node.inputs.first().copied().flatten();
        if let (Op::DequantizeLinear(_), Some(codes)) = (&node.op, first)
            && let Some(quant) = u8_quant(&graph.values[codes])
        {
            quants.insert(node.outputs[0], quant.clone());
        }
        // A padding other than 0 may have no code.
        let exact = match &node.op {
            _ if stays_float(graph, reasons, &node) => false,
            Op::Pad(_) => node.op.to_attrs().float("value", 0.0).is_ok_and(|v| v == 0.0),
            op => op.quantization() == Quantization::Moves,
        };
        let quant = first.filter(|_| exact).and_then(|x| quants.get(&x)).cloned();
        let outputs = node.outputs.clone();
        graph.nodes.push(node);
        let Some(quant) = quant else { continue };
        for id in outputs {
            let float = graph.values[id].dtype == DType::F32 && !consumers[id].is_empty();
            if float && !graph.outputs.contains(&id) && !followed(id) {
                let nodes = pair(graph, id, &quant);
                instead.insert(id, nodes[1].outputs[0]);
                quants.insert(nodes[1].outputs[0], quant.clone());
                graph.nodes.extend(nodes);
            }
        }
    }
}

fn u8_quant(value: &Value) -> Option<&QuantParams> {
    value.quant.as_ref().filter(|q| value.dtype == DType::U8 && q.is_per_tensor())
}

/// QuantizeLinear of a float and DequantizeLinear of its codes; the caller adds them.
fn pair(graph: &mut Graph, float: ValueId, quant: &QuantParams) -> [Node; 2] {
    let Value { name, shape, .. } = graph.values[float].clone();
    let codes = Value::new(format!("{name}{}", super::QUANTIZED), DType::U8, &shape);
    let codes = graph.add_value(codes.with_quant(quant.clone()));
    let real = Value::new(format!("{name}{}", super::DEQUANTIZED), DType::F32, &shape);
    let real = graph.add_value(real);
    let node = |op, suffix, from, to| Node {
        name: format!("{name}_{suffix}"),
        op,
        inputs: vec![Some(from)],
        outputs: vec![to],
        doc: String::new(),
    };
    [
        node(QuantizeLinear::default().into(), "QuantizeLinear", float, codes),
        node(DequantizeLinear::default().into(), "DequantizeLinear", codes, real),
    ]
}

/// A clamp between an operator and a quantizer goes where saturation does the same. Elsewhere it
/// clamps codes: the quantizer is repeated before it.
fn move_clamps(graph: &mut Graph, reasons: &BTreeMap<String, String>) {
    use Quantization::{FloatInside, Integer, Table, Weighted};
    let (producers, consumers) = (graph.producers(), graph.consumers());
    let mut before: HashMap<usize, [Node; 2]> = HashMap::new();
    let mut dropped = vec![false; graph.nodes.len()];
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        let own_scale = matches!(node.op.quantization(), Weighted | Integer | FloatInside | Table);
        let changed = dropped[i] || before.contains_key(&i);
        if !own_scale
            || changed
            || stays_float(graph, reasons, node)
            || !reads_codes(graph, &producers, node)
        {
            continue;
        }
        let Some(clamp) = only_reader(graph, &consumers, node) else { continue };
        let Some((low, high)) = graph.nodes[clamp].op.clamp() else { continue };
        let Some(q) = only_reader(graph, &consumers, &graph.nodes[clamp]) else { continue };
        if !matches!(graph.nodes[q].op, Op::QuantizeLinear(_))
            || stays_float(graph, reasons, &graph.nodes[clamp])
        {
            continue;
        }
        let Some(quant) = u8_quant(&graph.values[graph.nodes[q].outputs[0]]).cloned() else {
            continue;
        };
        if quant.code(low, 0, 255) == 0 && quant.code(high, 0, 255) == 255 {
            graph.nodes[i].outputs = graph.nodes[clamp].outputs.clone();
            dropped[clamp] = true;
        } else {
            let float = graph.nodes[i].outputs[0];
            let nodes = pair(graph, float, &quant);
            graph.nodes[clamp].inputs[0] = Some(nodes[1].outputs[0]);
            before.insert(clamp, nodes);
        }
    }
    for (i, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        graph.nodes.extend(before.remove(&i).into_iter().flatten());
        if !dropped[i] {
            graph.nodes.push(node);
        }
    }
}

/// Whether a node's floats are dequantized codes; constants may still be floats.
fn reads_codes(graph: &Graph, producers: &[Option<usize>], node: &Node) -> bool {
    node.inputs.iter().flatten().all(|&id| match producers[id] {
        Some(p) => matches!(graph.nodes[p].op, Op::DequantizeLinear(_)),
        None => graph.values[id].data.is_some(),
    })
}

/// The only reader of a node's only output.
fn only_reader(graph: &Graph, consumers: &[Vec<usize>], node: &Node) -> Option<usize> {
    let [output] = node.outputs[..] else { return None };
    match consumers[output][..] {
        [reader] if !graph.outputs.contains(&output) => Some(reader),
        _ => None,
    }
}

/// Float biases of products of codes become `i32` at the scale of input times weight.
fn quantize_biases(graph: &mut Graph, reasons: &BTreeMap<String, String>) {
    let (producers, consumers) = (graph.producers(), graph.consumers());
    let mut before: HashMap<usize, Node> = HashMap::new();
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        if node.op.quantization() != Quantization::Weighted || stays_float(graph, reasons, node) {
            continue;
        }
        let quantizer = only_reader(graph, &consumers, node).map(|q| &graph.nodes[q]);
        let quantizer = quantizer.filter(|q| matches!(q.op, Op::QuantizeLinear(_)));
        let step = quantizer.and_then(|q| u8_quant(&graph.values[q.outputs[0]])?.scale.first());
        let step = step.copied().unwrap_or(f32::INFINITY);
        let Some(codes) = bias_codes(graph, &producers, node, step) else { continue };
        let Some(float) = node.inputs[2] else { continue };
        let name = format!("{}_{}", graph.values[float].name, graph.node_name(node));
        let shape = graph.values[float].shape.clone();
        let codes = graph.add_value(Value { name: format!("{name}_quantized"), ..codes });
        let real = graph.add_value(Value::new(name.clone(), DType::F32, &shape));
        graph.nodes[i].inputs[2] = Some(real);
        let (op, inputs) = (DequantizeLinear::default().into(), vec![Some(codes)]);
        let name = format!("{name}_DequantizeLinear");
        let doc = String::new();
        before.insert(i, Node { name, op, inputs, outputs: vec![real], doc });
    }
    for (i, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        graph.nodes.extend(before.remove(&i));
        graph.nodes.push(node);
    }
}

/// The codes of a node's float bias; nothing where they would overflow, where rounding one moves the
/// output by more than a `step`, or where the node has no such bias or does not multiply codes by
/// constant codes.
fn bias_codes(graph: &Graph, producers: &[Option<usize>], node: &Node, step: f32) -> Option<Value> {
    let codes = |i: usize| {
        let producer = &graph.nodes[producers[(*node.inputs.get(i)?)?]?];
        let codes = producer.inputs.first().copied().flatten();
        codes.filter(|_| matches!(producer.op, Op::DequantizeLinear(_))).map(|id| &graph.values[id])
    };
    let x = u8_quant(codes(0)?)?;
    let w = codes(1).filter(|w| w.data.is_some())?.quant.as_ref()?;
    let bias = graph.values[(*node.inputs.get(2)?)?].data.as_ref()?;
    let channels = bias.len();
    let fits = w.is_per_tensor() || w.scale.len() == channels;
    if bias.dtype() != DType::F32 || bias.shape().len() != 1 || !fits {
        return None;
    }
    let scale: Vec<f32> = w.scale.iter().map(|w| x.scale[0] * w).collect();
    let steps = |(c, b): (usize, &f32)| {
        let scale = if scale.len() == 1 { scale[0] } else { scale[c] };
        let (steps, rounded) = (b / scale, (b / scale).round_ties_even());
        let fits = steps.abs() <= MAX_BIAS && (steps - rounded).abs() * scale <= step;
        fits.then_some(rounded as i32)
    };
    let steps = bias.data::<f32>().iter().enumerate().map(steps).collect::<Option<Vec<_>>>()?;
    let quant = QuantParams { zero_point: vec![0; scale.len()], scale, axis: 0 };
    Some(Value::constant("", Tensor::from_slice(&[channels], &steps)).with_quant(quant))
}

#[cfg(test)]
mod tests {
    use daq::{DType, Model, Tensor};

    use crate::onnx::proto::tensor_proto::DataType::{self, Int8, Uint8};
    use crate::onnx::small::*;
    use crate::qdq::{fold, unfold};

    /// `y = clamp(0.75 x + bias)` with the zero points of `x` and `y`, scales 0.5, then two moves.
    struct Case {
        codes: DataType,
        zero_points: [i32; 2],
        clamp: Option<(f32, f32)>,
        bias: f32,
        /// The operators after folding; none where floats remain.
        ops: &'static [&'static str],
        /// The output for 5 and -2.
        y: [f32; 2],
    }

    impl Case {
        fn graph(&self) -> daq::Graph {
            let (low, high) = self.clamp.unwrap_or_default();
            let constants = [
                floats("s", &[], &[0.5]),
                bytes("xz", self.codes, &[], &self.zero_points[..1]),
                bytes("yz", self.codes, &[], &self.zero_points[1..]),
                bytes("wq", Int8, &[1, 1, 1, 1], &[3]),
                floats("ws", &[], &[0.25]),
                bytes("wz", Int8, &[], &[0]),
                floats("b", &[1], &[self.bias]),
                floats("low", &[], &[low]),
                floats("high", &[], &[high]),
                longs("shape", &[2], &[1, 2]),
            ];
            let clamp = match self.clamp {
                Some((_, f32::INFINITY)) => node("Relu", &["c"], &["a"], &[]),
                Some(_) => node("Clip", &["c", "low", "high"], &["a"], &[]),
                None => node("Neg", &["c"], &["a"], &[]),
            };
            let nodes = [
                node("QuantizeLinear", &["x", "s", "xz"], &["xq"], &[]),
                node("DequantizeLinear", &["xq", "s", "xz"], &["xd"], &[]),
                node("DequantizeLinear", &["wq", "ws", "wz"], &["w"], &[]),
                node("Conv", &["xd", "w", "b"], &["c"], &[]),
                clamp,
                node("QuantizeLinear", &["a", "s", "yz"], &["aq"], &[]),
                node("DequantizeLinear", &["aq", "s", "yz"], &["ad"], &[]),
                node("Reshape", &["ad", "shape"], &["r"], &[]),
                node("Transpose", &["r"], &["t"], &[]),
                node("QuantizeLinear", &["t", "s", "yz"], &["tq"], &[]),
                node("DequantizeLinear", &["tq", "s", "yz"], &["y"], &[]),
            ];
            read_model(&model(13, &[("x", &[1, 1, 1, 2])], &constants, &nodes, &["y"])).unwrap()
        }
    }

    /// A convolution of codes whose activation is read as float: nothing is quantized between, and it
    /// still multiplies codes.
    #[test]
    fn a_reader_of_floats_gets_them_from_a_product_of_codes() {
        let constants = [
            floats("s", &[], &[0.5]),
            bytes("z", Uint8, &[], &[10]),
            bytes("wq", Int8, &[1, 1, 1, 1], &[3]),
            floats("ws", &[], &[0.25]),
            bytes("wz", Int8, &[], &[0]),
            floats("b", &[1], &[1.0]),
        ];
        let nodes = [
            node("QuantizeLinear", &["x", "s", "z"], &["xq"], &[]),
            node("DequantizeLinear", &["xq", "s", "z"], &["xd"], &[]),
            node("DequantizeLinear", &["wq", "ws", "wz"], &["w"], &[]),
            node("Conv", &["xd", "w", "b"], &["c"], &[]),
            node("Relu", &["c"], &["r"], &[]),
            node("Sqrt", &["r"], &["y"], &[]),
        ];
        let model = model(13, &[("x", &[1, 1, 1, 2])], &constants, &nodes, &["y"]);
        let graph = read_model(&model).unwrap();
        let folded = fold(&graph);
        let ops: Vec<_> = folded.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(ops, ["Conv", "Relu", "Sqrt"]);
        for graph in [&graph, &folded, &fold(&unfold(&folded))] {
            let mut session = Model::from_graph(graph.clone()).unwrap().session(1);
            let x = Tensor::from_slice(&[1, 1, 1, 2], &[7.1f32, -2.0]);
            let y = session.run(&[("x", &x)], Some(DType::F32)).unwrap();
            // 7.1 is 7 by its code; 0.75 * 7 + 1 = 6.25.
            assert_eq!(y[0].data::<f32>(), [2.5, 0.0]);
        }
        let plan = daq::Plan::compile(&folded, daq_kernels::Isa::best()).unwrap();
        let steps: Vec<_> = plan.steps().iter().map(|s| (s.op, s.kernel())).collect();
        // The activation runs in the store of the product of codes.
        assert!(
            matches!(&steps[..], [("Conv", kernel), ("Sqrt", _)] if kernel.starts_with("qsums")),
            "{steps:?}"
        );
    }

    /// The bias 0.06 is 0 at the scale 0.125 of the products: less than a step of the output, or more.
    #[test]
    fn a_bias_that_codes_of_the_output_would_miss_stays_float() {
        for (step, ops, y) in [
            (0.0625, &["Conv"][..], 5.25),
            // 5.31 is 106.2 steps.
            (0.05, &["DequantizeLinear", "DequantizeLinear", "Conv", "QuantizeLinear"], 5.3),
        ] {
            let constants = [
                floats("s", &[], &[0.5]),
                floats("ys", &[], &[step]),
                bytes("z", Uint8, &[], &[10]),
                bytes("yz", Uint8, &[], &[0]),
                bytes("wq", Int8, &[1, 1, 1, 1], &[3]),
                floats("ws", &[], &[0.25]),
                bytes("wz", Int8, &[], &[0]),
                floats("b", &[1], &[0.06]),
            ];
            let nodes = [
                node("QuantizeLinear", &["x", "s", "z"], &["xq"], &[]),
                node("DequantizeLinear", &["xq", "s", "z"], &["xd"], &[]),
                node("DequantizeLinear", &["wq", "ws", "wz"], &["w"], &[]),
                node("Conv", &["xd", "w", "b"], &["c"], &[]),
                node("QuantizeLinear", &["c", "ys", "yz"], &["cq"], &[]),
                node("DequantizeLinear", &["cq", "ys", "yz"], &["y"], &[]),
            ];
            let model = model(13, &[("x", &[1, 1, 1, 1])], &constants, &nodes, &["y"]);
            let folded = fold(&read_model(&model).unwrap());
            let names: Vec<_> = folded.nodes.iter().map(|n| n.op.name()).collect();
            assert_eq!(names, ops, "{step}");
            let mut session = Model::from_graph(folded).unwrap().session(1);
            let x = Tensor::from_slice(&[1, 1, 1, 1], &[7f32]);
            let found = session.run(&[("x", &x)], Some(DType::F32)).unwrap();
            let found = found[0].data::<f32>()[0];
            assert!((found - y).abs() < 1e-6, "{step}: {found}");
        }
    }

    #[test]
    fn forms_of_others_run_on_codes() {
        let relu = Some((0.0, f32::INFINITY));
        let (absorbed, kept): (&[_], &[_]) =
            (&["Conv", "Reshape", "Transpose"], &["Conv", "Clip", "Reshape", "Transpose"]);
        let case = |codes, zero_points, clamp, bias, ops, y| Case {
            codes,
            zero_points,
            clamp,
            bias,
            ops,
            y,
        };

        let cases = [
            // 4.75 / 0.5 lies halfway between the codes 9 and 10.
            case(Uint8, [10, 0], relu, 1.0, absorbed, [5.0, 0.0]),
            case(Uint8, [10, 20], relu, 1.0, &["Conv", "Relu", "Reshape", "Transpose"], [5.0, 0.0]),
            case(Int8, [-118, -128], relu, 1.0, absorbed, [5.0, 0.0]),
            // All codes lie within the bounds, from -1 to 126.5.
            case(Uint8, [10, 2], Some((-1.0, 126.5)), 1.0, absorbed, [5.0, -0.5]),
            case(Uint8, [10, 2], Some((-1.0, 126.0)), 1.0, kept, [5.0, -0.5]),
            case(Uint8, [10, 0], Some((0.0, 3.0)), 1.0, kept, [3.0, 0.0]),
            case(Int8, [-118, -100], Some((-0.5, 3.0)), 1.0, kept, [3.0, -0.5]),
            // The float of a convolution that something else reads first stays.
            case(Uint8, [10, 20], None, 1.0, &[], [-5.0, 0.5]),
            // As i32 at the scale 0.125 this bias would overflow.
            case(Uint8, [10, 0], relu, 1e9, &[], [127.5, 127.5]),
        ];
        for (i, case) in cases.iter().enumerate() {
            let graph = case.graph();
            let folded = fold(&graph);
            let ops: Vec<_> = folded.nodes.iter().map(|n| n.op.name()).collect();
            match case.ops {
                [] => assert!(ops.contains(&"QuantizeLinear"), "case {i}: {ops:?}"),
                _ => assert_eq!(ops, case.ops, "case {i}"),
            }
            for (way, graph) in
                [("as it is", &graph), ("folded", &folded), ("again", &fold(&unfold(&folded)))]
            {
                let mut session = Model::from_graph(graph.clone()).unwrap().session(1);
                let x = Tensor::from_slice(&[1, 1, 1, 2], &[5f32, -2.0]);
                let y = session.run(&[("x", &x)], Some(DType::F32)).unwrap();
                assert_eq!(y[0].data::<f32>(), case.y, "case {i} {way}");
            }
        }
    }
}
