//! ReduceSum: the sum over some axes. Tests stand in `reduce.rs`.

use super::reduce::reduction;
use super::*;

reduction! {
    /// ONNX ReduceSum: the sum over constant axes.
    ReduceSum,
    13,
    true,
    reduce::Steps {
        start: (0.0, 0),
        real: |a, b| a + b,
        integer: i64::wrapping_add,
        end: (|y| y, |y| y),
    }
}
