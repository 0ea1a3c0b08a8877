//! The scalar 8-bit convolution: the definition that every other kernel equals.

use std::cell::RefCell;

use crate::ConvShape;
use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::requantize::requantize;
use crate::window::{Window, tap_offsets};

/// Weights in the order in which inputs lie in memory.
#[derive(Debug)]
pub(crate) struct ScalarConv {
    shape: ConvShape,
    /// `[out_c, taps, group_in]`; of a depthwise convolution, `[taps, channels]`.
    weights: Vec<i16>,
    bias: Vec<i32>,
    multipliers: Vec<f32>,
    /// One pixel of padding.
    padding: Vec<u8>,
    offsets: Vec<usize>,
    output_zero_point: u8,
}

/// Stands for the padding among the offsets of taps.
const PADDING: usize = usize::MAX;

thread_local! {
    /// The offsets of one window's taps, and the sums of its channels; reused from call to call.
    static SCRATCH: RefCell<(Vec<usize>, Vec<i32>)> = RefCell::default();
}

impl ScalarConv {
    pub(crate) fn new(params: &ConvU8Params) -> Self {
        let shape = params.shape;
        let per_output = shape.taps() * shape.group_in();
        let mut weights = vec![0; shape.weight_len()];
        let mut row = vec![0; per_output];
        for out in 0..shape.out_c {
            params.weights_of(out, &mut row);
            if shape.is_depthwise() {
                let column = weights.iter_mut().skip(out).step_by(shape.out_c);
                column.zip(&row).for_each(|(to, &weight)| *to = weight);
            } else {
                weights[out * per_output..][..per_output].copy_from_slice(&row);
            }
        }
        ScalarConv {
            shape,
            weights,
            bias: params.folded_bias(),
            multipliers: params.multipliers.to_vec(),
            padding: vec![params.input_zero_point; shape.in_c],
            offsets: tap_offsets(&shape),
            output_zero_point: params.output_zero_point,
        }
    }

    /// Sums up one window of a depthwise convolution, channel by channel.
    fn depthwise(&self, input: &[u8], taps: &[usize], sums: &mut [i32]) {
        let channels = self.shape.in_c;
        for (&offset, weights) in taps.iter().zip(self.weights.chunks_exact(channels)) {
            let codes = self.pixel(input, offset);
            for ((sum, &x), &w) in sums.iter_mut().zip(codes).zip(weights) {
                *sum = sum.wrapping_add(i32::from(x) * i32::from(w));
            }
        }
    }

    /// Sums up one window, output channel by output channel.
    fn dense(&self, input: &[u8], taps: &[usize], sums: &mut [i32]) {
        let (group_in, group_out) = (self.shape.group_in(), self.shape.group_out());
        let weights = self.weights.chunks_exact((taps.len() * group_in).max(1));
        for (out, (sum, weights)) in sums.iter_mut().zip(weights).enumerate() {
            let first = out / group_out * group_in;
            for (&offset, weights) in taps.iter().zip(weights.chunks_exact(group_in)) {
                let codes = &self.pixel(input, offset)[first..][..group_in];
                for (&x, &w) in codes.iter().zip(weights) {
                    *sum = sum.wrapping_add(i32::from(x) * i32::from(w));
                }
            }
        }
    }

    fn pixel<'a>(&'a self, input: &'a [u8], offset: usize) -> &'a [u8] {
        match offset {
            PADDING => &self.padding,
            offset => &input[offset..][..self.shape.in_c],
        }
    }
}

impl PackedConv for ScalarConv {
    unsafe fn run(&self, input: &[u8], part: Part, output: *mut u8, stride: usize) {
        let shape = &self.shape;
        debug_assert_eq!(part.channels.len(), shape.out_c);
        let mut window = Window::new(shape, part.pixels.start);
        SCRATCH.with_borrow_mut(|(taps, sums)| {
            for pixel in 0..part.pixels.len() {
                // SAFETY: the part holds all channels of its pixels, which the caller lets us write.
                let row = unsafe {
                    std::slice::from_raw_parts_mut(output.add(pixel * stride), shape.out_c)
                };
                taps.clear();
                match window.inside(shape, 1) {
                    Some(first) => taps.extend(self.offsets.iter().map(|offset| first + offset)),
                    None => {
                        window.for_each_tap(shape, |_, offset| taps.push(offset.unwrap_or(PADDING)))
                    }
                }
                window.advance(shape, 1);
                sums.clear();
                sums.extend_from_slice(&self.bias);
                match shape.is_depthwise() {
                    true => self.depthwise(input, taps, sums),
                    false => self.dense(input, taps, sums),
                }
                for ((code, &sum), &multiplier) in row.iter_mut().zip(&*sums).zip(&self.multipliers)
                {
                    *code = requantize(sum, multiplier, self.output_zero_point);
                }
            }
        });
    }
}
