//! Products that read their input in two parts, each with a scale of its own: values near 0, and by how much
//! the others exceed them.
//!
//! `W x = W clip(x, -t, t) + W (x - clip(x, -t, t))`. Few values of an activation are large, and they stretch the
//! step of all others. Here the small ones have a step of `t / 255` or twice that, the large ones lose little
//! beside their size, and neither is clipped. Both products multiply 8-bit codes; the operators between are
//! float. It costs a second product: for the few that lose most by their input's step, and much less than
//! leaving them in float. The idea to part what is large from the rest is that of Zhao et al., "Improving Neural
//! Network Quantization without Retraining using Outlier Channel Splitting", 2019 (arXiv 1901.09504), who part
//! channels.

use daq::ops::{Add, Clip, Quantization, Sub};
use daq::{DType, Graph, Node, Op, Value, ValueId};

use super::statistics::{ChannelStatistics, Statistics};
use crate::passes::unique;
use crate::quantize::{QuantizeError, gives_floats};

/// Values are near 0 up to this many times their root mean square.
const SPREAD: f64 = 3.0;

/// Values are near 0 up to this part of the largest at most: a flat distribution gains by two parts of equal
/// width.
const MOST: f64 = 0.5;

/// The metadata key under which a graph keeps what was parted, for [`repeat`] and for
/// [`quantize`](crate::quantize), which leaves what lies between the products in float.
pub const TWO_PARTS: &str = "daq.two_parts";

/// Products by name, and up to where their inputs are near 0.
type Parts = Vec<(String, f32)>;

/// Parts the inputs of the named products of a float graph. `statistics` are those of the graph's values on
/// the calibration samples.
///
/// # Errors
/// [`QuantizeError::UnknownName`] where there is no such product, or no statistics of its input.
pub fn split(
    graph: &mut Graph,
    names: &[String],
    statistics: &Statistics,
) -> Result<(), QuantizeError> {
    let mut parts = Parts::new();
    for name in names {
        let input = product(graph, name).and_then(|node| graph.nodes[node].inputs[0]);
        let seen = input.and_then(|x| seen(graph, x, statistics));
        let near = seen.and_then(near).ok_or_else(|| unknown(name))?;
        parts.push((name.clone(), near));
    }
    apply(graph, &parts);
    Ok(())
}

/// Whether each name is that of a product whose input can be parted: a Conv, Gemm or MatMul with constant
/// weights behind another operator.
///
/// # Errors
/// [`QuantizeError::UnknownName`] of the first that is not.
pub fn check(graph: &Graph, names: &[String]) -> Result<(), QuantizeError> {
    match names.iter().find(|name| product(graph, name).is_none()) {
        Some(name) => Err(unknown(name)),
        None => Ok(()),
    }
}

/// Parts the inputs as [`split`] did; whether the text, which is under [`TWO_PARTS`], fits the graph. An 8-bit model
/// has to be compared with the float model of the same products.
pub fn repeat(graph: &mut Graph, text: &str) -> bool {
    let Ok(parts) = serde_json::from_str::<Parts>(text) else { return false };
    let fits = |(name, near): &(String, f32)| *near > 0.0 && product(graph, name).is_some();
    let good = parts.iter().all(fits);
    if good {
        apply(graph, &parts);
    }
    good
}

/// The names of the float operators beside the products of a graph that was parted.
pub(crate) fn between(graph: &Graph) -> Vec<String> {
    let text = graph.metadata.get(TWO_PARTS);
    let parts = text.and_then(|text| serde_json::from_str::<Parts>(text).ok()).unwrap_or_default();
    parts.iter().flat_map(|(name, _)| BETWEEN.map(|what| format!("{name}_{what}"))).collect()
}

/// What the float operators are called after the product's name.
const BETWEEN: [&str; 3] = ["near", "beyond", "sum"];

fn unknown(name: &str) -> QuantizeError {
    let kind =
        "Conv, Gemm or MatMul with constant weights that reads what another operator computes";
    QuantizeError::UnknownName { option: "--two-parts", name: name.into(), kind }
}

fn product(graph: &Graph, name: &str) -> Option<usize> {
    let node = graph.nodes.iter().position(|n| graph.node_name(n) == name)?;
    let Node { op, inputs, outputs, .. } = &graph.nodes[node];
    let x = inputs.first().copied().flatten()?;
    let inner = graph.values[x].data.is_none() && !graph.inputs.contains(&x);
    let float = |id: ValueId| graph.values[id].dtype == DType::F32;
    let good = inner && gives_floats(graph, op, inputs) && float(x) && float(outputs[0]);
    good.then_some(node)
}

/// The statistics of a value, or of what is moved to make it: a reshaped tensor is not seen again.
fn seen<'a>(
    graph: &Graph,
    mut id: ValueId,
    statistics: &'a Statistics,
) -> Option<&'a ChannelStatistics> {
    loop {
        let found = statistics.get(&graph.values[id].name);
        if found.is_some() {
            return found;
        }
        let node = graph.nodes.iter().find(|n| n.outputs.contains(&id))?;
        if node.op.quantization() != Quantization::Moves {
            return None;
        }
        id = node.inputs[0]?;
    }
}

/// Up to where values are near 0; `None` where all are 0.
fn near(seen: &ChannelStatistics) -> Option<f32> {
    let channels = seen.min.len();
    let power = (0..channels).map(|c| seen.power(c)).sum::<f64>() / channels.max(1) as f64;
    let ends = seen.min.iter().chain(&seen.max);
    let largest = ends.fold(0f32, |most, end| most.max(end.abs()));
    let near = (SPREAD * power.sqrt()).min(MOST * f64::from(largest)) as f32;
    (near > 0.0).then_some(near)
}

fn apply(graph: &mut Graph, parts: &Parts) {
    for (name, near) in parts {
        if let Some(node) = product(graph, name) {
            part(graph, node, name, *near);
        }
    }
    graph.metadata.insert(TWO_PARTS.into(), serde_json::json!(parts).to_string());
}

fn part(graph: &mut Graph, at: usize, name: &str, near: f32) {
    let first = graph.nodes[at].clone();
    let (Some(x), y) = (first.inputs[0], first.outputs[0]) else { return };
    let mut like = |id: ValueId, what: &str| {
        let value = Value::new(
            unique(graph, &format!("{name}_{what}")),
            DType::F32,
            &graph.values[id].shape,
        );
        graph.add_value(value)
    };
    let (small, large) = (like(x, "near_output"), like(x, "beyond_output"));
    let (of_small, of_large) = (like(y, "first_output"), like(y, "rest_output"));
    let node = |what: &str, op: Op, inputs: Vec<Option<ValueId>>, output: ValueId| Node {
        name: format!("{name}_{what}"),
        op,
        inputs,
        outputs: vec![output],
        doc: String::new(),
    };
    let clip = Clip { min: Some(-near), max: Some(near) };
    let [near, beyond, sum] = BETWEEN;
    let mut rest = node("rest", first.op.clone(), first.inputs.clone(), of_large);
    rest.inputs[0] = Some(large);
    // The bias is in the first.
    rest.inputs.truncate(2);
    let nodes = [
        node(near, clip.into(), vec![Some(x)], small),
        node(beyond, Sub.into(), vec![Some(x), Some(small)], large),
        Node {
            inputs: [&[Some(small)], &first.inputs[1..]].concat(),
            outputs: vec![of_small],
            ..first
        },
        rest,
        node(sum, Add.into(), vec![Some(of_small), Some(of_large)], y),
    ];
    graph.nodes.splice(at..=at, nodes);
}
