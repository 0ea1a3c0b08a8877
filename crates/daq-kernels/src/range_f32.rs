//! The range of many floats.

use crate::{Isa, Kernel};

/// The least and the largest of some floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeF32 {
    /// The least; infinity where there is none.
    pub min: f32,
    /// The largest; negative infinity where there is none.
    pub max: f32,
    /// Whether none was NaN or infinite. If one was NaN, `min` and `max` mean nothing.
    pub finite: bool,
}

type Entry = fn(&[f32]) -> RangeF32;
type UnsafeEntry = unsafe fn(&[f32]) -> RangeF32;

/// Every kernel, best first and scalar last.
pub static KERNELS: &[Kernel<UnsafeEntry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "range_16__avx512", isa: Isa::Avx512, entry: avx512 },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "range_16__avx2", isa: Isa::Avx2, entry: avx2 },
    Kernel { name: "range_16__scalar", isa: Isa::Scalar, entry: range as Entry },
];

/// The range of `data`, which may be empty.
pub fn range_f32(data: &[f32], isa: Isa) -> RangeF32 {
    // SAFETY: `pick` made sure that this CPU has the kernel's instruction set.
    unsafe { (Kernel::pick(KERNELS, isa).entry)(data) }
}

/// Elements side by side, so that compilers use vectors.
const LANES: usize = 16;

#[inline(always)]
fn range(data: &[f32]) -> RangeF32 {
    const INFINITE: u32 = f32::INFINITY.to_bits();
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    let mut size = [0u32; LANES];
    let (chunks, rest) = data.as_chunks::<LANES>();
    let mut take = |i: usize, x: f32| {
        low[i] = if x < low[i] { x } else { low[i] };
        high[i] = if x > high[i] { x } else { high[i] };
        size[i] = size[i].max(x.abs().to_bits());
    };
    for chunk in chunks {
        chunk.iter().enumerate().for_each(|(i, &x)| take(i, x));
    }
    rest.iter().enumerate().for_each(|(i, &x)| take(i, x));
    RangeF32 {
        min: low.into_iter().fold(f32::INFINITY, f32::min),
        max: high.into_iter().fold(f32::NEG_INFINITY, f32::max),
        finite: size.into_iter().all(|bits| bits < INFINITE),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(data: &[f32]) -> RangeF32 {
    range(data)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn avx512(data: &[f32]) -> RangeF32 {
    range(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_counts() {
        for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_supported()) {
            let none = RangeF32 { min: f32::INFINITY, max: f32::NEG_INFINITY, finite: true };
            assert_eq!(range_f32(&[], isa), none);
            for len in 1..70 {
                for at in 0..len {
                    let mut data: Vec<f32> = (0..len).map(|i| (i % 7) as f32 - 3.5).collect();
                    let ends = |data: &[f32]| {
                        let none = (f32::INFINITY, f32::NEG_INFINITY);
                        data.iter().fold(none, |(a, b), &x| (a.min(x), b.max(x)))
                    };
                    for (x, finite) in [
                        (-9.5, true),
                        (9.5, true),
                        (f32::INFINITY, false),
                        (f32::NEG_INFINITY, false),
                        (f32::MAX, true),
                    ] {
                        data[at] = x;
                        let (min, max) = ends(&data);
                        assert_eq!(
                            range_f32(&data, isa),
                            RangeF32 { min, max, finite },
                            "{at} {len}"
                        );
                    }
                    data[at] = f32::NAN;
                    assert!(!range_f32(&data, isa).finite, "{at} {len}");
                }
            }
        }
    }
}
