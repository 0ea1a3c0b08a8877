//! Vectors of floats, so that the float kernels are written once for registers of every width.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use std::arch::wasm32::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A vector register of floats on a CPU that is known to have it.
///
/// # Safety
/// All functions need the CPU to have the instruction set; pointers must be good for the floats
/// that are read or written, which need no alignment. Those that take a number of `lanes` touch
/// the first so many, all if it is `LANES` or more.
pub(crate) trait Vector: Copy + Send + Sync + 'static {
    /// The floats of a vector.
    const LANES: usize;
    /// Rows of a matrix tile at most, if it is 1, 2 or 3 vectors wide: what the registers hold.
    const ROWS: [usize; 3];

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_part(from: *const f32, lanes: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_part(self, to: *mut f32, lanes: usize);
    /// `self * other + sum`, rounded once.
    unsafe fn fma(self, other: Self, sum: Self) -> Self;
    /// Held between two bounds; a NaN stays, as does a zero equal to a bound.
    unsafe fn clamp(self, low: Self, high: Self) -> Self;
    /// Does the work in a function compiled for the instruction set.
    unsafe fn run(work: impl Work);
}

/// Asks for a cache line before it is needed; `at` need not exist.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can see, whatever the address.
    unsafe {
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    let _ = at;
}

/// What [`Vector::run`] does.
pub(crate) trait Work {
    /// Must be `#[inline(always)]`, as all that it calls.
    ///
    /// # Safety
    /// As the type says; the CPU has the instruction set of the vectors that it uses.
    unsafe fn run(self);
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m128 {
    const LANES: usize = 4;
    // The multiply-add that it lacks takes most of the registers.
    const ROWS: [usize; 3] = [4, 2, 1];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { _mm_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see `splat`.
        unsafe { _mm_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, lanes: usize) -> Self {
        let mut all = [0.0; 4];
        // SAFETY: see `splat`.
        unsafe {
            std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), lanes.min(4));
            _mm_loadu_ps(all.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see `splat`.
        unsafe { _mm_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, lanes: usize) {
        let mut all = [0.0; 4];
        // SAFETY: see `splat`.
        unsafe {
            _mm_storeu_ps(all.as_mut_ptr(), self);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, lanes.min(4));
        }
    }

    #[inline(always)]
    unsafe fn fma(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { crate::fused::four_x86(self, other, sum) }
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // SAFETY: see `splat`. The order of operands lets a NaN through.
        unsafe { _mm_min_ps(high, _mm_max_ps(low, self)) }
    }

    #[target_feature(enable = "sse4.1")]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Vector for v128 {
    const LANES: usize = 4;
    // As with SSE, which it mostly becomes.
    const ROWS: [usize; 3] = [4, 2, 1];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        f32x4_splat(value)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, lanes: usize) -> Self {
        let mut all = [0.0; 4];
        // SAFETY: see `load`.
        unsafe {
            std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), lanes.min(4));
            v128_load(all.as_ptr().cast())
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see `load`.
        unsafe { v128_store(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, lanes: usize) {
        let mut all = [0.0f32; 4];
        // SAFETY: see `load`.
        unsafe {
            v128_store(all.as_mut_ptr().cast(), self);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, lanes.min(4));
        }
    }

    #[inline(always)]
    unsafe fn fma(self, other: Self, sum: Self) -> Self {
        crate::fused::four_wasm(self, other, sum)
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // The second operand is taken where a comparison with a NaN is false.
        let value = v128_bitselect(low, self, f32x4_gt(low, self));
        v128_bitselect(high, value, f32x4_gt(value, high))
    }

    #[inline(always)]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m256 {
    const LANES: usize = 8;
    // 4 rows of 3 vectors would need all 16 registers and one more.
    const ROWS: [usize; 3] = [6, 6, 3];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see `splat`.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, lanes: usize) -> Self {
        // SAFETY: see `splat`.
        unsafe { _mm256_maskload_ps(from, mask8(lanes)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see `splat`.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, lanes: usize) {
        // SAFETY: see `splat`.
        unsafe { _mm256_maskstore_ps(to, mask8(lanes), self) }
    }

    #[inline(always)]
    unsafe fn fma(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { _mm256_fmadd_ps(self, other, sum) }
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // SAFETY: see `splat`. The order of operands lets a NaN through.
        unsafe { _mm256_min_ps(high, _mm256_max_ps(low, self)) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}

/// # Safety
/// AVX2 is there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn mask8(lanes: usize) -> __m256i {
    let lanes = lanes.min(8) as i32;
    // SAFETY: the caller's promise.
    unsafe {
        let index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), index)
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m512 {
    const LANES: usize = 16;
    const ROWS: [usize; 3] = [14, 14, 9];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see `splat`.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, lanes: usize) -> Self {
        // SAFETY: see `splat`.
        unsafe { _mm512_maskz_loadu_ps(mask16(lanes), from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see `splat`.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, lanes: usize) {
        // SAFETY: see `splat`.
        unsafe { _mm512_mask_storeu_ps(to, mask16(lanes), self) }
    }

    #[inline(always)]
    unsafe fn fma(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { _mm512_fmadd_ps(self, other, sum) }
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // SAFETY: see `splat`. The order of operands lets a NaN through.
        unsafe { _mm512_min_ps(high, _mm512_max_ps(low, self)) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn mask16(lanes: usize) -> __mmask16 {
    ((1u32 << lanes.min(16)) - 1) as __mmask16
}

#[cfg(target_arch = "aarch64")]
impl Vector for float32x4_t {
    const LANES: usize = 4;
    const ROWS: [usize; 3] = [14, 12, 8];

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as the trait says; so in all functions below.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see `splat`.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, lanes: usize) -> Self {
        let mut all = [0.0; 4];
        // SAFETY: see `splat`.
        unsafe {
            std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), lanes.min(4));
            vld1q_f32(all.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see `splat`.
        unsafe { vst1q_f32(to, self) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, lanes: usize) {
        let mut all = [0.0; 4];
        // SAFETY: see `splat`.
        unsafe {
            vst1q_f32(all.as_mut_ptr(), self);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, lanes.min(4));
        }
    }

    #[inline(always)]
    unsafe fn fma(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `splat`.
        unsafe { vfmaq_f32(sum, self, other) }
    }

    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // SAFETY: see `splat`. Comparisons with a NaN are false, so that it stays.
        unsafe {
            let value = vbslq_f32(vcgtq_f32(low, self), low, self);
            vbslq_f32(vcgtq_f32(value, high), high, value)
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn run(work: impl Work) {
        // SAFETY: the caller's promise.
        unsafe { work.run() }
    }
}
