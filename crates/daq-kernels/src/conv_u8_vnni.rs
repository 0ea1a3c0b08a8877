//! The dense convolution with `vpdpbusd`, which adds four products of `u8` and `i8` to a 32-bit sum
//! and never saturates.
//!
//! Output channels go in panels of up to 64, four vectors of 16 sums. The input channels of a tap go
//! in quads, four bytes that are broadcast together. Weights of more than 8 bits (`u8` codes less
//! their zero point) are split into `i8` terms: what is left after the first becomes steps of its own
//! that read some of the tap's input again, for those vectors that they concern.

use std::arch::x86_64::*;

use crate::conv_u8_dense::{Panel, Part};
use crate::large_pages::Packed;
use crate::requantize::SMALL;
use crate::requantize::avx512::Requantizer;

/// One vector of weights: four for each of 16 output channels.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line([i8; 64]);

/// One vector of sums or multipliers.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Slots<T>([T; 16]);

/// A further term of four weights, for one vector of columns.
#[derive(Clone, Copy, Debug)]
struct Extra {
    tap: usize,
    vector: usize,
    /// Where its four inputs begin, from the panel's first one on.
    offset: usize,
    weights: Line,
}

/// Up to 64 output channels.
#[derive(Debug)]
pub(crate) struct VnniPanel {
    first: usize,
    columns: usize,
    /// Quads of one tap, and where its first one begins in a pixel.
    quads: usize,
    offset: usize,
    /// `[tap, quad, vector]`.
    codes: Packed<Line>,
    taps: usize,
    /// The terms of weights after the first, in the order of taps, and one that stands behind the last tap.
    extra: Vec<Extra>,
    bias: Vec<Slots<i32>>,
    multipliers: Vec<Slots<f32>>,
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
}

/// Where a column of a panel is held.
pub(crate) struct Slot {
    pub(crate) vector: usize,
    pub(crate) slot: usize,
    pub(crate) column: usize,
}

/// Where each column of a panel is held, in the order of the vectors.
pub(crate) fn slots(columns: usize) -> Vec<Slot> {
    let vectors = columns.div_ceil(16);
    (0..vectors)
        .flat_map(|vector| (0..16).map(move |slot| (vector, slot)))
        .map(|(vector, slot)| Slot { vector, slot, column: column_of(vectors, vector, slot) })
        .filter(|slot| slot.column < columns)
        .collect()
}

/// Puts weights into a slot of vectors, four into each.
#[inline]
pub(crate) fn put<'a>(
    weights: &[i8],
    slot: usize,
    mut vectors: impl Iterator<Item = &'a mut [i8; 64]>,
) {
    let (fours, rest) = weights.as_chunks::<4>();
    for (four, vector) in fours.iter().zip(&mut vectors) {
        vector.as_chunks_mut::<4>().0[slot] = *four;
    }
    if let (false, Some(vector)) = (rest.is_empty(), vectors.next()) {
        vector[slot * 4..][..rest.len()].copy_from_slice(rest);
    }
}

/// The column that slot `slot` of vector `vector` holds: the order in which [`Requantizer`] turns
/// sums into bytes, four vectors at a time where there are as many, then two, then one.
fn column_of(vectors: usize, vector: usize, slot: usize) -> usize {
    let (lane, rest) = (slot / 4, slot % 4);
    match vectors {
        4 => lane * 16 + vector * 4 + rest,
        2 | 3 if vector < 2 => lane * 8 + vector * 4 + rest,
        _ => vector * 16 + slot,
    }
}

impl Panel for VnniPanel {
    fn width(group_out: usize) -> usize {
        // Panels of about equal width, so that none is left with a single vector.
        let vectors = group_out.div_ceil(16);
        vectors.div_ceil(vectors.div_ceil(4)) * 16
    }

    fn pack(part: &Part) -> Self {
        let vectors = part.columns.div_ceil(16);
        let quads = part.tap_len.div_ceil(4);
        let slots = slots(part.columns);
        let rows: Vec<i8> =
            part.rows.iter().map(|weight| (*weight).clamp(-128, 127) as i8).collect();
        let mut codes = vec![Line([0; 64]); part.taps * quads * vectors];
        // A few lines at a time, since they are far apart in the cache.
        for (tap, lines) in codes.chunks_exact_mut((quads * vectors).max(1)).enumerate() {
            for (from, lines) in (0..part.tap_len).step_by(64).zip(lines.chunks_mut(16 * vectors)) {
                for &Slot { vector, slot, column } in &slots {
                    let row = &rows[(column * part.taps + tap) * part.tap_len..][..part.tap_len];
                    let row = &row[from..part.tap_len.min(from + 64)];
                    let lines = lines[vector..].iter_mut().step_by(vectors);
                    put(row, slot, lines.map(|line| &mut line.0));
                }
            }
        }
        let mut panel = VnniPanel {
            first: part.first,
            columns: part.columns,
            quads,
            offset: part.offset,
            codes: codes.into(),
            taps: part.taps,
            extra: Vec::new(),
            bias: vec![Slots([0; 16]); vectors],
            multipliers: vec![Slots([0.0; 16]); vectors],
            small: part.multipliers.iter().all(|&multiplier| multiplier < SMALL),
        };
        for &Slot { vector, slot, column } in &slots {
            panel.bias[vector].0[slot] = part.bias[column];
            panel.multipliers[vector].0[slot] = part.multipliers[column];
        }
        if part.rows.iter().any(|weight| !(-128..=127).contains(weight)) {
            panel.split(part, vectors);
        }
        let end = Extra { tap: part.taps, vector: 0, offset: 0, weights: Line([0; 64]) };
        panel.extra.push(end);
        panel
    }

    unsafe fn multiply(
        &self,
        next: Option<&Self>,
        pointers: *const *const u8,
        pixels: usize,
        output_zero_point: u8,
        output: *mut u8,
        stride: usize,
    ) {
        let vectors = self.bias.len();
        let tiles = pixels.div_ceil(if vectors == 4 { 6 } else { 8 });
        for i in 0..tiles {
            // Tiles of equal height, so that none is left with a single pixel.
            let (first, end) = (pixels * i / tiles, pixels * (i + 1) / tiles);
            let tile = TILES[vectors - 1][end - first - 1];
            // Each tile fetches its share of the next panel, a line with every so many quads, so that
            // memory is asked evenly.
            let every = (tiles / vectors).max(1);
            let every = 1 << every.ilog2();
            let ahead = next.filter(|_| i < vectors * every).map_or(
                Ahead { at: self.codes.as_ptr(), step: usize::MAX },
                |next| Ahead {
                    at: next.codes.as_ptr().wrapping_add(i * next.codes.len() / vectors / every),
                    step: every - 1,
                },
            );
            // SAFETY: vectors and pixels are matched; the caller answers for the rest.
            unsafe {
                let to = output.wrapping_add(first * stride + self.first);
                tile((pointers.add(first), pixels), self, ahead, output_zero_point, to, stride);
            }
        }
    }
}

/// Weights to fetch: where, and how many bytes further with each quad.
#[derive(Clone, Copy)]
struct Ahead {
    at: *const Line,
    step: usize,
}

type Tile = unsafe fn((*const *const u8, usize), &VnniPanel, Ahead, u8, *mut u8, usize);

/// By vectors, then by pixels. Sums of more than 6 pixels of 4 vectors would not fit the registers.
static TILES: [[Tile; 8]; 4] = {
    const fn of<const N: usize>() -> [Tile; 8] {
        let tallest: Tile = if N == 4 { tile::<6, N> } else { tile::<8, N> };
        let seven: Tile = if N == 4 { tallest } else { tile::<7, N> };
        let (one, two, three) = (tile::<1, N> as Tile, tile::<2, N>, tile::<3, N>);
        [one, two, three, tile::<4, N>, tile::<5, N>, tile::<6, N>, seven, tallest]
    }
    [of::<1>(), of::<2>(), of::<3>(), of::<4>()]
};

impl VnniPanel {
    /// Adds what the clamped weights leave, until nothing is left: four neighbouring inputs of a tap at a
    /// time, from any of them on.
    fn split(&mut self, part: &Part, vectors: usize) {
        let excess = |weight: i16| weight - weight.clamp(-128, 127);
        let last = self.quads * 4 - 4;
        let mut left = vec![[0i16; 16]; self.quads * 4];
        for tap in 0..part.taps {
            for vector in 0..vectors {
                for slot in 0..16 {
                    let column = column_of(vectors, vector, slot);
                    if column < part.columns {
                        let row = &part.rows[(column * part.taps + tap) * part.tap_len..];
                        let weights = row[..part.tap_len].iter();
                        left.iter_mut().zip(weights).for_each(|(to, &w)| to[slot] = excess(w));
                    }
                }
                let mut at = 0;
                while at < left.len() {
                    if left[at] == [0; 16] {
                        at += 1;
                        continue;
                    }
                    let offset = at.min(last);
                    let mut weights = Line([0; 64]);
                    for (i, left) in left[offset..offset + 4].iter_mut().enumerate() {
                        for (slot, left) in left.iter_mut().enumerate() {
                            weights.0[slot * 4 + i] = (*left).clamp(-128, 127) as i8;
                            *left = excess(*left);
                        }
                    }
                    self.extra.push(Extra { tap, vector, offset, weights });
                }
            }
        }
    }
}

/// Vectors of weights that are fetched ahead: panels are larger than the first-level cache.
const PREFETCH: usize = 32;

/// Computes `R` (1 to 8) pixels times a panel of `N` (1 to 4) vectors and stores them as codes.
///
/// # Safety
///
/// `N` is the panel's number of vectors. This CPU has AVX-512 with VNNI. For each tap `t` and pixel
/// `r`, `pointers[t * row + r]` can be read for the panel's offset and quads; the panel's columns can
/// be written at `output + r * stride`.
#[expect(clippy::needless_range_loop, reason = "the indices r and v are the tile's geometry")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const R: usize, const N: usize>(
    (pointers, row): (*const *const u8, usize),
    panel: &VnniPanel,
    mut ahead: Ahead,
    output_zero_point: u8,
    output: *mut u8,
    stride: usize,
) {
    // SAFETY: the panel holds `N` vectors of biases and multipliers, and as many lines as the loops
    // below consume (`pack`), and extra terms up to one that is of no tap; the caller answers for pointers and output.
    unsafe {
        let bias: [__m512i; N] =
            std::array::from_fn(|v| _mm512_load_si512(panel.bias.as_ptr().add(v).cast()));
        let mut acc = [bias; R];
        let mut codes: *const __m512i = panel.codes.as_ptr().cast();
        let mut extra = panel.extra.as_ptr();
        for tap in 0..panel.taps {
            let rows: [*const u8; R] =
                std::array::from_fn(|r| (*pointers.add(tap * row + r)).add(panel.offset));
            for quad in 0..panel.quads {
                let b: [__m512i; N] = std::array::from_fn(|v| _mm512_load_si512(codes.add(v)));
                for v in 0..N {
                    _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(PREFETCH + v).cast());
                }
                codes = codes.add(N);
                if quad & ahead.step == 0 {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.at.cast());
                    ahead.at = ahead.at.wrapping_add(1);
                }
                for r in 0..R {
                    let a = broadcast(rows[r].add(quad * 4));
                    for v in 0..N {
                        acc[r][v] = _mm512_dpbusd_epi32(acc[r][v], a, b[v]);
                    }
                }
            }
            while (*extra).tap == tap {
                let b = _mm512_load_si512((*extra).weights.0.as_ptr().cast());
                for v in 0..N {
                    if N == 1 || (*extra).vector == v {
                        for r in 0..R {
                            let a = broadcast(rows[r].add((*extra).offset));
                            acc[r][v] = _mm512_dpbusd_epi32(acc[r][v], a, b);
                        }
                    }
                }
                extra = extra.add(1);
            }
        }
        match panel.small {
            true => store::<R, N, true>(acc, panel, output_zero_point, output, stride),
            false => store::<R, N, false>(acc, panel, output_zero_point, output, stride),
        }
    }
}

/// Requantizes and stores the sums of a tile.
///
/// # Safety
///
/// As for [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn store<const R: usize, const N: usize, const SMALL: bool>(
    acc: [[__m512i; N]; R],
    panel: &VnniPanel,
    output_zero_point: u8,
    output: *mut u8,
    stride: usize,
) {
    let requantizer = Requantizer::<SMALL>::new(output_zero_point);
    // SAFETY: by the caller.
    unsafe {
        let m: [__m512; N] =
            std::array::from_fn(|v| _mm512_load_ps(panel.multipliers.as_ptr().add(v).cast()));
        for (r, acc) in acc.into_iter().enumerate() {
            let to = output.add(r * stride);
            if N == 4 {
                let codes = requantizer.four(
                    [acc[0], acc[1 % N], acc[2 % N], acc[3 % N]],
                    [m[0], m[1 % N], m[2 % N], m[3 % N]],
                );
                match panel.columns {
                    64 => _mm512_storeu_si512(to.cast(), codes),
                    columns => _mm512_mask_storeu_epi8(to.cast(), (1 << columns) - 1, codes),
                }
                continue;
            }
            if N >= 2 {
                let codes = requantizer.two([acc[0], acc[1 % N]], [m[0], m[1 % N]]);
                match panel.columns {
                    32.. => _mm256_storeu_si256(to.cast(), codes),
                    columns => _mm256_mask_storeu_epi8(to.cast(), (1 << columns) - 1, codes),
                }
            }
            if N % 2 == 1 {
                let codes = requantizer.one(acc[N - 1], m[N - 1]);
                let to = to.add((N - 1) * 16);
                match panel.columns - (N - 1) * 16 {
                    16 => _mm_storeu_si128(to.cast(), codes),
                    columns => _mm_mask_storeu_epi8(to.cast(), (1 << columns) - 1, codes),
                }
            }
        }
    }
}

/// Four bytes of the input in every 32-bit lane.
///
/// # Safety
///
/// 4 bytes can be read at `from`.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn broadcast(from: *const u8) -> __m512i {
    // SAFETY: the caller answers for the 4 bytes; the read is unaligned.
    _mm512_set1_epi32(unsafe { from.cast::<i32>().read_unaligned() })
}
