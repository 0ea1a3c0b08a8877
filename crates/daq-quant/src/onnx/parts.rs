//! A model cut at a node whose output has a shape that elements decide: what comes before it, the
//! node alone, and what comes after. Each part has static shapes once those of its inputs are known.

use std::collections::{BTreeSet, HashSet};

use super::order::sorted;
use super::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

/// The parts of a model. They name their values as the whole does.
pub(crate) struct Parts {
    /// Gives what the others read and do not compute themselves, and the outputs of the whole that
    /// come before the node.
    pub(crate) first: ModelProto,
    /// The node. What it reads is neither input nor initializer yet.
    pub(crate) node: ModelProto,
    /// What needs the node's outputs. Its inputs have no types yet.
    pub(crate) rest: ModelProto,
    /// The outputs of the whole.
    pub(crate) outputs: Vec<String>,
}

/// The names of a graph's outputs.
pub(crate) fn output_names(graph: &GraphProto) -> Vec<String> {
    graph.output.iter().map(|o| o.name().to_string()).collect()
}

fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_string()), ..Default::default() }
}

/// Cuts a model at the node that computes `output`.
///
/// # Errors
/// What is wrong with the graph.
pub(crate) fn split(mut model: ModelProto, output: &str) -> Result<Parts, String> {
    let mut graph = model.graph.take().unwrap_or_default();
    let outputs = output_names(&graph);
    let mut constant: HashSet<String> =
        graph.initializer.iter().map(|t| t.name().to_string()).collect();
    let inputs = graph.input.iter().map(|i| i.name().to_string());
    let given: HashSet<String> = inputs.chain(constant.iter().cloned()).collect();
    let nodes = sorted(std::mem::take(&mut graph.node), &given, &outputs)?;
    let (mut first, mut node, mut rest) = (Vec::new(), None, Vec::new());
    let mut late: HashSet<String> = HashSet::new();
    for n in nodes {
        if n.output.iter().any(|name| name == output) {
            late.extend(n.output.iter().cloned());
            node = Some(n);
        } else if n.input.iter().any(|name| late.contains(name)) {
            late.extend(n.output.iter().cloned());
            rest.push(n);
        } else {
            // What depends on no input (weights behind a DequantizeLinear) is computed where it is
            // read.
            if n.input.iter().all(|name| name.is_empty() || constant.contains(name)) {
                constant.extend(n.output.iter().cloned());
                rest.push(n.clone());
            }
            first.push(n);
        }
    }
    let node = node.ok_or_else(|| format!("nothing computes `{output}`"))?;
    let read = |nodes: &[NodeProto]| -> BTreeSet<String> {
        nodes.iter().flat_map(|n| &n.input).filter(|name| !name.is_empty()).cloned().collect()
    };
    let made: HashSet<String> = rest.iter().flat_map(|n| &n.output).cloned().collect();
    let ends = outputs.iter().filter(|name| late.contains(*name) && made.contains(*name));
    let ends: Vec<&String> = ends.collect();
    let mut needed: HashSet<String> = ends.iter().copied().cloned().collect();
    let mut keep: Vec<bool> = Vec::new();
    for n in rest.iter().rev() {
        keep.push(n.output.iter().any(|name| needed.contains(name)));
        if keep.last() == Some(&true) {
            needed.extend(n.input.iter().cloned());
        }
    }
    let rest: Vec<_> = rest
        .into_iter()
        .zip(keep.into_iter().rev())
        .filter(|(_, keep)| *keep)
        .map(|n| n.0)
        .collect();
    let (by_rest, by_node) = (read(&rest), read(std::slice::from_ref(&node)));
    let crossing: BTreeSet<&String> = by_rest.iter().filter(|n| !made.contains(*n)).collect();
    let is_initializer = |name: &String| graph.initializer.iter().any(|t| t.name() == name);
    let early = outputs.iter().filter(|name| !late.contains(*name));
    let before = crossing.iter().copied().filter(|n| !late.contains(*n) && !is_initializer(n));
    let first_outputs: BTreeSet<&String> = before.chain(&by_node).chain(early).collect();
    let part = |graph: GraphProto| ModelProto { graph: Some(graph), ..model.clone() };
    let rest = part(GraphProto {
        node: rest,
        initializer: graph
            .initializer
            .iter()
            .filter(|t| by_rest.contains(t.name()))
            .cloned()
            .collect(),
        input: crossing.iter().filter(|name| !is_initializer(name)).map(|n| named(n)).collect(),
        output: ends.iter().map(|name| named(name)).collect(),
        name: graph.name.clone(),
        ..Default::default()
    });
    let node = part(GraphProto {
        output: node
            .output
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| named(name))
            .collect(),
        node: vec![node],
        name: graph.name.clone(),
        ..Default::default()
    });
    let output = first_outputs.into_iter().map(|name| named(name)).collect();
    let first = part(GraphProto { node: first, output, ..graph });
    Ok(Parts { first, node, rest, outputs })
}
