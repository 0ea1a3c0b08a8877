//! The depthwise AVX2 convolution, 16 channels of 4 pixels at a time.
//!
//! Taps go in pairs: the bytes of two taps are interleaved and widened to 16 bits, so that
//! `vpmaddwd` multiplies both and adds them in 32 bits. That is exact for every weight of
//! -255..=255; nothing here can saturate. The pairs are of any two taps, so an odd kernel wastes
//! one product, and stride and dilation are a matter of the pointer table alone.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::conv_u8::{ConvU8Params, PackedConv};
use crate::conv_u8_taps::{SCRATCH, TILE, Taps};
use crate::conv_u8_tile::store;
use crate::requantize::avx2::Requantizer;

/// Channels that one step computes.
const CHANNELS: usize = 16;
/// Pixels whose pointers are found at a time.
const BLOCK: usize = 16 * TILE;

/// A packed depthwise convolution.
#[derive(Debug)]
pub(crate) struct DepthwiseConv {
    taps: Taps,
    chunks: Vec<Chunk>,
    output_zero_point: u8,
}

/// 16 channels; those beyond the last one have zero weights.
#[derive(Debug)]
struct Chunk {
    /// `[pair of taps, channel, 2]`.
    weights: Vec<[[i16; 2]; CHANNELS]>,
    bias: [i32; CHANNELS],
    multipliers: [f32; CHANNELS],
    /// Channels of these 16 that exist.
    channels: usize,
}

impl DepthwiseConv {
    pub(crate) fn new(params: &ConvU8Params) -> Self {
        let shape = &params.shape;
        let (channels, taps) = (shape.in_c, shape.taps());
        let folded_bias = params.folded_bias();
        let chunk = |first: usize| {
            let channels = (channels - first).min(CHANNELS);
            let mut weights = vec![[[0; 2]; CHANNELS]; taps.div_ceil(2)];
            let mut of_channel = vec![0; taps];
            for channel in 0..channels {
                params.weights_of(first + channel, &mut of_channel);
                for (pair, taps) in weights.iter_mut().zip(of_channel.chunks(2)) {
                    pair[channel][..taps.len()].copy_from_slice(taps);
                }
            }
            let mut chunk =
                Chunk { weights, bias: [0; CHANNELS], multipliers: [0.0; CHANNELS], channels };
            chunk.bias[..channels].copy_from_slice(&folded_bias[first..][..channels]);
            chunk.multipliers[..channels].copy_from_slice(&params.multipliers[first..][..channels]);
            chunk
        };
        let extent = channels.next_multiple_of(CHANNELS);
        DepthwiseConv {
            taps: Taps::new(shape, extent, params.input_zero_point),
            chunks: (0..channels).step_by(CHANNELS).map(chunk).collect(),
            output_zero_point: params.output_zero_point,
        }
    }
}

impl PackedConv for DepthwiseConv {
    fn run(&self, input: &[u8], pixels: Range<usize>, output: &mut [u8]) {
        let (channels, taps) = (self.taps.shape.in_c, self.taps.shape.taps());
        SCRATCH.with_borrow_mut(|scratch| {
            self.taps.begin(input, scratch);
            let blocks = output.chunks_mut(BLOCK * channels);
            for (first, output) in pixels.clone().step_by(BLOCK).zip(blocks) {
                let block = first..pixels.end.min(first + BLOCK);
                self.taps.point(input, block, scratch);
                let tiles = scratch.pointers.chunks_exact(taps);
                for (taps, output) in tiles.zip(output.chunks_mut(TILE * channels)) {
                    let kernel = match output.len() / channels {
                        1 => pixels_of_tile::<1>,
                        2 => pixels_of_tile::<2>,
                        3 => pixels_of_tile::<3>,
                        _ => pixels_of_tile::<4>,
                    };
                    // SAFETY: `ConvU8::with_kernel` made sure of AVX2. `point` leads to `extent`
                    // bytes, 16 for each chunk; `output` holds the matched number of pixels.
                    unsafe {
                        kernel(taps, &self.chunks, self.output_zero_point, output, channels);
                    }
                }
            }
        });
    }
}

/// Computes all channels of `R` pixels.
///
/// # Safety
///
/// `taps` is not empty and twice as long as the weights of each chunk, or one less. The first `R`
/// pointers of every tap can be read for 16 bytes per chunk. `output` is `R` rows of
/// `channels`, which the chunks cover.
#[target_feature(enable = "avx2,fma")]
unsafe fn pixels_of_tile<const R: usize>(
    taps: &[[*const u8; TILE]],
    chunks: &[Chunk],
    output_zero_point: u8,
    output: &mut [u8],
    channels: usize,
) {
    let requantizer = Requantizer::new(output_zero_point);
    for (i, chunk) in chunks.iter().enumerate() {
        let at = i * CHANNELS;
        // SAFETY: the arrays of a chunk are of 16, with one pair of weights for two of the taps;
        // the caller answers for pointers and output.
        unsafe {
            let bias = chunk.bias.as_ptr();
            let mut acc =
                [[_mm256_loadu_si256(bias.cast()), _mm256_loadu_si256(bias.add(8).cast())]; R];
            for (pair, weights) in chunk.weights.iter().enumerate() {
                // The last tap of an odd number is paired with itself, at weight 0.
                let first = *taps.get_unchecked(2 * pair);
                let second = *taps.get_unchecked((2 * pair + 1).min(taps.len() - 1));
                let weights: *const __m256i = weights.as_ptr().cast();
                let (low, high) = (_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1)));
                for r in 0..R {
                    let a = _mm_loadu_si128(first[r].add(at).cast());
                    let b = _mm_loadu_si128(second[r].add(at).cast());
                    let x = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
                    let y = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
                    acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, low));
                    acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(y, high));
                }
            }
            let multipliers = chunk.multipliers.as_ptr();
            let multipliers = [_mm256_loadu_ps(multipliers), _mm256_loadu_ps(multipliers.add(8))];
            let to = output.as_mut_ptr().add(at);
            for r in (0..R).step_by(2) {
                let next = (r + 1).min(R - 1);
                let codes = requantizer.two_rows(acc[r], acc[next], multipliers);
                store(_mm256_castsi256_si128(codes), to.add(r * channels), chunk.channels);
                let codes = _mm256_extracti128_si256::<1>(codes);
                store(codes, to.add(next * channels), chunk.channels);
            }
        }
    }
}
