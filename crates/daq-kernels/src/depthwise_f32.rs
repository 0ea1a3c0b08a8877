//! Float depthwise convolution: vectors over the channels.
//!
//! There is no sum over channels, so a lane is a channel. A tile is up to 4 neighbouring pixels of
//! an output row by two vectors of channels. For the common kernels an input column is loaded once for all the
//! pixels that it touches; going through the columns in order visits each pixel's taps in order.

use crate::conv_f32::{ConvF32Params, Entry, PackedConv, PixelWalk};
use crate::vector_f32::{Vector, Work};
use crate::{ConvShape, Isa};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// For every depthwise geometry.
pub(crate) const fn depthwise<V: Vector>(name: &'static str, isa: Isa) -> Entry {
    Entry { name, isa, fits: ConvShape::is_depthwise, pack: Depthwise::<V>::pack }
}

/// Pixels in a tile at most.
const PIXELS: usize = 4;
/// Input columns that a tile reads at most: 4 pixels of a 5-wide kernel at stride 2.
const COLUMNS: usize = (PIXELS - 1) * 2 + 5;

/// Pointers to the channels of the input pixels that one kernel row of a tile reads.
type Columns = [*const f32; COLUMNS];

struct Depthwise<V> {
    shape: ConvShape,
    clamp: (f32, f32),
    /// What padded taps read: a zero for each channel.
    zeros: Vec<f32>,
    /// `[1 + taps, channels]`: the biases, then the weights.
    packed: Vec<f32>,
    /// Width and stride of the kernel where tiles are compiled for them. `(1, 1)` does for all
    /// others: every tap is then a kernel row by itself, and its columns are those that it reads.
    tile: (usize, usize),
    vector: PhantomData<V>,
}

thread_local! {
    /// The kernel rows of a tile.
    static ROWS: RefCell<Vec<Columns>> = const { RefCell::new(Vec::new()) };
}

impl<V: Vector> Depthwise<V> {
    fn pack(params: &ConvF32Params) -> Box<dyn PackedConv> {
        let shape = params.shape;
        let mut packed: Vec<f32> = (0..shape.out_c).map(|c| params.bias_of(c)).collect();
        for tap in 0..shape.taps() {
            packed.extend((0..shape.out_c).map(|c| params.weight(c, tap, 0)));
        }
        let tile = match (shape.kernel_w, shape.stride_w, shape.dilation_w) {
            (width @ (3 | 5), stride @ (1 | 2), 1) => (width, stride),
            _ => (1, 1),
        };
        let zeros = vec![0.0; shape.in_c];
        let clamp = params.clamp;
        Box::new(Depthwise::<V> { shape, clamp, zeros, packed, tile, vector: PhantomData })
    }

    /// Finds the input columns of `width` pixels from `at` on.
    fn find_columns(&self, input: &[f32], at: PixelWalk, width: usize, rows: &mut Vec<Columns>) {
        let shape = &self.shape;
        let (tile_width, tile_stride) = self.tile;
        let columns = (width - 1) * tile_stride + tile_width;
        // A column is `step` input pixels from the last.
        let (taps, step) = match self.tile {
            (1, 1) => (shape.kernel_w, shape.stride_w),
            _ => (1, 1),
        };
        rows.resize(shape.kernel_h * taps, [self.zeros.as_ptr(); COLUMNS]);
        let mut found = rows.iter_mut();
        for ky in 0..shape.kernel_h {
            let row = at.input_row(shape, ky).map(|row| {
                let len = shape.in_w * shape.in_c;
                &input[(at.n * shape.in_h + row) * len..][..len]
            });
            for (tap, found) in (0..taps).zip(&mut found) {
                let found = &mut found[..columns];
                let Some(row) = row else {
                    found.fill(self.zeros.as_ptr());
                    continue;
                };
                let left = at.x * shape.stride_w + tap * shape.dilation_w;
                let left = left.wrapping_sub(shape.pad_left);
                let last = left.wrapping_add((columns - 1) * step);
                if left <= last && last < shape.in_w {
                    // All inside, as nearly everywhere.
                    let inside = row[left * shape.in_c..].as_ptr();
                    for (j, found) in found.iter_mut().enumerate() {
                        *found = inside.wrapping_add(j * step * shape.in_c);
                    }
                    continue;
                }
                for (j, found) in found.iter_mut().enumerate() {
                    let column = left.wrapping_add(j * step);
                    *found = match column < shape.in_w {
                        true => row[column * shape.in_c..].as_ptr(),
                        false => self.zeros.as_ptr(),
                    };
                }
            }
        }
    }

    /// A tile of `width` pixels, from 1 to `PIXELS`.
    ///
    /// # Safety
    /// The CPU has the vectors; `rows` are those that `find_columns` found for so many pixels;
    /// `output` has room for them.
    unsafe fn run_tile(&self, rows: &[Columns], width: usize, output: *mut f32) {
        // SAFETY: the widths and strides are those of `find_columns`.
        unsafe {
            match self.tile {
                (3, 1) => self.run_width::<3, 1>(rows, width, output),
                (3, 2) => self.run_width::<3, 2>(rows, width, output),
                (5, 1) => self.run_width::<5, 1>(rows, width, output),
                (5, 2) => self.run_width::<5, 2>(rows, width, output),
                _ => self.run_width::<1, 1>(rows, width, output),
            }
        }
    }

    /// # Safety
    /// As [`run_tile`](Self::run_tile), with `K, S` the pair in `self.tile`.
    unsafe fn run_width<const K: usize, const S: usize>(
        &self,
        rows: &[Columns],
        width: usize,
        output: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match width {
                1 => V::run(Tile::<V, K, S, 1>(self, rows, output)),
                2 => V::run(Tile::<V, K, S, 2>(self, rows, output)),
                3 => V::run(Tile::<V, K, S, 3>(self, rows, output)),
                _ => V::run(Tile::<V, K, S, 4>(self, rows, output)),
            }
        }
    }
}

/// A tile of `P` pixels; it may be run where [`Depthwise::run_width`] may, with `width = P`.
struct Tile<'a, V, const K: usize, const S: usize, const P: usize>(
    &'a Depthwise<V>,
    &'a [Columns],
    *mut f32,
);

impl<V: Vector, const K: usize, const S: usize, const P: usize> Work for Tile<'_, V, K, S, P> {
    #[inline(always)]
    unsafe fn run(self) {
        let channels = self.0.shape.out_c;
        let mut c = 0;
        // SAFETY: the vectors from `c` on end within `channels`, the last one by its mask.
        unsafe {
            while c + 2 * V::LANES <= channels {
                self.vectors::<2, false>(c);
                c += 2 * V::LANES;
            }
            if c + V::LANES <= channels {
                self.vectors::<1, false>(c);
                c += V::LANES;
            }
            if c < channels {
                self.vectors::<1, true>(c);
            }
        }
    }
}

impl<V: Vector, const K: usize, const S: usize, const P: usize> Tile<'_, V, K, S, P> {
    /// `N` vectors of channels, from channel `c` on.
    ///
    /// # Safety
    /// As for `run`, and `c + N * LANES` channels exist; with `TAIL`, where `N` is 1, at least one
    /// but fewer than `LANES` from `c` on.
    #[inline(always)]
    unsafe fn vectors<const N: usize, const TAIL: bool>(&self, c: usize) {
        let &Tile(conv, rows, output) = self;
        let channels = conv.shape.out_c;
        let left = channels - c;
        // SAFETY: every pointer of `rows`, every row of `packed` and every pixel of the output is
        // good for `channels` floats, and the caller keeps `c` and the lanes within them. There are
        // `1 + rows.len() * K` rows in `packed`.
        unsafe {
            let load = |from: *const f32| -> [V; N] {
                std::array::from_fn(|v| match TAIL {
                    true => V::load_part(from.add(c), left),
                    false => V::load(from.add(c + v * V::LANES)),
                })
            };
            let mut packed = conv.packed.as_ptr();
            let mut acc = [load(packed); P];
            for columns in rows {
                let weights: [[V; N]; K] = std::array::from_fn(|_| {
                    packed = packed.add(channels);
                    load(packed)
                });
                for (j, &column) in columns[..(P - 1) * S + K].iter().enumerate() {
                    let values = load(column);
                    for (i, acc) in acc.iter_mut().enumerate() {
                        // The kernel column that meets input column `j` at pixel `i`.
                        let kx = j.wrapping_sub(i * S);
                        if kx < K {
                            for v in 0..N {
                                acc[v] = values[v].fma(weights[kx][v], acc[v]);
                            }
                        }
                    }
                }
            }
            let (low, high) = (V::splat(conv.clamp.0), V::splat(conv.clamp.1));
            for (i, acc) in acc.into_iter().enumerate() {
                for (v, acc) in acc.into_iter().enumerate() {
                    let value = acc.clamp(low, high);
                    let output = output.add(i * channels + c + v * V::LANES);
                    match TAIL {
                        true => value.store_part(output, left),
                        false => value.store(output),
                    }
                }
            }
        }
    }
}

impl<V: Vector> PackedConv for Depthwise<V> {
    fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]) {
        let shape = &self.shape;
        if output.is_empty() {
            return;
        }
        let mut at = PixelWalk::new(shape, pixels.start);
        let mut output = output;
        ROWS.with_borrow_mut(|rows| {
            while !output.is_empty() {
                // The pixels left in this output row, in tiles of nearly equal width.
                let left = (shape.out_w - at.x).min(output.len() / shape.out_c);
                let width = left.div_ceil(left.div_ceil(PIXELS));
                self.find_columns(input, at, width, rows);
                let (tile, rest) = output.split_at_mut(width * shape.out_c);
                output = rest;
                // SAFETY: the list promises `pack` the vectors; `tile` holds `width` pixels.
                unsafe { self.run_tile(rows, width, tile.as_mut_ptr()) };
                at.x += width - 1;
                at.step(shape);
            }
        });
    }
}
