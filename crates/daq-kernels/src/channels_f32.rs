//! The range, the sum and the sum of squares of each channel of many floats, channels side by side.

use crate::{Isa, Kernel};

/// What was seen of each channel: four slices of one length.
pub struct ChannelsF32<'a> {
    /// The least so far.
    pub min: &'a mut [f32],
    /// The largest so far.
    pub max: &'a mut [f32],
    /// The sum so far.
    pub sum: &'a mut [f32],
    /// The sum of squares so far.
    pub squares: &'a mut [f32],
}

type Entry = fn(&[f32], &mut ChannelsF32);
type UnsafeEntry = unsafe fn(&[f32], &mut ChannelsF32);

/// Every kernel, best first and scalar last.
pub static KERNELS: &[Kernel<UnsafeEntry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "channels_16__avx512", isa: Isa::Avx512, entry: avx512 },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "channels_16__avx2", isa: Isa::Avx2, entry: avx2 },
    Kernel { name: "channels_16__scalar", isa: Isa::Scalar, entry: channels as Entry },
];

/// Adds `data`, `[pixels][channels]`, to what was seen: pixel by pixel, so that every kernel gives the same
/// sums.
///
/// # Panics
/// If the slices of `seen` differ in length, or `data` is not whole pixels.
pub fn channels_f32(data: &[f32], seen: &mut ChannelsF32, isa: Isa) {
    let channels = seen.min.len();
    let equal = [seen.max.len(), seen.sum.len(), seen.squares.len()].iter().all(|&n| n == channels);
    assert!(equal && (channels == 0 || data.len().is_multiple_of(channels)));
    if channels == 0 {
        return;
    }
    // SAFETY: `pick` made sure that this CPU has the kernel's instruction set.
    unsafe { (Kernel::pick(KERNELS, isa).entry)(data, seen) }
}

#[inline(always)]
fn channels(data: &[f32], seen: &mut ChannelsF32) {
    let channels = seen.min.len();
    let mut at = 0;
    while at + 16 <= channels {
        tile::<16>(data, at, seen);
        at += 16;
    }
    if at + 8 <= channels {
        tile::<8>(data, at, seen);
        at += 8;
    }
    (at..channels).for_each(|at| tile::<1>(data, at, seen));
}

/// `N` channels from `at` on, in registers.
#[inline(always)]
fn tile<const N: usize>(data: &[f32], at: usize, seen: &mut ChannelsF32) {
    let part = |all: &[f32]| std::array::from_fn::<f32, N, _>(|i| all[at + i]);
    let (mut min, mut max) = (part(seen.min), part(seen.max));
    let (mut sum, mut squares) = (part(seen.sum), part(seen.squares));
    for pixel in data.chunks_exact(seen.min.len()) {
        let x: &[f32; N] = pixel[at..].first_chunk().expect("a tile lies within the channels");
        for i in 0..N {
            min[i] = if x[i] < min[i] { x[i] } else { min[i] };
            max[i] = if x[i] > max[i] { x[i] } else { max[i] };
            sum[i] += x[i];
            squares[i] += x[i] * x[i];
        }
    }
    seen.min[at..][..N].copy_from_slice(&min);
    seen.max[at..][..N].copy_from_slice(&max);
    seen.sum[at..][..N].copy_from_slice(&sum);
    seen.squares[at..][..N].copy_from_slice(&squares);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(data: &[f32], seen: &mut ChannelsF32) {
    channels(data, seen);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn avx512(data: &[f32], seen: &mut ChannelsF32) {
    channels(data, seen);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_is_as_added_up_one_by_one() {
        for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_supported()) {
            for channels in [1, 3, 7, 8, 15, 16, 24, 31, 41] {
                let data: Vec<f32> =
                    (0..channels * 9).map(|i| (i * 37 % 101) as f32 * 0.3 - 11.0).collect();
                // Something was seen already: -2 and 2 in every channel.
                let [mut min, mut max] = [vec![-2f32; channels], vec![2f32; channels]];
                let [mut sum, mut squares] = [vec![0f32; channels], vec![8f32; channels]];
                let mut seen = ChannelsF32 {
                    min: &mut min,
                    max: &mut max,
                    sum: &mut sum,
                    squares: &mut squares,
                };
                channels_f32(&data, &mut seen, isa);
                for c in 0..channels {
                    let own: Vec<f32> = data.iter().copied().skip(c).step_by(channels).collect();
                    let wanted = (
                        own.iter().copied().fold(-2.0, f32::min),
                        own.iter().copied().fold(2.0, f32::max),
                        own.iter().fold(0.0, |s, x| s + x),
                        own.iter().fold(8.0, |s, x| s + x * x),
                    );
                    assert_eq!(
                        (min[c], max[c], sum[c], squares[c]),
                        wanted,
                        "{isa:?} {c} {channels}"
                    );
                }
            }
        }
    }

    #[test]
    #[should_panic]
    fn pixels_must_be_whole() {
        let mut all = [[0f32; 2]; 4];
        let [min, max, sum, squares] = &mut all;
        channels_f32(&[1.0; 3], &mut ChannelsF32 { min, max, sum, squares }, Isa::Scalar);
    }
}
