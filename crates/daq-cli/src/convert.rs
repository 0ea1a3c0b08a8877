//! `daq convert`: a model becomes one `.daq` file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use daq::{Graph, Layout};
use daq_quant::files::write_atomically;
use daq_quant::labels::ClassNames;
use daq_quant::lint::{Finding, Target, lint, repair};
use daq_quant::table::Table;

use crate::model;
use crate::options::ShapeArgs;
use crate::output::{self, quoted};

const EXAMPLE: &str = "\
Example:
  daq convert quant-mobilenet_v2.onnx mobilenet_v2.daq table.txt

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Makes a .daq file of an .onnx model, quantized or float.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The model: .onnx, quantized by `daq quantize` or another tool, or float; or .daq
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT.daq")]
    pub out: PathBuf,
    /// Scales and zero points to use instead of the model's, as `daq quantize` writes them
    pub table: Option<PathBuf>,
    /// The order in which callers give pictures
    #[arg(long = "input-layout", alias = "input_layout", value_name = "ORDER")]
    pub input_layout: Option<InputLayout>,
    /// Change scales so that they keep the rules of another runtime: nnapi-27, nnapi-28, nnapi-29,
    /// nnapi-30 (by Android API level), tflite; cpu changes nothing
    #[arg(long, value_name = "TARGET", default_value = "cpu")]
    pub target: Target,
    /// A file with the names of the classes, one a line, to keep in the model
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Overwrite OUT.daq even if it is no .daq file
    #[arg(long)]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// The order of a picture's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputLayout {
    /// Rows, columns, channels: as picture libraries give them
    Nhwc,
    /// Channels, rows, columns: as ONNX models take them
    Nchw,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let inputs: Vec<&Path> = [Some(&args.model), args.table.as_ref(), args.labels.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    let ours = |path: &Path| model::is_daq_content(path);
    output::check(&args.out, &inputs, "a .daq file", ours, args.force)?;
    let mut graph = model::open(&args.model, &args.shapes)?;
    let changed = match &args.table {
        Some(path) => Some(apply(&mut graph, path, &args.model)?),
        None => None,
    };
    let repaired = repair(&mut graph, args.target)
        .map_err(|e| anyhow!("{}: --target {}: {e}", args.model.display(), args.target))?;
    let left = lint(&graph, args.target);
    if let Some(broken) = left.iter().find(|f| !f.is_unsupported()) {
        bail!(
            "{}: --target {}: node `{}`, tensor `{}`: {}, which cannot be mended here",
            args.model.display(),
            args.target,
            broken.node,
            broken.tensor,
            broken.why
        );
    }
    if let Some(order) = args.input_layout {
        set_layout(&mut graph, order)?;
    }
    if let Some(path) = &args.labels {
        let names = ClassNames::read(path)?.names().join("\n");
        graph.metadata.insert(model::LABELS.into(), names);
    }
    graph.metadata.insert(model::VERSION.into(), env!("CARGO_PKG_VERSION").into());
    // Compiling is the last check that whoever opens the file can run it.
    daq::Model::from_graph(graph.clone())?;
    let bytes = daq::format::to_bytes(&graph)?;
    write_atomically(&args.out, |w| w.write_all(&bytes))?;

    let sizes = [model::file_size(&args.model), model::file_size(&args.out)];
    if args.json {
        let json = serde_json::json!({
            "output": args.out.display().to_string(),
            "size_before": sizes[0],
            "size_after": sizes[1],
            "table_changed": changed,
            "target": args.target.to_string(),
            "changes": repaired.iter().map(|c| serde_json::json!({
                "node": c.node, "tensor": c.tensor, "why": c.why, "change": c.change,
            })).collect::<Vec<_>>(),
            "on_cpu": left.iter().map(|f| serde_json::json!({
                "node": f.node, "op": f.op, "why": f.why,
            })).collect::<Vec<_>>(),
        });
        writeln!(out, "{json:#}")?;
        return Ok(());
    }
    if let Some(changed) = changed {
        let entries = if changed == 1 { "entry" } else { "entries" };
        writeln!(out, "the table changed {changed} {entries} of the model")?;
    }
    for c in &repaired {
        writeln!(out, "{}: {}: {}", c.node, c.why, c.change)?;
    }
    if !left.is_empty() {
        let row = |f: &Finding| vec![f.node.clone(), f.op.into(), f.why.clone()];
        let rows = left.iter().map(row).collect();
        writeln!(out, "on the CPU:\n{}", output::table(&["node", "op", "why"], rows))?;
    }
    let [before, after] = sizes.map(output::bytes);
    writeln!(out, "{}: {after} (from {before})", args.out.display())?;
    writeln!(out, "next: daq run {} PICTURE", quoted(&args.out))?;
    Ok(())
}

/// Gives the graph the table's scales; how many tensors changed.
fn apply(graph: &mut Graph, path: &Path, model: &Path) -> Result<usize> {
    let shown = path.display();
    let text = read_table(path)?;
    let table = Table::from_text(&text).map_err(|e| anyhow!("{shown}: {e}"))?;
    if !graph.values.iter().any(daq::Value::is_quantized) {
        bail!(
            "{} is a float model, and a table holds no weights in 8 bits; \
             run: daq quantize --image_dir PICTURES {} {}",
            model.display(),
            quoted(model),
            quoted(path)
        );
    }
    table.apply(graph).map_err(|e| anyhow!("{shown}: {e}"))
}

/// The text of a table file.
pub fn read_table(path: &Path) -> Result<String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| anyhow!("cannot read the table {shown}: {e}"))?;
    String::from_utf8(bytes).map_err(|_| anyhow!("{shown}: is not text, so it is no table"))
}

fn set_layout(graph: &mut Graph, order: InputLayout) -> Result<()> {
    let pictures: Vec<_> =
        graph.inputs.iter().copied().filter(|&id| graph.values[id].shape.len() == 4).collect();
    if pictures.is_empty() {
        bail!("--input-layout: the model has no input with 4 dimensions");
    }
    for id in pictures {
        graph.values[id].layout = match order {
            InputLayout::Nhwc => Layout::ChannelsLast,
            InputLayout::Nchw => Layout::Plain,
        };
    }
    Ok(())
}
