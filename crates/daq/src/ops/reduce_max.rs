//! ReduceMax: the largest over some axes. Tests stand in `reduce.rs`.

use super::reduce::reduction;
use super::*;

reduction! {
    /// ONNX ReduceMax: the largest over constant axes.
    ReduceMax,
    18,
    false,
    reduce::Steps {
        start: (f32::NEG_INFINITY, i64::MIN),
        real: |a, b| if b > a || b.is_nan() { b } else { a },
        integer: |a, b| a.max(b),
        end: (|y| y, |y| y),
    }
}
