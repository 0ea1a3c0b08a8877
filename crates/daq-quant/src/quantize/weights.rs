//! Weights and biases as integers.

use std::collections::HashMap;

use daq::ops::Quantization;
use daq::{DType, Graph, Node, Op, QuantParams, Tensor, Value, ValueId};

use super::{QuantizeError, QuantizeOptions, Weights};
use crate::range::{Range, rounded_up};
use crate::recover::factor::Factor;
use crate::recover::moments::Moments;
use crate::recover::{bias, rounding, weight_scales};

/// The largest bias code that is used: half of the accumulator's range stays for the products.
const MOST_BIAS: f64 = (1i64 << 30) as f64;

/// The same for power-of-two scales: half of what a float sum holds exactly beside a weight scale
/// of up to 15 / 8.
const MOST_EXACT_BIAS: f64 = (1i64 << 19) as f64;

/// The digits after the leading one of weight scales beside power-of-two scales.
const MANTISSA_BITS: u32 = 3;

/// The bias code aimed at where a channel has no weights to set the scale.
const BIAS_OF_EMPTY: f64 = (1i64 << 20) as f64;

/// Replaces a node's constant weights and bias by integers. Input 0 is codes already.
/// `widened_channels` counts the channels whose scale had to grow for the bias. `like` may know the codes.
pub(super) fn quantize(
    graph: &mut Graph,
    node: &mut Node,
    options: &QuantizeOptions,
    scales: &HashMap<ValueId, QuantParams>,
    widened_channels: &mut usize,
    moments: Option<&Moments>,
    like: Option<&Graph>,
) -> Result<(), QuantizeError> {
    let (Some(x), Some(w)) = (node.inputs[0], node.inputs[1]) else { return Ok(()) };
    let Some(x_quant) = graph.values[x].quant.clone().or_else(|| scales.get(&x).cloned()) else {
        return Ok(());
    };
    let Some(mut weights) = graph.values[w].data.clone() else { return Ok(()) };
    let name = graph.node_name(node).to_string();
    let bias_id = node.inputs.get(2).copied().flatten();
    let mut bias = bias_id.and_then(|id| graph.values[id].data.clone());
    fold_gemm(&mut node.op, &mut weights, &mut bias, &graph.values[w].shape);
    let channels = Channels::of(&node.op, weights.shape());
    let x_scale = x_quant.scale[0];
    let limits = Limits { x_scale, few_digits: options.power_of_two_scales };
    let (codes, quant) = match options.weights {
        Weights::Asymmetric => asymmetric(&weights, bias.as_ref(), &limits),
        scheme => {
            let per_channel = scheme == Weights::PerChannel;
            let (mut scale, widened) =
                symmetric_scales(&weights, &channels, per_channel, bias.as_ref(), &limits);
            *widened_channels += widened;
            if let Some(moments) = moments.filter(|_| options.weight_scales && per_channel) {
                let bias = bias.as_ref().map(|b| b.data::<f32>()).unwrap_or_default();
                channels.finer(&node.op, &mut scale, &weights, moments, bias, &limits);
            }
            symmetric(&weights, &channels, scale)
        }
    };
    let fits = |m: &&Moments| channels.inputs(&node.op, &weights) == Some(m.mean.len());
    let mut codes = codes;
    if let Some(moments) = moments.filter(fits) {
        if let Some(factors) = moments.factors.as_ref().filter(|_| options.error_compensation) {
            let known = like.and_then(|graph| codes_in(graph, &name, &quant));
            codes =
                known.unwrap_or_else(|| compensated(&weights, &codes, &quant, &channels, factors));
        }
        if options.bias_correction {
            let rows = bias.as_ref().map_or(vec![0.0; channels.count], |b| b.data().to_vec());
            let errors = channels.errors(&weights, &codes, &quant);
            let rows = bias::corrected(&rows, &errors, &moments.mean);
            bias = Some(Tensor::from_slice(&[rows.len()], &rows));
        }
    }
    let shape = weights.shape().to_vec();
    let weight_name = graph.values[w].name.clone();
    let value = Value::constant(unique(graph, &weight_name, &name, w), codes.reshaped(&shape));
    let quant_of_weights = quant.clone();
    node.inputs[1] = Some(graph.add_value(value.with_quant(quant)));
    if let Some(bias) = bias {
        let scale: Vec<f32> = match quant_of_weights.is_per_tensor() {
            true => vec![x_scale * quant_of_weights.scale[0]],
            false => quant_of_weights.scale.iter().map(|w| x_scale * w).collect(),
        };
        let quant = QuantParams::per_channel(scale, 0);
        let code = |(c, &b): (usize, &f32)| {
            (f64::from(b) / f64::from(quant.scale_of(c))).round_ties_even() as i32
        };
        let codes: Vec<i32> = bias.data::<f32>().iter().enumerate().map(code).collect();
        let name = match bias_id {
            Some(id) => {
                let bias_name = graph.values[id].name.clone();
                unique(graph, &bias_name, &name, id)
            }
            None => crate::passes::unique(graph, &format!("{name}_bias")),
        };
        let value = Value::constant(name, Tensor::from_slice(&[codes.len()], &codes));
        node.inputs.resize(node.inputs.len().max(3), None);
        node.inputs[2] = Some(graph.add_value(value.with_quant(quant)));
    }
    Ok(())
}

/// Refuses weights and biases that hold NaN or infinity, also those that will stay in float.
pub(super) fn check_finite(graph: &Graph) -> Result<(), QuantizeError> {
    let weighted = |n: &&Node| n.op.quantization() == Quantization::Weighted;
    for node in graph.nodes.iter().filter(weighted) {
        for value in node.inputs.iter().flatten().map(|&id| &graph.values[id]) {
            let finite = |t: &Tensor| {
                t.dtype() != DType::F32 || t.data::<f32>().iter().all(|v| v.is_finite())
            };
            if !value.data.as_ref().is_none_or(finite) {
                let (tensor, node) = (value.name.clone(), graph.node_name(node).to_string());
                return Err(QuantizeError::NotFinite { tensor, node });
            }
        }
    }
    Ok(())
}

/// The constant's own name for its first reader (the float original is renamed: it goes away
/// unless a float node reads it too), one with the node's name for others.
fn unique(graph: &mut Graph, name: &str, node: &str, original: ValueId) -> String {
    let float = format!("{name}_float");
    if graph.values[original].name == name && graph.find_value(&float).is_none() {
        graph.values[original].name = float;
        return name.to_string();
    }
    let base = name.trim_end_matches("_float");
    let mut unique = format!("{base}_of_{node}");
    while graph.find_value(&unique).is_some() {
        unique.push('_');
    }
    unique
}

/// Whether input 2 of a Gemm can be its bias: one row, or one number.
pub(super) fn is_row(graph: &Graph, node: &Node) -> bool {
    let Some(Some(c)) = node.inputs.get(2) else { return true };
    let shape = &graph.values[*c].shape;
    let columns = graph.values[node.outputs[0]].shape[1];
    let len: usize = shape.iter().product();
    len == 1 || (len == columns && shape.last() == Some(&columns))
}

/// Multiplies alpha and beta of a Gemm into its constants, and makes its C one full row.
fn fold_gemm(op: &mut Op, weights: &mut Tensor, bias: &mut Option<Tensor>, shape: &[usize]) {
    let Op::Gemm(gemm) = op else { return };
    let columns = if gemm.trans_b { shape[0] } else { shape[1] };
    let scaled = |t: &Tensor, by: f32, shape: &[usize]| {
        Tensor::from_slice(shape, &t.data::<f32>().iter().map(|v| v * by).collect::<Vec<_>>())
    };
    *weights = scaled(weights, gemm.alpha, shape);
    if let Some(b) = bias {
        let full = match b.len() {
            1 => Tensor::from_slice(&[columns], &vec![b.data::<f32>()[0]; columns]),
            _ => b.reshaped(&[columns]),
        };
        *b = scaled(&full, gemm.beta, &[columns]);
    }
    (gemm.alpha, gemm.beta) = (1.0, 1.0);
}

/// How the elements of a weight tensor belong to output channels.
struct Channels {
    axis: usize,
    count: usize,
    /// Elements after the axis.
    inner: usize,
}

impl Channels {
    fn of(op: &Op, shape: &[usize]) -> Channels {
        let axis = match op {
            Op::Gemm(gemm) if gemm.trans_b => 0,
            Op::Gemm(_) => 1,
            Op::MatMul(_) => shape.len() - 1,
            // Weights [C, M / group, kH, kW]: channels of different groups share a scale.
            Op::ConvTranspose(_) => 1,
            _ => 0,
        };
        Channels { axis, count: shape[axis], inner: shape[axis + 1..].iter().product() }
    }

    fn of_element(&self, i: usize) -> usize {
        i / self.inner % self.count
    }

    /// The inputs of all groups, where an output channel's weights follow one another by input.
    fn inputs(&self, op: &Op, weights: &Tensor) -> Option<usize> {
        let each = weights.len() / self.count.max(1);
        match op {
            Op::ConvTranspose(_) => None,
            Op::Conv(conv) => Some(conv.group * each),
            _ => Some(each),
        }
    }

    /// Elements output channel by output channel.
    fn rows<T: Copy>(&self, elements: &[T]) -> Vec<T> {
        match self.axis {
            0 => elements.to_vec(),
            _ => (0..elements.len()).map(|i| elements[self.position(i, elements.len())]).collect(),
        }
    }

    /// Where element `i` of [`Channels::rows`] lies in the tensor.
    fn position(&self, i: usize, len: usize) -> usize {
        let each = len / self.count;
        if self.axis == 0 { i } else { i % each * self.count + i / each }
    }

    /// Scales of least error, as far as the bias allows.
    fn finer(
        &self,
        op: &Op,
        scale: &mut [f32],
        weights: &Tensor,
        moments: &Moments,
        bias: &[f32],
        limits: &Limits,
    ) {
        let fits = self.inputs(op, weights) == Some(moments.variance.len());
        if !fits || self.count == 0 || weights.is_empty() {
            return;
        }
        let rows = self.rows(weights.data::<f32>());
        let each = rows.len() / self.count;
        let group = (self.count / (moments.variance.len() / each)).max(1);
        for (c, (scale, row)) in scale.iter_mut().zip(rows.chunks_exact(each)).enumerate() {
            let variance = &moments.variance[c / group * each..][..each];
            let bias = bias.get(c..=c).unwrap_or_default();
            let least = limits.least_scale(bias, limits.most_bias());
            let best = limits.rounded(weight_scales::best(row, variance, *scale));
            *scale = if best < least { *scale } else { best };
        }
    }

    /// What the weights lose to their codes, output channel by output channel.
    fn errors(&self, weights: &Tensor, codes: &Tensor, quant: &QuantParams) -> Vec<f32> {
        let real = |(i, code): (usize, i32)| {
            let c = self.of_element(i);
            (code - quant.zero_point_of(c)) as f32 * quant.scale_of(c)
        };
        let errors: Vec<f32> = (integers(codes).into_iter().enumerate())
            .map(real)
            .zip(weights.data::<f32>())
            .map(|(real, w)| w - real)
            .collect();
        self.rows(&errors)
    }
}

/// The codes of weights.
fn integers(codes: &Tensor) -> Vec<i32> {
    match codes.dtype() {
        DType::U8 => codes.data::<u8>().iter().map(|&c| c.into()).collect(),
        _ => codes.data::<i8>().iter().map(|&c| c.into()).collect(),
    }
}

/// The codes of a node's weights in another graph, where they have this scale.
fn codes_in(graph: &Graph, node: &str, quant: &QuantParams) -> Option<Tensor> {
    let node = graph.nodes.iter().find(|n| graph.node_name(n) == node)?;
    let weights = &graph.values[node.inputs.get(1).copied()??];
    weights.data.clone().filter(|_| weights.quant.as_ref() == Some(quant))
}

/// Codes at the same scales that make up for their own errors.
fn compensated(
    weights: &Tensor,
    codes: &Tensor,
    quant: &QuantParams,
    channels: &Channels,
    factors: &[Factor],
) -> Tensor {
    let (lowest, highest) = if codes.dtype() == DType::U8 { (0, 255) } else { (-127, 127) };
    let steps = |(i, &w): (usize, &f32)| w / quant.scale_of(channels.of_element(i));
    let steps: Vec<f32> = weights.data::<f32>().iter().enumerate().map(steps).collect();
    let steps = channels.rows(&steps);
    let zero_point = quant.zero_point[0];
    let bounds = ((lowest - zero_point) as f32, (highest - zero_point) as f32);
    let group = steps.len() / factors.len();
    let mut rounded = vec![0i32; steps.len()];
    for (g, (steps, factor)) in steps.chunks_exact(group).zip(factors).enumerate() {
        for (i, code) in rounding::round(steps, factor, bounds).into_iter().enumerate() {
            rounded[channels.position(g * group + i, weights.len())] = code as i32 + zero_point;
        }
    }
    match codes.dtype() {
        DType::U8 => Tensor::from_slice(
            weights.shape(),
            &rounded.iter().map(|&c| c as u8).collect::<Vec<_>>(),
        ),
        _ => Tensor::from_slice(
            weights.shape(),
            &rounded.iter().map(|&c| c as i8).collect::<Vec<_>>(),
        ),
    }
}

/// What bounds a weight scale beside the weights.
struct Limits {
    x_scale: f32,
    /// Whether the scale has [`MANTISSA_BITS`] only.
    few_digits: bool,
}

impl Limits {
    /// The scale that these biases need at least, so that no code is above `most`.
    fn least_scale(&self, bias: &[f32], most: f64) -> f32 {
        let of = |&b: &f32| (f64::from(b.abs()) / (f64::from(self.x_scale) * most)) as f32;
        bias.iter().map(of).fold(0.0, f32::max)
    }

    fn most_bias(&self) -> f64 {
        if self.few_digits { MOST_EXACT_BIAS } else { MOST_BIAS }
    }

    /// The scale to use for one that is wide enough.
    fn rounded(&self, scale: f32) -> f32 {
        match scale >= f32::MIN_POSITIVE {
            false => 1.0,
            true if self.few_digits => rounded_up(scale, MANTISSA_BITS),
            true => scale,
        }
    }
}

/// Symmetric scales, one or one per channel, and how many a bias made wider.
fn symmetric_scales(
    weights: &Tensor,
    channels: &Channels,
    per_channel: bool,
    bias: Option<&Tensor>,
    limits: &Limits,
) -> (Vec<f32>, usize) {
    let mut largest = vec![0f32; channels.count];
    for (i, w) in weights.data::<f32>().iter().enumerate() {
        let c = channels.of_element(i);
        largest[c] = largest[c].max(w.abs());
    }
    if !per_channel {
        largest = vec![largest.iter().copied().fold(0.0, f32::max)];
    }
    let bias = bias.map(|b| b.data::<f32>()).unwrap_or_default();
    let mut widened = 0;
    let scale = largest.iter().enumerate().map(|(c, &largest)| {
        let biases = if per_channel { bias.get(c..=c).unwrap_or_default() } else { bias };
        let least = limits.least_scale(biases, limits.most_bias());
        let own = match largest > 0.0 {
            true => largest / 127.0,
            false => limits.least_scale(biases, BIAS_OF_EMPTY).max(least),
        };
        widened += usize::from(least > own);
        limits.rounded(own.max(least))
    });
    (scale.collect(), widened)
}

fn symmetric(weights: &Tensor, channels: &Channels, scale: Vec<f32>) -> (Tensor, QuantParams) {
    let one = scale.len() == 1;
    let code = |(i, &w): (usize, &f32)| {
        let scale = if one { scale[0] } else { scale[channels.of_element(i)] };
        (w / scale).round_ties_even().clamp(-127.0, 127.0) as i8
    };
    let codes: Vec<i8> = weights.data::<f32>().iter().enumerate().map(code).collect();
    let axis = if one { 0 } else { channels.axis };
    (Tensor::from_slice(weights.shape(), &codes), QuantParams::per_channel(scale, axis))
}

fn asymmetric(weights: &Tensor, bias: Option<&Tensor>, limits: &Limits) -> (Tensor, QuantParams) {
    let data = weights.data::<f32>();
    let zero = Range { min: 0.0, max: 0.0 };
    let range = data.iter().fold(zero, |r, &w| r.union(Range { min: w, max: w }));
    let mut quant = range.to_u8();
    let bias = bias.map(|b| b.data::<f32>()).unwrap_or_default();
    let least = limits.least_scale(bias, limits.most_bias());
    quant.scale[0] = limits.rounded(quant.scale[0].max(least));
    // Where the scale has grown, the zero point lies elsewhere.
    let zero_point = (-range.min / quant.scale[0]).round_ties_even();
    quant.zero_point[0] = zero_point.clamp(0.0, 255.0) as i32;
    let codes: Vec<u8> = data.iter().map(|&w| quant.code(w, 0, 255) as u8).collect();
    (Tensor::from_slice(weights.shape(), &codes), quant)
}
