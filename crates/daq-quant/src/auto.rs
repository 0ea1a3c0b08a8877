//! `--calibration auto`: for each tensor the method with the least measured error of the model's output.
//!
//! Starting from the ranges of least squared error, the tensors are gone through in order. For each, the
//! model is quantized with the range of every other method and run on some of the samples; a range stays
//! where the outputs come closer to the float model's.

use std::collections::BTreeMap;
use std::sync::Mutex;

use daq::Graph;

use crate::calibrate::{Calibration, Samples, parallel};
use crate::observe::CalibrationMethod;
use crate::pipeline::{Loaded, PipelineError, Progress, Recipe};
use crate::quantize::{Quantized, Ranges, quantize};
use crate::saved::Part;
use crate::target::Reference;

/// Samples that the error is measured on.
const SAMPLES: usize = 12;

/// Makes a model of ranges; given one that was made of others, what both have in common need not be made again.
pub type Make<'a> =
    dyn Fn(&Ranges, Option<&Quantized>) -> Result<Quantized, PipelineError> + Sync + 'a;

/// Of several choices of ranges, each with the method that it is of, the one whose model, made by
/// `quantized`, has the least error (the first of equals), and that model: `--calibration best`. With
/// several `workers` those after the first are made at once.
///
/// # Errors
/// A model that does not run.
pub fn better(
    float: &Graph,
    first: (CalibrationMethod, Ranges),
    others: Vec<(CalibrationMethod, Ranges)>,
    samples: &dyn Samples,
    quantized: &Make,
    workers: usize,
) -> Result<(Ranges, Quantized), PipelineError> {
    let few = Part { samples, first: 0, count: samples.len().div_ceil(SAMPLES).max(1) };
    let few = Loaded::all(&few);
    let reference = Reference::of(float, &few, None, workers)?;
    let model = quantized(&first.1, None)?;
    let made = Mutex::new(BTreeMap::new());
    let make = |_: &mut (), i: usize| {
        let other = quantized(&others[i].1, Some(&model))?;
        made.lock().unwrap_or_else(|e| e.into_inner()).insert(i, other);
        Ok::<_, PipelineError>(())
    };
    parallel(others.len(), workers, 1, || (), make)?;
    let made = made.into_inner().unwrap_or_else(|e| e.into_inner());
    let error = |method: CalibrationMethod, model: &Quantized| {
        let found = reference.measure(&model.graph, workers)?.sqnr_db;
        log::info!("ranges by {method}: {found:.2} dB");
        Ok::<_, PipelineError>(found)
    };
    let mut best = (error(first.0, &model)?, first.1, model);
    for ((method, ranges), model) in others.into_iter().zip(made.into_values()) {
        let found = error(method, &model)?;
        if found > best.0 {
            best = (found, ranges, model);
        }
    }
    Ok((best.1, best.2))
}

/// Methods beside the first, which is that of least squared error.
const METHODS: [CalibrationMethod; 4] = [
    CalibrationMethod::MinMax,
    CalibrationMethod::Average,
    CalibrationMethod::Percentile(99.99),
    CalibrationMethod::Entropy,
];

/// A range counts as another one where an end differs by this part of the width.
const DIFFERENT: f32 = 0.02;

/// A range must win this much, in dB: less is chance.
const GAIN: f64 = 0.01;

/// The ranges. `calibration` must have kept histograms.
///
/// # Errors
/// A model that does not run.
pub fn choose(
    float: &Graph,
    calibration: &Calibration,
    samples: &dyn Samples,
    recipe: &Recipe,
    progress: &dyn Progress,
) -> Result<Ranges, PipelineError> {
    let few = Part { samples, first: 0, count: samples.len().div_ceil(SAMPLES).max(1) };
    let few = Loaded::all(&few);
    let reference = Reference::of(float, &few, None, recipe.workers)?;
    let mut ranges = calibration.ranges_by(CalibrationMethod::Mse);
    calibration.widen_outputs(float, &mut ranges);
    let others = METHODS.map(|method| calibration.ranges_by(method));
    let measure = |ranges: &Ranges| -> Result<f64, PipelineError> {
        let quantized = quantize(float, ranges, &recipe.options)?;
        Ok(reference.measure(&quantized.graph, recipe.workers)?.sqnr_db)
    };
    let mut best = measure(&ranges)?;
    let order = float.values.iter().map(|v| &v.name).filter(|n| ranges.contains_key(*n));
    let output = |name: &&String| float.outputs.iter().any(|&id| float.values[id].name == **name);
    let order: Vec<String> = order.filter(|name| !output(name)).cloned().collect();
    progress.stage("choosing ranges", order.len());
    for name in order {
        let mut tried = vec![ranges[&name]];
        for range in others.iter().filter_map(|others| others.get(&name).copied()) {
            let width = (range.max - range.min).max(f32::MIN_POSITIVE);
            let near = |a: f32, b: f32| (a - b).abs() < DIFFERENT * width;
            if tried.iter().any(|t| near(t.min, range.min) && near(t.max, range.max)) {
                continue;
            }
            tried.push(range);
            let kept = ranges.insert(name.clone(), range);
            let found = measure(&ranges)?;
            match found > best + GAIN {
                true => best = found,
                false => drop(kept.map(|range| ranges.insert(name.clone(), range))),
            }
        }
        progress.step();
    }
    Ok(ranges)
}
