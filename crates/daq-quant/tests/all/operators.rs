//! Every operator against onnxruntime, with graph optimisation off there.
//!
//! `tests/data/make_operator_cases.py` writes the cases and says what they hold. Each runs node by
//! node through the operators' reference, as a compiled model on every instruction set with one
//! and two threads, and again after it has been written and read as `.daq` and as ONNX. All ways
//! must agree bit for bit, and with onnxruntime
//! - exactly, for integers;
//! - for floats, where `|y - expected| <= 1e-4 * |expected| + 1e-6 * largest + 1e-6`, `largest` the
//!   greatest finite magnitude that is expected;
//! - for 8-bit cases, on all codes but one in 200 (and one more), which may be one step apart: a
//!   float that lies halfway between two codes falls to either side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::common::{fail, is_close, reference, tensor};
use daq::{DType, Graph, Model, Op, Tensor};
use daq_kernels::{Isa, Pool};
use daq_quant::npz::read_npz;
use daq_quant::onnx::{ReadOptions, qoperator};
use daq_quant::qdq::{fold, unfold};

/// A model with what goes in and what must come out.
#[derive(Default)]
struct Case {
    name: String,
    onnx: Vec<u8>,
    operators: Vec<String>,
    inputs: Vec<(String, Tensor)>,
    expected: BTreeMap<String, Tensor>,
    /// The scales of the outputs' codes: an 8-bit case.
    scales: BTreeMap<String, f32>,
    /// How many operators may compute floats once Q/DQ pairs are folded; negative for any.
    islands: i64,
}

/// Cases in a form that daq declines, or runs and does not write as ONNX, with a part of its message.
const DECLINED: &[(&str, &str)] = &[
    ("resize.channels", "Resize of axis 1"),
    ("resize.not_smaller_18", "after ONNX: model: node `y` (Resize, opset 17)"),
];

/// 8-bit cases that the folding of Q/DQ pairs leaves in float.
const LEFT_FLOAT: &[&str] = &[];

/// 8-bit cases with many results exactly halfway between two codes, and how many may differ.
const TIES: &[(&str, usize)] = &[("q_average_pool.i8", 8), ("q_average_pool.u8", 8)];

fn cases() -> BTreeMap<String, Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/operators");
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).expect("the folder of cases") {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_str().unwrap().to_string();
        for (key, array) in read_npz(&path).unwrap() {
            let (name, what) = key.split_once('/').expect("CASE/what");
            let name = format!("{file}.{name}");
            let case = cases.entry(name.clone()).or_default();
            case.name = name;
            let tensor = tensor(&array);
            let bytes = || tensor.data::<u8>().to_vec();
            match what.split_once('/').unwrap_or((what, "")) {
                ("onnx", _) => case.onnx = bytes(),
                ("operators", _) => {
                    let text = String::from_utf8(bytes()).unwrap();
                    case.operators = text.lines().map(str::to_string).collect();
                }
                ("in", name) => case.inputs.push((name.into(), tensor)),
                ("out", name) => drop(case.expected.insert(name.into(), tensor)),
                ("scale", name) => drop(case.scales.insert(name.into(), tensor.data()[0])),
                ("islands", _) => case.islands = tensor.data()[0],
                _ => panic!("{key}: unknown kind of array"),
            }
        }
    }
    cases
}

impl Case {
    /// What is wrong with outputs that should be the expected ones.
    fn check(&self, graph: &Graph, results: &[Tensor]) -> Result<(), String> {
        for (&id, result) in graph.outputs.iter().zip(results) {
            let name = &graph.values[id].name;
            let expected = self.expected.get(name).ok_or(format!("unexpected output `{name}`"))?;
            let verdict = match self.scales.get(name) {
                Some(&scale) => {
                    let ties = TIES.iter().find(|(name, _)| *name == self.name);
                    let allowed = ties.map_or(1 + expected.len() / 200, |(_, allowed)| *allowed);
                    codes_agree(result, expected, scale, allowed)
                }
                None => agree(result, expected),
            };
            verdict.map_err(|why| format!("output `{name}`: {why}"))?;
        }
        match results.len() == self.expected.len() {
            true => Ok(()),
            false => Err(format!("{} outputs for {}", results.len(), self.expected.len())),
        }
    }

    /// Runs a graph in every way and compares each with onnxruntime and with the first.
    fn run(&self, graph: &Graph, pools: &[Arc<Pool>]) -> Result<(), String> {
        self.run_and_again(graph, pools, onnx_again)
    }

    fn run_and_again(
        &self,
        graph: &Graph,
        pools: &[Arc<Pool>],
        onnx_again: impl Fn(&Graph) -> Result<Graph, String>,
    ) -> Result<(), String> {
        graph.validate().map_err(|e| e.to_string())?;
        let first = reference(graph, &self.inputs, !self.scales.is_empty())
            .map_err(|e| format!("reference: {e}"))?;
        self.check(graph, &first).map_err(|e| format!("reference: {e}"))?;
        let same = |way: &str, graph: &Graph, results: Vec<Tensor>| {
            self.check(graph, &results).map_err(|e| format!("{way}: {e}"))?;
            match results == first {
                true => Ok(()),
                false => Err(format!("{way}: not the reference's bits")),
            }
        };
        for &isa in Isa::ALL.iter().filter(|isa| isa.is_supported()) {
            for pool in pools {
                let way = format!("{} with {} threads", isa.name(), pool.threads());
                let results = self.predict(graph, isa, pool).map_err(|e| format!("{way}: {e}"))?;
                same(&way, graph, results)?;
            }
        }
        for (way, again) in [("after .daq", daq_again(graph)), ("after ONNX", onnx_again(graph))] {
            let again = again.map_err(|e| format!("{way}: {e}"))?;
            let results = self.predict(&again, Isa::best(), &pools[0]);
            same(way, &again, results.map_err(|e| format!("{way}: {e}"))?)?;
        }
        Ok(())
    }

    fn predict(&self, graph: &Graph, isa: Isa, pool: &Arc<Pool>) -> daq::Result<Vec<Tensor>> {
        let inputs: Vec<_> = self.inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let floats = (!self.scales.is_empty()).then_some(DType::F32);
        Model::from_graph_for(graph.clone(), isa)?.session_on(pool.clone()).run(&inputs, floats)
    }
}

fn read(onnx: &[u8]) -> Result<Graph, String> {
    daq_quant::onnx::read_bytes(onnx, &ReadOptions::default()).map_err(|e| e.to_string())
}

fn daq_again(graph: &Graph) -> Result<Graph, String> {
    let bytes = daq::format::to_bytes(graph).map_err(|e| e.to_string())?;
    daq::format::from_bytes(&bytes).map_err(|e| e.to_string())
}

fn onnx_again(graph: &Graph) -> Result<Graph, String> {
    let bytes = daq_quant::onnx::to_bytes(graph).map_err(|e| e.to_string())?;
    read(&bytes)
}

fn agree(result: &Tensor, expected: &Tensor) -> Result<(), String> {
    if (result.dtype(), result.shape()) != (expected.dtype(), expected.shape()) {
        return Err(format!("{result:?} instead of {expected:?}"));
    }
    if result.dtype() == DType::F32 {
        return is_close(result.data(), expected.data(), 1e-6);
    }
    match result == expected {
        true => Ok(()),
        false => Err(format!("{} elements differ", expected.dtype())),
    }
}

fn codes_agree(
    result: &Tensor,
    expected: &Tensor,
    scale: f32,
    allowed: usize,
) -> Result<(), String> {
    if (result.dtype(), result.shape()) != (DType::F32, expected.shape()) {
        return Err(format!("{result:?} instead of {expected:?}"));
    }
    let pairs = result.data::<f32>().iter().zip(expected.data::<f32>());
    let steps: Vec<f32> = pairs.map(|(a, b)| ((a - b) / scale).abs()).collect();
    let differ = steps.iter().filter(|s| **s > 0.01).count();
    let largest = steps.iter().copied().fold(0.0, f32::max);
    // The comparison is written so that NaN fails it.
    match largest <= 1.01 && !steps.iter().any(|s| s.is_nan()) && differ <= allowed {
        true => Ok(()),
        false => Err(format!(
            "{differ} of {} codes differ ({allowed} may), by up to {largest} steps",
            steps.len()
        )),
    }
}

/// The operators that compute floats: neither codes nor integers, and no conversion.
fn islands(graph: &Graph) -> Vec<String> {
    let float = |id: &usize| graph.values[*id].dtype == DType::F32;
    let conversion = |op: &Op| matches!(op.name(), "QuantizeLinear" | "DequantizeLinear");
    let nodes = graph.nodes.iter();
    let nodes = nodes.filter(|n| !conversion(&n.op) && n.outputs.iter().any(float));
    nodes.map(|n| format!("{} `{}`", n.op.name(), graph.node_name(n))).collect()
}

fn check_all(
    run: impl Fn(&Case, &[Arc<Pool>]) -> Result<(), String>,
    wanted: impl Fn(&Case) -> bool,
) {
    let pools = [Arc::new(Pool::new(1)), Arc::new(Pool::new(2))];
    let mut failures = Vec::new();
    let only = std::env::var("DAQ_CASE").unwrap_or_default();
    let cases = cases();
    let chosen = cases.iter().filter(|(name, case)| name.contains(&only) && wanted(case));
    for (name, case) in chosen {
        let declined = DECLINED.iter().find(|(n, _)| n == name).map(|(_, message)| *message);
        match (run(case, &pools), declined) {
            (Err(why), None) => failures.push(format!("{name}: {why}")),
            (Err(why), Some(part)) if !why.contains(part) => {
                failures.push(format!("{name}: declined, but with `{why}`"));
            }
            (Ok(()), Some(_)) => failures.push(format!("{name}: runs, but is listed as declined")),
            _ => {}
        }
    }
    fail(&failures);
}

#[test]
fn float_and_integer_cases_equal_onnxruntime() {
    let run = |case: &Case, pools: &[Arc<Pool>]| {
        let graph = read(&case.onnx)?;
        case.run(&graph, pools)
    };
    check_all(run, |case| case.scales.is_empty());
}

#[test]
fn eight_bit_cases_equal_onnxruntime_as_q_and_dq_nodes() {
    let run = |case: &Case, pools: &[Arc<Pool>]| {
        let graph = read(&case.onnx)?;
        case.run(&graph, pools)
    };
    check_all(run, |case| !case.scales.is_empty());
}

#[test]
fn eight_bit_cases_equal_onnxruntime_when_folded() {
    let run = |case: &Case, pools: &[Arc<Pool>]| {
        let graph = fold(&read(&case.onnx)?);
        let islands = islands(&graph);
        match (LEFT_FLOAT.contains(&case.name.as_str()), islands.is_empty()) {
            (true, true) => return Err("folds, but is listed as left in float".into()),
            (false, false) if (0..islands.len() as i64).contains(&case.islands) => {
                return Err(format!("floats are still computed by {}", islands.join(", ")));
            }
            _ => {}
        }
        // ONNX has no operators on codes but those between Q and DQ nodes.
        case.run_and_again(&graph, pools, |graph| Ok(fold(&onnx_again(&unfold(graph))?)))
    };
    check_all(run, |case| !case.scales.is_empty());
}

#[test]
fn eight_bit_cases_keep_their_bits_in_the_qoperator_form() {
    let run = |case: &Case, pools: &[Arc<Pool>]| {
        let graph = fold(&read(&case.onnx)?);
        let again = fold(&onnx_again(&qoperator(&graph))?);
        if islands(&again).len() > islands(&graph).len() {
            return Err(format!("now floats are computed by {}", islands(&again).join(", ")));
        }
        let run = |graph| case.predict(graph, Isa::best(), &pools[0]).map_err(|e| e.to_string());
        match run(&graph)? == run(&again)? {
            true => Ok(()),
            false => Err("other bits".into()),
        }
    };
    check_all(run, |case| !case.scales.is_empty());
}

#[test]
fn every_operator_has_a_case() {
    let covered: BTreeSet<String> = cases().into_values().flat_map(|case| case.operators).collect();
    let missing: Vec<_> = Op::NAMES.iter().filter(|name| !covered.contains(**name)).collect();
    assert!(missing.is_empty(), "operators without a case: {missing:?}");
}
