//! ONNX's own node tests: a selection that lies in `tests/data/node` (from ONNX 1.17.0, Apache-2.0),
//! and all of them where `DAQ_NODE_TESTS` names their folder, `onnx/backend/test/data/node` of the
//! Python package; then its nine `light_*` networks, which lie beside it, too.

use std::path::Path;

use super::common::fail;
use super::node_tests::{Outcome, run_all, run_light};

#[test]
fn the_selection_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/node");
    let runs = run_all(&folder).unwrap();
    assert!(runs.len() >= 30, "only {} tests", runs.len());
    let bad = runs.iter().filter(|run| !matches!(run.outcome, Outcome::Passed(_)));
    fail(&bad.map(|r| format!("{} ({}): {:?}", r.name, r.operator, r.outcome)).collect::<Vec<_>>());
}

#[test]
fn no_node_test_gives_a_wrong_answer() {
    let Some(folder) = std::env::var_os("DAQ_NODE_TESTS") else {
        return eprintln!("SKIPPED: DAQ_NODE_TESTS does not name the folder of ONNX's node tests");
    };
    let runs = run_all(Path::new(&folder)).unwrap();
    assert!(runs.len() > 1000, "only {} tests", runs.len());
    let wrong = runs.iter().filter(|r| matches!(r.outcome, Outcome::Failed(_)));
    fail(&wrong.map(|r| format!("{}: {:?}", r.name, r.outcome)).collect::<Vec<_>>());
    let passed = runs.iter().filter(|r| matches!(r.outcome, Outcome::Passed(_))).count();
    assert!(passed >= 1000, "only {passed} of {} pass", runs.len());
}

#[test]
fn the_light_networks_run() {
    let Some(folder) = std::env::var_os("DAQ_NODE_TESTS") else {
        return eprintln!("SKIPPED: DAQ_NODE_TESTS does not name the folder of ONNX's node tests");
    };
    let runs = run_light(&Path::new(&folder).with_file_name("light")).unwrap();
    assert_eq!(runs.len(), 9);
    let bad = runs.iter().filter(|(_, outcome)| outcome.is_err());
    fail(&bad.map(|(name, outcome)| format!("{name}: {outcome:?}")).collect::<Vec<_>>());
}
