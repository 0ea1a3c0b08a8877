//! [`Quads`] of x86-64.

use std::arch::x86_64::*;

use crate::quads::Quads;
use crate::requantize::avx2;
use crate::vector_f32::Work;

/// SSE4.1: 16-bit products, `pmaddwd`, which adds two of them in 32 bits. Exact for every weight of
/// -255..=255.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sse41;

/// `vpdpbusd` on 8 sums, which never saturates: that of AVX-512 or that of AVX-VNNI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vnni<const AVX512: bool>;

pub(crate) type AvxVnni = Vnni<false>;
pub(crate) type Avx512Vnni = Vnni<true>;

impl Quads for Sse41 {
    type Sums = __m128i;
    type Codes = __m128i;
    type Weights = [__m128i; 2];
    type Floats = __m128;
    type Taps = [[__m128i; 2]; 4];

    const LANES: usize = 4;
    const VECTORS: usize = 4;
    const ROWS: [usize; 4] = [8, 4, 3, 2];
    const PIXELS: usize = 2;
    const WEIGHT: usize = 2;
    const RANGE: (i16, i16) = (-255, 255);

    #[inline(always)]
    unsafe fn load_sums(from: *const i32) -> __m128i {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { _mm_loadu_si128(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_sums(sums: __m128i, to: *mut i32) {
        // SAFETY: see `load_sums`.
        unsafe { _mm_storeu_si128(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const u8) -> [__m128i; 2] {
        // SAFETY: see `load_sums`.
        unsafe { [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(16).cast())] }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> __m128 {
        // SAFETY: see `load_sums`.
        unsafe { _mm_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const u8) -> __m128i {
        // SAFETY: see `load_sums`; the read is unaligned.
        unsafe { _mm_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(_: usize, at: impl Fn(usize) -> *const u8) -> __m128i {
        // SAFETY: see `load_sums`.
        unsafe { _mm_loadu_si128(at(0).cast()) }
    }

    #[inline(always)]
    unsafe fn nothing() -> __m128i {
        // SAFETY: see `load_sums`.
        unsafe { _mm_setzero_si128() }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m128i, codes: __m128i, weights: [__m128i; 2]) -> __m128i {
        // SAFETY: see `load_sums`.
        unsafe { words(sums, apart(codes), weights) }
    }

    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [__m128i; 4]) -> [[__m128i; 2]; 4] {
        // SAFETY: see `load_sums`.
        unsafe {
            let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d));
            [
                apart(_mm_unpacklo_epi16(ab, cd)),
                apart(_mm_unpackhi_epi16(ab, cd)),
                apart(_mm_unpacklo_epi16(ab_high, cd_high)),
                apart(_mm_unpackhi_epi16(ab_high, cd_high)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn accumulate(sums: &mut [__m128i; 4], taps: &[[__m128i; 2]; 4], weights: *const u8) {
        for v in 0..4 {
            // SAFETY: see `load_sums`.
            unsafe { sums[v] = words(sums[v], taps[v], Self::load_weights(weights.add(v * 32))) }
        }
    }

    #[inline(always)]
    unsafe fn requantize<const SMALL: bool>(
        sums: [__m128i; 4],
        multipliers: [__m128; 4],
        zero_point: u8,
    ) -> __m128i {
        // SAFETY: see `load_sums`.
        unsafe {
            let high = _mm_set1_ps(255.0 - f32::from(zero_point));
            let offset = _mm_set1_epi16(zero_point.into());
            // As in `requantize::avx2`: below the range of codes, every step saturates.
            let scale = |v: usize| {
                let scaled = _mm_mul_ps(_mm_cvtepi32_ps(sums[v]), multipliers[v]);
                match SMALL {
                    true => _mm_cvtps_epi32(scaled),
                    false => _mm_cvtps_epi32(_mm_min_ps(high, scaled)),
                }
            };
            let pack = |low, high| _mm_adds_epi16(_mm_packs_epi32(scale(low), scale(high)), offset);
            _mm_packus_epi16(pack(0, 1), pack(2, 3))
        }
    }

    #[inline(always)]
    unsafe fn store(codes: __m128i, to: *mut u8) {
        // SAFETY: see `load_sums`.
        unsafe { _mm_storeu_si128(to.cast(), codes) }
    }

    #[target_feature(enable = "sse4.1")]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}

/// Bytes 0 and 2 of each lane as 16-bit numbers, then 1 and 3.
#[inline(always)]
unsafe fn apart(codes: __m128i) -> [__m128i; 2] {
    // SAFETY: SSE2 is everywhere on x86-64.
    unsafe { [_mm_and_si128(codes, _mm_set1_epi16(0x00FF)), _mm_srli_epi16::<8>(codes)] }
}

#[inline(always)]
unsafe fn words(sums: __m128i, codes: [__m128i; 2], weights: [__m128i; 2]) -> __m128i {
    // SAFETY: SSE2 is everywhere on x86-64.
    unsafe {
        let even = _mm_add_epi32(sums, _mm_madd_epi16(codes[0], weights[0]));
        _mm_add_epi32(even, _mm_madd_epi16(codes[1], weights[1]))
    }
}

impl<const AVX512: bool> Quads for Vnni<AVX512> {
    type Sums = __m256i;
    type Codes = __m256i;
    type Weights = __m256i;
    type Floats = __m256;
    type Taps = [__m256i; 4];

    const LANES: usize = 8;
    const VECTORS: usize = 2;
    const ROWS: [usize; 4] = [8, 6, 0, 0];
    const PIXELS: usize = 2;

    #[inline(always)]
    unsafe fn load_sums(from: *const i32) -> __m256i {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_sums(sums: __m256i, to: *mut i32) {
        // SAFETY: see `load_sums`.
        unsafe { _mm256_storeu_si256(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const u8) -> __m256i {
        // SAFETY: see `load_sums`.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> __m256 {
        // SAFETY: see `load_sums`.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const u8) -> __m256i {
        // SAFETY: see `load_sums`; the read is unaligned.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load(width: usize, at: impl Fn(usize) -> *const u8) -> __m256i {
        // SAFETY: see `load_sums`.
        unsafe {
            match width {
                32 => _mm256_loadu_si256(at(0).cast()),
                _ => _mm256_loadu2_m128i(at(1).cast(), at(0).cast()),
            }
        }
    }

    #[inline(always)]
    unsafe fn nothing() -> __m256i {
        // SAFETY: see `load_sums`.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: see `load_sums`.
        unsafe {
            match AVX512 {
                true => _mm256_dpbusd_epi32(sums, codes, weights),
                false => _mm256_dpbusd_avx_epi32(sums, codes, weights),
            }
        }
    }

    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        // SAFETY: see `load_sums`.
        unsafe {
            let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
            [
                _mm256_unpacklo_epi16(ab, cd),
                _mm256_unpackhi_epi16(ab, cd),
                _mm256_unpacklo_epi16(ab_high, cd_high),
                _mm256_unpackhi_epi16(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn accumulate(sums: &mut [__m256i; 4], taps: &[__m256i; 4], weights: *const u8) {
        for v in 0..4 {
            // SAFETY: see `load_sums`.
            unsafe {
                sums[v] = Self::dot(sums[v], taps[v], Self::load_weights(weights.add(v * 32)))
            }
        }
    }

    #[inline(always)]
    unsafe fn requantize<const SMALL: bool>(
        sums: [__m256i; 4],
        multipliers: [__m256; 4],
        zero_point: u8,
    ) -> __m256i {
        // SAFETY: see `load_sums`.
        unsafe { avx2::Requantizer::<SMALL>::new(zero_point).four(sums, multipliers) }
    }

    #[inline(always)]
    unsafe fn store(codes: __m256i, to: *mut u8) {
        // SAFETY: see `load_sums`.
        unsafe { _mm256_storeu_si256(to.cast(), codes) }
    }

    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe {
            match AVX512 {
                true => run_avx512(work),
                false => run_avx(work),
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512vnni")]
unsafe fn run_avx512(work: impl Work) {
    // SAFETY: the caller's promise.
    unsafe { work.run() }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn run_avx(work: impl Work) {
    // SAFETY: the caller's promise.
    unsafe { work.run() }
}
