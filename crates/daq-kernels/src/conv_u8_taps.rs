//! Where the inputs of each output pixel lie: the pointer tables that spare the AVX2 convolutions
//! an im2col copy.
//!
//! One pointer per pixel and tap leads straight to the input, to a row of padding, or to a copy of
//! the input's last bytes where reading past a pixel's channels would pass the end of the input.

use std::cell::RefCell;
use std::ops::Range;

use crate::ConvShape;
use crate::window::{Window, tap_offsets};

/// Pixels that share one tile; the pointers of their taps are neighbours in the table.
pub(crate) const TILE: usize = 4;

/// Memory that a thread reuses from call to call.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[tile, tap]` of `TILE` pointers.
    pub(crate) pointers: Vec<[*const u8; TILE]>,
    /// Gathered rows.
    pub(crate) rows: Vec<u8>,
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
    pub(crate) offsets: Vec<usize>,
}

impl Taps {
    pub(crate) fn new(shape: &ConvShape, extent: usize, input_zero_point: u8) -> Self {
        Taps {
            shape: *shape,
            extent,
            padding: vec![input_zero_point; extent],
            offsets: tap_offsets(shape),
        }
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

    /// Fills the pointer table for `pixels`.
    ///
    /// Every pointer of an existing pixel can then be read for `extent` bytes, as long as `input`,
    /// `self` and `scratch.tail` stay as they are.
    pub(crate) fn point(&self, input: &[u8], pixels: Range<usize>, scratch: &mut Scratch) {
        let shape = &self.shape;
        let taps = self.offsets.len();
        let tail_from = self.tail_from(input);
        let (input_ptr, tail_ptr) = (input.as_ptr(), scratch.tail.as_ptr());
        let locate = |offset: usize| match offset < tail_from {
            true => input_ptr.wrapping_add(offset),
            false => tail_ptr.wrapping_add(offset - tail_from),
        };
        // Pointers of pixels that do not exist keep any value; nobody follows them.
        let padding = self.padding.as_ptr();
        scratch.pointers.resize(pixels.len().div_ceil(TILE) * taps, [padding; TILE]);
        let step = shape.stride_w * shape.in_c;
        let last_tap = self.offsets.last().copied().unwrap_or(0);
        let mut window = Window::new(shape, pixels.start);
        let mut i = 0;
        while i < pixels.len() {
            let table = &mut scratch.pointers[i / TILE * taps..][..taps];
            let run = if i % TILE == 0 && i + TILE <= pixels.len() { TILE } else { 1 };
            match window.inside(shape, run) {
                // Most tiles: four windows of one row, all inside the picture.
                Some(first) if run == TILE && first + last_tap + 3 * step < tail_from => {
                    for (slot, offset) in table.iter_mut().zip(&self.offsets) {
                        let at = input_ptr.wrapping_add(first + offset);
                        *slot = std::array::from_fn(|r| at.wrapping_add(r * step));
                    }
                    window.advance(shape, TILE);
                    i += TILE;
                }
                _ => {
                    window.for_each_tap(shape, |tap, offset| {
                        table[tap][i % TILE] = offset.map_or(padding, locate);
                    });
                    window.advance(shape, 1);
                    i += 1;
                }
            }
        }
    }
}
