//! The fused multiply-add for instruction sets that have none: without it each would be a call of
//! the system's function, number by number.
//!
//! The product of two floats is exact in 53 bits. Their sum with a third, rounded to odd (the last
//! bit stands for all that did not fit), rounds to float as the exact sum does: Boldo and
//! Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
//! odd", 2008. What the sum in 53 bits lost is known exactly (Knuth's TwoSum); it is NaN beyond the
//! finite.

/// `a * b + c` of four lanes, two at a time, rounded once: what `f32::mul_add` gives, with another
/// NaN perhaps.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn four_x86(
    a: std::arch::x86_64::__m128,
    b: std::arch::x86_64::__m128,
    c: std::arch::x86_64::__m128,
) -> std::arch::x86_64::__m128 {
    use std::arch::x86_64::*;
    // SAFETY: SSE2 is everywhere on x86-64.
    unsafe {
        let two = |a, b, c| {
            let (product, c) = (_mm_mul_pd(_mm_cvtps_pd(a), _mm_cvtps_pd(b)), _mm_cvtps_pd(c));
            let sum = _mm_add_pd(product, c);
            let back = _mm_sub_pd(sum, product);
            let lost = _mm_sub_pd(product, _mm_sub_pd(sum, back));
            let lost = _mm_add_pd(lost, _mm_sub_pd(c, back));
            // 1 where something was lost; no NaN is above 0.
            let size = _mm_andnot_pd(_mm_set1_pd(-0.0), lost);
            let inexact = _mm_castpd_si128(_mm_cmplt_pd(_mm_setzero_pd(), size));
            let inexact = _mm_srli_epi64::<63>(inexact);
            // Cut off, and made odd.
            let inward = _mm_srli_epi64::<63>(_mm_castpd_si128(_mm_xor_pd(lost, sum)));
            let bits = _mm_sub_epi64(_mm_castpd_si128(sum), _mm_and_si128(inward, inexact));
            _mm_cvtpd_ps(_mm_castsi128_pd(_mm_or_si128(bits, inexact)))
        };
        let high = |x| _mm_movehl_ps(x, x);
        _mm_movelh_ps(two(a, b, c), two(high(a), high(b), high(c)))
    }
}

/// `a * b + c` of four lanes, two at a time, rounded once: what `f32::mul_add` gives, with another
/// NaN perhaps.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline(always)]
pub(crate) fn four_wasm(
    a: std::arch::wasm32::v128,
    b: std::arch::wasm32::v128,
    c: std::arch::wasm32::v128,
) -> std::arch::wasm32::v128 {
    use std::arch::wasm32::*;
    let two = |a, b, c| {
        let wide = |x| f64x2_promote_low_f32x4(x);
        let (product, c) = (f64x2_mul(wide(a), wide(b)), wide(c));
        let sum = f64x2_add(product, c);
        let back = f64x2_sub(sum, product);
        let lost = f64x2_add(f64x2_sub(product, f64x2_sub(sum, back)), f64x2_sub(c, back));
        // 1 where something was lost; no NaN is above 0.
        let inexact = u64x2_shr(f64x2_lt(f64x2_splat(0.0), f64x2_abs(lost)), 63);
        // Cut off, and made odd.
        let inward = u64x2_shr(v128_xor(lost, sum), 63);
        let bits = i64x2_sub(sum, v128_and(inward, inexact));
        f32x4_demote_f64x2_zero(v128_or(bits, inexact))
    };
    let high = |x| i64x2_shuffle::<1, 1>(x, x);
    i64x2_shuffle::<0, 2>(two(a, b, c), two(high(a), high(b), high(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{Random, same_bits};

    /// The four lanes' result, which are all the same.
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        let mut all = [0.0; 4];
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE2 is everywhere on x86-64.
        unsafe {
            use std::arch::x86_64::*;
            let four = four_x86(_mm_set1_ps(a), _mm_set1_ps(b), _mm_set1_ps(c));
            _mm_storeu_ps(all.as_mut_ptr(), four);
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        // SAFETY: 16 bytes are written to as many.
        unsafe {
            use std::arch::wasm32::*;
            let four = four_wasm(f32x4_splat(a), f32x4_splat(b), f32x4_splat(c));
            v128_store(all.as_mut_ptr().cast(), four);
        }
        assert!(all.iter().all(|x| same_bits(&[*x], &all[..1])));
        all[0]
    }

    #[test]
    fn rounds_once() {
        // 1 + 2^-24 + 2^-60: above the tie that rounding to 53 bits first would leave.
        let half = 2f32.powi(-24);
        assert_eq!(fused(half, 1.0, 1.0), 1.0);
        assert_eq!(fused(1.0 + 2f32.powi(-23), 1.0, half), 1.0 + 2f32.powi(-22));
        let product = (1.0 + 2f32.powi(-12), 1.0 + 2f32.powi(-12)); // 1 + 2^-11 + 2^-24: a tie
        assert_eq!(fused(product.0, product.1, 0.0), 1.0 + 2f32.powi(-11));
        assert_eq!(
            fused(product.0, product.1, 2f32.powi(-90)),
            1.0 + 2f32.powi(-11) + 2f32.powi(-23)
        );
        assert_eq!(fused(product.0, product.1, -2f32.powi(-90)), 1.0 + 2f32.powi(-11));
    }

    #[test]
    fn equals_the_fused_multiply_add() {
        let edges = [0.0, -0.0, 1.0, -1.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, f32::INFINITY];
        let edges = edges.iter().flat_map(|&x| [x, -x]).chain([f32::NAN]).collect::<Vec<_>>();
        let check = |a: f32, b: f32, c: f32| {
            let want = a.mul_add(b, c);
            let got = fused(a, b, c);
            assert!(same_bits(&[got], &[want]), "{a:e} * {b:e} + {c:e}: {got:e}, not {want:e}");
        };
        for &a in &edges {
            for &b in &edges {
                edges.iter().for_each(|&c| check(a, b, c));
            }
        }
        let mut random = Random::new(5);
        for _ in 0..200_000 {
            let mut bits = || ((random.below(1 << 16) << 16) | random.below(1 << 16)) as u32;
            let (a, b) = (f32::from_bits(bits()), f32::from_bits(bits()));
            check(a, b, f32::from_bits(bits()));
            // About as large as the product, or where the product's last bits decide.
            let scale = 2f32.powi((bits() % 120) as i32 - 60);
            check(a, b, -a * b * scale);
            // Few bits each, so that many products are ties.
            let few = |bits: u32| f32::from_bits(0x3f80_0000 | (bits & 0x7f_f000));
            check(few(bits()), few(bits()), few(bits()) * scale);
        }
    }
}
