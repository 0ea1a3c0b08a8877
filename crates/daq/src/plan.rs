//! A graph made ready to run: layouts chosen once, kernels chosen and weights packed, memory
//! assigned. Plans are immutable and shared by sessions.

mod builder;
mod fuse;

use std::ops::Range;

use daq_kernels::{Isa, Pool};

use builder::Builder;
use smallvec::SmallVec;

use crate::compile::{Kernel, Operand};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, ValueId};
use crate::layout::Layout;
use crate::ops::Spec;
use crate::quant::QuantParams;
use crate::tensor::{DType, Tensor, TensorView, TensorViewMut};

/// The most memory that the activations of one session may take, in bytes.
pub const MAX_ACTIVATION_BYTES: u64 = 4 << 30;

/// The most arithmetic that one run of a model may take, counted in multiply-accumulate operations,
/// or in elements where nothing is multiplied. A small file can ask for more than anybody would wait
/// for; this is a hundred times what large vision models need.
pub const MAX_OPERATIONS: u64 = 10_000_000_000_000;

/// Called with each value that a run computes.
pub type Observer<'a> = dyn FnMut(ValueId, TensorView) + 'a;

/// An input or output of a model as its caller sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// The tensor's name.
    pub name: String,
    /// The type in which the model holds it; the caller may use `f32` or `u8` whichever it is.
    pub dtype: DType,
    /// The shape in which the caller gives or takes it, in the order of `layout`.
    pub shape: Vec<usize>,
    /// The order of the elements.
    pub layout: Layout,
    /// The scale at which codes stand for real numbers, where there is one for all of them.
    pub quant: Option<QuantParams>,
}

/// One step of a plan.
pub struct Step {
    /// The node's name; empty for a change of layout.
    pub node: String,
    /// The operator, or `Layout`.
    pub op: &'static str,
    /// Multiply-accumulate operations.
    pub macs: u64,
    kernel: Box<dyn Kernel>,
    inputs: Vec<Option<usize>>,
    outputs: Vec<usize>,
    /// Whether a later step writes the rest of the output.
    partial: bool,
    /// Whether the output lies where the last input does.
    over_last: bool,
}

impl Step {
    fn new(
        node: &str,
        op: &'static str,
        macs: u64,
        kernel: Box<dyn Kernel>,
        inputs: Vec<Option<usize>>,
        outputs: Vec<usize>,
    ) -> Step {
        let node = node.to_string();
        Step { node, op, macs, kernel, inputs, outputs, partial: false, over_last: false }
    }

    /// The name of the kernel.
    pub fn kernel(&self) -> String {
        self.kernel.name()
    }
}

/// A tensor as a plan holds it: a view of a slot, or a constant.
struct Stored {
    value: ValueId,
    dtype: DType,
    shape: Vec<usize>,
    quant: Option<QuantParams>,
    layout: Layout,
    place: Place,
}

enum Place {
    /// One region of memory; views of one another share it.
    Region(usize),
    Constant(Tensor),
}

/// Consecutive nodes that one kernel computes.
pub(crate) struct Part {
    /// Positions of the nodes.
    pub(crate) nodes: Range<usize>,
    /// What the kernel reads, in the layout in which it does.
    pub(crate) inputs: Vec<(ValueId, Layout)>,
    /// What it gives.
    pub(crate) outputs: Vec<(ValueId, Layout)>,
    /// What its step says it is.
    pub(crate) op: &'static str,
    pub(crate) kernel: Box<dyn Kernel>,
}

/// A graph made ready to run.
pub struct Plan {
    steps: Vec<Step>,
    stored: Vec<Stored>,
    /// The buffer of each region.
    buffer_of: Vec<usize>,
    buffers: Vec<usize>,
    inputs: Vec<(Port, usize)>,
    outputs: Vec<(Port, usize)>,
}

/// Where an input is to be written.
pub(crate) struct InputPlace<'a> {
    /// The buffer, and how many of its bytes.
    pub(crate) buffer: usize,
    pub(crate) len: usize,
    /// The shape that memory has. It differs from the port's where the first operators want another
    /// layout than the caller gives.
    pub(crate) shape: &'a [usize],
    pub(crate) layout: Layout,
}

impl Plan {
    /// Compiles a valid graph for an instruction set.
    pub fn compile(graph: &Graph, isa: Isa) -> Result<Plan> {
        Self::compile_with(graph, isa, Vec::new())
    }

    /// Compiles a valid graph of which somebody else computes parts.
    pub(crate) fn compile_with(graph: &Graph, isa: Isa, parts: Vec<Part>) -> Result<Plan> {
        graph.validate()?;
        let operations = operations(graph);
        if operations > MAX_OPERATIONS {
            let what = format!("one run of `{}`", graph.name);
            return Err(Error::TooLong { what, operations, limit: MAX_OPERATIONS });
        }
        let mut builder = Builder::new(graph, isa, parts);
        let inputs: Vec<_> = graph.inputs.iter().map(|&id| builder.input(id)).collect();
        builder.nodes()?;
        let outputs: Vec<_> = graph.outputs.iter().map(|&id| builder.output(id)).collect();
        let ends = inputs.iter().map(|(_, s)| *s).collect::<Vec<_>>();
        let kept = outputs.iter().map(|(_, s)| *s).collect::<Vec<_>>();
        let (buffer_of, buffers) = builder.assign_buffers(&ends, &kept);
        let total = buffers.iter().map(|&b| b as u64).sum();
        if total > MAX_ACTIVATION_BYTES {
            let what = format!("the activations of `{}`", graph.name);
            return Err(Error::TooLarge { what, bytes: total, limit: MAX_ACTIVATION_BYTES });
        }
        Ok(Plan {
            steps: builder.steps,
            stored: builder.stored,
            buffer_of,
            buffers,
            inputs,
            outputs,
        })
    }

    /// The steps in the order in which they run.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What the caller gives.
    pub fn inputs(&self) -> impl Iterator<Item = &Port> {
        self.inputs.iter().map(|(port, _)| port)
    }

    /// What the caller takes.
    pub fn outputs(&self) -> impl Iterator<Item = &Port> {
        self.outputs.iter().map(|(port, _)| port)
    }

    /// Sizes in bytes of the buffers that a session needs.
    pub fn buffers(&self) -> &[usize] {
        &self.buffers
    }

    /// The memory that input `index` is to be written to.
    pub(crate) fn input_place(&self, index: usize) -> InputPlace<'_> {
        let stored = &self.stored[self.inputs[index].1];
        let Place::Region(region) = stored.place else { unreachable!("inputs are not constant") };
        InputPlace {
            buffer: self.buffer_of[region],
            len: stored.len(),
            shape: &stored.shape,
            layout: stored.layout,
        }
    }

    /// Output `index` once the steps have run.
    pub(crate) fn output_view<'a>(&'a self, index: usize, buffers: &'a [Buffer]) -> TensorView<'a> {
        self.view(self.outputs[index].1, buffers)
    }

    fn view<'a>(&'a self, stored: usize, buffers: &'a [Buffer]) -> TensorView<'a> {
        let s = &self.stored[stored];
        let bytes = match &s.place {
            Place::Constant(tensor) => tensor.bytes(),
            Place::Region(region) => &buffers[self.buffer_of[*region]].as_slice()[..s.len()],
        };
        TensorView { dtype: s.dtype, shape: &s.shape, quant: s.quant.as_ref(), bytes }
    }

    /// Runs one step. `observe` is called with each value that it computed.
    pub(crate) fn run_step(
        &self,
        step: &Step,
        buffers: &mut [Buffer],
        pool: &Pool,
        observe: Option<&mut Observer>,
    ) -> Result<()> {
        let buffer = |stored: usize| match self.stored[stored].place {
            Place::Region(region) => self.buffer_of[region],
            Place::Constant(_) => unreachable!("steps do not write constants"),
        };
        // On the stack, so that a run does not allocate.
        let mut taken: SmallVec<[_; 2]> =
            step.outputs.iter().map(|&s| std::mem::take(&mut buffers[buffer(s)])).collect();
        let last = step.inputs.len().wrapping_sub(1);
        let view = |(i, stored): (usize, &Option<usize>)| {
            stored.filter(|_| !step.over_last || i != last).map(|s| self.view(s, buffers))
        };
        let inputs: SmallVec<[_; 8]> = step.inputs.iter().enumerate().map(view).collect();
        let mut outputs: SmallVec<[_; 2]> = step
            .outputs
            .iter()
            .zip(&mut taken)
            .map(|(&s, bytes)| {
                let s = &self.stored[s];
                let bytes = &mut bytes.as_mut_slice()[..s.len()];
                TensorViewMut { dtype: s.dtype, shape: &s.shape, quant: s.quant.as_ref(), bytes }
            })
            .collect();
        let done = step.kernel.try_run(&inputs, &mut outputs, pool);
        drop((inputs, outputs));
        for (&s, bytes) in step.outputs.iter().zip(taken) {
            buffers[buffer(s)] = bytes;
        }
        done?;
        if let Some(observe) = observe.filter(|_| !step.partial) {
            for &s in &step.outputs {
                observe(self.stored[s].value, self.view(s, buffers));
            }
        }
        Ok(())
    }
}

/// What one run takes, in the unit of [`MAX_OPERATIONS`].
fn operations(graph: &Graph) -> u64 {
    let of = |node: &Node| {
        let spec = |&id: &ValueId| Spec::new(graph.values[id].dtype, &graph.values[id].shape);
        let outputs: Vec<_> = node.outputs.iter().map(spec).collect();
        node.op.operations(&graph.input_specs(node), &outputs)
    };
    graph.nodes.iter().map(of).fold(0, u64::saturating_add)
}

/// The memory of one buffer.
pub(crate) type Buffer = crate::tensor::AlignedBytes;

impl Stored {
    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    fn operand(&self) -> Operand<'_> {
        let data = match &self.place {
            Place::Constant(tensor) => Some(tensor),
            Place::Region(_) => None,
        };
        Operand { dtype: self.dtype, shape: &self.shape, quant: self.quant.as_ref(), data }
    }
}

/// The activation that a node can apply to its own float output: its only reader, where that does
/// nothing but clamp. Gives that reader's position and the bounds.
pub fn fused_clamp(
    graph: &Graph,
    consumers: &[Vec<usize>],
    node: &Node,
) -> Option<(usize, (f32, f32))> {
    let [output] = node.outputs.as_slice() else { return None };
    let [reader] = consumers[*output].as_slice() else { return None };
    let clamp = graph.nodes[*reader].op.clamp()?;
    let float = |id: &ValueId| graph.values[*id].dtype == DType::F32;
    let plain = float(output) && graph.nodes[*reader].outputs.iter().all(float);
    (plain && !graph.outputs.contains(output)).then_some((*reader, clamp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs::{Attr, Attrs};
    use crate::graph::Value;
    use crate::ops::Op;

    /// One operator on an input, with weights where a shape is given.
    fn graph(op: &str, attrs: Attrs, x: &[usize], w: Option<&[usize]>) -> Graph {
        let mut g = Graph { name: "slow".into(), ..Graph::default() };
        g.add_value(Value::new("x", DType::F32, x));
        let inputs: Vec<_> = (0..=usize::from(w.is_some())).map(Some).collect();
        if let Some(w) = w {
            g.add_value(Value::constant("w", Tensor::zeros(DType::F32, w)));
        }
        let op = Op::from_attrs(op, &attrs).unwrap().unwrap();
        let spec = Spec::new(DType::F32, x);
        let weights = w.map(|w| Spec::new(DType::F32, w));
        let specs: Vec<_> = [Some(spec)].into_iter().chain(weights.map(Some)).collect();
        let y = op.infer(&specs).unwrap().remove(0).shape;
        let y = g.add_value(Value::new("y", DType::F32, &y));
        let (name, doc) = ("n".into(), String::new());
        g.nodes.push(Node { name, op, inputs, outputs: vec![y], doc });
        (g.inputs, g.outputs) = (vec![0], vec![y]);
        g
    }

    #[test]
    fn hours_of_arithmetic_are_refused() {
        let list =
            |name: &str, values: &[i64]| Attrs::new().with(name, Attr::Ints(values.to_vec()));
        let pool =
            |op: &str, side| graph(op, list("kernel_shape", &[side; 2]), &[1, 1, 8192, 8192], None);
        let conv = |side| {
            let size = [1, 64, side, side];
            graph("Conv", list("pads", &[9; 4]), &size, Some(&[64, 64, 19, 19]))
        };
        let lrn = |size| {
            let attrs = Attrs::new().with("size", Attr::Int(size));
            graph("LRN", attrs, &[1, 1 << 20, 8, 8], None)
        };
        // 64 * 64 * 19 * 19 products for each pixel; 1024 * 1024 elements in each of 7169 * 7169
        // windows; a million neighbours of 64 million elements.
        let cases = [
            (conv(100), 14_786_560_000),
            (conv(2800), 11_592_663_040_000),
            (pool("MaxPool", 3), 8190 * 8190 * 9),
            (pool("MaxPool", 1024), (7169 * 7169) << 20),
            (pool("AveragePool", 1024), (7169 * 7169) << 20),
            (lrn(5), 5 << 26),
            (lrn(1 << 20), 1 << 46),
            (graph("Relu", Attrs::new(), &[1, 1000], None), 1000),
            (graph("GlobalMaxPool", Attrs::new(), &[1, 2, 30, 30], None), 1800),
        ];
        for (g, expected) in cases {
            assert_eq!(operations(&g), expected, "{}", g.nodes[0].op.name());
            if expected > MAX_OPERATIONS {
                let error = Plan::compile(&g, Isa::best()).err().unwrap().to_string();
                assert!(error.contains("`slow`") && error.contains("daq inspect"), "{error}");
            }
        }
    }

    #[test]
    fn constant_codes_become_floats_once() {
        let mut g = Graph::default();
        let quant = Some(QuantParams::per_tensor(0.5, 10));
        let codes = Tensor::from_slice(&[2, 1], &[12u8, 7]);
        let x = g.add_value(Value::new("x", DType::F32, &[1, 2]));
        let w = g.add_value(Value { quant, ..Value::constant("w", codes) });
        let real = g.add_value(Value::new("real", DType::F32, &[2, 1]));
        let y = g.add_value(Value::new("y", DType::F32, &[1, 1]));
        for (op, inputs, output) in
            [("DequantizeLinear", vec![Some(w)], real), ("MatMul", vec![Some(x), Some(real)], y)]
        {
            let op = Op::from_attrs(op, &Attrs::new()).unwrap().unwrap();
            let (name, doc, outputs) = (String::new(), String::new(), vec![output]);
            g.nodes.push(Node { name, op, inputs, outputs, doc });
        }
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        let plan = Plan::compile(&g, Isa::best()).unwrap();
        let steps: Vec<_> = plan.steps().iter().map(|s| (s.op, s.kernel())).collect();
        assert!(matches!(&steps[..], [("MatMul", kernel)] if kernel != "reference"), "{steps:?}");
        // The weights are 1 and -1.5.
        let x = Tensor::from_slice(&[1, 2], &[3f32, 4.]);
        let y = crate::Model::from_graph(g).unwrap().session(1).run(&[("x", &x)], None).unwrap();
        assert_eq!(y[0].data::<f32>(), [-3.0]);
    }

    #[test]
    fn a_sum_lies_where_the_residual_did_if_nothing_reads_that_later() {
        let quant = || Some(QuantParams::per_tensor(1.0, 0));
        let mut g = Graph::default();
        let code = |g: &mut Graph, name: &str| {
            g.add_value(Value { quant: quant(), ..Value::new(name, DType::U8, &[1, 1, 1, 2]) })
        };
        let [x, a, b, c, sum, y] = ["x", "a", "b", "c", "sum", "y"].map(|name| code(&mut g, name));
        let times = |g: &mut Graph, name: &str, factor: i8| {
            let weight = Tensor::from_slice(&[1, 1, 1, 1], &[factor]);
            g.add_value(Value { quant: quant(), ..Value::constant(name, weight) })
        };
        let (two, three, one) =
            (times(&mut g, "two", 2), times(&mut g, "three", 3), times(&mut g, "one", 1));
        for (op, inputs, output) in [
            ("Conv", [x, two], a),
            ("Conv", [a, one], b),
            ("Conv", [b, three], c),
            ("Add", [c, a], sum),
            ("Conv", [sum, one], y),
        ] {
            let op = Op::from_attrs(op, &Attrs::new()).unwrap().unwrap();
            let (name, doc, outputs) = (String::new(), String::new(), vec![output]);
            let inputs = inputs.into_iter().map(Some).collect();
            g.nodes.push(Node { name, op, inputs, outputs, doc });
        }
        g.inputs = vec![x];
        // The codes 1 and 31, times 2, times 3 and so on.
        for (outputs, over, want) in
            [(vec![y], true, vec![[8u8, 248]]), (vec![y, a], false, vec![[8, 248], [2, 62]])]
        {
            g.outputs = outputs;
            let plan = Plan::compile(&g, Isa::best()).unwrap();
            let steps: Vec<_> = plan.steps().iter().map(|s| (s.op, s.over_last)).collect();
            let conv = |over| ("Conv", over);
            assert_eq!(steps, [conv(false), conv(false), conv(over), conv(false)]);
            let model = crate::Model::from_graph(g.clone()).unwrap();
            let mut session = model.session(1);
            let x = Tensor::from_slice(&[1, 1, 1, 2], &[1u8, 31]);
            for _ in 0..2 {
                let got = session.run(&[("x", &x)], Some(DType::U8)).unwrap();
                let got: Vec<_> = got.iter().map(|y| y.data::<u8>().to_vec()).collect();
                assert_eq!(got, want);
            }
        }
    }
}
