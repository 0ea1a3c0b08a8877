//! Calibration: the float model runs on samples while observers watch its values.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use daq::ops::Quantization;
use daq::{DType, Graph, Model, Session, Tensor, TensorView, ValueId};
use daq_kernels::{Isa, RangeF32, range_f32};

use crate::observe::{CalibrationMethod, Histogram, Observer};
use crate::quantize::Ranges;
use crate::range::Range;

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
    /// What was seen of each value, by name.
    pub fn observers(&self) -> &BTreeMap<String, Box<dyn Observer>> {
        &self.observers
    }

    /// The range of each value by another method than that of calibration; only of values with
    /// histograms.
    pub fn ranges_by(&self, method: CalibrationMethod) -> Ranges {
        let range = |o: &dyn Observer| o.as_any().downcast_ref::<Histogram>()?.range_by(method);
        let seen = self.observers.iter();
        seen.filter_map(|(name, o)| Some((name.clone(), range(&**o)?))).collect()
    }

    /// The ranges, those of the graph's outputs as wide as what was seen: the best classes are those
    /// at the end of the range, and clipped they would be equal.
    pub fn ranges_of(&self, graph: &Graph) -> Ranges {
        let mut ranges = self.ranges();
        self.widen_outputs(graph, &mut ranges);
        ranges
    }

    /// Makes the ranges of a graph's outputs as wide as what was seen.
    pub fn widen_outputs(&self, graph: &Graph, ranges: &mut Ranges) {
        for name in graph.outputs.iter().map(|&id| &graph.values[id].name) {
            if let Some(seen) = self.observers.get(name).and_then(|o| o.seen()) {
                ranges.insert(name.clone(), seen);
            }
        }
    }

    /// From what was seen elsewhere.
    pub fn new(
        observers: BTreeMap<String, Box<dyn Observer>>,
        used: usize,
        skipped: Vec<(String, String)>,
    ) -> Self {
        Calibration { observers, used, skipped }
    }

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

/// What was shown of a model's values on samples.
pub struct Watched<S> {
    /// The state of each worker.
    pub states: Vec<S>,
    /// Samples that were used.
    pub used: usize,
    /// Samples that could not be used, with the reason, by name.
    pub skipped: Vec<(String, String)>,
}

/// Runs a model on all samples and shows each value that it computes to `see`, with the sample's
/// index. Each of `workers` threads has a state of its own and takes `batch` samples at a time.
/// `progress` is called from the workers' threads after each sample.
pub fn watch<S: Send>(
    model: &Model,
    samples: &dyn Samples,
    (workers, batch): (usize, usize),
    state: impl Fn() -> S + Sync,
    see: impl Fn(&mut S, usize, ValueId, TensorView) -> Result<(), CalibrateError> + Sync,
    progress: &(dyn Fn() + Sync),
) -> Result<Watched<S>, CalibrateError> {
    let skipped = Mutex::new(BTreeMap::new());
    let start = || (model.session(1), state());
    let work = |(session, state): &mut (Session, S), index: usize| {
        match samples.load(index).and_then(numbers) {
            Ok(sample) => {
                let inputs: Vec<_> = sample.iter().map(|(name, t)| (name.as_str(), t)).collect();
                let mut result = Ok(());
                session.run_observed(&inputs, &mut |id, view| {
                    if result.is_ok() {
                        result = see(state, index, id, view);
                    }
                })?;
                result?;
            }
            Err(why) => {
                skipped.lock().unwrap_or_else(|e| e.into_inner()).insert(index, why);
            }
        }
        progress();
        Ok::<_, CalibrateError>(())
    };
    let states = parallel(samples.len(), workers, batch, start, work)?;
    let states = states.into_iter().map(|(_, state)| state).collect();
    let skipped = skipped.into_inner().unwrap_or_else(|e| e.into_inner());
    let used = samples.len() - skipped.len();
    if used == 0 {
        let first = skipped.iter().next().map(|(i, why)| format!("{}: {why}", samples.name(*i)));
        let first = first.unwrap_or_else(|| "there is none".into());
        return Err(CalibrateError::NoSample { count: samples.len(), first });
    }
    let skipped = skipped.into_iter().map(|(i, why)| (samples.name(i), why)).collect();
    Ok(Watched { states, used, skipped })
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
    let wanted = watched(graph);
    let state = || graph.values.iter().map(|_| None).collect::<Vec<Option<Box<dyn Observer>>>>();
    let see =
        |seen: &mut Vec<Option<Box<dyn Observer>>>, index: usize, id: ValueId, view: TensorView| {
            if !wanted[id] {
                return Ok(());
            }
            let data = view.data::<f32>();
            let RangeF32 { min, max, finite } = range_f32(data, Isa::best());
            if !finite {
                let (value, sample) = (graph.values[id].name.clone(), samples.name(index));
                return Err(CalibrateError::NotFinite { value, sample });
            }
            if !data.is_empty() {
                let observer = seen[id].get_or_insert_with(|| options.method.observer());
                observer.observe(data, Range { min, max });
            }
            Ok(())
        };
    let threads = (options.workers, options.batch_size);
    let Watched { states, used, skipped } = watch(&model, samples, threads, state, see, progress)?;
    let mut observers: BTreeMap<String, Box<dyn Observer>> = BTreeMap::new();
    for seen in states {
        for (value, observer) in graph.values.iter().zip(seen) {
            let Some(observer) = observer else { continue };
            match observers.get_mut(&value.name) {
                Some(seen) => seen.merge(&*observer),
                None => drop(observers.insert(value.name.clone(), observer)),
            }
        }
    }
    Ok(Calibration { observers, used, skipped })
}

/// Values that may need a scale of their own: floats that do not share their input's.
pub(crate) fn watched(graph: &Graph) -> Vec<bool> {
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

/// Whether no element is NaN or infinite.
pub(crate) fn all_finite(data: &[f32]) -> bool {
    range_f32(data, Isa::best()).finite
}
