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

/// Positions taken of one sample: sums of their products stay exact in `f32` (`16 * 255² < 2^24`).
const POSITIONS: usize = 16;

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
        let mut matrix = vec![0f32; rows * inputs];
        let mut transposed = vec![0f32; rows * inputs];
        let mut first = vec![0i64; self.groups * inputs];
        let mut second = vec![0f32; if self.second { self.groups * inputs * inputs } else { 0 }];
        for (group, first) in first.chunks_exact_mut(inputs).enumerate() {
            for (i, pixels) in chosen.iter().enumerate() {
                for (tap, pixel) in pixels.iter().enumerate() {
                    for c in 0..self.per_group {
                        let channel = group * self.per_group + c;
                        let x = pixel.map_or(0.0, |p| {
                            let code = codes[p * pixel_step + channel * channel_step];
                            (i32::from(code) - self.zero_point) as f32
                        });
                        let k = c * taps + tap;
                        matrix[i * inputs + k] = x;
                        transposed[k * rows + i] = x;
                    }
                }
            }
            for (sum, column) in first.iter_mut().zip(transposed.chunks_exact(rows)) {
                *sum += column.iter().sum::<f32>() as i64;
            }
            if self.second {
                let product = &mut second[group * inputs * inputs..][..inputs * inputs];
                products(inputs, rows, &transposed, &matrix, product);
            }
        }
        let mut sums = self.sums.lock().unwrap_or_else(|e| e.into_inner());
        sums.first.iter_mut().zip(&first).for_each(|(sum, x)| *sum += x);
        sums.second.iter_mut().zip(&second).for_each(|(sum, &x)| *sum += x as i32);
        sums.rows += rows;
    }

    fn moments(&self) -> Option<Moments> {
        let sums = std::mem::take(&mut *self.sums.lock().unwrap_or_else(|e| e.into_inner()));
        let inputs = self.inputs();
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

/// `a * b` for few or many inputs; every sum is exact.
fn products(inputs: usize, rows: usize, a: &[f32], b: &[f32], product: &mut [f32]) {
    if inputs > 32 {
        return matmul_f32(inputs, rows, inputs, a, b, product, Isa::best());
    }
    for row in b.chunks_exact(inputs) {
        for (product, &x) in product.chunks_exact_mut(inputs).zip(row) {
            product.iter_mut().zip(row).for_each(|(p, y)| *p += x * y);
        }
    }
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
