//! Float depthwise convolution with AVX2: vectors over the channels.
//!
//! There is no sum over channels, so a lane is a channel. A tile is up to 4 neighbouring pixels of
//! an output row by 16 channels. For the common kernels an input column is loaded once for all the
//! pixels that it touches; going through the columns in order visits each pixel's taps in order.

use crate::conv_f32::{ConvF32Params, Entry, PackedConv, PixelWalk};
use crate::tile_f32::{LANES, lane_mask};
use crate::{ConvShape, Isa};
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

/// For every depthwise geometry.
pub(crate) const AVX2: Entry = Entry {
    name: "avx2-depthwise",
    isa: Isa::Avx2,
    fits: ConvShape::is_depthwise,
    pack: Depthwise::pack,
};

/// Pixels in a tile at most.
const PIXELS: usize = 4;
/// Input columns that a tile reads at most: 4 pixels of a 5-wide kernel at stride 2.
const COLUMNS: usize = (PIXELS - 1) * 2 + 5;

/// Pointers to the channels of the input pixels that one kernel row of a tile reads.
type Columns = [*const f32; COLUMNS];

struct Depthwise {
    shape: ConvShape,
    clamp: (f32, f32),
    /// What padded taps read: a zero for each channel.
    zeros: Vec<f32>,
    /// `[1 + taps, channels]`: the biases, then the weights.
    packed: Vec<f32>,
    /// Width and stride of the kernel where tiles are compiled for them. `(1, 1)` does for all
    /// others: every tap is then a kernel row by itself, and its columns are those that it reads.
    tile: (usize, usize),
}

thread_local! {
    /// The kernel rows of a tile.
    static ROWS: RefCell<Vec<Columns>> = const { RefCell::new(Vec::new()) };
}

impl Depthwise {
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
        Box::new(Depthwise { shape, clamp: params.clamp, zeros, packed, tile })
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
    /// AVX2 and FMA are there; `rows` are those that `find_columns` found for so many pixels;
    /// `output` has room for them.
    #[target_feature(enable = "avx2,fma")]
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
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_width<const K: usize, const S: usize>(
        &self,
        rows: &[Columns],
        width: usize,
        output: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match width {
                1 => self.channels::<K, S, 1>(rows, output),
                2 => self.channels::<K, S, 2>(rows, output),
                3 => self.channels::<K, S, 3>(rows, output),
                _ => self.channels::<K, S, 4>(rows, output),
            }
        }
    }

    /// # Safety
    /// As [`run_width`](Self::run_width), with `width = P`.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn channels<const K: usize, const S: usize, const P: usize>(
        &self,
        rows: &[Columns],
        output: *mut f32,
    ) {
        let channels = self.shape.out_c;
        let mut c = 0;
        // SAFETY: the vectors from `c` on end within `channels`, the last one by its mask.
        unsafe {
            while c + 2 * LANES <= channels {
                self.vectors::<K, S, P, 2, false>(rows, c, output);
                c += 2 * LANES;
            }
            if c + LANES <= channels {
                self.vectors::<K, S, P, 1, false>(rows, c, output);
                c += LANES;
            }
            if c < channels {
                self.vectors::<K, S, P, 1, true>(rows, c, output);
            }
        }
    }

    /// `P` pixels by `V` vectors of channels, from channel `c` on.
    ///
    /// # Safety
    /// As [`channels`](Self::channels), and `c + V * 8` channels exist; with `TAIL`, where `V` is
    /// 1, at least one but fewer than 8 from `c` on.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn vectors<
        const K: usize,
        const S: usize,
        const P: usize,
        const V: usize,
        const TAIL: bool,
    >(
        &self,
        rows: &[Columns],
        c: usize,
        output: *mut f32,
    ) {
        let channels = self.shape.out_c;
        let mask = lane_mask(if TAIL { channels - c } else { LANES });
        // SAFETY: every pointer of `rows`, every row of `packed` and every pixel of the output is
        // good for `channels` floats, and the caller keeps `c` and the lanes within them. There are
        // `1 + rows.len() * K` rows in `packed`.
        unsafe {
            let load = |from: *const f32| -> [__m256; V] {
                std::array::from_fn(|v| match TAIL {
                    true => _mm256_maskload_ps(from.add(c), mask),
                    false => _mm256_loadu_ps(from.add(c + v * LANES)),
                })
            };
            let mut packed = self.packed.as_ptr();
            let mut acc = [load(packed); P];
            for columns in rows {
                let weights: [[__m256; V]; K] = std::array::from_fn(|_| {
                    packed = packed.add(channels);
                    load(packed)
                });
                for (j, &column) in columns[..(P - 1) * S + K].iter().enumerate() {
                    let values = load(column);
                    for (i, acc) in acc.iter_mut().enumerate() {
                        // The kernel column that meets input column `j` at pixel `i`.
                        let kx = j.wrapping_sub(i * S);
                        if kx < K {
                            for v in 0..V {
                                acc[v] = _mm256_fmadd_ps(values[v], weights[kx][v], acc[v]);
                            }
                        }
                    }
                }
            }
            let low = _mm256_set1_ps(self.clamp.0);
            let high = _mm256_set1_ps(self.clamp.1);
            for (i, acc) in acc.into_iter().enumerate() {
                for (v, acc) in acc.into_iter().enumerate() {
                    // The order of operands lets a NaN through.
                    let value = _mm256_min_ps(high, _mm256_max_ps(low, acc));
                    let output = output.add(i * channels + c + v * LANES);
                    match TAIL {
                        true => _mm256_maskstore_ps(output, mask, value),
                        false => _mm256_storeu_ps(output, value),
                    }
                }
            }
        }
    }
}

impl PackedConv for Depthwise {
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
                // SAFETY: the list promises `pack` AVX2 and FMA; `tile` holds `width` pixels.
                unsafe { self.run_tile(rows, width, tile.as_mut_ptr()) };
                at.x += width - 1;
                at.step(shape);
            }
        });
    }
}
