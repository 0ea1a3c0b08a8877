//! One model gives the same outputs however it is run: from either file, on any number of threads,
//! with any kernels, in either layout, through codes or real numbers.

use std::path::Path;

use super::common::{Folder, example, float_model};
use daq::ops::{Attrs, Op};
use daq::{DType, Graph, Model, Node, Tensor, Value};
use daq_quant::npy::{Array, ArrayData};
use daq_quant::npz::{read_npz, write_npz};

/// The output array of an .npz file that `daq run` wrote.
fn output(f: &Folder, name: &str) -> ArrayData {
    let [(_, array)] = <[_; 1]>::try_from(read_npz(&f.path(name)).unwrap()).unwrap();
    array.data
}

#[test]
fn every_way_of_running_gives_the_same_codes() {
    let f = Folder::with_models();
    f.run(&["convert", "q.onnx", "nhwc.daq", "--input-layout", "nhwc"]).ok();
    let pictures = example("pictures");
    let ways: &[(&str, &[&str], &str)] = &[
        ("m.daq", &[], ""),
        ("q.onnx", &[], ""),
        ("m.daq", &["--threads", "2"], ""),
        ("q.onnx", &["--threads", "2"], ""),
        ("m.daq", &[], "scalar"),
        ("m.daq", &["--threads", "2"], "scalar"),
        ("nhwc.daq", &[], ""),
        ("m.daq", &["--quant-input"], ""),
        ("nhwc.daq", &["--quant-input", "--threads", "2"], ""),
    ];
    let mut first = Vec::new();
    for (model, flags, isa) in ways {
        let mut call = f.daq(&["run", model, &pictures, "--quant-output", "-o", "out.npz"]);
        if !isa.is_empty() {
            call.0.env("DAQ_ISA", isa);
        }
        call.daq_more(flags).ok();
        let bytes = f.read("out.npz");
        if first.is_empty() {
            let ArrayData::U8(codes) = output(&f, "out.npz") else { panic!("no codes") };
            assert_eq!(codes.len(), 200, "100 pictures, 2 classes");
            assert!(codes.iter().collect::<std::collections::BTreeSet<_>>().len() > 2);
            first = bytes;
        } else {
            assert!(bytes == first, "{model} {flags:?} {isa} gives other codes");
        }
    }
}

/// `real = (code - zero point) * scale`, of inputs and outputs, for four pictures.
#[test]
fn real_outputs_are_the_codes_dequantized() {
    let f = Folder::with_models();
    let pictures = example("pictures");
    let mut session = Model::open(f.path("m.daq")).unwrap().session(1);
    let quant = session.outputs()[0].quant.clone().unwrap();
    let run = |input: &[&str], output: &[&str]| {
        f.daq(&["run", "m.daq", &pictures, "-o", "out.npz"])
            .daq_more(&[input, output].concat())
            .ok();
        self::output(&f, "out.npz")
    };
    for input in [&[][..], &["--quant-input"]] {
        let ArrayData::U8(codes) = run(input, &["--quant-output"]) else { panic!("no codes") };
        let ArrayData::F32(reals) = run(input, &[]) else { panic!("no reals") };
        let wanted: Vec<f32> = codes.iter().map(|&c| quant.real(c.into())).collect();
        assert_eq!(reals, wanted, "{input:?}");
    }
    // A caller's own codes, with no daq code between: what the input's scale says they are.
    let port = session.inputs()[0].clone();
    let scale = port.quant.clone().unwrap();
    for seed in 0..4usize {
        let len = port.shape.iter().product();
        let codes: Vec<u8> = (0..len).map(|i| (i * (7 + seed) / 11 % 256) as u8).collect();
        let reals: Vec<f32> = codes
            .iter()
            .map(|&c| (i32::from(c) - scale.zero_point[0]) as f32 * scale.scale[0])
            .collect();
        let mut of_codes = |dtype| {
            let codes = Tensor::from_slice(&port.shape, &codes);
            session.run(&[(port.name.as_str(), &codes)], Some(dtype)).unwrap().remove(0)
        };
        let [codes_codes, codes_reals] = [DType::U8, DType::F32].map(&mut of_codes);
        let mut of_reals = |dtype| {
            let reals = Tensor::from_slice(&port.shape, &reals);
            session.run(&[(port.name.as_str(), &reals)], Some(dtype)).unwrap().remove(0)
        };
        let [reals_codes, reals_reals] = [DType::U8, DType::F32].map(&mut of_reals);
        assert_eq!(codes_codes.bytes(), reals_codes.bytes(), "{seed}");
        assert_eq!(codes_reals.bytes(), reals_reals.bytes(), "{seed}");
        let wanted: Vec<f32> =
            codes_codes.data::<u8>().iter().map(|&c| quant.real(c.into())).collect();
        assert_eq!(codes_reals.data::<f32>(), wanted, "{seed}");
    }
}

#[test]
fn a_changed_scale_changes_the_outputs_as_it_says() {
    let f = Folder::with_models();
    let table = String::from_utf8(f.read("table.txt")).unwrap();
    let name = "save_infer_model/scale_0.tmp_1 1 ";
    let line = table.lines().find(|l| l.starts_with(name)).unwrap();
    let scale: f32 = line[name.len()..].split(' ').next().unwrap().parse().unwrap();
    let doubled = line.replacen(&scale.to_string(), &(2.0 * scale).to_string(), 1);
    assert_ne!(doubled, line);
    f.write("doubled.txt", table.replacen(line, &doubled, 1));
    f.run(&["convert", "q.onnx", "doubled.daq", "doubled.txt"]).ok();
    let pictures = example("pictures");
    let codes = |model: &str| {
        f.run(&["run", model, &pictures, "--quant-output", "-o", "out.npz"]).ok();
        let ArrayData::U8(codes) = output(&f, "out.npz") else { panic!("no codes") };
        codes
    };
    // A step is twice as long: half as many, within the rounding of both.
    for (before, after) in codes("m.daq").into_iter().zip(codes("doubled.daq")) {
        assert!((f32::from(before) / 2.0 - f32::from(after)).abs() <= 1.0, "{before} {after}");
    }
    f.write("unknown.txt", format!("{table}nothing 1 0.5 1 0 quant8_asymm\n"));
    let ran = f.run(&["convert", "q.onnx", "unknown.daq", "unknown.txt"]);
    ran.fails(1, &["unknown.txt", "`nothing`"]);
    assert!(!f.path("unknown.daq").exists());
}

#[test]
fn parts_stay_in_float_where_asked() {
    let (model, pictures, settings) =
        (float_model(), example("pictures"), example("preprocess.toml"));
    // The flags, and an operator and its type afterwards: the first node of that operator.
    let cases: &[(&[&str], &str, &str)] = &[
        (&["--dequantize_after", "linear_1.tmp_1"], "Softmax", "f32"),
        (&["--dequantize_after", "relu_0.tmp_0"], "GlobalAveragePool", "f32"),
        (&["--quantize_after", "relu_1.tmp_0"], "HardSigmoid", "u8"),
        (&["--quantize_after", "conv2d_53.tmp_0"], "Conv", "f32"),
        (&["--float_input"], "Conv", "u8"),
        (&["--exclude", "MaxPool,Softmax"], "Softmax", "f32"),
        (&["--exclude", "linear_1.tmp_1"], "Gemm", "f32"),
        (&["--ops", "Conv,Gemm"], "Softmax", "f32"),
    ];
    let f = Folder::new();
    for (flags, op, dtype) in cases {
        let mut args = vec!["quantize", "--data", &pictures, "--preprocess", &settings];
        args.extend(["--samples", "20", "-o", "q.onnx"].iter().chain(*flags));
        args.extend([model.as_str(), "table.txt"]);
        f.run(&args).ok();
        f.run(&["convert", "q.onnx", "m.daq", "table.txt"]).ok();
        let nodes = f.run(&["inspect", "m.daq", "--json"]).ok().json()["nodes"].clone();
        let node = nodes.as_array().unwrap().iter().find(|n| n["op"] == *op).unwrap().clone();
        assert_eq!(node["type"], *dtype, "{flags:?}: {node}");
        let ran = f.run(&["eval", "m.daq", "--images", &pictures, "--reference", &model, "--json"]);
        let scores = ran.ok().json();
        assert!(scores["agreement"].as_f64().unwrap() >= 0.9, "{flags:?}: {scores}");
        // Both files are the same model, with parts in float too.
        let of = |model: &str| {
            f.run(&["run", model, &pictures, "-o", "out.npz"]).ok();
            f.read("out.npz")
        };
        assert!(of("m.daq") == of("q.onnx"), "{flags:?}: .daq and .onnx differ");
    }
}

/// `y = Relu(a + b)` with two inputs of one row each, as an .onnx file.
fn two_inputs(path: &Path) {
    let mut g = Graph { name: "two".into(), ..Graph::default() };
    let [a, b, s, y] =
        ["a", "b", "s", "y"].map(|n| g.add_value(Value::new(n, DType::F32, &[1, 4])));
    for (op, inputs, output) in [("Add", vec![a, b], s), ("Relu", vec![s], y)] {
        let name = format!("the_{op}");
        let op = Op::from_attrs(op, &Attrs::new()).unwrap().unwrap();
        let inputs = inputs.into_iter().map(Some).collect();
        g.nodes.push(Node { name, op, inputs, outputs: vec![output], doc: String::new() });
    }
    (g.inputs, g.outputs) = (vec![a, b], vec![y]);
    daq_quant::onnx::write(&g, path).unwrap();
}

#[test]
fn models_with_two_inputs_calibrate_on_arrays() {
    let f = Folder::new();
    two_inputs(&f.path("two.onnx"));
    std::fs::create_dir(f.path("arrays")).unwrap();
    let row = |v: [f32; 4]| Array::new(vec![1, 4], ArrayData::F32(v.to_vec()));
    for (i, (a, b)) in [([-1.0, 0.0, 1.0, 1.55], [0.0, 5.1, 1.0, 2.0]), ([0.5; 4], [0.0; 4])]
        .into_iter()
        .enumerate()
    {
        let path = f.path(&format!("arrays/{i}.npz"));
        write_npz(&path, [("a", &row(a)), ("b", &row(b))]).unwrap();
    }
    let args = ["quantize", "--data", "arrays", "--calibration", "minmax", "-o", "q.onnx"];
    f.daq(&args).daq_more(&["two.onnx", "t.txt"]).ok();
    f.run(&["convert", "q.onnx", "two.daq", "t.txt"]).ok();
    // Ranges -1..1.55, 0..5.1 and 0..5.1: 0.01 with zero point 100, 0.02, 0.02.
    let session = Model::open(f.path("two.daq")).unwrap().session(1);
    for (port, scale, zero_point) in [
        (session.inputs()[0], 0.01, 100),
        (session.inputs()[1], 0.02, 0),
        (session.outputs()[0], 0.02, 0),
    ] {
        let quant = port.quant.as_ref().unwrap();
        assert!((quant.scale[0] / scale - 1.0).abs() < 1e-5, "{} {quant:?}", port.name);
        assert_eq!(quant.zero_point, [zero_point], "{}", port.name);
    }
    // -1 + 0, 0 + 5.1, 1 + 1 and 1.55 + 2 in steps of 0.02; 3.55 is 177.5 steps.
    f.run(&["run", "two.daq", "arrays/0.npz", "--quant-output", "-o", "out.npz"]).ok();
    let ArrayData::U8(codes) = output(&f, "out.npz") else { panic!("no codes") };
    assert_eq!(codes[..3], [0, 255, 100]);
    assert!(codes[3] == 177 || codes[3] == 178, "{codes:?}");
    // A folder of .npy files has one array a sample, which is not enough here.
    std::fs::create_dir(f.path("single")).unwrap();
    row([0.0; 4]).write_npy(&f.path("single/a.npy")).unwrap();
    let ran = f.run(&["quantize", "--data", "single", "-o", "q2.onnx", "two.onnx", "t2.txt"]);
    ran.fails(1, &["single"]);
}
