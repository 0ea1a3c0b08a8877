//! Float convolution with vectors: pixels by panels of output channels, without an im2col copy.
//!
//! The inputs of a pixel are read where they lie, through one pointer a tap (to a row of zeros in
//! the padding). A block of pixels small enough for the cache goes through all panels before the
//! next block.

use crate::conv_f32::{ConvF32Params, Entry, PackedConv, PixelWalk};
use crate::tile_f32::{Panel, panels};
use crate::vector_f32::Vector;
use crate::{ConvShape, Isa};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// For few input channels: a whole kernel row is one tap, since its columns lie side by side in
/// the input. Only where such a row reaches into the padding is it copied.
pub(crate) const fn rows<V: Vector>(name: &'static str, isa: Isa) -> Entry {
    let fits = |s: &ConvShape| {
        s.groups == 1 && s.dilation_w == 1 && s.kernel_w > 1 && (1..16).contains(&s.in_c)
    };
    Entry { name, isa, fits, pack: |p| Conv::<V>::pack(p, true) }
}

/// For any geometry.
pub(crate) const fn dense<V: Vector>(name: &'static str, isa: Isa) -> Entry {
    Entry { name, isa, fits: |_| true, pack: |p| Conv::<V>::pack(p, false) }
}

/// Bytes of input that a block of pixels should not exceed.
const BLOCK_BYTES: usize = 256 << 10;
/// Pixels in a block at most.
const BLOCK_PIXELS: usize = 192;

struct Conv<V> {
    shape: ConvShape,
    clamp: (f32, f32),
    /// Whether a tap is a kernel row.
    rows: bool,
    /// What padded taps read: as many zeros as a tap is long.
    zeros: Vec<f32>,
    /// For each group, its panels: the biases, then `[taps, depth, width]`.
    packed: Vec<f32>,
    /// About how many pixels a block has.
    block: usize,
    vector: PhantomData<V>,
}

/// Kept by each thread so that a run allocates nothing once warm.
#[derive(Default)]
struct Scratch {
    /// `[taps, pixels of the block]`.
    taps: Vec<*const f32>,
    /// Kernel rows that reach into the padding.
    copies: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<V: Vector> Conv<V> {
    fn pack(params: &ConvF32Params, rows: bool) -> Box<dyn PackedConv> {
        let shape = params.shape;
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        let mut packed = Vec::new();
        for first in (0..shape.groups).map(|group| group * group_out) {
            for (start, vectors) in panels::<V>(group_out, shape.pixels()) {
                let channels = start..start + vectors * V::LANES;
                let of = |oc: usize, value: &dyn Fn(usize) -> f32| {
                    if oc < group_out { value(first + oc) } else { 0.0 }
                };
                packed.extend(channels.clone().map(|oc| of(oc, &|oc| params.bias_of(oc))));
                for tap in 0..shape.taps() {
                    for ic in 0..group_in {
                        let weight = |oc| params.weight(oc, tap, ic);
                        packed.extend(channels.clone().map(|oc| of(oc, &weight)));
                    }
                }
            }
        }
        let zeros = vec![0.0; shape.in_c * if rows { shape.kernel_w } else { 1 }];
        let bytes = 4 * shape.in_c.max(1) * shape.stride_h * shape.stride_w;
        let block = (BLOCK_BYTES / bytes.max(1)).clamp(12, BLOCK_PIXELS);
        Box::new(Conv::<V> {
            shape,
            clamp: params.clamp,
            rows,
            zeros,
            packed,
            block,
            vector: PhantomData,
        })
    }

    /// How many taps, and how many inputs of a group each has.
    fn taps(&self) -> (usize, usize) {
        let shape = &self.shape;
        match self.rows {
            true => (shape.kernel_h, shape.kernel_w * shape.in_c),
            false => (shape.taps(), shape.group_in()),
        }
    }

    /// Fills `scratch.taps` for `count` pixels from `at` on, and moves `at` past them. Each pointer
    /// is good for `zeros.len()` floats.
    fn find_taps(&self, input: &[f32], at: &mut PixelWalk, count: usize, scratch: &mut Scratch) {
        let shape = &self.shape;
        let (taps, depth) = self.taps();
        let Scratch { taps: table, copies } = scratch;
        table.clear();
        table.resize(taps * count, self.zeros.as_ptr());
        if !self.rows {
            for pixel in 0..count {
                for ky in 0..shape.kernel_h {
                    let Some(row) = at.input_row(shape, ky) else { continue };
                    let row = (at.n * shape.in_h + row) * shape.in_w;
                    for kx in 0..shape.kernel_w {
                        let Some(column) = at.input_column(shape, kx) else { continue };
                        let start = (row + column) * shape.in_c;
                        let tap = ky * shape.kernel_w + kx;
                        table[tap * count + pixel] = input[start..].as_ptr();
                    }
                }
                at.step(shape);
            }
            return;
        }
        // Never grows while pointers into it are live.
        copies.resize(copies.len().max(taps * count * depth), 0.0);
        for pixel in 0..count {
            let x = (at.x * shape.stride_w) as isize - shape.pad_left as isize;
            let inside = x >= 0 && x as usize + shape.kernel_w <= shape.in_w;
            for ky in 0..shape.kernel_h {
                let Some(row) = at.input_row(shape, ky) else { continue };
                let row = &input[(at.n * shape.in_h + row) * shape.in_w * shape.in_c..]
                    [..shape.in_w * shape.in_c];
                let slot = ky * count + pixel;
                table[slot] = if inside {
                    row[x as usize * shape.in_c..].as_ptr()
                } else {
                    let copy = &mut copies[slot * depth..][..depth];
                    for (kx, copy) in copy.chunks_exact_mut(shape.in_c).enumerate() {
                        match at.input_column(shape, kx) {
                            Some(column) => {
                                copy.copy_from_slice(&row[column * shape.in_c..][..shape.in_c])
                            }
                            None => copy.fill(0.0),
                        }
                    }
                    copy.as_ptr()
                };
            }
            at.step(shape);
        }
    }

    fn run_block(&self, taps: &[*const f32], count: usize, output: &mut [f32]) {
        let shape = &self.shape;
        let (tap_count, depth) = self.taps();
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        let mut packed = &self.packed[..];
        for group in 0..shape.groups {
            for (start, vectors) in panels::<V>(group_out, shape.pixels()) {
                let width = vectors * V::LANES;
                let (panel, rest) = packed.split_at(width * (1 + tap_count * depth));
                packed = rest;
                let column = group * group_out + start;
                let panel = Panel {
                    taps: taps.as_ptr(),
                    tap_count,
                    tap_stride: count,
                    offset: group * group_in,
                    depth,
                    packed: panel.as_ptr(),
                    vectors,
                    output: output[column..].as_mut_ptr(),
                    stride: shape.out_c,
                    columns: width.min(group_out - start),
                    clamp: self.clamp,
                };
                // SAFETY: the CPU has the vectors, as the list promises `pack`. `taps` holds
                // `tap_count * count` pointers, each good for a tap's `in_c` (or, with rows,
                // `kernel_w * in_c`) floats, so for `offset + depth`; `panel` was cut to its
                // size; `output` holds `count` rows of `stride` floats of which `columns` are
                // written from `column` on, and `column + columns <= out_c`.
                unsafe { panel.run::<V>(count) };
            }
        }
    }
}

impl<V: Vector> PackedConv for Conv<V> {
    fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]) {
        if output.is_empty() {
            return;
        }
        let mut at = PixelWalk::new(&self.shape, pixels.start);
        SCRATCH.with_borrow_mut(|scratch| {
            // Blocks of nearly equal size, of whole tiles but for the last.
            let pixels = pixels.len();
            let block = pixels.div_ceil(pixels.div_ceil(self.block)).next_multiple_of(V::ROWS[1]);
            for output in output.chunks_mut(block * self.shape.out_c) {
                let count = output.len() / self.shape.out_c;
                self.find_taps(input, &mut at, count, scratch);
                self.run_block(&scratch.taps, count, output);
            }
        });
    }
}
