//! Entropy calibration: the range whose codes keep the distribution of the values best.
//!
//! For each candidate range the histogram is clipped to it (what lies outside counts at its ends) and
//! spread over the 256 codes; the one with the least Kullback-Leibler divergence from the clipped
//! histogram to the coded one is taken. See Migacz, "8-bit Inference with TensorRT", 2017. Every
//! candidate has more bins than codes: with as many bins as codes the divergence is 0 and the narrowest
//! range would win.

use crate::range::Range;

/// Candidates, from the narrowest to all that was seen.
const CANDIDATES: usize = 32;

/// Codes.
const LEVELS: usize = 256;

/// The least bins that a code stands for.
const BINS_PER_LEVEL: usize = 2;

/// The best range within `full` (which holds 0) for a histogram of bins of `width`, the first of which
/// starts at `start`. `counts` are those of the bins, without the exact zeros.
pub fn range(counts: &[u64], start: f64, width: f64, full: Range) -> Range {
    let (low, high) = (f64::from(full.min), f64::from(full.max));
    let bins = ((high - low) / width).ceil() as usize;
    let least = (BINS_PER_LEVEL * LEVELS) as f64 / bins.max(1) as f64;
    let mut best = (f64::INFINITY, full);
    for i in 1..=CANDIDATES {
        let part = i as f64 / CANDIDATES as f64;
        if part < least && i < CANDIDATES {
            continue;
        }
        let found = divergence(counts, start, width, (low * part, high * part));
        if found <= best.0 {
            best = (found, Range { min: (low * part) as f32, max: (high * part) as f32 });
        }
    }
    best.1
}

/// The divergence of the codes of a range from the values clipped to it.
fn divergence(counts: &[u64], start: f64, width: f64, (low, high): (f64, f64)) -> f64 {
    let at = |x: f64| (((x - start) / width) as usize).min(counts.len() - 1);
    let (first, last) = (at(low), at(high - width * 0.5).max(at(low)));
    let mut clipped: Vec<f64> = counts[first..=last].iter().map(|&c| c as f64).collect();
    let sum = |c: &[u64]| c.iter().sum::<u64>() as f64;
    let inside = clipped.clone();
    clipped[0] += sum(&counts[..first]);
    clipped[last - first] += sum(&counts[last + 1..]);
    let total: f64 = clipped.iter().sum();
    let kept: f64 = inside.iter().sum();
    if total == 0.0 || kept == 0.0 {
        return f64::INFINITY;
    }
    // What each code stands for, and over how many bins that hold something it is spread.
    let n = clipped.len();
    let level = |bin: usize| (bin * LEVELS / n).min(LEVELS - 1);
    let (mut mass, mut occupied) = ([0f64; LEVELS], [0f64; LEVELS]);
    for (bin, &count) in inside.iter().enumerate() {
        mass[level(bin)] += count;
        occupied[level(bin)] += f64::from(u8::from(clipped[bin] > 0.0));
    }
    let of = |(bin, &p): (usize, &f64)| {
        if p == 0.0 {
            return 0.0;
        }
        let q = mass[level(bin)] / occupied[level(bin)];
        // A code that stands for nothing but clipped values counts as a single one of them.
        let (p, q) = (p / total, q.max(1.0) / kept);
        p * (p / q).ln()
    };
    clipped.iter().enumerate().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_distribution_keeps_its_range() {
        let counts = vec![100; 2048];
        let full = Range { min: 0.0, max: 2048.0 };
        assert_eq!(range(&counts, 0.0, 1.0, full), full);
    }

    #[test]
    fn a_long_thin_tail_is_cut() {
        let mut counts: Vec<u64> = (0..2048).map(|i| 1_000_000 >> (i / 40).min(63)).collect();
        counts[2047] = 1;
        let cut = range(&counts, 0.0, 1.0, Range { min: 0.0, max: 2048.0 });
        assert!(cut.max < 1536.0 && cut.max >= 512.0, "{cut:?}");
    }

    #[test]
    fn codes_that_stand_for_single_bins_lose_nothing() {
        // 256 occupied bins, 8 apart: each code stands for one, so nothing diverges.
        let counts: Vec<u64> = (0..2048).map(|i| if i % 8 == 3 { 1 + i } else { 0 }).collect();
        assert!(divergence(&counts, 0.0, 1.0, (0.0, 2048.0)).abs() < 1e-12);
        // 2 bins a code, one of them 3 times the other: sum p ln(p / q) with q the mean of each pair.
        let counts: Vec<u64> = (0..512).map(|i| if i % 2 == 0 { 1 } else { 3 }).collect();
        let expected = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        assert!((divergence(&counts, 0.0, 1.0, (0.0, 512.0)) - expected).abs() < 1e-12);
    }
}
