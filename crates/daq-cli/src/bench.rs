//! `daq bench`: how long a model takes, as a whole and by step.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use daq::{DType, Graph, Model, Session, Tensor};
use daq_quant::report::{Speed, isa_name};

use crate::backend::BackendArgs;
use crate::model;
use crate::options::{ShapeArgs, positive, threads};
use crate::output;

const EXAMPLE: &str = "\
Example:
  daq bench mobilenet_v2.daq --threads 2 --profile

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Measures how long a model takes.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The model: .daq or .onnx
    pub model: PathBuf,
    /// Threads that share the work
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Runs that are measured
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = positive)]
    pub runs: usize,
    /// Runs before, not measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub warmup: usize,
    /// Show the time of each step: the median of the runs
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub backend: BackendArgs,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Print JSON; times in milliseconds
    #[arg(long)]
    pub json: bool,
}

/// The time of one step of the plan.
struct Step {
    node: String,
    op: &'static str,
    kernel: String,
    shape: Vec<usize>,
    macs: u64,
    ms: f64,
}

/// Runs the command.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let start = Instant::now();
    let model = args.backend.model(model::open(&args.model, &args.shapes)?)?;
    let mut session = model.session(args.threads);
    let load = ms(start.elapsed());
    let inputs = inputs(&session);
    let inputs: Vec<_> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    for _ in 0..args.warmup {
        session.run(&inputs, None)?;
    }
    let mut times = Vec::with_capacity(args.runs);
    for _ in 0..args.runs {
        let start = Instant::now();
        session.run(&inputs, None)?;
        times.push(ms(start.elapsed()));
    }
    let (min, median) = min_median(&mut times);
    let steps = match args.profile {
        true => {
            session.run(&inputs, None)?;
            profile(&mut session, args.runs)?
        }
        false => Vec::new(),
    };
    let macs: u64 = model.plan().steps().iter().map(|s| s.macs).sum();
    if args.json {
        let row = |s: &Step| {
            serde_json::json!({"node": s.node, "op": s.op, "kernel": s.kernel, "shape": s.shape,
                "macs": s.macs, "ms": s.ms})
        };
        let mut json = serde_json::json!({
            "min_ms": min,
            "median_ms": median,
            "load_ms": load,
            "threads": args.threads,
            "runs": args.runs,
            "macs": macs,
        });
        if args.profile {
            json["steps"] = steps.iter().map(row).collect();
        }
        writeln!(out, "{json:#}")?;
        return Ok(());
    }
    let threads = output::count(args.threads, "thread");
    writeln!(out, "load    {load:9.3} ms")?;
    writeln!(out, "min     {min:9.3} ms{}", rate(macs, min, ", ", " GMAC/s"))?;
    writeln!(out, "median  {median:9.3} ms of {}, {threads}", output::count(args.runs, "run"))?;
    if args.profile {
        writeln!(out, "\n{}", profile_table(&steps))?;
    }
    Ok(())
}

/// Something to run on: numbers spread over [0, 1) and over the codes, the same each time; 0 for
/// indices, which must stay in bounds.
fn inputs(session: &Session) -> Vec<(String, Tensor)> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let mut input = |port: &daq::Port| {
        let n: usize = port.shape.iter().product();
        match port.dtype {
            DType::F32 => {
                let data: Vec<f32> = (0..n).map(|_| next() as f32 / (1 << 24) as f32).collect();
                Tensor::from_slice(&port.shape, &data)
            }
            DType::U8 => {
                let data: Vec<u8> = (0..n).map(|_| (next() >> 16) as u8).collect();
                Tensor::from_slice(&port.shape, &data)
            }
            dtype => Tensor::zeros(dtype, &port.shape),
        }
    };
    session.inputs().into_iter().map(|p| (p.name.clone(), input(p))).collect()
}

/// How long a float and a quantized model take here with one thread: the fastest of runs in turn.
///
/// Not the median: where other work shares the machine, a long run is interrupted more often than a
/// short one, and the ratio of medians would flatter the shorter.
pub fn speed(float: &Graph, quantized: &Graph) -> Result<Speed> {
    const BUDGET: Duration = Duration::from_secs(4);
    const MOST_RUNS: usize = 50;
    const FEWEST_RUNS: usize = 3;
    let mut sessions = Vec::new();
    for graph in [float, quantized] {
        let session = Model::from_graph(graph.clone())?.session(1);
        let given = inputs(&session);
        sessions.push((session, given));
    }
    let mut times = [Vec::new(), Vec::new()];
    let start = Instant::now();
    while times[0].len() < FEWEST_RUNS || (start.elapsed() < BUDGET && times[0].len() < MOST_RUNS) {
        for ((session, given), times) in sessions.iter_mut().zip(&mut times) {
            let given: Vec<_> = given.iter().map(|(name, t)| (name.as_str(), t)).collect();
            // The run before fetches the weights that the other model has pushed out.
            session.run(&given, None)?;
            let start = Instant::now();
            session.run(&given, None)?;
            times.push(ms(start.elapsed()));
        }
    }
    let runs = times[0].len();
    let [float, quantized] = times.map(|mut t| min_median(&mut t));
    let (float_ms, quantized_ms) = (float.0, quantized.0);
    let steady = [float, quantized].iter().all(|&(min, median)| is_steady(min, median));
    Ok(Speed { float_ms, quantized_ms, runs, steady, threads: 1, isa: isa_name().into() })
}

/// Whether half of the runs were about as fast as the fastest: else something else was running, and
/// even the fastest run may have been interrupted.
fn is_steady(min: f64, median: f64) -> bool {
    const MOST: f64 = 1.25;
    median <= MOST * min
}

fn profile(session: &mut Session, runs: usize) -> Result<Vec<Step>> {
    let mut times: Vec<Vec<f64>> =
        vec![Vec::with_capacity(runs); session.model().plan().steps().len()];
    for _ in 0..runs {
        for (all, time) in times.iter_mut().zip(session.run_timed()?) {
            all.push(ms(time));
        }
    }
    let model = session.model();
    let graph = model.graph();
    let shapes: HashMap<&str, &[usize]> = graph
        .nodes
        .iter()
        .map(|n| (graph.node_name(n), graph.values[n.outputs[0]].shape.as_slice()))
        .collect();
    let steps = model.plan().steps().iter().zip(&mut times);
    let step = |(step, times): (&daq::plan::Step, &mut Vec<f64>)| Step {
        node: step.node.clone(),
        op: step.op,
        kernel: step.kernel(),
        shape: shapes.get(step.node.as_str()).map(|s| s.to_vec()).unwrap_or_default(),
        macs: step.macs,
        ms: min_median(times).1,
    };
    Ok(steps.map(step).collect())
}

fn profile_table(steps: &[Step]) -> String {
    let total: f64 = steps.iter().map(|s| s.ms).sum();
    let row = |s: &Step| {
        let shape = if s.node.is_empty() { String::new() } else { output::shape(&s.shape) };
        vec![
            s.node.clone(),
            s.op.into(),
            s.kernel.clone(),
            shape,
            format!("{:.4}", s.ms),
            output::percent(s.ms / total.max(1e-12)),
            rate(s.macs, s.ms, "", ""),
        ]
    };
    let mut rows: Vec<_> = steps.iter().map(row).collect();
    let last = ["total", "", "", "", &format!("{total:.4}"), "", ""];
    rows.push(last.map(String::from).to_vec());
    output::table(&["node", "op", "kernel", "output", ">ms", ">share", ">GMAC/s"], rows)
}

/// Operations a second, in billions, between two texts; nothing for none.
fn rate(macs: u64, ms: f64, before: &str, after: &str) -> String {
    match macs {
        0 => String::new(),
        _ => format!("{before}{:.1}{after}", macs as f64 / (ms.max(1e-9) * 1e6)),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The least and the middle one; sorts.
fn min_median(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(min_median(&mut [3.0, 1.0, 2.0]), (1.0, 2.0));
        assert_eq!(rate(2_000_000, 1.0, "", ""), "2.0");
        assert_eq!(rate(0, 1.0, "", ""), "");
        assert!(is_steady(3.81, 4.12) && !is_steady(3.85, 19.97));
    }
}
