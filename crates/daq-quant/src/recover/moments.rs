//! First and second moments of what each weighted operator reads, from running the 8-bit model.
//!
//! They are sums of products of codes, so they are exact and the same for every number of threads.
//! From a long tensor some positions are taken, spread over it and moving from sample to sample.

use std::collections::BTreeMap;
use std::sync::Mutex;

use daq::{Graph, Model, Op, TensorView, ValueId};
use daq_kernels::{Isa, matmul_f32};

use super::statistics::channels;
use super::{factor::Factor, source};
use crate::calibrate::{CalibrateError, Samples, parallel, watch};

/// Positions taken of one sample.
const POSITIONS: usize = 16;

/// Rows multiplied at a time: sums of their products stay exact in `f32` (`256 * 255² < 2^24`).
const ROWS_AT_ONCE: usize = 256;

/// From this many inputs on, rows wait until there are enough to multiply: adding the product of few takes longer
/// than making it.
const MANY_INPUTS: usize = 33;

/// The most rows in all: sums of products of codes stay within 31 bits.
const MOST_ROWS: usize = i32::MAX as usize / (255 * 255);

/// The most inputs of an output channel whose second moments are kept.
const MOST_INPUTS: usize = 1536;

/// Second moments are of use from this many rows for each input.
const LEAST_ROWS: f64 = 0.5;

/// Moments of the inputs of one operator's output channels, in each group.
#[derive(Debug)]
pub struct Moments {
    /// The mean of each input (channel, then tap), in real numbers; group by group.
    pub mean: Vec<f64>,
    /// The factor of the covariance matrix of each group; absent where there are too few rows.
    pub factors: Option<Vec<Factor>>,
    /// The variance of each input, like `mean`.
    pub variance: Vec<f64>,
}

/// Moments by the name of the operator's output.
pub type AllMoments = BTreeMap<String, Moments>;

/// One operator to watch.
struct Layer {
    output: String,
    /// What it reads: of the values that are shown.
    input: ValueId,
    zero_point: i32,
    scale: f64,
    groups: usize,
    /// Input channels of a group.
    per_group: usize,
    /// For each output position and tap the input pixel, or none in the padding.
    taps: Vec<Vec<Option<usize>>>,
    second: bool,
    sums: Mutex<Sums>,
}

#[derive(Default)]
struct Sums {
    rows: usize,
    first: Vec<i64>,
    second: Vec<i32>,
    /// Rows whose second moments are not among `second` yet; only of a single group.
    waiting: Vec<f32>,
}

impl Sums {
    fn add(&mut self, products: &[f32]) {
        self.second.iter_mut().zip(products).for_each(|(sum, &x)| *sum += x as i32);
    }
}

impl Layer {
    fn inputs(&self) -> usize {
        self.per_group * self.taps[0].len()
    }

    /// What a node of the 8-bit graph asks to be watched.
    fn of(graph: &Graph, node: &daq::Node, samples: usize) -> Option<Layer> {
        let input = node.inputs.first().copied().flatten()?;
        let w = &graph.values[node.inputs.get(1).copied().flatten()?];
        let x = &graph.values[input];
        let quant = x.quant.as_ref().filter(|_| x.is_quantized() && w.data.is_some())?;
        let (groups, per_group, taps) = match &node.op {
            Op::Conv(conv) => {
                let axes =
                    conv.window.resolve(&graph.input_specs(node), Some(&w.shape[2..])).ok()?;
                let out: Vec<usize> = axes.iter().map(|a| a.output).collect();
                let kernel: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
                let of = |position: usize| {
                    let at = |tap: usize| {
                        let (mut p, mut t, mut pixel, mut unit) = (position, tap, 0, 1);
                        for (i, axis) in axes.iter().enumerate().rev() {
                            let y = (p % out[i] * axis.stride + t % kernel[i] * axis.dilation)
                                .checked_sub(axis.pad_begin)?;
                            (p, t) = (p / out[i], t / kernel[i]);
                            pixel += (y < axis.input).then_some(y)? * unit;
                            unit *= axis.input;
                        }
                        Some(pixel)
                    };
                    (0..kernel.iter().product()).map(at).collect()
                };
                let positions: usize = out.iter().product();
                (conv.group, w.shape[1], (0..positions).map(of).collect::<Vec<_>>())
            }
            Op::Gemm(_) | Op::MatMul(_) if x.shape.len() == 2 && x.shape[0] == 1 => {
                (1, x.shape[1], vec![vec![Some(0)]])
            }
            _ => return None,
        };
        let batch_of_one = x.shape[0] == 1;
        let inputs = per_group * taps.first()?.len();
        let rows = taps.len().min(POSITIONS).min(MOST_ROWS / samples.max(1)) * samples;
        let second = inputs <= MOST_INPUTS && rows as f64 >= LEAST_ROWS * inputs as f64;
        batch_of_one.then(|| Layer {
            output: graph.values[node.outputs[0]].name.clone(),
            input: source(graph, input),
            zero_point: quant.zero_point[0],
            scale: quant.scale[0].into(),
            groups,
            per_group,
            second,
            sums: Mutex::new(Sums {
                rows: 0,
                first: vec![0; groups * inputs],
                second: vec![0; if second { groups * inputs * inputs } else { 0 }],
                waiting: Vec::new(),
            }),
            taps,
        })
    }

    /// Adds the rows of one sample.
    fn see(&self, graph: &Graph, index: usize, samples: usize, view: &TensorView) {
        let shape = &graph.values[self.input].shape;
        let Some((channels, inner)) = channels(shape, view.shape) else { return };
        let pixels: usize = shape[2..].iter().product();
        // Channels side by side, or pixels.
        let (pixel_step, channel_step) = if inner == 1 { (channels, 1) } else { (1, pixels) };
        let codes = view.data::<u8>();
        let rows = self.taps.len().min(POSITIONS).min(MOST_ROWS / samples.max(1));
        let start = index.wrapping_mul(7919) % self.taps.len();
        let chosen: Vec<_> = (0..rows)
            .map(|r| &self.taps[(start + r * self.taps.len() / rows) % self.taps.len()])
            .collect();
        let (taps, inputs) = (self.taps[0].len(), self.inputs());
        let waits = self.second && self.waits();
        let mut matrix = vec![0f32; rows * inputs];
        let mut first = vec![0f32; self.groups * inputs];
        let products = if self.second && !waits { self.groups * inputs * inputs } else { 0 };
        let mut second = vec![0f32; products];
        for (group, first) in first.chunks_exact_mut(inputs).enumerate() {
            for (row, pixels) in matrix.chunks_exact_mut(inputs).zip(&chosen) {
                for (tap, pixel) in pixels.iter().enumerate() {
                    for c in 0..self.per_group {
                        let channel = group * self.per_group + c;
                        row[c * taps + tap] = pixel.map_or(0.0, |p| {
                            let code = codes[p * pixel_step + channel * channel_step];
                            (i32::from(code) - self.zero_point) as f32
                        });
                    }
                }
                first.iter_mut().zip(&*row).for_each(|(sum, &x)| *sum += x);
            }
            if !second.is_empty() {
                add_products(
                    &matrix,
                    inputs,
                    &mut second[group * inputs * inputs..][..inputs * inputs],
                );
            }
        }
        let mut sums = self.sums.lock().unwrap_or_else(|e| e.into_inner());
        sums.first.iter_mut().zip(&first).for_each(|(sum, &x)| *sum += x as i64);
        sums.add(&second);
        sums.rows += rows;
        if waits {
            sums.waiting.extend_from_slice(&matrix);
            if sums.waiting.len() + matrix.len() > ROWS_AT_ONCE * inputs {
                let waiting = std::mem::take(&mut sums.waiting);
                drop(sums);
                let products = products_of(&waiting, inputs);
                self.sums.lock().unwrap_or_else(|e| e.into_inner()).add(&products);
            }
        }
    }

    /// Whether rows wait for others.
    fn waits(&self) -> bool {
        self.groups == 1 && self.inputs() >= MANY_INPUTS
    }

    fn moments(&self) -> Option<Moments> {
        let mut sums = std::mem::take(&mut *self.sums.lock().unwrap_or_else(|e| e.into_inner()));
        let inputs = self.inputs();
        let waiting = std::mem::take(&mut sums.waiting);
        if !waiting.is_empty() {
            sums.add(&products_of(&waiting, inputs));
        }
        let n = sums.rows as f64;
        if sums.rows == 0 {
            return None;
        }
        let mean: Vec<f64> = sums.first.iter().map(|&s| s as f64 / n).collect();
        let mut factors = Vec::new();
        let mut variance = Vec::new();
        for (second, mean) in
            sums.second.chunks_exact(inputs * inputs).zip(mean.chunks_exact(inputs))
        {
            let covariance =
                |i: usize, j: usize| f64::from(second[i * inputs + j]) / n - mean[i] * mean[j];
            variance.extend((0..inputs).map(|i| covariance(i, i) * self.scale * self.scale));
            factors.push(Factor::of(inputs, sums.rows, &covariance));
        }
        let mean = mean.into_iter().map(|m| m * self.scale).collect();
        Some(Moments { mean, factors: self.second.then_some(factors), variance })
    }
}

/// Adds the products of the inputs of each of a few rows; every sum is exact.
fn add_products(rows: &[f32], inputs: usize, products: &mut [f32]) {
    for row in rows.chunks_exact(inputs) {
        for (products, &x) in products.chunks_exact_mut(inputs).zip(row) {
            products.iter_mut().zip(row).for_each(|(p, y)| *p += x * y);
        }
    }
}

/// The sums over rows of the products of their inputs; every sum is exact.
fn products_of(rows: &[f32], inputs: usize) -> Vec<f32> {
    let count = rows.len() / inputs;
    let mut columns = vec![0f32; rows.len()];
    for (i, row) in rows.chunks_exact(inputs).enumerate() {
        row.iter().enumerate().for_each(|(k, &x)| columns[k * count + i] = x);
    }
    let mut products = vec![0f32; inputs * inputs];
    matmul_f32(inputs, count, inputs, &columns, rows, &mut products, Isa::best());
    products
}

/// Runs an 8-bit graph on all samples and collects the moments of what its operators with weights
/// read.
pub fn moments(
    graph: &Graph,
    samples: &dyn Samples,
    workers: usize,
    progress: &(dyn Fn() + Sync),
) -> Result<AllMoments, CalibrateError> {
    let model = Model::from_graph(graph.clone())?;
    let layers: Vec<Layer> =
        graph.nodes.iter().filter_map(|node| Layer::of(graph, node, samples.len())).collect();
    let mut by_value = vec![Vec::new(); graph.values.len()];
    for (i, layer) in layers.iter().enumerate() {
        by_value[layer.input].push(i);
    }
    let see = |_: &mut (), index: usize, id: ValueId, view: TensorView| {
        by_value[id].iter().for_each(|&i| layers[i].see(graph, index, samples.len(), &view));
        Ok(())
    };
    watch(&model, samples, (workers, 1), || (), see, progress)?;
    let found = Mutex::new(AllMoments::new());
    let take = |_: &mut (), i: usize| {
        if let Some(moments) = layers[i].moments() {
            let mut found = found.lock().unwrap_or_else(|e| e.into_inner());
            found.insert(layers[i].output.clone(), moments);
        }
        Ok::<_, CalibrateError>(())
    };
    parallel(layers.len(), workers, 1, || (), take)?;
    Ok(found.into_inner().unwrap_or_else(|e| e.into_inner()))
}
