//! Reaching a target: a ladder of recipes from cheap to dear, measured on samples that were held back.
//!
//! Every third sample is held back; the others calibrate. First come recovery passes and calibration
//! methods, then operators go back to float and products read their input in two parts, as few as do, those
//! first that end the most noise for their arithmetic ([`sensitivity`](crate::sensitivity)). Agreement on few
//! samples is coarse (one of 33 is 3 %), so the target must hold for the agreement expected from the size of
//! the errors too, and as many of the samples held back may differ as it leaves, rounded up. Who asks for an
//! agreement wants it on other samples: the ladder goes on until the expected one less its standard error
//! meets the target, as long as nine tenths of the arithmetic stay in 8 bits. The model of the recipe
//! that was found is then calibrated with all samples.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use daq::{DType, Graph, Model, Tensor};

use crate::calibrate::{Samples, parallel};
use crate::evaluate::{Classes, ranking, run, sqnr_db};
use crate::observe::CalibrationMethod;
use crate::pipeline::{Loaded, PipelineError, Prepared, Progress, Recipe, Recovery, prepare};
use crate::quantize::Quantized;
use crate::saved::Part;
use crate::sensitivity::{Sensitivity, Step};

/// One sample in this many is held back.
const HELD_BACK: usize = 3;

/// Samples that single roundings are measured on.
const FEW: usize = 6;

/// What a dearer recipe must win, in dB: less is chance.
const GAIN: f64 = 0.1;

/// As much of the arithmetic stays in 8 bits where the target holds, but may not on other samples.
const IN_8_BITS: f64 = 0.9;

/// Classes behind the best one whose difference from it is looked at. Four tell more than the second
/// alone, and their errors are a little larger than its: that is the margin of safety for other samples.
const RIVALS: usize = 4;

/// The least samples that a search needs: some to calibrate, some to hold back.
pub const LEAST_SAMPLES: usize = 6;

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
    /// the difference of the best class and those behind it, which were measured on these, may meet
    /// any margin.
    pub expected: f64,
    /// The standard error of `expected`, of few margins and few samples.
    pub expected_error: f64,
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
                differ <= allowed && f.expected >= a - 1e-9
            }
            Goal::Sqnr(db) => f.sqnr_db >= db,
            Goal::Top1(share) => f.top1.is_some_and(|t| t >= share),
        }
    }

    /// Whether it is so likely to be reached on other samples too that no more need be done.
    fn is_safe(self, f: &Fidelity) -> bool {
        let surely = |a: f64| f.expected - f.expected_error >= a - 1e-9;
        self.holds(f) && if let Goal::Agreement(a) = self { surely(a) } else { true }
    }

    /// What is better has more, in dB: the agreement of few samples depends on chance, their noise hardly.
    fn score(self, f: &Fidelity) -> f64 {
        match self {
            Goal::Agreement(_) | Goal::Sqnr(_) => f.sqnr_db,
            Goal::Top1(_) => 1e3 * f.top1.unwrap_or(0.0) + f.sqnr_db,
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

    /// The mean ratio of noise to signal of a model's outputs: what many samples lose a little by and
    /// what few lose much by count alike, unlike in a mean of dB.
    ///
    /// # Errors
    /// A model that does not run.
    pub fn noise(&self, graph: &Graph, workers: usize) -> daq::Result<f64> {
        let found = outputs(graph, self.samples, workers)?;
        let ratio = |(found, expected)| 10f64.powf(-sqnr_db(expected, found) / 10.0);
        let all = found.iter().zip(&self.outputs).map(|(f, e)| ratio((f, e)));
        Ok(all.sum::<f64>() / found.len().max(1) as f64)
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
            if let Some((&best, rivals)) = wanted.split_first() {
                let off = |c: usize| f64::from(y[c]) - f64::from(reference[c]);
                let rivals = rivals.iter().take(RIVALS);
                noise.push(rivals.map(|&rival| (off(best) - off(rival)).abs()).collect());
            }
            if let Some((classes, offset)) = self.classes
                && let Some(class) = classes.class(&self.samples.name(i))
            {
                labelled += 1.0;
                right += f64::from(u8::from(order.first() == Some(&(class + offset))));
            }
        }
        let (expected, expected_error) = kept(&self.margins, &noise);
        Ok(Fidelity {
            sqnr_db: sqnr / n,
            agreement: agree / n,
            expected,
            expected_error,
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

/// The share of pairs of a margin and an error, of either sign, that leave the best class in place, and
/// its standard error. `errors` are the sizes of those of each sample. Not the share of a normal
/// distribution: a few large errors would count for all.
fn kept(margins: &[f64], errors: &[Vec<f64>]) -> (f64, f64) {
    let lost = |margin: f64, errors: &[f64]| {
        let beyond = errors.iter().filter(|&&error| error >= margin).count();
        beyond as f64 / (2 * errors.len().max(1)) as f64
    };
    let by_margin = margins.iter().map(|&m| mean(errors.iter().map(|e| lost(m, e))).0);
    let by_sample = errors.iter().map(|e| mean(margins.iter().map(|&m| lost(m, e))).0);
    let ((share, a), (_, b)) = (mean(by_margin), mean(by_sample));
    (1.0 - share, a.hypot(b))
}

/// A mean and its standard error; 0 of nothing.
fn mean(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (n, sum, squares) =
        numbers.fold((0.0, 0.0, 0.0), |(n, s, q), x| (n + 1.0, s + x, q + x * x));
    let mean = sum / f64::max(n, 1.0);
    let variance = (squares - n * mean * mean) / f64::max(n - 1.0, 1.0);
    (mean, (variance.max(0.0) / f64::max(n, 1.0)).sqrt())
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
    /// Climbs the ladder, then makes the best recipe's model of all samples: those held back have judged.
    ///
    /// # Errors
    /// [`PipelineError`] of the first recipe; others that fail are passed over.
    pub fn run(&self, progress: &dyn Progress) -> Result<Found, PipelineError> {
        let start = Instant::now();
        let over = || self.budget.is_some_and(|budget| start.elapsed() >= budget);
        let mut best = self.climb(progress, &over)?;
        if !over() {
            best.prepared = prepare(self.float, self.samples, &best.recipe, progress)?;
            best.quantized = best.prepared.quantize(self.samples, &best.recipe, progress)?;
        }
        Ok(best)
    }

    fn climb(
        &self,
        progress: &dyn Progress,
        over: &dyn Fn() -> bool,
    ) -> Result<Found, PipelineError> {
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
            if self.goal.is_safe(&best.fidelity) || over() {
                return Ok(best);
            }
            let Some(recipe) = change(&best.recipe) else { continue };
            let what = format!("{}, {}", recipe.method, recipe.recovery);
            if let Ok(found) = attempt(&recipe, what)
                && self.goal.score(&found.fidelity) > self.goal.score(&best.fidelity) + GAIN
            {
                best = found;
            }
        }
        if !self.goal.is_safe(&best.fidelity) && !over() {
            self.take_steps(&mut best, &kept, &reference, progress, over)?;
        }
        Ok(best)
    }

    /// Takes the fewest steps to less noise that do.
    fn take_steps(
        &self,
        best: &mut Found,
        kept: &dyn Samples,
        reference: &Reference,
        progress: &dyn Progress,
        over: &dyn Fn() -> bool,
    ) -> Result<(), PipelineError> {
        let order = self.steps(best, kept, progress, over)?;
        let in_8_bits = |count: usize| 1.0 - order[..count].iter().map(|s| s.share).sum::<f64>();
        let base = best.recipe.clone();
        let mut found = false;
        let mut attempt = |count: usize| -> Result<bool, PipelineError> {
            let mut recipe = base.clone();
            for step in &order[..count] {
                recipe.options.exclude.extend(step.exclude.iter().cloned());
                recipe.two_parts.extend(step.two_parts.iter().cloned());
            }
            recipe.two_parts.retain(|name| !recipe.options.exclude.contains(name));
            let again = recipe.two_parts != best.recipe.two_parts;
            let prepared =
                again.then(|| prepare(self.float, kept, &recipe, progress)).transpose()?;
            let from = prepared.as_ref().unwrap_or(&best.prepared);
            let quantized = from.quantize(kept, &recipe, progress)?;
            let fidelity = reference.measure(&quantized.graph, recipe.workers)?;
            let (all, share) = (order.len(), 100.0 * in_8_bits(count));
            let what = format!("{count} of {all} steps, {share:.1} % of the MACs in 8 bits");
            (self.tried)(&Tried { what, fidelity });
            let reached = self.goal.holds(&fidelity);
            let no_more = count == order.len() || in_8_bits(count + 1) < IN_8_BITS;
            let enough = self.goal.is_safe(&fidelity) || reached && no_more;
            let better = self.goal.score(&fidelity) > self.goal.score(&best.fidelity);
            if enough || !found && better && reached >= best.reached {
                found = enough;
                if let Some(prepared) = prepared {
                    best.prepared = prepared;
                }
                (best.quantized, best.recipe) = (quantized, recipe);
                (best.fidelity, best.reached) = (fidelity, reached);
            }
            Ok(enough)
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

    /// What to do step by step, that first which ends the most noise for its arithmetic.
    fn steps(
        &self,
        best: &Found,
        kept: &dyn Samples,
        progress: &dyn Progress,
        over: &dyn Fn() -> bool,
    ) -> Result<Vec<Step>, PipelineError> {
        let graph = &best.prepared.float;
        let few = Part { samples: kept, first: 0, count: kept.len().div_ceil(FEW).max(1) };
        let few = Loaded::all(&few);
        let reference = Reference::of(graph, &few, None, best.recipe.workers)?;
        let mut sensitivity = Sensitivity::new(graph, &best.quantized);
        progress.stage("measuring roundings", sensitivity.len());
        sensitivity.measure(&|graph| {
            progress.step();
            match over() {
                true => Ok::<_, PipelineError>(None),
                false => Ok(Some(reference.noise(graph, best.recipe.workers)?)),
            }
        })?;
        Ok(sensitivity.order())
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
        let errors = [vec![0.5], vec![2.0], vec![3.0]];
        let (share, error) = kept(&[1.0, 2.5], &errors);
        assert!((share - (1.0 - 3.0 / 12.0)).abs() < 1e-12, "{share}");
        // By margin 1/3 and 1/6 are lost: variance 1/72, of two. By sample 0, 1/4 and 1/2: 1/16, of three.
        let variance: f64 = 1.0 / 72.0 / 2.0 + 1.0 / 16.0 / 3.0;
        assert!((error - variance.sqrt()).abs() < 1e-12, "{error}");
        // Errors of one sample count for it together.
        assert_eq!(kept(&[1.0], &[vec![0.5, 2.0], vec![2.0, 2.0]]).0, 1.0 - (0.25 + 0.5) / 2.0);
        assert_eq!((kept(&[], &[vec![1.0]]), kept(&[1.0], &[])), ((1.0, 0.0), (1.0, 0.0)));
    }

    #[test]
    fn an_agreement_must_hold_as_measured_and_as_expected() {
        let of = |agreement, expected| {
            Goal::Agreement(0.98).holds(&Fidelity {
                sqnr_db: 20.0,
                agreement,
                expected,
                expected_error: 0.004,
                top1: None,
                samples: 33,
            })
        };
        assert!(of(1.0, 0.985) && of(32.0 / 33.0, 0.983));
        assert!(!of(31.0 / 33.0, 0.99) && !of(1.0, 0.979));
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
