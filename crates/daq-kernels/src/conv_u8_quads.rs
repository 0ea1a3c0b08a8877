//! The dense convolution on registers of [`Quads`]: panels of some output channels, and tiles of some
//! pixels by one panel.

use std::marker::PhantomData;

use crate::conv_u8_dense::{Panel, Part};
use crate::quads::{Aligned, Quads, TileInput};
use crate::requantize::SMALL;
use crate::vector_f32::Work;

/// Up to `VECTORS * LANES` output channels; with `SUMS`, their sums are stored as they are, in 32 bits.
#[derive(Debug)]
pub(crate) struct QuadPanel<Q, const SUMS: bool = false> {
    first: usize,
    columns: usize,
    /// Steps of one tap, and where its inputs begin in a pixel.
    steps: usize,
    offset: usize,
    /// As in [`TileInput`].
    lines: Aligned,
    extra: Vec<(Vec<u32>, Vec<u8>)>,
    bias: Vec<i32>,
    multipliers: Vec<f32>,
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
    registers: PhantomData<Q>,
}

impl<Q: Quads, const SUMS: bool> QuadPanel<Q, SUMS> {
    /// The column that a lane of a register holds: within each 128 bits of four requantized registers
    /// lie four codes of each, and what a panel does not use is left out.
    fn column_of(vectors: usize, vector: usize, lane: usize) -> usize {
        match SUMS {
            true => vector * Q::LANES + lane,
            false => lane / 4 * vectors * 4 + vector * 4 + lane % 4,
        }
    }

    /// Writes the four (or more) weights of each column to a line. Columns that do not exist have
    /// none.
    fn put(vectors: usize, line: &mut [u8], weight: impl Fn(usize, usize) -> i16) {
        for (vector, lane) in (0..vectors).flat_map(|v| (0..Q::LANES).map(move |lane| (v, lane))) {
            let column = Self::column_of(vectors, vector, lane);
            for k in 0..Q::STEP {
                let (at, weight) = (Q::place(vectors, vector, lane, k), weight(column, k));
                match Q::WEIGHT {
                    1 => line[at] = weight as i8 as u8,
                    _ => line[at..at + 2].copy_from_slice(&weight.to_le_bytes()),
                }
            }
        }
    }
}

impl<Q: Quads, const SUMS: bool> Panel for QuadPanel<Q, SUMS> {
    const STEP: usize = Q::STEP;

    fn width(group_out: usize) -> usize {
        // Panels of about equal width, so that none is left with a single register.
        let vectors = group_out.div_ceil(Q::LANES);
        vectors.div_ceil(vectors.div_ceil(Q::VECTORS)) * Q::LANES
    }

    fn pack(part: &Part) -> Self {
        let (columns, taps, tap_len) = (part.columns, part.taps, part.tap_len);
        let vectors = columns.div_ceil(Q::LANES);
        let steps = tap_len.div_ceil(Q::STEP);
        let (low, high) = Q::RANGE;
        let weight = |tap: usize, step: usize, column: usize, k: usize| {
            let at = step * Q::STEP + k;
            match column < columns && at < tap_len {
                true => part.rows[(column * taps + tap) * tap_len + at],
                false => 0,
            }
        };
        let excess = |weight: i16| weight - weight.clamp(low, high);
        let mut lines = Aligned::zeroed(taps * steps * Q::line(vectors));
        let mut extra = vec![(Vec::new(), Vec::new()); taps];
        let exceeds = part.rows.iter().any(|&weight| excess(weight) != 0);
        for (i, line) in lines.chunks_exact_mut(Q::line(vectors)).enumerate() {
            let (tap, step) = (i / steps, i % steps);
            let of_step = |column, k| weight(tap, step, column, k);
            Self::put(vectors, line, |column, k| of_step(column, k).clamp(low, high));
            if !exceeds {
                continue;
            }
            // What is left of weights that one multiplication does not take, until nothing is.
            let (offsets, again): &mut (Vec<u32>, Vec<u8>) = &mut extra[tap];
            let mut left: Vec<i16> =
                (0..columns * Q::STEP).map(|i| excess(of_step(i / Q::STEP, i % Q::STEP))).collect();
            while left.iter().any(|&weight| weight != 0) {
                offsets.push((part.offset + step * Q::STEP) as u32);
                let start = again.len();
                again.resize(start + Q::line(vectors), 0);
                Self::put(vectors, &mut again[start..], |column, k| {
                    left.get(column * Q::STEP + k).map_or(0, |weight| (*weight).clamp(low, high))
                });
                left.iter_mut().for_each(|weight| *weight = excess(*weight));
            }
        }
        let (mut bias, mut multipliers) =
            (vec![0; vectors * Q::LANES], vec![0.0; vectors * Q::LANES]);
        for slot in 0..vectors * Q::LANES {
            let column = Self::column_of(vectors, slot / Q::LANES, slot % Q::LANES);
            if column < columns {
                let weights = &part.rows[column * taps * tap_len..][..taps * tap_len];
                let sum = weights.iter().fold(0i32, |sum, &w| sum.wrapping_add(w.into()));
                bias[slot] = part.bias[column].wrapping_add(sum.wrapping_mul(Q::OFFSET));
                multipliers[slot] = part.multipliers[column];
            }
        }
        QuadPanel {
            first: part.first,
            columns,
            steps,
            offset: part.offset,
            lines,
            extra,
            bias,
            multipliers,
            small: part.multipliers.iter().all(|&multiplier| multiplier < SMALL),
            registers: PhantomData,
        }
    }

    unsafe fn multiply(
        &self,
        _: Option<&Self>,
        pointers: *const *const u8,
        pixels: usize,
        output_zero_point: u8,
        output: *mut u8,
        stride: usize,
    ) {
        let to = output.wrapping_add(self.first * if SUMS { 4 } else { 1 });
        // SAFETY: the caller answers for the CPU, for the pointers and for the output.
        unsafe {
            let tiles = Tiles { panel: self, pointers, pixels, output_zero_point, to, stride };
            match self.bias.len() / Q::LANES {
                1 => Q::run(Of::<Q, SUMS, 1>(tiles)),
                2 => Q::run(Of::<Q, SUMS, 2>(tiles)),
                3 => Q::run(Of::<Q, SUMS, 3>(tiles)),
                _ => Q::run(Of::<Q, SUMS, 4>(tiles)),
            }
        }
    }
}

/// Some pixels by one panel.
struct Tiles<'a, Q, const SUMS: bool> {
    panel: &'a QuadPanel<Q, SUMS>,
    pointers: *const *const u8,
    pixels: usize,
    output_zero_point: u8,
    /// Where the panel's first column of the first pixel goes.
    to: *mut u8,
    stride: usize,
}

/// The same, the panel being of `N` registers.
struct Of<'a, Q, const SUMS: bool, const N: usize>(Tiles<'a, Q, SUMS>);

impl<Q: Quads, const SUMS: bool, const N: usize> Work for Of<'_, Q, SUMS, N> {
    #[inline(always)]
    unsafe fn run(self) {
        // Wider panels than the registers hold are never packed, and not compiled.
        if N > Q::VECTORS {
            unreachable!("a panel of {N} registers");
        }
        let pixels = self.0.pixels;
        let tiles = pixels.div_ceil(Q::ROWS[N - 1]);
        for i in 0..tiles {
            // Tiles of equal height, so that none is left with a single pixel.
            let (first, end) = (pixels * i / tiles, pixels * (i + 1) / tiles);
            // SAFETY: the pixels exist; the caller answers for the rest.
            unsafe {
                match end - first {
                    1 => self.tile::<1>(first),
                    2 => self.tile::<2>(first),
                    3 => self.tile::<3>(first),
                    4 => self.tile::<4>(first),
                    5 => self.tile::<5>(first),
                    6 => self.tile::<6>(first),
                    7 => self.tile::<7>(first),
                    _ => self.tile::<8>(first),
                }
            }
        }
    }
}

impl<Q: Quads, const SUMS: bool, const N: usize> Of<'_, Q, SUMS, N> {
    /// Computes and stores `R` pixels from the `first` on.
    ///
    /// # Safety
    ///
    /// As for [`Panel::multiply`].
    #[inline(always)]
    unsafe fn tile<const R: usize>(&self, first: usize) {
        if R > Q::ROWS[N - 1] {
            unreachable!("a tile of {R} pixels");
        }
        let Tiles { panel, pointers, pixels, output_zero_point, to, stride } = self.0;
        // SAFETY: the panel has `N` registers of biases and multipliers, and as many lines as the
        // tile reads; the caller answers for pointers and output.
        unsafe {
            let sums = Q::tile::<R, N>(&TileInput {
                pointers: pointers.add(first),
                row: pixels,
                offset: panel.offset,
                steps: panel.steps,
                lines: panel.lines.as_ptr(),
                extra: &panel.extra,
                bias: panel.bias.as_ptr(),
            });
            let to = to.add(first * stride);
            match panel.small {
                _ if SUMS => store_sums(sums, panel, to, stride),
                true => store::<Q, SUMS, R, N, true>(sums, panel, output_zero_point, to, stride),
                false => store::<Q, SUMS, R, N, false>(sums, panel, output_zero_point, to, stride),
            }
        }
    }
}

/// Requantizes and stores the sums of a tile.
///
/// # Safety
///
/// As for [`Panel::multiply`]; the panel is of `N` registers.
#[inline(always)]
unsafe fn store<Q: Quads, const SUMS: bool, const R: usize, const N: usize, const SMALL: bool>(
    sums: [[Q::Sums; N]; R],
    panel: &QuadPanel<Q, SUMS>,
    output_zero_point: u8,
    to: *mut u8,
    stride: usize,
) {
    // SAFETY: by the caller.
    unsafe {
        let m: [Q::Floats; N] =
            std::array::from_fn(|v| Q::load_floats(panel.multipliers.as_ptr().add(v * Q::LANES)));
        for (r, sums) in sums.into_iter().enumerate() {
            // Registers that the panel lacks cost nothing: they repeat others.
            let (sums, m) = ([0, 1, 2, 3].map(|v| sums[v % N]), [0, 1, 2, 3].map(|v| m[v % N]));
            let codes = Q::requantize::<SMALL>(sums, m, output_zero_point);
            let to = to.add(r * stride);
            if N == 4 && panel.columns == 4 * Q::LANES {
                Q::store(codes, to);
                continue;
            }
            let mut bytes = [0u8; 64];
            Q::store(codes, bytes.as_mut_ptr());
            let mut left = panel.columns;
            for group in 0..Q::LANES / 4 {
                let (from, to) = (bytes.as_ptr().add(group * 16), to.add(group * N * 4));
                match left {
                    0 => {}
                    left if left >= N * 4 => std::ptr::copy_nonoverlapping(from, to, N * 4),
                    left => std::ptr::copy_nonoverlapping(from, to, left),
                }
                left = left.saturating_sub(N * 4);
            }
        }
    }
}

/// Stores the sums of a tile as they are; `stride` is in bytes.
///
/// # Safety
///
/// As for [`Panel::multiply`], of 4 bytes for each column; the panel is of `N` registers.
#[inline(always)]
unsafe fn store_sums<Q: Quads, const SUMS: bool, const R: usize, const N: usize>(
    sums: [[Q::Sums; N]; R],
    panel: &QuadPanel<Q, SUMS>,
    to: *mut u8,
    stride: usize,
) {
    for (r, sums) in sums.into_iter().enumerate() {
        for (v, sums) in sums.into_iter().enumerate() {
            // SAFETY: by the caller; a register holds no more than 16 sums.
            unsafe {
                let to = to.add(r * stride).cast::<i32>().add(v * Q::LANES);
                match panel.columns - v * Q::LANES {
                    left if left >= Q::LANES => Q::store_sums(sums, to),
                    left => {
                        let mut all = [0i32; 16];
                        Q::store_sums(sums, all.as_mut_ptr());
                        std::ptr::copy_nonoverlapping(all.as_ptr(), to, left);
                    }
                }
            }
        }
    }
}
