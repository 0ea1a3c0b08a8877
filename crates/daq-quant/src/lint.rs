//! Making an 8-bit model keep the rules of [`daq::lint`]: other scales, and biases that follow.

use daq::lint::Fix;
pub use daq::lint::{Finding, Target, lint};
use daq::{DType, Graph, QuantParams, Tensor};

use crate::table::{TableError, rescale_biases, share_moved};

/// Something that [`repair`] changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The node whose rule it was.
    pub node: String,
    /// The tensor.
    pub tensor: String,
    /// The rule.
    pub why: String,
    /// What was done.
    pub change: String,
}

/// Changes scales until the model breaks no rule that they can mend; biases follow. Gives what was
/// changed; [`lint`] tells what is left.
///
/// # Errors
/// A bias that does not fit in 32 bits at the scales that it would need.
pub fn repair(graph: &mut Graph, target: Target) -> Result<Vec<Change>, TableError> {
    let mut changes: Vec<Change> = Vec::new();
    // A change may break the rule of a neighbour, which then changes too. Rules that pull one tensor
    // two ways would go on for ever.
    let most = 4 * graph.nodes.len() + 16;
    for _ in 0..most {
        let Some(found) = lint(graph, target).into_iter().find(|f| f.fix.is_some()) else { break };
        let Finding { node, tensor, why, fix: Some(fix), .. } = found else { break };
        let before = graph.clone();
        let change = apply(graph, &fix);
        share_moved(graph);
        rescale_biases(&before, graph)?;
        changes.push(Change { node, tensor, why, change });
    }
    Ok(changes)
}

fn apply(graph: &mut Graph, fix: &Fix) -> String {
    match fix {
        Fix::Quant(id, quant) => {
            let value = &mut graph.values[*id];
            let old = value.quant.replace(quant.clone());
            if let (Some(old), Some(data), DType::U8) = (&old, &value.data, value.dtype) {
                let codes =
                    data.data::<u8>().iter().map(|&c| quant.code(old.real(c.into()), 0, 255));
                let codes: Vec<u8> = codes.map(|c| c as u8).collect();
                value.data = Some(Tensor::from_slice(&value.shape, &codes));
            }
            format!(
                "`{}`: {} becomes {}",
                value.name,
                old.map_or(String::new(), shown),
                shown(quant.clone())
            )
        }
        Fix::PerTensor(id) => {
            let value = &mut graph.values[*id];
            let (Some(quant), Some(data)) = (&value.quant, &value.data) else {
                return String::new();
            };
            let largest = quant.scale.iter().copied().fold(0.0, f32::max);
            let inner: usize = value.shape[quant.axis + 1..].iter().product();
            let channels = quant.scale.len();
            let code = |(i, &w): (usize, &i8)| {
                let scale = f64::from(quant.scale[i / inner.max(1) % channels]);
                let code = f64::from(w) * scale / f64::from(largest);
                code.round_ties_even().clamp(-127.0, 127.0) as i8
            };
            let codes: Vec<i8> = data.data::<i8>().iter().enumerate().map(code).collect();
            value.data = Some(Tensor::from_slice(&value.shape, &codes));
            value.quant = Some(QuantParams::per_tensor(largest, 0));
            format!("`{}`: {channels} scales become one, {largest:e}", value.name)
        }
        Fix::Narrow(id) => {
            let value = &mut graph.values[*id];
            let codes: Vec<i8> =
                value.data.iter().flat_map(|d| d.data::<i8>()).map(|&w| w.max(-127)).collect();
            value.data = Some(Tensor::from_slice(&value.shape, &codes));
            format!("`{}`: codes -128 become -127", value.name)
        }
    }
}

fn shown(quant: QuantParams) -> String {
    format!("scale {:e}, zero point {}", quant.scale_of(0), quant.zero_point_of(0))
}

#[cfg(test)]
mod tests;
