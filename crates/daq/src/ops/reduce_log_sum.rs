//! ReduceLogSum: the logarithm of the sum over some axes. Tests stand in `reduce.rs`.

use super::reduce::reduction;
use super::*;

reduction! {
    /// ONNX ReduceLogSum: the logarithm of the sum over constant axes.
    ReduceLogSum,
    18,
    true,
    reduce::Steps {
        start: (0.0, 0),
        real: |a, b| a + b,
        integer: i64::wrapping_add,
        end: (libm::logf, |y| libm::log(y as f64) as i64),
    }
}
