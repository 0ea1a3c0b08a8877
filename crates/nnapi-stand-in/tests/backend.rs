//! daq's NNAPI backend against the stand-in: the same bytes as on the CPU, and no rule broken.
#![cfg(unix)]

use std::collections::HashSet;
use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::sync::OnceLock;

use daq::nnapi::{DeviceKind, Execution, Options, Preference};
use daq::ops::{Attr, Attrs};
use daq::{DType, Graph, Model, Node, Op, QuantParams, Tensor, Value, ValueId};

/// Functions by the API level that they came with; a copy of the stand-in for an earlier one does not
/// have them.
const LATER: [(u32, &[&str]); 4] = [
    (28, &["Model_relaxComputationFloat32toFloat16"]),
    (
        29,
        &[
            "_getDeviceCount",
            "_getDevice",
            "Device_getName",
            "Device_getVersion",
            "Device_getType",
            "Device_getFeatureLevel",
            "Model_getSupportedOperationsForDevices",
            "Compilation_createForDevices",
            "Model_setOperandSymmPerChannelQuantParams",
            "Execution_compute",
            "Burst_create",
            "Burst_free",
            "Execution_burstCompute",
        ],
    ),
    (30, &["Execution_startComputeWithDependencies"]),
    (31, &["_getRuntimeFeatureLevel"]),
];

/// A copy of the stand-in with a state of its own.
struct StandIn {
    library: libloading::Library,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl StandIn {
    fn new(level: u32) -> StandIn {
        let later = LATER.iter().filter(|(since, _)| *since > level);
        let bytes = without(&later.flat_map(|(_, names)| *names).collect::<Vec<_>>());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libneuralnetworks.so");
        std::fs::write(&path, bytes).unwrap();
        // SAFETY: our own library.
        let library = unsafe { libloading::Library::new(&path) }.unwrap();
        let this = StandIn { library, path, _dir: dir };
        this.say::<i64>(b"stand_in_set_level", level.into());
        this
    }

    fn say<T>(&self, name: &[u8], value: T) {
        // SAFETY: the stand-in's own functions, which take one number.
        unsafe { self.library.get::<extern "C" fn(T)>(name).unwrap()(value) }
    }

    fn refuse(&self, operation: i32) {
        self.say(b"stand_in_refuse", operation);
    }

    fn options(&self) -> Options {
        Options { library: Some(self.path.clone()), ..Options::default() }
    }

    fn calls(&self, name: &CStr) -> u32 {
        type Calls = unsafe extern "C" fn(*const c_char) -> u32;
        // SAFETY: a text that ends in 0.
        unsafe { self.library.get::<Calls>(b"stand_in_calls").unwrap()(name.as_ptr()) }
    }

    /// The rules that were broken.
    fn broken(&self) -> String {
        let mut text = vec![0u8; 4096];
        type Broken = unsafe extern "C" fn(*mut u8, usize) -> usize;
        // SAFETY: as many bytes as the call says.
        let n = unsafe {
            self.library.get::<Broken>(b"stand_in_broken").unwrap()(text.as_mut_ptr(), text.len())
        };
        text.truncate(n);
        String::from_utf8(text).unwrap()
    }

    fn preference(&self) -> i32 {
        // SAFETY: it takes nothing.
        unsafe { self.library.get::<extern "C" fn() -> i32>(b"stand_in_preference").unwrap()() }
    }

    /// Objects that were not freed.
    fn alive(&self) -> usize {
        // SAFETY: it takes nothing.
        unsafe { self.library.get::<extern "C" fn() -> usize>(b"stand_in_alive").unwrap()() }
    }
}

/// The library that cargo built, with some functions under another name, so that nobody finds them.
fn without(names: &[&&str]) -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let built = BUILT.get_or_init(|| std::fs::read(nnapi_stand_in::built()).unwrap());
    let mut bytes = built.clone();
    let mut hidden = HashSet::new();
    let starts = |i: &usize| built[*i] == b'A' && built[*i..].starts_with(b"ANeuralNetworks");
    for i in (1..built.len()).filter(starts) {
        let rest = &built[i + "ANeuralNetworks".len()..];
        let name = &rest[..rest.iter().position(|b| *b == 0).unwrap()];
        if built[i - 1] == 0 && names.iter().any(|hide| hide.as_bytes() == name) {
            bytes[i] = b'X';
            hidden.insert(name);
        }
    }
    assert_eq!(hidden.len(), names.len(), "the stand-in has not all of {names:?}");
    bytes
}

/// A graph under construction, with numbers that look random.
struct Net {
    graph: Graph,
    state: u32,
    /// Whether activations are codes.
    codes: bool,
    /// Whether weights have a scale for each channel.
    per_channel: bool,
}

fn quant(scale: f32, zero_point: i32) -> Option<QuantParams> {
    Some(QuantParams::per_tensor(scale, zero_point))
}

fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

impl Net {
    fn new(codes: bool, per_channel: bool, input: &[usize]) -> Net {
        let graph = Graph { name: "net".into(), ..Graph::default() };
        let mut net = Net { graph, state: 1, codes, per_channel };
        let x = net.value(input, quant(0.05, 120));
        net.graph.inputs.push(x);
        net
    }

    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.state >> 16
    }

    fn value(&mut self, shape: &[usize], quant: Option<QuantParams>) -> ValueId {
        let name = format!("v{}", self.graph.values.len());
        let value = match self.codes {
            true => Value { quant, ..Value::new(name, DType::U8, shape) },
            false => Value::new(name, DType::F32, shape),
        };
        self.graph.add_value(value)
    }

    fn constant(&mut self, data: Tensor, quant: Option<QuantParams>) -> ValueId {
        let name = format!("v{}", self.graph.values.len());
        self.graph.add_value(Value { quant, ..Value::constant(name, data) })
    }

    /// A node with as many outputs as there are scales.
    fn node(
        &mut self,
        op: &str,
        attrs: Attrs,
        inputs: &[ValueId],
        quants: &[Option<QuantParams>],
    ) -> Vec<ValueId> {
        let op = Op::from_attrs(op, &attrs).unwrap().unwrap();
        let inputs = inputs.iter().map(|&i| Some(i)).collect();
        let (name, doc) = (format!("n{}", self.graph.nodes.len()), String::new());
        let mut node = Node { name, op, inputs, outputs: Vec::new(), doc };
        let specs = node.op.infer(&self.graph.input_specs(&node)).unwrap();
        node.outputs =
            specs.iter().zip(quants).map(|(s, q)| self.value(&s.shape, q.clone())).collect();
        let outputs = node.outputs.clone();
        self.graph.nodes.push(node);
        outputs
    }

    fn op(
        &mut self,
        op: &str,
        attrs: Attrs,
        inputs: &[ValueId],
        quant: Option<QuantParams>,
    ) -> ValueId {
        self.node(op, attrs, inputs, &[quant])[0]
    }

    /// Weights of a shape, whose first axis is that of the output's channels.
    fn weights(&mut self, shape: &[usize]) -> ValueId {
        let n: usize = shape.iter().product();
        if !self.codes {
            let data: Vec<f32> = (0..n).map(|_| self.next() as f32 / 65536.0 - 0.5).collect();
            return self.constant(Tensor::from_slice(shape, &data), None);
        }
        let data: Vec<i8> =
            (0..n).map(|_| (self.next() % 255) as i8).map(|c| c.max(-127)).collect();
        let scales = (0..shape[0]).map(|c| 0.002 + c as f32 * 0.0001).collect();
        let quant = match self.per_channel {
            true => QuantParams::per_channel(scales, 0),
            false => QuantParams::per_tensor(0.003, 0),
        };
        self.constant(Tensor::from_slice(shape, &data), Some(quant))
    }

    fn bias(&mut self, channels: usize, x: ValueId, w: ValueId) -> ValueId {
        if !self.codes {
            let data: Vec<f32> = (0..channels).map(|_| self.next() as f32 / 65536.0).collect();
            return self.constant(Tensor::from_slice(&[channels], &data), None);
        }
        let data: Vec<i32> = (0..channels).map(|_| self.next() as i32 % 2000 - 1000).collect();
        let [x, w] = [x, w].map(|id| self.graph.values[id].quant.clone().unwrap());
        let scales = (0..channels).map(|c| x.scale[0] * w.scale_of(c)).collect();
        self.constant(
            Tensor::from_slice(&[channels], &data),
            Some(QuantParams::per_channel(scales, 0)),
        )
    }

    /// A convolution by 3 or 1 that keeps the size over the stride.
    fn conv(
        &mut self,
        x: ValueId,
        out: usize,
        kernel: usize,
        stride: i64,
        group: usize,
    ) -> ValueId {
        let depth = self.graph.values[x].shape[1];
        let w = self.weights(&[out, depth / group, kernel, kernel]);
        let b = self.bias(out, x, w);
        let pad = (kernel / 2) as i64;
        let attrs = Attrs::new()
            .with("strides", ints(&[stride; 2]))
            .with("pads", ints(&[pad; 4]))
            .with("group", Attr::Int(group as i64));
        self.op("Conv", attrs, &[x, w, b], quant(0.05, 128))
    }

    fn gemm(&mut self, x: ValueId, units: usize) -> ValueId {
        let depth = self.graph.values[x].shape[1];
        let w = self.weights(&[units, depth]);
        let b = self.bias(units, x, w);
        let attrs = Attrs::new().with("transB", Attr::Int(1));
        self.op("Gemm", attrs, &[x, w, b], quant(0.06, 100))
    }

    /// The graph that gives these values.
    fn giving(mut self, outputs: &[ValueId]) -> Graph {
        self.graph.outputs = outputs.to_vec();
        self.graph.validate().unwrap();
        self.graph
    }
}

/// A small classifier: a convolution, a residual block of depthwise and pointwise ones, a head.
fn classifier(codes: bool, per_channel: bool) -> Graph {
    let mut net = Net::new(codes, per_channel, &[1, 3, 9, 8]);
    let relu = |net: &mut Net, x| match codes {
        true => x,
        false => net.op("Relu", Attrs::new(), &[x], None),
    };
    let c = net.conv(0, 8, 3, 2, 1);
    let c = relu(&mut net, c);
    let d = net.conv(c, 8, 3, 1, 8);
    let d = relu(&mut net, d);
    let p = net.conv(d, 8, 1, 1, 1);
    let sum = net.op("Add", Attrs::new(), &[p, c], quant(0.08, 128));
    let pool = net.op("GlobalAveragePool", Attrs::new(), &[sum], quant(0.08, 128));
    let flat = net.op("Flatten", Attrs::new(), &[pool], quant(0.08, 128));
    let g = net.gemm(flat, 5);
    let s = net.op("Softmax", Attrs::new(), &[g], quant(1.0 / 256.0, 0));
    net.giving(&[s])
}

/// Something to run on.
fn inputs(graph: &Graph) -> Vec<(String, Tensor)> {
    let input = |&id: &ValueId| {
        let value = &graph.values[id];
        let n: usize = value.shape.iter().product();
        let byte = |i: usize| (i * 37 % 251) as u8;
        let tensor = match value.dtype {
            DType::U8 => Tensor::from_slice(&value.shape, &(0..n).map(byte).collect::<Vec<_>>()),
            _ => {
                let real = |i: usize| f32::from(byte(i)) / 64.0 - 2.0;
                Tensor::from_slice(&value.shape, &(0..n).map(real).collect::<Vec<_>>())
            }
        };
        (value.name.clone(), tensor)
    };
    graph.inputs.iter().map(input).collect()
}

fn run(model: &Model, inputs: &[(String, Tensor)]) -> Vec<Tensor> {
    let given: Vec<_> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    model.session(1).run(&given, None).unwrap()
}

/// The operators of a model's steps, changes of layout left out.
fn steps(model: &Model) -> Vec<&'static str> {
    model.plan().steps().iter().map(|s| s.op).filter(|op| *op != "Layout").collect()
}

/// Runs a graph with the stand-in and without: the same bytes, no broken rule, nothing left over.
/// Gives the steps.
#[track_caller]
fn same(graph: &Graph, stand_in: &StandIn, options: &Options) -> Vec<&'static str> {
    let given = inputs(graph);
    let expected = run(&Model::from_graph(graph.clone()).unwrap(), &given);
    let model = Model::on_nnapi(graph.clone(), options);
    assert_eq!(stand_in.broken(), "");
    let model = model.unwrap();
    assert_eq!(run(&model, &given), expected);
    let steps = steps(&model);
    drop(model);
    assert_eq!(stand_in.broken(), "");
    assert_eq!(stand_in.alive(), 0);
    // Else bytes that agree say nothing.
    let varied = |t: &Tensor| t.bytes().iter().any(|b| *b != t.bytes()[0]);
    assert!(expected.iter().all(varied), "all of the output is one number");
    steps
}

#[test]
fn a_classifier_at_every_level() {
    for level in [27, 28, 29, 30, 31, 1_000_006, 1_000_007] {
        let stand_in = StandIn::new(level);
        for codes in [false, true] {
            let graph = classifier(codes, codes && level >= 29);
            let steps = same(&graph, &stand_in, &stand_in.options());
            assert_eq!(steps, ["NNAPI"], "level {level}, codes {codes}");
        }
        let runs = [c"Execution_startCompute", c"Execution_compute"].map(|n| stand_in.calls(n));
        assert_eq!(runs, if level < 29 { [2, 0] } else { [0, 2] }, "level {level}");
        let per_channel = stand_in.calls(c"Model_setOperandSymmPerChannelQuantParams");
        assert_eq!(per_channel > 0, level >= 29, "level {level}");
    }
}

#[test]
fn scales_per_channel_stay_on_the_cpu_before_level_29() {
    let stand_in = StandIn::new(28);
    let steps = same(&classifier(true, true), &stand_in, &stand_in.options());
    // Additions go, weights with many scales stay.
    assert!(
        steps.contains(&"NNAPI") && steps.contains(&"Conv") && steps.contains(&"Gemm"),
        "{steps:?}"
    );
}

#[test]
fn what_the_device_refuses_runs_here() {
    // ADD is in the middle: a part before it, a part after it.
    for codes in [false, true] {
        let stand_in = StandIn::new(31);
        stand_in.refuse(0);
        let steps = same(&classifier(codes, codes), &stand_in, &stand_in.options());
        assert_eq!(steps, ["NNAPI", "Add", "NNAPI"]);
        // Everything.
        for operation in 0..106 {
            stand_in.refuse(operation);
        }
        let steps = same(&classifier(codes, codes), &stand_in, &stand_in.options());
        assert!(!steps.contains(&"NNAPI"), "{steps:?}");
    }
}

#[test]
fn what_nnapi_does_not_have_runs_here() {
    let mut net = Net::new(false, false, &[1, 4, 6, 6]);
    let a = net.conv(0, 4, 3, 1, 1);
    // A branch that has to go through the CPU, and one that does not.
    let e = net.op("Erf", Attrs::new(), &[a], None);
    let b = net.conv(a, 4, 3, 1, 4);
    let sum = net.op("Add", Attrs::new(), &[e, b], None);
    let graph = net.giving(&[sum, a]);
    let stand_in = StandIn::new(30);
    assert_eq!(same(&graph, &stand_in, &stand_in.options()), ["NNAPI", "Erf", "NNAPI"]);
}

#[test]
fn activations_are_part_of_the_operation_before_them() {
    let mut net = Net::new(false, false, &[1, 3, 8, 8]);
    let clip = |low: f32, high: f32| {
        Attrs::new().with("min", Attr::Float(low)).with("max", Attr::Float(high))
    };
    let mut x = net.conv(0, 4, 3, 1, 1);
    x = net.op("Clip", clip(0.0, 6.0), &[x], None);
    x = net.conv(x, 4, 3, 1, 4);
    x = net.op("Clip", clip(-1.0, 1.0), &[x], None);
    let y = net.op("Add", Attrs::new(), &[x, x], None);
    x = net.op("Relu", Attrs::new(), &[y], None);
    // One that NNAPI does not have.
    x = net.op("Clip", clip(0.0, 0.5), &[x], None);
    let graph = net.giving(&[x]);
    let stand_in = StandIn::new(28);
    assert_eq!(same(&graph, &stand_in, &stand_in.options()), ["NNAPI", "Clip"]);
    assert_eq!(stand_in.calls(c"Model_addOperation"), 3);
}

/// Stand-ins for the levels at which something changes.
struct Levels([(u32, StandIn); 4]);

impl Levels {
    fn new() -> Levels {
        Levels([27, 28, 29, 30].map(|level| (level, StandIn::new(level))))
    }

    /// One operator on floats and on codes, which NNAPI has since some level: `make` adds it to the
    /// input.
    #[track_caller]
    fn operator(&self, input: &[usize], since: [u32; 2], make: impl Fn(&mut Net) -> Vec<ValueId>) {
        for (codes, since) in [(false, since[0]), (true, since[1])] {
            for (level, stand_in) in &self.0 {
                let mut net = Net::new(codes, codes && *level >= 29, input);
                let outputs = make(&mut net);
                let steps = same(&net.giving(&outputs), stand_in, &stand_in.options());
                let what = format!("level {level}, codes {codes}: {steps:?}");
                assert_eq!(steps == ["NNAPI"], *level >= since, "{what}");
                assert_eq!(steps.contains(&"NNAPI"), *level >= since, "{what}");
            }
        }
    }
}

const INPUT: (f32, i32) = (0.05, 120);

#[test]
fn convolutions() {
    let levels = Levels::new();
    let conv = |group: i64, dilation: i64, channels: usize| {
        move |net: &mut Net| {
            let w = net.weights(&[channels, 4 / group as usize, 3, 2]);
            let attrs = Attrs::new()
                .with("group", Attr::Int(group))
                .with("dilations", ints(&[dilation, 1]))
                .with("strides", ints(&[1, 2]))
                .with("pads", ints(&[1, 0, 2, 1]));
            vec![net.op("Conv", attrs, &[0, w], quant(0.05, 100))]
        }
    };
    let x = [2, 4, 7, 6];
    levels.operator(&x, [27, 27], conv(1, 1, 5));
    levels.operator(&x, [29, 29], conv(1, 2, 5));
    // Depthwise, one and two outputs for each channel.
    levels.operator(&x, [27, 27], conv(4, 1, 4));
    levels.operator(&x, [27, 27], conv(4, 1, 8));
    levels.operator(&x, [29, 29], conv(4, 2, 8));
    // In two groups.
    levels.operator(&x, [29, 29], conv(2, 1, 6));
}

#[test]
fn dense_layers() {
    let levels = Levels::new();
    levels.operator(&[3, 7], [27, 27], |net| vec![net.gemm(0, 5)]);
    // MatMul has its weights the other way round.
    levels.operator(&[2, 3, 8], [27, 27], |net| {
        let w = net.weights(&[8, 4]);
        let value = &mut net.graph.values[w];
        if net.codes {
            value.quant = match value.quant.as_ref().unwrap().is_per_tensor() {
                true => quant(0.003, 0),
                false => Some(QuantParams::per_channel(vec![0.002, 0.003, 0.001, 0.004], 1)),
            };
        }
        vec![net.op("MatMul", Attrs::new(), &[0, w], quant(0.02, 128))]
    });
}

#[test]
fn poolings() {
    let levels = Levels::new();
    let pool = |op: &'static str, pads: i64, ceil: i64| {
        move |net: &mut Net| {
            let attrs = Attrs::new()
                .with("kernel_shape", ints(&[3, 2]))
                .with("strides", ints(&[2, 2]))
                .with("ceil_mode", Attr::Int(ceil))
                .with("pads", ints(&[pads; 4]));
            vec![net.op(op, attrs, &[0], quant(INPUT.0, INPUT.1))]
        }
    };
    for op in ["MaxPool", "AveragePool"] {
        levels.operator(&[1, 3, 8, 7], [27, 27], pool(op, 0, 0));
        levels.operator(&[1, 3, 8, 7], [27, 27], pool(op, 1, 0));
        levels.operator(&[1, 3, 8, 7], [27, 27], pool(op, 0, 1));
    }
    for op in ["GlobalAveragePool", "GlobalMaxPool"] {
        levels.operator(&[2, 5, 4, 3], [27, 27], |net| {
            vec![net.op(op, Attrs::new(), &[0], quant(INPUT.0, INPUT.1))]
        });
    }
    let mean = |axes: &'static [i64], keep: i64| {
        move |net: &mut Net| {
            let attrs = Attrs::new().with("axes", ints(axes)).with("keepdims", Attr::Int(keep));
            vec![net.op("ReduceMean", attrs, &[0], quant(INPUT.0, INPUT.1))]
        }
    };
    levels.operator(&[2, 5, 4, 3], [28, 28], mean(&[2, 3], 1));
    levels.operator(&[2, 5, 4, 3], [28, 28], mean(&[2, 3], 0));
    levels.operator(&[2, 5, 4, 3], [28, 28], mean(&[1], 1));
    levels.operator(&[4, 6], [28, 28], mean(&[1], 0));
    // With padding counted there is no such operation.
    levels.operator(&[1, 3, 8, 7], [u32::MAX; 2], |net| {
        let attrs = Attrs::new()
            .with("kernel_shape", ints(&[3, 3]))
            .with("count_include_pad", Attr::Int(1))
            .with("pads", ints(&[1; 4]));
        vec![net.op("AveragePool", attrs, &[0], quant(INPUT.0, INPUT.1))]
    });
}

#[test]
fn sums_and_products() {
    let levels = Levels::new();
    for (op, since, scale) in [
        ("Add", [27, 27], 0.1),
        ("Mul", [27, 27], 0.1),
        ("Sub", [28, 29], 0.1),
        ("Div", [28, u32::MAX], 0.1),
        ("Max", [29, 29], 0.07),
        ("Min", [29, 29], 0.07),
    ] {
        levels.operator(&[1, 3, 4, 5], since, |net| {
            // A constant for each channel, as pictures are normalized.
            let c = match net.codes {
                true => {
                    let data = Tensor::from_slice(&[3, 1, 1], &[10u8, 200, 90]);
                    net.constant(data, quant(0.02, 60))
                }
                false => net.constant(Tensor::from_slice(&[3, 1, 1], &[0.5f32, 2.0, -1.0]), None),
            };
            vec![net.op(op, Attrs::new(), &[0, c], quant(scale, 128))]
        });
    }
    // A product whose output's scale is too small breaks a rule at every level.
    let mut net = Net::new(true, false, &[1, 3, 4, 5]);
    let y = net.op("Mul", Attrs::new(), &[0, 0], quant(0.05f32 * 0.05, 0));
    let graph = net.giving(&[y]);
    let stand_in = StandIn::new(31);
    assert_eq!(same(&graph, &stand_in, &stand_in.options()), ["Mul"]);
}

#[test]
fn functions_of_one_number() {
    let levels = Levels::new();
    for (op, since, (scale, zero_point)) in [
        ("Sigmoid", [27, 27], (1.0 / 256.0, 0)),
        ("Tanh", [27, 29], (1.0 / 128.0, 128)),
        ("HardSwish", [30, 30], (0.03, 20)),
        ("Relu", [27, 27], INPUT),
    ] {
        levels.operator(&[1, 3, 4, 5], since, |net| {
            vec![net.op(op, Attrs::new(), &[0], quant(scale, zero_point))]
        });
    }
    // Along the channels, which are last there, and along others.
    for (shape, axis, since) in [
        (&[2, 6][..], 1, [27, 27]),
        (&[1, 6, 3, 2], 1, [27, 27]),
        (&[1, 6, 3, 2], 2, [29, 29]),
        (&[2, 6, 3], -1, [29, 29]),
    ] {
        levels.operator(shape, since, |net| {
            let attrs = Attrs::new().with("axis", Attr::Int(axis));
            vec![net.op("Softmax", attrs, &[0], quant(1.0 / 256.0, 0))]
        });
    }
}

#[test]
fn moves() {
    let levels = Levels::new();
    let same_scale = quant(INPUT.0, INPUT.1);
    let moves = |op: &'static str, attrs: Attrs| {
        let quant = same_scale.clone();
        move |net: &mut Net| vec![net.op(op, attrs.clone(), &[0], quant.clone())]
    };
    let block = Attrs::new().with("blocksize", Attr::Int(2));
    levels.operator(&[1, 8, 2, 3], [27, 27], moves("DepthToSpace", block.clone()));
    levels.operator(&[1, 2, 4, 6], [27, 27], moves("SpaceToDepth", block));
    levels.operator(
        &[2, 3, 4],
        [28, 28],
        moves("Transpose", Attrs::new().with("perm", ints(&[2, 0, 1]))),
    );
    let shape = Attrs::new().with("shape", ints(&[4, -1]));
    levels.operator(&[2, 3, 4, 2], [27, 27], moves("Reshape", shape));
    levels.operator(
        &[1, 3, 4, 1],
        [27, 27],
        moves("Squeeze", Attrs::new().with("axes", ints(&[3]))),
    );
    let pads = Attrs::new().with("pads", ints(&[0, 1, 2, 0, 0, 0, 1, 3]));
    levels.operator(&[1, 3, 4, 5], [28, 29], moves("Pad", pads.clone()));
    levels.operator(&[1, 3, 4, 5], [29, 29], moves("Pad", pads.with("value", Attr::Float(1.5))));
    levels.operator(&[1, 6, 4, 5], [29, 29], |net| {
        let attrs = Attrs::new().with("axis", Attr::Int(1)).with("split", ints(&[3, 3]));
        net.node("Split", attrs, &[0], &[same_scale.clone(), same_scale.clone()])
    });
    // A shape that mixes channels with space needs another layout first.
    let mut net = Net::new(true, true, &[1, 3, 6, 6]);
    let c = net.conv(0, 4, 3, 1, 1);
    let attrs = Attrs::new().with("shape", ints(&[1, 2, 72]));
    let r = net.op("Reshape", attrs, &[c], quant(0.05, 128));
    let attrs = Attrs::new().with("shape", ints(&[1, 4, 6, 6]));
    let back = net.op("Reshape", attrs, &[r], quant(0.05, 128));
    let y = net.conv(back, 3, 1, 1, 1);
    let graph = net.giving(&[y, r]);
    let stand_in = StandIn::new(29);
    assert_eq!(same(&graph, &stand_in, &stand_in.options()), ["NNAPI"]);
}

#[test]
fn concatenations() {
    let levels = Levels::new();
    // With one scale always, with several since level 29.
    for (scale, since) in [(INPUT.0, [27, 27]), (0.09, [27, 29])] {
        levels.operator(&[1, 3, 4, 5], since, |net| {
            let attrs = Attrs::new().with("axis", Attr::Int(1));
            vec![net.op("Concat", attrs, &[0, 0], quant(scale, INPUT.1))]
        });
    }
}

#[test]
fn other_sizes() {
    let levels = Levels::new();
    let resize = |mode: &'static str, how: &'static str, nearest: &'static str, to: [i64; 2]| {
        move |net: &mut Net| {
            let attrs = Attrs::new()
                .with("sizes", ints(&[1, 3, to[0], to[1]]))
                .with("mode", Attr::Str(mode.into()))
                .with("coordinate_transformation_mode", Attr::Str(how.into()))
                .with("nearest_mode", Attr::Str(nearest.into()));
            vec![net.op("Resize", attrs, &[0], quant(INPUT.0, INPUT.1))]
        }
    };
    let x = [1, 3, 4, 5];
    let any = "round_prefer_floor";
    levels.operator(&x, [29, 29], resize("nearest", "asymmetric", "floor", [8, 7]));
    levels.operator(&x, [30, 30], resize("nearest", "half_pixel", any, [8, 10]));
    levels.operator(&x, [30, 30], resize("nearest", "half_pixel", "round_prefer_ceil", [7, 9]));
    levels.operator(&x, [u32::MAX; 2], resize("nearest", "half_pixel", any, [7, 9]));
    levels.operator(&x, [29, 29], resize("linear", "asymmetric", any, [8, 7]));
    levels.operator(&x, [30, 30], resize("linear", "half_pixel", any, [8, 7]));
    levels.operator(&x, [30, 30], resize("linear", "align_corners", any, [8, 7]));
}

#[test]
fn floats_to_codes_and_back() {
    for level in [27, 28, 29, 31] {
        let mut net = Net::new(false, false, &[1, 3, 4, 5]);
        net.codes = true;
        let q = net.op("QuantizeLinear", Attrs::new(), &[0], quant(INPUT.0, INPUT.1));
        net.per_channel = false;
        let c = net.conv(q, 4, 3, 1, 1);
        net.codes = false;
        let d = net.op("DequantizeLinear", Attrs::new(), &[c], None);
        let graph = net.giving(&[d]);
        let stand_in = StandIn::new(level);
        let steps = same(&graph, &stand_in, &stand_in.options());
        let expected: &[&str] = if level < 29 { &["QuantizeLinear", "NNAPI"] } else { &["NNAPI"] };
        assert_eq!(steps, expected, "level {level}");
    }
}

#[test]
fn signed_codes() {
    // From level 30 on; daq computes on unsigned ones, and moves either.
    for (level, expected) in [(29, "MaxPool"), (30, "NNAPI")] {
        let mut net = Net::new(true, false, &[1, 3, 6, 6]);
        net.graph.values[0].dtype = DType::I8;
        net.graph.values[0].quant = quant(0.1, -7);
        let attrs = Attrs::new().with("kernel_shape", ints(&[2, 2]));
        let y = net.op("MaxPool", attrs, &[0], quant(0.1, -7));
        net.graph.values[y].dtype = DType::I8;
        let graph = net.giving(&[y]);
        let stand_in = StandIn::new(level);
        let bytes: Vec<i8> = (0..108).map(|i| (i * 37 % 251) as u8 as i8).collect();
        let given = [("v0".to_string(), Tensor::from_slice(&[1, 3, 6, 6], &bytes))];
        let model = Model::on_nnapi(graph.clone(), &stand_in.options()).unwrap();
        assert_eq!(run(&model, &given), run(&Model::from_graph(graph).unwrap(), &given));
        assert_eq!(steps(&model), [expected]);
        assert_eq!(stand_in.broken(), "");
    }
}

#[test]
fn integers_and_constants_stay_here() {
    let mut net = Net::new(false, false, &[2, 3]);
    net.graph.values[0].dtype = DType::I32;
    let attrs = Attrs::new().with("perm", ints(&[1, 0]));
    let t = net.op("Transpose", attrs, &[0], None);
    net.graph.values[t].dtype = DType::I32;
    let c = net.constant(Tensor::from_slice(&[1, 4], &[-1f32, 2.0, -3.0, 4.0]), None);
    let r = net.op("Relu", Attrs::new(), &[c], None);
    let graph = net.giving(&[t, r]);
    let given = [("v0".to_string(), Tensor::from_slice(&[2, 3], &[1i32, 2, 3, 4, 5, 6]))];
    let stand_in = StandIn::new(31);
    let model = Model::on_nnapi(graph, &stand_in.options()).unwrap();
    assert_eq!(steps(&model), ["Transpose", "Relu"]);
    let expected = [
        Tensor::from_slice(&[3, 2], &[1i32, 4, 2, 5, 3, 6]),
        Tensor::from_slice(&[1, 4], &[0f32, 2.0, 0.0, 4.0]),
    ];
    assert_eq!(run(&model, &given), expected);
}

#[test]
fn preference_and_16_bit_floats() {
    let stand_in = StandIn::new(28);
    let options = Options {
        preference: Preference::LowPower,
        allow_fp16: true,
        execution: Execution::Burst,
        ..stand_in.options()
    };
    // A burst comes with level 29: without it a plain run.
    same(&classifier(false, false), &stand_in, &options);
    let calls = [c"Model_relaxComputationFloat32toFloat16", c"Compilation_setPreference"];
    assert_eq!(calls.map(|name| stand_in.calls(name)), [1, 1]);
    assert_eq!(stand_in.preference(), Preference::LowPower as i32);
    let stand_in = StandIn::new(27);
    same(
        &classifier(false, false),
        &stand_in,
        &Options { library: Some(stand_in.path.clone()), ..options },
    );
}

#[test]
fn many_sessions_at_once_in_each_way() {
    for (execution, name) in [
        (Execution::Plain, c"Execution_compute"),
        (Execution::Burst, c"Execution_burstCompute"),
        (Execution::Fenced, c"Execution_startComputeWithDependencies"),
    ] {
        let stand_in = StandIn::new(30);
        let graph = classifier(true, true);
        let given = inputs(&graph);
        let expected = run(&Model::from_graph(graph.clone()).unwrap(), &given);
        let options = Options { execution, ..stand_in.options() };
        let model = Model::on_nnapi(graph, &options).unwrap();
        let caller = || {
            for _ in 0..8 {
                assert_eq!(run(&model, &given), expected);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(caller))));
        assert_eq!(stand_in.calls(name), 32);
        let bursts = stand_in.calls(c"Burst_create");
        assert_eq!(bursts > 0 && bursts <= 4, execution == Execution::Burst, "{bursts} bursts");
        drop(model);
        assert_eq!((stand_in.broken().as_str(), stand_in.alive()), ("", 0));
    }
}

#[test]
fn devices_by_name() {
    let stand_in = StandIn::new(31);
    let devices = daq::nnapi::devices(&stand_in.options()).unwrap();
    let found: Vec<_> = devices.iter().map(|d| (d.name.as_str(), d.kind, d.level)).collect();
    let expected =
        [("stand-in", DeviceKind::Accelerator, 31), ("nnapi-reference", DeviceKind::Cpu, 31)];
    assert_eq!(found, expected);
    let on = |name: &str| Options { device: Some(name.into()), ..stand_in.options() };
    for (name, kernel) in [("stand-in", "stand-in, "), ("nnapi-reference", "nnapi-reference, ")] {
        let model = Model::on_nnapi(classifier(true, true), &on(name)).unwrap();
        assert!(model.plan().steps()[0].kernel().starts_with(kernel));
    }
    let error = Model::on_nnapi(classifier(true, true), &on("gpu")).err().unwrap().to_string();
    assert!(error.contains("no device `gpu`; there are `stand-in`, `nnapi-reference`"), "{error}");
    // Before level 29 nobody can choose.
    let stand_in = StandIn::new(28);
    assert_eq!(daq::nnapi::devices(&stand_in.options()).unwrap(), []);
    let options = Options { device: Some("stand-in".into()), ..stand_in.options() };
    assert!(Model::on_nnapi(classifier(false, false), &options).is_err());
}

#[test]
fn without_a_library() {
    let options =
        Options { library: Some("/nowhere/libneuralnetworks.so".into()), ..Options::default() };
    let error = Model::on_nnapi(classifier(true, true), &options).err().unwrap().to_string();
    assert!(error.starts_with("NNAPI: /nowhere/libneuralnetworks.so: "), "{error}");
    assert!(error.contains("elsewhere run on the CPU"), "{error}");
    let graph = classifier(true, true);
    let given = inputs(&graph);
    let model = Model::on_nnapi_or_cpu(graph.clone(), &options).unwrap();
    assert_eq!(run(&model, &given), run(&Model::from_graph(graph).unwrap(), &given));
    // A library that is another one.
    let exe = std::env::current_exe().unwrap();
    let options = Options { library: Some(exe), ..Options::default() };
    assert!(Model::on_nnapi(classifier(true, true), &options).is_err());
}

#[test]
fn weights_that_lie_in_a_file_stay_there() {
    // Deep enough that the pointwise and the dense weights are more than 128 bytes.
    let mut net = Net::new(true, true, &[1, 16, 5, 4]);
    let c = net.conv(0, 24, 1, 1, 1);
    let pool = net.op("GlobalAveragePool", Attrs::new(), &[c], quant(0.05, 128));
    let flat = net.op("Flatten", Attrs::new(), &[pool], quant(0.05, 128));
    let g = net.gemm(flat, 10);
    let graph = net.giving(&[g]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.daq");
    daq::format::write(&graph, &path).unwrap();
    // Alone, and as a part of another file.
    let whole = std::fs::read(&path).unwrap();
    let within = dir.path().join("assets");
    std::fs::write(&within, [&vec![7; 192][..], &whole, &[7; 5]].concat()).unwrap();
    let part = std::fs::File::open(&within).unwrap();
    for graph in [
        daq::format::read(&path).unwrap(),
        daq::format::read_part(&part, 192, whole.len() as u64).unwrap(),
    ] {
        let stand_in = StandIn::new(29);
        assert_eq!(same(&graph, &stand_in, &stand_in.options()), ["NNAPI"]);
        let calls = [c"Memory_createFromFd", c"Model_setOperandValueFromMemory", c"Memory_free"];
        assert_eq!(calls.map(|name| stand_in.calls(name)), [1, 2, 1]);
    }
}

#[test]
fn a_run_that_fails_is_an_error() {
    let stand_in = StandIn::new(31);
    let graph = classifier(true, true);
    let given = inputs(&graph);
    let model = Model::on_nnapi(graph, &stand_in.options()).unwrap();
    stand_in.say(b"stand_in_fail", true);
    let named: Vec<_> = given.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let mut session = model.session(1);
    let error = session.run(&named, None).unwrap_err().to_string();
    assert_eq!(error, "NNAPI: running: ANEURALNETWORKS_OP_FAILED");
    stand_in.say(b"stand_in_fail", false);
    session.run(&named, None).unwrap();
}
