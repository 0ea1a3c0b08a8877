//! One sample after another through the three graphs of a comparison, and their sums in order.

use std::collections::BTreeMap;

use daq::{DType, Graph, Model, Session, Tensor};

use super::cut::{Cuts, Fed, Pair};
use super::stats::{SpreadSum, Sums};
use super::{CompareOptions, Example, probabilities};
use crate::calibrate::Samples;
use crate::evaluate::{ranking, sqnr_db};

/// How many samples of each kind are kept as examples.
const EXAMPLES: usize = 4;

/// The errors of one operator.
#[derive(Clone, Copy, Default)]
pub(super) struct OperatorSums {
    pub local: Sums,
    pub accumulated: Sums,
}

/// What one sample gave.
pub(super) struct One {
    sums: Vec<OperatorSums>,
    sqnr_db: f64,
    /// Where outputs are scores.
    example: Option<Example>,
}

/// Adds up samples in their order, whichever worker is first: sums of floats depend on it.
pub(super) struct Ordered {
    next: usize,
    waiting: BTreeMap<usize, Result<One, String>>,
    pub n: usize,
    pub sums: Vec<OperatorSums>,
    pub sqnr_db: f64,
    pub agreement: (usize, usize),
    pub float_top1: (usize, usize),
    pub top1: (usize, usize),
    pub disagree: Vec<Example>,
    pub agree: Vec<Example>,
    pub skipped: Vec<(usize, String)>,
}

impl Ordered {
    pub fn new(cuts: &Cuts) -> Self {
        Ordered {
            next: 0,
            waiting: BTreeMap::new(),
            n: 0,
            sums: vec![OperatorSums::default(); cuts.pairs.len()],
            sqnr_db: 0.0,
            agreement: (0, 0),
            float_top1: (0, 0),
            top1: (0, 0),
            disagree: Vec::new(),
            agree: Vec::new(),
            skipped: Vec::new(),
        }
    }

    pub fn take(&mut self, index: usize, result: Result<One, String>) {
        self.waiting.insert(index, result);
        while let Some(result) = self.waiting.remove(&self.next) {
            match result {
                Ok(one) => self.add(one),
                Err(why) => self.skipped.push((self.next, why)),
            }
            self.next += 1;
        }
    }

    fn add(&mut self, one: One) {
        self.n += 1;
        self.sqnr_db += one.sqnr_db;
        for (sum, more) in self.sums.iter_mut().zip(&one.sums) {
            sum.local.add(&more.local);
            sum.accumulated.add(&more.accumulated);
        }
        let Some(example) = one.example else { return };
        let agrees = example.agrees();
        let count = |(yes, of): &mut (usize, usize), right: bool| {
            *yes += usize::from(right);
            *of += 1;
        };
        count(&mut self.agreement, agrees);
        if let Some(class) = example.class {
            let right = |best: &[(usize, f32)]| best.first().is_some_and(|b| b.0 == class);
            count(&mut self.float_top1, right(&example.float));
            count(&mut self.top1, right(&example.quantized));
        }
        let kept = if agrees { &mut self.agree } else { &mut self.disagree };
        if kept.len() < EXAMPLES {
            kept.push(example);
        }
    }
}

pub(super) struct Worker<'a> {
    cuts: &'a Cuts,
    float: Session,
    accumulated: Session,
    local: Session,
    /// For each pair, then for each input.
    pub spreads: Vec<Option<SpreadSum>>,
    outputs: usize,
    input_names: [Vec<String>; 2],
}

impl<'a> Worker<'a> {
    pub fn new(cuts: &'a Cuts, models: &[Model; 3], float: &Graph, quantized: &Graph) -> Self {
        let spread = |id: usize| {
            let value = &quantized.values[id];
            let quant =
                value.quant.as_ref().filter(|q| q.is_per_tensor() && value.dtype == DType::U8);
            quant.map(SpreadSum::new)
        };
        let nodes = cuts.pairs.iter().map(|p| quantized.nodes[p.node].outputs[0]);
        let names = |g: &Graph| g.inputs.iter().map(|&id| g.values[id].name.clone()).collect();
        Worker {
            cuts,
            float: models[0].session(1),
            accumulated: models[1].session(1),
            local: models[2].session(1),
            spreads: nodes.chain(quantized.inputs.iter().copied()).map(spread).collect(),
            outputs: float.outputs.len(),
            input_names: [names(float), names(quantized)],
        }
    }

    pub fn run(
        &mut self,
        sample: &[(String, Tensor)],
        index: usize,
        samples: &dyn Samples,
        options: &CompareOptions,
    ) -> daq::Result<One> {
        // A sample is named for the float model, in the order of its inputs.
        let given = |names: &'_ [String]| -> Vec<(String, Tensor)> {
            let named = self.input_names[0].iter().zip(names);
            named
                .filter_map(|(ours, name)| {
                    let (_, tensor) = sample.iter().find(|(n, _)| n == ours)?;
                    Some((name.clone(), tensor.clone()))
                })
                .collect()
        };
        let inputs = given(&self.input_names[0]);
        let float = self.float.run(&borrowed(&inputs), Some(DType::F32))?;
        let quantized = given(&self.input_names[1]);
        let accumulated = self.accumulated.run(&borrowed(&quantized), Some(DType::F32))?;
        let fed: Vec<(&str, &Tensor)> = (self.cuts.local_inputs.iter())
            .map(|(name, fed)| {
                let tensor = match fed {
                    Fed::Input(i) => &inputs[*i].1,
                    Fed::Output(i) => &float[*i],
                };
                (name.as_str(), tensor)
            })
            .collect();
        let local = self.local.run(&fed, Some(DType::F32))?;
        for (pair, spread) in self.cuts.pairs.iter().zip(&mut self.spreads) {
            if let Some(spread) = spread {
                spread.observe(float[pair.float_output].data());
            }
        }
        for ((_, tensor), spread) in inputs.iter().zip(&mut self.spreads[self.cuts.pairs.len()..]) {
            if let (Some(spread), DType::F32) = (spread, tensor.dtype()) {
                spread.observe(tensor.data());
            }
        }
        let sums = |pair: &Pair| {
            let reference = float[pair.float_output].data::<f32>();
            OperatorSums {
                local: pair
                    .local_output
                    .map_or(Sums::default(), |i| Sums::of(reference, local[i].data())),
                accumulated: Sums::of(reference, accumulated[pair.accumulated_output].data()),
            }
        };
        let [expected, outputs] = [&float[..self.outputs], &accumulated[..self.outputs]];
        let name = samples.name(index);
        let class = options.classes.and_then(|c| c.class(&name)).map(|c| c + options.class_offset);
        let best = [expected, outputs].map(|o| o.first().and_then(best));
        let example = match best {
            [Some(float), Some(quantized)] => {
                Some(Example { index, name, class, float, quantized })
            }
            _ => None,
        };
        Ok(One {
            sums: self.cuts.pairs.iter().map(sums).collect(),
            sqnr_db: sqnr_db(expected, outputs),
            example,
        })
    }
}

fn borrowed(named: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    named.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

/// The five best classes of a row of scores with their probabilities; `None` for anything else.
fn best(output: &Tensor) -> Option<Vec<(usize, f32)>> {
    let probabilities = probabilities(output)?;
    let order = ranking(output.data());
    Some(order.iter().take(5).map(|&class| (class, probabilities[class])).collect())
}
