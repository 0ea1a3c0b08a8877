//! ReduceMin: the smallest over some axes. Tests stand in `reduce.rs`.

use super::reduce::reduction;
use super::*;

reduction! {
    /// ONNX ReduceMin: the smallest over constant axes.
    ReduceMin,
    18,
    false,
    reduce::Steps {
        start: (f32::INFINITY, i64::MAX),
        real: |a, b| if b < a || b.is_nan() { b } else { a },
        integer: |a, b| a.min(b),
        end: (|y| y, |y| y),
    }
}
