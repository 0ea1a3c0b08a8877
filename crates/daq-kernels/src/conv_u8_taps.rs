//! Where the inputs of each output pixel lie: the pointer tables that spare the vector convolutions
//! an im2col copy.
//!
//! One pointer per pixel and tap leads straight to the input, to a row of padding, or to a copy of
//! the input's last bytes where reading past a pixel's channels would pass the end of the input.

use std::cell::RefCell;
use std::ops::Range;

use crate::ConvShape;
use crate::window::{Window, tap_offsets};

/// Memory that a thread reuses from call to call.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[tap, pixel]`.
    pub(crate) pointers: Vec<*const u8>,
    /// Rows of windows that reach into the padding.
    rows: Vec<u8>,
    /// The input's last bytes, and zeros.
    tail: Vec<u8>,
}

thread_local! {
    /// The scratch memory of this thread.
    pub(crate) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The geometry of a convolution, as byte offsets.
#[derive(Debug)]
pub(crate) struct Taps {
    pub(crate) shape: ConvShape,
    /// Bytes that may be read from every pointer; at least the channels of a pixel.
    pub(crate) extent: usize,
    /// `extent` times the input's zero point.
    pub(crate) padding: Vec<u8>,
    /// Where each tap begins, from the first one, inside the picture.
    offsets: Vec<usize>,
    /// Taps of the window that are taken for one.
    joined: usize,
}

impl Taps {
    pub(crate) fn new(shape: &ConvShape, extent: usize, input_zero_point: u8) -> Self {
        // The pixels of a matrix product are all alike: one long row of them.
        let one_row = ConvShape::gemm(shape.pixels(), shape.in_c, shape.out_c);
        let shape = if shape.is_pointwise() {
            ConvShape { groups: shape.groups, ..one_row }
        } else {
            *shape
        };
        Taps {
            shape,
            extent,
            padding: vec![input_zero_point; extent],
            offsets: tap_offsets(&shape),
            joined: 1,
        }
    }

    /// As [`Taps::new`], with each row of the window for one tap; there is no horizontal dilation.
    pub(crate) fn joined(shape: &ConvShape, extent: usize, input_zero_point: u8) -> Self {
        let each = Taps::new(shape, extent, input_zero_point);
        let offsets = each.offsets.iter().copied().step_by(shape.kernel_w).collect();
        Taps { offsets, joined: shape.kernel_w, ..each }
    }

    /// From this offset on, reading `extent` bytes would pass the end of the input.
    fn tail_from(&self, input: &[u8]) -> usize {
        (input.len() + 1).saturating_sub(self.extent)
    }

    /// Copies what pointers near the end of `input` lead to; once per input, before
    /// [`Taps::point`].
    pub(crate) fn begin(&self, input: &[u8], scratch: &mut Scratch) {
        scratch.tail.clear();
        scratch.tail.extend_from_slice(&input[self.tail_from(input)..]);
        // The last offset is below the end of the copy, itself shorter than `extent`.
        scratch.tail.resize(2 * self.extent, 0);
    }

    /// Fills the pointer table `[tap, pixel]` for `pixels`.
    ///
    /// Every pointer can then be read for `extent` bytes, as long as `input`, `self` and
    /// `scratch.tail` stay as they are.
    pub(crate) fn point(&self, input: &[u8], pixels: Range<usize>, scratch: &mut Scratch) {
        let shape = &self.shape;
        let row = pixels.len();
        let tail_from = self.tail_from(input);
        let (input_ptr, tail_ptr) = (input.as_ptr(), scratch.tail.as_ptr());
        let locate = |offset: usize| match offset < tail_from {
            true => input_ptr.wrapping_add(offset),
            false => tail_ptr.wrapping_add(offset - tail_from),
        };
        let padding = self.padding.as_ptr();
        let taps = self.offsets.len();
        scratch.pointers.resize(row * taps, padding);
        if self.joined > 1 && scratch.rows.len() < row * taps * self.extent {
            scratch.rows.resize(row * taps * self.extent, 0);
        }
        let step = shape.stride_w * shape.in_c;
        let last_tap = self.offsets.last().copied().unwrap_or(0);
        let mut window = Window::new(shape, pixels.start);
        let mut i = 0;
        while i < row {
            // Most pixels: windows side by side, wholly inside the picture and far from its end.
            let run = window.inside(shape, 1).map_or((0, 0), |first| {
                let far = tail_from.saturating_sub(first + last_tap).div_ceil(step.max(1));
                (first, window.run_inside(shape, row - i).min(far))
            });
            if let (first, run @ 1..) = run {
                let rows = scratch.pointers.chunks_exact_mut(row);
                for (slots, offset) in rows.zip(&self.offsets) {
                    let mut at = input_ptr.wrapping_add(first + offset);
                    for slot in &mut slots[i..i + run] {
                        *slot = at;
                        at = at.wrapping_add(step);
                    }
                }
                window.advance(shape, run);
                i += run;
            } else if self.joined > 1 {
                window.for_each_row(shape, |tap, before, inside, offset| {
                    let pointer = &mut scratch.pointers[tap * row + i];
                    if inside == 0 || inside == shape.kernel_w {
                        *pointer = if inside == 0 { padding } else { locate(offset) };
                        return;
                    }
                    let to = &mut scratch.rows[(i * taps + tap) * self.extent..][..self.extent];
                    to.copy_from_slice(&self.padding);
                    let from = &input[offset..][..inside * shape.in_c];
                    to[before * shape.in_c..][..from.len()].copy_from_slice(from);
                    *pointer = to.as_ptr();
                });
                window.advance(shape, 1);
                i += 1;
            } else {
                window.for_each_tap(shape, |tap, offset| {
                    scratch.pointers[tap * row + i] = offset.map_or(padding, locate);
                });
                window.advance(shape, 1);
                i += 1;
            }
        }
    }

    /// Fills the pointer table `[kernel_h, column]` for the output pixels `xs` of row `y` of a
    /// picture, and gives the number of columns: input column `i` of the table is
    /// `xs.start * stride_w - pad_left + i`. Columns of as many more pixels as make `xs.len()` a
    /// multiple of `multiple` are in the table too.
    ///
    /// The same holds for the pointers as in [`Taps::point`].
    #[inline]
    pub(crate) fn point_columns(
        &self,
        input: &[u8],
        (image, y): (usize, usize),
        xs: Range<usize>,
        multiple: usize,
        scratch: &mut Scratch,
    ) -> usize {
        let shape = &self.shape;
        let pixels = xs.len().next_multiple_of(multiple);
        let columns = (pixels - 1) * shape.stride_w + (shape.kernel_w - 1) * shape.dilation_w + 1;
        let tail_from = self.tail_from(input);
        let padding = self.padding.as_ptr();
        scratch.pointers.clear();
        scratch.pointers.resize(columns * shape.kernel_h, padding);
        // Columns of the table that lie inside the picture.
        let first_x = xs.start * shape.stride_w;
        let left = shape.pad_left.saturating_sub(first_x).min(columns);
        let right = (shape.in_w + shape.pad_left).saturating_sub(first_x).clamp(left, columns);
        for (ky, row) in scratch.pointers.chunks_exact_mut(columns).enumerate() {
            let in_y = (y * shape.stride_h + ky * shape.dilation_h).wrapping_sub(shape.pad_top);
            if in_y >= shape.in_h || left == right {
                continue;
            }
            let at = (image * shape.in_h + in_y) * shape.in_w + first_x + left - shape.pad_left;
            let mut offset = at * shape.in_c;
            for slot in &mut row[left..right] {
                *slot = match offset < tail_from {
                    true => input.as_ptr().wrapping_add(offset),
                    false => scratch.tail.as_ptr().wrapping_add(offset - tail_from),
                };
                offset += shape.in_c;
            }
        }
        columns
    }
}
