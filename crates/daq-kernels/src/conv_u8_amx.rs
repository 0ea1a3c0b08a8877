//! The dense convolution on tiles of AMX: `tdpbusd` adds the products of 16 pixels by 64 inputs with 64
//! inputs by 16 output channels to 256 sums of 32 bits, and never saturates.
//!
//! A tile load takes 64 bytes of each of up to 16 rows that lie evenly apart: those of output pixels side
//! by side. Where the window reaches into the padding, the inputs of some output rows are copied with
//! the padding around them first. Rows of few channels are folded: as many as the stride are copied pixel
//! by pixel side by side, so that loads are fuller and fewer. Loads run past what is meant, into other
//! inputs or what follows, and weights of 0 take that out again.
//!
//! Two tiles of pixels meet two of channels, so that each load serves two products. Where an output is small
//! and its weights are many, which then come from memory, four of pixels meet one of channels, and weights
//! are read once. Sums leave through memory: while a group of tiles is multiplied, the sums of the one before
//! it become codes. Weights that less their zero point need 9 bits are few in most models: what is left of them
//! is multiplied by the same tiles of pixels again, for the 16 channels that it concerns.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use crate::ConvShape;
use crate::conv_u8::{ConvU8Params, Other, PackedConv, Part};
use crate::conv_u8_amx_codes::{Adding, Channels, Place, Waiting};
use crate::conv_u8_amx_tiles::*;
use crate::conv_u8_vnni::{Slot, put, slots};
use crate::large_pages::Packed;
use crate::requantize::{NEAR, SMALL};

/// Columns of a tile of channels.
const COLUMNS: usize = 16;
/// Most tiles of pixels that meet the same weights.
const TILES: usize = 4;
/// Bytes of input that all panels pass over while they are in the second-level cache.
const BLOCK_BYTES: usize = 256 * 1024;
/// Bytes of output that all panels pass over, where they have few inputs: what they read and write then stays
/// in the first-level cache.
const BLOCK_CODES: usize = 64 * 1024;
/// Bytes of weights that stay in the first-level cache beside what meets them.
const NEAR_BYTES: usize = 16 * 1024;
/// Bytes of weights that hardly are in a cache when their turn comes.
const FAR_BYTES: usize = 256 * 1024;

/// Up to 32 output channels, or 16.
#[derive(Debug)]
struct Panel {
    /// The first row of its weights.
    at: usize,
    first: usize,
    /// The steps after which a vector is multiplied again, by what is left of weights that 8 bits do not
    /// hold.
    again: Vec<(usize, usize)>,
    channels: Channels,
}

impl Panel {
    fn vectors(&self) -> usize {
        self.channels.columns.div_ceil(COLUMNS)
    }
}

/// A packed dense convolution.
#[derive(Debug)]
pub(crate) struct AmxConv {
    /// Pixels of a matrix product are one row; folded rows are one, of more channels. Where the copy is of
    /// planes, its kernel and strides are those on a plane.
    shape: ConvShape,
    /// Input rows that lie pixel by pixel side by side in the copy.
    folded: usize,
    /// Whether windows reach into the padding, or rows are to be folded or parted: a copy is read.
    padded: bool,
    /// Where the copy is of planes.
    planes: Option<Planes>,
    /// Whether tiles go on from row to row of a padded copy.
    running_on: bool,
    /// Columns of a row as it is read: all, or those that a padded copy has.
    width: usize,
    /// Where in a window the inputs of each step begin.
    steps: Vec<usize>,
    /// `[panel, step, vector, 16]`, each row four inputs of 16 columns; after a step those of the vectors
    /// that it multiplies again.
    weights: Packed<Line<i8, ROW>>,
    panels: Vec<Panel>,
    /// Tiles of pixels that meet the same weights: two, or [`TILES`].
    tiles: usize,
    output_zero_point: u8,
    input_zero_point: u8,
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
    /// Whether, besides, no sum is, times its multiplier, beyond [`NEAR`].
    near: bool,
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
        let far = params.shape.weight_len() >= FAR_BYTES;
        let on_plane = on_plane(&shape).filter(|_| far && folded == 1);
        let planes = on_plane.map(|_| Planes {
            rows: shape.kernel_h.min(shape.stride_h),
            columns: shape.kernel_w.min(shape.stride_w),
            strides: (shape.stride_h, shape.stride_w),
        });
        let (kernel_h, kernel_w) = (shape.kernel_h, shape.kernel_w);
        let (padded, shape) = (padded || on_plane.is_some(), on_plane.unwrap_or(shape));
        let (height, reach_w) = reach(&shape, shape.out_h);
        let width = if padded { reach_w } else { shape.in_w };
        let (across, down) = planes.as_ref().map_or((1, 1), |planes| (planes.columns, planes.rows));
        let joined = if shape.dilation_w == 1 && across == 1 { kernel_w } else { 1 };
        let tap_len = joined * shape.in_c;
        let at = |y: usize, x: usize| {
            let plane = y % down * across + x % across;
            let (y, x) = (y / down * shape.dilation_h, x / across * shape.dilation_w);
            ((plane * height + y) * width + x) * shape.in_c
        };
        // Side by side, the taps of a row are one.
        let taps: Vec<usize> = (0..kernel_h)
            .flat_map(|y| (0..kernel_w).step_by(joined).map(move |x| (y, x)))
            .map(|(y, x)| at(y, x))
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
        let small = params.multipliers.iter().all(|&multiplier| multiplier < SMALL);
        let mut conv = AmxConv {
            shape,
            folded,
            padded,
            planes,
            running_on: padded && (on_plane.is_some() || runs_on(&shape, width)),
            width,
            steps: steps.iter().map(|(_, at)| *at).collect(),
            weights: Packed::Few(Vec::new()),
            panels: Vec::new(),
            tiles: 2,
            output_zero_point: params.output_zero_point,
            input_zero_point: params.input_zero_point,
            small,
            near: small,
        };
        if fit_i8
            && far
            && params.shape.taps() > 1
            && on_plane.is_none()
            && conv.tiles_of_picture() <= TILES
        {
            conv.tiles = TILES;
        }
        let columns_of_panel = conv.vectors() * COLUMNS;
        let len = taps.len() * tap_len;
        let tiles = shape.out_c.div_ceil(COLUMNS) * steps.len();
        let mut packed = Vec::with_capacity(tiles * ROWS);
        let mut rows = vec![0; columns_of_panel * len];
        let mut filter = vec![0; params.shape.taps() * params.shape.in_c];
        for first in (0..shape.out_c).step_by(columns_of_panel) {
            let columns = columns_of_panel.min(shape.out_c - first);
            for (out, row) in (first..first + columns).zip(rows.chunks_exact_mut(len)) {
                if folded == 1 {
                    params.weights_of(out, row);
                } else {
                    params.weights_of(out, &mut filter);
                    conv.fold(&filter, row);
                }
            }
            let mut panel = Panel {
                at: packed.len(),
                first,
                again: Vec::new(),
                channels: Channels {
                    columns,
                    bias: [Line([0; 16]); 2],
                    multipliers: [Line([0.0; 16]); 2],
                },
            };
            let slots = slots(columns);
            for &Slot { vector, slot, column } in &slots {
                panel.channels.bias[vector].0[slot] = bias[first + column];
                panel.channels.multipliers[vector].0[slot] = params.multipliers[first + column];
            }
            let rows = &mut rows[..columns * len];
            if conv.near {
                let channels = bias.iter().zip(params.multipliers).skip(first);
                conv.near = (rows.chunks_exact(len).zip(channels))
                    .all(|(row, (&bias, &multiplier))| is_near(row, bias, multiplier));
            }
            let weights = hold(rows);
            // What 8 bits did not hold.
            let mut left = Vec::new();
            while !fit_i8 && rows.iter().any(|&weight| weight != 0) {
                left.push(hold(rows));
            }
            for (step, (inputs, _)) in steps.iter().enumerate() {
                push_tiles(&mut packed, &weights, len, inputs, &slots);
                for weights in &left {
                    let mut tiles = Vec::new();
                    push_tiles(&mut tiles, weights, len, inputs, &slots);
                    for (vector, tile) in tiles.chunks_exact(ROWS).enumerate() {
                        if tile.iter().flat_map(|line| line.0).any(|weight| weight != 0) {
                            panel.again.push((step, vector));
                            packed.extend(tile);
                        }
                    }
                }
            }
            conv.panels.push(panel);
        }
        conv.weights = packed.into();
        conv
    }

    /// Vectors of a panel: a product has four tiles of sums.
    fn vectors(&self) -> usize {
        TILES / self.tiles
    }

    /// Tiles of pixels that a picture is cut into.
    fn tiles_of_picture(&self) -> usize {
        let ConvShape { out_h, out_w, .. } = self.shape;
        match self.running_on {
            true => (out_h * self.width).div_ceil(ROWS),
            false => out_h * out_w.div_ceil(ROWS),
        }
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

/// A copy of the input in planes of every so many rows and columns.
#[derive(Debug)]
struct Planes {
    /// How many planes there are, by which rows and by which columns.
    rows: usize,
    columns: usize,
    /// How far apart rows and columns of a plane are in the input.
    strides: (usize, usize),
}

/// The convolution on one of the planes of every so many rows and columns, as many as the strides: windows lie
/// side by side there, and tiles that go on from row to row are few.
fn on_plane(shape: &ConvShape) -> Option<ConvShape> {
    let on_plane = ConvShape {
        kernel_h: shape.kernel_h.div_ceil(shape.stride_h),
        kernel_w: shape.kernel_w.div_ceil(shape.stride_w),
        stride_h: 1,
        stride_w: 1,
        ..*shape
    };
    let (height, width) = reach(&on_plane, shape.out_h);
    let few = (height * width).div_ceil(ROWS) <= TILES;
    let strided = shape.stride_h > 1 && shape.stride_w > 1;
    let dense = (shape.dilation_h, shape.dilation_w) == (1, 1) && shape.in_c.is_multiple_of(ROW);
    (few && strided && dense).then_some(on_plane)
}

/// Whether a channel's sums times its multiplier are within [`NEAR`], whatever the codes.
fn is_near(weights: &[i16], bias: i32, multiplier: f32) -> bool {
    // As many of at most 255 as 32 bits hold.
    let sum = |weights: &[i16]| weights.iter().map(|&weight| i32::from(weight).abs()).sum::<i32>();
    let sum: f32 = weights.chunks(1 << 22).map(|weights| sum(weights) as f32).sum();
    (255.0 * sum + bias.unsigned_abs() as f32) * multiplier < NEAR
}

/// Takes what 8 bits hold of each weight, and leaves the rest there.
fn hold(weights: &mut [i16]) -> Vec<i8> {
    let held = |weight: &mut i16| {
        let held = (*weight).clamp(-128, 127);
        *weight -= held;
        held as i8
    };
    weights.iter_mut().map(held).collect()
}

/// Packs the weights of at most 64 `inputs`, of rows of `len`.
fn push_tiles(
    lines: &mut Vec<Line<i8, ROW>>,
    rows: &[i8],
    len: usize,
    inputs: &Range<usize>,
    slots: &[Slot],
) {
    let at = lines.len();
    lines.resize(at + slots.len().div_ceil(COLUMNS) * ROWS, Line([0; ROW]));
    for &Slot { vector, slot, column } in slots {
        let tile = lines[at + vector * ROWS..].iter_mut().map(|line| &mut line.0);
        put(&rows[column * len..][inputs.clone()], slot, tile);
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

/// Puts the pixels of two rows, of at most 32 bytes each, side by side.
///
/// # Safety
///
/// This CPU has AVX-512 with VBMI; the rows are of one length, whole pixels, and `to` is twice as long.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn interleave(one: &[u8], other: &[u8], pixel: usize, to: &mut [u8]) {
    // Whole pixels of each at once.
    let bytes = 32 / pixel * pixel;
    let mut index = [0; ROW];
    for (i, index) in index.iter_mut().enumerate() {
        let (nth, rest) = (i / (2 * pixel), i % (2 * pixel));
        let from = if rest < pixel { nth * pixel + rest } else { ROW + nth * pixel + rest - pixel };
        *index = from as u8;
    }
    for ((one, other), to) in
        one.chunks(bytes).zip(other.chunks(bytes)).zip(to.chunks_mut(2 * bytes))
    {
        let mask = (1u64 << one.len()) - 1;
        // SAFETY: by the caller; the masks are as long as the chunks, two of the rows one of `to`.
        unsafe {
            let index = _mm512_loadu_si512(index.as_ptr().cast());
            let one = _mm512_maskz_loadu_epi8(mask, one.as_ptr().cast());
            let other = _mm512_maskz_loadu_epi8(mask, other.as_ptr().cast());
            let both = _mm512_permutex2var_epi8(one, index, other);
            let mask = u64::MAX >> (ROW - to.len());
            _mm512_mask_storeu_epi8(to.as_mut_ptr().cast(), mask, both);
        }
    }
}

/// Tiles of pixels that meet the same weights: four, or two that meet twice as many channels.
#[derive(Clone, Debug)]
struct Group {
    /// The first byte of the first window of each.
    inputs: [*const u8; TILES],
    tiles: usize,
    /// The first pixel of the output, counted from that of the part, and how many.
    first: usize,
    pixels: usize,
    /// Which [`Tiling::places`] they have, if they do not lie side by side.
    places: Range<usize>,
}

/// Whether fewer tiles do if they go on from row to row of a padded copy of so many columns, as windows of
/// stride 1 do there: a tile takes the end of one row, what lies between and the beginning of the next.
fn runs_on(shape: &ConvShape, width: usize) -> bool {
    (shape.stride_h, shape.stride_w) == (1, 1)
        && (shape.out_h * width).div_ceil(ROWS) < shape.out_h * shape.out_w.div_ceil(ROWS)
}

/// An output cut into tiles.
#[derive(Default)]
struct Tiling {
    groups: Vec<Group>,
    /// Of each group an even number: of an odd one, the last comes twice.
    places: Vec<Place>,
    /// Pairs of pixels side by side, an even number of them, and an odd one, of which the first comes twice.
    side_by_side: [Vec<[Place; 2]>; 2],
    strides: Strides,
}

/// What lies between the sums of a row and those of the next, and between the codes of a pixel and those of the
/// next, in bytes.
#[derive(Clone, Copy, Default, PartialEq)]
struct Strides {
    sums: usize,
    codes: usize,
}

impl Strides {
    fn place(self, row: usize, pixel: usize) -> Place {
        Place { sums: row * self.sums, codes: pixel * self.codes }
    }
}

impl Tiling {
    fn set_strides(&mut self, strides: Strides) {
        if self.strides == strides {
            return;
        }
        self.strides = strides;
        let place = |i: usize| strides.place(i, i);
        for (odd, pairs) in self.side_by_side.iter_mut().enumerate() {
            pairs.clear();
            pairs.extend((0..TILES * ROWS / 2).map(|i| match odd {
                0 => [place(2 * i), place(2 * i + 1)],
                _ => [place((2 * i).saturating_sub(1)), place(2 * i)],
            }));
        }
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.places.clear();
    }

    /// Begins a tile that reads from `input` on, in groups of so many, and tells its first row.
    fn begin(&mut self, input: *const u8, tiles: usize, rows: usize) -> usize {
        if self.groups.last().is_none_or(|group| group.tiles == tiles) {
            self.even();
            let inputs = [input; TILES];
            self.groups.push(Group { inputs, tiles: 0, first: 0, pixels: 0, places: 0..0 });
        }
        let last = self.groups.len() - 1;
        let group = &mut self.groups[last];
        group.inputs[group.tiles] = input;
        group.tiles += 1;
        (group.tiles - 1) * rows
    }

    /// Says that from `row` on come so many pixels side by side, the first of them `pixel`.
    fn push(&mut self, row: usize, pixel: usize, pixels: usize) {
        let strides = self.strides;
        let Some(group) = self.groups.last_mut() else { return };
        if group.pixels == 0 {
            group.first = pixel;
        }
        if group.places.is_empty() {
            if (row, pixel) == (group.pixels, group.first + group.pixels) {
                group.pixels += pixels;
                return;
            }
            group.places = self.places.len()..0;
            self.places.extend((0..group.pixels).map(|i| strides.place(i, i)));
        }
        self.places.extend((0..pixels).map(|i| strides.place(row + i, pixel - group.first + i)));
        group.places.end = self.places.len();
        group.pixels += pixels;
    }

    /// Ends a group.
    fn even(&mut self) {
        if let (Some(group), Some(&place)) = (self.groups.last_mut(), self.places.last())
            && group.places.len() % 2 == 1
        {
            self.places.push(place);
            group.places.end += 1;
        }
    }

    /// The pixels of a group, counted from its first one, two by two.
    fn pairs(&self, group: &Group) -> &[[Place; 2]] {
        match group.places.is_empty() {
            true => &self.side_by_side[group.pixels % 2][..group.pixels.div_ceil(2)],
            false => self.places[group.places.clone()].as_chunks().0,
        }
    }
}

/// Memory that a thread reuses from call to call.
#[derive(Default)]
struct Memory {
    /// A copy of some input.
    copy: Aligned,
    tiling: Tiling,
    /// Sums of two groups of tiles, `[group, tile * row, vector]`.
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
        let adding = Adding::default();
        // SAFETY: `ConvU8::with_kernel` made sure of the instruction set; the caller answers for the rest.
        unsafe {
            match (self.small, self.near) {
                (true, true) => {
                    self.run_part::<true, true, false>(input, part, output, stride, adding);
                }
                (true, false) => {
                    self.run_part::<true, false, false>(input, part, output, stride, adding);
                }
                _ => self.run_part::<false, false, false>(input, part, output, stride, adding),
            }
        }
    }

    fn adds(&self) -> bool {
        // Fewer products than that, and an addition of its own in the cache takes less time than one that the
        // tiles wait for. A panel of one vector has its channels in another order.
        self.steps.len() >= 4 && self.panels.last().is_some_and(|panel| panel.vectors() == 2)
    }

    unsafe fn run_adding(
        &self,
        input: &[u8],
        part: Part,
        output: *mut u8,
        stride: usize,
        other: Other,
    ) {
        let adding = Adding {
            constants: *other.kernel.constants(),
            distance: other.codes as isize - output as isize,
            product_first: other.product_first,
        };
        // SAFETY: as for `run`; the caller answers for the other codes.
        unsafe {
            match adding.constants.are_small() {
                true => self.run_part::<true, false, true>(input, part, output, stride, adding),
                false => self.run_part::<false, false, true>(input, part, output, stride, adding),
            }
        }
    }

    fn channel_step(&self) -> Option<usize> {
        Some(self.vectors() * COLUMNS)
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
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    unsafe fn run_part<const SMALL: bool, const NEAR: bool, const ADD: bool>(
        &self,
        input: &[u8],
        Part { pixels, channels }: Part,
        output: *mut u8,
        stride: usize,
        adding: Adding,
    ) {
        let shape = &self.shape;
        let columns = self.vectors() * COLUMNS;
        let panels = &self.panels[channels.start / columns..channels.end.div_ceil(columns)];
        // Tiles of equal height, in groups.
        let widest = match self.running_on {
            true => shape.out_h * self.width,
            false => shape.out_w.min(pixels.len()),
        };
        let rows = match widest.div_ceil(ROWS) {
            tiles @ 2.. if shape.out_h == 1 || self.running_on => {
                widest.div_ceil(tiles.next_multiple_of(self.tiles))
            }
            tiles => widest.div_ceil(tiles),
        };
        let pixel_bytes = shape.in_c * shape.stride_w;
        // Whole rows, or a part of one.
        let block = BLOCK_BYTES / (pixel_bytes * shape.stride_h);
        let block = match shape.is_pointwise() {
            true => block.min(BLOCK_CODES / channels.len()),
            false => block,
        };
        let block = match block >= shape.out_w {
            true => block / shape.out_w * shape.out_w,
            false => block.max(1).next_multiple_of(self.tiles * rows),
        };
        // SAFETY: by the caller, there is AMX.
        unsafe { configure(rows, if self.tiles == TILES { 7 } else { 6 }) };
        MEMORY.with_borrow_mut(|memory| {
            memory.sums.resize(2 * TILES * ROWS, Line([0; 16]));
            memory.tiling.set_strides(Strides { sums: self.vectors() * ROW, codes: stride });
            let sums = [0, TILES * ROWS].map(|at| memory.sums[at..].as_mut_ptr());
            let four = self.tiles == TILES;
            let shared = match four {
                true => false,
                // SAFETY: there is AMX, tiles are configured for two of channels, and sums are 128 lines.
                false => unsafe { memory.shared(sums[0]) },
            };
            // Those of the last group, and where the next go.
            let [mut last, mut next] = sums;
            let mut first = pixels.start;
            while first < pixels.end {
                let picture = shape.out_h * shape.out_w;
                let end = (first + block).min(pixels.end).min((first / picture + 1) * picture);
                self.place(input, first..end, rows, pixels.start, memory);
                memory.tiling.even();
                let zero_point = self.output_zero_point;
                let mut waiting = Waiting::<SMALL, NEAR, ADD>::none(zero_point, adding);
                let groups = &memory.tiling.groups;
                // Of one step, the pixels stay in their tiles while they meet all panels.
                let keep = self.steps.len() == 1 && !four;
                // So they do, in the first-level cache, where all weights are in it as well.
                let by_group = keep || self.weights.len() * ROW <= NEAR_BYTES;
                let (outer, inner) = match by_group {
                    true => (groups.len(), panels.len()),
                    false => (panels.len(), groups.len()),
                };
                for outer in 0..outer {
                    for inner in 0..inner {
                        let (i, nth) = if by_group { (inner, outer) } else { (outer, inner) };
                        let (panel, group) = (&panels[i], &groups[nth]);
                        // The first groups fetch a quarter each of the next panel's weights.
                        let (ahead, ahead_step) = match panels.get(i + 1) {
                            Some(next) if nth < 4 => (next.at + nth * 8, 2 * ROWS),
                            _ => (0, 0),
                        };
                        let ahead = self.weights.as_ptr().wrapping_add(ahead);
                        let kept = keep && inner > 0;
                        (last, next) = (next, last);
                        // SAFETY: `place` leads to what the tiles read; the caller answers for the
                        // output.
                        unsafe {
                            self.multiply(
                                panel,
                                kept,
                                shared,
                                group,
                                ahead,
                                ahead_step,
                                rows,
                                [next, last],
                                &waiting,
                            );
                        }
                        let pairs = memory.tiling.pairs(group);
                        let output = output
                            .wrapping_add(group.first * stride + panel.first - channels.start);
                        waiting = waiting.of(pairs, &panel.channels, last, output);
                    }
                }
                // SAFETY: as above.
                unsafe {
                    self.store_sums::<2>(last, rows);
                    self.store_sums::<3>(last, rows);
                    waiting.store(waiting.pairs);
                }
                first = end;
            }
        });
        // SAFETY: by the caller, there is AMX.
        unsafe { release() };
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
        let reads = (rows - 1) * pixel_bytes + self.steps.iter().max().unwrap_or(&0) + ROW;
        let image = &input[picture * shape.in_h * shape.in_w * in_c / self.folded..];
        // Byte `at` of the picture is read at `base + at`.
        let mut base = image.as_ptr();
        if let Some(planes) = &self.planes {
            base = self.copy_planes(planes, image, reads, &mut memory.copy);
        } else if self.padded {
            let row = self.width * in_c;
            let copy = memory.copy.aligned(reach(shape, bottom - top).0 * row + reads);
            base = copy.as_ptr().wrapping_sub(top * shape.stride_h * row);
            let left = shape.pad_left.min(self.width);
            let columns = (self.width - left).min(shape.in_w);
            let pixel = in_c / self.folded;
            let first = top * shape.stride_h * self.folded;
            for (y, to) in (first..).step_by(self.folded).zip(copy.chunks_exact_mut(row)) {
                let input = |nth: usize| {
                    let y = (y + nth).wrapping_sub(shape.pad_top);
                    (y < shape.in_h).then(|| &image[y * shape.in_w * pixel..][..columns * pixel])
                };
                let (before, to) = to.split_at_mut(left * in_c);
                let (to, behind) = to.split_at_mut(columns * in_c);
                before.fill(self.input_zero_point);
                behind.fill(self.input_zero_point);
                // One of folded rows may be missing, and two are faster put side by side in a row that is in
                // the cache.
                if self.folded > 1 {
                    to.fill(self.input_zero_point);
                }
                match (self.folded, input(0), input(1)) {
                    (1, None, _) => to.fill(self.input_zero_point),
                    (1, Some(from), _) => to.copy_from_slice(from),
                    // SAFETY: where there is AMX, there is the rest; the lengths are those of as many pixels.
                    (2, Some(one), Some(other)) => unsafe { interleave(one, other, pixel, to) },
                    _ => {
                        for nth in 0..self.folded {
                            if let Some(from) = input(nth) {
                                spread(from, pixel, &mut to[nth * pixel..], in_c);
                            }
                        }
                    }
                }
            }
        }
        let tiling = &mut memory.tiling;
        tiling.clear();
        let start_of = |y: usize| (picture * shape.out_h + y) * out_w;
        if self.running_on {
            let column = |pixel: usize, y: usize| y * self.width + pixel - start_of(y);
            let end = column(pixels.end - 1, bottom - 1) + 1;
            for first in (column(pixels.start, top)..end).step_by(rows) {
                let end = end.min(first + rows);
                let input = base.wrapping_add(first * in_c);
                let row = tiling.begin(input, self.tiles, rows);
                for y in first / self.width..=(end - 1) / self.width {
                    let start = y * self.width;
                    let columns = first.max(start)..end.min(start + out_w);
                    if !columns.is_empty() {
                        let pixel = start_of(y) + columns.start - start - part;
                        tiling.push(row + columns.start - first, pixel, columns.len());
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
                let row = tiling.begin(base.wrapping_add(at), self.tiles, rows);
                let pixels = rows.min(end - first);
                tiling.push(row, first - part, pixels);
                first += pixels;
                at += pixels * pixel_bytes;
            }
        }
    }

    /// Copies a picture into planes, and leads to the first of them.
    fn copy_planes(
        &self,
        planes: &Planes,
        image: &[u8],
        reads: usize,
        copy: &mut Aligned,
    ) -> *const u8 {
        let shape = &self.shape;
        let in_c = shape.in_c;
        let (height, width) = reach(shape, shape.out_h);
        let copy = copy.aligned(planes.rows * planes.columns * height * width * in_c + reads);
        let mut pixels = copy.chunks_exact_mut(in_c);
        let both = |rows: usize, columns: usize| {
            (0..rows).flat_map(move |y| (0..columns).map(move |x| (y, x)))
        };
        for (row, column) in both(planes.rows, planes.columns) {
            for (y, x) in both(height, width) {
                let Some(to) = pixels.next() else { break };
                let y = (y * planes.strides.0 + row).wrapping_sub(shape.pad_top);
                let x = (x * planes.strides.1 + column).wrapping_sub(shape.pad_left);
                match y < shape.in_h && x < shape.in_w {
                    true => to.copy_from_slice(&image[(y * shape.in_w + x) * in_c..][..in_c]),
                    false => to.fill(self.input_zero_point),
                }
            }
        }
        copy.as_ptr()
    }

    /// Multiplies a group of tiles by a panel, and between the steps of that stores codes of the group before:
    /// the units that do the one and the other then work at the same time. A tile is stored while others are
    /// multiplied, so half of the sums before leave, to `before`, when this group has begun, and half of these
    /// are left to the next.
    ///
    /// # Safety
    ///
    /// As for [`AmxConv::run_part`]; tiles are configured, of `rows`. All that they read of the input can be
    /// read, and as many vectors of each row as a panel has be written to `sums` and `before`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
    #[inline]
    unsafe fn multiply<const SMALL: bool, const NEAR: bool, const ADD: bool>(
        &self,
        panel: &Panel,
        kept: bool,
        shared: bool,
        group: &Group,
        mut ahead: *const Line<i8, ROW>,
        ahead_step: usize,
        rows: usize,
        [before, sums]: [*mut Line<i32, 16>; 2],
        waiting: &Waiting<SMALL, NEAR, ADD>,
    ) {
        let pixel_bytes = self.shape.in_c * self.shape.stride_w;
        let vectors = panel.vectors();
        let four = self.tiles == TILES;
        // As many codes after each step and each tile that leaves. After the first tile only those whose sums
        // have all left.
        let pairs = waiting.pairs;
        let now = pairs.len().div_ceil(self.steps.len() + 3);
        let early = pairs.get(..now).is_some_and(|pairs| {
            pairs.last().is_some_and(|[_, last]| last.sums < rows * self.vectors() * ROW)
        });
        let now = if early { now } else { pairs.len().div_ceil(self.steps.len() + 2) };
        let mut left = pairs;
        // Some of the codes.
        macro_rules! store {
            () => {
                let (some, rest) = left.split_at(now.min(left.len()));
                waiting.store(some);
                left = rest;
            };
        }
        let mut again = panel.again.as_slice();
        let mut weights = self.weights.as_ptr().wrapping_add(panel.at);
        // SAFETY: by the caller; `weights` holds the panel's steps.
        unsafe {
            clear_sums::<0, 1>();
            for (step, &at) in self.steps.iter().enumerate() {
                let inputs = group.inputs.map(|input| input.wrapping_add(at));
                // In halves, so that tiles leave in between.
                match vectors {
                    _ if four || vectors == 1 || shared && step > 0 => {}
                    _ if kept => multiply_kept(weights),
                    _ => multiply_first(inputs[0], pixel_bytes, weights, ahead),
                }
                if step == 0 {
                    self.store_sums::<2>(before, rows);
                    if early {
                        store!();
                    }
                    self.store_sums::<3>(before, rows);
                    store!();
                    clear_sums::<2, 3>();
                }
                let two = [inputs[0], inputs[1]];
                match vectors {
                    _ if four => multiply_four(inputs, pixel_bytes, weights),
                    1 => multiply_one(two, pixel_bytes, weights),
                    _ if shared && step > 0 => multiply_shared(two, pixel_bytes, weights, ahead),
                    _ if kept => multiply_kept_second(),
                    _ => multiply_second(inputs[1], pixel_bytes, ahead),
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
                store!();
            }
            self.store_sums::<0>(sums, rows);
            store!();
            debug_assert!(left.is_empty());
            self.store_sums::<1>(sums, rows);
        }
    }

    /// Stores the sums of a tile of a group, of `rows`: a tile has a row after the other, or every other one,
    /// and where there are at most 16 channels, half of the tiles have none.
    ///
    /// # Safety
    ///
    /// Tiles are configured, and a group's sums can be written.
    #[inline]
    unsafe fn store_sums<const TILE: u8>(&self, sums: *mut Line<i32, 16>, rows: usize) {
        let (tile, pitch) = (usize::from(TILE), self.vectors());
        let at = if pitch == 2 { tile / 2 * 2 * rows + tile % 2 } else { tile * rows };
        if pitch == 2 && tile % 2 == 1 && self.shape.out_c <= COLUMNS {
            return;
        }
        // SAFETY: by the caller.
        unsafe { store_tile::<TILE>(sums.wrapping_add(at), pitch) };
    }
}
