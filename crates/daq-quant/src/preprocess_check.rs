//! Whether pictures are prepared as the model was trained with, judged without labels.
//!
//! A classifier that sees what it knows gives answers that are sure and differ from picture to
//! picture. How much an answer tells about its picture is the mutual information `H(mean p) - mean
//! H(p)` of the probabilities p, which Bridle, Heading and MacKay ("Unsupervised classifiers, mutual
//! information and phantom targets", 1991) maximise to train without labels. Wrong constants lower it: by
//! making the answers unsure, or all alike. So a few common preparations are tried on some
//! pictures, and where one tells clearly more than the given one, that is worth a warning.

use std::sync::Mutex;

use daq::{Graph, Model, Session, Tensor};
use serde::Serialize;

use crate::calibrate::{Samples, parallel};
use crate::compare::probabilities;
use crate::dataset::DatasetKind;
use crate::preprocess::{Color, Layout, PerChannel, Preprocess};
use crate::samples::PreparedDataset;

/// The most pictures that are looked at.
const MOST: usize = 64;

/// Of these one in so many decides which alternatives are worth trying on all.
const FIRST: usize = 4;

/// The fewest pictures that say anything.
const FEWEST: usize = 8;

/// An alternative must tell this share more than the given settings...
const LEAST_GAIN: f64 = 0.02;

/// ...and the gain must be this many of its standard errors.
const LEAST_SURE: f64 = 2.0;

/// Answers tell oddly little below this share of what they could...
const LITTLE: f64 = 0.4;

/// ...where they are also less sure than this.
const UNSURE: f64 = 0.3;

/// Preparations in use: name, mean and std in RGB order.
const COMMON: [(&str, [f32; 3], [f32; 3]); 5] = [
    ("ImageNet's constants", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    ("-1 to 1", [127.5; 3], [127.5; 3]),
    ("0 to 1", [0.0; 3], [255.0; 3]),
    ("0 to 255", [0.0; 3], [1.0; 3]),
    ("Caffe's mean", [123.0, 117.0, 104.0], [1.0; 3]),
];

/// What the check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreprocessCheck {
    /// Pictures that were looked at.
    pub pictures: usize,
    /// What the answers tell about the pictures, in nats.
    pub information: f64,
    /// What they could tell at most: the logarithm of the number of classes, or of pictures.
    pub most: f64,
    /// The mean probability of the best class.
    pub confidence: f64,
    /// The best of the other preparations that were tried on as many pictures, where one was.
    pub better: Option<Alternative>,
    /// What the user should know; `None` where nothing is suspicious.
    pub warning: Option<String>,
}

/// Another way to prepare pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alternative {
    /// What it is called.
    pub name: String,
    /// The settings.
    pub settings: Preprocess,
    /// The flags that give these settings.
    pub flags: String,
    /// What the answers tell with them, in nats.
    pub information: f64,
}

/// Looks at up to 64 pictures. `None` where nothing can be said: the data are arrays, fewer than 8,
/// or the first output is no row of scores.
///
/// # Errors
/// The model does not run.
pub fn check(
    graph: &Graph,
    data: &PreparedDataset,
    workers: usize,
) -> daq::Result<Option<PreprocessCheck>> {
    let target = match data.dataset.target(&data.preprocess) {
        Ok(Some(target)) if data.dataset.kind() == DatasetKind::Pictures => target,
        _ => return Ok(None),
    };
    let model = Model::from_graph(graph.clone())?;
    let count = data.len().min(MOST);
    let chosen: Vec<usize> = (0..count).map(|i| i * data.len() / count).collect();
    let first: Vec<usize> = match count < 2 * FEWEST {
        true => chosen.clone(),
        false => chosen.iter().copied().step_by((count / FEWEST / 2).clamp(1, FIRST)).collect(),
    };
    let trial =
        Trial { model: &model, data, channels: target.channels, layout: target.layout, workers };
    let given = &data.preprocess;
    let Some(short) = trial.answers(given, &first)? else { return Ok(None) };
    if short.len() < FEWEST {
        return Ok(None);
    }
    let mut promising = Vec::new();
    for (name, settings) in alternatives(given, target.channels) {
        let Some(answers) = trial.answers(&settings, &first)? else { continue };
        if answers.len() == short.len() && information(&answers) > information(&short) {
            promising.push((name, settings));
        }
    }
    let answers = match promising.is_empty() {
        true => short,
        false => trial.answers(given, &chosen)?.unwrap_or(short),
    };
    let mut best: Option<(Alternative, Answers)> = None;
    for (name, settings) in promising {
        trial.improve(&mut best, name, settings, &chosen, answers.len())?;
    }
    let told = information(&answers);
    let sure = |other: &Answers| {
        let gain = information(other) - told;
        gain > LEAST_GAIN * information(other)
            && gain > LEAST_SURE * standard_error(other, &answers)
    };
    let mut suspicious = false;
    if let Some((found, _)) = best.as_ref().filter(|(_, other)| sure(other)) {
        suspicious = true;
        // What mends one mistake may not be all: go on from there.
        for (name, settings) in alternatives(&found.settings.clone(), target.channels) {
            trial.improve(&mut best, name, settings, &chosen, answers.len())?;
        }
    }
    let most = (answers.len() as f64).ln().min((answers[0].len() as f64).ln());
    let sures = answers.iter().map(|p| f64::from(p.iter().copied().fold(0.0, f32::max)));
    let confidence = sures.sum::<f64>() / answers.len() as f64;
    let better = best.map(|(a, _)| a).filter(|a| a.information > told);
    let warning = match &better {
        Some(a) if suspicious => Some(format!(
            "the pictures may be prepared wrongly: with {} ({}) the float model's answers tell {:.2} nats about \
             {} pictures, with the given settings {told:.2}. Check mean, std and colour order",
            a.name,
            a.flags,
            a.information,
            answers.len()
        )),
        _ if told < LITTLE * most && confidence < UNSURE => Some(format!(
            "the float model is oddly unsure: its best class has a probability of {confidence:.2} in the mean of {} \
             pictures. Check that they are such as it was trained with, and --resize, --color, --mean and --std",
            answers.len()
        )),
        _ => None,
    };
    Ok(Some(PreprocessCheck {
        pictures: answers.len(),
        information: told,
        most,
        confidence,
        better,
        warning,
    }))
}

/// Settings that differ in one respect: the order of colours, or the constants.
fn alternatives(given: &Preprocess, channels: usize) -> Vec<(String, Preprocess)> {
    let mut found = Vec::new();
    let swapped = match given.color {
        Color::Rgb => Some(Color::Bgr),
        Color::Bgr => Some(Color::Rgb),
        Color::Gray => None,
    };
    if let Some(color) = swapped.filter(|_| channels == 3) {
        // Constants stay with their colours.
        let reversed = |v: &PerChannel| {
            PerChannel::new(&v.values().iter().rev().copied().collect::<Vec<_>>())
                .unwrap_or(v.clone())
        };
        let (mean, std) = (reversed(&given.mean), reversed(&given.std));
        found.push((format!("{color} pictures"), Preprocess { color, mean, std, ..given.clone() }));
    }
    for (name, mean, std) in COMMON {
        let in_order = |rgb: [f32; 3]| {
            let [r, g, b] = rgb;
            match (channels, given.color) {
                _ if r == g && g == b => PerChannel::new(&[r]),
                (1, _) => PerChannel::new(&[(r + g + b) / 3.0]),
                (_, Color::Bgr) => PerChannel::new(&[b, g, r]),
                _ => PerChannel::new(&[r, g, b]),
            }
        };
        let (Ok(mean), Ok(std)) = (in_order(mean), in_order(std)) else { continue };
        let other = Preprocess { mean, std, ..given.clone() };
        if !alike(given, &other) {
            found.push((name.into(), other));
        }
    }
    found
}

fn channel(values: &PerChannel, c: usize) -> f32 {
    let values = values.values();
    values[c.min(values.len() - 1)]
}

/// Whether no pixel differs by more than a few grey values.
fn alike(a: &Preprocess, b: &Preprocess) -> bool {
    (0..3).all(|c| {
        let ratio = channel(&a.std, c) / channel(&b.std, c);
        (channel(&a.mean, c) - channel(&b.mean, c)).abs() < 4.0 && (0.97..1.03).contains(&ratio)
    })
}

/// The flags that give an alternative.
fn flags(settings: &Preprocess) -> String {
    format!("--mean {} --std {} --color {}", settings.mean, settings.std, settings.color)
}

/// Probabilities, one row for each picture.
type Answers = Vec<Vec<f32>>;

struct Trial<'a> {
    model: &'a Model,
    data: &'a PreparedDataset,
    channels: usize,
    layout: Layout,
    workers: usize,
}

impl Trial<'_> {
    /// What the model says to these pictures; those that cannot be read are left out. `None` where
    /// its first output is no row of scores.
    fn answers(&self, settings: &Preprocess, pictures: &[usize]) -> daq::Result<Option<Answers>> {
        let found = Mutex::new(vec![None; pictures.len()]);
        let state = || self.model.session(1);
        parallel(pictures.len(), self.workers, 1, state, |session: &mut Session, i| {
            let Ok(sample) = self.data.load(pictures[i]) else { return Ok(()) };
            let prepared: Vec<_> =
                sample.iter().map(|(n, t)| (n, self.prepared(t, settings))).collect();
            let inputs: Vec<_> = prepared.iter().map(|(n, t)| (n.as_str(), t)).collect();
            let outputs = session.run(&inputs, Some(daq::DType::F32))?;
            let answer = outputs.first().and_then(probabilities);
            found.lock().unwrap_or_else(|e| e.into_inner())[i] = Some(answer);
            Ok::<_, daq::Error>(())
        })?;
        let found = found.into_inner().unwrap_or_else(|e| e.into_inner());
        Ok(found.into_iter().flatten().collect())
    }

    /// A tensor prepared with the dataset's settings as other ones would have made it.
    fn prepared(&self, tensor: &Tensor, settings: &Preprocess) -> Tensor {
        let given = &self.data.preprocess;
        if settings == given {
            return tensor.clone();
        }
        let data = tensor.data::<f32>();
        let area = data.len() / self.channels;
        let mut out = vec![0f32; data.len()];
        let at = |c: usize, i: usize| match self.layout {
            Layout::Nchw => c * area + i,
            Layout::Nhwc => i * self.channels + c,
        };
        for c in 0..self.channels {
            let from = if settings.color == given.color { c } else { self.channels - 1 - c };
            let (mean, std) = (channel(&given.mean, from), channel(&given.std, from));
            let (new_mean, new_std) = (channel(&settings.mean, c), channel(&settings.std, c));
            for i in 0..area {
                out[at(c, i)] = (data[at(from, i)] * std + mean - new_mean) / new_std;
            }
        }
        Tensor::from_slice(tensor.shape(), &out)
    }

    /// Tries settings, and keeps them where their answers tell more than the best so far.
    fn improve(
        &self,
        best: &mut Option<(Alternative, Answers)>,
        name: String,
        settings: Preprocess,
        pictures: &[usize],
        count: usize,
    ) -> daq::Result<()> {
        let Some(answers) = self.answers(&settings, pictures)? else { return Ok(()) };
        let told = information(&answers);
        if answers.len() == count && best.as_ref().is_none_or(|(b, _)| told > b.information) {
            let flags = flags(&settings);
            *best = Some((Alternative { name, settings, flags, information: told }, answers));
        }
        Ok(())
    }
}

fn entropy(p: impl Iterator<Item = f64>) -> f64 {
    p.filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum()
}

/// `H(mean p) - mean H(p)` in nats.
fn information(answers: &[Vec<f32>]) -> f64 {
    Sums::of(answers).information(answers.len())
}

/// Sums over answers, from which any one of them can be taken out again.
struct Sums {
    probabilities: Vec<f64>,
    entropies: f64,
}

impl Sums {
    fn of(answers: &[Vec<f32>]) -> Sums {
        let mut probabilities = vec![0f64; answers.first().map_or(0, Vec::len)];
        for p in answers {
            probabilities.iter_mut().zip(p).for_each(|(m, &p)| *m += f64::from(p));
        }
        Sums { probabilities, entropies: answers.iter().map(|p| entropy_of(p)).sum() }
    }

    fn without(&self, answer: &[f32]) -> Sums {
        let rest = self.probabilities.iter().zip(answer).map(|(m, &p)| m - f64::from(p));
        Sums { probabilities: rest.collect(), entropies: self.entropies - entropy_of(answer) }
    }

    fn information(&self, n: usize) -> f64 {
        let mean = self.probabilities.iter().map(|m| m / n as f64);
        (entropy(mean) - self.entropies / n as f64).max(0.0)
    }
}

fn entropy_of(answer: &[f32]) -> f64 {
    entropy(answer.iter().map(|&p| f64::from(p)))
}

/// The standard error of the difference in information of two sets of answers to the same pictures,
/// by leaving out one picture at a time (the jackknife).
fn standard_error(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let n = a.len().min(b.len());
    let (all_a, all_b) = (Sums::of(a), Sums::of(b));
    let told = |all: &Sums, answer: &[f32]| all.without(answer).information(n - 1);
    let without: Vec<f64> =
        a.iter().zip(b).map(|(a, b)| told(&all_a, a) - told(&all_b, b)).collect();
    let mean = without.iter().sum::<f64>() / n as f64;
    let squares: f64 = without.iter().map(|d| (d - mean).powi(2)).sum();
    (squares * (n as f64 - 1.0) / n as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_is_as_worked_out_by_hand() {
        let sure =
            |class: usize| (0..4).map(|c| f32::from(u8::from(c == class))).collect::<Vec<_>>();
        // Sure and different: ln 4. Sure and alike, or unsure: nothing.
        let different: Vec<_> = (0..4).map(sure).collect();
        assert!((information(&different) - 4f64.ln()).abs() < 1e-12);
        assert_eq!(information(&vec![sure(2); 4]), 0.0);
        assert!(information(&vec![vec![0.25; 4]; 4]) < 1e-12);
        // One of two classes with 3/4: ln 2 - (3/4 ln 4/3 + 1/4 ln 4).
        let half = [vec![0.75f32, 0.25], vec![0.25, 0.75]];
        let expected = 2f64.ln() - (0.75 * (4f64 / 3.0).ln() + 0.25 * 4f64.ln());
        assert!((information(&half) - expected).abs() < 1e-9);
        // Leaving out one of two that agree in the rest changes nothing.
        let alike = vec![sure(1); 5];
        assert_eq!(standard_error(&alike, &alike), 0.0);
    }

    #[test]
    fn alternatives_differ_from_what_is_given() {
        let lite = Preprocess {
            mean: PerChannel::new(&[127.0]).unwrap(),
            std: PerChannel::new(&[128.0]).unwrap(),
            ..Preprocess::default()
        };
        let names: Vec<_> = alternatives(&lite, 3).into_iter().map(|a| a.0).collect();
        assert_eq!(
            names,
            ["bgr pictures", "ImageNet's constants", "0 to 1", "0 to 255", "Caffe's mean"]
        );
        let bgr = Preprocess { color: Color::Bgr, ..lite.clone() };
        let caffe = alternatives(&bgr, 3).pop().unwrap().1;
        assert_eq!(flags(&caffe), "--mean 104,117,123 --std 1 --color bgr");
        let gray = Preprocess { color: Color::Gray, ..lite };
        assert!(alternatives(&gray, 1).iter().all(|(_, s)| s.mean.values().len() == 1));
    }
}
