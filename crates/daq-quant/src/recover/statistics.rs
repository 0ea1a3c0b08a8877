//! What each channel of each value does on the calibration samples: range, mean and power.
//!
//! Sums are kept in fixed point, so that statistics of parts add up to exactly those of the whole,
//! in any order.

use std::collections::BTreeMap;

use daq::{DType, Graph, Model, TensorView};
use daq_kernels::{ChannelsF32, Isa, channels_f32};

use crate::calibrate::{CalibrateError, Samples, Watched, all_finite, watch};

/// Binary digits after the point of [`ChannelStatistics`] sums.
const FRACTION: i32 = 60;

/// Pixels summed in `f32` before they are added to a sum in `f64`.
const BLOCK: usize = 32;

/// Range, sum and sum of squares of each channel of one value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelStatistics {
    /// Elements of a channel that were seen.
    pub count: u64,
    /// The lowest of each channel.
    pub min: Vec<f32>,
    /// The highest of each channel.
    pub max: Vec<f32>,
    sum: Vec<i128>,
    squares: Vec<i128>,
}

impl ChannelStatistics {
    /// Takes the elements of one run: `[outer][channels][inner]`. Whether their squares add up to a number:
    /// if they do, so is every element.
    pub fn observe(&mut self, data: &[f32], channels: usize, inner: usize) -> bool {
        if self.min.is_empty() {
            self.min = vec![f32::INFINITY; channels];
            self.max = vec![f32::NEG_INFINITY; channels];
            (self.sum, self.squares) = (vec![0; channels], vec![0; channels]);
        }
        let (mut sum, mut squares) = (vec![0f64; channels], vec![0f64; channels]);
        match inner {
            1 => self.pixels(data, channels, &mut sum, &mut squares),
            _ => {
                for (i, plane) in data.chunks_exact(inner).enumerate() {
                    let c = i % channels;
                    for block in plane.chunks(BLOCK) {
                        let (mut s, mut q) = (0f32, 0f32);
                        for &x in block {
                            self.min[c] = if x < self.min[c] { x } else { self.min[c] };
                            self.max[c] = if x > self.max[c] { x } else { self.max[c] };
                            s += x;
                            q += x * x;
                        }
                        sum[c] += f64::from(s);
                        squares[c] += f64::from(q);
                    }
                }
            }
        }
        self.count += (data.len() / channels) as u64;
        let fixed = |x: f64| (x * 2f64.powi(FRACTION)) as i128;
        for c in 0..channels {
            self.sum[c] = self.sum[c].saturating_add(fixed(sum[c]));
            self.squares[c] = self.squares[c].saturating_add(fixed(squares[c]));
        }
        squares.iter().all(|q| q.is_finite())
    }

    /// Channels side by side, as they lie in channels-last memory.
    fn pixels(&mut self, data: &[f32], channels: usize, sum: &mut [f64], squares: &mut [f64]) {
        let (mut s, mut q) = (vec![0f32; channels], vec![0f32; channels]);
        for block in data.chunks(BLOCK * channels) {
            s.fill(0.0);
            q.fill(0.0);
            let (min, max) = (&mut self.min, &mut self.max);
            let mut seen = ChannelsF32 { min, max, sum: &mut s, squares: &mut q };
            channels_f32(block, &mut seen, Isa::best());
            for (total, &s) in sum.iter_mut().zip(&s).chain(squares.iter_mut().zip(&q)) {
                *total += f64::from(s);
            }
        }
    }

    /// Takes over what was seen of another part of the samples.
    pub fn merge(&mut self, other: &ChannelStatistics) {
        if self.min.is_empty() {
            *self = other.clone();
            return;
        }
        self.count += other.count;
        for (c, (&min, &max)) in other.min.iter().zip(&other.max).enumerate() {
            self.min[c] = self.min[c].min(min);
            self.max[c] = self.max[c].max(max);
            self.sum[c] = self.sum[c].saturating_add(other.sum[c]);
            self.squares[c] = self.squares[c].saturating_add(other.squares[c]);
        }
    }

    /// The mean of a channel.
    pub fn mean(&self, channel: usize) -> f64 {
        self.sum[channel] as f64 / 2f64.powi(FRACTION) / self.count.max(1) as f64
    }

    /// The mean square of a channel.
    pub fn power(&self, channel: usize) -> f64 {
        self.squares[channel] as f64 / 2f64.powi(FRACTION) / self.count.max(1) as f64
    }
}

/// The statistics of a graph's values by name, of those with channels (axis 1).
pub type Statistics = BTreeMap<String, ChannelStatistics>;

/// Channels, and elements of a channel that follow one another in memory. `None` where there are no
/// channels, or where the shape does not tell the order in memory.
pub(super) fn channels(logical: &[usize], memory: &[usize]) -> Option<(usize, usize)> {
    let &channels = logical.get(1)?;
    let inner: usize = logical[2..].iter().product();
    let last = memory.last() == Some(&channels);
    match logical == memory {
        _ if channels == 0 => None,
        true if inner > 1 && last && logical[2..].iter().all(|&d| d == channels) => None,
        true => Some((channels, inner)),
        false if last => Some((channels, 1)),
        false => None,
    }
}

/// Runs a float graph on all samples and collects the statistics of the values that it computes.
pub fn statistics(
    graph: &Graph,
    samples: &dyn Samples,
    workers: usize,
    progress: &(dyn Fn() + Sync),
) -> Result<Statistics, CalibrateError> {
    let model = Model::from_graph(graph.clone())?;
    let state = || vec![ChannelStatistics::default(); graph.values.len()];
    let see = |seen: &mut Vec<ChannelStatistics>, index: usize, id: usize, view: TensorView| {
        let value = &graph.values[id];
        if value.dtype != DType::F32 || graph.inputs.contains(&id) {
            return Ok(());
        }
        let Some((channels, inner)) = channels(&value.shape, view.shape) else { return Ok(()) };
        let data = view.data::<f32>();
        if !seen[id].observe(data, channels, inner) && !all_finite(data) {
            let (value, sample) = (value.name.clone(), samples.name(index));
            return Err(CalibrateError::NotFinite { value, sample });
        }
        Ok(())
    };
    let Watched { states, .. } = watch(&model, samples, (workers, 1), state, see, progress)?;
    let mut all = Statistics::new();
    for (value, seen) in states.iter().flat_map(|seen| graph.values.iter().zip(seen)) {
        if seen.count > 0 {
            all.entry(value.name.clone()).or_default().merge(seen);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_in_memory_give_the_same() {
        // Two channels, 70 pixels: more than one block.
        let of = |c: usize, p: usize| (p as f32 - 30.0) * if c == 0 { 1.0 } else { -0.5 };
        let plain: Vec<f32> = (0..140).map(|i| of(i / 70, i % 70)).collect();
        let last: Vec<f32> = (0..140).map(|i| of(i % 2, i / 2)).collect();
        let (mut a, mut b) = (ChannelStatistics::default(), ChannelStatistics::default());
        a.observe(&plain, 2, 70);
        b.observe(&last, 2, 1);
        assert_eq!(a, b);
        assert_eq!((a.count, &a.min, &a.max), (70, &vec![-30.0, -19.5], &vec![39.0, 15.0]));
        // The mean of -30..=39 is 4.5, the mean square (sum of squares to 39 and to 30) / 70.
        assert_eq!((a.mean(0), a.mean(1)), (4.5, -2.25));
        assert_eq!(a.power(0), (20_540.0 + 9_455.0) / 70.0);
    }

    #[test]
    fn parts_add_up_to_the_whole_in_any_order() {
        let parts: Vec<Vec<f32>> = (0..4)
            .map(|p| (0..30).map(|i| ((i * 7 + p * 13) % 31) as f32 * 0.1 - 1.0).collect())
            .collect();
        let of = |part: &Vec<f32>| {
            let mut s = ChannelStatistics::default();
            s.observe(part, 3, 10);
            s
        };
        let mut whole = ChannelStatistics::default();
        for part in &parts {
            whole.observe(part, 3, 10);
        }
        let mut merged = ChannelStatistics::default();
        [2, 0, 3, 1].iter().for_each(|&i| merged.merge(&of(&parts[i])));
        assert_eq!(merged, whole);
    }

    #[test]
    fn the_order_in_memory_is_told_by_the_shape_where_it_can_be() {
        assert_eq!(channels(&[1, 8, 4, 4], &[1, 4, 4, 8]), Some((8, 1)));
        assert_eq!(channels(&[1, 8, 4, 4], &[1, 8, 4, 4]), Some((8, 16)));
        assert_eq!(channels(&[1, 10], &[1, 10]), Some((10, 1)));
        assert_eq!(channels(&[1, 4, 4, 4], &[1, 4, 4, 4]), None);
        assert_eq!(channels(&[4], &[4]), None);
    }
}
