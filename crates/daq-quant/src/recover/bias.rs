//! Bias correction: rounded weights shift the mean of what they compute; the bias takes that back.
//!
//! An output channel whose weights are off by `e` is off by `e · E[x]` on average, with `E[x]` the mean
//! of its inputs on the calibration samples. See Nagel et al., "Data-Free Quantization Through Weight
//! Equalization and Bias Correction", 2019 (arXiv 1906.04721), section 4.2.

/// The bias that makes up for `errors` (real weights less quantized ones, output channel by output
/// channel), given the mean of each input, group by group.
pub fn corrected(bias: &[f32], errors: &[f32], mean: &[f64]) -> Vec<f32> {
    let inputs = errors.len() / bias.len().max(1);
    let groups = mean.len() / inputs.max(1);
    let rows = (bias.len() / groups.max(1)).max(1);
    let corrected = |(row, &b): (usize, &f32)| {
        let mean = &mean[row / rows * inputs..][..inputs];
        let errors = &errors[row * inputs..][..inputs];
        let shift: f64 = errors.iter().zip(mean).map(|(&e, m)| f64::from(e) * m).sum();
        (f64::from(b) + shift) as f32
    };
    bias.iter().enumerate().map(corrected).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_stays() {
        // Two groups of one output channel over two inputs.
        let bias = corrected(&[1.0, -1.0], &[0.5, 0.25, -0.5, 0.0], &[2.0, 4.0, 8.0, 1.0]);
        assert_eq!(bias, [1.0 + 1.0 + 1.0, -1.0 - 4.0]);
        // Two output channels over the same two inputs.
        let bias = corrected(&[0.0, 0.0], &[0.5, 0.25, -0.5, 0.0], &[2.0, 4.0]);
        assert_eq!(bias, [2.0, -1.0]);
    }
}
