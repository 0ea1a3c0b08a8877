//! ReduceProd: the product over some axes. Tests stand in `reduce.rs`.

use super::reduce::reduction;
use super::*;

reduction! {
    /// ONNX ReduceProd: the product over constant axes.
    ReduceProd,
    18,
    true,
    reduce::Steps {
        start: (1.0, 1),
        real: |a, b| a * b,
        integer: i64::wrapping_mul,
        end: (|y| y, |y| y),
    }
}
