//! LSTM: long short-term memory along sequences (Hochreiter and Schmidhuber, 1997), with peepholes
//! (Gers and Schmidhuber, 2000). Opsets 7, 14 (layout), 22.
//!
//! The gates are i, o, f and c: `c' = f c + i g(..)`, `h' = o h(c')`.

use super::recurrent::{Activation, Cell, Weights, recurrent};
use super::*;

recurrent! {
    /// ONNX LSTM. Gives all outputs, the last ones, and the last state.
    Lstm,
    "LSTM",
    8,
    /// Whether the forget gate is 1 less the input gate.
    input_forget
}

impl Cell for Lstm {
    const GATES: usize = 4;
    const DEFAULT: &'static [Activation] =
        &[Activation::Sigmoid, Activation::Tanh, Activation::Tanh];
    const TWO_STATES: bool = true;

    fn step(&self, weights: &Weights, gates: &[f32], h: &mut [f32], c: &mut [f32]) {
        let n = h.len();
        let before = h.to_vec();
        let input = |g: usize, j: usize| {
            gates[g * n + j] + weights.product(g, j, &before) + weights.bias[g * n + j]
        };
        let peep = |p: usize, j: usize, c: f32| weights.peepholes.map_or(0.0, |w| w[p * n + j] * c);
        for j in 0..n {
            let i = weights.activate(0, input(0, j) + peep(0, j, c[j]));
            let f = match self.input_forget {
                true => 1.0 - i,
                false => weights.activate(0, input(2, j) + peep(2, j, c[j])),
            };
            c[j] = f * c[j] + i * weights.activate(1, input(3, j));
            let o = weights.activate(0, input(1, j) + peep(1, j, c[j]));
            h[j] = o * weights.of_state(2, c[j]);
        }
    }
}
