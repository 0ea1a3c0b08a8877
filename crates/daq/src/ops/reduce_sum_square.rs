//! ReduceSumSquare: the sum of squares over some axes. Tests stand in `reduce.rs`.

use super::reduce::reduction;
use super::*;

reduction! {
    /// ONNX ReduceSumSquare: the sum of squares over constant axes.
    ReduceSumSquare,
    18,
    true,
    reduce::Steps {
        start: (0.0, 0),
        real: |a, b| a + b * b,
        integer: |a, b| a.wrapping_add(b.wrapping_mul(b)),
        end: (|y| y, |y| y),
    }
}
