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
    let trial =
        Trial { model: &model, data, channels: target.channels, layout: target.layout, workers };
    let stages = stages(data.len());
    let given = &data.preprocess;
    let mut candidates = vec![Candidate::new("as given".into(), given.clone())];
    candidates.extend(trial.alternatives(given));
    for (k, pictures) in stages.iter().enumerate() {
        if k > 1 && candidates.len() == 1 {
            break;
        }
        if !trial.extend(&mut candidates, pictures)? {
            return Ok(None);
        }
        let given = candidates[0].answers.clone();
        // So few pictures may be wrong about what is nearly as good.
        let doubt = |c: &Candidate| if k == 0 { standard_error(&c.answers, &given) } else { 0.0 };
        let mut place = 0..;
        candidates.retain(|c| {
            place.next() == Some(0) || information(&c.answers) > information(&given) - doubt(c)
        });
    }
    let answers = candidates.remove(0).answers;
    if answers.len() < FEWEST {
        return Ok(None);
    }
    let told = information(&answers);
    let mut best = most_telling(None, candidates).filter(|b| information(&b.answers) > told);
    let sure = |other: &Candidate| {
        let gain = information(&other.answers) - told;
        gain > LEAST_GAIN * information(&other.answers)
            && gain > LEAST_SURE * standard_error(&other.answers, &answers)
    };
    let suspicious = best.as_ref().is_some_and(sure);
    if let Some(found) = best.take_if(|_| suspicious) {
        // What mends one mistake may not be all: go on from there.
        let mut others = trial.alternatives(&found.settings);
        let seen = stages.concat();
        best = match trial.extend(&mut others, &seen)? {
            true => most_telling(Some(found), others),
            false => Some(found),
        };
    }
    let better = best.map(|best| Alternative {
        flags: flags(&best.settings),
        information: information(&best.answers),
        name: best.name,
        settings: best.settings,
    });
    let most = (answers.len() as f64).ln().min((answers[0].len() as f64).ln());
    let sures = answers.iter().map(|p| f64::from(p.iter().copied().fold(0.0, f32::max)));
    let confidence = sures.sum::<f64>() / answers.len() as f64;
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

/// Which of `count` pictures to look at, in stages that are each spread over all of them: the first as few as
/// say something, then so many that their number doubles.
fn stages(count: usize) -> Vec<Vec<usize>> {
    let most = count.min(MOST);
    let mut stride = 1;
    while most >= 2 * stride * FEWEST {
        stride *= 2;
    }
    let mut stages = Vec::new();
    while stride > 0 {
        let new = |i: &usize| stages.is_empty() || !i.is_multiple_of(2 * stride);
        let stage: Vec<usize> =
            (0..most).step_by(stride).filter(new).map(|i| i * count / most).collect();
        stages.push(stage);
        stride /= 2;
    }
    stages
}

/// Probabilities, one row for each picture.
type Answers = Vec<Vec<f32>>;

/// A way to prepare pictures and what the model says to them.
struct Candidate {
    name: String,
    settings: Preprocess,
    answers: Answers,
}

impl Candidate {
    fn new(name: String, settings: Preprocess) -> Candidate {
        Candidate { name, settings, answers: Answers::new() }
    }
}

/// The candidate whose answers tell most, the first of equals.
fn most_telling(first: Option<Candidate>, others: Vec<Candidate>) -> Option<Candidate> {
    others.into_iter().fold(first, |best, c| match best {
        Some(best) if information(&best.answers) >= information(&c.answers) => Some(best),
        _ => Some(c),
    })
}

struct Trial<'a> {
    model: &'a Model,
    data: &'a PreparedDataset,
    channels: usize,
    layout: Layout,
    workers: usize,
}

impl Trial<'_> {
    fn alternatives(&self, given: &Preprocess) -> Vec<Candidate> {
        let all = alternatives(given, self.channels).into_iter();
        all.map(|(name, settings)| Candidate::new(name, settings)).collect()
    }

    /// Adds what the model says to these pictures, each loaded once; those that cannot be read are left out.
    /// Whether its first output is a row of scores.
    fn extend(&self, candidates: &mut [Candidate], pictures: &[usize]) -> daq::Result<bool> {
        let found = Mutex::new(vec![None; pictures.len()]);
        let state = || self.model.session(1);
        parallel(pictures.len(), self.workers, 1, state, |session: &mut Session, i| {
            let Ok(sample) = self.data.load(pictures[i]) else { return Ok(()) };
            let mut answers = Vec::new();
            for candidate in candidates.iter() {
                let prepared: Vec<_> = sample
                    .iter()
                    .map(|(n, t)| (n, self.prepared(t, &candidate.settings)))
                    .collect();
                let inputs: Vec<_> = prepared.iter().map(|(n, t)| (n.as_str(), t)).collect();
                let outputs = session.run(&inputs, Some(daq::DType::F32))?;
                answers.push(outputs.first().and_then(probabilities));
            }
            found.lock().unwrap_or_else(|e| e.into_inner())[i] = Some(answers);
            Ok::<_, daq::Error>(())
        })?;
        let found = found.into_inner().unwrap_or_else(|e| e.into_inner());
        for answers in found.into_iter().flatten() {
            for (candidate, answer) in candidates.iter_mut().zip(answers) {
                let Some(answer) = answer else { return Ok(false) };
                candidate.answers.push(answer);
            }
        }
        Ok(true)
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
    fn every_stage_is_spread_over_all() {
        assert_eq!(stages(6), [[0, 1, 2, 3, 4, 5]]);
        let [a, b] = &stages(20)[..] else { panic!("{:?}", stages(20)) };
        assert_eq!(a, &[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
        assert_eq!(b, &[1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
        let of = |count| stages(count).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!((of(128), of(64)), (vec![8, 8, 16, 32], vec![8, 8, 16, 32]));
        assert_eq!(stages(128)[0], [0, 16, 32, 48, 64, 80, 96, 112]);
        let mut all = stages(64).concat();
        all.sort_unstable();
        assert_eq!(all, (0..64).collect::<Vec<_>>());
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
