//! Weights and biases as integers.

use std::collections::HashMap;

use daq::{Graph, Node, Op, QuantParams, Tensor, Value, ValueId};

use super::{QuantizeError, Weights};
use crate::range::Range;

/// The largest bias code that is used: half of the accumulator's range stays for the products.
const MOST_BIAS: f64 = (1i64 << 30) as f64;

/// The bias code aimed at where a channel has no weights to set the scale.
const BIAS_OF_EMPTY: f64 = (1i64 << 20) as f64;

/// Replaces a node's constant weights and bias by integers. Input 0 is codes already.
/// `widened_channels` counts the channels whose scale had to grow for the bias.
pub(super) fn quantize(
    graph: &mut Graph,
    node: &mut Node,
    scheme: Weights,
    scales: &HashMap<ValueId, QuantParams>,
    widened_channels: &mut usize,
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
    let finite = |t: &Tensor| t.data::<f32>().iter().all(|v| v.is_finite());
    for (id, tensor) in [(Some(w), Some(&weights)), (bias_id, bias.as_ref())] {
        if let (Some(id), Some(tensor)) = (id, tensor)
            && !finite(tensor)
        {
            let tensor = graph.values[id].name.clone();
            return Err(QuantizeError::NotFinite { tensor, node: name });
        }
    }
    let channels = Channels::of(&node.op, weights.shape());
    let x_scale = x_quant.scale[0];
    let (codes, quant) = match scheme {
        Weights::Asymmetric => asymmetric(&weights, bias.as_ref(), x_scale),
        _ => {
            let per_channel = scheme == Weights::PerChannel;
            let (scale, widened) =
                symmetric_scales(&weights, &channels, per_channel, bias.as_ref(), x_scale);
            *widened_channels += widened;
            symmetric(&weights, &channels, scale)
        }
    };
    let shape = weights.shape().to_vec();
    let weight_name = graph.values[w].name.clone();
    let value = Value::constant(unique(graph, &weight_name, &name, w), codes.reshaped(&shape));
    let quant_of_weights = quant.clone();
    node.inputs[1] = Some(graph.add_value(value.with_quant(quant)));
    if let (Some(id), Some(bias)) = (bias_id, bias) {
        let scale: Vec<f32> = match quant_of_weights.is_per_tensor() {
            true => vec![x_scale * quant_of_weights.scale[0]],
            false => quant_of_weights.scale.iter().map(|w| x_scale * w).collect(),
        };
        let quant = QuantParams::per_channel(scale, 0);
        let code = |(c, &b): (usize, &f32)| {
            (f64::from(b) / f64::from(quant.scale_of(c))).round_ties_even() as i32
        };
        let codes: Vec<i32> = bias.data::<f32>().iter().enumerate().map(code).collect();
        let bias_name = graph.values[id].name.clone();
        let name = unique(graph, &bias_name, &name, id);
        let value = Value::constant(name, Tensor::from_slice(&[codes.len()], &codes));
        node.inputs[2] = Some(graph.add_value(value.with_quant(quant)));
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
}

/// The scale that a bias needs at least, so that its code fits.
fn least_scale(bias: f32, x_scale: f32, most: f64) -> f32 {
    (f64::from(bias.abs()) / (f64::from(x_scale) * most)) as f32
}

/// Symmetric scales, one or one per channel, and how many a bias made wider.
fn symmetric_scales(
    weights: &Tensor,
    channels: &Channels,
    per_channel: bool,
    bias: Option<&Tensor>,
    x_scale: f32,
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
        let needed =
            |most| biases.iter().map(|&b| least_scale(b, x_scale, most)).fold(0.0, f32::max);
        let own = if largest > 0.0 { largest / 127.0 } else { needed(BIAS_OF_EMPTY) };
        let least = needed(MOST_BIAS);
        widened += usize::from(least > own);
        let scale = own.max(least);
        if scale >= f32::MIN_POSITIVE { scale } else { 1.0 }
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

fn asymmetric(weights: &Tensor, bias: Option<&Tensor>, x_scale: f32) -> (Tensor, QuantParams) {
    let data = weights.data::<f32>();
    let zero = Range { min: 0.0, max: 0.0 };
    let range = data.iter().fold(zero, |r, &w| r.union(Range { min: w, max: w }));
    let mut quant = range.to_u8();
    let bias = bias.map(|b| b.data::<f32>()).unwrap_or_default();
    let least = bias.iter().map(|&b| least_scale(b, x_scale, MOST_BIAS)).fold(0.0, f32::max);
    quant.scale[0] = quant.scale[0].max(least);
    let codes: Vec<u8> = data.iter().map(|&w| quant.code(w, 0, 255) as u8).collect();
    (Tensor::from_slice(weights.shape(), &codes), quant)
}
