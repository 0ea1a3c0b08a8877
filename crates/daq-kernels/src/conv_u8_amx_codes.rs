//! The sums of a group of tiles on their way to codes: requantized, and those of a residual branch added.

use std::arch::x86_64::*;

use crate::add_u8::Constants;
use crate::conv_u8_amx_tiles::Line;
use crate::requantize::WHOLE;
use crate::requantize::avx512::Requantizer;

/// A row of a group of tiles that is a pixel of the output, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Where its sums are, counted from those of the group.
    pub(crate) sums: usize,
    /// Where its codes go, counted from those of the group's first pixel.
    pub(crate) codes: usize,
}

/// The constants of a panel's channels, in the order in which tiles have their columns.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    pub(crate) columns: usize,
    pub(crate) bias: [Line<i32, 16>; 2],
    pub(crate) multipliers: [Line<f32, 16>; 2],
}

/// 2^23: from here on floats are whole numbers.
const UNITS: f32 = 8_388_608.0;

/// What is added to codes before they are stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Adding {
    pub(crate) constants: Constants,
    /// From the place of a code to that of the one added to it.
    pub(crate) distance: isize,
    /// Whether the product is the first operand.
    pub(crate) product_first: bool,
}

/// The sums of a group of tiles and a panel that are not codes yet: two pixels at a time become some while the
/// next group is multiplied. `SMALL` and `NEAR` are as for [`Requantizer`]; with `ADD` something is added,
/// and `SMALL` says that [`Constants::are_small`].
///
/// While tiles work, vectors have one unit that multiplies, converts and compares, and two that add and move.
///
/// Everything is a value that stays in registers.
#[derive(Clone, Copy)]
pub(crate) struct Waiting<'a, const SMALL: bool, const NEAR: bool, const ADD: bool> {
    pub(crate) pairs: &'a [[Place; 2]],
    requantizer: Requantizer<SMALL, NEAR>,
    zero_point: u8,
    adding: Adding,
    /// The 8 bytes of two pixels' codes in order: the compiler is not to know it, or it makes four
    /// permutations of one.
    order: __m512i,
    /// Where in a pixel's codes those of each vector of sums are.
    others: [__m512i; 2],
    columns: usize,
    bias: [__m512i; 2],
    multipliers: [__m512; 2],
    /// `[row, vector]`.
    sums: *const Line<i32, 16>,
    /// Where the panel's first channel of the group's first pixel goes.
    output: *mut u8,
}

impl<'a, const SMALL: bool, const NEAR: bool, const ADD: bool> Waiting<'a, SMALL, NEAR, ADD> {
    /// Nothing yet.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    pub(crate) fn none(zero_point: u8, adding: Adding) -> Self {
        Waiting {
            pairs: &[],
            requantizer: Requantizer::new(zero_point),
            zero_point,
            adding,
            order: std::hint::black_box(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7)),
            others: [0, 1].map(|vector| {
                let place = |slot: i32| slot / 4 * 8 + vector * 4 + slot % 4;
                let places: [i32; 16] = std::array::from_fn(|slot| place(slot as i32));
                // SAFETY: there are 64 bytes.
                unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }
            }),
            columns: 0,
            bias: [_mm512_setzero_si512(); 2],
            multipliers: [_mm512_setzero_ps(); 2],
            sums: std::ptr::null(),
            output: std::ptr::null_mut(),
        }
    }

    /// The same of the pixels of another group and the channels of another panel, whose first one is at
    /// `output`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    #[inline]
    pub(crate) fn of(
        self,
        pairs: &'a [[Place; 2]],
        channels: &Channels,
        sums: *const Line<i32, 16>,
        output: *mut u8,
    ) -> Self {
        // SAFETY: a line is 64 bytes.
        let (bias, multipliers) = unsafe {
            let bias = |v: usize| _mm512_load_si512(channels.bias[v].0.as_ptr().cast());
            let multipliers = |v: usize| _mm512_load_ps(channels.multipliers[v].0.as_ptr());
            ([bias(0), bias(1)], [multipliers(0), multipliers(1)])
        };
        Waiting { columns: channels.columns, bias, multipliers, sums, pairs, output, ..self }
    }

    /// Requantizes and stores pixels, two by two.
    ///
    /// # Safety
    ///
    /// This CPU has AVX-512; the sums are those of the pixels, whose codes can be written, and the codes to add
    /// be read. What is added meets panels of more than 16 channels only.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    #[inline]
    pub(crate) unsafe fn store(&self, pairs: &[[Place; 2]]) {
        // SAFETY: by the caller.
        unsafe {
            match self.columns {
                32 => pairs.iter().for_each(|pair| self.store_two::<true>(pair)),
                17.. => pairs.iter().for_each(|pair| self.store_two::<false>(pair)),
                _ => pairs.iter().flatten().for_each(|place| self.store_one(place)),
            }
        }
    }

    /// # Safety
    ///
    /// As for [`Waiting::store`], of at most 16 channels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    #[inline]
    unsafe fn store_one(&self, place: &Place) {
        let mask = ((1u32 << self.columns) - 1) as u16;
        let (sums, to) = self.at(place);
        // SAFETY: by the caller; no more than the panel's columns is written.
        unsafe {
            let codes = self.requantizer.one(self.load(sums, 0), self.multipliers[0]);
            _mm_mask_storeu_epi8(to.cast(), mask, codes);
        }
    }

    /// The sums of a pixel, and where its codes go.
    #[inline]
    fn at(&self, place: &Place) -> (*const __m512i, *mut u8) {
        (self.sums.wrapping_byte_add(place.sums).cast(), self.output.wrapping_add(place.codes))
    }

    /// Some of a pixel's sums.
    ///
    /// # Safety
    ///
    /// As for [`Waiting::store`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    #[inline]
    unsafe fn load(&self, sums: *const __m512i, vector: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_add_epi32(_mm512_load_si512(sums.add(vector)), self.bias[vector]) }
    }

    /// # Safety
    ///
    /// As for [`Waiting::store`], of 32 channels, `ALL` that a panel may have, or more than 16.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    #[inline]
    unsafe fn store_two<const ALL: bool>(&self, [place, next]: &[Place; 2]) {
        let ((sums, to), (next_sums, next)) = (self.at(place), self.at(next));
        let mask = ((1u64 << self.columns) - 1) as u32;
        // SAFETY: by the caller; no more than the panel's columns is read or written.
        unsafe {
            let codes = match ADD {
                true => {
                    let other = |to: *mut u8| {
                        let from = to.wrapping_offset(self.adding.distance);
                        match ALL {
                            true => _mm256_loadu_si256(from.cast()),
                            false => _mm256_maskz_loadu_epi8(mask, from.cast()),
                        }
                    };
                    let words = self.added(sums, other(to));
                    _mm512_packus_epi16(words, self.added(next_sums, other(next)))
                }
                false => {
                    let acc = [
                        self.load(sums, 0),
                        self.load(sums, 1),
                        self.load(next_sums, 0),
                        self.load(next_sums, 1),
                    ];
                    let m = self.multipliers;
                    self.requantizer.four(acc, [m[0], m[1], m[0], m[1]])
                }
            };
            // A pixel's codes are every other 8 bytes of those of two.
            let codes = _mm512_permutexvar_epi64(self.order, codes);
            let (codes, next_codes) =
                (_mm512_castsi512_si256(codes), _mm512_extracti64x4_epi64::<1>(codes));
            match ALL {
                true => {
                    _mm256_storeu_si256(to.cast(), codes);
                    _mm256_storeu_si256(next.cast(), next_codes);
                }
                false => {
                    _mm256_mask_storeu_epi8(to.cast(), mask, codes);
                    _mm256_mask_storeu_epi8(next.cast(), mask, next_codes);
                }
            }
        }
    }

    /// The sums of a pixel as codes with others added, as words that are yet to be clamped at 0: within each
    /// 128 bits eight channels.
    ///
    /// # Safety
    ///
    /// As for [`Waiting::store`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    #[inline]
    unsafe fn added(&self, sums: *const __m512i, other: __m256i) -> __m512i {
        let Adding { constants, product_first, .. } = self.adding;
        let zero_point = f32::from(self.zero_point);
        let set = |x| _mm512_set1_ps(x);
        // As bits of floats from 2^23 on.
        let other = _mm512_castsi256_si512(other);
        let others = self.others.map(|places| {
            let bits = _mm512_set1_epi32(UNITS.to_bits() as i32);
            _mm512_mask_permutexvar_epi8(bits, 0x1111_1111_1111_1111, places, other)
        });
        let sum = |v: usize| {
            // SAFETY: by the caller.
            let acc = unsafe { self.load(sums, v) };
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), self.multipliers[v]);
            // NaN, of an infinite multiplier, becomes the lowest code.
            let scaled =
                _mm512_min_ps(_mm512_max_ps(scaled, set(-zero_point)), set(255.0 - zero_point));
            // Rounds, see `round_small`, and moves by the zero point, which is exact.
            let code = _mm512_sub_ps(_mm512_add_ps(scaled, set(WHOLE)), set(WHOLE - zero_point));
            let other = _mm512_sub_ps(_mm512_castsi512_ps(others[v]), set(UNITS));
            let (a, b) = if product_first { (code, other) } else { (other, code) };
            let sum = _mm512_fmadd_ps(b, set(constants.b_ratio), set(constants.offset));
            let sum = _mm512_fmadd_ps(a, set(constants.a_ratio), sum);
            _mm512_cvtps_epi32(if SMALL { sum } else { _mm512_min_ps(set(255.0), sum) })
        };
        _mm512_packs_epi32(sum(0), sum(1))
    }
}
