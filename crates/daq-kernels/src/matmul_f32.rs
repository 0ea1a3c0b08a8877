//! The product of two float matrices that are both activations.
//!
//! The arithmetic is that of [`ConvF32`](crate::ConvF32) without a bias: an element starts as
//! `0.0` and takes `fma(a, b, acc)` for each `k` in order.

use crate::Isa;
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::float32x4_t;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use std::arch::wasm32::v128;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128, __m256, __m512};

/// `output[m, n] = a[m, k] * b[k, n]`, all row by row. Callers split the rows of `a` over threads.
///
/// # Panics
/// If a slice's length does not match.
pub fn matmul_f32(
    m: usize,
    k: usize,
    n: usize,
    a: &[f32],
    b: &[f32],
    output: &mut [f32],
    isa: Isa,
) {
    let product = |x: usize, y: usize| x.checked_mul(y).expect("matrix size overflows");
    assert_eq!(a.len(), product(m, k), "length of a for [{m}, {k}]");
    assert_eq!(b.len(), product(k, n), "length of b for [{k}, {n}]");
    assert_eq!(output.len(), product(m, n), "length of the output for [{m}, {n}]");
    if output.is_empty() {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512 && Isa::Avx512.is_supported() {
        return vector::matmul::<__m512>(k, n, a, b, output);
    } else if isa >= Isa::Avx2 && Isa::Avx2.is_supported() {
        return vector::matmul::<__m256>(k, n, a, b, output);
    } else if isa >= Isa::Sse41 && Isa::Sse41.is_supported() {
        return vector::matmul::<__m128>(k, n, a, b, output);
    }
    #[cfg(target_arch = "aarch64")]
    if isa >= Isa::Neon && Isa::Neon.is_supported() {
        return vector::matmul::<float32x4_t>(k, n, a, b, output);
    }
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    if isa >= Isa::Simd128 {
        return vector::matmul::<v128>(k, n, a, b, output);
    }
    let _ = isa;
    for (row, output) in output.chunks_exact_mut(n).enumerate() {
        output.fill(0.0);
        for (&a, b) in a[row * k..][..k].iter().zip(b.chunks_exact(n)) {
            for (acc, &b) in output.iter_mut().zip(b) {
                *acc = a.mul_add(b, *acc);
            }
        }
    }
}

mod vector {
    use crate::tile_f32::{Panel, panels};
    use crate::vector_f32::Vector;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Scratch {
        rows: Vec<*const f32>,
        panel: Vec<f32>,
    }

    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }

    /// Lengths are checked and nothing of the output is empty; the CPU has the vectors.
    pub(super) fn matmul<V: Vector>(k: usize, n: usize, a: &[f32], b: &[f32], output: &mut [f32]) {
        let m = output.len() / n;
        SCRATCH.with_borrow_mut(|Scratch { rows, panel }| {
            rows.clear();
            rows.extend((0..m).map(|row| a[row * k..].as_ptr()));
            for (start, vectors) in panels::<V>(n, m) {
                let width = vectors * V::LANES;
                let columns = width.min(n - start);
                panel.clear();
                panel.resize(width * (1 + k), 0.0);
                for (panel, b) in panel[width..].chunks_exact_mut(width).zip(b.chunks_exact(n)) {
                    panel[..columns].copy_from_slice(&b[start..][..columns]);
                }
                let product = Panel {
                    taps: rows.as_ptr(),
                    tap_count: 1,
                    tap_stride: m,
                    offset: 0,
                    depth: k,
                    packed: panel.as_ptr(),
                    vectors,
                    output: output[start..].as_mut_ptr(),
                    stride: n,
                    columns,
                    clamp: (f32::NEG_INFINITY, f32::INFINITY),
                };
                // SAFETY: the caller checked the CPU. `rows` holds `m` pointers to `k` floats
                // each; `panel` was sized above; `start + columns <= n` in each of `m` rows.
                unsafe { product.run::<V>(m) };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{Random, isas, same_bits};

    #[test]
    fn products_agree_with_the_formula() {
        let mut random = Random::new(5);
        for case in 0..200 {
            let (m, k, n) = (random.below(14), random.below(30), random.below(90));
            let (m, k, n) = if case == 0 { (3, 0, 5) } else { (m, k, n) };
            let (a, b) = (random.floats(m * k), random.floats(k * n));
            let mut scalar = Vec::new();
            for isa in isas() {
                let mut output = vec![9.0; m * n];
                matmul_f32(m, k, n, &a, &b, &mut output, isa);
                for (at, &value) in output.iter().enumerate() {
                    let (row, column) = (at / n, at % n);
                    let term = |i: usize| f64::from(a[row * k + i]) * f64::from(b[i * n + column]);
                    let expected: f64 = (0..k).map(term).sum();
                    assert!((f64::from(value) - expected).abs() < 1e-5, "{m} {k} {n} {isa:?}");
                }
                if isa == Isa::Scalar {
                    scalar.clone_from(&output);
                }
                assert!(same_bits(&output, &scalar), "{m} {k} {n} {isa:?}");
            }
        }
    }
}
