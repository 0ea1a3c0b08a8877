//! Runs ONNX's node tests and writes the table of what passes: `conformance NODE_TESTS [FILE.md]`.
//! `cargo xtask conformance NODE_TESTS` calls it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use node_tests::{Operands, Outcome, Run, run_all};

#[path = "../tests/all/node_tests.rs"]
mod node_tests;

const HEADER: &str = "\
# Conformance with ONNX

The node tests of ONNX 1.17.0, each a model of one operator (or of the operators that a function is made of)
with inputs and outputs. Made by `cargo xtask conformance DIR`, with DIR the folder `onnx/backend/test/data/node`
of the Python package (`pip download --no-deps onnx==1.17.0`, a zip archive).

A test passes if each float is within 1e-7 + 1e-3 |expected| of what is expected (4e-3 where the test works in half
precision) and all else is equal. A wrong number and a panic are failures. *Not supported* is an error with a message.
*Different* are tests whose data are not what the standard says; onnxruntime 1.32 gives what daq gives. Those of
QLinearMatMul hold codes that wrapped: 20 for -236, where the standard saturates to -128 (ONNX's own reference does by
now). With `align_corners` the last of two elements lies on the last of four, which is 4 and not 3.14. The mean counts
the padding, and not what a window of `ceil_mode` covers beyond it.
The tests give every operand as an input of the model, also those that models store: weights, shapes, scales. Where
daq wants an operand constant, the runner makes all inputs but the first constant, or all of them.
";

fn main() {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next() else {
        eprintln!("usage: conformance NODE_TESTS [FILE.md]");
        std::process::exit(2);
    };
    std::panic::set_hook(Box::new(|_| ()));
    let runs = match run_all(Path::new(&folder)) {
        Ok(runs) if !runs.is_empty() => runs,
        Ok(_) => return fail(&format!("{folder}: no folder in it has a model.onnx")),
        Err(e) => return fail(&format!("{folder}: {e}")),
    };
    for run in &runs {
        match &run.outcome {
            Outcome::Passed(_) => println!("passed       {}", run.name),
            Outcome::Failed(why) => println!("FAILED       {}: {why}", run.name),
            Outcome::Different(how) => println!("different    {}: it {how}", run.name),
            Outcome::Unsupported(why) => println!("unsupported  {}: {why}", run.name),
        }
    }
    let text = table(&runs);
    if let Some(file) = args.next()
        && let Err(e) = std::fs::write(&file, &text)
    {
        fail(&format!("{file}: {e}"));
    }
    println!("{}", text.lines().find(|l| l.contains(" tests: ")).unwrap_or_default());
}

fn fail(why: &str) {
    eprintln!("error: {why}");
    std::process::exit(1);
}

fn table(runs: &[Run]) -> String {
    let count = |f: &dyn Fn(&Outcome) -> bool| runs.iter().filter(|r| f(&r.outcome)).count();
    let passed = |operands| count(&|o| *o == Outcome::Passed(operands));
    let mut text = format!(
        "{HEADER}\n{} tests: {} passed ({} as they are, {} with all inputs but the first constant, \
         {} with all constant), {} failed, {} different, {} not supported.\n\n\
         | operator | passed | failed | different | not supported | why |\n\
         |---|---|---|---|---|---|\n",
        runs.len(),
        count(&|o| matches!(o, Outcome::Passed(_))),
        passed(Operands::AsGiven),
        passed(Operands::Constant),
        passed(Operands::AllConstant),
        count(&|o| matches!(o, Outcome::Failed(_))),
        count(&|o| matches!(o, Outcome::Different(_))),
        count(&|o| matches!(o, Outcome::Unsupported(_))),
    );
    let mut operators: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        operators.entry(&run.operator).or_default().push(run);
    }
    for (operator, runs) in operators {
        let mut counts = [0; 4];
        let mut reasons = BTreeSet::new();
        for run in runs {
            match &run.outcome {
                Outcome::Passed(_) => counts[0] += 1,
                Outcome::Failed(why) => {
                    counts[1] += 1;
                    reasons.insert(format!("{}: {}", run.name, brief(why)));
                }
                Outcome::Different(how) => {
                    counts[2] += 1;
                    reasons.insert(format!("{} {how}", run.name));
                }
                Outcome::Unsupported(why) => {
                    counts[3] += 1;
                    reasons.insert(brief(why));
                }
            }
        }
        let reasons: Vec<String> = reasons.into_iter().collect();
        let [passed, failed, different, unsupported] = counts;
        let line = format!(
            "| {operator} | {passed} | {failed} | {different} | {unsupported} | {} |",
            reasons.join("; ").replace('|', "\\|")
        );
        writeln!(text, "{line}").expect("a string takes all");
    }
    text
}

/// The part of a message before its remedy.
fn brief(why: &str) -> String {
    why.split("; ").next().unwrap_or(why).replace('\n', " ")
}
