//! Removes nodes that copy: Identity, Dropout, and operators that are set so as to do nothing.

use daq::attrs::Attrs;
use daq::{Graph, Node, ValueId};

use super::rename_output;

/// Removes copying nodes; whether there was one.
pub fn remove_identities(graph: &mut Graph) -> bool {
    let mut changed = false;
    let mut i = 0;
    while i < graph.nodes.len() {
        if let Some((x, y)) = copied(graph, &graph.nodes[i])
            && let Some(rewire) = rewiring(graph, x, y)
        {
            graph.nodes.remove(i);
            rewire(graph, x, y);
            changed = true;
        } else {
            i += 1;
        }
    }
    changed
}

/// How readers of `y` can do without the node that copies `x` to `y`.
fn rewiring(graph: &Graph, x: ValueId, y: ValueId) -> Option<fn(&mut Graph, ValueId, ValueId)> {
    if !graph.outputs.contains(&y) {
        return Some(|graph, x, y| graph.replace_uses(y, x));
    }
    let computed = graph.nodes.iter().any(|n| n.outputs.contains(&x));
    let free = computed && !graph.outputs.contains(&x);
    free.then_some(rename_output)
}

/// Input and output of a node whose output is its input.
fn copied(graph: &Graph, node: &Node) -> Option<(ValueId, ValueId)> {
    let (x, y) = (node.inputs.first().copied().flatten()?, *node.outputs.first()?);
    let (from, to) = (&graph.values[x], &graph.values[y]);
    let same = from.dtype == to.dtype
        && from.shape == to.shape
        && from.quant == to.quant
        && from.layout == to.layout
        && node.outputs.len() == 1;
    (same && does_nothing(node, from.shape.len())).then_some((x, y))
}

/// Whether a node whose output has the shape and type of its input copies it.
fn does_nothing(node: &Node, rank: usize) -> bool {
    let attrs = node.op.to_attrs();
    match node.op.name() {
        "Identity" | "Dropout" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand"
        | "Cast" | "Split" => true,
        "Concat" => node.inputs.len() == 1,
        "Transpose" => {
            rank < 2 || ints(&attrs, "perm").is_some_and(|p| p.iter().copied().eq(0..rank as i64))
        }
        "Pad" => ints(&attrs, "pads").is_some_and(|pads| pads.iter().all(|&p| p == 0)),
        // All elements, and none of them backwards.
        "Slice" => ints(&attrs, "steps").is_none_or(|steps| steps.iter().all(|&s| s > 0)),
        _ => false,
    }
}

fn ints(attrs: &Attrs, name: &str) -> Option<Vec<i64>> {
    attrs.get_ints(name).ok().flatten()
}
