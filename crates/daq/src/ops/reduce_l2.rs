//! ReduceL2: the square root of the sum of squares over some axes. Tests stand in `reduce.rs`.

use super::reduce::reduction;
use super::*;

reduction! {
    /// ONNX ReduceL2: the square root of the sum of squares over constant axes.
    ReduceL2,
    18,
    true,
    reduce::Steps {
        start: (0.0, 0),
        real: |a, b| a + b * b,
        integer: |a, b| a.wrapping_add(b.wrapping_mul(b)),
        end: (f32::sqrt, |y| (y as f64).sqrt() as i64),
    }
}
