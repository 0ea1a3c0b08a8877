//! The dense AVX2 convolution: which bytes of the input each tile multiplies, and in what order.
//!
//! There is no im2col copy of wide inputs: a table of pointers, one per pixel and tap, leads each
//! tile straight to the input, to a row of padding, or to a copy of the input's last bytes where
//! reading a whole quad would pass its end. Inputs of few channels are gathered instead: their taps
//! are so short that copying them side by side costs less than the padding of each to a quad.

use std::cell::RefCell;
use std::ops::Range;

use crate::ConvShape;
use crate::conv_u8::{ConvU8Params, PackedConv};
use crate::conv_u8_panel::{Form, Panel};
use crate::conv_u8_scalar::tap_offset;
use crate::conv_u8_tile::tile;
use crate::requantize::avx2::Requantizer;

/// Pixels that one tile computes.
const TILE: usize = 4;
/// Bytes of input that one block of pixels may touch, so that they stay in the second-level cache
/// while the panels pass over them.
const BLOCK_BYTES: usize = 96 * 1024;
/// Inputs of at most so many channels (of a group) are gathered.
const GATHER_CHANNELS: usize = 12;

/// A packed dense convolution.
#[derive(Debug)]
pub(crate) struct DenseConv {
    shape: ConvShape,
    /// The panels of each group.
    groups: Vec<Vec<Panel>>,
    gather: bool,
    /// Taps that the tile sees: 1 when gathered.
    taps: usize,
    /// Bytes that may be read from the start of a pixel (or of a gathered row).
    extent: usize,
    /// `extent` times the input's zero point.
    padding: Vec<u8>,
    /// Where each tap begins, from the first one, inside the picture.
    tap_offsets: Vec<usize>,
    output_zero_point: u8,
    block: usize,
}

/// Memory that a thread reuses from call to call.
#[derive(Default)]
struct Scratch {
    pointers: Vec<[*const u8; TILE]>,
    rows: Vec<u8>,
    tail: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl DenseConv {
    pub(crate) fn new(params: &ConvU8Params, form: Form) -> Self {
        let shape = params.shape;
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        let gather = shape.taps() > 1 && group_in <= GATHER_CHANNELS;
        let (taps, tap_len) =
            if gather { (1, shape.taps() * group_in) } else { (shape.taps(), group_in) };
        let bias = params.folded_bias();
        let groups = (0..shape.groups)
            .map(|group| {
                let panel = |at: usize| {
                    let first = group * group_out + at;
                    let weight = |column, tap, k| match gather {
                        true => params.weight(first + column, k % group_in, k / group_in),
                        false => params.weight(first + column, k, tap),
                    };
                    let columns = (group_out - at).min(16);
                    let offset = if gather { 0 } else { group * group_in };
                    Panel::new(
                        params,
                        &bias,
                        form,
                        (first, columns),
                        (taps, tap_len),
                        offset,
                        weight,
                    )
                };
                (0..group_out).step_by(16).map(panel).collect()
            })
            .collect();
        let extent = match gather {
            true => tap_len.next_multiple_of(4),
            false => (shape.groups - 1) * group_in + group_in.next_multiple_of(4),
        };
        let tap_offsets = (0..shape.taps())
            .map(|tap| {
                let (y, x) = (tap / shape.kernel_w, tap % shape.kernel_w);
                (y * shape.dilation_h * shape.in_w + x * shape.dilation_w) * shape.in_c
            })
            .collect();
        let block = (BLOCK_BYTES / extent.max(1)).clamp(4 * TILE, 64 * TILE) / TILE * TILE;
        DenseConv {
            shape,
            groups,
            gather,
            taps,
            extent,
            padding: vec![params.input_zero_point; extent.max(16)],
            tap_offsets,
            output_zero_point: params.output_zero_point,
            block,
        }
    }

    /// Fills the pointer table for `pixels`: `[tile, tap]` of `TILE` pointers.
    fn point(&self, input: &[u8], pixels: Range<usize>, scratch: &mut Scratch) {
        let shape = &self.shape;
        let tiles = pixels.len().div_ceil(TILE);
        scratch.pointers.clear();
        scratch.pointers.resize(tiles * self.taps, [self.padding.as_ptr(); TILE]);
        // From this offset on, reading `extent` bytes would pass the end of the input; such pixels
        // are read from `tail`, which holds the input from there on and zeros after it.
        let tail_from = (input.len() + 1).saturating_sub(self.extent);
        let (input_ptr, tail_ptr) = (input.as_ptr(), scratch.tail.as_ptr());
        let locate = |offset: usize| match offset < tail_from {
            true => input_ptr.wrapping_add(offset),
            false => tail_ptr.wrapping_add(offset - tail_from),
        };
        let mut window = Window::new(shape, pixels.start);
        for i in 0..pixels.len() {
            let table = &mut scratch.pointers[i / TILE * self.taps..][..self.taps];
            if let Some(first) = window.inside(shape) {
                for (slot, offset) in table.iter_mut().zip(&self.tap_offsets) {
                    slot[i % TILE] = locate(first + offset);
                }
            } else {
                for (tap, slot) in table.iter_mut().enumerate() {
                    if let Some(offset) = tap_offset(shape, pixels.start + i, tap) {
                        slot[i % TILE] = locate(offset);
                    }
                }
            }
            window.advance(shape);
        }
    }

    /// Copies the taps of `pixels` side by side for `group`, and points at the copies.
    fn gather(&self, input: &[u8], pixels: Range<usize>, group: usize, scratch: &mut Scratch) {
        let shape = &self.shape;
        let group_in = shape.group_in();
        // 16 bytes more, because short runs are copied 16 bytes at a time.
        scratch.rows.resize(self.block * self.extent + 16, 0);
        let run = shape.kernel_w * group_in;
        let contiguous = shape.groups == 1 && shape.dilation_w == 1;
        let mut window = Window::new(shape, pixels.start);
        for i in 0..pixels.len() {
            let row = &mut scratch.rows[i * self.extent..];
            match window.inside(shape).filter(|_| contiguous) {
                Some(first) => {
                    for y in 0..shape.kernel_h {
                        let from = first + self.tap_offsets[y * shape.kernel_w];
                        copy_run(&input[from..], &mut row[y * run..], run);
                    }
                }
                None => {
                    for tap in 0..shape.taps() {
                        let to = &mut row[tap * group_in..][..group_in];
                        match tap_offset(shape, pixels.start + i, tap) {
                            Some(from) => {
                                to.copy_from_slice(&input[from + group * group_in..][..group_in]);
                            }
                            None => to.copy_from_slice(&self.padding[..group_in]),
                        }
                    }
                }
            }
            window.advance(shape);
        }
        let rows = scratch.rows.as_ptr();
        scratch.pointers.clear();
        scratch.pointers.extend((0..pixels.len().div_ceil(TILE)).map(|tile| {
            std::array::from_fn(|r| rows.wrapping_add((tile * TILE + r) * self.extent))
        }));
    }

    /// Runs `panels` over the `pixels` pixels that the pointer table describes.
    ///
    /// # Safety
    ///
    /// This CPU has AVX2 and FMA. Of the table's pointers, those of the first `pixels` pixels can
    /// be read for `extent` bytes. `output` can be written for `pixels` rows of `out_c`.
    unsafe fn multiply(
        &self,
        panels: &[Panel],
        pointers: &[[*const u8; TILE]],
        pixels: usize,
        output: *mut u8,
    ) {
        // SAFETY: the caller made sure of AVX2.
        let requantizer = unsafe { Requantizer::new(self.output_zero_point) };
        let stride = self.shape.out_c;
        for panel in panels {
            for first in (0..pixels).step_by(TILE) {
                let taps = pointers[first / TILE * self.taps..][..self.taps].as_ptr();
                let kernel = match (panel.halves(), pixels - first) {
                    (1, 1) => tile::<1, 1>,
                    (1, 2) => tile::<2, 1>,
                    (1, 3) => tile::<3, 1>,
                    (1, _) => tile::<4, 1>,
                    (_, 1) => tile::<1, 2>,
                    (_, 2) => tile::<2, 2>,
                    (_, 3) => tile::<3, 2>,
                    _ => tile::<4, 2>,
                };
                // SAFETY: `halves` is matched; offsets of a panel end within `extent`, which the
                // caller answers for; the panel's columns lie within the row of `out_c`.
                unsafe {
                    let to = output.add(first * stride + panel.first);
                    kernel(taps, panel, requantizer, to, stride);
                }
            }
        }
    }
}

impl PackedConv for DenseConv {
    fn run(&self, input: &[u8], pixels: Range<usize>, output: &mut [u8]) {
        SCRATCH.with_borrow_mut(|scratch| {
            let tail_from = (input.len() + 1).saturating_sub(self.extent);
            scratch.tail.clear();
            scratch.tail.extend_from_slice(&input[tail_from..]);
            scratch.tail.resize(2 * self.extent, 0);
            let blocks = output.chunks_mut(self.block * self.shape.out_c);
            for (first, output) in pixels.clone().step_by(self.block).zip(blocks) {
                let block = first..pixels.end.min(first + self.block);
                if !self.gather {
                    self.point(input, block.clone(), scratch);
                }
                for (group, panels) in self.groups.iter().enumerate() {
                    if self.gather {
                        self.gather(input, block.clone(), group, scratch);
                    }
                    // SAFETY: `ConvU8::with_kernel` made sure of AVX2. `point` leads to `extent`
                    // bytes of the input, of `tail` or of `padding`; `gather` to `extent` bytes of
                    // `rows`. `output` is this block's, of `block.len() * out_c` bytes.
                    unsafe {
                        let output = output.as_mut_ptr();
                        self.multiply(panels, &scratch.pointers, block.len(), output);
                    }
                }
            }
        });
    }
}

/// Copies `run` bytes; what follows them in `to` may be overwritten.
fn copy_run(from: &[u8], to: &mut [u8], run: usize) {
    let padded = run.next_multiple_of(16);
    if from.len() >= padded && to.len() >= padded {
        for at in (0..padded).step_by(16) {
            // A fixed length compiles to one load and one store.
            let chunk: [u8; 16] = from[at..at + 16].try_into().expect("16 bytes");
            to[at..at + 16].copy_from_slice(&chunk);
        }
    } else {
        to[..run].copy_from_slice(&from[..run]);
    }
}

/// The window of one output pixel after another.
struct Window {
    image: usize,
    y: usize,
    x: usize,
}

impl Window {
    fn new(shape: &ConvShape, pixel: usize) -> Self {
        let per_image = shape.out_h * shape.out_w;
        let (image, rest) = (pixel / per_image, pixel % per_image);
        Window { image, y: rest / shape.out_w, x: rest % shape.out_w }
    }

    fn advance(&mut self, shape: &ConvShape) {
        self.x += 1;
        if self.x == shape.out_w {
            (self.x, self.y) = (0, self.y + 1);
            if self.y == shape.out_h {
                (self.y, self.image) = (0, self.image + 1);
            }
        }
    }

    /// Where the window's first tap begins, if the whole window lies inside the picture.
    fn inside(&self, shape: &ConvShape) -> Option<usize> {
        let y = (self.y * shape.stride_h).checked_sub(shape.pad_top)?;
        let x = (self.x * shape.stride_w).checked_sub(shape.pad_left)?;
        (y + (shape.kernel_h - 1) * shape.dilation_h < shape.in_h
            && x + (shape.kernel_w - 1) * shape.dilation_w < shape.in_w)
            .then(|| ((self.image * shape.in_h + y) * shape.in_w + x) * shape.in_c)
    }
}
