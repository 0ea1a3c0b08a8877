//! The depthwise AVX2 convolution, 32 channels of a pixel at a time (16 where fewer are left).
//!
//! Taps go in pairs: the codes of two taps become neighbouring 16-bit words, so that `vpmaddwd`
//! multiplies both and adds them in 32 bits. That is exact for every weight of -255..=255; nothing
//! here can saturate. The pairs are of any two taps, so an odd kernel wastes one product, and
//! stride and dilation are a matter of the pointer table alone.

use std::arch::x86_64::*;

use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::conv_u8_taps::{SCRATCH, Taps};
use crate::conv_u8_tile::store;
use crate::requantize::SMALL;
use crate::requantize::avx2::Requantizer;

/// Pixels whose pointers are found at a time.
const BLOCK: usize = 64;

/// A packed depthwise convolution.
#[derive(Debug)]
pub(crate) struct DepthwiseConv {
    taps: Taps,
    chunks: Vec<Chunk>,
    output_zero_point: u8,
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
}

/// 32 or 16 channels, in the order in which the kernel's vectors hold them; those beyond the last
/// one of the convolution have zero weights.
#[derive(Debug)]
struct Chunk {
    /// First channel, and how many of the chunk's exist.
    first: usize,
    channels: usize,
    /// `[pair of taps, channel, 2]`.
    weights: Vec<[i16; 2]>,
    bias: Vec<i32>,
    multipliers: Vec<f32>,
}

/// The channel that lane `lane` of vector `vector` holds, in a chunk of 32 (of 4 vectors) or 16.
///
/// 16 are interleaved by bytes and widened, in order. 32 are interleaved by words within the two
/// 128-bit halves, then split into the even and the odd channels.
fn channel_of(width: usize, vector: usize, lane: usize) -> usize {
    match width {
        16 => vector * 8 + lane,
        _ => lane / 4 * 16 + vector / 2 * 8 + lane % 4 * 2 + vector % 2,
    }
}

impl Chunk {
    fn new(params: &ConvU8Params, bias: &[i32], first: usize, width: usize) -> Chunk {
        let taps = params.shape.taps();
        let channels = width.min(params.shape.in_c - first);
        let mut chunk = Chunk {
            first,
            channels,
            weights: vec![[0; 2]; taps.div_ceil(2) * width],
            bias: vec![0; width],
            multipliers: vec![0.0; width],
        };
        let mut weights = vec![0; taps];
        for at in 0..width {
            let channel = channel_of(width, at / 8, at % 8);
            if channel < channels {
                chunk.bias[at] = bias[first + channel];
                chunk.multipliers[at] = params.multipliers[first + channel];
                params.weights_of(first + channel, &mut weights);
                for (tap, &weight) in weights.iter().enumerate() {
                    chunk.weights[tap / 2 * width + at][tap % 2] = weight;
                }
            }
        }
        chunk
    }

    fn width(&self) -> usize {
        self.bias.len()
    }
}

impl DepthwiseConv {
    pub(crate) fn new(params: &ConvU8Params) -> Self {
        let bias = params.folded_bias();
        let mut chunks = Vec::new();
        let mut extent = 0;
        while extent < params.shape.in_c {
            let width = if params.shape.in_c - extent > 16 { 32 } else { 16 };
            chunks.push(Chunk::new(params, &bias, extent, width));
            extent += width;
        }
        DepthwiseConv {
            taps: Taps::new(&params.shape, extent, params.input_zero_point),
            chunks,
            output_zero_point: params.output_zero_point,
            small: params.multipliers.iter().all(|&multiplier| multiplier < SMALL),
        }
    }
}

impl PackedConv for DepthwiseConv {
    unsafe fn run(&self, input: &[u8], part: Part, output: *mut u8, stride: usize) {
        let pixels = part.pixels;
        debug_assert_eq!(part.channels.len(), self.taps.shape.out_c);
        SCRATCH.with_borrow_mut(|scratch| {
            self.taps.begin(input, scratch);
            for first in pixels.clone().step_by(BLOCK) {
                let block = first..pixels.end.min(first + BLOCK);
                self.taps.point(input, block.clone(), scratch);
                // SAFETY: `ConvU8::with_kernel` made sure of AVX2. `point` leads to `extent`
                // bytes, which the chunks add up to; the caller answers for the output.
                unsafe {
                    let output = output.add((first - pixels.start) * stride);
                    match self.small {
                        true => self.block::<true>(&scratch.pointers, block.len(), output, stride),
                        false => {
                            self.block::<false>(&scratch.pointers, block.len(), output, stride)
                        }
                    }
                }
            }
        });
    }
}

impl DepthwiseConv {
    /// Computes all channels of `pixels` pixels and stores them, `stride` apart.
    ///
    /// # Safety
    ///
    /// This CPU has AVX2 and FMA; `SMALL` only if the multipliers are. `pointers` are those of every tap, each of as many pixels; they can
    /// be read for `extent` bytes. All channels can be written for each pixel.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn block<const SMALL: bool>(
        &self,
        pointers: &[*const u8],
        pixels: usize,
        output: *mut u8,
        stride: usize,
    ) {
        let requantizer = Requantizer::<SMALL>::new(self.output_zero_point);
        for chunk in &self.chunks {
            for r in (0..pixels).step_by(2) {
                let kernel = match (chunk.width(), pixels - r) {
                    (16, 1) => narrow::<1, SMALL>,
                    (16, _) => narrow::<2, SMALL>,
                    (_, 1) => wide::<1, SMALL>,
                    _ => wide::<2, SMALL>,
                };
                let taps = PixelTaps { pointers: &pointers[r..], row: pixels };
                // SAFETY: the width is matched, the pixels `r` and, if matched, `r + 1` exist, and
                // the caller answers for the pointers.
                unsafe {
                    let to = output.add(r * stride + chunk.first);
                    kernel(taps, chunk, requantizer, to, stride);
                }
            }
        }
    }
}

/// The pointers of one pixel's taps, `row` apart; those of the next pixel follow each.
#[derive(Clone, Copy)]
struct PixelTaps<'a> {
    pointers: &'a [*const u8],
    row: usize,
}

impl PixelTaps<'_> {
    fn pairs(&self) -> usize {
        self.pointers.len().div_ceil(self.row).div_ceil(2)
    }

    /// The pointers of a pair of taps of pixel `r`. The last one of an odd number is paired with
    /// itself, at weight 0.
    ///
    /// # Safety
    ///
    /// `pair` is less than `pairs()`, and pixel `r` exists.
    #[inline(always)]
    unsafe fn pair_of(&self, pair: usize, r: usize) -> [*const u8; 2] {
        let first = 2 * pair * self.row + r;
        let second = if first + self.row < self.pointers.len() { first + self.row } else { first };
        // SAFETY: both are in the table, by the caller and by the line above.
        unsafe { [*self.pointers.get_unchecked(first), *self.pointers.get_unchecked(second)] }
    }
}

/// Computes 32 channels of `R` pixels and stores them, `stride` apart.
///
/// # Safety
///
/// The chunk is 32 wide, and has a pair of weights for every two of the taps. The pointers of these
/// pixels can be read for 32 bytes from the chunk's first channel on, and its channels can be
/// written at `R` places.
#[target_feature(enable = "avx2,fma")]
unsafe fn wide<const R: usize, const SMALL: bool>(
    taps: PixelTaps,
    chunk: &Chunk,
    requantizer: Requantizer<SMALL>,
    to: *mut u8,
    stride: usize,
) {
    let low_bytes = _mm256_set1_epi16(0x00FF);
    // SAFETY: a chunk of 32 holds 4 vectors of biases, multipliers and weights of each pair; the
    // caller answers for pointers and output.
    unsafe {
        let bias: *const __m256i = chunk.bias.as_ptr().cast();
        let bias: [__m256i; 4] = std::array::from_fn(|v| _mm256_loadu_si256(bias.add(v)));
        let mut acc = [bias; R];
        let mut weights: *const __m256i = chunk.weights.as_ptr().cast();
        for pair in 0..taps.pairs() {
            for (r, acc) in acc.iter_mut().enumerate() {
                let [first, second] = taps.pair_of(pair, r);
                let a = _mm256_loadu_si256(first.add(chunk.first).cast());
                let b = _mm256_loadu_si256(second.add(chunk.first).cast());
                // Every 32 bits hold two channels of `a`, then the same two of `b`.
                let low = _mm256_unpacklo_epi16(a, b);
                let high = _mm256_unpackhi_epi16(a, b);
                let words = [
                    _mm256_and_si256(low, low_bytes),
                    _mm256_srli_epi16::<8>(low),
                    _mm256_and_si256(high, low_bytes),
                    _mm256_srli_epi16::<8>(high),
                ];
                for (v, words) in words.into_iter().enumerate() {
                    let products = _mm256_madd_epi16(words, _mm256_loadu_si256(weights.add(v)));
                    acc[v] = _mm256_add_epi32(acc[v], products);
                }
            }
            weights = weights.add(4);
        }
        let multipliers = chunk.multipliers.as_ptr();
        let multipliers: [__m256; 4] =
            std::array::from_fn(|v| _mm256_loadu_ps(multipliers.add(v * 8)));
        for (r, acc) in acc.into_iter().enumerate() {
            let codes = requantizer.even_and_odd(acc, multipliers);
            let to = to.add(r * stride);
            if chunk.channels == 32 {
                _mm256_storeu_si256(to.cast(), codes);
            } else {
                store(_mm256_castsi256_si128(codes), to, chunk.channels.min(16));
                if chunk.channels > 16 {
                    let rest = _mm256_extracti128_si256::<1>(codes);
                    store(rest, to.add(16), chunk.channels - 16);
                }
            }
        }
    }
}

/// As [`wide`], for 16 channels.
///
/// # Safety
///
/// As for [`wide`], with 16 in the place of 32.
#[target_feature(enable = "avx2,fma")]
unsafe fn narrow<const R: usize, const SMALL: bool>(
    taps: PixelTaps,
    chunk: &Chunk,
    requantizer: Requantizer<SMALL>,
    to: *mut u8,
    stride: usize,
) {
    // SAFETY: a chunk of 16 holds 2 vectors of biases, multipliers and weights of each pair; the
    // caller answers for pointers and output.
    unsafe {
        let bias: *const __m256i = chunk.bias.as_ptr().cast();
        let mut acc = [[_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))]; R];
        let mut weights: *const __m256i = chunk.weights.as_ptr().cast();
        for pair in 0..taps.pairs() {
            for (r, acc) in acc.iter_mut().enumerate() {
                let [first, second] = taps.pair_of(pair, r);
                let a = _mm_loadu_si128(first.add(chunk.first).cast());
                let b = _mm_loadu_si128(second.add(chunk.first).cast());
                let words = [
                    _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)),
                    _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b)),
                ];
                for (v, words) in words.into_iter().enumerate() {
                    let products = _mm256_madd_epi16(words, _mm256_loadu_si256(weights.add(v)));
                    acc[v] = _mm256_add_epi32(acc[v], products);
                }
            }
            weights = weights.add(2);
        }
        let multipliers = chunk.multipliers.as_ptr();
        let multipliers = [_mm256_loadu_ps(multipliers), _mm256_loadu_ps(multipliers.add(8))];
        for (r, acc) in acc.into_iter().enumerate() {
            store(requantizer.one_row(acc, multipliers), to.add(r * stride), chunk.channels);
        }
    }
}
