//! Reads, optimises and writes real models, where they are at hand.

use std::path::Path;

use daq::Graph;
use daq_quant::onnx::{ReadOptions, read, read_bytes, to_bytes};
use daq_quant::passes::optimize;

/// Types, shapes and names of inputs and outputs.
fn surface(graph: &Graph) -> Vec<(String, daq::DType, Vec<usize>)> {
    let ids = graph.inputs.iter().chain(&graph.outputs);
    ids.map(|&id| &graph.values[id]).map(|v| (v.name.clone(), v.dtype, v.shape.clone())).collect()
}

#[test]
fn real_models_are_read_optimised_and_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no ../shared/data/models beside the project");
        return;
    };
    let mut failures = Vec::new();
    let mut count = 0;
    for path in entries.map(|e| e.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "onnx") {
            continue;
        }
        count += 1;
        let mut graph = match read(&path, &ReadOptions::default()) {
            Ok(graph) => graph,
            Err(e) => {
                failures.push(e.to_string());
                continue;
            }
        };
        let before = surface(&graph);
        optimize(&mut graph);
        graph.validate().unwrap();
        assert_eq!(surface(&graph), before, "{}", path.display());
        let left: Vec<_> = graph.nodes.iter().map(|n| n.op.name()).collect();
        for op in ["BatchNormalization", "Shape", "Gather", "Identity", "Constant"] {
            assert!(!left.contains(&op), "{} still has {op}", path.display());
        }
        let again = read_bytes(&to_bytes(&graph).unwrap(), &ReadOptions::default()).unwrap();
        assert_eq!(surface(&again), before, "{}", path.display());
        assert_eq!(again.nodes.len(), graph.nodes.len(), "{}", path.display());
    }
    assert!(count > 0, "no model in {}", folder.display());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
