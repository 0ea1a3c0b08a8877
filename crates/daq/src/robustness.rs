//! Graphs made to mislead: whatever is wrong with them, compiling and running never panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::attrs::{Attr, Attrs};
use crate::graph::{Graph, Node, Value, ValueId};
use crate::layout::Layout;
use crate::ops::{Op, Spec};
use crate::quant::QuantParams;
use crate::session::Model;
use crate::tensor::{DType, Tensor};

/// Random numbers, the same in every run (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    /// A number below `n`; 0 where there is none.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n.max(1)
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// Compiles a graph and, where that is little work, runs it twice: on floats and on whatever its
/// inputs hold. Says whether it ran.
pub(crate) fn compile_and_run(graph: &Graph, value: f32) -> crate::Result<bool> {
    let model = Model::from_graph(graph.clone())?;
    let elements: usize = graph.values.iter().map(|v| v.shape.iter().product::<usize>()).sum();
    let macs = model.plan().steps().iter().fold(0u64, |sum, s| sum.saturating_add(s.macs));
    if elements > 1 << 18 || macs > 1 << 22 || windows(graph) > 1 << 22 {
        return Ok(false);
    }
    let tensor = |port: &crate::Port| match port.dtype {
        DType::F32 => {
            let len = port.shape.iter().product();
            let data: Vec<f32> = (0..len).map(|i| value * (i % 7) as f32 + 0.25).collect();
            Tensor::from_slice(&port.shape, &data)
        }
        other => Tensor::zeros(other, &port.shape),
    };
    let inputs: Vec<_> = model.plan().inputs().map(|p| (p.name.clone(), tensor(p))).collect();
    let inputs: Vec<_> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    for threads in [1, 2] {
        let results = model.session(threads).run(&inputs, None)?;
        assert_eq!(results.len(), graph.outputs.len());
    }
    Ok(true)
}

/// How many pixels the windows of poolings visit, about.
fn windows(graph: &Graph) -> usize {
    let work = |node: &Node| {
        let kernel = node.op.to_attrs().get_ints("kernel_shape").ok()??;
        let taps = kernel.iter().fold(1usize, |n, &k| n.saturating_mul(k as usize));
        let outputs = graph.values[*node.outputs.first()?].shape.iter().product::<usize>();
        Some(taps.saturating_mul(outputs))
    };
    graph.nodes.iter().filter_map(work).fold(0, usize::saturating_add)
}

fn ints(list: &[i64]) -> Attr {
    Attr::Ints(list.to_vec())
}

fn noise(dtype: DType, shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    match dtype {
        DType::F32 => {
            let data: Vec<f32> = (0..len).map(|i| (i * 7 % 11) as f32 * 0.25 - 1.0).collect();
            Tensor::from_slice(shape, &data)
        }
        DType::I64 => Tensor::from_slice(shape, &vec![1i64; len]),
        _ => {
            let bytes: Vec<u8> = (0..len * dtype.size()).map(|i| (i * 37) as u8).collect();
            Tensor::from_bytes(dtype, shape, &bytes)
        }
    }
}

/// An operator with attributes and the shapes of its inputs; all but the first are constant.
type Case = (&'static str, Attrs, Vec<&'static [usize]>);

fn cases() -> Vec<Case> {
    let none = Attrs::new;
    let with = |name: &str, value: Attr| Attrs::new().with(name, value);
    let pool = || with("kernel_shape", ints(&[2, 3])).with("strides", ints(&[2, 1]));
    let x: &[usize] = &[1, 4, 6, 5];
    let mut cases: Vec<Case> = vec![
        ("Conv", with("pads", ints(&[1, 1, 1, 1])), vec![x, &[6, 4, 3, 3], &[6]]),
        ("Conv", with("group", Attr::Int(4)), vec![x, &[4, 1, 3, 3]]),
        ("Conv", with("strides", ints(&[2])), vec![&[2, 4, 9], &[3, 4, 3]]),
        ("ConvTranspose", with("strides", ints(&[2, 2])), vec![x, &[4, 3, 2, 2], &[3]]),
        (
            "ConvTranspose",
            with("group", Attr::Int(2))
                .with("output_padding", ints(&[1, 0]))
                .with("strides", ints(&[2, 1])),
            vec![x, &[4, 1, 3, 3]],
        ),
        ("Gemm", none(), vec![&[2, 8], &[8, 5], &[5]]),
        ("Gemm", with("transB", Attr::Int(1)), vec![&[2, 8], &[5, 8], &[2, 1]]),
        ("MatMul", none(), vec![&[2, 3, 8], &[8, 5]]),
        ("MatMul", none(), vec![&[2, 3, 8], &[2, 8, 5]]),
        ("MaxPool", pool().with("pads", ints(&[0, 1, 1, 0])), vec![x]),
        ("AveragePool", pool().with("ceil_mode", Attr::Int(1)), vec![x]),
        ("AveragePool", pool().with("count_include_pad", Attr::Int(1)), vec![x]),
        ("BatchNormalization", none(), vec![x, &[4], &[4], &[4], &[4]]),
        ("LRN", with("size", Attr::Int(3)), vec![x]),
        ("Pad", with("pads", ints(&[0, 0, 1, 1, 0, 0, 2, -1])), vec![x]),
        (
            "Pad",
            with("pads", ints(&[0, 0, 1, 1, 0, 0, 2, 2])).with("mode", Attr::Str("reflect".into())),
            vec![x],
        ),
        ("Resize", with("scales", Attr::Floats(vec![1., 1., 2., 1.5])), vec![x]),
        (
            "Resize",
            with("sizes", ints(&[1, 4, 3, 9])).with("mode", Attr::Str("linear".into())),
            vec![x],
        ),
        (
            "Slice",
            with("starts", ints(&[1, -1]))
                .with("ends", ints(&[9, -9]))
                .with("steps", ints(&[1, -2]))
                .with("axes", ints(&[1, 3])),
            vec![x],
        ),
        ("Split", with("split", ints(&[1, 3])).with("axis", Attr::Int(1)), vec![x]),
        ("Split", with("num_outputs", Attr::Int(2)).with("axis", Attr::Int(-1)), vec![x]),
        ("Reshape", with("shape", ints(&[0, -1])), vec![x]),
        ("Transpose", with("perm", ints(&[0, 2, 3, 1])), vec![x]),
        ("Expand", with("shape", ints(&[2, 1, 6, 5])), vec![x]),
        ("Unsqueeze", with("axes", ints(&[0, 5])), vec![x]),
        ("Squeeze", none(), vec![x]),
        ("Flatten", with("axis", Attr::Int(2)), vec![x]),
        ("DepthToSpace", with("blocksize", Attr::Int(2)), vec![x]),
        ("SpaceToDepth", with("blocksize", Attr::Int(2)), vec![&[1, 3, 4, 6]]),
        ("Concat", with("axis", Attr::Int(1)), vec![x, &[1, 2, 6, 5]]),
        ("Gather", with("axis", Attr::Int(2)), vec![x, &[2]]),
        ("ReduceMean", with("axes", ints(&[2, 3])), vec![x]),
        ("ReduceMean", with("axes", ints(&[-1])).with("keepdims", Attr::Int(0)), vec![x]),
        ("ArgMax", with("axis", Attr::Int(1)), vec![x]),
        ("Clip", with("min", Attr::Float(0.0)).with("max", Attr::Float(6.0)), vec![x]),
        ("ConstantOfShape", with("shape", ints(&[2, 3])), vec![]),
        ("Cast", with("to", Attr::Int(2)), vec![x]),
    ];
    cases.extend(newer_cases(x));
    for name in ["Softmax", "LogSoftmax", "GlobalAveragePool", "GlobalMaxPool", "Shape", "Relu"] {
        cases.push((name, none(), vec![x]));
    }
    for name in ["Sigmoid", "HardSwish", "LeakyRelu", "Identity", "Dropout", "Sqrt", "Exp", "Log"] {
        cases.push((name, none(), vec![x]));
    }
    for name in ["Add", "Mul", "Sub", "Div", "Min", "Max", "Pow", "PRelu"] {
        cases.push((name, none(), vec![x, &[4, 1, 1]]));
    }
    cases
}

/// Operators whose index and weight inputs are constant here as well.
fn newer_cases(x: &'static [usize]) -> Vec<Case> {
    let none = Attrs::new;
    let with = |name: &str, value: Attr| Attrs::new().with(name, value);
    let hidden = || with("hidden_size", Attr::Int(3));
    let square = || with("kernel_shape", ints(&[2, 2]));
    vec![
        ("AffineGrid", with("size", ints(&[1, 1, 4, 5])), vec![&[1, 2, 3]]),
        ("CenterCropPad", with("shape", ints(&[2, 9])).with("axes", ints(&[1, 3])), vec![x]),
        (
            "Col2Im",
            with("image_shape", ints(&[3, 4])).with("block_shape", ints(&[2, 2])),
            vec![&[1, 8, 6]],
        ),
        ("CumSum", with("axis", Attr::Int(1)), vec![x]),
        ("DeformConv", none(), vec![&[1, 2, 4, 4], &[3, 2, 2, 2], &[1, 8, 3, 3]]),
        ("Det", none(), vec![&[2, 3, 3]]),
        ("DynamicQuantizeLinear", none(), vec![x]),
        ("EyeLike", with("k", Attr::Int(1)), vec![&[3, 4]]),
        ("GatherElements", with("axis", Attr::Int(1)), vec![x, &[1, 2, 6, 5]]),
        ("GatherND", none(), vec![x, &[3, 2]]),
        ("GridSample", none(), vec![x, &[1, 2, 3, 2]]),
        ("GroupNormalization", with("num_groups", Attr::Int(2)), vec![x, &[4], &[4]]),
        ("GRU", hidden(), vec![&[2, 1, 4], &[1, 9, 4], &[1, 9, 3], &[1, 18]]),
        ("Hardmax", none(), vec![x]),
        ("InstanceNormalization", none(), vec![x, &[4], &[4]]),
        ("LpPool", square(), vec![x]),
        ("LSTM", hidden(), vec![&[2, 1, 4], &[1, 12, 4], &[1, 12, 3]]),
        ("MaxPool", with("kernel_shape", ints(&[2, 2, 2])), vec![&[1, 2, 3, 4, 3]]),
        ("MaxUnpool", square(), vec![x, x]),
        ("NegativeLogLikelihoodLoss", none(), vec![&[2, 3], &[2]]),
        ("OneHot", with("depth", Attr::Int(3)), vec![&[2]]),
        ("ReduceLogSumExp", with("axes", ints(&[1])), vec![x]),
        ("ReverseSequence", none(), vec![&[3, 4], &[4]]),
        ("RNN", hidden(), vec![&[2, 1, 4], &[1, 3, 4], &[1, 3, 3]]),
        ("RoiAlign", with("sampling_ratio", Attr::Int(2)), vec![x, &[2, 4], &[2]]),
        ("ScatterElements", with("axis", Attr::Int(1)), vec![x, &[1, 2, 6, 5], &[1, 2, 6, 5]]),
        ("ScatterND", none(), vec![x, &[2, 1], &[2, 4, 6, 5]]),
        ("Tile", with("repeats", ints(&[1, 2, 1, 2])), vec![x]),
        ("TopK", with("k", Attr::Int(2)), vec![x]),
    ]
}

/// Input 1 (for RoiAlign 2) of these is indices.
fn is_index(name: &str, i: usize) -> bool {
    match name {
        "RoiAlign" => i == 2,
        "Gather"
        | "GatherElements"
        | "GatherND"
        | "MaxUnpool"
        | "NegativeLogLikelihoodLoss"
        | "ReverseSequence"
        | "ScatterElements"
        | "ScatterND" => i == 1,
        _ => false,
    }
}

/// Adds a node whose outputs get the shapes that it computes. With `codes`, outputs are codes where
/// the input is.
fn push(g: &mut Graph, op: Op, inputs: Vec<Option<ValueId>>, codes: bool) -> Option<ValueId> {
    let name = format!("{}_{}", op.name(), g.nodes.len());
    let mut node = Node { name, op, inputs, outputs: vec![], doc: String::new() };
    let specs = node.op.infer(&g.input_specs(&node)).ok()?;
    for spec in specs {
        let mut value = Value::new(format!("v{}", g.values.len()), spec.dtype, &spec.shape);
        if codes && spec.dtype.is_code() && !matches!(node.op, Op::Cast(_)) {
            value.quant = Some(QuantParams::per_tensor(0.02, 7));
        }
        node.outputs.push(g.add_value(value));
    }
    let first = node.outputs.first().copied();
    g.nodes.push(node);
    first
}

/// One operator after its inputs; in 8 bits where it has such a form.
fn graph(case: &Case, codes: bool) -> Option<Graph> {
    let (name, attrs, shapes) = case;
    let op = Op::from_attrs(name, attrs).unwrap().unwrap();
    let weighted = op.quantization() == crate::ops::Quantization::Weighted;
    let mut g = Graph::default();
    let mut inputs = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        let dtype = match (codes, i) {
            _ if is_index(name, i) => DType::I64,
            (false, _) => DType::F32,
            (true, 1) if weighted => DType::I8,
            (true, 2) if weighted => DType::I32,
            (true, _) => DType::U8,
        };
        let mut value = match i {
            0 => Value::new("x", dtype, shape),
            _ => Value::constant(format!("c{i}"), noise(dtype, shape)),
        };
        if codes && dtype != DType::I64 {
            value.quant = Some(match (dtype, *name) {
                (DType::I32, _) => QuantParams::per_tensor(0.001, 0),
                (DType::I8, "Conv") => QuantParams::per_channel(vec![0.1; shape[0]], 0),
                (DType::I8, _) => QuantParams::per_tensor(0.1, 0),
                _ => QuantParams::per_tensor(0.01, 128),
            });
        }
        inputs.push(Some(g.add_value(value)));
    }
    g.inputs = inputs.first().into_iter().flatten().copied().collect();
    push(&mut g, op, inputs, codes)?;
    g.outputs = g.nodes[0].outputs.clone();
    g.validate().ok().map(|()| g)
}

/// A small network in floats or in codes.
fn network(codes: bool) -> Graph {
    let mut g = Graph::default();
    let x = Value::new("x", if codes { DType::U8 } else { DType::F32 }, &[1, 3, 12, 12]);
    let quant = |v: Value| match codes {
        true => v.with_quant(QuantParams::per_tensor(0.01, 128)),
        false => v,
    };
    let x = g.add_value(quant(x));
    g.inputs = vec![x];
    let weights = |g: &mut Graph, shape: &[usize]| {
        let name = format!("v{}", g.values.len());
        g.add_value(match codes {
            true => Value::constant(name, noise(DType::I8, shape))
                .with_quant(QuantParams::per_channel(vec![0.01; shape[0]], 0)),
            false => Value::constant(name, noise(DType::F32, shape)),
        })
    };
    let op = |name: &str, attrs: Attrs| Op::from_attrs(name, &attrs).unwrap().unwrap();
    let mut at = x;
    let mut step = |g: &mut Graph, op: Op, more: &[ValueId]| {
        let inputs = std::iter::once(at).chain(more.iter().copied()).map(Some).collect();
        at = push(g, op, inputs, codes).unwrap();
        at
    };
    let pads = || Attrs::new().with("pads", ints(&[1, 1, 1, 1]));
    let w = weights(&mut g, &[8, 3, 3, 3]);
    let a = step(&mut g, op("Conv", pads()), &[w]);
    step(&mut g, op("Relu", Attrs::new()), &[]);
    let w = weights(&mut g, &[8, 1, 3, 3]);
    step(&mut g, op("Conv", pads().with("group", Attr::Int(8))), &[w]);
    step(&mut g, op("Add", Attrs::new()), &[a]);
    step(&mut g, op("MaxPool", pads().with("kernel_shape", ints(&[3, 3]))), &[]);
    step(&mut g, op("Concat", Attrs::new().with("axis", Attr::Int(1))), &[a]);
    step(&mut g, op("Transpose", Attrs::new().with("perm", ints(&[0, 1, 3, 2]))), &[]);
    step(&mut g, op("GlobalAveragePool", Attrs::new()), &[]);
    step(&mut g, op("Flatten", Attrs::new()), &[]);
    let w = weights(&mut g, &[5, 16]);
    step(&mut g, op("Gemm", Attrs::new().with("transB", Attr::Int(1))), &[w]);
    let y = step(&mut g, op("Softmax", Attrs::new()), &[]);
    g.outputs = vec![y];
    g.validate().unwrap();
    g
}

const SIZES: &[usize] =
    &[0, 0, 1, 1, 2, 3, 4, 5, 7, 16, 1 << 12, 1 << 20, 1 << 31, 1 << 40, usize::MAX];
const NUMBERS: &[i64] = &[
    0,
    1,
    1,
    2,
    3,
    4,
    7,
    100,
    -1,
    -2,
    1 << 12,
    1 << 20,
    1 << 31,
    1 << 40,
    i64::MAX,
    i64::MIN,
    -(1 << 20),
    -(1 << 31),
];
const REALS: &[f32] =
    &[0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e-45, 1e30, f32::MAX, f32::NAN, f32::INFINITY];
const TYPES: &[DType] =
    &[DType::F32, DType::U8, DType::I8, DType::I32, DType::I64, DType::Bool, DType::U8];

fn mutate_attr(attr: &mut Attr, r: &mut Random) {
    match attr {
        Attr::Int(v) => *v = r.of(NUMBERS),
        Attr::Float(v) => *v = r.of(REALS),
        Attr::Ints(v) => match r.below(4) {
            0 => drop(v.pop()),
            1 => v.push(r.of(NUMBERS)),
            _ if !v.is_empty() => {
                let i = r.below(v.len());
                v[i] = r.of(NUMBERS);
            }
            _ => {}
        },
        Attr::Floats(v) if !v.is_empty() => {
            let i = r.below(v.len());
            v[i] = r.of(REALS);
        }
        _ => {}
    }
}

fn mutate_quant(value: &mut Value, r: &mut Random) {
    let axis = r.below(5);
    let n = value.shape.get(axis).copied().unwrap_or(2).clamp(1, 64);
    value.quant = match r.below(6) {
        0 => None,
        1 => Some(QuantParams::per_channel(vec![0.1; n], axis)),
        2 => Some(QuantParams { scale: vec![0.1; n], zero_point: vec![3; n], axis }),
        3 => Some(QuantParams::per_tensor(r.of(REALS), 0)),
        _ => Some(QuantParams::per_tensor(0.03, r.of(&[-129, -128, -1, 0, 3, 127, 128, 255, 256]))),
    };
}

fn mutate_value(value: &mut Value, r: &mut Random) {
    match r.below(8) {
        0..3 => mutate_quant(value, r),
        3 => value.dtype = r.of(TYPES),
        4 => value.layout = Layout::ChannelsLast,
        5 => value.shape = value.shape[..r.below(value.shape.len() + 1)].to_vec(),
        6 => value.shape.push(r.of(SIZES)),
        _ if !value.shape.is_empty() => {
            let i = r.below(value.shape.len());
            value.shape[i] = r.of(SIZES);
        }
        _ => {}
    }
    let Some(data) = value.data.clone() else { return };
    let small = value.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    if r.below(4) > 0 && small.is_some_and(|n| n < 1 << 16) {
        value.data = Some(noise(value.dtype, &value.shape));
    } else if data.dtype() == DType::F32 {
        value.data = Some(Tensor::from_slice(data.shape(), &vec![r.of(REALS); data.len()]));
    } else if r.below(4) == 0 {
        value.data = None;
    }
}

fn mutate_node(g: &mut Graph, r: &mut Random) {
    let (i, id) = (r.below(g.nodes.len()), r.below(g.values.len()));
    let node = &mut g.nodes[i];
    let input = r.below(node.inputs.len());
    match r.below(12) {
        0 if !node.inputs.is_empty() => node.inputs[input] = Some(id),
        1 if !node.inputs.is_empty() => node.inputs[input] = None,
        2 => node.inputs.push(Some(id)),
        3 => drop(node.inputs.pop()),
        4 => drop(node.outputs.pop()),
        5 => node.outputs.push(id),
        _ => {
            let mut attrs = node.op.to_attrs();
            let names: Vec<String> = attrs.map.keys().cloned().collect();
            if names.is_empty() {
                return;
            }
            let name = &names[r.below(names.len())];
            if r.below(10) == 0 {
                attrs.map.remove(name);
            } else if let Some(attr) = attrs.map.get_mut(name) {
                mutate_attr(attr, r);
            }
            if let Some(Ok(op)) = Op::from_attrs(node.op.name(), &attrs) {
                // As text, where a NaN equals itself.
                let again = Op::from_attrs(op.name(), &op.to_attrs());
                assert_eq!(format!("{again:?}"), format!("{:?}", Some(Ok::<_, ()>(op.clone()))));
                node.op = op;
            }
        }
    }
}

fn mutate(g: &mut Graph, r: &mut Random) {
    for _ in 0..1 + r.below(3) {
        let id = r.below(g.values.len());
        match r.below(12) {
            0..5 => mutate_value(&mut g.values[id], r),
            5 => g.inputs.push(id),
            6 => g.outputs.push(id),
            7 if r.below(4) == 0 => g.inputs.clear(),
            _ => mutate_node(g, r),
        }
    }
    // Shapes and types that agree again let a change through to the kernels.
    if r.below(4) > 0 {
        for i in 0..g.nodes.len() {
            let node = &g.nodes[i];
            let valid = node.inputs.iter().flatten().chain(&node.outputs);
            if valid.into_iter().any(|&id| id >= g.values.len()) {
                return;
            }
            let Ok(specs) = node.op.infer(&g.input_specs(node)) else { continue };
            for (&id, Spec { dtype, shape }) in node.outputs.clone().iter().zip(specs) {
                if r.below(16) > 0 {
                    (g.values[id].dtype, g.values[id].shape) = (dtype, shape);
                }
            }
        }
    }
}

#[test]
fn mutated_graphs_never_panic() {
    let mut graphs: Vec<Graph> = [false, true]
        .iter()
        .flat_map(|&codes| cases().into_iter().filter_map(move |case| graph(&case, codes)))
        .collect();
    assert!(graphs.len() > 90, "{} graphs are valid", graphs.len());
    graphs.extend([network(false), network(true)]);
    let (mut ran, mut refused, mut failed) = (0, 0, 0);
    for (which, graph) in graphs.iter().enumerate() {
        assert!(compile_and_run(graph, 1.0).unwrap());
        let network = graph.nodes.len() > 1;
        for seed in 0..if network { 1500 } else { 150 } {
            let mut r = Random((seed * 1000 + which as u64 + 1).wrapping_mul(0x9e3779b97f4a7c15));
            let mut changed = graph.clone();
            // `mutate` calls `infer` itself.
            let result = catch_unwind(AssertUnwindSafe(|| {
                mutate(&mut changed, &mut r);
                let value = r.of(REALS);
                compile_and_run(&changed, value).is_ok_and(|ran| ran)
            }));
            match result {
                Ok(true) => ran += 1,
                Ok(false) => refused += 1,
                Err(_) => {
                    failed += 1;
                    println!("graph {which}, seed {seed}: {:?}", changed.nodes);
                    println!("{:?}", changed.values);
                }
            }
        }
    }
    println!("{ran} ran, {refused} were refused or too much work");
    assert_eq!(failed, 0);
    assert!(ran > 2000 && refused > 2000, "{ran} ran, {refused} were refused");
}
