//! `daq compare --suggest`: flags that would make an 8-bit model better, each tried and measured.

use anyhow::{Result, anyhow};
use clap::Parser;
use daq::{Graph, Model, Tensor};
use daq_quant::calibrate::Samples;
use daq_quant::compare::Comparison;
use daq_quant::evaluate::{Evaluate, evaluate};
use daq_quant::pipeline::{Prepared, Recipe, Silent, prepare};
use daq_quant::quantize::Decision;
use daq_quant::report::{Suggestions, Trial};

use crate::messages::Progress;
use crate::model::OPTIONS;
use crate::output::quoted;
use crate::quantize;

/// With fewer samples the trials are calibrated and measured on all of them.
const FEWEST_TO_SPLIT: usize = 16;

/// How many of the worst operators are tried in float, at most.
const MOST_EXCLUDED: usize = 8;

/// `--dequantize_after` is tried where at most this share of the work would run in float.
const MOST_FLOAT: f64 = 0.35;

/// Methods that are tried; those that this version does not know are passed over.
const METHODS: [&str; 5] = ["mse", "minmax", "percentile", "entropy", "average"];

/// Every so many samples, from one on.
struct Part<'a> {
    of: &'a dyn Samples,
    start: usize,
    step: usize,
}

impl Samples for Part<'_> {
    fn len(&self) -> usize {
        self.of.len().saturating_sub(self.start).div_ceil(self.step)
    }

    fn name(&self, index: usize) -> String {
        self.of.name(self.start + index * self.step)
    }

    fn load(&self, index: usize) -> Result<Vec<(String, Tensor)>, String> {
        self.of.load(self.start + index * self.step)
    }
}

#[derive(Parser)]
struct Recorded {
    #[command(flatten)]
    args: quantize::Args,
}

/// The options that a model was quantized with, as far as it says; else the defaults.
fn recorded(quantized: &Graph) -> Result<quantize::Args> {
    let flags: Vec<String> = match quantized.metadata.get(OPTIONS) {
        Some(json) => serde_json::from_str(json)?,
        None => Vec::new(),
    };
    let fixed = ["quantize", "--image_dir", ".", "model.onnx", "table.txt"].map(String::from);
    let parsed = Recorded::try_parse_from(fixed.into_iter().chain(flags));
    Ok(parsed.map_err(|e| anyhow!("the options recorded in the model: {e}"))?.args)
}

/// A trial: flags to add, and the arguments with them.
struct Candidate {
    flags: Vec<String>,
    args: quantize::Args,
}

/// Tries flags and measures each, the best first.
pub fn suggest(
    float: &Graph,
    quantized: &Graph,
    samples: &dyn Samples,
    found: &Comparison,
    workers: usize,
) -> Result<Suggestions> {
    let base = recorded(quantized)?;
    let split = samples.len() >= FEWEST_TO_SPLIT;
    let (start, step) = if split { (1, 2) } else { (0, 1) };
    let calibration = Part { of: samples, start: 0, step };
    let measured = Part { of: samples, start, step };
    let candidates = candidates(&base, float, found);
    let progress = Progress::new("trying flags", candidates.len() + 2);
    let mut lab = Lab {
        float,
        reference: Model::from_graph(float.clone())?,
        calibration: &calibration,
        measured: &measured,
        workers,
        known: Vec::new(),
    };
    let start = Candidate { flags: Vec::new(), args: base };
    let base = lab.measure(&start, None)?;
    progress.step();
    let mut trials: Vec<(Trial, &Candidate)> = Vec::new();
    for candidate in &candidates {
        trials.push((lab.measure(candidate, Some(&base))?, candidate));
        progress.step();
    }
    let mut found: Vec<Trial> = trials.iter().map(|(t, _)| t.clone()).collect();
    if let Some(all) = together(&trials, &start.args) {
        found.push(lab.measure(&all, Some(&base))?);
    }
    progress.finish();
    found.sort_by(|a, b| b.gain_db.total_cmp(&a.gain_db));
    Ok(Suggestions { calibrated: calibration.len(), measured: measured.len(), base, trials: found })
}

fn candidates(base: &quantize::Args, float: &Graph, found: &Comparison) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for method in METHODS {
        if let Ok(calibration) = method.parse()
            && calibration != base.calibration
        {
            let args = quantize::Args { calibration, ..base.clone() };
            candidates.push(Candidate { flags: vec!["--calibration".into(), method.into()], args });
        }
    }
    let names: Vec<&str> =
        found.worst().into_iter().map(|i| found.operators[i].node.as_str()).collect();
    // A comma would be taken for the end of a name; a name that the float model lacks is no flag.
    let usable = |name: &&&str| {
        !name.contains(',') && float.nodes.iter().any(|n| float.node_name(n) == **name)
    };
    let names: Vec<&str> = names.iter().filter(usable).take(MOST_EXCLUDED).copied().collect();
    let mut exclude = |names: &[&str]| {
        let mut args = base.clone();
        args.exclude.extend(names.iter().map(|n| n.to_string()));
        candidates.push(Candidate { flags: vec!["--exclude".into(), names.join(",")], args });
    };
    // An operator in float still reads and feeds rounded tensors, so several together bring more
    // than the sum of each.
    for count in [1, 2, 4, MOST_EXCLUDED] {
        if count <= names.len() {
            exclude(&names[..count]);
        }
    }
    for tensor in ends(float, found) {
        let mut args = base.clone();
        args.dequantize_after.push(tensor.clone());
        candidates.push(Candidate { flags: vec!["--dequantize_after".into(), tensor], args });
    }
    candidates
}

/// Tensors after which the model could be float: before the last operator with weights, and before
/// the first that hurts.
fn ends(float: &Graph, found: &Comparison) -> Vec<String> {
    let weighted = |o: &&daq_quant::compare::OperatorError| o.weights.is_some();
    let last = found.operators.iter().rev().find(weighted);
    let all: u64 = found.operators.iter().map(|o| o.macs).sum();
    let first = found.first_that_hurts.filter(|&i| {
        let after: u64 = found.operators[i..].iter().map(|o| o.macs).sum();
        after as f64 <= MOST_FLOAT * all as f64
    });
    let operators = last.into_iter().chain(first.map(|i| &found.operators[i]));
    let mut tensors = Vec::new();
    for operator in operators {
        // The operator itself, not an activation after it that gave the output its name.
        let node = float.nodes.iter().find(|n| float.node_name(n) == operator.node);
        let input = node.and_then(|n| n.inputs.first().copied().flatten());
        let Some(input) = input.map(|id| &float.values[id]) else { continue };
        let computed = float
            .nodes
            .iter()
            .any(|n| n.outputs.iter().any(|&id| float.values[id].name == input.name));
        if computed && !tensors.contains(&input.name) {
            tensors.push(input.name.clone());
        }
    }
    tensors
}

/// The best of each kind that gains something, all at once.
fn together(trials: &[(Trial, &Candidate)], base: &quantize::Args) -> Option<Candidate> {
    let mut args = base.clone();
    let mut flags = Vec::new();
    for kind in ["--calibration", "--exclude"] {
        let gains = trials.iter().filter(|(t, c)| c.flags[0] == kind && t.gain_db > 0.1);
        let (_, best) = gains.max_by(|a, b| a.0.gain_db.total_cmp(&b.0.gain_db))?;
        flags.extend(best.flags.clone());
        match kind {
            "--calibration" => args.calibration = best.args.calibration,
            _ => args.exclude = best.args.exclude.clone(),
        }
    }
    Some(Candidate { flags, args })
}

struct Lab<'a> {
    float: &'a Graph,
    reference: Model,
    calibration: &'a dyn Samples,
    measured: &'a dyn Samples,
    workers: usize,
    /// What was measured, by method and passes: it hardly depends on the other flags.
    known: Vec<((String, String), Prepared)>,
}

impl Lab<'_> {
    fn measure(&mut self, candidate: &Candidate, base: Option<&Trial>) -> Result<Trial> {
        let args = &candidate.args;
        let recipe = Recipe { workers: self.workers, ..quantize::recipe(args) };
        let key = (recipe.method.to_string(), recipe.recovery.to_string());
        let known = match self.known.iter().position(|(k, _)| *k == key) {
            Some(known) => known,
            None => {
                // Those of the first trial, which most share, and one other: each holds a matrix for
                // each operator.
                self.known.truncate(1);
                let prepared = prepare(self.float, self.calibration, &recipe, &Silent)?;
                self.known.push((key, prepared));
                self.known.len() - 1
            }
        };
        let made = self.known[known].1.quantize(self.calibration, &recipe, &Silent)?;
        let share = macs_8bit(&made.decisions);
        let model = Model::from_graph(made.graph)?;
        let options = Evaluate {
            model: &model,
            reference: Some(&self.reference),
            classes: None,
            class_offset: 0,
            workers: self.workers,
        };
        let scores = evaluate(self.measured, &options, &|| {})?;
        let sqnr_db = scores.sqnr_db.unwrap_or(f64::NAN);
        let flags: Vec<String> =
            candidate.flags.iter().map(|f| quoted(std::path::Path::new(f))).collect();
        Ok(Trial {
            flags: flags.join(" "),
            sqnr_db,
            gain_db: base.map_or(0.0, |base| sqnr_db - base.sqnr_db),
            agreement: scores.agreement,
            macs_8bit: share,
        })
    }
}

/// The share of the multiply-accumulate operations that runs in 8 bits; `None` where there is none.
pub fn macs_8bit(decisions: &[Decision]) -> Option<f64> {
    let all: u64 = decisions.iter().map(|d| d.macs).sum();
    let codes = decisions.iter().filter(|d| d.float_because.is_none()).map(|d| d.macs);
    (all > 0).then(|| codes.sum::<u64>() as f64 / all as f64)
}
