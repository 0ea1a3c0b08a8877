//! Prints one SHA-256 for each of some small models and sets of worst-case layers: what `cargo xtask
//! digest` compares between instruction sets, `docs/digests.txt` being the list that holds for all.
//!
//! A line for each kernel of that instruction set follows: `# ran NAME`, or `# idle NAME` where no model took it.
//!
//! `digest` uses the best instruction set of this CPU or the one that `DAQ_ISA` names, and says which.
//! `DAQ_ISA=avxvnni` works on every x86-64 with AVX2 under Linux: a signal handler computes what the
//! CPU does not have.
//! Models are made here, from a generator of numbers that is the same everywhere.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex};

use daq::attrs::{Attr, Attrs};
use daq::{DType, Graph, Model, Node, Op, QuantParams, Spec, Tensor, Value, ValueId};
use daq_kernels::{ChannelsF32, Isa};
use sha2::{Digest, Sha256};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../../daq-kernels/tests/trap/mod.rs"]
#[allow(dead_code, reason = "a test uses the rest")]
mod trap;

fn main() {
    let trap = trap();
    println!("# {}{}", Isa::best().name(), if trap { ", trap" } else { "" });
    for (name, digest) in MODELS {
        let mut all = Sha256::new();
        digest(&mut all);
        let hex: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{name:20} {hex}");
    }
    let ran = RAN.lock().expect("no thread panicked");
    for &(_, name, isa) in KERNELS.iter() {
        if isa == Isa::best() {
            println!("# {} {name}", if ran.contains(name) { "ran" } else { "idle" });
        }
    }
}

static KERNELS: LazyLock<Vec<(&str, &str, Isa)>> = LazyLock::new(daq_kernels::kernels);

/// The kernels that have run.
static RAN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// What plans call kernels whose names they do not know, and their families.
const FAMILIES: &[(&str, &[&str])] = &[
    ("add", &["add_u8"]),
    ("add_u8", &["add_u8"]),
    ("dequantize_u8_f32", &["dequantize_u8_f32"]),
    ("dynamic_quantize_f32_u8", &["range_f32", "quantize_f32_u8"]),
    ("lookup", &["lookup_u8"]),
    ("global_average_pool_u8", &["global_average_pool_u8"]),
    ("lookup_u8", &["lookup_u8"]),
    ("max_pool_u8", &["max_pool_u8"]),
    ("mul_u8", &["mul_u8"]),
    ("quantize_f32_u8", &["quantize_f32_u8"]),
];

/// Notes that the best kernel of a family has run.
fn ran(family: &str) {
    let fits = |isa: Isa| isa <= Isa::best() && isa.is_supported();
    let best = KERNELS.iter().find(|(of, _, isa)| *of == family && fits(*isa));
    RAN.lock().expect("no thread panicked").insert(best.expect("a family").1);
}

/// Emulates AVX-VNNI where it was asked for and is missing.
fn trap() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if std::env::var("DAQ_ISA").is_ok_and(|isa| isa == Isa::AvxVnni.name())
        && Isa::Avx2.is_supported()
        && !Isa::AvxVnni.is_supported()
    {
        trap::install();
        // SAFETY: the handler executes it.
        unsafe { Isa::emulate_avxvnni() };
        return true;
    }
    false
}

type Hashed = fn(&mut Sha256);

const MODELS: &[(&str, Hashed)] = &[
    ("mobile", |all| run(mobile(), all)),
    ("squeeze", |all| run(squeeze(), all)),
    ("residual", |all| run(residual(), all)),
    ("float", |all| run(float(), all)),
    ("1x1", |all| layers(all, &|n| [n, 17, 1, 1, 1, 1])),
    ("1x1-outputs", |all| layers(all, &|n| [19, n, 1, 1, 1, 1])),
    ("3x3", |all| layers(all, &|n| [n, 9, 3, 1, 1, 1])),
    ("3x3-stride2", |all| layers(all, &|n| [5, n, 3, 2, 1, 1])),
    ("3x3-16", |all| layers(all, &|n| [16, n, 3, 1, 1, 1])),
    ("5x5-dilated", |all| layers(all, &|n| [n % 9 + 1, n, 5, 1, 2, 1])),
    ("grouped", |all| layers(all, &|n| [3 * n, 6, 3, 1, 1, 3])),
    ("depthwise-3x3", |all| layers(all, &|n| [n, n, 3, 1, 1, n])),
    ("depthwise-3x3-stride2", |all| layers(all, &|n| [n, n, 3, 2, 1, n])),
    ("depthwise-5x5", |all| layers(all, &|n| [n, n, 5, 1, 1, n])),
    ("depthwise-unsigned", unsigned),
    ("depthwise-any", |all| layers(all, &|n| [n, n, 4, 1, 2, n])),
    ("3x3-whole-tiles", whole_tiles),
    ("vectors", vectors),
    ("elementwise", elementwise),
    ("quantize", quantize),
    ("dynamic", dynamic),
    ("pictures", pictures),
    ("resize", resize),
    ("channels", channels),
    ("floats-1x1", |all| floats(all, &|n| [n, 17, 1, 1, 1, 1])),
    ("floats-3x3", |all| floats(all, &|n| [5, n, 3, 1, 1, 1])),
    ("floats-depthwise", |all| floats(all, &|n| [n, n, 3, 1, 1, n])),
    ("sums-1x1", |all| sums(all, &|n| [n, 17, 1, 1, 1, 1])),
    ("sums-1x1-outputs", |all| sums(all, &|n| [19, n, 1, 1, 1, 1])),
    ("sums-3x3", |all| sums(all, &|n| [n, 9, 3, 1, 1, 1])),
    ("sums-3x3-stride2", |all| sums(all, &|n| [5, n, 3, 2, 2, 1])),
    ("sums-grouped", |all| sums(all, &|n| [3 * n, 6, 3, 1, 1, 3])),
    ("sums-depthwise", |all| sums(all, &|n| [n, n, 3, 1, 1, n])),
    ("sums-vectors", sums_of_vectors),
];

/// A small generator (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// What weights and inputs are.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    Random,
    /// The ends of the range, at random.
    Ends,
    /// One weight everywhere, and one input.
    Constant(i8, u8),
}

/// Random numbers, their ends, and all that makes sums largest.
const FILLS: [Fill; 7] = [
    Fill::Random,
    Fill::Ends,
    Fill::Constant(127, 255),
    Fill::Constant(-128, 255),
    Fill::Constant(-128, 0),
    Fill::Constant(127, 0),
    Fill::Constant(0, 128),
];

/// What the weights of sums are: `i8`; `i8` less a zero point of each output; or `u8` less one at
/// the ends, for which 8 bits are too few.
#[derive(Clone, Copy, PartialEq)]
enum Weights {
    Signed,
    SignedByOutput,
    Unsigned,
}

/// Weights of a layer of sums, `[outputs, len]`, and their zero points.
struct Integers {
    of: Weights,
    len: usize,
    codes: Vec<i32>,
    zero_points: Vec<i32>,
}

impl Integers {
    /// Numbers of the type that the weights have.
    fn tensor(&self, shape: &[usize], numbers: &[i32]) -> Tensor {
        let bytes: Vec<u8> = numbers.iter().map(|&n| n as u8).collect();
        let dtype = if self.of == Weights::Unsigned { DType::U8 } else { DType::I8 };
        Tensor::from_bytes(dtype, shape, &bytes)
    }

    /// A weight less its zero point.
    fn at(&self, output: usize, k: usize) -> i64 {
        (self.codes[output * self.len + k] - self.zero_points[output]).into()
    }
}

struct Net {
    graph: Graph,
    random: Random,
    fill: Fill,
    /// Where weights are unsigned, their zero point.
    weight_zero: Option<i32>,
}

impl Net {
    fn new(shape: &[usize], quant: Option<QuantParams>, seed: u64) -> (Net, ValueId) {
        let mut net = Net {
            graph: Graph::default(),
            random: Random(seed * 2 + 0x1357_9bdf),
            fill: Fill::Random,
            weight_zero: None,
        };
        let dtype = if quant.is_some() { DType::U8 } else { DType::F32 };
        let x = net.graph.add_value(Value { quant, ..Value::new("x", dtype, shape) });
        net.graph.inputs.push(x);
        (net, x)
    }

    fn constant(&mut self, data: Tensor, quant: Option<QuantParams>) -> ValueId {
        let name = format!("c{}", self.graph.values.len());
        self.graph.add_value(Value { quant, ..Value::constant(name, data) })
    }

    /// A node whose output has codes of `quant`, or plain numbers.
    fn node(
        &mut self,
        op: &str,
        attrs: Attrs,
        inputs: &[ValueId],
        quant: Option<QuantParams>,
    ) -> ValueId {
        let y = self.nodes(op, attrs, inputs, 1)[0];
        self.graph.values[y].quant = quant;
        y
    }

    /// A node of so many outputs.
    fn nodes(&mut self, op: &str, attrs: Attrs, inputs: &[ValueId], count: usize) -> Vec<ValueId> {
        let op = Op::from_attrs(op, &attrs).expect("a known operator").expect("good attributes");
        let specs: Vec<_> = inputs
            .iter()
            .map(|&id| &self.graph.values[id])
            .map(|value| Some(Spec::new(value.dtype, &value.shape)))
            .collect();
        let specs = op.infer(&specs).expect("good shapes").into_iter().take(count);
        let name = format!("n{}", self.graph.values.len());
        let mut outputs = Vec::new();
        for (i, spec) in specs.enumerate() {
            let value = Value::new(format!("{name}.{i}"), spec.dtype, &spec.shape);
            outputs.push(self.graph.add_value(value));
        }
        let inputs = inputs.iter().copied().map(Some).collect();
        let outputs_of = outputs.clone();
        self.graph.nodes.push(Node { name, op, inputs, outputs: outputs_of, doc: String::new() });
        outputs
    }

    fn quant(&self, id: ValueId) -> QuantParams {
        self.graph.values[id].quant.clone().expect("a value of codes")
    }

    fn weight(&mut self) -> i8 {
        match self.fill {
            Fill::Random => self.random.next() as i8,
            Fill::Ends => [-128, -127, 127][self.random.below(3)],
            Fill::Constant(weight, _) => weight,
        }
    }

    /// Weights, bias and output scale of a layer with `depth` inputs to each of `channels` outputs.
    fn parameters(
        &mut self,
        x: ValueId,
        shape: &[usize],
        depth: usize,
    ) -> (ValueId, ValueId, QuantParams) {
        let (channels, len) = (shape[0], shape.iter().product());
        let weights: Vec<i8> = (0..len).map(|_| self.weight()).collect();
        // Some channels saturate, some see every bit of their sums.
        let scale = |c: usize| 0.004 * [1.0, 0.7, 3.1, 0.06, 90.0][c % 5];
        let scales: Vec<f32> = (0..channels).map(scale).collect();
        let input = self.quant(x);
        let bias: Vec<i32> = (0..channels).map(|_| self.random.next() as i16 as i32 / 8).collect();
        let bias_scales = scales.iter().map(|scale| scale * input.scale[0]).collect();
        let w = match self.weight_zero {
            None => Tensor::from_slice(shape, &weights),
            Some(_) => {
                let codes = weights.iter().map(|&w| (w as u8).wrapping_add(128));
                Tensor::from_slice(shape, &codes.collect::<Vec<_>>())
            }
        };
        let mut quant = QuantParams::per_channel(scales, 0);
        quant.zero_point = vec![self.weight_zero.unwrap_or(0); quant.zero_point.len()];
        let w = self.constant(w, Some(quant));
        let b = self.constant(
            Tensor::from_slice(&[channels], &bias),
            Some(QuantParams::per_channel(bias_scales, 0)),
        );
        let spread =
            if let Fill::Constant(..) = self.fill { depth as f32 } else { (depth as f32).sqrt() };
        let scale = input.scale[0] * 0.004 * 90.0 * spread;
        let zero_point = [0, 128, 3, 255, 100][self.random.below(5)];
        (w, b, QuantParams::per_tensor(scale, zero_point))
    }

    fn conv(
        &mut self,
        x: ValueId,
        [out_c, kernel, stride, dilation, groups]: [usize; 5],
    ) -> ValueId {
        let group_in = self.graph.values[x].shape[1] / groups;
        let shape = [out_c, group_in, kernel, kernel];
        let (w, b, quant) = self.parameters(x, &shape, group_in * kernel * kernel);
        let attrs = conv_attrs(kernel, stride, dilation, groups);
        self.node("Conv", attrs, &[x, w, b], Some(quant))
    }

    fn gemm(&mut self, x: ValueId, out: usize) -> ValueId {
        let depth = self.graph.values[x].shape[1];
        let (w, b, quant) = self.parameters(x, &[out, depth], depth);
        self.node("Gemm", Attrs::new().with("transB", Attr::Int(1)), &[x, w, b], Some(quant))
    }

    /// An operator without parameters whose output has a scale of its own.
    fn plain(&mut self, op: &str, inputs: &[ValueId], scale: f32, zero_point: i32) -> ValueId {
        let quant = QuantParams::per_tensor(scale * self.quant(inputs[0]).scale[0], zero_point);
        self.node(op, Attrs::new(), inputs, Some(quant))
    }

    /// Weights of `outputs` sums of `len` products.
    fn integers(&mut self, outputs: usize, len: usize, of: Weights) -> Integers {
        let (up, zero_points) = match of {
            Weights::Signed => (0, [0; 3]),
            Weights::SignedByOutput => (0, [-128, 127, 3]),
            Weights::Unsigned => (128, [0, 255, 100]),
        };
        let codes = (0..outputs * len).map(|_| i32::from(self.weight()) + up).collect();
        let zero_points = (0..outputs).map(|i| zero_points[i % 3]).collect();
        Integers { of, len, codes, zero_points }
    }

    /// A model of one layer of sums, `w` being its weights as it takes them.
    fn sums(
        mut self,
        op: &str,
        attrs: Attrs,
        shape: &[usize],
        zero_point: u8,
        w: Tensor,
        weights: &Integers,
    ) -> Net {
        let x = self.graph.add_value(Value::new("x", DType::U8, shape));
        self.graph.inputs.push(x);
        let mut inputs = vec![x, self.constant(w, None)];
        inputs.push(self.constant(Tensor::scalar(zero_point), None));
        let count = [weights.zero_points.len()];
        inputs.push(self.constant(weights.tensor(&count, &weights.zero_points), None));
        let y = self.node(op, attrs, &inputs, None);
        self.end(y)
    }

    fn flatten(&mut self, x: ValueId) -> ValueId {
        let quant = self.quant(x);
        self.node("Flatten", Attrs::new(), &[x], Some(quant))
    }

    fn max_pool(&mut self, x: ValueId) -> ValueId {
        let quant = self.graph.values[x].quant.clone();
        let pair = |value| Attr::Ints(vec![value; 2]);
        let attrs = Attrs::new().with("kernel_shape", pair(3)).with("strides", pair(2));
        self.node("MaxPool", attrs, &[x], quant)
    }

    fn end(mut self, y: ValueId) -> Net {
        self.graph.outputs.push(y);
        self
    }
}

/// Attributes of a convolution whose padding keeps the size, its stride aside.
fn conv_attrs(kernel: usize, stride: usize, dilation: usize, groups: usize) -> Attrs {
    let ints = |value: usize, len| Attr::Ints(vec![value as i64; len]);
    Attrs::new()
        .with("strides", ints(stride, 2))
        .with("dilations", ints(dilation, 2))
        .with("pads", ints((kernel - 1) * dilation / 2, 4))
        .with("group", Attr::Int(groups as i64))
}

fn codes(zero_point: i32) -> Option<QuantParams> {
    Some(QuantParams::per_tensor(1.0 / 64.0, zero_point))
}

/// Inverted residuals with depthwise convolutions and a hard-swish.
fn mobile() -> Net {
    let (mut n, x) = Net::new(&[1, 3, 33, 29], codes(114), 1);
    let x = n.conv(x, [16, 3, 2, 1, 1]);
    let x = n.plain("HardSwish", &[x], 0.9, 12);
    let y = n.conv(x, [48, 1, 1, 1, 1]);
    let y = n.conv(y, [48, 3, 1, 1, 48]);
    let y = n.conv(y, [16, 1, 1, 1, 1]);
    let x = n.plain("Add", &[x, y], 1.7, 77);
    let y = n.conv(x, [72, 1, 1, 1, 1]);
    let y = n.conv(y, [72, 5, 2, 1, 72]);
    let y = n.conv(y, [24, 1, 1, 1, 1]);
    let y = n.plain("GlobalAveragePool", &[y], 0.4, 9);
    let y = n.flatten(y);
    let y = n.gemm(y, 100);
    n.end(y)
}

/// Concatenations, pooling and a squeeze-and-excite.
fn squeeze() -> Net {
    let (mut n, x) = Net::new(&[2, 3, 31, 24], codes(0), 2);
    let x = n.conv(x, [20, 3, 1, 1, 1]);
    let x = n.max_pool(x);
    let x = n.conv(x, [7, 1, 1, 1, 1]);
    let (a, b) = (n.conv(x, [18, 1, 1, 1, 1]), n.conv(x, [18, 3, 1, 1, 1]));
    let quant = n.quant(a);
    let x = n.node("Concat", Attrs::new().with("axis", Attr::Int(1)), &[a, b], Some(quant));
    let s = n.plain("GlobalAveragePool", &[x], 0.7, 130);
    let s = n.conv(s, [36, 1, 1, 1, 1]);
    let s = n.node("Sigmoid", Attrs::new(), &[s], Some(QuantParams::per_tensor(1.0 / 256.0, 0)));
    let x = n.plain("Mul", &[x, s], 0.6, 20);
    let y = n.conv(x, [11, 3, 2, 1, 1]);
    n.end(y)
}

/// 3x3 convolutions of many channels, some by Winograd where there is such a kernel.
fn residual() -> Net {
    let (mut n, x) = Net::new(&[1, 48, 13, 14], codes(128), 3);
    let y = n.conv(x, [64, 3, 1, 1, 1]);
    let y = n.conv(y, [48, 3, 1, 1, 1]);
    let x = n.plain("Add", &[x, y], 8.0, 100);
    let y = n.conv(x, [96, 3, 2, 1, 1]);
    let y = n.conv(y, [96, 3, 1, 1, 4]);
    n.end(y)
}

/// The float path, whose order of operations is defined too.
fn float() -> Net {
    let (mut n, x) = Net::new(&[1, 3, 23, 25], None, 4);
    let conv = |n: &mut Net, x: ValueId, [out_c, kernel, stride, groups]: [usize; 4]| {
        let shape = [out_c, n.graph.values[x].shape[1] / groups, kernel, kernel];
        let len = shape.iter().product();
        let weights: Vec<f32> = (0..len).map(|_| n.random.next() as i16 as f32 / 65536.0).collect();
        let w = n.constant(Tensor::from_slice(&shape, &weights), None);
        let ints = |value: usize, len| Attr::Ints(vec![value as i64; len]);
        let attrs = Attrs::new().with("strides", ints(stride, 2)).with("pads", ints(kernel / 2, 4));
        n.node("Conv", attrs.with("group", Attr::Int(groups as i64)), &[x, w], None)
    };
    let x = conv(&mut n, x, [19, 3, 2, 1]);
    let x = n.node("Relu", Attrs::new(), &[x], None);
    let y = conv(&mut n, x, [19, 3, 1, 19]);
    let y = conv(&mut n, y, [19, 1, 1, 1]);
    let x = n.node("Add", Attrs::new(), &[x, y], None);
    let x = n.max_pool(x);
    let x = conv(&mut n, x, [37, 1, 1, 1]);
    let x = n.node("GlobalAveragePool", Attrs::new(), &[x], None);
    let x = n.node("Softmax", Attrs::new().with("axis", Attr::Int(1)), &[x], None);
    n.end(x)
}

/// A convolution of each kind of numbers and of every number of channels up to 40, so that each
/// kernel meets every tail.
fn layers(all: &mut Sha256, shape: &dyn Fn(usize) -> [usize; 6]) {
    each_layer(shape, |net, y| run(net.end(y), all));
}

/// The same, giving floats.
fn floats(all: &mut Sha256, shape: &dyn Fn(usize) -> [usize; 6]) {
    each_layer(shape, |mut net, y| {
        let value = &mut net.graph.values[y];
        (value.dtype, value.quant) = (DType::F32, None);
        run(net.end(y), all);
    });
}

fn each_layer(shape: &dyn Fn(usize) -> [usize; 6], mut then: impl FnMut(Net, ValueId)) {
    for (n, &fill) in (1..=40).flat_map(|n| FILLS.iter().map(move |fill| (n, fill))) {
        let [in_c, rest @ ..] = shape(n);
        let (mut net, x) = Net::new(&[1, in_c, 5, 6], codes([0, 255, 128, 3][n % 4]), n as u64);
        net.fill = fill;
        let y = net.conv(x, rest);
        then(net, y);
    }
}

/// Convolutions of many channels that leave nothing of tiles of 4x4, or little: by Winograd wherever there
/// is such a kernel.
fn whole_tiles(all: &mut Sha256) {
    let shapes = [(48, 48, [8, 8]), (48, 66, [8, 12]), (64, 50, [7, 8]), (64, 64, [8, 8])];
    for ((i, (in_c, out_c, size)), &fill) in
        shapes.into_iter().enumerate().flat_map(|of| FILLS.iter().map(move |fill| (of, fill)))
    {
        let zero_point = [0, 255, 128, 3][i];
        let (mut net, x) = Net::new(&[1, in_c, size[0], size[1]], codes(zero_point), i as u64);
        net.fill = fill;
        let y = net.conv(x, [out_c, 3, 1, 1, 1]);
        run(net.end(y), all);
    }
}

/// Depthwise convolutions whose weights, less their zero point, reach beyond 8 bits.
fn unsigned(all: &mut Sha256) {
    for (n, &fill) in (1..=40).flat_map(|n| FILLS.iter().map(move |fill| (n, fill))) {
        let (mut net, x) = Net::new(&[1, n, 5, 6], codes([0, 255, 128, 3][n % 4]), n as u64);
        net.fill = fill;
        net.weight_zero = Some([0, 255, 100][n % 3]);
        let y = net.conv(x, [n, 3, 1, 1, n]);
        run(net.end(y), all);
    }
}

/// Matrix products of few rows and of every depth.
fn vectors(all: &mut Sha256) {
    for (depth, &fill) in (1..=70).flat_map(|n| FILLS.iter().map(move |fill| (n, fill))) {
        let (mut net, x) = Net::new(&[1 + depth % 9, depth], codes(128), depth as u64);
        net.fill = fill;
        let y = net.gemm(x, depth * 7 % 90 + 1);
        run(net.end(y), all);
    }
}

/// Additions, products, tables and pooling of every length.
fn elementwise(all: &mut Sha256) {
    for len in (1..=80).chain([1000]) {
        for (i, op) in ["Add", "Mul", "Sigmoid", "Softmax", "GlobalAveragePool", "MaxPool"]
            .into_iter()
            .enumerate()
        {
            let seed = (len * 6 + i) as u64;
            let shape: &[usize] = if i < 4 { &[1, 1, 5, len] } else { &[1, len, 5, 7] };
            let (mut net, x) = Net::new(shape, codes(90), seed);
            let y = match op {
                "MaxPool" => net.max_pool(x),
                "Add" | "Mul" => {
                    let other = (0..5 * len).map(|_| net.random.next() as u8).collect::<Vec<_>>();
                    let quant = QuantParams::per_tensor(1.0 / 90.0, 200);
                    let other = net.constant(Tensor::from_slice(shape, &other), Some(quant));
                    net.plain(op, &[x, other], [2.0, 1.3][i], 111)
                }
                _ => net.plain(op, &[x], 0.5, 40),
            };
            run(net.end(y), all);
        }
    }
}

/// Reals to codes and back, of every length.
fn quantize(all: &mut Sha256) {
    for len in (1..=80).chain([1000]) {
        let (mut n, x) = Net::new(&[1, len], None, len as u64);
        let y = n.node("QuantizeLinear", Attrs::new(), &[x], codes([0, 255, 128, 3][len % 4]));
        n.graph.outputs.push(y);
        let y = n.node("DequantizeLinear", Attrs::new(), &[y], None);
        run(n.end(y), all);
    }
}

/// Codes whose scale and zero point come of the numbers, of every length.
fn dynamic(all: &mut Sha256) {
    for len in (1..=80).chain([1000]) {
        let (mut n, x) = Net::new(&[1, len], None, len as u64);
        n.graph.outputs = n.nodes("DynamicQuantizeLinear", Attrs::new(), &[x], 3);
        run(n, all);
    }
}

/// Pictures of reals that a model takes as codes, and codes that it gives as reals.
fn pictures(all: &mut Sha256) {
    for (channels, width) in (1..=4).flat_map(|channels| (1..=40).map(move |w| (channels, w))) {
        let (mut n, x) = Net::new(&[1, channels, 3, width], codes(99), width as u64);
        let y = n.conv(x, [6, 1, 1, 1, 1]);
        let len = 3 * channels * width;
        let reals: Vec<f32> = (0..len).map(|_| n.random.next() as i16 as f32 / 8192.0).collect();
        let x = Tensor::from_slice(&[1, channels, 3, width], &reals);
        let model = Model::from_graph(n.end(y).graph).expect("a valid model");
        let y = model.session(1).run(&[("x", &x)], Some(DType::F32)).expect("its own input");
        all.update(y[0].bytes());
    }
    // What a session does before and after the steps.
    ["quantize_f32_u8", "interleave3", "dequantize_u8_f32"].into_iter().for_each(ran);
}

/// Linear resizes of every number of channels.
fn resize(all: &mut Sha256) {
    for (n, scales) in (1..=40).flat_map(|n| [(n, [2.0, 1.5]), (n, [0.6, 3.0])]) {
        let (mut net, x) = Net::new(&[1, n, 5, 6], codes(90), n as u64);
        let attrs = Attrs::new()
            .with("mode", Attr::Str("linear".into()))
            .with("scales", Attr::Floats([&[1.0, 1.0], &scales[..]].concat()));
        let y = net.node("Resize", attrs, &[x], Some(QuantParams::per_tensor(1.0 / 70.0, 60)));
        run(net.end(y), all);
    }
}

/// What calibration sees of every number of channels.
fn channels(all: &mut Sha256) {
    for n in 1..=40 {
        let mut random = Random(n as u64 * 2 + 1);
        let data: Vec<f32> = (0..n * 9).map(|_| random.next() as i16 as f32 / 4096.0).collect();
        let [mut min, mut max, mut sum, mut squares] = [0f32, 1.0, 2.0, 3.0].map(|x| vec![x; n]);
        let (sum, squares) = (&mut sum[..], &mut squares[..]);
        let mut seen = ChannelsF32 { min: &mut min, max: &mut max, sum, squares };
        daq_kernels::channels_f32(&data, &mut seen, Isa::best());
        for seen in [&min, &max, &*sum, &*squares] {
            seen.iter().for_each(|x| all.update(x.to_le_bytes()));
        }
    }
    ran("channels_f32");
}

/// Calls `layer` with every number of channels up to 40, every kind of numbers, and kinds of weights and
/// zero points of the input in turns; the sums that it gives must be those of its formula.
fn each_of_sums(all: &mut Sha256, layer: impl Fn(Net, usize, Weights, u8) -> (Net, Formula)) {
    let kinds = [Weights::Signed, Weights::SignedByOutput, Weights::Unsigned];
    for (n, (i, &fill)) in (1..=40).flat_map(|n| FILLS.iter().enumerate().map(move |of| (n, of))) {
        let net = Net {
            graph: Graph::default(),
            random: Random(n as u64 * 2 + 0x1357_9bdf),
            fill,
            weight_zero: None,
        };
        let (net, formula) = layer(net, n, kinds[(n + i) % 3], [0, 255, 128, 3][n % 4]);
        let (x, y) = outputs(net);
        let want: Vec<i32> = formula(x.data::<u8>());
        assert!(y[0].data::<i32>() == want, "other sums than the formula's, {n}");
        all.update(y[0].bytes());
    }
}

/// Sums of a layer from its input's codes.
type Formula = Box<dyn Fn(&[u8]) -> Vec<i32>>;

/// ConvInteger of `[in_c, out_c, kernel, stride, dilation, groups]`.
fn sums(all: &mut Sha256, shape: &dyn Fn(usize) -> [usize; 6]) {
    let (in_h, in_w) = (5, 6);
    each_of_sums(all, |mut net, n, of, zero_point| {
        let [in_c, out_c, kernel, stride, dilation, groups] = shape(n);
        let (group_in, pad) = (in_c / groups, (kernel - 1) * dilation / 2);
        let weights = net.integers(out_c, group_in * kernel * kernel, of);
        let w = weights.tensor(&[out_c, group_in, kernel, kernel], &weights.codes);
        let attrs = conv_attrs(kernel, stride, dilation, groups);
        let net = net.sums("ConvInteger", attrs, &[1, in_c, in_h, in_w], zero_point, w, &weights);
        let out = |len: usize| (len - 1) / stride + 1;
        let (out_h, out_w) = (out(in_h), out(in_w));
        let formula = move |codes: &[u8]| {
            let sum = |i: usize| {
                let (out, y, x) = (i / (out_h * out_w), i / out_w % out_h, i % out_w);
                let mut sum = 0;
                for k in 0..weights.len {
                    let (c, ky, kx) = (k / (kernel * kernel), k / kernel % kernel, k % kernel);
                    let c = out / (out_c / groups) * group_in + c;
                    let (y, x) = (y * stride + ky * dilation, x * stride + kx * dilation);
                    // Padding counts nothing.
                    if (pad..pad + in_h).contains(&y) && (pad..pad + in_w).contains(&x) {
                        let code = codes[(c * in_h + y - pad) * in_w + x - pad];
                        sum += (i64::from(code) - i64::from(zero_point)) * weights.at(out, k);
                    }
                }
                sum as i32
            };
            (0..out_c * out_h * out_w).map(sum).collect()
        };
        (net, Box::new(formula))
    });
}

/// MatMulInteger of few rows, and of every depth and width.
fn sums_of_vectors(all: &mut Sha256) {
    each_of_sums(all, |mut net, n, of, zero_point| {
        let (rows, depth, columns) = (1 + n % 9, n * 11 % 70 + 1, n * 7 % 90 + 1);
        let weights = net.integers(columns, depth, of);
        let across = |i: usize| weights.codes[i % columns * depth + i / columns];
        let w: Vec<i32> = (0..columns * depth).map(across).collect();
        let w = weights.tensor(&[depth, columns], &w);
        let net = net.sums("MatMulInteger", Attrs::new(), &[rows, depth], zero_point, w, &weights);
        let formula = move |codes: &[u8]| {
            let sum = |i: usize| {
                let x = codes[i / columns * depth..][..depth].iter().enumerate();
                let less = |code: u8| i64::from(code) - i64::from(zero_point);
                x.map(|(k, &code)| less(code) * weights.at(i % columns, k)).sum::<i64>() as i32
            };
            (0..rows * columns).map(sum).collect()
        };
        (net, Box::new(formula))
    });
}

/// Runs a model on numbers of its kind and hashes the bytes of its outputs.
fn run(net: Net, all: &mut Sha256) {
    outputs(net).1.iter().for_each(|output| all.update(output.bytes()));
}

/// Runs a model on numbers of its kind: these, and what comes out.
fn outputs(mut net: Net) -> (Tensor, Vec<Tensor>) {
    let input = &net.graph.values[net.graph.inputs[0]];
    let (shape, dtype) = (input.shape.clone(), input.dtype);
    let len = shape.iter().product();
    let x = match (dtype, net.fill) {
        (DType::F32, _) => {
            let values = (0..len).map(|_| net.random.next() as i16 as f32 / 4096.0);
            Tensor::from_slice(&shape, &values.collect::<Vec<_>>())
        }
        (_, fill) => {
            let mut code = || match fill {
                Fill::Random => net.random.next() as u8,
                Fill::Ends => [0, 255][net.random.below(2)],
                Fill::Constant(_, code) => code,
            };
            Tensor::from_slice(&shape, &(0..len).map(|_| code()).collect::<Vec<_>>())
        }
    };
    let model = Model::from_graph(net.graph).expect("a valid model");
    let outputs = model.session(1).run(&[("x", &x)], None).expect("its own input");
    for step in model.plan().steps() {
        let step = step.kernel();
        for part in step.split('+') {
            if let Some((_, name, _)) = KERNELS.iter().find(|(_, name, _)| *name == part) {
                RAN.lock().expect("no thread panicked").insert(name);
            }
            let families = FAMILIES.iter().find(|(name, _)| *name == part);
            families.iter().flat_map(|(_, families)| *families).for_each(|family| ran(family));
        }
    }
    (x, outputs)
}
