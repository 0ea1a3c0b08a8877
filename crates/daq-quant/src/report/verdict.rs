//! From numbers to a word: good, to be looked at, bad.

use serde::Serialize;

use crate::compare::{Comparison, HURTS_DB};
use crate::preprocess_check::PreprocessCheck;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As close to the float model as 8 bits usually are.
    Good,
    /// Usable, but something is lost.
    Fair,
    /// Not to be used as it is.
    Bad,
}

/// The judgement of a quantization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How good it is.
    pub level: Level,
    /// In a few words.
    pub headline: String,
    /// Why, one sentence each, the gravest first.
    pub reasons: Vec<String>,
    /// Of single figures.
    pub levels: Levels,
}

/// How good single figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Levels {
    /// The agreement with the float model.
    pub agreement: Level,
    /// The outputs' SQNR.
    pub sqnr: Level,
    /// What is lost of top-1.
    pub top1: Level,
}

fn level(value: f64, good: f64, fair: f64) -> Level {
    match value {
        v if v >= good => Level::Good,
        v if v >= fair => Level::Fair,
        _ => Level::Bad,
    }
}

/// The level of an operator's own error.
pub(super) fn of_operator(sqnr_db: f64) -> Level {
    level(sqnr_db, HURTS_DB, 10.0)
}

/// The level of the error that has come together on the way.
pub(super) fn of_accumulated(sqnr_db: f64) -> Level {
    level(sqnr_db, 10.0, 5.0)
}

/// Judges agreement and top-1 where they are known, SQNR where not; a suspicious preprocessing is
/// always bad: the numbers then speak of pictures that the model was not made for.
pub(super) fn verdict(c: &Comparison, check: Option<&PreprocessCheck>) -> Verdict {
    let percent = |share: f64| format!("{:.1}\u{202f}%", 100.0 * share);
    let mut found: Vec<(Level, String)> = Vec::new();
    let mut levels =
        Levels { agreement: Level::Good, sqnr: level(c.sqnr_db, 15.0, 10.0), top1: Level::Good };
    let suspicion = check.filter(|check| check.warning.is_some());
    if let Some(check) = suspicion {
        let told = check.information;
        let text = match &check.better {
            Some(a) => format!(
                "With {} ({}) the float model's answers tell more about each picture: {:.2} instead of \
                 {told:.2} nats. Check mean, std and colour order before anything else.",
                a.name, a.flags, a.information
            ),
            None => format!(
                "The float model is oddly unsure: its best class has a probability of {:.2} in the mean.",
                check.confidence
            ),
        };
        found.push((Level::Bad, text));
    }
    if let (Some(float), Some(top1)) = (c.float_top1, c.top1) {
        // What chance alone may do to a difference of a few pictures is not held against it.
        let chance = (1.0 - c.agreement.unwrap_or(1.0)).max(0.0) / c.n as f64;
        let lost = float - top1 - chance.sqrt();
        let judged = level(-lost, -0.01, -0.03);
        levels.top1 = judged;
        let text = match float > top1 {
            true => format!("Top-1 falls from {} to {}.", percent(float), percent(top1)),
            false => format!(
                "Top-1 does not fall: {} in float, {} in 8 bits.",
                percent(float),
                percent(top1)
            ),
        };
        found.push((judged, text));
    }
    match c.agreement {
        Some(agreement) => {
            let text = format!(
                "Both models have the same best class on {} of {} pictures.",
                percent(agreement),
                c.n
            );
            levels.agreement = level(agreement, 0.93, 0.85);
            found.push((levels.agreement, text));
        }
        None => {
            let text =
                format!("The signal is {:.1}\u{202f}dB above the error at the output.", c.sqnr_db);
            found.push((level(c.sqnr_db, 20.0, 10.0), text));
        }
    }
    if suspicion.is_some() {
        // However close the models are: both see what they were not made for.
        levels = Levels { agreement: Level::Bad, sqnr: Level::Bad, top1: Level::Bad };
    }
    let worst = found.iter().map(|(level, _)| *level).max().unwrap_or(Level::Good);
    found.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let headline = match (worst, suspicion.is_some()) {
        (_, true) => "The pictures look wrongly prepared",
        (Level::Good, _) => "Good: close to the float model",
        (Level::Fair, _) => "Fair: something is lost",
        (Level::Bad, _) => "Bad: not to be used like this",
    };
    Verdict {
        level: worst,
        headline: headline.into(),
        levels,
        reasons: found.into_iter().map(|(_, text)| text).collect(),
    }
}
