//! The inner tile of the dense AVX2 convolution: up to 4 pixels times 16 output channels.

use std::arch::x86_64::*;

use crate::conv_u8_panel::Panel;
use crate::requantize::avx2::Requantizer;

/// Computes `pixels` pixels times one panel, four at a time.
///
/// # Safety
///
/// As for [`tile`], of all pixels; `SMALL` only if the panel's multipliers are.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn tiles<const H: usize, const FORM: u8, const SUMS: bool, const SMALL: bool>(
    (pointers, pixels): (*const *const u8, usize),
    panel: &Panel<FORM, SUMS>,
    output_zero_point: u8,
    output: *mut u8,
    stride: usize,
) {
    let requantizer = Requantizer::<SMALL>::new(output_zero_point);
    for first in (0..pixels).step_by(4) {
        // SAFETY: the pixels of the tile exist; the caller answers for the rest.
        unsafe {
            let pointers = (pointers.add(first), pixels);
            let to = output.add(first * stride);
            match pixels - first {
                1 => tile::<1, H, FORM, SUMS, SMALL>(pointers, panel, requantizer, to, stride),
                2 => tile::<2, H, FORM, SUMS, SMALL>(pointers, panel, requantizer, to, stride),
                3 => tile::<3, H, FORM, SUMS, SMALL>(pointers, panel, requantizer, to, stride),
                _ => tile::<4, H, FORM, SUMS, SMALL>(pointers, panel, requantizer, to, stride),
            }
        }
    }
}

/// Computes `R` (1 to 4) pixels times one panel of `H * 8` columns and stores them as codes, or with
/// `SUMS` as they are.
///
/// Where the bytes of pixel `r` begin for tap `t` is at `pointers[t * row + r]`. Pixel `r` is stored
/// at `output + r * stride`.
///
/// # Safety
///
/// `H` is `panel.halves()`. For each of the `panel.steps.len()` taps and the first `R` of its
/// pointers, the 4 bytes at every offset of the panel can be read; `panel.columns` bytes, or sums,
/// can be written at each of the `R` outputs.
#[expect(clippy::needless_range_loop, reason = "the indices r and h are the tile's geometry")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn tile<
    const R: usize,
    const H: usize,
    const FORM: u8,
    const SUMS: bool,
    const SMALL: bool,
>(
    (pointers, row): (*const *const u8, usize),
    panel: &Panel<FORM, SUMS>,
    requantizer: Requantizer<SMALL>,
    output: *mut u8,
    stride: usize,
) {
    let ones = _mm256_set1_epi16(1);
    let low_bytes = _mm256_set1_epi16(0x00FF);
    let mut codes: *const __m256i = panel.codes.as_ptr().cast();
    let mut offset = panel.offsets.as_ptr();
    let mut turn = panel.turns.as_ptr();
    // SAFETY: the panel holds 16 biases and multipliers, and for each step as many offsets and
    // codes as the loops below consume (`Panel::push_tap`); the caller answers for the rest.
    unsafe {
        let bias: [__m256i; H] =
            std::array::from_fn(|h| _mm256_loadu_si256(panel.bias.as_ptr().add(h * 8).cast()));
        let mut acc = [bias; R];
        for (tap, steps) in panel.steps.iter().enumerate() {
            let rows: [*const u8; R] = std::array::from_fn(|r| *pointers.add(tap * row + r));
            for _ in 0..steps.doubled {
                let (at0, at1) = (*offset as usize, *offset.add(1) as usize);
                for r in 0..R {
                    let a0 = broadcast(rows[r].add(at0));
                    let a1 = broadcast(rows[r].add(at1));
                    for h in 0..H {
                        let b0 = _mm256_loadu_si256(codes.add(h));
                        let b1 = _mm256_loadu_si256(codes.add(H + h));
                        // Exact: a lane's four weights of one sign sum to at most 128 (`Panel`).
                        let words = _mm256_add_epi16(
                            _mm256_maddubs_epi16(a0, b0),
                            _mm256_maddubs_epi16(a1, b1),
                        );
                        acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(words, ones));
                    }
                }
                offset = offset.add(2);
                codes = codes.add(2 * H);
            }
            for _ in 0..steps.bytes {
                let at = *offset as usize;
                let b: [__m256i; H] = std::array::from_fn(|h| _mm256_loadu_si256(codes.add(h)));
                for r in 0..R {
                    let a = broadcast(rows[r].add(at));
                    for h in 0..H {
                        // Exact: a lane's two weights of one sign sum to at most 128 (`Panel`).
                        let words = _mm256_maddubs_epi16(a, b[h]);
                        acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(words, ones));
                    }
                }
                offset = offset.add(1);
                codes = codes.add(H);
            }
            for _ in 0..steps.turned {
                let at = *offset as usize;
                let order = _mm256_set1_epi32(i32::from_le_bytes((*turn).order));
                let complement = _mm256_set1_epi32(i32::from_le_bytes((*turn).complement));
                let b: [__m256i; H] = std::array::from_fn(|h| _mm256_loadu_si256(codes.add(h)));
                for r in 0..R {
                    // All lanes hold the same four bytes, so that the order may name the first ones.
                    let a = _mm256_shuffle_epi8(broadcast(rows[r].add(at)), order);
                    let a = _mm256_xor_si256(a, complement);
                    for h in 0..H {
                        // Exact: a lane's two weights of one sign sum to at most 128 (`Panel`).
                        let words = _mm256_maddubs_epi16(a, b[h]);
                        acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(words, ones));
                    }
                }
                turn = turn.add(1);
                offset = offset.add(1);
                codes = codes.add(H);
            }
            for _ in 0..steps.words {
                let at = *offset as usize;
                for r in 0..R {
                    let a = broadcast(rows[r].add(at));
                    let even = _mm256_and_si256(a, low_bytes);
                    let odd = _mm256_srli_epi16::<8>(a);
                    for h in 0..H {
                        let b0 = _mm256_loadu_si256(codes.add(h));
                        let b1 = _mm256_loadu_si256(codes.add(H + h));
                        let products = _mm256_add_epi32(
                            _mm256_madd_epi16(even, b0),
                            _mm256_madd_epi16(odd, b1),
                        );
                        acc[r][h] = _mm256_add_epi32(acc[r][h], products);
                    }
                }
                offset = offset.add(1);
                codes = codes.add(2 * H);
            }
        }
        if SUMS {
            for r in 0..R {
                store_sums(acc[r], output.add(r * stride).cast(), panel.columns);
            }
            return;
        }
        let multiplier: [__m256; H] =
            std::array::from_fn(|h| _mm256_loadu_ps(panel.multipliers.as_ptr().add(h * 8)));
        let mut r = 0;
        while r < R {
            let next = if r + 1 < R { r + 1 } else { r };
            let (row, next_row) = if H == 2 {
                let both = requantizer.two_rows(
                    [acc[r][0], acc[r][H - 1]],
                    [acc[next][0], acc[next][H - 1]],
                    [multiplier[0], multiplier[H - 1]],
                );
                (_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both))
            } else {
                let both = requantizer.one_row([acc[r][0], acc[next][0]], [multiplier[0]; 2]);
                (both, _mm_unpackhi_epi64(both, both))
            };
            store(row, output.add(r * stride), panel.columns);
            if next != r {
                store(next_row, output.add(next * stride), panel.columns);
            }
            r += 2;
        }
    }
}

/// Four bytes of the input in every 32-bit lane.
///
/// # Safety
///
/// 4 bytes can be read at `from`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn broadcast(from: *const u8) -> __m256i {
    // SAFETY: the caller answers for the 4 bytes; the read is unaligned.
    _mm256_set1_epi32(unsafe { from.cast::<i32>().read_unaligned() })
}

/// Stores the first `columns` (1 to `H * 8`) sums.
///
/// # Safety
///
/// `columns` sums can be written at `to`.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn store_sums<const H: usize>(sums: [__m256i; H], to: *mut i32, columns: usize) {
    for (h, sums) in sums.into_iter().enumerate() {
        // SAFETY: only sums 0..columns are written, which the caller answers for.
        unsafe {
            let to = to.add(h * 8);
            match columns - h * 8 {
                left if left >= 8 => _mm256_storeu_si256(to.cast(), sums),
                left => {
                    let mut all = [0i32; 8];
                    _mm256_storeu_si256(all.as_mut_ptr().cast(), sums);
                    std::ptr::copy_nonoverlapping(all.as_ptr(), to, left);
                }
            }
        }
    }
}

/// Stores the first `columns` (1 to 16) bytes.
///
/// # Safety
///
/// `columns` bytes can be written at `to`.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(crate) unsafe fn store(codes: __m128i, to: *mut u8, columns: usize) {
    // SAFETY: every store below covers only bytes 0..columns, which the caller answers for.
    unsafe {
        if columns == 16 {
            _mm_storeu_si128(to.cast(), codes);
        } else if columns == 8 {
            _mm_storel_epi64(to.cast(), codes);
        } else {
            let mut bytes = [0u8; 16];
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), codes);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, columns.min(16));
        }
    }
}
