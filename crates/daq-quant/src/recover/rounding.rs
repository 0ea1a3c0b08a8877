//! Rounding of weights that makes up for its own errors.
//!
//! Rounding each weight to the nearest code is best for each weight, not for their sum over what the
//! layer reads. With `H` the covariance of its inputs, the error of an output channel with weight
//! errors `e` is `e H eᵀ`. Weights are rounded one after the other, each to the nearest code of what
//! is wanted of it once the errors made before are taken into account. In the form of Chee et al.,
//! "QuIP: 2-Bit Quantization of Large Language Models With Guarantees", 2023 (arXiv 2307.13304), which
//! shows it to be the same as Frantar et al., "GPTQ", 2022 (arXiv 2210.17323): with `H = L D Lᵀ` the error
//! is `sum_k d_k (e_k + sum_{j>k} L_jk e_j)²`, so that from the last weight to the first each term is
//! made least.

use super::factor::Factor;

/// Output channels that are rounded together, so that their errors stay in the cache.
const ROWS: usize = 64;

/// Rounds `rows` output channels of `factor.size()` weights each (row by row, in steps of their
/// scale, zero point 0) to codes within `low..=high`.
pub fn round(weights: &[f32], factor: &Factor, (low, high): (f32, f32)) -> Vec<f32> {
    let inputs = factor.size();
    let mut codes = vec![0f32; weights.len()];
    for (weights, codes) in weights.chunks(ROWS * inputs).zip(codes.chunks_mut(ROWS * inputs)) {
        let rows = weights.len() / inputs;
        // Input by input.
        let mut errors = vec![0f32; inputs * rows];
        let mut wanted = vec![0f32; rows];
        for k in (0..inputs).rev() {
            for (row, wanted) in wanted.iter_mut().enumerate() {
                *wanted = weights[row * inputs + k];
            }
            for (&l, errors) in
                factor.column(k).iter().zip(errors[(k + 1) * rows..].chunks_exact(rows))
            {
                wanted.iter_mut().zip(errors).for_each(|(w, e)| *w += l * e);
            }
            for (row, &wanted) in wanted.iter().enumerate() {
                let code = nearest(wanted.clamp(low, high));
                codes[row * inputs + k] = code;
                errors[k * rows + row] = weights[row * inputs + k] - code;
            }
        }
    }
    codes
}

/// The nearest whole number, ties to even, of what is below 2^22 in magnitude: a function of the C library on
/// a CPU that is not known to have an instruction for it.
fn nearest(x: f32) -> f32 {
    const WHOLE: f32 = 12_582_912.0;
    (x + WHOLE) - WHOLE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `e H eᵀ`, summed over the rows.
    fn error(weights: &[f32], codes: &[f32], n: usize, h: &dyn Fn(usize, usize) -> f64) -> f64 {
        let of = |w: &[f32], q: &[f32]| {
            let e: Vec<f64> = w.iter().zip(q).map(|(w, q)| f64::from(w - q)).collect();
            (0..n * n).map(|i| e[i / n] * h(i / n, i % n) * e[i % n]).sum::<f64>()
        };
        weights.chunks(n).zip(codes.chunks(n)).map(|(w, q)| of(w, q)).sum()
    }

    #[test]
    fn ties_go_to_even_numbers() {
        for (x, wanted) in [(0.5, 0.0), (1.5, 2.0), (-2.5, -2.0), (126.6, 127.0), (-0.4, 0.0)] {
            assert_eq!(nearest(x), wanted, "{x}");
        }
    }

    #[test]
    fn independent_inputs_round_to_the_nearest() {
        let h = |i: usize, j: usize| if i == j { 1.0 + i as f64 } else { 0.0 };
        let factor = Factor::of(4, 1000, &h);
        let weights = [0.4, -1.6, 2.5, 130.0, 3.5, -200.0, 0.0, 1.2];
        let codes = [0.0, -2.0, 2.0, 127.0, 4.0, -127.0, 0.0, 1.0];
        assert_eq!(round(&weights, &factor, (-127.0, 127.0)), codes);
    }

    #[test]
    fn equal_inputs_share_the_error() {
        // Three inputs that are always the same: only the sum of the weights counts.
        let factor = Factor::of(3, usize::MAX >> 8, &|_, _| 1.0);
        let codes = round(&[0.4, 0.4, 0.4], &factor, (-127.0, 127.0));
        assert_eq!(codes.iter().sum::<f32>(), 1.0);
    }

    #[test]
    fn correlated_inputs_lose_less_than_by_rounding_to_the_nearest() {
        let n = 40;
        let h = |i: usize, j: usize| 0.9f64.powi((i as i32 - j as i32).abs());
        let factor = Factor::of(n, usize::MAX >> 8, &h);
        let weights: Vec<f32> =
            (0..n * 70).map(|i| ((i * 7919 % 1013) as f32 - 506.0) / 9.7).collect();
        let codes = round(&weights, &factor, (-127.0, 127.0));
        let nearest: Vec<f32> = weights.iter().map(|w| w.round_ties_even()).collect();
        let (ours, theirs) = (error(&weights, &codes, n, &h), error(&weights, &nearest, n, &h));
        assert!(ours < 0.5 * theirs, "{ours} {theirs}");
    }
}
