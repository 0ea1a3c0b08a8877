//! Models that are quantized at one shape and run at others, such as a recogniser of text lines.
//!
//! A [`Graph`] has static shapes: what a model computes from the shape of its input is settled when
//! it is read. Two readings of one model, at different shapes, show what depends on them. An axis of a
//! Reshape on which they differ is left to be worked out again.

use std::collections::{BTreeMap, HashMap};

use daq::{Graph, Node, Op};

/// The open axes of inputs and outputs, by name.
pub type OpenAxes = BTreeMap<String, Vec<usize>>;

/// What keeps a model from running at other shapes.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "`{node}` ({op}) depends on the input's shape in more than one axis of a Reshape; quantize the \
     model for each shape"
)]
pub struct Settled {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op: String,
}

/// Opens what differs between two readings of the float model, `one` and `other`, in a graph that was
/// made of the first one: its shapes of Reshape. Gives the axes of inputs and outputs that differ.
///
/// # Errors
/// [`Settled`] names an operator that cannot be opened.
pub fn open(graph: &mut Graph, one: &Graph, other: &Graph) -> Result<OpenAxes, Settled> {
    let output = |graph: &Graph, node: &Node| graph.values[node.outputs[0]].name.clone();
    let there: HashMap<String, &Node> = other.nodes.iter().map(|n| (output(other, n), n)).collect();
    let mut shapes = HashMap::new();
    for node in &one.nodes {
        let name = output(one, node);
        let settled = || Settled { node: one.node_name(node).into(), op: node.op.name().into() };
        let same = there.get(&name).ok_or_else(settled)?;
        let inputs = node.inputs.iter().flatten().zip(same.inputs.iter().flatten());
        let mut inputs = inputs.map(|(&a, &b)| (&one.values[a], &other.values[b]));
        if node.op != same.op {
            let (Op::Reshape(a), Op::Reshape(b)) = (&node.op, &same.op) else {
                return Err(settled());
            };
            let x = inputs.next().ok_or_else(settled)?;
            let shape = opened([&a.shape, &b.shape], [&x.0.shape, &x.1.shape], a.allow_zero);
            shapes.insert(name, shape.ok_or_else(settled)?);
        } else if inputs.any(|(a, b)| a.data != b.data) {
            return Err(settled());
        }
    }
    for node in &mut graph.nodes {
        if let Op::Reshape(reshape) = &mut node.op
            && let Some(shape) = shapes.remove(&graph.values[node.outputs[0]].name)
        {
            reshape.shape = shape;
        }
    }
    if let Some(node) = shapes.into_keys().next() {
        return Err(Settled { node, op: "Reshape".into() });
    }
    let ends = |graph: &Graph| -> BTreeMap<String, Vec<usize>> {
        let ends = graph.inputs.iter().chain(&graph.outputs).map(|&id| &graph.values[id]);
        ends.map(|v| (v.name.clone(), v.shape.clone())).collect()
    };
    let differ = |(name, a): (String, Vec<usize>), b: &BTreeMap<String, Vec<usize>>| {
        let b = b.get(&name)?;
        let axes = (0..a.len()).filter(|&i| b.get(i) != Some(&a[i])).collect::<Vec<_>>();
        (!axes.is_empty()).then_some((name, axes))
    };
    let there = ends(other);
    Ok(ends(one).into_iter().filter_map(|end| differ(end, &there)).collect())
}

/// A shape for Reshape that gives both of `shapes`, from inputs of shapes `x`: an axis that differs
/// is the input's (0), or what remains (-1).
fn opened(shapes: [&[i64]; 2], x: [&[usize]; 2], allow_zero: bool) -> Option<Vec<i64>> {
    let [a, b] = shapes;
    let mut remains = a.contains(&-1) || b.contains(&-1);
    let axis = |i: usize| {
        if a[i] == b[i] {
            return Some(a[i]);
        }
        let is_input = |n: i64, x: &[usize]| x.get(i).is_some_and(|&d| d as i64 == n);
        if !allow_zero && is_input(a[i], x[0]) && is_input(b[i], x[1]) {
            return Some(0);
        }
        (!std::mem::replace(&mut remains, true)).then_some(-1)
    };
    (a.len() == b.len()).then(|| (0..a.len()).map(axis).collect::<Option<_>>())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::small::*;
    use crate::onnx::{ReadOptions, read_bytes};
    use prost::Message;

    #[test]
    fn an_axis_that_differs_is_left_open() {
        assert_eq!(
            opened([&[1, 6, 40], &[1, 6, 80]], [&[1, 240], &[1, 480]], false),
            Some(vec![1, 6, -1])
        );
        // That of the input's own place needs no -1, so that another one may.
        let x = [&[1, 40, 6][..], &[1, 80, 6]];
        assert_eq!(opened([&[1, 40, 6], &[1, 80, 6]], x, false), Some(vec![1, 0, 6]));
        assert_eq!(opened([&[1, 40, 6], &[1, 80, 6]], x, true), Some(vec![1, -1, 6]));
        assert_eq!(opened([&[1, 5, 8], &[1, 10, 4]], [&[40], &[40]], false), None);
        assert_eq!(opened([&[5, 8], &[40]], [&[40], &[40]], false), None);
    }

    /// `y` is `x` of `[1, 2, n]` as `[n, 2]`, by way of its own shape.
    fn graph(n: usize) -> Graph {
        let nodes = [
            node("Shape", &["x"], &["s"], &[]),
            node("Gather", &["s", "two"], &["n"], &[]),
            node("Concat", &["n", "pair"], &["shape"], &[int("axis", 0)]),
            node("Reshape", &["x", "shape"], &["y"], &[]),
        ];
        let constants = [longs("two", &[1], &[2]), longs("pair", &[1], &[2])];
        let bytes = model(13, &[("x", &[1, 2, -1])], &constants, &nodes, &["y"]).encode_to_vec();
        let shapes = [("x".to_string(), vec![1, 2, n])].into();
        read_bytes(&bytes, &ReadOptions { shapes }).unwrap()
    }

    #[test]
    fn a_graph_takes_other_shapes() {
        let (one, other) = (graph(3), graph(5));
        let mut opened = one.clone();
        let axes = open(&mut opened, &one, &other).unwrap();
        assert_eq!(axes, [("x".to_string(), vec![2]), ("y".to_string(), vec![0])].into());
        let bytes = crate::onnx::to_bytes(&opened).unwrap();
        let shapes = [("x".to_string(), vec![1, 2, 7])].into();
        let read = read_bytes(&bytes, &ReadOptions { shapes }).unwrap();
        assert_eq!(read.values[read.outputs[0]].shape, [7, 2]);
        // The same shape at both: nothing is open.
        assert_eq!(open(&mut opened, &one, &one), Ok(OpenAxes::new()));
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let (one, mut other) = (graph(3), graph(5));
        other.nodes[0].op = Op::from_attrs("Flatten", &daq::attrs::Attrs::new()).unwrap().unwrap();
        let error = open(&mut one.clone(), &one, &other).unwrap_err();
        assert_eq!((error.node.as_str(), error.op.as_str()), ("y", "Reshape"));
    }
}
