//! Or: whether one is true, with broadcasting. Opsets 7. Tests stand in `compare.rs`.

use super::compare::compare;
use super::*;

compare! {
    /// ONNX Or: whether one is true.
    Or,
    TRUTH,
    logic,
    |a, b| a || b
}
