//! The geometry that every convolution family shares.

use std::ops::Range;

/// The geometry of a 2-D convolution over channels-last data.
///
/// Activations are `[batch, height, width, channels]`; weights are given in ONNX order,
/// `[out_c, in_c / groups, kernel_h, kernel_w]`. A fully connected layer over `m` rows is the
/// convolution with `in_h = out_h = 1`, `in_w = out_w = m` and a 1x1 kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Pictures in a batch.
    pub batch: usize,
    /// Input rows.
    pub in_h: usize,
    /// Input columns.
    pub in_w: usize,
    /// Input channels, all groups together.
    pub in_c: usize,
    /// Output rows.
    pub out_h: usize,
    /// Output columns.
    pub out_w: usize,
    /// Output channels, all groups together.
    pub out_c: usize,
    /// Kernel rows.
    pub kernel_h: usize,
    /// Kernel columns.
    pub kernel_w: usize,
    /// Distance between output rows, in input rows.
    pub stride_h: usize,
    /// Distance between output columns, in input columns.
    pub stride_w: usize,
    /// Distance between kernel rows, in input rows.
    pub dilation_h: usize,
    /// Distance between kernel columns, in input columns.
    pub dilation_w: usize,
    /// Padding above the first row.
    pub pad_top: usize,
    /// Padding before the first column.
    pub pad_left: usize,
    /// Groups; `in_c` and `out_c` are multiples of it.
    pub groups: usize,
}

impl ConvShape {
    /// A fully connected layer: `m` rows of `k` inputs to `n` outputs.
    pub fn gemm(m: usize, k: usize, n: usize) -> Self {
        ConvShape {
            batch: 1,
            in_h: 1,
            in_w: m,
            in_c: k,
            out_h: 1,
            out_w: m,
            out_c: n,
            kernel_h: 1,
            kernel_w: 1,
            stride_h: 1,
            stride_w: 1,
            dilation_h: 1,
            dilation_w: 1,
            pad_top: 0,
            pad_left: 0,
            groups: 1,
        }
    }

    /// Output pixels: `batch * out_h * out_w`.
    pub fn pixels(&self) -> usize {
        self.batch * self.out_h * self.out_w
    }

    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_c / self.groups
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_c / self.groups
    }

    /// Kernel taps: `kernel_h * kernel_w`.
    pub fn taps(&self) -> usize {
        self.kernel_h * self.kernel_w
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_h * self.in_w * self.in_c
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.out_c * self.group_in() * self.taps()
    }

    /// Multiply-accumulate operations of the whole convolution.
    pub fn macs(&self) -> u64 {
        self.pixels() as u64 * self.weight_len() as u64
    }

    /// One group of one channel each way: a depthwise convolution.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.in_c && self.in_c == self.out_c && self.groups > 1
    }

    /// A 1x1 kernel of stride 1 without padding: a plain matrix product over the pixels.
    pub fn is_pointwise(&self) -> bool {
        self.taps() == 1
            && self.stride_h == 1
            && self.stride_w == 1
            && self.pad_top == 0
            && self.pad_left == 0
            && self.out_h == self.in_h
            && self.out_w == self.in_w
    }

    /// Every output pixel.
    pub fn all_pixels(&self) -> Range<usize> {
        0..self.pixels()
    }
}
