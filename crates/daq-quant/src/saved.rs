//! Calibration statistics in files, so that parts of a dataset can be seen on different machines.
//!
//! Histograms and sums of parts merge exactly: the file of merged parts is, byte for byte, that of one
//! run over all of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::calibrate::{Calibration, Samples};
use crate::observe::{CalibrationMethod, Histogram, Observer, SavedHistogram};

const FORMAT: &str = "daq statistics 1";

/// Why statistics cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// The text is something else.
    #[error("these are not statistics by `daq calibrate`: {0}")]
    Format(String),
    /// A histogram that no calibration gives.
    #[error("the histogram of `{0}` is damaged; calibrate again")]
    Histogram(String),
    /// Statistics of different models.
    #[error("tensor `{0}` is in some of the statistics only; all must be of one model")]
    Different(String),
    /// Nothing to merge.
    #[error("there are no statistics to merge")]
    Nothing,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    samples: usize,
    skipped: Vec<(String, String)>,
    tensors: BTreeMap<String, SavedHistogram>,
}

/// Statistics as text (JSON). Only of calibration that kept histograms.
pub fn to_text(calibration: &Calibration) -> String {
    let saved = |o: &dyn Observer| o.as_any().downcast_ref::<Histogram>()?.save();
    let seen = calibration.observers().iter();
    let mut skipped = calibration.skipped.clone();
    skipped.sort();
    let file = File {
        format: FORMAT.into(),
        samples: calibration.used,
        skipped,
        tensors: seen.filter_map(|(name, o)| Some((name.clone(), saved(&**o)?))).collect(),
    };
    // Maps with text as keys and numbers that are finite always have a JSON form.
    serde_json::to_string(&file).unwrap_or_default() + "\n"
}

/// Reads what [`to_text`] wrote; ranges are to be chosen by `method`.
///
/// # Errors
/// [`SavedError`].
pub fn from_text(text: &str, method: CalibrationMethod) -> Result<Calibration, SavedError> {
    let file: File = serde_json::from_str(text).map_err(|e| SavedError::Format(e.to_string()))?;
    if file.format != FORMAT {
        return Err(SavedError::Format(format!("the format is `{}`, not `{FORMAT}`", file.format)));
    }
    let mut observers: BTreeMap<String, Box<dyn Observer>> = BTreeMap::new();
    for (name, saved) in &file.tensors {
        let histogram = Histogram::load(saved, method);
        let histogram = histogram.ok_or_else(|| SavedError::Histogram(name.clone()))?;
        observers.insert(name.clone(), Box::new(histogram));
    }
    Ok(Calibration::new(observers, file.samples, file.skipped))
}

/// Joins the statistics of parts, in any order.
///
/// # Errors
/// [`SavedError`].
pub fn merge(parts: &[Calibration], method: CalibrationMethod) -> Result<Calibration, SavedError> {
    let first = parts.first().ok_or(SavedError::Nothing)?;
    let mut observers: BTreeMap<String, Box<dyn Observer>> = BTreeMap::new();
    for name in parts.iter().flat_map(|p| p.observers().keys()) {
        if !first.observers().contains_key(name) {
            return Err(SavedError::Different(name.clone()));
        }
    }
    for name in first.observers().keys() {
        let mut joined: Box<dyn Observer> = Box::new(Histogram::new(method));
        for part in parts {
            let seen = part.observers().get(name);
            joined.merge(&**seen.ok_or_else(|| SavedError::Different(name.clone()))?);
        }
        observers.insert(name.clone(), joined);
    }
    let used = parts.iter().map(|p| p.used).sum();
    let mut skipped: Vec<_> = parts.iter().flat_map(|p| p.skipped.clone()).collect();
    skipped.sort();
    Ok(Calibration::new(observers, used, skipped))
}

/// Every `count`th sample from sample `first` on.
pub struct Part<'a> {
    /// All samples.
    pub samples: &'a dyn Samples,
    /// The first one's index.
    pub first: usize,
    /// The distance of one to the next.
    pub count: usize,
}

impl Samples for Part<'_> {
    fn len(&self) -> usize {
        self.samples.len().saturating_sub(self.first).div_ceil(self.count)
    }

    fn name(&self, index: usize) -> String {
        self.samples.name(self.first + index * self.count)
    }

    fn load(&self, index: usize) -> Result<Vec<(String, daq::Tensor)>, String> {
        self.samples.load(self.first + index * self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(parts: &[usize]) -> Calibration {
        let observers = ["a", "b"].map(|name| {
            let mut histogram = Histogram::new(CalibrationMethod::Mse);
            for &part in parts {
                let data: Vec<f32> = (0..200)
                    .map(|i| ((i * 31 + part * 17) % 97) as f32 * 0.37f32.powi(part as i32) - 3.0)
                    .collect();
                let (min, max) =
                    data.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
                histogram.observe(&data, crate::range::Range { min, max });
            }
            (name.to_string(), Box::new(histogram) as Box<dyn Observer>)
        });
        let skipped = parts.iter().map(|p| (format!("{p}.jpg"), "no picture".into())).collect();
        Calibration::new(observers.into(), parts.len(), skipped)
    }

    #[test]
    fn merged_parts_are_the_bytes_of_one_run() {
        let whole = to_text(&seen(&[0, 1, 2, 3]));
        let parts: Vec<_> = [3, 1, 0, 2].map(|p| to_text(&seen(&[p]))).into();
        let parts: Vec<_> =
            parts.iter().map(|t| from_text(t, CalibrationMethod::Mse).unwrap()).collect();
        assert_eq!(to_text(&merge(&parts, CalibrationMethod::Mse).unwrap()), whole);
        assert_eq!(to_text(&from_text(&whole, CalibrationMethod::Mse).unwrap()), whole);
        for method in ["minmax", "average", "percentile", "entropy", "mse"] {
            let method: CalibrationMethod = method.parse().unwrap();
            let read = from_text(&whole, method).unwrap();
            assert_eq!(read.ranges(), seen(&[2, 0, 1, 3]).ranges_by(method), "{method}");
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_errors() {
        let text = to_text(&seen(&[0]));
        let error = |text: &str| {
            from_text(text, CalibrationMethod::Mse).map(|_| ()).unwrap_err().to_string()
        };
        assert!(error("NAME 1 2 3").contains("not statistics"));
        assert!(error(&text.replace("statistics 1", "statistics 9")).contains("statistics 9"));
        assert!(error(&text.replace("\"first\":", "\"first\":9")).contains("damaged"));
        assert!(error(&text.replace("\"exponent\":-", "\"exponent\":-9")).contains("damaged"));
        let mut other = seen(&[1]);
        other =
            from_text(&to_text(&other).replace("\"a\"", "\"c\""), CalibrationMethod::Mse).unwrap();
        let error = merge(&[seen(&[0]), other], CalibrationMethod::Mse).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("`c`"), "{error}");
    }
}
