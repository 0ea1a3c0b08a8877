//! [`Quads`] of aarch64.
//!
//! Its signed products want signed codes: 128 is taken off each, and 128 times the weights is in the
//! bias. Only i8mm multiplies unsigned codes by signed weights.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::quads::{Quads, TileInput};
use crate::vector_f32::Work;

/// NEON alone: two products are added in 16 bits, `smull` and `smlal`, then to the sums, `sadalp` or
/// `saddw`. Codes are within -128..=127, so that is exact unless both weights are -128: 2 * 128 * 127
/// is 32,512. With `PAIRS`, weights are within -127..=127; without, each product is added by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon<const PAIRS: bool>;

/// With dotprod: `sdot` adds four products to each sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeonDot;

/// With i8mm: `usmmla` multiplies 8 inputs of 2 pixels by 8 weights of 2 columns, `usdot` is as `sdot`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeonI8mm;

/// What the three share.
macro_rules! neon {
    ($features:literal) => {
        type Sums = int32x4_t;
        type Codes = uint8x16_t;
        type Weights = int8x16_t;
        type Floats = float32x4_t;
        type Taps = [uint8x16_t; 4];

        const LANES: usize = 4;
        const VECTORS: usize = 4;
        const PIXELS: usize = 4;

        #[inline(always)]
        unsafe fn load_sums(from: *const i32) -> int32x4_t {
            // SAFETY: as the trait says; so in all functions below.
            unsafe { vld1q_s32(from) }
        }

        #[inline(always)]
        unsafe fn store_sums(sums: int32x4_t, to: *mut i32) {
            // SAFETY: see `load_sums`.
            unsafe { vst1q_s32(to, sums) }
        }

        #[inline(always)]
        unsafe fn load_weights(from: *const u8) -> int8x16_t {
            // SAFETY: see `load_sums`.
            unsafe { vld1q_s8(from.cast()) }
        }

        #[inline(always)]
        unsafe fn load_floats(from: *const f32) -> float32x4_t {
            // SAFETY: see `load_sums`.
            unsafe { vld1q_f32(from) }
        }

        #[inline(always)]
        unsafe fn broadcast(from: *const u8) -> uint8x16_t {
            // SAFETY: see `load_sums`; the read is unaligned.
            unsafe {
                let four = vdupq_n_u32(from.cast::<u32>().read_unaligned());
                signed::<Self>(vreinterpretq_u8_u32(four))
            }
        }

        #[inline(always)]
        unsafe fn load(_: usize, at: impl Fn(usize) -> *const u8) -> uint8x16_t {
            // SAFETY: see `load_sums`.
            unsafe { signed::<Self>(vld1q_u8(at(0))) }
        }

        #[inline(always)]
        unsafe fn nothing() -> uint8x16_t {
            // SAFETY: see `load_sums`.
            unsafe { vdupq_n_u8(0) }
        }

        #[inline(always)]
        unsafe fn requantize<const SMALL: bool>(
            sums: [int32x4_t; 4],
            multipliers: [float32x4_t; 4],
            zero_point: u8,
        ) -> uint8x16_t {
            // SAFETY: see `load_sums`.
            unsafe {
                let offset = vdupq_n_s16(zero_point.into());
                // The conversion and the narrowings saturate, which is clamp enough. Only a NaN, of
                // an infinite multiplier, would become 0 and not the lowest code.
                let low = vdupq_n_f32(-f32::from(zero_point));
                let scale = |v: usize| {
                    let scaled = vmulq_f32(vcvtq_f32_s32(sums[v]), multipliers[v]);
                    vcvtnq_s32_f32(if SMALL { scaled } else { vmaxnmq_f32(scaled, low) })
                };
                let pack = |low: usize, high: usize| {
                    let words = vqmovn_high_s32(vqmovn_s32(scale(low)), scale(high));
                    vqaddq_s16(words, offset)
                };
                vqmovun_high_s16(vqmovun_s16(pack(0, 1)), pack(2, 3))
            }
        }

        #[inline(always)]
        unsafe fn store(codes: uint8x16_t, to: *mut u8) {
            // SAFETY: see `load_sums`.
            unsafe { vst1q_u8(to, codes) }
        }

        #[target_feature(enable = $features)]
        unsafe fn run(work: impl Work) {
            // SAFETY: the caller's promise.
            unsafe { work.run() }
        }
    };
}

/// Codes less [`Quads::OFFSET`].
#[inline(always)]
unsafe fn signed<Q: Quads>(codes: uint8x16_t) -> uint8x16_t {
    // SAFETY: every aarch64 has NEON.
    unsafe { if Q::OFFSET == 0 { codes } else { veorq_u8(codes, vdupq_n_u8(128)) } }
}

/// The bytes of four taps, lane by lane.
#[inline(always)]
unsafe fn zip([a, b, c, d]: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
    // SAFETY: every aarch64 has NEON.
    unsafe {
        let words =
            |a, b| (vreinterpretq_u16_u8(vzip1q_u8(a, b)), vreinterpretq_u16_u8(vzip2q_u8(a, b)));
        let ((ab, ab_high), (cd, cd_high)) = (words(a, b), words(c, d));
        [
            vzip1q_u16(ab, cd),
            vzip2q_u16(ab, cd),
            vzip1q_u16(ab_high, cd_high),
            vzip2q_u16(ab_high, cd_high),
        ]
        .map(|words| vreinterpretq_u8_u16(words))
    }
}

impl<const PAIRS: bool> Neon<PAIRS> {
    /// Two products of eight lanes each, added to eight sums.
    #[inline(always)]
    unsafe fn pair(
        low: &mut int32x4_t,
        high: &mut int32x4_t,
        codes: [int8x8_t; 2],
        weights: [int8x8_t; 2],
    ) {
        // SAFETY: every aarch64 has NEON.
        unsafe {
            let mut add = |products: int16x8_t| {
                *low = vaddw_s16(*low, vget_low_s16(products));
                *high = vaddw_high_s16(*high, products);
            };
            let products = vmull_s8(codes[0], weights[0]);
            if PAIRS {
                add(vmlal_s8(products, codes[1], weights[1]));
            } else {
                add(products);
                add(vmull_s8(codes[1], weights[1]));
            }
        }
    }
}

impl<const PAIRS: bool> Quads for Neon<PAIRS> {
    neon!("neon");

    const ROWS: [usize; 4] = [4, 4, 4, 4];
    const OFFSET: i32 = 128;
    const RANGE: (i16, i16) = (if PAIRS { -127 } else { -128 }, 127);

    /// Inputs 0 and 1 of all columns, then 2 and 3.
    fn place(vectors: usize, vector: usize, lane: usize, k: usize) -> usize {
        (k / 2 * vectors + vector) * 8 + lane * 2 + k % 2
    }

    /// Channels are not interleaved.
    fn channel_place(vector: usize, lane: usize, k: usize) -> usize {
        k * 16 + vector * 4 + lane
    }

    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, codes: uint8x16_t, weights: int8x16_t) -> int32x4_t {
        // SAFETY: see `load_sums`.
        unsafe {
            let codes = vreinterpretq_s8_u8(codes);
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(weights)));
            let high = vpaddlq_s16(vmull_high_s8(codes, weights));
            vaddq_s32(sums, vpaddq_s32(low, high))
        }
    }

    #[inline(always)]
    unsafe fn interleave(taps: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        taps
    }

    #[inline(always)]
    unsafe fn accumulate(sums: &mut [int32x4_t; 4], taps: &[uint8x16_t; 4], weights: *const u8) {
        // SAFETY: see `load_sums`.
        unsafe {
            let [mut a, mut b, mut c, mut d] = *sums;
            for k in [0, 2] {
                let codes = [taps[k], taps[k + 1]].map(|codes| vreinterpretq_s8_u8(codes));
                let weights = [k, k + 1].map(|k| Self::load_weights(weights.add(k * 16)));
                let low = |both: [int8x16_t; 2]| both.map(|codes| vget_low_s8(codes));
                let high = |both: [int8x16_t; 2]| both.map(|codes| vget_high_s8(codes));
                Self::pair(&mut a, &mut b, low(codes), low(weights));
                Self::pair(&mut c, &mut d, high(codes), high(weights));
            }
            *sums = [a, b, c, d];
        }
    }

    #[inline(always)]
    unsafe fn steps<const R: usize, const N: usize>(
        sums: &mut [[int32x4_t; N]; R],
        rows: [*const u8; R],
        lines: *const u8,
        count: usize,
    ) {
        // SAFETY: the caller's promise; each step has a line.
        unsafe {
            let mut step = 0;
            while step < count {
                // Two steps at a time where there are two.
                let two = step + 1 < count;
                let codes = rows.map(|row| {
                    let from = row.add(step * 4);
                    let codes = match two {
                        true => vld1_u8(from),
                        false => {
                            vreinterpret_u8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()))
                        }
                    };
                    vreinterpret_s16_u8(veor_u8(codes, vdup_n_u8(128)))
                });
                let pairs = codes.map(|c| [vdupq_lane_s16::<0>(c), vdupq_lane_s16::<1>(c)]);
                quad(sums, pairs, lines.add(step * Self::line(N)));
                if two {
                    let pairs = codes.map(|c| [vdupq_lane_s16::<2>(c), vdupq_lane_s16::<3>(c)]);
                    quad(sums, pairs, lines.add((step + 1) * Self::line(N)));
                }
                step += 2;
            }
        }
    }
}

/// Adds the products of a quad, whose pairs of codes fill a register each.
#[inline(always)]
unsafe fn quad<const R: usize, const N: usize>(
    sums: &mut [[int32x4_t; N]; R],
    pairs: [[int16x8_t; 2]; R],
    line: *const u8,
) {
    // SAFETY: the caller's promise: the line is that of `N` registers, two of which are loaded at
    // once, but for the last one of an odd number.
    unsafe {
        let load = |at: usize, both: bool| match both {
            true => vld1q_s8(line.add(at * 8).cast()),
            false => vcombine_s8(vld1_s8(line.add(at * 8).cast()), vdup_n_s8(0)),
        };
        for v in (0..N).step_by(2) {
            let both = v + 1 < N;
            let weights = [load(v, both), load(N + v, both)];
            for (sums, pairs) in sums.iter_mut().zip(&pairs) {
                let [a, b] = pairs.map(|pair| vreinterpretq_s8_s16(pair));
                // Exact: these weights are within -127..=127.
                let products = vmull_s8(vget_low_s8(a), vget_low_s8(weights[0]));
                let products = vmlal_s8(products, vget_low_s8(b), vget_low_s8(weights[1]));
                sums[v] = vpadalq_s16(sums[v], products);
                if both {
                    let products = vmlal_high_s8(vmull_high_s8(a, weights[0]), b, weights[1]);
                    sums[v + 1] = vpadalq_s16(sums[v + 1], products);
                }
            }
        }
    }
}

impl Quads for NeonDot {
    neon!("neon,dotprod");

    const ROWS: [usize; 4] = [8, 8, 6, 6];
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn dot(mut sums: int32x4_t, codes: uint8x16_t, weights: int8x16_t) -> int32x4_t {
        // SAFETY: registers only; the CPU has dotprod.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {weights:v}.16b, {codes:v}.16b",
                sums = inout(vreg) sums, weights = in(vreg) weights, codes = in(vreg) codes,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }

    #[inline(always)]
    unsafe fn interleave(taps: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        // SAFETY: every aarch64 has NEON.
        unsafe { zip(taps) }
    }

    #[inline(always)]
    unsafe fn accumulate(sums: &mut [int32x4_t; 4], taps: &[uint8x16_t; 4], weights: *const u8) {
        for v in 0..4 {
            // SAFETY: see `load_sums`.
            unsafe {
                sums[v] = Self::dot(sums[v], taps[v], Self::load_weights(weights.add(v * 16)))
            }
        }
    }

    /// 16 inputs of each pixel are loaded at once, and multiplied by their place in the register.
    #[inline(always)]
    unsafe fn steps<const R: usize, const N: usize>(
        sums: &mut [[int32x4_t; N]; R],
        rows: [*const u8; R],
        lines: *const u8,
        count: usize,
    ) {
        /// Adds the products of quad `LANE`.
        macro_rules! by_lane {
            ($lane:literal, $codes:expr, $line:expr) => {
                for v in 0..N {
                    let weights = Self::load_weights($line.add(v * 16));
                    for (sums, codes) in sums.iter_mut().zip($codes) {
                        asm!(
                            concat!("sdot {sums:v}.4s, {weights:v}.16b, {codes:v}.4b[", $lane, "]"),
                            sums = inout(vreg) sums[v], weights = in(vreg) weights,
                            codes = in(vreg) codes,
                            options(pure, nomem, nostack, preserves_flags)
                        );
                    }
                }
            };
        }
        // SAFETY: the caller's promise; each step has a line.
        unsafe {
            let (mut step, mut line) = (0, lines);
            while step + 4 <= count {
                let codes = rows.map(|row| Self::load(16, |_| row.add(step * 4)));
                by_lane!(0, codes, line);
                by_lane!(1, codes, line.add(N * 16));
                by_lane!(2, codes, line.add(N * 32));
                by_lane!(3, codes, line.add(N * 48));
                line = line.add(N * 64);
                step += 4;
            }
            while step < count {
                let codes = rows.map(|row| Self::broadcast(row.add(step * 4)));
                by_lane!(0, codes, line);
                line = line.add(N * 16);
                step += 1;
            }
        }
    }
}

impl Quads for NeonI8mm {
    neon!("neon,dotprod,i8mm");

    const ROWS: [usize; 4] = [8, 8, 8, 6];
    const STEP: usize = 8;

    /// Eight inputs of two columns fill a register.
    fn place(_: usize, vector: usize, lane: usize, k: usize) -> usize {
        vector * 32 + lane * 8 + k
    }

    #[inline(always)]
    unsafe fn dot(mut sums: int32x4_t, codes: uint8x16_t, weights: int8x16_t) -> int32x4_t {
        // SAFETY: registers only; the CPU has i8mm.
        unsafe {
            asm!(
                "usdot {sums:v}.4s, {codes:v}.16b, {weights:v}.16b",
                sums = inout(vreg) sums, codes = in(vreg) codes, weights = in(vreg) weights,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }

    #[inline(always)]
    unsafe fn interleave(taps: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        // SAFETY: every aarch64 has NEON.
        unsafe { zip(taps) }
    }

    #[inline(always)]
    unsafe fn accumulate(sums: &mut [int32x4_t; 4], taps: &[uint8x16_t; 4], weights: *const u8) {
        for v in 0..4 {
            // SAFETY: see `load_sums`.
            unsafe {
                sums[v] = Self::dot(sums[v], taps[v], Self::load_weights(weights.add(v * 16)))
            }
        }
    }

    /// Sums of two pixels and two columns fill a register, until they are put in order at the end.
    #[inline(always)]
    unsafe fn tile<const R: usize, const N: usize>(input: &TileInput) -> [[int32x4_t; N]; R] {
        // SAFETY: the caller's promise; a panel of `N` registers has as many biases.
        unsafe {
            // Of as many pairs of pixels as there are.
            let mut squares = [[[vdupq_n_s32(0); 2]; N]; R];
            for v in 0..N {
                let bias = vreinterpretq_s64_s32(Self::load_sums(input.bias.add(v * 4)));
                let both = [vdupq_laneq_s64::<0>(bias), vdupq_laneq_s64::<1>(bias)];
                for squares in &mut squares {
                    squares[v] = both.map(|bias| vreinterpretq_s32_s64(bias));
                }
            }
            let mut lines = input.lines;
            for (tap, (offsets, again)) in input.extra.iter().enumerate() {
                let rows = input.rows::<R>(tap, input.offset);
                for step in 0..input.steps {
                    multiply(&mut squares, rows.map(|row| row.add(step * 8)), lines);
                    lines = lines.add(N * 32);
                }
                for (i, &offset) in offsets.iter().enumerate() {
                    let rows = input.rows::<R>(tap, offset as usize);
                    multiply(&mut squares, rows, again.as_ptr().add(i * N * 32));
                }
            }
            let mut sums = [[vdupq_n_s32(0); N]; R];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (sum, both) in sums.iter_mut().zip(&squares[r / 2]) {
                    let [a, b] = both.map(|square| vreinterpretq_s64_s32(square));
                    let row = if r % 2 == 0 { vzip1q_s64(a, b) } else { vzip2q_s64(a, b) };
                    *sum = vreinterpretq_s32_s64(row);
                }
            }
            sums
        }
    }
}

/// Multiplies eight inputs of `R` pixels by a line of `N` registers. The last one of an odd number of
/// pixels is taken twice.
#[inline(always)]
unsafe fn multiply<const R: usize, const N: usize>(
    squares: &mut [[[int32x4_t; 2]; N]; R],
    rows: [*const u8; R],
    line: *const u8,
) {
    // SAFETY: the caller's promise; the CPU has i8mm, whose instruction touches registers only.
    unsafe {
        let mut codes = [vdupq_n_u8(0); R];
        for (pair, codes) in codes.iter_mut().enumerate().take(R.div_ceil(2)) {
            let (first, second) = (rows[pair * 2], rows[(pair * 2 + 1).min(R - 1)]);
            *codes = vcombine_u8(vld1_u8(first), vld1_u8(second));
        }
        for v in 0..N {
            for half in 0..2 {
                let weights = vld1q_s8(line.add(v * 32 + half * 16).cast());
                for (squares, &codes) in squares.iter_mut().zip(&codes).take(R.div_ceil(2)) {
                    asm!(
                        "usmmla {sums:v}.4s, {codes:v}.16b, {weights:v}.16b",
                        sums = inout(vreg) squares[v][half], codes = in(vreg) codes,
                        weights = in(vreg) weights,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
    }
}
