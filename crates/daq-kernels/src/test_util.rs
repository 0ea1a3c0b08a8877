//! What the float families' tests share.

use crate::{ConvShape, Isa};

/// A small generator of reproducible numbers (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// A number below `end`, 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end.max(1)
    }

    /// Floats from -1 to 1.
    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next() as f32 / (1u64 << 31) as f32 - 1.0).collect()
    }
}

/// A small geometry with every feature but channels and groups (which are 1). The output may be
/// larger than the input and its padding call for: the rest is padding too.
pub(crate) fn random_shape(random: &mut Random) -> ConvShape {
    ConvShape {
        batch: 1 + random.below(2),
        in_h: 1 + random.below(9),
        in_w: 1 + random.below(9),
        out_h: 1 + random.below(8),
        out_w: 1 + random.below(8),
        kernel_h: 1 + random.below(5),
        kernel_w: 1 + random.below(5),
        stride_h: 1 + random.below(3),
        stride_w: 1 + random.below(3),
        dilation_h: 1 + random.below(2),
        dilation_w: 1 + random.below(2),
        pad_top: random.below(3),
        pad_left: random.below(3),
        ..ConvShape::gemm(1, 1, 1)
    }
}

/// The instruction sets of this CPU, scalar first.
pub(crate) fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.iter().copied().filter(|isa| isa.is_supported())
}

/// Whether all bits are equal, but for the payloads of NaNs.
pub(crate) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    a.len() == b.len() && a.iter().zip(b).all(same)
}
