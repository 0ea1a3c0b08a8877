//! What a comparison keeps of tensors: sums and counts of constant size, however many samples.

use daq::QuantParams;
use serde::Serialize;

use crate::evaluate::MOST_SQNR_DB;

/// How far numbers are from their reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// `10 log10(sum ref^2 / sum (ref - x)^2)` over all elements of all samples, in dB, within
    /// +-[`MOST_SQNR_DB`].
    pub sqnr_db: f64,
    /// The cosine of the angle between them, -1 to 1; 1 where both are 0.
    pub cosine: f64,
    /// The largest absolute difference, in the tensor's own unit.
    pub max: f32,
}

/// The sums behind a [`Difference`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    reference: f64,
    other: f64,
    product: f64,
    noise: f64,
    max: f32,
}

impl Sums {
    /// Of two slices of equal length.
    pub fn of(reference: &[f32], other: &[f32]) -> Sums {
        let mut sums = Sums::default();
        // Sums of a few hundred floats at a time, so that the loop vectorises, then in f64.
        for (r, o) in reference.chunks(256).zip(other.chunks(256)) {
            let (mut rr, mut oo, mut ro, mut nn, mut max) =
                ([0f64; 4], [0f64; 4], [0f64; 4], [0f64; 4], [0f32; 4]);
            for (r, o) in r.chunks(4).zip(o.chunks(4)) {
                for (i, (&r, &o)) in r.iter().zip(o).enumerate() {
                    let noise = r - o;
                    max[i] = max[i].max(noise.abs());
                    let (r, o, noise) = (f64::from(r), f64::from(o), f64::from(noise));
                    rr[i] += r * r;
                    oo[i] += o * o;
                    ro[i] += r * o;
                    nn[i] += noise * noise;
                }
            }
            sums.reference += rr.iter().sum::<f64>();
            sums.other += oo.iter().sum::<f64>();
            sums.product += ro.iter().sum::<f64>();
            sums.noise += nn.iter().sum::<f64>();
            sums.max = max.iter().fold(sums.max, |a, &b| a.max(b));
        }
        sums
    }

    pub fn add(&mut self, more: &Sums) {
        self.reference += more.reference;
        self.other += more.other;
        self.product += more.product;
        self.noise += more.noise;
        self.max = self.max.max(more.max);
    }

    pub fn difference(&self) -> Difference {
        let sqnr = match self.noise == 0.0 {
            true => MOST_SQNR_DB,
            false => {
                (10.0 * (self.reference / self.noise).log10()).clamp(-MOST_SQNR_DB, MOST_SQNR_DB)
            }
        };
        let norm = (self.reference * self.other).sqrt();
        let cosine = match (norm > 0.0, self.reference == self.other) {
            (true, _) => (self.product / norm).clamp(-1.0, 1.0),
            (false, same) => f64::from(u8::from(same)),
        };
        Difference { sqnr_db: sqnr, cosine, max: self.max }
    }
}

/// Bins inside of the range of codes, and on each side of it.
const INSIDE: usize = 64;
const BESIDE: usize = 16;

/// Where a tensor's float values lie, beside the range that its codes can hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The real number of the lowest code.
    pub low: f32,
    /// The real number of the highest code.
    pub high: f32,
    /// The step between codes.
    pub scale: f32,
    /// The code of 0.
    pub zero_point: i32,
    /// The lowest float value seen.
    pub min: f32,
    /// The highest float value seen.
    pub max: f32,
    /// Share of the values that are beyond the range by more than half a step: saturated.
    pub clipped: f64,
    /// Share of the range between the ends of which no value lies.
    pub unused: f64,
    /// How many values lie where.
    pub histogram: Bins,
}

/// Counts in bins of equal width.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bins {
    /// The lower edge of the first bin.
    pub start: f32,
    /// The width of each.
    pub width: f32,
    /// How many values fell into each; the first and the last one hold also what lies beyond.
    pub counts: Vec<u64>,
}

/// The counts behind a [`Spread`].
#[derive(Clone, Debug)]
pub(super) struct SpreadSum {
    scale: f32,
    zero_point: i32,
    counts: Vec<u64>,
    clipped: u64,
    min: f32,
    max: f32,
}

impl SpreadSum {
    /// Empty counts for `u8` codes of a tensor.
    pub fn new(quant: &QuantParams) -> Self {
        SpreadSum {
            scale: quant.scale[0],
            zero_point: quant.zero_point[0],
            counts: vec![0; INSIDE + 2 * BESIDE],
            clipped: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
        }
    }

    fn ends(&self) -> (f32, f32) {
        let real = |code: i32| (code - self.zero_point) as f32 * self.scale;
        (real(0), real(255))
    }

    pub fn observe(&mut self, data: &[f32]) {
        let (low, high) = self.ends();
        let (least, most) = (low - self.scale / 2.0, high + self.scale / 2.0);
        let per_unit = INSIDE as f32 / (high - low);
        let last = (self.counts.len() - 1) as f32;
        for &x in data {
            self.min = self.min.min(x);
            self.max = self.max.max(x);
            self.clipped += u64::from(x < least || x > most);
            // The highest code belongs to the last bin inside.
            let bin = (x - low) * per_unit;
            let bin = if x > high { bin.max(INSIDE as f32) } else { bin.min(INSIDE as f32 - 0.5) };
            self.counts[(bin.floor() + BESIDE as f32).clamp(0.0, last) as usize] += 1;
        }
    }

    pub fn merge(&mut self, other: &SpreadSum) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.clipped += other.clipped;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// `None` where nothing was seen.
    pub fn spread(&self) -> Option<Spread> {
        let count: u64 = self.counts.iter().sum();
        let (low, high) = self.ends();
        let used = self.max.min(high) - self.min.max(low);
        let width = (high - low) / INSIDE as f32;
        (count > 0).then(|| Spread {
            low,
            high,
            scale: self.scale,
            zero_point: self.zero_point,
            min: self.min,
            max: self.max,
            clipped: self.clipped as f64 / count as f64,
            unused: f64::from((1.0 - used / (high - low)).clamp(0.0, 1.0)),
            histogram: Bins {
                start: low - BESIDE as f32 * width,
                width,
                counts: self.counts.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_as_worked_out_by_hand() {
        // Signal 100, noise 1, product 6*6 + 8*9 = 108, other 117.
        let d = Sums::of(&[6.0, 8.0], &[6.0, 9.0]).difference();
        assert!((d.sqnr_db - 20.0).abs() < 1e-12, "{d:?}");
        assert!((d.cosine - 108.0 / (100f64 * 117.0).sqrt()).abs() < 1e-12, "{d:?}");
        assert_eq!(d.max, 1.0);
        let same = Sums::of(&[0.0; 3], &[0.0; 3]).difference();
        assert_eq!((same.sqnr_db, same.cosine), (MOST_SQNR_DB, 1.0));
        let lost = Sums::of(&[1.0; 300], &[0.0; 300]).difference();
        assert_eq!((lost.sqnr_db, lost.cosine, lost.max), (0.0, 0.0, 1.0));
    }

    #[test]
    fn parts_add_up() {
        let (a, b): (Vec<f32>, Vec<f32>) = (0..1000).map(|i| (i as f32, i as f32 + 0.5)).unzip();
        let mut parts = Sums::of(&a[..300], &b[..300]);
        parts.add(&Sums::of(&a[300..], &b[300..]));
        let whole = Sums::of(&a, &b).difference();
        // sum i^2 = 332,833,500; noise 250.
        assert!((whole.sqnr_db - 10.0 * (332_833_500.0f64 / 250.0).log10()).abs() < 1e-9);
        assert!((parts.difference().sqnr_db - whole.sqnr_db).abs() < 1e-9);
    }

    #[test]
    fn clipping_and_unused_range() {
        // Codes 0..=255 at 0.1 with zero point 55: -5.5 to 20.
        let quant = QuantParams::per_tensor(0.1, 55);
        let mut sum = SpreadSum::new(&quant);
        sum.observe(&[-5.54, 0.0, 7.25, 20.0, 20.04]);
        let mut other = SpreadSum::new(&quant);
        other.observe(&[25.0, 1000.0, -9.0]);
        sum.merge(&other);
        let spread = sum.spread().unwrap();
        assert!((spread.low + 5.5).abs() < 1e-5 && (spread.high - 20.0).abs() < 1e-5);
        assert_eq!(
            (spread.min, spread.max, spread.clipped, spread.unused),
            (-9.0, 1000.0, 3.0 / 8.0, 0.0)
        );
        let counts = &spread.histogram.counts;
        assert_eq!((counts.len(), counts.iter().sum::<u64>()), (96, 8));
        assert_eq!(counts[16 + 63], 1, "20 is inside");
        assert_eq!(counts[95], 1, "1000 is beyond the last bin");
        let mut narrow = SpreadSum::new(&quant);
        narrow.observe(&[0.0, 5.1]);
        assert!((narrow.spread().unwrap().unused - 0.8).abs() < 1e-5);
        assert_eq!(SpreadSum::new(&quant).spread(), None);
    }
}
