//! Weight scales of least error: the largest weight of a channel may be clipped where that lets all
//! others be finer.
//!
//! For each output channel the scale with the least sum of `v (w - ŵ)²`, with `v` the variance of each
//! weight's input. See Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient
//! Inference", 2019 (arXiv 1902.06822).

/// Scales tried, in parts of the one at which nothing is clipped.
const PARTS: [f32; 11] = [1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7];

/// The best scale for the weights of one output channel, from `scale` (of codes -127..=127) downwards.
pub fn best(weights: &[f32], variance: &[f64], scale: f32) -> f32 {
    let error = |scale: f32| {
        let of = |(&w, v): (&f32, &f64)| {
            let code = (w / scale).round_ties_even().clamp(-127.0, 127.0);
            v * f64::from(w - code * scale).powi(2)
        };
        weights.iter().zip(variance).map(of).sum::<f64>()
    };
    let candidates = PARTS.map(|part| (error(scale * part), scale * part));
    candidates.into_iter().fold((f64::INFINITY, scale), |a, b| if b.0 < a.0 { b } else { a }).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_without_weight_is_clipped() {
        let mut weights = vec![0.4f32; 50];
        weights[0] = 127.0;
        // At scale 1 each 0.4 loses 0.4; nothing finer than 0.7 is tried, where they round to 0.7.
        let mut variance = vec![1.0; 50];
        variance[0] = 0.0;
        assert_eq!(best(&weights, &variance, 1.0), 0.7);
        variance[0] = 1e6;
        assert_eq!(best(&weights, &variance, 1.0), 1.0);
    }
}
