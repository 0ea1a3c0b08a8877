//! Weights of the dense AVX2 convolution, packed so that no multiplication saturates.
//!
//! Output channels go in panels of 16 (the last one of a group may be half as wide). Within a tap
//! the input channels go in k-quads, four bytes that are broadcast together. `vpmaddubsw` adds two
//! products of a quad in 16 bits, signed and saturating, and a code is up to 255, so it is exact
//! where the weights of one sign among the two sum to at most 128: 255 * 128 = 32,640 < 32,767, and
//! likewise below zero. Each quad of each panel therefore takes the fastest form that is exact for
//! its weights, whatever they are:
//!
//! - *doubled*: two quads whose four weights per 16-bit lane keep the bound together are added in
//!   16 bits and widened once;
//! - *bytes*: the two weights of each lane keep the bound;
//! - *turned*: they do once the four inputs are paired otherwise, or some of them are complemented:
//!   `x * w = (255 - x) * -w + 255 * w`, which makes weights of one sign weights of two, and whose
//!   last term goes into the bias;
//! - *words*: `vpmaddwd` on 16-bit weights, which is exact for every weight of -255..=255.
//!
//! The quads of a tap are reordered so that each form runs in one uninterrupted loop.

use crate::conv_u8_dense::{self, Part};
use crate::conv_u8_tile::tiles;
use crate::requantize::SMALL;

/// The fastest form that packing may choose: only words; ...
pub(crate) const WORDS: u8 = 0;
/// ... bytes where exact, turned or not, otherwise words; ...
pub(crate) const BYTES: u8 = 1;
/// ... doubled where exact, otherwise bytes or words.
pub(crate) const DOUBLED: u8 = 2;

/// How many steps of each form one tap takes, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) doubled: u32,
    pub(crate) bytes: u32,
    pub(crate) turned: u32,
    pub(crate) words: u32,
}

/// How the four inputs of a turned quad are read, for `vpshufb` and `vpxor`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct Turn {
    /// Which input comes where.
    pub(crate) order: [u8; 4],
    /// 255 where it is complemented after that.
    pub(crate) complement: [u8; 4],
}

/// Up to 16 output channels, in forms no faster than `FORM`; with `SUMS`, their 32-bit sums are what
/// is stored.
#[derive(Debug)]
pub(crate) struct Panel<const FORM: u8 = DOUBLED, const SUMS: bool = false> {
    /// First output channel, and how many.
    pub(crate) first: usize,
    pub(crate) columns: usize,
    /// Steps of each tap.
    pub(crate) steps: Vec<Steps>,
    /// For each step the byte offsets of its one quad (or two, when doubled) from the tap's start.
    pub(crate) offsets: Vec<u32>,
    /// For each step its weights, a multiple of 32 bytes: see [`Panel::halves`].
    pub(crate) codes: Vec<i8>,
    /// For each turned step.
    pub(crate) turns: Vec<Turn>,
    /// Folded bias, that of complemented inputs included; zero beyond `columns`.
    pub(crate) bias: [i32; 16],
    /// Multipliers, zero beyond `columns`.
    pub(crate) multipliers: [f32; 16],
    /// Whether every multiplier is below [`SMALL`].
    small: bool,
}

/// Most that the weights of one sign in one 16-bit lane may sum to.
const LANE_BOUND: u8 = 128;

/// How many quads ahead a partner for a doubled step is sought: bounds the time that packing takes.
const LOOK_AHEAD: usize = 24;

/// Four inputs times 16 columns.
type Quad = [[i16; 4]; 16];

/// For each 16-bit lane of a quad the sum of its positive weights, then of its negative ones, as
/// magnitudes; 255 stands for anything that no form of bytes can take.
struct LaneSums([u8; 64]);

impl LaneSums {
    fn new(quad: &Quad) -> Self {
        let mut sums = [0i16; 64];
        let (positive, negative) = sums.split_at_mut(32);
        let lanes = quad.as_flattened().chunks_exact(2);
        for ((positive, negative), pair) in positive.iter_mut().zip(negative).zip(lanes) {
            let (a, b) = (pair[0], pair[1]);
            // A single 128, though within the bound, is no i8.
            let wide = i16::from(a.max(b) > i16::from(i8::MAX)) * 255;
            *positive = a.max(0) + b.max(0) + wide;
            *negative = -(a.min(0) + b.min(0));
        }
        LaneSums(sums.map(|sum| sum.min(255) as u8))
    }

    fn fits(&self) -> bool {
        // No early exit here and below: 64 bytes at a time are a handful of vector instructions.
        self.0.iter().fold(0, |any, &sum| any | u8::from(sum > LANE_BOUND)) == 0
    }

    /// Whether two quads that fit alone also fit together.
    fn fits_with(&self, other: &LaneSums) -> bool {
        let excess = |(&a, &b): (&u8, &u8)| u8::from(a > LANE_BOUND - b);
        self.0.iter().zip(&other.0).map(excess).fold(0, |any, excess| any | excess) == 0
    }
}

/// The first way to read a quad's inputs that keeps the bound, and the quad in that order.
fn turn(quad: &Quad) -> Option<(Turn, Quad)> {
    let weights: [[i16; 16]; 4] = std::array::from_fn(|i| quad.map(|column| column[i]));
    let fits = |a: &[i16; 16], b: &[i16; 16], sign: i16| {
        let bound = i16::from(LANE_BOUND);
        // No early exit, so that the columns are a few vector instructions.
        a.iter().zip(b).fold(true, |all, (&a, &b)| {
            let b = sign * b;
            all & (a.max(0) + b.max(0) <= bound)
                & (a.min(0) + b.min(0) >= -bound)
                & (a.max(b) <= i16::from(i8::MAX))
        })
    };
    for order in [[0u8, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2]] {
        let [a, b, c, d] = order.map(|i| &weights[usize::from(i)]);
        let sign = |a, b| [1, -1].into_iter().find(|&sign| fits(a, b, sign));
        if let (Some(first), Some(second)) = (sign(a, b), sign(c, d)) {
            let signs = [1, first, 1, second];
            let turned = quad
                .map(|column| std::array::from_fn(|i| signs[i] * column[usize::from(order[i])]));
            let complement = signs.map(|sign| if sign < 0 { 255 } else { 0 });
            return Some((Turn { order, complement }, turned));
        }
    }
    None
}

impl<const FORM: u8, const SUMS: bool> conv_u8_dense::Panel for Panel<FORM, SUMS> {
    fn width(_: usize) -> usize {
        16
    }

    fn pack(part: &Part) -> Self {
        let &Part { first, columns, taps, tap_len, offset, rows, .. } = part;
        let mut panel = Panel {
            first,
            columns,
            steps: Vec::with_capacity(taps),
            offsets: Vec::with_capacity(taps * tap_len.div_ceil(4)),
            codes: Vec::with_capacity(taps * tap_len.next_multiple_of(4) * 16),
            turns: Vec::new(),
            bias: [0; 16],
            multipliers: [0.0; 16],
            small: part.multipliers.iter().all(|&multiplier| multiplier < SMALL),
        };
        panel.bias[..columns].copy_from_slice(part.bias);
        panel.multipliers[..columns].copy_from_slice(part.multipliers);
        let mut quads = vec![[[0i16; 4]; 16]; tap_len.div_ceil(4)];
        for tap in 0..taps {
            for column in 0..columns {
                let row = &rows[(column * taps + tap) * tap_len..][..tap_len];
                for (quad, weights) in quads.iter_mut().zip(row.chunks(4)) {
                    match weights.try_into() {
                        Ok(four) => quad[column] = four,
                        Err(_) => quad[column][..weights.len()].copy_from_slice(weights),
                    }
                }
            }
            panel.push_tap(&quads, offset);
        }
        panel
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
        let tiles = match (self.halves(), self.small) {
            (1, true) => tiles::<1, FORM, SUMS, true>,
            (1, false) => tiles::<1, FORM, SUMS, false>,
            (_, true) => tiles::<2, FORM, SUMS, true>,
            (_, false) => tiles::<2, FORM, SUMS, false>,
        };
        // SAFETY: `halves` and `small` are matched; offsets of a panel end within the bytes that can
        // be read, which the caller answers for; so it does for the panel's columns.
        unsafe {
            let to = output.wrapping_add(self.first * if SUMS { 4 } else { 1 });
            tiles((pointers, pixels), self, output_zero_point, to, stride);
        }
    }
}

impl<const FORM: u8, const SUMS: bool> Panel<FORM, SUMS> {
    /// Columns in eights: the width that the tile computes.
    pub(crate) fn halves(&self) -> usize {
        self.columns.div_ceil(8)
    }

    fn push_tap(&mut self, quads: &[Quad], offset: usize) {
        let mut steps = Steps::default();
        let mut narrow = Vec::with_capacity(quads.len());
        let mut wide = Vec::new();
        for (at, quad) in quads.iter().enumerate() {
            let sums = LaneSums::new(quad);
            if FORM >= BYTES && sums.fits() {
                narrow.push((at, sums));
            } else {
                wide.push(at);
            }
        }
        let mut single = Vec::new();
        let mut taken = vec![false; narrow.len()];
        for i in 0..narrow.len() {
            if taken[i] {
                continue;
            }
            let (at, sums) = &narrow[i];
            let ahead = i + 1..narrow.len().min(i + 1 + LOOK_AHEAD);
            let partner = ahead
                .filter(|_| FORM == DOUBLED)
                .find(|&j| !taken[j] && sums.fits_with(&narrow[j].1));
            if let Some(j) = partner {
                taken[j] = true;
                for at in [*at, narrow[j].0] {
                    self.offsets.push((offset + at * 4) as u32);
                    self.push_bytes(&quads[at]);
                }
                steps.doubled += 1;
            } else {
                single.push(*at);
            }
        }
        for at in single {
            self.offsets.push((offset + at * 4) as u32);
            self.push_bytes(&quads[at]);
            steps.bytes += 1;
        }
        wide.retain(|&at| {
            let Some((turn, turned)) = turn(&quads[at]).filter(|_| FORM >= BYTES) else {
                return true;
            };
            self.offsets.push((offset + at * 4) as u32);
            self.push_bytes(&turned);
            for (bias, column) in self.bias.iter_mut().zip(&turned) {
                let complemented = column.iter().zip(&turn.complement).filter(|(_, c)| **c != 0);
                let sum: i16 = complemented.map(|(weight, _)| *weight).sum();
                // The weights have been negated.
                *bias = bias.wrapping_sub(255 * i32::from(sum));
            }
            self.turns.push(turn);
            steps.turned += 1;
            false
        });
        for at in wide {
            self.offsets.push((offset + at * 4) as u32);
            // Weights 0 and 2 of every column, then 1 and 3: the order in which a mask and a shift
            // take the four bytes of the input apart.
            for pair in [[0, 2], [1, 3]] {
                for column in &quads[at][..self.halves() * 8] {
                    for i in pair {
                        self.codes.extend(column[i].to_le_bytes().map(|byte| byte as i8));
                    }
                }
            }
            steps.words += 1;
        }
        self.steps.push(steps);
    }

    fn push_bytes(&mut self, quad: &Quad) {
        let flat = quad.as_flattened();
        let bytes: [i8; 64] = std::array::from_fn(|i| flat[i] as i8);
        self.codes.extend_from_slice(&bytes[..self.halves() * 32]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forms that one panel takes for weights `[column][k]` (the rest 0).
    fn forms(weights: &[(usize, usize, i16)], tap_len: usize) -> (u32, u32, u32, u32) {
        let mut rows = vec![0; 16 * tap_len];
        weights.iter().for_each(|&(column, k, weight)| rows[column * tap_len + k] = weight);
        let panel: Panel = conv_u8_dense::Panel::pack(&Part {
            first: 0,
            columns: 16,
            taps: 1,
            tap_len,
            offset: 0,
            rows: &rows,
            bias: &[0; 16],
            multipliers: &[1.0; 16],
        });
        let steps = panel.steps[0];
        (steps.doubled, steps.bytes, steps.turned, steps.words)
    }

    #[test]
    fn the_bound_decides() {
        // One lane of one quad: 64 + 64 keeps the bound, 65 + 64 does not, opposite signs do.
        assert_eq!(forms(&[(3, 0, 64), (3, 1, 64)], 4), (0, 1, 0, 0));
        assert_eq!(forms(&[(3, 0, 65), (3, 1, 64)], 4), (0, 0, 1, 0));
        assert_eq!(forms(&[(3, 0, 127), (3, 1, -128)], 4), (0, 1, 0, 0));
        assert_eq!(forms(&[(3, 0, -128), (3, 1, -1)], 4), (0, 0, 1, 0));
        // Weights 1 and 2 are of different lanes.
        assert_eq!(forms(&[(3, 1, 127), (3, 2, 127)], 4), (0, 1, 0, 0));
        // Two quads: weights 0 and 4 meet in a lane when doubled.
        assert_eq!(forms(&[(3, 0, 64), (3, 4, 64)], 8), (1, 0, 0, 0));
        assert_eq!(forms(&[(3, 0, 65), (3, 4, 64)], 8), (0, 2, 0, 0));
        assert_eq!(forms(&[(3, 0, 127), (3, 4, -128)], 8), (1, 0, 0, 0));
        // The first quad finds its partner beyond one that does not fit.
        assert_eq!(forms(&[(0, 0, 100), (0, 4, 100), (9, 8, 1)], 12), (1, 1, 0, 0));
        // A weight outside i8 takes words.
        assert_eq!(forms(&[(3, 0, 128)], 4), (0, 0, 0, 1));
        assert_eq!(forms(&[(3, 0, 129)], 4), (0, 0, 0, 1));
        assert_eq!(forms(&[(3, 0, 255)], 4), (0, 0, 0, 1));
    }

    #[test]
    fn inputs_are_turned_where_that_helps() {
        let quad = |columns: &[[i16; 4]]| {
            let mut quad = [[0; 4]; 16];
            quad[..columns.len()].copy_from_slice(columns);
            turn(&quad).map(|(turn, _)| (turn.order, turn.complement))
        };
        // The signs of the second and of the last one can be turned over.
        assert_eq!(quad(&[[100, 100, 0, 0]]), Some(([0, 1, 2, 3], [0, 255, 0, 0])));
        assert_eq!(quad(&[[0, 1, -90, -90]]), Some(([0, 1, 2, 3], [0, 0, 0, 255])));
        // Columns of both kinds: another pairing.
        let both = [[100, 100, 0, 0], [100, -100, 0, 0]];
        assert_eq!(quad(&both), Some(([0, 2, 1, 3], [0; 4])));
        // -128 cannot be negated; 129 is no i8 either way.
        assert_eq!(quad(&[[-1, -128, 0, 0]]), Some(([0, 2, 1, 3], [0; 4])));
        assert_eq!(quad(&[[129, 0, 0, 0]]), None);
        // Every pairing meets both kinds.
        let all = [[100, 100, 100, 100], [100, -100, 100, -100], [100, 100, -100, -100]];
        assert_eq!(quad(&[all[0], all[1], all[2], [100, -100, -100, 100]]), None);
    }
}
