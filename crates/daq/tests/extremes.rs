//! Attributes and shapes at and beyond the edge of sense. Each case is refused, or runs on zeros;
//! nothing panics, and nothing is allocated for what is refused.

use daq::attrs::{Attr, Attrs};
use daq::{DType, Graph, Model, Node, Op, Tensor, Value};

const BIG: i64 = 1 << 20;
const HUGE: usize = 1 << 40;

/// Attributes from text: `name=1` for an integer, `name=1,2` and `name=1,` for lists, `name=1.0` for a float,
/// `name=~word` for a word.
fn attrs(text: &str) -> Attrs {
    let mut attrs = Attrs::new();
    for part in text.split_whitespace() {
        let (name, value) = part.split_once('=').unwrap();
        let list = || value.split(',').filter(|v| !v.is_empty());
        let attr = if let Some(word) = value.strip_prefix('~') {
            Attr::Str(word.into())
        } else if value.contains('.') || value.contains("NaN") || value.contains("inf") {
            match list().count() {
                1 => Attr::Float(value.parse().unwrap()),
                _ => Attr::Floats(list().map(|v| v.parse().unwrap()).collect()),
            }
        } else {
            match list().map(|v| v.parse().unwrap()).collect::<Vec<i64>>().as_slice() {
                &[one] if !value.contains(',') => Attr::Int(one),
                many => Attr::Ints(many.to_vec()),
            }
        };
        attrs = attrs.with(name, attr);
    }
    attrs
}

/// Builds one node over float inputs of these shapes, all given by the caller, and runs it.
fn run(op: &str, text: &str, shapes: &[&[usize]]) -> Result<Vec<Vec<usize>>, String> {
    let op = Op::from_attrs(op, &attrs(text)).expect("a known operator");
    let op = op.map_err(|e| e.to_string())?;
    let mut g = Graph::default();
    for (i, shape) in shapes.iter().enumerate() {
        let indices = i == 1 && op.name() == "Gather";
        let dtype = if indices { DType::I64 } else { DType::F32 };
        g.inputs.push(g.values.len());
        g.add_value(Value::new(format!("x{i}"), dtype, shape));
    }
    let inputs = g.inputs.iter().copied().map(Some).collect();
    let mut node = Node { name: "n".into(), op, inputs, outputs: vec![], doc: String::new() };
    let specs = node.op.infer(&g.input_specs(&node)).map_err(|e| e.to_string())?;
    for spec in specs {
        node.outputs.push(g.values.len());
        g.outputs.push(g.values.len());
        g.add_value(Value::new(format!("y{}", g.values.len()), spec.dtype, &spec.shape));
    }
    g.nodes.push(node);
    let model = Model::from_graph(g).map_err(|e| e.to_string())?;
    let inputs: Vec<_> =
        model.plan().inputs().map(|p| (p.name.clone(), Tensor::zeros(p.dtype, &p.shape))).collect();
    let inputs: Vec<_> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let outputs = model.session(1).run(&inputs, None).map_err(|e| e.to_string())?;
    Ok(outputs.iter().map(|t| t.shape().to_vec()).collect())
}

#[test]
fn extreme_attributes_and_shapes() {
    let x: &[usize] = &[1, 2, 4, 4];
    let w: &[usize] = &[3, 2, 1, 1];
    let empty: &[usize] = &[1, 0, 4, 4];
    type Case<'a> = (&'a str, String, Vec<&'a [usize]>, Option<Vec<usize>>);
    let case = |op, text: &str, shapes: &[&'static [usize]], output: Option<&[usize]>| -> Case {
        let text = text.replace("BIG", &BIG.to_string()).replace("MIN", &i64::MIN.to_string());
        let text = text.replace("MAX", &i64::MAX.to_string());
        (op, text, shapes.to_vec(), output.map(<[_]>::to_vec))
    };
    let (x, w, empty) = (leak(x), leak(w), leak(empty));
    let cases = [
        case("Conv", "dilations=BIG,BIG", &[x, w], Some(&[1, 3, 4, 4])),
        case("Conv", "dilations=MAX,1", &[x, w], None),
        case("Conv", "dilations=BIG,BIG", &[x, &[3, 2, 2, 2]], None),
        case("Conv", "strides=BIG,BIG", &[x, w], Some(&[1, 3, 1, 1])),
        case("Conv", "strides=MAX,1", &[x, w], None),
        case("Conv", "pads=BIG,0,0,0", &[x, &[1, 2, 1, 1]], Some(&[1, 1, BIG as usize + 4, 4])),
        case("Conv", "pads=BIG,BIG,BIG,BIG", &[x, w], None),
        case("Conv", "pads=-1,0,0,0", &[x, w], None),
        case("Conv", "pads=1,1", &[x, w], None),
        case("Conv", "group=MAX", &[x, w], None),
        case("Conv", "group=0", &[x, w], None),
        case("Conv", "group=2", &[x, &[3, 1, 1, 1]], None),
        case("Conv", "kernel_shape=2,2", &[x, w], None),
        case("Conv", "kernel_shape=0,1", &[x, w], None),
        case("Conv", "", &[&[0, 2, 4, 4], w], Some(&[0, 3, 4, 4])),
        case("Conv", "", &[empty, w], None),
        case("Conv", "", &[empty, &[3, 0, 1, 1]], Some(&[1, 3, 4, 4])),
        case("Conv", "", &[&[1, 2, 0, 4], w], None),
        case("Conv", "auto_pad=~SAME_UPPER strides=BIG,1", &[x, w], Some(&[1, 3, 1, 4])),
        case("Conv", "", &[&[0, HUGE, HUGE], &[1, HUGE, 1]], None),
        case("Conv", "", &[&[1, 2, 3, 4, 5], &[1, 2, 1, 1, 1]], None),
        case("ConvTranspose", "strides=BIG,BIG", &[x, &[2, 1, 1, 1]], None),
        case(
            "ConvTranspose",
            "strides=BIG,1",
            &[&[1, 1, 1, 1], &[1, 1, 1, 1]],
            Some(&[1, 1, 1, 1]),
        ),
        case("ConvTranspose", "dilations=BIG,BIG", &[x, &[2, 1, 1, 1]], Some(&[1, 1, 4, 4])),
        case("ConvTranspose", "pads=BIG,0,0,0", &[x, &[2, 1, 1, 1]], None),
        case("ConvTranspose", "output_padding=MAX,0", &[x, &[2, 1, 1, 1]], None),
        case("ConvTranspose", "output_shape=MAX,1", &[x, &[2, 1, 1, 1]], None),
        case("ConvTranspose", "output_shape=1,1", &[x, &[2, 1, 1, 1]], Some(&[1, 1, 1, 1])),
        case("ConvTranspose", "group=MAX", &[x, &[2, 1, 1, 1]], None),
        case("ConvTranspose", "", &[empty, &[0, 1, 1, 1]], Some(&[1, 1, 4, 4])),
        case("ConvTranspose", "group=BIG", &[&[1, 0, 1, 1], &[0, HUGE, 1, 1]], None),
        case("Gemm", "", &[&[2, 0], &[0, 3]], Some(&[2, 3])),
        case("Gemm", "", &[&[0, 2], &[2, 0]], Some(&[0, 0])),
        case("Gemm", "", &[&[2, 2], &[2, 3], &[1, 1, 3]], None),
        case("Gemm", "alpha=NaN beta=inf", &[&[1, 1], &[1, 1], &[1]], Some(&[1, 1])),
        case("MatMul", "", &[&[0, 3], &[3, 2]], Some(&[0, 2])),
        case("MatMul", "", &[&[2, 0], &[0, 2]], Some(&[2, 2])),
        case("MatMul", "", &[&[0, 2, 2], &[2, 2]], Some(&[0, 2, 2])),
        case("MatMul", "", &[&[1 << 20, 1, 0], &[0, 0]], None),
        case("MatMul", "", &[&[], &[1]], None),
        case("MatMul", "", &[&[2, 2], &[2, 2], &[2]], None),
        case("MaxPool", "kernel_shape=BIG,BIG pads=BIG,BIG,BIG,BIG", &[x], None),
        case("MaxPool", "kernel_shape=1,1 pads=3,3,3,3", &[x], Some(&[1, 2, 10, 10])),
        case("MaxPool", "kernel_shape=1,1 strides=BIG,BIG ceil_mode=1", &[x], Some(&[1, 2, 1, 1])),
        case("MaxPool", "kernel_shape=2,2 dilations=BIG,1", &[x], None),
        case("MaxPool", "kernel_shape=2,2", &[empty], Some(&[1, 0, 3, 3])),
        case("MaxPool", "", &[x], None),
        case("AveragePool", "kernel_shape=1,1 pads=3,3,3,3", &[x], Some(&[1, 2, 10, 10])),
        case("AveragePool", "kernel_shape=2,2", &[&[0, 2, 4, 4]], Some(&[0, 2, 3, 3])),
        case("AveragePool", "kernel_shape=2,2 count_include_pad=1", &[empty], Some(&[1, 0, 3, 3])),
        case("GlobalAveragePool", "", &[&[1, 2, 0, 4]], None),
        case("GlobalAveragePool", "", &[empty], Some(&[1, 0, 1, 1])),
        case("GlobalMaxPool", "", &[&[1, 2, 4, 0]], None),
        case("GlobalMaxPool", "", &[&[1, 2]], None),
        case("BatchNormalization", "", &[empty, &[0], &[0], &[0], &[0]], Some(&[1, 0, 4, 4])),
        case(
            "BatchNormalization",
            "epsilon=NaN",
            &[&[1, 1], &[1], &[1], &[1], &[1]],
            Some(&[1, 1]),
        ),
        case("BatchNormalization", "", &[x, &[2], &[2], &[2]], None),
        case("LRN", "size=0", &[x], None),
        case("LRN", "size=2", &[x], Some(&[1, 2, 4, 4])),
        case("LRN", "size=BIG", &[x], Some(&[1, 2, 4, 4])),
        case("LRN", "size=MAX", &[x], None),
        case("LRN", "size=3", &[empty], Some(&[1, 0, 4, 4])),
        case("Softmax", "axis=1", &[empty], Some(&[1, 0, 4, 4])),
        case("Softmax", "axis=4", &[x], None),
        case("Softmax", "axis=MIN", &[x], None),
        case("LogSoftmax", "axis=0", &[&[]], None),
        case("Resize", "sizes=1,2,0,4", &[x], None),
        case("Resize", "sizes=1,2,MAX,4", &[x], None),
        case("Resize", "sizes=1,2,BIG,BIG", &[x], None),
        case("Resize", "sizes=1,2,-4,4", &[x], None),
        case("Resize", "scales=1.0,1.0,0.0,1.0", &[x], None),
        case("Resize", "scales=1.0,1.0,0.1,1.0", &[x], None),
        case("Resize", "scales=1.0,1.0,NaN,1.0", &[x], None),
        case("Resize", "scales=1.0,1.0,inf,1.0 mode=~linear", &[x], None),
        case("Resize", "scales=1.0,1.0,-2.0,1.0", &[x], None),
        case("Resize", "sizes=1,0,8,8 mode=~linear", &[empty], None),
        case("Resize", "scales=1.0,1.0,2.0,2.0 mode=~linear", &[empty], Some(&[1, 0, 8, 8])),
        case("Resize", "sizes=2,2 axes=2,2", &[x], None),
        case("Pad", "pads=0,0,-1,-1,0,0,-1,-1", &[x], Some(&[1, 2, 2, 2])),
        case("Pad", "pads=0,0,-4,0,0,0,0,0", &[x], Some(&[1, 2, 0, 4])),
        case("Pad", "pads=0,0,-5,0,0,0,0,0", &[x], None),
        case("Pad", "pads=0,0,-5,0,0,0,5,0", &[x], Some(&[1, 2, 4, 4])),
        case("Pad", "pads=0,0,MIN,0,0,0,MAX,0", &[x], None),
        case("Pad", "pads=0,0,BIG,BIG,0,0,BIG,BIG", &[x], None),
        case("Pad", "mode=~reflect pads=0,0,4,0,0,0,0,0", &[x], None),
        case("Pad", "mode=~reflect pads=0,0,3,0,0,0,-3,0", &[x], Some(&[1, 2, 4, 4])),
        case("Pad", "mode=~edge pads=0,1,0,0,0,0,0,0", &[empty], None),
        case("Pad", "pads=0,1,0,0,0,0,0,0", &[empty], Some(&[1, 1, 4, 4])),
        case("Pad", "pads=1,1,", &[x], None),
        case("Slice", "starts=MIN,1 ends=MAX,1 steps=1,MAX", &[x], Some(&[1, 0, 4, 4])),
        case("Slice", "starts=MAX,1 ends=MIN,0 steps=MIN,MIN", &[x], Some(&[1, 1, 4, 4])),
        case("Slice", "starts=0, ends=1, steps=0,", &[x], None),
        case("Slice", "starts=0,0 ends=1,", &[x], None),
        case("Slice", "starts=0,0 ends=1,1 axes=0,-4", &[x], None),
        case("Split", "axis=1 split=0,2", &[x], Some(&[1, 0, 4, 4])),
        case("Split", "axis=1 split=MAX,MIN", &[x], None),
        case("Split", "axis=1 num_outputs=0", &[x], None),
        case("Split", "axis=1 num_outputs=MAX", &[x], None),
        case("Split", "axis=0 num_outputs=BIG", &[&[1 << 20]], None),
        case("Split", "axis=1 num_outputs=1", &[empty], Some(&[1, 0, 4, 4])),
        case("Reshape", "shape=-1,0", &[empty], None),
        case("Reshape", "shape=0,0,16", &[empty], Some(&[1, 0, 16])),
        case("Reshape", "shape=-1,0 allowzero=1", &[empty], None),
        case("Reshape", "shape=MAX,MAX", &[x], None),
        case("Reshape", "shape=0,MAX allowzero=1", &[empty], None),
        case("Reshape", "shape=-2,16", &[x], None),
        case("Flatten", "axis=5", &[x], None),
        case("Flatten", "axis=1", &[empty], Some(&[1, 0])),
        case("Transpose", "perm=0,0,1,2", &[x], None),
        case("Transpose", "perm=3,2,1,0", &[empty], Some(&[4, 4, 0, 1])),
        case("Expand", "shape=MAX,1,1,1", &[x], None),
        case("Expand", "shape=BIG,1,1,1,1", &[&[1024]], None),
        case("Expand", "shape=0,1,1,1", &[x], Some(&[0, 2, 4, 4])),
        case("Squeeze", "axes=1,", &[x], None),
        case("Squeeze", "axes=MIN,", &[x], None),
        case("Unsqueeze", "axes=0,0", &[x], None),
        case("Unsqueeze", "axes=MAX,", &[x], None),
        case("Unsqueeze", "axes=0,1,2,3,4,5,6,7,8,9,10,11,12", &[x], None),
        case("DepthToSpace", "blocksize=0", &[x], None),
        case("DepthToSpace", "blocksize=MAX", &[x], None),
        case("DepthToSpace", "blocksize=4096", &[empty], Some(&[1, 0, 16384, 16384])),
        case("DepthToSpace", "blocksize=3", &[x], None),
        case("SpaceToDepth", "blocksize=3", &[x], None),
        case("SpaceToDepth", "blocksize=4096", &[&[1, 1 << 20, 0, 0]], None),
        case("Concat", "axis=1", &[x, empty], Some(&[1, 2, 4, 4])),
        case("Concat", "axis=0", &[x, empty], None),
        case("Concat", "axis=0", &[&[1 << 29], &[1]], None),
        case("Gather", "axis=1", &[empty, &[1]], None),
        case("Gather", "axis=1", &[empty, &[0]], Some(&[1, 0, 4, 4])),
        case("Gather", "axis=9", &[x, &[1]], None),
        case("Gather", "axis=0", &[&[1, 1 << 20], &[1 << 20]], None),
        case("ReduceMean", "axes=1,", &[empty], None),
        case("ReduceMean", "axes=2,", &[empty], Some(&[1, 0, 1, 4])),
        case("ReduceMean", "axes=1,1", &[x], None),
        case("ReduceMean", "", &[&[]], Some(&[])),
        case("ArgMax", "axis=1", &[empty], None),
        case("ArgMax", "axis=0", &[empty], Some(&[1, 0, 4, 4])),
        case("Clip", "min=6.0 max=-6.0", &[x], Some(&[1, 2, 4, 4])),
        case("Clip", "min=NaN", &[x], None),
        case("ConstantOfShape", "shape=BIG,BIG", &[], None),
        case("ConstantOfShape", "shape=0,MAX", &[], None),
        case("Cast", "to=10", &[x], None),
        case("Shape", "start=MIN end=MAX", &[x], Some(&[4])),
        case("Add", "", &[empty, &[1, 1, 1, 1]], Some(&[1, 0, 4, 4])),
        case("Add", "", &[empty, x], None),
        case("Add", "", &[&[1 << 16, 1], &[1 << 16]], None),
        case("Max", "", &[], None),
        case("Div", "", &[&[0, HUGE], &[1, HUGE]], None),
        case("Relu", "", &[&[1; 17]], None),
    ];
    let mut wrong = Vec::new();
    for (op, text, shapes, expected) in &cases {
        let result = std::panic::catch_unwind(|| run(op, text, shapes));
        let first = result.as_ref().ok().map(|r| r.as_ref().ok().map(|s| s[0].clone()));
        if first.as_ref() != Some(expected) {
            wrong.push(format!("{op} {text} {shapes:?}: {result:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn leak(shape: &[usize]) -> &'static [usize] {
    Box::leak(shape.to_vec().into_boxed_slice())
}

#[test]
fn activations_that_no_machine_holds_are_refused() {
    // Five tensors of 1 GiB that are alive together.
    let mut g = Graph::default();
    g.inputs = vec![g.add_value(Value::new("x", DType::F32, &[1 << 28]))];
    for i in 0..4 {
        let y = g.add_value(Value::new(format!("y{i}"), DType::F32, &[1 << 28]));
        let op = Op::from_attrs("Exp", &Attrs::new()).unwrap().unwrap();
        let (name, inputs, outputs) = (String::new(), vec![Some(0)], vec![y]);
        g.nodes.push(Node { name, op, inputs, outputs, doc: String::new() });
        g.outputs.push(y);
    }
    let Err(error) = Model::from_graph(g) else { panic!("accepted") };
    assert!(error.to_string().contains("more than the limit"), "{error}");
}

#[test]
fn numbers_that_are_none_run() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0] {
        for name in ["Relu", "Sigmoid", "Softmax", "Exp", "HardSwish", "Sqrt", "LogSoftmax", "Log"]
        {
            let op = Op::from_attrs(name, &Attrs::new()).unwrap().unwrap();
            let mut g = Graph::default();
            g.inputs = vec![g.add_value(Value::new("x", DType::F32, &[1, 3]))];
            g.outputs = vec![g.add_value(Value::new("y", DType::F32, &[1, 3]))];
            let (inputs, outputs) = (vec![Some(0)], vec![1]);
            g.nodes.push(Node { name: String::new(), op, inputs, outputs, doc: String::new() });
            let mut y = [0f32; 3];
            let mut session = Model::from_graph(g).unwrap().session(1);
            session.predict(&[&[value, 1.0, value][..]], &mut [&mut y[..]]).unwrap();
        }
    }
}

#[test]
fn codes_of_a_nan_are_0() {
    let quant = daq::QuantParams::per_tensor(0.5, 10);
    let mut g = Graph::default();
    let code = |name| Value::new(name, DType::U8, &[4]).with_quant(quant.clone());
    g.inputs = vec![g.add_value(code("x"))];
    g.outputs = vec![g.add_value(code("y"))];
    let op = Op::from_attrs("Identity", &Attrs::new()).unwrap().unwrap();
    let (inputs, outputs) = (vec![Some(0)], vec![1]);
    g.nodes.push(Node { name: String::new(), op, inputs, outputs, doc: String::new() });
    let mut y = [9u8; 4];
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5];
    let mut session = Model::from_graph(g).unwrap().session(1);
    session.predict(&[&x[..]], &mut [&mut y[..]]).unwrap();
    assert_eq!(y, [0, 255, 0, 11]);
}
