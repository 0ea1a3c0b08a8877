//! Float arithmetic element by element.
//!
//! Each loop is written once and compiled twice: plainly, and with AVX2 enabled so that the
//! compiler vectorises it. No operation is reordered or contracted, hence equal bits.

use crate::Isa;
use crate::conv_f32::clamp;

/// A function of two floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryF32 {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller; NaN if either is NaN; `b` if they are equal.
    Min,
    /// The larger; NaN if either is NaN; `b` if they are equal.
    Max,
}

/// One side of a binary function, of as many elements as the output or repeated to be so.
#[derive(Clone, Copy, Debug)]
pub enum OperandF32<'a> {
    /// As long as the output.
    Full(&'a [f32]),
    /// The same value everywhere.
    Scalar(f32),
    /// A row that repeats: the output is whole rows of this length.
    Row(&'a [f32]),
}

/// `output[i] = clamp(op(a[i], b[i]))`, where `clamp` holds results between two bounds and lets a
/// NaN through; `(-inf, inf)` is none.
///
/// # Panics
/// If an operand does not fit the output's length.
pub fn binary_f32(
    op: BinaryF32,
    a: OperandF32,
    b: OperandF32,
    clamp: (f32, f32),
    output: &mut [f32],
    isa: Isa,
) {
    for operand in [a, b] {
        match operand {
            OperandF32::Full(values) => assert_eq!(values.len(), output.len(), "operand length"),
            OperandF32::Row(row) => {
                let whole = !row.is_empty() && output.len().is_multiple_of(row.len());
                assert!(whole || output.is_empty(), "{} in rows of {}", output.len(), row.len());
            }
            OperandF32::Scalar(_) => {}
        }
    }
    if output.is_empty() {
        return;
    }
    let row = |operand| match operand {
        OperandF32::Row(row) => row.len(),
        _ => usize::MAX,
    };
    // Between rows of two lengths, the shorter is a part of the longer only by chance.
    let chunk = row(a).min(row(b)).min(output.len());
    let equal = [row(a), row(b)].into_iter().all(|len| len == usize::MAX || len == chunk);
    assert!(equal, "rows of {} and {}", row(a), row(b));
    dispatch(isa, BinaryLoop { op, a, b, clamp, chunk }, output);
}

/// Makes real numbers of the sums of a product, in place: `values` hold the bits of `i32` sums, and become
/// `sum as f32 * scale[c] + bias[c]` held between the bounds of `clamp`, every step rounded. `c` is the place modulo the
/// row's length; `scale` and `bias` are one number or a row, and no bias is added where it is empty.
///
/// # Panics
/// If `scale` is empty, rows differ in length, or `values` are not whole rows.
pub fn scale_sums(values: &mut [f32], scale: &[f32], bias: &[f32], clamp: (f32, f32), isa: Isa) {
    let row = scale.len().max(bias.len());
    let fits = |len: usize| len == 1 || len == row;
    assert!(fits(scale.len()) && (bias.is_empty() || fits(bias.len())), "rows of a scale and bias");
    assert_eq!(values.len() % row, 0, "whole rows");
    dispatch(isa, ScaleLoop { row, scale, bias, clamp }, values);
}

struct ScaleLoop<'a> {
    row: usize,
    scale: &'a [f32],
    bias: &'a [f32],
    clamp: (f32, f32),
}

impl Loop<f32> for ScaleLoop<'_> {
    #[inline(always)]
    fn run(self, output: &mut [f32]) {
        let bounds = self.clamp;
        let real = |bits: f32, scale: f32| bits.to_bits().cast_signed() as f32 * scale;
        match (self.scale, self.bias) {
            (&[scale], []) => {
                output.iter_mut().for_each(|y| *y = clamp(real(*y, scale), bounds));
            }
            (&[scale], &[bias]) => {
                output.iter_mut().for_each(|y| *y = clamp(real(*y, scale) + bias, bounds));
            }
            (&[scale], bias) => {
                for output in output.chunks_exact_mut(self.row) {
                    for (y, bias) in output.iter_mut().zip(bias) {
                        *y = clamp(real(*y, scale) + bias, bounds);
                    }
                }
            }
            (scale, []) => {
                for output in output.chunks_exact_mut(self.row) {
                    for (y, &scale) in output.iter_mut().zip(scale) {
                        *y = clamp(real(*y, scale), bounds);
                    }
                }
            }
            (scale, &[bias]) => {
                for output in output.chunks_exact_mut(self.row) {
                    for (y, &scale) in output.iter_mut().zip(scale) {
                        *y = clamp(real(*y, scale) + bias, bounds);
                    }
                }
            }
            (scale, bias) => {
                for output in output.chunks_exact_mut(self.row) {
                    for (y, (&scale, bias)) in output.iter_mut().zip(scale.iter().zip(bias)) {
                        *y = clamp(real(*y, scale) + bias, bounds);
                    }
                }
            }
        }
    }
}

/// `output[i] = input[i]` held between the bounds; Relu is `(0.0, inf)`. A NaN passes through, as
/// does `-0.0` at a bound of `0.0`.
///
/// # Panics
/// If the lengths differ.
pub fn clamp_f32(input: &[f32], bounds: (f32, f32), output: &mut [f32], isa: Isa) {
    assert_eq!(input.len(), output.len(), "input length");
    dispatch(isa, ClampLoop { input, bounds }, output);
}

/// A loop over one output, compiled once for each instruction set.
pub(crate) trait Loop<T> {
    /// Must be `#[inline(always)]`, as everything it calls in its loops.
    fn run(self, output: &mut [T]);
}

/// Runs the loop compiled for `isa`, or plainly where this CPU lacks it.
#[inline]
pub(crate) fn dispatch<T, L: Loop<T>>(isa: Isa, work: L, output: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 && Isa::Avx2.is_supported() {
        // SAFETY: checked on the line above.
        return unsafe { run_avx2(work, output) };
    }
    let _ = isa;
    work.run(output);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<T, L: Loop<T>>(work: L, output: &mut [T]) {
    work.run(output);
}

struct ClampLoop<'a> {
    input: &'a [f32],
    bounds: (f32, f32),
}

impl Loop<f32> for ClampLoop<'_> {
    #[inline(always)]
    fn run(self, output: &mut [f32]) {
        for (output, &value) in output.iter_mut().zip(self.input) {
            *output = clamp(value, self.bounds);
        }
    }
}

struct BinaryLoop<'a> {
    op: BinaryF32,
    a: OperandF32<'a>,
    b: OperandF32<'a>,
    clamp: (f32, f32),
    /// The length of a row, or all.
    chunk: usize,
}

impl Loop<f32> for BinaryLoop<'_> {
    #[inline(always)]
    fn run(self, output: &mut [f32]) {
        match self.op {
            BinaryF32::Add => self.each(output, |a, b| a + b),
            BinaryF32::Sub => self.each(output, |a, b| a - b),
            BinaryF32::Mul => self.each(output, |a, b| a * b),
            BinaryF32::Div => self.each(output, |a, b| a / b),
            BinaryF32::Min => self.each(output, |a, b| {
                let least = if a < b { a } else { b };
                if a.is_nan() { a } else { least }
            }),
            BinaryF32::Max => self.each(output, |a, b| {
                let greatest = if a > b { a } else { b };
                if a.is_nan() { a } else { greatest }
            }),
        }
    }
}

impl BinaryLoop<'_> {
    #[inline(always)]
    fn each(self, output: &mut [f32], f: impl Fn(f32, f32) -> f32) {
        use OperandF32::{Full, Row, Scalar};
        let bounds = self.clamp;
        for (index, output) in output.chunks_exact_mut(self.chunk).enumerate() {
            let part = |operand| match operand {
                Full(values) => Full(&values[index * self.chunk..][..self.chunk]),
                Row(row) => Full(row),
                Scalar(value) => Scalar(value),
            };
            match (part(self.a), part(self.b)) {
                (Full(a) | Row(a), Full(b) | Row(b)) => {
                    for (output, (&a, &b)) in output.iter_mut().zip(a.iter().zip(b)) {
                        *output = clamp(f(a, b), bounds);
                    }
                }
                (Full(a) | Row(a), Scalar(b)) => {
                    for (output, &a) in output.iter_mut().zip(a) {
                        *output = clamp(f(a, b), bounds);
                    }
                }
                (Scalar(a), Full(b) | Row(b)) => {
                    for (output, &b) in output.iter_mut().zip(b) {
                        *output = clamp(f(a, b), bounds);
                    }
                }
                (Scalar(a), Scalar(b)) => output.fill(clamp(f(a, b), bounds)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

    fn bits(values: &[f32]) -> Vec<u32> {
        // Payloads of NaNs are not defined.
        values.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
    }

    fn isas() -> impl Iterator<Item = Isa> {
        Isa::ALL.iter().copied().filter(|isa| isa.is_supported())
    }

    #[test]
    fn binary_worked_by_hand() {
        use BinaryF32::*;
        use OperandF32::*;
        let a = [1.0, -2.0, f32::NAN, 4.0, -0.0, 6.0];
        let b = [0.5, f32::NAN, 3.0, -8.0, 0.0, 6.0];
        let nan = f32::NAN;
        let row = [10.0, 20.0];
        let relu = (0.0, f32::INFINITY);
        type Case<'a> = (BinaryF32, OperandF32<'a>, OperandF32<'a>, (f32, f32), [f32; 6]);
        let cases: &[Case] = &[
            (Add, Full(&a), Full(&b), NONE, [1.5, nan, nan, -4.0, 0.0, 12.0]),
            (Add, Full(&a), Full(&b), relu, [1.5, nan, nan, 0.0, 0.0, 12.0]),
            (Sub, Full(&a), Full(&b), NONE, [0.5, nan, nan, 12.0, -0.0, 0.0]),
            (Mul, Full(&a), Full(&b), NONE, [0.5, nan, nan, -32.0, -0.0, 36.0]),
            (Div, Full(&a), Full(&b), NONE, [2.0, nan, nan, -0.5, nan, 1.0]),
            (Min, Full(&a), Full(&b), NONE, [0.5, nan, nan, -8.0, 0.0, 6.0]),
            (Max, Full(&a), Full(&b), NONE, [1.0, nan, nan, 4.0, 0.0, 6.0]),
            (Add, Full(&a), Row(&row), NONE, [11.0, 18.0, nan, 24.0, 10.0, 26.0]),
            (Sub, Row(&row), Full(&a), NONE, [9.0, 22.0, nan, 16.0, 10.0, 14.0]),
            (Div, Full(&a), Scalar(2.0), NONE, [0.5, -1.0, nan, 2.0, -0.0, 3.0]),
            (Sub, Scalar(1.0), Full(&a), (-3.0, 3.0), [0.0, 3.0, nan, -3.0, 1.0, -3.0]),
            (Mul, Row(&row), Scalar(2.0), NONE, [20.0, 40.0, 20.0, 40.0, 20.0, 40.0]),
        ];
        for isa in isas() {
            for (op, a, b, clamp, expected) in cases {
                let mut output = [7.0; 6];
                binary_f32(*op, *a, *b, *clamp, &mut output, isa);
                assert_eq!(bits(&output), bits(expected), "{op:?} {a:?} {b:?} {isa:?}");
            }
        }
    }

    #[test]
    fn long_slices_agree_with_the_formula() {
        let value = |i: usize, step: f32| if i % 13 == 5 { f32::NAN } else { i as f32 * step };
        for len in [1, 7, 8, 31, 64, 100] {
            let a: Vec<f32> = (0..len).map(|i| value(i, 0.37)).collect();
            let b: Vec<f32> = (0..len).map(|i| value(i + 3, -0.11)).collect();
            let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            let relu6: Vec<f32> = a.iter().map(|v| v.clamp(0.0, 6.0)).collect();
            for isa in isas() {
                let mut output = vec![0.0; len];
                let (a, b) = (OperandF32::Full(&a), OperandF32::Full(&b));
                binary_f32(BinaryF32::Add, a, b, NONE, &mut output, isa);
                assert_eq!(bits(&output), bits(&sum), "{len} {isa:?}");
                let OperandF32::Full(a) = a else { unreachable!() };
                clamp_f32(a, (0.0, 6.0), &mut output, isa);
                assert_eq!(bits(&output), bits(&relu6), "{len} {isa:?}");
            }
        }
    }

    #[test]
    fn relu_keeps_nan() {
        for isa in isas() {
            let mut output = [1.0; 4];
            clamp_f32(&[f32::NAN, -1.0, 2.0, -0.0], (0.0, f32::INFINITY), &mut output, isa);
            assert_eq!(bits(&output), bits(&[f32::NAN, 0.0, 2.0, -0.0]));
        }
    }

    #[test]
    #[should_panic(expected = "rows of")]
    fn a_row_that_does_not_divide_is_refused() {
        let (a, b) = (OperandF32::Scalar(0.0), OperandF32::Row(&[1.0, 2.0]));
        binary_f32(BinaryF32::Add, a, b, NONE, &mut [0.0; 5], Isa::Scalar);
    }

    #[test]
    fn sums_are_scaled_step_by_step() {
        // The second is not a float: 16,777,217 becomes 16,777,216.
        let sums = [3, 16_777_217, -5, i32::MIN, 7, 0];
        let (row, bias) = ([0.5f32, 0.1], [0.25f32, -1.0]);
        let all = (f32::NEG_INFINITY, f32::INFINITY);
        type Case<'a> = (&'a [f32], &'a [f32], (f32, f32), [f32; 6]);
        let cases: [Case; 6] = [
            (&row[..1], &[], all, [1.5, 8_388_608.0, -2.5, -1_073_741_824.0, 3.5, 0.0]),
            (&row[..1], &bias[..1], (0.0, 4.0), [1.75, 4.0, 0.0, 0.0, 3.75, 0.25]),
            (&row[..1], &bias, (0.0, 4.0), [1.75, 4.0, 0.0, 0.0, 3.75, 0.0]),
            (&row, &[], (-9.0, 9.0), [1.5, 9.0, -2.5, -9.0, 3.5, 0.0]),
            (&row, &bias[..1], (-9.0, 9.0), [1.75, 9.0, -2.25, -9.0, 3.75, 0.25]),
            (&row, &bias, (-9.0, 9.0), [1.75, 9.0, -2.25, -9.0, 3.75, -1.0]),
        ];
        for &isa in Isa::ALL {
            for (scale, bias, clamp, want) in cases {
                let mut values = sums.map(|sum: i32| f32::from_bits(sum.cast_unsigned()));
                scale_sums(&mut values, scale, bias, clamp, isa);
                assert_eq!(values, want, "{isa:?} {scale:?} {bias:?}");
            }
        }
    }
}
