//! What follows a product and can be done to its codes while they are in the cache: a function of one
//! code (hard-swish, say, even where it is a HardSigmoid and a Mul) as a table, or the addition of a
//! residual branch. What makes floats of the sums of a dynamically quantized product is done in their place.

use std::ops::Range;

use daq_kernels::{AddU8, BinaryU8Params, Isa, Pool, conv_u8, scale_sums};

use crate::compile::Kernel;
use crate::graph::{Graph, Node, ValueId};
use crate::ops::{Op, Quantization, elementwise, eval};
use crate::quant::QuantParams;
use crate::tensor::{DType, TensorView, TensorViewMut};

/// What is done to every code of a product.
pub(super) enum Tail {
    /// A function of the code.
    Table(Box<[u8; 256]>),
    /// Added to the code at the same place of another value, the last input of the step.
    Add { kernel: AddU8, product_first: bool },
}

/// Nodes that one step computes along with the product before them.
pub(super) struct Fused {
    pub(super) tail: Tail,
    /// Positions of the nodes.
    pub(super) nodes: Vec<usize>,
    /// What the last of them computes.
    pub(super) output: ValueId,
    /// The other operand of an addition.
    pub(super) residual: Option<ValueId>,
}

/// What can be done to `value` as it is stored, if nothing else reads it.
///
/// `is_computed` says whether the steps so far give a value.
pub(super) fn tail_of(
    graph: &Graph,
    consumers: &[Vec<usize>],
    value: ValueId,
    isa: Isa,
    is_computed: impl Fn(ValueId) -> bool,
) -> Option<Fused> {
    table_of(graph, consumers, value)
        .or_else(|| addition_to(graph, consumers, value, isa, is_computed))
}

/// The quantization of a value of `u8` codes of one scale.
fn one_scale(graph: &Graph, id: ValueId) -> Option<&QuantParams> {
    let value = &graph.values[id];
    value.quant.as_ref().filter(|quant| value.dtype == DType::U8 && quant.is_per_tensor())
}

/// The nodes after `value` that compute a function of one of its codes, as one table.
pub(super) fn table_of(graph: &Graph, consumers: &[Vec<usize>], value: ValueId) -> Option<Fused> {
    one_scale(graph, value)?;
    let all = std::array::from_fn(|code| code as u8);
    let (mut nodes, mut output, mut table) = (Vec::new(), value, all);
    while !graph.outputs.contains(&output) {
        let Some((more, next, of_code)) = function_of(graph, consumers, output) else { break };
        nodes.extend(more);
        output = next;
        table = table.map(|code| of_code[usize::from(code)]);
    }
    let tail = Tail::Table(Box::new(table));
    (!nodes.is_empty()).then_some(Fused { tail, nodes, output, residual: None })
}

/// One function of a code: a single node, or `g(x, f(x))`.
fn function_of(
    graph: &Graph,
    consumers: &[Vec<usize>],
    value: ValueId,
) -> Option<(Vec<usize>, ValueId, [u8; 256])> {
    let all: [u8; 256] = std::array::from_fn(|code| code as u8);
    let one = |i: usize| evaluate(graph, &graph.nodes[i], &[(value, all)]);
    match *consumers[value].as_slice() {
        [i] => one(i).map(|(output, table)| (vec![i], output, table)),
        [i, j] => {
            let both = |inner: usize, outer: usize| {
                let (of_inner, table) = one(inner)?;
                let only = consumers[of_inner] == [outer] && !graph.outputs.contains(&of_inner);
                let operands = [(value, all), (of_inner, table)];
                let reads = &graph.nodes[outer].inputs;
                let pair =
                    reads.len() == 2 && operands.iter().all(|(id, _)| reads.contains(&Some(*id)));
                let (output, table) =
                    evaluate(graph, &graph.nodes[outer], &operands).filter(|_| only && pair)?;
                Some((vec![inner, outer], output, table))
            };
            both(i, j).or_else(|| both(j, i))
        }
        _ => None,
    }
}

/// The output of an elementwise node for every code, by its reference computation: `operands` are
/// what its inputs hold then; any other input is a constant of one element.
fn evaluate(
    graph: &Graph,
    node: &Node,
    operands: &[(ValueId, [u8; 256])],
) -> Option<(ValueId, [u8; 256])> {
    let [output] = *node.outputs.as_slice() else { return None };
    let elementwise = match node.op.quantization() {
        Quantization::Table => node.inputs.len() == 1,
        _ => elementwise::is_pointwise(&node.op) && node.inputs.len() == 2,
    };
    let shape = &graph.values[operands.first()?.0].shape;
    if !elementwise || graph.values[output].shape != *shape {
        return None;
    }
    let views: Option<Vec<_>> = node
        .inputs
        .iter()
        .map(|id| {
            let value = &graph.values[(*id)?];
            if let Some((id, codes)) = operands.iter().find(|(known, _)| Some(*known) == *id) {
                let quant = Some(one_scale(graph, *id)?);
                return Some(Some(TensorView {
                    dtype: DType::U8,
                    shape: &[256],
                    quant,
                    bytes: codes,
                }));
            }
            let constant =
                value.data.as_ref().filter(|data| data.shape().iter().all(|&d| d == 1))?;
            let view = constant.quantized_view(value.quant.as_ref());
            Some(Some(TensorView { shape: &[1], ..view }))
        })
        .collect();
    let mut table = [0; 256];
    let quant = Some(one_scale(graph, output)?);
    let to = TensorViewMut { dtype: DType::U8, shape: &[256], quant, bytes: &mut table };
    eval::run(&node.op, &views?, &mut [to]);
    Some((output, table))
}

/// The addition of another value to this one, where nothing else reads this one.
fn addition_to(
    graph: &Graph,
    consumers: &[Vec<usize>],
    value: ValueId,
    isa: Isa,
    is_computed: impl Fn(ValueId) -> bool,
) -> Option<Fused> {
    let [i] = *consumers[value].as_slice() else { return None };
    let node = &graph.nodes[i];
    let (Op::Add(_), &[Some(a), Some(b)], &[output]) =
        (&node.op, node.inputs.as_slice(), node.outputs.as_slice())
    else {
        return None;
    };
    let other = if a == value { b } else { a };
    let same_shape =
        [other, output].iter().all(|&id| graph.values[id].shape == graph.values[value].shape);
    if other == value || !same_shape || graph.outputs.contains(&value) || !is_computed(other) {
        return None;
    }
    let [qa, qb, qc] = [one_scale(graph, a)?, one_scale(graph, b)?, one_scale(graph, output)?];
    let zero_point = |quant: &QuantParams| quant.zero_point[0] as u8;
    let params = BinaryU8Params {
        a_scale: qa.scale[0],
        a_zero_point: zero_point(qa),
        b_scale: qb.scale[0],
        b_zero_point: zero_point(qb),
        output_scale: qc.scale[0],
        output_zero_point: zero_point(qc),
    };
    let tail = Tail::Add { kernel: AddU8::new(&params, isa), product_first: a == value };
    Some(Fused { tail, nodes: vec![i], output, residual: Some(other) })
}

/// A product and its tail.
pub(super) struct Tailed {
    pub(super) product: Box<dyn Kernel>,
    pub(super) tail: Tail,
}

impl Kernel for Tailed {
    fn writes_over_last(&self) -> bool {
        matches!(self.tail, Tail::Add { .. })
    }

    fn name(&self) -> String {
        let tail = match self.tail {
            Tail::Table(_) => "lookup",
            Tail::Add { .. } => "add",
        };
        format!("{}+{tail}", self.product.name())
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let product = self.product.product().expect("made from products only");
        let input = inputs[0].expect("a product has an input").bytes;
        let residual = inputs.last().copied().flatten().map(|other| other.bytes);
        let tail = match &self.tail {
            Tail::Table(table) => conv_u8::Tail::Table(table),
            Tail::Add { kernel, product_first } => {
                conv_u8::Tail::Add { kernel, other: residual, product_first: *product_first }
            }
        };
        product.run_on(pool, input, outputs[0].bytes, Some(tail));
    }
}

/// What makes real numbers of the sums of a product: a Cast, the scale, the bias.
pub(super) struct Scaling {
    pub(super) scale: ValueId,
    pub(super) bias: Option<ValueId>,
    /// The bounds of an activation that ends it.
    pub(super) clamp: (f32, f32),
    /// Positions of the nodes.
    pub(super) nodes: Vec<usize>,
    /// What the last of them computes.
    pub(super) output: ValueId,
}

/// What makes real numbers of `sums`, whose channels lie along `axis`, if nothing else reads them.
///
/// `is_known` says whether a value is constant or computed by the steps so far.
pub(super) fn scaling_of(
    graph: &Graph,
    consumers: &[Vec<usize>],
    sums: ValueId,
    axis: usize,
    is_known: impl Fn(ValueId) -> bool,
) -> Option<Scaling> {
    let shape = &graph.values[sums].shape;
    let reader = |value: ValueId| match *consumers[value].as_slice() {
        [i] if !graph.outputs.contains(&value) => Some((i, &graph.nodes[i])),
        _ => None,
    };
    // A float for all, or one for each channel, that a node combines with `value`.
    let operand = |node: &Node, value: ValueId| {
        let [Some(a), Some(b)] = *node.inputs.as_slice() else { return None };
        let other = if a == value { b } else { a };
        let of = &graph.values[other];
        let lead = shape.len().checked_sub(of.shape.len())?;
        let mut dims = of.shape.iter().enumerate();
        let fits = dims.all(|(i, &n)| n == 1 || i + lead == axis && n == shape[axis]);
        (fits && other != value && of.dtype == DType::F32 && is_known(other)).then_some(other)
    };
    let (cast, node) = reader(sums)?;
    let &[real] = node.outputs.as_slice() else { return None };
    if !matches!(node.op, Op::Cast(_)) || graph.values[real].dtype != DType::F32 {
        return None;
    }
    let (mul, node) = reader(real)?;
    let (Op::Mul(_), &[scaled]) = (&node.op, node.outputs.as_slice()) else { return None };
    let scale = operand(node, real)?;
    let (mut nodes, mut output, mut bias) = (vec![cast, mul], scaled, None);
    let mut last = node;
    if let Some((add, node)) = reader(scaled)
        && let (Op::Add(_), &[sum], Some(of)) =
            (&node.op, node.outputs.as_slice(), operand(node, scaled))
    {
        nodes.push(add);
        (output, bias, last) = (sum, Some(of), node);
    }
    let mut clamp = (f32::NEG_INFINITY, f32::INFINITY);
    if let Some((activation, bounds)) = super::fused_clamp(graph, consumers, last) {
        nodes.push(activation);
        output = *graph.nodes[activation].outputs.first()?;
        clamp = bounds;
    }
    Some(Scaling { scale, bias, clamp, nodes, output })
}

/// Sums, and what makes real numbers of them where they lie: the scale and the bias are the last inputs.
pub(super) struct Scaled {
    pub(super) sums: Box<dyn Kernel>,
    /// How many inputs the product has.
    pub(super) inputs: usize,
    pub(super) channels: usize,
    pub(super) clamp: (f32, f32),
    pub(super) isa: Isa,
}

impl Kernel for Scaled {
    fn name(&self) -> String {
        format!("{}+scale", self.sums.name())
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let (product, more) = inputs.split_at(self.inputs);
        let row = |i: usize| more.get(i).copied().flatten().map_or(&[][..], |view| view.data());
        let (scale, bias) = (row(0), row(1));
        let y = &mut outputs[0];
        let sums = TensorViewMut { dtype: DType::I32, shape: y.shape, quant: None, bytes: y.bytes };
        self.sums.run(product, &mut [sums], pool);
        let y = y.data_mut::<f32>();
        let rows = (y.len() / self.channels).div_ceil(pool.threads() * 4).max(1);
        pool.for_each_chunk(y, rows * self.channels, |_, values| {
            scale_sums(values, scale, bias, self.clamp, self.isa);
        });
    }
}

/// A product that writes some channels of a concatenation.
pub(super) struct Beside {
    pub(super) product: Box<dyn Kernel>,
    pub(super) channels: Range<usize>,
}

impl Kernel for Beside {
    fn name(&self) -> String {
        format!("{}+concat", self.product.name())
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let product = self.product.product().expect("made from products only");
        let input = inputs[0].expect("a product has an input").bytes;
        product.run_beside(pool, input, outputs[0].bytes, self.channels.clone());
    }
}

/// A table on its own.
pub(super) struct Lookup(pub(super) [u8; 256]);

impl Kernel for Lookup {
    fn name(&self) -> String {
        "lookup_u8".into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let x = inputs[0].expect("the plan gives it").bytes;
        elementwise::lookup(&self.0, x, outputs[0].bytes, pool);
    }
}

#[cfg(test)]
mod tests {
    use crate::Model;
    use crate::graph::{Graph, Node, Value};
    use crate::ops::{Attr, Attrs, Op};
    use crate::tensor::{DType, Tensor};

    fn push(g: &mut Graph, op: &str, attrs: Attrs, inputs: &[usize], shape: &[usize]) -> usize {
        let dtype = if op.ends_with("Integer") { DType::I32 } else { DType::F32 };
        let y = g.add_value(Value::new(format!("{op}{}", g.nodes.len()), dtype, shape));
        let op = Op::from_attrs(op, &attrs).unwrap().unwrap();
        let inputs = inputs.iter().map(|&i| Some(i)).collect();
        g.nodes.push(Node {
            name: String::new(),
            op,
            inputs,
            outputs: vec![y],
            doc: String::new(),
        });
        y
    }

    /// As `quantize_dynamic` writes a product: codes less 1, the scale `s * 0.5`, and what follows.
    fn dynamic(op: &str, x: &[usize], w: &[usize], y: &[usize], row: &[usize]) -> Graph {
        let mut g = Graph { name: "dynamic".into(), ..Graph::default() };
        let x = g.add_value(Value::new("x", DType::U8, x));
        let s = g.add_value(Value::new("s", DType::F32, &[]));
        let mut constant = |name, data| g.add_value(Value::constant(name, data));
        let w = constant("w", Tensor::from_slice(w, &[1i8, -1, 0, 1]));
        let zero = constant("zero", Tensor::scalar(1u8));
        let half =
            constant("half", Tensor::from_slice(row, &[0.5f32, 1.0][..row.iter().product()]));
        let channels: Vec<usize> = y.iter().map(|&n| if n == 2 { 2 } else { 1 }).collect();
        let bias = constant("bias", Tensor::from_slice(&channels, &[0.25f32, -1.0]));
        let scale = push(&mut g, "Mul", Attrs::new(), &[s, half], row);
        let sums = push(&mut g, op, Attrs::new(), &[x, w, zero], y);
        let real = push(&mut g, "Cast", Attrs::new().with("to", Attr::Int(1)), &[sums], y);
        let scaled = push(&mut g, "Mul", Attrs::new(), &[scale, real], y);
        let sum = push(&mut g, "Add", Attrs::new(), &[scaled, bias], y);
        let end = push(&mut g, "Relu", Attrs::new(), &[sum], y);
        (g.inputs, g.outputs) = (vec![x, s], vec![end]);
        g
    }

    #[test]
    fn sums_become_real_numbers_in_one_step() {
        // Pixels [0, 1], [4, 0] and [2, 6] less the zero point; rows of the weights [1, -1] and [0, 1], of the
        // matrix its columns [1, 0] and [-1, 1].
        let conv = dynamic("ConvInteger", &[1, 2, 1, 3], &[2, 2, 1, 1], &[1, 2, 1, 3], &[]);
        let columns = dynamic("MatMulInteger", &[3, 2], &[2, 2], &[3, 2], &[2]);
        let (planes, rows) = ([1u8, 5, 3, 2, 1, 7], [1u8, 2, 5, 1, 3, 7]);
        for (graph, x, want) in [
            // Sums [-1, 4, -4] and [1, 0, 6], by 0.5.
            (conv, planes, [0f32, 2.25, 0.0, 0.0, 0.0, 2.0]),
            // Sums [0, 1], [4, -4] and [2, 4], by 0.5 and 1.
            (columns, rows, [0.25f32, 0.0, 2.25, 0.0, 1.25, 3.0]),
        ] {
            let x = Tensor::from_slice(&graph.values[0].shape, &x);
            let one = Tensor::scalar(1f32);
            for shown in [None, Some("Cast2"), Some("Mul3"), Some("Add4")] {
                let mut graph = graph.clone();
                let id = graph.values.iter().position(|v| Some(v.name.as_str()) == shown);
                graph.outputs.extend(id);
                let model = Model::from_graph(graph).unwrap();
                let scaled = model.plan().steps().iter().any(|s| s.kernel().ends_with("+scale"));
                assert_eq!(scaled, matches!(shown, None | Some("Mul3" | "Add4")), "{shown:?}");
                for threads in [1, 2] {
                    let y = model.session(threads).run(&[("x", &x), ("s", &one)], None).unwrap();
                    assert_eq!(y[0].data::<f32>(), want, "{shown:?}");
                }
            }
        }
    }
}
