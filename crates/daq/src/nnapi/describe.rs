//! A part of a graph in NNAPI's terms: operands and operations, pictures channels-last. Nothing here
//! calls the library, so what can be said of a node is known without one.

use std::collections::{HashMap, HashSet};

use super::codes::{operand, operation};
use crate::graph::{Graph, Node, Value, ValueId};
use crate::layout::{Layout, LayoutRule, dims as batch_channels_space, to_channels_last};
use crate::lint::{Fix, Target, lint_node};
use crate::ops::moves::normalize_axes;
use crate::ops::spatial::{Axis, Window};
use crate::ops::{AveragePool, Coordinates, NearestMode, Op, PadMode, ResizeMode, normalize_axis};
use crate::plan::fused_clamp;
use crate::quant::QuantParams;
use crate::tensor::{DType, Tensor};

/// One operand.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) code: i32,
    pub(super) shape: Vec<u32>,
    /// 0 where it has none.
    pub(super) scale: f32,
    pub(super) zero_point: i32,
    /// The dimension of scales per channel, and these.
    pub(super) channels: Option<(u32, Vec<f32>)>,
    /// The elements of a constant.
    pub(super) value: Option<Tensor>,
}

impl Operand {
    /// Bytes of its elements.
    pub(super) fn len(&self) -> usize {
        let wide =
            [operand::FLOAT32, operand::INT32, operand::TENSOR_FLOAT32, operand::TENSOR_INT32];
        let size = if wide.contains(&self.code) { 4 } else { 1 };
        size * self.shape.iter().map(|&d| d as usize).product::<usize>()
    }
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) code: i32,
    pub(super) inputs: Vec<u32>,
    pub(super) outputs: Vec<u32>,
    /// The node that it belongs to.
    pub(super) node: usize,
}

/// What goes into a model or comes out: the value, its layout, the operand.
pub(super) type End = (ValueId, Layout, u32);

/// A model.
#[derive(Debug, Default)]
pub(super) struct Description {
    pub(super) operands: Vec<Operand>,
    pub(super) operations: Vec<Operation>,
    pub(super) inputs: Vec<End>,
    pub(super) outputs: Vec<End>,
}

/// Why a node has no form.
type Emitted<T = ()> = Result<T, String>;

/// Says nodes, given in order, in the terms of an API level; or which of them has no form, and why.
pub(super) fn describe(
    graph: &Graph,
    nodes: &[usize],
    level: u32,
) -> Result<Description, (usize, String)> {
    let mut emitter = Emitter {
        graph,
        level,
        part: nodes.iter().copied().collect(),
        consumers: graph.consumers(),
        forms: HashMap::new(),
        layouts: HashMap::new(),
        integers: HashMap::new(),
        done: HashSet::new(),
        node: 0,
        model: Description::default(),
    };
    for &i in nodes {
        emitter.node = i;
        if !emitter.done.contains(&i) {
            emitter.node(&graph.nodes[i]).map_err(|why| (i, why))?;
        }
    }
    emitter.outputs();
    match (emitter.model.inputs.is_empty(), nodes.first()) {
        (true, Some(&first)) => Err((first, "it reads constants only".into())),
        _ => Ok(emitter.model),
    }
}

struct Emitter<'a> {
    graph: &'a Graph,
    level: u32,
    part: HashSet<usize>,
    consumers: Vec<Vec<usize>>,
    /// The operand of each value, by layout and by the rank that its shape was padded to.
    forms: HashMap<(ValueId, Layout, usize), u32>,
    /// The layout that each value was computed or is given in.
    layouts: HashMap<ValueId, Layout>,
    /// Scalars, which operations share.
    integers: HashMap<i32, u32>,
    /// Activations that the operation before them has.
    done: HashSet<usize>,
    node: usize,
    model: Description,
}

impl Emitter<'_> {
    fn value(&self, id: ValueId) -> &Value {
        &self.graph.values[id]
    }

    /// What other parts read.
    fn outputs(&mut self) {
        let nodes = self.graph.nodes.iter().enumerate();
        let ours: Vec<ValueId> = nodes
            .filter(|(i, _)| self.part.contains(i))
            .flat_map(|(_, node)| node.outputs.iter().copied())
            .collect();
        for id in ours {
            let outside = self.consumers[id].iter().any(|reader| !self.part.contains(reader));
            // What an activation took over is not computed, and nothing outside reads it.
            if let Some(&layout) = self.layouts.get(&id)
                && (outside || self.graph.outputs.contains(&id))
            {
                let operand = self.forms[&(id, layout, self.value(id).shape.len())];
                self.model.outputs.push((id, layout, operand));
            }
        }
    }

    fn node(&mut self, node: &Node) -> Emitted {
        let dense = matches!(node.op, Op::Gemm(_) | Op::MatMul(_));
        // A dense layer whose weights have many scales is a convolution of one pixel.
        let allowed =
            |fix: &Option<Fix>| dense && self.level >= 29 && matches!(fix, Some(Fix::PerTensor(_)));
        let broken = lint_node(self.graph, node, Target::Nnapi(self.level));
        if let Some(finding) = broken.into_iter().find(|f| !allowed(&f.fix)) {
            return Err(finding.why);
        }
        match &node.op {
            Op::Conv(conv) => self.conv(node, &conv.window, conv.group),
            Op::Gemm(gemm) if gemm.trans_a || gemm.alpha != 1.0 || gemm.beta != 1.0 => {
                Err("a fully connected layer has no factors and no transposed input".into())
            }
            Op::Gemm(gemm) => self.dense(node, gemm.trans_b),
            Op::MatMul(_) => self.dense(node, false),
            Op::Add(_) => self.pair(node, operation::ADD, true),
            Op::Mul(_) => self.pair(node, operation::MUL, true),
            Op::Sub(_) => self.pair(node, operation::SUB, true),
            Op::Div(_) => self.pair(node, operation::DIV, true),
            Op::Max(_) => self.pair(node, operation::MAXIMUM, false),
            Op::Min(_) => self.pair(node, operation::MINIMUM, false),
            Op::AveragePool(pool) => self.average_pool(node, pool),
            Op::MaxPool(pool) => self.pool(node, operation::MAX_POOL_2D, Some(&pool.window)),
            Op::GlobalAveragePool(_) => self.pool(node, operation::AVERAGE_POOL_2D, None),
            Op::GlobalMaxPool(_) => self.pool(node, operation::MAX_POOL_2D, None),
            Op::ReduceMean(_) => self.mean(node),
            Op::Concat(concat) => self.concat(node, concat.axis),
            Op::Softmax(softmax) => self.softmax(node, softmax.0.axis),
            Op::Sigmoid(_) => self.unary(node, operation::LOGISTIC),
            Op::Tanh(_) => self.unary(node, operation::TANH),
            Op::HardSwish(_) => self.unary(node, operation::HARD_SWISH),
            Op::QuantizeLinear(_) => self.unary(node, operation::QUANTIZE),
            Op::DequantizeLinear(_) => self.unary(node, operation::DEQUANTIZE),
            Op::Relu(_) | Op::Clip(_) => match node.op.clamp().and_then(activation) {
                Some((_, code)) => self.unary(node, code),
                None => Err("there is no such Clip".into()),
            },
            Op::DepthToSpace(op) if op.column_row_depth => {
                Err("DEPTH_TO_SPACE takes the mode DCR only".into())
            }
            Op::DepthToSpace(op) => self.blocks(node, operation::DEPTH_TO_SPACE, op.block),
            Op::SpaceToDepth(op) => self.blocks(node, operation::SPACE_TO_DEPTH, op.block),
            Op::Resize(_) => self.resize(node),
            Op::Transpose(_) => self.transpose(node),
            Op::Pad(_) => self.pad(node),
            Op::Split(split) => self.split(node, split.axis),
            op if op.is_view() => self.reshape(node),
            op => Err(format!("daq does not hand {} to NNAPI", op.name())),
        }
    }

    // Operands.

    fn push(&mut self, operand: Operand) -> u32 {
        self.model.operands.push(operand);
        self.model.operands.len() as u32 - 1
    }

    fn scalar(&mut self, code: i32, value: Tensor) -> u32 {
        let (shape, value) = (Vec::new(), Some(value));
        self.push(Operand { code, shape, scale: 0.0, zero_point: 0, channels: None, value })
    }

    fn integer(&mut self, value: usize) -> Emitted<u32> {
        let value = i32::try_from(value).map_err(|_| format!("{value} is too large"))?;
        if let Some(&known) = self.integers.get(&value) {
            return Ok(known);
        }
        let operand = self.scalar(operand::INT32, Tensor::scalar(value));
        self.integers.insert(value, operand);
        Ok(operand)
    }

    fn boolean(&mut self, value: bool) -> u32 {
        self.scalar(operand::BOOL, Tensor::scalar(u8::from(value)))
    }

    /// A constant list of integers of a shape.
    fn list(&mut self, shape: &[usize], values: &[usize]) -> Emitted<u32> {
        let values: Vec<i32> = values.iter().map(|&v| v as i32).collect();
        let tensor = Tensor::from_slice(shape, &values);
        let operand = tensor_operand(DType::I32, shape, None, self.level)?;
        Ok(self.push(Operand { value: Some(tensor), ..operand }))
    }

    fn operation(&mut self, code: i32, inputs: Vec<u32>, outputs: Vec<u32>) {
        self.model.operations.push(Operation { code, inputs, outputs, node: self.node });
    }

    /// An operand of a value in some shape. Integers are for shapes and biases only.
    fn operand_of(&self, id: ValueId, shape: &[usize]) -> Emitted<Operand> {
        let value = self.value(id);
        match value.dtype {
            DType::I32 => Err("NNAPI computes on floats and codes".into()),
            dtype => tensor_operand(dtype, shape, value.quant.as_ref(), self.level),
        }
    }

    /// A new operand for what an operation computes.
    fn add(&mut self, id: ValueId, layout: Layout) -> Emitted<u32> {
        let value = self.value(id);
        let (rank, shape) = (value.shape.len(), layout.physical(&value.shape));
        let operand = self.operand_of(id, &shape)?;
        let operand = self.push(operand);
        self.forms.insert((id, layout, rank), operand);
        self.layouts.insert(id, layout);
        Ok(operand)
    }

    /// A value in a layout, its shape padded with leading axes of 1 to `rank`.
    fn form(&mut self, id: ValueId, layout: Layout, rank: usize) -> Emitted<u32> {
        let layout = if rank < 3 { Layout::Plain } else { layout };
        if let Some(&operand) = self.forms.get(&(id, layout, rank)) {
            return Ok(operand);
        }
        let value = self.value(id);
        let own = value.shape.len();
        let mut logical = vec![1; rank - own];
        logical.extend(&value.shape);
        let physical = layout.physical(&logical);
        let mut wanted = self.operand_of(id, &physical)?;
        if let Some(data) = &value.data {
            let data = data.reshaped(&logical);
            let plain = layout == Layout::Plain;
            wanted.value = Some(if plain { data } else { to_channels_last(&data) });
            let operand = self.push(wanted);
            self.forms.insert((id, layout, rank), operand);
            return Ok(operand);
        }
        if !self.layouts.contains_key(&id) && rank == own {
            let operand = self.add(id, layout)?;
            self.model.inputs.push((id, layout, operand));
            return Ok(operand);
        }
        let known = self.layouts.get(&id).copied().unwrap_or(Layout::Plain);
        let from = if rank == own { known } else { Layout::Plain };
        let source = self.form(id, from, own)?;
        let same_order =
            layout == from || logical[1] == 1 || logical[2..].iter().product::<usize>() == 1;
        let target = self.push(wanted);
        if same_order {
            let shape = self.list(&[rank], &physical)?;
            self.operation(operation::RESHAPE, vec![source, shape], vec![target]);
        } else if rank > own {
            let padded = self.form(id, Layout::Plain, rank)?;
            self.turn(padded, target, rank, layout)?;
        } else {
            self.turn(source, target, rank, layout)?;
        }
        self.forms.insert((id, layout, rank), target);
        Ok(target)
    }

    /// A change of layout.
    fn turn(&mut self, from: u32, to: u32, rank: usize, layout: Layout) -> Emitted {
        if self.level < 28 {
            return Err("a change of layout comes with API level 28".into());
        }
        let axes: Vec<usize> = (0..rank).collect();
        let order = match layout {
            Layout::ChannelsLast => layout.physical(&axes),
            Layout::Plain => {
                let back = |axis| Layout::ChannelsLast.physical_axis(axis, rank);
                axes.iter().map(|&axis| back(axis)).collect()
            }
        };
        let order = self.list(&[rank], &order)?;
        self.operation(operation::TRANSPOSE, vec![from, order], vec![to]);
        Ok(())
    }

    /// Input `index` in a layout, in its own rank.
    fn input(&mut self, node: &Node, index: usize, layout: Layout) -> Emitted<u32> {
        let id = input(node, index)?;
        self.form(id, layout, self.value(id).shape.len())
    }

    /// The layout in which an operator that takes either is best computed.
    fn any_layout(&self, node: &Node) -> Layout {
        let specs = self.graph.input_specs(node);
        let rank = self.value(node.outputs[0]).shape.len();
        let last = |&id: &ValueId| match self.layouts.get(&id) {
            Some(&layout) => layout == Layout::ChannelsLast,
            // Given from outside, in whichever layout is asked for.
            None => self.value(id).data.is_none() && rank == 4,
        };
        match node.op.layout(&specs) {
            LayoutRule::Plain => Layout::Plain,
            LayoutRule::ChannelsLast => Layout::ChannelsLast,
            LayoutRule::Any => {
                let mut full = node.inputs.iter().flatten();
                match full.any(|id| self.value(*id).shape.len() == rank && last(id)) && rank >= 3 {
                    true => Layout::ChannelsLast,
                    false => Layout::Plain,
                }
            }
        }
    }

    /// The activation that follows a node, where the same operation can have it: its code, and the
    /// value that is computed then.
    fn activation(&mut self, node: &Node) -> Emitted<(u32, ValueId)> {
        let fused = fused_clamp(self.graph, &self.consumers, node)
            .filter(|(reader, _)| self.part.contains(reader))
            .and_then(|(reader, clamp)| Some((reader, activation(clamp)?.0)));
        match fused {
            Some((reader, code)) => {
                self.done.insert(reader);
                Ok((self.integer(code)?, self.graph.nodes[reader].outputs[0]))
            }
            None => Ok((self.integer(0)?, node.outputs[0])),
        }
    }

    // Operations.

    fn unary(&mut self, node: &Node, code: i32) -> Emitted {
        let layout = self.any_layout(node);
        let x = self.input(node, 0, layout)?;
        let y = self.add(node.outputs[0], layout)?;
        self.operation(code, vec![x], vec![y]);
        Ok(())
    }

    /// An operator of two inputs that are broadcast.
    fn pair(&mut self, node: &Node, code: i32, fuses: bool) -> Emitted {
        let &[Some(a), Some(b)] = node.inputs.as_slice() else {
            return Err("it takes two inputs".into());
        };
        let layout = self.any_layout(node);
        let rank = self.value(node.outputs[0]).shape.len();
        let mut inputs = vec![self.form(a, layout, rank)?, self.form(b, layout, rank)?];
        let codes = [inputs[0], inputs[1]].map(|i| self.model.operands[i as usize].code);
        if codes[0] != codes[1] {
            return Err("its inputs are not of one type that NNAPI takes".into());
        }
        let mut output = node.outputs[0];
        if fuses {
            let (code, value) = self.activation(node)?;
            inputs.push(code);
            output = value;
        }
        let y = self.add(output, layout)?;
        self.operation(code, inputs, vec![y]);
        Ok(())
    }

    fn conv(&mut self, node: &Node, window: &Window, group: usize) -> Emitted {
        let (x, w) = (input(node, 0)?, input(node, 1)?);
        let weights = self.constant(w)?;
        let &[out, in_group, ..] = weights.shape() else { return Err("it has no picture".into()) };
        let (h, w_axis) = self.window(node, window, Some(&weights.shape()[2..]))?;
        let depthwise = group > 1 && in_group == 1;
        let quant = self.value(w).quant.clone();
        let (filter, channel) = match depthwise {
            true => {
                let [_, _, kh, kw] = *weights.shape() else { return Err("no picture".into()) };
                (turned(&weights.reshaped(&[1, out, kh, kw])), 3)
            }
            false => (turned(&weights), 0),
        };
        let mut inputs = vec![self.input(node, 0, Layout::ChannelsLast)?];
        inputs.push(self.weights(filter, quant.as_ref(), channel)?);
        inputs.push(self.bias(node, x, quant.as_ref(), out)?);
        for n in [w_axis.pad_begin, w_axis.pad_end, h.pad_begin, h.pad_end, w_axis.stride, h.stride]
        {
            inputs.push(self.integer(n)?);
        }
        let code = match (depthwise, group) {
            (true, _) => operation::DEPTHWISE_CONV_2D,
            (false, 1) => operation::CONV_2D,
            (false, _) => operation::GROUPED_CONV_2D,
        };
        match code {
            operation::DEPTHWISE_CONV_2D => inputs.push(self.integer(out / group)?),
            operation::GROUPED_CONV_2D => inputs.push(self.integer(group)?),
            _ => {}
        }
        let (fused, output) = self.activation(node)?;
        inputs.push(fused);
        let dilated = h.dilation > 1 || w_axis.dilation > 1;
        if code == operation::GROUPED_CONV_2D {
            if dilated {
                return Err("GROUPED_CONV_2D has no dilation".into());
            }
            inputs.push(self.boolean(false));
        } else if dilated {
            inputs.push(self.boolean(false));
            inputs.push(self.integer(w_axis.dilation)?);
            inputs.push(self.integer(h.dilation)?);
        }
        let y = self.add(output, Layout::ChannelsLast)?;
        self.operation(code, inputs, vec![y]);
        Ok(())
    }

    /// A product with a constant matrix, `[units, depth]` where `transposed`.
    fn dense(&mut self, node: &Node, transposed: bool) -> Emitted {
        let (x, w) = (input(node, 0)?, input(node, 1)?);
        let weights = self.constant(w)?;
        let quant = self.value(w).quant.clone();
        let &[rows, columns] = weights.shape() else {
            return Err("its weights are not a matrix".into());
        };
        let (weights, units, depth) = match transposed {
            true => (weights, rows, columns),
            // [1, k, n] channels-last is [1, n, k].
            false => {
                let turned = to_channels_last(&weights.reshaped(&[1, rows, columns]));
                (turned.reshaped(&[columns, rows]), columns, rows)
            }
        };
        let (shape, y) = (self.value(x).shape.clone(), node.outputs[0]);
        if shape.len() < 2 {
            return Err("its input is not a matrix".into());
        }
        let batch = shape.iter().product::<usize>() / depth.max(1);
        let many = quant.as_ref().is_some_and(|q| !q.is_per_tensor());
        let bias = match self.value(y).shape.as_slice() {
            [.., last] if *last == units => self.bias(node, x, quant.as_ref(), units)?,
            _ => return Err("its output has another shape".into()),
        };
        let x = self.form(x, Layout::Plain, shape.len())?;
        if !many {
            let mut inputs = vec![x, self.weights(weights, quant.as_ref(), 0)?, bias];
            let (fused, output) = self.activation(node)?;
            inputs.push(fused);
            return self.operation_as(operation::FULLY_CONNECTED, inputs, output, &[batch, units]);
        }
        let like = self.model.operands[x as usize].clone();
        let pixel = self.push(Operand { shape: dims(&[batch, 1, 1, depth])?, ..like });
        let to = self.list(&[4], &[batch, 1, 1, depth])?;
        self.operation(operation::RESHAPE, vec![x, to], vec![pixel]);
        let w = self.weights(weights.reshaped(&[units, 1, 1, depth]), quant.as_ref(), 0)?;
        let (none, one) = (self.integer(0)?, self.integer(1)?);
        let inputs = vec![pixel, w, bias, none, none, none, none, one, one, none];
        self.operation_as(operation::CONV_2D, inputs, y, &[batch, 1, 1, units])
    }

    /// An operation that gives a value in another shape than its own: reshaped to that.
    fn operation_as(
        &mut self,
        code: i32,
        inputs: Vec<u32>,
        id: ValueId,
        shape: &[usize],
    ) -> Emitted {
        let own = self.value(id).shape.clone();
        if own == shape {
            let y = self.add(id, Layout::Plain)?;
            self.operation(code, inputs, vec![y]);
            return Ok(());
        }
        let given = self.operand_of(id, shape)?;
        let given = self.push(given);
        self.operation(code, inputs, vec![given]);
        let (to, y) = (self.list(&[own.len()], &own)?, self.add(id, Layout::Plain)?);
        self.operation(operation::RESHAPE, vec![given, to], vec![y]);
        Ok(())
    }

    /// The elements of a constant input.
    fn constant(&self, id: ValueId) -> Emitted<Tensor> {
        let value = self.value(id);
        value.data.clone().ok_or_else(|| format!("`{}` is not constant", value.name))
    }

    /// Weights of which each slice along `channel` gives one channel of the output.
    fn weights(
        &mut self,
        data: Tensor,
        quant: Option<&QuantParams>,
        channel: usize,
    ) -> Emitted<u32> {
        let operand = match (data.dtype(), quant) {
            (DType::F32 | DType::U8, _) => {
                let operand = tensor_operand(data.dtype(), data.shape(), quant, self.level)?;
                Operand { value: Some(data), ..operand }
            }
            (DType::I8, Some(quant)) if quant.is_per_tensor() => {
                // Before API level 30 there are unsigned codes only, and with unsigned inputs also since.
                let codes: Vec<u8> = data.data::<i8>().iter().map(|&c| (c as u8) ^ 0x80).collect();
                let quant = QuantParams::per_tensor(quant.scale[0], quant.zero_point[0] + 128);
                let operand = tensor_operand(DType::U8, data.shape(), Some(&quant), self.level)?;
                Operand { value: Some(Tensor::from_slice(data.shape(), &codes)), ..operand }
            }
            (DType::I8, Some(quant)) => {
                if quant.zero_point.iter().any(|&z| z != 0) || data.data::<i8>().contains(&-128) {
                    return Err(
                        "weights with a scale per channel are from -127 to 127, around 0".into()
                    );
                }
                Operand {
                    code: operand::TENSOR_QUANT8_SYMM_PER_CHANNEL,
                    shape: dims(data.shape())?,
                    scale: 0.0,
                    zero_point: 0,
                    channels: Some((channel as u32, quant.scale.clone())),
                    value: Some(data),
                }
            }
            _ => return Err(format!("its weights are {}", data.dtype())),
        };
        Ok(self.push(operand))
    }

    /// The bias of a product, zeros where there is none: floats, or integers at the scale of
    /// the products, which for weights with many scales is not written down.
    fn bias(
        &mut self,
        node: &Node,
        x: ValueId,
        w: Option<&QuantParams>,
        channels: usize,
    ) -> Emitted<u32> {
        let given = node.inputs.get(2).copied().flatten();
        let (x, codes) = (self.value(x), self.value(x).dtype.is_code());
        let dtype = if codes { DType::I32 } else { DType::F32 };
        let data = match given {
            Some(id) => self.constant(id)?,
            None => Tensor::zeros(dtype, &[channels]),
        };
        if data.dtype() != dtype || data.len() != channels {
            return Err(format!("its bias is {} of shape {:?}", data.dtype(), data.shape()));
        }
        let scale = match (&x.quant, w) {
            (Some(x), Some(w)) if codes && w.is_per_tensor() => x.scale[0] * w.scale[0],
            _ => 0.0,
        };
        let operand = tensor_operand(dtype, &[channels], None, self.level)?;
        Ok(self.push(Operand { scale, value: Some(data.reshaped(&[channels])), ..operand }))
    }

    /// The height and width of a window over a picture.
    fn window(
        &self,
        node: &Node,
        window: &Window,
        kernel: Option<&[usize]>,
    ) -> Emitted<(Axis, Axis)> {
        let specs = self.graph.input_specs(node);
        let axes = window.resolve(&specs, kernel).map_err(|e| e.to_string())?;
        match axes.as_slice() {
            &[h, w] => Ok((h, w)),
            _ => Err("NNAPI has pictures of two axes only".into()),
        }
    }

    fn average_pool(&mut self, node: &Node, pool: &AveragePool) -> Emitted {
        let (h, w) = self.window(node, &pool.window, None)?;
        let padded = [h, w].iter().any(|axis| axis.pad_begin + axis.pad_end > 0);
        if pool.count_include_pad && (padded || pool.window.ceil_mode) {
            return Err("AVERAGE_POOL_2D does not count padding".into());
        }
        self.pool(node, operation::AVERAGE_POOL_2D, Some(&pool.window))
    }

    /// A pooling, over the whole picture where there is no window.
    fn pool(&mut self, node: &Node, code: i32, window: Option<&Window>) -> Emitted {
        let &[.., height, width] = self.value(input(node, 0)?).shape.as_slice() else {
            return Err("it has no picture".into());
        };
        let whole = |n| Axis {
            input: n,
            output: 1,
            kernel: n,
            stride: 1,
            dilation: 1,
            pad_begin: 0,
            pad_end: 0,
        };
        let (h, w) = match window {
            Some(window) => self.window(node, window, None)?,
            None => (whole(height), whole(width)),
        };
        if node.outputs.len() > 1 {
            return Err("MAX_POOL_2D gives no indices".into());
        }
        let end = |axis: &Axis| {
            // What rounding up adds is padding too.
            let needed = (axis.output - 1) * axis.stride + axis.kernel;
            axis.pad_end.max(needed.saturating_sub(axis.input + axis.pad_begin))
        };
        let fits = |axis: &Axis| axis.pad_begin.max(end(axis)) < axis.kernel && axis.dilation == 1;
        if ![h, w].iter().all(fits) {
            return Err("NNAPI pools without dilation, and pads by less than the window".into());
        }
        let x = self.input(node, 0, Layout::ChannelsLast)?;
        if self.model.operands[x as usize].shape.len() != 4 {
            return Err("NNAPI has pictures of two axes only".into());
        }
        let mut inputs = vec![x];
        let pads = [w.pad_begin, end(&w), h.pad_begin, end(&h)];
        for n in pads.into_iter().chain([w.stride, h.stride, w.kernel, h.kernel]) {
            inputs.push(self.integer(n)?);
        }
        let (fused, output) = self.activation(node)?;
        inputs.push(fused);
        let y = self.add(output, Layout::ChannelsLast)?;
        self.operation(code, inputs, vec![y]);
        Ok(())
    }

    fn mean(&mut self, node: &Node) -> Emitted {
        let layout = self.any_layout(node);
        let shape = self.value(input(node, 0)?).shape.clone();
        let rank = shape.len();
        let Op::ReduceMean(mean) = &node.op else { return Err("it is no mean".into()) };
        let axes = mean.axes(rank).map_err(|e| e.to_string())?;
        let axes: Vec<usize> = axes.iter().map(|&axis| layout.physical_axis(axis, rank)).collect();
        let y = node.outputs[0];
        if self.value(y).shape.is_empty() {
            return Err("NNAPI has no tensor without axes".into());
        }
        let inputs = vec![
            self.input(node, 0, layout)?,
            self.list(&[axes.len()], &axes)?,
            self.integer(mean.keep_dims.into())?,
        ];
        // Without the axes of space, channels-last is plain.
        let layout = if mean.keep_dims { layout } else { Layout::Plain };
        let y = self.add(y, layout)?;
        self.operation(operation::MEAN, inputs, vec![y]);
        Ok(())
    }

    fn concat(&mut self, node: &Node, axis: i64) -> Emitted {
        let layout = self.any_layout(node);
        let rank = self.value(node.outputs[0]).shape.len();
        let axis = normalize_axis(axis, rank).map_err(|e| e.to_string())?;
        let mut inputs = (0..node.inputs.len())
            .map(|i| self.input(node, i, layout))
            .collect::<Emitted<Vec<u32>>>()?;
        inputs.push(self.integer(layout.physical_axis(axis, rank))?);
        let y = self.add(node.outputs[0], layout)?;
        self.operation(operation::CONCATENATION, inputs, vec![y]);
        Ok(())
    }

    fn softmax(&mut self, node: &Node, axis: i64) -> Emitted {
        let layout = self.any_layout(node);
        let rank = self.value(node.outputs[0]).shape.len();
        let axis = normalize_axis(axis, rank).map_err(|e| e.to_string())?;
        let axis = layout.physical_axis(axis, rank);
        if self.level < 29 && (axis + 1 != rank || ![2, 4].contains(&rank)) {
            return Err("before API level 29 SOFTMAX runs along the last of 2 or 4 axes".into());
        }
        let mut inputs = vec![self.input(node, 0, layout)?];
        inputs.push(self.scalar(operand::FLOAT32, Tensor::scalar(1f32)));
        if self.level >= 29 {
            inputs.push(self.integer(axis)?);
        }
        let y = self.add(node.outputs[0], layout)?;
        self.operation(operation::SOFTMAX, inputs, vec![y]);
        Ok(())
    }

    fn blocks(&mut self, node: &Node, code: i32, side: usize) -> Emitted {
        let inputs = vec![self.input(node, 0, Layout::ChannelsLast)?, self.integer(side)?];
        let y = self.add(node.outputs[0], Layout::ChannelsLast)?;
        self.operation(code, inputs, vec![y]);
        Ok(())
    }

    fn resize(&mut self, node: &Node) -> Emitted {
        let Op::Resize(resize) = &node.op else { return Err("it is no Resize".into()) };
        let from = &self.value(input(node, 0)?).shape;
        let to = &self.value(node.outputs[0]).shape;
        let (&[n, c, in_h, in_w], &[on, oc, h, w]) = (from.as_slice(), to.as_slice()) else {
            return Err("NNAPI has pictures of two axes only".into());
        };
        if resize.antialias {
            return Err("NNAPI has no Resize with antialias".into());
        }
        let exact = resize
            .scales
            .iter()
            .zip(self.scaled_axes(resize.axes.as_deref()))
            .all(|(&scale, axis)| scale == to[axis] as f32 / from[axis] as f32);
        if (n, c) != (on, oc) || !exact {
            return Err("NNAPI resizes pictures by the ratio of their sizes only".into());
        }
        let whole = h % in_h == 0 && w % in_w == 0;
        use Coordinates::{
            AlignCorners, Asymmetric, HalfPixel, PytorchHalfPixel, TfHalfPixelForNn,
        };
        use NearestMode::{Floor, RoundPreferCeil, RoundPreferFloor};
        use ResizeMode::{Linear, Nearest};
        // Whether corners are aligned, whether pixels have their centre in the middle.
        let (corners, half) = match (resize.mode, resize.coordinates) {
            (Linear | Nearest(Floor), Asymmetric) => (false, false),
            (Linear, AlignCorners) => (true, false),
            (Linear, HalfPixel) => (false, true),
            (Linear, PytorchHalfPixel) if h > 1 && w > 1 => (false, true),
            (Nearest(Floor), TfHalfPixelForNn) | (Nearest(RoundPreferCeil), HalfPixel) => {
                (false, true)
            }
            // Halves, on which the two differ, do not occur.
            (Nearest(RoundPreferFloor), HalfPixel) if whole => (false, true),
            (mode, how) => {
                return Err(format!("NNAPI has no Resize {how:?} with {mode:?}"));
            }
        };
        if (corners || half) && self.level < 30 {
            return Err("aligned corners and half pixels come with API level 30".into());
        }
        let code = match resize.mode {
            Nearest(_) => operation::RESIZE_NEAREST_NEIGHBOR,
            _ => operation::RESIZE_BILINEAR,
        };
        let x = self.input(node, 0, Layout::ChannelsLast)?;
        let mut inputs = vec![x, self.integer(w)?, self.integer(h)?];
        if corners || half || code == operation::RESIZE_NEAREST_NEIGHBOR {
            inputs.push(self.boolean(false));
        }
        if corners || half {
            inputs.push(self.boolean(corners));
            inputs.push(self.boolean(half));
        }
        let y = self.add(node.outputs[0], Layout::ChannelsLast)?;
        self.operation(code, inputs, vec![y]);
        Ok(())
    }

    /// The axes that the scales of a Resize speak of.
    fn scaled_axes(&self, axes: Option<&[i64]>) -> Vec<usize> {
        axes.and_then(|axes| normalize_axes(axes, 4).ok()).unwrap_or_else(|| (0..4).collect())
    }

    fn transpose(&mut self, node: &Node) -> Emitted {
        let Op::Transpose(transpose) = &node.op else { return Err("it is no Transpose".into()) };
        let rank = self.value(node.outputs[0]).shape.len();
        let order = match &transpose.perm {
            Some(perm) => normalize_axes(perm, rank).map_err(|e| e.to_string())?,
            None => (0..rank).rev().collect(),
        };
        let inputs = vec![self.input(node, 0, Layout::Plain)?, self.list(&[rank], &order)?];
        let y = self.add(node.outputs[0], Layout::Plain)?;
        self.operation(operation::TRANSPOSE, inputs, vec![y]);
        Ok(())
    }

    fn pad(&mut self, node: &Node) -> Emitted {
        let layout = self.any_layout(node);
        let rank = self.value(node.outputs[0]).shape.len();
        let op =
            if layout == Layout::Plain { node.op.clone() } else { node.op.to_channels_last(rank) };
        let Op::Pad(pad) = op else { return Err("it is no Pad".into()) };
        let bounds = pad.by_axis(rank).map_err(|e| e.to_string())?;
        if pad.mode != PadMode::Constant || bounds.iter().any(|&(a, b)| a < 0 || b < 0) {
            return Err("NNAPI pads with a constant only, and removes nothing".into());
        }
        let bounds: Vec<usize> =
            bounds.iter().flat_map(|&(a, b)| [a as usize, b as usize]).collect();
        let mut inputs = vec![self.input(node, 0, layout)?, self.list(&[rank, 2], &bounds)?];
        let code = if pad.value == 0.0 { operation::PAD } else { operation::PAD_V2 };
        if code == operation::PAD_V2 {
            if self.level < 29 {
                return Err("padding with other numbers than 0 comes with API level 29".into());
            }
            let x = self.value(input(node, 0)?);
            let value = match &x.quant {
                Some(q) if x.dtype == DType::U8 => q.code(pad.value, 0, 255),
                _ => 0,
            };
            inputs.push(match x.dtype {
                DType::F32 => self.scalar(operand::FLOAT32, Tensor::scalar(pad.value)),
                DType::U8 => self.scalar(operand::INT32, Tensor::scalar(value)),
                dtype => return Err(format!("PAD_V2 of {dtype}")),
            });
        }
        let y = self.add(node.outputs[0], layout)?;
        self.operation(code, inputs, vec![y]);
        Ok(())
    }

    fn split(&mut self, node: &Node, axis: i64) -> Emitted {
        let layout = self.any_layout(node);
        let rank = self.value(node.outputs[0]).shape.len();
        let axis = normalize_axis(axis, rank).map_err(|e| e.to_string())?;
        let mut lengths = node.outputs.iter().map(|&id| self.value(id).shape[axis]);
        let first = lengths.next();
        let n = node.outputs.len();
        let all = self.value(input(node, 0)?).shape[axis];
        if lengths.any(|len| Some(len) != first) || first.map(|len| len * n) != Some(all) {
            return Err("SPLIT gives equal parts only".into());
        }
        let axis = self.integer(layout.physical_axis(axis, rank))?;
        let inputs = vec![self.input(node, 0, layout)?, axis, self.integer(n)?];
        let outputs =
            node.outputs.iter().map(|&id| self.add(id, layout)).collect::<Emitted<_>>()?;
        self.operation(operation::SPLIT, inputs, outputs);
        Ok(())
    }

    fn reshape(&mut self, node: &Node) -> Emitted {
        let (x, y) = (input(node, 0)?, node.outputs[0]);
        let (from, to) = (self.value(x), self.value(y));
        if from.dtype != to.dtype || (from.dtype.is_code() && from.quant != to.quant) {
            return Err("it changes more than the shape".into());
        }
        let same = from.shape == to.shape;
        let layout = if same { self.any_layout(node) } else { Layout::Plain };
        let (shape, rank) = (layout.physical(&to.shape), to.shape.len());
        let inputs = vec![self.input(node, 0, layout)?, self.list(&[rank], &shape)?];
        let y = self.add(y, layout)?;
        self.operation(operation::RESHAPE, inputs, vec![y]);
        Ok(())
    }
}

/// A tensor channels-last; the same elements where that is their order already.
fn turned(tensor: &Tensor) -> Tensor {
    let (_, channels, space) = batch_channels_space(tensor.shape());
    match channels == 1 || space == 1 {
        true => tensor.reshaped(&Layout::ChannelsLast.physical(tensor.shape())),
        false => to_channels_last(tensor),
    }
}

/// The value that a node reads as input `index`.
fn input(node: &Node, index: usize) -> Emitted<ValueId> {
    let id = node.inputs.get(index).copied().flatten();
    id.ok_or_else(|| format!("its input {index} is left out"))
}

/// A shape as NNAPI takes it, where an axis of 0 would mean an unknown one.
fn dims(shape: &[usize]) -> Emitted<Vec<u32>> {
    if shape.is_empty() || shape.len() > 4 || shape.contains(&0) {
        return Err(format!("NNAPI has tensors of 1 to 4 axes with elements, not {shape:?}"));
    }
    let all = shape.iter().map(|&d| u32::try_from(d));
    all.collect::<Result<_, _>>().map_err(|_| format!("{shape:?} is too large"))
}

/// A tensor of a type, without elements yet.
fn tensor_operand(
    dtype: DType,
    shape: &[usize],
    quant: Option<&QuantParams>,
    level: u32,
) -> Emitted<Operand> {
    let operand = |code, scale, zero_point| {
        let shape = dims(shape)?;
        Ok(Operand { code, shape, scale, zero_point, channels: None, value: None })
    };
    match (dtype, quant) {
        (DType::F32, _) => operand(operand::TENSOR_FLOAT32, 0.0, 0),
        (DType::I32, None) => operand(operand::TENSOR_INT32, 0.0, 0),
        (DType::U8 | DType::I8, Some(quant)) if !quant.is_per_tensor() => {
            Err("a tensor of many scales, and it is no weights".into())
        }
        (DType::U8, Some(q)) => operand(operand::TENSOR_QUANT8_ASYMM, q.scale[0], q.zero_point[0]),
        (DType::I8, Some(q)) if level >= 30 => {
            operand(operand::TENSOR_QUANT8_ASYMM_SIGNED, q.scale[0], q.zero_point[0])
        }
        (DType::I8, Some(_)) => Err("signed codes come with API level 30".into()),
        (dtype, _) => Err(format!("NNAPI takes no {dtype} here")),
    }
}

/// The activation that clamps so: the code in another operation, the operation of its own.
fn activation((low, high): (f32, f32)) -> Option<(usize, i32)> {
    match (low, high) {
        (0.0, f32::INFINITY) => Some((1, operation::RELU)),
        (-1.0, 1.0) => Some((2, operation::RELU1)),
        (0.0, 6.0) => Some((3, operation::RELU6)),
        _ => None,
    }
}
