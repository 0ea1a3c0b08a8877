//! Softmax of rows, in floats and between 8-bit codes.

use std::cell::RefCell;

use crate::{Isa, Kernel, dequantize_u8_f32, quantize_f32_u8};

type Exp = fn(&mut [f32]);
type UnsafeExp = unsafe fn(&mut [f32]);

/// Every kernel of the exponential, best first and scalar last.
pub static KERNELS: &[Kernel<UnsafeExp>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "softmax_16__avx512", isa: Isa::Avx512, entry: exp_avx512 },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "softmax_8__avx2", isa: Isa::Avx2, entry: exp_avx2 },
    Kernel { name: "softmax__scalar", isa: Isa::Scalar, entry: exp_all as Exp },
];

/// Rows of about so many elements go through all steps together.
const BLOCK: usize = 2048;

/// `exp(x - max) / sum(exp(x - max))` of each row of `len` elements; the largest is subtracted, the
/// sum is taken in order, and the exponential that of [`KERNELS`]. A NaN spreads over its row.
///
/// # Panics
///
/// If the lengths differ or are no multiple of `len`.
pub fn softmax_f32(input: &[f32], len: usize, output: &mut [f32], isa: Isa) {
    check(input.len(), len, output.len());
    if input.is_empty() {
        return;
    }
    let kernel = Kernel::pick(KERNELS, isa);
    let block = BLOCK.div_ceil(len) * len;
    for (input, output) in input.chunks(block).zip(output.chunks_mut(block)) {
        output.copy_from_slice(input);
        rows(output, len, kernel);
    }
}

/// Scales and zero points of a softmax between codes; scales are finite and positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftmaxU8Params {
    /// Scale of the input.
    pub input_scale: f32,
    /// Zero point of the input.
    pub input_zero_point: u8,
    /// Scale of the output.
    pub output_scale: f32,
    /// Zero point of the output.
    pub output_zero_point: u8,
}

thread_local! {
    /// Real numbers of some rows; reused from call to call.
    static REALS: RefCell<Vec<f32>> = RefCell::default();
}

/// [`softmax_f32`] of dequantized rows, quantized.
///
/// # Panics
///
/// If the lengths differ or are no multiple of `len`.
pub fn softmax_u8(params: &SoftmaxU8Params, input: &[u8], len: usize, output: &mut [u8], isa: Isa) {
    check(input.len(), len, output.len());
    if input.is_empty() {
        return;
    }
    let SoftmaxU8Params { input_scale, input_zero_point, output_scale, output_zero_point } =
        *params;
    let kernel = Kernel::pick(KERNELS, isa);
    let block = BLOCK.div_ceil(len) * len;
    REALS.with_borrow_mut(|reals| {
        if reals.len() < block.min(input.len()) {
            reals.resize(block.min(input.len()), 0.0);
        }
        for (input, output) in input.chunks(block).zip(output.chunks_mut(block)) {
            let reals = &mut reals[..input.len()];
            dequantize_u8_f32(input, input_scale, input_zero_point, reals, isa);
            rows(reals, len, kernel);
            quantize_f32_u8(reals, output_scale, output_zero_point, output, isa);
        }
    });
}

fn check(input: usize, len: usize, output: usize) {
    assert_eq!(input, output, "input and output differ in length");
    assert!(
        input == 0 || len > 0 && input.is_multiple_of(len),
        "{input} elements in rows of {len}"
    );
}

/// Softmax of rows in place; the exponentials of all rows at once, since rows may be short.
fn rows(values: &mut [f32], len: usize, kernel: &Kernel<UnsafeExp>) {
    for row in values.chunks_exact_mut(len) {
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
        row.iter_mut().for_each(|x| *x -= largest);
    }
    // SAFETY: `pick` made sure that this CPU has the kernel's instruction set.
    unsafe { (kernel.entry)(values) }
    for row in values.chunks_exact_mut(len) {
        let sum = row.iter().fold(0.0, |sum, &power| sum + power);
        row.iter_mut().for_each(|power| *power /= sum);
    }
}

/// `e^x` of a number that is not positive, or NaN: bit for bit that of C libraries descended from
/// FreeBSD's `e_expf.c`, without its branches.
///
/// With `k` the whole number next to `x / ln 2` and `r = x - k ln 2`, in two parts, `e^r` is
/// `1 + (r c / (2 - c) - lo + hi)` with `c = r - r^2 (P1 + r^2 P2)`.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = f32::from_bits(0x3f31_7200);
    const LN2_LOW: f32 = f32::from_bits(0x35bf_be8e);
    const INVERSE_LN2: f32 = f32::from_bits(0x3fb8_aa3b);
    const P1: f32 = f32::from_bits(0x3e2a_aa8f);
    const P2: f32 = f32::from_bits(0xbb35_5215);
    const HALF_LN2: f32 = f32::from_bits(0x3eb1_7218);
    const LN2_AND_A_HALF: f32 = f32::from_bits(0x3f85_1592);
    /// From here on the result is less than half of the smallest number.
    const NOTHING: f32 = f32::from_bits(0xc2cf_f1b5);
    const TINY: f32 = f32::from_bits(0x3900_0000);

    // Where this changes `x`, the result is chosen at the end.
    let held = if x > -104.0 { x } else { -104.0 };
    let size = held.abs();
    let far = INVERSE_LN2 * held - 0.5;
    // SAFETY: `held` is within -104..=0 if `x` is not positive, and never NaN; if it is positive by
    // mistake, it is at most the largest float, and `min` keeps the product within 32 bits.
    let far: i32 = unsafe { far.min(1e9).to_int_unchecked() };
    let near = if size > HALF_LN2 { -1 } else { 0 };
    let k = if size > LN2_AND_A_HALF { far } else { near };
    let (high, low) = (held - k as f32 * LN2_HIGH, k as f32 * LN2_LOW);
    let r = high - low;
    let squared = r * r;
    let c = r - squared * (P1 + squared * P2);
    let y = 1.0 + (r * c / (2.0 - c) - low + high);
    // Two steps, of which the first is exact: subnormal results round once.
    let power = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    let y = y * power(k / 2) * power(k - k / 2);
    let y = if size > TINY { y } else { 1.0 + held };
    let y = if x > NOTHING { y } else { 0.0 };
    if x.is_nan() { x } else { y }
}

#[inline(always)]
fn exp_all(values: &mut [f32]) {
    values.iter_mut().for_each(|x| *x = exp(*x));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn exp_avx2(values: &mut [f32]) {
    exp_all(values);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn exp_avx512(values: &mut [f32]) {
    exp_all(values);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_the_librarys() {
        // Every 251st float from -0.0 to -infinity, and NaN; around each border one by one.
        let borders =
            [0x3eb1_7218, 0x3f85_1592, 0x42cf_f1b5, 0x42ae_ac50, 0x3900_0000, 0x7f80_0000];
        let around = borders.into_iter().flat_map(|bits: u32| bits - 300..bits + 300);
        let bits: Vec<u32> = (0..0x7f80_0000u32).step_by(251).chain(around).collect();
        for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
            for bits in bits.chunks(4096) {
                let x: Vec<f32> = bits.iter().map(|&bits| -f32::from_bits(bits)).collect();
                let mut y = x.clone();
                // SAFETY: the instruction set was asked for.
                unsafe { (kernel.entry)(&mut y) }
                for (&x, y) in x.iter().zip(y) {
                    assert_eq!(y.to_bits(), libm::expf(x).to_bits(), "{x} {}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn rows_by_hand() {
        for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_supported()) {
            let mut y = [0.0; 6];
            softmax_f32(&[1., 2., 3., 0., f32::NEG_INFINITY, 0.], 3, &mut y, isa);
            let want = [0.090_030_57, 0.244_728_48, 0.665_240_94, 0.5, 0.0, 0.5];
            assert!(
                y.iter().zip(want).all(|(y, want): (&f32, f32)| (y - want).abs() < 1e-7),
                "{y:?}"
            );
            softmax_f32(&[1., f32::NAN, 3., f32::INFINITY, 0., 1.], 3, &mut y, isa);
            assert!(y.iter().all(|y| y.is_nan()), "{y:?}");
            softmax_f32(&[], 3, &mut [], isa);
            // Reals 0, 0, 1: e^0 / (2 + e) = 0.2119, 0.5761, times 256 = 54.3, 147.5 (147.489).
            let params = SoftmaxU8Params {
                input_scale: 0.1,
                input_zero_point: 5,
                output_scale: 1.0 / 256.0,
                output_zero_point: 0,
            };
            let mut y = [0; 3];
            softmax_u8(&params, &[5, 5, 15], 3, &mut y, isa);
            assert_eq!(y, [54, 54, 147]);
        }
    }

    #[test]
    fn every_kernel_gives_the_same_bits() {
        for len in [1, 2, 3, 21, 1000, 3000] {
            let x: Vec<f32> =
                (0..len * 7).map(|i| (i * i * 37 % 1009) as f32 * 0.3 - 150.0).collect();
            let run = |isa: Isa| {
                let mut y = vec![0.0; x.len()];
                softmax_f32(&x, len, &mut y, isa);
                y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_supported()) {
                assert_eq!(run(isa), run(Isa::Scalar), "{len} {}", isa.name());
            }
        }
    }
}
