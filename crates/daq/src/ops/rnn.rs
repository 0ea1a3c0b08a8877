//! RNN: `h = f(x W^T + h R^T + b)` along sequences. Opsets 7, 14 (layout), 22.

use super::recurrent::{Activation, Cell, Weights, recurrent};
use super::*;

recurrent! {
    /// ONNX RNN. Gives all outputs and the last ones.
    Rnn,
    "RNN",
    6
}

impl Cell for Rnn {
    const GATES: usize = 1;
    const DEFAULT: &'static [Activation] = &[Activation::Tanh];
    const TWO_STATES: bool = false;

    fn step(&self, weights: &Weights, gates: &[f32], h: &mut [f32], _: &mut [f32]) {
        let before = h.to_vec();
        for (j, h) in h.iter_mut().enumerate() {
            let x = gates[j] + weights.product(0, j, &before) + weights.bias[j];
            *h = weights.activate(0, x);
        }
    }
}
