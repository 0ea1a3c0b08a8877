//! The scalar 8-bit convolution: the definition that every other kernel equals.

use std::ops::Range;

use crate::ConvShape;
use crate::conv_u8::{ConvU8Params, PackedConv};
use crate::requantize::requantize;

/// Weights as `[out_c, taps, group_in]`, so that a tap's products run along contiguous channels.
#[derive(Debug)]
pub(crate) struct ScalarConv {
    shape: ConvShape,
    weights: Vec<i16>,
    bias: Vec<i32>,
    multipliers: Vec<f32>,
    padding: Vec<u8>,
    output_zero_point: u8,
}

impl ScalarConv {
    pub(crate) fn new(params: &ConvU8Params) -> Self {
        let shape = params.shape;
        let mut weights = Vec::with_capacity(shape.weight_len());
        for out in 0..shape.out_c {
            for tap in 0..shape.taps() {
                weights.extend((0..shape.group_in()).map(|c| params.weight(out, c, tap)));
            }
        }
        ScalarConv {
            shape,
            weights,
            bias: params.folded_bias(),
            multipliers: params.multipliers.to_vec(),
            padding: vec![params.input_zero_point; shape.group_in()],
            output_zero_point: params.output_zero_point,
        }
    }
}

impl PackedConv for ScalarConv {
    fn run(&self, input: &[u8], pixels: Range<usize>, output: &mut [u8]) {
        let shape = &self.shape;
        let (group_in, group_out) = (shape.group_in(), shape.group_out());
        for (pixel, row) in pixels.zip(output.chunks_exact_mut(shape.out_c)) {
            for (out, code) in row.iter_mut().enumerate() {
                let first_channel = out / group_out * group_in;
                let weights = &self.weights[out * shape.taps() * group_in..];
                let mut acc = self.bias[out];
                for tap in 0..shape.taps() {
                    let channels = match tap_offset(shape, pixel, tap) {
                        Some(offset) => &input[offset + first_channel..][..group_in],
                        None => &self.padding,
                    };
                    let weights = &weights[tap * group_in..][..group_in];
                    for (&x, &w) in channels.iter().zip(weights) {
                        acc = acc.wrapping_add(i32::from(x) * i32::from(w));
                    }
                }
                *code = requantize(acc, self.multipliers[out], self.output_zero_point);
            }
        }
    }
}

/// Where the input pixel under tap `tap` of output pixel `pixel` begins, or `None` in the padding.
pub(crate) fn tap_offset(shape: &ConvShape, pixel: usize, tap: usize) -> Option<usize> {
    let (image, rest) = (pixel / (shape.out_h * shape.out_w), pixel % (shape.out_h * shape.out_w));
    let (y, x) = (rest / shape.out_w, rest % shape.out_w);
    let (tap_y, tap_x) = (tap / shape.kernel_w, tap % shape.kernel_w);
    let in_y = (y * shape.stride_h + tap_y * shape.dilation_h).checked_sub(shape.pad_top)?;
    let in_x = (x * shape.stride_w + tap_x * shape.dilation_w).checked_sub(shape.pad_left)?;
    (in_y < shape.in_h && in_x < shape.in_w)
        .then(|| ((image * shape.in_h + in_y) * shape.in_w + in_x) * shape.in_c)
}
