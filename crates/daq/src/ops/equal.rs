//! Equal: whether `a = b`, with broadcasting. Opsets 7, 11, 13, 19. Tests stand in `compare.rs`.

use super::compare::compare;
use super::*;

compare! {
    /// ONNX Equal: whether `a = b`.
    Equal,
    ANYTHING,
    order,
    |order| order.is_some_and(|order| order.is_eq())
}
