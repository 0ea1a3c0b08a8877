//! Less: whether `a < b`, with broadcasting. Opsets 7, 9, 13. Tests stand in `compare.rs`.

use super::compare::compare;
use super::*;

compare! {
    /// ONNX Less: whether `a < b`.
    Less,
    COMPARABLE,
    order,
    |order| order.is_some_and(|order| order.is_lt())
}
