//! ReduceL1: the sum of absolute values over some axes. Tests stand in `reduce.rs`.

use super::reduce::reduction;
use super::*;

reduction! {
    /// ONNX ReduceL1: the sum of absolute values over constant axes.
    ReduceL1,
    18,
    true,
    reduce::Steps {
        start: (0.0, 0),
        real: |a, b| a + b.abs(),
        integer: |a, b| a.wrapping_add(b.wrapping_abs()),
        end: (|y| y, |y| y),
    }
}
