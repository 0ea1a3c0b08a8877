//! Observers: what calibration keeps of a tensor's values. Memory does not grow with the data.

use crate::range::Range;

/// Collects statistics of one tensor over many runs. Observers of parts of the data merge into
/// exactly what one observer would have seen, in any order.
pub trait Observer: Send {
    /// Takes the elements of one run. They are finite.
    fn observe(&mut self, data: &[f32]);

    /// Takes over what another observer of the same kind saw.
    fn merge(&mut self, other: &dyn Observer);

    /// The range to quantize; `None` where nothing was seen.
    fn range(&self) -> Option<Range>;

    /// For [`merge`](Observer::merge).
    fn as_any(&self) -> &dyn std::any::Any;
}

/// How ranges are chosen from what calibration sees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CalibrationMethod {
    /// The lowest and the highest value.
    MinMax,
    /// The range that holds this percentage of the values (50..=100), cut equally at both ends.
    Percentile(f32),
    /// The range with the least mean squared quantization error.
    #[default]
    Mse,
}

impl CalibrationMethod {
    /// A new observer for this method.
    pub fn observer(self) -> Box<dyn Observer> {
        match self {
            CalibrationMethod::MinMax => Box::new(MinMax::default()),
            CalibrationMethod::Percentile(_) | CalibrationMethod::Mse => {
                Box::new(Histogram::new(self))
            }
        }
    }
}

impl std::fmt::Display for CalibrationMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CalibrationMethod::MinMax => f.write_str("minmax"),
            CalibrationMethod::Percentile(p) => write!(f, "percentile:{p}"),
            CalibrationMethod::Mse => f.write_str("mse"),
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
            "mse" => Ok(CalibrationMethod::Mse),
            "percentile" => Ok(CalibrationMethod::Percentile(99.99)),
            other => match other.strip_prefix("percentile:") {
                Some(p) => percentile(p),
                None => {
                    Err(format!("`{s}` is unknown; use minmax, mse, percentile or percentile:99.9"))
                }
            },
        }
    }
}

/// The lowest and the highest value.
#[derive(Clone, Debug, Default)]
pub struct MinMax(Option<Range>);

impl Observer for MinMax {
    fn observe(&mut self, data: &[f32]) {
        if let Some(range) = min_max(data) {
            self.0 = Some(self.0.map_or(range, |r| r.union(range)));
        }
    }

    fn merge(&mut self, other: &dyn Observer) {
        if let Some(range) = other.range() {
            self.0 = Some(self.0.map_or(range, |r| r.union(range)));
        }
    }

    fn range(&self) -> Option<Range> {
        self.0
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// The range of the elements; eight lanes, so that the loop vectorises.
fn min_max(data: &[f32]) -> Option<Range> {
    let first = *data.first()?;
    let (mut low, mut high) = ([first; 8], [first; 8]);
    let chunks = data.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for i in 0..8 {
            low[i] = if chunk[i] < low[i] { chunk[i] } else { low[i] };
            high[i] = if chunk[i] > high[i] { chunk[i] } else { high[i] };
        }
    }
    let min = low.iter().chain(rest).copied().fold(first, f32::min);
    let max = high.iter().chain(rest).copied().fold(first, f32::max);
    Some(Range { min, max })
}

/// Bins on each side of 0.
const SIDE: usize = 2048;

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
        }
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
    fn observe(&mut self, data: &[f32]) {
        let Some(range) = min_max(data) else { return };
        self.seen = Some(self.seen.map_or(range, |r| r.union(range)));
        self.cover(range.max.abs().max(range.min.abs()));
        // Exact: a power of two. Truncation towards zero after the shift by SIDE is the floor.
        let inverse = 2f32.powi(-self.exponent);
        let bin = |x: f32| ((f64::from(x * inverse) + SIDE as f64) as usize).min(2 * SIDE - 1);
        // Equal neighbours (zeros, mostly) would wait for one another on a single count.
        let mut counts = vec![[0u32; LANES]; 2 * SIDE];
        for chunk in data.chunks(LANES) {
            for (lane, &x) in chunk.iter().enumerate() {
                counts[bin(x)][lane] += 1;
            }
        }
        for (bin, counts) in self.bins.iter_mut().zip(&counts) {
            *bin += counts.iter().map(|&c| u64::from(c)).sum::<u64>();
        }
        self.zeros += data.iter().filter(|&&x| x == 0.0).count() as u64;
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
        self.seen = match (self.seen, other.seen) {
            (Some(a), Some(b)) => Some(a.union(b)),
            (a, b) => a.or(b),
        };
    }

    fn range(&self) -> Option<Range> {
        let seen = self.seen?;
        Some(match self.method {
            CalibrationMethod::MinMax => seen,
            CalibrationMethod::Percentile(percent) => self.percentile(percent, seen),
            CalibrationMethod::Mse => self.mse(seen),
        })
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(method: CalibrationMethod, parts: &[&[f32]]) -> Box<dyn Observer> {
        let mut observer = method.observer();
        parts.iter().for_each(|p| observer.observe(p));
        observer
    }

    #[test]
    fn min_max_sees_every_element() {
        let mut data: Vec<f32> = (0..37).map(|i| i as f32).collect();
        data[36] = -5.0;
        let range = seen(CalibrationMethod::MinMax, &[&data]).range();
        assert_eq!(range, Some(Range { min: -5.0, max: 35.0 }));
        assert_eq!(seen(CalibrationMethod::MinMax, &[]).range(), None);
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
        for method in
            [CalibrationMethod::MinMax, CalibrationMethod::Percentile(99.0), CalibrationMethod::Mse]
        {
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
        for text in ["minmax", "mse", "percentile:99.9"] {
            assert_eq!(text.parse::<CalibrationMethod>().map(|m| m.to_string()), Ok(text.into()));
        }
        for text in ["", "percentile:", "percentile:101", "kl"] {
            assert!(text.parse::<CalibrationMethod>().is_err(), "{text}");
        }
    }
}
