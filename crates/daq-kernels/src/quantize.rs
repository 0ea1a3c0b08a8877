//! Between f32 and 8-bit codes.

use crate::requantize::round_small;
use crate::{Isa, Kernel, Pool};

type Quantize = unsafe fn(&[f32], f32, u8, &mut [u8]);
type Dequantize = unsafe fn(&[u8], f32, u8, &mut [f32]);

/// Every kernel of [`quantize_f32_u8`], best first and scalar last.
pub static QUANTIZE_KERNELS: &[Kernel<Quantize>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "quantize_16__avx512", isa: Isa::Avx512, entry: quantize_avx512 },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "quantize_32__avx2", isa: Isa::Avx2, entry: avx2::quantize },
    #[cfg(target_arch = "aarch64")]
    Kernel { name: "quantize_16__neon", isa: Isa::Neon, entry: quantize_neon },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "quantize_16__sse41",
        isa: Isa::Sse41,
        entry: vectors::quantize::<std::arch::x86_64::__m128>,
    },
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Kernel {
        name: "quantize_16__simd128",
        isa: Isa::Simd128,
        entry: vectors::quantize::<std::arch::wasm32::v128>,
    },
    Kernel { name: "quantize__scalar", isa: Isa::Scalar, entry: quantize_scalar },
];

/// Every kernel of [`dequantize_u8_f32`], best first and scalar last.
pub static DEQUANTIZE_KERNELS: &[Kernel<Dequantize>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "dequantize_8__avx2", isa: Isa::Avx2, entry: avx2::dequantize },
    Kernel { name: "dequantize__scalar", isa: Isa::Scalar, entry: dequantize_scalar },
];

/// `saturate(round_ties_even(x / scale) + zero_point)`: a true division, rounded before the zero
/// point is added. NaN gives the code 0. `scale` is finite and positive.
///
/// # Panics
///
/// If the lengths differ.
pub fn quantize_f32_u8(input: &[f32], scale: f32, zero_point: u8, output: &mut [u8], isa: Isa) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    // SAFETY: `pick` made sure that this CPU has the kernel's instruction set.
    unsafe { (Kernel::pick(QUANTIZE_KERNELS, isa).entry)(input, scale, zero_point, output) }
}

/// `f32(q - zero_point) * scale`.
///
/// # Panics
///
/// If the lengths differ.
pub fn dequantize_u8_f32(input: &[u8], scale: f32, zero_point: u8, output: &mut [f32], isa: Isa) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    // SAFETY: `pick` made sure that this CPU has the kernel's instruction set.
    unsafe { (Kernel::pick(DEQUANTIZE_KERNELS, isa).entry)(input, scale, zero_point, output) }
}

/// Quantizes `[batch, channels, pixels]` (ONNX, NCHW) by the rule of [`quantize_f32_u8`] to
/// `[batch, pixels, channels]` (NHWC), in one pass on the threads of a pool.
///
/// # Panics
///
/// If a length is not `batch * channels * pixels`.
pub fn quantize_nchw_to_nhwc(
    (batch, channels, pixels): (usize, usize, usize),
    input: &[f32],
    scale: f32,
    zero_point: u8,
    output: &mut [u8],
    isa: Isa,
    pool: &Pool,
) {
    assert_eq!(input.len(), batch * channels * pixels, "the input contradicts the shape");
    assert_eq!(output.len(), input.len(), "the output contradicts the shape");
    if output.is_empty() {
        return;
    }
    let kernel = Kernel::pick(QUANTIZE_KERNELS, isa).entry;
    // A piece of a picture stays in the first-level cache between the two steps.
    const PIECE: usize = 1024;
    const PIECES_OF_PART: usize = 4;
    let pictures = input.chunks_exact(channels * pixels);
    for (input, output) in pictures.zip(output.chunks_exact_mut(channels * pixels)) {
        pool.for_each_chunk(output, PIECES_OF_PART * PIECE * channels, |part, output| {
            let mut codes = [[0; PIECE]; 3];
            for (piece, output) in output.chunks_mut(PIECE * channels).enumerate() {
                let first = (part * PIECES_OF_PART + piece) * PIECE;
                let len = output.len() / channels;
                let quantize = |channel: usize, codes: &mut [u8]| {
                    let plane = &input[channel * pixels + first..][..len];
                    // SAFETY: `pick` made sure that this CPU has the kernel's instruction set, and
                    // the lengths are equal.
                    unsafe { kernel(plane, scale, zero_point, codes) }
                };
                if channels == 3 {
                    codes
                        .iter_mut()
                        .enumerate()
                        .for_each(|(c, codes)| quantize(c, &mut codes[..len]));
                    let [a, b, c] = &codes;
                    crate::layout::interleave3([&a[..len], &b[..len], &c[..len]], output, isa);
                    continue;
                }
                for channel in 0..channels {
                    quantize(channel, &mut codes[0][..len]);
                    let to = output[channel..].iter_mut().step_by(channels);
                    to.zip(&codes[0]).for_each(|(to, &code)| *to = code);
                }
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn quantize_avx512(input: &[f32], scale: f32, zero_point: u8, output: &mut [u8]) {
    use std::arch::x86_64::*;
    let divisor = _mm512_set1_ps(scale);
    let low = _mm512_set1_ps(-f32::from(zero_point));
    let high = _mm512_set1_ps(255.0 - f32::from(zero_point));
    let offset = _mm512_set1_epi32(zero_point.into());
    let whole = output.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within both slices, whose equal lengths were checked.
        unsafe {
            let x = _mm512_div_ps(_mm512_loadu_ps(input.as_ptr().add(at)), divisor);
            // `vmaxps` yields its second operand for NaN: the lowest code.
            let steps = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(x, low), high));
            let codes = _mm512_cvtepi32_epi8(_mm512_add_epi32(steps, offset));
            _mm_storeu_si128(output.as_mut_ptr().add(at).cast(), codes);
        }
    }
    quantize_scalar(&input[whole..], scale, zero_point, &mut output[whole..]);
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn quantize_neon(input: &[f32], scale: f32, zero_point: u8, output: &mut [u8]) {
    use std::arch::aarch64::*;
    let divisor = vdupq_n_f32(scale);
    let low = vdupq_n_f32(-f32::from(zero_point));
    let offset = vdupq_n_s16(zero_point.into());
    let whole = output.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within both slices, whose equal lengths were checked.
        unsafe {
            let four = |at: usize| {
                let x = vdivq_f32(vld1q_f32(input.as_ptr().add(at)), divisor);
                // `fmaxnm` yields the number for a NaN: the lowest code. All else saturates.
                vcvtnq_s32_f32(vmaxnmq_f32(x, low))
            };
            let eight =
                |at: usize| vqaddq_s16(vqmovn_high_s32(vqmovn_s32(four(at)), four(at + 4)), offset);
            let codes = vqmovun_high_s16(vqmovun_s16(eight(at)), eight(at + 8));
            vst1q_u8(output.as_mut_ptr().add(at), codes);
        }
    }
    quantize_scalar(&input[whole..], scale, zero_point, &mut output[whole..]);
}

#[cfg(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))]
mod vectors {
    use std::marker::PhantomData;

    use crate::codes_f32::Codes;
    use crate::vector_f32::Work;

    /// Sixteen floats at a time.
    struct Floats<'a, V>(&'a [f32], f32, u8, &'a mut [u8], PhantomData<V>);

    impl<V: Codes> Work for Floats<'_, V> {
        #[inline(always)]
        unsafe fn run(self) {
            let Floats(input, scale, zero_point, output, _) = self;
            let (input, rest) = input.as_chunks::<16>();
            let (output, output_rest) = output.as_chunks_mut::<16>();
            for (x, output) in input.iter().zip(output) {
                // SAFETY: the caller answers for the CPU; sixteen are read and written.
                unsafe {
                    let four = |at: usize| V::load(x.as_ptr().add(at)).divide(V::splat(scale));
                    V::to_codes([0, 4, 8, 12].map(four), zero_point, output.as_mut_ptr());
                }
            }
            super::quantize_scalar(rest, scale, zero_point, output_rest);
        }
    }

    /// # Safety
    ///
    /// This CPU has the vectors.
    pub(super) unsafe fn quantize<V: Codes>(
        input: &[f32],
        scale: f32,
        zero_point: u8,
        output: &mut [u8],
    ) {
        // SAFETY: by the caller.
        unsafe { V::run(Floats::<V>(input, scale, zero_point, output, PhantomData)) }
    }
}

fn quantize_scalar(input: &[f32], scale: f32, zero_point: u8, output: &mut [u8]) {
    let zero_point = f32::from(zero_point);
    for (code, &x) in output.iter_mut().zip(input) {
        // `max` first: it turns NaN into the lowest code, which is 0.
        let q = (x / scale).max(-zero_point).min(255.0 - zero_point);
        *code = (round_small(q) + zero_point) as u8;
    }
}

fn dequantize_scalar(input: &[u8], scale: f32, zero_point: u8, output: &mut [f32]) {
    for (x, &code) in output.iter_mut().zip(input) {
        *x = (i32::from(code) - i32::from(zero_point)) as f32 * scale;
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn quantize(input: &[f32], scale: f32, zero_point: u8, output: &mut [u8]) {
        let divisor = _mm256_set1_ps(scale);
        let low = _mm256_set1_ps(-f32::from(zero_point));
        let high = _mm256_set1_ps(255.0 - f32::from(zero_point));
        let words_of_zero_point = _mm256_set1_epi16(zero_point.into());
        let whole = output.len() / 32 * 32;
        for at in (0..whole).step_by(32) {
            // SAFETY: `at + 32` is within both slices, whose equal lengths were checked.
            unsafe {
                let eight = |at: usize| {
                    let x = _mm256_div_ps(_mm256_loadu_ps(input.as_ptr().add(at)), divisor);
                    // `vmaxps` yields its second operand for NaN: the lowest code.
                    _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(x, low), high))
                };
                let sixteen = |at: usize| {
                    let words = _mm256_packs_epi32(eight(at), eight(at + 8));
                    _mm256_add_epi16(words, words_of_zero_point)
                };
                let codes = _mm256_packus_epi16(sixteen(at), sixteen(at + 16));
                // The packings work within 128-bit halves; this puts the elements back in order.
                let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                let codes = _mm256_permutevar8x32_epi32(codes, order);
                _mm256_storeu_si256(output.as_mut_ptr().add(at).cast(), codes);
            }
        }
        super::quantize_scalar(&input[whole..], scale, zero_point, &mut output[whole..]);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dequantize(input: &[u8], scale: f32, zero_point: u8, output: &mut [f32]) {
        let factor = _mm256_set1_ps(scale);
        let offset = _mm256_set1_epi32(zero_point.into());
        let whole = output.len() / 8 * 8;
        for at in (0..whole).step_by(8) {
            // SAFETY: `at + 8` is within both slices, whose equal lengths were checked.
            unsafe {
                let codes = _mm_loadl_epi64(input.as_ptr().add(at).cast());
                let steps = _mm256_sub_epi32(_mm256_cvtepu8_epi32(codes), offset);
                let x = _mm256_mul_ps(_mm256_cvtepi32_ps(steps), factor);
                _mm256_storeu_ps(output.as_mut_ptr().add(at), x);
            }
        }
        super::dequantize_scalar(&input[whole..], scale, zero_point, &mut output[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_worked_out_by_hand() {
        let input = [0.0, 0.25, 0.75, 1.25, -0.25, -0.75, 1e30, -1e30, f32::NAN, f32::INFINITY];
        let want = [10, 10, 12, 12, 10, 8, 255, 0, 0, 255];
        for kernel in QUANTIZE_KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
            let mut output = [77; 10];
            // SAFETY: the filter checked the instruction set; the lengths are equal.
            unsafe { (kernel.entry)(&input, 0.5, 10, &mut output) };
            assert_eq!(output, want, "{}", kernel.name);
        }
        let mut output = [0.0; 3];
        dequantize_u8_f32(&[0, 10, 255], 0.5, 10, &mut output, Isa::Scalar);
        assert_eq!(output, [-5.0, 0.0, 122.5]);
    }

    #[test]
    fn channels_move_last_on_the_way() {
        for (batch, channels, pixels) in
            [(1, 3, 9500), (2, 1, 7), (1, 4, 1025), (0, 3, 5), (2, 3, 1)]
        {
            let input: Vec<f32> =
                (0..batch * channels * pixels).map(|i| (i % 701) as f32).collect();
            let mut plain = vec![0; input.len()];
            quantize_scalar(&input, 2.5, 7, &mut plain);
            for isa in crate::test_util::isas() {
                let (mut last, pool) = (vec![0; input.len()], Pool::new(2));
                let shape = (batch, channels, pixels);
                quantize_nchw_to_nhwc(shape, &input, 2.5, 7, &mut last, isa, &pool);
                for (i, &code) in plain.iter().enumerate() {
                    let (picture, at) = (i / (channels * pixels), i % (channels * pixels));
                    let (channel, pixel) = (at / pixels, at % pixels);
                    assert_eq!(last[(picture * pixels + pixel) * channels + channel], code);
                }
            }
        }
    }

    #[test]
    fn every_kernel_equals_scalar() {
        for len in (0..70).chain([1000]) {
            let input: Vec<f32> = (0..len)
                .map(|i| match i % 97 {
                    13 => f32::NAN,
                    14 => f32::NEG_INFINITY,
                    15 => f32::MAX,
                    _ => (i as f32 - 30.0) * 0.37 + (i % 2) as f32 * 40.0,
                })
                .collect();
            for (scale, zero_point) in [(0.37, 0), (0.1, 255), (0.74, 128), (1e-38, 3), (1e30, 9)] {
                let mut want = vec![0; len];
                quantize_scalar(&input, scale, zero_point, &mut want);
                for kernel in QUANTIZE_KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
                    let mut got = vec![1; len];
                    // SAFETY: the filter checked the instruction set; the lengths are equal.
                    unsafe { (kernel.entry)(&input, scale, zero_point, &mut got) };
                    assert_eq!(got, want, "{} {scale} {zero_point}", kernel.name);
                }
                let codes: Vec<u8> = (0..len).map(|i| (i * 91) as u8).collect();
                let mut want = vec![0.0; len];
                dequantize_scalar(&codes, scale, zero_point, &mut want);
                for kernel in DEQUANTIZE_KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
                    let mut got = vec![1.0; len];
                    // SAFETY: the filter checked the instruction set; the lengths are equal.
                    unsafe { (kernel.entry)(&codes, scale, zero_point, &mut got) };
                    assert_eq!(got, want, "{} {scale} {zero_point}", kernel.name);
                }
            }
        }
    }
}
