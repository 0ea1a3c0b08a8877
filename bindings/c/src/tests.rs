//! NNAPI through the C functions, with the stand-in for the library. All else is tested from C and C++.
#![cfg(unix)]

use std::ffi::CStr;

use daq::ops::{Attrs, Op};
use daq::{Node, Value};

use super::*;

/// `y = max(x, 0)` as a file.
fn relu() -> Vec<u8> {
    let mut g = Graph::default();
    let x = g.add_value(Value::new("x", DType::F32, &[1, 3]));
    let y = g.add_value(Value::new("y", DType::F32, &[1, 3]));
    let op = Op::from_attrs("Relu", &Attrs::new()).unwrap().unwrap();
    let (inputs, outputs) = (vec![Some(x)], vec![y]);
    g.nodes.push(Node { name: "relu".into(), op, inputs, outputs, doc: String::new() });
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    daq::format::to_bytes(&g).unwrap()
}

/// What the model gives, or the status and text of why not.
fn predict(options: daq_options) -> Result<[f32; 3], (daq_status, String)> {
    let file = relu();
    let (mut model, mut y) = (ptr::null_mut(), [f32::NAN; 3]);
    let check = |status| match status {
        daq_status::Ok => Ok(()),
        // SAFETY: a text that lives until the next failure.
        _ => Err((status, unsafe { CStr::from_ptr(daq_last_error()) }.to_string_lossy().into())),
    };
    // SAFETY: the sizes are those of the file and of the model's tensors.
    unsafe {
        check(daq_open_memory(file.as_ptr().cast(), file.len(), &options, &mut model))?;
        let (x, three) = ([-1.0, 2.0, 0.5], 3);
        let (inputs, outputs) = ([x.as_ptr()], [y.as_mut_ptr()]);
        let ran =
            daq_predict_f32_f32(model, inputs.as_ptr(), &three, 1, outputs.as_ptr(), &three, 1);
        daq_close(model);
        check(ran)?;
    }
    Ok(y)
}

fn use_library(path: &std::path::Path) {
    // SAFETY: the process has this one test, and no other thread that looks at the environment.
    unsafe { std::env::set_var("DAQ_NNAPI_LIBRARY", path) };
}

#[test]
fn options_reach_nnapi() {
    let path = nnapi_stand_in::built();
    // SAFETY: our own library, and its own functions below.
    let library = unsafe { libloading::Library::new(&path) }.unwrap();
    let calls = |name: &CStr| unsafe {
        // SAFETY: as above.
        library.get::<unsafe extern "C" fn(*const c_char) -> u32>(b"stand_in_calls").unwrap()(
            name.as_ptr(),
        )
    };
    // SAFETY: as above.
    let preference =
        || unsafe { library.get::<extern "C" fn() -> i32>(b"stand_in_preference").unwrap()() };
    use_library(&path);

    let right = Ok([0.0, 2.0, 0.5]);
    let options =
        |backend: daq_backend| daq_options { backend: backend as u32, ..Default::default() };
    assert_eq!(predict(options(daq_backend::Cpu)), right);
    assert_eq!(calls(c"Model_create"), 0);
    // The numbers of NeuralNetworks.h.
    for (given, set) in [
        (daq_preference::LowPower, 0),
        (daq_preference::FastSingleAnswer, 1),
        (daq_preference::SustainedSpeed, 2),
    ] {
        let options = daq_options { preference: given as u32, ..options(daq_backend::Nnapi) };
        assert_eq!(predict(options), right);
        assert_eq!(preference(), set);
    }
    assert_eq!(calls(c"Model_relaxComputationFloat32toFloat16"), 0);
    assert_eq!(predict(daq_options { allow_fp16: 1, ..options(daq_backend::Auto) }), right);
    assert_eq!(calls(c"Model_relaxComputationFloat32toFloat16"), 1);
    assert_eq!((calls(c"Model_create"), calls(c"Execution_compute")), (4, 4));

    use_library("no/such/library.so".as_ref());
    let (status, why) = predict(options(daq_backend::Nnapi)).unwrap_err();
    assert_eq!(status, daq_status::Model);
    assert!(why.contains("no/such/library.so"), "{why}");
    assert_eq!(predict(options(daq_backend::Auto)), right);

    for (wrong, text) in [
        (daq_options { backend: 3, ..Default::default() }, "no backend 3"),
        (daq_options { preference: u32::MAX, ..Default::default() }, "no preference 4294967295"),
        (daq_options { allow_fp16: 2, ..Default::default() }, "allow_fp16 is 2"),
    ] {
        let (status, why) = predict(wrong).unwrap_err();
        assert!(status == daq_status::Argument && why.contains(text), "{why}");
    }
}
