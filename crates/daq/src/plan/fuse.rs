//! What follows a product and can be done to its codes while they are in the cache: a function of one
//! code (hard-swish, say, even where it is a HardSigmoid and a Mul) as a table, or the addition of a
//! residual branch.

use std::ops::Range;

use daq_kernels::{AddU8, BinaryU8Params, Isa, Pool, lookup_u8};

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
        let residual = inputs.last().copied().flatten().map_or(&[][..], |other| other.bytes);
        let tail = |at: usize, codes: &[u8], output: &mut [u8]| match &self.tail {
            Tail::Table(table) => lookup_u8(table, codes, output),
            Tail::Add { kernel, product_first } => {
                let other = &residual[at..at + codes.len()];
                match product_first {
                    true => kernel.run(codes, other, output),
                    false => kernel.run(other, codes, output),
                }
            }
        };
        product.run_on(pool, input, outputs[0].bytes, Some(&tail));
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
