//! Addition of two 8-bit tensors of one shape, as ONNX's QLinearAdd.

use crate::requantize::round_small;
use crate::{Isa, Kernel};

/// The scales and zero points of an 8-bit operation with two inputs; scales are finite and
/// positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinaryU8Params {
    /// Scale of the first input.
    pub a_scale: f32,
    /// Zero point of the first input.
    pub a_zero_point: u8,
    /// Scale of the second input.
    pub b_scale: f32,
    /// Zero point of the second input.
    pub b_zero_point: u8,
    /// Scale of the output.
    pub output_scale: f32,
    /// Zero point of the output.
    pub output_zero_point: u8,
}

/// The three constants of the rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Constants {
    pub(crate) a_ratio: f32,
    pub(crate) b_ratio: f32,
    pub(crate) offset: f32,
}

#[cfg(target_arch = "x86_64")]
impl Constants {
    /// Whether sums are within 32 bits, whatever the codes: packings that saturate are clamp enough then.
    pub(crate) fn are_small(&self) -> bool {
        255.0 * (self.a_ratio + self.b_ratio) + self.offset.abs() < 1e9
    }
}

/// Adds so many codes of `a` and `b`. The output may be where one of them is.
type Entry = unsafe fn(&Constants, *const u8, *const u8, *mut u8, usize);

/// Every kernel, best first and scalar last.
pub static KERNELS: &[Kernel<Entry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qadd_64__avx512", isa: Isa::Avx512, entry: avx512 },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qadd_16__avx2", isa: Isa::Avx2, entry: avx2 },
    #[cfg(target_arch = "aarch64")]
    Kernel { name: "qadd_16__neon", isa: Isa::Neon, entry: neon },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "qadd_16__sse41",
        isa: Isa::Sse41,
        entry: vectors::add::<std::arch::x86_64::__m128>,
    },
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Kernel {
        name: "qadd_16__simd128",
        isa: Isa::Simd128,
        entry: vectors::add::<std::arch::wasm32::v128>,
    },
    Kernel { name: "qadd__scalar", isa: Isa::Scalar, entry: scalar },
];

/// `saturate(rne(fma(a, sa/sc, fma(b, sb/sc, zc - fma(sa/sc, za, sb/sc*zb)))))`: the zero points are
/// inside the rounding, and the two multiply-adds round once each.
#[derive(Debug)]
pub struct AddU8 {
    constants: Constants,
    kernel: &'static Kernel<Entry>,
}

impl AddU8 {
    /// Prepares the addition for the best kernel that needs no more than `isa`.
    pub fn new(params: &BinaryU8Params, isa: Isa) -> AddU8 {
        AddU8::with_kernel(params, Kernel::pick(KERNELS, isa))
    }

    /// Prepares the addition for one kernel of the list; for tests and benchmarks.
    ///
    /// # Panics
    ///
    /// If this CPU cannot execute the kernel.
    pub fn with_kernel(params: &BinaryU8Params, kernel: &'static Kernel<Entry>) -> AddU8 {
        kernel.check();
        let a_ratio = params.a_scale / params.output_scale;
        let b_ratio = params.b_scale / params.output_scale;
        let [za, zb, zc] =
            [params.a_zero_point, params.b_zero_point, params.output_zero_point].map(f32::from);
        // The inner sum is fused, as it is in onnxruntime: rounding it twice decides some ties
        // otherwise.
        let offset = zc - a_ratio.mul_add(za, b_ratio * zb);
        AddU8 { constants: Constants { a_ratio, b_ratio, offset }, kernel }
    }

    /// For a kernel that adds what it computes.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn constants(&self) -> &Constants {
        &self.constants
    }

    /// Adds element by element.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn run(&self, a: &[u8], b: &[u8], output: &mut [u8]) {
        assert_eq!(a.len(), b.len(), "the inputs differ in length");
        assert_eq!(a.len(), output.len(), "input and output differ in length");
        // SAFETY: all are of one length.
        unsafe { self.run_on(a.as_ptr(), b.as_ptr(), output.as_mut_ptr(), output.len()) }
    }

    /// Adds to what is there, which is the second operand where the other is the first.
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub(crate) fn run_over(&self, other: &[u8], output: &mut [u8], other_first: bool) {
        assert_eq!(other.len(), output.len(), "input and output differ in length");
        let (other, to) = (other.as_ptr(), output.as_mut_ptr());
        let (a, b) = if other_first { (other, to.cast_const()) } else { (to.cast_const(), other) };
        // SAFETY: all are of one length.
        unsafe { self.run_on(a, b, to, output.len()) }
    }

    /// # Safety
    ///
    /// So many codes can be read from `a` and `b`, and be written to `output`.
    unsafe fn run_on(&self, a: *const u8, b: *const u8, output: *mut u8, len: usize) {
        // SAFETY: by the caller; `with_kernel` made sure that this CPU has the kernel's instruction set.
        unsafe { (self.kernel.entry)(&self.constants, a, b, output, len) }
    }
}

/// # Safety
///
/// As for [`AddU8::run_on`]; so for all kernels.
unsafe fn scalar(constants: &Constants, a: *const u8, b: *const u8, output: *mut u8, len: usize) {
    let Constants { a_ratio, b_ratio, offset } = *constants;
    for i in 0..len {
        // SAFETY: by the caller.
        let (a, b) = unsafe { (*a.add(i), *b.add(i)) };
        let sum = f32::from(b).mul_add(b_ratio, offset);
        let sum = f32::from(a).mul_add(a_ratio, sum);
        // SAFETY: by the caller.
        unsafe { *output.add(i) = round_small(sum.clamp(0.0, 255.0)) as u8 }
    }
}

/// What is left from `whole` on.
///
/// # Safety
///
/// As for [`AddU8::run_on`].
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
#[inline]
unsafe fn rest(
    constants: &Constants,
    [a, b]: [*const u8; 2],
    output: *mut u8,
    whole: usize,
    len: usize,
) {
    // SAFETY: by the caller.
    unsafe { scalar(constants, a.add(whole), b.add(whole), output.add(whole), len - whole) }
}

#[cfg(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))]
mod vectors {
    use std::marker::PhantomData;

    use super::Constants;
    use crate::codes_f32::Codes;
    use crate::vector_f32::Work;

    /// Sixteen codes at a time.
    struct Sums<'a, V>(&'a Constants, [*const u8; 2], *mut u8, usize, PhantomData<V>);

    impl<V: Codes> Work for Sums<'_, V> {
        #[inline(always)]
        unsafe fn run(self) {
            let Sums(constants, [a, b], output, len, _) = self;
            let whole = len / 16 * 16;
            // SAFETY: the caller answers for the CPU and the codes.
            unsafe {
                for at in (0..whole).step_by(16) {
                    let (a, b) = (V::of_codes(a.add(at)), V::of_codes(b.add(at)));
                    let offset = V::splat(constants.offset);
                    let sums = [0, 1, 2, 3].map(|v| {
                        let sum = b[v].fma(V::splat(constants.b_ratio), offset);
                        a[v].fma(V::splat(constants.a_ratio), sum)
                    });
                    V::to_codes(sums, 0, output.add(at));
                }
                super::rest(constants, [a, b], output, whole, len);
            }
        }
    }

    /// # Safety
    ///
    /// This CPU has the vectors; besides, as for all kernels.
    pub(super) unsafe fn add<V: Codes>(
        constants: &Constants,
        a: *const u8,
        b: *const u8,
        output: *mut u8,
        len: usize,
    ) {
        // SAFETY: by the caller.
        unsafe { V::run(Sums::<V>(constants, [a, b], output, len, PhantomData)) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(constants: &Constants, a: *const u8, b: *const u8, output: *mut u8, len: usize) {
    use std::arch::x86_64::*;
    let a_ratio = _mm256_set1_ps(constants.a_ratio);
    let b_ratio = _mm256_set1_ps(constants.b_ratio);
    let offset = _mm256_set1_ps(constants.offset);
    let high = _mm256_set1_ps(255.0);
    let to_f32 = |codes| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
    let eight = |a, b| {
        let sum = _mm256_fmadd_ps(to_f32(b), b_ratio, offset);
        let sum = _mm256_fmadd_ps(to_f32(a), a_ratio, sum);
        // Below 0 the packings saturate; NaN converts to the lowest integer and saturates too.
        _mm256_cvtps_epi32(_mm256_min_ps(high, sum))
    };
    let whole = len / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within all three.
        unsafe {
            let a = _mm_loadu_si128(a.add(at).cast());
            let b = _mm_loadu_si128(b.add(at).cast());
            let low = eight(a, b);
            let high = eight(_mm_srli_si128::<8>(a), _mm_srli_si128::<8>(b));
            let words = _mm256_permute4x64_epi64::<0xD8>(_mm256_packs_epi32(low, high));
            let codes = _mm_packus_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(output.add(at).cast(), codes);
        }
    }
    // SAFETY: by the caller.
    unsafe { rest(constants, [a, b], output, whole, len) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon(constants: &Constants, a: *const u8, b: *const u8, output: *mut u8, len: usize) {
    use std::arch::aarch64::*;
    let a_ratio = vdupq_n_f32(constants.a_ratio);
    let b_ratio = vdupq_n_f32(constants.b_ratio);
    let offset = vdupq_n_f32(constants.offset);
    let four = |a, b| {
        let sum = vfmaq_f32(offset, vcvtq_f32_u32(b), b_ratio);
        // Saturates, as the narrowings do; NaN converts to 0.
        vcvtnq_s32_f32(vfmaq_f32(sum, vcvtq_f32_u32(a), a_ratio))
    };
    let eight = |a, b| {
        let low = four(vmovl_u16(vget_low_u16(a)), vmovl_u16(vget_low_u16(b)));
        vqmovn_high_s32(vqmovn_s32(low), four(vmovl_high_u16(a), vmovl_high_u16(b)))
    };
    let whole = len / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within all three.
        unsafe {
            let (a, b) = (vld1q_u8(a.add(at)), vld1q_u8(b.add(at)));
            let low = eight(vmovl_u8(vget_low_u8(a)), vmovl_u8(vget_low_u8(b)));
            let codes =
                vqmovun_high_s16(vqmovun_s16(low), eight(vmovl_high_u8(a), vmovl_high_u8(b)));
            vst1q_u8(output.add(at), codes);
        }
    }
    // SAFETY: by the caller.
    unsafe { rest(constants, [a, b], output, whole, len) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn avx512(constants: &Constants, a: *const u8, b: *const u8, output: *mut u8, len: usize) {
    // SAFETY: by the caller.
    unsafe {
        match constants.are_small() {
            true => avx512_of::<true>(constants, a, b, output, len),
            false => avx512_of::<false>(constants, a, b, output, len),
        }
    }
}

/// `SMALL` says that [`Constants::are_small`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
#[inline]
unsafe fn avx512_of<const SMALL: bool>(
    constants: &Constants,
    a: *const u8,
    b: *const u8,
    output: *mut u8,
    len: usize,
) {
    use std::arch::x86_64::*;
    let a_ratio = _mm512_set1_ps(constants.a_ratio);
    let b_ratio = _mm512_set1_ps(constants.b_ratio);
    let offset = _mm512_set1_ps(constants.offset);
    let high = _mm512_set1_ps(255.0);
    // SAFETY: the callers below keep `at + 16` within it.
    let load = |from: *const u8, at: usize| unsafe {
        let codes = _mm_loadu_si128(from.add(at).cast());
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes))
    };
    // Packings work within 128-bit quarters; this puts the elements back in order.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let whole = len / 64 * 64;
    for at in (0..whole).step_by(64) {
        let sixteen = |part: usize| {
            let at = at + part * 16;
            let sum = _mm512_fmadd_ps(load(b, at), b_ratio, offset);
            let sum = _mm512_fmadd_ps(load(a, at), a_ratio, sum);
            // Below 0 the packings saturate; NaN converts to the lowest integer and saturates too.
            _mm512_cvtps_epi32(if SMALL { sum } else { _mm512_min_ps(high, sum) })
        };
        let low = _mm512_packs_epi32(sixteen(0), sixteen(1));
        let codes = _mm512_packus_epi16(low, _mm512_packs_epi32(sixteen(2), sixteen(3)));
        let codes = _mm512_permutexvar_epi32(order, codes);
        // SAFETY: `at + 64` is within all three.
        unsafe { _mm512_storeu_si512(output.add(at).cast(), codes) }
    }
    // SAFETY: by the caller.
    unsafe { rest(constants, [a, b], output, whole, len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_worked_out_by_hand() {
        let params = BinaryU8Params {
            a_scale: 0.5,
            a_zero_point: 10,
            b_scale: 0.25,
            b_zero_point: 20,
            output_scale: 1.0,
            output_zero_point: 3,
        };
        for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
            let mut output = [0; 6];
            // (a-10)/2 + (b-20)/4 + 3: 3, 3.5 (a tie, to even 4), 4.5 (4), -7 (0), 184.25, 2.75.
            AddU8::with_kernel(&params, kernel).run(
                &[10, 11, 11, 0, 255, 10],
                &[20, 20, 24, 0, 255, 19],
                &mut output,
            );
            assert_eq!(output, [3, 4, 4, 0, 184, 3], "{}", kernel.name);
        }
    }

    #[test]
    fn near_ties_round_as_onnxruntime_does() {
        for (scales, zero_points, a, b, sum) in [
            ([0.037287533, 0.05081481, 0.050501242], [145, 116, 118], 125, 159, 147),
            ([0.07479184, 0.085201226, 0.09349254], [122, 105, 138], 133, 52, 99),
            ([0.07222033, 0.026071468, 0.08503073], [125, 90, 134], 105, 209, 153),
        ] {
            let params = BinaryU8Params {
                a_scale: scales[0],
                a_zero_point: zero_points[0],
                b_scale: scales[1],
                b_zero_point: zero_points[1],
                output_scale: scales[2],
                output_zero_point: zero_points[2],
            };
            for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
                let mut output = [0; 20];
                AddU8::with_kernel(&params, kernel).run(&[a; 20], &[b; 20], &mut output);
                assert_eq!(output, [sum; 20], "{}", kernel.name);
            }
        }
    }

    #[test]
    fn every_kernel_equals_scalar_on_every_pair_and_tail() {
        let pairs: Vec<(u8, u8)> =
            (0..=255u8).flat_map(|a| (0..=255).map(move |b| (a, b))).collect();
        let a: Vec<u8> = pairs.iter().map(|pair| pair.0).collect();
        let b: Vec<u8> = pairs.iter().map(|pair| pair.1).collect();
        let scales = [0.02, 0.0137, 1.0, 3.0e-7, 1.0e9];
        let zero_points = [0, 127, 255];
        for i in 0..45usize {
            let params = BinaryU8Params {
                a_scale: scales[i % 5],
                a_zero_point: zero_points[i % 3],
                b_scale: scales[i / 5 % 5],
                b_zero_point: zero_points[i / 3 % 3],
                output_scale: scales[i / 9],
                output_zero_point: zero_points[i / 2 % 3],
            };
            let constants = AddU8::new(&params, Isa::Scalar).constants;
            let mut want = vec![0; a.len()];
            // SAFETY: all are of one length.
            unsafe { scalar(&constants, a.as_ptr(), b.as_ptr(), want.as_mut_ptr(), a.len()) }
            for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
                let add = AddU8::with_kernel(&params, kernel);
                let mut got = vec![0; a.len()];
                add.run(&a, &b, &mut got);
                assert!(got == want, "{} {params:?}", kernel.name);
                for len in 0..70 {
                    let from = i * 800 + len * 7;
                    let mut got = vec![0; len];
                    add.run(&a[from..][..len], &b[from..][..len], &mut got);
                    assert_eq!(got, want[from..][..len], "{} {params:?}", kernel.name);
                    for first in [true, false] {
                        let (other, over) = if first { (&a, &b) } else { (&b, &a) };
                        got.copy_from_slice(&over[from..][..len]);
                        add.run_over(&other[from..][..len], &mut got, first);
                        assert_eq!(got, want[from..][..len], "{} in place", kernel.name);
                    }
                }
            }
        }
    }
}
