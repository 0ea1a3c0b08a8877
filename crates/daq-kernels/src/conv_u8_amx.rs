//! The dense convolution on tiles of AMX: `tdpbusd` adds the products of 16 pixels by 64 inputs with 64
//! inputs by 16 output channels to 256 sums of 32 bits, and never saturates.
//!
//! A row of a tile is 64 bytes, which a tile load takes from rows that lie evenly apart. The pixels of a
//! 1x1 convolution do; those of other windows are first put together, all taps of a pixel in one
//! row. Two tiles of pixels meet two of channels, so that each load serves two products. Sums
//! leave through memory: while a pair of tiles is multiplied, the sums of the one before it are
//! requantized.

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use crate::ConvShape;
use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::conv_u8_taps::{SCRATCH, Taps};
use crate::conv_u8_vnni::column_of;
use crate::requantize::SMALL;
use crate::requantize::avx512::Requantizer;

/// Bytes of a row of a tile, and output channels of a panel of two tiles.
const ROW: usize = 64;
const COLUMNS: usize = 32;
/// Most rows of a tile.
const ROWS: usize = 16;
/// Bytes of pixels that all panels pass over while they are in the second-level cache.
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
    bias: [Line<i32, 16>; 2],
    multipliers: [Line<f32, 16>; 2],
}

/// A packed dense convolution.
#[derive(Debug)]
pub(crate) struct AmxConv {
    taps: Taps,
    /// Bytes that one tap copies, and rows of 64 bytes that all of them fill.
    tap_len: usize,
    steps: usize,
    /// Whether pixels are read where they lie.
    in_place: bool,
    /// `[panel, step, vector, 16]`, each row four inputs of 16 columns.
    weights: Vec<Line<i8, ROW>>,
    panels: Vec<Panel>,
    output_zero_point: u8,
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
}

/// Whether tiles beat `vpdpbusd`: with few pixels or few inputs they are mostly empty.
pub(crate) fn is_faster_than_vnni(shape: &ConvShape) -> bool {
    shape.pixels() >= 4 && shape.taps() * shape.in_c > 32
}

impl Panel {
    fn vectors(&self) -> usize {
        self.columns.div_ceil(16)
    }
}

impl AmxConv {
    pub(crate) fn new(params: &ConvU8Params) -> AmxConv {
        let shape = &params.shape;
        let joined = shape.kernel_w > 1 && shape.dilation_w == 1;
        let taps = match joined {
            true => shape.kernel_h,
            false => shape.taps(),
        };
        let len = shape.taps() * shape.in_c;
        let tap_len = len / taps;
        let steps = len.div_ceil(ROW);
        // `copy` reads whole vectors.
        let extent = tap_len.next_multiple_of(ROW);
        let taps = match joined {
            true => Taps::joined(shape, extent, params.input_zero_point),
            false => Taps::new(shape, extent, params.input_zero_point),
        };
        let bias = params.folded_bias();
        let mut conv = AmxConv {
            taps,
            tap_len,
            steps,
            in_place: shape.is_pointwise(),
            weights: Vec::new(),
            panels: Vec::new(),
            output_zero_point: params.output_zero_point,
            small: params.multipliers.iter().all(|&multiplier| multiplier < SMALL),
        };
        let mut rows = vec![0; COLUMNS * len];
        for first in (0..shape.out_c).step_by(COLUMNS) {
            let columns = COLUMNS.min(shape.out_c - first);
            for (out, row) in (first..first + columns).zip(rows.chunks_exact_mut(len)) {
                params.weights_of(out, row);
            }
            let at = conv.weights.len();
            let mut panel = Panel {
                at,
                first,
                columns,
                bias: [Line([0; 16]); 2],
                multipliers: [Line([0.0; 16]); 2],
            };
            let vectors = panel.vectors();
            conv.weights.resize(at + steps * vectors * ROWS, Line([0; ROW]));
            for (vector, slot) in (0..vectors).flat_map(|v| (0..16).map(move |slot| (v, slot))) {
                let column = column_of(vectors, vector, slot);
                if column >= columns {
                    continue;
                }
                panel.bias[vector].0[slot] = bias[first + column];
                panel.multipliers[vector].0[slot] = params.multipliers[first + column];
                for (quad, weights) in rows[column * len..][..len].chunks(4).enumerate() {
                    let line = (quad / ROWS * vectors + vector) * ROWS + quad % ROWS;
                    for (to, &weight) in
                        conv.weights[at + line].0[slot * 4..].iter_mut().zip(weights)
                    {
                        *to = weight as i8;
                    }
                }
            }
            conv.panels.push(panel);
        }
        conv
    }
}

/// Where a tile of pixels is read: its first byte, and from there how far each next row is.
#[derive(Clone, Copy)]
struct Source {
    at: *const u8,
    stride: usize,
}

/// A pair of tiles whose sums wait to be requantized.
#[derive(Clone, Copy)]
struct Finished<'a> {
    panel: &'a Panel,
    /// Which half of the sums they fill.
    half: usize,
    /// Pixels of both tiles, and where the first of them is stored.
    pixels: usize,
    output: *mut u8,
}

/// Memory that a thread reuses from call to call.
#[derive(Default)]
struct Memory {
    /// Packed pixels.
    rows: Vec<Line<u8, ROW>>,
    /// Sums of two pairs of tiles, `[half, tile * row, vector]`.
    sums: Vec<Line<i32, 16>>,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

impl PackedConv for AmxConv {
    unsafe fn run(&self, input: &[u8], part: Part, output: *mut u8, stride: usize) {
        // SAFETY: `ConvU8::with_kernel` made sure of the instruction set; the caller answers for the rest.
        unsafe {
            match self.small {
                true => self.run_small::<true>(input, part, output, stride),
                false => self.run_small::<false>(input, part, output, stride),
            }
        }
    }

    fn channel_step(&self) -> Option<usize> {
        Some(COLUMNS)
    }
}

impl AmxConv {
    /// # Safety
    ///
    /// As for [`PackedConv::run`]; this CPU has AMX, and the process may use it.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn run_small<const SMALL: bool>(
        &self,
        input: &[u8],
        Part { pixels, channels }: Part,
        output: *mut u8,
        stride: usize,
    ) {
        let panels = &self.panels[channels.start / COLUMNS..channels.end.div_ceil(COLUMNS)];
        let row = self.steps * ROW;
        let in_c = self.taps.shape.in_c;
        // An even number of tiles of equal height.
        let pairs = pixels.len().div_ceil(2 * ROWS);
        let rows = pixels.len().div_ceil(2 * pairs);
        let block = (BLOCK_BYTES / (2 * rows * row)).max(1);
        // SAFETY: by the caller, there is AMX.
        unsafe { configure(rows) };
        MEMORY.with_borrow_mut(|memory| {
            memory.sums.resize(2 * COLUMNS * 2, Line([0; 16]));
            let sums = memory.sums.as_mut_ptr();
            let mut finished: Option<Finished> = None;
            let mut half = 0;
            for pairs in (0..pairs).step_by(block).map(|pair| pair..pairs.min(pair + block)) {
                let first = pixels.start + pairs.start * 2 * rows;
                let tiles = 2 * pairs.len();
                let end = pixels.end.min(first + tiles * rows);
                // Tile loads read whole rows, also of pixels past the end: what of that lies outside of
                // the input is read from a copy.
                let in_place = match self.in_place {
                    true => {
                        let readable = (input.len() + in_c).saturating_sub(row) / in_c;
                        (readable.saturating_sub(first) / rows).min(tiles)
                    }
                    false => 0,
                };
                let needed = (tiles - in_place) * rows * self.steps + 1;
                if memory.rows.len() < needed {
                    memory.rows.resize(needed, Line([0; ROW]));
                }
                let packed = end.min(first + in_place * rows)..end;
                // SAFETY: `rows` holds all rows of the tiles that are packed, and one more; the caller
                // answers for the input.
                unsafe { self.pack(input, packed, memory.rows.as_mut_ptr().cast()) };
                let packed: *const u8 = memory.rows.as_ptr().cast();
                let source = |tile: usize| match tile < in_place {
                    true => Source {
                        at: input.as_ptr().wrapping_add((first + tile * rows) * in_c),
                        stride: in_c,
                    },
                    false => Source {
                        at: packed.wrapping_add((tile - in_place) * rows * row),
                        stride: row,
                    },
                };
                for panel in panels {
                    for pair in 0..pairs.len() {
                        let at = first + pair * 2 * rows;
                        // SAFETY: the sources hold `rows` rows of `steps * 64` bytes; the caller answers
                        // for the output.
                        unsafe {
                            let weights = self.weights.as_ptr().add(panel.at);
                            let tiles = [source(2 * pair), source(2 * pair + 1)];
                            match panel.vectors() {
                                2 => multiply_two(tiles, weights, &panel.bias, self.steps),
                                _ => multiply_one(tiles, weights, &panel.bias, self.steps),
                            }
                            if let Some(finished) = finished {
                                self.store::<SMALL>(finished, sums, stride);
                            }
                            store_tiles(sums.add(half * COLUMNS * 2), rows, panel.vectors());
                            finished = Some(Finished {
                                panel,
                                half,
                                pixels: (2 * rows).min(end - at),
                                output: output
                                    .add((at - pixels.start) * stride)
                                    .wrapping_add(panel.first)
                                    .wrapping_sub(channels.start),
                            });
                        }
                        half = 1 - half;
                    }
                }
            }
            if let Some(finished) = finished {
                // SAFETY: as above.
                unsafe { self.store::<SMALL>(finished, sums, stride) };
            }
        });
        // SAFETY: by the caller, there is AMX.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

impl AmxConv {
    /// Puts the bytes of all taps of each of the `pixels` into rows of `steps * 64` bytes.
    ///
    /// # Safety
    ///
    /// `input` is as long as the shape says, and the pixels lie within it; as many rows can be written.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn pack(&self, input: &[u8], pixels: Range<usize>, to: *mut u8) {
        if pixels.is_empty() {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            self.taps.begin(input, scratch);
            self.taps.point(input, pixels.clone(), scratch);
            for pixel in 0..pixels.len() {
                // SAFETY: by the caller; all taps together fill no more than a row.
                let mut to = unsafe { to.add(pixel * self.steps * ROW) };
                for from in scratch.pointers[pixel..].iter().step_by(pixels.len()) {
                    // SAFETY: `point` leads to `extent` bytes. What is written past a tap is the place of
                    // the next one, and past the last pixel a row that nobody reads.
                    unsafe {
                        copy(*from, to, self.tap_len);
                        to = to.add(self.tap_len);
                    }
                }
            }
        });
    }

    /// Requantizes and stores the sums of a pair of tiles.
    ///
    /// # Safety
    ///
    /// `sums` holds both halves; the panel's columns of the pixels can be written.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn store<const SMALL: bool>(
        &self,
        finished: Finished,
        sums: *const Line<i32, 16>,
        stride: usize,
    ) {
        let Finished { panel, half, pixels, mut output } = finished;
        let requantizer = Requantizer::<SMALL>::new(self.output_zero_point);
        // SAFETY: by the caller.
        unsafe {
            let mut sums: *const __m512i = sums.add(half * COLUMNS * 2).cast();
            let m: [__m512; 2] =
                std::array::from_fn(|v| _mm512_load_ps(panel.multipliers[v].0.as_ptr()));
            if panel.columns > 16 {
                // A pixel's codes are every other 8 bytes of those of two.
                let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
                let mask = ((1u64 << panel.columns) - 1) as u32;
                for pixel in (0..pixels).step_by(2) {
                    let acc = std::array::from_fn(|v| _mm512_load_si512(sums.add(v)));
                    let codes = requantizer.four(acc, [m[0], m[1], m[0], m[1]]);
                    let codes = _mm512_permutexvar_epi64(order, codes);
                    let (one, other) =
                        (_mm512_castsi512_si256(codes), _mm512_extracti64x4_epi64::<1>(codes));
                    match panel.columns {
                        32 => _mm256_storeu_si256(output.cast(), one),
                        _ => _mm256_mask_storeu_epi8(output.cast(), mask, one),
                    }
                    if pixel + 1 < pixels {
                        let output = output.add(stride).cast();
                        match panel.columns {
                            32 => _mm256_storeu_si256(output, other),
                            _ => _mm256_mask_storeu_epi8(output.cast(), mask, other),
                        }
                    }
                    sums = sums.add(4);
                    output = output.wrapping_add(2 * stride);
                }
            } else {
                for _ in 0..pixels {
                    let codes = requantizer.one(_mm512_load_si512(sums), m[0]);
                    match panel.columns {
                        16 => _mm_storeu_si128(output.cast(), codes),
                        columns => _mm_mask_storeu_epi8(output.cast(), (1 << columns) - 1, codes),
                    }
                    sums = sums.add(2);
                    output = output.wrapping_add(stride);
                }
            }
        }
    }
}

/// Copies `len` bytes, and what follows up to a multiple of 16 (64 from 49 on).
///
/// # Safety
///
/// As many can be read and written.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn copy(mut from: *const u8, mut to: *mut u8, len: usize) {
    // SAFETY: by the caller.
    unsafe {
        let end = from.add(len);
        if len > 48 {
            while from < end {
                _mm512_storeu_si512(to.cast(), _mm512_loadu_si512(from.cast()));
                (from, to) = (from.add(64), to.add(64));
            }
        } else {
            while from < end {
                _mm_storeu_si128(to.cast(), _mm_loadu_si128(from.cast()));
                (from, to) = (from.add(16), to.add(16));
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

/// Multiplies two tiles of pixels by two of channels into the tiles 0 to 3.
///
/// # Safety
///
/// Tiles are configured; the sources hold as many rows of `steps * 64` bytes, `weights` holds
/// `steps * 32` rows.
#[inline]
unsafe fn multiply_two(
    [first, second]: [Source; 2],
    weights: *const Line<i8, ROW>,
    bias: &[Line<i32, 16>; 2],
    steps: usize,
) {
    // SAFETY: by the caller. The compiler has no use for tiles, so they keep their sums.
    unsafe {
        asm!(
            // A distance of 0 between rows: all of them are the bias.
            "tileloadd tmm0, [{bias} + {zero}]",
            "tileloadd tmm1, [{bias} + {zero} + 64]",
            "tileloadd tmm2, [{bias} + {zero}]",
            "tileloadd tmm3, [{bias} + {zero} + 64]",
            "2:",
            "tileloadd tmm4, [{first} + {first_stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{weights} + {row} + 1024]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{second} + {second_stride}]",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {first}, 64",
            "add {second}, 64",
            "add {weights}, 2048",
            "dec {steps}",
            "jnz 2b",
            bias = in(reg) bias,
            zero = in(reg) 0usize,
            row = in(reg) ROW,
            first = inout(reg) first.at => _,
            first_stride = in(reg) first.stride,
            second = inout(reg) second.at => _,
            second_stride = in(reg) second.stride,
            weights = inout(reg) weights => _,
            steps = inout(reg) steps => _,
            options(nostack, readonly),
        );
    }
}

/// As [`multiply_two`] by one tile of channels, into the tiles 0 and 2.
///
/// # Safety
///
/// As there; `weights` holds `steps * 16` rows.
#[inline]
unsafe fn multiply_one(
    [first, second]: [Source; 2],
    weights: *const Line<i8, ROW>,
    bias: &[Line<i32, 16>; 2],
    steps: usize,
) {
    // SAFETY: as there.
    unsafe {
        asm!(
            "tileloadd tmm0, [{bias} + {zero}]",
            "tileloadd tmm2, [{bias} + {zero}]",
            "2:",
            "tileloadd tmm4, [{first} + {first_stride}]",
            "tileloadd tmm6, [{weights} + {row}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{second} + {second_stride}]",
            "tdpbusd tmm2, tmm5, tmm6",
            "add {first}, 64",
            "add {second}, 64",
            "add {weights}, 1024",
            "dec {steps}",
            "jnz 2b",
            bias = in(reg) bias,
            zero = in(reg) 0usize,
            row = in(reg) ROW,
            first = inout(reg) first.at => _,
            first_stride = in(reg) first.stride,
            second = inout(reg) second.at => _,
            second_stride = in(reg) second.stride,
            weights = inout(reg) weights => _,
            steps = inout(reg) steps => _,
            options(nostack, readonly),
        );
    }
}

/// Stores the sums of two tiles of `rows` pixels: two vectors a pixel, of which `vectors` are filled.
///
/// # Safety
///
/// Tiles are configured for as many rows; two vectors can be written for each.
#[inline]
unsafe fn store_tiles(to: *mut Line<i32, 16>, rows: usize, vectors: usize) {
    // SAFETY: by the caller.
    unsafe {
        let second = to.add(2 * rows);
        asm!(
            "tilestored [{to} + {row}], tmm0",
            "tilestored [{second} + {row}], tmm2",
            to = in(reg) to,
            second = in(reg) second,
            row = in(reg) 2 * ROW,
            options(nostack, preserves_flags),
        );
        if vectors == 2 {
            asm!(
                "tilestored [{to} + {row} + 64], tmm1",
                "tilestored [{second} + {row} + 64], tmm3",
                to = in(reg) to,
                second = in(reg) second,
                row = in(reg) 2 * ROW,
                options(nostack, preserves_flags),
            );
        }
    }
}
