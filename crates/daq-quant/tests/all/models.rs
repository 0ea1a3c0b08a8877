//! Whole models against onnxruntime.
//!
//! The models are too large for the repository: they are looked for in `../shared/data`
//! beside it. `tests/data/make_model_outputs.py` says how inputs are made and writes samples of
//! onnxruntime's outputs. Float models must meet them within 1e-4 of the largest. Quantized models
//! run as they are, with their Q/DQ nodes, and folded to 8 bits. A code that is one step off changes
//! later ones: onnxruntime's own outputs move by up to 5 % (root mean square, of the largest) when
//! inputs change by a millionth. So theirs are compared by root mean square.

use std::collections::BTreeMap;
use std::path::Path;

use daq::{DType, Graph, Model, Tensor};
use daq_quant::onnx::ReadOptions;
use daq_quant::qdq::fold;
use serde::Deserialize;

/// How far samples of quantized models may be off: root mean square, as a share of the largest.
const QUANTIZED: f32 = 0.08;

#[derive(Deserialize)]
struct Expected {
    quantized: bool,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: [usize; 4],
    low: f32,
    high: f32,
    block: usize,
    stripes: usize,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    shape: Vec<usize>,
    mean: f64,
    largest: f32,
    elements: Vec<f32>,
}

/// The hash of position `i` that the script describes.
fn hash(i: usize) -> u32 {
    let mut h = (i as u32).wrapping_add(1).wrapping_mul(2_654_435_761);
    h ^= h >> 15;
    h = h.wrapping_mul(2_246_822_519);
    h ^ (h >> 13)
}

fn input(of: &Input) -> Tensor {
    let [n, c, h, w] = of.shape;
    let (rows, columns) = (h.div_ceil(of.block), w.div_ceil(of.block));
    let mut data = Vec::with_capacity(n * c * h * w);
    for plane in 0..n * c {
        for y in 0..h {
            for x in 0..w {
                let square = (plane * rows + y / of.block) * columns + x / of.block;
                let unit = (hash(square) >> 8) as f32 / (1 << 24) as f32;
                let between = of.stripes > 0 && y / of.stripes % 3 != 1;
                data.push(if between { of.high } else { of.low + (of.high - of.low) * unit });
            }
        }
    }
    Tensor::from_slice(&of.shape, &data)
}

fn check(what: &str, graph: Graph, expected: &Expected) -> Result<(), String> {
    let model = Model::from_graph(graph).map_err(|e| e.to_string())?;
    let inputs: Vec<_> = expected.inputs.iter().map(|i| (i.name.as_str(), input(i))).collect();
    let inputs: Vec<_> = inputs.iter().map(|(name, t)| (*name, t)).collect();
    let mut session = model.session(2);
    let results = session.run(&inputs, Some(DType::F32)).map_err(|e| e.to_string())?;
    if results.len() != expected.outputs.len() {
        return Err(format!("{} outputs for {}", results.len(), expected.outputs.len()));
    }
    for ((output, result), port) in expected.outputs.iter().zip(&results).zip(session.outputs()) {
        if port.name != output.name || result.shape() != output.shape {
            return Err(format!(
                "output `{}` {:?} instead of `{}` {:?}",
                port.name,
                result.shape(),
                output.name,
                output.shape
            ));
        }
        let data = result.data::<f32>();
        let share = if expected.quantized { QUANTIZED } else { 1e-4 };
        let tolerance = share * output.largest + 1e-6;
        let mean = data.iter().map(|&x| f64::from(x)).sum::<f64>() / data.len() as f64;
        let largest = data.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let samples = output.elements.iter().enumerate();
        let differences = samples.map(|(j, e)| (data[hash(j) as usize % data.len()] - e).abs());
        let worst = |most: f32, d: f32| if d.is_nan() { f32::INFINITY } else { most.max(d) };
        let off = match expected.quantized {
            true => (differences.map(|d| d * d).sum::<f32>() / output.elements.len() as f32).sqrt(),
            false => differences.fold(0.0, worst),
        };
        println!("{what}: `{}` off by {off:.1e} of {}", output.name, output.largest);
        let mean_off = (mean - output.mean).abs() as f32;
        let largest_off = (largest - output.largest).abs();
        if !(off <= tolerance && mean_off <= tolerance && largest_off <= tolerance) {
            return Err(format!(
                "output `{}`: samples off by {off}, mean by {mean_off}, largest by {largest_off}; \
                 {tolerance} is allowed",
                output.name
            ));
        }
    }
    Ok(())
}

#[test]
fn models_equal_onnxruntime() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = here.join("../../../shared/data");
    if !data.is_dir() {
        println!("SKIPPED: no models in {}", data.display());
        return;
    }
    let text = std::fs::read_to_string(here.join("tests/data/model_outputs.json")).unwrap();
    let models: BTreeMap<String, Expected> = serde_json::from_str(&text).unwrap();
    let mut failures = Vec::new();
    for (name, expected) in &models {
        let folders = [data.join("models"), data.join("foreign")];
        let path = folders.map(|f| f.join(name)).into_iter().find(|p| p.is_file());
        let Some(path) = path else {
            println!("SKIPPED: no {name} in {}", data.display());
            continue;
        };
        let graph = match daq_quant::onnx::read(&path, &ReadOptions::default()) {
            Ok(graph) => graph,
            Err(e) => {
                failures.push(e.to_string());
                continue;
            }
        };
        if expected.quantized {
            let what = format!("{name}, folded");
            failures
                .extend(check(&what, fold(&graph), expected).err().map(|e| format!("{what}: {e}")));
        }
        failures.extend(check(name, graph, expected).err().map(|e| format!("{name}: {e}")));
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}
