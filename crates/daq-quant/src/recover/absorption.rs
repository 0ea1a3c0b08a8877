//! Bias absorption: a channel that is always far above 0 keeps the part that never changes in the bias of
//! the layer behind, and its codes for the rest.
//!
//! Where `relu(x) = relu(x - s) + s` for all values of a channel, the bias before may lose `s` and that behind
//! take over `w · s`, which makes the range of the activation smaller. `s` is three standard deviations below
//! the mean, as in Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019
//! (arXiv 1906.04721), section 4.1.3, and not above the lowest value seen in calibration. An upper bound (ReLU6)
//! must not be met on these samples, and what reads the activation must not pad it: zeros would stand
//! for `s`.

use std::collections::BTreeMap;

use daq::{Graph, Node, Op, ValueId};

use super::statistics::{ChannelStatistics, Statistics};
use super::{Weighted, set_constant};

/// Standard deviations below the mean.
const DEVIATIONS: f64 = 3.0;

/// The metadata key under which an 8-bit model keeps its shifts, for [`repeat`].
pub const ABSORBED: &str = "daq.absorbed";

/// Channels of activations and how far they are shifted, by the activation's name.
type Shifts = BTreeMap<String, Vec<(usize, f32)>>;

/// An activation between layers with biases.
struct Layer {
    /// The node with the bias before.
    before: usize,
    channels: usize,
    /// What the activation is bounded by from above.
    bound: Option<f32>,
    /// The nodes with the biases behind.
    behind: Vec<usize>,
}

/// The activations whose channels can be shifted.
fn layers(graph: &Graph) -> BTreeMap<String, Layer> {
    let (producers, consumers) = (graph.producers(), graph.consumers());
    let inside = |id: ValueId| !graph.outputs.contains(&id);
    let layer = |node: &Node| {
        let bound = match &node.op {
            Op::Relu(_) => None,
            Op::Clip(clip) if clip.min == Some(0.0) => clip.max,
            _ => return None,
        };
        let (x, y) = (node.inputs[0]?, node.outputs[0]);
        let before = producers[x].filter(|_| consumers[x].len() == 1 && inside(x))?;
        let channels = with_bias(graph, before)?.rows;
        let behind = consumers[y].clone();
        let takes = |&i: &usize| {
            with_bias(graph, i).is_some_and(|w| w.input == y) && !pads(graph, &graph.nodes[i])
        };
        let good = inside(y) && !behind.is_empty() && behind.iter().all(takes);
        good.then(|| (graph.values[y].name.clone(), Layer { before, channels, bound, behind }))
    };
    graph.nodes.iter().filter_map(layer).collect()
}

fn with_bias(graph: &Graph, node: usize) -> Option<Weighted> {
    Weighted::of(graph, &graph.nodes[node]).filter(|w| w.bias.is_some())
}

/// Whether a node reads zeros beside its input.
fn pads(graph: &Graph, node: &Node) -> bool {
    let Op::Conv(conv) = &node.op else { return false };
    let inputs = graph.input_specs(node);
    let kernel = inputs[1].as_ref().and_then(|w| w.shape.get(2..)).unwrap_or_default();
    let axes = conv.window.resolve(&inputs, Some(kernel));
    axes.map_or(true, |axes| axes.iter().any(|a| a.pad_begin > 0 || a.pad_end > 0))
}

/// Shifts the channels of a float graph; returns the shifts as text for [`repeat`], `None` where none is.
/// `statistics` are those of the graph's values on the calibration samples.
pub fn absorb(graph: &mut Graph, statistics: &Statistics) -> Option<String> {
    let mut shifts = Shifts::new();
    for (name, layer) in layers(graph) {
        let Some(seen) = statistics.get(&name).filter(|s| s.min.len() == layer.channels) else {
            continue;
        };
        let of = |c: usize| Some((c, shift(seen, c, layer.bound)?));
        let own: Vec<_> = (0..layer.channels).filter_map(of).collect();
        if !own.is_empty() {
            shifts.insert(name, own);
        }
    }
    let text = serde_json::json!(shifts).to_string();
    (!shifts.is_empty() && repeat(graph, &text)).then_some(text)
}

fn shift(seen: &ChannelStatistics, c: usize, bound: Option<f32>) -> Option<f32> {
    if bound.is_some_and(|bound| seen.max[c] >= bound) {
        return None;
    }
    let mean = seen.mean(c);
    let deviation = (seen.power(c) - mean * mean).max(0.0).sqrt();
    let shift = ((mean - DEVIATIONS * deviation) as f32).min(seen.min[c]);
    (shift > 0.0).then_some(shift)
}

/// Shifts the channels of a float graph as [`absorb`] did; whether the text fits the graph. An 8-bit
/// model has to be compared with the float model whose channels are where its own are.
pub fn repeat(graph: &mut Graph, text: &str) -> bool {
    let Ok(shifts) = serde_json::from_str::<Shifts>(text) else { return false };
    let layers = layers(graph);
    let fits = |(name, shifts): (&String, &Vec<(usize, f32)>)| {
        let layer = layers.get(name);
        layer.is_some_and(|l| shifts.iter().all(|&(c, s)| c < l.channels && s.is_finite()))
    };
    if !shifts.iter().all(fits) {
        return false;
    }
    for (name, shifts) in &shifts {
        let layer = &layers[name];
        let mut by_channel = vec![0f64; layer.channels];
        shifts.iter().for_each(|&(c, s)| by_channel[c] = s.into());
        if let Some(mut bias) = with_bias(graph, layer.before).and_then(|w| w.bias(graph)) {
            bias.iter_mut().zip(&by_channel).for_each(|(b, s)| *b -= s);
            set_constant(graph, layer.before, 2, &bias);
        }
        for &i in &layer.behind {
            let Some(weighted) = with_bias(graph, i) else { continue };
            let Some(mut bias) = weighted.bias(graph) else { continue };
            for (k, w) in weighted.weights(graph).iter().enumerate() {
                let (row, column) = weighted.place(k);
                bias[row] += w * by_channel[column];
            }
            set_constant(graph, i, 2, &bias);
        }
    }
    true
}
