//! Recovery: passes that win back accuracy after or before quantization, without labels.
//!
//! Each is a module of its own that names its paper, works on the float graph or on the integers that
//! become of its weights, and leaves the arithmetic of the 8-bit model as it is.

pub mod absorption;
pub mod activation_bias;
pub mod bias;
pub mod equalize;
pub mod factor;
pub mod moments;
pub mod rounding;
pub mod statistics;
#[cfg(test)]
mod tests;
pub mod two_parts;
pub mod weight_scales;

use daq::{DType, Graph, Node, Op, Tensor, Value, ValueId};

use crate::passes::unique;

/// An operator with constant float weights: a convolution or matrix product over input channels.
#[derive(Clone, Debug)]
pub(crate) struct Weighted {
    /// The activation that it reads.
    pub input: ValueId,
    /// What it computes.
    pub output: ValueId,
    weights: ValueId,
    bias: Option<ValueId>,
    /// Output channels.
    pub rows: usize,
    /// Input channels of one output channel.
    pub per_group: usize,
    /// Weights of one pair of an input and an output channel.
    pub taps: usize,
    /// Output channels of one group.
    group_rows: usize,
    /// Whether the weights are `[columns, rows]`.
    transposed: bool,
}

impl Weighted {
    /// A node's weights, where it is a Conv, Gemm or MatMul whose weights and bias are constant
    /// and read by nobody else.
    pub fn of(graph: &Graph, node: &Node) -> Option<Weighted> {
        let input = node.inputs.first().copied().flatten()?;
        let weights = node.inputs.get(1).copied().flatten()?;
        let bias = node.inputs.get(2).copied().flatten();
        let constant = |id: ValueId| {
            let value = &graph.values[id];
            value.data.is_some() && value.dtype == DType::F32
        };
        let x = &graph.values[input];
        let good = constant(weights) && bias.is_none_or(constant) && x.data.is_none();
        let shape = &graph.values[weights].shape;
        if !good || x.dtype != DType::F32 || shape.contains(&0) {
            return None;
        }
        let (rows, per_group, taps, group_rows, transposed) = match &node.op {
            Op::Conv(conv) if shape.len() >= 3 => {
                let taps = shape[2..].iter().product();
                (shape[0], shape[1], taps, (shape[0] / conv.group.max(1)).max(1), false)
            }
            Op::Gemm(gemm) if !gemm.trans_a && shape.len() == 2 => match gemm.trans_b {
                true => (shape[0], shape[1], 1, shape[0], false),
                false => (shape[1], shape[0], 1, shape[1], true),
            },
            Op::MatMul(_) if shape.len() == 2 && x.shape.len() == 2 => {
                (shape[1], shape[0], 1, shape[1], true)
            }
            _ => return None,
        };
        let row = |id: ValueId| graph.values[id].shape.iter().product::<usize>() == rows;
        if !bias.is_none_or(row) {
            return None;
        }
        let output = *node.outputs.first()?;
        Some(Weighted {
            input,
            output,
            weights,
            bias,
            rows,
            per_group,
            taps,
            group_rows,
            transposed,
        })
    }

    /// The output and the input channel of weight `k`, as it lies in the tensor.
    pub fn place(&self, k: usize) -> (usize, usize) {
        if self.transposed {
            return (k % self.rows, k / self.rows);
        }
        let each = self.per_group * self.taps;
        let row = k / each;
        (row, row / self.group_rows * self.per_group + k % each / self.taps)
    }

    /// The weights in the order of the tensor.
    pub fn weights(&self, graph: &Graph) -> Vec<f64> {
        real(graph, self.weights)
    }

    /// The bias, where there is one.
    pub fn bias(&self, graph: &Graph) -> Option<Vec<f64>> {
        self.bias.map(|id| real(graph, id))
    }

    /// The step of each output channel's weights at 8 bits, with a scale of its own or one for all.
    pub fn steps(&self, graph: &Graph, per_channel: bool) -> Vec<f64> {
        let mut largest = vec![0f64; self.rows];
        for (k, w) in self.weights(graph).iter().enumerate() {
            let (row, _) = self.place(k);
            largest[row] = largest[row].max(w.abs());
        }
        if !per_channel {
            let of_all = largest.iter().copied().fold(0.0, f64::max);
            largest.fill(of_all);
        }
        largest.into_iter().map(|w| w / 127.0).collect()
    }

    /// For each input channel the sum of squares of its weights, and of the steps of those
    /// weights at 8 bits; 0 where a step belongs to one input channel alone, so that it follows.
    pub fn column_noise(&self, graph: &Graph, per_channel: bool) -> Vec<(f64, f64)> {
        let weights = self.weights(graph);
        let steps = self.steps(graph, per_channel);
        let columns = self.rows.div_ceil(self.group_rows) * self.per_group;
        let mut noise = vec![(0.0, 0.0); columns];
        for (k, w) in weights.iter().enumerate() {
            let (row, column) = self.place(k);
            noise[column].0 += w * w;
            if self.per_group > 1 || !per_channel {
                noise[column].1 += steps[row].powi(2);
            }
        }
        noise
    }
}

/// The value that holds the elements of `id`: where operators only name them anew, what they read.
/// Values with one element for each channel only, so that their order in memory is plain.
pub(crate) fn source(graph: &Graph, id: ValueId) -> ValueId {
    let producer = graph.nodes.iter().find(|n| n.outputs.contains(&id));
    match producer.map(|n| (&n.op, n.inputs.first().copied().flatten())) {
        Some((Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze(_) | Op::Identity(_), Some(x)))
            if graph.values[x].shape.get(2..).is_some_and(|s| s.iter().all(|&d| d == 1)) =>
        {
            source(graph, x)
        }
        _ => id,
    }
}

fn real(graph: &Graph, id: ValueId) -> Vec<f64> {
    let data = graph.values[id].data.as_ref();
    data.map(|t| t.data::<f32>().iter().map(|&v| v.into()).collect()).unwrap_or_default()
}

/// Gives a node new elements for a constant input; other readers of the constant keep theirs.
fn set_constant(graph: &mut Graph, node: usize, input: usize, data: &[f64]) {
    let Some(id) = graph.nodes[node].inputs[input] else { return };
    let data: Vec<f32> = data.iter().map(|&v| v as f32).collect();
    let tensor = Tensor::from_slice(&graph.values[id].shape, &data);
    let readers = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten()).filter(|r| **r == id);
    if readers.count() == 1 {
        graph.values[id].data = Some(tensor);
        return;
    }
    let name = unique(
        graph,
        &format!("{}_of_{}", graph.values[id].name, graph.node_name(&graph.nodes[node])),
    );
    let new = graph.add_value(Value::constant(name, tensor));
    graph.nodes[node].inputs[input] = Some(new);
}
