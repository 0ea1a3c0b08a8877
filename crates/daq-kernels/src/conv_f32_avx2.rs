//! Float convolution with AVX2: tiles of pixels by output channels, without an im2col copy.
//!
//! A tile keeps its accumulators in registers: 6 pixels by 16 channels or 3 by 24. The inputs of a
//! pixel are read where they lie, through one pointer a tap (to a row of zeros in the padding);
//! weights are packed in panels of 8, 16 or 24 channels. A block of pixels small enough for the
//! cache goes through all panels before the next block.

use crate::conv_f32::{ConvF32Params, Entry, Kernel, PixelWalk};
use crate::{ConvShape, Isa};
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

/// For any geometry.
pub(crate) const AVX2: Entry =
    Entry { name: "avx2", isa: Isa::Avx2, fits: |_| true, pack: |p| Conv::pack(p, false) };

/// For few input channels: a whole kernel row is one tap, since its columns lie side by side in
/// the input. Only where such a row reaches into the padding is it copied.
pub(crate) const AVX2_ROWS: Entry = Entry {
    name: "avx2-rows",
    isa: Isa::Avx2,
    fits: |s| s.groups == 1 && s.dilation_w == 1 && s.kernel_w > 1 && s.in_c < 16,
    pack: |p| Conv::pack(p, true),
};

/// Bytes of input that a block of pixels should not exceed.
const BLOCK_BYTES: usize = 64 << 10;
/// Pixels in a block at most; a multiple of every tile's height.
const BLOCK_PIXELS: usize = 192;

/// The floats of a vector.
const LANES: usize = 8;

struct Conv {
    shape: ConvShape,
    clamp: (f32, f32),
    /// Whether a tap is a kernel row.
    rows: bool,
    /// What padded taps read: as many zeros as a tap is long.
    zeros: Vec<f32>,
    /// For each group, its panels: the biases, then `[taps, depth, width]`.
    packed: Vec<f32>,
    block: usize,
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

/// The panels of `channels` output channels as `(first channel, vectors)`: 16 wide, but 24 for the
/// last three vectors and 8 where there is just one.
pub(crate) fn panels(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    let vectors = channels.div_ceil(LANES);
    let mut at = 0;
    std::iter::from_fn(move || {
        let width = match vectors - at {
            0 => return None,
            left @ (1 | 3) => left,
            _ => 2,
        };
        at += width;
        Some(((at - width) * LANES, width))
    })
}

impl Conv {
    fn pack(params: &ConvF32Params, rows: bool) -> Box<dyn Kernel> {
        let shape = params.shape;
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        let mut packed = Vec::new();
        for first in (0..shape.groups).map(|group| group * group_out) {
            for (start, vectors) in panels(group_out) {
                let channels = start..start + vectors * LANES;
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
        let block = (BLOCK_BYTES / bytes.max(1) / 12 * 12).clamp(12, BLOCK_PIXELS);
        Box::new(Conv { shape, clamp: params.clamp, rows, zeros, packed, block })
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
            for (start, vectors) in panels(group_out) {
                let width = vectors * LANES;
                let (panel, rest) = packed.split_at(width * (1 + tap_count * depth));
                packed = rest;
                let column = group * group_out + start;
                let tile = Tile {
                    taps: taps.as_ptr(),
                    tap_count,
                    tap_stride: count,
                    offset: group * group_in,
                    depth,
                    panel: panel.as_ptr(),
                    output: output[column..].as_mut_ptr(),
                    stride: shape.out_c,
                    columns: width.min(group_out - start),
                    clamp: self.clamp,
                };
                // SAFETY: the CPU has AVX2 and FMA, as the list promises `pack`. `taps` holds
                // `tap_count * count` pointers, each good for a tap's `in_c` (or, with rows,
                // `kernel_w * in_c`) floats, so for `offset + depth`; `panel` was cut to its
                // size; `output` holds `count` rows of `stride` floats of which `columns` are
                // written from `column` on, and `column + columns <= out_c`.
                unsafe { tile.run_all(count, vectors) };
            }
        }
    }
}

impl Kernel for Conv {
    fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]) {
        if output.is_empty() {
            return;
        }
        let mut at = PixelWalk::new(&self.shape, pixels.start);
        SCRATCH.with_borrow_mut(|scratch| {
            for output in output.chunks_mut(self.block * self.shape.out_c) {
                let count = output.len() / self.shape.out_c;
                self.find_taps(input, &mut at, count, scratch);
                self.run_block(&scratch.taps, count, output);
            }
        });
    }
}

/// Pixels by one panel.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// `[tap_count, tap_stride]`; a tile takes neighbours of each row.
    pub(crate) taps: *const *const f32,
    pub(crate) tap_count: usize,
    pub(crate) tap_stride: usize,
    /// Where the group's channels begin behind a pointer.
    pub(crate) offset: usize,
    pub(crate) depth: usize,
    /// The panel's biases, then its weights.
    pub(crate) panel: *const f32,
    pub(crate) output: *mut f32,
    /// From one pixel's output to the next.
    pub(crate) stride: usize,
    /// Columns of the panel that exist.
    pub(crate) columns: usize,
    pub(crate) clamp: (f32, f32),
}

impl Tile {
    /// Computes `count` pixels with tiles of nearly equal height.
    ///
    /// # Safety
    /// AVX2 and FMA are there; `taps` has `tap_count` rows of `tap_stride >= count` pointers, each
    /// good for `offset + depth` floats; `panel` holds `1 + tap_count * depth` times `8 * vectors`
    /// floats; `vectors` is 1, 2 or 3; `columns` need so many vectors, no more, and so many floats may
    /// be written at `output` and at each of the `count - 1` following steps of `stride`.
    #[target_feature(enable = "avx2,fma")]
    pub(crate) unsafe fn run_all(mut self, count: usize, vectors: usize) {
        // 4 by 24 would need all 16 registers and one more.
        let most = if vectors == 3 { 3 } else { 6 };
        let tiles = count.div_ceil(most);
        for tile in 0..tiles {
            let height = (count + tile) / tiles;
            // SAFETY: the heights add up to `count`; the rest is the caller's promise.
            unsafe {
                match (vectors, height) {
                    (1, 1) => self.run::<1, 1>(),
                    (1, 2) => self.run::<2, 1>(),
                    (1, 3) => self.run::<3, 1>(),
                    (1, 4) => self.run::<4, 1>(),
                    (1, 5) => self.run::<5, 1>(),
                    (1, _) => self.run::<6, 1>(),
                    (2, 1) => self.run::<1, 2>(),
                    (2, 2) => self.run::<2, 2>(),
                    (2, 3) => self.run::<3, 2>(),
                    (2, 4) => self.run::<4, 2>(),
                    (2, 5) => self.run::<5, 2>(),
                    (2, _) => self.run::<6, 2>(),
                    (_, 1) => self.run::<1, 3>(),
                    (_, 2) => self.run::<2, 3>(),
                    (_, _) => self.run::<3, 3>(),
                }
                self.taps = self.taps.add(height);
                self.output = self.output.add(height * self.stride);
            }
        }
    }

    /// One tile of `M` pixels by `8 * N` columns.
    ///
    /// # Safety
    /// As [`run_all`](Self::run_all), with `count = M` and `vectors = N`.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run<const M: usize, const N: usize>(&self) {
        // SAFETY: all pointers stay within what the caller promised: the panel advances by
        // `8 * N` floats `1 + tap_count * depth` times, an input by `depth` from `offset` on.
        unsafe {
            let mut panel = self.panel;
            let bias: [__m256; N] = std::array::from_fn(|j| _mm256_loadu_ps(panel.add(j * LANES)));
            panel = panel.add(N * LANES);
            let mut acc = [bias; M];
            let mut taps = self.taps;
            for _ in 0..self.tap_count {
                let inputs: [*const f32; M] =
                    std::array::from_fn(|i| (*taps.add(i)).add(self.offset));
                taps = taps.add(self.tap_stride);
                for k in 0..self.depth {
                    let weights: [__m256; N] =
                        std::array::from_fn(|j| _mm256_loadu_ps(panel.add(j * LANES)));
                    panel = panel.add(N * LANES);
                    for i in 0..M {
                        let value = _mm256_broadcast_ss(&*inputs[i].add(k));
                        for j in 0..N {
                            acc[i][j] = _mm256_fmadd_ps(value, weights[j], acc[i][j]);
                        }
                    }
                }
            }
            let low = _mm256_set1_ps(self.clamp.0);
            let high = _mm256_set1_ps(self.clamp.1);
            for (i, acc) in acc.into_iter().enumerate() {
                let output = self.output.add(i * self.stride);
                for (j, acc) in acc.into_iter().enumerate() {
                    // The order of operands lets a NaN through.
                    let value = _mm256_min_ps(high, _mm256_max_ps(low, acc));
                    let left = self.columns - j * LANES;
                    if left >= LANES {
                        _mm256_storeu_ps(output.add(j * LANES), value);
                    } else {
                        _mm256_maskstore_ps(output.add(j * LANES), lane_mask(left), value);
                    }
                }
            }
        }
    }
}

/// A mask of the first `lanes` lanes.
#[target_feature(enable = "avx2")]
pub(crate) fn lane_mask(lanes: usize) -> __m256i {
    let index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes as i32), index)
}
