//! Vectors of integers, so that an exact kernel is written once for registers of every width.

use std::arch::x86_64::*;

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
    fn column(vector: usize, lane: usize) -> usize;
    /// `2 * LANES` codes, or 16 if there are no more, as 16-bit numbers.
    unsafe fn load_codes(from: *const u8, codes: usize) -> Self;
    /// Two 16-bit numbers in all lanes.
    unsafe fn pair(from: *const i16) -> Self;
    unsafe fn zero() -> Self;
    unsafe fn splat32(value: i32) -> Self;
    unsafe fn add16(self, other: Self) -> Self;
    unsafe fn sub16(self, other: Self) -> Self;
    unsafe fn times4_16(self) -> Self;
    /// Adds the products of pairs of 16-bit numbers.
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;
    unsafe fn add32(self, other: Self) -> Self;
    unsafe fn sub32(self, other: Self) -> Self;
    unsafe fn shift_left<const N: i32, const N_UNSIGNED: u32>(self) -> Self;
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

impl Ints for __m256i {
    const LANES: usize = 8;
    const VECTORS: usize = 2;

    fn column(vector: usize, lane: usize) -> usize {
        vector * 8 + lane
    }

    #[inline(always)]
    unsafe fn load_codes(from: *const u8, _: usize) -> Self {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn pair(from: *const i16) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn splat32(value: i32) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn add16(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_add_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn sub16(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_sub_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn times4_16(self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_slli_epi16::<2>(self) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_add_epi32(self, _mm256_madd_epi16(a, b)) }
    }

    #[inline(always)]
    unsafe fn add32(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_add_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn sub32(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_sub_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn shift_left<const N: i32, const N_UNSIGNED: u32>(self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_slli_epi32::<N>(self) }
    }

    #[inline(always)]
    unsafe fn multiply32(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_mullo_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn shift_right6(self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm256_srai_epi32::<6>(self) }
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
        // SAFETY: see `load_codes`.
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

impl Ints for __m512i {
    const LANES: usize = 16;
    const VECTORS: usize = 4;

    fn column(vector: usize, lane: usize) -> usize {
        // As `Requantizer::four` orders them.
        lane / 4 * 16 + vector * 4 + lane % 4
    }

    #[inline(always)]
    unsafe fn load_codes(from: *const u8, codes: usize) -> Self {
        // SAFETY: as the trait says; so in all functions below.
        unsafe {
            let codes = match codes {
                32.. => _mm256_loadu_si256(from.cast()),
                _ => _mm256_zextsi128_si256(_mm_loadu_si128(from.cast())),
            };
            _mm512_cvtepu8_epi16(codes)
        }
    }

    #[inline(always)]
    unsafe fn pair(from: *const i16) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn splat32(value: i32) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn add16(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_add_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn sub16(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_sub_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn times4_16(self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_slli_epi16::<2>(self) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: see `load_codes`. `vpdpwssd` wraps, as the sum may.
        unsafe { _mm512_dpwssd_epi32(self, a, b) }
    }

    #[inline(always)]
    unsafe fn add32(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_add_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn sub32(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_sub_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn shift_left<const N: i32, const N_UNSIGNED: u32>(self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_slli_epi32::<N_UNSIGNED>(self) }
    }

    #[inline(always)]
    unsafe fn multiply32(self, other: Self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_mullo_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn shift_right6(self) -> Self {
        // SAFETY: see `load_codes`.
        unsafe { _mm512_srai_epi32::<6>(self) }
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
        // SAFETY: see `load_codes`.
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
