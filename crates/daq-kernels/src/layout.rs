//! Copies between channels-first and channels-last layouts.

use crate::{Isa, Kernel};

type Interleave3 = unsafe fn([&[u8]; 3], &mut [u8]);

/// Every kernel of [`interleave3`], best first and scalar last.
pub static INTERLEAVE3_KERNELS: &[Kernel<Interleave3>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "interleave3_16__avx2", isa: Isa::Avx2, entry: interleave3_avx2 },
    #[cfg(target_arch = "aarch64")]
    Kernel { name: "interleave3_16__neon", isa: Isa::Neon, entry: interleave3_neon },
    Kernel { name: "interleave3__scalar", isa: Isa::Scalar, entry: interleave3_scalar },
];

/// Writes three planes of equal length pixel by pixel: `r0 g0 b0 r1 g1 b1 ...`.
pub(crate) fn interleave3(planes: [&[u8]; 3], output: &mut [u8], isa: Isa) {
    assert!(planes.iter().all(|plane| plane.len() * 3 == output.len()), "planes of other lengths");
    // SAFETY: `pick` made sure that this CPU has the kernel's instruction set.
    unsafe { (Kernel::pick(INTERLEAVE3_KERNELS, isa).entry)(planes, output) }
}

fn interleave3_scalar([a, b, c]: [&[u8]; 3], output: &mut [u8]) {
    for (to, ((&a, &b), &c)) in output.chunks_exact_mut(3).zip(a.iter().zip(b).zip(c)) {
        to.copy_from_slice(&[a, b, c]);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn interleave3_avx2(planes: [&[u8]; 3], output: &mut [u8]) {
    use std::arch::x86_64::*;
    let whole = planes[0].len() / 16 * 16;
    // For each of three vectors of output, where in a plane's 16 pixels its bytes come from; -1 puts
    // a zero, which the other planes fill.
    let mut order = [[[-1i8; 16]; 3]; 3];
    for at in 0..48 {
        order[at / 16][at % 3][at % 16] = (at / 3) as i8;
    }
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within each plane and `3 * (at + 16)` within the output, whose
        // lengths `interleave3` checked; the orders are vectors of 16 bytes.
        unsafe {
            let pixels = planes.map(|plane| _mm_loadu_si128(plane.as_ptr().add(at).cast()));
            for (part, order) in order.iter().enumerate() {
                let shuffled: [__m128i; 3] = std::array::from_fn(|plane| {
                    let order = _mm_loadu_si128(order[plane].as_ptr().cast());
                    _mm_shuffle_epi8(pixels[plane], order)
                });
                let all = _mm_or_si128(_mm_or_si128(shuffled[0], shuffled[1]), shuffled[2]);
                _mm_storeu_si128(output.as_mut_ptr().add(at * 3 + part * 16).cast(), all);
            }
        }
    }
    interleave3_scalar(planes.map(|plane| &plane[whole..]), &mut output[whole * 3..]);
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn interleave3_neon(planes: [&[u8]; 3], output: &mut [u8]) {
    use std::arch::aarch64::*;
    let whole = planes[0].len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within each plane and `3 * (at + 16)` within the output, whose
        // lengths `interleave3` checked.
        unsafe {
            let [a, b, c] = planes.map(|plane| vld1q_u8(plane.as_ptr().add(at)));
            vst3q_u8(output.as_mut_ptr().add(at * 3), uint8x16x3_t(a, b, c));
        }
    }
    interleave3_scalar(planes.map(|plane| &plane[whole..]), &mut output[whole * 3..]);
}

/// [`nchw_to_nhwc`] of bytes.
///
/// # Panics
///
/// If a length is not `batch * channels * pixels`.
pub fn nchw_to_nhwc_u8(
    (batch, channels, pixels): (usize, usize, usize),
    input: &[u8],
    output: &mut [u8],
    isa: Isa,
) {
    if channels != 3 || pixels == 0 {
        return nchw_to_nhwc(batch, channels, pixels, input, output);
    }
    assert_eq!(input.len(), batch * 3 * pixels, "the input contradicts the shape");
    assert_eq!(output.len(), input.len(), "the output contradicts the shape");
    let pictures = input.chunks_exact(3 * pixels).zip(output.chunks_exact_mut(3 * pixels));
    for (input, output) in pictures {
        let (a, rest) = input.split_at(pixels);
        let (b, c) = rest.split_at(pixels);
        interleave3([a, b, c], output, isa);
    }
}

/// Elements per side of the square that is transposed at a time, so that both sides stay in the
/// first-level cache whatever the number of channels.
const BLOCK: usize = 32;

/// Copies `[batch, channels, pixels]` (ONNX, NCHW) to `[batch, pixels, channels]` (NHWC).
///
/// # Panics
///
/// If a length is not `batch * channels * pixels`.
pub fn nchw_to_nhwc<T: Copy>(
    batch: usize,
    channels: usize,
    pixels: usize,
    input: &[T],
    output: &mut [T],
) {
    transpose(batch, channels, pixels, input, output);
}

/// Copies `[batch, pixels, channels]` (NHWC) to `[batch, channels, pixels]` (ONNX, NCHW).
///
/// # Panics
///
/// If a length is not `batch * channels * pixels`.
pub fn nhwc_to_nchw<T: Copy>(
    batch: usize,
    channels: usize,
    pixels: usize,
    input: &[T],
    output: &mut [T],
) {
    transpose(batch, pixels, channels, input, output);
}

/// Copies `batch` matrices of `rows * columns` to their transposes.
fn transpose<T: Copy>(batch: usize, rows: usize, columns: usize, input: &[T], output: &mut [T]) {
    let len = rows * columns;
    assert_eq!(input.len(), batch * len, "the input contradicts the shape");
    assert_eq!(output.len(), batch * len, "the output contradicts the shape");
    if len == 0 {
        return;
    }
    if rows == 1 || columns == 1 {
        output.copy_from_slice(input);
        return;
    }
    for (input, output) in input.chunks_exact(len).zip(output.chunks_exact_mut(len)) {
        for row0 in (0..rows).step_by(BLOCK) {
            let row1 = rows.min(row0 + BLOCK);
            for column0 in (0..columns).step_by(BLOCK) {
                let column1 = columns.min(column0 + BLOCK);
                for column in column0..column1 {
                    let to = &mut output[column * rows + row0..column * rows + row1];
                    let from = input[row0 * columns + column..].iter().step_by(columns);
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = *from;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_planes_become_one() {
        for pixels in (0..50).chain([1000]) {
            let nchw: Vec<u8> = (0..2 * 3 * pixels).map(|i| (i * 31 % 251) as u8).collect();
            let mut want = vec![0; nchw.len()];
            nchw_to_nhwc(2, 3, pixels, &nchw, &mut want);
            for isa in crate::test_util::isas() {
                let mut got = vec![1; nchw.len()];
                nchw_to_nhwc_u8((2, 3, pixels), &nchw, &mut got, isa);
                assert_eq!(got, want, "{isa:?} {pixels}");
            }
        }
    }

    #[test]
    fn both_ways() {
        let mut nhwc = [0; 6];
        nchw_to_nhwc(1, 2, 3, &[1, 2, 3, 10, 20, 30], &mut nhwc);
        assert_eq!(nhwc, [1, 10, 2, 20, 3, 30]);

        for (batch, channels, pixels) in [(1, 1, 7), (2, 7, 1), (2, 3, 100), (1, 65, 33), (3, 0, 4)]
        {
            let nchw: Vec<u32> = (0..(batch * channels * pixels) as u32).collect();
            let mut nhwc = vec![0; nchw.len()];
            nchw_to_nhwc(batch, channels, pixels, &nchw, &mut nhwc);
            for (i, value) in nhwc.iter().enumerate() {
                let (image, at) = (i / (channels * pixels), i % (channels * pixels));
                let (pixel, channel) = (at / channels, at % channels);
                assert_eq!(*value as usize, (image * channels + channel) * pixels + pixel);
            }
            let mut back = vec![0; nchw.len()];
            nhwc_to_nchw(batch, channels, pixels, &nhwc, &mut back);
            assert_eq!(back, nchw);
        }
    }
}
