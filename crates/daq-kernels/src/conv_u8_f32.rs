//! The 8-bit convolution or matrix product whose result is real numbers: where what reads it is in
//! float, nothing is rounded between.
//!
//! `y = clamp(f32(bias + sum((x - x_zp) * (w - w_zp))) * multiplier)`, where a padded position counts
//! as `x = x_zp`. The sums, modulo 2^32, are those of [`conv_i32`](crate::conv_i32)'s kernels.

use std::cell::RefCell;
use std::ops::Range;

use crate::conv_f32::{check_run, clamp};
use crate::conv_i32::{self, ConvI32Kernel};
use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::elementwise_f32::{Loop, dispatch};
use crate::{ConvShape, Isa};

/// Sums that are computed before they become floats: what a second-level cache holds beside weights.
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
    isa: Isa,
}

thread_local! {
    /// The sums of some pixels; reused from call to call.
    static SUMS: RefCell<Vec<i32>> = RefCell::default();
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
        ConvU8F32::with_kernel(params, clamp, conv_i32::best(&params.shape, isa), isa)
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
        isa: Isa,
    ) -> ConvU8F32 {
        ConvU8F32 {
            shape: params.shape,
            kernel,
            packed: kernel.pack(params),
            multipliers: params.multipliers.to_vec(),
            clamp,
            isa,
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
        SUMS.with_borrow_mut(|sums| {
            sums.resize(sums.len().max(block.min(pixels.len()) * out_c), 0);
            for (first, output) in
                pixels.clone().step_by(block).zip(output.chunks_mut(block * out_c))
            {
                let sums = &mut sums[..output.len()];
                let pixels = first..first + output.len() / out_c;
                let part = Part { pixels, channels: 0..out_c };
                // SAFETY: the lengths and the pixels were checked above; kernels of sums write 4
                // bytes for each channel, and a pixel has `out_c` of them.
                unsafe { self.packed.run(input, part, sums.as_mut_ptr().cast(), out_c * 4) }
                let (multipliers, bounds) = (&*self.multipliers, self.clamp);
                dispatch(self.isa, Scale { sums, multipliers, bounds }, output);
            }
        });
    }
}

/// `output[p, c] = clamp(f32(sums[p, c]) * multipliers[c])`
struct Scale<'a> {
    sums: &'a [i32],
    multipliers: &'a [f32],
    bounds: (f32, f32),
}

impl Loop<f32> for Scale<'_> {
    #[inline(always)]
    fn run(self, output: &mut [f32]) {
        let channels = self.multipliers.len();
        for (y, sums) in output.chunks_exact_mut(channels).zip(self.sums.chunks_exact(channels)) {
            for ((y, &sum), multiplier) in y.iter_mut().zip(sums).zip(self.multipliers) {
                *y = clamp(sum as f32 * multiplier, self.bounds);
            }
        }
    }
}
