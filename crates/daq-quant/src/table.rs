//! The table: scales and zero points as text, one entry a line.
//!
//! `NAME N scale1..scaleN M zp1..zpM TYPE` for a tensor, `NAME -2 INPUT WEIGHT 0 int32` for a bias
//! whose scales are the products of two entries, and `dequantize after: NAME` for a tensor after
//! which the model is float again. Words are separated by any white space; names with white space
//! in them cannot be written.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use daq::ops::{Op, Quantization};
use daq::{DType, Graph, QuantParams, Tensor, ValueId};

/// Scale and zero point of one tensor, or where a bias takes them from.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Scales and zero points of their own.
    Own {
        /// The scales: one, or one per channel.
        scale: Vec<f32>,
        /// The zero points: one, or as many as scales.
        zero_point: Vec<i32>,
        /// The type's name, `quant8_asymm` for instance.
        kind: String,
    },
    /// A bias: the products of the scales of an input and a weight.
    Bias {
        /// The input's name.
        input: String,
        /// The weight's name.
        weight: String,
    },
}

/// A whole table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The entries by tensor name, in the order of their lines.
    pub entries: Vec<(String, Entry)>,
    /// The tensors after which the model is float again.
    pub dequantize_after: Vec<String>,
}

/// What is wrong with a table.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A line that cannot be read.
    #[error("table line {line}: {why}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong and what is expected.
        why: String,
    },
    /// A tensor that the model does not have.
    #[error("the table names `{0}`, which the model does not have; was it made for another model?")]
    UnknownTensor(String),
    /// An entry that does not fit its tensor.
    #[error("table entry `{name}`: {why}")]
    Unfit {
        /// The tensor.
        name: String,
        /// What does not fit.
        why: String,
    },
    /// A name that the format cannot hold.
    #[error(
        "tensor name `{0}` holds white space, which a table cannot hold; rename it in the model"
    )]
    Name(String),
}

const DEQUANTIZE_AFTER: &str = "dequantize after:";

/// The largest count of scales in an entry that is believed.
const MOST_CHANNELS: usize = 1 << 20;

impl Table {
    /// The table of an 8-bit graph.
    pub fn of(graph: &Graph) -> Result<Table, TableError> {
        let mut table = Table::default();
        let mut biases = BTreeMap::new();
        for node in &graph.nodes {
            let inputs: Vec<_> = node.inputs.iter().flatten().copied().collect();
            if let [input, weight, bias] = inputs[..]
                && node.op.quantization() == Quantization::Weighted
                && graph.values[bias].dtype == DType::I32
            {
                biases.insert(bias, (input, weight));
            }
            if let (Op::DequantizeLinear(_), Some(&id)) = (&node.op, inputs.first()) {
                table.dequantize_after.push(graph.values[id].name.clone());
            }
        }
        for (id, value) in graph.values.iter().enumerate() {
            let Some(quant) = &value.quant else { continue };
            if value.name.contains(char::is_whitespace) || value.name.is_empty() {
                return Err(TableError::Name(value.name.clone()));
            }
            let entry = match biases.get(&id) {
                Some(&(input, weight)) => Entry::Bias {
                    input: graph.values[input].name.clone(),
                    weight: graph.values[weight].name.clone(),
                },
                None => Entry::Own {
                    scale: quant.scale.clone(),
                    zero_point: match quant.zero_point.iter().all(|z| *z == quant.zero_point[0]) {
                        true => vec![quant.zero_point[0]],
                        false => quant.zero_point.clone(),
                    },
                    kind: kind(value.dtype, quant).into(),
                },
            };
            table.entries.push((value.name.clone(), entry));
        }
        Ok(table)
    }

    /// The table as text. Scales read back to the same `f32`.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, entry) in &self.entries {
            let line = match entry {
                Entry::Bias { input, weight } => format!("{name} -2 {input} {weight} 0 int32"),
                Entry::Own { scale, zero_point, kind } => {
                    let mut line = format!("{name} {}", scale.len());
                    for s in scale {
                        let _ = write!(line, " {s:?}");
                    }
                    let _ = write!(line, " {}", zero_point.len());
                    for z in zero_point {
                        let _ = write!(line, " {z}");
                    }
                    line + " " + kind
                }
            };
            let _ = writeln!(text, "{line}");
        }
        for name in &self.dequantize_after {
            let _ = writeln!(text, "{DEQUANTIZE_AFTER} {name}");
        }
        text
    }

    /// Reads a table from text.
    pub fn from_text(text: &str) -> Result<Table, TableError> {
        let mut table = Table::default();
        let mut names = HashSet::new();
        for (i, line) in text.lines().enumerate() {
            let error = |why: String| TableError::Line { line: i + 1, why };
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix(DEQUANTIZE_AFTER) {
                match name.trim() {
                    "" => return Err(error(format!("`{DEQUANTIZE_AFTER}` needs a tensor's name"))),
                    name => table.dequantize_after.push(name.into()),
                }
                continue;
            }
            let (name, entry) = entry(line).map_err(error)?;
            if !names.insert(name.clone()) {
                return Err(error(format!("`{name}` has an entry already")));
            }
            table.entries.push((name, entry));
        }
        match table.entries.is_empty() {
            true => Err(TableError::Line { line: 1, why: "the table has no entry".into() }),
            false => Ok(table),
        }
    }

    /// Gives an 8-bit graph the scales and zero points of the table. Values that the table leaves
    /// out keep theirs; biases follow. A float input or output gets the scale at which its caller
    /// may use codes, which an ONNX model cannot hold. Returns how many values changed.
    pub fn apply(&self, graph: &mut Graph) -> Result<usize, TableError> {
        let mut changed = 0;
        let before = graph.clone();
        for name in &self.dequantize_after {
            graph.find_value(name).ok_or_else(|| TableError::UnknownTensor(name.clone()))?;
        }
        for (name, entry) in &self.entries {
            let id =
                graph.find_value(name).ok_or_else(|| TableError::UnknownTensor(name.clone()))?;
            let Entry::Own { scale, zero_point, kind } = entry else { continue };
            let why = |why: String| TableError::Unfit { name: name.clone(), why };
            let port = graph.inputs.contains(&id) || graph.outputs.contains(&id);
            let value = &mut graph.values[id];
            if let (None, DType::F32, true, [one]) = (&value.quant, value.dtype, port, &scale[..]) {
                // A float interface: the scale at which its caller may give or take codes.
                value.quant = Some(QuantParams::per_tensor(*one, zero_point[0]));
                changed += 1;
                continue;
            }
            let Some(quant) = &mut value.quant else {
                return Err(why("the tensor is float in this model".into()));
            };
            if dtype_of(kind) != Some(value.dtype) && value.dtype != DType::F32 {
                return Err(why(format!("is {kind}, but the model holds {}", value.dtype)));
            }
            if scale.len() != quant.scale.len() {
                return Err(why(format!(
                    "has {} scales, the model {}",
                    scale.len(),
                    quant.scale.len()
                )));
            }
            let zero_point = match zero_point.len() {
                1 => vec![zero_point[0]; scale.len()],
                _ => zero_point.clone(),
            };
            let new = QuantParams { scale: scale.clone(), zero_point, axis: quant.axis };
            changed += usize::from(*quant != new);
            *quant = new;
        }
        share_moved(graph);
        rescale_biases(&before, graph)?;
        let invalid =
            |e: daq::Error| TableError::Unfit { name: graph.name.clone(), why: e.to_string() };
        graph.validate().map_err(invalid)?;
        Ok(changed)
    }
}

fn kind(dtype: DType, quant: &QuantParams) -> &'static str {
    match dtype {
        DType::I32 => "int32",
        DType::I8 if !quant.is_per_tensor() => "quant8_symm_per_channel",
        DType::I8 if quant.zero_point[0] == 0 => "quant8_symm",
        DType::I8 => "quant8_asymm_signed",
        _ => "quant8_asymm",
    }
}

fn dtype_of(kind: &str) -> Option<DType> {
    match kind {
        "int32" => Some(DType::I32),
        "quant8_symm_per_channel" | "quant8_symm" | "quant8_asymm_signed" => Some(DType::I8),
        "quant8_asymm" => Some(DType::U8),
        _ => None,
    }
}

fn entry(line: &str) -> Result<(String, Entry), String> {
    let mut words = line.split_whitespace();
    let mut word = |what: &str| words.next().ok_or_else(|| format!("ends before {what}"));
    let name = word("the name")?.to_string();
    let count = word("the count of scales")?;
    if count == "-2" {
        let entry =
            Entry::Bias { input: word("the input")?.into(), weight: word("the weight")?.into() };
        let (zero, kind) = (word("the count of zero points")?, word("the type")?);
        return match (zero, kind, words.next()) {
            ("0", "int32", None) => Ok((name, entry)),
            _ => Err("a bias is `NAME -2 INPUT WEIGHT 0 int32`".into()),
        };
    }
    let number = |text: &str| match text.parse::<usize>() {
        Ok(n) if (1..=MOST_CHANNELS).contains(&n) => Ok(n),
        _ => Err(format!("`{text}` is not a count of scales or zero points")),
    };
    let scales = number(count)?;
    let mut scale = Vec::new();
    for _ in 0..scales {
        let text = word("the last scale")?;
        match text.parse::<f32>() {
            Ok(s) if s.is_finite() && s > 0.0 => scale.push(s),
            _ => return Err(format!("`{text}` is not a positive scale")),
        }
    }
    let zero_points = number(word("the count of zero points")?)?;
    if zero_points != 1 && zero_points != scales {
        return Err(format!("{zero_points} zero points for {scales} scales"));
    }
    let mut zero_point = Vec::new();
    for _ in 0..zero_points {
        let text = word("the last zero point")?;
        zero_point.push(text.parse().map_err(|_| format!("`{text}` is not a zero point"))?);
    }
    let kind = word("the type")?.to_string();
    let dtype = dtype_of(&kind).ok_or_else(|| {
        format!("type `{kind}` is unknown; types are quant8_asymm, quant8_asymm_signed, quant8_symm, quant8_symm_per_channel, int32")
    })?;
    let range = match dtype {
        DType::U8 => 0..=255,
        DType::I8 => -128..=127,
        _ => 0..=0,
    };
    if let Some(z) = zero_point.iter().find(|z| !range.contains(*z)) {
        return Err(format!("zero point {z} is outside of {range:?} for {kind}"));
    }
    match words.next() {
        Some(word) => Err(format!("`{word}` stands after the type")),
        None => Ok((name, Entry::Own { scale, zero_point, kind })),
    }
}

/// Outputs of operators that only move codes keep their input's scale.
pub(crate) fn share_moved(graph: &mut Graph) {
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        let moves = matches!(node.op.quantization(), Quantization::Moves | Quantization::Averages);
        let Some(input) = node.inputs.first().copied().flatten() else { continue };
        let quant = graph.values[input].quant.clone();
        let outputs: Vec<ValueId> = node.outputs.clone();
        for id in outputs {
            if moves && graph.values[id].is_quantized() && quant.is_some() {
                graph.values[id].quant = quant.clone();
            }
        }
    }
}

/// Biases stand at the scale of input times weight, whatever that is now.
pub(crate) fn rescale_biases(before: &Graph, graph: &mut Graph) -> Result<(), TableError> {
    for node in &before.nodes {
        let ids: Vec<_> = node.inputs.iter().flatten().copied().collect();
        let &[x, w, b] = ids.as_slice() else { continue };
        if node.op.quantization() != Quantization::Weighted || before.values[b].dtype != DType::I32
        {
            continue;
        }
        let (Some(xq), Some(wq)) = (graph.values[x].quant.clone(), graph.values[w].quant.clone())
        else {
            continue;
        };
        let Some(old) = before.values[b].quant.clone() else { continue };
        let new = QuantParams::per_channel(wq.scale.iter().map(|s| xq.scale[0] * s).collect(), 0);
        let Some(data) = before.values[b].data.clone().filter(|_| new != old) else { continue };
        let mut codes = Vec::with_capacity(data.len());
        for (c, &code) in data.data::<i32>().iter().enumerate() {
            let real = f64::from(code) * f64::from(old.scale_of(c)) / f64::from(new.scale_of(c));
            if real.abs() > f64::from(i32::MAX) {
                let name = graph.values[b].name.clone();
                return Err(TableError::Unfit {
                    name,
                    why: "the bias does not fit in 32 bits at these scales".into(),
                });
            }
            codes.push(real.round_ties_even() as i32);
        }
        graph.values[b].data = Some(Tensor::from_slice(data.shape(), &codes));
        graph.values[b].quant = Some(new);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
