//! The passes on small graphs whose numbers can be worked out by hand.

use daq::{Graph, Op, Tensor};

use super::absorption::{self, absorb};
use super::equalize::{equalize, repeat};
use super::moments::moments;
use super::statistics::statistics;
use super::{Weighted, activation_bias, two_parts};
use crate::calibrate::{CalibrateOptions, Samples, calibrate};
use crate::observe::CalibrationMethod;
use crate::onnx::proto::{NodeProto, TensorProto};
use crate::onnx::small::*;
use crate::quantize::{QuantizeOptions, Weights, quantize};

/// Tensors for input `x`.
struct Fixed(Vec<Tensor>);

impl Samples for Fixed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn name(&self, index: usize) -> String {
        index.to_string()
    }

    fn load(&self, index: usize) -> Result<Vec<(String, Tensor)>, String> {
        Ok(vec![("x".into(), self.0[index].clone())])
    }
}

fn graph(shape: &[i64], constants: &[TensorProto], nodes: &[NodeProto]) -> Graph {
    read_model(&model(17, &[("x", shape)], constants, nodes, &["y"])).unwrap()
}

fn weights(graph: &Graph, node: usize) -> Vec<f64> {
    Weighted::of(graph, &graph.nodes[node]).unwrap().weights(graph)
}

fn same_outputs(before: &Graph, after: &Graph, samples: &Fixed) {
    for x in &samples.0 {
        let [a, b] = [before, after].map(|g| compute(g, std::slice::from_ref(x)));
        for (a, b) in a[0].data::<f32>().iter().zip(b[0].data::<f32>()) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} is not {b}");
        }
    }
}

#[test]
fn weak_channels_grow_through_relu6_and_depthwise_convolutions() {
    let constants = [
        floats("w", &[2, 2, 1, 1], &[1.0, 0.0, 0.0, 0.01]),
        floats("b", &[2], &[0.0, 0.01]),
        floats("d", &[2, 1, 1, 1], &[1.0, 100.0]),
        floats("v", &[1, 2, 1, 1], &[1.0, 1.0]),
        floats("zero", &[], &[0.0]),
        floats("six", &[], &[6.0]),
    ];
    let nodes = [
        node("Conv", &["x", "w", "b"], &["c"], &[]),
        node("Clip", &["c", "zero", "six"], &["z"], &[]),
        node("Conv", &["z", "d"], &["e"], &[int("group", 2)]),
        node("Relu", &["e"], &["r"], &[]),
        node("Conv", &["r", "v"], &["y"], &[]),
    ];
    let before = graph(&[1, 2, 1, 3], &constants, &nodes);
    let samples =
        Fixed(vec![Tensor::from_slice(&[1, 2, 1, 3], &[1f32, 4.0, -1.0, 2.0, 3.0, -2.0])]);
    let mut after = before.clone();
    let seen = statistics(&before, &samples, 1, &|| ()).unwrap();
    assert_eq!(seen["z"].max, [4.0, 0.04]);
    let text = equalize(&mut after, &seen, Weights::PerChannel).unwrap();
    after.validate().unwrap();
    same_outputs(&before, &after, &samples);
    // Channel 1 uses 0.04 of 6, twice that with headroom: the most that is allowed, three steps of the
    // eighth root of 2, and its bias with it. Channel 0 uses 4 of 6 and needs its headroom: it stays.
    let grown = f64::from((f64::from(0.01f32) * 2f64.powf(3.0 / 8.0)) as f32);
    assert_eq!(weights(&after, 0), [1.0, 0.0, 0.0, grown]);
    assert_eq!(Weighted::of(&after, &after.nodes[0]).unwrap().bias(&after).unwrap()[1], grown);
    assert_eq!(weights(&after, 2)[0], 1.0);
    // e, then r: both channels reach 4 and use all; nothing to gain.
    assert_eq!(weights(&after, 4), [1.0, 1.0]);
    assert_eq!(text.bytes().filter(|&b| b > b'A').count(), 1, "{text}");
    // The text is enough to do it again, on this graph only.
    let mut again = before.clone();
    assert!(repeat(&mut again, &text));
    assert_eq!(again, after);
    assert!(!repeat(&mut again, &text[1..]) && !repeat(&mut again, &text.replace('A', "~")));
    assert_eq!(again, after);
}

#[test]
fn a_residual_sum_scales_all_its_terms_alike() {
    let constants = [
        floats("w", &[2, 1, 1, 1], &[1.0, 0.1]),
        floats("u", &[2, 2, 1, 1], &[1.0, 0.0, 0.0, 1.0]),
        floats("v", &[1, 2, 1, 1], &[1.0, 3.0]),
    ];
    let nodes = [
        node("Conv", &["x", "w"], &["a"], &[]),
        node("Conv", &["a", "u"], &["b"], &[]),
        node("Add", &["a", "b"], &["s"], &[]),
        node("Conv", &["s", "v"], &["y"], &[]),
    ];
    let before = graph(&[1, 1, 1, 4], &constants, &nodes);
    let samples = Fixed(vec![Tensor::from_slice(&[1, 1, 1, 4], &[1f32, -2.0, 3.0, 0.5])]);
    let mut after = before.clone();
    assert!(
        equalize(
            &mut after,
            &statistics(&before, &samples, 1, &|| ()).unwrap(),
            Weights::PerChannel
        )
        .is_some()
    );
    same_outputs(&before, &after, &samples);
    let [first, last] = [weights(&after, 0), weights(&after, 3)];
    let grown = first[1] / f64::from(0.1f32);
    assert!(grown > 1.5 && grown <= 8.0, "{grown}");
    // Divided by the same where it is read; the product of both sides of the middle one cancels.
    assert!((last[1] * grown - 3.0).abs() < 1e-5, "{last:?}");
    assert_eq!(weights(&after, 1), [1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn channels_that_anything_else_reads_stay() {
    let constants =
        [floats("w", &[2, 1, 1, 1], &[1.0, 0.01]), floats("v", &[1, 2, 1, 1], &[1.0, 1.0])];
    for op in ["Sigmoid", "Exp"] {
        let nodes = [
            node("Conv", &["x", "w"], &["a"], &[]),
            node(op, &["a"], &["s"], &[]),
            node("Conv", &["s", "v"], &["y"], &[]),
        ];
        let before = graph(&[1, 1, 1, 2], &constants, &nodes);
        let samples = Fixed(vec![Tensor::from_slice(&[1, 1, 1, 2], &[1f32, -2.0])]);
        let mut after = before.clone();
        let seen = statistics(&before, &samples, 1, &|| ()).unwrap();
        assert_eq!(equalize(&mut after, &seen, Weights::PerChannel), None, "{op}");
        assert_eq!(after, before);
    }
}

#[test]
fn what_a_channel_never_falls_below_is_absorbed() {
    let constants = [
        floats("w", &[2, 1, 1, 1], &[1.0, 1.0]),
        floats("b", &[2], &[20.0, 1.0]),
        floats("v", &[1, 2, 1, 1], &[0.5, 4.0]),
        floats("c", &[1], &[-1.0]),
        floats("zero", &[], &[0.0]),
        floats("most", &[], &[21.0]),
    ];
    let reader = |pads: &[i64]| node("Conv", &["r", "v", "c"], &["y"], &[ints("pads", pads)]);
    let of = |activation: NodeProto, pads: &[i64]| {
        let nodes = [node("Conv", &["x", "w", "b"], &["a"], &[]), activation, reader(pads)];
        graph(&[1, 1, 1, 4], &constants, &nodes)
    };
    let relu = || node("Relu", &["a"], &["r"], &[]);
    let samples = Fixed(vec![Tensor::from_slice(&[1, 1, 1, 4], &[2f32, -2.0, 2.0, -2.0])]);
    let absorbed =
        |graph: &mut Graph| absorb(graph, &statistics(graph, &samples, 1, &|| ()).unwrap());
    let bias = |graph: &Graph, i: usize| {
        Weighted::of(graph, &graph.nodes[i]).unwrap().bias(graph).unwrap()
    };

    let before = of(relu(), &[0; 4]);
    let mut after = before.clone();
    let text = absorbed(&mut after).unwrap();
    same_outputs(&before, &after, &samples);
    // Channel 0 is 20 on average, with a deviation of 2: 14 goes, half of it to the reader's bias. Channel 1
    // reaches 0 and stays.
    assert_eq!(bias(&after, 0), [6.0, 1.0]);
    assert_eq!(bias(&after, 2), [-1.0 + 7.0]);
    let mut again = before.clone();
    assert!(absorption::repeat(&mut again, &text));
    assert_eq!(again, after);
    for wrong in ["{", r#"{"r":[[2,1.0]]}"#, r#"{"a":[[0,1.0]]}"#] {
        assert!(!absorption::repeat(&mut again, wrong), "{wrong}");
    }
    assert_eq!(again, after);

    // Padding would stand for 14; a bound of 21 is met by 22; outputs keep their values.
    let clip = node("Clip", &["a", "zero", "most"], &["r"], &[]);
    let mut shown = before.clone();
    shown.outputs.push(shown.find_value("r").unwrap());
    for mut other in [of(relu(), &[0, 1, 0, 1]), of(clip, &[0; 4]), shown] {
        assert_eq!(absorbed(&mut other), None);
    }
}

/// A 3x3 convolution over 2x1 pixels that pads with zeros, in 8 bits at a step of 1.
#[test]
fn moments_are_those_of_codes_and_padding() {
    let w: Vec<f32> = (0..9).map(|i| i as f32 / 10.0).collect();
    let constants = [floats("w", &[1, 1, 3, 3], &w)];
    let nodes = [node("Conv", &["x", "w"], &["y"], &[ints("pads", &[1, 1, 1, 1])])];
    let float = graph(&[1, 1, 2, 1], &constants, &nodes);
    let samples = Fixed(
        [[0f32, 255.0], [9.6, 100.0]].map(|x| Tensor::from_slice(&[1, 1, 2, 1], &x)).to_vec(),
    );
    let options = CalibrateOptions { method: CalibrationMethod::MinMax, workers: 1, batch_size: 1 };
    let ranges = calibrate(&float, &samples, &options, &|| ()).unwrap().ranges();
    let quantized = quantize(&float, &ranges, &QuantizeOptions::default()).unwrap();
    for workers in [1, 3] {
        let found = moments(&quantized.graph, &samples, workers, &|| ()).unwrap();
        // Tap 4 sees each pixel, tap 1 the pixel above (or padding), tap 7 the one below.
        let mut mean = [0.0; 9];
        mean[4] = (255.0 + 10.0 + 100.0) / 4.0;
        mean[1] = 10.0 / 4.0;
        mean[7] = (255.0 + 100.0) / 4.0;
        assert_eq!(found["y"].mean, mean);
        // Four rows for nine inputs say nothing about pairs.
        assert!(found["y"].factors.is_none());
    }
}

#[test]
fn biases_bring_back_the_mean_of_the_float_model() {
    // Weights so coarse that rounding shifts the mean: 0.3 and 100 in one output channel.
    let constants = [floats("w", &[1, 2, 1, 1], &[0.3, 100.0]), floats("b", &[1], &[0.0])];
    let nodes = [node("Conv", &["x", "w", "b"], &["y"], &[])];
    let float = graph(&[1, 2, 1, 2], &constants, &nodes);
    let samples = Fixed(vec![Tensor::from_slice(&[1, 2, 1, 2], &[200f32, 255.0, 0.0, 0.0])]);
    let options = CalibrateOptions { method: CalibrationMethod::MinMax, workers: 1, batch_size: 1 };
    let ranges = calibrate(&float, &samples, &options, &|| ()).unwrap().ranges();
    let mut graph = quantize(&float, &ranges, &QuantizeOptions::default()).unwrap().graph;
    let seen = statistics(&float, &samples, 1, &|| ()).unwrap();
    // A range of a fifth clips the channel: its bias stays 0.
    let mut clipped = graph.clone();
    let output = clipped.outputs[0];
    clipped.values[output].quant.as_mut().unwrap().scale[0] /= 5.0;
    activation_bias::correct(&mut clipped, &seen, &samples, 1, &|| ()).unwrap();
    let bias = clipped.nodes[0].inputs[2].unwrap();
    assert_eq!(clipped.values[bias].data.as_ref().unwrap().data::<i32>(), [0]);

    assert_eq!(activation_bias::correct(&mut graph, &seen, &samples, 1, &|| ()).unwrap(), 1);
    // 0.3 rounds to 0 steps of 100 / 127: all of the mean, 0.3 * 227.5, is the bias's; the input's
    // step is 1.
    let bias = graph.values[graph.nodes[0].inputs[2].unwrap()].clone();
    let real =
        f64::from(bias.data.unwrap().data::<i32>()[0]) * f64::from(bias.quant.unwrap().scale[0]);
    assert!((real - 0.3 * 227.5).abs() < 100.0 / 127.0, "{real}");
}

#[test]
fn a_channel_whose_weights_share_a_step_grows_to_keep_more_of_them() {
    let constants =
        [floats("w", &[2, 1, 1, 1], &[1.0, 0.5]), floats("v", &[1, 2, 1, 1], &[1.0, 1.0])];
    let nodes = [
        node("Relu", &["x"], &["r"], &[]),
        node("Conv", &["r", "w"], &["c"], &[]),
        node("Relu", &["c"], &["a"], &[]),
        node("Conv", &["a", "v"], &["y"], &[]),
    ];
    let before = graph(&[1, 1, 1, 1], &constants, &nodes);
    let samples = Fixed(vec![Tensor::from_slice(&[1, 1, 1, 1], &[1.0])]);
    let seen = statistics(&before, &samples, 1, &|| ()).unwrap();
    // The second channel, 0.5: noise of 1 / 255² by its step, 0.25 / 127² by that of `v`, the same.
    assert_eq!(equalize(&mut before.clone(), &seen, Weights::PerChannel), None);
    // With one step for all of `w`, 1 / 127² more that grows with the channel: (0.25 / 127² / (1 / 255² + 1 / 127²))^(1/4)
    // is 0.669, in steps of an eighth of an octave 2^(-4/8).
    let mut after = before.clone();
    assert!(equalize(&mut after, &seen, Weights::PerTensor).is_some());
    let s = 0.5f64.sqrt();
    for (node, expected) in [(1, [1.0, 0.5 / s]), (3, [1.0, s])] {
        let found = weights(&after, node);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }
    same_outputs(&before, &after, &samples);
}

#[test]
fn what_is_far_from_0_is_read_apart() {
    let constants = [
        floats("w", &[2, 1, 1, 1], &[2.0, -1.0]),
        floats("b", &[2], &[1.0, 0.0]),
        floats("v", &[1, 2, 1, 1], &[1.0, 1.0]),
    ];
    let nodes = [
        node("Relu", &["x"], &["r"], &[]),
        node("Conv", &["r", "w", "b"], &["c"], &[]),
        node("Conv", &["c", "v"], &["y"], &[]),
    ];
    let before = graph(&[1, 1, 8, 8], &constants, &nodes);
    let mut x = [1f32; 64];
    x[9] = 20.0;
    let samples = Fixed(vec![Tensor::from_slice(&[1, 1, 8, 8], &x)]);
    let seen = statistics(&before, &samples, 1, &|| ()).unwrap();
    let name = before.node_name(&before.nodes[1]).to_string();

    let mut after = before.clone();
    two_parts::split(&mut after, std::slice::from_ref(&name), &seen).unwrap();
    same_outputs(&before, &after, &samples);
    let ops: Vec<_> = after.nodes.iter().map(|n| n.op.name()).collect();
    assert_eq!(ops, ["Relu", "Clip", "Sub", "Conv", "Conv", "Add", "Conv"]);
    // Three times the root of (63 + 400) / 64, which is less than half of 20.
    let Op::Clip(clip) = &after.nodes[1].op else { panic!("{ops:?}") };
    let near = 3.0 * (463f32 / 64.0).sqrt();
    assert!(
        (clip.max.unwrap() - near).abs() < 1e-4 && clip.min == clip.max.map(|t| -t),
        "{clip:?}"
    );
    let bias = |i: usize| Weighted::of(&after, &after.nodes[i]).unwrap().bias(&after);
    assert_eq!((bias(3), bias(4)), (Some(vec![1.0, 0.0]), None));

    let mut again = before.clone();
    let text = &after.metadata[two_parts::TWO_PARTS];
    assert!(two_parts::repeat(&mut again, text));
    assert_eq!(again, after);
    for wrong in ["{", r#"[["other",1.0]]"#, &text.replace("8.0", "-8.0")] {
        let mut other = before.clone();
        assert!(!two_parts::repeat(&mut other, wrong), "{wrong}");
        assert_eq!(other, before);
    }

    // Both products multiply codes and give floats, which what lies between works on.
    let options = CalibrateOptions { method: CalibrationMethod::MinMax, workers: 1, batch_size: 1 };
    let ranges = calibrate(&after, &samples, &options, &|| ()).unwrap().ranges();
    let options = QuantizeOptions { float_input: true, ..Default::default() };
    let quantized = quantize(&after, &ranges, &options).unwrap();
    let in_float: Vec<bool> =
        quantized.decisions.iter().map(|d| d.float_because.is_some()).collect();
    assert_eq!(in_float, [false, true, true, false, false, true, false]);
    // Of what the last convolution reads, from -20 to 41, it adds two, each within half a step of 61 / 255,
    // and 1 is read as 32 steps of `near / 255`, 0.013 off: by hand 0.165 for 20 and 0.141 for 1.
    let run = |graph: &Graph| {
        let mut y = [0f32; 64];
        let model = daq::Model::from_graph(graph.clone()).unwrap();
        model.session(1).predict(&[&x], &mut [&mut y]).unwrap();
        y
    };
    let (found, exact) = (run(&quantized.graph), run(&before));
    let off = found.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 0.2, "{off}");
}

#[test]
fn what_is_reshaped_is_read_in_two_parts_and_its_activation_is_float() {
    let constants =
        [floats("w", &[2, 2], &[2.0, 0.0, 0.0, -1.0]), floats("v", &[2, 1], &[1.0, 1.0])];
    let nodes = [
        node("Relu", &["x"], &["r"], &[]),
        node("Flatten", &["r"], &["f"], &[]),
        node("MatMul", &["f", "w"], &["c"], &[]),
        node("Relu", &["c"], &["a"], &[]),
        node("MatMul", &["a", "v"], &["y"], &[]),
    ];
    let before = graph(&[1, 2, 1, 1], &constants, &nodes);
    let samples = Fixed(vec![Tensor::from_slice(&[1, 2, 1, 1], &[3.0, 1.0])]);
    let seen = statistics(&before, &samples, 1, &|| ()).unwrap();
    let name = before.node_name(&before.nodes[2]).to_string();
    let mut after = before.clone();
    two_parts::split(&mut after, &[name], &seen).unwrap();
    same_outputs(&before, &after, &samples);

    // Add and the second Relu are computed as one, so that nothing was seen between them.
    let options = CalibrateOptions { method: CalibrationMethod::MinMax, workers: 1, batch_size: 1 };
    let ranges = calibrate(&after, &samples, &options, &|| ()).unwrap().ranges();
    assert!(!ranges.contains_key("c"), "{ranges:?}");
    let quantized = quantize(&after, &ranges, &QuantizeOptions::default()).unwrap();
    let relu = quantized.decisions.iter().rfind(|d| d.op == "Relu").unwrap();
    assert_eq!(relu.float_because.as_deref(), Some("its input is in float"));
}

#[test]
fn an_input_that_cannot_be_read_in_two_parts_is_refused() {
    let constants = [floats("w", &[1, 1, 1, 1], &[2.0])];
    let nodes = [node("Conv", &["x", "w"], &["c"], &[]), node("Relu", &["c"], &["y"], &[])];
    let graph = graph(&[1, 1, 1, 1], &constants, &nodes);
    // The convolution reads the model's input, the other is no product, the last is none at all.
    for name in [graph.node_name(&graph.nodes[0]), graph.node_name(&graph.nodes[1]), "none"] {
        let error = two_parts::check(&graph, &[name.to_string()]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("--two-parts {name}: the model has no")), "{error}");
    }
}
