//! `daq inspect`: what is in a model, and which operators daq has.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use daq::ops::{Attr, Attrs, Quantization};
use daq::{Graph, Layout, Node, Op, OpError, QuantParams, Spec, Value};
use daq_quant::qdq;
use serde::Serialize;

use crate::islands::{self, islands};
use crate::model;
use crate::options::ShapeArgs;
use crate::output;

const EXAMPLE: &str = "\
Examples:
  daq inspect quant-mobilenet_v2.onnx
  daq inspect --islands quant-mobilenet_v2.onnx
  daq inspect --operators

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Shows a model's inputs, outputs, operators and scales; or the operators that daq supports.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The model: .daq or .onnx
    #[arg(required_unless_present = "operators")]
    pub model: Option<PathBuf>,
    /// List the supported operators and how each behaves in 8 bits
    #[arg(long, conflicts_with = "model")]
    pub operators: bool,
    /// List the operators that compute floats, why, and what they cost
    #[arg(long, conflicts_with = "operators")]
    pub islands: bool,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// All about a model.
#[derive(Serialize)]
struct Report {
    name: String,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    nodes: Vec<Row>,
    operators: usize,
    operators_8bit: usize,
    macs: u64,
    /// Share of the MACs in 8 bits; nothing where there is no MAC.
    macs_8bit: Option<f64>,
    weight_bytes: usize,
    preprocess: Option<serde_json::Value>,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Port {
    name: String,
    shape: Vec<usize>,
    #[serde(rename = "type")]
    dtype: String,
    layout: &'static str,
    scale: Option<f32>,
    zero_point: Option<i32>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    op: &'static str,
    shape: Vec<usize>,
    #[serde(rename = "type")]
    dtype: String,
    scale: Option<f32>,
    zero_point: Option<i32>,
    macs: u64,
    weight_bytes: usize,
    /// Whether it works on codes.
    codes: bool,
    /// Why it stays in float, in a model that was quantized.
    float_because: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let Some(path) = &args.model else { return operators(args.json, out) };
    let graph = model::open(path, &args.shapes)?;
    // What could not run is an error here too.
    graph.validate()?;
    if args.islands {
        let islands = islands(&graph, &qdq::float_because(&graph));
        match args.json {
            true => writeln!(out, "{}", serde_json::to_string_pretty(&islands)?)?,
            false => islands::print(&islands, graph.nodes.len(), out)?,
        }
        return Ok(());
    }
    let settings = model::preprocess(&graph, path)?;
    let settings = settings.map(|p| serde_json::from_str(&p.to_json())).transpose()?;
    let report = report(&graph, settings);
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        false => print(&report, out)?,
    }
    Ok(())
}

fn report(graph: &Graph, preprocess: Option<serde_json::Value>) -> Report {
    let reasons = qdq::float_because(graph);
    let nodes: Vec<Row> = graph.nodes.iter().map(|n| row(graph, n, &reasons)).collect();
    let ports = |ids: &[usize]| ids.iter().map(|&id| port(&graph.values[id])).collect();
    let macs = |codes_only: bool| {
        nodes.iter().filter(|n| n.codes || !codes_only).map(|n| n.macs).sum::<u64>()
    };
    let constants = graph.values.iter().filter_map(|v| v.data.as_ref());
    Report {
        name: graph.name.clone(),
        inputs: ports(&graph.inputs),
        outputs: ports(&graph.outputs),
        operators: nodes.len(),
        operators_8bit: nodes.iter().filter(|n| n.codes).count(),
        macs: macs(false),
        macs_8bit: (macs(false) > 0).then(|| macs(true) as f64 / macs(false) as f64),
        weight_bytes: constants.map(|t| t.bytes().len()).sum(),
        preprocess,
        metadata: graph.metadata.clone(),
        nodes,
    }
}

fn port(value: &Value) -> Port {
    let (scale, zero_point) = quant(value.quant.as_ref());
    let layout = match (value.shape.len(), value.layout) {
        (4, Layout::ChannelsLast) => "NHWC",
        (4, Layout::Plain) => "NCHW",
        (_, Layout::ChannelsLast) => "channels last",
        (_, Layout::Plain) => "plain",
    };
    Port {
        name: value.name.clone(),
        shape: value.layout.physical(&value.shape),
        dtype: value.dtype.to_string(),
        layout,
        scale,
        zero_point,
    }
}

fn quant(quant: Option<&QuantParams>) -> (Option<f32>, Option<i32>) {
    let first = quant.filter(|q| q.is_per_tensor());
    (first.map(|q| q.scale[0]), first.map(|q| q.zero_point[0]))
}

fn row(graph: &Graph, node: &Node, reasons: &BTreeMap<String, String>) -> Row {
    let name = graph.node_name(node);
    let output = &graph.values[node.outputs[0]];
    let (scale, zero_point) = quant(output.quant.as_ref().filter(|_| output.is_quantized()));
    let specs: Vec<Spec> = node
        .outputs
        .iter()
        .map(|&id| Spec::new(graph.values[id].dtype, &graph.values[id].shape))
        .collect();
    let constants = node.inputs.iter().flatten().filter_map(|&id| graph.values[id].data.as_ref());
    let codes = node.inputs.iter().flatten().any(|&id| graph.values[id].is_quantized());
    Row {
        name: name.into(),
        op: node.op.name(),
        shape: output.shape.clone(),
        dtype: output.dtype.to_string(),
        scale,
        zero_point,
        macs: node.op.macs(&graph.input_specs(node), &specs),
        weight_bytes: constants.map(|t| t.bytes().len()).sum(),
        codes: codes && !matches!(node.op, Op::DequantizeLinear(_)),
        float_because: reasons.get(&output.name).cloned(),
    }
}

fn print(report: &Report, out: &mut dyn Write) -> Result<()> {
    if !report.name.is_empty() {
        writeln!(out, "model   {}", report.name)?;
    }
    for (kind, ports) in [("input", &report.inputs), ("output", &report.outputs)] {
        for p in ports {
            let scale = scale_text(p.scale, p.zero_point);
            let scale = if scale.is_empty() { scale } else { format!(", {scale}") };
            let shape = output::shape(&p.shape);
            writeln!(out, "{kind:7} {}: {shape} {}, {}{scale}", p.name, p.dtype, p.layout)?;
        }
    }
    if let Some(settings) = &report.preprocess {
        writeln!(out, "pictures {settings}")?;
    }
    let rows = report.nodes.iter().map(|n| {
        let weights = match n.weight_bytes {
            0 => String::new(),
            n => output::bytes(n as u64),
        };
        vec![
            n.name.clone(),
            n.op.into(),
            output::shape(&n.shape),
            n.dtype.clone(),
            scale_text(n.scale, n.zero_point),
            output::macs(n.macs),
            weights,
            n.float_because.clone().unwrap_or_default(),
        ]
    });
    let mut headings = vec![
        "node",
        "op",
        "output",
        "type",
        "scale, zero point",
        ">MACs",
        ">weights",
        "in float because",
    ];
    let mut rows: Vec<Vec<String>> = rows.collect();
    if report.nodes.iter().all(|n| n.float_because.is_none()) {
        headings.pop();
        rows.iter_mut().for_each(|r| drop(r.pop()));
    }
    writeln!(out, "\n{}\n", output::table(&headings, rows))?;
    let weights = output::bytes(report.weight_bytes as u64);
    let macs = match report.macs {
        0 => String::new(),
        n => format!(", {}MACs", output::macs(n)),
    };
    writeln!(out, "{}{macs}, {weights} of weights", output::count(report.operators, "operator"))?;
    if report.operators_8bit > 0 {
        let share = report.macs_8bit.map(|s| format!(", {} of the MACs", output::percent(s)));
        writeln!(out, "{} in 8 bits{}", report.operators_8bit, share.unwrap_or_default())?;
    }
    Ok(())
}

fn scale_text(scale: Option<f32>, zero_point: Option<i32>) -> String {
    match (scale, zero_point) {
        (Some(scale), Some(zero_point)) => format!("{scale:.6}, {zero_point}"),
        _ => String::new(),
    }
}

fn operators(json: bool, out: &mut dyn Write) -> Result<()> {
    let mut names: Vec<&str> = Op::NAMES.to_vec();
    names.sort_unstable();
    let behaviour = |name: &str| behaviour(name).unwrap_or("depends on its attributes");
    if json {
        let row = |name: &&str| serde_json::json!({"op": name, "in_8_bits": behaviour(name)});
        let rows: Vec<_> = names.iter().map(row).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(());
    }
    let rows = names.iter().map(|&name| vec![name.into(), behaviour(name).into()]).collect();
    writeln!(out, "{}", output::table(&["operator", "in 8 bits"], rows))?;
    Ok(())
}

/// What an operator does with codes.
fn behaviour(name: &str) -> Option<&'static str> {
    // Some attributes must be there for an operator to exist at all; their values do not matter.
    let attrs = Attrs::new()
        .with("axes", Attr::Ints(vec![0]))
        .with("axis", Attr::Int(0))
        .with("block_shape", Attr::Ints(vec![1]))
        .with("blocksize", Attr::Int(1))
        .with("depth", Attr::Int(1))
        .with("direction", Attr::Str("LEFT".into()))
        .with("hidden_size", Attr::Int(1))
        .with("image_shape", Attr::Ints(vec![1]))
        .with("k", Attr::Int(1))
        .with("kernel_shape", Attr::Ints(vec![1, 1]))
        .with("num_groups", Attr::Int(1))
        .with("ends", Attr::Ints(vec![1]))
        .with("pads", Attr::Ints(vec![0, 0]))
        .with("repeats", Attr::Ints(vec![1]))
        .with("starts", Attr::Ints(vec![0]))
        .with("scales", Attr::Floats(vec![1.0; 4]))
        .with("shape", Attr::Ints(vec![1]))
        .with("size", Attr::Int(1))
        .with("to", Attr::Int(1));
    // AffineGrid's size is a list, LRN's a number; BitShift's direction is no recurrent operator's.
    let lists = Attrs::new().with("size", Attr::Ints(vec![1; 4])).with("hidden_size", Attr::Int(1));
    let made = [Attrs::new(), attrs, lists].into_iter().find_map(|attrs| made(name, attrs))?;
    Some(match made.quantization() {
        Quantization::Never => "stays in float",
        Quantization::Codes => "runs on codes, gives indices",
        Quantization::Weighted => "8-bit weights, 32-bit sums, a scale of its own",
        Quantization::Moves => "moves codes, keeps the scale",
        Quantization::Averages => "averages codes, keeps the scale",
        Quantization::Table => "a table of 256 codes, a scale of its own",
        Quantization::Integer => "integer arithmetic, a scale of its own",
        Quantization::FloatInside => "codes in and out, float inside, a scale of its own",
    })
}

/// An operator of those of the attributes that it has.
fn made(name: &str, mut attrs: Attrs) -> Option<Op> {
    loop {
        match Op::from_attrs(name, &attrs)? {
            Ok(op) => return Some(op),
            Err(OpError::Attribute { name, .. }) => attrs.map.remove(&name)?,
            Err(_) => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_says_how_it_behaves() {
        let silent: Vec<_> = Op::NAMES.iter().filter(|n| behaviour(n).is_none()).collect();
        assert!(silent.is_empty(), "{silent:?}");
        assert_eq!(behaviour("Transpose"), Some("moves codes, keeps the scale"));
        assert_eq!(behaviour("NoSuchOperator"), None);
    }
}
