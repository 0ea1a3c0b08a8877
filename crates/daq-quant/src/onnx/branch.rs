//! If with a constant condition: the nodes of the branch that it takes stand in its place. Exporters leave
//! such nodes where a shape decides.

use std::collections::HashSet;

use super::proto::{GraphProto, NodeProto};

/// The subgraphs of a node.
fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().filter_map(|attribute| attribute.g.as_ref())
}

/// The names that a node reads, in its subgraphs too, whose own names are among them.
pub(super) fn read(node: &NodeProto) -> Vec<String> {
    let mut names = node.input.clone();
    for graph in subgraphs(node) {
        names.extend(graph.node.iter().flat_map(read));
        names.extend(graph.output.iter().map(|o| o.name().to_owned()));
    }
    names
}

/// The names that a node makes, in its subgraphs too.
pub(super) fn made(node: &NodeProto) -> Vec<String> {
    let mut names = node.output.clone();
    for graph in subgraphs(node) {
        names.extend(graph.node.iter().flat_map(made));
        names.extend(graph.initializer.iter().map(|t| t.name().to_owned()));
    }
    names
}

/// What a node reads from outside of its subgraphs, in the order in which it reads.
pub(super) fn captured(node: &NodeProto) -> Vec<String> {
    let mut names = node.input.clone();
    for graph in subgraphs(node) {
        let mut own: HashSet<String> = graph.node.iter().flat_map(made).collect();
        own.extend(graph.input.iter().map(|i| i.name().to_owned()));
        let stored = |name: &String| graph.initializer.iter().any(|t| t.name() == name);
        let outputs = graph.output.iter().map(|o| o.name().to_owned());
        let all = graph.node.iter().flat_map(captured).chain(outputs);
        names.extend(all.filter(|name| !own.contains(name) && !stored(name)));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The branch of an If, its outputs named as those of the node.
pub(super) fn of(node: &NodeProto, taken: bool) -> Result<GraphProto, String> {
    let name = if taken { "then_branch" } else { "else_branch" };
    let branch = node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.g.clone());
    let mut branch = branch.ok_or_else(|| format!("attribute `{name}` is missing"))?;
    if branch.output.len() != node.output.len() || !branch.input.is_empty() {
        let (has, wants) = (branch.output.len(), node.output.len());
        return Err(format!("`{name}` must have no input and {wants} outputs, it has {has}"));
    }
    for (inner, outer) in branch.output.iter().zip(&node.output) {
        branch.node.push(NodeProto {
            op_type: Some("Identity".into()),
            input: vec![inner.name().to_owned()],
            output: vec![outer.clone()],
            ..NodeProto::default()
        });
    }
    Ok(branch)
}

#[cfg(test)]
mod tests {
    use daq::Tensor;

    use crate::onnx::proto::attribute_proto::AttributeType;
    use crate::onnx::proto::{AttributeProto, GraphProto, ValueInfoProto};
    use crate::onnx::small::*;
    use crate::onnx::{ReadOptions, read_bytes};
    use prost::Message;

    /// `y` is twice `x` where it has three rows, else its negative, which `outside` computes; the
    /// node comes before the one that it captures.
    fn file(rows: i64, names: [&str; 2]) -> Vec<u8> {
        let branch = |name: &str, nodes: &[_], output: &str| AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Graph as i32),
            g: Some(GraphProto {
                node: nodes.to_vec(),
                initializer: vec![floats("two", &[], &[2.0])],
                output: vec![ValueInfoProto { name: Some(output.into()), ..Default::default() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let twice = [node("Mul", &["x", "two"], &["twice"], &[])];
        let attributes = [branch(names[0], &twice, "twice"), branch(names[1], &[], "outside")];
        let nodes = [
            node("Shape", &["x"], &["shape"], &[]),
            node("Gather", &["shape", "first"], &["rows"], &[]),
            node("Equal", &["rows", "three"], &["condition"], &[]),
            node("If", &["condition"], &["y"], &attributes),
            node("Neg", &["x"], &["outside"], &[]),
        ];
        let constants = [longs("first", &[], &[0]), longs("three", &[], &[3])];
        model(13, &[("x", &[rows, 1])], &constants, &nodes, &["y"]).encode_to_vec()
    }

    #[test]
    fn the_branch_that_is_taken_stands_in_its_place() {
        for (rows, want) in [(3, [2f32, 4.0, 6.0].as_slice()), (2, &[-1.0, -2.0])] {
            let bytes = file(rows, ["then_branch", "else_branch"]);
            let graph = read_bytes(&bytes, &ReadOptions::default()).unwrap();
            let model = daq::Model::from_graph(graph).unwrap();
            let x = Tensor::from_slice(&[rows as usize, 1], &[1f32, 2.0, 3.0][..rows as usize]);
            let y = model.session(1).run(&[("x", &x)], None).unwrap();
            assert_eq!(y[0].data::<f32>(), want);
        }
        let bytes = file(3, ["other", "else_branch"]);
        let why = read_bytes(&bytes, &ReadOptions::default()).unwrap_err().to_string();
        assert!(why.contains("node `y` (If): attribute `then_branch` is missing"), "{why}");
    }

    #[test]
    fn of_several_missing_inputs_the_first_is_named() {
        let input = |name: &str| ValueInfoProto { name: Some(name.into()), ..Default::default() };
        let reads = |op: &str, own: &[&str]| {
            let body = AttributeProto {
                name: Some("body".into()),
                r#type: Some(AttributeType::Graph as i32),
                g: Some(GraphProto {
                    node: vec![node("Sum", &["e", "b", "d", "a", "c"], &["sum"], &[])],
                    input: own.iter().copied().map(input).collect(),
                    output: vec![input("sum")],
                    ..Default::default()
                }),
                ..Default::default()
            };
            let nodes = [node(op, &["x"], &["y"], &[body])];
            let bytes = model(13, &[("x", &[1])], &[], &nodes, &["y"]).encode_to_vec();
            read_bytes(&bytes, &ReadOptions::default()).unwrap_err().to_string()
        };
        let why = reads("If", &[]);
        assert!(why.contains("node `y` reads `e`, which nothing computes"), "{why}");
        // What a Loop hands to its body is not missing; the Loop is what cannot be read.
        let why = reads("Loop", &["a", "b", "c", "d", "e"]);
        assert!(why.contains("node `y` (Loop") && why.contains("a subgraph"), "{why}");
    }
}
