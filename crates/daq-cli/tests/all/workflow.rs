//! From a float model to an answer, with the example of the project.

use super::common::{Folder, example, float_model};
use daq::ops::{Attrs, Op};
use daq::{DType, Graph, Node, Value};

#[test]
fn quantize_convert_evaluate_run() {
    let f = Folder::new();
    let (pictures, settings, model) =
        (example("pictures"), example("preprocess.toml"), float_model());
    let before = std::fs::read(&model).unwrap();

    let args = ["quantize", "--image_dir", &pictures, "--preprocess", &settings, "--output"];
    let ran = f.daq(&args).daq_more(&["q.onnx", &model, "table.txt", "--json"]).ok();
    let summary = ran.json();
    assert_eq!(summary["samples"], 100);
    assert_eq!(summary["skipped"], serde_json::json!([]));
    assert!(summary["size_after"].as_u64() < summary["size_before"].as_u64(), "{summary}");
    assert!(summary["macs_8bit"].as_f64().unwrap() > 0.95, "{summary}");
    assert_eq!(summary["next"], "daq convert q.onnx ppocr_cls_static_48x192.daq table.txt");
    assert_eq!(std::fs::read(&model).unwrap(), before, "the input model changed");

    let ran = f.run(&["convert", "q.onnx", "m.daq", "table.txt"]).ok();
    assert!(ran.out.contains("the table changed 0 entries"), "{}", ran.out);
    assert!(f.read("m.daq").len() < before.len());

    let float =
        f.run(&["eval", &model, "--images", &pictures, "--preprocess", &settings, "--json"]);
    let float = float.ok().json();
    assert!(float["top1"].as_f64().unwrap() >= 0.97, "{float}");
    assert_eq!((&float["n"], &float["agreement"]), (&100.into(), &serde_json::Value::Null));

    // The preprocessing travels with the model: the .daq and the .onnx agree without flags.
    for quantized in ["m.daq", "q.onnx"] {
        let args = ["eval", quantized, "--images", &pictures, "--reference", &model, "--json"];
        let scores = f.run(&args).ok().json();
        assert!(scores["top1"].as_f64().unwrap() >= 0.95, "{scores}");
        assert!(scores["agreement"].as_f64().unwrap() >= 0.95, "{scores}");
        assert!(scores["sqnr_db"].as_f64().unwrap() > 10.0, "{scores}");
        assert!(scores["pictures_per_second"].as_f64().unwrap() > 0.0, "{scores}");
    }

    let picture = example("pictures/0001.jpg");
    let ran = f.run(&["run", "m.daq", &picture, "--labels", &example("classes.txt")]).ok();
    let best = ran.out.lines().nth(1).unwrap();
    assert!(best.ends_with("180 degrees"), "{}", ran.out);
}

#[test]
fn what_is_written_may_be_written_again() {
    let f = Folder::with_models();
    let pictures = example("pictures");
    let first = f.files();
    let args = ["quantize", "--data", &pictures, "--samples=4", "--preprocess"];
    f.daq(&args)
        .daq_more(&[&example("preprocess.toml"), "-o", "q.onnx", "m.onnx", "table.txt"])
        .ok();
    f.run(&["convert", "q.onnx", "m.daq", "table.txt"]).ok();
    assert_eq!(f.files(), first, "the same call gives the same bytes");
}

#[test]
fn every_spelling_of_every_flag() {
    let pictures = example("pictures");
    for dashed in [false, true] {
        let spell = |flag: &str| match dashed {
            true => flag.replace('_', "-"),
            false => flag.replace("pad-value", "pad_value"),
        };
        let f = Folder::new();
        std::fs::copy(float_model(), f.path("m.onnx")).unwrap();
        let (dir, workers, batch) =
            (spell("--image_dir"), spell("--num_workers"), spell("--batch_size"));
        let (after, before) = (spell("--dequantize_after"), spell("--quantize_after"));
        let (float_input, pad) = (spell("--float_input"), spell("--pad-value"));
        let args: Vec<&str> = vec![
            "quantize",
            &dir,
            &pictures,
            &workers,
            "2",
            &batch,
            "2",
            &float_input,
            &pad,
            "0",
            &after,
            "save_infer_model/scale_0.tmp_1",
            "--samples",
            "6",
            "--seed",
            "3",
            "--resize",
            "pad:right",
            "--color",
            "bgr",
            "--mean",
            "127.5",
            "--std=127.5,127.5,127.5",
            "--interpolation",
            "bilinear",
            "--size",
            "48x192",
            "--calibration",
            "minmax",
            "--weights",
            "per-tensor",
            "--exclude",
            "Softmax,Clip",
            "--exclude",
            "MaxPool",
            "--shape",
            "x=1,3,48,192",
            "m.onnx",
            "table.txt",
        ];
        f.run(&args).ok();
        let metadata = f.run(&["inspect", "quant-m.onnx", "--json"]).ok().json();
        assert_eq!(metadata["inputs"][0]["type"], "f32", "--float_input");
        assert_eq!(metadata["outputs"][0]["type"], "f32", "--dequantize_after the output");
        assert_eq!(metadata["preprocess"]["resize"], "pad:right");
        assert_eq!(metadata["preprocess"]["size"], "48x192");
        let text = f.run(&["inspect", "quant-m.onnx"]).ok().out;
        assert!(text.contains("excluded by --exclude MaxPool"), "{text}");
        // The tensors in the middle of the model are named as in the float one.
        let nodes = metadata["nodes"].as_array().unwrap();
        let tensor = nodes.iter().find(|n| n["op"] == "Conv").unwrap();
        // It reads codes, and gives floats to a Clip in float.
        assert!(tensor["type"] == "f32" && tensor["codes"] == true, "{tensor}");
        let unknown = f.run(&["quantize", &dir, &pictures, &before, "nothing", "m.onnx", "t.txt"]);
        unknown.fails(1, &["--quantize_after nothing", "no such tensor"]);
    }
}

#[test]
fn weights_calibration_and_ops_change_the_model() {
    let f = Folder::new();
    let (model, pictures, settings) =
        (float_model(), example("pictures"), example("preprocess.toml"));
    let mut made = std::collections::BTreeSet::new();
    let variants: &[&[&str]] = &[
        &[],
        &["--weights", "per_tensor"],
        &["--weights", "asymm"],
        &["--calibration", "percentile:99"],
        &["--calibration", "minmax"],
        &["--power-of-two-scales"],
        &["--power_of_two_scales", "--weights", "asymm"],
        &["--format", "qoperator"],
        &["--ops", "Conv"],
        &["--float_input"],
        &["--seed", "1"],
    ];
    for (i, variant) in variants.iter().enumerate() {
        let name = format!("q{i}.onnx");
        let mut args =
            vec!["quantize", "--image_dir", &pictures, "--preprocess", &settings, "--samples", "5"];
        args.extend(*variant);
        args.extend(["-o", &name, &model, "table.txt", "--force"]);
        f.run(&args).ok();
        made.insert(f.read(&name));
        // However it was quantized, the table fits and the model works.
        f.run(&["convert", &name, "m.daq", "table.txt"]).ok();
        let scores = f.run(&["eval", "m.daq", "--images", &pictures, "--json"]).ok().json();
        assert!(scores["top1"].as_f64().unwrap() > 0.6, "{variant:?}: {scores}");
    }
    assert_eq!(made.len(), variants.len(), "two variants gave the same model");
}

/// An operator that was excluded between two 8-bit tensors is float in every later form, and what
/// follows it is 8-bit again.
#[test]
fn excluded_operators_stay_float() {
    let f = Folder::new();
    let (model, pictures, settings) =
        (float_model(), example("pictures"), example("preprocess.toml"));
    for format in ["qdq", "qoperator"] {
        let args =
            ["quantize", "--image_dir", &pictures, "--preprocess", &settings, "--samples", "5"];
        let more = ["--exclude", "MaxPool,GlobalAveragePool,HardSigmoid@1", "--format", format];
        let files = ["--force", "-o", "q.onnx", &model, "table.txt"];
        let ran = f.daq(&[&args[..], &more, &files].concat()).daq_more(&["--json"]).ok().json();
        let in_float = ran["float_operators"].as_array().unwrap();
        assert_eq!(in_float.iter().filter(|n| n["op"] == "GlobalAveragePool").count(), 10);
        let ran = f.run(&["convert", "q.onnx", "m.daq", "table.txt"]).ok();
        assert!(ran.out.contains("the table changed 0 entries"), "{}", ran.out);
        for file in ["q.onnx", "m.daq"] {
            let inspected = f.run(&["inspect", file, "--json"]).ok().json();
            let nodes = inspected["nodes"].as_array().unwrap();
            for n in nodes {
                let (name, op) = (n["name"].as_str().unwrap(), n["op"].as_str().unwrap());
                let excluded =
                    matches!(op, "MaxPool" | "GlobalAveragePool") || name == "HardSigmoid@1";
                if excluded {
                    assert_eq!((&n["type"], &n["codes"]), (&"f32".into(), &false.into()), "{n}");
                    let why = n["float_because"].as_str().unwrap();
                    assert!(why.starts_with("excluded by --exclude"), "{n}");
                } else if matches!(op, "Conv" | "Add" | "Mul" | "HardSigmoid" | "Gemm" | "Softmax")
                {
                    // A convolution gives floats to an operator in float, and multiplies codes.
                    let gives = if n["type"] == "f32" && op == "Conv" { "f32" } else { "u8" };
                    assert_eq!((&n["type"], &n["codes"]), (&gives.into(), &true.into()), "{n}");
                    assert_eq!(n["float_because"], serde_json::Value::Null, "{n}");
                }
            }
            let count = |op: &str| nodes.iter().filter(|n| n["op"] == op).count();
            assert_eq!((count("MaxPool"), count("GlobalAveragePool")), (1, 10), "{file}");
            assert!(nodes.iter().any(|n| n["op"] == "Conv" && n["type"] == "f32"), "{file}");
        }
        let scores = f.run(&["eval", "m.daq", "--images", &pictures, "--json"]).ok().json();
        assert!(scores["top1"].as_f64().unwrap() > 0.9, "{format}: {scores}");
    }
}

#[test]
fn table_overrides_scales() {
    let f = Folder::with_models();
    let table = String::from_utf8(f.read("table.txt")).unwrap();
    let line = table.lines().next().unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let scale: f32 = words[2].parse().unwrap();
    let other = line.replacen(words[2], &(scale * 2.0).to_string(), 1);
    f.write("other.txt", table.replacen(line, &other, 1));
    let ran = f.run(&["convert", "q.onnx", "other.daq", "other.txt"]).ok();
    assert!(ran.out.contains("the table changed 1 entry"), "{}", ran.out);
    assert_ne!(f.read("other.daq"), f.read("m.daq"));
}

#[test]
fn layouts_and_class_names_are_kept() {
    let f = Folder::with_models();
    let classes = example("classes.txt");
    let args = ["convert", "q.onnx", "nhwc.daq", "--input-layout", "nhwc", "--labels", &classes];
    f.run(&args).ok();
    let shape = |model: &str| f.run(&["inspect", model, "--json"]).ok().json()["inputs"][0].clone();
    assert_eq!(shape("nhwc.daq")["shape"], serde_json::json!([1, 48, 192, 3]));
    assert_eq!(shape("nhwc.daq")["layout"], "NHWC");
    assert_eq!(shape("m.daq")["shape"], serde_json::json!([1, 3, 48, 192]));
    let scores = |model: &str| f.run(&["run", model, "p.jpg"]).ok().out;
    assert!(scores("nhwc.daq").contains("0 degrees"), "{}", scores("nhwc.daq"));
    let bare = |s: String| s.replace("180 degrees", "").replace("0 degrees", "").replace(' ', "");
    assert_eq!(bare(scores("nhwc.daq")), bare(scores("m.daq")));
}

#[test]
fn arrays_serve_as_well_as_pictures() {
    let f = Folder::with_models();
    // One picture's tensor: what the model sees of p.jpg is not needed, any numbers do.
    let data: Vec<u8> =
        (0..3 * 48 * 192).flat_map(|i| ((i % 200) as f32 / 100.0 - 1.0).to_le_bytes()).collect();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 48, 192), }";
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(format!("{header:<117}\n").bytes());
    npy.extend(&data);
    std::fs::create_dir(f.path("arrays")).unwrap();
    f.write("arrays/a.npy", npy);
    f.run(&["quantize", "--data", "arrays", "-o", "qa.onnx", "m.onnx", "ta.txt"]).ok();
    let inspected = f.run(&["inspect", "qa.onnx", "--json"]).ok().json();
    assert_eq!(inspected["preprocess"], serde_json::Value::Null, "arrays need none");

    f.run(&["run", "m.daq", "arrays", "-o", "out.npz"]).ok();
    let codes =
        f.run(&["run", "m.daq", "arrays", "--quant-input", "--quant-output", "--json"]).ok();
    assert_eq!(codes.json()[0]["outputs"][0]["type"], "u8");
    let real = f.run(&["run", "m.daq", "arrays", "--quant-input", "--json"]).ok().json();
    assert_eq!(real[0]["outputs"][0]["type"], "f32");
    // The written outputs can be read and compared: codes in give what numbers in give.
    f.run(&["run", "m.daq", "arrays", "--quant_input", "-o", "again.npz"]).ok();
    assert_eq!(f.read("out.npz"), f.read("again.npz"));
}

#[test]
fn with_dynamic_each_picture_has_its_own_size() {
    let f = Folder::new();
    let mut g = Graph { name: "tiny".into(), ..Graph::default() };
    let [x, y] = ["x", "y"].map(|name| g.add_value(Value::new(name, DType::F32, &[1, 3, 8, 8])));
    let op = Op::from_attrs("Relu", &Attrs::new()).unwrap().unwrap();
    let (inputs, outputs) = (vec![Some(x)], vec![y]);
    g.nodes.push(Node { name: "relu".into(), op, inputs, outputs, doc: String::new() });
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    let open = ["x", "y"].map(|name| (name.to_owned(), vec![2, 3])).into();
    daq_quant::onnx::write_open(&g, f.path("m.onnx"), &open).unwrap();

    std::fs::create_dir_all(f.path("pics/more")).unwrap();
    let pixel = |x: u32, y: u32| image::Rgb([x as u8, y as u8, 100 + (x * y) as u8]);
    let picture = |w, h| image::RgbImage::from_fn(w, h, pixel);
    picture(6, 4).save(f.path("pics/a.png")).unwrap();
    picture(9, 3).save(f.path("pics/more/b.png")).unwrap();
    let run = |flags: &[&str]| {
        f.daq(&["run", "m.onnx", "pics", "--dynamic", "--mean", "0", "--std", "1"]).daq_more(flags)
    };
    let shapes = |flags: &[&str]| {
        let said = run(flags).ok().json();
        [0, 1].map(|i| said[i]["outputs"][0]["shape"].to_string())
    };
    assert_eq!(shapes(&["--json", "-o", "out.npz"]), ["[1,3,4,6]", "[1,3,3,9]"]);
    let out = daq_quant::npz::read_npz(&f.path("out.npz")).unwrap();
    for (name, w, h) in [("y/a", 6u32, 4u32), ("y/b", 9, 3)] {
        let (_, array) = out.iter().find(|(n, _)| n == name).unwrap();
        let at = |i: u32| pixel(i % w, i / w % h).0[(i / (w * h)) as usize];
        let want: Vec<f32> = (0..3 * w * h).map(|i| f32::from(at(i))).collect();
        assert_eq!(array.data, want.into(), "{name}");
    }
    assert_eq!(shapes(&["--json", "--size", "2x?"]), ["[1,3,2,3]", "[1,3,2,6]"]);
    assert_eq!(shapes(&["--json", "--size", "5x4"]), ["[1,3,5,4]"; 2]);
    f.run(&["run", "m.onnx", "pics"]).fails(1, &["the shape is not fixed", "--shape x="]);

    f.write("pics/c.png", "no picture");
    run(&[]).fails(1, &["error: pics/c.png: cannot decode the picture", "1 of 3 could not be run"]);
    picture(1, 1).save(f.path("pics/more/a.png")).unwrap();
    run(&["-o", "two.npz"]).fails(1, &["two files are called `a`"]);
    run(&["--quant-input"]).fails(2, &["--quant-input"]);
}

#[test]
fn pictures_that_cannot_be_decoded_are_skipped_and_named() {
    let f = Folder::with_models();
    std::fs::create_dir(f.path("pictures")).unwrap();
    std::fs::copy(f.path("p.jpg"), f.path("pictures/good.jpg")).unwrap();
    let half = f.read("p.jpg");
    f.write("pictures/half.jpg", &half[..half.len() / 2]);
    f.write("pictures/text.png", "not a picture");
    f.write("pictures/empty.jpg", "");
    let args = ["quantize", "--image_dir", "pictures", "m.onnx", "t.txt", "-o", "q2.onnx"];
    let ran = f.daq(&args).daq_more(&["--json"]).ok();
    assert_eq!(ran.json()["samples"], 1);
    let skipped = ran.json()["skipped"].to_string();
    for name in ["half.jpg", "text.png", "empty.jpg"] {
        assert!(ran.err.contains(name) && skipped.contains(name), "{}\n{skipped}", ran.err);
    }
    let ran = f.run(&["eval", "m.daq", "--images", "pictures", "--reference", "m.onnx", "--json"]);
    let ran = ran.ok().json();
    assert_eq!((&ran["n"], ran["skipped"].as_array().unwrap().len()), (&1.into(), 3));
    // A run says which inputs failed, shows the others, and fails.
    let ran = f.run(&["run", "m.daq", "pictures"]).fails(1, &["half.jpg", "3 of 4 could not"]);
    assert!(ran.out.contains("good.jpg"), "{}", ran.out);
}

#[test]
fn inspect_shows_operators_and_reasons() {
    let f = Folder::with_models();
    let ran = f.run(&["inspect", "m.daq"]).ok();
    for part in ["Conv", "in 8 bits", "HardSigmoid", "x: 1x3x48x192 u8", "MACs"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let operators = f.run(&["inspect", "--operators"]).ok().out;
    assert!(operators.lines().any(|l| l.starts_with("Conv ")), "{operators}");
    let json = f.run(&["inspect", "--operators", "--json"]).ok().json();
    let lines = operators.lines().count();
    assert_eq!(json.as_array().unwrap().len() + 1, lines);
}

#[test]
fn bench_measures_and_profiles() {
    let f = Folder::with_models();
    let args = ["bench", "m.daq", "--runs", "3", "--warmup", "1", "--threads", "2", "--profile"];
    let text = f.run(&args).ok().out;
    assert!(text.contains("median") && text.contains("GMAC/s") && text.contains("total"), "{text}");
    let json = f.daq(&args).daq_more(&["--json"]).ok().json();
    let time = |key: &str| json[key].as_f64().unwrap();
    assert!(time("load_ms") > 0.0 && time("min_ms") > 0.0, "{json}");
    assert!(time("median_ms") >= time("min_ms"), "{json}");
    let steps = json["steps"].as_array().unwrap();
    let macs: u64 = steps.iter().map(|s| s["macs"].as_u64().unwrap()).sum();
    assert_eq!(json["macs"], macs);
}

#[test]
fn statistics_of_parts_merge_to_the_bytes_of_one_run() {
    let f = Folder::with_models();
    let (pictures, settings) = (example("pictures"), example("preprocess.toml"));
    let calibrate = |more: &[&str]| {
        let args =
            ["calibrate", "--image_dir", &pictures, "--samples", "12", "--preprocess", &settings];
        f.daq(&args).daq_more(more).ok()
    };
    calibrate(&["m.onnx", "whole.json"]);
    for i in 1..=4 {
        calibrate(&["--shard", &format!("{i}/4"), "m.onnx", &format!("part{i}.json")]);
    }
    f.run(&["merge", "part3.json", "part1.json", "part4.json", "part2.json", "-o", "all.json"])
        .ok();
    assert_eq!(f.read("all.json"), f.read("whole.json"));
    for method in ["minmax", "average", "percentile", "entropy", "mse"] {
        let args = [
            "quantize",
            "--statistics",
            "all.json",
            "--calibration",
            method,
            "--force",
            "-o",
            "a.onnx",
        ];
        f.daq(&args).daq_more(&["m.onnx", "a.txt"]).ok();
        let args = [
            "quantize",
            "--data",
            &pictures,
            "--samples",
            "12",
            "--calibration",
            method,
            "--force",
        ];
        f.daq(&args)
            .daq_more(&[
                "--recovery",
                "none",
                "--preprocess",
                &settings,
                "-o",
                "b.onnx",
                "m.onnx",
                "b.txt",
            ])
            .ok();
        assert_eq!(f.read("a.txt"), f.read("b.txt"), "{method}");
    }
    let auto = ["quantize", "--statistics", "all.json", "--calibration", "auto", "m.onnx", "a.txt"];
    f.run(&auto).fails(2, &["--image_dir"]);
    f.run(&["quantize", "--statistics", "table.txt", "m.onnx", "a.txt"])
        .fails(1, &["not statistics"]);
    f.run(&["merge", "part1.json", "-o", "part1.json"]).fails(1, &["it is the input"]);
    f.run(&["merge", "part1.json", "part2.json", "part1.json", "-o", "twice.json"])
        .fails(1, &["part1.json and part1.json are the same statistics"]);
    calibrate(&["m.onnx", "whole.json"]);
}

#[test]
fn a_target_is_reached_or_said_not_to_be() {
    let f = Folder::with_models();
    let (pictures, settings) = (example("pictures"), example("preprocess.toml"));
    let quantize = |more: &[&str]| {
        let args = [
            "quantize",
            "--data",
            &pictures,
            "--samples",
            "18",
            "--preprocess",
            &settings,
            "--json",
        ];
        f.daq(&args).daq_more(&[&["-o", "t.onnx", "m.onnx", "t.txt"], more].concat()).ok()
    };
    let ran = quantize(&["--target-sqnr", "5"]);
    let summary = ran.json();
    assert_eq!(summary["target"]["reached"], true, "{summary}");
    assert_eq!(summary["target"]["held_back"], 6, "{summary}");
    assert!(summary["target"]["sqnr_db"].as_f64() >= Some(5.0), "{summary}");
    assert!(ran.err.contains("SQNR"), "{}", ran.err);
    // Nothing new begins after no time at all: the first recipe is the best.
    let summary = quantize(&["--target-sqnr", "190", "--time-budget", "0"]).json();
    assert_eq!(summary["target"]["reached"], false, "{summary}");
    assert_eq!(summary["operators"], summary["operators_8bit"]);
    let wrong = |more: &[&str], parts: &[&str]| {
        let args = ["quantize", "--data", &pictures, "m.onnx", "t.txt"];
        f.daq(&args).daq_more(more).fails(2, parts);
    };
    wrong(&["--time-budget", "5"], &["--target-agreement"]);
    wrong(&["--target-agreement", "1.5"], &["from 0 to 1"]);
    let few = ["quantize", "--data", ".", "--target-sqnr", "20", "m.onnx", "t.txt"];
    f.run(&few).fails(2, &["at least 6"]);
    wrong(&["--target-sqnr", "20", "--target-agreement", "0.9"], &["cannot be used with"]);
}
