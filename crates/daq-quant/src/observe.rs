//! Observers: what calibration keeps of a tensor's values. Memory does not grow with the data.

use crate::range::Range;

/// Collects statistics of one tensor over many runs. Observers of parts of the data merge into
/// exactly what one observer would have seen, in any order.
pub trait Observer: Send {
    /// Takes the elements of one run, which are finite, and their range.
    fn observe(&mut self, data: &[f32], range: Range);

    /// Takes over what another observer of the same kind saw.
    fn merge(&mut self, other: &dyn Observer);

    /// The range to quantize; `None` where nothing was seen.
    fn range(&self) -> Option<Range>;

    /// The lowest and the highest value seen.
    fn seen(&self) -> Option<Range>;

    /// For [`merge`](Observer::merge).
    fn as_any(&self) -> &dyn std::any::Any;
}

/// How ranges are chosen from what calibration sees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CalibrationMethod {
    /// The lowest and the highest value.
    MinMax,
    /// The mean of each sample's lowest and highest value.
    Average,
    /// The range that holds this percentage of the values (50..=100), cut equally at both ends.
    Percentile(f32),
    /// The range whose codes keep the distribution best; see [`entropy`](crate::entropy).
    Entropy,
    /// The range with the least mean squared quantization error.
    Mse,
    /// [`Mse`](Self::Mse), [`Average`](Self::Average) or [`Entropy`](Self::Entropy) for the whole model,
    /// whichever has the least measured error of its output; `Mse` where there are no samples to measure.
    #[default]
    Best,
    /// For each tensor that of the others with the least error of the model's output; see
    /// [`auto`](crate::auto).
    Auto,
}

impl CalibrationMethod {
    /// A new observer for this method.
    pub fn observer(self) -> Box<dyn Observer> {
        match self {
            CalibrationMethod::MinMax => Box::new(MinMax::default()),
            CalibrationMethod::Average => Box::new(Average::default()),
            _ => Box::new(Histogram::new(self)),
        }
    }
}

impl std::fmt::Display for CalibrationMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CalibrationMethod::MinMax => f.write_str("minmax"),
            CalibrationMethod::Percentile(p) => write!(f, "percentile:{p}"),
            CalibrationMethod::Average => f.write_str("average"),
            CalibrationMethod::Entropy => f.write_str("entropy"),
            CalibrationMethod::Mse => f.write_str("mse"),
            CalibrationMethod::Best => f.write_str("best"),
            CalibrationMethod::Auto => f.write_str("auto"),
        }
    }
}

impl std::str::FromStr for CalibrationMethod {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let percentile = |p: &str| match p.parse::<f32>() {
            Ok(p) if (50.0..=100.0).contains(&p) => Ok(CalibrationMethod::Percentile(p)),
            _ => Err(format!("`{p}` is not a percentage from 50 to 100")),
        };
        match s.to_ascii_lowercase().as_str() {
            "minmax" => Ok(CalibrationMethod::MinMax),
            "average" | "moving-average" => Ok(CalibrationMethod::Average),
            "entropy" => Ok(CalibrationMethod::Entropy),
            "mse" => Ok(CalibrationMethod::Mse),
            "best" => Ok(CalibrationMethod::Best),
            "auto" => Ok(CalibrationMethod::Auto),
            "percentile" => Ok(CalibrationMethod::Percentile(99.99)),
            other => match other.strip_prefix("percentile:") {
                Some(p) => percentile(p),
                None => Err(format!(
                    "`{s}` is unknown; use minmax, average, percentile, percentile:99.9, entropy, \
                     mse, best or auto"
                )),
            },
        }
    }
}

/// The lowest and the highest value.
#[derive(Clone, Debug, Default)]
pub struct MinMax(Option<Range>);

impl Observer for MinMax {
    fn observe(&mut self, _: &[f32], range: Range) {
        self.0 = Some(self.0.map_or(range, |r| r.union(range)));
    }

    fn merge(&mut self, other: &dyn Observer) {
        if let Some(range) = other.range() {
            self.0 = Some(self.0.map_or(range, |r| r.union(range)));
        }
    }

    fn range(&self) -> Option<Range> {
        self.0
    }

    fn seen(&self) -> Option<Range> {
        self.0
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// The sums of each sample's lowest and highest value, in fixed point: exact in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Average {
    samples: u64,
    low: i128,
    high: i128,
    seen: Option<Range>,
}

/// Binary digits after the point of [`Average`].
const FRACTION: i32 = 60;

impl Average {
    fn add(&mut self, range: Range) {
        let fixed = |x: f32| (f64::from(x) * 2f64.powi(FRACTION)) as i128;
        let (low, high) = (fixed(range.min), fixed(range.max));
        self.join(&Average { samples: 1, low, high, seen: Some(range) });
    }

    fn join(&mut self, other: &Average) {
        self.samples += other.samples;
        self.low = self.low.saturating_add(other.low);
        self.high = self.high.saturating_add(other.high);
        self.seen = match (self.seen, other.seen) {
            (Some(a), Some(b)) => Some(a.union(b)),
            (a, b) => a.or(b),
        };
    }

    fn mean(&self) -> Option<Range> {
        let n = self.samples as f64 * 2f64.powi(FRACTION);
        let mean = |sum: i128| (sum as f64 / n) as f32;
        (self.samples > 0).then(|| Range { min: mean(self.low), max: mean(self.high) })
    }
}

impl Observer for Average {
    fn observe(&mut self, _: &[f32], range: Range) {
        self.add(range);
    }

    fn merge(&mut self, other: &dyn Observer) {
        if let Some(other) = other.as_any().downcast_ref::<Average>() {
            self.join(other);
        }
    }

    fn range(&self) -> Option<Range> {
        self.mean()
    }

    fn seen(&self) -> Option<Range> {
        self.seen
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// Bins on each side of 0.
const SIDE: usize = 2048;

/// Elements whose bins are found together, which takes vectors, before they are counted.
const BLOCK: usize = 512;

/// Counts kept side by side while one tensor is read.
const LANES: usize = 4;

/// A histogram whose bin width is the least power of two that covers what was seen. It doubles by
/// joining neighbours, so the result depends on the data alone, not on their order.
#[derive(Clone, Debug)]
pub struct Histogram {
    method: CalibrationMethod,
    exponent: i32,
    bins: Vec<u64>,
    /// How many were exactly 0: their code has no error.
    zeros: u64,
    seen: Option<Range>,
    average: Average,
}

/// The exponent of the least bin width; values below it in magnitude all fall next to 0.
const LEAST_EXPONENT: i32 = -60;

impl Histogram {
    /// An empty histogram whose range is chosen by `method`.
    pub fn new(method: CalibrationMethod) -> Self {
        Histogram {
            method,
            exponent: LEAST_EXPONENT,
            bins: vec![0; 2 * SIDE],
            zeros: 0,
            seen: None,
            average: Average::default(),
        }
    }

    /// The range by whatever method; that of least squared error for those that measure models.
    pub fn range_by(&self, method: CalibrationMethod) -> Option<Range> {
        let seen = self.seen?;
        Some(match method {
            CalibrationMethod::MinMax => seen,
            CalibrationMethod::Average => self.average.mean()?,
            CalibrationMethod::Percentile(percent) => self.percentile(percent, seen),
            CalibrationMethod::Entropy => {
                let full = Range { min: seen.min.min(0.0), max: seen.max.max(0.0) };
                let mut counts = self.bins.clone();
                counts[SIDE] -= self.zeros;
                crate::entropy::range(&counts, self.edge(0), self.width(), full)
            }
            _ => self.mse(seen),
        })
    }

    /// Doubles the width of the bins until `largest` falls into one.
    fn cover(&mut self, largest: f32) {
        let limit = |exponent: i32| (SIDE as f64) * 2f64.powi(exponent);
        while f64::from(largest) >= limit(self.exponent) {
            self.widen();
        }
    }

    fn widen(&mut self) {
        let old = std::mem::replace(&mut self.bins, vec![0; 2 * SIDE]);
        for (i, count) in old.into_iter().enumerate() {
            let position = i as i64 - SIDE as i64;
            self.bins[(position.div_euclid(2) + SIDE as i64) as usize] += count;
        }
        self.exponent += 1;
    }

    fn width(&self) -> f64 {
        2f64.powi(self.exponent)
    }

    fn total(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// The lower edge of a bin.
    fn edge(&self, bin: usize) -> f64 {
        (bin as f64 - SIDE as f64) * self.width()
    }

    fn percentile(&self, percent: f32, seen: Range) -> Range {
        let cut = ((1.0 - f64::from(percent) / 100.0) / 2.0 * self.total() as f64) as u64;
        let end = |bins: &mut dyn Iterator<Item = (usize, &u64)>| {
            let mut left = cut;
            for (bin, &count) in bins {
                if count > left {
                    return bin;
                }
                left -= count;
            }
            SIDE
        };
        let low = end(&mut self.bins.iter().enumerate());
        let high = end(&mut self.bins.iter().enumerate().rev());
        Range {
            min: (self.edge(low) as f32).max(seen.min),
            max: (self.edge(high + 1) as f32).min(seen.max),
        }
    }

    /// Searches ends at fractions of the seen range for the least squared error of codes.
    fn mse(&self, seen: Range) -> Range {
        let full = Range { min: seen.min.min(0.0), max: seen.max.max(0.0) };
        let occupied: Vec<(f64, f64)> = (self.bins.iter().enumerate())
            .filter(|(_, count)| **count > 0)
            .map(|(bin, &count)| (bin, if bin == SIDE { count - self.zeros } else { count }))
            .map(|(bin, count)| (self.edge(bin) + self.width() / 2.0, count as f64))
            .collect();
        let error = |range: Range| {
            let quant = range.to_u8();
            let (scale, zero_point) = (f64::from(quant.scale[0]), f64::from(quant.zero_point[0]));
            let (low, high) = (-zero_point * scale, (255.0 - zero_point) * scale);
            let rounding = scale * scale / 12.0;
            let of = |&(x, count): &(f64, f64)| {
                let clipped = if x < low {
                    low - x
                } else if x > high {
                    x - high
                } else {
                    0.0
                };
                count * if clipped > 0.0 { clipped * clipped } else { rounding }
            };
            occupied.iter().map(of).sum::<f64>()
        };
        let mut best = (error(full), full);
        // One end at a time, twice: the ends hardly depend on each other. Coarse steps, then fine
        // ones around the best.
        for end in [0, 1, 0, 1] {
            let from = best.1;
            let mut search = |percents: &mut dyn Iterator<Item = i32>| {
                let mut at = 100;
                for percent in percents.filter(|p| (1..=100).contains(p)) {
                    let part = percent as f32 / 100.0;
                    let range = match end {
                        0 => Range { min: full.min * part, ..from },
                        _ => Range { max: full.max * part, ..from },
                    };
                    let e = error(range);
                    if e < best.0 {
                        (best, at) = ((e, range), percent);
                    }
                }
                at
            };
            let at = search(&mut (1..20).map(|i| 100 - 5 * i));
            search(&mut (at - 4..at + 5));
        }
        best.1
    }
}

impl Observer for Histogram {
    fn observe(&mut self, data: &[f32], range: Range) {
        self.seen = Some(self.seen.map_or(range, |r| r.union(range)));
        self.average.add(range);
        self.cover(range.max.abs().max(range.min.abs()));
        // Exact: a power of two, and all within the bins. Adding 1.5 * 2^23 leaves the nearest whole
        // number in the last bits; that, or one less where it is above, is the floor.
        let inverse = 2f32.powi(-self.exponent);
        let bin = |x: f32| {
            const WHOLE: f32 = 12_582_912.0;
            let x = x * inverse;
            let nearest = x + WHOLE;
            let whole = nearest.to_bits() as i32 - WHOLE.to_bits() as i32;
            whole - i32::from(nearest - WHOLE > x) + SIDE as i32
        };
        // Equal neighbours (zeros, mostly) would wait for one another on a single count.
        let mut counts = vec![[0u32; LANES]; 2 * SIDE];
        let mut bins = [0i32; BLOCK];
        for block in data.chunks(BLOCK) {
            let bins = &mut bins[..block.len()];
            bins.iter_mut().zip(block).for_each(|(b, &x)| *b = bin(x));
            self.zeros += block.iter().map(|&x| u32::from(x == 0.0)).sum::<u32>() as u64;
            let (groups, rest) = bins.as_chunks::<LANES>();
            for group in groups {
                for (lane, &bin) in group.iter().enumerate() {
                    counts[(bin as usize).min(2 * SIDE - 1)][lane] += 1;
                }
            }
            rest.iter().for_each(|&bin| counts[(bin as usize).min(2 * SIDE - 1)][0] += 1);
        }
        for (bin, counts) in self.bins.iter_mut().zip(&counts) {
            *bin += counts.iter().map(|&c| u64::from(c)).sum::<u64>();
        }
    }

    fn merge(&mut self, other: &dyn Observer) {
        let Some(other) = other.as_any().downcast_ref::<Histogram>() else { return };
        let mut other = other.clone();
        while other.exponent < self.exponent {
            other.widen();
        }
        while self.exponent < other.exponent {
            self.widen();
        }
        for (bin, count) in self.bins.iter_mut().zip(&other.bins) {
            *bin += count;
        }
        self.zeros += other.zeros;
        self.average.join(&other.average);
        self.seen = match (self.seen, other.seen) {
            (Some(a), Some(b)) => Some(a.union(b)),
            (a, b) => a.or(b),
        };
    }

    fn range(&self) -> Option<Range> {
        self.range_by(self.method)
    }

    fn seen(&self) -> Option<Range> {
        self.seen
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A histogram as it is written to a file: bins that hold something, from `first` on.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SavedHistogram {
    exponent: i32,
    first: usize,
    bins: Vec<u64>,
    zeros: u64,
    seen: [f32; 2],
    samples: u64,
    /// [`Average`]'s sums; as text, because they have more digits than numbers in JSON.
    low: String,
    high: String,
}

impl Histogram {
    /// For a file; `None` where nothing was seen.
    pub fn save(&self) -> Option<SavedHistogram> {
        let seen = self.seen?;
        let first = self.bins.iter().position(|&b| b > 0)?;
        let end = self.bins.iter().rposition(|&b| b > 0)? + 1;
        Some(SavedHistogram {
            exponent: self.exponent,
            first,
            bins: self.bins[first..end].to_vec(),
            zeros: self.zeros,
            seen: [seen.min, seen.max],
            samples: self.average.samples,
            low: self.average.low.to_string(),
            high: self.average.high.to_string(),
        })
    }

    /// From a file; `None` where that was not written by [`Histogram::save`].
    pub fn load(saved: &SavedHistogram, method: CalibrationMethod) -> Option<Histogram> {
        let mut histogram = Histogram::new(method);
        let end = saved.first.checked_add(saved.bins.len())?;
        histogram.bins.get_mut(saved.first..end)?.copy_from_slice(&saved.bins);
        let total = saved.bins.iter().try_fold(0u64, |sum, &b| sum.checked_add(b))?;
        let [min, max] = saved.seen;
        let good = (LEAST_EXPONENT..=127).contains(&saved.exponent)
            && total < 1 << 62
            && saved.zeros <= histogram.bins[SIDE]
            && min <= max
            && min.is_finite()
            && max.is_finite();
        histogram.exponent = saved.exponent;
        histogram.zeros = saved.zeros;
        histogram.seen = Some(Range { min, max });
        let (low, high) = (saved.low.parse().ok()?, saved.high.parse().ok()?);
        histogram.average = Average { samples: saved.samples, low, high, seen: histogram.seen };
        good.then_some(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(method: CalibrationMethod, parts: &[&[f32]]) -> Box<dyn Observer> {
        let mut observer = method.observer();
        for part in parts {
            let daq_kernels::RangeF32 { min, max, .. } =
                daq_kernels::range_f32(part, daq_kernels::Isa::best());
            observer.observe(part, Range { min, max });
        }
        observer
    }

    #[test]
    fn min_max_is_the_union() {
        let range = seen(CalibrationMethod::MinMax, &[&[-5.0, 3.0], &[35.0], &[1.0]]).range();
        assert_eq!(range, Some(Range { min: -5.0, max: 35.0 }));
        assert_eq!(seen(CalibrationMethod::MinMax, &[]).range(), None);
    }

    #[test]
    fn average_is_the_mean_over_samples() {
        let parts: [&[f32]; 3] = [&[-1.0, 2.0], &[0.5, 1.0], &[-2.5, 6.0]];
        for method in [CalibrationMethod::Average, CalibrationMethod::Mse] {
            let observer = seen(method, &parts);
            let range = match observer.as_any().downcast_ref::<Histogram>() {
                Some(histogram) => histogram.range_by(CalibrationMethod::Average),
                None => observer.range(),
            };
            assert_eq!(range, Some(Range { min: -1.0, max: 3.0 }));
        }
    }

    #[test]
    fn percentile_cuts_both_ends() {
        // 10,000 values 0..9999: 99.8 % cuts ten at each end, to the edges of bins 8 wide.
        let data: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
        let range = seen(CalibrationMethod::Percentile(99.8), &[&data]).range();
        assert_eq!(range, Some(Range { min: 8.0, max: 9992.0 }));
        let all = seen(CalibrationMethod::Percentile(100.0), &[&data]).range();
        assert_eq!(all, Some(Range { min: 0.0, max: 9999.0 }));
    }

    #[test]
    fn mse_clips_a_rare_outlier_and_keeps_a_plain_range() {
        let mut data: Vec<f32> = (0..100_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        let plain = seen(CalibrationMethod::Mse, &[&data]).range().map(|r| r.max);
        assert!(plain.is_some_and(|max| max > 0.97), "{plain:?}");
        data.push(10.0);
        let clipped = seen(CalibrationMethod::Mse, &[&data]).range().map(|r| r.max);
        assert!(clipped.is_some_and(|max| (0.9..10.0).contains(&max)), "{clipped:?}");
    }

    #[test]
    fn merging_equals_seeing_all_in_any_order() {
        let parts: Vec<Vec<f32>> = (1..5)
            .map(|p| (0..500).map(|i| ((i * 37 % 101) as f32 - 50.0) * 10f32.powi(p - 3)).collect())
            .collect();
        for method in [
            CalibrationMethod::MinMax,
            CalibrationMethod::Average,
            CalibrationMethod::Percentile(99.0),
            CalibrationMethod::Entropy,
            CalibrationMethod::Mse,
        ] {
            let refs: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
            let whole = seen(method, &refs);
            let mut merged = seen(method, &[refs[3]]);
            for part in [1, 0, 2] {
                merged.merge(&*seen(method, &[refs[part]]));
            }
            assert_eq!(merged.range(), whole.range(), "{method}");
            let bins =
                |o: &dyn Observer| o.as_any().downcast_ref::<Histogram>().map(|h| h.bins.clone());
            assert_eq!(bins(&*merged), bins(&*whole));
        }
    }

    #[test]
    fn methods_are_read_as_written() {
        for text in ["minmax", "average", "entropy", "mse", "best", "auto", "percentile:99.9"] {
            assert_eq!(text.parse::<CalibrationMethod>().map(|m| m.to_string()), Ok(text.into()));
        }
        for text in ["", "percentile:", "percentile:101", "kl"] {
            assert!(text.parse::<CalibrationMethod>().is_err(), "{text}");
        }
    }
}
