//! Float depthwise convolution with AVX2: vectors over the channels.
//!
//! There is no sum over channels, so a lane is a channel and inputs are used once a tap. Four
//! neighbouring pixels share the weights, which gives four chains of additions to overlap.

use crate::conv_f32::{ConvF32Params, Entry, Kernel, PixelWalk};
use crate::conv_f32_avx2::lane_mask;
use crate::{ConvShape, Isa};
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

/// For every depthwise geometry.
pub(crate) const AVX2: Entry = Entry {
    name: "avx2-depthwise",
    isa: Isa::Avx2,
    fits: ConvShape::is_depthwise,
    pack: Depthwise::pack,
};

/// Pixels that share a load of the weights.
const PIXELS: usize = 4;
/// The floats of a vector.
const LANES: usize = 8;

struct Depthwise {
    shape: ConvShape,
    clamp: (f32, f32),
    /// What padded taps read: a zero for each channel.
    zeros: Vec<f32>,
    /// `[1 + taps, channels]`: the biases, then the weights.
    packed: Vec<f32>,
}

thread_local! {
    /// `[taps, PIXELS]` pointers to a pixel's channels.
    static TAPS: RefCell<Vec<[*const f32; PIXELS]>> = const { RefCell::new(Vec::new()) };
}

impl Depthwise {
    fn pack(params: &ConvF32Params) -> Box<dyn Kernel> {
        let shape = params.shape;
        let mut packed: Vec<f32> = (0..shape.out_c).map(|c| params.bias_of(c)).collect();
        for tap in 0..shape.taps() {
            packed.extend((0..shape.out_c).map(|c| params.weight(c, tap, 0)));
        }
        let zeros = vec![0.0; shape.in_c];
        Box::new(Depthwise { shape, clamp: params.clamp, zeros, packed })
    }

    /// Pixels of which the first is at `taps[..][0]`.
    ///
    /// # Safety
    /// AVX2 and FMA are there; every pointer of `taps` (one entry a tap) is good for all channels;
    /// `output` has room for `count <= PIXELS` pixels.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn pixels(&self, taps: &[[*const f32; PIXELS]], count: usize, output: *mut f32) {
        let channels = self.shape.out_c;
        let whole = channels / LANES * LANES;
        let low = _mm256_set1_ps(self.clamp.0);
        let high = _mm256_set1_ps(self.clamp.1);
        let packed = self.packed.as_ptr();
        let mut c = 0;
        // SAFETY: `c` and the lanes used from it on stay below `channels`, for which every pointer
        // of `taps`, every row of `packed` and the output's pixels are good.
        unsafe {
            while c < whole {
                let mut acc = [_mm256_loadu_ps(packed.add(c)); PIXELS];
                let mut weights = packed.add(c);
                for tap in taps {
                    weights = weights.add(channels);
                    let weight = _mm256_loadu_ps(weights);
                    for i in 0..PIXELS {
                        acc[i] = _mm256_fmadd_ps(_mm256_loadu_ps(tap[i].add(c)), weight, acc[i]);
                    }
                }
                for (i, &acc) in acc.iter().enumerate().take(count) {
                    let value = _mm256_min_ps(high, _mm256_max_ps(low, acc));
                    _mm256_storeu_ps(output.add(i * channels + c), value);
                }
                c += LANES;
            }
            if c < channels {
                let mask = lane_mask(channels - c);
                for i in 0..count {
                    let mut acc = _mm256_maskload_ps(packed.add(c), mask);
                    for (t, tap) in taps.iter().enumerate() {
                        let weight = _mm256_maskload_ps(packed.add((t + 1) * channels + c), mask);
                        acc = _mm256_fmadd_ps(_mm256_maskload_ps(tap[i].add(c), mask), weight, acc);
                    }
                    let value = _mm256_min_ps(high, _mm256_max_ps(low, acc));
                    _mm256_maskstore_ps(output.add(i * channels + c), mask, value);
                }
            }
        }
    }
}

impl Kernel for Depthwise {
    fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]) {
        let shape = &self.shape;
        if output.is_empty() {
            return;
        }
        let mut at = PixelWalk::new(shape, pixels.start);
        TAPS.with_borrow_mut(|taps| {
            for output in output.chunks_mut(PIXELS * shape.out_c) {
                let count = output.len() / shape.out_c;
                taps.clear();
                taps.resize(shape.taps(), [self.zeros.as_ptr(); PIXELS]);
                for pixel in 0..count {
                    let mut slots = taps.iter_mut();
                    for ky in 0..shape.kernel_h {
                        for (kx, slot) in (0..shape.kernel_w).zip(&mut slots) {
                            if let Some(start) = at.tap(shape, ky, kx) {
                                slot[pixel] = input[start..].as_ptr();
                            }
                        }
                    }
                    at.step(shape);
                }
                // SAFETY: the list promises `pack` AVX2 and FMA; the pointers are to the channels
                // of input pixels or to as many zeros; `output` holds `count` pixels.
                unsafe { self.pixels(taps, count, output.as_mut_ptr()) };
            }
        });
    }
}
