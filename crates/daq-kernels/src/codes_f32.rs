//! Between four floats and codes, on instruction sets that have no kernels of their own for that.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use std::arch::wasm32::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use crate::requantize::WHOLE;
use crate::vector_f32::Vector;

/// Vectors of four floats.
///
/// # Safety
///
/// As for [`Vector`]; sixteen codes are read or written.
pub(crate) trait Codes: Vector {
    /// Sixteen codes.
    unsafe fn of_codes(from: *const u8) -> [Self; 4];
    /// Rounded, ties to even, moved by the zero point and saturated; of a NaN, the code 0.
    unsafe fn to_codes(all: [Self; 4], zero_point: u8, to: *mut u8);
    unsafe fn divide(self, by: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
impl Codes for __m128 {
    #[inline(always)]
    unsafe fn of_codes(from: *const u8) -> [Self; 4] {
        // SAFETY: as the trait says; so in all functions below.
        unsafe {
            let codes = _mm_loadu_si128(from.cast());
            let four = |codes| _mm_cvtepi32_ps(_mm_cvtepu8_epi32(codes));
            [
                four(codes),
                four(_mm_srli_si128::<4>(codes)),
                four(_mm_srli_si128::<8>(codes)),
                four(_mm_srli_si128::<12>(codes)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn to_codes(all: [Self; 4], zero_point: u8, to: *mut u8) {
        // SAFETY: see `of_codes`.
        unsafe {
            let low = _mm_set1_ps(-f32::from(zero_point));
            let high = _mm_set1_ps(255.0 - f32::from(zero_point));
            let offset = _mm_set1_epi16(zero_point.into());
            // `maxps` yields its second operand for NaN: the lowest code.
            let [a, b, c, d] = all.map(|x| _mm_cvtps_epi32(_mm_min_ps(_mm_max_ps(x, low), high)));
            let pack = |a, b| _mm_add_epi16(_mm_packs_epi32(a, b), offset);
            _mm_storeu_si128(to.cast(), _mm_packus_epi16(pack(a, b), pack(c, d)));
        }
    }

    #[inline(always)]
    unsafe fn divide(self, by: Self) -> Self {
        // SAFETY: see `of_codes`.
        unsafe { _mm_div_ps(self, by) }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Codes for v128 {
    #[inline(always)]
    unsafe fn of_codes(from: *const u8) -> [Self; 4] {
        // SAFETY: as the trait says; so in all functions below.
        let eight = |at| unsafe { u16x8_load_extend_u8x8(from.add(at)) };
        let (low, high) = (eight(0), eight(8));
        [
            u32x4_extend_low_u16x8(low),
            u32x4_extend_high_u16x8(low),
            u32x4_extend_low_u16x8(high),
            u32x4_extend_high_u16x8(high),
        ]
        .map(|codes| f32x4_convert_i32x4(codes))
    }

    #[inline(always)]
    unsafe fn to_codes(all: [Self; 4], zero_point: u8, to: *mut u8) {
        let low = f32x4_splat(-f32::from(zero_point));
        let high = f32x4_splat(255.0 - f32::from(zero_point));
        let offset = i16x8_splat(zero_point.into());
        // Added to this, a small number is rounded to the last bits: quicker than a conversion.
        let whole = f32x4_splat(WHOLE);
        let [a, b, c, d] = all.map(|x| {
            // Of two numbers that do not compare, the first: for NaN the lowest code.
            let held = f32x4_pmin(high, f32x4_pmax(low, x));
            i32x4_sub(f32x4_add(held, whole), whole)
        });
        let pack = |a, b| i16x8_add(i16x8_narrow_i32x4(a, b), offset);
        // SAFETY: see `of_codes`.
        unsafe { v128_store(to.cast(), u8x16_narrow_i16x8(pack(a, b), pack(c, d))) }
    }

    #[inline(always)]
    unsafe fn divide(self, by: Self) -> Self {
        f32x4_div(self, by)
    }
}
