//! Small models built message by message, read.

use daq::{DType, Graph, Tensor};
use prost::Message;

use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_proto::DataType;
use super::proto::*;
use super::small::*;
use super::*;

fn error(model: &ModelProto) -> String {
    read_model(model).expect_err("must not be read").to_string()
}

fn ops(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|n| n.op.name()).collect()
}

/// Conv and Relu, with weights that are also inputs, as old files have them.
fn conv_relu() -> ModelProto {
    model(
        9,
        &[("x", &[-1, 1, 3, 3]), ("w", &[2, 1, 3, 3])],
        &[floats("w", &[2, 1, 3, 3], &[0.5; 18]), floats("b", &[2], &[1.0, -100.0])],
        &[
            node("Relu", &["c"], &["y"], &[]),
            node("Conv", &["x", "w", "b"], &["c"], &[ints("kernel_shape", &[3, 3])]),
        ],
        &["y"],
    )
}

#[test]
fn weights_listed_as_inputs_and_unsorted_nodes() {
    let graph = read_model(&conv_relu()).unwrap();
    assert_eq!(ops(&graph), ["Conv", "Relu"]);
    assert_eq!(graph.inputs.len(), 1);
    let x = &graph.values[graph.inputs[0]];
    assert_eq!((x.name.as_str(), x.dtype, &x.shape[..]), ("x", DType::F32, &[1, 1, 3, 3][..]));
    assert_eq!(graph.values[graph.outputs[0]].shape, [1, 2, 1, 1]);
    let w = graph.find_value("w").unwrap();
    assert_eq!(graph.values[w].data.as_ref().unwrap().data::<f32>(), [0.5; 18]);
}

#[test]
fn damaged_files_are_errors_and_never_panic() {
    let whole = conv_relu().encode_to_vec();
    for n in 0..whole.len() {
        // Cut between two messages of the outermost level, what remains may be a model.
        let _ = read_bytes(&whole[..n], &ReadOptions::default());
    }
    let shape = model(
        17,
        &[("x", &[1, 2, 3])],
        &[longs("two", &[1], &[2]), longs("axes", &[1], &[0])],
        &[
            node("Shape", &["x"], &["s"], &[]),
            node("Gather", &["s", "two"], &["d"], &[]),
            node("Concat", &["two", "d"], &["shape"], &[int("axis", 0)]),
            node("Reshape", &["x", "shape"], &["y"], &[]),
        ],
        &["y"],
    );
    assert_eq!(ops(&read_model(&shape).unwrap()), ["Reshape"]);
    for good in [whole, shape.encode_to_vec()] {
        for i in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[i] ^= 1 << bit;
                let _ = read_bytes(&bad, &ReadOptions::default());
            }
        }
    }
    for (bytes, part) in [
        (&b""[..], "empty file"),
        (b"\x89PNG\r\n\x1a\n0000", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x1c\0\0\0TFL3", "TFLite"),
        (b"hello, this is no model\n", "not"),
        (b"\x08\x08", "no graph"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.onnx");
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path, &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("some.onnx"), "{error}");
    }
    let error = read("missing/model.onnx", &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("missing/model.onnx"), "{error}");
}

#[test]
fn shapes_are_fixed_or_asked_for() {
    let open =
        |dims: &[i64]| model(13, &[("x", dims)], &[], &[node("Relu", &["x"], &["y"], &[])], &["y"]);
    let shape = |graph: Graph| graph.values[graph.outputs[0]].shape.clone();
    for dims in [[-1, 3, 8], [0, 3, 8], [1, 3, 8]] {
        assert_eq!(shape(read_model(&open(&dims)).unwrap()), [1, 3, 8]);
    }
    let asks = error(&open(&[-1, 3, -1]));
    assert!(asks.contains("`x`") && asks.contains("--shape x=1,3,224"), "{asks}");
    let given = |name: &str, shape: &[usize], dims: &[i64]| {
        let shapes = [(name.to_string(), shape.to_vec())].into();
        read_bytes(&open(dims).encode_to_vec(), &ReadOptions { shapes })
    };
    assert_eq!(shape(given("x", &[2, 3, 7], &[-1, 3, -1]).unwrap()), [2, 3, 7]);
    for (name, new) in [("x", &[2, 3][..]), ("x", &[0, 3, 7]), ("z", &[1, 3, 7])] {
        assert!(given(name, new, &[-1, 3, -1]).is_err(), "{name} {new:?}");
    }
    let huge = given("x", &[1 << 40, 1 << 40, 1 << 40], &[-1, 3, -1]).unwrap_err().to_string();
    assert!(huge.contains("limit"), "{huge}");
    let mut half = open(&[1]);
    half.graph.as_mut().unwrap().input[0] = value_info("x", DataType::Float16, &[1]);
    assert_eq!(read_model(&half).unwrap().values[0].dtype, DType::F32);
    half.graph.as_mut().unwrap().input[0] = value_info("x", DataType::Float8e4m3fn, &[1]);
    assert!(error(&half).contains("FLOAT8E4M3FN"));
    let mut no_shape = open(&[1]);
    let r#type = no_shape.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap();
    if let Some(type_proto::Value::TensorType(t)) = &mut r#type.value {
        t.shape = None;
    }
    assert!(error(&no_shape).contains("--shape x="));
}

#[test]
fn what_daq_does_not_have_is_named() {
    let relu = || model(13, &[("x", &[1])], &[], &[node("Relu", &["x"], &["y"], &[])], &["y"]);
    let with = |change: fn(&mut ModelProto)| {
        let mut model = relu();
        change(&mut model);
        error(&model)
    };
    type Change = fn(&mut ModelProto);
    let cases: [(Change, &str); 12] = [
        (|m| m.opset_import[0].version = Some(6), "operator set 6"),
        (|m| m.opset_import[0].version = Some(99), "operator set 99"),
        (|m| m.opset_import.clear(), "opset_import"),
        (|m| m.functions.push(FunctionProto::default()), "functions"),
        (|m| m.training_info.push(TrainingInfoProto::default()), "training"),
        (
            |m| m.graph.as_mut().unwrap().sparse_initializer.push(SparseTensorProto::default()),
            "sparse",
        ),
        (
            |m| m.graph.as_mut().unwrap().node[0].op_type = Some("Foo".into()),
            "operator Foo (opset 13)",
        ),
        (
            |m| m.graph.as_mut().unwrap().node[0].domain = Some("com.microsoft".into()),
            "com.microsoft.Relu",
        ),
        (|m| m.graph.as_mut().unwrap().node[0].attribute = vec![int("a", 1), int("a", 2)], "twice"),
        (
            |m| {
                let graph = AttributeProto {
                    g: Some(GraphProto::default()),
                    ..attribute("then_branch", AttributeType::Graph)
                };
                m.graph.as_mut().unwrap().node[0].attribute = vec![graph];
            },
            "subgraph",
        ),
        (|m| m.graph.as_mut().unwrap().output.clear(), "no output"),
        (|m| m.graph.as_mut().unwrap().node[0].input[0] = "y".into(), "cycle"),
    ];
    // What operator set 1 had as it is now.
    let mut old = relu();
    old.opset_import[0].version = Some(1);
    old.graph.as_mut().unwrap().node[0].op_type = Some("Softsign".into());
    assert_eq!(ops(&read_model(&old).unwrap()), ["Softsign"]);
    for (change, part) in cases {
        let error = with(change);
        assert!(error.contains(part), "{part}: {error}");
    }
    let computed = model(
        13,
        &[("x", &[4]), ("s", &[2])],
        &[],
        &[node("Reshape", &["x", "s"], &["y"], &[])],
        &["y"],
    );
    let error = error(&computed);
    assert!(error.contains("`s`") && error.contains("--shape"), "{error}");
}

#[test]
fn quantization_goes_to_the_codes() {
    let qdq = |w_scale: &[f32], axis: i64, zero: TensorProto| {
        model(
            13,
            &[("x", &[1, 2, 4, 4])],
            &[
                floats("s", &[], &[0.5]),
                bytes("z", DataType::Uint8, &[], &[3]),
                bytes("wq", DataType::Int8, &[2, 2, 1, 1], &[1, -2, 3, -4]),
                floats("ws", &[w_scale.len() as i64], w_scale),
                zero,
            ],
            &[
                node("QuantizeLinear", &["x", "s", "z"], &["q"], &[]),
                node("DequantizeLinear", &["q", "s", "z"], &["d"], &[]),
                node("DequantizeLinear", &["wq", "ws", "wz"], &["w"], &[int("axis", axis)]),
                node("Conv", &["d", "w"], &["y"], &[]),
            ],
            &["y"],
        )
    };
    let zeros = bytes("wz", DataType::Int8, &[2], &[0, 0]);
    let graph = read_model(&qdq(&[0.25, 0.125], -4, zeros.clone())).unwrap();
    assert_eq!(ops(&graph), ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv"]);
    assert!(graph.nodes[..3].iter().all(|n| n.inputs.len() == 1 && n.outputs.len() == 1));
    let value = |name: &str| &graph.values[graph.find_value(name).unwrap()];
    assert_eq!(value("q").dtype, DType::U8);
    assert_eq!(value("q").quant, Some(daq::QuantParams::per_tensor(0.5, 3)));
    assert_eq!(value("wq").quant, Some(daq::QuantParams::per_channel(vec![0.25, 0.125], 0)));
    assert_eq!(value("x").quant, None);
    for (scale, axis, zero, part) in [
        (&[0.25, 0.0][..], 0, zeros.clone(), "scale of 0"),
        (&[0.25, -1.0], 0, zeros.clone(), "scale of -1"),
        (&[0.25, f32::NAN], 0, zeros.clone(), "scale of NaN"),
        (&[0.25, f32::INFINITY], 0, zeros.clone(), "scale of inf"),
        (&[0.25, 1e38], 0, zeros.clone(), "scale of 1e38"),
        (&[0.25, 1e-45], 0, zeros.clone(), "scale of 1e-45"),
        (&[0.25], 0, zeros.clone(), "1 scales and 2 zero points"),
        (&[0.25, 0.125], 2, zeros.clone(), "axis 2"),
        (&[0.25, 0.125], 9, zeros.clone(), "axis 9"),
        (&[0.25, 0.125], 0, bytes("wz", DataType::Uint8, &[2], &[0, 0]), "input 0 has type i8"),
        (&[0.25, 0.125], 0, bytes("wz", DataType::Int16, &[2], &[0, 0]), "INT16"),
        (&[0.25, 0.125], 0, bytes("wz", DataType::Int4, &[2], &[0]), "INT4"),
        (&[0.25, 0.125], 0, bytes("wz", DataType::Float8e4m3fn, &[2], &[0, 0]), "FLOAT8E4M3FN"),
        (&[0.25, 0.125], 0, bytes("wz", DataType::Int32, &[2], &[0, 1]), "int32 zero point"),
    ] {
        let error = error(&qdq(scale, axis, zero));
        assert!(error.contains(part) && error.contains("`w`"), "{part}: {error}");
    }
    let mut wrong_type = qdq(&[0.25, 0.125], 0, zeros.clone());
    wrong_type.graph.as_mut().unwrap().node[2].attribute = vec![float("axis", 0.0)];
    let text = error(&wrong_type);
    assert!(text.contains("`w`") && text.contains("`axis`: is a float"), "{text}");
    for (name, node) in [("axis", 0), ("saturate", 0), ("axis", 1)] {
        let mut one_scale = qdq(&[0.25, 0.125], 0, zeros.clone());
        let nodes = &mut one_scale.graph.as_mut().unwrap().node;
        nodes[node].attribute = vec![float(name, 1.0)];
        let (text, output) = (nodes[node].output[0].clone(), error(&one_scale));
        assert!(output.contains(&format!("`{text}`")) && output.contains("is a float"), "{output}");
    }
    // A list where a number is asked, and a number where a list is.
    let mut wrong_type = qdq(&[0.25, 0.125], 0, zeros.clone());
    for (attribute, part) in [
        (ints("group", &[1]), "`group`: is a list of integers, must be an integer"),
        (int("strides", 1), "`strides`: is an integer, must be a list of integers"),
    ] {
        wrong_type.graph.as_mut().unwrap().node[3].attribute = vec![attribute];
        let text = error(&wrong_type);
        assert!(text.contains("`y`") && text.contains(part), "{text}");
    }
}

#[test]
fn attributes_and_inputs_that_an_operator_does_not_have_are_errors() {
    let refused = |op: &str, inputs: &[&str], attributes: &[AttributeProto], part: &str| {
        let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
        let mut last = node(op, inputs, &["y"], attributes);
        last.domain = Some(domain.into());
        let constants = [
            floats("s", &[], &[0.5]),
            bytes("z", DataType::Uint8, &[], &[1]),
            bytes("q", DataType::Uint8, &[1], &[3]),
            longs("n", &[1], &[1]),
        ];
        let mut model = model(13, &[("x", &[1, 1, 4, 4])], &constants, &[last], &["y"]);
        let version = OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1) };
        model.opset_import.push(version);
        let text = error(&model);
        let all = [format!("`y` ({domain}"), op.to_string(), part.to_string()];
        assert!(all.iter().all(|part| text.contains(part)), "{part}: {text}");
    };
    let add = ["q", "s", "z", "q", "s", "z", "s", "z", "x"];
    for (op, inputs, beyond) in [
        ("Relu", &["x", "x"][..], "input 1 is one too many: it has at most 1"),
        ("Add", &["x", "x", "x"], "input 2 is one too many: it has at most 2"),
        ("Constant", &["x"], "input 0 is one too many"),
        ("NonZero", &["n", "n"], "input 1"),
        ("QuantizeLinear", &["x", "s", "z", "x"], "input 3 is one too many: it has at most 3"),
        ("CastLike", &["x", "n", "n"], "input 2"),
        ("Clip", &["x", "s", "s", "s"], "input 3"),
        ("com.microsoft.QLinearAdd", &add, "input 8 is one too many: it has at most 8"),
    ] {
        let attributes = if op == "Constant" { vec![float("value_float", 1.0)] } else { vec![] };
        refused(op, inputs, &attributes, beyond);
        let last = if op == "Add" { 2 } else { inputs.len() - 1 };
        let attributes = [attributes, vec![int("colour", 1)]].concat();
        refused(op, &inputs[..last], &attributes, "`colour`: is none of this operator's");
    }
    // What another operator has.
    refused("GlobalAveragePool", &["x"], &[int("ceil_mode", 1)], "`ceil_mode`: is none");
    let two = [float("value_float", 1.0), int("value_int", 1)];
    refused("Constant", &[], &two, "given in two forms");
    let nothing = [int("noop_with_empty_axes", 1), int("colour", 1)];
    refused("ReduceSum", &["x"], &nothing, "`colour`: is none");
}

#[test]
fn forms_of_a_newer_operator_set_are_errors() {
    let mean = |opset| {
        let nodes = [node("ReduceMean", &["x", "axes"], &["y"], &[])];
        model(opset, &[("x", &[2, 3])], &[longs("axes", &[1], &[1])], &nodes, &["y"])
    };
    let graph = read_model(&mean(18)).unwrap();
    assert_eq!(graph.values[graph.outputs[0]].shape, [2, 1]);
    let text = error(&mean(17));
    assert!(text.contains("`y`") && text.contains("input 1 (`axes`) in operator set 17"), "{text}");
    let clip = [node("Clip", &["x", "", "high"], &["y"], &[])];
    let text = error(&model(10, &[("x", &[2])], &[floats("high", &[], &[6.0])], &clip, &["y"]));
    assert!(text.contains("(`max`)") && text.contains("Clip has it from 11"), "{text}");
    // A number where a truth is asked, and an output that is named twice.
    let nodes = [node("ReduceMean", &["x"], &["y"], &[int("keepdims", 2)])];
    let text = error(&model(17, &[("x", &[2])], &[], &nodes, &["y"]));
    assert!(text.contains("`y`") && text.contains("`keepdims`: is 2, must be 0 or 1"), "{text}");
    let nodes = [node("Relu", &["x"], &["y"], &[])];
    let text = error(&model(17, &[("x", &[2])], &[], &nodes, &["y", "y"]));
    assert!(text.contains("two outputs are named `y`"), "{text}");
}

#[test]
fn blocks_have_a_scale_each() {
    let dequantize = |shape: &[i64], scale: &[f32], block: i64| {
        let constants = [
            bytes("q", DataType::Int8, &[2, 4], &[1, 2, 3, 4, 5, 6, 7, 8]),
            floats("s", shape, scale),
        ];
        let nodes = [
            node(
                "DequantizeLinear",
                &["q", "s"],
                &["w"],
                &[int("axis", 1), int("block_size", block)],
            ),
            node("Add", &["x", "w"], &["y"], &[]),
        ];
        model(21, &[("x", &[2, 4])], &constants, &nodes, &["y"])
    };
    let graph = read_model(&dequantize(&[2, 2], &[1.0, 0.5, 2.0, 0.25], 2)).unwrap();
    let y = compute(&graph, &[Tensor::zeros(DType::F32, &[2, 4])]);
    assert_eq!(y[0].data::<f32>(), [1.0, 2.0, 1.5, 2.0, 10.0, 12.0, 1.75, 2.0]);
    for (shape, scale, block, part) in [
        (&[2, 2][..], &[1.0, 0.0, 1.0, 1.0][..], 2, "scale of 0"),
        (&[2, 2], &[1.0; 4], 4, "must have the shape [2, 1]"),
        (&[4], &[1.0; 4], 2, "must have the shape [2, 2]"),
        (&[2, 2], &[1.0; 4], -2, "must have the shape"),
    ] {
        let error = error(&dequantize(shape, scale, block));
        assert!(error.contains(part) && error.contains("`w`"), "{part}: {error}");
    }
}

#[test]
fn codes_read_with_two_scales_are_copied() {
    let twice = model(
        13,
        &[("x", &[4])],
        &[floats("s", &[], &[0.5]), floats("t", &[], &[0.25])],
        &[
            node("QuantizeLinear", &["x", "s"], &["q"], &[]),
            node("DequantizeLinear", &["q", "s"], &["a"], &[]),
            node("DequantizeLinear", &["q", "t"], &["b"], &[]),
        ],
        &["a", "b"],
    );
    let graph = read_model(&twice).unwrap();
    assert_eq!(ops(&graph), ["QuantizeLinear", "DequantizeLinear", "Identity", "DequantizeLinear"]);
    let scale = |node: usize| {
        let id = graph.nodes[node].inputs[0].unwrap();
        graph.values[id].quant.as_ref().unwrap().scale[0]
    };
    assert_eq!((scale(1), scale(3)), (0.5, 0.25));
}

/// The rows: operator set, node, its constants, input shape and data, output shape and data.
#[test]
fn forms_of_other_operator_sets_mean_the_same() {
    const THIRD: f32 = 1.0 / 3.0;
    type Plain<'a, D> = (&'a [D], &'a [f32]);
    type Case<'a> = (i64, NodeProto, Vec<TensorProto>, Plain<'a, i64>, Plain<'a, usize>);
    let cases: Vec<Case> = vec![
        // All axes from 1 on together, then axis 1 alone.
        (
            11,
            node("Softmax", &["x"], &["y"], &[]),
            vec![],
            (&[1, 2, 2], &[0.0; 4]),
            (&[1, 2, 2], &[0.25; 4]),
        ),
        (
            11,
            node("Softmax", &["x"], &["y"], &[]),
            vec![],
            (&[1, 3, 1], &[0.0; 3]),
            (&[1, 3, 1], &[THIRD; 3]),
        ),
        (
            13,
            node("Softmax", &["x"], &["y"], &[int("axis", 1)]),
            vec![],
            (&[1, 2, 2], &[0.0; 4]),
            (&[1, 2, 2], &[0.5; 4]),
        ),
        (
            11,
            node("Softmax", &["x"], &["y"], &[int("axis", 0)]),
            vec![],
            (&[2, 2], &[0.0; 4]),
            (&[2, 2], &[0.25; 4]),
        ),
        (
            7,
            node("Clip", &["x"], &["y"], &[float("min", -1.0), float("max", 2.0)]),
            vec![],
            (&[3], &[-5.0, 1.0, 5.0]),
            (&[3], &[-1.0, 1.0, 2.0]),
        ),
        (
            13,
            node("Clip", &["x", "", "max"], &["y"], &[]),
            vec![floats("max", &[], &[2.0])],
            (&[3], &[-5.0, 1.0, 5.0]),
            (&[3], &[-5.0, 1.0, 2.0]),
        ),
        (
            18,
            node("Pad", &["x", "pads", "v", "axes"], &["y"], &[]),
            vec![
                longs("pads", &[2], &[1, 0]),
                floats("v", &[], &[9.0]),
                longs("axes", &[1], &[-1]),
            ],
            (&[2, 1], &[1.0, 2.0]),
            (&[2, 2], &[9.0, 1.0, 9.0, 2.0]),
        ),
        (
            9,
            node(
                "Slice",
                &["x"],
                &["y"],
                &[ints("axes", &[0]), ints("starts", &[1]), ints("ends", &[9])],
            ),
            vec![],
            (&[3], &[1.0, 2.0, 3.0]),
            (&[2], &[2.0, 3.0]),
        ),
        (
            11,
            node("Unsqueeze", &["x"], &["y"], &[ints("axes", &[0])]),
            vec![],
            (&[2], &[1.0, 2.0]),
            (&[1, 2], &[1.0, 2.0]),
        ),
        (
            13,
            node("Squeeze", &["x", "axes"], &["y"], &[]),
            vec![longs("axes", &[1], &[0])],
            (&[1, 2], &[1.0, 2.0]),
            (&[2], &[1.0, 2.0]),
        ),
        (
            18,
            node("ReduceMean", &["x", "axes"], &["y"], &[int("keepdims", 0)]),
            vec![longs("axes", &[1], &[1])],
            (&[2, 2], &[1.0, 3.0, 5.0, 9.0]),
            (&[2], &[2.0, 7.0]),
        ),
        (
            13,
            node("ReduceMean", &["x"], &["y"], &[int("keepdims", 0)]),
            vec![],
            (&[2], &[1.0, 3.0]),
            (&[], &[2.0]),
        ),
        (
            12,
            node("Dropout", &["x", "r"], &["y", "mask"], &[]),
            vec![floats("r", &[], &[0.5])],
            (&[2], &[1.0, 2.0]),
            (&[2], &[1.0, 2.0]),
        ),
        (
            18,
            node("Split", &["x"], &["y", "z"], &[int("num_outputs", 2)]),
            vec![],
            (&[3], &[1.0, 2.0, 3.0]),
            (&[2], &[1.0, 2.0]),
        ),
        (
            13,
            node("Split", &["x"], &["y", "z"], &[]),
            vec![],
            (&[4], &[1.0, 2.0, 3.0, 4.0]),
            (&[2], &[1.0, 2.0]),
        ),
        (
            13,
            node("Cast", &["x"], &["y"], &[int("to", 11)]),
            vec![],
            (&[2], &[1.5, 2.0]),
            (&[2], &[1.5, 2.0]),
        ),
    ];
    for (opset, node, constants, (shape, data), (out_shape, out)) in cases {
        let what = format!("{opset} {node:?}");
        let small = model(opset, &[("x", shape)], &constants, &[node], &["y"]);
        let graph = read_model(&small).unwrap_or_else(|e| panic!("{what}: {e}"));
        let usize_shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        let x = Tensor::from_slice(&usize_shape, data);
        let y = compute(&graph, std::slice::from_ref(&x));
        assert_eq!((y[0].shape(), y[0].data::<f32>()), (out_shape, out), "{what}");
        // The written model must mean the same.
        let again = read_bytes(&to_bytes(&graph).unwrap(), &ReadOptions::default()).unwrap();
        assert_eq!(compute(&again, &[x]), y, "{what}");
    }
}

#[test]
fn all_forms_of_constant_nodes() {
    let strings = AttributeProto {
        s: Some(b"a".to_vec()),
        ..attribute("value_string", AttributeType::String)
    };
    let list = AttributeProto {
        floats: vec![1.0, 2.0],
        ..attribute("value_floats", AttributeType::Floats)
    };
    let tensor = AttributeProto {
        t: Some(floats("", &[1], &[7.0])),
        ..attribute("value", AttributeType::Tensor)
    };
    let read = |value: AttributeProto| {
        let nodes =
            [node("Constant", &[], &["c"], &[value]), node("Add", &["x", "c"], &["y"], &[])];
        read_model(&model(13, &[("x", &[2])], &[], &nodes, &["y"]))
    };
    for (value, expected) in
        [(list, vec![1.0, 2.0]), (tensor, vec![7.0]), (float("value_float", 3.0), vec![3.0])]
    {
        let graph = read(value).unwrap();
        let c = graph.find_value("c").unwrap();
        assert_eq!(graph.values[c].data.as_ref().unwrap().data::<f32>(), expected);
    }
    assert!(read(strings).unwrap_err().to_string().contains("string"));
    let shape = [
        node("Constant", &[], &["s"], &[ints("value_ints", &[2, -1])]),
        node("Reshape", &["x", "s"], &["y"], &[]),
    ];
    let graph = read_model(&model(13, &[("x", &[1, 4])], &[], &shape, &["y"])).unwrap();
    assert_eq!(graph.values[graph.outputs[0]].shape, [2, 2]);
}

#[test]
fn written_models_keep_names_and_quantization() {
    let mut small = model(
        13,
        &[("x", &[1, 2, 4, 4])],
        &[
            floats("s", &[], &[0.5]),
            bytes("z", DataType::Uint8, &[], &[3]),
            bytes("wq", DataType::Int8, &[2, 2, 1, 1], &[1, -2, 3, -4]),
            floats("ws", &[2], &[0.25, 0.125]),
            bytes("wz", DataType::Int8, &[2], &[0, 0]),
        ],
        &[
            node("QuantizeLinear", &["x", "s", "z"], &["q"], &[]),
            node("DequantizeLinear", &["q", "s", "z"], &["d"], &[]),
            node("DequantizeLinear", &["wq", "ws", "wz"], &["w"], &[int("axis", 0)]),
            node("Conv", &["d", "w"], &["y"], &[]),
        ],
        &["y"],
    );
    let entry = StringStringEntryProto { key: Some("who".into()), value: Some("me".into()) };
    small.metadata_props = vec![entry];
    let proto = small.graph.as_mut().unwrap();
    proto.doc_string = Some("a doc".into());
    proto.node[3].name = Some("the conv".into());
    proto.node[3].doc_string = Some("of a node".into());
    let graph = read_model(&small).unwrap();
    let written = to_bytes(&graph).unwrap();
    let again = read_bytes(&written, &ReadOptions::default()).unwrap();
    assert_eq!(again.metadata["who"], "me");
    assert_eq!(again.metadata["daq.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((again.doc.as_str(), again.name.as_str()), ("a doc", "small"));
    assert_eq!(
        (again.nodes[3].name.as_str(), again.nodes[3].doc.as_str()),
        ("the conv", "of a node")
    );
    for value in &graph.values {
        let id = again.find_value(&value.name).unwrap_or_else(|| panic!("{} is lost", value.name));
        assert_eq!(again.values[id], *value);
    }
    let proto = ModelProto::decode(&written[..]).unwrap();
    assert_eq!((proto.ir_version, proto.opset_import[0].version), (Some(8), Some(17)));
    let proto = proto.graph.unwrap();
    let (q, w) = (&proto.node[0], &proto.node[2]);
    assert_eq!((q.input.len(), q.attribute.len()), (3, 0));
    assert_eq!((w.input.len(), w.attribute[0].i), (3, Some(0)));
    // Q and DQ of one value share scale and zero point.
    assert_eq!(proto.node[1].input[1..], q.input[1..]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.onnx");
    write(&graph, &path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), written);
    assert!(write(&graph, folder.path().join("none/small.onnx")).is_err());
}

#[test]
fn one_scale_keeps_the_aspect_ratio() {
    let file = |policy: &str, sizes: &[i64]| {
        let policy = AttributeProto {
            s: Some(policy.into()),
            ..attribute("keep_aspect_ratio_policy", AttributeType::String)
        };
        let attributes = [ints("axes", &[2, 3]), policy];
        let resize = node("Resize", &["x", "", "", "sizes"], &["y"], &attributes);
        let sizes = longs("sizes", &[sizes.len() as i64], sizes);
        model(19, &[("x", &[1, 1, 2, 4])], &[sizes], &[resize], &["y"])
    };
    let x = Tensor::from_slice(&[1, 1, 2, 4], &[1f32, 2., 3., 4., 5., 6., 7., 8.]);
    // Half of it, though three columns would be allowed, and 1.5 times, though 2 rows would do; the numbers
    // are onnxruntime's.
    for (policy, sizes, shape, want) in [
        ("not_larger", [1, 3], [1, 1, 1, 2], vec![1f32, 3.]),
        (
            "not_smaller",
            [2, 6],
            [1, 1, 3, 6],
            [1., 1., 2., 3., 3., 4., 1., 1., 2., 3., 3., 4., 5., 5., 6., 7., 7., 8.].to_vec(),
        ),
        // 2 * 0.75 is rounded up.
        ("not_smaller", [1, 3], [1, 1, 2, 3], vec![1., 2., 4., 5., 6., 8.]),
    ] {
        let y = compute(&read_model(&file(policy, &sizes)).unwrap(), std::slice::from_ref(&x));
        assert_eq!(y[0].shape(), shape, "{policy}");
        assert_eq!(y[0].data::<f32>(), want, "{policy}");
    }
    for (policy, sizes, part) in [
        ("larger", &[1, 3][..], "stretch, not_larger, not_smaller"),
        ("not_larger", &[1, 3, 3], "do not fit 2 axes"),
        ("not_larger", &[0, 3], "do not fit"),
    ] {
        let error = error(&file(policy, sizes));
        assert!(error.contains(part) && error.contains("`y`"), "{error}");
    }
}
