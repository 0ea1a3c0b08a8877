//! The float matrix product with AVX2 that convolutions and matrix products are made of.
//!
//! A tile keeps its accumulators in registers: 6 rows by 16 columns or 3 by 24. Where the sum is
//! long, all rows take a part of it before the next part begins, so that the weights of a part stay
//! in the second cache beside those fetched for the next; in between, the accumulators wait in the
//! output. Storing a float does not change it, so neither does this the result.

use std::arch::x86_64::*;

/// The floats of a vector.
pub(crate) const LANES: usize = 8;

/// The floats of a cache line.
const LINE: usize = 16;

/// The vectors of a panel for a single row.
const WIDE: usize = 8;

/// Inputs that a tile takes in at most before the next tile's turn: 64 KiB of weights.
const PART: usize = 1024;

/// The panels of `columns` columns as `(first column, vectors)`: 16 wide, but 24 for the last three
/// vectors and 8 where there is just one. A matrix of a single row has panels 64 wide as long as
/// they last, since its tiles need other columns to have enough sums to work on at a time.
pub(crate) fn panels(columns: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let vectors = columns.div_ceil(LANES);
    let mut at = 0;
    std::iter::from_fn(move || {
        let width = match vectors - at {
            0 => return None,
            left @ (1 | 3) => left,
            8.. if rows == 1 => WIDE,
            _ => 2,
        };
        at += width;
        Some(((at - width) * LANES, width))
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
    /// `[1 + tap_count * depth, 8 * vectors]`: what the sums begin as, then the weights.
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
    /// AVX2 and FMA are there; `taps` has `tap_count` rows of `tap_stride >= count` pointers, each
    /// good for `offset + depth` floats; `packed` is as long as it says; `vectors` is 1, 2, 3 or
    /// `WIDE` and what `columns` need, no more; `columns` floats may be read and written at `output` and at
    /// each of the `count - 1` following steps of `stride`.
    #[target_feature(enable = "avx2,fma")]
    pub(crate) unsafe fn run(&self, count: usize) {
        let width = self.vectors * LANES;
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
                        pace: usize::MAX,
                        output: self.output,
                        stride: self.stride,
                        columns: self.columns,
                        clamp: if last { self.clamp } else { (f32::NEG_INFINITY, f32::INFINITY) },
                    };
                    match self.vectors {
                        1 => part.run::<1>(count),
                        2 => part.run::<2>(count),
                        3 => part.run::<3>(count),
                        _ => part.run_wide(count),
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
    /// How many inputs a tile takes in for each cache line that it fetches.
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
    /// As [`Panel::run`], where `start` is good for `8 * N` floats and `weights` for `tap_count *
    /// depth` times as many.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run<const N: usize>(mut self, count: usize) {
        // 4 by 24 would need all 16 registers and one more.
        let most = if N == 3 { 3 } else { 6 };
        let tiles = count.div_ceil(most);
        let steps = self.tap_count * self.depth;
        self.next = self.weights.wrapping_add(steps * N * LANES);
        // So that all tiles together fetch as many lines as there are weights.
        self.pace = (tiles * LINE / (N * LANES)).max(8);
        for tile in 0..tiles {
            let height = (count + tile) / tiles;
            // SAFETY: the heights add up to `count`; the rest is the caller's promise.
            unsafe {
                match height {
                    1 => self.tile::<1, N>(),
                    2 => self.tile::<2, N>(),
                    3 => self.tile::<3, N>(),
                    4 => self.tile::<4, N>(),
                    5 => self.tile::<5, N>(),
                    _ => self.tile::<6, N>(),
                }
                self.taps = self.taps.add(height);
                self.output = self.output.add(height * self.stride);
                self.next = self.next.wrapping_add(steps / self.pace * LINE);
            }
        }
    }

    /// Computes `count` rows of `WIDE` vectors, one by one.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_wide(mut self, count: usize) {
        for _ in 0..count {
            // SAFETY: the caller's promise.
            unsafe {
                self.tile::<1, WIDE>();
                self.taps = self.taps.add(1);
                self.output = self.output.add(self.stride);
            }
        }
    }

    /// One tile of `M` rows by `8 * N` columns.
    ///
    /// # Safety
    /// As [`run`](Self::run), with `count = M`.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const M: usize, const N: usize>(&self) {
        // SAFETY: all pointers stay within what the caller promised: the weights advance by `8 * N`
        // floats `tap_count * depth` times, an input by `depth` from `offset` on, and of an
        // output's last vector only the lanes that exist are touched.
        unsafe {
            let mut acc: [[__m256; N]; M] = std::array::from_fn(|i| {
                std::array::from_fn(|j| match self.start {
                    Some(start) => _mm256_loadu_ps(start.add(j * LANES)),
                    None => {
                        let output = self.output.add(i * self.stride + j * LANES);
                        let left = self.columns - j * LANES;
                        if left >= LANES {
                            _mm256_loadu_ps(output)
                        } else {
                            _mm256_maskload_ps(output, lane_mask(left))
                        }
                    }
                })
            });
            let mut weights = self.weights;
            let mut next = self.next;
            let mut taps = self.taps;
            for _ in 0..self.tap_count {
                let inputs: [*const f32; M] =
                    std::array::from_fn(|i| (*taps.add(i)).add(self.offset));
                taps = taps.add(self.tap_stride);
                let mut k = 0;
                while k < self.depth {
                    _mm_prefetch::<_MM_HINT_T1>(next.cast());
                    next = next.wrapping_add(LINE);
                    let end = self.depth.min(k.saturating_add(self.pace));
                    while k < end {
                        let row: [__m256; N] =
                            std::array::from_fn(|j| _mm256_loadu_ps(weights.add(j * LANES)));
                        weights = weights.add(N * LANES);
                        for i in 0..M {
                            let value = _mm256_broadcast_ss(&*inputs[i].add(k));
                            for j in 0..N {
                                acc[i][j] = _mm256_fmadd_ps(value, row[j], acc[i][j]);
                            }
                        }
                        k += 1;
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
