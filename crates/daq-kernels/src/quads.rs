//! Registers that multiply 8-bit codes by weights four at a time, so that a kernel is written once
//! for all instruction sets that can.
//!
//! A *quad* is four neighbouring inputs of a sum. A 32-bit lane of a register adds up one output:
//! either by one instruction (`vpdpbusd`, `sdot`, `usdot`), or by 16-bit products. Nothing here ever
//! saturates; each implementation says why.

use crate::vector_f32::Work;

/// Everything that one tile of a dense convolution reads.
#[derive(Clone, Copy)]
pub(crate) struct TileInput<'a> {
    /// `[taps, row]`, of which the tile's pixels are the first.
    pub(crate) pointers: *const *const u8,
    pub(crate) row: usize,
    /// Where the group's channels begin in a pixel.
    pub(crate) offset: usize,
    /// Steps of [`Quads::STEP`] inputs in each tap.
    pub(crate) steps: usize,
    /// `[tap, step]` of [`Quads::line`] bytes.
    pub(crate) lines: *const u8,
    /// Of each tap, the offsets of inputs that are read again, and a line for each.
    pub(crate) extra: &'a [(Vec<u32>, Vec<u8>)],
    /// A sum for each column to begin with.
    pub(crate) bias: *const i32,
}

/// The registers of one instruction set.
///
/// # Safety
///
/// All functions need the CPU to have the instruction set; pointers must be good for what is read or
/// written, and need no alignment.
pub(crate) trait Quads: Copy + Send + Sync + std::fmt::Debug + 'static {
    /// 32-bit sums.
    type Sums: Copy;
    /// Codes, four for each sum.
    type Codes: Copy;
    /// Weights, four for each sum.
    type Weights: Copy;
    /// Multipliers, one for each sum.
    type Floats: Copy;
    /// Codes of four taps of as many channels as there are codes in a register, ready to multiply.
    type Taps: Copy;

    /// Sums of a register.
    const LANES: usize;
    /// Most registers of a panel of output channels.
    const VECTORS: usize;
    /// Pixels of a tile at most, by the registers of a panel.
    const ROWS: [usize; 4];
    /// Pixels of a depthwise convolution that share columns, at most 4: what the registers hold.
    const PIXELS: usize;
    /// Inputs of a dense convolution that are read together.
    const STEP: usize = 4;
    /// What is taken off each code before it is multiplied.
    const OFFSET: i32 = 0;
    /// Bytes of one weight.
    const WEIGHT: usize = 1;
    /// The weights that one multiplication takes; a rest becomes a step of its own.
    const RANGE: (i16, i16) = (-128, 127);

    /// Bytes of the weights of one step and `vectors` registers.
    fn line(vectors: usize) -> usize {
        vectors * Self::LANES * Self::STEP * Self::WEIGHT
    }

    /// Where in a line the weight of input `k` and lane `lane` of a register lies.
    fn place(vectors: usize, vector: usize, lane: usize, k: usize) -> usize {
        let _ = vectors;
        vector * Self::LANES * 4 * Self::WEIGHT + Self::quad_place(lane, k)
    }

    /// Where among the weights of one register that of lane `lane` and input `k` of a quad lies.
    fn quad_place(lane: usize, k: usize) -> usize {
        match Self::WEIGHT {
            1 => lane * 4 + k,
            // Inputs 0 and 2 of all lanes, then 1 and 3: the order in which a mask and a shift take
            // the bytes of the codes apart.
            _ => (k % 2 * Self::LANES + lane) * 4 + k / 2 * 2,
        }
    }

    /// The same for four registers of channels, `k` being one of four taps.
    fn channel_place(vector: usize, lane: usize, k: usize) -> usize {
        vector * Self::LANES * 4 * Self::WEIGHT + Self::quad_place(lane, k)
    }

    unsafe fn load_sums(from: *const i32) -> Self::Sums;
    unsafe fn store_sums(sums: Self::Sums, to: *mut i32);
    unsafe fn load_weights(from: *const u8) -> Self::Weights;
    unsafe fn load_floats(from: *const f32) -> Self::Floats;
    /// The same four codes in all lanes.
    unsafe fn broadcast(from: *const u8) -> Self::Codes;
    /// `width` (at least 16) codes from each of as many places as fill a register.
    unsafe fn load(width: usize, at: impl Fn(usize) -> *const u8) -> Self::Codes;
    /// Codes whose products are whatever they are: their weights are zero.
    unsafe fn nothing() -> Self::Codes;
    /// Adds the products of each lane's four codes and weights.
    unsafe fn dot(sums: Self::Sums, codes: Self::Codes, weights: Self::Weights) -> Self::Sums;

    /// The codes of four taps, lane by lane.
    unsafe fn interleave(taps: [Self::Codes; 4]) -> Self::Taps;
    /// Adds the products of each channel's four codes and weights: those of channel
    /// `lane / 4 * 16 + vector * 4 + lane % 4` go to lane `lane` of `sums[vector]`. Weights lie where
    /// [`Quads::channel_place`] says.
    unsafe fn accumulate(sums: &mut [Self::Sums; 4], taps: &Self::Taps, weights: *const u8);

    /// Requantizes four registers: lane `lane` of register `vector` becomes code
    /// `lane / 4 * 16 + vector * 4 + lane % 4`. With `SMALL`, all multipliers are below
    /// [`SMALL`](crate::requantize::SMALL).
    unsafe fn requantize<const SMALL: bool>(
        sums: [Self::Sums; 4],
        multipliers: [Self::Floats; 4],
        zero_point: u8,
    ) -> Self::Codes;
    /// Stores a register of codes.
    unsafe fn store(codes: Self::Codes, to: *mut u8);
    /// Stores the first `bytes` of each `width` (16, 32 or 64) codes at `to(i)`, or not where that is
    /// `None`.
    #[inline(always)]
    unsafe fn store_groups(
        codes: Self::Codes,
        width: usize,
        bytes: usize,
        to: impl Fn(usize) -> Option<*mut u8>,
    ) {
        let mut all = [0u8; 64];
        // SAFETY: a register holds no more than 64 codes; the caller answers for the output.
        unsafe {
            Self::store(codes, all.as_mut_ptr());
            for i in 0..Self::LANES * 4 / width {
                let from = all.as_ptr().add(i * width);
                match to(i) {
                    None => {}
                    Some(to) if bytes == 16 => std::ptr::copy_nonoverlapping(from, to, 16),
                    Some(to) => std::ptr::copy_nonoverlapping(from, to, bytes),
                }
            }
        }
    }

    /// Adds `count` steps of a tap for `R` pixels and a panel of `N` registers.
    #[inline(always)]
    unsafe fn steps<const R: usize, const N: usize>(
        sums: &mut [[Self::Sums; N]; R],
        rows: [*const u8; R],
        lines: *const u8,
        count: usize,
    ) {
        for step in 0..count {
            // SAFETY: the caller's promise; each step has a line.
            unsafe {
                let lines = lines.add(step * Self::line(N));
                let weights: [Self::Weights; N] =
                    std::array::from_fn(|v| Self::load_weights(lines.add(v * Self::line(1))));
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let codes = Self::broadcast(row.add(step * 4));
                    for (sum, &weights) in sums.iter_mut().zip(&weights) {
                        *sum = Self::dot(*sum, codes, weights);
                    }
                }
            }
        }
    }

    /// The sums of `R` pixels and a panel of `N` registers.
    #[inline(always)]
    unsafe fn tile<const R: usize, const N: usize>(input: &TileInput) -> [[Self::Sums; N]; R] {
        // SAFETY: the caller's promise; a panel of `N` registers has as many biases.
        unsafe {
            let bias = std::array::from_fn(|v| Self::load_sums(input.bias.add(v * Self::LANES)));
            let mut sums = [bias; R];
            let mut lines = input.lines;
            for (tap, (offsets, again)) in input.extra.iter().enumerate() {
                let rows = input.rows::<R>(tap, input.offset);
                Self::steps(&mut sums, rows, lines, input.steps);
                lines = lines.add(input.steps * Self::line(N));
                for (i, &offset) in offsets.iter().enumerate() {
                    let rows = input.rows::<R>(tap, offset as usize);
                    Self::steps(&mut sums, rows, again.as_ptr().add(i * Self::line(N)), 1);
                }
            }
            sums
        }
    }

    /// Does the work in a function compiled for the instruction set.
    unsafe fn run(work: impl Work);
}

/// Bytes that begin at a multiple of 64, so that no register of them crosses a cache line.
#[derive(Debug)]
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    first: usize,
}

impl Aligned {
    /// So many zeros.
    pub(crate) fn zeroed(len: usize) -> Aligned {
        let bytes = vec![0; len + 63];
        let first = bytes.as_ptr().align_offset(64).min(63);
        Aligned { bytes, first }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.first..][..self.bytes.len() - 63]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.bytes.len() - 63;
        &mut self.bytes[self.first..][..len]
    }
}

impl TileInput<'_> {
    /// Where the inputs of each pixel's tap begin.
    ///
    /// # Safety
    ///
    /// The tap and the pixels exist.
    #[inline(always)]
    pub(crate) unsafe fn rows<const R: usize>(&self, tap: usize, offset: usize) -> [*const u8; R] {
        // SAFETY: the caller's promise.
        std::array::from_fn(|r| unsafe { (*self.pointers.add(tap * self.row + r)).add(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requantize::tests::each_edge;
    use crate::requantize::{SMALL, requantize};
    use std::marker::PhantomData;

    /// Four registers of sums that are requantized.
    struct Four<'a, Q>(&'a [i32], f32, u8, &'a mut [u8; 64], PhantomData<Q>);

    impl<Q: Quads> Work for Four<'_, Q> {
        #[inline(always)]
        unsafe fn run(self) {
            let Four(sums, multiplier, zero_point, codes, _) = self;
            // SAFETY: there are four registers of sums and one of multipliers; a register holds no
            // more than 64 codes.
            unsafe {
                let sums = std::array::from_fn(|v| Q::load_sums(sums[v * Q::LANES..].as_ptr()));
                let m = [Q::load_floats([multiplier; 16].as_ptr()); 4];
                let requantized = match multiplier < SMALL {
                    true => Q::requantize::<true>(sums, m, zero_point),
                    false => Q::requantize::<false>(sums, m, zero_point),
                };
                Q::store(requantized, codes.as_mut_ptr());
            }
        }
    }

    #[allow(dead_code, reason = "some targets have no such registers")]
    fn check<Q: Quads>(isa: crate::Isa) {
        if !isa.is_supported() {
            println!("skipped: this CPU has no {}", isa.name());
            return;
        }
        each_edge(|acc, multiplier, zero_point| {
            for acc in acc.chunks_exact(4 * Q::LANES) {
                let mut codes = [0; 64];
                // SAFETY: the instruction set was checked above.
                unsafe { Q::run(Four::<Q>(acc, multiplier, zero_point, &mut codes, PhantomData)) };
                for (i, &acc) in acc.iter().enumerate() {
                    let (v, lane) = (i / Q::LANES, i % Q::LANES);
                    let code = codes[lane / 4 * 16 + v * 4 + lane % 4];
                    let want = requantize(acc, multiplier, zero_point);
                    assert_eq!(code, want, "{isa:?} {acc} * {multiplier} + {zero_point}");
                }
            }
        });
    }

    #[test]
    fn registers_requantize_as_scalar_does() {
        #[cfg(target_arch = "x86_64")]
        {
            check::<crate::quads_x86::Sse41>(crate::Isa::Sse41);
            check::<crate::quads_x86::AvxVnni>(crate::Isa::AvxVnni);
            check::<crate::quads_x86::Avx512Vnni>(crate::Isa::Avx512Vnni);
        }
        #[cfg(target_arch = "aarch64")]
        {
            check::<crate::quads_neon::Neon<true>>(crate::Isa::Neon);
            check::<crate::quads_neon::NeonDot>(crate::Isa::NeonDot);
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        check::<crate::quads_wasm::Simd128>(crate::Isa::Simd128);
    }
}
