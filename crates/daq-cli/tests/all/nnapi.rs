//! `--backend nnapi` from end to end, on a stand-in for Android's library.
use super::common::{Folder, Ran};

/// Runs the binary with a library for NNAPI, or with none.
#[track_caller]
fn run(f: &Folder, library: bool, args: &[&str]) -> Ran {
    let mut call = f.daq(args);
    match library {
        true => call.0.env("DAQ_NNAPI_LIBRARY", nnapi_stand_in::built()),
        false => call.0.env_remove("DAQ_NNAPI_LIBRARY"),
    };
    call.run()
}

#[test]
fn nnapi_gives_the_bytes_of_the_cpu_or_says_why_not() {
    let f = Folder::with_models();
    f.run(&["run", "m.daq", "p.jpg", "-o", "cpu.npz"]).ok();
    let nnapi = ["run", "m.daq", "p.jpg", "--backend", "nnapi", "--allow-fp16"];
    let more = ["--preference", "sustained-speed", "--device", "stand-in", "-v", "-o", "there.npz"];
    let ran = run(&f, true, &[&nnapi[..], &more].concat()).ok();
    assert!(f.read("cpu.npz") == f.read("there.npz"));
    // The model was made for our kernels, so some of its scales break NNAPI's rules.
    assert!(ran.err.contains("stays on the CPU: "), "{}", ran.err);
    let steps = run(&f, true, &["bench", "m.daq", "--backend", "auto", "--profile", "--json"]).ok();
    let steps = steps.json()["steps"].as_array().unwrap().clone();
    let there = steps.iter().filter(|s| s["op"] == "NNAPI").collect::<Vec<_>>();
    assert!(!there.is_empty() && there.len() < steps.len(), "{steps:?}");
    assert!(there.iter().all(|s| s["kernel"].as_str().unwrap().starts_with("stand-in, ")));

    run(&f, true, &[&nnapi[..], &["--device", "gpu"]].concat()).fails(1, &["no device `gpu`"]);
    run(&f, false, &nnapi).fails(1, &["error: NNAPI: ", "libneuralnetworks.so"]);
    let auto = ["run", "m.daq", "p.jpg", "--backend", "auto", "-o", "auto.npz"];
    let ran = run(&f, false, &auto).ok();
    assert!(ran.err.contains("runs on the CPU then"), "{}", ran.err);
    assert!(f.read("cpu.npz") == f.read("auto.npz"));
}
