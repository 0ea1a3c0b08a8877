//! Calibration: the float model runs on samples while observers watch its values.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use daq::ops::Quantization;
use daq::{DType, Graph, Model, Session, Tensor};

use crate::observe::{CalibrationMethod, Observer};
use crate::quantize::Ranges;

/// Where samples come from: tensors by input name, loaded from several threads.
pub trait Samples: Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to call sample `index` in messages.
    fn name(&self, index: usize) -> String;

    /// Sample `index`; the error says what is wrong with it.
    fn load(&self, index: usize) -> Result<Vec<(String, Tensor)>, String>;
}

/// How to calibrate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrateOptions {
    /// How ranges are chosen.
    pub method: CalibrationMethod,
    /// Threads; each runs the model on samples of its own.
    pub workers: usize,
    /// Samples that a worker takes at a time.
    pub batch_size: usize,
}

/// Why calibration gave no ranges.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// No sample could be used.
    #[error("none of the {count} samples could be used; the first: {first}")]
    NoSample {
        /// How many there were.
        count: usize,
        /// What was wrong with the first.
        first: String,
    },
    /// The model computed something that is not a number.
    #[error(
        "value `{value}` became NaN or infinite on {sample}; check the float model's weights and \
         that the preprocessing is the one that it was trained with"
    )]
    NotFinite {
        /// The value's name.
        value: String,
        /// The sample's name.
        sample: String,
    },
    /// The model does not run.
    #[error(transparent)]
    Model(#[from] daq::Error),
}

/// What calibration saw.
pub struct Calibration {
    observers: BTreeMap<String, Box<dyn Observer>>,
    /// Samples that were used.
    pub used: usize,
    /// Samples that could not be used, with the reason, by name.
    pub skipped: Vec<(String, String)>,
}

impl Calibration {
    /// The range of each value.
    pub fn ranges(&self) -> Ranges {
        let seen = self.observers.iter();
        seen.filter_map(|(name, o)| Some((name.clone(), o.range()?))).collect()
    }
}

/// Runs `work` on every index below `count` from `workers` threads, each with a state of its own,
/// and gives the states. Threads take `batch` indices at a time and stop early once `work` fails.
pub fn parallel<S: Send, E: Send>(
    count: usize,
    workers: usize,
    batch: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<(), E> + Sync,
) -> Result<Vec<S>, E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let batch = batch.max(1);
    let worker = || {
        let mut state = state();
        loop {
            let start = next.fetch_add(batch, Ordering::Relaxed);
            if start >= count {
                return Ok(state);
            }
            for index in start..(start + batch).min(count) {
                if failed.load(Ordering::Relaxed) {
                    return Ok(state);
                }
                work(&mut state, index).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..workers.clamp(1, count.max(1))).map(|_| scope.spawn(worker)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<S, E>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Runs a float graph on all samples and collects the statistics of its values. `progress` is
/// called from the workers' threads after each sample.
pub fn calibrate(
    graph: &Graph,
    samples: &dyn Samples,
    options: &CalibrateOptions,
    progress: &(dyn Fn() + Sync),
) -> Result<Calibration, CalibrateError> {
    let model = Model::from_graph(graph.clone())?;
    let watched = watched(graph);
    let skipped = Mutex::new(BTreeMap::new());
    let state = || Worker {
        session: model.session(1),
        observers: graph.values.iter().map(|_| None).collect(),
    };
    let workers =
        parallel(samples.len(), options.workers, options.batch_size, state, |worker, index| {
            match samples.load(index).and_then(numbers) {
                Ok(sample) => {
                    worker.run(graph, &watched, &sample, options.method, || samples.name(index))?
                }
                Err(why) => {
                    skipped.lock().unwrap_or_else(|e| e.into_inner()).insert(index, why);
                }
            }
            progress();
            Ok::<_, CalibrateError>(())
        })?;
    let skipped = skipped.into_inner().unwrap_or_else(|e| e.into_inner());
    let used = samples.len() - skipped.len();
    if used == 0 {
        let first = skipped.iter().next().map(|(i, why)| format!("{}: {why}", samples.name(*i)));
        let first = first.unwrap_or_else(|| "there is none".into());
        return Err(CalibrateError::NoSample { count: samples.len(), first });
    }
    let mut observers: BTreeMap<String, Box<dyn Observer>> = BTreeMap::new();
    for worker in workers {
        for (value, observer) in graph.values.iter().zip(worker.observers) {
            let Some(observer) = observer else { continue };
            match observers.get_mut(&value.name) {
                Some(seen) => seen.merge(&*observer),
                None => drop(observers.insert(value.name.clone(), observer)),
            }
        }
    }
    let skipped = skipped.into_iter().map(|(i, why)| (samples.name(i), why)).collect();
    Ok(Calibration { observers, used, skipped })
}

/// Values that may need a scale of their own: floats that do not share their input's.
fn watched(graph: &Graph) -> Vec<bool> {
    let mut watched: Vec<bool> = graph.values.iter().map(|v| v.dtype == DType::F32).collect();
    for node in &graph.nodes {
        if matches!(node.op.quantization(), Quantization::Moves | Quantization::Averages) {
            node.outputs
                .iter()
                .filter(|id| !graph.outputs.contains(id))
                .for_each(|&id| watched[id] = false);
        }
    }
    watched
}

/// The sample, unless one of its inputs holds NaN or infinity.
pub(crate) fn numbers(sample: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, String> {
    let bad = |t: &Tensor| t.dtype() == DType::F32 && !all_finite(t.data());
    match sample.iter().find(|(_, t)| bad(t)) {
        Some((name, _)) => Err(format!("its input `{name}` holds NaN or infinity")),
        None => Ok(sample),
    }
}

/// Whether no element is NaN or infinite: their sum times 0 stays 0.
fn all_finite(data: &[f32]) -> bool {
    let mut lanes = [0f32; 8];
    let chunks = data.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * 0.0;
        }
    }
    lanes.iter().sum::<f32>() == 0.0 && rest.iter().all(|x| x.is_finite())
}

struct Worker {
    session: Session,
    observers: Vec<Option<Box<dyn Observer>>>,
}

impl Worker {
    fn run(
        &mut self,
        graph: &Graph,
        watched: &[bool],
        sample: &[(String, Tensor)],
        method: CalibrationMethod,
        name: impl Fn() -> String,
    ) -> Result<(), CalibrateError> {
        let inputs: Vec<_> = sample.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let observers = &mut self.observers;
        let mut not_finite = None;
        self.session.run_observed(&inputs, &mut |id, view| {
            if !watched[id] || not_finite.is_some() {
                return;
            }
            let data = view.data::<f32>();
            if !all_finite(data) {
                not_finite = Some(id);
                return;
            }
            observers[id].get_or_insert_with(|| method.observer()).observe(data);
        })?;
        match not_finite {
            Some(id) => Err(CalibrateError::NotFinite {
                value: graph.values[id].name.clone(),
                sample: name(),
            }),
            None => Ok(()),
        }
    }
}
