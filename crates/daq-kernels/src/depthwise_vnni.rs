//! The depthwise convolution with `vpdpbusd`, 64 sums of channels at a time.
//!
//! The bytes of four taps are interleaved, so that every 32 bits hold one channel's four, which
//! `vpdpbusd` multiplies by as many weights and adds up. Windows of 3x3 and 5x5 take the taps of one
//! column together: [`TILE`] neighbouring pixels share a column once it is interleaved. Any other
//! window takes its taps in order, pixel by pixel. Weights of more than 8 bits (`u8` codes less their zero
//! point) are split into `i8` terms: a chunk that has any multiplies by each in turn. A square window leaves a
//! place free in the last four taps of a column: what is left of the weights of one row goes there.
//!
//! Fewer than 64 channels are taken together with those of other pixels of the row: all steps work
//! within 128 bits, so these may belong to anything.

use std::arch::x86_64::*;

use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::conv_u8_taps::{SCRATCH, Taps};
use crate::depthwise_quads::{TILE, Table, Window, channel_of};
use crate::requantize::SMALL;
use crate::requantize::avx512::Requantizer;

/// A packed depthwise convolution.
#[derive(Debug)]
pub(crate) struct DepthwiseVnni {
    taps: Taps,
    chunks: Vec<Chunk>,
    output_zero_point: u8,
    kernel: Window,
}

/// 64, 32 or 16 channels of 1, 2 or 4 pixels.
#[derive(Debug)]
struct Chunk {
    width: usize,
    /// First channel, and how many of the chunk's exist.
    first: usize,
    channels: usize,
    /// For each four taps, four vectors of 16 channels; again for each further term of the weights.
    weights: Vec<Lines<[i8; 4]>>,
    /// Fours of taps of a window.
    fours: usize,
    /// The row of the window that stands in the free place of a column too.
    again: Option<usize>,
    bias: Lines<i32>,
    multipliers: Lines<f32>,
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
}

/// Four vectors of 16 slots.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Lines<T>([[T; 16]; 4]);

impl Chunk {
    fn new(
        params: &ConvU8Params,
        kernel: Window,
        fours: &[[Option<usize>; 4]],
        bias: &[i32],
        first: usize,
        width: usize,
    ) -> Chunk {
        let channels = width.min(params.shape.in_c - first);
        let mut weights = vec![0; params.shape.taps()];
        let mut terms = 1;
        let mut left = vec![(0, 0); params.shape.taps()];
        for channel in first..first + channels {
            params.weights_of(channel, &mut weights);
            while weights.iter().any(|&weight| upto(weight, terms) != weight) {
                terms += 1;
            }
            for ((low, high), &weight) in left.iter_mut().zip(&weights) {
                (*low, *high) = (weight.min(*low), weight.max(*high));
            }
        }
        let again = row_left(&left, params.shape.kernel_w).filter(|_| kernel != Window::Any);
        if again.is_some() {
            terms = 1;
        }
        let mut chunk = Chunk {
            width,
            first,
            channels,
            weights: vec![Lines([[[0; 4]; 16]; 4]); terms as usize * fours.len()],
            fours: fours.len(),
            again,
            bias: Lines([[0; 16]; 4]),
            multipliers: Lines([[0.0; 16]; 4]),
            small: params.multipliers[first..][..channels].iter().all(|&m| m < SMALL),
        };
        for (vector, slot) in (0..4).flat_map(|vector| (0..16).map(move |slot| (vector, slot))) {
            let channel = channel_of(width, vector, slot);
            if channel < channels {
                chunk.bias.0[vector][slot] = bias[first + channel];
                chunk.multipliers.0[vector][slot] = params.multipliers[first + channel];
                params.weights_of(first + channel, &mut weights);
                for (term, lines) in (0..).zip(chunk.weights.chunks_exact_mut(fours.len())) {
                    let part = |weight| (upto(weight, term + 1) - upto(weight, term)) as i8;
                    let weight = |tap: Option<usize>| tap.map_or(0, |tap| part(weights[tap]));
                    for (lines, taps) in lines.iter_mut().zip(fours) {
                        lines.0[vector][slot] = taps.map(weight);
                    }
                    let Some(row) = again else { continue };
                    let width = params.shape.kernel_w;
                    for (column, lines) in lines.chunks_exact_mut(fours.len() / width).enumerate() {
                        let weight = weights[row * width + column];
                        let last = lines.last_mut().expect("a column has a four");
                        last.0[vector][slot][3] = (weight - upto(weight, 1)) as i8;
                    }
                }
            }
        }
        chunk
    }
}

/// The row that holds all weights beyond one term, where what is left of them is one more. `range` is that of
/// each tap's weights.
fn row_left(range: &[(i16, i16)], width: usize) -> Option<usize> {
    let beyond = |&(low, high): &(i16, i16)| low < -128 || high > 127;
    let row = range.iter().position(beyond)? / width;
    let others = range.iter().enumerate().all(|(tap, range)| tap / width == row || !beyond(range));
    let fits = range.iter().all(|&(low, high)| low >= -128 - 128 && high <= 127 + 127);
    (others && fits).then_some(row)
}

/// What the first `terms` of a weight add up to.
fn upto(weight: i16, terms: i16) -> i16 {
    weight.clamp(-128 * terms, 127 * terms)
}

impl DepthwiseVnni {
    pub(crate) fn new(params: &ConvU8Params) -> Self {
        let kernel = Window::of(params);
        let (fours, bias) = (kernel.fours(params), params.folded_bias());
        let mut chunks = Vec::new();
        let mut extent = 0;
        while extent < params.shape.in_c {
            let width = match params.shape.in_c - extent {
                33.. => 64,
                17..=32 => 32,
                _ => 16,
            };
            chunks.push(Chunk::new(params, kernel, &fours, &bias, extent, width));
            extent += width;
        }
        DepthwiseVnni {
            taps: Taps::new(&params.shape, extent, params.input_zero_point),
            chunks,
            output_zero_point: params.output_zero_point,
            kernel,
        }
    }
}

impl PackedConv for DepthwiseVnni {
    unsafe fn run(&self, input: &[u8], part: Part, output: *mut u8, stride: usize) {
        let shape = &self.taps.shape;
        debug_assert_eq!(part.channels.len(), shape.out_c);
        let pixels = part.pixels;
        SCRATCH.with_borrow_mut(|scratch| {
            self.taps.begin(input, scratch);
            let mut pixel = pixels.start;
            let mut to = output;
            while pixel < pixels.end {
                let (row, x) = (pixel / shape.out_w, pixel % shape.out_w);
                let xs = x..shape.out_w.min(x + pixels.end - pixel);
                pixel += xs.len();
                let at = (row / shape.out_h, row % shape.out_h);
                let most = TILE * 64 / 16;
                let columns = self.taps.point_columns(input, at, xs.clone(), most, scratch);
                for chunk in &self.chunks {
                    let table = Table { shape, pointers: &scratch.pointers, columns };
                    let run = match (self.kernel, chunk.width) {
                        (Window::Square3Stride1, 64) => square_row::<64, 3, 1>,
                        (Window::Square3Stride1, 32) => square_row::<32, 3, 1>,
                        (Window::Square3Stride1, _) => square_row::<16, 3, 1>,
                        (Window::Square3Stride2, 64) => square_row::<64, 3, 2>,
                        (Window::Square3Stride2, 32) => square_row::<32, 3, 2>,
                        (Window::Square3Stride2, _) => square_row::<16, 3, 2>,
                        (Window::Square5Stride1, 64) => square_row::<64, 5, 1>,
                        (Window::Square5Stride1, 32) => square_row::<32, 5, 1>,
                        (Window::Square5Stride1, _) => square_row::<16, 5, 1>,
                        (Window::Square5Stride2, 64) => square_row::<64, 5, 2>,
                        (Window::Square5Stride2, 32) => square_row::<32, 5, 2>,
                        (Window::Square5Stride2, _) => square_row::<16, 5, 2>,
                        (Window::Any, 64) => any_row::<64>,
                        (Window::Any, 32) => any_row::<32>,
                        (Window::Any, _) => any_row::<16>,
                    };
                    // SAFETY: `ConvU8::with_kernel` made sure of AVX-512 and VNNI; kernel and width
                    // are matched. The table's pointers lead to `extent` bytes, which the chunks
                    // add up to, for as many pixels as the kernels take at a time; the caller answers
                    // for the pixels of `xs`.
                    unsafe {
                        let row = (to.add(chunk.first), stride, xs.len());
                        run(chunk, table, self.output_zero_point, row);
                    }
                }
                // SAFETY: past the pixels of `xs`, within the output or at its end.
                to = unsafe { to.add(xs.len() * stride) };
            }
        });
    }
}

/// Loads `W` channels of `64 / W` pixels; those of pixel `i` begin at `at(i)`.
///
/// # Safety
///
/// This CPU has AVX-512. `W` bytes can be read at each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn load<const W: usize>(at: impl Fn(usize) -> *const u8) -> __m512i {
    // SAFETY: the caller answers for the `W` bytes.
    unsafe {
        match W {
            64 => _mm512_loadu_si512(at(0).cast()),
            32 => {
                let low = _mm512_castsi256_si512(_mm256_loadu_si256(at(0).cast()));
                _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(at(1).cast()))
            }
            _ => {
                let a = _mm512_castsi128_si512(_mm_loadu_si128(at(0).cast()));
                let a = _mm512_inserti32x4::<1>(a, _mm_loadu_si128(at(1).cast()));
                let a = _mm512_inserti32x4::<2>(a, _mm_loadu_si128(at(2).cast()));
                _mm512_inserti32x4::<3>(a, _mm_loadu_si128(at(3).cast()))
            }
        }
    }
}

/// Requantizes and stores the sums of `64 / W` pixels: pixel `i` at `to(i)`, unless that is `None`.
///
/// # Safety
///
/// This CPU has AVX-512. The chunk's channels can be written at each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn store<const W: usize>(
    output_zero_point: u8,
    acc: [__m512i; 4],
    chunk: &Chunk,
    to: impl Fn(usize) -> Option<*mut u8>,
) {
    // SAFETY: a chunk holds four vectors of multipliers; the caller answers for the output.
    unsafe {
        let multipliers: *const f32 = (&raw const chunk.multipliers).cast();
        let m: [__m512; 4] = std::array::from_fn(|v| _mm512_load_ps(multipliers.add(v * 16)));
        let codes = match chunk.small {
            true => Requantizer::<true>::new(output_zero_point).four(acc, m),
            false => Requantizer::<false>::new(output_zero_point).four(acc, m),
        };
        let mask = u64::MAX >> (64 - chunk.channels);
        match W {
            64 => match (to(0), chunk.channels) {
                (None, _) => {}
                (Some(to), 64) => _mm512_storeu_si512(to.cast(), codes),
                (Some(to), _) => _mm512_mask_storeu_epi8(to.cast(), mask, codes),
            },
            32 => {
                let halves = [_mm512_castsi512_si256(codes), _mm512_extracti64x4_epi64::<1>(codes)];
                for (i, codes) in halves.into_iter().enumerate() {
                    match (to(i), chunk.channels) {
                        (None, _) => {}
                        (Some(to), 32) => _mm256_storeu_si256(to.cast(), codes),
                        (Some(to), _) => _mm256_mask_storeu_epi8(to.cast(), mask as u32, codes),
                    }
                }
            }
            _ => {
                let quarters = [
                    _mm512_castsi512_si128(codes),
                    _mm512_extracti32x4_epi32::<1>(codes),
                    _mm512_extracti32x4_epi32::<2>(codes),
                    _mm512_extracti32x4_epi32::<3>(codes),
                ];
                for (i, codes) in quarters.into_iter().enumerate() {
                    match (to(i), chunk.channels) {
                        (None, _) => {}
                        (Some(to), 16) => _mm_storeu_si128(to.cast(), codes),
                        (Some(to), _) => _mm_mask_storeu_epi8(to.cast(), mask as u16, codes),
                    }
                }
            }
        }
    }
}

/// Interleaves the bytes of four vectors: `[v]` holds channels `4v..4v + 4` of each 128 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn interleave([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
    [
        _mm512_unpacklo_epi16(ab, cd),
        _mm512_unpackhi_epi16(ab, cd),
        _mm512_unpacklo_epi16(ab_high, cd_high),
        _mm512_unpackhi_epi16(ab_high, cd_high),
    ]
}

/// Adds the products of four interleaved taps to the sums of each channel.
///
/// # Safety
///
/// This CPU has AVX-512 with VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn accumulate(acc: &mut [__m512i; 4], taps: [__m512i; 4], weights: &Lines<[i8; 4]>) {
    let weights: *const __m512i = (&raw const *weights).cast();
    for v in 0..4 {
        // SAFETY: there are four aligned vectors of weights.
        let weights = unsafe { _mm512_load_si512(weights.add(v)) };
        acc[v] = _mm512_dpbusd_epi32(acc[v], taps[v], weights);
    }
}

/// The biases of a chunk.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn bias_of(chunk: &Chunk) -> [__m512i; 4] {
    let bias: *const __m512i = (&raw const chunk.bias).cast();
    // SAFETY: there are four aligned vectors of biases.
    std::array::from_fn(|v| unsafe { _mm512_load_si512(bias.add(v)) })
}

/// Computes the chunk's channels of a row of pixels with a `K`x`K` window of horizontal stride `S`.
///
/// # Safety
///
/// This CPU has AVX-512 with VNNI. `W` is the chunk's width, and its weights are those of such a
/// window. The table's pointers can be read for `W` bytes from the chunk's first channel on, and are
/// those of `pixels` pixels, rounded up to a multiple of `TILE * 64 / W`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn square_row<const W: usize, const K: usize, const S: usize>(
    chunk: &Chunk,
    table: Table,
    output_zero_point: u8,
    (output, stride, pixels): (*mut u8, usize, usize),
) {
    let fours_of_column = K.div_ceil(4);
    for pixel in (0..pixels).step_by(TILE * 64 / W) {
        let mut acc = [bias_of(chunk); TILE];
        for column in 0..(TILE - 1) * S + K {
            for four in 0..fours_of_column {
                let mut rows: [__m512i; 4] = std::array::from_fn(|i| {
                    let row = match (four * 4 + i < K, chunk.again) {
                        (true, _) => four * 4 + i,
                        (false, Some(row)) if i == 3 && K > 3 => row,
                        (false, _) => return _mm512_setzero_si512(),
                    };
                    // SAFETY: by the caller. Lane `lane` takes `TILE` pixels of its own.
                    unsafe {
                        let row = table.pointers.as_ptr().add(row * table.columns);
                        let at = row.add(pixel * S + column);
                        load::<W>(|lane| (*at.add(lane * TILE * S)).add(chunk.first))
                    }
                });
                if K == 3 {
                    // All rows are here: to load one again takes up to seven instructions.
                    rows[3] = match chunk.again {
                        None => rows[3],
                        Some(0) => rows[0],
                        Some(1) => rows[1],
                        Some(_) => rows[2],
                    };
                }
                let taps = interleave(rows);
                for weights in chunk.weights.chunks_exact(K * fours_of_column) {
                    for (t, acc) in acc.iter_mut().enumerate() {
                        if column >= t * S && column - t * S < K {
                            let at = (column - t * S) * fours_of_column + four;
                            // SAFETY: `at` is below the `K * fours_of_column` fours of a window.
                            unsafe { accumulate(acc, taps, weights.get_unchecked(at)) };
                        }
                    }
                }
            }
        }
        for (t, acc) in acc.into_iter().enumerate() {
            let to = |lane: usize| {
                let pixel = pixel + lane * TILE + t;
                let at = output.wrapping_add(pixel * stride);
                (pixel < pixels).then_some(at)
            };
            // SAFETY: the pixel is one of `pixels`, and the caller answers for those.
            unsafe { store::<W>(output_zero_point, acc, chunk, to) };
        }
    }
}

/// Computes the chunk's channels of a row of pixels with any window.
///
/// # Safety
///
/// As for [`square_row`], with all taps of the window in order.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn any_row<const W: usize>(
    chunk: &Chunk,
    table: Table,
    output_zero_point: u8,
    (output, stride, pixels): (*mut u8, usize, usize),
) {
    let shape = table.shape;
    for pixel in (0..pixels).step_by(64 / W) {
        let mut acc = bias_of(chunk);
        for term in chunk.weights.chunks_exact(chunk.fours) {
            let (mut ky, mut kx) = (0, 0);
            for weights in term {
                let taps = std::array::from_fn(|_| {
                    // Beyond the last tap weights are zero, and the first one stands in.
                    let (y, x) = if ky < shape.kernel_h { (ky, kx) } else { (0, 0) };
                    (ky, kx) = if kx + 1 < shape.kernel_w { (ky, kx + 1) } else { (ky + 1, 0) };
                    let at = y * table.columns + x * shape.dilation_w;
                    // SAFETY: by the caller.
                    unsafe {
                        let at = table.pointers.as_ptr().add(at + pixel * shape.stride_w);
                        load::<W>(|lane| (*at.add(lane * shape.stride_w)).add(chunk.first))
                    }
                });
                // SAFETY: this CPU has AVX-512 with VNNI.
                unsafe { accumulate(&mut acc, interleave(taps), weights) };
            }
        }
        let to = |lane: usize| {
            let at = (pixel + lane) * stride;
            (pixel + lane < pixels).then(|| output.wrapping_add(at))
        };
        // SAFETY: the pixel is one of `pixels`, and the caller answers for those.
        unsafe { store::<W>(output_zero_point, acc, chunk, to) };
    }
}
