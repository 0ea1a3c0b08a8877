//! The dense AVX2 convolution: which bytes of the input each tile multiplies, and in what order.
//!
//! Inputs are read in place through a pointer table. Where a pixel has few channels they are
//! gathered instead: such taps are so short that copying them side by side costs less than the
//! padding of each to a quad.

use std::ops::Range;

use crate::conv_u8::{ConvU8Params, PackedConv};
use crate::conv_u8_panel::{Form, Panel};
use crate::conv_u8_taps::{SCRATCH, Scratch, TILE, Taps};
use crate::conv_u8_tile::tile;
use crate::requantize::avx2::Requantizer;
use crate::window::Window;

/// Bytes of input that one block of pixels may touch, so that they stay in the second-level cache
/// while the panels pass over them.
const BLOCK_BYTES: usize = 96 * 1024;
/// Inputs of at most so many channels, in one group, are gathered.
const GATHER_CHANNELS: usize = 12;

/// A packed dense convolution.
#[derive(Debug)]
pub(crate) struct DenseConv {
    taps: Taps,
    gather: bool,
    /// Those of one group after another.
    panels: Vec<Panel>,
    output_zero_point: u8,
    /// Pixels that all panels pass over before the next ones.
    block: usize,
}

impl DenseConv {
    pub(crate) fn new(params: &ConvU8Params, form: Form) -> Self {
        let shape = &params.shape;
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        let gather = shape.taps() > 1 && shape.groups == 1 && group_in <= GATHER_CHANNELS;
        let (taps, tap_len) =
            if gather { (1, shape.taps() * group_in) } else { (shape.taps(), group_in) };
        let bias = params.folded_bias();
        let mut rows = vec![0; 16 * taps * tap_len];
        let mut panel = |group: usize, at: usize| {
            let (first, columns) = (group * group_out + at, (group_out - at).min(16));
            for (out, row) in (first..first + columns).zip(rows.chunks_exact_mut(taps * tap_len)) {
                params.weights_of(out, row);
            }
            let offset = if gather { 0 } else { group * group_in };
            Panel::new(params, &bias, form, (first, columns), (taps, tap_len), offset, &rows)
        };
        let starts = (0..shape.groups)
            .flat_map(|group| (0..group_out).step_by(16).map(move |at| (group, at)));
        let panels = starts.map(|(group, at)| panel(group, at)).collect();
        let extent = match gather {
            true => tap_len.next_multiple_of(4),
            false => (shape.groups - 1) * group_in + group_in.next_multiple_of(4),
        };
        DenseConv {
            taps: Taps::new(shape, extent, params.input_zero_point),
            gather,
            panels,
            output_zero_point: params.output_zero_point,
            block: (BLOCK_BYTES / extent.max(1)).clamp(4 * TILE, 64 * TILE) / TILE * TILE,
        }
    }

    /// Copies the taps of `pixels` side by side, and points at the copies.
    fn gather(&self, input: &[u8], pixels: Range<usize>, scratch: &mut Scratch) {
        let Taps { shape, extent, padding, offsets } = &self.taps;
        let (run, step) = (shape.kernel_w * shape.in_c, shape.stride_w * shape.in_c);
        // Short runs are copied as 16 bytes; the last one's excess stays within its own row.
        let stride = ((shape.kernel_h - 1) * run + run.max(16)).max(*extent);
        if scratch.rows.len() < self.block * stride {
            scratch.rows.resize(self.block * stride, 0);
        }
        let mut window = Window::new(shape, pixels.start);
        let mut i = 0;
        while i < pixels.len() {
            let rows = &mut scratch.rows[i * stride..];
            let copied = match window.inside(shape, 1) {
                Some(first) if shape.dilation_w == 1 => {
                    let windows = window.run_inside(shape, pixels.len() - i);
                    for y in 0..shape.kernel_h {
                        let from = (&input[first + offsets[y * shape.kernel_w]..], step);
                        copy_runs(from, (&mut rows[y * run..], stride), windows, run);
                    }
                    windows
                }
                _ => {
                    window.for_each_tap(shape, |tap, from| {
                        let from = from.map_or(&padding[..], |from| &input[from..]);
                        let to = &mut rows[tap * shape.in_c..][..shape.in_c];
                        to.copy_from_slice(&from[..shape.in_c]);
                    });
                    1
                }
            };
            window.advance(shape, copied);
            i += copied;
        }
        let rows = scratch.rows.as_ptr();
        scratch.pointers.clear();
        scratch
            .pointers
            .extend((0..pixels.len().div_ceil(TILE)).map(|tile| {
                std::array::from_fn(|r| rows.wrapping_add((tile * TILE + r) * stride))
            }));
    }

    /// Runs the panels over the `pixels` pixels that the pointer table describes.
    ///
    /// # Safety
    ///
    /// This CPU has AVX2 and FMA. Of the table's pointers, those of the first `pixels` pixels can
    /// be read for `extent` bytes. `output` can be written for `pixels` rows of `out_c`.
    unsafe fn multiply(&self, pointers: &[[*const u8; TILE]], pixels: usize, output: *mut u8) {
        // SAFETY: the caller made sure of AVX2.
        let requantizer = unsafe { Requantizer::new(self.output_zero_point) };
        let stride = self.taps.shape.out_c;
        for panel in &self.panels {
            for first in (0..pixels).step_by(TILE) {
                let taps = panel.steps.len();
                let taps = pointers[first / TILE * taps..][..taps].as_ptr();
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
            self.taps.begin(input, scratch);
            let blocks = output.chunks_mut(self.block * self.taps.shape.out_c);
            for (first, output) in pixels.clone().step_by(self.block).zip(blocks) {
                let block = first..pixels.end.min(first + self.block);
                match self.gather {
                    true => self.gather(input, block.clone(), scratch),
                    false => self.taps.point(input, block.clone(), scratch),
                }
                // SAFETY: `ConvU8::with_kernel` made sure of AVX2. `point` leads to `extent` bytes,
                // `gather` to `extent` bytes of `rows`. `output` is this block's, of
                // `block.len() * out_c` bytes.
                unsafe { self.multiply(&scratch.pointers, block.len(), output.as_mut_ptr()) }
            }
        });
    }
}

/// Copies `count` runs of `run` bytes: each begins a window's step after the one before, and goes a
/// stride further. What follows a run in `to`, up to 16 bytes, may be overwritten.
fn copy_runs(
    (from, step): (&[u8], usize),
    (to, stride): (&mut [u8], usize),
    count: usize,
    run: usize,
) {
    let short = run <= 16 && from.len() >= (count - 1) * step + 16;
    for i in 0..count {
        let (from, to) = (&from[i * step..], &mut to[i * stride..]);
        if short {
            // A fixed length compiles to one load and one store.
            to[..16].copy_from_slice(&from[..16]);
        } else if (16..=32).contains(&run) {
            // Two, which may overlap.
            to[..16].copy_from_slice(&from[..16]);
            to[run - 16..run].copy_from_slice(&from[run - 16..run]);
        } else {
            to[..run].copy_from_slice(&from[..run]);
        }
    }
}
