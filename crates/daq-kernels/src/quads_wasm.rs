//! [`Quads`] of wasm32 with 128-bit vectors, which are known when the module is compiled.

use std::arch::wasm32::*;

use crate::quads::Quads;
use crate::vector_f32::Work;

/// 16-bit products, of which `i32x4.dot_i16x8_s` adds two in 32 bits. Exact for every weight of
/// -255..=255.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simd128;

impl Quads for Simd128 {
    type Sums = v128;
    type Codes = v128;
    type Weights = [v128; 2];
    type Floats = v128;
    type Taps = [[v128; 2]; 4];

    const LANES: usize = 4;
    const VECTORS: usize = 4;
    const ROWS: [usize; 4] = [8, 4, 3, 2];
    const PIXELS: usize = 2;
    const WEIGHT: usize = 2;
    const RANGE: (i16, i16) = (-255, 255);

    #[inline(always)]
    unsafe fn load_sums(from: *const i32) -> v128 {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_sums(sums: v128, to: *mut i32) {
        // SAFETY: see `load_sums`.
        unsafe { v128_store(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn load_weights(from: *const u8) -> [v128; 2] {
        // SAFETY: see `load_sums`.
        unsafe { [v128_load(from.cast()), v128_load(from.add(16).cast())] }
    }

    #[inline(always)]
    unsafe fn load_floats(from: *const f32) -> v128 {
        // SAFETY: see `load_sums`.
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const u8) -> v128 {
        // SAFETY: see `load_sums`.
        unsafe { v128_load32_splat(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load(_: usize, at: impl Fn(usize) -> *const u8) -> v128 {
        // SAFETY: see `load_sums`.
        unsafe { v128_load(at(0).cast()) }
    }

    #[inline(always)]
    unsafe fn nothing() -> v128 {
        i8x16_splat(0)
    }

    #[inline(always)]
    unsafe fn dot(sums: v128, codes: v128, weights: [v128; 2]) -> v128 {
        words(sums, apart(codes), weights)
    }

    #[inline(always)]
    unsafe fn interleave([a, b, c, d]: [v128; 4]) -> [[v128; 2]; 4] {
        let low =
            |a, b| i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
        let high = |a, b| {
            i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b)
        };
        let low_words = |a, b| i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b);
        let high_words = |a, b| i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b);
        let (ab, cd, ab_high, cd_high) = (low(a, b), low(c, d), high(a, b), high(c, d));
        [
            apart(low_words(ab, cd)),
            apart(high_words(ab, cd)),
            apart(low_words(ab_high, cd_high)),
            apart(high_words(ab_high, cd_high)),
        ]
    }

    #[inline(always)]
    unsafe fn accumulate(sums: &mut [v128; 4], taps: &[[v128; 2]; 4], weights: *const u8) {
        for v in 0..4 {
            // SAFETY: see `load_sums`.
            sums[v] = words(sums[v], taps[v], unsafe { Self::load_weights(weights.add(v * 32)) });
        }
    }

    #[inline(always)]
    unsafe fn requantize<const SMALL: bool>(
        sums: [v128; 4],
        multipliers: [v128; 4],
        zero_point: u8,
    ) -> v128 {
        let offset = i16x8_splat(zero_point.into());
        // The conversion and the narrowings saturate, which is clamp enough. Only a NaN, of an
        // infinite multiplier, would become 0 and not the lowest code.
        let low = f32x4_splat(-f32::from(zero_point));
        let scale = |v: usize| {
            let scaled = f32x4_mul(f32x4_convert_i32x4(sums[v]), multipliers[v]);
            let scaled = if SMALL { scaled } else { f32x4_pmax(low, scaled) };
            i32x4_trunc_sat_f32x4(f32x4_nearest(scaled))
        };
        let pack = |low, high| i16x8_add_sat(i16x8_narrow_i32x4(scale(low), scale(high)), offset);
        u8x16_narrow_i16x8(pack(0, 1), pack(2, 3))
    }

    #[inline(always)]
    unsafe fn store(codes: v128, to: *mut u8) {
        // SAFETY: see `load_sums`.
        unsafe { v128_store(to.cast(), codes) }
    }

    #[inline(always)]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}

/// Bytes 0 and 2 of each lane as 16-bit numbers, then 1 and 3.
#[inline(always)]
fn apart(codes: v128) -> [v128; 2] {
    [v128_and(codes, i16x8_splat(0x00FF)), u16x8_shr(codes, 8)]
}

#[inline(always)]
fn words(sums: v128, codes: [v128; 2], weights: [v128; 2]) -> v128 {
    let even = i32x4_add(sums, i32x4_dot_i16x8(codes[0], weights[0]));
    i32x4_add(even, i32x4_dot_i16x8(codes[1], weights[1]))
}
