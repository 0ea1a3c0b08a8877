//! The two orders in which a tensor's elements may lie in memory.

use daq_kernels::{Isa, nchw_to_nhwc, nchw_to_nhwc_u8, nhwc_to_nchw};

use crate::tensor::Tensor;

/// The order of elements. Shapes in a [`Graph`](crate::Graph) are always logical (batch,
/// channels, then space); the layout says how memory holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row-major in the logical order, as ONNX gives it (NCHW).
    #[default]
    Plain,
    /// Axis 1 moved to the end (NHWC), for tensors of rank 3 or more; the same as plain below.
    ChannelsLast,
}

/// How an operator wants its data laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutRule {
    /// Inputs and outputs are plain.
    Plain,
    /// Input 0 and all outputs are channels-last; other inputs (weights, bias) are plain.
    ChannelsLast,
    /// Works in either: every input and output has the same layout, and inputs of lower rank are
    /// padded with leading axes of 1 to the rank of the output. The operator is asked by
    /// [`Operator::to_channels_last`](crate::ops::Operator::to_channels_last) to move its axes.
    Any,
}

impl Layout {
    /// The shape that memory has, of a logical shape.
    pub fn physical(self, logical: &[usize]) -> Vec<usize> {
        let mut shape = logical.to_vec();
        if self == Layout::ChannelsLast && shape.len() >= 3 {
            let channels = shape.remove(1);
            shape.push(channels);
        }
        shape
    }

    /// The axis of memory that a logical axis lies on, for tensors of `rank`.
    pub fn physical_axis(self, axis: usize, rank: usize) -> usize {
        match (self, axis) {
            (Layout::ChannelsLast, 1) if rank >= 3 => rank - 1,
            (Layout::ChannelsLast, a) if rank >= 3 && a > 1 => a - 1,
            _ => axis,
        }
    }
}

/// Copies elements of `size` bytes from plain to channels-last order, or back.
///
/// `logical` is the logical shape; rank 3 or more.
pub(crate) fn convert(logical: &[usize], size: usize, to: Layout, input: &[u8], output: &mut [u8]) {
    use bytemuck::{cast_slice, cast_slice_mut};
    fn copy<T: Copy>(dims: (usize, usize, usize), to: Layout, input: &[T], output: &mut [T]) {
        let (batch, channels, space) = dims;
        match to {
            Layout::ChannelsLast => nchw_to_nhwc(batch, channels, space, input, output),
            Layout::Plain => nhwc_to_nchw(batch, channels, space, input, output),
        }
    }
    let dims = dims(logical);
    match (size, to) {
        (1, Layout::ChannelsLast) => nchw_to_nhwc_u8(dims, input, output, Isa::best()),
        (1, _) => copy(dims, to, input, output),
        (4, _) => copy::<u32>(dims, to, cast_slice(input), cast_slice_mut(output)),
        _ => copy::<u64>(dims, to, cast_slice(input), cast_slice_mut(output)),
    }
}

/// Batch, channels and positions in space of a logical shape of rank 3 or more.
pub(crate) fn dims(logical: &[usize]) -> (usize, usize, usize) {
    (logical[0], logical[1], logical[2..].iter().product())
}

/// A plain tensor copied to channels-last order; unchanged below rank 3.
pub fn to_channels_last(tensor: &Tensor) -> Tensor {
    relayout(tensor, tensor.shape(), Layout::ChannelsLast)
}

/// A channels-last tensor of logical shape `logical` copied to plain order.
pub fn to_plain(tensor: &Tensor, logical: &[usize]) -> Tensor {
    relayout(tensor, logical, Layout::Plain)
}

fn relayout(tensor: &Tensor, logical: &[usize], to: Layout) -> Tensor {
    if logical.len() < 3 {
        return tensor.clone();
    }
    let mut bytes = crate::tensor::AlignedBytes::zeroed(tensor.bytes().len());
    convert(logical, tensor.dtype().size(), to, tensor.bytes(), bytes.as_mut_slice());
    Tensor::from_aligned(tensor.dtype(), &to.physical(logical), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_last_and_back() {
        let plain =
            Tensor::from_slice(&[1, 2, 2, 3], &[0u8, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]);
        let last = to_channels_last(&plain);
        assert_eq!(last.shape(), [1, 2, 3, 2]);
        assert_eq!(last.data::<u8>(), [0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 5, 15]);
        assert_eq!(to_plain(&last, plain.shape()), plain);
        assert_eq!([0, 1, 2, 3].map(|a| Layout::ChannelsLast.physical_axis(a, 4)), [0, 3, 1, 2]);
    }
}
