//! Post-training quantization from end to end: recovery passes on the float graph, calibration,
//! integers, recovery passes on those.

use std::fmt;
use std::str::FromStr;

use daq::{Graph, Tensor};

use crate::auto;
use crate::calibrate::{CalibrateError, CalibrateOptions, Calibration, Samples, calibrate};
use crate::observe::CalibrationMethod;
use crate::quantize::{
    QuantizeError, QuantizeOptions, Quantized, Ranges, quantize, quantize_like, quantize_with,
};
use crate::recover::moments::{AllMoments, moments};
use crate::recover::statistics::statistics;
use crate::recover::{absorption, activation_bias, equalize, two_parts};
use crate::saved::Part;

/// Samples that biases are corrected on, layer by layer.
const FEW: usize = 16;

/// Samples whose inputs of operators are measured.
const MOMENT_SAMPLES: usize = 50;

/// Which recovery passes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Cross-layer equalization; see [`equalize`].
    pub equalize: bool,
    /// Bias absorption; see [`absorption`].
    pub absorption: bool,
    /// Weight scales of least error; see [`weight_scales`](crate::recover::weight_scales).
    pub weight_scales: bool,
    /// Rounding that makes up for its errors; see [`rounding`](crate::recover::rounding).
    pub rounding: bool,
    /// Bias correction for rounded weights; see [`bias`](crate::recover::bias).
    pub bias: bool,
    /// Bias correction for quantized activations; see
    /// [`activation_bias`].
    pub activation_bias: bool,
}

impl Recovery {
    /// No pass.
    pub const NONE: Recovery = Recovery {
        equalize: false,
        absorption: false,
        weight_scales: false,
        rounding: false,
        bias: false,
        activation_bias: false,
    };

    fn moments(self) -> bool {
        self.weight_scales || self.rounding || self.bias
    }

    /// Names and switches of all passes, in the order in which they run.
    fn passes(&mut self) -> [(&'static str, &mut bool); 6] {
        [
            ("equalize", &mut self.equalize),
            ("absorption", &mut self.absorption),
            ("weight-scales", &mut self.weight_scales),
            ("rounding", &mut self.rounding),
            ("bias", &mut self.bias),
            ("activation-bias", &mut self.activation_bias),
        ]
    }
}

impl Default for Recovery {
    /// What is cheap and helps.
    fn default() -> Self {
        Recovery { equalize: true, rounding: true, bias: true, ..Recovery::NONE }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        let on: Vec<_> = copy.passes().into_iter().filter(|p| *p.1).map(|p| p.0).collect();
        f.write_str(if on.is_empty() { "none".into() } else { on.join(",") }.as_str())
    }
}

impl FromStr for Recovery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut recovery = Recovery::NONE;
        for word in text.split(',').map(str::trim) {
            match word {
                "none" => recovery = Recovery::NONE,
                "all" => recovery.passes().into_iter().for_each(|p| *p.1 = true),
                "default" => recovery = Recovery::default(),
                _ => match recovery.passes().into_iter().find(|p| p.0 == word) {
                    Some((_, on)) => *on = true,
                    None => {
                        let names = Recovery::default().passes().map(|p| p.0).join(", ");
                        return Err(format!(
                            "`{word}` is no pass; there are {names}; none, default, all"
                        ));
                    }
                },
            }
        }
        Ok(recovery)
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// How ranges are chosen.
    pub method: CalibrationMethod,
    /// The recovery passes.
    pub recovery: Recovery,
    /// Products that read their input in two parts; see [`two_parts`].
    pub two_parts: Vec<String>,
    /// What to quantize; its switches of recovery passes follow `recovery`.
    pub options: QuantizeOptions,
    /// Threads.
    pub workers: usize,
    /// Samples that a thread takes at a time in calibration.
    pub batch_size: usize,
}

/// Told how far the work is; from the workers' threads.
pub trait Progress: Sync {
    /// Something begins that takes `count` steps.
    fn stage(&self, what: &'static str, count: usize);
    /// A step is done.
    fn step(&self);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: &'static str, _: usize) {}
    fn step(&self) {}
}

/// Why there is no quantized model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Running the model on samples failed.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Quantization failed.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A model does not run.
    #[error(transparent)]
    Model(#[from] daq::Error),
}

/// A float graph after the passes that change it, and what calibration saw of it.
pub struct Prepared {
    /// The graph.
    pub float: Graph,
    /// The scales of its channels, where it was equalized; see
    /// [`EQUALIZED`](crate::recover::equalize::EQUALIZED).
    pub equalized: Option<String>,
    /// How far its channels are shifted, where biases were absorbed; see
    /// [`ABSORBED`](crate::recover::absorption::ABSORBED).
    pub absorbed: Option<String>,
    /// What calibration saw.
    pub calibration: Calibration,
    /// The ranges chosen.
    pub ranges: Ranges,
    /// Moments of what the operators read, where a pass asks for them.
    pub moments: AllMoments,
    /// A model that was made on the way to the ranges, and what it was made with.
    made: Option<(QuantizeOptions, Quantized)>,
}

/// Equalizes, calibrates and measures, as `recipe` says.
///
/// # Errors
/// [`PipelineError`].
pub fn prepare(
    float: &Graph,
    samples: &dyn Samples,
    recipe: &Recipe,
    progress: &dyn Progress,
) -> Result<Prepared, PipelineError> {
    let step = || progress.step();
    let mut float = float.clone();
    let mut equalized = None;
    if recipe.recovery.equalize {
        progress.stage("measuring channels", samples.len());
        let statistics = statistics(&float, samples, recipe.workers, &step)?;
        equalized = equalize::equalize(&mut float, &statistics, recipe.options.weights);
    }
    let mut absorbed = None;
    if recipe.recovery.absorption {
        progress.stage("measuring channels", samples.len());
        let statistics = statistics(&float, samples, recipe.workers, &step)?;
        absorbed = absorption::absorb(&mut float, &statistics);
    }
    if !recipe.two_parts.is_empty() {
        progress.stage("measuring channels", samples.len());
        let statistics = statistics(&float, samples, recipe.workers, &step)?;
        two_parts::split(&mut float, &recipe.two_parts, &statistics)?;
    }
    progress.stage("calibrating", samples.len());
    let options = CalibrateOptions {
        method: recipe.method,
        workers: recipe.workers,
        batch_size: recipe.batch_size,
    };
    let calibration = calibrate(&float, samples, &options, &step)?;
    let mut ranges = calibration.ranges_of(&float);
    if recipe.method == CalibrationMethod::Auto {
        ranges = auto::choose(&float, &calibration, samples, recipe, progress)?;
    }
    let moments = match recipe.recovery.moments() {
        true => {
            let count = samples.len().div_ceil(MOMENT_SAMPLES).max(1);
            let some = Part { samples, first: 0, count };
            progress.stage("measuring inputs", some.len());
            let nearest = quantize(&float, &ranges, &recipe.options)?;
            moments(&nearest.graph, &some, recipe.workers, &step)?
        }
        false => AllMoments::new(),
    };
    let mut made = None;
    if recipe.method == CalibrationMethod::Best {
        let by = |method| {
            let mut ranges = calibration.ranges_by(method);
            calibration.widen_outputs(&float, &mut ranges);
            (method, ranges)
        };
        let others = [CalibrationMethod::Average, CalibrationMethod::Entropy].map(by).into();
        let options = integer_options(recipe);
        let quantized = |ranges: &Ranges, like: Option<&Quantized>| {
            let like = like.map(|q| &q.graph);
            Ok(quantize_like(&float, ranges, &options, &moments, like)?)
        };
        let mse = (CalibrationMethod::Mse, ranges);
        let (chosen, model) =
            auto::better(&float, mse, others, samples, &quantized, recipe.workers)?;
        (ranges, made) = (chosen, Some((options, model)));
    }
    Ok(Prepared { float, equalized, absorbed, calibration, ranges, moments, made })
}

/// What to quantize, with the passes on integers.
fn integer_options(recipe: &Recipe) -> QuantizeOptions {
    QuantizeOptions {
        error_compensation: recipe.recovery.rounding,
        bias_correction: recipe.recovery.bias,
        weight_scales: recipe.recovery.weight_scales,
        ..recipe.options.clone()
    }
}

impl Prepared {
    /// The 8-bit model.
    ///
    /// # Errors
    /// [`PipelineError`].
    pub fn quantize(
        &self,
        samples: &dyn Samples,
        recipe: &Recipe,
        progress: &dyn Progress,
    ) -> Result<Quantized, PipelineError> {
        let options = integer_options(recipe);
        let mut quantized = match &self.made {
            Some((with, model)) if *with == options => model.clone(),
            _ => quantize_with(&self.float, &self.ranges, &options, &self.moments)?,
        };
        if recipe.recovery.activation_bias {
            let few = Part { samples, first: 0, count: samples.len().div_ceil(FEW).max(1) };
            let few = Loaded::all(&few);
            let float = statistics(&self.float, &few, recipe.workers, &|| ())?;
            progress.stage("correcting biases", quantized.graph.nodes.len());
            activation_bias::correct(&mut quantized.graph, &float, &few, recipe.workers, &|| {
                progress.step()
            })?;
        }
        Ok(quantized)
    }
}

/// Samples that are kept in memory.
pub struct Loaded {
    samples: Vec<(String, Vec<(String, Tensor)>)>,
}

impl Loaded {
    /// Loads all samples; those that cannot be loaded are left out.
    pub fn all(samples: &dyn Samples) -> Loaded {
        let load = |i: usize| Some((samples.name(i), samples.load(i).ok()?));
        Loaded { samples: (0..samples.len()).filter_map(load).collect() }
    }
}

impl Samples for Loaded {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn name(&self, index: usize) -> String {
        self.samples[index].0.clone()
    }

    fn load(&self, index: usize) -> Result<Vec<(String, Tensor)>, String> {
        Ok(self.samples[index].1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_read_as_written() {
        for text in
            ["none", "equalize,rounding,bias", "absorption", "weight-scales", "activation-bias"]
        {
            assert_eq!(text.parse::<Recovery>().map(|r| r.to_string()), Ok(text.into()));
        }
        assert_eq!("default".parse(), Ok(Recovery::default()));
        let all = "equalize,absorption,weight-scales,rounding,bias,activation-bias";
        assert_eq!("all".parse::<Recovery>().map(|r| r.to_string()), Ok(all.into()));
        assert_eq!(
            "default, activation-bias".parse::<Recovery>().map(|r| r.activation_bias),
            Ok(true)
        );
        let error = "equalise".parse::<Recovery>().unwrap_err();
        assert!(error.contains("weight-scales"), "{error}");
    }
}
