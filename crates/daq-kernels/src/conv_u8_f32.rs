//! The 8-bit convolution or matrix product whose result is real numbers: where what reads it is in
//! float, nothing is rounded between.
//!
//! `y = clamp(f32(bias + sum((x - x_zp) * (w - w_zp))) * multiplier)`, where a padded position counts
//! as `x = x_zp`. The sums, modulo 2^32, are those of [`conv_i32`](crate::conv_i32)'s kernels.

use std::ops::Range;

use crate::conv_f32::check_run;
use crate::conv_i32::{self, ConvI32Kernel};
use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::{ConvShape, Isa, scale_sums};

/// Sums that are computed before they become floats in their place: what a second-level cache holds
/// beside weights.
const BLOCK_SUMS: usize = 32 * 1024;
/// Fewest pixels of a block: some tiles of the widest kernels.
const BLOCK_PIXELS: usize = 24;

/// A convolution of codes into floats, its weights in the order that its kernel reads.
#[derive(Debug)]
pub struct ConvU8F32 {
    shape: ConvShape,
    kernel: &'static ConvI32Kernel,
    packed: Box<dyn PackedConv>,
    multipliers: Vec<f32>,
    clamp: (f32, f32),
}

impl ConvU8F32 {
    /// Packs the weights for the best kernel that needs no more than `isa` and that this CPU has.
    ///
    /// The multipliers are `x_scale * w_scale[c]` here, and no output zero point is read. `clamp` holds
    /// results between two bounds; `(-inf, inf)` is none.
    ///
    /// # Panics
    /// If a length contradicts the shape, the groups do not divide the channels, or a stride is 0.
    pub fn new(params: &ConvU8Params, clamp: (f32, f32), isa: Isa) -> ConvU8F32 {
        ConvU8F32::with_kernel(params, clamp, conv_i32::best(&params.shape, isa))
    }

    /// Packs the weights for `kernel`; for tests and benchmarks, which walk
    /// [`conv_i32::KERNELS`](crate::conv_i32::KERNELS).
    ///
    /// # Panics
    /// As [`ConvU8F32::new`], and if this CPU or the kernel does not support it.
    pub fn with_kernel(
        params: &ConvU8Params,
        clamp: (f32, f32),
        kernel: &'static ConvI32Kernel,
    ) -> ConvU8F32 {
        ConvU8F32 {
            shape: params.shape,
            kernel,
            packed: kernel.pack(params),
            multipliers: params.multipliers.to_vec(),
            clamp,
        }
    }

    /// The name of the kernel in use.
    pub fn kernel_name(&self) -> &'static str {
        self.kernel.name
    }

    /// Computes the output pixels `pixels`, counted through `[batch, out_h, out_w]`.
    ///
    /// `input` is all of `[batch, in_h, in_w, in_c]`; `output` is `[pixels.len(), out_c]`. Disjoint
    /// ranges may run at the same time on several threads.
    ///
    /// # Panics
    /// If a length contradicts the shape.
    pub fn run(&self, input: &[u8], pixels: Range<usize>, output: &mut [f32]) {
        let out_c = self.shape.out_c;
        check_run(&self.shape, input, &pixels, output);
        if output.is_empty() {
            return;
        }
        let block = (BLOCK_SUMS / out_c).max(BLOCK_PIXELS);
        for (first, output) in pixels.step_by(block).zip(output.chunks_mut(block * out_c)) {
            let part = Part { pixels: first..first + output.len() / out_c, channels: 0..out_c };
            // SAFETY: the lengths and the pixels were checked above; kernels of sums write 4 bytes for
            // each channel, and a pixel has `out_c` of them, as large as floats.
            unsafe { self.packed.run(input, part, output.as_mut_ptr().cast(), out_c * 4) }
            scale_sums(output, &self.multipliers, &[], self.clamp, self.kernel.isa);
        }
    }
}
