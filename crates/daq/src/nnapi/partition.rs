//! Which nodes go to the device together.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::graph::Graph;

/// The graph with its nodes in an order in which those that are `taken` come in few runs, and these
/// runs. The order comes with the position that each node had.
///
/// Everything that can run on one side runs there before the other side is asked: a branch that has
/// to wait for the CPU does not hold up its neighbours.
pub(super) fn reorder(graph: &Graph, taken: &[bool]) -> ((Graph, Vec<usize>), Vec<Range<usize>>) {
    let producers = graph.producers();
    let readers = graph.consumers();
    let mut waits: Vec<usize> = graph
        .nodes
        .iter()
        .map(|node| node.inputs.iter().flatten().filter(|&&id| producers[id].is_some()).count())
        .collect();
    // Those that wait for nothing, by side.
    let mut ready = [BTreeSet::new(), BTreeSet::new()];
    for (i, _) in waits.iter().enumerate().filter(|(_, waits)| **waits == 0) {
        ready[usize::from(taken[i])].insert(i);
    }
    let (mut order, mut runs, mut side) = (Vec::new(), Vec::new(), false);
    while ready.iter().any(|side| !side.is_empty()) {
        let start = order.len();
        while let Some(i) = ready[usize::from(side)].pop_first() {
            order.push(i);
            for &reader in graph.nodes[i].outputs.iter().flat_map(|&id| &readers[id]) {
                waits[reader] -= 1;
                if waits[reader] == 0 {
                    ready[usize::from(taken[reader])].insert(reader);
                }
            }
        }
        if side && start < order.len() {
            runs.push(start..order.len());
        }
        side = !side;
    }
    let nodes = order.iter().map(|&i| graph.nodes[i].clone()).collect();
    ((Graph { nodes, ..graph.clone() }, order), runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Attrs, Op};
    use crate::{DType, Node, Value};

    /// Nodes `(inputs, output)` over values of one element; value 0 is given.
    fn graph(nodes: &[(&[usize], usize)]) -> Graph {
        let mut g = Graph::default();
        for i in 0..=nodes.len() {
            g.add_value(Value::new(format!("v{i}"), DType::F32, &[1]));
        }
        for (inputs, output) in nodes {
            let op = Op::from_attrs("Max", &Attrs::new()).unwrap().unwrap();
            let inputs = inputs.iter().map(|&i| Some(i)).collect();
            let (name, doc) = (format!("n{output}"), String::new());
            g.nodes.push(Node { name, op, inputs, outputs: vec![*output], doc });
        }
        (g.inputs, g.outputs) = (vec![0], vec![nodes.len()]);
        g.validate().unwrap();
        g
    }

    #[test]
    fn a_node_in_the_middle_splits_a_chain() {
        let g = graph(&[(&[0], 1), (&[1], 2), (&[2], 3), (&[3], 4)]);
        let ((reordered, order), runs) = reorder(&g, &[true, true, false, true]);
        assert_eq!((order, runs), (vec![0, 1, 2, 3], vec![0..2, 3..4]));
        reordered.validate().unwrap();
        assert_eq!(reorder(&g, &[true; 4]).1, vec![0..4]);
        assert_eq!(reorder(&g, &[false; 4]).1, []);
    }

    #[test]
    fn branches_do_not_hold_each_other_up() {
        // Two branches of device, CPU, device from value 0, alternating, and their end.
        let g = graph(&[
            (&[0], 1),
            (&[1], 2),
            (&[2], 3),
            (&[0], 4),
            (&[4], 5),
            (&[5], 6),
            (&[3, 6], 7),
        ]);
        let taken = [true, false, true, true, false, true, true];
        let ((reordered, order), runs) = reorder(&g, &taken);
        assert_eq!((order, runs), (vec![0, 3, 1, 4, 2, 5, 6], vec![0..2, 4..7]));
        reordered.validate().unwrap();
    }

    #[test]
    fn a_node_that_reads_a_value_twice_waits_for_it_once() {
        let g = graph(&[(&[0], 1), (&[1, 1], 2)]);
        assert_eq!(reorder(&g, &[false, true]).0.1, [0, 1]);
    }
}
