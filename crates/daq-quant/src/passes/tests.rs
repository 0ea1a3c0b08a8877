//! Graphs before and after the passes, computed.

use daq::{Graph, Tensor};

use super::optimize;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::small::*;

/// Reads, optimises, and checks that the outputs stay the same; gives the operators that remain.
fn optimized(
    shape: &[i64],
    constants: &[TensorProto],
    nodes: &[NodeProto],
    outputs: &[&str],
) -> Vec<&'static str> {
    let graph = read_model(&model(17, &[("x", shape)], constants, nodes, outputs)).unwrap();
    let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
    let data: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Tensor::from_slice(&shape, &data);
    let before = compute(&graph, std::slice::from_ref(&x));
    let mut after = graph.clone();
    optimize(&mut after);
    after.validate().unwrap();
    let names = |g: &Graph| -> Vec<String> {
        g.outputs.iter().map(|&id| g.values[id].name.clone()).collect()
    };
    assert_eq!(names(&after), outputs);
    for (a, b) in compute(&after, &[x]).iter().zip(&before) {
        assert_eq!(a.shape(), b.shape());
        for (a, b) in a.data::<f32>().iter().zip(b.data::<f32>()) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} is not {b}");
        }
    }
    after.nodes.iter().map(|n| n.op.name()).collect()
}

fn wave(name: &str, dims: &[i64], from: f32) -> TensorProto {
    let count = dims.iter().product::<i64>();
    let data: Vec<f32> = (0..count).map(|i| from + (i as f32 * 1.3).cos().abs()).collect();
    floats(name, dims, &data)
}

fn batch_norm(x: &str, y: &str) -> NodeProto {
    node(
        "BatchNormalization",
        &[x, "scale", "bias", "mean", "var"],
        &[y],
        &[float("epsilon", 0.01)],
    )
}

fn norm(channels: i64) -> Vec<TensorProto> {
    ["scale", "bias", "mean", "var"].map(|n| wave(n, &[channels], n.len() as f32 * 0.1)).to_vec()
}

#[test]
fn copies_disappear_and_outputs_keep_their_names() {
    let copy = |x, y| node("Identity", &[x], &[y], &[]);
    let relu = node("Relu", &["x"], &["r"], &[]);
    let constants =
        [longs("same", &[2], &[2, 2]), longs("none", &[4], &[0; 4]), longs("flip", &[1], &[-1])];
    let cases: Vec<(Vec<NodeProto>, &[&str], &[&str])> = vec![
        (vec![relu.clone(), copy("r", "y")], &["y"], &["Relu"]),
        (vec![copy("x", "a"), node("Relu", &["a"], &["y"], &[])], &["y"], &["Relu"]),
        // An output that is an input, or a second name of an output, needs its copy.
        (vec![copy("x", "y")], &["y"], &["Identity"]),
        (vec![relu.clone(), copy("r", "y")], &["r", "y"], &["Relu", "Identity"]),
        (vec![relu.clone(), copy("r", "y"), copy("r", "z")], &["y", "z"], &["Relu", "Identity"]),
        (
            vec![
                node("Reshape", &["x", "same"], &["a"], &[]),
                node("Pad", &["a", "none"], &["b"], &[]),
                node("Transpose", &["b"], &["c"], &[ints("perm", &[0, 1])]),
                node("Concat", &["c"], &["d"], &[int("axis", 0)]),
                node("Cast", &["d"], &["e"], &[int("to", 1)]),
                node("Dropout", &["e"], &["f"], &[]),
                node("Relu", &["f"], &["y"], &[]),
            ],
            &["y"],
            &["Relu"],
        ),
        (vec![node("Transpose", &["x"], &["y"], &[])], &["y"], &["Transpose"]),
        (vec![node("Concat", &["x", "x"], &["y"], &[int("axis", 0)])], &["y"], &["Concat"]),
    ];
    for (nodes, outputs, expected) in cases {
        assert_eq!(optimized(&[2, 2], &constants, &nodes, outputs), expected, "{nodes:?}");
    }
}

#[test]
fn batch_norm_goes_into_its_neighbour() {
    let with = |w: TensorProto| [norm(4), vec![w, wave("v", &[4], -0.5)]].concat();
    let conv = |inputs: &[&str], y: &str, attrs: &[_]| node("Conv", inputs, &[y], attrs);
    type Case<'a> = (&'a [i64], TensorProto, Vec<NodeProto>, &'a [&'a str], &'a [&'a str]);
    let cases: Vec<Case> = vec![
        (
            &[1, 2, 4, 4],
            wave("w", &[4, 2, 3, 3], -0.5),
            vec![conv(&["x", "w"], "c", &[ints("pads", &[1; 4])]), batch_norm("c", "y")],
            &["y"],
            &["Conv"],
        ),
        (
            &[1, 4, 4, 4],
            wave("w", &[4, 2, 3, 3], -0.5),
            vec![conv(&["x", "w", "v"], "c", &[int("group", 2)]), batch_norm("c", "y")],
            &["y"],
            &["Conv"],
        ),
        (
            &[3, 2],
            wave("w", &[4, 2], -0.5),
            vec![
                node("Gemm", &["x", "w", "v"], &["c"], &[int("transB", 1), float("beta", 2.0)]),
                batch_norm("c", "y"),
            ],
            &["y"],
            &["Gemm"],
        ),
        (
            &[3, 2],
            wave("w", &[2, 4], -0.5),
            vec![node("Gemm", &["x", "w"], &["c"], &[float("alpha", 0.5)]), batch_norm("c", "y")],
            &["y"],
            &["Gemm"],
        ),
        // Before a convolution: exact only without padding.
        (
            &[1, 4, 4, 4],
            wave("w", &[4, 2, 3, 3], -0.5),
            vec![batch_norm("x", "b"), conv(&["b", "w", "v"], "y", &[int("group", 2)])],
            &["y"],
            &["Conv"],
        ),
        (
            &[1, 4, 4, 4],
            wave("w", &[4, 4, 3, 3], -0.5),
            vec![batch_norm("x", "b"), conv(&["b", "w"], "y", &[ints("pads", &[1; 4])])],
            &["y"],
            &["BatchNormalization", "Conv"],
        ),
        // Read elsewhere, or an output: stays.
        (
            &[1, 4, 4, 4],
            wave("w", &[4, 4, 1, 1], -0.5),
            vec![
                conv(&["x", "w"], "c", &[]),
                batch_norm("c", "b"),
                node("Add", &["b", "c"], &["y"], &[]),
            ],
            &["y"],
            &["Conv", "BatchNormalization", "Add"],
        ),
        (
            &[1, 4, 4, 4],
            wave("w", &[4, 4, 1, 1], -0.5),
            vec![conv(&["x", "w"], "c", &[]), batch_norm("c", "y")],
            &["c", "y"],
            &["Conv", "BatchNormalization"],
        ),
        // Weights that another node reads too are left as they are.
        (
            &[1, 4, 4, 4],
            wave("w", &[4, 4, 1, 1], -0.5),
            vec![
                conv(&["x", "w"], "c", &[]),
                batch_norm("c", "b"),
                conv(&["b", "w"], "y", &[ints("pads", &[1; 4])]),
            ],
            &["y"],
            &["Conv", "Conv"],
        ),
    ];
    for (shape, w, nodes, outputs, expected) in cases {
        assert_eq!(optimized(shape, &with(w), &nodes, outputs), expected, "{nodes:?}");
    }
}

#[test]
fn constants_by_channel_go_into_the_convolution() {
    let constants = [
        wave("w", &[2, 2, 1, 1], -0.5),
        wave("c", &[2, 1, 1], 0.5),
        wave("map", &[2, 2], 0.5),
        floats("one", &[], &[3.0]),
        floats("zero", &[1], &[0.0]),
    ];
    for (op, left, right, folds) in [
        ("Mul", "t", "c", true),
        ("Add", "c", "t", true),
        ("Sub", "t", "one", true),
        ("Sub", "c", "t", true),
        ("Div", "t", "c", true),
        ("Div", "c", "t", false),
        ("Div", "t", "one", true),
        ("Add", "t", "map", false),
        ("Mul", "t", "t", false),
        ("Mul", "zero", "t", true),
    ] {
        let nodes = [
            node("Conv", &["x", "w"], &["t"], &[ints("pads", &[0; 4])]),
            node(op, &[left, right], &["y"], &[]),
        ];
        let expected: &[&str] = if folds { &["Conv"] } else { &["Conv", op] };
        assert_eq!(
            optimized(&[1, 2, 2, 2], &constants, &nodes, &["y"]),
            expected,
            "{op} {left} {right}"
        );
    }
}
