//! From a graph to the steps of a plan: layouts, kernels, views, buffers.

use std::collections::HashMap;

use daq_kernels::{Isa, Pool};

use super::fuse::{Beside, Fused, Lookup, Scaled, Tail, Tailed, scaling_of, table_of, tail_of};
use super::{Part, Place, Port, Step, Stored, fused_clamp};
use crate::compile::{Compile, Kernel, Operand};
use crate::error::Result;
use crate::graph::{Graph, Node, ValueId};
use crate::layout::{Layout, LayoutRule, convert, to_channels_last};
use crate::ops::{Op, Spec, eval, normalize_axis};
use crate::quant::QuantParams;
use crate::tensor::{Tensor, TensorView, TensorViewMut};

/// An operator without a kernel of its own: its reference computation.
struct Reference(Op);

impl Kernel for Reference {
    fn name(&self) -> String {
        "reference".into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], _: &Pool) {
        eval::run(&self.0, inputs, outputs);
    }
}

/// A change of layout.
struct Relayout {
    logical: Vec<usize>,
    to: Layout,
}

impl Kernel for Relayout {
    fn name(&self) -> String {
        match self.to {
            Layout::Plain => "to_plain".into(),
            Layout::ChannelsLast => "to_channels_last".into(),
        }
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], _: &Pool) {
        let x = inputs[0].expect("the plan gives one input");
        convert(&self.logical, x.dtype.size(), self.to, x.bytes, outputs[0].bytes);
    }
}

pub(super) struct Builder<'a> {
    graph: &'a Graph,
    isa: Isa,
    pub(super) steps: Vec<Step>,
    pub(super) stored: Vec<Stored>,
    regions: usize,
    /// Where each value lies, by layout and by the rank that its shape was padded to.
    forms: HashMap<(ValueId, Layout, usize), usize>,
    /// Constants that readers want as floats.
    constants: HashMap<ValueId, Tensor>,
    /// The layout that each value was computed in.
    layouts: Vec<Layout>,
    /// The nodes that read each value.
    consumers: Vec<Vec<usize>>,
    /// Whether a step computes the node, or it is a view.
    done: Vec<bool>,
    parts: Vec<Part>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(graph: &'a Graph, isa: Isa, parts: Vec<Part>) -> Self {
        let mut consumers = graph.consumers();
        for i in parts.iter().flat_map(|part| part.nodes.clone()) {
            for &id in graph.nodes[i].inputs.iter().flatten() {
                // What a part reads must be there: counted twice, it is nobody's only reader, and
                // nothing before it does its work.
                consumers[id].push(i);
            }
        }
        Builder {
            graph,
            isa,
            steps: Vec::new(),
            stored: Vec::new(),
            regions: 0,
            forms: HashMap::new(),
            constants: HashMap::new(),
            layouts: vec![Layout::Plain; graph.values.len()],
            consumers,
            done: vec![false; graph.nodes.len()],
            parts,
        }
    }

    fn rank(&self, id: ValueId) -> usize {
        self.graph.values[id].shape.len()
    }

    fn port(&self, id: ValueId) -> Port {
        let value = &self.graph.values[id];
        Port {
            name: value.name.clone(),
            dtype: value.dtype,
            shape: value.layout.physical(&value.shape),
            layout: value.layout,
            quant: value.quant.clone().filter(QuantParams::is_per_tensor),
        }
    }

    pub(super) fn input(&mut self, id: ValueId) -> (Port, usize) {
        let port = self.port(id);
        let layout = if self.wants_channels_last(id) { Layout::ChannelsLast } else { port.layout };
        let stored = self.add(id, layout);
        (port, stored)
    }

    /// Whether every reader of a value wants its channels last, so that it is best written so.
    fn wants_channels_last(&self, id: ValueId) -> bool {
        let graph = self.graph;
        let mut readers = graph.nodes.iter().filter(|node| node.inputs.contains(&Some(id)));
        let wants = |node: &Node| {
            node.op.layout(&graph.input_specs(node)) == LayoutRule::ChannelsLast
                && node.inputs[0] == Some(id)
        };
        self.rank(id) >= 3
            && !graph.outputs.contains(&id)
            && readers.clone().next().is_some()
            && readers.all(wants)
    }

    pub(super) fn output(&mut self, id: ValueId) -> (Port, usize) {
        let port = self.port(id);
        let stored = self.form(id, port.layout, self.rank(id));
        (port, stored)
    }

    /// A new region for a value in the layout in which it is computed.
    fn add(&mut self, id: ValueId, layout: Layout) -> usize {
        self.regions += 1;
        self.layouts[id] = layout;
        let shape = layout.physical(&self.graph.values[id].shape);
        self.store(id, layout, self.rank(id), shape, Place::Region(self.regions - 1))
    }

    fn store(
        &mut self,
        id: ValueId,
        layout: Layout,
        rank: usize,
        shape: Vec<usize>,
        place: Place,
    ) -> usize {
        let value = &self.graph.values[id];
        self.stored.push(Stored {
            value: id,
            dtype: value.dtype,
            shape,
            quant: value.quant.clone(),
            layout,
            place,
        });
        self.forms.insert((id, layout, rank), self.stored.len() - 1);
        self.stored.len() - 1
    }

    /// The value in a layout, its shape padded with leading axes of 1 to `rank`; made where it
    /// does not exist yet.
    fn form(&mut self, id: ValueId, layout: Layout, rank: usize) -> usize {
        if let Some(&stored) = self.forms.get(&(id, layout, rank)) {
            return stored;
        }
        let value = &self.graph.values[id];
        let mut logical = vec![1; rank - value.shape.len()];
        logical.extend(&value.shape);
        if let Some(data) = value.data.as_ref().or(self.constants.get(&id)) {
            let data = data.reshaped(&logical);
            let data = if layout == Layout::ChannelsLast { to_channels_last(&data) } else { data };
            return self.store(id, layout, rank, data.shape().to_vec(), Place::Constant(data));
        }
        let physical = layout.physical(&logical);
        // From the layout it was computed in; a padded shape starts from plain.
        let source_layout =
            if rank == value.shape.len() { self.layouts[id] } else { Layout::Plain };
        let source = match self.forms.get(&(id, source_layout, value.shape.len())) {
            Some(&source) => source,
            None => self.form(id, source_layout, value.shape.len()),
        };
        let same_order = layout == source_layout
            || rank < 3
            || logical[1] == 1
            || logical[2..].iter().product::<usize>() == 1;
        if same_order {
            let Place::Region(region) = self.stored[source].place else {
                unreachable!("constants were handled")
            };
            return self.store(id, layout, rank, physical, Place::Region(region));
        }
        self.regions += 1;
        let target = self.store(id, layout, rank, physical, Place::Region(self.regions - 1));
        let kernel = Box::new(Relayout { logical, to: layout });
        self.steps.push(Step::new("", "Layout", 0, kernel, vec![Some(source)], vec![target]));
        target
    }

    pub(super) fn nodes(&mut self) -> Result<()> {
        let graph = self.graph;
        for i in 0..graph.nodes.len() {
            let node = &graph.nodes[i];
            if let Some(part) = self.parts.iter().position(|part| part.nodes.start == i) {
                let part = self.parts.swap_remove(part);
                self.part(part);
            }
            if self.done[i]
                || self.constant(node)
                || self.view(node)
                || self.lookup(node)
                || self.concat(node)
            {
                continue;
            }
            // An activation that only this node feeds runs in its store.
            if let Some((j, clamp)) = fused_clamp(graph, &self.consumers, node)
                && self.node(node, &graph.nodes[j].outputs, Some(clamp))?
            {
                self.done[j] = true;
                continue;
            }
            self.node(node, &node.outputs, None)?;
        }
        Ok(())
    }

    /// A part becomes one step.
    fn part(&mut self, part: Part) {
        let graph = self.graph;
        let Part { nodes, inputs, outputs, op, kernel } = part;
        let all = &graph.nodes[nodes.clone()];
        let inputs: Vec<_> = inputs
            .into_iter()
            .map(|(id, layout)| Some(self.form(id, layout, self.rank(id))))
            .collect();
        let outputs: Vec<_> =
            outputs.into_iter().map(|(id, layout)| self.add(id, layout)).collect();
        let spec = |&id: &ValueId| Spec::new(graph.values[id].dtype, &graph.values[id].shape);
        let macs = |node: &Node| {
            let outputs: Vec<_> = node.outputs.iter().map(spec).collect();
            node.op.macs(&graph.input_specs(node), &outputs)
        };
        let node = all.first().map_or("", |node| graph.node_name(node));
        let macs = all.iter().map(macs).sum();
        self.steps.push(Step::new(node, op, macs, kernel, inputs, outputs));
        nodes.for_each(|i| self.done[i] = true);
    }

    /// Constant codes whose readers want floats are converted once.
    fn constant(&mut self, node: &Node) -> bool {
        let (Op::DequantizeLinear(_), &[Some(x), ..], &[y]) =
            (&node.op, node.inputs.as_slice(), node.outputs.as_slice())
        else {
            return false;
        };
        let from = &self.graph.values[x];
        let Some(data) = &from.data else { return false };
        let real = eval::dequantize(&data.quantized_view(from.quant.as_ref()));
        self.constants.insert(y, Tensor::from_slice(data.shape(), &real));
        true
    }

    /// Several nodes that compute a function of one code become a lookup.
    fn lookup(&mut self, node: &Node) -> bool {
        let graph = self.graph;
        let Some(&Some(x)) = node.inputs.first() else { return false };
        let Some(Fused { tail: Tail::Table(table), nodes, output, .. }) =
            table_of(graph, &self.consumers, x).filter(|fused| fused.nodes.len() > 1)
        else {
            return false;
        };
        let layout = self.layouts[x];
        let inputs = vec![Some(self.form(x, layout, self.rank(x)))];
        let outputs = vec![self.add(output, layout)];
        let (node, op) = (graph.node_name(node), node.op.name());
        let kernel = Box::new(Lookup(*table));
        self.steps.push(Step::new(node, op, 0, kernel, inputs, outputs));
        nodes.into_iter().for_each(|i| self.done[i] = true);
        true
    }

    /// A concatenation of channels that products compute: they write them where they belong.
    fn concat(&mut self, node: &Node) -> bool {
        let graph = self.graph;
        let (Op::Concat(op), &[output]) = (&node.op, node.outputs.as_slice()) else { return false };
        let to = &graph.values[output];
        let rank = to.shape.len();
        if rank < 3 || normalize_axis(op.axis, rank) != Ok(1) {
            return false;
        }
        // The step of a product that nothing else reads and whose codes stay as they are.
        let step_of = |id: &Option<ValueId>| {
            let id = (*id)?;
            let value = &graph.values[id];
            let only = self.consumers[id].len() == 1 && !graph.outputs.contains(&id);
            let stored = *self.forms.get(&(id, Layout::ChannelsLast, rank))?;
            let step = self.steps.iter().position(|step| step.outputs == [stored])?;
            self.steps[step].kernel.product()?;
            (only && value.quant == to.quant).then_some((step, value.shape[1]))
        };
        let Some(steps) = node.inputs.iter().map(step_of).collect::<Option<Vec<_>>>() else {
            return false;
        };
        let last = steps.iter().map(|&(step, _)| step).max();
        let twice =
            |&(step, _): &(usize, usize)| steps.iter().filter(|(s, _)| *s == step).count() > 1;
        if steps.iter().any(twice) {
            return false;
        }
        let stored = self.add(output, Layout::ChannelsLast);
        let mut first = 0;
        for (i, channels) in steps {
            let step = &mut self.steps[i];
            let product = std::mem::replace(&mut step.kernel, Box::new(Reference(node.op.clone())));
            step.kernel = Box::new(Beside { product, channels: first..first + channels });
            step.outputs = vec![stored];
            step.partial = Some(i) != last;
            first += channels;
        }
        true
    }

    /// A node that changes nothing but the shape becomes a view of its input.
    fn view(&mut self, node: &Node) -> bool {
        let (Some(Some(x)), [y]) = (node.inputs.first(), node.outputs.as_slice()) else {
            return false;
        };
        let (from, to) = (&self.graph.values[*x], &self.graph.values[*y]);
        if !node.op.is_view()
            || from.dtype != to.dtype
            || from.quant != to.quant
            || from.data.is_some()
        {
            return false;
        }
        let layout = if from.shape == to.shape { self.layouts[*x] } else { Layout::Plain };
        let source = self.form(*x, layout, self.rank(*x));
        let Place::Region(region) = self.stored[source].place else { return false };
        self.layouts[*y] = layout;
        self.store(*y, layout, self.rank(*y), layout.physical(&to.shape), Place::Region(region));
        true
    }

    /// Adds the step of a node that writes `outputs`; with a `clamp` only where a kernel applies
    /// it, and says whether it did.
    fn node(
        &mut self,
        node: &Node,
        outputs: &[ValueId],
        clamp: Option<(f32, f32)>,
    ) -> Result<bool> {
        let graph = self.graph;
        let specs = graph.input_specs(node);
        let output_specs: Vec<_> = outputs
            .iter()
            .map(|&id| Spec::new(graph.values[id].dtype, &graph.values[id].shape))
            .collect();
        let rank = output_specs.iter().map(|s| s.shape.len()).max().unwrap_or(0);
        let rule = node.op.layout(&specs);
        let layout = match rule {
            LayoutRule::Plain => Layout::Plain,
            LayoutRule::ChannelsLast => Layout::ChannelsLast,
            LayoutRule::Any => self.any_layout(node, rank),
        };
        let padded = rule == LayoutRule::Any && layout == Layout::ChannelsLast;
        let op = if padded { node.op.to_channels_last(rank) } else { node.op.clone() };
        let mut inputs: Vec<_> = node
            .inputs
            .iter()
            .enumerate()
            .map(|(i, id)| {
                id.map(|id| match rule {
                    LayoutRule::ChannelsLast if i > 0 => {
                        self.form(id, Layout::Plain, self.rank(id))
                    }
                    _ if padded => self.form(id, layout, rank.max(self.rank(id))),
                    _ => self.form(id, layout, self.rank(id)),
                })
            })
            .collect();
        let shapes: Vec<_> = output_specs.iter().map(|s| layout.physical(&s.shape)).collect();
        let operands: Vec<_> = inputs.iter().map(|s| s.map(|s| self.stored[s].operand())).collect();
        let output_operands: Vec<_> = outputs
            .iter()
            .zip(&shapes)
            .map(|(&id, shape)| {
                let value = &graph.values[id];
                Operand { dtype: value.dtype, shape, quant: value.quant.as_ref(), data: None }
            })
            .collect();
        let compile =
            Compile { isa: self.isa, inputs: &operands, outputs: &output_operands, clamp };
        let mut kernel = match (op.compile(&compile), clamp) {
            (Some(kernel), _) => kernel,
            (None, Some(_)) => return Ok(false),
            (None, None) => Box::new(Reference(op)),
        };
        let macs = node.op.macs(&specs, &output_specs);
        let mut outputs = outputs.to_vec();
        if let (Some(_), &[y]) = (kernel.product(), outputs.as_slice()) {
            let is_computed = |id| self.is_computed(id);
            if let Some(fused) = tail_of(graph, &self.consumers, y, self.isa, is_computed) {
                fused.nodes.iter().for_each(|&i| self.done[i] = true);
                if let Some(other) = fused.residual {
                    inputs.push(Some(self.form(other, layout, self.rank(other))));
                }
                kernel = Box::new(Tailed { product: kernel, tail: fused.tail });
                outputs = vec![fused.output];
            }
        }
        let axis = match &node.op {
            Op::ConvInteger(_) => Some(1),
            Op::MatMulInteger(_) => rank.checked_sub(1),
            _ => None,
        };
        if let (Some(axis), &[y]) = (axis, outputs.as_slice()) {
            let is_known = |id: ValueId| graph.values[id].data.is_some() || self.is_computed(id);
            let channels = graph.values[y].shape[axis];
            if channels > 0
                && let Some(scaling) = scaling_of(graph, &self.consumers, y, axis, is_known)
            {
                scaling.nodes.iter().for_each(|&i| self.done[i] = true);
                let clamp = scaling.clamp;
                let (sums, count, isa) = (kernel, inputs.len(), self.isa);
                for id in [Some(scaling.scale), scaling.bias].into_iter().flatten() {
                    inputs.push(Some(self.form(id, Layout::Plain, self.rank(id))));
                }
                kernel = Box::new(Scaled { sums, inputs: count, channels, clamp, isa });
                outputs = vec![scaling.output];
            }
        }
        let outputs = outputs.iter().map(|&id| self.add(id, layout)).collect();
        let (node, op) = (graph.node_name(node), node.op.name());
        self.steps.push(Step::new(node, op, macs, kernel, inputs, outputs));
        Ok(true)
    }

    /// Whether the steps so far give a value.
    fn is_computed(&self, id: ValueId) -> bool {
        self.forms.keys().any(|&(known, ..)| known == id)
    }

    /// Channels-last where an input of full rank was computed so.
    fn any_layout(&self, node: &Node, rank: usize) -> Layout {
        let last = |&id: &ValueId| {
            let value = &self.graph.values[id];
            value.data.is_none()
                && value.shape.len() == rank
                && self.layouts[id] == Layout::ChannelsLast
        };
        match rank >= 3 && node.inputs.iter().flatten().any(last) {
            true => Layout::ChannelsLast,
            false => Layout::Plain,
        }
    }

    /// Gives each region a buffer; regions that are not alive together share one, and the sum of a residual
    /// branch that of the residual.
    pub(super) fn assign_buffers(
        &mut self,
        inputs: &[usize],
        outputs: &[usize],
    ) -> (Vec<usize>, Vec<usize>) {
        let region = |stored: usize| match self.stored[stored].place {
            Place::Region(region) => Some(region),
            Place::Constant(_) => None,
        };
        let mut size = vec![0; self.regions];
        for stored in &self.stored {
            if let Place::Region(region) = stored.place {
                size[region] = size[region].max(stored.len());
            }
        }
        let mut last_use = vec![0; self.regions];
        for (i, step) in self.steps.iter().enumerate() {
            for r in step.inputs.iter().flatten().chain(&step.outputs).filter_map(|&s| region(s)) {
                last_use[r] = i;
            }
        }
        // Inputs stay, so that a run can be repeated.
        for r in inputs.iter().chain(outputs).filter_map(|&s| region(s)) {
            last_use[r] = usize::MAX;
        }
        let mut buffers: Vec<usize> = Vec::new();
        let mut buffer_of = vec![usize::MAX; self.regions];
        let mut free: Vec<usize> = Vec::new();
        let mut give = |r: usize, free: &mut Vec<usize>, buffer_of: &mut Vec<usize>| {
            // The smallest free buffer that is large enough, else the largest, grown.
            let fits =
                |&i: &usize| (buffers[free[i]] < size[r], buffers[free[i]].abs_diff(size[r]));
            let buffer = match (0..free.len()).min_by_key(fits) {
                Some(i) => free.swap_remove(i),
                None => {
                    buffers.push(0);
                    buffers.len() - 1
                }
            };
            buffers[buffer] = buffers[buffer].max(size[r]);
            buffer_of[r] = buffer;
        };
        for r in inputs.iter().filter_map(|&s| region(s)) {
            give(r, &mut free, &mut buffer_of);
        }
        for (i, step) in self.steps.iter_mut().enumerate() {
            if let (true, [before @ .., Some(other)], &[output]) =
                (step.kernel.writes_over_last(), step.inputs.as_slice(), step.outputs.as_slice())
                && let (Some(from), Some(to)) = (region(*other), region(output))
                && (last_use[from], size[from], buffer_of[to]) == (i, size[to], usize::MAX)
                && before.iter().flatten().all(|&s| region(s) != Some(from))
            {
                step.over_last = true;
                buffer_of[to] = buffer_of[from];
                // It ends with the output.
                last_use[from] = usize::MAX;
            }
            for r in step.outputs.iter().filter_map(|&s| region(s)) {
                // Another step may have written a part of it.
                if buffer_of[r] == usize::MAX {
                    give(r, &mut free, &mut buffer_of);
                }
            }
            let used = step.inputs.iter().flatten().chain(&step.outputs).filter_map(|&s| region(s));
            let mut ended: Vec<_> = used.filter(|&r| last_use[r] == i).collect();
            ended.sort_unstable();
            ended.dedup();
            free.extend(ended.into_iter().map(|r| buffer_of[r]));
        }
        (buffer_of, buffers)
    }
}
