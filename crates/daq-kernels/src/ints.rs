//! Vectors of integers, so that an exact kernel is written once for registers of every width.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use std::arch::wasm32::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::quads::Quads;
#[cfg(target_arch = "aarch64")]
use crate::quads_neon::Neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use crate::quads_wasm::Simd128;
#[cfg(target_arch = "x86_64")]
use crate::quads_x86::Sse41;
#[cfg(target_arch = "x86_64")]
use crate::requantize::{avx2, avx512};
use crate::vector_f32::Work;

/// A register of integers on a CPU that is known to have it.
///
/// # Safety
///
/// All functions need the CPU to have the instruction set; pointers must be good for what is read
/// or written.
pub(crate) trait Ints: Copy + Send + Sync + 'static {
    /// 32-bit numbers of a vector.
    const LANES: usize;
    /// Vectors of a panel of output channels, at most 4.
    const VECTORS: usize;

    /// The column of a panel that a lane of one of its vectors holds.
    fn column(vector: usize, lane: usize) -> usize {
        vector * Self::LANES + lane
    }
    /// Where [`Ints::multiply_add`] wants number `k` of the pair of a lane in `b`.
    fn place(lane: usize, k: usize) -> usize {
        lane * 2 + k
    }
    /// `2 * LANES` codes, or 16 if there are no more, as 16-bit numbers.
    unsafe fn load_codes(from: *const u8, codes: usize) -> Self;
    /// Two 16-bit numbers in all lanes.
    unsafe fn pair(from: *const i16) -> Self;
    unsafe fn zero() -> Self;
    unsafe fn splat32(value: i32) -> Self;
    unsafe fn add16(self, other: Self) -> Self;
    unsafe fn sub16(self, other: Self) -> Self;
    unsafe fn times4_16(self) -> Self;
    /// Adds the products of pairs of 16-bit numbers; `a` is a [`Ints::pair`].
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;
    unsafe fn add32(self, other: Self) -> Self;
    unsafe fn sub32(self, other: Self) -> Self;
    unsafe fn times4_32(self) -> Self;
    unsafe fn times8_32(self) -> Self;
    unsafe fn multiply32(self, other: Self) -> Self;
    unsafe fn shift_right6(self) -> Self;
    /// Requantizes `VECTORS` vectors of sums and stores the first `columns` codes.
    unsafe fn store_codes(
        sums: *const Self,
        multipliers: *const f32,
        zero_point: u8,
        to: *mut u8,
        columns: usize,
        small: bool,
    );
    /// Does the work in a function compiled for the instruction set.
    unsafe fn run(work: impl Work);
}

/// Functions of [`Ints`], each an expression of what it takes.
#[allow(unused_macros, reason = "some targets have no such registers")]
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) => $body:expr;)*) => {$(
        #[inline(always)]
        #[allow(unused_unsafe, reason = "WebAssembly's vectors are always there")]
        unsafe fn $name($($argument: $type),*) -> Self {
            // SAFETY: as the trait says.
            unsafe { $body }
        }
    )*};
}

/// What registers of four lanes leave to [`Quads`].
#[allow(unused_macros, reason = "some targets have no such registers")]
macro_rules! as_quads {
    ($quads:ty) => {
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn store_codes(
            sums: *const Self,
            multipliers: *const f32,
            zero_point: u8,
            to: *mut u8,
            columns: usize,
            small: bool,
        ) {
            // SAFETY: as the trait says.
            unsafe {
                let sums = std::slice::from_raw_parts(sums, Self::VECTORS);
                store_quads::<$quads>(sums, multipliers, zero_point, to, columns, small)
            }
        }

        #[inline(always)]
        unsafe fn run(work: impl Work) {
            // SAFETY: the caller's promise.
            unsafe { <$quads>::run(work) }
        }
    };
}

/// [`Ints::store_codes`] of some registers of four lanes.
///
/// # Safety
///
/// As there.
#[inline(always)]
unsafe fn store_quads<Q: Quads>(
    sums: &[Q::Sums],
    multipliers: *const f32,
    zero_point: u8,
    to: *mut u8,
    columns: usize,
    small: bool,
) {
    // SAFETY: by the caller; 16 codes fill a register.
    unsafe {
        // Registers that the panel lacks repeat others.
        let m = [0, 1, 2, 3].map(|v| Q::load_floats(multipliers.add(v % sums.len() * 4)));
        let all = [0, 1, 2, 3].map(|v| sums[v % sums.len()]);
        let codes = match small {
            true => Q::requantize::<true>(all, m, zero_point),
            false => Q::requantize::<false>(all, m, zero_point),
        };
        if sums.len() == 4 && columns >= 16 {
            return Q::store(codes, to);
        }
        let mut bytes = [0u8; 16];
        Q::store(codes, bytes.as_mut_ptr());
        match columns {
            8.. if sums.len() == 2 => std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, 8),
            _ => std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, columns),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Ints for __m128i {
    // Those of six tiles leave four of the registers.
    const VECTORS: usize = 2;

    functions! {
        load_codes(from: *const u8, _codes: usize) => _mm_cvtepu8_epi16(_mm_loadl_epi64(from.cast()));
        pair(from: *const i16) => _mm_set1_epi32(from.cast::<i32>().read_unaligned());
        zero() => _mm_setzero_si128();
        splat32(value: i32) => _mm_set1_epi32(value);
        add16(self: Self, other: Self) => _mm_add_epi16(self, other);
        sub16(self: Self, other: Self) => _mm_sub_epi16(self, other);
        times4_16(self: Self) => _mm_slli_epi16::<2>(self);
        multiply_add(self: Self, a: Self, b: Self) => _mm_add_epi32(self, _mm_madd_epi16(a, b));
        add32(self: Self, other: Self) => _mm_add_epi32(self, other);
        sub32(self: Self, other: Self) => _mm_sub_epi32(self, other);
        times4_32(self: Self) => _mm_slli_epi32::<2>(self);
        times8_32(self: Self) => _mm_slli_epi32::<3>(self);
        multiply32(self: Self, other: Self) => _mm_mullo_epi32(self, other);
        shift_right6(self: Self) => _mm_srai_epi32::<6>(self);
    }
    as_quads!(Sse41);
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Ints for v128 {
    // What becomes of them is mostly SSE.
    const VECTORS: usize = 2;

    functions! {
        load_codes(from: *const u8, _codes: usize) => u16x8_load_extend_u8x8(from);
        pair(from: *const i16) => v128_load32_splat(from.cast());
        zero() => i32x4_splat(0);
        splat32(value: i32) => i32x4_splat(value);
        add16(self: Self, other: Self) => i16x8_add(self, other);
        sub16(self: Self, other: Self) => i16x8_sub(self, other);
        times4_16(self: Self) => i16x8_shl(self, 2);
        multiply_add(self: Self, a: Self, b: Self) => i32x4_add(self, i32x4_dot_i16x8(a, b));
        add32(self: Self, other: Self) => i32x4_add(self, other);
        sub32(self: Self, other: Self) => i32x4_sub(self, other);
        times4_32(self: Self) => i32x4_shl(self, 2);
        times8_32(self: Self) => i32x4_shl(self, 3);
        multiply32(self: Self, other: Self) => i32x4_mul(self, other);
        shift_right6(self: Self) => i32x4_shr(self, 6);
    }
    as_quads!(Simd128);
}

#[cfg(target_arch = "aarch64")]
impl Ints for int32x4_t {
    const VECTORS: usize = 4;

    /// `smlal` takes the first halves of four pairs, `smlal2` the second ones.
    fn place(lane: usize, k: usize) -> usize {
        k * 4 + lane
    }

    functions! {
        load_codes(from: *const u8, _codes: usize) => vreinterpretq_s32_u16(vmovl_u8(vld1_u8(from)));
        pair(from: *const i16) => vdupq_n_s32(from.cast::<i32>().read_unaligned());
        zero() => vdupq_n_s32(0);
        splat32(value: i32) => vdupq_n_s32(value);
        add16(self: Self, other: Self) => of_words(vaddq_s16(words(self), words(other)));
        sub16(self: Self, other: Self) => of_words(vsubq_s16(words(self), words(other)));
        times4_16(self: Self) => of_words(vshlq_n_s16::<2>(words(self)));
        multiply_add(self: Self, a: Self, b: Self) => {
            let (pair, b) = (vget_low_s16(words(a)), words(b));
            let sum = vmlal_lane_s16::<0>(self, vget_low_s16(b), pair);
            vmlal_high_lane_s16::<1>(sum, b, pair)
        };
        add32(self: Self, other: Self) => vaddq_s32(self, other);
        sub32(self: Self, other: Self) => vsubq_s32(self, other);
        times4_32(self: Self) => vshlq_n_s32::<2>(self);
        times8_32(self: Self) => vshlq_n_s32::<3>(self);
        multiply32(self: Self, other: Self) => vmulq_s32(self, other);
        shift_right6(self: Self) => vshrq_n_s32::<6>(self);
    }
    as_quads!(Neon<true>);
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn words(v: int32x4_t) -> int16x8_t {
    // SAFETY: every aarch64 has NEON.
    unsafe { vreinterpretq_s16_s32(v) }
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn of_words(v: int16x8_t) -> int32x4_t {
    // SAFETY: every aarch64 has NEON.
    unsafe { vreinterpretq_s32_s16(v) }
}

#[cfg(target_arch = "x86_64")]
impl Ints for __m256i {
    const LANES: usize = 8;
    const VECTORS: usize = 2;

    functions! {
        load_codes(from: *const u8, _codes: usize) => _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()));
        pair(from: *const i16) => _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
        zero() => _mm256_setzero_si256();
        splat32(value: i32) => _mm256_set1_epi32(value);
        add16(self: Self, other: Self) => _mm256_add_epi16(self, other);
        sub16(self: Self, other: Self) => _mm256_sub_epi16(self, other);
        times4_16(self: Self) => _mm256_slli_epi16::<2>(self);
        multiply_add(self: Self, a: Self, b: Self) => _mm256_add_epi32(self, _mm256_madd_epi16(a, b));
        add32(self: Self, other: Self) => _mm256_add_epi32(self, other);
        sub32(self: Self, other: Self) => _mm256_sub_epi32(self, other);
        times4_32(self: Self) => _mm256_slli_epi32::<2>(self);
        times8_32(self: Self) => _mm256_slli_epi32::<3>(self);
        multiply32(self: Self, other: Self) => _mm256_mullo_epi32(self, other);
        shift_right6(self: Self) => _mm256_srai_epi32::<6>(self);
    }

    #[inline(always)]
    unsafe fn store_codes(
        sums: *const Self,
        multipliers: *const f32,
        zero_point: u8,
        to: *mut u8,
        columns: usize,
        small: bool,
    ) {
        // SAFETY: as the trait says.
        unsafe {
            let m = [_mm256_loadu_ps(multipliers), _mm256_loadu_ps(multipliers.add(8))];
            let sums = [sums.read(), sums.add(1).read()];
            let codes = match small {
                true => avx2::Requantizer::<true>::new(zero_point).one_row(sums, m),
                false => avx2::Requantizer::<false>::new(zero_point).one_row(sums, m),
            };
            crate::conv_u8_tile::store(codes, to, columns);
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}

#[cfg(target_arch = "x86_64")]
impl Ints for __m512i {
    const LANES: usize = 16;
    const VECTORS: usize = 4;

    fn column(vector: usize, lane: usize) -> usize {
        // As `Requantizer::four` orders them.
        lane / 4 * 16 + vector * 4 + lane % 4
    }

    functions! {
        load_codes(from: *const u8, codes: usize) => {
            let codes = match codes {
                32.. => _mm256_loadu_si256(from.cast()),
                _ => _mm256_zextsi128_si256(_mm_loadu_si128(from.cast())),
            };
            _mm512_cvtepu8_epi16(codes)
        };
        pair(from: *const i16) => _mm512_set1_epi32(from.cast::<i32>().read_unaligned());
        zero() => _mm512_setzero_si512();
        splat32(value: i32) => _mm512_set1_epi32(value);
        add16(self: Self, other: Self) => _mm512_add_epi16(self, other);
        sub16(self: Self, other: Self) => _mm512_sub_epi16(self, other);
        times4_16(self: Self) => _mm512_slli_epi16::<2>(self);
        // `vpdpwssd` wraps, as the sum may.
        multiply_add(self: Self, a: Self, b: Self) => _mm512_dpwssd_epi32(self, a, b);
        add32(self: Self, other: Self) => _mm512_add_epi32(self, other);
        sub32(self: Self, other: Self) => _mm512_sub_epi32(self, other);
        times4_32(self: Self) => _mm512_slli_epi32::<2>(self);
        times8_32(self: Self) => _mm512_slli_epi32::<3>(self);
        multiply32(self: Self, other: Self) => _mm512_mullo_epi32(self, other);
        shift_right6(self: Self) => _mm512_srai_epi32::<6>(self);
    }

    #[inline(always)]
    unsafe fn store_codes(
        sums: *const Self,
        multipliers: *const f32,
        zero_point: u8,
        to: *mut u8,
        columns: usize,
        small: bool,
    ) {
        // SAFETY: as the trait says.
        unsafe {
            let acc = [sums.read(), sums.add(1).read(), sums.add(2).read(), sums.add(3).read()];
            let m = [0, 16, 32, 48].map(|at| _mm512_loadu_ps(multipliers.add(at)));
            let codes = match small {
                true => avx512::Requantizer::<true>::new(zero_point).four(acc, m),
                false => avx512::Requantizer::<false>::new(zero_point).four(acc, m),
            };
            match columns {
                64.. => _mm512_storeu_si512(to.cast(), codes),
                _ => _mm512_mask_storeu_epi8(to.cast(), (1 << columns) - 1, codes),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}
