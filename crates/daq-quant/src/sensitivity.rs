//! Where the noise of an 8-bit model comes from, and which operators to leave in float so that most of it
//! goes for the least arithmetic; or to give two products, where only the rounding of their input counts.
//!
//! Each rounding is measured alone, in the float model: a tensor for one of its readers, or the weights of
//! one operator. Noise of small roundings adds up, so what remains with some operators in float is the sum
//! over the roundings that remain. A tensor stays as it is where both who computes it and who reads it are
//! in float; hence pairs of neighbours count, not single operators only: an addition beside another costs
//! no multiplication and ends a rounding. What a product of codes computes stays as it is for every reader in
//! float, though the product is in 8 bits: a depthwise convolution in float multiplies little and ends the
//! rounding of what it reads. A product that reads its input in two parts
//! ([`two_parts`]) stays in 8 bits and ends most of that rounding, if the input is
//! there as floats.

use std::collections::BTreeSet;
use std::slice;

use daq::ops::{DequantizeLinear, Quantization, QuantizeLinear, eval};
use daq::{DType, Graph, Node, Op, Tensor, Value, ValueId};

use crate::passes::unique;
use crate::quantize::{Decision, Quantized, gives_floats};
use crate::recover::two_parts;

/// What a float that is computed or rounded costs, in multiplications: it goes through memory.
const ELEMENT: f64 = 16.0;

/// What a second product in 8 bits costs beside one in float.
const SECOND: f64 = 0.3;

/// The part of a rounding's noise that is left by reading in two parts.
const LEFT: f64 = 0.1;

/// A part of the model that is in 8 bits or in float as a whole: an operator, with the activation that
/// it absorbs and with operators that follow their input.
type Unit = usize;

/// One rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    /// An input of a node.
    Input(usize, usize),
    /// An output of the graph, by its position.
    Output(usize),
    /// A node's weights and bias.
    Weights(usize),
}

/// A rounding that lies between two units, or within one; `None` is what is in float anyway.
#[derive(Clone, Debug)]
struct Source {
    from: Option<Unit>,
    to: Option<Unit>,
    rounding: Rounding,
    /// Whether who computes it gives floats to readers in float, in 8 bits too.
    exact: bool,
    noise: f64,
}

/// What becomes of units.
#[derive(Clone, Debug, Default)]
struct Choice {
    /// In float.
    in_float: BTreeSet<Unit>,
    /// Read their input in two parts.
    in_parts: BTreeSet<Unit>,
}

impl Choice {
    fn of(in_float: impl Into<BTreeSet<Unit>>, in_parts: impl Into<BTreeSet<Unit>>) -> Choice {
        Choice { in_float: in_float.into(), in_parts: in_parts.into() }
    }

    /// What is left of it after what has been chosen.
    fn beyond(&self, chosen: &Choice) -> Choice {
        let new = |unit: &&Unit| !chosen.in_float.contains(unit);
        let in_parts = self.in_parts.difference(&chosen.in_parts).filter(new);
        Choice::of(&self.in_float - &chosen.in_float, in_parts.copied().collect::<BTreeSet<_>>())
    }

    fn with(&self, more: &Choice) -> Choice {
        Choice::of(&self.in_float | &more.in_float, &self.in_parts | &more.in_parts)
    }
}

/// A step to less noise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Names to leave in float.
    pub exclude: Vec<String>,
    /// Products to read their input in two parts.
    pub two_parts: Vec<String>,
    /// The share of the model's arithmetic that it leaves in float.
    pub share: f64,
}

impl Source {
    /// The part of it that remains.
    fn remains(&self, choice: &Choice) -> f64 {
        let codes = |unit: Option<Unit>| unit.is_some_and(|unit| !choice.in_float.contains(&unit));
        let in_parts = |unit| choice.in_parts.contains(&unit);
        match self.rounding {
            _ if codes(self.from) && !self.exact => 1.0,
            _ if !codes(self.to) => 0.0,
            Rounding::Input(_, 0) if self.to.is_some_and(in_parts) => LEFT,
            _ => 1.0,
        }
    }
}

/// What a float model's operators cost and what their 8-bit form loses.
pub struct Sensitivity<'a> {
    float: &'a Graph,
    quantized: &'a Graph,
    /// For each unit the names that leave it in float.
    names: Vec<Vec<String>>,
    /// For each unit the product that can read its input in two parts.
    products: Vec<Option<String>>,
    /// For each unit its share of the arithmetic.
    macs: Vec<f64>,
    /// For each unit what the floats that it reads and computes cost, as a share of the arithmetic.
    elements: Vec<f64>,
    sources: Vec<Source>,
}

impl<'a> Sensitivity<'a> {
    /// The roundings of a quantized model; none is measured yet.
    pub fn new(float: &'a Graph, quantized: &'a Quantized) -> Sensitivity<'a> {
        let (units, names, macs, elements) = units(float, &quantized.decisions);
        let quantized = &quantized.graph;
        let producers = float.producers();
        let unit_of = |id: ValueId| producers[id].and_then(|node| units[node]);
        // A product, or what clamps its output.
        let exact = |id: ValueId| {
            let node = producers[id].map(|node| &float.nodes[node]);
            let product = match node.filter(|n| n.op.clamp().is_some()) {
                Some(clamp) => clamp.inputs[0].and_then(|x| producers[x]).map(|n| &float.nodes[n]),
                None => node,
            };
            product.is_some_and(|node| gives_floats(float, &node.op, &node.inputs))
        };
        let rounded = |id: &ValueId| codes_of(float, quantized, *id).is_some();
        let mut sources = Vec::new();
        for (i, node) in float.nodes.iter().enumerate() {
            let quantization = node.op.quantization();
            if quantization == Quantization::Moves {
                continue;
            }
            for (k, id) in node.inputs.iter().enumerate() {
                let Some(id) = id.filter(rounded) else { continue };
                let rounding = Rounding::Input(i, k);
                let (from, to, exact) = (unit_of(id), units[i], exact(id));
                sources.push(Source { from, to, rounding, exact, noise: 0.0 });
            }
            if quantization == Quantization::Weighted && units[i].is_some() {
                let (from, to, rounding) = (units[i], units[i], Rounding::Weights(i));
                sources.push(Source { from, to, rounding, exact: false, noise: 0.0 });
            }
        }
        for (i, id) in float.outputs.iter().enumerate().filter(|(_, id)| rounded(id)) {
            let (from, rounding) = (unit_of(*id), Rounding::Output(i));
            sources.push(Source { from, to: None, rounding, exact: false, noise: 0.0 });
        }
        sources.retain(|s| s.remains(&Choice::default()) > 0.0);
        let mut products = vec![None; names.len()];
        for (node, unit) in float.nodes.iter().zip(&units) {
            let name = float.node_name(node).to_string();
            if let Some(unit) =
                unit.filter(|_| two_parts::check(float, slice::from_ref(&name)).is_ok())
            {
                products[unit] = Some(name);
            }
        }
        Sensitivity { float, quantized, names, products, macs, elements, sources }
    }

    /// How many roundings there are.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Measures every rounding. `noise` tells the noise of a graph's output as a part of the signal, `None`
    /// to stop; what is left unmeasured counts nothing.
    ///
    /// # Errors
    /// Those of `noise`.
    pub fn measure<E>(
        &mut self,
        noise: &dyn Fn(&Graph) -> Result<Option<f64>, E>,
    ) -> Result<(), E> {
        for source in &mut self.sources {
            let Some(graph) = rounded(self.float, self.quantized, source.rounding) else {
                continue;
            };
            match noise(&graph)? {
                Some(noise) => source.noise = noise,
                None => break,
            }
        }
        Ok(())
    }

    /// What to do step by step: each time what ends the most noise for its arithmetic.
    pub fn order(&self) -> Vec<Step> {
        let mut chosen = Choice::default();
        let mut order = Vec::new();
        while let Some(next) = self.next(&chosen) {
            order.push(Step {
                exclude: next.in_float.iter().flat_map(|&u| self.names[u].clone()).collect(),
                two_parts: next.in_parts.iter().filter_map(|&u| self.products[u].clone()).collect(),
                share: next.in_float.iter().map(|&u| self.macs[u]).sum(),
            });
            chosen = chosen.with(&next);
        }
        order
    }

    /// An operator in float or with its input in two parts, or that together with the one before in float.
    fn next(&self, chosen: &Choice) -> Option<Choice> {
        let parts = |unit: Unit| self.products[unit].is_some();
        let units = 0..self.names.len();
        let singles = units.clone().map(|u| Choice::of([u], []));
        let in_parts = units.filter(|&u| parts(u)).map(|u| Choice::of([], [u]));
        let neighbours = || self.sources.iter().filter_map(|s| Some((s.from?, s.to?)));
        let pairs = neighbours().map(|(from, to)| Choice::of([from, to], []));
        let before = neighbours().filter(|&(from, to)| from != to && parts(to));
        let before = before.map(|(from, to)| Choice::of([from], [to]));
        let mut best: Option<(f64, Choice)> = None;
        for step in singles.chain(in_parts).chain(pairs).chain(before) {
            let step = step.beyond(chosen);
            if step.in_float.is_empty() && step.in_parts.is_empty() {
                continue;
            }
            let after = chosen.with(&step);
            let ends = |s: &Source| s.noise * (s.remains(chosen) - s.remains(&after));
            let gain: f64 = self.sources.iter().map(ends).sum();
            let float = step.in_float.iter().map(|&u| self.macs[u] + self.elements[u]);
            // The parts are made of the input, and the output is added up.
            let parts = |&u: &Unit| SECOND * self.macs[u] + 2.0 * self.elements[u];
            let cost = float.chain(step.in_parts.iter().map(parts)).sum::<f64>();
            if best.as_ref().is_none_or(|(most, _)| gain / cost > *most) {
                best = Some((gain / cost, step));
            }
        }
        best.map(|(_, step)| step)
    }
}

/// The unit of each node, where it is in 8 bits; names, share of the arithmetic, and what its floats cost of
/// each unit.
type Units = (Vec<Option<Unit>>, Vec<Vec<String>>, Vec<f64>, Vec<f64>);

fn units(float: &Graph, decisions: &[Decision]) -> Units {
    let producers = float.producers();
    let total = decisions.iter().map(|d| d.macs).sum::<u64>().max(1) as f64;
    let mut units: Vec<Option<Unit>> = vec![None; float.nodes.len()];
    let (mut names, mut macs, mut elements) = (Vec::<Vec<String>>::new(), Vec::new(), Vec::new());
    let size = |id: &ValueId| match &float.values[*id] {
        Value { data: None, shape, .. } => shape.iter().product::<usize>() as f64,
        _ => 0.0,
    };
    for (i, (node, decision)) in float.nodes.iter().zip(decisions).enumerate() {
        if decision.float_because.is_some() {
            continue;
        }
        let follows =
            matches!(node.op.quantization(), Quantization::Moves | Quantization::Averages);
        let input = node.inputs.first().copied().flatten();
        let before = input.and_then(|id| producers[id]).and_then(|node| units[node]);
        let unit = match before.filter(|_| follows || node.op.clamp().is_some()) {
            Some(unit) => unit,
            None => {
                names.push(Vec::new());
                macs.push(0.0);
                let all = node.inputs.iter().flatten().chain(&node.outputs).map(size);
                elements.push(ELEMENT * all.sum::<f64>() / total);
                names.len() - 1
            }
        };
        // What follows its input is in float where that is.
        if !follows {
            names[unit].push(decision.node.clone());
        }
        macs[unit] += decision.macs as f64 / total;
        units[i] = Some(unit);
    }
    (units, names, macs, elements)
}

/// The value of codes that a float value became, or that it is quantized to.
fn codes_of<'a>(float: &Graph, quantized: &'a Graph, id: ValueId) -> Option<&'a Value> {
    let value = &float.values[id];
    let found = quantized.find_value(&value.name)?;
    let quantizes = |n: &&Node| matches!(n.op, Op::QuantizeLinear(_)) && n.inputs[0] == Some(found);
    let codes = match quantized.values[found].dtype {
        DType::U8 => found,
        _ => quantized.nodes.iter().find(quantizes)?.outputs[0],
    };
    let codes = &quantized.values[codes];
    let same = codes.shape == value.shape && codes.dtype == DType::U8;
    (value.data.is_none() && same && codes.quant.is_some()).then_some(codes)
}

/// The float graph with one rounding.
fn rounded(float: &Graph, quantized: &Graph, rounding: Rounding) -> Option<Graph> {
    let mut graph = float.clone();
    match rounding {
        Rounding::Input(node, k) => {
            let id = graph.nodes[node].inputs[k]?;
            let (real, nodes) = round_trip(&mut graph, quantized, id)?;
            graph.nodes[node].inputs[k] = Some(real);
            graph.nodes.splice(node..node, nodes);
        }
        Rounding::Output(i) => {
            let id = graph.outputs[i];
            let (real, nodes) = round_trip(&mut graph, quantized, id)?;
            graph.outputs[i] = real;
            graph.nodes.extend(nodes);
        }
        Rounding::Weights(node) => {
            let name = graph.node_name(&graph.nodes[node]).to_string();
            let twin = quantized.nodes.iter().find(|n| quantized.node_name(n) == name)?;
            graph.nodes[node].op = twin.op.clone();
            for k in 1..twin.inputs.len() {
                let Some(value) = twin.inputs[k].map(|id| &quantized.values[id]) else { continue };
                let codes = value.data.as_ref()?.quantized_view(value.quant.as_ref());
                let real = Tensor::from_slice(&value.shape, &eval::dequantize(&codes));
                let name = unique(&graph, &format!("{name}_rounded"));
                let id = graph.add_value(Value::constant(name, real));
                let inputs = &mut graph.nodes[node].inputs;
                inputs.resize(inputs.len().max(k + 1), None);
                inputs[k] = Some(id);
            }
        }
    }
    Some(graph)
}

/// A value rounded to its codes, and the nodes that do it.
fn round_trip(graph: &mut Graph, quantized: &Graph, id: ValueId) -> Option<(ValueId, [Node; 2])> {
    let quant = codes_of(graph, quantized, id)?.quant.clone()?;
    let (name, shape) = (graph.values[id].name.clone(), graph.values[id].shape.clone());
    let codes = Value::new(unique(graph, &format!("{name}_codes")), DType::U8, &shape);
    let codes = graph.add_value(codes.with_quant(quant));
    let real = Value::new(unique(graph, &format!("{name}_rounded")), DType::F32, &shape);
    let real = graph.add_value(real);
    let node = |op, from, to: ValueId| Node {
        name: String::new(),
        op,
        inputs: vec![Some(from)],
        outputs: vec![to],
        doc: String::new(),
    };
    let quantize = node(QuantizeLinear::default().into(), id, codes);
    Some((real, [quantize, node(DequantizeLinear::default().into(), codes, real)]))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use daq::ops::Attrs;

    use super::*;
    use crate::quantize::{QuantizeOptions, quantize};
    use crate::range::Range;

    /// `a = relu(conv(x))`, `b = a + x`, `c = b + x`, `y = conv(c)`, where convolutions double.
    fn model(channels: usize) -> (Graph, Quantized) {
        let mut g = Graph::default();
        let shape = [1, channels, 2, 2];
        let x = g.add_value(Value::new("x", DType::F32, &shape));
        let diagonal = |i: usize| if i.is_multiple_of(channels + 1) { 2f32 } else { 0.0 };
        let w: Vec<f32> = (0..channels * channels).map(diagonal).collect();
        let w = Tensor::from_slice(&[channels, channels, 1, 1], &w);
        let mut node = |op: &str, inputs: &[ValueId], output: &str| {
            let op = Op::from_attrs(op, &Attrs::new()).unwrap().unwrap();
            let mut inputs: Vec<_> = inputs.iter().map(|&i| Some(i)).collect();
            if op.name() == "Conv" {
                inputs.push(Some(g.add_value(Value::constant(format!("w_{output}"), w.clone()))));
            }
            let y = g.add_value(Value::new(output, DType::F32, &shape));
            let name = format!("{}_{output}", op.name());
            g.nodes.push(Node { name, op, inputs, outputs: vec![y], doc: String::new() });
            y
        };
        let c = node("Conv", &[x], "conv");
        let a = node("Relu", &[c], "a");
        let b = node("Add", &[a, x], "b");
        let c = node("Add", &[b, x], "c");
        let y = node("Conv", &[c], "y");
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        let range = Range { min: 0.0, max: 2.55 };
        let ranges = ["x", "a", "b", "c", "y"].map(|name| (name.to_string(), range));
        let quantized = quantize(&g, &ranges.into(), &QuantizeOptions::default()).unwrap();
        (g, quantized)
    }

    #[test]
    fn what_ends_most_noise_for_its_arithmetic_comes_first() {
        let (float, quantized) = model(1);
        let mut found = Sensitivity::new(&float, &quantized);
        // x three times, a, b, c, y, and two weights.
        assert_eq!(found.len(), 9);
        let noise = |graph: &Graph| {
            graph.validate().unwrap();
            let rounds = graph.nodes.iter().find(|n| n.op.name() == "DequantizeLinear");
            let rounded = rounds.map(|n| graph.values[n.outputs[0]].name.as_str());
            Ok::<_, Infallible>(Some(match rounded {
                Some("b_rounded") => 60.0,
                Some("y_rounded") => 8.0,
                Some(_) => 0.0,
                // The weights of the convolutions.
                None => 0.5,
            }))
        };
        found.measure(&noise).unwrap();
        // The additions multiply nothing and together end the rounding between them; the output's
        // rounding goes with the last convolution; what is absorbed goes with the first.
        let order = found.order();
        let names: Vec<_> = order.iter().map(|s| s.exclude.join(" ")).collect();
        assert_eq!(names, ["Add_b Add_c", "Conv_y", "Conv_conv Relu_a"]);
        // Each convolution is half of the arithmetic.
        assert_eq!(order.iter().map(|s| s.share).collect::<Vec<_>>(), [0.0, 0.5, 0.5]);
    }

    /// The convolution gives what its activation clamps as floats to an addition in float, and still
    /// multiplies codes; what the addition gives to the next is rounded as long as that is in 8 bits.
    #[test]
    fn a_reader_in_float_ends_what_a_product_rounds() {
        let (float, quantized) = model(1);
        let mut found = Sensitivity::new(&float, &quantized);
        let noise = |graph: &Graph| {
            let rounds = graph.nodes.iter().find(|n| n.op.name() == "DequantizeLinear");
            let name = rounds.map(|n| graph.values[n.outputs[0]].name.as_str());
            Ok::<_, Infallible>(Some(if name == Some("a_rounded") { 3.0 } else { 0.0 }))
        };
        found.measure(&noise).unwrap();
        assert_eq!(found.order()[0].exclude, ["Add_b"]);
        let a = found.sources.iter().find(|s| s.noise == 3.0).unwrap();
        let (conv, add) = (a.from.unwrap(), a.to.unwrap());
        let remain = |s: &Source, unit| s.remains(&Choice::of([unit], []));
        assert_eq!((remain(a, conv), remain(a, add)), (1.0, 0.0));
        let b = found.sources.iter().find(|s| s.from == Some(add)).unwrap();
        assert_eq!((remain(b, add), remain(b, b.to.unwrap())), (1.0, 1.0));
    }

    /// The last convolution reads what an addition computes: in two parts once that is in float.
    #[test]
    fn an_input_in_two_parts_costs_less_than_a_product_in_float() {
        let (float, quantized) = model(256);
        let mut found = Sensitivity::new(&float, &quantized);
        let noise = |graph: &Graph| {
            let rounds = graph.nodes.iter().find(|n| n.op.name() == "DequantizeLinear");
            let name = rounds.map(|n| graph.values[n.outputs[0]].name.as_str());
            Ok::<_, Infallible>(Some(if name == Some("c_rounded") { 3.0 } else { 0.0 }))
        };
        found.measure(&noise).unwrap();
        let first = &found.order()[0];
        assert_eq!(
            (first.exclude.join(" "), first.two_parts.join(" ")),
            ("Add_c".into(), "Conv_y".into())
        );
        let c = found.sources.iter().find(|s| s.noise == 3.0).unwrap();
        let (add, conv) = (c.from.unwrap(), c.to.unwrap());
        assert_eq!(c.remains(&Choice::of([], [conv])), 1.0);
        assert_eq!(c.remains(&Choice::of([add], [])), 1.0);
        assert_eq!(c.remains(&Choice::of([add], [conv])), LEFT);
    }

    #[test]
    fn stopping_leaves_the_rest_unmeasured() {
        let (float, quantized) = model(1);
        let mut found = Sensitivity::new(&float, &quantized);
        found.measure(&|_| Ok::<_, Infallible>(None)).unwrap();
        assert!(found.sources.iter().all(|s| s.noise == 0.0));
    }

    #[test]
    fn one_rounding_at_a_time() {
        let (float, quantized) = model(1);
        let run = |graph: Graph, x: [f32; 4]| {
            let mut y = [0f32; 4];
            let model = daq::Model::from_graph(graph).unwrap();
            model.session(1).predict(&[&x], &mut [&mut y]).unwrap();
            y
        };
        // 2 (2x + 2x), with x or what is computed of it rounded to hundredths, up to 2.55.
        let x = [0.1, 0.204, 0.206, 1.0];
        let with = |rounding| run(rounded(&float, &quantized.graph, rounding).unwrap(), x);
        let near = |got: [f32; 4], wanted: [f32; 4]| {
            let off = got.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "{got:?} {wanted:?}");
        };
        near(run(float.clone(), x), x.map(|x| 8.0 * x));
        near(with(Rounding::Input(2, 1)), [0.8, 2.0 * 0.812, 2.0 * 0.828, 8.0]);
        near(with(Rounding::Input(4, 0)), [0.8, 2.0 * 0.82, 2.0 * 0.82, 2.0 * 2.55]);
        near(with(Rounding::Output(0)), [0.8, 1.63, 1.65, 2.55]);
        near(with(Rounding::Weights(0)), x.map(|x| 8.0 * x));
    }
}
