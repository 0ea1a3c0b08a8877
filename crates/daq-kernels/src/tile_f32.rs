//! The float matrix product that convolutions and matrix products with vectors are made of.
//!
//! A tile keeps its accumulators in registers: with AVX2 6 rows by 16 columns or 3 by 24, with
//! AVX-512 14 by 32 or 9 by 48. Where the sum is long, all rows take a part of it before the next
//! part begins, so that the weights of a part stay in the second cache beside those fetched for the
//! next; in between, the accumulators wait in the output. Storing a float does not change it, so
//! neither does this the result.

use crate::vector_f32::{Vector, Work, prefetch};
use std::marker::PhantomData;

/// The floats of a cache line.
const LINE: usize = 16;

/// The vectors of a panel for a single row.
const WIDE: usize = 8;

/// Inputs that a tile takes in at most before the next tile's turn: 64 KiB of weights with
/// AVX2, 128 KiB with AVX-512.
const PART: usize = 1024;

/// The panels of `columns` columns as `(first column, vectors)`: two vectors wide, but three for
/// the last three and one where there is just one. A matrix of a single row has `WIDE` ones as long
/// as they last, since its tiles need other columns to have enough sums to work on at a time.
pub(crate) fn panels<V: Vector>(
    columns: usize,
    rows: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let vectors = columns.div_ceil(V::LANES);
    let mut at = 0;
    std::iter::from_fn(move || {
        let width = match vectors - at {
            0 => return None,
            left @ (1 | 3) => left,
            8.. if rows == 1 => WIDE,
            _ => 2,
        };
        at += width;
        Some(((at - width) * V::LANES, width))
    })
}

/// Rows by one panel of columns.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    /// Pointers to a row's inputs: `[tap_count, tap_stride]`, neighbours for neighbouring rows.
    pub(crate) taps: *const *const f32,
    pub(crate) tap_count: usize,
    pub(crate) tap_stride: usize,
    /// The first input behind a pointer.
    pub(crate) offset: usize,
    /// How many inputs each tap has.
    pub(crate) depth: usize,
    /// `[1 + tap_count * depth, LANES * vectors]`: what the sums begin as, then the weights.
    pub(crate) packed: *const f32,
    pub(crate) vectors: usize,
    pub(crate) output: *mut f32,
    /// From one row's output to the next.
    pub(crate) stride: usize,
    /// Columns of the panel that exist.
    pub(crate) columns: usize,
    pub(crate) clamp: (f32, f32),
}

impl Panel {
    /// Computes `count` rows.
    ///
    /// # Safety
    /// The CPU has the vectors; `taps` has `tap_count` rows of `tap_stride >= count` pointers, each
    /// good for `offset + depth` floats; `packed` is as long as it says; `vectors` is 1, 2, 3 or
    /// `WIDE` and what `columns` need, no more; `columns` floats may be read and written at `output` and at
    /// each of the `count - 1` following steps of `stride`.
    pub(crate) unsafe fn run<V: Vector>(&self, count: usize) {
        let width = self.vectors * V::LANES;
        // Parts are some taps or a piece of one tap. Even an empty sum has one part.
        let tap_parts = self.tap_count.div_ceil((PART / self.depth.max(1)).max(1)).max(1);
        let depth_parts = self.depth.div_ceil(PART).max(1);
        for tap_part in 0..tap_parts {
            let tap = self.tap_count * tap_part / tap_parts;
            let next_tap = self.tap_count * (tap_part + 1) / tap_parts;
            for depth_part in 0..depth_parts {
                let k = self.depth * depth_part / depth_parts;
                let next_k = self.depth * (depth_part + 1) / depth_parts;
                let first = tap_part == 0 && depth_part == 0;
                let last = tap_part + 1 == tap_parts && depth_part + 1 == depth_parts;
                // SAFETY: the parts divide the taps and the depth of a panel that is as the caller
                // promised; a part of several taps has their whole depth, so its weights too lie
                // one after another.
                unsafe {
                    let part = Part {
                        taps: self.taps.add(tap * self.tap_stride),
                        tap_count: next_tap - tap,
                        tap_stride: self.tap_stride,
                        offset: self.offset + k,
                        depth: next_k - k,
                        start: first.then_some(self.packed),
                        weights: self.packed.add(width * (1 + tap * self.depth + k)),
                        next: self.packed,
                        pace: 0,
                        output: self.output,
                        stride: self.stride,
                        columns: self.columns,
                        clamp: if last { self.clamp } else { (f32::NEG_INFINITY, f32::INFINITY) },
                    };
                    match self.vectors {
                        1 => part.run::<V, 1>(count),
                        2 => part.run::<V, 2>(count),
                        3 => part.run::<V, 3>(count),
                        _ => part.run_wide::<V>(count),
                    }
                }
            }
        }
    }
}

/// A part of the sums of a panel; fields as there.
struct Part {
    taps: *const *const f32,
    tap_count: usize,
    tap_stride: usize,
    offset: usize,
    depth: usize,
    /// What the sums begin as; else they go on from the output.
    start: Option<*const f32>,
    weights: *const f32,
    /// The weights of the next part, which a tile fetches some of into the second cache: they are
    /// read once for many rows and would otherwise be waited for. Never dereferenced.
    next: *const f32,
    /// How many weights a tile fetches for each input that it takes in.
    pace: usize,
    output: *mut f32,
    stride: usize,
    columns: usize,
    clamp: (f32, f32),
}

impl Part {
    /// Computes `count` rows of `N` vectors with tiles of nearly equal height.
    ///
    /// # Safety
    /// As [`Panel::run`], where `start` is good for `LANES * N` floats and `weights` for `tap_count *
    /// depth` times as many.
    unsafe fn run<V: Vector, const N: usize>(mut self, count: usize) {
        let tiles = count.div_ceil(V::ROWS[N - 1]);
        let steps = self.tap_count * self.depth;
        self.next = self.weights.wrapping_add(steps * N * V::LANES);
        // So that all tiles together fetch all weights.
        self.pace = (N * V::LANES).div_ceil(tiles).min(LINE);
        for tile in 0..tiles {
            let height = (count + tile) / tiles;
            // SAFETY: the heights add up to `count`; the rest is the caller's promise.
            unsafe {
                match height {
                    1 => self.tile::<V, 1, N>(),
                    2 => self.tile::<V, 2, N>(),
                    3 => self.tile::<V, 3, N>(),
                    4 => self.tile::<V, 4, N>(),
                    5 => self.tile::<V, 5, N>(),
                    6 => self.tile::<V, 6, N>(),
                    7 => self.tile::<V, 7, N>(),
                    8 => self.tile::<V, 8, N>(),
                    9 => self.tile::<V, 9, N>(),
                    10 => self.tile::<V, 10, N>(),
                    11 => self.tile::<V, 11, N>(),
                    12 => self.tile::<V, 12, N>(),
                    13 => self.tile::<V, 13, N>(),
                    _ => self.tile::<V, 14, N>(),
                }
                self.taps = self.taps.add(height);
                self.output = self.output.add(height * self.stride);
                self.next = self.next.wrapping_add(steps * self.pace);
            }
        }
    }

    /// Computes `count` rows of `WIDE` vectors, one by one.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn run_wide<V: Vector>(mut self, count: usize) {
        for _ in 0..count {
            // SAFETY: the caller's promise.
            unsafe {
                self.tile::<V, 1, WIDE>();
                self.taps = self.taps.add(1);
                self.output = self.output.add(self.stride);
            }
        }
    }

    /// One tile of `M` rows by `N` vectors.
    ///
    /// # Safety
    /// As [`run`](Self::run), with `count = M`.
    unsafe fn tile<V: Vector, const M: usize, const N: usize>(&self) {
        // More rows than the registers hold are never asked for, and not compiled.
        if N == WIDE || M <= V::ROWS[N - 1] {
            // SAFETY: the caller's promise.
            unsafe { V::run(Tile::<V, M, N>(self, PhantomData)) }
        } else {
            unreachable!("a tile of {M} rows by {N} vectors");
        }
    }
}

/// A tile of `M` rows by `N` vectors; it may be run where [`Part::run`] may, with `count = M`.
struct Tile<'a, V, const M: usize, const N: usize>(&'a Part, PhantomData<V>);

impl<V: Vector, const M: usize, const N: usize> Work for Tile<'_, V, M, N> {
    #[inline(always)]
    unsafe fn run(self) {
        let part = self.0;
        // SAFETY: all pointers stay within what the caller promised: the weights advance by `N`
        // vectors `tap_count * depth` times, an input by `depth` from `offset` on, and of an
        // output's last vector only the lanes that exist are touched.
        unsafe {
            // Loops, not a closure for each row, which would be called and not inlined.
            let mut acc = [[V::splat(0.0); N]; M];
            if let Some(start) = part.start {
                acc = [std::array::from_fn(|j| V::load(start.add(j * V::LANES))); M];
            } else {
                for (i, acc) in acc.iter_mut().enumerate() {
                    let output = part.output.add(i * part.stride);
                    for (j, acc) in acc.iter_mut().enumerate() {
                        let output = output.add(j * V::LANES);
                        let left = part.columns - j * V::LANES;
                        *acc = if left >= V::LANES {
                            V::load(output)
                        } else {
                            V::load_part(output, left)
                        };
                    }
                }
            }
            let mut weights = part.weights;
            let mut next = part.next;
            let mut taps = part.taps;
            for _ in 0..part.tap_count {
                let inputs: [*const f32; M] =
                    std::array::from_fn(|i| (*taps.add(i)).add(part.offset));
                taps = taps.add(part.tap_stride);
                for k in 0..part.depth {
                    prefetch(next);
                    next = next.wrapping_add(part.pace);
                    let row: [V; N] = std::array::from_fn(|j| V::load(weights.add(j * V::LANES)));
                    weights = weights.add(N * V::LANES);
                    for i in 0..M {
                        let value = V::splat(*inputs[i].add(k));
                        for j in 0..N {
                            acc[i][j] = value.fma(row[j], acc[i][j]);
                        }
                    }
                }
            }
            let low = V::splat(part.clamp.0);
            let high = V::splat(part.clamp.1);
            for (i, acc) in acc.into_iter().enumerate() {
                let output = part.output.add(i * part.stride);
                for (j, acc) in acc.into_iter().enumerate() {
                    let value = acc.clamp(low, high);
                    let left = part.columns - j * V::LANES;
                    let output = output.add(j * V::LANES);
                    if left >= V::LANES {
                        value.store(output);
                    } else {
                        value.store_part(output, left);
                    }
                }
            }
        }
    }
}
