//! Activations with a scale for each channel, between a convolution and depthwise ones, as NNCF
//! writes them.
//!
//! A depthwise convolution never adds channels up, so that the scale of a channel can move into the
//! weights on either side: codes of `x` at `scale[c]` are codes of `x / scale[c]` at 1. The codes
//! stay as they were; only what they are called changes.

use daq::ops::{Conv, DequantizeLinear};
use daq::{DType, Graph, Node, Op, QuantParams, Tensor, Value, ValueId};

/// What surrounds such a tensor of codes.
struct Place {
    /// The convolution that computes it.
    producer: usize,
    /// Bounds that clamp it before it is quantized, and the node that does.
    clamp: Option<((f32, f32), usize)>,
    /// The depthwise convolutions that read it.
    readers: Vec<usize>,
    /// The zero point that all channels can have.
    zero_point: i32,
    /// Channels whose codes change nothing that is computed from them.
    unread: Vec<usize>,
}

/// Moves the scales of channels into weights where that changes no code.
pub(super) fn move_scales(graph: &mut Graph) {
    for id in 0..graph.values.len() {
        let Some(quant) = by_channel(&graph.values[id]).cloned() else { continue };
        let Some(place) = place(graph, id, &quant) else { continue };
        let mut more = vec![scale_weights(graph, place.producer, &[], |w, c| w / quant.scale[c])];
        scale_bias(graph, place.producer, &quant.scale);
        for &reader in &place.readers {
            more.push(scale_weights(graph, reader, &place.unread, |w, c| w * quant.scale[c]));
        }
        if let Some((_, clamp)) = place.clamp {
            // Saturation does what it does.
            graph.nodes[place.producer].outputs = graph.nodes[clamp].outputs.clone();
            graph.nodes.remove(clamp);
        }
        // Weights come before all that reads them.
        graph.nodes.splice(0..0, more.into_iter().flatten());
        let value = &mut graph.values[id];
        value.name = format!("{}_by_channel", value.name);
        value.quant = Some(QuantParams::per_tensor(1.0, place.zero_point));
    }
}

fn by_channel(value: &Value) -> Option<&QuantParams> {
    let quant = value.quant.as_ref().filter(|q| !q.is_per_tensor() && q.axis == 1)?;
    (value.dtype.is_code() && value.data.is_none()).then_some(quant)
}

/// The codes of constant weights with the quantization of each output channel.
fn weights(graph: &Graph, node: usize) -> Option<(ValueId, QuantParams)> {
    let real = (*graph.nodes[node].inputs.get(1)?)?;
    let dequantize = graph.nodes.iter().find(|n| n.outputs.first() == Some(&real))?;
    let codes = dequantize.inputs.first().copied().flatten()?;
    let value = &graph.values[codes];
    let (quant, channels) = (value.quant.clone()?, *value.shape.first()?);
    let known = matches!(dequantize.op, Op::DequantizeLinear(_)) && value.data.is_some();
    let spread = quant.is_per_tensor() || quant.axis == 0;
    (known && spread).then(|| {
        let all = |i: usize| (quant.scale_of(i), quant.zero_point_of(i));
        let (scale, zero_point) =
            (0..channels).map(|c| all(if quant.is_per_tensor() { 0 } else { c })).unzip();
        (codes, QuantParams { scale, zero_point, axis: 0 })
    })
}

fn place(graph: &Graph, id: ValueId, quant: &QuantParams) -> Option<Place> {
    let channels = quant.scale.len();
    if graph.inputs.contains(&id) || graph.outputs.contains(&id) {
        return None;
    }
    let made_by = |id: ValueId| graph.nodes.iter().position(|n| n.outputs.first() == Some(&id));
    let readers_of = |id: ValueId| -> Vec<usize> {
        let reads = |n: &Node| n.inputs.contains(&Some(id));
        (0..graph.nodes.len()).filter(|&i| reads(&graph.nodes[i])).collect()
    };
    let alone = |id: ValueId| readers_of(id).len() == 1 && !graph.outputs.contains(&id);
    let input = |node: usize, i: usize| graph.nodes[node].inputs.get(i).copied().flatten();
    let quantize = made_by(id).filter(|&q| matches!(graph.nodes[q].op, Op::QuantizeLinear(_)))?;
    let (mut float, mut clamp) = (input(quantize, 0)?, None);
    let mut producer = made_by(float).filter(|_| alone(float))?;
    if let Some(bounds) = graph.nodes[producer].op.clamp() {
        clamp = Some((bounds, producer));
        float = input(producer, 0)?;
        producer = made_by(float).filter(|_| alone(float))?;
    }
    let is_conv = |node: usize| matches!(graph.nodes[node].op, Op::Conv(_));
    let mut convolutions = Vec::new();
    for dequantize in readers_of(id) {
        let Op::DequantizeLinear(_) = graph.nodes[dequantize].op else { return None };
        let real = graph.nodes[dequantize].outputs[0];
        if graph.outputs.contains(&real) {
            return None;
        }
        convolutions.extend(readers_of(real).into_iter().map(|reader| (reader, real)));
    }
    let depthwise = |&(node, real): &(usize, ValueId)| {
        let group = match &graph.nodes[node].op {
            Op::Conv(Conv { group, .. }) => *group,
            _ => 0,
        };
        // With several outputs by channel the channels of the weights are not those of the input.
        let same = weights(graph, node).is_some_and(|(_, w)| w.scale.len() == channels);
        group == channels && same && input(node, 0) == Some(real)
    };
    let plain_bias = input(producer, 2).is_none_or(|bias| {
        graph.values[bias].data.as_ref().is_some_and(|data| data.dtype() == DType::F32)
    });
    let fits = is_conv(producer)
        && plain_bias
        && weights(graph, producer).is_some_and(|(_, w)| w.scale.len() == channels)
        && !convolutions.is_empty()
        && convolutions.iter().all(depthwise);
    let zero_point = common(&quant.zero_point).filter(|_| fits)?;
    let mut place = Place {
        producer,
        clamp,
        readers: convolutions.into_iter().map(|(node, _)| node).collect(),
        zero_point,
        unread: Vec::new(),
    };
    for c in
        (0..channels).filter(|&c| !keeps_codes(graph, id, quant, &place, c)).collect::<Vec<_>>()
    {
        if !place.readers.iter().all(|&reader| is_constant(graph, reader, c, &place)) {
            return None;
        }
        place.unread.push(c);
    }
    Some(place)
}

/// The zero point that most channels have; of several the lowest.
fn common(zero_points: &[i32]) -> Option<i32> {
    let count = |z: i32| zero_points.iter().filter(|&&other| other == z).count();
    zero_points.iter().copied().max_by_key(|&z| (count(z), -z))
}

/// Whether channel `c` has the same codes, but for a shift, at the common zero point, and whether
/// saturation does what the clamp does.
fn keeps_codes(graph: &Graph, id: ValueId, quant: &QuantParams, place: &Place, c: usize) -> bool {
    let (low, high) = limits(graph.values[id].dtype);
    let one = QuantParams::per_tensor(quant.scale[c], quant.zero_point[c]);
    let (own, all) = (quant.zero_point[c], place.zero_point);
    if own == all {
        return place.clamp.is_none_or(|((least, most), _)| {
            one.code(least, low, high) == low && one.code(most, low, high) == high
        });
    }
    // Another zero point saturates elsewhere: only what never comes there may have it.
    let Some((mut least, mut most)) = range(graph, place.producer, c, None) else { return false };
    if let Some(((from, to), _)) = place.clamp {
        (least, most) = (least.clamp(from, to), most.clamp(from, to));
    }
    let steps = |x: f32| f64::from(x) / f64::from(quant.scale[c]);
    steps(least) + f64::from(own.min(all)) >= f64::from(low) - 0.25
        && steps(most) + f64::from(own.max(all)) <= f64::from(high) + 0.25
}

/// Whether channel `c` of a depthwise convolution has the same code whatever it reads: with next to
/// no scale, as channels that calibration has only seen at 0 get, all that it can read is less than
/// what is missing to another code.
fn is_constant(graph: &Graph, node: usize, c: usize, place: &Place) -> bool {
    let clamp = place.clamp.map(|(bounds, _)| bounds);
    let Some((mut least, mut most)) = range(graph, node, c, clamp) else { return false };
    let mut output = graph.nodes[node].outputs[0];
    loop {
        let mut readers = graph.nodes.iter().filter(|n| n.inputs.contains(&Some(output)));
        let (Some(reader), None) = (readers.next(), readers.next()) else { return false };
        if graph.outputs.contains(&output) {
            return false;
        }
        output = reader.outputs[0];
        if let Some((from, to)) = reader.op.clamp() {
            (least, most) = (least.clamp(from, to), most.clamp(from, to));
        } else {
            let codes = &graph.values[output];
            let (Op::QuantizeLinear(_), Some(quant)) = (&reader.op, &codes.quant) else {
                return false;
            };
            if !quant.is_per_tensor() && quant.axis != 1 {
                return false;
            }
            let (scale, zero_point) = (quant.scale_of(c), quant.zero_point_of(c));
            let one = QuantParams::per_tensor(scale, zero_point);
            let (low, high) = limits(codes.dtype);
            let near = NEAR * scale;
            return one.code(least - near, low, high) == one.code(most + near, low, high);
        }
    }
}

/// What rounding may move a sum, in steps of its code.
const NEAR: f32 = 0.01;

/// The least and the most code.
fn limits(dtype: DType) -> (i32, i32) {
    if dtype == DType::I8 { (-128, 127) } else { (0, 255) }
}

/// The least and the most that output channel `c` of a convolution of codes can be, where what it
/// reads is clamped; the scales are those of all codes or, for a depthwise convolution, of the channel's.
fn range(graph: &Graph, node: usize, c: usize, clamp: Option<(f32, f32)>) -> Option<(f32, f32)> {
    let real = graph.nodes[node].inputs.first().copied().flatten()?;
    let dequantize = graph.nodes.iter().find(|n| n.outputs.first() == Some(&real))?;
    let x = &graph.values[dequantize.inputs.first().copied().flatten()?];
    let (codes, quant) = weights(graph, node)?;
    let value = &graph.values[codes];
    let depthwise = value.shape.get(1) == Some(&1) && value.shape.first() == x.shape.get(1);
    let fits = |q: &&QuantParams| q.is_per_tensor() || depthwise && q.axis == 1;
    let x_quant = x.quant.as_ref().filter(|_| x.dtype.is_code()).filter(fits)?;
    let scale = f64::from(x_quant.scale_of(c));
    let (low, high) = limits(x.dtype);
    let (from, to) = clamp.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
    // Padding is 0.
    let (from, to) = (f64::from(from.min(0.0)), f64::from(to.max(0.0)));
    let ends =
        [low, high].map(|q| (f64::from(q - x_quant.zero_point_of(c)) * scale).clamp(from, to));
    let all = daq::ops::eval::dequantize(&value.data.as_ref()?.quantized_view(Some(&quant)));
    let each = all.len() / quant.scale.len();
    let bias = match graph.nodes[node].inputs.get(2).copied().flatten() {
        None => 0.0,
        Some(id) => f64::from(*graph.values[id].data.as_ref()?.data::<f32>().get(c)?),
    };
    let (mut least, mut most) = (bias, bias);
    for &w in &all[c * each..][..each] {
        let [a, b] = ends.map(|end| f64::from(w) * end);
        (least, most) = (least + a.min(b), most + a.max(b));
    }
    Some((least as f32, most as f32))
}

/// Gives a node's weights scales of its own, `f` of the present one and the output channel, and the
/// DequantizeLinear that they need. The weights of channels that are `unread` become 0.
fn scale_weights(
    graph: &mut Graph,
    node: usize,
    unread: &[usize],
    f: impl Fn(f32, usize) -> f32,
) -> Option<Node> {
    let (codes, mut quant) = weights(graph, node)?;
    quant.scale.iter_mut().enumerate().for_each(|(c, s)| *s = f(*s, c));
    let name = format!("{}_by_channel_{node}", graph.values[codes].name);
    let real = format!("{name}_DequantizeLinear");
    let data = graph.values[codes].data.as_ref().map(|data| {
        let mut bytes = data.bytes().to_vec();
        let each = bytes.len() / quant.scale.len();
        for &c in unread {
            bytes[c * each..][..each].fill(quant.zero_point[c] as u8);
        }
        Tensor::from_bytes(data.dtype(), data.shape(), &bytes)
    });
    let own = Value { name, quant: Some(quant), data, ..graph.values[codes].clone() };
    let shape = own.shape.clone();
    let own = graph.add_value(own);
    let output = graph.add_value(Value::new(real.clone(), DType::F32, &shape));
    graph.nodes[node].inputs[1] = Some(output);
    let (inputs, outputs) = (vec![Some(own)], vec![output]);
    let op = DequantizeLinear::default().into();
    Some(Node { name: real, op, inputs, outputs, doc: String::new() })
}

/// Divides a node's float bias by channel.
fn scale_bias(graph: &mut Graph, node: usize, by: &[f32]) {
    let Some(id) = graph.nodes[node].inputs.get(2).copied().flatten() else { return };
    let Some(data) = graph.values[id].data.clone() else { return };
    let scaled: Vec<f32> = data.data::<f32>().iter().zip(by).map(|(b, s)| b / s).collect();
    let name = format!("{}_by_channel_{node}", graph.values[id].name);
    let own = Value::constant(name, Tensor::from_slice(data.shape(), &scaled));
    graph.nodes[node].inputs[2] = Some(graph.add_value(own));
}

#[cfg(test)]
mod tests {
    use daq::{DType, Model, Tensor};

    use crate::onnx::proto::tensor_proto::DataType::Int8;
    use crate::onnx::small::*;
    use crate::qdq::fold;

    #[test]
    fn scales_of_channels_move_into_weights() {
        // y = depthwise(clip(conv(x))): two channels of their own scale. The second one is at another
        // zero point: dead, or too small for its reader to see, or neither.
        for (weight, bias, scale, second, folds) in [
            (0, -1.0, 1e-5, [0.0; 3], true),
            (5, 0.0, 1e-5, [0.0; 3], true),
            (5, 0.0, 0.02, [-4.0, 0.0, -4.0], false),
        ] {
            let constants = [
                floats("s", &[], &[0.5]),
                bytes("z", Int8, &[], &[0]),
                bytes("wq", Int8, &[2, 1, 1, 1], &[3, weight]),
                floats("ws", &[2], &[0.25, 0.5]),
                bytes("wz", Int8, &[2], &[0, 0]),
                floats("b", &[2], &[1.0, bias]),
                floats("low", &[], &[0.0]),
                floats("high", &[], &[6.0]),
                floats("cs", &[2], &[0.02, scale]),
                bytes("cz", Int8, &[2], &[-128, 0]),
                bytes("dq", Int8, &[2, 1, 1, 1], &[2, -3]),
            ];
            let axis = |i| [int("axis", i)];
            let nodes = [
                node("QuantizeLinear", &["x", "s", "z"], &["xq"], &[]),
                node("DequantizeLinear", &["xq", "s", "z"], &["xd"], &[]),
                node("DequantizeLinear", &["wq", "ws", "wz"], &["w"], &axis(0)),
                node("Conv", &["xd", "w", "b"], &["c"], &[]),
                node("Clip", &["c", "low", "high"], &["a"], &[]),
                node("QuantizeLinear", &["a", "cs", "cz"], &["aq"], &axis(1)),
                node("DequantizeLinear", &["aq", "cs", "cz"], &["ad"], &axis(1)),
                node("DequantizeLinear", &["dq", "ws", "wz"], &["d"], &axis(0)),
                node("Conv", &["ad", "d"], &["e"], &[int("group", 2)]),
                node("QuantizeLinear", &["e", "s", "z"], &["eq"], &[]),
                node("DequantizeLinear", &["eq", "s", "z"], &["y"], &[]),
            ];
            let model = model(13, &[("x", &[1, 1, 1, 3])], &constants, &nodes, &["y"]);
            let graph = read_model(&model).unwrap();
            let folded = fold(&graph);
            let ops: Vec<_> = folded.nodes.iter().map(|n| n.op.name()).collect();
            assert_eq!(ops == ["Conv", "Conv"], folds, "{ops:?}");
            // 0.75 x + 1 within [0, 5.1], halved: -0.5 becomes 0, 8.5 becomes 5.1.
            for graph in [&graph, &folded] {
                let mut session = Model::from_graph(graph.clone()).unwrap().session(1);
                let x = Tensor::from_slice(&[1, 1, 1, 3], &[2f32, -2.0, 10.0]);
                let y = session.run(&[("x", &x)], Some(DType::F32)).unwrap();
                assert_eq!(y[0].data::<f32>()[..3], [1.0, 0.0, 2.5], "{folds}");
                assert_eq!(y[0].data::<f32>()[3..], second);
            }
        }
    }
}
