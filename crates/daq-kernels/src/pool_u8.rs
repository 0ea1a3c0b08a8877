//! Pooling of 8-bit codes, channels last.

use std::cell::RefCell;
use std::ops::Range;

use crate::requantize::requantize;
use crate::window::{Window, tap_offsets};
use crate::{ConvShape, Isa, Kernel};

/// The largest codes of windows side by side, of the pixels that begin at each of the offsets:
/// `output[pixel, c] = max(input[pixel * step + offset + c])`, of so many channels, and 0 of no offsets.
type MaxEntry = unsafe fn(&[u8], usize, &[usize], usize, &mut [u8]);
/// Adds the rows of `[rows, channels]` from channel `first` on, `sums[c] += input[row, first + c]`,
/// exact for up to [`ROWS_OF_I32`] rows and at most [`SUMS`] channels.
type SumEntry = unsafe fn(&[u8], usize, usize, &mut [i32]);

/// Every kernel of [`MaxPoolU8`], best first and scalar last.
pub static MAX_KERNELS: &[Kernel<MaxEntry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qmaxpool_64__avx512", isa: Isa::Avx512, entry: max_avx512 },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qmaxpool_32__avx2", isa: Isa::Avx2, entry: max_avx2 },
    #[cfg(target_arch = "aarch64")]
    Kernel { name: "qmaxpool_16__neon", isa: Isa::Neon, entry: max_neon },
    Kernel { name: "qmaxpool__scalar", isa: Isa::Scalar, entry: max_scalar },
];

/// Every kernel of [`GlobalAveragePoolU8`], best first and scalar last.
pub static SUM_KERNELS: &[Kernel<SumEntry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qaveragepool_16__avx2", isa: Isa::Avx2, entry: sum_avx2 },
    #[cfg(target_arch = "aarch64")]
    Kernel { name: "qaveragepool_16__neon", isa: Isa::Neon, entry: sum_neon },
    Kernel { name: "qaveragepool__scalar", isa: Isa::Scalar, entry: sum_scalar },
];

/// The largest code of each window. Scale and zero point do not change.
#[derive(Debug)]
pub struct MaxPoolU8 {
    shape: ConvShape,
    offsets: Vec<usize>,
    kernel: &'static Kernel<MaxEntry>,
}

impl MaxPoolU8 {
    /// Prepares a pooling whose windows are those of `shape`'s kernel; its `groups`, `in_c` and
    /// `out_c` are equal.
    ///
    /// # Panics
    ///
    /// If `in_c` and `out_c` differ.
    pub fn new(shape: &ConvShape, isa: Isa) -> MaxPoolU8 {
        MaxPoolU8::with_kernel(shape, Kernel::pick(MAX_KERNELS, isa))
    }

    /// Prepares the pooling for one kernel of the list; for tests and benchmarks.
    ///
    /// # Panics
    ///
    /// If `in_c` and `out_c` differ, or this CPU cannot execute the kernel.
    pub fn with_kernel(shape: &ConvShape, kernel: &'static Kernel<MaxEntry>) -> MaxPoolU8 {
        kernel.check();
        assert_eq!(shape.in_c, shape.out_c, "pooling keeps the channels");
        MaxPoolU8 { shape: *shape, offsets: tap_offsets(shape), kernel }
    }

    /// Computes the output pixels `pixels`, counted through `[batch, out_h, out_w]`.
    ///
    /// `input` is all of `[batch, in_h, in_w, in_c]`; `output` is `[pixels.len(), in_c]`. Padding
    /// never wins; a window of nothing else gives the code 0.
    ///
    /// # Panics
    ///
    /// If a length contradicts the shape.
    pub fn run(&self, input: &[u8], pixels: Range<usize>, output: &mut [u8]) {
        let shape = &self.shape;
        assert_eq!(input.len(), shape.input_len(), "the input contradicts the shape");
        assert!(pixels.end <= shape.pixels(), "pixels {pixels:?} of {}", shape.pixels());
        assert_eq!(output.len(), pixels.len() * shape.in_c, "the output contradicts the pixels");
        if output.is_empty() {
            return;
        }
        let mut window = Window::new(shape, pixels.start);
        let mut rest = output;
        TAPS.with_borrow_mut(|taps| {
            while !rest.is_empty() {
                let (input, pixels, offsets) = match window.inside(shape, 1) {
                    Some(first) => {
                        let pixels = window.run_inside(shape, rest.len() / shape.in_c);
                        (&input[first..], pixels, &self.offsets)
                    }
                    None => {
                        taps.clear();
                        window.for_each_tap(shape, |_, offset| taps.extend(offset));
                        (input, 1, &*taps)
                    }
                };
                let output = rest.split_off_mut(..pixels * shape.in_c).unwrap_or_default();
                let step = shape.stride_w * shape.in_c;
                // SAFETY: `with_kernel` made sure that this CPU has the kernel's instruction set. The
                // windows yield pixels of the input, whose length was checked.
                unsafe { (self.kernel.entry)(input, step, offsets, shape.in_c, output) }
                window.advance(shape, pixels);
            }
        });
    }
}

thread_local! {
    /// Where the pixels of a window that reaches into the padding begin; reused from call to call.
    static TAPS: RefCell<Vec<usize>> = RefCell::default();
}

/// Geometry, scales and zero points of a pooling over whole pictures; scales are finite and
/// positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GlobalAveragePoolU8Params {
    /// Pixels of a picture: height times width.
    pub pixels: usize,
    /// Channels.
    pub channels: usize,
    /// Scale of the input.
    pub input_scale: f32,
    /// Zero point of the input.
    pub input_zero_point: u8,
    /// Scale of the output.
    pub output_scale: f32,
    /// Zero point of the output.
    pub output_zero_point: u8,
}

/// The mean of each channel over whole pictures: `rne(acc * (sa / (sc * pixels))) + zc`, with `acc`
/// the exact sum of `q - za`.
#[derive(Debug)]
pub struct GlobalAveragePoolU8 {
    params: GlobalAveragePoolU8Params,
    multiplier: f32,
    kernel: &'static Kernel<SumEntry>,
}

/// Channels that are added at a time.
const SUMS: usize = 64;
/// Rows that are added in 32 bits before the sums move to 64: 2^23 * 255 is below 2^31.
const ROWS_OF_I32: usize = 1 << 23;

impl GlobalAveragePoolU8 {
    /// Prepares the pooling for the best kernel that needs no more than `isa`.
    pub fn new(params: &GlobalAveragePoolU8Params, isa: Isa) -> GlobalAveragePoolU8 {
        GlobalAveragePoolU8::with_kernel(params, Kernel::pick(SUM_KERNELS, isa))
    }

    /// Prepares the pooling for one kernel of the list; for tests and benchmarks.
    ///
    /// # Panics
    ///
    /// If this CPU cannot execute the kernel.
    pub fn with_kernel(
        params: &GlobalAveragePoolU8Params,
        kernel: &'static Kernel<SumEntry>,
    ) -> GlobalAveragePoolU8 {
        kernel.check();
        let multiplier = params.input_scale / (params.output_scale * params.pixels as f32);
        GlobalAveragePoolU8 { params: *params, multiplier, kernel }
    }

    /// Averages `input`, `[batch, pixels, channels]`, into `output`, `[batch, channels]`. Sums
    /// beyond 32 bits, possible above 8.4 million pixels, saturate.
    ///
    /// # Panics
    ///
    /// If a length contradicts the parameters.
    pub fn run(&self, input: &[u8], output: &mut [u8]) {
        let GlobalAveragePoolU8Params { pixels, channels, .. } = self.params;
        assert_eq!(input.len(), output.len() * pixels, "input and output contradict the shape");
        if input.is_empty() {
            output.fill(self.params.output_zero_point);
            return;
        }
        assert!(output.len().is_multiple_of(channels), "the output contradicts the channels");
        let offset = pixels as i64 * i64::from(self.params.input_zero_point);
        let pictures = input.chunks_exact(pixels * channels);
        for (picture, output) in pictures.zip(output.chunks_exact_mut(channels)) {
            for (i, output) in output.chunks_mut(SUMS).enumerate() {
                let mut totals = [0i64; SUMS];
                for rows in picture.chunks(ROWS_OF_I32.saturating_mul(channels)) {
                    let mut sums = [0; SUMS];
                    let sums = &mut sums[..output.len()];
                    // SAFETY: `with_kernel` made sure that this CPU has the kernel's instructions.
                    unsafe { (self.kernel.entry)(rows, channels, i * SUMS, sums) }
                    totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += i64::from(*sum));
                }
                for (code, total) in output.iter_mut().zip(totals) {
                    let acc = (total - offset).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                    *code = requantize(acc, self.multiplier, self.params.output_zero_point);
                }
            }
        }
    }
}

fn max_scalar(input: &[u8], step: usize, offsets: &[usize], channels: usize, output: &mut [u8]) {
    output.fill(0);
    for (i, row) in output.chunks_exact_mut(channels).enumerate() {
        for &offset in offsets {
            for (largest, &code) in row.iter_mut().zip(&input[i * step + offset..]) {
                *largest = code.max(*largest);
            }
        }
    }
}

fn sum_scalar(input: &[u8], channels: usize, first: usize, sums: &mut [i32]) {
    for row in input.chunks_exact(channels) {
        for (sum, &code) in sums.iter_mut().zip(&row[first..]) {
            *sum += i32::from(code);
        }
    }
}

/// # Safety
///
/// This CPU has AVX-512, and the input holds the channels of every pixel of each window.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn max_avx512(
    input: &[u8],
    step: usize,
    offsets: &[usize],
    channels: usize,
    output: &mut [u8],
) {
    use std::arch::x86_64::*;
    for (i, row) in output.chunks_exact_mut(channels).enumerate() {
        let input = input.as_ptr().wrapping_add(i * step);
        for (at, to) in (0..).step_by(64).zip(row.chunks_mut(64)) {
            let some = u64::MAX >> (64 - to.len());
            // SAFETY: the input holds as many codes of the row from every offset on.
            unsafe {
                let mut largest = _mm512_setzero_si512();
                for &offset in offsets {
                    let codes = _mm512_maskz_loadu_epi8(some, input.add(offset + at).cast());
                    largest = _mm512_max_epu8(largest, codes);
                }
                _mm512_mask_storeu_epi8(to.as_mut_ptr().cast(), some, largest);
            }
        }
    }
}

/// Rows that are no multiple of a vector end with one that overlaps the one before.
///
/// # Safety
///
/// This CPU has AVX2, and the input holds the channels of every pixel of each window.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn max_avx2(
    input: &[u8],
    step: usize,
    offsets: &[usize],
    channels: usize,
    output: &mut [u8],
) {
    use std::arch::x86_64::*;
    /// The largest codes of `N` vectors.
    ///
    /// # Safety
    ///
    /// The input holds as many from every offset on, and so does the output.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn columns<const N: usize>(input: *const u8, offsets: &[usize], to: *mut u8) {
        let mut largest = [_mm256_setzero_si256(); N];
        for &offset in offsets {
            for (v, largest) in largest.iter_mut().enumerate() {
                // SAFETY: by the caller.
                let codes =
                    unsafe { _mm256_loadu_si256(input.add(offset).cast::<__m256i>().add(v)) };
                *largest = _mm256_max_epu8(*largest, codes);
            }
        }
        for (v, largest) in largest.into_iter().enumerate() {
            // SAFETY: by the caller.
            unsafe { _mm256_storeu_si256(to.cast::<__m256i>().add(v), largest) }
        }
    }
    for (i, row) in output.chunks_exact_mut(channels).enumerate() {
        // SAFETY: every `at` leaves as many codes within the row, which the input holds from every offset
        // on.
        unsafe {
            let (from, to) = (input.as_ptr().add(i * step), row.as_mut_ptr());
            if channels >= 32 {
                let mut at = 0;
                while at + 128 <= channels {
                    columns::<4>(from.add(at), offsets, to.add(at));
                    at += 128;
                }
                if at + 64 <= channels {
                    columns::<2>(from.add(at), offsets, to.add(at));
                    at += 64;
                }
                while at < channels {
                    at = at.min(channels - 32);
                    columns::<1>(from.add(at), offsets, to.add(at));
                    at += 32;
                }
            } else if channels >= 16 {
                for at in [0, channels - 16] {
                    let mut largest = _mm_setzero_si128();
                    for &offset in offsets {
                        let codes = _mm_loadu_si128(from.add(offset + at).cast());
                        largest = _mm_max_epu8(largest, codes);
                    }
                    _mm_storeu_si128(to.add(at).cast(), largest);
                }
            } else if channels >= 8 {
                for at in [0, channels - 8] {
                    let mut largest = _mm_setzero_si128();
                    for &offset in offsets {
                        let codes = _mm_loadl_epi64(from.add(offset + at).cast());
                        largest = _mm_max_epu8(largest, codes);
                    }
                    _mm_storel_epi64(to.add(at).cast(), largest);
                }
            } else {
                for (at, largest) in row.iter_mut().enumerate() {
                    let codes = offsets.iter().map(|&offset| *from.add(offset + at));
                    *largest = codes.max().unwrap_or(0);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn sum_avx2(input: &[u8], channels: usize, first: usize, sums: &mut [i32]) {
    use std::arch::x86_64::*;
    /// Rows whose sums 16 bits hold.
    const ROWS: usize = 257;
    /// Adds `N` times 16 channels.
    #[target_feature(enable = "avx2,fma")]
    fn add<const N: usize>(input: &[u8], channels: usize, first: usize, sums: &mut [i32]) {
        assert!(first + N * 16 <= channels && sums.len() == N * 16);
        for rows in input.chunks(ROWS * channels) {
            let mut words = [_mm256_setzero_si256(); N];
            for row in rows.chunks_exact(channels) {
                for (v, words) in words.iter_mut().enumerate() {
                    // SAFETY: every row holds so many channels from `first` on.
                    let codes = unsafe { _mm_loadu_si128(row.as_ptr().add(first + v * 16).cast()) };
                    *words = _mm256_add_epi16(*words, _mm256_cvtepu8_epi16(codes));
                }
            }
            for (sums, words) in sums.chunks_exact_mut(16).zip(words) {
                let to: *mut __m256i = sums.as_mut_ptr().cast();
                let halves = [_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words)];
                for (i, half) in halves.into_iter().enumerate() {
                    // SAFETY: there are 16 sums.
                    unsafe {
                        let sum = _mm256_loadu_si256(to.add(i));
                        let sum = _mm256_add_epi32(sum, _mm256_cvtepu16_epi32(half));
                        _mm256_storeu_si256(to.add(i), sum);
                    }
                }
            }
        }
    }
    if sums.len() == SUMS {
        return add::<4>(input, channels, first, sums);
    }
    let (whole, rest) = sums.as_chunks_mut::<16>();
    let rest_at = first + whole.len() * 16;
    for (i, sums) in whole.iter_mut().enumerate() {
        add::<1>(input, channels, first + i * 16, sums);
    }
    sum_scalar(input, channels, rest_at, rest);
}

/// # Safety
///
/// The input holds the channels of every pixel of each window.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn max_neon(
    input: &[u8],
    step: usize,
    offsets: &[usize],
    channels: usize,
    output: &mut [u8],
) {
    use std::arch::aarch64::*;
    let whole = channels / 16 * 16;
    for (i, row) in output.chunks_exact_mut(channels).enumerate() {
        let input = &input[i * step..];
        for at in (0..whole).step_by(16) {
            // SAFETY: `at + 16` is within the row, which the input holds from every offset on.
            unsafe {
                let mut largest = vdupq_n_u8(0);
                for &offset in offsets {
                    largest = vmaxq_u8(largest, vld1q_u8(input.as_ptr().add(offset + at)));
                }
                vst1q_u8(row.as_mut_ptr().add(at), largest);
            }
        }
        for (at, largest) in row.iter_mut().enumerate().skip(whole) {
            *largest = offsets.iter().map(|&offset| input[offset + at]).max().unwrap_or(0);
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn sum_neon(input: &[u8], channels: usize, first: usize, sums: &mut [i32]) {
    use std::arch::aarch64::*;
    let (whole, rest) = sums.as_chunks_mut::<16>();
    let rest_at = first + whole.len() * 16;
    for (i, sums) in whole.iter_mut().enumerate() {
        let first = first + i * 16;
        assert!(first + 16 <= channels);
        // SAFETY: every row holds 16 channels from `first` on, and there are as many sums.
        unsafe {
            let to: *mut u32 = sums.as_mut_ptr().cast();
            let mut all = [0, 4, 8, 12].map(|at| vld1q_u32(to.add(at)));
            for row in input.chunks_exact(channels) {
                let codes = vld1q_u8(row.as_ptr().add(first));
                let (low, high) = (vmovl_u8(vget_low_u8(codes)), vmovl_high_u8(codes));
                all[0] = vaddw_u16(all[0], vget_low_u16(low));
                all[1] = vaddw_high_u16(all[1], low);
                all[2] = vaddw_u16(all[2], vget_low_u16(high));
                all[3] = vaddw_high_u16(all[3], high);
            }
            for (i, sums) in all.into_iter().enumerate() {
                vst1q_u32(to.add(i * 4), sums);
            }
        }
    }
    sum_scalar(input, channels, rest_at, rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_by_hand_and_by_loop() {
        // A 2x2 window of stride 1 over one channel of 2x3, padded by one row above.
        let shape = ConvShape {
            in_h: 2,
            in_w: 3,
            in_c: 1,
            out_h: 2,
            out_w: 2,
            out_c: 1,
            kernel_h: 2,
            kernel_w: 2,
            pad_top: 1,
            ..ConvShape::gemm(1, 1, 1)
        };
        let mut output = [9; 4];
        MaxPoolU8::new(&shape, Isa::Scalar).run(&[1, 2, 3, 4, 0, 5], 0..4, &mut output);
        assert_eq!(output, [2, 3, 4, 5]);

        // Windows of 3x3 padded by 1, and of 5x5 padded by 2, both of stride 2.
        for (channels, pad) in (1..70).chain([200]).flat_map(|c| [(c, 1), (c, 2)]) {
            let shape = ConvShape {
                batch: 2,
                in_h: 7,
                in_w: 6,
                in_c: channels,
                out_h: 4,
                out_w: 3,
                out_c: channels,
                kernel_h: 2 * pad + 1,
                kernel_w: 2 * pad + 1,
                stride_h: 2,
                stride_w: 2,
                pad_top: pad,
                pad_left: pad,
                groups: channels,
                ..ConvShape::gemm(1, 1, 1)
            };
            let input: Vec<u8> =
                (0..shape.input_len()).map(|i| (i * i * 31 + i * 7 + channels) as u8).collect();
            for kernel in MAX_KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
                let pool = MaxPoolU8::with_kernel(&shape, kernel);
                let mut output = vec![1; 17 * channels];
                pool.run(&input, 3..20, &mut output);
                for (i, &code) in output.iter().enumerate() {
                    let (pixel, channel) = (3 + i / channels, i % channels);
                    let (image, y, x) = (pixel / 12, pixel % 12 / 3, pixel % 3);
                    let mut want = 0;
                    for in_y in (2 * y).saturating_sub(pad)..(2 * y + pad + 1).min(7) {
                        for in_x in (2 * x).saturating_sub(pad)..(2 * x + pad + 1).min(6) {
                            let at = ((image * 7 + in_y) * 6 + in_x) * channels + channel;
                            want = want.max(input[at]);
                        }
                    }
                    assert_eq!(code, want, "{} {channels} {pixel} {channel}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn average_by_hand_and_by_loop() {
        let params = GlobalAveragePoolU8Params {
            pixels: 4,
            channels: 2,
            input_scale: 0.5,
            input_zero_point: 10,
            output_scale: 0.25,
            output_zero_point: 100,
        };
        let mut output = [0; 4];
        // Sums of q - 10 are 5, -2, 0 and 400; times 1/2: 2.5 (to even 2), -1, 0, 200.
        GlobalAveragePoolU8::new(&params, Isa::Scalar)
            .run(&[11, 9, 11, 9, 11, 10, 12, 10, 10, 110, 10, 110, 10, 110, 10, 110], &mut output);
        assert_eq!(output, [102, 99, 100, 255]);

        for (pixels, channels) in (1..70).map(|c| (49, c)).chain([(1, 5), (5000, 33), (7, 1280)]) {
            let params = GlobalAveragePoolU8Params {
                pixels,
                channels,
                input_scale: 0.031,
                input_zero_point: 101,
                output_scale: 0.017,
                output_zero_point: 77,
            };
            let input: Vec<u8> =
                (0..2 * pixels * channels).map(|i| (i * i * 31 + i / 3 + pixels) as u8).collect();
            for kernel in SUM_KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
                let mut output = vec![0; 2 * channels];
                GlobalAveragePoolU8::with_kernel(&params, kernel).run(&input, &mut output);
                for (i, &code) in output.iter().enumerate() {
                    let (image, channel) = (i / channels, i % channels);
                    let acc: i64 = (0..pixels)
                        .map(|p| i64::from(input[(image * pixels + p) * channels + channel]) - 101)
                        .sum();
                    let scaled =
                        (acc as f32 * (0.031f32 / (0.017f32 * pixels as f32))).round_ties_even();
                    let want = (scaled as i64 + 77).clamp(0, 255) as u8;
                    assert_eq!(code, want, "{} {pixels} {channels}", kernel.name);
                }
            }
        }
    }
}
