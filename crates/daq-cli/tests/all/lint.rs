//! `daq lint` and `daq convert --target`, with the example of the project.

use super::common::{Folder, example};

#[test]
fn converting_for_a_target_keeps_its_rules() {
    let f = Folder::with_models();
    let before = f.run(&["lint", "q.onnx", "--target", "nnapi-28"]);
    let before = before.fails(1, &["daq convert --target nnapi-28"]);
    assert!(before.out.contains("weights with a scale per channel come with API level 29"));
    f.run(&["lint", "q.onnx", "--target", "cpu"]).ok();

    for target in ["nnapi-27", "nnapi-28", "nnapi-29", "nnapi-30", "tflite"] {
        let made = f.run(&["convert", "q.onnx", "t.daq", "--target", target, "--json"]).ok().json();
        assert!(!made["changes"].as_array().unwrap().is_empty(), "{made}");
        let after = f.run(&["lint", "t.daq", "--target", target, "--json"]).ok().json();
        assert_eq!(after["broken"], serde_json::json!([]), "{after}");
        // What the example has and phones have not: HardSigmoid and, in 8 bits, division.
        for node in after["unsupported"].as_array().unwrap() {
            let op = node["op"].as_str().unwrap();
            assert!(["Div", "HardSigmoid"].contains(&op), "{node}");
        }
        let args = ["eval", "t.daq", "--images", &example("pictures"), "--json"];
        let scores = f.run(&args).ok().json();
        assert!(scores["top1"].as_f64().unwrap() >= 0.9, "{target}: {scores}");
    }
    f.run(&["lint", "q.onnx", "--target", "nnapi-26"]).fails(2, &["nnapi-27, nnapi-28"]);
}
