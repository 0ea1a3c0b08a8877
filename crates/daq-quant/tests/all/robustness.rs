//! ONNX files with random changes, from bytes to a run: errors are fine, panics are not.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use daq::{Graph, Model, Tensor};
use daq_quant::npy::ArrayData;
use daq_quant::npz::read_npz;
use daq_quant::onnx::{ReadOptions, read_bytes};
use daq_quant::passes::optimize;
use daq_quant::qdq::{fold, unfold};

/// The small models with which every operator is tested.
fn models() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/operators");
    let mut models = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).expect("the folder of cases") {
        let path = entry.unwrap().path();
        for (key, array) in read_npz(&path).unwrap() {
            if let (true, ArrayData::U8(bytes)) = (key.ends_with("/onnx"), array.data) {
                let name = format!("{}.{key}", path.file_stem().unwrap().to_string_lossy());
                models.insert(name, bytes);
            }
        }
    }
    models
}

/// Random numbers, the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) as usize % n.max(1)
    }
}

/// Changes a few bytes. Most changes keep the length, or the file would not be read far.
fn mutate(bytes: &mut Vec<u8>, r: &mut Random) {
    for _ in 0..1 + r.below(3) {
        let at = r.below(bytes.len());
        match r.below(16) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, r.below(256) as u8),
            2 => bytes.truncate(at + 8),
            3 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x7f])),
            4..8 => bytes[at] ^= 1 << r.below(8),
            // The last byte of a number, and small numbers: sizes, types, axes.
            8..10 => bytes[at] = 0x7f,
            _ => bytes[at] = r.below(20) as u8,
        }
    }
}

/// All that the tools do with a model. Says whether it ran.
fn use_model(bytes: &[u8]) -> Result<bool, String> {
    let mut graph = read_bytes(bytes, &ReadOptions::default()).map_err(|e| e.to_string())?;
    optimize(&mut graph);
    let mut ran = false;
    for graph in [fold(&graph), unfold(&graph), graph] {
        ran |= run(graph).map_err(|e| e.to_string())?;
    }
    Ok(ran)
}

fn run(graph: Graph) -> daq::Result<bool> {
    let elements: usize = graph.values.iter().map(|v| v.shape.iter().product::<usize>()).sum();
    let model = Model::from_graph(graph)?;
    let macs = model.plan().steps().iter().fold(0u64, |sum, s| sum.saturating_add(s.macs));
    if elements > 1 << 18 || macs > 1 << 24 {
        return Ok(false);
    }
    let inputs: Vec<_> =
        model.plan().inputs().map(|p| (p.name.clone(), Tensor::zeros(p.dtype, &p.shape))).collect();
    let inputs: Vec<_> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    model.session(1).run(&inputs, None)?;
    Ok(true)
}

#[test]
fn changed_files_never_panic() {
    let models = models();
    let rounds: u64 = std::env::var("DAQ_ROUNDS").map_or(30, |n| n.parse().expect("a number"));
    let (mut ran, mut refused, mut failed) = (0, 0, Vec::new());
    let mut slowest = (Duration::ZERO, String::new());
    for (which, (name, bytes)) in models.iter().enumerate() {
        for seed in 0..rounds {
            let mut r = Random((seed * 10_000 + which as u64 + 1).wrapping_mul(0x9e3779b97f4a7c15));
            let mut changed = bytes.clone();
            mutate(&mut changed, &mut r);
            let start = Instant::now();
            match catch_unwind(AssertUnwindSafe(|| use_model(&changed))) {
                Ok(Ok(true)) => ran += 1,
                Ok(_) => refused += 1,
                Err(_) => failed.push(format!("{name}, seed {seed}")),
            }
            if start.elapsed() > slowest.0 {
                slowest = (start.elapsed(), format!("{name}, seed {seed}"));
            }
        }
    }
    println!("{ran} ran, {refused} were refused; the slowest took {slowest:?}");
    assert!(failed.is_empty(), "panicked: {failed:#?}");
    assert!(ran > 1000 && refused > 1000, "{ran} ran, {refused} were refused");
}
