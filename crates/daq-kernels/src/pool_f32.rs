//! Float pooling over channels-last data.
//!
//! A window's pixels are visited row by row, all channels at once: the order of a sum is the same
//! on every CPU, and the loop over the channels vectorises.

use crate::conv_f32::{PixelWalk, check_run, check_shape};
use crate::elementwise_f32::{Loop, dispatch};
use crate::{ConvShape, Isa};
use std::ops::Range;

/// The greatest value of each window. Padding takes no part; a NaN in the window is the result; a
/// window without any input pixel gives `-inf`.
#[derive(Clone, Copy, Debug)]
pub struct MaxPoolF32 {
    shape: ConvShape,
    isa: Isa,
}

impl MaxPoolF32 {
    /// Pooling of that geometry, where `groups = in_c = out_c`.
    ///
    /// # Panics
    /// If `groups`, `in_c` and `out_c` differ or the sizes overflow.
    pub fn new(shape: &ConvShape, isa: Isa) -> Self {
        check_pool(shape);
        MaxPoolF32 { shape: *shape, isa }
    }

    /// Computes the output pixels `pixels`, counted over `batch * out_h * out_w`, from the whole
    /// input; `output` holds exactly those.
    ///
    /// # Panics
    /// If the lengths or the range do not match the shape.
    pub fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]) {
        check_run(&self.shape, input, &pixels, output);
        let fold = |acc: &mut f32, value: f32| {
            let keep = *acc >= value || acc.is_nan();
            *acc = if keep { *acc } else { value };
        };
        let finish = |_: &mut [f32], _: usize| {};
        let work = Windows {
            shape: &self.shape,
            input,
            first: pixels.start,
            start: f32::NEG_INFINITY,
            fold,
            finish,
        };
        dispatch(self.isa, work, output);
    }
}

/// The mean of each window: the sum from `0.0` on, row by row, divided by the number of pixels.
#[derive(Clone, Copy, Debug)]
pub struct AveragePoolF32 {
    shape: ConvShape,
    count_include_pad: bool,
    isa: Isa,
}

impl AveragePoolF32 {
    /// Pooling of that geometry, where `groups = in_c = out_c`. With `count_include_pad` the
    /// divisor is always `kernel_h * kernel_w`, else the number of the window's pixels that lie
    /// inside the input.
    ///
    /// # Panics
    /// If `groups`, `in_c` and `out_c` differ or the sizes overflow.
    pub fn new(shape: &ConvShape, count_include_pad: bool, isa: Isa) -> Self {
        check_pool(shape);
        AveragePoolF32 { shape: *shape, count_include_pad, isa }
    }

    /// As [`MaxPoolF32::run`].
    ///
    /// # Panics
    /// If the lengths or the range do not match the shape.
    pub fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]) {
        check_run(&self.shape, input, &pixels, output);
        let all = self.count_include_pad.then_some(self.shape.taps());
        let finish = move |sums: &mut [f32], count: usize| {
            let count = all.unwrap_or(count) as f32;
            for sum in sums {
                *sum /= count;
            }
        };
        let fold = |acc: &mut f32, value: f32| *acc += value;
        let work =
            Windows { shape: &self.shape, input, first: pixels.start, start: 0.0, fold, finish };
        dispatch(self.isa, work, output);
    }
}

/// The mean of each picture's channels: an average pool whose window is the whole picture.
#[derive(Clone, Copy, Debug)]
pub struct GlobalAveragePoolF32(AveragePoolF32);

impl GlobalAveragePoolF32 {
    /// Pooling of `batch` pictures of `in_h` rows, `in_w` columns and `in_c` channels; the other
    /// fields of the shape do not matter.
    ///
    /// # Panics
    /// If the sizes overflow.
    pub fn new(shape: &ConvShape, isa: Isa) -> Self {
        let window = ConvShape {
            out_h: 1,
            out_w: 1,
            out_c: shape.in_c,
            groups: shape.in_c,
            kernel_h: shape.in_h,
            kernel_w: shape.in_w,
            ..ConvShape::gemm(1, 1, 1)
        };
        let ConvShape { batch, in_h, in_w, in_c, .. } = *shape;
        let shape = ConvShape { batch, in_h, in_w, in_c, ..window };
        GlobalAveragePoolF32(AveragePoolF32::new(&shape, false, isa))
    }

    /// Computes the pictures `pictures` of the batch; `output` holds `in_c` values for each.
    ///
    /// # Panics
    /// If the lengths or the range do not match the shape.
    pub fn run(&self, input: &[f32], pictures: Range<usize>, output: &mut [f32]) {
        self.0.run(input, pictures, output);
    }
}

fn check_pool(shape: &ConvShape) {
    let channels = shape.groups == shape.in_c && shape.in_c == shape.out_c;
    assert!(channels, "pooling has as many groups as channels: {shape:?}");
    check_shape(&ConvShape { groups: 1, in_c: 1, out_c: 1, ..*shape });
    check_shape(&ConvShape { kernel_h: 1, kernel_w: 1, ..*shape });
}

/// All windows of some output pixels.
struct Windows<'a, F, G> {
    shape: &'a ConvShape,
    input: &'a [f32],
    first: usize,
    /// What an output begins as.
    start: f32,
    /// Takes one value of the window into an output.
    fold: F,
    /// Ends a pixel that took in so many input pixels.
    finish: G,
}

impl<F: Fn(&mut f32, f32), G: Fn(&mut [f32], usize)> Loop<f32> for Windows<'_, F, G> {
    #[inline(always)]
    fn run(self, output: &mut [f32]) {
        let shape = self.shape;
        if output.is_empty() {
            return;
        }
        let mut at = PixelWalk::new(shape, self.first);
        for pixel in output.chunks_exact_mut(shape.out_c) {
            pixel.fill(self.start);
            let mut count = 0;
            for ky in 0..shape.kernel_h {
                for kx in 0..shape.kernel_w {
                    let Some(start) = at.tap(shape, ky, kx) else { continue };
                    count += 1;
                    for (acc, &value) in pixel.iter_mut().zip(&self.input[start..]) {
                        (self.fold)(acc, value);
                    }
                }
            }
            (self.finish)(pixel, count);
            at.step(shape);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{Random, isas, random_shape, same_bits};

    #[test]
    fn pools_agree_with_the_formula() {
        let mut random = Random::new(11);
        for _ in 0..400 {
            let mut shape = random_shape(&mut random);
            shape.groups = 1 + random.below(40);
            (shape.in_c, shape.out_c) = (shape.groups, shape.groups);
            let input = random.floats(shape.input_len());
            let start = random.below(shape.pixels() + 1);
            let end = start + random.below(shape.pixels() - start + 1);
            let include = random.below(2) == 0;
            let mut expected_max = Vec::new();
            let mut expected_mean = Vec::new();
            for pixel in start..end {
                let (y, x) = (pixel / shape.out_w % shape.out_h, pixel % shape.out_w);
                let n = pixel / shape.out_w / shape.out_h;
                for c in 0..shape.in_c {
                    let (mut max, mut sum, mut count) = (f32::NEG_INFINITY, 0.0f64, 0);
                    for ky in 0..shape.kernel_h {
                        for kx in 0..shape.kernel_w {
                            let iy = (y * shape.stride_h + ky * shape.dilation_h) as i64
                                - shape.pad_top as i64;
                            let ix = (x * shape.stride_w + kx * shape.dilation_w) as i64
                                - shape.pad_left as i64;
                            let rows = 0..shape.in_h as i64;
                            let columns = 0..shape.in_w as i64;
                            if rows.contains(&iy) && columns.contains(&ix) {
                                let row = n * shape.in_h + iy as usize;
                                let at = (row * shape.in_w + ix as usize) * shape.in_c + c;
                                max = max.max(input[at]);
                                sum += f64::from(input[at]);
                                count += 1;
                            }
                        }
                    }
                    expected_max.push(max);
                    expected_mean.push(sum / if include { shape.taps() } else { count } as f64);
                }
            }
            let mut scalar_mean = Vec::new();
            for isa in isas() {
                let mut output = vec![9.0; (end - start) * shape.out_c];
                MaxPoolF32::new(&shape, isa).run(&input, start..end, &mut output);
                assert_eq!(output, expected_max, "{isa:?} {shape:?}");
                AveragePoolF32::new(&shape, include, isa).run(&input, start..end, &mut output);
                for (&mean, &expected) in output.iter().zip(&expected_mean) {
                    let close = (f64::from(mean) - expected).abs() < 1e-5;
                    assert!(close || mean.is_nan() && expected.is_nan(), "{mean} {expected}");
                }
                if isa == Isa::Scalar {
                    scalar_mean.clone_from(&output);
                }
                assert!(same_bits(&output, &scalar_mean), "{isa:?} {shape:?}");
            }
        }
    }

    #[test]
    fn global_average_by_hand_and_nan_in_max() {
        let shape = ConvShape { batch: 2, in_w: 3, in_c: 2, ..ConvShape::gemm(1, 1, 1) };
        let input = [1.0, 10.0, 2.0, 20.0, 6.0, 60.0, 0.0, -1.0, 0.0, -1.0, 3.0, -4.0];
        for isa in isas() {
            let mut output = [0.0; 4];
            GlobalAveragePoolF32::new(&shape, isa).run(&input, 0..2, &mut output);
            assert_eq!(output, [3.0, 30.0, 1.0, -2.0]);
            let window = ConvShape { in_w: 3, kernel_w: 3, ..ConvShape::gemm(1, 1, 1) };
            let mut output = [0.0];
            MaxPoolF32::new(&window, isa).run(&[1.0, f32::NAN, 2.0], 0..1, &mut output);
            assert!(output[0].is_nan());
        }
    }
}
