//! BitwiseOr: `a | b` of each two integers, with broadcasting. Opset 18.

use super::binary::bitwise;
use super::*;

bitwise! {
    /// ONNX BitwiseOr: `a | b` of integers.
    BitwiseOr,
    |a, b| a | b
}
