//! The depthwise convolution on registers of [`Quads`]: as many channels at a time as a register has
//! codes.
//!
//! The bytes of four taps are interleaved, so that every 32 bits hold one channel's four, which are
//! multiplied by as many weights and added up. Windows of 3x3 and 5x5 take the taps of one
//! column together: up to [`TILE`] neighbouring pixels share a column once it is interleaved. Any other
//! window takes its taps in order, pixel by pixel; so do all windows with weights beyond what one
//! multiplication takes, whose taps are passed over again for what is left of them.
//!
//! Fewer channels than a register holds are taken together with those of other pixels of the row: all
//! steps work within 128 bits, so these may belong to anything.

use std::marker::PhantomData;

use crate::ConvShape;
use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::conv_u8_taps::{SCRATCH, Taps};
use crate::quads::{Aligned, Quads};
use crate::requantize::SMALL;
use crate::vector_f32::Work;

/// Neighbouring pixels that share interleaved columns, at most.
pub(crate) const TILE: usize = 4;

/// A packed depthwise convolution.
#[derive(Debug)]
pub(crate) struct QuadDepthwise<Q> {
    taps: Taps,
    chunks: Vec<Chunk>,
    output_zero_point: u8,
    kernel: Window,
    registers: PhantomData<Q>,
}

/// The windows that have a kernel of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// By kernel size and horizontal stride.
    Square3Stride1,
    Square3Stride2,
    Square5Stride1,
    Square5Stride2,
    Any,
}

/// 16, 32 or 64 channels, of as many pixels as fill a register.
#[derive(Debug)]
struct Chunk {
    width: usize,
    /// First channel, and how many of the chunk's exist.
    first: usize,
    channels: usize,
    /// For each four taps, those of four registers of sums; again for what [`Quads::RANGE`] left.
    weights: Aligned,
    /// Four registers.
    bias: Vec<i32>,
    multipliers: Vec<f32>,
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
}

/// The channel that slot `slot` of register `vector` holds.
pub(crate) fn channel_of(width: usize, vector: usize, slot: usize) -> usize {
    slot / 4 % (width / 16) * 16 + vector * 4 + slot % 4
}

impl Window {
    pub(crate) fn of(params: &ConvU8Params) -> Window {
        let s = &params.shape;
        match (s.kernel_h, s.kernel_w, s.stride_w, s.dilation_w) {
            (3, 3, 1, 1) => Window::Square3Stride1,
            (3, 3, 2, 1) => Window::Square3Stride2,
            (5, 5, 1, 1) => Window::Square5Stride1,
            (5, 5, 2, 1) => Window::Square5Stride2,
            _ => Window::Any,
        }
    }

    /// The taps that are interleaved together, in the order in which the kernel takes them.
    pub(crate) fn fours(self, params: &ConvU8Params) -> Vec<[Option<usize>; 4]> {
        let (height, width) = (params.shape.kernel_h, params.shape.kernel_w);
        if let Window::Any = self {
            let taps = height * width;
            let four = |first| [0, 1, 2, 3].map(|i| Some(first + i).filter(|&tap| tap < taps));
            return (0..taps).step_by(4).map(four).collect();
        }
        let four = |x, top| [0, 1, 2, 3].map(|i| (top + i < height).then(|| (top + i) * width + x));
        (0..width).flat_map(|x| (0..height).step_by(4).map(move |top| four(x, top))).collect()
    }
}

impl Chunk {
    fn new<Q: Quads>(
        params: &ConvU8Params,
        fours: &[[Option<usize>; 4]],
        bias: &[i32],
        first: usize,
        width: usize,
    ) -> Chunk {
        let channels = width.min(params.shape.in_c - first);
        let lines = Q::LANES * 16 * Q::WEIGHT;
        let (low, high) = Q::RANGE;
        let mut passes = 1;
        while !params.weights_fit((passes * low, passes * high)) {
            passes += 1;
        }
        let mut chunk = Chunk {
            width,
            first,
            channels,
            weights: Aligned::zeroed(passes as usize * fours.len() * lines),
            bias: vec![0; 4 * Q::LANES],
            multipliers: vec![0.0; 4 * Q::LANES],
            small: params.multipliers[first..][..channels].iter().all(|&m| m < SMALL),
        };
        let mut weights = vec![0; params.shape.taps()];
        for at in 0..4 * Q::LANES {
            let (vector, slot) = (at / Q::LANES, at % Q::LANES);
            let channel = channel_of(width, vector, slot);
            if channel >= channels {
                continue;
            }
            params.weights_of(first + channel, &mut weights);
            let sum = weights.iter().map(|&w| i32::from(w)).sum::<i32>();
            chunk.bias[at] = bias[first + channel].wrapping_add(sum.wrapping_mul(Q::OFFSET));
            chunk.multipliers[at] = params.multipliers[first + channel];
            for (i, lines) in chunk.weights.chunks_exact_mut(lines).enumerate() {
                let (pass, four) = ((i / fours.len()) as i16, i % fours.len());
                // A pass adds what those before it, each with its share of the range, left.
                let part = |weight: i16| {
                    let upto = |passes: i16| weight.clamp(passes * low, passes * high);
                    upto(pass + 1) - upto(pass)
                };
                for (k, tap) in fours[four].iter().enumerate() {
                    let weight = tap.map_or(0, |tap| part(weights[tap]));
                    let place = Q::channel_place(vector, slot, k);
                    match Q::WEIGHT {
                        1 => lines[place] = weight as i8 as u8,
                        _ => lines[place..place + 2].copy_from_slice(&weight.to_le_bytes()),
                    }
                }
            }
        }
        chunk
    }
}

impl<Q: Quads> QuadDepthwise<Q> {
    pub(crate) fn new(params: &ConvU8Params) -> Self {
        let kernel = match params.weights_fit(Q::RANGE) {
            true => Window::of(params),
            false => Window::Any,
        };
        let (fours, bias) = (kernel.fours(params), params.folded_bias());
        let mut chunks = Vec::new();
        let mut extent = 0;
        while extent < params.shape.in_c {
            let width = match params.shape.in_c - extent {
                33.. => 64,
                17..=32 => 32,
                _ => 16,
            };
            let width = width.min(Q::LANES * 4);
            chunks.push(Chunk::new::<Q>(params, &fours, &bias, extent, width));
            extent += width;
        }
        QuadDepthwise {
            taps: Taps::new(&params.shape, extent, params.input_zero_point),
            chunks,
            output_zero_point: params.output_zero_point,
            kernel,
            registers: PhantomData,
        }
    }
}

impl<Q: Quads> PackedConv for QuadDepthwise<Q> {
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
                let most = Q::PIXELS * Q::LANES * 4 / 16;
                let columns = self.taps.point_columns(input, at, xs.clone(), most, scratch);
                // SAFETY: `ConvU8::with_kernel` made sure of the instruction set. The table's pointers
                // lead to `extent` bytes, which the chunks add up to, for as many pixels as the kernels
                // take at a time; the caller answers for the pixels of `xs`.
                unsafe {
                    let row = Row {
                        conv: self,
                        table: Table { shape, pointers: &scratch.pointers, columns },
                        output: (to, stride, xs.len()),
                    };
                    self.chunks.iter().for_each(|chunk| row.run(chunk));
                }
                // SAFETY: past the pixels of `xs`, within the output or at its end.
                to = unsafe { to.add(xs.len() * stride) };
            }
        });
    }
}

/// Where the columns of a row's windows begin, `[kernel_h, columns]`.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) shape: &'a ConvShape,
    pub(crate) pointers: &'a [*const u8],
    pub(crate) columns: usize,
}

/// All chunks of a row of pixels.
struct Row<'a, Q> {
    conv: &'a QuadDepthwise<Q>,
    table: Table<'a>,
    /// Where the first pixel goes, how far apart they are, and how many.
    output: (*mut u8, usize, usize),
}

/// One chunk of a row, `W` channels wide, with a `K`x`K` window of horizontal stride `S`, or with any
/// window where `K` is 0. Each is a function of its own: one function of all of them is more than
/// compilers keep in registers.
struct OneChunk<'a, Q, const W: usize, const K: usize, const S: usize>(&'a Row<'a, Q>, &'a Chunk);

impl<Q: Quads, const W: usize, const K: usize, const S: usize> Work for OneChunk<'_, Q, W, K, S> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: the caller's promise.
        unsafe {
            match K {
                0 => self.0.any::<W>(self.1),
                _ => self.0.square::<W, K, S>(self.1),
            }
        }
    }
}

impl<Q: Quads> Row<'_, Q> {
    /// Computes the channels of a chunk.
    ///
    /// # Safety
    ///
    /// This CPU has the registers. The table's pointers can be read for the chunk's width from its
    /// first channel on, and are those of the row's pixels, rounded up to a multiple of `PIXELS` for each
    /// width of a register. The chunk's channels can be written for each pixel.
    unsafe fn run(&self, chunk: &Chunk) {
        // SAFETY: the caller's promise.
        unsafe {
            match chunk.width {
                64 if Q::LANES >= 16 => self.window::<64>(chunk),
                32 if Q::LANES >= 8 => self.window::<32>(chunk),
                _ => self.window::<16>(chunk),
            }
        }
    }

    /// Computes the channels of a chunk `W` wide.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run).
    unsafe fn window<const W: usize>(&self, chunk: &Chunk) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.conv.kernel {
                Window::Square3Stride1 => Q::run(OneChunk::<Q, W, 3, 1>(self, chunk)),
                Window::Square3Stride2 => Q::run(OneChunk::<Q, W, 3, 2>(self, chunk)),
                Window::Square5Stride1 => Q::run(OneChunk::<Q, W, 5, 1>(self, chunk)),
                Window::Square5Stride2 => Q::run(OneChunk::<Q, W, 5, 2>(self, chunk)),
                Window::Any => Q::run(OneChunk::<Q, W, 0, 0>(self, chunk)),
            }
        }
    }

    /// A `K`x`K` window of horizontal stride `S`.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run); the chunk's weights are those of such a window.
    #[inline(always)]
    unsafe fn square<const W: usize, const K: usize, const S: usize>(&self, chunk: &Chunk) {
        let (table, pixels) = (&self.table, self.output.2);
        let lanes = Q::LANES * 4 / W;
        let fours_of_column = K.div_ceil(4);
        for pixel in (0..pixels).step_by(Q::PIXELS * lanes) {
            // SAFETY: by the caller. Group `lane` of a register takes `PIXELS` pixels of its own. A window
            // has `K * fours_of_column` fours.
            unsafe {
                let mut sums = [bias_of::<Q>(chunk); TILE];
                for column in 0..(Q::PIXELS - 1) * S + K {
                    for four in 0..fours_of_column {
                        let rows: [Q::Codes; 4] = std::array::from_fn(|i| {
                            if four * 4 + i >= K {
                                return Q::nothing();
                            }
                            let row = table.pointers.as_ptr().add((four * 4 + i) * table.columns);
                            let at = row.add(pixel * S + column);
                            Q::load(W, |lane| (*at.add(lane * Q::PIXELS * S)).add(chunk.first))
                        });
                        let taps = Q::interleave(rows);
                        for (t, sums) in sums.iter_mut().enumerate().take(Q::PIXELS) {
                            if column >= t * S && column - t * S < K {
                                let at = (column - t * S) * fours_of_column + four;
                                let weights = at * Q::LANES * 16 * Q::WEIGHT;
                                Q::accumulate(sums, &taps, chunk.weights.as_ptr().add(weights));
                            }
                        }
                    }
                }
                for (t, sums) in sums.into_iter().enumerate().take(Q::PIXELS) {
                    self.store::<W>(chunk, sums, |lane| pixel + lane * Q::PIXELS + t);
                }
            }
        }
    }

    /// Any window.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run); the chunk's weights are those of all taps in order.
    #[inline(always)]
    unsafe fn any<const W: usize>(&self, chunk: &Chunk) {
        let (table, shape, pixels) = (&self.table, self.table.shape, self.output.2);
        for pixel in (0..pixels).step_by(Q::LANES * 4 / W) {
            // SAFETY: by the caller.
            unsafe {
                let mut sums = bias_of::<Q>(chunk);
                let (mut ky, mut kx) = (0, 0);
                for weights in chunk.weights.chunks_exact(Q::LANES * 16 * Q::WEIGHT) {
                    if ky == shape.kernel_h {
                        (ky, kx) = (0, 0);
                    }
                    let taps = std::array::from_fn(|_| {
                        // Beyond the last tap weights are zero, and the first one stands in.
                        if ky == shape.kernel_h {
                            return Q::load(W, |lane| {
                                let first =
                                    table.pointers.as_ptr().add((pixel + lane) * shape.stride_w);
                                (*first).add(chunk.first)
                            });
                        }
                        let (y, x) = (ky, kx);
                        (ky, kx) = if kx + 1 < shape.kernel_w { (ky, kx + 1) } else { (ky + 1, 0) };
                        let at = y * table.columns + x * shape.dilation_w;
                        let at = table.pointers.as_ptr().add(at + pixel * shape.stride_w);
                        Q::load(W, |lane| (*at.add(lane * shape.stride_w)).add(chunk.first))
                    });
                    Q::accumulate(&mut sums, &Q::interleave(taps), weights.as_ptr());
                }
                self.store::<W>(chunk, sums, |lane| pixel + lane);
            }
        }
    }

    /// Requantizes and stores sums; those of group `lane` are of pixel `pixel(lane)`, if that exists.
    ///
    /// # Safety
    ///
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn store<const W: usize>(
        &self,
        chunk: &Chunk,
        sums: [Q::Sums; 4],
        pixel: impl Fn(usize) -> usize,
    ) {
        let (output, stride, pixels) = self.output;
        let zero_point = self.conv.output_zero_point;
        let to = |lane: usize| {
            let pixel = pixel(lane);
            (pixel < pixels).then(|| output.wrapping_add(chunk.first + pixel * stride))
        };
        // SAFETY: a chunk holds four registers of multipliers; the caller answers for the output.
        unsafe {
            let m = chunk.multipliers.as_ptr();
            let m = std::array::from_fn(|v| Q::load_floats(m.add(v * Q::LANES)));
            let codes = match chunk.small {
                true => Q::requantize::<true>(sums, m, zero_point),
                false => Q::requantize::<false>(sums, m, zero_point),
            };
            Q::store_groups(codes, W, chunk.channels, to);
        }
    }
}

/// The biases of a chunk.
///
/// # Safety
///
/// This CPU has the registers.
#[inline(always)]
unsafe fn bias_of<Q: Quads>(chunk: &Chunk) -> [Q::Sums; 4] {
    // SAFETY: a chunk holds four registers of biases.
    std::array::from_fn(|v| unsafe { Q::load_sums(chunk.bias.as_ptr().add(v * Q::LANES)) })
}
