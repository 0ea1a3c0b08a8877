//! How codes stand for real numbers.

use crate::layout::Layout;

/// Scale and zero point of a tensor, one for all or one per slice along an axis:
/// `real = (code - zero_point) * scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantParams {
    /// Positive, finite; one element, or as many as the axis is long.
    pub scale: Vec<f32>,
    /// As many as scales, each within the range of the code type (0 for `i32`).
    pub zero_point: Vec<i32>,
    /// The axis of per-channel scales; 0 and without meaning where there is one scale.
    pub axis: usize,
}

impl QuantParams {
    /// One scale and zero point for the whole tensor.
    pub fn per_tensor(scale: f32, zero_point: i32) -> Self {
        QuantParams { scale: vec![scale], zero_point: vec![zero_point], axis: 0 }
    }

    /// Symmetric (zero point 0), one scale for each slice along `axis`.
    pub fn per_channel(scale: Vec<f32>, axis: usize) -> Self {
        QuantParams { zero_point: vec![0; scale.len()], scale, axis }
    }

    /// Whether one scale serves the whole tensor.
    pub fn is_per_tensor(&self) -> bool {
        self.scale.len() == 1
    }

    /// The same with the axis on which it lies in memory, for a tensor of `rank`.
    pub(crate) fn in_memory(&self, channels_last: bool, rank: usize) -> Self {
        let layout = if channels_last { Layout::ChannelsLast } else { Layout::Plain };
        QuantParams { axis: layout.physical_axis(self.axis, rank), ..self.clone() }
    }

    /// The scale of slice `i` along the axis.
    pub fn scale_of(&self, i: usize) -> f32 {
        if self.is_per_tensor() { self.scale[0] } else { self.scale[i] }
    }

    /// The zero point of slice `i` along the axis.
    pub fn zero_point_of(&self, i: usize) -> i32 {
        if self.zero_point.len() == 1 { self.zero_point[0] } else { self.zero_point[i] }
    }

    /// The code of a real number: `saturate(round_ties_even(x / scale) + zero_point)` within
    /// `lowest..=highest`, with per-tensor parameters. NaN gives 0, like a float to integer cast.
    pub fn code(&self, x: f32, lowest: i32, highest: i32) -> i32 {
        if x.is_nan() {
            return 0.clamp(lowest, highest);
        }
        let zero_point = self.zero_point[0];
        let (low, high) = ((lowest - zero_point) as f32, (highest - zero_point) as f32);
        (x / self.scale[0]).clamp(low, high).round_ties_even() as i32 + zero_point
    }

    /// The real number of a code, with per-tensor parameters.
    pub fn real(&self, code: i32) -> f32 {
        (code - self.zero_point[0]) as f32 * self.scale[0]
    }
}

/// The multiplier from an accumulator of scale `x * w[c]` to codes of scale `y`, for each output
/// channel: `x * w[c] / y` in f32, from left to right; `x * w[c]` to floats.
pub fn requantize_multipliers(
    x: &QuantParams,
    w: &QuantParams,
    y: Option<&QuantParams>,
    channels: usize,
) -> Vec<f32> {
    let y_scale = y.map_or(1.0, |y| y.scale[0]);
    (0..channels).map(|c| x.scale[0] * w.scale_of(c) / y_scale).collect()
}
