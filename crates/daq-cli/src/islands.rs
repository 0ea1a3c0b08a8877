//! `daq inspect --islands`: the operators of a model that compute floats, why, and what they cost.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use daq::ops::Quantization;
use daq::{DType, Graph, Node, Op, Spec};
use serde::Serialize;

use crate::output;

/// An operator that computes floats.
#[derive(Debug, PartialEq, Serialize)]
pub struct Island {
    node: String,
    op: &'static str,
    shape: Vec<usize>,
    why: String,
    macs: u64,
    /// Share of the model's MACs.
    share: f64,
    /// Bytes of its constants and outputs.
    bytes: usize,
}

/// The operators that compute floats. `reasons` are those of the model's own
/// quantizer, by the name of a node's first output.
pub fn islands(graph: &Graph, reasons: &BTreeMap<String, String>) -> Vec<Island> {
    let consumers = graph.consumers();
    let total: u64 = graph.nodes.iter().map(|node| macs(graph, node)).sum();
    let is_float = |id: &usize| graph.values[*id].dtype == DType::F32;
    let product = |node: &Node| {
        node.op.quantization() == Quantization::Weighted
            && node.inputs[0].is_some_and(|x| graph.values[x].is_quantized())
    };
    let clamped = |node: &Node| {
        let (clamp, _) = daq::plan::fused_clamp(graph, &consumers, node)?;
        Some(graph.nodes[clamp].outputs[0])
    };
    let clamps: Vec<usize> =
        graph.nodes.iter().filter(|n| product(n)).filter_map(clamped).collect();
    let floats = |node: &&Node| {
        let conversion = matches!(node.op, Op::QuantizeLinear(_) | Op::DequantizeLinear(_));
        // A product of codes may give floats, and clamps them as it stores them.
        let product = product(node) || clamps.contains(&node.outputs[0]);
        let mut computed =
            node.inputs.iter().flatten().filter(|id| graph.values[**id].data.is_none());
        !conversion && !product && (node.outputs.iter().any(is_float) || computed.any(is_float))
    };
    let island = |node: &Node| {
        let name = graph.node_name(node).to_string();
        let own = || why(graph, &consumers, node);
        let constants =
            node.inputs.iter().flatten().filter_map(|&id| graph.values[id].data.as_ref());
        let outputs = node.outputs.iter().map(|&id| &graph.values[id]);
        let made = outputs.map(|v| v.shape.iter().product::<usize>() * v.dtype.size());
        let macs = macs(graph, node);
        let output = &graph.values[node.outputs[0]].name;
        Island {
            why: reasons.get(output).cloned().unwrap_or_else(own),
            node: name,
            op: node.op.name(),
            shape: graph.values[node.outputs[0]].shape.clone(),
            macs,
            share: if total == 0 { 0.0 } else { macs as f64 / total as f64 },
            bytes: constants.map(|t| t.bytes().len()).sum::<usize>() + made.sum::<usize>(),
        }
    };
    graph.nodes.iter().filter(floats).map(island).collect()
}

fn macs(graph: &Graph, node: &Node) -> u64 {
    let spec = |&id: &usize| Spec::new(graph.values[id].dtype, &graph.values[id].shape);
    let outputs: Vec<Spec> = node.outputs.iter().map(spec).collect();
    node.op.macs(&graph.input_specs(node), &outputs)
}

/// Why a node of a model that another tool quantized computes floats.
fn why(graph: &Graph, consumers: &[Vec<usize>], node: &Node) -> String {
    if node.op.quantization() == Quantization::Never {
        return "it has no 8-bit form".into();
    }
    let producers = graph.producers();
    let dequantized = |id: usize| match producers[id] {
        Some(p) => matches!(graph.nodes[p].op, Op::DequantizeLinear(_)),
        None => graph.values[id].is_quantized(),
    };
    let mut inputs = node.inputs.iter().flatten().map(|&id| (id, &graph.values[id]));
    let plain = inputs.find(|(id, v)| v.dtype == DType::F32 && !dequantized(*id));
    if let Some((_, value)) = plain {
        let what = if value.data.is_some() { "constant" } else { "input" };
        return format!("its {what} `{}` is float, without a scale", value.name);
    }
    let quantized = |&id: &usize| {
        let mut readers = consumers[id].iter().map(|&reader| &graph.nodes[reader].op);
        !consumers[id].is_empty() && readers.all(|op| matches!(op, Op::QuantizeLinear(_)))
    };
    match node.outputs.iter().find(|id| !quantized(id)) {
        Some(&id) => format!("nothing quantizes its output `{}`", graph.values[id].name),
        None => "its scales do not fit an 8-bit form".into(),
    }
}

/// Shows the operators as a table.
pub fn print(islands: &[Island], operators: usize, out: &mut dyn Write) -> Result<()> {
    if islands.is_empty() {
        writeln!(out, "none of the {} computes floats", output::count(operators, "operator"))?;
        return Ok(());
    }
    let row = |i: &Island| {
        let (macs, share) = (output::macs(i.macs), output::percent(i.share));
        let bytes = output::bytes(i.bytes as u64);
        vec![
            i.node.clone(),
            i.op.into(),
            output::shape(&i.shape),
            macs,
            share,
            bytes,
            i.why.clone(),
        ]
    };
    let headings = ["node", "op", "output", ">MACs", ">share", ">bytes", "in float because"];
    writeln!(out, "{}\n", output::table(&headings, islands.iter().map(row).collect()))?;
    let share = islands.iter().map(|i| i.share).sum::<f64>();
    let (count, share) = (islands.len(), output::percent(share));
    writeln!(out, "{count} of {operators} operators compute floats, {share} of the MACs")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use daq::ops::{Attrs, Op};
    use daq::{QuantParams, Tensor, Value};

    use super::*;

    /// Codes `q` to floats `x`, Relu to `y`, times a constant matrix `w` to `z`.
    fn graph() -> Graph {
        let mut g = Graph::default();
        let q = Value::new("q", DType::U8, &[1, 2]).with_quant(QuantParams::per_tensor(0.5, 0));
        let q = g.add_value(q);
        let [x, y, z] = ["x", "y", "z"].map(|n| g.add_value(Value::new(n, DType::F32, &[1, 2])));
        let w = g.add_value(Value::constant("w", Tensor::from_slice(&[2, 2], &[1f32; 4])));
        for (op, inputs, output) in [
            ("DequantizeLinear", vec![Some(q)], x),
            ("Relu", vec![Some(x)], y),
            ("MatMul", vec![Some(y), Some(w)], z),
        ] {
            let op_made = Op::from_attrs(op, &Attrs::new()).unwrap().unwrap();
            let (name, doc) = (format!("the {op}"), String::new());
            g.nodes.push(Node { name, op: op_made, inputs, outputs: vec![output], doc });
        }
        (g.inputs, g.outputs) = (vec![q], vec![z]);
        g.validate().unwrap();
        g
    }

    #[test]
    fn a_product_of_codes_into_floats_is_no_island() {
        let mut g = graph();
        let w = Value::constant("w8", Tensor::from_slice(&[2, 2], &[1i8; 4]));
        let w = g.add_value(w.with_quant(QuantParams::per_tensor(0.5, 0)));
        g.nodes = vec![Node { inputs: vec![g.nodes[0].inputs[0], Some(w)], ..g.nodes[2].clone() }];
        g.validate().unwrap();
        assert_eq!(islands(&g, &BTreeMap::new()), []);
        // An activation that clamps runs in its store.
        let (z, y) = (g.outputs[0], g.find_value("y").unwrap());
        let relu = graph().nodes.remove(1);
        g.nodes.push(Node { inputs: vec![Some(z)], outputs: vec![y], ..relu });
        g.outputs = vec![y];
        g.validate().unwrap();
        assert_eq!(islands(&g, &BTreeMap::new()), []);
    }

    #[test]
    fn floats_have_a_reason_and_a_cost() {
        let found = islands(&graph(), &BTreeMap::new());
        let rows: Vec<_> = found.iter().map(|i| (i.op, i.macs, i.bytes, &*i.why)).collect();
        let want = [
            ("Relu", 0, 8, "nothing quantizes its output `y`"),
            ("MatMul", 4, 24, "its input `y` is float, without a scale"),
        ];
        assert_eq!(rows, want);
        assert_eq!((found[0].share, found[1].share), (0.0, 1.0));
        let reasons = BTreeMap::from([("z".to_string(), "asked for".to_string())]);
        assert_eq!(islands(&graph(), &reasons)[1].why, "asked for");
        let mut text = Vec::new();
        print(&found, 3, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("2 of 3 operators compute floats, 100.0 % of the MACs"), "{text}");
    }
}
