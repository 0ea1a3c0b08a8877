//! Bad input: the message says what is wrong and what to do, the exit code is not 0, and no file is
//! changed or left behind.

use super::common::{Folder, example};
use daq::ops::{Attrs, Op};
use daq::{DType, Graph, Node, Tensor, Value};

/// `y = Relu(Conv(x))` on 1x3x8x8 with these weights, as an .onnx file in the folder.
fn tiny(f: &Folder, name: &str, weight: f32) {
    let mut g = Graph { name: "tiny".into(), ..Graph::default() };
    let x = g.add_value(Value::new("x", DType::F32, &[1, 3, 8, 8]));
    let w = g.add_value(Value::constant("w", Tensor::from_slice(&[2, 3, 1, 1], &[weight; 6])));
    let c = g.add_value(Value::new("c", DType::F32, &[1, 2, 8, 8]));
    let y = g.add_value(Value::new("y", DType::F32, &[1, 2, 8, 8]));
    for (op, inputs, output) in [("Conv", vec![x, w], c), ("Relu", vec![c], y)] {
        let op = Op::from_attrs(op, &Attrs::new()).unwrap().unwrap();
        let inputs = inputs.into_iter().map(Some).collect();
        let name = format!("the_{}", op.name());
        g.nodes.push(Node { name, op, inputs, outputs: vec![output], doc: String::new() });
    }
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    daq_quant::onnx::write(&g, f.path(name)).unwrap();
}

/// Runs each case and checks that it fails as it should and leaves all files as they were.
#[track_caller]
fn fail_all(f: &Folder, cases: &[(&[&str], &[&str])]) {
    let before = f.files();
    for (args, parts) in cases {
        let ran = f.run(args).fails(1, parts);
        assert!(ran.err.lines().last().unwrap_or_default().starts_with("error: "), "{}", ran.err);
        assert_eq!(f.files().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert!(f.files() == before, "{args:?} changed a file");
    }
}

#[test]
fn damaged_files() {
    let f = Folder::with_models();
    let (onnx, daq, table) = (f.read("m.onnx"), f.read("m.daq"), f.read("table.txt"));
    let mut flipped = daq.clone();
    flipped[daq.len() / 2] ^= 4;
    f.write("flipped.daq", flipped);
    f.write("half.daq", &daq[..daq.len() / 2]);
    f.write("half.onnx", &onnx[..onnx.len() / 2]);
    f.write("half.txt", &table[..table.len() / 2]);
    f.write("half.jpg", &f.read("p.jpg")[..500]);
    for name in ["empty.onnx", "empty.daq", "empty.txt", "empty.jpg", "empty.npy"] {
        f.write(name, "");
    }
    f.write("text.onnx", "this is not a model, but some text that is a little longer");
    f.write("bytes.txt", [0xff, 0xfe, 0, 7]);
    let cases: &[(&[&str], &[&str])] = &[
        (&["inspect", "flipped.daq"], &["flipped.daq"]),
        (&["inspect", "half.daq"], &["half.daq"]),
        (&["inspect", "half.onnx"], &["half.onnx"]),
        (&["inspect", "empty.onnx"], &["empty.onnx"]),
        (&["inspect", "empty.daq"], &["empty.daq"]),
        (&["inspect", "text.onnx"], &["text.onnx"]),
        (&["inspect", "p.jpg"], &["p.jpg"]),
        (&["run", "half.onnx", "p.jpg"], &["half.onnx"]),
        (&["bench", "half.daq"], &["half.daq"]),
        (&["eval", "half.daq", "--images", ".", "--reference", "m.onnx"], &["half.daq"]),
        (&["quantize", "--image_dir", ".", "half.onnx", "new.txt"], &["half.onnx"]),
        (&["convert", "half.onnx", "new.daq"], &["half.onnx"]),
        (&["convert", "q.onnx", "new.daq", "half.txt"], &["half.txt", "line"]),
        (&["convert", "q.onnx", "new.daq", "empty.txt"], &["empty.txt", "no entry"]),
        (&["convert", "q.onnx", "new.daq", "bytes.txt"], &["bytes.txt", "not text"]),
        (&["convert", "q.onnx", "new.daq", "--labels", "empty.txt"], &["empty.txt"]),
        (&["run", "m.daq", "half.jpg"], &["half.jpg", "could not be run"]),
        (&["run", "m.daq", "empty.jpg"], &["empty.jpg"]),
        (&["run", "m.daq", "empty.npy"], &["empty.npy"]),
        (&["quantize", "--image_dir", "half.jpg", "m.onnx", "new.txt"], &["half.jpg", "none of"]),
    ];
    fail_all(&f, cases);
}

#[test]
fn flipped_bits_never_panic() {
    let f = Folder::with_models();
    for name in ["m.daq", "q.onnx", "table.txt", "p.jpg"] {
        let good = f.read(name);
        for i in 0..24 {
            let mut bad = good.clone();
            bad[i * good.len() / 24] ^= 1 << (i % 8);
            let bad_name = f.write(&format!("bad-{name}"), bad);
            let ran = match name {
                "table.txt" => f.run(&["convert", "q.onnx", "bad.daq", &bad_name, "--force"]),
                "p.jpg" => f.run(&["run", "m.daq", &bad_name]),
                _ => f.run(&["inspect", &bad_name]),
            };
            assert!(matches!(ran.code, Some(0 | 1)), "{ran:?}");
            assert!(name != "m.daq" || ran.code == Some(1), "a checksum missed bit {i}");
        }
    }
}

#[test]
fn missing_and_empty_folders() {
    let f = Folder::with_models();
    std::fs::create_dir(f.path("nothing")).unwrap();
    f.write("nothing/readme.txt", "no picture");
    let cases: &[(&[&str], &[&str])] = &[
        (&["inspect", "missing.onnx"], &["missing.onnx", "No such file"]),
        (&["inspect", "missing.daq"], &["missing.daq", "No such file"]),
        (&["inspect", "nothing"], &["nothing", "folder"]),
        (
            &["quantize", "--image_dir", "missing", "m.onnx", "new.txt"],
            &["missing", "No such file"],
        ),
        (&["quantize", "--image_dir", "nothing", "m.onnx", "new.txt"], &["nothing", ".jpg"]),
        (&["eval", "m.daq", "--images", "nothing", "--reference", "m.onnx"], &["nothing", ".jpg"]),
        (&["eval", "m.daq", "--images", ".", "--labels", "missing"], &["missing"]),
        (&["run", "m.daq", "missing.jpg"], &["missing.jpg"]),
        (&["run", "m.daq", "nothing"], &["nothing", ".jpg"]),
        (&["convert", "q.onnx", "new.daq", "missing.txt"], &["missing.txt"]),
        (
            &["quantize", "--image_dir", ".", "--preprocess", "no.toml", "m.onnx", "new.txt"],
            &["no.toml"],
        ),
    ];
    fail_all(&f, cases);
}

#[test]
fn models_that_cannot_be_used() {
    let f = Folder::with_models();
    tiny(&f, "tiny.onnx", 1.0);
    tiny(&f, "nan.onnx", f32::NAN);
    let bytes = f.read("tiny.onnx");
    let at = bytes.windows(6).position(|w| w == b"\x22\x04Relu").expect("the operator's type");
    let mut unknown = bytes.clone();
    unknown[at + 5] = b'y';
    f.write("unknown.onnx", unknown);
    f.write("foreign.txt", "no_such_tensor 1 0.5 1 0 quant8_asymm\n");
    f.write("float.txt", "y 1 0.5 1 0 quant8_asymm\n");
    let quantize = |model| ["quantize", "--image_dir", "p.jpg", model, "new.txt"];
    let cases: &[(&[&str], &[&str])] = &[
        (&["inspect", "unknown.onnx"], &["the_Relu", "Rely", "opset 17", "--operators"]),
        (&quantize("unknown.onnx"), &["Rely"]),
        // Before calibration, which would only see that values become NaN.
        (&quantize("nan.onnx"), &["weight `w` of node `the_Conv`", "NaN"]),
        (&["run", "nan.onnx", "p.jpg"], &["p.jpg", "output `y` became NaN"]),
        (
            &["eval", "nan.onnx", "--images", "p.jpg", "--reference", "tiny.onnx"],
            &["model gave NaN"],
        ),
        (
            &["eval", "tiny.onnx", "--images", "p.jpg", "--reference", "nan.onnx"],
            &["reference gave NaN"],
        ),
        (&quantize("q.onnx"), &["quantized already"]),
        (&quantize("m.daq"), &["m.daq", "float .onnx model"]),
        (&["inspect", "tiny.onnx", "--shape", "x=1,4,8,8"], &["the_Conv"]),
        (&["inspect", "tiny.onnx", "--shape", "z=1,3,8,8"], &["z", "x"]),
        (&["convert", "q.onnx", "new.daq", "foreign.txt"], &["no_such_tensor", "another model"]),
        (&["convert", "m.onnx", "new.daq", "float.txt"], &["float model", "daq quantize"]),
        (&["run", "m.onnx", "p.jpg", "--quant-input"], &["no scale", "quantized model"]),
        (&["run", "m.onnx", "p.jpg", "--quant-output"], &["no scale"]),
        (
            &["eval", "m.daq", "--images", "p.jpg", "--reference", "tiny.onnx"],
            &["tiny.onnx", "compared"],
        ),
        (
            &["quantize", "--image_dir", "p.jpg", "--exclude", "nobody", "m.onnx", "new.txt"],
            &["--exclude nobody", "daq inspect"],
        ),
    ];
    fail_all(&f, cases);
    // Scores for pictures outside of the labels, and labels beyond the classes.
    f.write("other.txt", "elsewhere.jpg 1\n");
    f.write("high.txt", "p.jpg 7\n");
    let cases: &[(&[&str], &[&str])] = &[
        (&["eval", "m.daq", "--images", ".", "--labels", "other.txt"], &["no label is for a file"]),
        (&["eval", "m.daq", "--images", ".", "--labels", "high.txt"], &["class 7", "2 classes"]),
    ];
    fail_all(&f, cases);
}

#[test]
fn scales_that_cannot_be_name_their_node() {
    let f = Folder::with_models();
    let graph = daq_quant::onnx::read(f.path("q.onnx"), &Default::default()).unwrap();
    let quant = |id: &usize| graph.values[*id].quant.clone();
    let quantized = graph.nodes.iter().flat_map(|n| &n.outputs).filter_map(quant);
    let scales: Vec<f32> = quantized.take(2).map(|quant| quant.scale[0]).collect();
    let scale = scales[0];
    let bytes = f.read("q.onnx");
    let place = |scale: f32| bytes.windows(4).position(|w| w == scale.to_le_bytes());
    let at = place(scale).expect("the scale");
    for bad in [0.0, -scale, f32::NAN, f32::NEG_INFINITY] {
        let mut changed = bytes.clone();
        changed[at..at + 4].copy_from_slice(&bad.to_le_bytes());
        f.write("bad.onnx", changed);
        let said = format!("a scale of {bad}");
        let parts = ["bad.onnx: node `", "(QuantizeLinear, opset", &said];
        let cases: &[(&[&str], &[&str])] = &[
            (&["inspect", "bad.onnx"], &parts),
            (&["run", "bad.onnx", "p.jpg"], &parts),
            (&["convert", "bad.onnx", "new.daq", "table.txt"], &parts),
        ];
        fail_all(&f, cases);
    }
    // That of the first Conv's output: positive, but its inverse is infinite.
    let mut changed = bytes.clone();
    let at = place(scales[1]).expect("the scale");
    changed[at..at + 4].copy_from_slice(&f32::from_bits(1).to_le_bytes());
    f.write("bad.onnx", changed);
    let parts = ["node `", "(QuantizeLinear, opset", "a scale of 1e-45"];
    let cases: &[(&[&str], &[&str])] = &[
        (&["inspect", "bad.onnx"], &parts),
        (&["inspect", "--islands", "bad.onnx"], &parts),
        (&["run", "bad.onnx", "p.jpg"], &parts),
    ];
    fail_all(&f, cases);
}

#[test]
fn arrays_of_wrong_shape_or_type() {
    let f = Folder::with_models();
    let npy = |name: &str, descr: &str, shape: &str, bytes: usize| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        file.extend(format!("{header:<117}\n").bytes());
        file.extend(vec![0; bytes]);
        f.write(name, file);
    };
    npy("small.npy", "<f4", "(1, 3, 8, 8)", 4 * 3 * 64);
    npy("codes.npy", "|u1", "(1, 3, 48, 192)", 3 * 48 * 192);
    npy("long.npy", "<i8", "(1, 3, 48, 192)", 8 * 3 * 48 * 192);
    npy("short.npy", "<f4", "(1, 3, 48, 192)", 100);
    npy("huge.npy", "<f4", "(1, 3, 48000000, 19200000000)", 100);
    let cases: &[(&[&str], &[&str])] = &[
        (&["run", "m.daq", "small.npy"], &["small.npy", "48, 192"]),
        (&["run", "m.daq", "codes.npy"], &["codes.npy", "--quant-input"]),
        (&["run", "m.daq", "long.npy"], &["long.npy", "i64"]),
        (&["run", "m.daq", "short.npy"], &["short.npy"]),
        (&["run", "m.daq", "huge.npy"], &["huge.npy"]),
        (&["quantize", "--data", "small.npy", "m.onnx", "new.txt"], &["small.npy"]),
        (&["quantize", "--data", "long.npy", "m.onnx", "new.txt"], &["i64"]),
    ];
    fail_all(&f, cases);
    f.run(&["run", "m.daq", "codes.npy", "--quant-input"]).ok();
}

#[test]
fn arrays_that_hold_no_numbers() {
    let f = Folder::with_models();
    std::fs::create_dir(f.path("arrays")).unwrap();
    let npy = |name: &str, last: f32| {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 48, 192), }";
        let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        file.extend(format!("{header:<117}\n").bytes());
        file.extend(vec![0; 4 * (3 * 48 * 192 - 1)]);
        file.extend(last.to_le_bytes());
        f.write(name, file);
    };
    npy("nan.npy", f32::NAN);
    npy("inf.npy", f32::NEG_INFINITY);
    let why = "its input `x` holds NaN or infinity";
    let cases: &[(&[&str], &[&str])] = &[
        (&["run", "m.daq", "nan.npy"], &["nan.npy", why]),
        (&["run", "m.onnx", "inf.npy"], &["inf.npy", why]),
        (&["run", "m.daq", "nan.npy", "--quant-input"], &["nan.npy", why]),
        (&["eval", "m.daq", "--images", "nan.npy", "--reference", "m.onnx"], &["nan.npy", why]),
        (&["quantize", "--data", "nan.npy", "m.onnx", "new.txt"], &["nan.npy", why]),
    ];
    fail_all(&f, cases);
    // Among good ones they are skipped, named and counted.
    npy("arrays/good.npy", 0.5);
    npy("arrays/nan.npy", f32::NAN);
    let args = ["eval", "m.daq", "--images", "arrays", "--reference", "m.onnx", "--json"];
    let scores = f.run(&args).ok().json();
    assert_eq!((&scores["n"], scores["skipped"].as_array().unwrap().len()), (&1.into(), 1));
    assert!(scores["skipped"][0]["why"].as_str().unwrap().contains(why), "{scores}");
}

#[test]
fn outputs_that_must_not_be_written() {
    let f = Folder::with_models();
    f.write("notes.txt", "my notes\n");
    f.write("theirs.onnx", f.read("m.onnx"));
    f.write("notes.npz", "my notes\n");
    let base = ["quantize", "--image_dir", "p.jpg", "m.onnx"];
    let with = |more: &[&'static str]| [&base[..], more].concat();
    let cases: Vec<(Vec<&str>, &[&str])> = vec![
        (with(&["no/table.txt"]), &["no/table.txt", "does not exist"]),
        (with(&["p.jpg/table.txt"]), &["p.jpg/table.txt"]),
        (with(&["."]), &["folder"]),
        (with(&["notes.txt"]), &["notes.txt", "not a table", "--force"]),
        (with(&["m.onnx", "--force"]), &["m.onnx", "is the input"]),
        (with(&["new.txt", "-o", "no/q.onnx"]), &["no/q.onnx", "does not exist"]),
        (with(&["new.txt", "-o", "m.onnx", "--force"]), &["m.onnx", "is the input"]),
        (with(&["new.txt", "-o", "theirs.onnx"]), &["theirs.onnx", "daq quantize", "--force"]),
        (with(&["new.onnx", "-o", "new.onnx"]), &["new.onnx", "twice"]),
        (vec!["convert", "q.onnx", "no/m.daq"], &["no/m.daq", "does not exist"]),
        (vec!["convert", "q.onnx", "q.onnx", "--force"], &["is the input"]),
        (vec!["convert", "q.onnx", "table.txt", "table.txt", "--force"], &["is the input"]),
        (vec!["convert", "q.onnx", "notes.txt"], &["notes.txt", "not a .daq file"]),
        (vec!["run", "m.daq", "p.jpg", "-o", "notes.npz"], &["notes.npz", "not an .npz file"]),
        (vec!["run", "m.daq", "p.jpg", "-o", "no/out.npz"], &["no/out.npz", "does not exist"]),
    ];
    let cases: Vec<(&[&str], &[&str])> = cases.iter().map(|(a, p)| (a.as_slice(), *p)).collect();
    fail_all(&f, &cases);
    f.run(&["convert", "q.onnx", "notes.txt", "--force"]).ok();
}

/// `/dev/full` fails as a full disk does.
#[cfg(unix)]
#[test]
fn a_full_disk() {
    use std::os::unix::fs::FileTypeExt;
    let device = |path: &str| std::fs::metadata(path).is_ok_and(|m| m.file_type().is_char_device());
    if !device("/dev/full") {
        eprintln!("skipped: /dev/full, which fails as a full disk does, is not there");
        return;
    }
    let f = Folder::with_models();
    let quantize = ["quantize", "--image_dir", "p.jpg", "m.onnx"];
    let table = [&quantize[..], &["/dev/full", "-o", "q.onnx"]].concat();
    let model = [&quantize[..], &["table.txt", "-o", "/dev/full"]].concat();
    let full: &[&str] = &["cannot write /dev/full", "no space left on the disk"];
    let cases: &[(&[&str], &[&str])] = &[
        (&["convert", "q.onnx", "/dev/full"], full),
        (&["run", "m.daq", "p.jpg", "-o", "/dev/full"], full),
        (&model, full),
    ];
    fail_all(&f, cases);
    f.run(&table).fails(1, full);
    let graph = daq::format::read(&f.path("m.daq")).unwrap();
    let error = daq::format::write(&graph, "/dev/full".as_ref()).unwrap_err().to_string();
    assert!(error.contains("/dev/full") && error.contains("No space left"), "{error}");
    assert!(device("/dev/full"), "the device was replaced by a file");
    for args in [&["inspect", "m.daq"][..], &["run", "m.daq", "p.jpg"]] {
        let mut call = f.daq(args);
        let out = std::fs::File::options().write(true).open("/dev/full").unwrap();
        call.0.stdout(out);
        call.run().fails(1, &["No space left"]);
    }
}

/// A limit on the size of files stops a write halfway, after its first kilobytes.
#[cfg(unix)]
#[test]
fn a_write_that_stops_halfway_changes_nothing() {
    let f = Folder::with_models();
    std::fs::copy(f.path("m.daq"), f.path("old.daq")).unwrap();
    std::fs::copy(f.path("q.onnx"), f.path("old.onnx")).unwrap();
    std::fs::copy(f.path("table.txt"), f.path("old.txt")).unwrap();
    let before = f.files();
    let quantize = ["quantize", "--image_dir", "p.jpg", "m.onnx"];
    let cases: [&[&str]; 4] = [
        &["convert", "q.onnx", "old.daq"],
        &["convert", "q.onnx", "new.daq"],
        &[&quantize[..], &["old.txt", "-o", "old.onnx"]].concat(),
        &[&quantize[..], &["new.txt", "-o", "new.onnx"]].concat(),
    ];
    for args in cases {
        // Where the signal is ignored the write fails; else it would end the process.
        let limited = "trap '' XFSZ && ulimit -f 16 && exec \"$0\" \"$@\"";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", limited, env!("CARGO_BIN_EXE_daq")]).args(args);
        let Ok(output) = shell.current_dir(f.0.path()).output() else {
            eprintln!("skipped: there is no sh to set a limit with");
            return;
        };
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {err}");
        let last = err.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: cannot write "), "{args:?}: {err}");
        assert!(last.contains(args.last().unwrap()) && last.contains("ulimit -f"), "{err}");
        assert!(f.files() == before, "{args:?} left {:?}", f.files().keys());
    }
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_gets_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let f = Folder::with_models();
    std::fs::create_dir(f.path("data")).unwrap();
    std::fs::copy(f.path("m.onnx"), f.path("data/m.onnx")).unwrap();
    let mode = |mode| {
        std::fs::set_permissions(f.path("data"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o555);
    let ran = f.run(&["quantize", "--image_dir", "p.jpg", "data/m.onnx", "new.txt"]).ok();
    assert!(ran.out.contains("note: data is read-only"), "{}", ran.out);
    assert!(f.path("quant-m.onnx").is_file() && !f.path("data/quant-m.onnx").exists());
    f.run(&["convert", "q.onnx", "data/m.daq"]).fails(1, &["data/m.daq", "read-only"]);
    mode(0o755);
}

#[test]
fn wrong_usage_has_exit_code_2() {
    let f = Folder::with_models();
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["frobnicate"], "frobnicate"),
        (&["quantize", "m.onnx", "t.txt"], "--image_dir"),
        (&["quantize", "--image_dir", ".", "m.onnx"], "TABLE"),
        (&["quantize", "--image_dir", ".", "--resize", "crop", "m.onnx", "t.txt"], "crop:0.875"),
        (&["quantize", "--image_dir", ".", "--mean", "1,2", "m.onnx", "t.txt"], "three"),
        (&["quantize", "--image_dir", ".", "--std", "0", "m.onnx", "t.txt"], "error: std = 0"),
        (&["run", "m.daq", "p.jpg", "--pad-value", "300"], "error: pad_value = 300"),
        (&["quantize", "--image_dir", ".", "--samples", "0", "m.onnx", "t.txt"], "from 1"),
        (&["quantize", "--image_dir", ".", "--shape", "x", "m.onnx", "t.txt"], "input=1,3,224,224"),
        (&["quantize", "--image_dir", ".", "--calibration", "kl", "m.onnx", "t.txt"], "minmax"),
        (&["quantize", "--image_dir", ".", "--recovery", "magic", "m.onnx", "t.txt"], "equalize"),
        (&["calibrate", "--image_dir", ".", "--shard", "5/4", "m.onnx", "s.json"], "I/N"),
        (&["merge", "a.json"], "--output"),
        (&["bench", "m.daq", "--threads", "0"], "from 1"),
        (&["inspect"], "MODEL"),
        (&["inspect", "m.daq", "--shape", "x=1,3,48,192"], "settled"),
        (&["eval", "m.daq", "--images", "."], "--labels or --reference"),
        (&["run", "m.daq", "p.jpg", "--backend", "gpu"], "nnapi"),
        (&["bench", "m.daq", "--allow-fp16"], "--backend nnapi"),
    ];
    for (args, part) in cases {
        f.run(args).fails(2, &[part]);
    }
}

#[test]
fn help_ends_with_an_example_and_exit_codes() {
    let f = Folder::new();
    for command in ["quantize", "convert", "inspect", "run", "eval", "bench"] {
        let help = f.run(&[command, "--help"]).ok().out;
        let example = help.rfind("Example").expect("an example");
        assert!(help[example..].contains(&format!("daq {command} ")), "{help}");
        assert!(help.trim_end().ends_with("2 wrong usage."), "{help}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::Stdio;
    let f = Folder::with_models();
    for args in [&["inspect", "m.daq"][..], &["inspect", "--operators", "--json"]] {
        let mut call = f.daq(args);
        let mut child = call.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(err.is_empty() && output.status.success(), "{err}");
    }
}

/// `daq run -o out.npz | head`: the file is complete whoever reads the rest.
#[cfg(unix)]
#[test]
fn a_closed_pipe_does_not_cost_the_file() {
    use std::process::Stdio;
    let f = Folder::with_models();
    f.run(&["run", "m.daq", "p.jpg", "p.jpg", "-o", "whole.npz"]).ok();
    for more in [&[][..], &["--json"]] {
        let args = [&["run", "m.daq", "p.jpg", "p.jpg", "-o", "out.npz"], more].concat();
        let mut child = f.daq(&args).0.stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert!(child.wait().unwrap().success());
        assert!(f.read("out.npz") == f.read("whole.npz"), "{more:?}");
        std::fs::remove_file(f.path("out.npz")).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing_behind() {
    let f = Folder::with_models();
    let before = f.files();
    let pictures = example("pictures");
    let args = ["quantize", "--image_dir", &pictures, "--num_workers", "1", "m.onnx", "new.txt"];
    let mut child = f.daq(&args).0.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(30));
    let id = child.id().to_string();
    std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    if child.wait().unwrap().success() {
        return; // It was done before the signal came.
    }
    assert!(f.files() == before, "{:?}", f.files().keys());
}
