//! Models of a few nodes whose numbers are worked out by hand.

use daq::ops::{Attr, Attrs};
use daq::{Model, Node, Op, Value, ValueId};

use super::*;

/// Values `name scale zero_point`, all of four channels; the first is the input, the last the output.
fn graph(values: &[(&str, f32, i32)]) -> Graph {
    let mut g = Graph { name: "rules".into(), ..Graph::default() };
    for &(name, scale, zero_point) in values {
        let quant = QuantParams::per_tensor(scale, zero_point);
        g.add_value(Value::new(name, DType::U8, &[1, 4, 1, 1]).with_quant(quant));
    }
    (g.inputs, g.outputs) = (vec![0], vec![values.len() - 1]);
    g
}

fn node(g: &mut Graph, op: &str, attrs: Attrs, inputs: &[ValueId], output: ValueId) {
    let op = Op::from_attrs(op, &attrs).unwrap().unwrap();
    let inputs = inputs.iter().map(|&i| Some(i)).collect();
    let name = format!("n{}", g.nodes.len());
    g.nodes.push(Node { name, op, inputs, outputs: vec![output], doc: String::new() });
}

/// A Conv 1x1 by 100, 50, 25 and 12 codes on the diagonal, with biases of 1000.
fn conv(g: &mut Graph, x: ValueId, w_scale: &[f32], y: ValueId) -> [ValueId; 2] {
    let mut codes = [0i8; 16];
    for (c, code) in [100, 50, 25, 12].into_iter().enumerate() {
        codes[5 * c] = code;
    }
    let w = Value::constant("w", Tensor::from_slice(&[4, 4, 1, 1], &codes));
    let w = g.add_value(w.with_quant(match w_scale {
        &[one] => QuantParams::per_tensor(one, 0),
        many => QuantParams::per_channel(many.to_vec(), 0),
    }));
    let x_scale = g.values[x].quant.as_ref().unwrap().scale[0];
    let scales = w_scale.iter().map(|s| s * x_scale).collect();
    let b = Value::constant("b", Tensor::from_slice(&[4], &[1000i32; 4]));
    let b = g.add_value(b.with_quant(QuantParams::per_channel(scales, 0)));
    node(g, "Conv", Attrs::new(), &[x, w, b], y);
    [w, b]
}

fn quant(g: &Graph, name: &str) -> (f32, i32) {
    let quant = g.values[g.find_value(name).unwrap()].quant.clone().unwrap();
    (quant.scale[0], quant.zero_point[0])
}

fn why(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|f| f.why.as_str()).collect()
}

#[test]
fn names() {
    for (name, target) in Target::ALL {
        assert_eq!(name.parse(), Ok(target));
        assert_eq!(target.to_string(), name);
    }
    assert!("nnapi-26".parse::<Target>().unwrap_err().contains("nnapi-27"));
}

#[test]
fn a_chain_of_rules_is_mended_and_biases_follow() {
    // A pooling that changes its scale, behind it a convolution, a Sigmoid.
    let mut g = graph(&[("x", 0.5, 10), ("p", 0.25, 3), ("c", 0.5, 128), ("s", 0.01, 7)]);
    node(&mut g, "GlobalAveragePool", Attrs::new(), &[0], 1);
    let [_, b] = conv(&mut g, 1, &[0.125], 2);
    node(&mut g, "Sigmoid", Attrs::new(), &[2], 3);
    g.validate().unwrap();

    let found = lint(&g, Target::Nnapi(30));
    assert_eq!(
        why(&found),
        ["an average keeps its input's scale", "Sigmoid gives scale 1/256, zero point 0"]
    );
    assert_eq!(lint(&g, Target::Cpu), []);

    let changes = repair(&mut g, Target::Nnapi(30)).unwrap();
    assert_eq!(changes.len(), 2);
    assert_eq!(quant(&g, "p"), (0.5, 10));
    assert_eq!(quant(&g, "s"), (1.0 / 256.0, 0));
    assert_eq!(quant(&g, "c"), (0.5, 128));
    // 1000 * 0.25 * 0.125 real is 500 at 0.5 * 0.125.
    assert_eq!(g.values[b].data.as_ref().unwrap().data::<i32>(), [500; 4]);
    assert_eq!(lint(&g, Target::Nnapi(30)), []);
    g.validate().unwrap();

    // x = 90 everywhere is 40 real, the pooling too, and 40 * 100 * 0.125 + 31.25 = 531.25 saturates.
    let mut session = Model::from_graph(g).unwrap().session(1);
    let mut out = [0f32; 4];
    session.predict(&[&[90u8; 4]], &mut [&mut out]).unwrap();
    // The last channel: 40 * 12 * 0.125 + 31.25 = 91.25, at most (255 - 128) / 2: sigmoid 1 at 255 / 256.
    assert_eq!(out, [255.0 / 256.0; 4]);
}

#[test]
fn weights_per_channel_become_one_scale_before_level_29() {
    let mut g = graph(&[("x", 0.5, 0), ("y", 1.0, 0)]);
    let [w, b] = conv(&mut g, 0, &[0.5, 0.25, 0.25, 0.125], 1);
    assert_eq!(lint(&g, Target::Nnapi(29)), []);
    assert_eq!(lint(&g, Target::Tflite), []);
    let found = lint(&g, Target::Nnapi(28));
    assert!(why(&found)[0].contains("API level 29"), "{found:?}");

    repair(&mut g, Target::Nnapi(28)).unwrap();
    assert_eq!(g.values[w].quant, Some(QuantParams::per_tensor(0.5, 0)));
    let codes = g.values[w].data.as_ref().unwrap().data::<i8>();
    // 100, 50 / 2, 25 / 2 to even, 12 / 4.
    assert_eq!([codes[0], codes[5], codes[10], codes[15]], [100, 25, 12, 3]);
    let biases = g.values[b].data.as_ref().unwrap().data::<i32>();
    assert_eq!(biases, [1000, 500, 500, 250]);
    // The output's scale 1 is above 0.5 * 0.5 as it is.
    assert_eq!(quant(&g, "y"), (1.0, 0));
}

#[test]
fn output_scales_are_above_the_product() {
    let mut g = graph(&[("x", 0.5, 0), ("y", 0.125, 16)]);
    conv(&mut g, 0, &[0.5], 1);
    assert_eq!(lint(&g, Target::Nnapi(29)), []);
    repair(&mut g, Target::Nnapi(27)).unwrap();
    // Just above 0.5 * 0.5; -2 is code 8 now.
    assert_eq!(quant(&g, "y"), (0.25f32.next_up(), 8));

    let mut g = graph(&[("x", 0.5, 0), ("y", 0.125, 16)]);
    node(&mut g, "Mul", Attrs::new(), &[0, 0], 1);
    assert_eq!(lint(&g, Target::Tflite), []);
    for level in [27, 30] {
        let found = lint(&g, Target::Nnapi(level));
        assert!(why(&found)[0].contains("greater than the product"), "{found:?}");
    }
}

#[test]
fn concat_shares_one_scale_before_level_29() {
    let mut g = graph(&[("x", 0.5, 0), ("r", 0.5, 0), ("y", 0.25, 20)]);
    g.values[2].shape = vec![1, 8, 1, 1];
    node(&mut g, "Identity", Attrs::new(), &[0], 1);
    node(&mut g, "Concat", Attrs::new().with("axis", Attr::Int(1)), &[0, 1], 2);
    g.validate().unwrap();
    assert_eq!(lint(&g, Target::Nnapi(29)), []);
    assert_eq!(lint(&g, Target::Nnapi(28)).len(), 2);
    assert_eq!(lint(&g, Target::Tflite).len(), 2);
    repair(&mut g, Target::Nnapi(28)).unwrap();
    assert_eq!(lint(&g, Target::Nnapi(28)), []);
    // From -5 to 127.5 in steps of at least 0.5: all three, by way of what they have it from.
    let all = [quant(&g, "x"), quant(&g, "r"), quant(&g, "y")];
    assert_eq!(all, [(132.5 / 255.0, 10); 3]);
}

#[test]
fn rules_that_contradict_each_other_leave_the_node_on_the_cpu() {
    let mut g = graph(&[("x", 0.5, 0), ("s", 1.0 / 256.0, 0), ("y", 0.5, 0)]);
    g.values[2].shape = vec![1, 8, 1, 1];
    node(&mut g, "Sigmoid", Attrs::new(), &[0], 1);
    node(&mut g, "Concat", Attrs::new().with("axis", Attr::Int(1)), &[0, 1], 2);
    assert_eq!(repair(&mut g, Target::Nnapi(27)).unwrap(), []);
    let found = lint(&g, Target::Nnapi(27));
    assert!(found.len() == 1 && found[0].is_unsupported(), "{found:?}");
}

#[test]
fn operators_without_a_form_stay_on_the_cpu() {
    let mut g = graph(&[("x", 0.5, 0), ("y", 0.5, 0)]);
    node(&mut g, "HardSwish", Attrs::new(), &[0], 1);
    assert_eq!(why(&lint(&g, Target::Nnapi(29))), ["HardSwish comes with API level 30"]);
    assert_eq!(lint(&g, Target::Nnapi(30)), []);
    let mut g = graph(&[("x", 0.5, 0), ("y", 0.5, 0)]);
    node(&mut g, "Pad", Attrs::new().with("pads", Attr::Ints(vec![0; 8])), &[0], 1);
    assert_eq!(why(&lint(&g, Target::Nnapi(28))), ["Pad comes with API level 29"]);
    assert_eq!(lint(&g, Target::Nnapi(29)), []);
    let mut g = graph(&[("x", 0.5, 0), ("y", 0.5, 0)]);
    node(&mut g, "Erf", Attrs::new(), &[0], 1);
    assert_eq!(why(&lint(&g, Target::Tflite)), ["there is no Erf in 8 bits"]);
    let mut g = graph(&[("x", 0.5, 0), ("y", 0.5, 0)]);
    conv(&mut g, 0, &[0.01], 1);
    assert_eq!(lint(&g, Target::Nnapi(29)), []);
    g.values[1] = Value::new("y", DType::F32, &[1, 4, 1, 1]);
    assert_eq!(why(&lint(&g, Target::Nnapi(29))), ["Conv of codes gives codes there, not floats"]);
}
