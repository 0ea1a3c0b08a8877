//! Scale and zero point of each activation.

use std::collections::HashMap;

use daq::ops::Quantization;
use daq::{DType, Graph, Op, QuantParams, ValueId};

use super::Ranges;
use crate::range::Range;

/// What Sigmoid and Softmax give: a scale of 1/256 and zero point 0, whatever calibration saw, so that
/// scores of all heads compare.
const SHARES: Range = Range { min: 0.0, max: 255.0 / 256.0 };

/// An input of a Concat keeps at least this part of the codes at the Concat's scale.
const LEAST_PART: f32 = 1.0 / 16.0;

/// Whether values of these ranges can share one scale. The scores of a detector are lost beside its
/// boxes.
pub(super) fn can_share(ranges: &[Range]) -> bool {
    let zero = Range { min: 0.0, max: 0.0 };
    let width = |r: Range| r.union(zero).max - r.union(zero).min;
    let joined = width(ranges.iter().fold(zero, |all, r| all.union(*r)));
    ranges.iter().all(|&r| width(r) == 0.0 || width(r) >= LEAST_PART * joined)
}

/// Chooses the scale of each value that an 8-bit node reads or computes, constants that are not
/// weights included.
pub(super) fn choose(
    graph: &Graph,
    reasons: &[Option<String>],
    ranges: &Ranges,
    power_of_two: bool,
) -> HashMap<ValueId, QuantParams> {
    let mut chosen: HashMap<ValueId, Range> = HashMap::new();
    // Values that share the scale of another: outputs of operators that only move codes.
    let mut follows: HashMap<ValueId, ValueId> = HashMap::new();
    let range = |id: ValueId| super::range_of(graph, ranges, id);
    let eight_bit = || graph.nodes.iter().zip(reasons).filter(|(_, r)| r.is_none()).map(|(n, _)| n);
    for node in eight_bit() {
        let quantization = node.op.quantization();
        for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, id)| Some((i, (*id)?))) {
            let value = &graph.values[id];
            let is_weight = quantization == Quantization::Weighted && i > 0;
            match &value.data {
                Some(_) if is_weight || value.dtype != DType::F32 => {}
                Some(data) => drop(chosen.insert(id, range_of(data.data()))),
                None => drop(range(id).map(|r| chosen.entry(id).or_insert(r))),
            }
        }
        let first = node.inputs.first().copied().flatten();
        for &id in &node.outputs {
            match (quantization, first) {
                (Quantization::Moves | Quantization::Averages, Some(input)) => {
                    follows.insert(id, input);
                }
                _ if matches!(node.op, Op::Sigmoid(_) | Op::Softmax(_)) => {
                    chosen.insert(id, SHARES);
                }
                _ => drop(range(id).map(|r| chosen.insert(id, r))),
            }
        }
    }
    share_concat(graph, reasons, &mut chosen, &follows);
    let mut scales: HashMap<ValueId, QuantParams> =
        chosen.into_iter().map(|(id, range)| (id, codes_of(range, power_of_two))).collect();
    for node in eight_bit() {
        for id in &node.outputs {
            if let Some(quant) = follows.get(id).and_then(|input| scales.get(input)).cloned() {
                scales.insert(*id, quant);
            }
        }
    }
    scales
}

/// The scale and zero point of an activation.
pub(super) fn codes_of(range: Range, power_of_two: bool) -> QuantParams {
    if power_of_two { range.to_u8_power_of_two() } else { range.to_u8() }
}

/// An input that only a Concat reads is computed at the Concat's scale: rounding once loses less
/// than rounding twice, and joining is a copy.
fn share_concat(
    graph: &Graph,
    reasons: &[Option<String>],
    chosen: &mut HashMap<ValueId, Range>,
    follows: &HashMap<ValueId, ValueId>,
) {
    let consumers = graph.consumers();
    let producers = graph.producers();
    for (node, _) in graph.nodes.iter().zip(reasons).rev().filter(|(_, r)| r.is_none()) {
        if !matches!(node.op, Op::Concat(_)) {
            continue;
        }
        let Some(&joined) = chosen.get(&node.outputs[0]) else { continue };
        for &id in node.inputs.iter().flatten() {
            let computed = producers[id].is_some_and(|p| reasons[p].is_none());
            let only_here = consumers[id].len() == 1 && !graph.outputs.contains(&id);
            if computed && only_here && !follows.contains_key(&id) {
                chosen.insert(id, joined);
            }
        }
    }
}

fn range_of(data: &[f32]) -> Range {
    let zero = Range { min: 0.0, max: 0.0 };
    data.iter().fold(zero, |r, &x| r.union(Range { min: x, max: x }))
}
