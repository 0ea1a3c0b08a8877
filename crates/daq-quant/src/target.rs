//! Reaching a target: a ladder of recipes from cheap to dear, measured on samples that were held back.
//!
//! Every third sample is held back; the others calibrate. First come recovery passes and calibration
//! methods, then operators go back to float, those first whose 8-bit form alone costs the most for its
//! arithmetic, and as few as do. Agreement on few samples is coarse (one of 33 is 3 %), so the target
//! must hold for the agreement expected from the size of the errors too, and as many of the samples
//! held back may differ as it leaves, rounded up.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use daq::ops::Quantization;
use daq::{DType, Graph, Model, Tensor};

use crate::calibrate::{Samples, parallel};
use crate::evaluate::{Classes, ranking, run, sqnr_db};
use crate::observe::CalibrationMethod;
use crate::pipeline::{Loaded, PipelineError, Prepared, Progress, Recipe, Recovery, prepare};
use crate::quantize::{QuantizeOptions, Quantized};
use crate::saved::Part;

/// One sample in this many is held back.
const HELD_BACK: usize = 3;

/// Samples that the cost of single operators is measured on.
const FEW: usize = 8;

/// The share of a model's arithmetic that leaving an operator in float costs beside its own.
const OVERHEAD: f64 = 0.005;

/// The part of the disagreement allowed that may be expected: classes beyond the second change places
/// too, and the margins of other samples differ.
const SAFETY: f64 = 0.9;

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The share of samples with the float model's best class.
    Agreement(f64),
    /// The mean signal to noise ratio of the outputs, in dB.
    Sqnr(f64),
    /// The share of labelled samples whose best class is the label.
    Top1(f64),
}

/// How near a model comes to its float original.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fidelity {
    /// See [`Scores::sqnr_db`](crate::evaluate::Scores::sqnr_db).
    pub sqnr_db: f64,
    /// The share of samples with the same best class.
    pub agreement: f64,
    /// The agreement expected of other samples: the share that keeps its best class if the errors of
    /// the best two classes' difference, which were measured on these, may meet any margin.
    pub expected: f64,
    /// The share of labelled samples whose best class is the label.
    pub top1: Option<f64>,
    /// How many samples were measured.
    pub samples: usize,
}

impl Goal {
    /// Whether it is reached.
    pub fn holds(self, f: &Fidelity) -> bool {
        match self {
            // As many samples may differ as the share leaves, rounded up.
            Goal::Agreement(a) => {
                let n = f.samples as f64;
                let differ = ((1.0 - f.agreement) * n).round();
                let allowed = ((1.0 - a) * n - 1e-9).ceil();
                differ <= allowed && 1.0 - f.expected <= SAFETY * (1.0 - a) + 1e-9
            }
            Goal::Sqnr(db) => f.sqnr_db >= db,
            Goal::Top1(share) => f.top1.is_some_and(|t| t >= share),
        }
    }

    /// What is better has more; finer than the goal itself, which moves in steps.
    fn score(self, f: &Fidelity) -> f64 {
        match self {
            Goal::Agreement(_) => f.expected + 1e-3 * f.sqnr_db,
            Goal::Sqnr(_) => f.sqnr_db,
            Goal::Top1(_) => f.top1.unwrap_or(0.0) + 1e-3 * f.sqnr_db,
        }
    }
}

/// Samples with what the float model says about them.
pub struct Reference<'a> {
    samples: &'a Loaded,
    outputs: Vec<Vec<Tensor>>,
    classes: Option<(&'a dyn Classes, usize)>,
    /// How far the best class is before the second.
    margins: Vec<f64>,
}

impl<'a> Reference<'a> {
    /// Runs the float model. `classes` are labels and what is added to them.
    ///
    /// # Errors
    /// A sample that the model does not take.
    pub fn of(
        float: &Graph,
        samples: &'a Loaded,
        classes: Option<(&'a dyn Classes, usize)>,
        workers: usize,
    ) -> daq::Result<Self> {
        let outputs = outputs(float, samples, workers)?;
        let margins = outputs.iter().filter_map(|o| margin(o)).collect();
        Ok(Reference { samples, outputs, classes, margins })
    }

    /// Lets more samples count for [`Fidelity::expected`]: it needs the float model's outputs only.
    ///
    /// # Errors
    /// A sample that the model does not take.
    pub fn expect(
        &mut self,
        float: &Graph,
        samples: &dyn Samples,
        workers: usize,
    ) -> daq::Result<()> {
        self.margins.extend(outputs(float, samples, workers)?.iter().filter_map(|o| margin(o)));
        Ok(())
    }

    /// How near a model comes.
    ///
    /// # Errors
    /// A model that does not run.
    pub fn measure(&self, graph: &Graph, workers: usize) -> daq::Result<Fidelity> {
        let found = outputs(graph, self.samples, workers)?;
        let n = found.len().max(1) as f64;
        let (mut sqnr, mut agree, mut right, mut labelled) = (0.0, 0.0, 0.0, 0.0);
        let mut noise = Vec::new();
        for (i, (found, expected)) in found.iter().zip(&self.outputs).enumerate() {
            sqnr += sqnr_db(expected, found);
            let (Some(y), Some(reference)) = (found.first(), expected.first()) else { continue };
            if y.dtype() != DType::F32 || reference.dtype() != DType::F32 {
                continue;
            }
            let (y, reference) = (y.data::<f32>(), reference.data::<f32>());
            let (order, wanted) = (ranking(y), ranking(reference));
            agree += f64::from(u8::from(order.first() == wanted.first()));
            if let [a, b, ..] = wanted[..] {
                let off = |c: usize| f64::from(y[c]) - f64::from(reference[c]);
                noise.push(off(a) - off(b));
            }
            if let Some((classes, offset)) = self.classes
                && let Some(class) = classes.class(&self.samples.name(i))
            {
                labelled += 1.0;
                right += f64::from(u8::from(order.first() == Some(&(class + offset))));
            }
        }
        Ok(Fidelity {
            sqnr_db: sqnr / n,
            agreement: agree / n,
            expected: kept(&self.margins, noise),
            top1: (labelled > 0.0).then(|| right / labelled),
            samples: found.len(),
        })
    }
}

fn margin(outputs: &[Tensor]) -> Option<f64> {
    let scores = outputs.first().filter(|t| t.dtype() == DType::F32)?.data::<f32>();
    match ranking(scores)[..] {
        [a, b, ..] => Some(f64::from(scores[a] - scores[b])),
        _ => None,
    }
}

/// The share of pairs of a margin and an error, of either sign, that leave the best class in place.
/// Not the share of a normal distribution: a few large errors would count for all.
fn kept(margins: &[f64], mut errors: Vec<f64>) -> f64 {
    if margins.is_empty() || errors.is_empty() {
        return 1.0;
    }
    errors.iter_mut().for_each(|error| *error = error.abs());
    errors.sort_by(f64::total_cmp);
    let lost = |margin: &f64| errors.len() - errors.partition_point(|error| error < margin);
    let lost: usize = margins.iter().map(lost).sum();
    1.0 - lost as f64 / (2 * margins.len() * errors.len()) as f64
}

fn outputs(graph: &Graph, samples: &dyn Samples, workers: usize) -> daq::Result<Vec<Vec<Tensor>>> {
    let model = Model::from_graph(graph.clone())?;
    let found = Mutex::new(vec![Vec::new(); samples.len()]);
    parallel(
        samples.len(),
        workers,
        1,
        || model.session(1),
        |session, i| {
            let Ok(sample) = samples.load(i) else { return Ok(()) };
            let outputs = run(session, &sample)?;
            found.lock().unwrap_or_else(|e| e.into_inner())[i] = outputs;
            Ok::<_, daq::Error>(())
        },
    )?;
    Ok(found.into_inner().unwrap_or_else(|e| e.into_inner()))
}

/// One rung of the ladder.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What was tried.
    pub what: String,
    /// How near it came.
    pub fidelity: Fidelity,
}

/// What the search gave.
pub struct Found {
    /// The best model.
    pub quantized: Quantized,
    /// What it was made of.
    pub prepared: Prepared,
    /// How.
    pub recipe: Recipe,
    /// How near it comes on the samples held back.
    pub fidelity: Fidelity,
    /// Whether the goal is reached.
    pub reached: bool,
    /// Samples held back.
    pub held_back: usize,
}

/// What a search is about.
pub struct Search<'a> {
    /// The float model.
    pub float: &'a Graph,
    /// All samples.
    pub samples: &'a dyn Samples,
    /// What to reach.
    pub goal: Goal,
    /// Where to start.
    pub recipe: Recipe,
    /// Labels and what is added to them, for [`Goal::Top1`].
    pub classes: Option<(&'a dyn Classes, usize)>,
    /// When to stop, at the next rung.
    pub budget: Option<Duration>,
    /// Told each rung.
    pub tried: &'a dyn Fn(&Tried),
}

/// The samples that calibrate: all but every third.
struct Kept<'a>(&'a dyn Samples);

impl Samples for Kept<'_> {
    fn len(&self) -> usize {
        self.0.len() - self.0.len() / HELD_BACK
    }

    fn name(&self, index: usize) -> String {
        self.0.name(index + index / (HELD_BACK - 1))
    }

    fn load(&self, index: usize) -> Result<Vec<(String, Tensor)>, String> {
        self.0.load(index + index / (HELD_BACK - 1))
    }
}

impl Search<'_> {
    /// Climbs the ladder.
    ///
    /// # Errors
    /// [`PipelineError`] of the first recipe; others that fail are passed over.
    pub fn run(&self, progress: &dyn Progress) -> Result<Found, PipelineError> {
        let start = Instant::now();
        let over = || self.budget.is_some_and(|budget| start.elapsed() >= budget);
        let workers = self.recipe.workers;
        let kept = Kept(self.samples);
        let held = Part { samples: self.samples, first: HELD_BACK - 1, count: HELD_BACK };
        let held = Loaded::all(&held);
        let mut reference = Reference::of(self.float, &held, self.classes, workers)?;
        reference.expect(self.float, &kept, workers)?;
        let attempt = |recipe: &Recipe, what: String| -> Result<Found, PipelineError> {
            let prepared = prepare(self.float, &kept, recipe, progress)?;
            let quantized = prepared.quantize(&kept, recipe, progress)?;
            let fidelity = reference.measure(&quantized.graph, workers)?;
            (self.tried)(&Tried { what, fidelity });
            let reached = self.goal.holds(&fidelity);
            let (recipe, held_back) = (recipe.clone(), held.len());
            Ok(Found { quantized, prepared, recipe, fidelity, reached, held_back })
        };
        let first = format!("{}, {}", self.recipe.method, self.recipe.recovery);
        let mut best = attempt(&self.recipe, first)?;
        for change in CHANGES {
            if best.reached || over() {
                return Ok(best);
            }
            let Some(recipe) = change(&best.recipe) else { continue };
            let what = format!("{}, {}", recipe.method, recipe.recovery);
            if let Ok(found) = attempt(&recipe, what)
                && self.goal.score(&found.fidelity) > self.goal.score(&best.fidelity)
            {
                best = found;
            }
        }
        if !best.reached && !over() {
            self.leave_in_float(&mut best, &kept, &reference, progress, &over)?;
        }
        Ok(best)
    }

    /// Leaves the fewest operators in float.
    fn leave_in_float(
        &self,
        best: &mut Found,
        kept: &dyn Samples,
        reference: &Reference,
        progress: &dyn Progress,
        over: &dyn Fn() -> bool,
    ) -> Result<(), PipelineError> {
        let order = self.costs(best, kept, progress, over)?;
        let base = best.recipe.clone();
        let mut attempt = |count: usize| -> Result<bool, PipelineError> {
            let mut recipe = base.clone();
            recipe.options.exclude.extend(order[..count].iter().flatten().cloned());
            let quantized = best.prepared.quantize(kept, &recipe, progress)?;
            let fidelity = reference.measure(&quantized.graph, recipe.workers)?;
            let what = format!("{count} of {} parts in float", order.len());
            (self.tried)(&Tried { what, fidelity });
            let reached = self.goal.holds(&fidelity);
            let better = self.goal.score(&fidelity) > self.goal.score(&best.fidelity);
            if reached || !best.reached && better {
                (best.quantized, best.recipe) = (quantized, recipe);
                (best.fidelity, best.reached) = (fidelity, reached);
            }
            Ok(reached)
        };
        // More and more, then the fewest of those that do.
        let (mut low, mut high) = (0, 1.min(order.len()));
        while high > 0 && !over() && !attempt(high)? {
            if high == order.len() {
                return Ok(());
            }
            low = high;
            high = (high * 3 / 2 + 1).min(order.len());
        }
        while high > low + 1 && !over() {
            let middle = (low + high) / 2;
            match attempt(middle)? {
                true => high = middle,
                false => low = middle,
            }
        }
        Ok(())
    }

    /// The parts of the model, the dearest for its arithmetic first: each an operator with weights and
    /// what follows up to the next one. The cost of a part is the output's noise when only it is in 8
    /// bits.
    fn costs(
        &self,
        best: &Found,
        kept: &dyn Samples,
        progress: &dyn Progress,
        over: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<String>>, PipelineError> {
        let graph = &best.prepared.float;
        let few = Part { samples: kept, first: 0, count: kept.len().div_ceil(FEW).max(1) };
        let few = Loaded::all(&few);
        let reference = Reference::of(graph, &few, None, best.recipe.workers)?;
        let mut parts: Vec<Vec<String>> = Vec::new();
        let mut macs: Vec<f64> = Vec::new();
        for (node, decision) in graph.nodes.iter().zip(&best.quantized.decisions) {
            if decision.float_because.is_some() {
                continue;
            }
            if parts.is_empty() || node.op.quantization() == Quantization::Weighted {
                parts.push(Vec::new());
                macs.push(0.0);
            }
            let last = parts.len() - 1;
            // What moves codes is in float where its input is.
            if !matches!(node.op.quantization(), Quantization::Moves | Quantization::Averages) {
                parts[last].push(graph.node_name(node).to_string());
            }
            macs[last] += decision.macs as f64;
        }
        let total: f64 = macs.iter().sum::<f64>().max(1.0);
        progress.stage("measuring operators", parts.len());
        let mut costs = Vec::new();
        for (i, own) in macs.iter().enumerate() {
            if over() {
                break;
            }
            let others =
                parts.iter().enumerate().filter(|(j, _)| *j != i).flat_map(|(_, p)| p.clone());
            let options = QuantizeOptions {
                exclude: best.recipe.options.exclude.iter().cloned().chain(others).collect(),
                ..best.recipe.options.clone()
            };
            let recipe = Recipe {
                options,
                recovery: Recovery { activation_bias: false, ..best.recipe.recovery },
                ..best.recipe.clone()
            };
            let quantized = best.prepared.quantize(kept, &recipe, progress)?;
            let fidelity = reference.measure(&quantized.graph, recipe.workers)?;
            let noise = 10f64.powf(-fidelity.sqnr_db / 10.0);
            costs.push((noise / (own / total + OVERHEAD), i));
            progress.step();
        }
        costs.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(costs.into_iter().map(|(_, i)| parts[i].clone()).collect())
    }
}

/// Changes to the best recipe so far, from cheap to dear; none where nothing changes.
type Change = fn(&Recipe) -> Option<Recipe>;

const CHANGES: [Change; 5] = [
    |r| with(r, |r| r.method = CalibrationMethod::Percentile(99.99)),
    |r| {
        with(r, |r| r.recovery = Recovery { equalize: !r.recovery.equalize, ..Recovery::default() })
    },
    |r| with(r, |r| r.recovery.weight_scales = true),
    |r| with(r, |r| r.recovery.activation_bias = true),
    |r| with(r, |r| r.method = CalibrationMethod::MinMax),
];

fn with(recipe: &Recipe, change: impl Fn(&mut Recipe)) -> Option<Recipe> {
    let mut changed = recipe.clone();
    change(&mut changed);
    (changed != *recipe).then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_may_meet_any_margin() {
        // Of 6 pairs, 2 and 3 exceed the margin of 1, 3 that of 2.5: 3 in one of two directions.
        assert_eq!(kept(&[1.0, 2.5], vec![0.5, -2.0, 3.0]), 1.0 - 3.0 / 12.0);
        assert_eq!((kept(&[], vec![1.0]), kept(&[1.0], vec![])), (1.0, 1.0));
    }

    #[test]
    fn an_agreement_must_hold_as_measured_and_as_expected() {
        let of = |agreement, expected| {
            Goal::Agreement(0.98).holds(&Fidelity {
                sqnr_db: 20.0,
                agreement,
                expected,
                top1: None,
                samples: 33,
            })
        };
        assert!(of(1.0, 0.985) && of(32.0 / 33.0, 0.983));
        assert!(!of(31.0 / 33.0, 0.99) && !of(1.0, 0.981));
    }

    #[test]
    fn a_third_is_held_back_and_the_rest_kept() {
        struct Names;
        impl Samples for Names {
            fn len(&self) -> usize {
                8
            }
            fn name(&self, index: usize) -> String {
                index.to_string()
            }
            fn load(&self, _: usize) -> Result<Vec<(String, Tensor)>, String> {
                Err("none".into())
            }
        }
        let names = |s: &dyn Samples| (0..s.len()).map(|i| s.name(i)).collect::<String>();
        assert_eq!(names(&Kept(&Names)), "013467");
        assert_eq!(names(&Part { samples: &Names, first: 2, count: 3 }), "25");
    }
}
