//! Multiplication of 8-bit tensors, as ONNX's QLinearMul, with a second input that may repeat.

use std::marker::PhantomData;

use crate::quads::Quads;
#[cfg(target_arch = "x86_64")]
use crate::requantize::SMALL;
use crate::requantize::requantize;
use crate::vector_f32::Work;
use crate::{BinaryU8Params, Isa, Kernel};

/// The three constants of the rule.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    a_zero_point: u8,
    b_zero_point: u8,
    multiplier: f32,
    output_zero_point: u8,
}

/// The shortest row that a repeated input makes, as far as there are elements.
const ROW: usize = 512;

type Entry = unsafe fn(&Constants, &[u8], &[u8], &mut [u8]);

/// Every kernel, best first and scalar last.
pub static KERNELS: &[Kernel<Entry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qmul_64__avx512", isa: Isa::Avx512, entry: avx512 },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qmul_16__avx2", isa: Isa::Avx2, entry: avx2 },
    #[cfg(target_arch = "aarch64")]
    Kernel { name: "qmul_16__neon", isa: Isa::Neon, entry: neon },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qmul_16__sse41", isa: Isa::Sse41, entry: quads::<crate::quads_x86::Sse41> },
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Kernel {
        name: "qmul_16__simd128",
        isa: Isa::Simd128,
        entry: quads::<crate::quads_wasm::Simd128>,
    },
    Kernel { name: "qmul__scalar", isa: Isa::Scalar, entry: scalar },
];

/// `rne((a - za) * (b - zb) * (sa * sb / sc)) + zc`, saturated.
#[derive(Debug)]
pub struct MulU8 {
    constants: Constants,
    kernel: &'static Kernel<Entry>,
}

impl MulU8 {
    /// Prepares the multiplication for the best kernel that needs no more than `isa`.
    pub fn new(params: &BinaryU8Params, isa: Isa) -> MulU8 {
        MulU8::with_kernel(params, Kernel::pick(KERNELS, isa))
    }

    /// Prepares the multiplication for one kernel of the list; for tests and benchmarks.
    ///
    /// # Panics
    ///
    /// If this CPU cannot execute the kernel.
    pub fn with_kernel(params: &BinaryU8Params, kernel: &'static Kernel<Entry>) -> MulU8 {
        kernel.check();
        let constants = Constants {
            a_zero_point: params.a_zero_point,
            b_zero_point: params.b_zero_point,
            multiplier: params.a_scale * params.b_scale / params.output_scale,
            output_zero_point: params.output_zero_point,
        };
        MulU8 { constants, kernel }
    }

    /// Multiplies element by element. A `b` shorter than `a` repeats: with `a` as `[pixels, C]` and
    /// `b` as `[C]`, every pixel is scaled channel by channel (squeeze-and-excite).
    ///
    /// # Panics
    ///
    /// If the output's length is not that of `a`, or the length of `b` does not divide it.
    pub fn run(&self, a: &[u8], b: &[u8], output: &mut [u8]) {
        assert_eq!(a.len(), output.len(), "input and output differ in length");
        if a.is_empty() {
            return;
        }
        assert!(
            !b.is_empty() && a.len().is_multiple_of(b.len()),
            "{} elements cannot repeat over {}",
            b.len(),
            a.len()
        );
        // Repeated first, so that few channels make long rows.
        let mut repeated = [0; 2 * ROW];
        let mut b = b;
        if b.len() < ROW && b.len() < a.len() {
            let len = ROW.div_ceil(b.len()) * b.len();
            repeated[..len].chunks_exact_mut(b.len()).for_each(|to| to.copy_from_slice(b));
            b = &repeated[..len];
        }
        for (a, output) in a.chunks(b.len()).zip(output.chunks_mut(b.len())) {
            // SAFETY: `with_kernel` made sure that this CPU has the kernel's instruction set.
            unsafe { (self.kernel.entry)(&self.constants, a, &b[..a.len()], output) }
        }
    }
}

fn scalar(constants: &Constants, a: &[u8], b: &[u8], output: &mut [u8]) {
    for ((code, &a), &b) in output.iter_mut().zip(a).zip(b) {
        let a = i32::from(a) - i32::from(constants.a_zero_point);
        let b = i32::from(b) - i32::from(constants.b_zero_point);
        *code = requantize(a * b, constants.multiplier, constants.output_zero_point);
    }
}

/// Sixteen codes at a time on registers of four sums.
#[cfg_attr(not(any(target_arch = "x86_64", target_feature = "simd128")), allow(dead_code))]
struct Products<'a, Q>(&'a Constants, &'a [u8], &'a [u8], &'a mut [u8], PhantomData<Q>);

impl<Q: Quads> Work for Products<'_, Q> {
    #[inline(always)]
    unsafe fn run(self) {
        let Products(constants, a, b, output, _) = self;
        let [za, zb] = [constants.a_zero_point, constants.b_zero_point].map(i16::from);
        let multipliers = [constants.multiplier; 4];
        let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
        let rest = (a.remainder(), b.remainder());
        let mut output = output.chunks_exact_mut(16);
        for ((a, b), output) in a.zip(b).zip(&mut output) {
            let mut sums = [0; 16];
            for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                *sum = i32::from(i16::from(a) - za) * i32::from(i16::from(b) - zb);
            }
            // SAFETY: the caller answers for the CPU; a register holds four of the sums, of the
            // multipliers and, packed, sixteen codes.
            unsafe {
                let sums = std::array::from_fn(|v| Q::load_sums(sums.as_ptr().add(v * 4)));
                let multipliers = [Q::load_floats(multipliers.as_ptr()); 4];
                let zero_point = constants.output_zero_point;
                let codes = Q::requantize::<false>(sums, multipliers, zero_point);
                Q::store(codes, output.as_mut_ptr());
            }
        }
        scalar(constants, rest.0, rest.1, output.into_remainder());
    }
}

/// # Safety
///
/// This CPU has the registers.
#[cfg_attr(not(any(target_arch = "x86_64", target_feature = "simd128")), allow(dead_code))]
unsafe fn quads<Q: Quads>(constants: &Constants, a: &[u8], b: &[u8], output: &mut [u8]) {
    const { assert!(Q::LANES == 4) };
    // SAFETY: by the caller.
    unsafe { Q::run(Products::<Q>(constants, a, b, output, PhantomData)) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(constants: &Constants, a: &[u8], b: &[u8], output: &mut [u8]) {
    use crate::requantize::avx2::Requantizer;
    use std::arch::x86_64::*;
    let requantizer: Requantizer = Requantizer::new(constants.output_zero_point);
    let multiplier = _mm256_set1_ps(constants.multiplier);
    let a_zero_point = _mm256_set1_epi16(constants.a_zero_point.into());
    let b_zero_point = _mm256_set1_epi16(constants.b_zero_point.into());
    let whole = output.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within the three slices, whose equal lengths `run` checked.
        unsafe {
            let a = _mm256_cvtepu8_epi16(_mm_loadu_si128(a.as_ptr().add(at).cast()));
            let b = _mm256_cvtepu8_epi16(_mm_loadu_si128(b.as_ptr().add(at).cast()));
            let a = _mm256_sub_epi16(a, a_zero_point);
            let b = _mm256_sub_epi16(b, b_zero_point);
            let (low, high) = (_mm256_mullo_epi16(a, b), _mm256_mulhi_epi16(a, b));
            let codes = requantizer.unpacked(
                _mm256_unpacklo_epi16(low, high),
                _mm256_unpackhi_epi16(low, high),
                multiplier,
            );
            _mm_storeu_si128(output.as_mut_ptr().add(at).cast(), codes);
        }
    }
    scalar(constants, &a[whole..], &b[whole..], &mut output[whole..]);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn avx512(constants: &Constants, a: &[u8], b: &[u8], output: &mut [u8]) {
    match constants.multiplier < SMALL {
        true => avx512_rows::<true>(constants, a, b, output),
        false => avx512_rows::<false>(constants, a, b, output),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn avx512_rows<const SMALL: bool>(constants: &Constants, a: &[u8], b: &[u8], output: &mut [u8]) {
    use crate::requantize::avx512::Requantizer;
    use std::arch::x86_64::*;
    let requantizer = Requantizer::<SMALL>::new(constants.output_zero_point);
    let multiplier = [_mm512_set1_ps(constants.multiplier); 4];
    let a_zero_point = _mm512_set1_epi16(constants.a_zero_point.into());
    let b_zero_point = _mm512_set1_epi16(constants.b_zero_point.into());
    let zero = _mm512_setzero_si512();
    let sixty_four = |a: __m512i, b: __m512i| {
        let product = |a, b| {
            let a = _mm512_sub_epi16(a, a_zero_point);
            let b = _mm512_sub_epi16(b, b_zero_point);
            let (low, high) = (_mm512_mullo_epi16(a, b), _mm512_mulhi_epi16(a, b));
            [_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high)]
        };
        let [p, q] = product(_mm512_unpacklo_epi8(a, zero), _mm512_unpacklo_epi8(b, zero));
        let [r, s] = product(_mm512_unpackhi_epi8(a, zero), _mm512_unpackhi_epi8(b, zero));
        requantizer.four([p, q, r, s], multiplier)
    };
    for at in (0..output.len()).step_by(64) {
        let lanes = (output.len() - at).min(64);
        let mask = u64::MAX >> (64 - lanes);
        // SAFETY: the first `lanes` bytes from `at` on are within the three slices, whose equal
        // lengths `run` checked; the others are neither read nor written.
        unsafe {
            let a = _mm512_maskz_loadu_epi8(mask, a.as_ptr().add(at).cast());
            let b = _mm512_maskz_loadu_epi8(mask, b.as_ptr().add(at).cast());
            let codes = sixty_four(a, b);
            _mm512_mask_storeu_epi8(output.as_mut_ptr().add(at).cast(), mask, codes);
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon(constants: &Constants, a: &[u8], b: &[u8], output: &mut [u8]) {
    use crate::quads::Quads;
    use crate::quads_neon::Neon;
    use std::arch::aarch64::*;
    let multiplier = [vdupq_n_f32(constants.multiplier); 4];
    let a_zero_point = vdup_n_u8(constants.a_zero_point);
    let b_zero_point = vdup_n_u8(constants.b_zero_point);
    let eight = |a, b| {
        let a = vreinterpretq_s16_u16(vsubl_u8(a, a_zero_point));
        let b = vreinterpretq_s16_u16(vsubl_u8(b, b_zero_point));
        [vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)]
    };
    let whole = output.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within the three slices, whose equal lengths `run` checked.
        unsafe {
            let (a, b) = (vld1q_u8(a.as_ptr().add(at)), vld1q_u8(b.as_ptr().add(at)));
            let [c, d] = eight(vget_low_u8(a), vget_low_u8(b));
            let [e, f] = eight(vget_high_u8(a), vget_high_u8(b));
            let zero_point = constants.output_zero_point;
            let codes = Neon::<true>::requantize::<false>([c, d, e, f], multiplier, zero_point);
            vst1q_u8(output.as_mut_ptr().add(at), codes);
        }
    }
    scalar(constants, &a[whole..], &b[whole..], &mut output[whole..]);
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
            output_scale: 0.25,
            output_zero_point: 3,
        };
        for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
            let mul = MulU8::with_kernel(&params, kernel);
            // (a-10)(b-20)/2 + 3: 0.5 -> 0, 1.5 -> 2, -2.5 -> -2, 100, and saturation both ways.
            let mut output = [0; 6];
            mul.run(&[11, 13, 15, 0, 255, 255], &[21, 21, 19, 0, 255, 0], &mut output);
            assert_eq!(output, [3, 5, 1, 103, 255, 0], "{}", kernel.name);
            // The vector [21, 19] over three rows.
            mul.run(&[11, 13, 15, 20, 30, 40], &[21, 19], &mut output);
            assert_eq!(output, [3, 1, 5, 0, 13, 0], "{}", kernel.name);
        }
    }

    #[test]
    fn every_kernel_equals_scalar_on_every_pair_and_tail() {
        let pairs: Vec<(u8, u8)> =
            (0..=255u8).flat_map(|a| (0..=255).map(move |b| (a, b))).collect();
        let a: Vec<u8> = pairs.iter().map(|pair| pair.0).collect();
        let b: Vec<u8> = pairs.iter().map(|pair| pair.1).collect();
        for (i, output_scale) in [0.0137f32, 0.02, 1.0, 1.0e-9, 3.0e5].into_iter().enumerate() {
            for (a_zero_point, b_zero_point) in [(0, 0), (128, 255), (255, 128)] {
                let params = BinaryU8Params {
                    a_scale: 0.02,
                    a_zero_point,
                    b_scale: 0.31,
                    b_zero_point,
                    output_scale,
                    output_zero_point: a_zero_point,
                };
                let constants = MulU8::new(&params, Isa::Scalar).constants;
                let mut want = vec![0; a.len()];
                scalar(&constants, &a, &b, &mut want);
                for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
                    let mul = MulU8::with_kernel(&params, kernel);
                    let mut got = vec![0; a.len()];
                    mul.run(&a, &b, &mut got);
                    assert!(got == want, "{} {params:?}", kernel.name);
                    for len in 1..70 {
                        let from = i * 8000 + len * 7;
                        let mut got = vec![0; len];
                        mul.run(&a[from..][..len], &b[from..][..len], &mut got);
                        assert_eq!(got, want[from..][..len], "{} {params:?}", kernel.name);
                    }
                }
            }
        }
    }

    #[test]
    fn a_short_input_repeats() {
        let params = BinaryU8Params {
            a_scale: 0.02,
            a_zero_point: 3,
            b_scale: 0.31,
            b_zero_point: 7,
            output_scale: 0.4,
            output_zero_point: 11,
        };
        for (channels, pixels) in [(1, 1300), (3, 700), (24, 50), (511, 3), (512, 3), (600, 2)] {
            let a: Vec<u8> = (0..channels * pixels).map(|i| (i * 97 % 251) as u8).collect();
            let b: Vec<u8> = (0..channels).map(|i| (i * 53 % 241) as u8).collect();
            let constants = MulU8::new(&params, Isa::Scalar).constants;
            let mut want = vec![0; a.len()];
            for (a, want) in a.chunks_exact(channels).zip(want.chunks_exact_mut(channels)) {
                scalar(&constants, a, &b, want);
            }
            for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
                let mut got = vec![0; a.len()];
                MulU8::with_kernel(&params, kernel).run(&a, &b, &mut got);
                assert!(got == want, "{} {channels}", kernel.name);
            }
        }
    }
}
