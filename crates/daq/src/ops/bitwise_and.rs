//! BitwiseAnd: `a & b` of each two integers, with broadcasting. Opset 18.

use super::binary::bitwise;
use super::*;

bitwise! {
    /// ONNX BitwiseAnd: `a & b` of integers.
    BitwiseAnd,
    |a, b| a & b
}
