//! The one rule that turns a 32-bit accumulator into an 8-bit code.
//!
//! Convolution, matrix product, multiplication and average pooling all end here, so that a kernel
//! of one family can never round differently from another's.

/// Turns the accumulator `acc` into a code: `acc` as f32 times `multiplier`, clamped to the range
/// of codes, rounded with ties to even, plus the zero point.
///
/// `multiplier` is finite and positive. The conversion to f32 and the multiplication round
/// separately: a fused operation would change the last bit.
#[inline]
pub fn requantize(acc: i32, multiplier: f32, zero_point: u8) -> u8 {
    let zero_point = f32::from(zero_point);
    let scaled = (acc as f32 * multiplier).clamp(-zero_point, 255.0 - zero_point);
    // Both terms are whole numbers below 256, so the sum is exact and within 0..=255.
    (round_small(scaled) + zero_point) as u8
}

/// 1.5 * 2^23.
pub(crate) const WHOLE: f32 = 12_582_912.0;

/// Rounds a value of magnitude below 2^22 to the nearest whole number, ties to even.
///
/// At 1.5 * 2^23 neighbouring floats are 1 apart, so the addition itself rounds. Unlike
/// `f32::round_ties_even` this needs no instruction that an old CPU lacks, and vectorises.
#[inline]
pub(crate) fn round_small(x: f32) -> f32 {
    (x + WHOLE) - WHOLE
}

/// Multipliers below this keep every 32-bit accumulator within 32 bits.
pub(crate) const SMALL: f32 = 0.99;

/// Below this a code has room for a zero point in 16 bits.
pub(crate) const NEAR: f32 = 32_000.0;

/// The same rule, eight accumulators at a time.
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2 {
    use std::arch::x86_64::*;

    /// What the vector form needs of the zero point, made once per call of a kernel.
    ///
    /// With `SMALL` every multiplier is below [`SMALL`](super::SMALL): products fit 32 bits, and the
    /// packings, which saturate, are clamp enough.
    #[derive(Clone, Copy)]
    pub(crate) struct Requantizer<const SMALL: bool = false> {
        high: __m256,
        zero_point: __m256i,
    }

    impl<const SMALL: bool> Requantizer<SMALL> {
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        pub(crate) fn new(zero_point: u8) -> Self {
            Requantizer {
                high: _mm256_set1_ps(255.0 - f32::from(zero_point)),
                zero_point: _mm256_set1_epi16(i16::from(zero_point)),
            }
        }

        /// Scaled and rounded, not yet moved by the zero point.
        ///
        /// Only the upper bound is clamped here: below, the conversion yields at worst `i32::MIN`,
        /// which the packing saturates to -32768, the addition of the zero point leaves negative,
        /// and the second packing turns into 0, the code that clamping would have given. A NaN, of
        /// an infinite multiplier, stays one (the order of operands matters) and ends as 0 too.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        fn scale(self, acc: __m256i, multiplier: __m256) -> __m256i {
            let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(acc), multiplier);
            match SMALL {
                true => _mm256_cvtps_epi32(scaled),
                false => _mm256_cvtps_epi32(_mm256_min_ps(self.high, scaled)),
            }
        }

        /// Columns 0..16 of two rows: the low half of the result is row 0, the high half row 1.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        pub(crate) fn two_rows(
            self,
            row0: [__m256i; 2],
            row1: [__m256i; 2],
            multiplier: [__m256; 2],
        ) -> __m256i {
            let pack = |row: [__m256i; 2]| {
                let words = _mm256_packs_epi32(
                    self.scale(row[0], multiplier[0]),
                    self.scale(row[1], multiplier[1]),
                );
                _mm256_adds_epi16(words, self.zero_point)
            };
            let bytes = _mm256_packus_epi16(pack(row0), pack(row1));
            // The packings work within 128-bit halves; this puts the columns back in order.
            _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
        }

        /// 16 values of which `low` holds 0..4 and 8..12, `high` the others, as
        /// `vpunpcklwd` and `vpunpckhwd` leave them.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        pub(crate) fn unpacked(self, low: __m256i, high: __m256i, multiplier: __m256) -> __m128i {
            let words =
                _mm256_packs_epi32(self.scale(low, multiplier), self.scale(high, multiplier));
            let words = _mm256_adds_epi16(words, self.zero_point);
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        }

        /// 32 values: within each 128-bit half, `acc[0]` holds the even and `acc[1]` the odd ones
        /// of the half's first 8, `acc[2]` and `acc[3]` those of its last 8.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        pub(crate) fn even_and_odd(self, acc: [__m256i; 4], multiplier: [__m256; 4]) -> __m256i {
            let pack = |low: usize, high: usize| {
                let words = _mm256_packs_epi32(
                    self.scale(acc[low], multiplier[low]),
                    self.scale(acc[high], multiplier[high]),
                );
                _mm256_adds_epi16(words, self.zero_point)
            };
            let bytes = _mm256_packus_epi16(pack(0, 2), pack(1, 3));
            let order = _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
            _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order))
        }

        /// 32 values. Slot `s` of vector `v` becomes byte `s / 4 * 16 + v * 4 + s % 4`.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        pub(crate) fn four(self, acc: [__m256i; 4], multiplier: [__m256; 4]) -> __m256i {
            let pack = |low: usize, high: usize| {
                let words = _mm256_packs_epi32(
                    self.scale(acc[low], multiplier[low]),
                    self.scale(acc[high], multiplier[high]),
                );
                _mm256_adds_epi16(words, self.zero_point)
            };
            _mm256_packus_epi16(pack(0, 1), pack(2, 3))
        }

        /// Columns 0..16 of one row.
        #[target_feature(enable = "avx2,fma")]
        #[inline]
        pub(crate) fn one_row(self, row: [__m256i; 2], multiplier: [__m256; 2]) -> __m128i {
            _mm256_castsi256_si128(self.two_rows(row, row, multiplier))
        }
    }
}

/// The same rule, sixteen accumulators at a time.
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512 {
    use std::arch::x86_64::*;

    /// What the vector form needs of the zero point, made once per call of a kernel.
    ///
    /// `SMALL` is as in [`super::avx2`]. `NEAR` says more, that of no accumulator the code is farther from 0 than
    /// [`NEAR`](super::NEAR) before it is clamped: then no zero point makes it overflow 16 bits, and an addition
    /// that does not saturate will do, for which a CPU has more units.
    #[derive(Clone, Copy)]
    pub(crate) struct Requantizer<const SMALL: bool, const NEAR: bool = false> {
        high: __m512,
        zero_point: __m512i,
    }

    impl<const SMALL: bool, const NEAR: bool> Requantizer<SMALL, NEAR> {
        #[target_feature(enable = "avx512f,avx512bw")]
        #[inline]
        pub(crate) fn new(zero_point: u8) -> Self {
            Requantizer {
                high: _mm512_set1_ps(255.0 - f32::from(zero_point)),
                zero_point: _mm512_set1_epi16(i16::from(zero_point)),
            }
        }

        /// Scaled and rounded, not yet moved by the zero point; below the range of codes as in
        /// [`super::avx2`], every step after this one saturates.
        #[target_feature(enable = "avx512f,avx512bw")]
        #[inline]
        fn scale(self, acc: __m512i, multiplier: __m512) -> __m512i {
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
            match SMALL {
                true => _mm512_cvtps_epi32(scaled),
                false => _mm512_cvtps_epi32(_mm512_min_ps(self.high, scaled)),
            }
        }

        /// Two vectors as words, moved by the zero point: within each 128 bits four of the first
        /// one, then four of the second.
        #[target_feature(enable = "avx512f,avx512bw")]
        #[inline]
        fn words(self, acc: [__m512i; 2], multiplier: [__m512; 2]) -> __m512i {
            let low = self.scale(acc[0], multiplier[0]);
            let high = self.scale(acc[1], multiplier[1]);
            let words = _mm512_packs_epi32(low, high);
            match NEAR {
                true => _mm512_add_epi16(words, self.zero_point),
                false => _mm512_adds_epi16(words, self.zero_point),
            }
        }

        /// 64 values. Slot `s` of vector `v` becomes byte `s / 4 * 16 + v * 4 + s % 4`, which undoes
        /// what `vpunpck` does to bytes.
        #[target_feature(enable = "avx512f,avx512bw")]
        #[inline]
        pub(crate) fn four(self, acc: [__m512i; 4], multiplier: [__m512; 4]) -> __m512i {
            let low = self.words([acc[0], acc[1]], [multiplier[0], multiplier[1]]);
            let high = self.words([acc[2], acc[3]], [multiplier[2], multiplier[3]]);
            _mm512_packus_epi16(low, high)
        }

        /// 32 values. Slot `s` of vector `v` becomes byte `s / 4 * 8 + v * 4 + s % 4`.
        #[target_feature(enable = "avx512f,avx512bw")]
        #[inline]
        pub(crate) fn two(self, acc: [__m512i; 2], multiplier: [__m512; 2]) -> __m256i {
            let words = self.words(acc, multiplier);
            _mm512_cvtusepi16_epi8(_mm512_max_epi16(words, _mm512_setzero_si512()))
        }

        /// 16 values in order.
        #[target_feature(enable = "avx512f,avx512bw")]
        #[inline]
        pub(crate) fn one(self, acc: __m512i, multiplier: __m512) -> __m128i {
            let words = _mm512_cvtsepi32_epi16(self.scale(acc, multiplier));
            let words = _mm256_adds_epi16(words, _mm512_castsi512_si256(self.zero_point));
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{requantize, round_small};

    #[test]
    fn rounds_as_the_library_does() {
        for i in -1300..1300 {
            for x in [i as f32 * 0.25, (i as f32 * 0.5).next_up(), (i as f32 * 0.5).next_down()] {
                assert_eq!(round_small(x), x.round_ties_even(), "{x}");
            }
        }
    }

    #[test]
    fn numbers_worked_out_by_hand() {
        for (acc, multiplier, zero_point, code) in [
            (0, 1.0, 7, 7),
            (1, 0.5, 0, 0),
            (3, 0.5, 0, 2),
            (5, 0.5, 0, 2),
            (-1, 0.5, 10, 10),
            (-3, 0.5, 10, 8),
            // Ties are settled before the zero point is added: 2.5 -> 2, and 2 + 3 = 5.
            (5, 0.5, 3, 5),
            (1000, 1.0, 128, 255),
            (-1000, 1.0, 128, 0),
            (i32::MAX, 1.0e30, 1, 255),
            (i32::MIN, 1.0e30, 1, 0),
            (i32::MIN, 1.0e-9, 9, 7),
            // 16777217 has no f32; the conversion gives 16777216, so 4.5 of 2^-22 * 1.125 is a tie.
            (16_777_217, 1.125 / 4_194_304.0, 0, 4),
        ] {
            assert_eq!(requantize(acc, multiplier, zero_point), code, "{acc} * {multiplier}");
        }
    }

    /// Accumulators and multipliers at which roundings, ties and saturation may differ.
    pub(crate) fn each_edge(check: impl Fn(&[i32; 64], f32, u8)) {
        let mut accs = vec![i32::MIN, i32::MIN + 1, i32::MAX, i32::MAX - 1];
        accs.extend(-700..700);
        accs.extend((0..31).flat_map(|bit| [-1, 0, 1].map(|by| (1i32 << bit) + by)));
        accs.extend((0..31).flat_map(|bit| [-1, 0, 1].map(|by| -(1i32 << bit) + by)));
        let multipliers = [
            0.5,
            0.25,
            0.98999995,
            1.0,
            1.5,
            0.1,
            1.0 / 3.0,
            1e-30,
            1e30,
            f32::MAX,
            1.0e-9,
            f32::INFINITY,
        ];
        for zero_point in [0, 1, 127, 128, 254, 255] {
            for multiplier in multipliers {
                for chunk in accs.chunks(64) {
                    let mut block = [0; 64];
                    block[..chunk.len()].copy_from_slice(chunk);
                    check(&block, multiplier, zero_point);
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn avx512_equals_scalar() {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx512f,avx512bw")]
        fn vector<const SMALL: bool>(
            acc: &[i32; 64],
            multiplier: f32,
            zero_point: u8,
        ) -> [[u8; 64]; 3] {
            let mut out = [[0; 64]; 3];
            let requantizer = super::avx512::Requantizer::<SMALL>::new(zero_point);
            let m = _mm512_set1_ps(multiplier);
            // SAFETY: every access is of 16 to 64 bytes inside the arrays.
            unsafe {
                let load = |at: usize| _mm512_loadu_si512(acc.as_ptr().add(at).cast());
                let four = requantizer.four([load(0), load(16), load(32), load(48)], [m; 4]);
                _mm512_storeu_si512(out[0].as_mut_ptr().cast(), four);
                for half in 0..2 {
                    let two = requantizer.two([load(half * 32), load(half * 32 + 16)], [m; 2]);
                    _mm256_storeu_si256(out[1].as_mut_ptr().add(half * 32).cast(), two);
                }
                for at in (0..64).step_by(16) {
                    let one = requantizer.one(load(at), m);
                    _mm_storeu_si128(out[2].as_mut_ptr().add(at).cast(), one);
                }
            }
            out
        }

        if !crate::Isa::Avx512.is_supported() {
            println!("skipped: this CPU has no AVX-512");
            return;
        }
        each_edge(|acc, multiplier, zero_point| {
            // SAFETY: AVX-512 was checked above.
            let got = unsafe {
                match multiplier < super::SMALL {
                    true => vector::<true>(acc, multiplier, zero_point),
                    false => vector::<false>(acc, multiplier, zero_point),
                }
            };
            for v in 0..4 {
                for slot in 0..16 {
                    let want = requantize(acc[v * 16 + slot], multiplier, zero_point);
                    let (lane, rest) = (slot / 4, slot % 4);
                    let two = v / 2 * 32 + lane * 8 + v % 2 * 4 + rest;
                    let got =
                        [got[0][lane * 16 + v * 4 + rest], got[1][two], got[2][v * 16 + slot]];
                    assert_eq!(
                        got,
                        [want; 3],
                        "{} * {multiplier} + {zero_point}",
                        acc[v * 16 + slot]
                    );
                }
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn avx2_equals_scalar() {
        use std::arch::x86_64::*;

        #[target_feature(enable = "avx2,fma")]
        fn vector<const SMALL: bool>(
            acc: &[i32; 32],
            multiplier: &[f32; 16],
            zero_point: u8,
        ) -> [u8; 32] {
            let mut out = [0; 32];
            // SAFETY: every access is of 32 bytes inside the arrays; the caller checked AVX2.
            unsafe {
                let load = |at: usize| _mm256_loadu_si256(acc.as_ptr().add(at).cast());
                let multiplier = [
                    _mm256_loadu_ps(multiplier.as_ptr()),
                    _mm256_loadu_ps(multiplier.as_ptr().add(8)),
                ];
                let codes = super::avx2::Requantizer::<SMALL>::new(zero_point).two_rows(
                    [load(0), load(8)],
                    [load(16), load(24)],
                    multiplier,
                );
                _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
            }
            out
        }

        if !crate::Isa::Avx2.is_supported() {
            println!("skipped: this CPU has no AVX2");
            return;
        }
        each_edge(|acc, multiplier, zero_point| {
            for block in acc.chunks_exact(32) {
                let block = block.try_into().expect("chunks of 32");
                // SAFETY: AVX2 was checked above.
                let got = unsafe {
                    match multiplier < super::SMALL {
                        true => vector::<true>(block, &[multiplier; 16], zero_point),
                        false => vector::<false>(block, &[multiplier; 16], zero_point),
                    }
                };
                let want = block.map(|acc| requantize(acc, multiplier, zero_point));
                assert_eq!(got, want, "{block:?} * {multiplier} + {zero_point}");
            }
        });
    }
}
