//! GRU: gated recurrent units along sequences (Cho and others, 2014). Opsets 7, 14 (layout), 22.
//!
//! The gates are z, r and h: `h' = (1 - z) g(x Wh^T + (r h) Rh^T + b) + z h`.

use super::recurrent::{Activation, Cell, Weights, recurrent};
use super::*;

recurrent! {
    /// ONNX GRU. Gives all outputs and the last ones.
    Gru,
    "GRU",
    6,
    /// Whether `r` multiplies `h Rh^T + Rbh`, else `h`.
    linear_before_reset
}

impl Cell for Gru {
    const GATES: usize = 3;
    const DEFAULT: &'static [Activation] = &[Activation::Sigmoid, Activation::Tanh];
    const TWO_STATES: bool = false;

    fn step(&self, weights: &Weights, gates: &[f32], h: &mut [f32], _: &mut [f32]) {
        let n = h.len();
        let gate = |g: usize, j: usize, h: &[f32]| {
            weights.activate(0, gates[g * n + j] + weights.product(g, j, h) + weights.bias[g * n + j])
        };
        let r: Vec<f32> = (0..n).map(|j| gate(1, j, h)).collect();
        let reset: Vec<f32> = h.iter().zip(&r).map(|(h, r)| h * r).collect();
        let new = |j: usize| {
            let bias = weights.bias[2 * n + j];
            let own = match self.linear_before_reset {
                true => r[j] * (weights.product(2, j, h) + bias),
                false => weights.product(2, j, &reset) + bias,
            };
            let z = gate(0, j, h);
            (1.0 - z) * weights.activate(1, gates[2 * n + j] + own) + z * h[j]
        };
        let next: Vec<f32> = (0..n).map(new).collect();
        h.copy_from_slice(&next);
    }
}
