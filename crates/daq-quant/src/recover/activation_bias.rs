//! Bias correction for what quantized activations do: layer by layer, in order, the mean of each output
//! channel of the 8-bit model is brought to that of the float model.
//!
//! Each layer is measured with all layers before it corrected. See Nagel et al., "Data-Free
//! Quantization Through Weight Equalization and Bias Correction", 2019 (arXiv 1906.04721), appendix D
//! ("empirical bias correction"), here on calibration samples and behind the activation. Channels that the
//! output's range clips keep their bias: what is cut off is missing from the mean, and no shift brings it back.

use daq::ops::Quantization;
use daq::{DType, Graph, Model, Tensor, TensorView};

use super::statistics::{Statistics, channels};
use crate::calibrate::{CalibrateError, Samples, watch};

/// Corrects the biases of an 8-bit graph; returns how many operators have one. `float` holds the
/// statistics of the float model's values on the same samples. `progress` is called after each operator.
pub fn correct(
    graph: &mut Graph,
    float: &Statistics,
    samples: &dyn Samples,
    workers: usize,
    progress: &(dyn Fn() + Sync),
) -> Result<usize, CalibrateError> {
    let mut corrected = 0;
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        let output = node.outputs[0];
        let bias = node.inputs.get(2).copied().flatten();
        let weighted = node.op.quantization() == Quantization::Weighted;
        let Some(bias) = bias.filter(|_| weighted && graph.values[output].is_quantized()) else {
            continue;
        };
        let value = &graph.values[bias];
        let (Some(codes), Some(quant)) = (value.data.as_ref(), value.quant.clone()) else {
            continue;
        };
        let Some(wanted) = float.get(&graph.values[output].name) else { continue };
        if codes.dtype() != DType::I32 || codes.len() != wanted.min.len() {
            continue;
        }
        let Some(means) = means(graph, output, samples, workers)? else { continue };
        let Some(out) = graph.values[output].quant.as_ref() else { continue };
        let fits = |x: f32| (0..=255).contains(&out.code(x, -1, 256));
        let codes: Vec<i32> = (codes.data::<i32>().iter().zip(&means).enumerate())
            .map(|(c, (&code, mean))| {
                if !fits(wanted.min[c]) || !fits(wanted.max[c]) {
                    return code;
                }
                let shift = (wanted.mean(c) - mean) / f64::from(quant.scale_of(c));
                let limit = f64::from(1 << 30);
                (f64::from(code) + shift).round_ties_even().clamp(-limit, limit) as i32
            })
            .collect();
        graph.values[bias].data = Some(Tensor::from_slice(&[codes.len()], &codes));
        corrected += 1;
        progress();
    }
    Ok(corrected)
}

/// The mean of each channel of a value of codes, in real numbers.
fn means(
    graph: &Graph,
    id: usize,
    samples: &dyn Samples,
    workers: usize,
) -> Result<Option<Vec<f64>>, CalibrateError> {
    let value = &graph.values[id];
    let mut start = graph.clone();
    start.outputs = vec![id];
    start.remove_unused();
    let id = start.outputs[0];
    let logical = value.shape.clone();
    let model = Model::from_graph(start)?;
    // Whatever order it has in memory, it is shown in once at least.
    let see = |(sums, count): &mut (Vec<i64>, usize), _: usize, seen: usize, view: TensorView| {
        if seen == id
            && let Some((channels, inner)) = channels(&logical, view.shape)
        {
            sums.resize(channels, 0);
            let codes = view.data::<u8>();
            match inner {
                1 => codes.chunks_exact(channels).for_each(|pixel| {
                    sums.iter_mut().zip(pixel).for_each(|(sum, &c)| *sum += i64::from(c));
                }),
                _ => codes.chunks_exact(inner).enumerate().for_each(|(i, plane)| {
                    sums[i % channels] += plane.iter().map(|&c| i64::from(c)).sum::<i64>();
                }),
            }
            *count += codes.len() / channels;
        }
        Ok(())
    };
    let watched = watch(&model, samples, (workers, 1), || (Vec::new(), 0), see, &|| ())?;
    let count: usize = watched.states.iter().map(|(_, n)| n).sum();
    let Some(quant) = value.quant.as_ref().filter(|_| count > 0) else { return Ok(None) };
    let channels = watched.states.iter().map(|(sums, _)| sums.len()).max().unwrap_or(0);
    let mean = |c: usize| {
        let sum: i64 = watched.states.iter().filter_map(|(sums, _)| sums.get(c)).sum();
        let code = sum as f64 / count as f64;
        (code - f64::from(quant.zero_point[0])) * f64::from(quant.scale[0])
    };
    Ok(Some((0..channels).map(mean).collect()))
}
