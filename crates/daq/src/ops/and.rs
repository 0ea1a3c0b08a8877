//! And: whether both are true, with broadcasting. Opsets 7. Tests stand in `compare.rs`.

use super::compare::compare;
use super::*;

compare! {
    /// ONNX And: whether both are true.
    And,
    TRUTH,
    logic,
    |a, b| a && b
}
