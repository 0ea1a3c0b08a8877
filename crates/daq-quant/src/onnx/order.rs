//! The order in which nodes can be computed.
//!
//! ONNX asks for sorted nodes, but not every writer obeys. Nodes that no output needs are left
//! out here, before anybody asks whether their operators are supported.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::branch::captured;
use super::proto::NodeProto;

/// The nodes that `outputs` need, each after those whose outputs it reads, otherwise in the
/// order of the file. `given` are the names of inputs and initializers.
pub(super) fn sorted(
    nodes: Vec<NodeProto>,
    given: &HashSet<String>,
    outputs: &[String],
) -> Result<Vec<NodeProto>, String> {
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if given.contains(name) || producer.insert(name, i).is_some() {
                return Err(format!(
                    "node `{}` makes `{name}`, which exists already; names must be unique",
                    node_name(node)
                ));
            }
        }
    }
    let mut needed = vec![false; nodes.len()];
    let mut stack: Vec<usize> = Vec::new();
    for name in outputs.iter().filter(|n| !given.contains(*n)) {
        let found = producer.get(name.as_str());
        stack.push(*found.ok_or_else(|| format!("nothing computes the output `{name}`"))?);
    }
    let mut waits_for = vec![0; nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    while let Some(i) = stack.pop() {
        if std::mem::replace(&mut needed[i], true) {
            continue;
        }
        for name in captured(&nodes[i]).iter().filter(|n| !given.contains(*n)) {
            let Some(&from) = producer.get(name.as_str()) else {
                let node = node_name(&nodes[i]);
                return Err(format!("node `{node}` reads `{name}`, which nothing computes"));
            };
            waits_for[i] += 1;
            readers[from].push(i);
            stack.push(from);
        }
    }
    let ready = |i: &usize| needed[*i] && waits_for[*i] == 0;
    let mut heap: BinaryHeap<_> = (0..nodes.len()).filter(ready).map(Reverse).collect();
    let mut order = Vec::new();
    while let Some(Reverse(i)) = heap.pop() {
        order.push(i);
        for &reader in &readers[i] {
            waits_for[reader] -= 1;
            if waits_for[reader] == 0 {
                heap.push(Reverse(reader));
            }
        }
    }
    if let Some(i) = (0..nodes.len()).find(|&i| needed[i] && waits_for[i] > 0) {
        return Err(format!(
            "node `{}` waits for its own output: the graph has a cycle",
            node_name(&nodes[i])
        ));
    }
    let mut nodes: Vec<_> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|i| nodes[i].take()).collect())
}

/// The node's name, or its first output's where it has none.
pub(super) fn node_name(node: &NodeProto) -> &str {
    match node.name.as_deref() {
        Some(name) if !name.is_empty() => name,
        _ => node.output.first().map_or("", String::as_str),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        NodeProto { input: own(inputs), output: own(outputs), ..Default::default() }
    }

    fn order(nodes: &[NodeProto], outputs: &[&str]) -> Result<Vec<String>, String> {
        let outputs: Vec<_> = outputs.iter().map(|n| n.to_string()).collect();
        let sorted = sorted(nodes.to_vec(), &HashSet::from(["x".to_string()]), &outputs)?;
        Ok(sorted.iter().map(|n| node_name(n).to_string()).collect())
    }

    #[test]
    fn order_follows_data() {
        let a = node(&["x", ""], &["a"]);
        let b = node(&["a", "a", "x"], &["b"]);
        let dead = node(&["nowhere"], &["dead"]);
        let both = [b.clone(), dead, a.clone()];
        assert_eq!(order(&both, &["b"]).unwrap(), ["a", "b"]);
        assert_eq!(order(&both, &["a", "x"]).unwrap(), ["a"]);
        assert!(order(&both, &["dead"]).unwrap_err().contains("reads `nowhere`"));
        assert!(order(&both, &["c"]).unwrap_err().contains("output `c`"));
        assert!(order(&[a.clone(), a.clone()], &["a"]).unwrap_err().contains("exists already"));
        assert!(order(&[node(&[], &["x"])], &["x"]).unwrap_err().contains("exists already"));
        let cycle = [node(&["c"], &["b"]), node(&["b", "x"], &["c"])];
        assert!(order(&cycle, &["c"]).unwrap_err().contains("cycle"));
    }
}
