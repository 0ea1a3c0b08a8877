//! Any bytes as an ONNX file: read, simplified, folded to 8 bits and compiled.
#![no_main]

use daq_quant::onnx::{ReadOptions, read_bytes};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut graph) = read_bytes(bytes, &ReadOptions::default()) {
        daq_quant::passes::optimize(&mut graph);
        let _ = daq::Model::from_graph(daq_quant::qdq::fold(&graph));
    }
});
