//! LessOrEqual: whether `a <= b`, with broadcasting. Opsets 12, 16. Tests stand in `compare.rs`.

use super::compare::compare;
use super::*;

compare! {
    /// ONNX LessOrEqual: whether `a <= b`.
    LessOrEqual,
    COMPARABLE,
    order,
    |order| order.is_some_and(|order| order.is_le())
}
