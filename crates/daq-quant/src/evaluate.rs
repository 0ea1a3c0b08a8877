//! How good a model is: top-1 and top-5 on labelled samples, and how close to a reference model.

use std::sync::Mutex;

use daq::{DType, Model, Session, Tensor};

use crate::calibrate::{Samples, parallel};

/// What a sample's file should be classified as.
pub trait Classes: Sync {
    /// The class of a sample by name; `None` where it has no label.
    fn class(&self, name: &str) -> Option<usize>;
}

/// The scores of a model over samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Samples that were scored.
    pub n: usize,
    /// Share of samples whose best class is the labelled one.
    pub top1: Option<f64>,
    /// Share of samples whose labelled class is among the best five.
    pub top5: Option<f64>,
    /// Share of samples on which the best class equals the reference's.
    pub agreement: Option<f64>,
    /// Mean over samples of `10 log10(sum ref^2 / sum (ref - out)^2)` on all outputs, in dB.
    pub sqnr_db: Option<f64>,
    /// Samples that could not be used, with the reason, by name.
    pub skipped: Vec<(String, String)>,
}

/// The SQNR given to an output that equals its reference, in dB.
pub const MOST_SQNR_DB: f64 = 200.0;

/// What to compare with.
pub struct Evaluate<'a> {
    /// The model.
    pub model: &'a Model,
    /// The float model to agree with, where given.
    pub reference: Option<&'a Model>,
    /// The labels, where given.
    pub classes: Option<&'a dyn Classes>,
    /// Added to each label: 1 where the model's class 0 is the background.
    pub class_offset: usize,
    /// Threads; each runs the models on samples of its own.
    pub workers: usize,
}

/// Why a model cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// A sample that a model does not take, though it could be loaded.
    #[error(transparent)]
    Model(#[from] daq::Error),
    /// A model gave something that is not a number.
    #[error("{of} gave NaN for {sample}; check the float model's weights and the preprocessing")]
    NotANumber {
        /// Which of the two models.
        of: &'static str,
        /// The sample's name.
        sample: String,
    },
}

/// The position of the first output that holds NaN.
pub fn nan_output(outputs: &[Tensor]) -> Option<usize> {
    let nan = |t: &Tensor| t.dtype() == DType::F32 && t.data::<f32>().iter().any(|v| v.is_nan());
    outputs.iter().position(nan)
}

/// What one sample gave.
struct Score {
    top1: Option<bool>,
    top5: Option<bool>,
    agrees: Option<bool>,
    sqnr_db: Option<f64>,
}

/// Runs a model on all samples and scores it. `progress` is called after each sample from the
/// workers' threads.
///
/// # Errors
/// [`EvaluateError`].
pub fn evaluate(
    samples: &dyn Samples,
    options: &Evaluate,
    progress: &(dyn Fn() + Sync),
) -> Result<Scores, EvaluateError> {
    let results = Mutex::new((0..samples.len()).map(|_| None).collect::<Vec<_>>());
    let state = || (options.model.session(1), options.reference.map(|m| m.session(1)));
    parallel(samples.len(), options.workers, 1, state, |(session, reference), index| {
        let result = match samples.load(index) {
            Ok(sample) => {
                Ok(score(session, reference.as_mut(), &sample, &samples.name(index), options)?)
            }
            Err(why) => Err(why),
        };
        results.lock().unwrap_or_else(|e| e.into_inner())[index] = Some(result);
        progress();
        Ok::<_, EvaluateError>(())
    })?;
    let results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    let mut scores = Scores::default();
    let mut scored = Vec::new();
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Some(Ok(score)) => scored.push(score),
            Some(Err(why)) => scores.skipped.push((samples.name(index), why)),
            None => {}
        }
    }
    let share = |of: &dyn Fn(&Score) -> Option<bool>| {
        let known: Vec<bool> = scored.iter().filter_map(of).collect();
        let yes = known.iter().filter(|&&b| b).count();
        (!known.is_empty()).then(|| yes as f64 / known.len() as f64)
    };
    let sqnr: Vec<f64> = scored.iter().filter_map(|s| s.sqnr_db).collect();
    scores.n = scored.len();
    scores.top1 = share(&|s| s.top1);
    scores.top5 = share(&|s| s.top5);
    scores.agreement = share(&|s| s.agrees);
    scores.sqnr_db = (!sqnr.is_empty()).then(|| sqnr.iter().sum::<f64>() / sqnr.len() as f64);
    Ok(scores)
}

/// Classes by falling score; of equals the lower class first.
pub fn ranking(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}

fn score(
    session: &mut Session,
    reference: Option<&mut Session>,
    sample: &[(String, Tensor)],
    name: &str,
    options: &Evaluate,
) -> Result<Score, EvaluateError> {
    let all_numbers = |of, outputs: Vec<Tensor>| match nan_output(&outputs) {
        Some(_) => Err(EvaluateError::NotANumber { of, sample: name.to_string() }),
        None => Ok(outputs),
    };
    let outputs = all_numbers("the model", run(session, sample)?)?;
    let best = |outputs: &[Tensor]| match outputs.first() {
        Some(first) if first.dtype() == DType::F32 => ranking(first.data()),
        _ => Vec::new(),
    };
    let order = best(&outputs);
    let class = options.classes.and_then(|c| c.class(name)).map(|c| c + options.class_offset);
    let mut score = Score {
        top1: class.map(|c| order.first() == Some(&c)),
        top5: class.map(|c| order.iter().take(5).any(|o| *o == c)),
        agrees: None,
        sqnr_db: None,
    };
    if let Some(reference) = reference {
        let expected = all_numbers("the reference", run(reference, sample)?)?;
        score.agrees = Some(best(&expected).first() == order.first());
        score.sqnr_db = Some(sqnr_db(&expected, &outputs));
    }
    Ok(score)
}

/// Runs a model on inputs by name, or by position where the names differ (a model and its
/// reference may call them differently).
pub(crate) fn run(session: &mut Session, sample: &[(String, Tensor)]) -> daq::Result<Vec<Tensor>> {
    let names: Vec<String> = session.inputs().iter().map(|p| p.name.clone()).collect();
    let known = sample.iter().all(|(name, _)| names.contains(name));
    let named = |(i, (name, tensor)): (usize, &'_ (String, Tensor))| {
        let name = if known { name } else { names.get(i).unwrap_or(name) };
        (name.clone(), tensor.clone())
    };
    let inputs: Vec<_> = sample.iter().enumerate().map(named).collect();
    let inputs: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    session.run(&inputs, Some(DType::F32))
}

/// `10 log10(sum ref^2 / sum (ref - out)^2)` over all outputs of one sample, in dB.
pub(crate) fn sqnr_db(expected: &[Tensor], outputs: &[Tensor]) -> f64 {
    let (mut signal, mut noise) = (0f64, 0f64);
    for (e, o) in expected.iter().zip(outputs) {
        if e.dtype() != DType::F32 || o.dtype() != DType::F32 {
            continue;
        }
        for (&e, &o) in e.data::<f32>().iter().zip(o.data::<f32>()) {
            signal += f64::from(e) * f64::from(e);
            noise += (f64::from(e) - f64::from(o)).powi(2);
        }
    }
    match noise == 0.0 {
        true => MOST_SQNR_DB,
        false => (10.0 * (signal / noise).log10()).clamp(-MOST_SQNR_DB, MOST_SQNR_DB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_rank_by_class() {
        assert_eq!(ranking(&[0.1, 0.7, 0.7, -1.0]), [1, 2, 0, 3]);
        assert_eq!(ranking(&[f32::NAN]), [0]);
    }

    #[test]
    fn sqnr_is_signal_over_noise() {
        let t = |v: &[f32]| vec![Tensor::from_slice(&[v.len()], v)];
        // 100 / 1 = 20 dB.
        assert!((sqnr_db(&t(&[6.0, 8.0]), &t(&[6.0, 9.0])) - 20.0).abs() < 1e-12);
        assert_eq!(sqnr_db(&t(&[1.0]), &t(&[1.0])), MOST_SQNR_DB);
        assert_eq!(sqnr_db(&t(&[0.0]), &t(&[1.0])), -MOST_SQNR_DB);
    }
}
