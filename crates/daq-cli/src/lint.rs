//! `daq lint`: what a target demands of an 8-bit model, and whether a model has it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use daq_quant::lint::{Target, lint};

use crate::model;
use crate::options::ShapeArgs;
use crate::output;

const EXAMPLE: &str = "\
Example:
  daq lint quant-mobilenet_v2.onnx --target nnapi-28

`daq convert --target` changes scales so that they keep the rules.
Exit codes: 0 no rule is broken, 1 failed or a rule is broken, 2 wrong usage.";

/// Checks an 8-bit model against the scale rules of another runtime.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The model: .onnx, quantized by whatever tool, or .daq
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// nnapi-27, nnapi-28, nnapi-29, nnapi-30 (by Android API level), tflite or cpu
    #[arg(long, value_name = "TARGET")]
    pub target: Target,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let graph = model::open(&args.model, &args.shapes)?;
    let found = lint(&graph, args.target);
    let (staying, broken): (Vec<_>, Vec<_>) = found.iter().partition(|f| f.is_unsupported());
    if args.json {
        let one = |f: &&daq_quant::lint::Finding| serde_json::json!({"node": f.node, "op": f.op, "tensor": f.tensor, "why": f.why});
        let json = serde_json::json!({
            "target": args.target.to_string(),
            "operators": graph.nodes.len(),
            "broken": broken.iter().map(one).collect::<Vec<_>>(),
            "unsupported": staying.iter().map(one).collect::<Vec<_>>(),
        });
        writeln!(out, "{json:#}")?;
    } else {
        for (what, findings) in [("rules broken", &broken), ("on the CPU", &staying)] {
            if findings.is_empty() {
                continue;
            }
            let row = |f: &&daq_quant::lint::Finding| {
                vec![f.node.clone(), f.op.into(), f.tensor.clone(), f.why.clone()]
            };
            let rows = findings.iter().map(row).collect();
            writeln!(out, "{what}:\n{}", output::table(&["node", "op", "tensor", "why"], rows))?;
        }
        let (on, all) = (graph.nodes.len() - staying.len(), graph.nodes.len());
        writeln!(out, "{}: {on} of {all} operators, {} broken", args.target, rules(broken.len()))?;
    }
    match broken.len() {
        0 => Ok(()),
        n => bail!(
            "{} breaks {}; daq convert --target {} changes its scales",
            args.model.display(),
            rules(n),
            args.target
        ),
    }
}

fn rules(n: usize) -> String {
    output::count(n, "rule")
}
