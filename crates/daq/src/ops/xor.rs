//! Xor: whether just one is true, with broadcasting. Opsets 7. Tests stand in `compare.rs`.

use super::compare::compare;
use super::*;

compare! {
    /// ONNX Xor: whether just one is true.
    Xor,
    TRUTH,
    logic,
    |a, b| a != b
}
