//! NNAPI's rules for operands and operations, and what the operations compute: each becomes nodes of
//! a [`Graph`] in which every tensor has the shape that NNAPI gives it.
//!
//! Pictures are turned around (batch, channels, height, width) before a node that wants them so and
//! back after it, so that nothing here depends on how daq lays tensors out. The numbers and the
//! order of inputs are those of `NeuralNetworksTypes.h`.

use std::collections::HashMap;

use daq::ops::{Attr, Attrs};
use daq::{DType, Graph, Node, Op, QuantParams, Tensor, Value, ValueId};

/// Types of operands.
pub const FLOAT32: i32 = 0;
pub const INT32: i32 = 1;
pub const TENSOR_FLOAT32: i32 = 3;
pub const TENSOR_INT32: i32 = 4;
pub const TENSOR_QUANT8_ASYMM: i32 = 5;
pub const BOOL: i32 = 6;
pub const TENSOR_QUANT8_SYMM_PER_CHANNEL: i32 = 11;
pub const TENSOR_QUANT8_ASYMM_SIGNED: i32 = 14;

/// An operand of a model.
#[derive(Clone, Debug, Default)]
pub struct Operand {
    pub code: i32,
    pub shape: Vec<usize>,
    pub scale: f32,
    pub zero_point: i32,
    /// Dimension and scales, where they were set.
    pub channels: Option<(usize, Vec<f32>)>,
    /// The elements of a constant.
    pub value: Option<Vec<u8>>,
}

/// An operation of a model.
#[derive(Clone, Debug)]
pub struct Operation {
    pub code: i32,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
}

/// Which rule is broken.
pub type Checked<T = ()> = Result<T, String>;

macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => {
        match $holds {
            true => {}
            false => return Err(format!($($why)*)),
        }
    };
}

impl Operand {
    /// Checks what does not depend on how it is used.
    pub fn check(&self, level: i64) -> Checked {
        let since = |name: &str, needed: i64| {
            ensure!(level >= needed, "{name} comes with level {needed}, this is {level}");
            Ok(())
        };
        let zero = self.scale == 0.0 && self.zero_point == 0;
        match self.code {
            FLOAT32 | INT32 | BOOL => {
                if self.code == BOOL {
                    since("BOOL", 29)?;
                }
                ensure!(self.shape.is_empty(), "a scalar has no dimensions");
                ensure!(zero, "a scalar has no scale and no zero point");
                return Ok(());
            }
            TENSOR_FLOAT32 => ensure!(zero, "TENSOR_FLOAT32 has no scale and no zero point"),
            TENSOR_INT32 => {
                ensure!(self.zero_point == 0, "TENSOR_INT32 has zero point 0");
                ensure!(self.scale >= 0.0, "TENSOR_INT32 has no negative scale");
            }
            TENSOR_QUANT8_ASYMM | TENSOR_QUANT8_ASYMM_SIGNED => {
                let signed = self.code == TENSOR_QUANT8_ASYMM_SIGNED;
                if signed {
                    since("TENSOR_QUANT8_ASYMM_SIGNED", 30)?;
                }
                let range = if signed { -128..=127 } else { 0..=255 };
                ensure!(self.scale > 0.0 && self.scale.is_finite(), "a scale is above 0");
                ensure!(range.contains(&self.zero_point), "a zero point is within {range:?}");
            }
            TENSOR_QUANT8_SYMM_PER_CHANNEL => {
                since("TENSOR_QUANT8_SYMM_PER_CHANNEL", 29)?;
                ensure!(zero, "scales per channel leave scale and zero point 0");
            }
            code => return Err(format!("no operand has type {code}")),
        }
        ensure!(!self.shape.is_empty(), "a tensor has dimensions");
        ensure!(self.shape.len() <= 4, "a tensor has up to 4 dimensions");
        ensure!(!self.shape.contains(&0), "dimensions are known");
        Ok(())
    }

    /// Bytes of its elements.
    pub fn len(&self) -> usize {
        let wide = [FLOAT32, INT32, TENSOR_FLOAT32, TENSOR_INT32].contains(&self.code);
        self.shape.iter().product::<usize>() * if wide { 4 } else { 1 }
    }

    fn is_quant8(&self) -> bool {
        [TENSOR_QUANT8_ASYMM, TENSOR_QUANT8_ASYMM_SIGNED].contains(&self.code)
    }

    fn dtype(&self) -> DType {
        match self.code {
            TENSOR_FLOAT32 | FLOAT32 => DType::F32,
            TENSOR_INT32 | INT32 => DType::I32,
            TENSOR_QUANT8_ASYMM | BOOL => DType::U8,
            _ => DType::I8,
        }
    }

    fn quant(&self) -> Option<QuantParams> {
        match &self.channels {
            Some((axis, scales)) => Some(QuantParams::per_channel(scales.clone(), *axis)),
            None if self.is_quant8() => Some(QuantParams::per_tensor(self.scale, self.zero_point)),
            None => None,
        }
    }

    fn tensor(&self) -> Option<Tensor> {
        Some(Tensor::from_bytes(self.dtype(), &self.shape, self.value.as_ref()?))
    }
}

/// A model's operands and operations as a graph, if they keep the rules of a level.
pub fn graph_of(
    operands: &[Operand],
    operations: &[Operation],
    inputs: &[usize],
    outputs: &[usize],
    level: i64,
) -> Checked<Graph> {
    let mut uses = vec![0; operands.len()];
    for (i, operand) in operands.iter().enumerate() {
        operand.check(level).map_err(|why| format!("operand {i}: {why}"))?;
        if operand.code == TENSOR_QUANT8_SYMM_PER_CHANNEL {
            let set = operand.channels.is_some();
            ensure!(set, "operand {i}: its scales per channel are not set");
        }
        if operand.value.is_some() {
            uses[i] += 1;
        }
    }
    let mut t = Translator {
        operands,
        level,
        graph: Graph { name: "stand-in".into(), ..Graph::default() },
        values: HashMap::new(),
    };
    for &i in inputs {
        uses[i] += 1;
        ensure!(operands[i].value.is_none(), "operand {i} is an input and has a value");
        let value = t.value_of(i);
        t.graph.inputs.push(value);
    }
    for (n, operation) in operations.iter().enumerate() {
        t.operation(operation)
            .map_err(|why| format!("operation {n} (code {}): {why}", operation.code))?;
        for &i in &operation.outputs {
            uses[i] += 1;
            let wrong = "both given and computed, or computed twice";
            ensure!(uses[i] == 1, "operand {i} is {wrong}");
        }
    }
    for (i, &uses) in uses.iter().enumerate() {
        ensure!(uses == 1, "operand {i} is not constant, given or computed exactly once");
    }
    for &i in outputs {
        let computed = operations.iter().any(|op| op.outputs.contains(&i));
        ensure!(computed, "output operand {i} is not computed");
        t.graph.outputs.push(t.values[&i]);
    }
    t.graph.validate().map_err(|e| e.to_string())?;
    Ok(t.graph)
}

struct Translator<'a> {
    operands: &'a [Operand],
    level: i64,
    graph: Graph,
    values: HashMap<usize, ValueId>,
}

/// The inputs of one operation.
struct Inputs<'a> {
    operands: &'a [Operand],
    indices: &'a [usize],
    level: i64,
}

impl<'a> Inputs<'a> {
    fn get(&self, i: usize) -> &'a Operand {
        &self.operands[self.indices[i]]
    }

    /// A constant scalar of a type.
    fn scalar(&self, i: usize, code: i32, name: &str) -> Checked<&'a [u8]> {
        let operand = self.get(i);
        ensure!(operand.code == code, "input {i} is a scalar of type {name}");
        operand.value.as_deref().ok_or_else(|| format!("input {i} is not constant"))
    }

    fn int(&self, i: usize) -> Checked<i32> {
        let bytes = self.scalar(i, INT32, "INT32")?;
        Ok(i32::from_le_bytes(bytes.try_into().map_err(|_| "an INT32 has 4 bytes")?))
    }

    /// An integer not below a bound.
    fn at_least(&self, i: usize, least: i32) -> Checked<usize> {
        let value = self.int(i)?;
        ensure!(value >= least, "input {i} is {value}, at least {least} is allowed");
        Ok(value as usize)
    }

    fn boolean(&self, i: usize) -> Checked<bool> {
        Ok(self.scalar(i, BOOL, "BOOL")? != [0])
    }

    fn float(&self, i: usize) -> Checked<f32> {
        let bytes = self.scalar(i, FLOAT32, "FLOAT32")?;
        Ok(f32::from_le_bytes(bytes.try_into().map_err(|_| "a FLOAT32 has 4 bytes")?))
    }

    /// A constant list of integers.
    fn list(&self, i: usize, shape: &[usize]) -> Checked<Vec<i64>> {
        let operand = self.get(i);
        ensure!(operand.code == TENSOR_INT32, "input {i} is a TENSOR_INT32");
        ensure!(operand.shape == shape, "input {i} has shape {shape:?}");
        let bytes = operand.value.as_deref().ok_or_else(|| format!("input {i} is not constant"))?;
        let one = |b: &[u8]| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(bytes.chunks_exact(4).map(one).collect())
    }

    /// The layout that input `i` may choose: NHWC only, here.
    fn nhwc(&self, i: usize) -> Checked {
        if i < self.indices.len() {
            ensure!(self.level >= 29, "the choice of a layout comes with level 29");
            ensure!(!self.boolean(i)?, "the stand-in computes NHWC only");
        }
        Ok(())
    }

    fn count(&self, allowed: &[usize]) -> Checked {
        let n = self.indices.len();
        ensure!(allowed.contains(&n), "{n} inputs, allowed are {allowed:?}");
        Ok(())
    }

    /// Codes of a fused activation.
    fn fused(&self, i: usize) -> Checked<i32> {
        let code = self.int(i)?;
        ensure!((0..=3).contains(&code), "there is no fused activation {code}");
        Ok(code)
    }
}

fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

const TO_NCHW: [i64; 4] = [0, 3, 1, 2];
const TO_NHWC: [i64; 4] = [0, 2, 3, 1];

impl Translator<'_> {
    fn temporary(&mut self, dtype: DType, shape: &[usize], quant: Option<QuantParams>) -> ValueId {
        let name = format!("v{}", self.graph.values.len());
        self.graph.add_value(Value { quant, ..Value::new(name, dtype, shape) })
    }

    /// The value of an operand, made where it does not exist yet.
    fn value_of(&mut self, i: usize) -> ValueId {
        if let Some(&value) = self.values.get(&i) {
            return value;
        }
        let operand = &self.operands[i];
        let value = self.temporary(operand.dtype(), &operand.shape, operand.quant());
        self.graph.values[value].data = operand.tensor();
        self.values.insert(i, value);
        value
    }

    /// A tensor that an operation reads.
    fn read(&mut self, i: usize) -> Checked<ValueId> {
        let known = self.values.contains_key(&i) || self.operands[i].value.is_some();
        ensure!(known, "operand {i} is read before anything computes it");
        Ok(self.value_of(i))
    }

    /// A node whose output has the shape that the operator infers.
    fn node(
        &mut self,
        op: &str,
        attrs: Attrs,
        inputs: &[ValueId],
        quant: Option<QuantParams>,
    ) -> Checked<ValueId> {
        let op =
            Op::from_attrs(op, &attrs).ok_or("no such operator")?.map_err(|e| e.to_string())?;
        let inputs: Vec<_> = inputs.iter().map(|&id| Some(id)).collect();
        let (name, doc) = (format!("n{}", self.graph.nodes.len()), String::new());
        let mut node = Node { name, op, inputs, outputs: Vec::new(), doc };
        let specs = node.op.infer(&self.graph.input_specs(&node)).map_err(|e| e.to_string())?;
        let spec = &specs[0];
        let y = self.temporary(spec.dtype, &spec.shape, quant);
        node.outputs.push(y);
        self.graph.nodes.push(node);
        Ok(y)
    }

    fn transposed(&mut self, x: ValueId, order: &[i64]) -> Checked<ValueId> {
        let quant = self.graph.values[x].quant.clone();
        self.node("Transpose", Attrs::new().with("perm", ints(order)), &[x], quant)
    }

    fn reshaped(&mut self, x: ValueId, shape: &[usize]) -> Checked<ValueId> {
        let quant = self.graph.values[x].quant.clone();
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        self.node("Reshape", Attrs::new().with("shape", ints(&shape)), &[x], quant)
    }

    /// What was computed for an output operand, after the fused activation.
    fn done(&mut self, output: usize, computed: ValueId, fused: i32) -> Checked {
        let quant = self.operands[output].quant();
        let clip = |min: f32, max: f32| {
            Attrs::new().with("min", Attr::Float(min)).with("max", Attr::Float(max))
        };
        let computed = match fused {
            1 => self.node("Relu", Attrs::new(), &[computed], quant)?,
            2 => self.node("Clip", clip(-1.0, 1.0), &[computed], quant)?,
            3 => self.node("Clip", clip(0.0, 6.0), &[computed], quant)?,
            _ => computed,
        };
        let (value, operand) = (&self.graph.values[computed], &self.operands[output]);
        ensure!(
            value.shape == operand.shape && value.dtype == operand.dtype(),
            "its output is {:?} of {:?}, {:?} of {:?} is computed",
            operand.dtype(),
            operand.shape,
            value.dtype,
            value.shape
        );
        ensure!(
            self.values.insert(output, computed).is_none(),
            "operand {output} is computed twice"
        );
        Ok(())
    }

    fn operation(&mut self, operation: &Operation) -> Checked {
        let x = Inputs { operands: self.operands, indices: &operation.inputs, level: self.level };
        let outputs = operation.outputs.as_slice();
        ensure!(!x.indices.is_empty() && !outputs.is_empty(), "it has no inputs or no outputs");
        let (first, y) = (x.get(0), &self.operands[outputs[0]]);
        let since = |level: i64| {
            ensure!(self.level >= level, "it comes with level {level}, this is {}", self.level);
            Ok(())
        };
        let single = operation.code != 87;
        ensure!(!single || outputs.len() == 1, "it has one output");
        // What most operations share: floats or codes, of the same type on both sides.
        let converts = [6, 72].contains(&operation.code);
        if !converts {
            let known = first.code == TENSOR_FLOAT32 || first.is_quant8();
            ensure!(known, "input 0 has type {}, which it does not take", first.code);
            ensure!(y.code == first.code, "its output has another type than its input");
        }
        let same_scale = || {
            let same = (first.scale, first.zero_point) == (y.scale, y.zero_point);
            ensure!(same, "output and input have the same scale and zero point");
            Ok(())
        };
        let exactly = |scale: f32, unsigned: i32| {
            let zero = unsigned - if y.code == TENSOR_QUANT8_ASYMM_SIGNED { 128 } else { 0 };
            let fits = !y.is_quant8() || (y.scale, y.zero_point) == (scale, zero);
            ensure!(fits, "its output has scale {scale} and zero point {zero}");
            Ok(())
        };
        let rank4 = || {
            ensure!(first.shape.len() == 4, "its input has 4 dimensions");
            Ok(())
        };
        let quant = y.quant();
        let out = outputs[0];
        match operation.code {
            // ADD, MUL, DIV, SUB
            code @ (0 | 18 | 30 | 36) => {
                x.count(&[3])?;
                let (a, b) = (first, x.get(1));
                ensure!(a.code == b.code, "its inputs have one type");
                match code {
                    30 => {
                        since(28)?;
                        ensure!(!a.is_quant8(), "DIV takes floats only");
                    }
                    36 => since(if a.is_quant8() { 29 } else { 28 })?,
                    18 if a.is_quant8() => ensure!(
                        y.scale > a.scale * b.scale,
                        "the output's scale is above the product of the inputs' scales"
                    ),
                    _ => {}
                }
                let fused = x.fused(2)?;
                let inputs = [self.read(x.indices[0])?, self.read(x.indices[1])?];
                let name = match code {
                    0 => "Add",
                    18 => "Mul",
                    30 => "Div",
                    _ => "Sub",
                };
                let sum = self.node(name, Attrs::new(), &inputs, quant)?;
                self.done(out, sum, fused)
            }
            // MAXIMUM, MINIMUM
            code @ (65 | 66) => {
                since(29)?;
                x.count(&[2])?;
                ensure!(first.code == x.get(1).code, "its inputs have one type");
                let inputs = [self.read(x.indices[0])?, self.read(x.indices[1])?];
                let name = if code == 65 { "Max" } else { "Min" };
                let y = self.node(name, Attrs::new(), &inputs, quant)?;
                self.done(out, y, 0)
            }
            // AVERAGE_POOL_2D, MAX_POOL_2D
            code @ (1 | 17) => {
                x.count(&[10, 11])?;
                rank4()?;
                same_scale()?;
                x.nhwc(10)?;
                let n = |i: usize, least: i32| x.at_least(i, least).map(|n| n as i64);
                let [left, right, top, bottom] = [n(1, 0)?, n(2, 0)?, n(3, 0)?, n(4, 0)?];
                let [step_w, step_h, w, h] = [n(5, 1)?, n(6, 1)?, n(7, 1)?, n(8, 1)?];
                let padded = left.max(right) >= w || top.max(bottom) >= h;
                ensure!(!padded, "padding is smaller than the filter");
                let fused = x.fused(9)?;
                let input = self.read(x.indices[0])?;
                let input = self.transposed(input, &TO_NCHW)?;
                let whole = [h, w] == [first.shape[1] as i64, first.shape[2] as i64];
                let attrs = Attrs::new()
                    .with("kernel_shape", ints(&[h, w]))
                    .with("strides", ints(&[step_h, step_w]))
                    .with("pads", ints(&[top, left, bottom, right]));
                let pooled = match (code, whole && left + right + top + bottom == 0) {
                    (1, true) => self.node("GlobalAveragePool", Attrs::new(), &[input], quant)?,
                    (1, false) => self.node("AveragePool", attrs, &[input], quant)?,
                    _ => self.node("MaxPool", attrs, &[input], quant)?,
                };
                let pooled = self.transposed(pooled, &TO_NHWC)?;
                self.done(out, pooled, fused)
            }
            // CONCATENATION
            2 => {
                let last = x.indices.len() - 1;
                ensure!(last >= 1, "it has no tensors");
                let axis = x.int(last)?;
                let mut inputs = Vec::new();
                for (i, &index) in x.indices[..last].iter().enumerate() {
                    let operand = x.get(i);
                    ensure!(operand.code == first.code, "its inputs have one type");
                    let same = (operand.scale, operand.zero_point) == (y.scale, y.zero_point);
                    ensure!(
                        same || self.level >= 29,
                        "before level 29 all have the output's scale"
                    );
                    inputs.push(self.read(index)?);
                }
                let attrs = Attrs::new().with("axis", Attr::Int(axis.into()));
                let y = self.node("Concat", attrs, &inputs, quant)?;
                self.done(out, y, 0)
            }
            // CONV_2D, DEPTHWISE_CONV_2D, GROUPED_CONV_2D
            3 | 4 | 55 => self.convolution(operation.code, &x, out),
            // DEPTH_TO_SPACE, SPACE_TO_DEPTH
            code @ (5 | 26) => {
                x.count(&[2, 3])?;
                rank4()?;
                same_scale()?;
                x.nhwc(2)?;
                let block = x.at_least(1, 1)?;
                let input = self.read(x.indices[0])?;
                let input = self.transposed(input, &TO_NCHW)?;
                let attrs = Attrs::new().with("blocksize", Attr::Int(block as i64));
                let name = if code == 5 { "DepthToSpace" } else { "SpaceToDepth" };
                let y = self.node(name, attrs, &[input], quant)?;
                let y = self.transposed(y, &TO_NHWC)?;
                self.done(out, y, 0)
            }
            // DEQUANTIZE, QUANTIZE
            6 => {
                x.count(&[1])?;
                ensure!(first.quant().is_some(), "its input holds codes");
                let input = self.read(x.indices[0])?;
                let y = self.node("DequantizeLinear", Attrs::new(), &[input], None)?;
                self.done(out, y, 0)
            }
            72 => {
                since(29)?;
                x.count(&[1])?;
                ensure!(first.code == TENSOR_FLOAT32, "its input holds floats");
                ensure!(y.is_quant8(), "its output holds codes");
                let input = self.read(x.indices[0])?;
                let y = self.node("QuantizeLinear", Attrs::new(), &[input], quant)?;
                self.done(out, y, 0)
            }
            // FULLY_CONNECTED
            9 => self.fully_connected(&x, out),
            // LOGISTIC, TANH, HARD_SWISH, RELU, RELU1, RELU6
            code @ (14 | 28 | 99 | 19 | 20 | 21) => {
                x.count(&[1])?;
                let clip = |min: f32, max: f32| {
                    Attrs::new().with("min", Attr::Float(min)).with("max", Attr::Float(max))
                };
                let (name, attrs) = match code {
                    14 => ("Sigmoid", Attrs::new()),
                    28 => ("Tanh", Attrs::new()),
                    99 => ("HardSwish", Attrs::new()),
                    19 => ("Relu", Attrs::new()),
                    20 => ("Clip", clip(-1.0, 1.0)),
                    _ => ("Clip", clip(0.0, 6.0)),
                };
                match code {
                    14 => exactly(1.0 / 256.0, 0)?,
                    28 => {
                        since(if y.is_quant8() { 29 } else { 27 })?;
                        exactly(1.0 / 128.0, 128)?;
                    }
                    99 => since(30)?,
                    _ => same_scale()?,
                }
                let input = self.read(x.indices[0])?;
                let y = self.node(name, attrs, &[input], quant)?;
                self.done(out, y, 0)
            }
            // RESHAPE
            22 => {
                x.count(&[2])?;
                same_scale()?;
                let shape = x.list(1, &[y.shape.len()])?;
                ensure!(shape.iter().all(|&d| d > 0), "the stand-in computes no dimension");
                let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
                let input = self.read(x.indices[0])?;
                let y = self.reshaped(input, &shape)?;
                self.done(out, y, 0)
            }
            // RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR
            code @ (23 | 94) => {
                let nearest = code == 94;
                if nearest || first.is_quant8() {
                    since(29)?;
                }
                x.count(if nearest { &[4, 6] } else { &[3, 4, 6] })?;
                rank4()?;
                same_scale()?;
                let (w, h) = (x.at_least(1, 1)? as i64, x.at_least(2, 1)? as i64);
                x.nhwc(3)?;
                let (corners, half) = match x.indices.len() {
                    6 => {
                        since(30)?;
                        (x.boolean(4)?, x.boolean(5)?)
                    }
                    _ => (false, false),
                };
                ensure!(!(corners && half), "corners are aligned or pixels have centres, not both");
                let how = match (corners, half) {
                    (true, _) => "align_corners",
                    (_, true) if nearest => "tf_half_pixel_for_nn",
                    (_, true) => "half_pixel",
                    _ => "asymmetric",
                };
                let (n, c) = (first.shape[0] as i64, first.shape[3] as i64);
                let attrs = Attrs::new()
                    .with("sizes", ints(&[n, c, h, w]))
                    .with("coordinate_transformation_mode", Attr::Str(how.into()))
                    .with("mode", Attr::Str(if nearest { "nearest" } else { "linear" }.into()))
                    .with("nearest_mode", Attr::Str("floor".into()));
                let input = self.read(x.indices[0])?;
                let input = self.transposed(input, &TO_NCHW)?;
                let y = self.node("Resize", attrs, &[input], quant)?;
                let y = self.transposed(y, &TO_NHWC)?;
                self.done(out, y, 0)
            }
            // SOFTMAX
            25 => {
                x.count(&[2, 3])?;
                exactly(1.0 / 256.0, 0)?;
                ensure!(x.float(1)? == 1.0, "the stand-in computes beta 1 only");
                let rank = first.shape.len();
                let axis = match x.indices.len() {
                    3 => {
                        ensure!(self.level >= 29, "the choice of an axis comes with level 29");
                        x.int(2)?
                    }
                    _ => -1,
                };
                let any = self.level >= 29 || [2, 4].contains(&rank);
                ensure!(any, "before level 29 its input has 2 or 4 dimensions");
                let attrs = Attrs::new().with("axis", Attr::Int(axis.into()));
                let input = self.read(x.indices[0])?;
                let y = self.node("Softmax", attrs, &[input], quant)?;
                self.done(out, y, 0)
            }
            // MEAN
            31 => {
                since(28)?;
                x.count(&[3])?;
                same_scale()?;
                let axes = x.list(1, &[x.get(1).shape.first().copied().unwrap_or(0)])?;
                let rank = first.shape.len() as i64;
                let axes: Vec<i64> = axes.iter().map(|a| a.rem_euclid(rank)).collect();
                let keep = x.int(2)? > 0;
                let input = self.read(x.indices[0])?;
                let space = rank == 4 && axes == [1, 2];
                let attrs = |axes: &[i64]| {
                    Attrs::new().with("axes", ints(axes)).with("keepdims", Attr::Int(keep.into()))
                };
                let y = if space {
                    let input = self.transposed(input, &TO_NCHW)?;
                    let y = self.node("ReduceMean", attrs(&[2, 3]), &[input], quant)?;
                    if keep { self.transposed(y, &TO_NHWC)? } else { y }
                } else {
                    self.node("ReduceMean", attrs(&axes), &[input], quant)?
                };
                self.done(out, y, 0)
            }
            // PAD, PAD_V2
            code @ (32 | 69) => {
                since(if code == 69 || first.is_quant8() { 29 } else { 28 })?;
                x.count(&[if code == 69 { 3 } else { 2 }])?;
                same_scale()?;
                let pads = x.list(1, &[first.shape.len(), 2])?;
                ensure!(pads.iter().all(|&p| p >= 0), "padding is not negative");
                let value = match (code, &first.quant()) {
                    (69, Some(quant)) => quant.real(x.int(2)?),
                    (69, None) => x.float(2)?,
                    _ => 0.0,
                };
                let begins = pads.iter().step_by(2);
                let pads: Vec<i64> =
                    begins.chain(pads.iter().skip(1).step_by(2)).copied().collect();
                let attrs =
                    Attrs::new().with("pads", ints(&pads)).with("value", Attr::Float(value));
                let input = self.read(x.indices[0])?;
                let y = self.node("Pad", attrs, &[input], quant)?;
                self.done(out, y, 0)
            }
            // TRANSPOSE
            37 => {
                since(28)?;
                x.count(&[2])?;
                same_scale()?;
                let order = x.list(1, &[first.shape.len()])?;
                let input = self.read(x.indices[0])?;
                let y = self.transposed(input, &order)?;
                self.done(out, y, 0)
            }
            // SPLIT
            87 => {
                since(29)?;
                x.count(&[3])?;
                let (axis, n) = (x.int(1)?, x.at_least(2, 1)?);
                let rank = first.shape.len();
                let axis = i64::from(axis).rem_euclid(rank as i64) as usize;
                ensure!(outputs.len() == n, "it has as many outputs as parts");
                ensure!(first.shape[axis].is_multiple_of(n), "the parts are equal");
                let input = self.read(x.indices[0])?;
                let part = (first.shape[axis] / n) as i64;
                for (i, &output) in outputs.iter().enumerate() {
                    let y = &self.operands[output];
                    let same = (first.scale, first.zero_point) == (y.scale, y.zero_point);
                    ensure!(same, "outputs and input have the same scale and zero point");
                    let attrs = Attrs::new()
                        .with("starts", ints(&[i as i64 * part]))
                        .with("ends", ints(&[(i as i64 + 1) * part]))
                        .with("axes", ints(&[axis as i64]));
                    let quant = y.quant();
                    let y = self.node("Slice", attrs, &[input], quant)?;
                    self.done(output, y, 0)?;
                }
                Ok(())
            }
            code => Err(format!("the stand-in has no operation {code}")),
        }
    }

    /// Types and scales of a product: gives the weights and bias as a graph has them.
    fn product(
        &mut self,
        x: &Inputs,
        channel: usize,
        per_channel: bool,
        out: usize,
    ) -> Checked<(Tensor, Option<QuantParams>, ValueId)> {
        let (input, w, b, y) = (x.get(0), x.get(1), x.get(2), &self.operands[out]);
        let units = w.shape[channel];
        ensure!(b.shape == [units], "the bias has shape [{units}]");
        let weights = w.tensor().ok_or("the stand-in takes constant weights only")?;
        let bias = b.tensor().ok_or("the stand-in takes a constant bias only")?;
        if input.code == TENSOR_FLOAT32 {
            let floats = w.code == TENSOR_FLOAT32 && b.code == TENSOR_FLOAT32;
            ensure!(floats, "floats have weights and a bias of floats");
            let bias = self.constant(bias, None);
            return Ok((weights, None, bias));
        }
        ensure!(b.code == TENSOR_INT32, "codes have a bias of TENSOR_INT32");
        let (weights, quant) = match &w.channels {
            Some((dimension, scales)) => {
                ensure!(per_channel, "it takes no scales per channel");
                ensure!(*dimension == channel, "scales are along dimension {channel}");
                ensure!(b.scale == 0.0, "with scales per channel the bias has scale 0");
                (weights, QuantParams::per_channel(scales.clone(), channel))
            }
            None => {
                ensure!(
                    w.code == input.code,
                    "weights have the input's type or scales per channel"
                );
                let product = input.scale * w.scale;
                let close = (b.scale - product).abs() <= 1e-6 * product;
                ensure!(close, "the bias has scale input * weights, {product:e}");
                let above = self.level >= 29 || y.scale > product;
                ensure!(above, "before level 29 the output's scale is above input * weights");
                // Unsigned weights as signed ones.
                let unsigned = w.code == TENSOR_QUANT8_ASYMM;
                let shift = if unsigned { 128 } else { 0 };
                let codes: Vec<i8> = weights
                    .bytes()
                    .iter()
                    .map(|&c| if unsigned { c ^ 0x80 } else { c } as i8)
                    .collect();
                let weights = Tensor::from_slice(&w.shape, &codes);
                (weights, QuantParams::per_tensor(w.scale, w.zero_point - shift))
            }
        };
        let scales = (0..units).map(|c| input.scale * quant.scale_of(c)).collect();
        let bias = self.constant(bias, Some(QuantParams::per_channel(scales, 0)));
        Ok((weights, Some(quant), bias))
    }

    fn constant(&mut self, data: Tensor, quant: Option<QuantParams>) -> ValueId {
        let value = self.temporary(data.dtype(), data.shape(), quant);
        self.graph.values[value].data = Some(data);
        value
    }

    fn convolution(&mut self, code: i32, x: &Inputs, out: usize) -> Checked {
        let (depthwise, grouped) = (code == 4, code == 55);
        if grouped {
            ensure!(self.level >= 29, "it comes with level 29, this is {}", self.level);
        }
        // After the strides: a multiplier or groups, then the activation, layout and dilation.
        let fused_at = if depthwise || grouped { 10 } else { 9 };
        match grouped {
            true => x.count(&[12])?,
            false => x.count(&[fused_at + 1, fused_at + 2, fused_at + 4])?,
        }
        let (input, w, y) = (x.get(0), x.get(1), &self.operands[out]);
        ensure!(
            input.shape.len() == 4 && w.shape.len() == 4,
            "its input and weights have 4 dimensions"
        );
        let channel = if depthwise { 3 } else { 0 };
        let n = |i: usize, least: i32| x.at_least(i, least).map(|n| n as i64);
        let [left, right, top, bottom] = [n(3, 0)?, n(4, 0)?, n(5, 0)?, n(6, 0)?];
        let [step_w, step_h] = [n(7, 1)?, n(8, 1)?];
        let fused = x.fused(fused_at)?;
        x.nhwc(fused_at + 1)?;
        let (skip_w, skip_h) = match x.indices.len() == fused_at + 4 {
            true => (n(fused_at + 2, 1)?, n(fused_at + 3, 1)?),
            false => (1, 1),
        };
        let depth = input.shape[3];
        let group = match code {
            4 => {
                let multiplier = x.at_least(9, 1)?;
                ensure!(w.shape[0] == 1, "depthwise weights have shape [1, h, w, depth]");
                let fits = w.shape[3] == depth * multiplier;
                ensure!(fits, "depthwise weights have the input's depth times {multiplier}");
                depth
            }
            55 => {
                let groups = x.at_least(9, 1)?;
                let fits = w.shape[3] * groups == depth && w.shape[0].is_multiple_of(groups);
                ensure!(fits, "weights of {:?} do not fit {groups} groups", w.shape);
                groups
            }
            _ => {
                ensure!(w.shape[3] == depth, "weights have the input's depth");
                1
            }
        };
        let (weights, quant, bias) = self.product(x, channel, true, out)?;
        // [out, h, w, in] or [1, h, w, out] as [out, in, h, w].
        let order = if depthwise { [3, 0, 1, 2] } else { [0, 3, 1, 2] };
        let weights = permuted(&weights, order);
        let quant = quant.map(|q| QuantParams { axis: 0, ..q });
        let weights = self.constant(weights, quant);
        let pixels = self.read(x.indices[0])?;
        let pixels = self.transposed(pixels, &TO_NCHW)?;
        let attrs = Attrs::new()
            .with("strides", ints(&[step_h, step_w]))
            .with("dilations", ints(&[skip_h, skip_w]))
            .with("pads", ints(&[top, left, bottom, right]))
            .with("group", Attr::Int(group as i64));
        let y = self.node("Conv", attrs, &[pixels, weights, bias], y.quant())?;
        let y = self.transposed(y, &TO_NHWC)?;
        self.done(out, y, fused)
    }

    fn fully_connected(&mut self, x: &Inputs, out: usize) -> Checked {
        x.count(&[4])?;
        let (input, w) = (x.get(0), x.get(1));
        ensure!(input.shape.len() >= 2, "its input has at least 2 dimensions");
        let &[_, depth] = w.shape.as_slice() else { return Err("its weights are a matrix".into()) };
        let all: usize = input.shape.iter().product();
        ensure!(all.is_multiple_of(depth), "its input is no multiple of {depth}");
        let fused = x.fused(3)?;
        let (weights, quant, bias) = self.product(x, 0, false, out)?;
        let weights = self.constant(weights, quant);
        let rows = self.read(x.indices[0])?;
        let rows = self.reshaped(rows, &[all / depth, depth])?;
        let attrs = Attrs::new().with("transB", Attr::Int(1));
        let y = self.node("Gemm", attrs, &[rows, weights, bias], self.operands[out].quant())?;
        self.done(out, y, fused)
    }
}

/// A tensor of 4 axes with these in another order.
fn permuted(x: &Tensor, order: [usize; 4]) -> Tensor {
    let (from, size) = (x.shape(), x.dtype().size());
    let shape = order.map(|axis| from[axis]);
    let strides = [from[1] * from[2] * from[3], from[2] * from[3], from[3], 1];
    let mut bytes = Vec::with_capacity(x.bytes().len());
    for a in 0..shape[0] {
        for b in 0..shape[1] {
            for c in 0..shape[2] {
                for d in 0..shape[3] {
                    let at: usize =
                        [a, b, c, d].iter().zip(order).map(|(i, axis)| i * strides[axis]).sum();
                    bytes.extend(&x.bytes()[at * size..][..size]);
                }
            }
        }
    }
    Tensor::from_bytes(x.dtype(), &shape, &bytes)
}
