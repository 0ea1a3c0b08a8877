//! The dense vector convolution: which bytes of the input each tile multiplies, and in what order.
//!
//! Inputs are read in place through a pointer table. Where a pixel has few channels, a row of the
//! window, which lies in memory as one piece, is taken for a single tap: padding each of its taps to
//! a quad would cost more.

use std::fmt::Debug;
use std::ops::Range;

use crate::conv_u8::{ConvU8Params, PackedConv, Part as OutputPart};
use crate::conv_u8_taps::{SCRATCH, Taps};

/// Bytes of input that one block of pixels may touch, so that they stay in the second-level cache
/// while the panels pass over them.
const BLOCK_BYTES: usize = 96 * 1024;
/// Fewest and most pixels of a block.
const BLOCK_PIXELS: (usize, usize) = (16, 256);
/// With at most so many input channels, in one group, a row of the window is one tap.
const JOINED_CHANNELS: usize = 12;

/// Weights of some neighbouring output channels, packed for one instruction set.
pub(crate) trait Panel: Send + Sync + Debug + Sized {
    /// Inputs of a tap that are read together.
    const STEP: usize = 4;

    /// The most output channels of one panel, for a group of so many.
    fn width(group_out: usize) -> usize;

    /// Packs output channels of one group.
    fn pack(part: &Part) -> Self;

    /// Computes the panel's channels of `pixels` pixels, while the weights of the `next` panel may be
    /// fetched: pixel `p` reads tap `t` at
    /// `pointers[t * pixels + p]` and is stored at `output + p * stride`, where `output` is that of
    /// channel 0.
    ///
    /// # Safety
    ///
    /// This CPU has the panel's instruction set. The pointers of all taps exist and can be read for
    /// the [`Part`]'s `offset + tap_len.next_multiple_of(STEP)` bytes; the panel's channels can be
    /// written for every pixel.
    unsafe fn multiply(
        &self,
        next: Option<&Self>,
        pointers: *const *const u8,
        pixels: usize,
        output_zero_point: u8,
        output: *mut u8,
        stride: usize,
    );
}

/// What one panel is packed from.
pub(crate) struct Part<'a> {
    /// First output channel, and how many.
    pub(crate) first: usize,
    pub(crate) columns: usize,
    /// Taps, and input channels of each.
    pub(crate) taps: usize,
    pub(crate) tap_len: usize,
    /// Where the group's channels begin in a pixel.
    pub(crate) offset: usize,
    /// Weights less their zero points, `[columns, taps, tap_len]`.
    pub(crate) rows: &'a [i16],
    /// Bias of the columns, with the input's zero point folded in.
    pub(crate) bias: &'a [i32],
    /// Multipliers of the columns.
    pub(crate) multipliers: &'a [f32],
}

/// A packed dense convolution.
#[derive(Debug)]
pub(crate) struct DenseConv<P> {
    taps: Taps,
    /// Those of one group after another.
    panels: Vec<P>,
    output_zero_point: u8,
    /// Pixels that all panels pass over before the next ones.
    block: usize,
}

impl<P: Panel> DenseConv<P> {
    pub(crate) fn new(params: &ConvU8Params) -> Self {
        let shape = &params.shape;
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        let joined = shape.kernel_w > 1
            && shape.dilation_w == 1
            && shape.groups == 1
            && group_in <= JOINED_CHANNELS;
        let (taps, tap_len) = match joined {
            true => (shape.kernel_h, shape.kernel_w * group_in),
            false => (shape.taps(), group_in),
        };
        let bias = params.folded_bias();
        let mut rows = Vec::new();
        let mut panels = Vec::new();
        for group in 0..shape.groups {
            let mut first = group * group_out;
            let end = first + group_out;
            while first < end {
                let columns = P::width(group_out).min(end - first);
                rows.resize(columns * taps * tap_len, 0);
                for (out, row) in (first..).zip(rows.chunks_exact_mut(taps * tap_len)) {
                    params.weights_of(out, row);
                }
                panels.push(P::pack(&Part {
                    first,
                    columns,
                    taps,
                    tap_len,
                    offset: group * group_in,
                    rows: &rows,
                    bias: &bias[first..][..columns],
                    multipliers: &params.multipliers[first..][..columns],
                }));
                first += columns;
            }
        }
        let extent = (shape.groups - 1) * group_in + tap_len.next_multiple_of(P::STEP);
        let (fewest, most) = BLOCK_PIXELS;
        DenseConv {
            taps: match joined {
                true => Taps::joined(shape, extent, params.input_zero_point),
                false => Taps::new(shape, extent, params.input_zero_point),
            },
            panels,
            output_zero_point: params.output_zero_point,
            block: (BLOCK_BYTES / extent.max(1)).clamp(fewest, most),
        }
    }
}

impl<P: Panel> PackedConv for DenseConv<P> {
    unsafe fn run(&self, input: &[u8], part: OutputPart, output: *mut u8, stride: usize) {
        let OutputPart { pixels, channels } = part;
        let panels = self.panels_of(&channels);
        SCRATCH.with_borrow_mut(|scratch| {
            self.taps.begin(input, scratch);
            for first in pixels.clone().step_by(self.block) {
                let block = first..pixels.end.min(first + self.block);
                self.taps.point(input, block.clone(), scratch);
                let (pointers, zero_point) = (scratch.pointers.as_ptr(), self.output_zero_point);
                for (i, panel) in panels.iter().enumerate() {
                    let next = panels.get(i + 1);
                    let at = (first - pixels.start) * stride;
                    // SAFETY: `ConvU8::with_kernel` made sure of the instruction set. `point`
                    // leads to `extent` bytes; the caller answers for the output.
                    unsafe {
                        // Panels count from channel 0.
                        let output = output.add(at).wrapping_sub(channels.start);
                        panel.multiply(next, pointers, block.len(), zero_point, output, stride);
                    }
                }
            }
        });
    }

    fn channel_step(&self) -> Option<usize> {
        let step = P::width(self.taps.shape.out_c);
        (self.taps.shape.groups == 1).then_some(step)
    }
}

impl<P: Panel> DenseConv<P> {
    /// The panels of a part's channels.
    fn panels_of(&self, channels: &Range<usize>) -> &[P] {
        match self.channel_step() {
            Some(step) => &self.panels[channels.start / step..channels.end.div_ceil(step)],
            None => &self.panels,
        }
    }
}
