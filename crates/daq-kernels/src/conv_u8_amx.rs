//! The dense convolution on tiles of AMX: `tdpbusd` adds the products of 16 pixels by 64 inputs with 64
//! inputs by 16 output channels to 256 sums of 32 bits, and never saturates.
//!
//! A tile load takes 64 bytes of each of up to 16 rows that lie evenly apart: those of output pixels side
//! by side. Where the window reaches into the padding, the inputs of some output rows are copied with
//! the padding around them first. Rows of few channels are folded: as many as the stride are copied pixel
//! by pixel side by side, so that loads are fuller and fewer. Loads run past what is meant, into other
//! inputs or what follows, and weights of 0 take that out again. Two tiles of pixels meet two of channels,
//! so that each load serves two products. Sums leave through memory: while a pair of tiles is multiplied,
//! the sums of the one before it are requantized. Weights that less their zero point need 9 bits are few in
//! most models: what is left of them is multiplied by the same tiles of pixels again, for the 16 channels that
//! it concerns.

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use crate::ConvShape;
use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::conv_u8_vnni::column_of;
use crate::requantize::SMALL;
use crate::requantize::avx512::Requantizer;

/// Bytes of a row of a tile, and output channels of a panel of two tiles.
const ROW: usize = 64;
const COLUMNS: usize = 32;
/// Most rows of a tile.
const ROWS: usize = 16;
/// Bytes of input that all panels pass over while they are in the second-level cache.
const BLOCK_BYTES: usize = 256 * 1024;

/// A row of a tile.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line<T, const N: usize>([T; N]);

/// Up to 32 output channels.
#[derive(Debug)]
struct Panel {
    /// The first row of its weights.
    at: usize,
    first: usize,
    columns: usize,
    /// The steps after which a vector is multiplied again, by what is left of weights that 8 bits do not
    /// hold.
    again: Vec<(usize, usize)>,
    bias: [Line<i32, 16>; 2],
    multipliers: [Line<f32, 16>; 2],
}

impl Panel {
    fn vectors(&self) -> usize {
        self.columns.div_ceil(16)
    }
}

/// A packed dense convolution.
#[derive(Debug)]
pub(crate) struct AmxConv {
    /// Pixels of a matrix product are one row; folded rows are one, of more channels.
    shape: ConvShape,
    /// Input rows that lie pixel by pixel side by side in the copy.
    folded: usize,
    /// Whether windows reach into the padding, or rows are to be folded: a copy is read.
    padded: bool,
    /// Whether tiles go on from row to row of a padded copy.
    running_on: bool,
    /// Columns of a row as it is read: all, or those that a padded copy has.
    width: usize,
    /// Where in a window the inputs of each step begin.
    steps: Vec<usize>,
    /// `[panel, step, vector, 16]`, each row four inputs of 16 columns; after a step those of the vectors
    /// that it multiplies again.
    weights: Vec<Line<i8, ROW>>,
    panels: Vec<Panel>,
    output_zero_point: u8,
    input_zero_point: u8,
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
}

/// Whether tiles beat `vpdpbusd`: with few pixels or few inputs they are mostly empty, with a window of few
/// inputs there is the copy besides.
pub(crate) fn is_faster_than_vnni(shape: &ConvShape) -> bool {
    let inputs = shape.taps() * shape.in_c;
    shape.pixels() >= 4 && (inputs > 32 || shape.is_pointwise() && inputs >= 24)
}

impl AmxConv {
    pub(crate) fn new(params: &ConvU8Params) -> AmxConv {
        let shape = match params.shape.is_pointwise() {
            true => ConvShape::gemm(params.shape.pixels(), params.shape.in_c, params.shape.out_c),
            false => params.shape,
        };
        let folded = if folds(&shape) { shape.stride_h } else { 1 };
        let (reach_h, reach_w) = reach(&shape, shape.out_h);
        let padded = folded > 1
            || shape.pad_top > 0
            || shape.pad_left > 0
            || reach_h > shape.in_h
            || reach_w > shape.in_w;
        let shape = ConvShape {
            in_c: shape.in_c * folded,
            kernel_h: shape.kernel_h.div_ceil(folded),
            stride_h: shape.stride_h / folded,
            ..shape
        };
        let width = if padded { reach_w } else { shape.in_w };
        let joined = if shape.dilation_w == 1 { shape.kernel_w } else { 1 };
        let tap_len = joined * shape.in_c;
        // Side by side, the taps of a row are one.
        let taps: Vec<usize> = (0..shape.kernel_h)
            .flat_map(|y| (0..shape.kernel_w).step_by(joined).map(move |x| (y, x)))
            .map(|(y, x)| (y * shape.dilation_h * width + x * shape.dilation_w) * shape.in_c)
            .collect();
        // Which inputs of the window each step multiplies, and where they begin there.
        let steps: Vec<(Range<usize>, usize)> = (taps.iter().enumerate())
            .flat_map(|(tap, at)| (0..tap_len).step_by(ROW).map(move |from| (tap, at, from)))
            .map(|(tap, at, from)| {
                let inputs = tap * tap_len + from..tap * tap_len + tap_len.min(from + ROW);
                (inputs, at + from)
            })
            .collect();
        let bias = params.folded_bias();
        let fit_i8 = params.weights_fit_i8();
        let mut conv = AmxConv {
            shape,
            folded,
            padded,
            running_on: padded && runs_on(&shape, width),
            width,
            steps: steps.iter().map(|(_, at)| *at).collect(),
            weights: Vec::new(),
            panels: Vec::new(),
            output_zero_point: params.output_zero_point,
            input_zero_point: params.input_zero_point,
            small: params.multipliers.iter().all(|&multiplier| multiplier < SMALL),
        };
        let len = taps.len() * tap_len;
        let mut rows = vec![0; COLUMNS * len];
        let mut filter = vec![0; params.shape.taps() * params.shape.in_c];
        for first in (0..shape.out_c).step_by(COLUMNS) {
            let columns = COLUMNS.min(shape.out_c - first);
            for (out, row) in (first..first + columns).zip(rows.chunks_exact_mut(len)) {
                params.weights_of(out, &mut filter);
                conv.fold(&filter, row);
            }
            let at = conv.weights.len();
            let mut panel = Panel {
                at,
                first,
                columns,
                again: Vec::new(),
                bias: [Line([0; 16]); 2],
                multipliers: [Line([0.0; 16]); 2],
            };
            let vectors = panel.vectors();
            for (vector, slot) in (0..vectors).flat_map(|v| (0..16).map(move |slot| (v, slot))) {
                let column = column_of(vectors, vector, slot);
                if column < columns {
                    panel.bias[vector].0[slot] = bias[first + column];
                    panel.multipliers[vector].0[slot] = params.multipliers[first + column];
                }
            }
            let rows = &mut rows[..columns * len];
            for (step, (inputs, _)) in steps.iter().enumerate() {
                push_tile(&mut conv.weights, vectors, rows, len, inputs);
                // What 8 bits did not hold.
                let left = |row: &[i16]| row[inputs.clone()].iter().any(|&w| w != 0);
                while !fit_i8 && rows.chunks_exact(len).any(left) {
                    let mut tiles = Vec::new();
                    push_tile(&mut tiles, vectors, rows, len, inputs);
                    for (vector, tile) in tiles.chunks_exact(ROWS).enumerate() {
                        if tile.iter().flat_map(|line| line.0).any(|weight| weight != 0) {
                            panel.again.push((step, vector));
                            conv.weights.extend(tile);
                        }
                    }
                }
            }
            conv.panels.push(panel);
        }
        conv
    }

    /// Puts weights `[kernel_h, kernel_w, in_c]` in the order of what is read.
    fn fold(&self, filter: &[i16], to: &mut [i16]) {
        let (width, in_c) = (self.shape.kernel_w, self.shape.in_c / self.folded);
        for (i, pixel) in filter.chunks_exact(in_c).enumerate() {
            let (y, x) = (i / width, i % width);
            let at = (y / self.folded * width + x) * self.folded + y % self.folded;
            to[at * in_c..][..in_c].copy_from_slice(pixel);
        }
    }
}

/// Whether rows of the input are to be folded, as many as the stride: where one load takes the inputs of
/// all of them.
fn folds(shape: &ConvShape) -> bool {
    let ConvShape { kernel_h, kernel_w, stride_h, .. } = *shape;
    stride_h > 1
        && kernel_h > stride_h
        && (shape.dilation_h, shape.dilation_w) == (1, 1)
        && stride_h * kernel_w * shape.in_c <= ROW
}

/// Packs what 8 bits hold of the weights of at most 64 `inputs`, of rows of `len`, and leaves the rest
/// there.
fn push_tile(
    lines: &mut Vec<Line<i8, ROW>>,
    vectors: usize,
    rows: &mut [i16],
    len: usize,
    inputs: &Range<usize>,
) {
    let at = lines.len();
    lines.resize(at + vectors * ROWS, Line([0; ROW]));
    for (vector, slot) in (0..vectors).flat_map(|v| (0..16).map(move |slot| (v, slot))) {
        let column = column_of(vectors, vector, slot);
        let Some(row) = rows.chunks_exact_mut(len).nth(column) else { continue };
        let quads = row[inputs.clone()].chunks_mut(4).zip(&mut lines[at + vector * ROWS..]);
        for (weights, line) in quads {
            for (weight, to) in weights.iter_mut().zip(&mut line.0[slot * 4..]) {
                let held = (*weight).clamp(-128, 127);
                *to = held as i8;
                *weight -= held;
            }
        }
    }
}

/// Rows and columns of input, padding included, that `rows` rows of the output read.
fn reach(shape: &ConvShape, rows: usize) -> (usize, usize) {
    let reach = |len: usize, stride: usize, kernel: usize, dilation: usize| {
        (len.max(1) - 1) * stride + (kernel - 1) * dilation + 1
    };
    (
        reach(rows, shape.stride_h, shape.kernel_h, shape.dilation_h),
        reach(shape.out_w, shape.stride_w, shape.kernel_w, shape.dilation_w),
    )
}

/// Copies pixels of `len` bytes to where they begin every `step` bytes.
fn spread(from: &[u8], len: usize, to: &mut [u8], step: usize) {
    for (from, to) in from.chunks_exact(len).zip(to.chunks_mut(step)) {
        match (from, &mut to[..len]) {
            ([a, b, c], [x, y, z]) => (*x, *y, *z) = (*a, *b, *c),
            (from, to) => to.copy_from_slice(from),
        }
    }
}

/// Two tiles of pixels.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// The first byte of the first window of each.
    inputs: [*const u8; 2],
    tiles: usize,
    /// Which rows of the tiles are pixels of the output, the `len` first ones.
    runs: [Run; 2 * RUNS],
    len: usize,
}

/// Rows of a pair of tiles that are pixels side by side in the output.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// The first of them, counted through both tiles.
    row: usize,
    /// The first pixel, counted from that of the part, and how many.
    first: usize,
    pixels: usize,
}

/// Most runs of a tile: it has one, or those of [`runs_on`].
const RUNS: usize = 4;

/// Whether fewer tiles do if they go on from row to row of a padded copy of so many columns, as windows of
/// stride 1 do there: a tile takes the end of one row, what lies between and the beginning of the next.
fn runs_on(shape: &ConvShape, width: usize) -> bool {
    (shape.stride_h, shape.stride_w) == (1, 1)
        // A tile then meets at most `RUNS` rows.
        && (RUNS - 1) * width > ROWS
        && (shape.out_h * width).div_ceil(ROWS) < shape.out_h * shape.out_w.div_ceil(ROWS)
}

impl Pair {
    fn new(input: *const u8) -> Pair {
        Pair { inputs: [input; 2], tiles: 0, runs: Default::default(), len: 0 }
    }

    /// Adds a run, to the one before it if they are one.
    fn push(&mut self, run: Run) {
        match self.runs[..self.len].last_mut() {
            Some(Run { row, first, pixels })
                if (*row + *pixels, *first + *pixels) == (run.row, run.first) =>
            {
                *pixels += run.pixels;
            }
            _ => {
                self.runs[self.len] = run;
                self.len += 1;
            }
        }
    }
}

/// A pair to put the next tile into, and the first row of that.
fn next_tile(pairs: &mut Vec<Pair>, input: *const u8, rows: usize) -> (&mut Pair, usize) {
    if pairs.last().is_none_or(|pair| pair.tiles == 2) {
        pairs.push(Pair::new(input));
    }
    let last = pairs.len() - 1;
    let pair = &mut pairs[last];
    pair.inputs[pair.tiles] = input;
    let row = pair.tiles * rows;
    pair.tiles += 1;
    (pair, row)
}

/// Sums of a pair of tiles on their way to codes, a few pixels at a time.
struct Waiting<'a, const SMALL: bool> {
    requantizer: Requantizer<SMALL>,
    panel: &'a Panel,
    /// `[tile * row, vector]`.
    sums: *const Line<i32, 16>,
    /// Runs that have not begun.
    runs: &'a [Run],
    /// Pixels left of the run that has, their sums and where their codes go.
    left: usize,
    from: *const __m512i,
    to: *mut u8,
    /// Where the first pixel of the part begins, and the distance between pixels.
    output: *mut u8,
    stride: usize,
}

impl<const SMALL: bool> Waiting<'_, SMALL> {
    /// Requantizes and stores up to so many times two pixels.
    ///
    /// # Safety
    ///
    /// This CPU has AVX-512; the sums of the pair are stored, and the panel's columns can be written for all
    /// of its pixels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn store(&mut self, mut twos: usize) {
        while twos > 0 {
            if self.left == 0 {
                let Some((run, rest)) = self.runs.split_first() else { return };
                self.runs = rest;
                self.left = run.pixels;
                self.from = self.sums.wrapping_add(run.row * 2).cast();
                self.to = self.output.wrapping_add(run.first * self.stride + self.panel.first);
            }
            let now = twos.min(self.left.div_ceil(2));
            // SAFETY: by the caller; so many pixels are left.
            unsafe { self.store_of_run((2 * now).min(self.left)) };
            twos -= now;
        }
    }

    /// # Safety
    ///
    /// As for [`Waiting::store`]; so many pixels are left of the run.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn store_of_run(&mut self, pixels: usize) {
        let Waiting { requantizer, panel, mut from, mut to, stride, .. } = *self;
        // SAFETY: by the caller.
        unsafe {
            let m: [__m512; 2] =
                std::array::from_fn(|v| _mm512_load_ps(panel.multipliers[v].0.as_ptr()));
            let bias: [__m512i; 2] =
                std::array::from_fn(|v| _mm512_load_si512(panel.bias[v].0.as_ptr().cast()));
            let load = |from: *const __m512i, v: usize| {
                _mm512_add_epi32(_mm512_load_si512(from.add(v)), bias[v % 2])
            };
            if panel.columns > 16 {
                let mask = ((1u64 << panel.columns) - 1) as u32;
                let write = |codes: __m256i, to: *mut u8| match panel.columns {
                    32 => _mm256_storeu_si256(to.cast(), codes),
                    _ => _mm256_mask_storeu_epi8(to.cast(), mask, codes),
                };
                for _ in 0..pixels / 2 {
                    let acc = std::array::from_fn(|v| load(from, v));
                    let codes = requantizer.four(acc, [m[0], m[1], m[0], m[1]]);
                    // A pixel's codes are every other 8 bytes of those of two.
                    let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
                    let codes = _mm512_permutexvar_epi64(order, codes);
                    write(_mm512_castsi512_si256(codes), to);
                    to = to.wrapping_add(stride);
                    write(_mm512_extracti64x4_epi64::<1>(codes), to);
                    to = to.wrapping_add(stride);
                    from = from.wrapping_add(4);
                }
                if pixels % 2 == 1 {
                    write(requantizer.two([load(from, 0), load(from, 1)], m), to);
                }
            } else {
                let mask = ((1u32 << panel.columns) - 1) as u16;
                for _ in 0..pixels {
                    let codes = requantizer.one(load(from, 0), m[0]);
                    _mm_mask_storeu_epi8(to.cast(), mask, codes);
                    from = from.wrapping_add(2);
                    to = to.wrapping_add(stride);
                }
            }
        }
        // An odd pixel ends its run.
        (self.left, self.from, self.to) = (self.left - pixels, from, to);
    }
}

/// Memory that a thread reuses from call to call.
#[derive(Default)]
struct Memory {
    /// A copy of some input.
    copy: Aligned,
    pairs: Vec<Pair>,
    /// Sums of two pairs of tiles, `[pair, tile * row, vector]`.
    sums: Vec<Line<i32, 16>>,
    /// What [`core_is_shared`] said, and when.
    shared: bool,
    asked: u64,
}

/// How many ticks to go by what [`core_is_shared`] said: about a millisecond's.
const ASK: u64 = 2_000_000;

impl Memory {
    /// What [`core_is_shared`] says, or said a moment ago.
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn shared(&mut self, lines: *const Line<i32, 16>) -> bool {
        // SAFETY: by the caller.
        unsafe {
            let now = _rdtsc();
            if now.wrapping_sub(self.asked) > ASK {
                (self.shared, self.asked) = (core_is_shared(lines), now);
            }
        }
        self.shared
    }
}

/// Bytes that begin at a cache line, so that the rows of tiles lie in one each.
#[derive(Default)]
struct Aligned(Vec<u8>);

impl Aligned {
    /// The first `len` bytes, of any content.
    fn aligned(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len + ROW {
            self.0.resize(len + ROW, 0);
        }
        let skip = self.0.as_ptr().align_offset(ROW);
        &mut self.0[skip..][..len]
    }
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

impl PackedConv for AmxConv {
    unsafe fn run(&self, input: &[u8], part: Part, output: *mut u8, stride: usize) {
        // SAFETY: `ConvU8::with_kernel` made sure of the instruction set; the caller answers for the rest.
        unsafe {
            match self.small {
                true => self.run_part::<true>(input, part, output, stride),
                false => self.run_part::<false>(input, part, output, stride),
            }
        }
    }

    fn channel_step(&self) -> Option<usize> {
        Some(COLUMNS)
    }

    fn parts_per_thread(&self) -> usize {
        // Each part makes its own padded copy.
        if self.padded { 1 } else { 4 }
    }
}

impl AmxConv {
    /// # Safety
    ///
    /// As for [`PackedConv::run`], of at least one channel; this CPU has AMX, and the process may use it.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn run_part<const SMALL: bool>(
        &self,
        input: &[u8],
        Part { pixels, channels }: Part,
        output: *mut u8,
        stride: usize,
    ) {
        let shape = &self.shape;
        let panels = &self.panels[channels.start / COLUMNS..channels.end.div_ceil(COLUMNS)];
        // Tiles of equal height, in pairs.
        let widest = shape.out_w.min(pixels.len());
        let rows = match widest.div_ceil(ROWS) {
            _ if self.running_on => ROWS,
            tiles @ 2.. if shape.out_h == 1 => widest.div_ceil(tiles.next_multiple_of(2)),
            tiles => widest.div_ceil(tiles),
        };
        let pixel_bytes = shape.in_c * shape.stride_w;
        // Whole rows, or a part of one.
        let block = BLOCK_BYTES / (pixel_bytes * shape.stride_h);
        let block = match block >= shape.out_w {
            true => block / shape.out_w * shape.out_w,
            false => block.max(1).next_multiple_of(2 * rows),
        };
        // SAFETY: by the caller, there is AMX.
        unsafe { configure(rows) };
        MEMORY.with_borrow_mut(|memory| {
            memory.sums.resize(2 * COLUMNS * 2, Line([0; 16]));
            let sums = [0, COLUMNS * 2].map(|at| memory.sums[at..].as_mut_ptr());
            // SAFETY: there is AMX, tiles are configured, and sums are 128 lines.
            let shared = unsafe { memory.shared(sums[0]) };
            let mut pair_count = 0;
            let mut first = pixels.start;
            while first < pixels.end {
                let picture = shape.out_h * shape.out_w;
                let end = (first + block).min(pixels.end).min((first / picture + 1) * picture);
                self.place(input, first..end, rows, pixels.start, memory);
                let mut waiting = Waiting {
                    requantizer: Requantizer::<SMALL>::new(self.output_zero_point),
                    panel: &panels[0],
                    sums: sums[0],
                    runs: &[],
                    left: 0,
                    from: std::ptr::null(),
                    to: output,
                    output: output.wrapping_sub(channels.start),
                    stride,
                };
                for (i, panel) in panels.iter().enumerate() {
                    for (nth, pair) in memory.pairs.iter().enumerate() {
                        // The first pairs fetch a quarter each of the next panel's weights.
                        let (ahead, ahead_step) = match panels.get(i + 1) {
                            Some(next) if nth < 4 => (next.at + nth * 8, 2 * ROWS),
                            _ => (0, 0),
                        };
                        let ahead = self.weights.as_ptr().wrapping_add(ahead);
                        // Of one step, the weights stay in their tiles.
                        let kept = nth > 0 && self.steps.len() + panel.again.len() == 1;
                        let sums = sums[pair_count % 2];
                        pair_count += 1;
                        // SAFETY: `place` leads to what the tiles read; the caller answers for the
                        // output.
                        unsafe {
                            self.multiply(
                                panel,
                                kept,
                                shared,
                                pair,
                                ahead,
                                ahead_step,
                                rows,
                                sums,
                                &mut waiting,
                            );
                            waiting.store(usize::MAX);
                        }
                        waiting = Waiting { panel, sums, runs: &pair.runs[..pair.len], ..waiting };
                    }
                }
                // SAFETY: as above.
                unsafe { waiting.store(usize::MAX) };
                first = end;
            }
        });
        // SAFETY: by the caller, there is AMX.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }

    /// Cuts pixels of one picture into tiles of `rows`, and copies of the input what these could not read
    /// in place.
    fn place(
        &self,
        input: &[u8],
        pixels: Range<usize>,
        rows: usize,
        part: usize,
        memory: &mut Memory,
    ) {
        let shape = &self.shape;
        let (in_c, out_w) = (shape.in_c, shape.out_w);
        let picture = pixels.start / (shape.out_h * out_w);
        let row_of = |pixel: usize| pixel / out_w - picture * shape.out_h;
        let (top, bottom) = (row_of(pixels.start), row_of(pixels.end - 1) + 1);
        let pixel_bytes = in_c * shape.stride_w;
        // Bytes that a tile reads, from its first one on.
        let reads = (rows - 1) * pixel_bytes + self.steps.last().copied().unwrap_or(0) + ROW;
        let image = &input[picture * shape.in_h * shape.in_w * in_c / self.folded..];
        // Byte `at` of the picture is read at `base + at`.
        let mut base = image.as_ptr();
        if self.padded {
            let row = self.width * in_c;
            let copy = memory.copy.aligned(reach(shape, bottom - top).0 * row + reads);
            copy.fill(self.input_zero_point);
            base = copy.as_ptr().wrapping_sub(top * shape.stride_h * row);
            let left = shape.pad_left.min(self.width);
            let columns = (self.width - left).min(shape.in_w);
            let pixel = in_c / self.folded;
            let first = top * shape.stride_h * self.folded;
            for (y, to) in (first..).step_by(self.folded).zip(copy.chunks_exact_mut(row)) {
                let rows = (y..y + self.folded).map(|y| {
                    let y = y.wrapping_sub(shape.pad_top);
                    (y < shape.in_h).then(|| &image[y * shape.in_w * pixel..][..columns * pixel])
                });
                let to = &mut to[left * in_c..][..columns * in_c];
                for (nth, from) in rows.enumerate() {
                    match from {
                        Some(from) if self.folded == 1 => to.copy_from_slice(from),
                        Some(from) => spread(from, pixel, &mut to[nth * pixel..], in_c),
                        None => {}
                    }
                }
            }
        }
        memory.pairs.clear();
        let start_of = |y: usize| (picture * shape.out_h + y) * out_w;
        if self.running_on {
            let column = |pixel: usize, y: usize| y * self.width + pixel - start_of(y);
            let end = column(pixels.end - 1, bottom - 1) + 1;
            for first in (column(pixels.start, top)..end).step_by(rows) {
                let end = end.min(first + rows);
                let input = base.wrapping_add(first * in_c);
                let (pair, row) = next_tile(&mut memory.pairs, input, rows);
                for y in first / self.width..=(end - 1) / self.width {
                    let start = y * self.width;
                    let columns = first.max(start)..end.min(start + out_w);
                    if !columns.is_empty() {
                        pair.push(Run {
                            row: row + columns.start - first,
                            first: start_of(y) + columns.start - start - part,
                            pixels: columns.len(),
                        });
                    }
                }
            }
            return;
        }
        let mut in_place = !self.padded;
        let mut first = pixels.start;
        for y in top..bottom {
            let end = pixels.end.min(start_of(y) + out_w);
            let x = first - start_of(y);
            let mut at = (y * shape.stride_h * self.width + x * shape.stride_w) * in_c;
            while first < end {
                if in_place && at + reads > image.len() {
                    // This tile and all after it would read past the end of the input.
                    in_place = false;
                    let left = &image[at..];
                    let copy = memory.copy.aligned(at % ROW + left.len() + reads);
                    copy[at % ROW..][..left.len()].copy_from_slice(left);
                    base = copy.as_ptr().wrapping_sub(at - at % ROW);
                }
                let (pair, row) = next_tile(&mut memory.pairs, base.wrapping_add(at), rows);
                let pixels = rows.min(end - first);
                pair.push(Run { row, first: first - part, pixels });
                first += pixels;
                at += pixels * pixel_bytes;
            }
        }
    }

    /// Multiplies two tiles by a panel and stores the sums, and between the steps of that the codes of
    /// those before: the units that do the one and the other then work at the same time.
    ///
    /// # Safety
    ///
    /// As for [`AmxConv::run_part`]; tiles are configured, of `rows`. All that they read of the input can be
    /// read, and two vectors of each row be written to `sums`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn multiply<const SMALL: bool>(
        &self,
        panel: &Panel,
        kept: bool,
        shared: bool,
        pair: &Pair,
        mut ahead: *const Line<i8, ROW>,
        ahead_step: usize,
        rows: usize,
        sums: *mut Line<i32, 16>,
        waiting: &mut Waiting<SMALL>,
    ) {
        let pixel_bytes = self.shape.in_c * self.shape.stride_w;
        let vectors = panel.vectors();
        let twos = rows.div_ceil(self.steps.len() + 2 * vectors - 1);
        let mut again = panel.again.as_slice();
        let mut weights = self.weights.as_ptr().wrapping_add(panel.at);
        // SAFETY: by the caller; `weights` holds the panel's steps.
        unsafe {
            clear_sums();
            for (step, &at) in self.steps.iter().enumerate() {
                let inputs = pair.inputs.map(|input| input.wrapping_add(at));
                match (vectors, kept) {
                    (1, _) => multiply_one(inputs, pixel_bytes, weights),
                    (_, true) => multiply_kept(inputs, pixel_bytes),
                    _ if shared => multiply_two::<true>(inputs, pixel_bytes, weights, ahead),
                    _ => multiply_two::<false>(inputs, pixel_bytes, weights, ahead),
                }
                weights = weights.wrapping_add(vectors * ROWS);
                while let [(of, vector), rest @ ..] = again
                    && *of == step
                {
                    match vector {
                        0 => multiply_again::<0, 2>(weights),
                        _ => multiply_again::<1, 3>(weights),
                    }
                    weights = weights.wrapping_add(ROWS);
                    again = rest;
                }
                ahead = ahead.wrapping_add(ahead_step);
                waiting.store(twos);
            }
            let second = sums.wrapping_add(2 * rows);
            store_tile::<0>(sums);
            waiting.store(twos);
            if vectors == 2 {
                store_tile::<1>(sums.wrapping_add(1));
                waiting.store(twos);
            }
            store_tile::<2>(second);
            if vectors == 2 {
                waiting.store(twos);
                store_tile::<3>(second.wrapping_add(1));
            }
        }
    }
}

/// Makes tiles 0 to 5 (sums and pixels) `rows` high, and tiles 6 and 7 (weights) 16.
///
/// # Safety
///
/// This CPU has AMX, and the process may use it.
unsafe fn configure(rows: usize) {
    // The palette, where to go on after a fault, bytes of each row, rows of each tile.
    let mut config = Line([0u8; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        config.0[16 + 2 * tile] = ROW as u8;
        config.0[48 + tile] = if tile < 6 { rows as u8 } else { ROWS as u8 };
    }
    // SAFETY: by the caller; the configuration is a valid one. Nothing else uses tiles.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly));
    }
}

/// Clears tiles 0 to 3.
///
/// # Safety
///
/// Tiles are configured. The compiler has no use for them, so they keep their sums.
#[inline]
unsafe fn clear_sums() {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Fetches a tile of weights two steps from here.
macro_rules! fetch_tile {
    ($from:literal) => {
        fetch_tile!($from: 0 64 128 192 256 320 384 448 512 576 640 704 768 832 896 960)
    };
    ($from:literal: $($line:literal)*) => {
        concat!($("prefetcht0 [{weights} + 4096 + ", $from, " + ", $line, "]\n"),*)
    };
}

/// Adds the products of two tiles of pixels and two of channels to the tiles 0 to 3, and fetches 8 rows
/// from `ahead` on; where the core is `SHARED`, the weights of the step after the next too.
///
/// # Safety
///
/// Tiles are configured. As many rows of 64 bytes, `stride` apart, can be read from the inputs, and 32 rows
/// of weights.
#[inline]
unsafe fn multiply_two<const SHARED: bool>(
    [one, other]: [*const u8; 2],
    stride: usize,
    weights: *const Line<i8, ROW>,
    ahead: *const Line<i8, ROW>,
) {
    macro_rules! multiply {
        ($first:expr, $second:expr) => {
            asm!(
                "tileloadd tmm4, [{one} + {stride}]",
                "tileloadd tmm6, [{weights} + {row}]",
                "tileloadd tmm7, [{weights} + {row} + 1024]",
                "tileloadd tmm5, [{other} + {stride}]",
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead}]",
                "prefetcht1 [{ahead} + 64]",
                "prefetcht1 [{ahead} + 128]",
                "prefetcht1 [{ahead} + 192]",
                $first,
                "tdpbusd tmm3, tmm5, tmm7",
                "tdpbusd tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 256]",
                "prefetcht1 [{ahead} + 320]",
                "prefetcht1 [{ahead} + 384]",
                "prefetcht1 [{ahead} + 448]",
                $second,
                row = in(reg) ROW,
                one = in(reg) one,
                other = in(reg) other,
                stride = in(reg) stride,
                weights = in(reg) weights,
                ahead = in(reg) ahead,
                options(nostack, preserves_flags, readonly),
            )
        };
    }
    // SAFETY: by the caller.
    unsafe {
        match SHARED {
            true => multiply!(fetch_tile!(0), fetch_tile!(1024)),
            false => multiply!("", ""),
        }
    }
}

/// Adds to two tiles the products of the pixels that are there and one tile of channels.
///
/// # Safety
///
/// As for [`multiply_two`], of 16 rows of weights; one of these loaded the pixels.
#[inline]
unsafe fn multiply_again<const ONE: u8, const OTHER: u8>(weights: *const Line<i8, ROW>) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbusd tmm{one}, tmm4, tmm6",
            "tdpbusd tmm{other}, tmm5, tmm6",
            row = in(reg) ROW,
            weights = in(reg) weights,
            one = const ONE,
            other = const OTHER,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Adds the products of the tiles that are there.
///
/// # Safety
///
/// Tiles are configured.
#[inline]
unsafe fn multiply_loaded() {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm3, tmm5, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Whether another thread works on this core: there, tiles are loaded one by one and not while others are
/// multiplied, and a load that waits for memory holds up all. Fetching weights into the first-level cache
/// then saves a sixth of a network's time; elsewhere it costs a twelfth. Compares products alone with
/// products and loads, from the first-level cache.
///
/// # Safety
///
/// Tiles are configured; 32 rows of 64 bytes can be read.
#[inline(never)]
unsafe fn core_is_shared(lines: *const Line<i32, 16>) -> bool {
    const STEPS: usize = 4;
    // The first time fills the caches.
    let [_, alone, loaded] = [true, false, true].map(|loads| {
        // SAFETY: by the caller. The fences keep to the time what belongs to it.
        unsafe {
            _mm_lfence();
            let start = _rdtsc();
            for _ in 0..STEPS {
                match loads {
                    true => {
                        let weights = lines.cast();
                        multiply_two::<false>([lines.cast(); 2], ROW, weights, weights);
                    }
                    false => multiply_loaded(),
                }
            }
            _mm_lfence();
            // The clock of another CPU may be behind.
            _rdtsc().saturating_sub(start) as f32
        }
    });
    // 1.1 and 1.8 times as long.
    loaded > 1.4 * alone
}

/// As [`multiply_two`] by the weights that it loaded last.
///
/// # Safety
///
/// As there.
#[inline]
unsafe fn multiply_kept([one, other]: [*const u8; 2], stride: usize) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm4, [{one} + {stride}]",
            "tileloadd tmm5, [{other} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm3, tmm5, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            one = in(reg) one,
            other = in(reg) other,
            stride = in(reg) stride,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// As [`multiply_two`] by one tile of channels, to the tiles 0 and 2.
///
/// # Safety
///
/// As there, of 16 rows of weights.
#[inline]
unsafe fn multiply_one([one, other]: [*const u8; 2], stride: usize, weights: *const Line<i8, ROW>) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tileloadd tmm4, [{one} + {stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tileloadd tmm5, [{other} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm2, tmm5, tmm6",
            row = in(reg) ROW,
            one = in(reg) one,
            other = in(reg) other,
            stride = in(reg) stride,
            weights = in(reg) weights,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Stores the sums of a tile: its rows, each a vector, two vectors apart.
///
/// # Safety
///
/// Tiles are configured; a vector can be written for each row.
#[inline]
unsafe fn store_tile<const TILE: u8>(to: *mut Line<i32, 16>) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tilestored [{to} + {row}], tmm{tile}",
            to = in(reg) to,
            row = in(reg) 2 * ROW,
            tile = const TILE,
            options(nostack, preserves_flags),
        );
    }
}
