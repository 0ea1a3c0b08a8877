//! BitwiseXor: `a ^ b` of each two integers, with broadcasting. Opset 18.

use super::binary::bitwise;
use super::*;

bitwise! {
    /// ONNX BitwiseXor: `a ^ b` of integers.
    BitwiseXor,
    |a, b| a ^ b
}
