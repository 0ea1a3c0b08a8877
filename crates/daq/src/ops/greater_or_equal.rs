//! GreaterOrEqual: whether `a >= b`, with broadcasting. Opsets 12, 16. Tests stand in `compare.rs`.

use super::compare::compare;
use super::*;

compare! {
    /// ONNX GreaterOrEqual: whether `a >= b`.
    GreaterOrEqual,
    COMPARABLE,
    order,
    |order| order.is_some_and(|order| order.is_ge())
}
