//! Cross-layer equalization: scales channels so that weak ones use more of their tensor's codes.
//!
//! A channel that is divided by `s` where it is computed and multiplied by `s` where it is read leaves
//! the function as it is, as long as everything between is linear in each channel (additions of
//! channels that are scaled alike, poolings, Relu). See Nagel et al., "Data-Free Quantization Through
//! Weight Equalization and Bias Correction", 2019 (arXiv 1906.04721), which equalizes the weights of
//! two layers. Here weights have a scale per channel, so it is the activations that gain, and
//! residual sums take part.
//!
//! A Clip from 0 (ReLU6) is not linear: its channels may only grow up to where the largest value
//! seen in calibration meets the bound, so that it clips no more than it did on those samples.

use std::collections::HashMap;

use daq::{DType, Graph, Node, Op, ValueId};

use super::statistics::Statistics;
use super::{Weighted, source};
use crate::quantize::Weights;

/// Scales are kept at this at least, so that dead channels stay small.
const LEAST: f64 = 1.0 / 8.0;

/// Scales are powers of `2^(-1/8)`, so that one letter says which.
const STEPS_PER_OCTAVE: f64 = 8.0;

/// The steps from 1 to [`LEAST`].
const STEPS: u8 = 24;

/// The metadata key under which an 8-bit model keeps its scales, for [`repeat`].
pub const EQUALIZED: &str = "daq.equalized";

/// How far above the largest value seen in calibration a Clip bounds a channel, at least: other samples
/// go further.
const HEADROOM: f64 = 2.0;

/// Scales of a Clip's channels are kept at this at least: a channel that hardly any sample wakes tells
/// a lot about those that do, and by how much it exceeds what was seen is not known.
const LEAST_OF_CLIP: f64 = 0.77;

/// A channel of a value.
type Element = usize;

/// Sets of channels that must be scaled alike.
struct Classes {
    /// The first element of each value.
    base: Vec<Element>,
    /// Channels of each value; 0 where it takes no part.
    channels: Vec<usize>,
    /// Union-find.
    parent: Vec<Element>,
    /// By element; of a class where any element is.
    blocked: Vec<bool>,
}

impl Classes {
    fn new(graph: &Graph) -> Classes {
        let (mut base, mut channels, mut next) = (Vec::new(), Vec::new(), 0);
        for value in &graph.values {
            let takes_part = value.dtype == DType::F32 && value.data.is_none();
            let n = if takes_part { value.shape.get(1).copied().unwrap_or(0) } else { 0 };
            base.push(next);
            channels.push(n);
            next += n;
        }
        Classes { base, channels, parent: (0..next).collect(), blocked: vec![false; next] }
    }

    /// The classes of a graph's channels.
    fn of(graph: &Graph) -> Classes {
        let mut classes = Classes::new(graph);
        graph.nodes.iter().for_each(|node| classes.add(graph, node));
        graph.inputs.iter().chain(&graph.outputs).for_each(|&id| classes.block(id));
        classes
    }

    /// The classes that may be scaled, in an order that depends on the names of values only.
    fn free(&self, graph: &Graph) -> Vec<Element> {
        let mut ids: Vec<ValueId> = (0..graph.values.len()).collect();
        ids.sort_by_key(|&id| &graph.values[id].name);
        let mut seen = vec![false; self.parent.len()];
        let elements = ids.iter().flat_map(|&id| self.base[id]..self.base[id] + self.channels[id]);
        let roots = elements.map(|e| self.find(e));
        roots.filter(|&e| !self.blocked[e] && !std::mem::replace(&mut seen[e], true)).collect()
    }

    fn find(&self, mut e: Element) -> Element {
        while self.parent[e] != e {
            e = self.parent[e];
        }
        e
    }

    fn join(&mut self, a: Element, b: Element) {
        let (a, b) = (self.find(a), self.find(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parent[high] = low;
        self.blocked[low] |= self.blocked[high];
    }

    /// Joins two values of equally many channels.
    fn join_values(&mut self, a: ValueId, b: ValueId) {
        for c in 0..self.channels[a].min(self.channels[b]) {
            self.join(self.base[a] + c, self.base[b] + c);
        }
    }

    fn block(&mut self, id: ValueId) {
        for e in self.base[id]..self.base[id] + self.channels[id] {
            let root = self.find(e);
            self.blocked[root] = true;
        }
    }

    /// What a node asks of the channels that it reads and computes.
    fn add(&mut self, graph: &Graph, node: &Node) {
        let activations: Vec<ValueId> = node
            .inputs
            .iter()
            .flatten()
            .copied()
            .filter(|&id| graph.values[id].data.is_none())
            .collect();
        let shape = |id: ValueId| &graph.values[id].shape;
        let y = node.outputs[0];
        let joins = match (&node.op, activations.as_slice()) {
            // The weights take the scales of both sides.
            _ if Weighted::of(graph, node).is_some() => return,
            (Op::Relu(_) | Op::LeakyRelu(_) | Op::MaxPool(_) | Op::AveragePool(_), [_])
            | (Op::GlobalAveragePool(_) | Op::GlobalMaxPool(_), [_]) => true,
            (Op::Clip(clip), [_]) => clip.min == Some(0.0),
            (Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_), [x]) => {
                shape(*x).get(..2) == shape(y).get(..2)
                    && shape(*x)[2..].iter().chain(&shape(y)[2..]).all(|&d| d == 1)
            }
            (Op::Add(_) | Op::Sub(_), [a, b]) => shape(*a) == shape(y) && shape(*b) == shape(y),
            (Op::Concat(concat), _) => {
                let rank = shape(y).len() as i64;
                let whole = activations.len() == node.inputs.len();
                if whole && (concat.axis == 1 || concat.axis + rank == 1) {
                    let mut at = self.base[y];
                    for &id in &activations {
                        for c in 0..self.channels[id] {
                            self.join(self.base[id] + c, at + c);
                        }
                        at += self.channels[id];
                    }
                    return;
                }
                false
            }
            _ => false,
        };
        for &id in &activations {
            match joins && node.outputs.len() == 1 {
                true => self.join_values(id, y),
                false => self.block(id),
            }
        }
        if !joins {
            node.outputs.iter().for_each(|&id| self.block(id));
        }
    }
}

/// What is known of a class while its scale is chosen.
#[derive(Clone, Copy)]
struct Class {
    /// The least scale: below it a channel would pass its tensor's range.
    least: f64,
    /// Noise of activations that grows with the scale squared.
    activation_noise: f64,
}

/// Scales the channels of a float graph; returns the scales as text for [`repeat`], `None` where none
/// changed. `statistics` are those of the graph's values on the calibration samples.
///
/// With activations of step `d_x`, the noise of a channel reaches the layers that read it as
/// `s² d_x² |w|² / 12`; that of their weights, of step `d_w`, as `d_w² E[x²] / 12 s²`. The scale is the one
/// at which the sum is least, within the bounds. Where all weights of a layer share one step, what rounding
/// them adds to a channel is noise of that channel's activation as well: a larger channel, `1 / s` times its weights,
/// keeps more of them.
pub fn equalize(graph: &mut Graph, statistics: &Statistics, weights: Weights) -> Option<String> {
    let classes = Classes::of(graph);
    let chosen = choose(graph, statistics, &classes, weights == Weights::PerChannel);
    let step = |scale: f64| ((-scale.log2() * STEPS_PER_OCTAVE).floor() as u8).min(STEPS);
    let steps: Vec<u8> =
        classes.free(graph).iter().map(|e| chosen.get(e).map_or(0, |&s| step(s))).collect();
    let text: String = steps.iter().map(|&step| char::from(b'A' + step)).collect();
    let changed = steps.iter().any(|&step| step > 0);
    (changed && repeat(graph, &text)).then_some(text)
}

/// Scales the channels of a float graph as [`equalize`] did; whether the text fits the graph. An 8-bit
/// model has to be compared with the float model at its own scales.
pub fn repeat(graph: &mut Graph, text: &str) -> bool {
    let classes = Classes::of(graph);
    let free = classes.free(graph);
    let known = text.bytes().all(|b| (b'A'..=b'A' + STEPS).contains(&b));
    if !known || text.len() != free.len() {
        return false;
    }
    let scale = |b: u8| 2f64.powf(-f64::from(b - b'A') / STEPS_PER_OCTAVE);
    let scales = free.into_iter().zip(text.bytes().map(scale)).collect();
    apply(graph, &classes, &scales);
    true
}

fn choose(
    graph: &Graph,
    statistics: &Statistics,
    classes: &Classes,
    per_channel: bool,
) -> HashMap<Element, f64> {
    let mut found: HashMap<Element, Class> = HashMap::new();
    let bounds: HashMap<ValueId, f64> = graph
        .nodes
        .iter()
        .filter_map(|node| match &node.op {
            Op::Clip(clip) => Some((node.outputs[0], f64::from(clip.max?))),
            _ => None,
        })
        .collect();
    for (id, value) in graph.values.iter().enumerate() {
        let Some(seen) = statistics.get(&value.name) else { continue };
        if classes.channels[id] != seen.min.len() {
            continue;
        }
        let zero = |a: f32, b: f32, f: fn(f32, f32) -> f32| f64::from(f(a, b));
        let low = seen.min.iter().fold(0.0, |a, &b| zero(a as f32, b, f32::min));
        let high = seen.max.iter().fold(0.0, |a, &b| zero(a as f32, b, f32::max));
        let high = bounds.get(&id).copied().unwrap_or(high);
        let (headroom, least) =
            if bounds.contains_key(&id) { (HEADROOM, LEAST_OF_CLIP) } else { (1.0, LEAST) };
        let step = (high - low) / 255.0;
        for c in 0..seen.min.len() {
            let part = |x: f32, end: f64| if end == 0.0 { 0.0 } else { f64::from(x) / end };
            let used = headroom * part(seen.min[c], low).max(part(seen.max[c], high));
            let used = used.clamp(least, 1.0);
            let new = Class { least: 0.0, activation_noise: 0.0 };
            let class = found.entry(classes.find(classes.base[id] + c)).or_insert(new);
            class.least = class.least.max(used);
            class.activation_noise += step * step;
        }
    }
    let mut readers: HashMap<Element, (f64, f64)> = HashMap::new();
    for node in &graph.nodes {
        let Some(weighted) = Weighted::of(graph, node) else { continue };
        let seen = statistics.get(&graph.values[source(graph, weighted.input)].name);
        let power = |c: usize| seen.filter(|s| s.min.len() > c).map_or(0.0, |s| s.power(c));
        if !per_channel {
            let steps = weighted.steps(graph, per_channel);
            for k in 0..weighted.weights(graph).len() {
                let (row, column) = weighted.place(k);
                let channel = (row < classes.channels[weighted.output])
                    .then(|| classes.find(classes.base[weighted.output] + row));
                if let Some(class) = channel.and_then(|e| found.get_mut(&e)) {
                    class.activation_noise += steps[row].powi(2) * power(column);
                }
            }
        }
        let noise = weighted.column_noise(graph, per_channel);
        for c in 0..classes.channels[weighted.input] {
            let (norm, step) = noise.get(c).copied().unwrap_or_default();
            let power = power(c);
            let entry = readers.entry(classes.find(classes.base[weighted.input] + c)).or_default();
            entry.0 += norm;
            entry.1 += step * power;
        }
    }
    let usable = |e: &Element| !classes.blocked[*e];
    found
        .into_iter()
        .filter(|(e, _)| usable(e))
        .map(|(e, class)| {
            let (norm, weight_noise) = readers.get(&e).copied().unwrap_or_default();
            let (a, b) = (class.activation_noise * norm, weight_noise);
            let best = if a > 0.0 { (b / a).powf(0.25) } else { 1.0 };
            (e, best.clamp(class.least, 1.0))
        })
        .collect()
}

/// Divides by each class's scale where its channels are computed, multiplies where they are read.
fn apply(graph: &mut Graph, classes: &Classes, scales: &HashMap<Element, f64>) {
    let of = |id: ValueId| -> Vec<f64> {
        (0..classes.channels[id])
            .map(|c| scales.get(&classes.find(classes.base[id] + c)).copied().unwrap_or(1.0))
            .collect()
    };
    for i in 0..graph.nodes.len() {
        let Some(weighted) = Weighted::of(graph, &graph.nodes[i]) else { continue };
        let (input, output) = (of(weighted.input), of(weighted.output));
        let mut weights = weighted.weights(graph);
        for (k, w) in weights.iter_mut().enumerate() {
            let (row, column) = weighted.place(k);
            *w *=
                input.get(column).copied().unwrap_or(1.0) / output.get(row).copied().unwrap_or(1.0);
        }
        let changed = |s: &[f64]| s.iter().any(|&s| s != 1.0);
        if changed(&input) || changed(&output) {
            super::set_constant(graph, i, 1, &weights);
        }
        if changed(&output)
            && let Some(mut bias) = weighted.bias(graph)
        {
            bias.iter_mut().zip(&output).for_each(|(b, s)| *b /= s);
            super::set_constant(graph, i, 2, &bias);
        }
    }
}
