//! The operators, one file each.
//!
//! A file holds the operator's struct, how it reads and writes its attributes, shape inference and
//! the reference computation, on floats and, where it has an integer form, on codes. Readers hand
//! over neutral [`Attrs`], so a file knows neither protobuf nor FlatBuffers. The list below makes
//! the [`Op`] enum and everything that walks all operators: adding one is its file and one word.

use std::fmt::Debug;

pub use crate::attrs::{Attr, Attrs};
pub use crate::compile::{Compile, Kernel};
pub use crate::error::OpError;
pub use crate::layout::{Layout, LayoutRule};
pub use crate::tensor::{DType, Tensor, TensorView, TensorViewMut};
pub use pad::PadMode;
pub use resize::{Coordinates, NearestMode, ResizeMode};
pub use softmax::SoftmaxAxis;

pub(crate) mod binary;
pub(crate) mod compare;
pub(crate) mod dense;
pub(crate) mod elementwise;
pub mod eval;
pub(crate) mod moves;
pub(crate) mod pixels;
pub(crate) mod planes;
pub(crate) mod recurrent;
pub(crate) mod reduce;
pub(crate) mod scatter;
pub(crate) mod spatial;
pub(crate) mod unary;

/// Type and logical shape of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The element type.
    pub dtype: DType,
    /// The logical shape.
    pub shape: Vec<usize>,
}

impl Spec {
    /// A type and shape.
    pub fn new(dtype: DType, shape: &[usize]) -> Self {
        Spec { dtype, shape: shape.to_vec() }
    }
}

/// The number of elements.
pub(crate) fn elements(spec: &Spec) -> u64 {
    spec.shape.iter().fold(1, |n: u64, &d| n.saturating_mul(d as u64))
}

/// A constant input that daq holds as an attribute: the shape of Reshape, the bounds of Clip.
#[derive(Clone, Copy, Debug)]
pub struct AttrInput {
    /// Position among the ONNX operator's inputs.
    pub index: usize,
    /// The attribute's name; that of older operator sets where they had one.
    pub name: &'static str,
    /// The operator set from which it is an input.
    pub since: i64,
}

/// How an operator behaves once its data are 8-bit codes. Each case equals DequantizeLinear, the
/// float operator, QuantizeLinear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// It has no 8-bit form and stays in float (or works on shapes and indices).
    Never,
    /// `run` takes codes as they are; the output (indices) is not quantized.
    Codes,
    /// It accumulates codes times the weights of input 1, with a 32-bit bias as input 2 where
    /// there is one; `run` takes codes. The output has a scale of its own.
    Weighted,
    /// It moves codes without changing them; `run` takes any type. The output has input 0's scale.
    Moves,
    /// Computed in float inside, with input 0's scale for the output: averages, interpolation.
    Averages,
    /// A function of one code: a table of 256 entries. The output has a scale of its own.
    Table,
    /// `run` takes codes. The output has a scale of its own.
    Integer,
    /// Computed in float between codes. The output has a scale of its own.
    FloatInside,
}

/// What an operator's file provides.
///
/// `run` sees physical shapes: for [`LayoutRule::ChannelsLast`] input 0 and the outputs are
/// channels-last (NHWC), for [`LayoutRule::Any`] the axes have been moved by `to_channels_last`
/// where needed. Everything else (`infer`, attributes) speaks of logical shapes.
pub trait Operator: Clone + Debug + PartialEq + Into<Op> {
    /// The operator's name in ONNX.
    const NAME: &'static str;
    /// The most inputs that it has in ONNX, constant ones that are attributes here included.
    const INPUTS: usize = 1;
    /// The constant inputs that are attributes here.
    const ATTR_INPUTS: &'static [AttrInput] = &[];

    /// Reads the attributes, with the defaults of `attrs.opset`.
    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError>;

    /// The attributes in the form of [`OPSET`](crate::attrs::OPSET), [`AttrInput`]s included.
    fn to_attrs(&self) -> Attrs;

    /// Types and shapes of the outputs; checks everything that `run` relies on. The output's type
    /// follows the input's where it can be several.
    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError>;

    /// The reference computation. Shapes and types have been checked by `infer`.
    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]);

    /// How the data should lie.
    fn layout(&self, _inputs: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Plain
    }

    /// The same operator for channels-last data of `rank` (only asked of [`LayoutRule::Any`]).
    fn to_channels_last(&self, _rank: usize) -> Self {
        self.clone()
    }

    /// Its behaviour in 8 bits.
    fn quantization(&self) -> Quantization {
        Quantization::Never
    }

    /// Whether the output is input 0's elements in the same order, under another shape.
    fn is_view(&self) -> bool {
        false
    }

    /// Multiply-accumulate operations, from logical shapes.
    fn macs(&self, _inputs: &[Option<Spec>], _outputs: &[Spec]) -> u64 {
        0
    }

    /// Elements read, written or multiplied, from logical shapes: about how long it takes, in the
    /// unit of [`MAX_OPERATIONS`](crate::plan::MAX_OPERATIONS).
    fn operations(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        let specs = inputs.iter().flatten().chain(outputs);
        specs.map(elements).max().unwrap_or(0).max(self.macs(inputs, outputs))
    }

    /// Bounds that this operator clamps floats to, where that is all it does: an activation that a
    /// convolution before it can apply in its store.
    fn clamp(&self) -> Option<(f32, f32)> {
        None
    }

    /// A kernel faster than `run`, equal to it bit for bit; `None` to use `run`.
    fn compile(&self, _compile: &Compile) -> Option<Box<dyn Kernel>> {
        None
    }
}

macro_rules! ops {
    ($($module:ident :: $name:ident),* $(,)?) => {
        $(mod $module;)*
        $(pub use $module::$name;)*

        /// Any operator.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op { $(
            #[doc = concat!("The ONNX operator of that name.")]
            $name($name),
        )* }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Op { Op::$name(op) }
        })*

        impl Op {
            /// The names of all operators.
            pub const NAMES: &'static [&'static str] = &[$($name::NAME),*];

            /// The operator `name` with its attributes; `None` for an unknown one. One that it does not
            /// ask for is an error.
            pub fn from_attrs(name: &str, attrs: &Attrs) -> Option<Result<Op, OpError>> {
                $(if name == $name::NAME {
                    let op = $name::from_attrs(attrs).map(Op::$name);
                    return Some(op.and_then(|op| attrs.all_asked().map(|()| op)));
                })*
                None
            }

            /// The constant inputs that operator `name` holds as attributes.
            pub fn attr_inputs(name: &str) -> &'static [AttrInput] {
                $(if name == $name::NAME { return $name::ATTR_INPUTS; })*
                &[]
            }

            /// The operator's name in ONNX.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$name(_) => $name::NAME),* }
            }

            /// See [`Operator::to_attrs`].
            pub fn to_attrs(&self) -> Attrs {
                match self { $(Op::$name(op) => op.to_attrs()),* }
            }

            /// See [`Operator::infer`].
            pub fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
                match self { $(Op::$name(op) => {
                    at_most($name::INPUTS, inputs)?;
                    op.infer(inputs)
                }),* }
            }

            /// See [`Operator::run`].
            pub fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
                match self { $(Op::$name(op) => op.run(inputs, outputs)),* }
            }

            /// See [`Operator::layout`].
            pub fn layout(&self, inputs: &[Option<Spec>]) -> LayoutRule {
                match self { $(Op::$name(op) => op.layout(inputs)),* }
            }

            /// See [`Operator::to_channels_last`].
            pub fn to_channels_last(&self, rank: usize) -> Op {
                match self { $(Op::$name(op) => op.to_channels_last(rank).into()),* }
            }

            /// See [`Operator::quantization`].
            pub fn quantization(&self) -> Quantization {
                match self { $(Op::$name(op) => op.quantization()),* }
            }

            /// See [`Operator::is_view`].
            pub fn is_view(&self) -> bool {
                match self { $(Op::$name(op) => op.is_view()),* }
            }

            /// See [`Operator::macs`].
            pub fn macs(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
                match self { $(Op::$name(op) => op.macs(inputs, outputs)),* }
            }

            /// See [`Operator::operations`].
            pub fn operations(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
                match self { $(Op::$name(op) => op.operations(inputs, outputs)),* }
            }

            /// See [`Operator::clamp`].
            pub fn clamp(&self) -> Option<(f32, f32)> {
                match self { $(Op::$name(op) => op.clamp()),* }
            }

            /// See [`Operator::compile`]. A function of one code becomes a table.
            pub fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
                elementwise::table(self, compile)
                    .or_else(|| match self { $(Op::$name(op) => op.compile(compile)),* })
            }
        }
    };
}

ops! {
    abs::Abs,
    acos::Acos,
    acosh::Acosh,
    add::Add,
    affine_grid::AffineGrid,
    and::And,
    arg_max::ArgMax,
    arg_min::ArgMin,
    asin::Asin,
    asinh::Asinh,
    atan::Atan,
    atanh::Atanh,
    average_pool::AveragePool,
    batch_normalization::BatchNormalization,
    bit_shift::BitShift,
    bitwise_and::BitwiseAnd,
    bitwise_not::BitwiseNot,
    bitwise_or::BitwiseOr,
    bitwise_xor::BitwiseXor,
    cast::Cast,
    ceil::Ceil,
    celu::Celu,
    center_crop_pad::CenterCropPad,
    clip::Clip,
    col2_im::Col2Im,
    concat::Concat,
    constant_of_shape::ConstantOfShape,
    conv::Conv,
    conv_integer::ConvInteger,
    conv_transpose::ConvTranspose,
    cos::Cos,
    cosh::Cosh,
    cum_sum::CumSum,
    deform_conv::DeformConv,
    depth_to_space::DepthToSpace,
    dequantize_linear::DequantizeLinear,
    det::Det,
    div::Div,
    dropout::Dropout,
    dynamic_quantize_linear::DynamicQuantizeLinear,
    elu::Elu,
    equal::Equal,
    erf::Erf,
    exp::Exp,
    expand::Expand,
    eye_like::EyeLike,
    flatten::Flatten,
    floor::Floor,
    gather::Gather,
    gather_elements::GatherElements,
    gather_nd::GatherND,
    gelu::Gelu,
    gemm::Gemm,
    global_average_pool::GlobalAveragePool,
    global_max_pool::GlobalMaxPool,
    greater::Greater,
    greater_or_equal::GreaterOrEqual,
    grid_sample::GridSample,
    group_normalization::GroupNormalization,
    gru::Gru,
    hard_sigmoid::HardSigmoid,
    hard_swish::HardSwish,
    hardmax::Hardmax,
    identity::Identity,
    instance_normalization::InstanceNormalization,
    is_inf::IsInf,
    is_nan::IsNaN,
    layer_normalization::LayerNormalization,
    leaky_relu::LeakyRelu,
    less::Less,
    less_or_equal::LessOrEqual,
    log::Log,
    log_softmax::LogSoftmax,
    lp_pool::LpPool,
    lrn::Lrn,
    lstm::Lstm,
    mat_mul::MatMul,
    mat_mul_integer::MatMulInteger,
    max::Max,
    max_pool::MaxPool,
    max_unpool::MaxUnpool,
    mean::Mean,
    min::Min,
    mish::Mish,
    modulo::Mod,
    mul::Mul,
    neg::Neg,
    negative_log_likelihood_loss::NegativeLogLikelihoodLoss,
    not::Not,
    one_hot::OneHot,
    or::Or,
    pad::Pad,
    pow::Pow,
    prelu::PRelu,
    quantize_linear::QuantizeLinear,
    reciprocal::Reciprocal,
    reduce_l1::ReduceL1,
    reduce_l2::ReduceL2,
    reduce_log_sum::ReduceLogSum,
    reduce_log_sum_exp::ReduceLogSumExp,
    reduce_max::ReduceMax,
    reduce_mean::ReduceMean,
    reduce_min::ReduceMin,
    reduce_prod::ReduceProd,
    reduce_sum::ReduceSum,
    reduce_sum_square::ReduceSumSquare,
    relu::Relu,
    reshape::Reshape,
    resize::Resize,
    reverse_sequence::ReverseSequence,
    rnn::Rnn,
    roi_align::RoiAlign,
    round::Round,
    scatter_elements::ScatterElements,
    scatter_nd::ScatterND,
    selu::Selu,
    shape::Shape,
    shrink::Shrink,
    sigmoid::Sigmoid,
    sign::Sign,
    sin::Sin,
    sinh::Sinh,
    slice::Slice,
    softmax::Softmax,
    softmax_cross_entropy_loss::SoftmaxCrossEntropyLoss,
    softplus::Softplus,
    softsign::Softsign,
    space_to_depth::SpaceToDepth,
    split::Split,
    sqrt::Sqrt,
    squeeze::Squeeze,
    sub::Sub,
    sum::Sum,
    tan::Tan,
    tanh::Tanh,
    thresholded_relu::ThresholdedRelu,
    tile::Tile,
    top_k::TopK,
    transpose::Transpose,
    trilu::Trilu,
    unsqueeze::Unsqueeze,
    where_::Where,
    xor::Xor,
}

/// The spec of a required input.
pub(crate) fn required(inputs: &[Option<Spec>], index: usize) -> Result<&Spec, OpError> {
    inputs.get(index).and_then(Option::as_ref).ok_or(OpError::MissingInput { index })
}

/// Refuses inputs beyond the last that an operator has.
///
/// # Errors
/// [`OpError::TooManyInputs`].
pub fn at_most<T>(most: usize, inputs: &[Option<T>]) -> Result<(), OpError> {
    match inputs.iter().rposition(Option::is_some) {
        Some(index) if index >= most => Err(OpError::TooManyInputs { index, most }),
        _ => Ok(()),
    }
}

/// A shape error that shows all input shapes.
pub(crate) fn shape_error(why: impl Into<String>, inputs: &[Option<Spec>]) -> OpError {
    let shapes = inputs.iter().flatten().map(|s| s.shape.clone()).collect();
    OpError::Shape { why: why.into(), shapes }
}

/// An axis that may count from the end, as an index below `rank`.
pub(crate) fn normalize_axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let wrapped = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(wrapped)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| OpError::attribute("axis", format!("{axis} is outside of rank {rank}")))
}

/// The axis of channels-last data on which a valid logical axis of `rank` lies, for
/// [`Operator::to_channels_last`].
pub(crate) fn channels_last_axis(axis: i64, rank: usize) -> i64 {
    normalize_axis(axis, rank)
        .map_or(axis, |axis| Layout::ChannelsLast.physical_axis(axis, rank) as i64)
}

/// The numpy broadcast of two shapes.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}
