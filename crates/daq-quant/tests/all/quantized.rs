//! Models that `daq quantize` made of the example, against onnxruntime without its optimisations,
//! where it computes QuantizeLinear/DequantizeLinear models in float.
//!
//! `tests/data/make_quantized_outputs.py` makes the models and writes onnxruntime's results.
//! At power-of-two scales float sums are exact, so every code of every tensor must be equal. At
//! other scales a float sum that is rounded off sometimes falls on the other side of a tie: in the
//! first layer few codes differ, by one step. Later layers multiply such differences, so that of the
//! whole model only the answers are compared.

use std::path::{Path, PathBuf};

use daq::{Model, Tensor};
use daq_quant::calibrate::Samples;
use daq_quant::npy::{Array, ArrayData};
use daq_quant::npz::read_npz;
use daq_quant::onnx::{ReadOptions, read};
use daq_quant::preprocess::Preprocess;
use daq_quant::samples::PreparedDataset;

/// Pictures of whose tensors the file of the power-of-two model holds hashes.
const HASHED: usize = 10;

/// What the first layer computes.
const FIRST: &str = "conv2d_53.tmp_0";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/quantized").join(name)
}

/// What onnxruntime computed: `outputs`, and tensors inside.
struct Expected {
    outputs: Vec<f32>,
    inside: Vec<(String, Array)>,
}

fn expected(name: &str) -> Expected {
    let mut inside = read_npz(&file(name)).unwrap();
    let at = inside.iter().position(|(n, _)| n == "outputs").unwrap();
    let ArrayData::F32(outputs) = inside.remove(at).1.data else { panic!("outputs are floats") };
    let bare = |n: String| n.split_once(' ').unwrap().1.to_string();
    Expected { outputs, inside: inside.into_iter().map(|(n, a)| (bare(n), a)).collect() }
}

/// For each picture, the model's output, and for the first `count` the codes of the tensors.
fn run(model: &str, tensors: &[&str], count: usize) -> (Vec<f32>, Vec<Vec<Vec<u8>>>) {
    let mut graph = daq_quant::qdq::fold(&read(file(model), &ReadOptions::default()).unwrap());
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/textlines");
    let settings = Preprocess::from_toml_file(&example.join("preprocess.toml")).unwrap();
    let data = PreparedDataset::open(&example.join("pictures"), &graph, settings).unwrap();
    let mut whole = Model::from_graph(graph.clone()).unwrap().session(2);
    let wanted = tensors.iter().map(|name| {
        // The model gives its last codes as floats: the quantizer before them has a name of its own.
        let name = name.trim_end_matches("_QuantizeLinear_Input");
        graph.find_value(name).expect(name)
    });
    graph.outputs = wanted.collect();
    let mut opened = Model::from_graph(graph).unwrap().session(2);
    let (mut outputs, mut inside) = (Vec::new(), Vec::new());
    for i in 0..data.len() {
        let sample = data.load(i).unwrap();
        let inputs: Vec<_> = sample.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let answer = whole.run(&inputs, Some(daq::DType::F32)).unwrap();
        outputs.extend_from_slice(answer[0].data::<f32>());
        if i < count {
            let codes = |t: &Tensor| t.data::<u8>().to_vec();
            inside.push(opened.run(&inputs, None).unwrap().iter().map(codes).collect());
        }
    }
    (outputs, inside)
}

/// The codes of tensor `i` for all pictures.
fn joined(inside: &[Vec<Vec<u8>>], i: usize) -> Vec<u8> {
    inside.iter().flat_map(|picture| picture[i].iter().copied()).collect()
}

fn top1_differences(a: &[f32], b: &[f32]) -> usize {
    let classes = |outputs: &[f32]| outputs.chunks(2).map(|p| p[1] > p[0]).collect::<Vec<_>>();
    classes(a).iter().zip(classes(b)).filter(|(a, b)| **a != *b).count()
}

#[test]
fn power_of_two_scales_give_onnxruntimes_codes() {
    let fnv = |codes: &[u8]| {
        let mix = |h: u64, &c: &u8| (h ^ u64::from(c)).wrapping_mul(0x100_0000_01b3);
        codes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
    };
    let expected = expected("power_of_two.npz");
    let names: Vec<&str> = expected.inside.iter().map(|(n, _)| n.as_str()).collect();
    assert!(names.len() > 100, "{names:?}");
    let (outputs, inside) = run("power_of_two.onnx", &names, HASHED);
    let mut wrong = Vec::new();
    for (i, (name, hash)) in expected.inside.iter().enumerate() {
        let ArrayData::I64(hash) = &hash.data else { panic!("hashes are integers") };
        if fnv(&joined(&inside, i)) != hash[0] as u64 {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{} of {} tensors differ: {wrong:?}", wrong.len(), names.len());
    // The Softmax at the end is float inside; its output is at a scale again.
    assert_eq!(outputs, expected.outputs);
}

#[test]
fn default_scales_give_onnxruntimes_codes_but_for_ties() {
    let expected = expected("default.npz");
    let names: Vec<&str> = expected.inside.iter().map(|(n, _)| n.as_str()).collect();
    assert!(names.len() > 4 && names.contains(&FIRST), "{names:?}");
    let (outputs, inside) = run("default.onnx", &names, 2);
    for (i, (name, codes)) in expected.inside.iter().enumerate() {
        let ArrayData::U8(codes) = &codes.data else { panic!("codes are bytes") };
        let ours = joined(&inside, i);
        assert_eq!(ours.len(), codes.len(), "{name}");
        let off: Vec<u8> = ours.iter().zip(codes).map(|(a, b)| a.abs_diff(*b)).collect();
        let wrong = off.iter().filter(|d| **d > 0).count();
        let most = off.iter().max().unwrap();
        println!("{name}: {wrong} of {} differ, by up to {most}", off.len());
        // One step in the first layer; what a following operator makes of that may be more.
        assert!(name != FIRST || *most <= 1, "{name}: codes differ by {most}");
        assert!(wrong * 1000 <= off.len(), "{name}: {wrong} of {} codes differ", off.len());
    }
    // 0.4 % of 100 pictures is none.
    assert_eq!(top1_differences(&outputs, &expected.outputs), 0);
}
