//! The 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3), in exact integers: a quarter of the
//! multiplications of the direct sum.
//!
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308): a tile of
//! 4x4 outputs is `A^T [(G g G^T) * (B^T d B)] A`, of a 3x3 filter `g` and 6x6 inputs `d`. The usual
//! `G` has fractions. Here its rows are multiplied by [`FILTER_SCALES`], and [`OUTPUT_SCALES`] makes
//! up for the rest, so that all numbers are whole and the result is 24 * 24 = 576 times the sum.
//!
//! Why it is exact. Inputs of 0..=255 become at most 2040 in size by one pass of `B^T` and lie
//! within -12,750..=17,340 after both: they fit 16 bits. Filters within -128..=127 become at most
//! 12 * 12 * 128 = 18,432, and fit too. Products are added modulo 2^32, as is all that follows;
//! multiplying by the inverse of 9 modulo 2^32 leaves 64 times the sum modulo 2^32, and an arithmetic
//! shift the sum itself, as long as it lies within -2^25..2^25: [`WinogradConv::is_exact`] makes sure
//! that no input can lead to another.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::ConvShape;
use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::ints::Ints;
use crate::requantize::SMALL;
use crate::vector_f32::{Work, prefetch};

/// Sides of a tile of outputs and of inputs.
const OUT: usize = 4;
const IN: usize = 6;
/// Elements of a transformed tile.
const POINTS: usize = IN * IN;
/// Tiles that go through all steps together.
const BLOCK: usize = 18;
/// Tiles of one product, by the vectors of a panel.
const ROWS: usize = 6;

/// What the rows of `G` = [1/4 0 0; -1/6 -1/6 -1/6; -1/6 1/6 -1/6; 1/24 1/12 1/6; 1/24 -1/12 1/6;
/// 0 0 1] are multiplied by to give these.
const FILTER_SCALES: [i16; IN] = [24, 24, 24, 24, 24, 12];
const FILTER: [[i16; 3]; IN] =
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 12]];
/// What the points still lack of a factor of 24.
const OUTPUT_SCALES: [i16; IN] = [1, 1, 1, 1, 1, 2];
/// 9 * this is 1 modulo 2^32.
const INVERSE_OF_9: i32 = 954_437_177;

const _: () = {
    assert!(INVERSE_OF_9.wrapping_mul(9) == 1);
    let mut i = 0;
    while i < IN {
        assert!(FILTER_SCALES[i] * OUTPUT_SCALES[i] == 24);
        i += 1;
    }
};

/// Memory in whole vectors of 64 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through pointers")] [u8; 64]);

fn lines(bytes: usize) -> Vec<Line> {
    vec![Line([0; 64]); bytes.div_ceil(64)]
}

thread_local! {
    /// Transformed inputs, and products; reused from call to call.
    static SCRATCH: RefCell<(Vec<Line>, Vec<Line>)> = RefCell::default();
}

/// A packed convolution.
#[derive(Debug)]
pub(crate) struct WinogradConv<V> {
    shape: ConvShape,
    /// Transformed filters, 16 bits: `[panel, point, in_c / 2, VECTORS]` of pairs of each lane, as
    /// [`Ints::place`] orders them.
    filters: Vec<Line>,
    /// By panel, in the order of its vectors.
    bias: Vec<i32>,
    multipliers: Vec<f32>,
    small: bool,
    /// One pixel of padding.
    padding: Vec<u8>,
    output_zero_point: u8,
    vectors: PhantomData<V>,
}

/// Whether it is a convolution that these kernels compute, and exactly, whatever the input.
pub(crate) fn is_exact(params: &ConvU8Params) -> bool {
    let s = &params.shape;
    let fits = (s.kernel_h, s.kernel_w, s.stride_h, s.stride_w) == (3, 3, 1, 1)
        && (s.dilation_h, s.dilation_w, s.groups) == (1, 1, 1)
        && s.in_c.is_multiple_of(16)
        && s.weight_len() > 0
        && params.weights_fit_i8();
    if !fits {
        return false;
    }
    let mut row = vec![0; s.taps() * s.in_c];
    (0..s.out_c).all(|out| {
        params.weights_of(out, &mut row);
        let positive: i64 = row.iter().map(|&w| i64::from(w.max(0))).sum();
        let negative: i64 = row.iter().map(|&w| i64::from(w.min(0))).sum();
        255 * positive < 1 << 25 && 255 * negative >= -(1 << 25)
    })
}

/// With fewer tiles, which share each filter, only a quarter of the bytes pay.
const FEW_TILES: usize = 8;

/// Whether it was measured to be faster than the direct sum, which depends on what the instruction
/// set offers for that: how much larger the tiles may be than the output, how many channels there
/// must be on either side, and how many bytes of transformed filters, eight times the weights, the
/// caches are trusted with.
fn is_faster(
    shape: &ConvShape,
    most_waste: f32,
    fewest_channels: usize,
    most_bytes: usize,
) -> bool {
    let tiles = shape.batch * shape.out_h.div_ceil(OUT) * shape.out_w.div_ceil(OUT);
    let waste = (tiles * OUT * OUT) as f32 / shape.pixels() as f32;
    let bytes = POINTS * shape.in_c * shape.out_c * 2;
    waste <= most_waste
        && shape.in_c.min(shape.out_c) >= fewest_channels
        && bytes <= if tiles < FEW_TILES { most_bytes / 4 } else { most_bytes }
}

/// Beside AVX2's two to three instructions for 32 products of 8-bit numbers: nearly always.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_faster_than_avx2(shape: &ConvShape) -> bool {
    is_faster(shape, 2.0, 16, 5 << 20)
}

/// Beside direct sums by 16-bit products, or of pairs in 16 bits: by the instructions that both take,
/// half of them or less where no tile is wasted.
pub(crate) fn is_faster_than_words(shape: &ConvShape) -> bool {
    is_faster(shape, 1.5, 16, 5 << 20)
}

/// Beside `vpdpbusd`, twice as fast as `vpdpwssd`: where little of the tiles is wasted and many
/// channels share each transform.
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_faster_than_vnni(shape: &ConvShape) -> bool {
    is_faster(shape, 1.35, 48, 5 << 18)
}

impl<V: Ints> WinogradConv<V> {
    const PANEL: usize = V::VECTORS * V::LANES;
    /// Cache lines that the filters of a pair of channels take.
    const LINES: usize = (Self::PANEL * 4).div_ceil(64);

    /// [`is_exact`] holds.
    pub(crate) fn new(params: &ConvU8Params) -> Self {
        let shape = params.shape;
        let panels = shape.out_c.div_ceil(Self::PANEL);
        let folded = params.folded_bias();
        let mut conv = WinogradConv {
            shape,
            filters: lines(panels * POINTS * shape.in_c * Self::PANEL * 2),
            bias: vec![0; panels * Self::PANEL],
            multipliers: vec![0.0; panels * Self::PANEL],
            small: params.multipliers.iter().all(|&m| m < SMALL),
            padding: vec![params.input_zero_point; shape.in_c],
            output_zero_point: params.output_zero_point,
            vectors: PhantomData,
        };
        let mut rows = vec![0; Self::PANEL * 9 * shape.in_c];
        for panel in 0..panels {
            let first = panel * Self::PANEL;
            let columns = (shape.out_c - first).min(Self::PANEL);
            rows[columns * 9 * shape.in_c..].fill(0);
            for (out, row) in (first..first + columns).zip(rows.chunks_exact_mut(9 * shape.in_c)) {
                params.weights_of(out, row);
            }
            for vector in 0..V::VECTORS {
                let columns_of = |lane: usize| V::column(vector, lane);
                for lane in (0..V::LANES).filter(|&lane| columns_of(lane) < columns) {
                    let slot = first + vector * V::LANES + lane;
                    conv.bias[slot] = folded[first + columns_of(lane)];
                    conv.multipliers[slot] = params.multipliers[first + columns_of(lane)];
                }
                conv.pack_filters(panel, vector, &rows);
            }
        }
        conv
    }

    /// Transforms the filters of one vector of a panel, whose weights are `[PANEL, 9, in_c]`.
    fn pack_filters(&mut self, panel: usize, vector: usize, rows: &[i16]) {
        let in_c = self.shape.in_c;
        let filters: *mut i16 = self.filters.as_mut_ptr().cast();
        for pair in 0..in_c / 2 {
            let [even, odd] = [0, 1].map(|odd| {
                transform_filters(std::array::from_fn(|tap| {
                    let at = tap * in_c + pair * 2 + odd;
                    let weight = |lane: usize| rows[V::column(vector, lane) * 9 * in_c + at];
                    std::array::from_fn(|lane| if lane < V::LANES { weight(lane) } else { 0 })
                }))
            });
            for (point, (even, odd)) in even.iter().zip(&odd).enumerate() {
                let at = (panel * POINTS + point) * (in_c / 2) + pair;
                let at = (at * Self::PANEL + vector * V::LANES) * 2;
                for lane in 0..V::LANES {
                    // SAFETY: the indices are below the sizes that `filters` was made of.
                    unsafe {
                        filters.add(at + V::place(lane, 0)).write(even[lane]);
                        filters.add(at + V::place(lane, 1)).write(odd[lane]);
                    }
                }
            }
        }
    }

    /// Computes all channels of `channels` for `count` tiles from the `first` of a row-major list,
    /// and stores what lies within `pixels`.
    ///
    /// # Safety
    ///
    /// As for [`PackedConv::run`]; this CPU has the vectors; the scratch memory is large enough.
    #[inline(always)]
    unsafe fn block(
        &self,
        input: &[u8],
        tiles: Range<usize>,
        part: &Part,
        (transformed, products): (*mut i16, *mut V),
        output: *mut u8,
        stride: usize,
    ) {
        let s = &self.shape;
        // SAFETY: by the caller; each step within the sizes of its memory.
        unsafe {
            for (i, tile) in tiles.clone().enumerate() {
                self.transform_input(input, tile, transformed.add(i * POINTS * s.in_c));
            }
            let panels = part.channels.start / Self::PANEL..part.channels.end.div_ceil(Self::PANEL);
            for panel in panels {
                for point in 0..POINTS {
                    let at = (panel * POINTS + point) * (s.in_c / 2) * V::VECTORS;
                    let filters = self.filters.as_ptr().cast::<V>().add(at);
                    let inputs = transformed.add(point * s.in_c).cast_const();
                    let products = products.add(point * V::VECTORS);
                    // Each of these fetches its share of the next point's filters.
                    let groups = tiles.len().div_ceil(ROWS);
                    for group in 0..groups {
                        let cut = |i: usize, of: usize| of * i / groups;
                        let first = cut(group, tiles.len());
                        let inputs = inputs.add(first * POINTS * s.in_c);
                        let products = products.add(first * POINTS * V::VECTORS);
                        let ahead = cut(group, Self::LINES)..cut(group + 1, Self::LINES);
                        let all = (inputs, filters, products, ahead);
                        match (cut(group + 1, tiles.len()) - first, V::VECTORS) {
                            (1, 2) => self.multiply::<1, 2>(all),
                            (2, 2) => self.multiply::<2, 2>(all),
                            (3, 2) => self.multiply::<3, 2>(all),
                            (4, 2) => self.multiply::<4, 2>(all),
                            (5, 2) => self.multiply::<5, 2>(all),
                            (_, 2) => self.multiply::<6, 2>(all),
                            (1, _) => self.multiply::<1, 4>(all),
                            (2, _) => self.multiply::<2, 4>(all),
                            (3, _) => self.multiply::<3, 4>(all),
                            (4, _) => self.multiply::<4, 4>(all),
                            (5, _) => self.multiply::<5, 4>(all),
                            _ => self.multiply::<6, 4>(all),
                        }
                    }
                }
                for (i, tile) in tiles.clone().enumerate() {
                    let products = products.add(i * POINTS * V::VECTORS);
                    self.transform_output(products, tile, panel, part, output, stride);
                }
            }
        }
    }

    /// Picture, row and column of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (high, wide) = (self.shape.out_h.div_ceil(OUT), self.shape.out_w.div_ceil(OUT));
        (tile / wide / high, tile / wide % high, tile % wide)
    }

    /// `B^T d B` of one tile: `[point, in_c]`.
    ///
    /// # Safety
    ///
    /// This CPU has the vectors; `to` can be written for `POINTS * in_c` numbers and 16 more.
    #[expect(clippy::needless_range_loop, reason = "the indices are the geometry")]
    #[inline(always)]
    unsafe fn transform_input(&self, input: &[u8], tile: usize, to: *mut i16) {
        let s = &self.shape;
        let (image, tile_y, tile_x) = self.place(tile);
        let mut pixels = [[self.padding.as_ptr(); IN]; IN];
        for (i, row) in pixels.iter_mut().enumerate() {
            let y = (tile_y * OUT + i).wrapping_sub(s.pad_top);
            if y >= s.in_h {
                continue;
            }
            let first = &input[(image * s.in_h + y) * s.in_w * s.in_c..][..s.in_w * s.in_c];
            for (j, pixel) in row.iter_mut().enumerate() {
                let x = (tile_x * OUT + j).wrapping_sub(s.pad_left);
                if x < s.in_w {
                    *pixel = first.as_ptr().wrapping_add(x * s.in_c);
                }
            }
        }
        // Where 16 channels are left, half a vector is written beyond them; what that spoils is
        // written after it: the next point, or the other channels.
        let chunk = 2 * V::LANES;
        for c in (0..s.in_c).step_by(chunk).rev() {
            // SAFETY: `in_c` is a multiple of 16, and a chunk is no longer than what is left; the
            // caller answers for the rest.
            unsafe {
                let mut columns = MaybeUninit::<[[V; IN]; IN]>::uninit();
                let columns: *mut V = columns.as_mut_ptr().cast();
                for j in 0..IN {
                    let load = |i: usize| V::load_codes(pixels[i][j].add(c), s.in_c - c);
                    let column = input_pass(std::array::from_fn(load));
                    columns.add(j * IN).cast::<[V; IN]>().write(column);
                }
                for i in 0..IN {
                    let row = std::array::from_fn(|j| columns.add(j * IN + i).read());
                    for (j, value) in input_pass(row).into_iter().enumerate() {
                        let at = to.add((i * IN + j) * s.in_c + c);
                        at.cast::<V>().write_unaligned(value);
                    }
                }
            }
        }
    }

    /// The products of `R` tiles at one point: `[tile, POINTS, N]`, of which those of one point.
    ///
    /// # Safety
    ///
    /// This CPU has the vectors, `N` of them to a panel; tiles lie `POINTS` points apart in `inputs`
    /// and in `products`.
    #[inline(always)]
    unsafe fn multiply<const R: usize, const N: usize>(
        &self,
        (inputs, filters, products, ahead): (*const i16, *const V, *mut V, Range<usize>),
    ) {
        let in_c = self.shape.in_c;
        let next = filters.wrapping_add(in_c / 2 * N);
        // SAFETY: by the caller.
        unsafe {
            let mut sums = [[V::zero(); N]; R];
            for pair in 0..in_c / 2 {
                let filter: [V; N] = std::array::from_fn(|v| filters.add(pair * N + v).read());
                for line in ahead.clone() {
                    prefetch(next.wrapping_add(pair * N).cast::<Line>().wrapping_add(line));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let input = V::pair(inputs.add(r * POINTS * in_c + pair * 2));
                    for (sum, &filter) in sums.iter_mut().zip(&filter) {
                        *sum = sum.multiply_add(input, filter);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    products.add(r * POINTS * N + v).write(sum);
                }
            }
        }
    }

    /// `A^T m A` of one tile and panel, less its factor of 576, requantized and stored.
    ///
    /// # Safety
    ///
    /// This CPU has the vectors; `products` holds `[POINTS, VECTORS]`; the part can be written.
    #[inline(always)]
    unsafe fn transform_output(
        &self,
        products: *const V,
        tile: usize,
        panel: usize,
        part: &Part,
        output: *mut u8,
        stride: usize,
    ) {
        let s = &self.shape;
        let (image, tile_y, tile_x) = self.place(tile);
        // SAFETY: by the caller; a panel has `VECTORS` vectors of biases and multipliers.
        unsafe {
            // `[OUT, OUT, 4]`, of which the first `VECTORS` are used. Zeros would be stored one by one.
            let mut sums = MaybeUninit::<[[[V; 4]; OUT]; OUT]>::uninit();
            let inverse = V::splat32(INVERSE_OF_9);
            for v in 0..V::VECTORS {
                let bias = self.bias.as_ptr().add(panel * Self::PANEL + v * V::LANES);
                let bias = bias.cast::<V>().read_unaligned();
                let mut columns = MaybeUninit::<[[V; OUT]; IN]>::uninit();
                let columns: *mut V = columns.as_mut_ptr().cast();
                for j in 0..IN {
                    let load = |i: usize| products.add((i * IN + j) * V::VECTORS + v).read();
                    let column = output_pass(std::array::from_fn(load));
                    columns.add(j * OUT).cast::<[V; OUT]>().write(column);
                }
                for i in 0..OUT {
                    let row = std::array::from_fn(|j| columns.add(j * OUT + i).read());
                    for (j, value) in output_pass(row).into_iter().enumerate() {
                        let sum = value.multiply32(inverse).shift_right6();
                        let at = sums.as_mut_ptr().cast::<V>().add((i * OUT + j) * 4 + v);
                        at.write(sum.add32(bias));
                    }
                }
            }
            let first_channel = panel * Self::PANEL;
            let columns = (s.out_c - first_channel).min(Self::PANEL);
            let multipliers = self.multipliers.as_ptr().add(first_channel);
            for i in 0..OUT {
                for j in 0..OUT {
                    let (y, x) = (tile_y * OUT + i, tile_x * OUT + j);
                    let pixel = (image * s.out_h + y) * s.out_w + x;
                    if y < s.out_h && x < s.out_w && part.pixels.contains(&pixel) {
                        let at = (pixel - part.pixels.start) * stride + first_channel;
                        let to = output.add(at - part.channels.start);
                        let zero_point = self.output_zero_point;
                        V::store_codes(
                            sums.as_ptr().cast::<V>().add((i * OUT + j) * 4),
                            multipliers,
                            zero_point,
                            to,
                            columns,
                            self.small,
                        );
                    }
                }
            }
        }
    }
}

/// `G g G^T` of 16 filters, with the rows of `G` scaled.
fn transform_filters(filters: [[i16; 16]; 9]) -> [[i16; 16]; POINTS] {
    let dot = |row: &[i16; 3], of: [&[i16; 16]; 3]| -> [i16; 16] {
        std::array::from_fn(|i| row[0] * of[0][i] + row[1] * of[1][i] + row[2] * of[2][i])
    };
    let half = FILTER
        .map(|row| [0, 1, 2].map(|x| dot(&row, [&filters[x], &filters[3 + x], &filters[6 + x]])));
    std::array::from_fn(|at| {
        let [a, b, c] = &half[at / IN];
        dot(&FILTER[at % IN], [a, b, c])
    })
}

/// One pass of `B^T`, in 16 bits.
#[inline(always)]
unsafe fn input_pass<V: Ints>([d0, d1, d2, d3, d4, d5]: [V; IN]) -> [V; IN] {
    // SAFETY: by the caller.
    unsafe {
        let a = d4.sub16(d2.times4_16());
        let b = d3.sub16(d1.times4_16());
        let c = d4.sub16(d2);
        let f = d3.sub16(d1);
        let e = f.add16(f);
        [
            d0.sub16(d2).times4_16().add16(c),
            a.add16(b),
            a.sub16(b),
            c.add16(e),
            c.sub16(e),
            d5.sub16(d3).sub16(e.add16(e)),
        ]
    }
}

/// One pass of `A^T`, with its columns scaled.
#[inline(always)]
unsafe fn output_pass<V: Ints>([m0, m1, m2, m3, m4, m5]: [V; IN]) -> [V; OUT] {
    // SAFETY: by the caller.
    unsafe {
        let (s, d) = (m1.add32(m2), m1.sub32(m2));
        let (p, q) = (m3.add32(m4), m3.sub32(m4));
        [
            m0.add32(s).add32(p),
            d.add32(q.add32(q)),
            s.add32(p.times4_32()),
            d.add32(q.times8_32()).add32(m5.add32(m5)),
        ]
    }
}

/// Some tiles of a convolution.
struct Tiles<'a, V> {
    conv: &'a WinogradConv<V>,
    input: &'a [u8],
    tiles: Range<usize>,
    part: &'a Part,
    scratch: (*mut i16, *mut V),
    output: *mut u8,
    stride: usize,
}

impl<V: Ints> Work for Tiles<'_, V> {
    #[inline(always)]
    unsafe fn run(self) {
        let Tiles { conv, input, tiles, part, scratch, output, stride } = self;
        let blocks = tiles.len().div_ceil(BLOCK);
        for i in 0..blocks {
            let cut = |i: usize| tiles.start + tiles.len() * i / blocks;
            // SAFETY: by the caller.
            unsafe { conv.block(input, cut(i)..cut(i + 1), part, scratch, output, stride) }
        }
    }
}

impl<V: Ints + std::fmt::Debug> PackedConv for WinogradConv<V> {
    unsafe fn run(&self, input: &[u8], part: Part, output: *mut u8, stride: usize) {
        let s = &self.shape;
        let (high, wide) = (s.out_h.div_ceil(OUT), s.out_w.div_ceil(OUT));
        // All tiles of the rows of tiles that the part's pixels touch.
        let row_of = |pixel: usize| {
            let row = pixel / s.out_w;
            row / s.out_h * high + row % s.out_h / OUT
        };
        let tiles = row_of(part.pixels.start) * wide..(row_of(part.pixels.end - 1) + 1) * wide;
        SCRATCH.with_borrow_mut(|(transformed, products)| {
            let sizes = [BLOCK * POINTS * s.in_c * 2 + 64, BLOCK * POINTS * Self::PANEL * 4];
            for (memory, size) in [&mut *transformed, &mut *products].into_iter().zip(sizes) {
                if memory.len() * 64 < size {
                    *memory = lines(size);
                }
            }
            let scratch = (transformed.as_mut_ptr().cast(), products.as_mut_ptr().cast());
            let work = Tiles { conv: self, input, tiles, part: &part, scratch, output, stride };
            // SAFETY: `ConvU8::with_kernel` made sure of the instruction set; the memory is that of
            // `BLOCK` tiles; the caller answers for the rest.
            unsafe { V::run(work) }
        });
    }

    fn channel_step(&self) -> Option<usize> {
        Some(Self::PANEL)
    }

    fn row_step(&self) -> usize {
        OUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrices of the paper, scaled, in plain numbers.
    #[test]
    fn one_tile_by_hand() {
        let filter = [1i16, -2, 3, -128, 127, 5, 0, -7, 11];
        let input: [[i64; 6]; 6] =
            std::array::from_fn(|i| std::array::from_fn(|j| ((i * 97 + j * 53) % 256) as i64));
        let points = transform_filters(filter.map(|weight| [weight; 16])).map(|all| all[7]);
        const B: [[i64; 6]; 6] = [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ];
        const A: [[i64; 6]; 4] =
            [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]];
        for (y, x) in (0..4).flat_map(|y| (0..4).map(move |x| (y, x))) {
            let mut sum = 0;
            for (i, j) in (0..6).flat_map(|i| (0..6).map(move |j| (i, j))) {
                let mut value = 0;
                for (k, l) in (0..6).flat_map(|k| (0..6).map(move |l| (k, l))) {
                    value += B[i][k] * B[j][l] * input[k][l];
                }
                assert!(i16::try_from(value).is_ok());
                let scale = i64::from(OUTPUT_SCALES[i] * OUTPUT_SCALES[j]);
                sum += A[y][i] * A[x][j] * scale * value * i64::from(points[i * 6 + j]);
            }
            let direct: i64 =
                (0..9).map(|t| i64::from(filter[t]) * input[y + t / 3][x + t % 3]).sum();
            assert_eq!(sum, 576 * direct);
        }
    }

    #[test]
    fn extreme_filters_fit_16_bits() {
        // Every sign that the transform can meet, at the largest size.
        for signs in 0..512 {
            let filter: [i16; 9] =
                std::array::from_fn(|i| if signs >> i & 1 == 1 { -128 } else { 127 });
            let exact = |at: usize| -> i32 {
                let (i, j) = (at / 6, at % 6);
                let weight = |t: usize| i32::from(FILTER[i][t / 3]) * i32::from(FILTER[j][t % 3]);
                (0..9).map(|t| weight(t) * i32::from(filter[t])).sum()
            };
            let got = transform_filters(filter.map(|weight| [weight; 16]));
            (0..POINTS).for_each(|at| assert_eq!(i32::from(got[at][3]), exact(at)));
        }
    }

    #[test]
    fn sums_that_could_overflow_are_refused() {
        let shape = ConvShape { kernel_h: 3, kernel_w: 3, ..ConvShape::gemm(1, 160, 1) };
        let ask = |weight: i8| {
            let weights = vec![weight; shape.weight_len()];
            is_exact(&ConvU8Params {
                shape,
                weights: crate::WeightsU8::I8(&weights),
                bias: &[],
                input_zero_point: 0,
                multipliers: &[1.0],
                output_zero_point: 0,
            })
        };
        // 160 * 9 * 255 = 367,200 of each weight; 2^25 is 91.4 times that.
        assert!(ask(91) && ask(-91) && !ask(92) && !ask(-92));
    }
}
