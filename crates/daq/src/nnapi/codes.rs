//! The numbers of `NeuralNetworksTypes.h` that the backend uses.

/// Types of operands.
pub(super) mod operand {
    pub(crate) const FLOAT32: i32 = 0;
    pub(crate) const INT32: i32 = 1;
    pub(crate) const TENSOR_FLOAT32: i32 = 3;
    pub(crate) const TENSOR_INT32: i32 = 4;
    pub(crate) const TENSOR_QUANT8_ASYMM: i32 = 5;
    pub(crate) const BOOL: i32 = 6;
    pub(crate) const TENSOR_QUANT8_SYMM_PER_CHANNEL: i32 = 11;
    pub(crate) const TENSOR_QUANT8_ASYMM_SIGNED: i32 = 14;
}

/// Operations.
pub(super) mod operation {
    pub(crate) const ADD: i32 = 0;
    pub(crate) const AVERAGE_POOL_2D: i32 = 1;
    pub(crate) const CONCATENATION: i32 = 2;
    pub(crate) const CONV_2D: i32 = 3;
    pub(crate) const DEPTHWISE_CONV_2D: i32 = 4;
    pub(crate) const DEPTH_TO_SPACE: i32 = 5;
    pub(crate) const DEQUANTIZE: i32 = 6;
    pub(crate) const FULLY_CONNECTED: i32 = 9;
    pub(crate) const LOGISTIC: i32 = 14;
    pub(crate) const MAX_POOL_2D: i32 = 17;
    pub(crate) const MUL: i32 = 18;
    pub(crate) const RELU: i32 = 19;
    pub(crate) const RELU1: i32 = 20;
    pub(crate) const RELU6: i32 = 21;
    pub(crate) const RESHAPE: i32 = 22;
    pub(crate) const RESIZE_BILINEAR: i32 = 23;
    pub(crate) const SOFTMAX: i32 = 25;
    pub(crate) const SPACE_TO_DEPTH: i32 = 26;
    pub(crate) const TANH: i32 = 28;
    pub(crate) const DIV: i32 = 30;
    pub(crate) const MEAN: i32 = 31;
    pub(crate) const PAD: i32 = 32;
    pub(crate) const SUB: i32 = 36;
    pub(crate) const TRANSPOSE: i32 = 37;
    pub(crate) const GROUPED_CONV_2D: i32 = 55;
    pub(crate) const MAXIMUM: i32 = 65;
    pub(crate) const MINIMUM: i32 = 66;
    pub(crate) const PAD_V2: i32 = 69;
    pub(crate) const QUANTIZE: i32 = 72;
    pub(crate) const SPLIT: i32 = 87;
    pub(crate) const RESIZE_NEAREST_NEIGHBOR: i32 = 94;
    pub(crate) const HARD_SWISH: i32 = 99;
}

/// What a result code says.
pub(super) fn result(code: i32) -> String {
    let name = match code {
        0 => "NO_ERROR",
        1 => "OUT_OF_MEMORY",
        2 => "INCOMPLETE",
        3 => "UNEXPECTED_NULL",
        4 => "BAD_DATA",
        5 => "OP_FAILED",
        6 => "BAD_STATE",
        7 => "UNMAPPABLE",
        8 => "OUTPUT_INSUFFICIENT_SIZE",
        9 => "UNAVAILABLE_DEVICE",
        10 => "MISSED_DEADLINE_TRANSIENT",
        11 => "MISSED_DEADLINE_PERSISTENT",
        12 => "RESOURCE_EXHAUSTED_TRANSIENT",
        13 => "RESOURCE_EXHAUSTED_PERSISTENT",
        14 => "DEAD_OBJECT",
        _ => return format!("result {code}"),
    };
    format!("ANEURALNETWORKS_{name}")
}
