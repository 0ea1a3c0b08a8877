//! Runs models side by side for a while: outputs must stay equal and memory must not grow.
//!
//! `cargo run --release -p daq --example soak -- MINUTES MODEL.daq...`: four sessions of two threads
//! each, which take the models in turns, on inputs that a generator makes. Exits with 1 if an output
//! ever differs from the first one on that input, or if memory grows by more than a tenth after
//! the first minute.

use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use daq::Model;

const SESSIONS: usize = 4;
const THREADS: usize = 2;
/// Inputs of each model.
const INPUTS: usize = 3;

fn main() {
    let mut args = std::env::args().skip(1);
    let minutes: Option<f64> = args.next().and_then(|arg| arg.parse().ok());
    let (Some(minutes), models) = (minutes, args.collect::<Vec<_>>()) else { usage() };
    if models.is_empty() {
        usage();
    }
    let models: Vec<Model> = models
        .iter()
        .map(|path| {
            Model::open(path).unwrap_or_else(|e| {
                eprintln!("{path}: {e}");
                exit(2)
            })
        })
        .collect();
    let wanted: Vec<Vec<Vec<f32>>> = models
        .iter()
        .map(|model| {
            let mut session = model.session(1);
            (0..INPUTS).map(|seed| predict(&mut session, seed)).collect()
        })
        .collect();
    let (runs, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    std::thread::scope(|scope| {
        for first in 0..SESSIONS {
            let (models, wanted, runs, failed) = (&models, &wanted, &runs, &failed);
            scope.spawn(move || {
                let mut sessions: Vec<_> = models.iter().map(|m| m.session(THREADS)).collect();
                for turn in first.. {
                    if Instant::now() > end || failed.load(Relaxed) {
                        break;
                    }
                    let (model, seed) = (turn % models.len(), turn / models.len() % INPUTS);
                    if predict(&mut sessions[model], seed) != wanted[model][seed] {
                        eprintln!(
                            "session {first}, run {turn}: model {model} gives another output"
                        );
                        failed.store(true, Relaxed);
                    }
                    runs.fetch_add(1, Relaxed);
                }
            });
        }
        let begin = Instant::now();
        let mut settled = None;
        while Instant::now() < end && !failed.load(Relaxed) {
            std::thread::sleep(Duration::from_secs_f64((minutes * 60.0 / 20.0).min(60.0)));
            let (seconds, memory) = (begin.elapsed().as_secs_f64(), resident_kib());
            println!("{seconds:6.0} s  {:9} runs  {memory:8} KiB", runs.load(Relaxed));
            let settled = *settled.get_or_insert(memory);
            if memory > settled + settled / 10 {
                eprintln!("memory grew from {settled} to {memory} KiB");
                failed.store(true, Relaxed);
            }
        }
    });
    if failed.load(Relaxed) {
        exit(1);
    }
    println!("{} runs, every output equal", runs.load(Relaxed));
}

fn usage() -> ! {
    eprintln!("usage: soak MINUTES MODEL.daq...");
    exit(2)
}

/// All outputs on the inputs that `seed` makes, one after another.
fn predict(session: &mut daq::Session, seed: usize) -> Vec<f32> {
    let lens = |ports: Vec<&daq::Port>| -> Vec<usize> {
        ports.iter().map(|port| port.shape.iter().product()).collect()
    };
    let value = |i: usize| ((i * 2_654_435_761 + seed * 40_503) >> 7) % 1000;
    let inputs: Vec<Vec<f32>> = lens(session.inputs())
        .into_iter()
        .map(|len| (0..len).map(|i| value(i) as f32 / 250.0 - 2.0).collect())
        .collect();
    let mut outputs: Vec<Vec<f32>> =
        lens(session.outputs()).into_iter().map(|len| vec![0.0; len]).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut slices: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    session.predict(&inputs, &mut slices).expect("the lengths are the ports'");
    outputs.concat()
}

/// Resident memory of this process; 0 where the system does not tell.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
