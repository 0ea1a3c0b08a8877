//! Why an 8-bit model differs from its float original: the error of each operator on its own and
//! of all before it together, and how well the ranges fit.
//!
//! Three graphs run on each sample: the float model; the 8-bit model, whose error at an operator is
//! what all of the network up to there did (*accumulated*); and the 8-bit operators side by side,
//! each fed with the float model's activations, quantized (*local*). Errors are sums over samples,
//! values are counted in bins, so memory does not grow with their number.

mod cut;
mod run;
mod stats;

use std::sync::Mutex;

use daq::ops::{Quantization, eval};
use daq::{DType, Graph, Model, Spec, Tensor, TensorView};
use serde::Serialize;

use crate::calibrate::{Samples, parallel};
use crate::evaluate::Classes;
use cut::Pair;
use run::{OperatorSums, Ordered, Worker};
pub use stats::{Bins, Difference, Spread};
use stats::{SpreadSum, Sums};

/// How to compare.
pub struct CompareOptions<'a> {
    /// The labels, where known.
    pub classes: Option<&'a dyn Classes>,
    /// Added to each label: 1 where the model's class 0 is the background.
    pub class_offset: usize,
    /// Threads; each runs the models on samples of its own. The result does not depend on them.
    pub workers: usize,
}

/// Why two models cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// They do not take or give the same.
    #[error(
        "{what} differ: the float model has {float}, the 8-bit model {quantized}; compare a model with the one it was made of"
    )]
    Unlike {
        /// Inputs or outputs.
        what: &'static str,
        /// What the float model has.
        float: String,
        /// What the 8-bit model has.
        quantized: String,
    },
    /// The second model is not quantized.
    #[error(
        "the second model has no 8-bit operator; give the quantized model second: daq compare FLOAT.onnx QUANTIZED"
    )]
    NotQuantized,
    /// The first model is.
    #[error(
        "the first model is quantized (value `{value}`); give the float model first: daq compare FLOAT.onnx QUANTIZED"
    )]
    NotFloat {
        /// A value of codes.
        value: String,
    },
    /// No operator has a counterpart.
    #[error(
        "no tensor of the 8-bit model is called as one of the float model, so operators cannot be compared; is it made of this float model?"
    )]
    NothingInCommon,
    /// No sample could be used.
    #[error("none of the {count} samples could be used; the first: {first}")]
    NoSample {
        /// How many there were.
        count: usize,
        /// What was wrong with the first.
        first: String,
    },
    /// A model does not run.
    #[error(transparent)]
    Model(#[from] daq::Error),
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Samples that were used.
    pub n: usize,
    /// Share of samples on which both models have the same best class; `None` where the first
    /// output is no row of scores.
    pub agreement: Option<f64>,
    /// Mean over samples of the outputs' SQNR in dB, as [`crate::evaluate::Scores::sqnr_db`].
    pub sqnr_db: f64,
    /// Share of labelled samples that the float model gets right.
    pub float_top1: Option<f64>,
    /// Share of labelled samples that the 8-bit model gets right.
    pub top1: Option<f64>,
    /// The operators of the 8-bit model, in order.
    pub operators: Vec<OperatorError>,
    /// The range of each input.
    pub inputs: Vec<(String, Spread)>,
    /// The first operator that hurts, by position in `operators`; see [`Comparison::first`].
    pub first_that_hurts: Option<usize>,
    /// Samples worth showing, those on which the models disagree first.
    pub examples: Vec<Example>,
    /// Operators without a counterpart in the float model, by name.
    pub unmatched: Vec<String>,
    /// Samples that could not be used, with the reason, by name.
    pub skipped: Vec<(String, String)>,
}

/// The error of one operator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperatorError {
    /// The node's name.
    pub node: String,
    /// The operator.
    pub op: &'static str,
    /// The output, by its name in the float model.
    pub tensor: String,
    /// Whether it works on codes.
    pub codes: bool,
    /// Whether its output has a scale of its own: it rounds, and may be to blame.
    pub own_scale: bool,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Its own error: fed with the float activations, quantized. `None` for float operators.
    pub local: Option<Difference>,
    /// The error of the whole network up to here.
    pub accumulated: Difference,
    /// Its output's values beside the range of its codes; `None` for float operators.
    pub output: Option<Spread>,
    /// Its weights, where it has 8-bit ones.
    pub weights: Option<WeightError>,
}

impl OperatorError {
    /// What its numbers say about the cause of its error, in words.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        if let Some(s) = &self.output {
            if s.clipped > 0.001 {
                let percent = 100.0 * s.clipped;
                causes.push(format!("{percent:.1} % of its values are beyond the range"));
            }
            if s.unused > 0.3 {
                causes.push(format!("{:.0} % of the range is unused", 100.0 * s.unused));
            }
            if self.outliers() {
                causes.push("a few large values stretch the range".into());
            }
        }
        if let Some(w) = &self.weights {
            if w.difference.is_some_and(|d| d.sqnr_db < 30.0) {
                let db = w.difference.map_or(0.0, |d| d.sqnr_db);
                causes.push(format!("its weights have only {db:.1} dB"));
            }
            if w.scales == 1 && self.op == "Conv" {
                causes.push("one scale serves all channels of its weights".into());
            }
        }
        causes
    }

    /// Whether all but a thousandth of the values lie in less than a quarter of the range.
    fn outliers(&self) -> bool {
        let Some(s) = &self.output else { return false };
        let total: u64 = s.histogram.counts.iter().sum();
        let tail = total / 2000;
        let from = |counts: &mut dyn Iterator<Item = &u64>| {
            let mut seen = 0;
            counts
                .take_while(|&&c| {
                    seen += c;
                    seen <= tail
                })
                .count()
        };
        let low = from(&mut s.histogram.counts.iter());
        let high = from(&mut s.histogram.counts.iter().rev());
        let used = s.histogram.counts.len().saturating_sub(low + high) as f32 * s.histogram.width;
        used < (s.high - s.low) / 4.0
    }
}

/// How well codes stand for weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightError {
    /// How far they are from the float model's; `None` where these are not known.
    pub difference: Option<Difference>,
    /// The number of scales: 1, or one for each output channel.
    pub scales: usize,
    /// The ratio of the largest to the smallest scale.
    pub scale_ratio: f32,
    /// How many weights have which code.
    pub histogram: Bins,
}

/// One sample, and what both models said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// Its position in the samples.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its labelled class, with the offset.
    pub class: Option<usize>,
    /// The float model's best classes with their probabilities.
    pub float: Vec<(usize, f32)>,
    /// The 8-bit model's.
    pub quantized: Vec<(usize, f32)>,
}

impl Example {
    /// Whether both have the same best class.
    pub fn agrees(&self) -> bool {
        self.float.first().map(|c| c.0) == self.quantized.first().map(|c| c.0)
    }
}

/// Local SQNR below which an operator is said to hurt, in dB: a tenth of the amplitude is noise.
pub const HURTS_DB: f64 = 20.0;

impl Comparison {
    /// The first operator that hurts: the first with a scale of its own whose local SQNR is below
    /// [`HURTS_DB`].
    pub fn first(&self) -> Option<&OperatorError> {
        self.first_that_hurts.map(|i| &self.operators[i])
    }

    /// Positions of the operators that may be to blame, the largest local error first.
    pub fn worst(&self) -> Vec<usize> {
        let local = |i: &usize| self.operators[*i].local.map_or(f64::INFINITY, |d| d.sqnr_db);
        let blamed = |i: &usize| self.operators[*i].own_scale && local(i).is_finite();
        let mut order: Vec<usize> = (0..self.operators.len()).filter(blamed).collect();
        order.sort_by(|a, b| local(a).total_cmp(&local(b)).then(a.cmp(b)));
        order
    }
}

/// Compares an 8-bit graph with its float original on all samples. `progress` is called after each
/// from the workers' threads.
///
/// # Errors
/// [`CompareError`]; samples that cannot be loaded are skipped and named.
pub fn compare(
    float: &Graph,
    quantized: &Graph,
    samples: &dyn Samples,
    options: &CompareOptions,
    progress: &(dyn Fn() + Sync),
) -> Result<Comparison, CompareError> {
    check(float, quantized)?;
    let (cuts, unmatched) = cut::cut(float, quantized);
    if cuts.pairs.is_empty() {
        return Err(CompareError::NothingInCommon);
    }
    let models =
        [&cuts.float, &cuts.accumulated, &cuts.local].map(|graph| Model::from_graph(graph.clone()));
    let [float_model, accumulated, local] = models;
    let models = [float_model?, accumulated?, local?];
    let ordered = Mutex::new(Ordered::new(&cuts));
    let state = || Worker::new(&cuts, &models, float, quantized);
    let workers = parallel(samples.len(), options.workers, 1, state, |worker, index| {
        let result = match samples.load(index) {
            Ok(sample) => Ok(worker.run(&sample, index, samples, options)?),
            Err(why) => Err(why),
        };
        ordered.lock().unwrap_or_else(|e| e.into_inner()).take(index, result);
        progress();
        Ok::<_, CompareError>(())
    })?;
    let total = ordered.into_inner().unwrap_or_else(|e| e.into_inner());
    let skipped: Vec<_> =
        total.skipped.iter().map(|(i, why)| (samples.name(*i), why.clone())).collect();
    if total.n == 0 {
        let first =
            skipped.first().map_or("there is none".into(), |(n, why)| format!("{n}: {why}"));
        return Err(CompareError::NoSample { count: samples.len(), first });
    }
    let mut workers = workers.into_iter();
    let mut spreads = workers.next().map(|w| w.spreads).unwrap_or_default();
    for other in workers {
        for (a, b) in spreads.iter_mut().zip(&other.spreads) {
            if let (Some(a), Some(b)) = (a, b) {
                a.merge(b);
            }
        }
    }
    let spread = |slot: usize| spreads[slot].as_ref().and_then(SpreadSum::spread);
    let operators: Vec<_> = (cuts.pairs.iter().zip(&total.sums).enumerate())
        .map(|(i, (pair, sums))| operator(float, quantized, pair, sums, spread(i)))
        .collect();
    let inputs = quantized.inputs.iter().enumerate();
    let inputs = inputs
        .filter_map(|(i, &id)| {
            Some((quantized.values[id].name.clone(), spread(cuts.pairs.len() + i)?))
        })
        .collect();
    let hurts = |o: &OperatorError| o.own_scale && o.local.is_some_and(|d| d.sqnr_db < HURTS_DB);
    let share = |(yes, of): (usize, usize)| (of > 0).then(|| yes as f64 / of as f64);
    Ok(Comparison {
        n: total.n,
        agreement: share(total.agreement),
        sqnr_db: total.sqnr_db / total.n as f64,
        float_top1: share(total.float_top1),
        top1: share(total.top1),
        first_that_hurts: operators.iter().position(hurts),
        operators,
        inputs,
        examples: total.disagree.into_iter().chain(total.agree).collect(),
        unmatched,
        skipped,
    })
}

fn check(float: &Graph, quantized: &Graph) -> Result<(), CompareError> {
    if let Some(value) = float.values.iter().find(|v| v.is_quantized()) {
        return Err(CompareError::NotFloat { value: value.name.clone() });
    }
    if !quantized.values.iter().any(|v| v.is_quantized()) {
        return Err(CompareError::NotQuantized);
    }
    for (what, a, b) in [
        ("inputs", &float.inputs, &quantized.inputs),
        ("outputs", &float.outputs, &quantized.outputs),
    ] {
        let shapes = |graph: &Graph, ids: &[usize]| {
            ids.iter().map(|&id| graph.values[id].shape.clone()).collect::<Vec<_>>()
        };
        let (a, b) = (shapes(float, a), shapes(quantized, b));
        if a != b {
            let (float, quantized) = (format!("{a:?}"), format!("{b:?}"));
            return Err(CompareError::Unlike { what, float, quantized });
        }
    }
    Ok(())
}

/// Everything about one operator.
fn operator(
    float: &Graph,
    quantized: &Graph,
    pair: &Pair,
    sums: &OperatorSums,
    output: Option<Spread>,
) -> OperatorError {
    let node = &quantized.nodes[pair.node];
    let specs: Vec<Spec> = node
        .outputs
        .iter()
        .map(|&id| Spec::new(quantized.values[id].dtype, &quantized.values[id].shape))
        .collect();
    let moves = matches!(node.op.quantization(), Quantization::Moves | Quantization::Averages);
    OperatorError {
        node: quantized.node_name(node).to_owned(),
        op: node.op.name(),
        tensor: pair.float.clone(),
        codes: pair.local_output.is_some(),
        own_scale: output.is_some() && !moves,
        macs: node.op.macs(&quantized.input_specs(node), &specs),
        local: pair.local_output.map(|_| sums.local.difference()),
        accumulated: sums.accumulated.difference(),
        output,
        weights: weights(float, quantized, pair),
    }
}

/// The weights of an operator on codes, beside the float model's.
fn weights(float: &Graph, quantized: &Graph, pair: &Pair) -> Option<WeightError> {
    let node = &quantized.nodes[pair.node];
    if node.op.quantization() != Quantization::Weighted {
        return None;
    }
    let value = &quantized.values[node.inputs.get(1).copied().flatten()?];
    let (codes, quant) = (value.data.as_ref()?, value.quant.as_ref()?);
    let first = if value.dtype == DType::I8 { -128 } else { 0 };
    let mut counts = vec![0u64; 64];
    match value.dtype {
        DType::I8 => {
            codes.data::<i8>().iter().for_each(|&q| counts[(i32::from(q) + 128) as usize / 4] += 1)
        }
        DType::U8 => codes.data::<u8>().iter().for_each(|&q| counts[usize::from(q) / 4] += 1),
        _ => return None,
    }
    let real = eval::dequantize(&TensorView { quant: Some(quant), ..codes.view() });
    let original = float_weights(float, &pair.float, node.op.name());
    let difference = original
        .filter(|t| t.shape() == codes.shape() && t.dtype() == DType::F32)
        .map(|t| Sums::of(t.data(), &real).difference());
    let least = quant.scale.iter().copied().fold(f32::INFINITY, f32::min);
    let most = quant.scale.iter().copied().fold(0f32, f32::max);
    Some(WeightError {
        difference,
        scales: quant.scale.len(),
        scale_ratio: most / least,
        histogram: Bins { start: first as f32, width: 4.0, counts },
    })
}

/// The weights of the float operator that computes a tensor, or that feeds the activation that does.
fn float_weights<'a>(float: &'a Graph, tensor: &str, op: &str) -> Option<&'a Tensor> {
    let producer = |id: usize| float.nodes.iter().find(|n| n.outputs.contains(&id));
    let mut node = producer(float.find_value(tensor)?)?;
    if node.op.name() != op && node.op.clamp().is_some() {
        node = producer(node.inputs.first().copied().flatten()?)?;
    }
    let weights = node.inputs.get(1).copied().flatten()?;
    (node.op.name() == op).then_some(float.values[weights].data.as_ref()).flatten()
}

/// A row of scores as probabilities: as they are where they sum up to 1, else through a softmax.
pub fn probabilities(output: &Tensor) -> Option<Vec<f32>> {
    let row = matches!(output.shape(), [n] | [1, n] | [1, n, 1, 1] if *n > 1);
    if !row || output.dtype() != DType::F32 {
        return None;
    }
    let scores = output.data::<f32>();
    let sum: f32 = scores.iter().sum();
    if (sum - 1.0).abs() < 0.02 && scores.iter().all(|&s| (-1e-3..=1.001).contains(&s)) {
        return Some(scores.to_vec());
    }
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|s| (s - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    Some(powers.iter().map(|p| p / sum).collect())
}

#[cfg(test)]
mod tests;
