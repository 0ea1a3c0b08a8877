//! `daq quantize --target-...`: the flags of a search for a target, and what it says on its way.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use daq::Graph;
use daq_quant::calibrate::Samples;
use daq_quant::evaluate::Classes;
use daq_quant::pipeline::Recipe;
use daq_quant::samples::PreparedDataset;
use daq_quant::target::{Fidelity, Goal, LEAST_SAMPLES, Search, Tried};

use crate::eval::ByName;
use crate::messages::{self, Stages};
use crate::options::usage;
use crate::output::percent;
use crate::quantize::{Args, Made, Reached};

/// What the 8-bit model has to reach on samples that are held back from calibration.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Reaching a target")]
pub struct TargetArgs {
    /// Try recipes from cheap to dear, then leave the fewest operators in float, until this share of
    /// samples has the float model's best class: 0.98 or 98%
    #[arg(long = "target-agreement", alias = "target_agreement", value_name = "SHARE", value_parser = share,
          conflicts_with_all = ["target_sqnr", "target_top1"])]
    pub target_agreement: Option<f64>,
    /// The same until the outputs' signal to noise ratio is this much, in dB
    #[arg(
        long = "target-sqnr",
        alias = "target_sqnr",
        value_name = "DB",
        conflicts_with = "target_top1"
    )]
    pub target_sqnr: Option<f64>,
    /// The same until this share of samples has its label's class, by --labels
    #[arg(long = "target-top1", alias = "target_top1", value_name = "SHARE", value_parser = share)]
    pub target_top1: Option<f64>,
    /// Begin nothing new after this time; what was best until then is kept
    #[arg(long = "time-budget", alias = "time_budget", value_name = "SECONDS", value_parser = seconds)]
    pub time_budget: Option<Duration>,
}

fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if (0.0..=unit).contains(&n) => Ok(n / unit),
        _ => Err("must be a share from 0 to 1, or from 0% to 100%".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|s| (0.0..=1e9).contains(s));
    number.map(Duration::from_secs_f64).ok_or("must be a number of seconds from 0 on".into())
}

impl TargetArgs {
    /// What is to be reached, where anything is.
    pub fn goal(&self) -> Result<Option<Goal>> {
        let goal = self.target_agreement.map(Goal::Agreement);
        let goal = goal.or(self.target_sqnr.map(Goal::Sqnr)).or(self.target_top1.map(Goal::Top1));
        match (goal, self.time_budget) {
            (None, Some(_)) => {
                Err(usage("--time-budget needs a target, such as --target-agreement 0.98"))
            }
            _ => Ok(goal),
        }
    }
}

/// A fidelity in words.
pub fn shown(f: &Fidelity) -> String {
    let top1 = f.top1.map_or(String::new(), |t| format!("top-1 {}, ", percent(t)));
    let agreement = percent(f.agreement);
    let [expected, error] = [f.expected, f.expected_error].map(|share| 100.0 * share);
    let expected = format!("expected of others {expected:.1} ± {error:.1} %");
    format!("{top1}agreement {agreement} ({expected}), SQNR {:.1} dB", f.sqnr_db)
}

/// Searches, and says on stderr what was tried.
pub fn search(
    float: &Graph,
    data: &PreparedDataset,
    goal: Goal,
    recipe: Recipe,
    labels: Option<&ByName>,
    args: &Args,
) -> Result<Made> {
    if data.len() < LEAST_SAMPLES {
        return Err(usage(format!(
            "a target needs at least {LEAST_SAMPLES} samples; there are {}",
            data.len()
        )));
    }
    if matches!(goal, Goal::Top1(_)) && labels.is_none() {
        return Err(usage("--target-top1 needs --labels, or labels.txt in the folder"));
    }
    let start = Instant::now();
    let budget = args.target.time_budget;
    let tried = |tried: &Tried| {
        let seconds = start.elapsed().as_secs_f64();
        let left = budget.map_or(String::new(), |b| format!(" of {:.0}", b.as_secs_f64()));
        messages::line(&format!(
            "{seconds:6.1}{left} s  {}: {}",
            tried.what,
            shown(&tried.fidelity)
        ));
    };
    let search = Search {
        float,
        samples: data,
        goal,
        recipe,
        classes: labels.map(|l| (l as &dyn Classes, args.labels.class_offset)),
        budget,
        tried: &tried,
    };
    let found =
        search.run(&Stages::default()).map_err(|e| anyhow!("{}: {e}", args.model.display()))?;
    if matches!(goal, Goal::Top1(_)) && found.fidelity.top1.is_none() {
        return Err(anyhow!(
            "no label is for a sample that was held back; names in the labels are relative to the folder"
        ));
    }
    let reached =
        Reached { fidelity: found.fidelity, reached: found.reached, held_back: found.held_back };
    Ok(Made::new(found.quantized, found.prepared, found.recipe, Some(reached)))
}
