//! Models and the sessions that run them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daq_kernels::{Isa, Pool, dequantize_u8_f32, quantize_f32_u8, quantize_nchw_to_nhwc};

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::layout;
use crate::plan::{Buffer, InputPlace, Observer, Plan, Port, Step};
use crate::tensor::{DType, Element, Tensor, TensorView};

/// A model ready to run: its graph, and the plan with packed weights that all its sessions share.
#[derive(Clone)]
pub struct Model {
    graph: Arc<Graph>,
    plan: Arc<Plan>,
}

impl Model {
    /// Opens a `.daq` file. Its weights are used where they lie in the mapped file.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Self::from_graph(crate::format::read(path.as_ref())?)
    }

    /// Opens a `.daq` file that is part of another, such as an asset of an Android package: `len`
    /// bytes from `offset` on. Where the part starts at a multiple of 64 it is used where it lies;
    /// else it is copied. The file's position does not matter and does not change.
    pub fn open_part(file: &File, offset: u64, len: u64) -> Result<Model> {
        Self::from_graph(crate::format::read_part(file, offset, len)?)
    }

    /// Takes a `.daq` file that is already in memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model> {
        Self::from_graph(crate::format::from_bytes(bytes)?)
    }

    /// Compiles a graph for this CPU, or for the instruction set that `DAQ_ISA` names.
    pub fn from_graph(graph: Graph) -> Result<Model> {
        Self::from_graph_for(graph, Isa::best())
    }

    /// Compiles a graph for a given instruction set, which this CPU must support.
    pub fn from_graph_for(graph: Graph, isa: Isa) -> Result<Model> {
        if !isa.is_supported() {
            return Err(Error::Call(format!("this CPU does not support {}", isa.name())));
        }
        let plan = Plan::compile(&graph, isa)?;
        // Kernels have packed what they read.
        let constants = graph.values.iter().filter_map(|value| value.data.as_ref());
        constants.fold(None, |last, constant| Some(constant.release(last)));
        Ok(Model::new(graph, plan))
    }

    /// A graph with its plan.
    pub(crate) fn new(graph: Graph, plan: Plan) -> Model {
        Model { graph: Arc::new(graph), plan: Arc::new(plan) }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A session with threads of its own, the caller's included (so 1 starts none).
    pub fn session(&self, threads: usize) -> Session {
        self.session_on(Arc::new(Pool::new(threads.max(1))))
    }

    /// A session on threads that it shares with others.
    pub fn session_on(&self, pool: Arc<Pool>) -> Session {
        let buffers = self.plan.buffers().iter().map(|&n| Buffer::zeroed(n)).collect();
        Session { model: self.clone(), pool, buffers }
    }
}

/// The memory of one run at a time of a [`Model`].
///
/// Inputs and outputs are `f32` or `u8`, whichever the caller likes: real numbers are quantized on
/// the way in and codes dequantized on the way out at the scale of the [`Port`].
pub struct Session {
    model: Model,
    pool: Arc<Pool>,
    buffers: Vec<Buffer>,
}

impl Session {
    /// The model that it runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the model takes, in order.
    pub fn inputs(&self) -> Vec<&Port> {
        self.model.plan.inputs().collect()
    }

    /// What the model gives, in order.
    pub fn outputs(&self) -> Vec<&Port> {
        self.model.plan.outputs().collect()
    }

    /// Runs the model on one slice for each input and fills one slice for each output, all in the
    /// order of the model's ports and in the shape and layout that these say.
    ///
    /// The four ways to predict are the four choices of `I` and `O` among `f32` and `u8`. A `u8`
    /// is the code `round(x / scale) + zero_point` of the port's scale.
    ///
    /// # Errors
    /// A wrong number of slices or elements; `u8` where the port has no scale.
    pub fn predict<I: Element, O: Element>(
        &mut self,
        inputs: &[&[I]],
        outputs: &mut [&mut [O]],
    ) -> Result<()> {
        let plan = self.model.plan.clone();
        count("inputs", inputs.len(), plan.inputs().count())?;
        count("outputs", outputs.len(), plan.outputs().count())?;
        for (i, (port, data)) in plan.inputs().zip(inputs).enumerate() {
            if data.len() != port.shape.iter().product::<usize>() {
                return Err(wrong_size("input", port, data.len()));
            }
            let view = TensorView {
                dtype: I::DTYPE,
                shape: &port.shape,
                quant: port.quant.as_ref(),
                bytes: bytemuck::cast_slice(data),
            };
            self.set_input(i, view)?;
        }
        for (port, data) in plan.outputs().zip(outputs.iter()) {
            if data.len() != port.shape.iter().product::<usize>() {
                return Err(wrong_size("output", port, data.len()));
            }
            convertible("output", port, O::DTYPE)?;
        }
        self.run_steps(None)?;
        for (i, (port, data)) in plan.outputs().zip(outputs).enumerate() {
            let view = plan.output_view(i, &self.buffers);
            write(view, port, O::DTYPE, bytemuck::cast_slice_mut(data))?;
        }
        Ok(())
    }

    /// Runs the model on named inputs and gives its outputs in order, as `dtype` where that is
    /// given and possible, else in the type in which the model holds them. Integer outputs
    /// (indices) stay what they are.
    ///
    /// # Errors
    /// An unknown or missing name; a wrong shape or type.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)], dtype: Option<DType>) -> Result<Vec<Tensor>> {
        let plan = self.model.plan.clone();
        self.set_inputs(inputs)?;
        self.run_steps(None)?;
        plan.outputs()
            .enumerate()
            .map(|(i, port)| {
                let wanted = dtype.filter(|_| matches!(port.dtype, DType::F32 | DType::U8));
                let wanted = wanted.unwrap_or(port.dtype);
                convertible("output", port, wanted)?;
                let len = port.shape.iter().product::<usize>() * wanted.size();
                let mut bytes = Buffer::zeroed(len);
                write(plan.output_view(i, &self.buffers), port, wanted, bytes.as_mut_slice())?;
                Ok(Tensor::from_aligned(wanted, &port.shape, bytes))
            })
            .collect()
    }

    /// Runs the model and shows each value to `observe` as soon as it is computed, inputs first.
    /// Values that a plan fuses away or that are views of others are not shown; shapes are those
    /// of memory.
    pub fn run_observed(
        &mut self,
        inputs: &[(&str, &Tensor)],
        observe: &mut Observer,
    ) -> Result<()> {
        self.set_inputs(inputs)?;
        for (i, &id) in self.model.graph.inputs.iter().enumerate() {
            let InputPlace { buffer, len, shape, .. } = self.model.plan.input_place(i);
            let value = &self.model.graph.values[id];
            let bytes = &self.buffers[buffer].as_slice()[..len];
            let quant = value.quant.as_ref();
            observe(id, TensorView { dtype: value.dtype, shape, quant, bytes });
        }
        self.run_steps(Some(observe))
    }

    /// Runs the model on the inputs of the last run and gives the time of each step.
    ///
    /// # Errors
    /// A device that fails.
    pub fn run_timed(&mut self) -> Result<Vec<Duration>> {
        let plan = self.model.plan.clone();
        let time = |step: &Step| {
            let start = Instant::now();
            plan.run_step(step, &mut self.buffers, &self.pool, None)?;
            Ok(start.elapsed())
        };
        plan.steps().iter().map(time).collect()
    }

    fn run_steps(&mut self, mut observe: Option<&mut Observer>) -> Result<()> {
        let plan = self.model.plan.clone();
        for step in plan.steps() {
            let observe = observe.as_mut().map(|o| &mut **o as &mut Observer);
            plan.run_step(step, &mut self.buffers, &self.pool, observe)?;
        }
        Ok(())
    }

    fn set_inputs(&mut self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        let plan = self.model.plan.clone();
        let names =
            || plan.inputs().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ");
        if let Some((name, _)) = inputs.iter().find(|(n, _)| !plan.inputs().any(|p| p.name == *n)) {
            return Err(Error::Call(format!(
                "the model has no input `{name}`; it takes {}",
                names()
            )));
        }
        for (i, port) in plan.inputs().enumerate() {
            let Some((_, tensor)) = inputs.iter().find(|(name, _)| *name == port.name) else {
                return Err(Error::Call(format!(
                    "input `{}` is missing; the model takes {}",
                    port.name,
                    names()
                )));
            };
            if tensor.shape() != port.shape {
                return Err(Error::Call(format!(
                    "input `{}` has shape {:?}, the model takes {:?}",
                    port.name,
                    tensor.shape(),
                    port.shape
                )));
            }
            self.set_input(i, tensor.quantized_view(port.quant.as_ref()))?;
        }
        Ok(())
    }

    fn set_input(&mut self, index: usize, given: TensorView) -> Result<()> {
        let plan = self.model.plan.clone();
        let port = plan.inputs().nth(index).expect("the caller counts ports");
        convertible("input", port, given.dtype)?;
        let InputPlace { buffer, len, layout, .. } = plan.input_place(index);
        let bytes = &mut self.buffers[buffer].as_mut_slice()[..len];
        if layout == port.layout {
            return write(given, port, port.dtype, bytes);
        }
        // Only plain inputs are written in another layout.
        match (given.dtype, port.dtype, &port.quant) {
            (DType::F32, DType::U8, Some(quant)) => {
                let (scale, zero_point) = (quant.scale[0], quant.zero_point[0] as u8);
                let dims = layout::dims(&port.shape);
                let (x, isa) = (given.data(), Isa::best());
                quantize_nchw_to_nhwc(dims, x, scale, zero_point, bytes, isa, &self.pool);
            }
            (from, to, _) if from == to => {
                layout::convert(&port.shape, to.size(), layout, given.bytes, bytes);
            }
            _ => {
                let mut plain = Buffer::zeroed(len);
                write(given, port, port.dtype, plain.as_mut_slice())?;
                layout::convert(&port.shape, port.dtype.size(), layout, plain.as_slice(), bytes);
            }
        }
        Ok(())
    }
}

fn count(what: &str, given: usize, wanted: usize) -> Result<()> {
    match given == wanted {
        true => Ok(()),
        false => Err(Error::Call(format!("{given} {what} given, the model has {wanted}"))),
    }
}

fn wrong_size(what: &str, port: &Port, len: usize) -> Error {
    Error::Call(format!(
        "{what} `{}` has {len} elements, the model's shape {:?} has {}",
        port.name,
        port.shape,
        port.shape.iter().product::<usize>()
    ))
}

/// Whether a port's elements can be given or taken as `dtype`.
fn convertible(what: &str, port: &Port, dtype: DType) -> Result<()> {
    let real_or_code = |d| matches!(d, DType::F32 | DType::U8);
    if port.dtype == dtype {
        return Ok(());
    }
    if real_or_code(port.dtype) && real_or_code(dtype) {
        return match port.quant.is_some() {
            true => Ok(()),
            false => Err(Error::Call(format!(
                "{what} `{}` is {} and has no scale, so it cannot be used as {dtype}; \
                 use {}, or a quantized model",
                port.name, port.dtype, port.dtype
            ))),
        };
    }
    Err(Error::Call(format!("{what} `{}` is {}, not {dtype}", port.name, port.dtype)))
}

/// Copies elements to `bytes` as `dtype`, through the port's scale where the types differ.
fn write(from: TensorView, port: &Port, dtype: DType, bytes: &mut [u8]) -> Result<()> {
    let quant = port.quant.as_ref().map(|q| (q.scale[0], q.zero_point[0] as u8));
    match (from.dtype, dtype, quant) {
        (a, b, _) if a == b => bytes.copy_from_slice(from.bytes),
        (DType::F32, DType::U8, Some((scale, zero_point))) => {
            quantize_f32_u8(from.data(), scale, zero_point, bytes, Isa::best());
        }
        (DType::U8, DType::F32, Some((scale, zero_point))) => {
            let real = bytemuck::cast_slice_mut(bytes);
            dequantize_u8_f32(from.data(), scale, zero_point, real, Isa::best());
        }
        _ => return convertible("tensor", port, dtype),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Attrs, Op};
    use crate::{Node, QuantParams, Value};

    fn node(op: &str, attrs: Attrs, inputs: &[usize], output: usize) -> Node {
        let op = Op::from_attrs(op, &attrs).unwrap().unwrap();
        let inputs = inputs.iter().map(|&i| Some(i)).collect();
        Node { name: String::new(), op, inputs, outputs: vec![output], doc: String::new() }
    }

    /// Conv 1x1 from two channels to two, then Relu: `[a - b, b]` clamped at 0.
    fn float_graph() -> Graph {
        let mut g = Graph { name: "tiny".into(), ..Graph::default() };
        let x = g.add_value(Value::new("x", DType::F32, &[1, 2, 1, 3]));
        let w = Tensor::from_slice(&[2, 2, 1, 1], &[1f32, -1., 0., 1.]);
        let w = g.add_value(Value::constant("w", w));
        let c = g.add_value(Value::new("c", DType::F32, &[1, 2, 1, 3]));
        let y = g.add_value(Value::new("y", DType::F32, &[1, 2, 1, 3]));
        g.nodes.push(node("Conv", Attrs::new(), &[x, w], c));
        g.nodes.push(node("Relu", Attrs::new(), &[c], y));
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        g
    }

    /// Conv 1x1 of one channel by 2 on codes: x at 0.5 with zero point 10, y at 0.25 with 20.
    fn quantized_graph() -> Graph {
        let mut g = Graph { name: "tiny".into(), ..Graph::default() };
        let quantized = |name, scale, zero_point| {
            let quant = QuantParams::per_tensor(scale, zero_point);
            Value::new(name, DType::U8, &[1, 1, 1, 4]).with_quant(quant)
        };
        let x = g.add_value(quantized("x", 0.5, 10));
        let w = Value::constant("w", Tensor::from_slice(&[1, 1, 1, 1], &[4i8]));
        let w = g.add_value(w.with_quant(QuantParams::per_tensor(0.5, 0)));
        let y = g.add_value(quantized("y", 0.25, 20));
        g.nodes.push(node("Conv", Attrs::new(), &[x, w], y));
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        g
    }

    #[test]
    fn a_float_model_runs_in_plain_order() {
        let mut session = Model::from_graph(float_graph()).unwrap().session(1);
        let x = [1f32, 2., 3., 3., 1., -1.];
        let mut y = [0f32; 6];
        session.predict(&[&x], &mut [&mut y]).unwrap();
        assert_eq!(y, [0., 1., 4., 3., 1., 0.]);
    }

    #[test]
    fn four_ways_to_predict() {
        let mut session = Model::from_graph(quantized_graph()).unwrap().session(1);
        let (real, codes) = ([0f32, 0.5, 1.0, 29.0], [10u8, 11, 12, 68]);
        // y = 2x; as codes 2x / 0.25 + 20, saturated at 255.
        let (real_y, codes_y) = ([0f32, 1.0, 2.0, 58.0], [20u8, 24, 28, 252]);
        let (mut f, mut q) = ([0f32; 4], [0u8; 4]);
        session.predict(&[&real], &mut [&mut f]).unwrap();
        assert_eq!(f, real_y);
        session.predict(&[&real], &mut [&mut q]).unwrap();
        assert_eq!(q, codes_y);
        session.predict(&[&codes], &mut [&mut f]).unwrap();
        assert_eq!(f, real_y);
        session.predict(&[&codes], &mut [&mut q]).unwrap();
        assert_eq!(q, codes_y);
        session.predict(&[&[255u8; 4]], &mut [&mut q]).unwrap();
        assert_eq!(q, [255; 4]);
    }

    /// Two convolutions 1x1 of codes and their concatenation, or one of them twice.
    fn concatenation(second: bool) -> Graph {
        let mut g = Graph { name: "fire".into(), ..Graph::default() };
        let codes = |name: &str, channels| {
            let quant = QuantParams::per_tensor(1.0, 0);
            Value::new(name, DType::U8, &[1, channels, 1, 2]).with_quant(quant)
        };
        let x = g.add_value(codes("x", 2));
        let mut weights = |name, w: &[i8]| {
            let data = Tensor::from_slice(&[w.len() / 2, 2, 1, 1], w);
            g.add_value(Value::constant(name, data).with_quant(QuantParams::per_tensor(1.0, 0)))
        };
        let (v, w) = (weights("v", &[1, 1]), weights("w", &[0, 1, 2, 0]));
        let (sum, turned) = (g.add_value(codes("sum", 1)), g.add_value(codes("turned", 2)));
        let y = g.add_value(codes("y", if second { 3 } else { 4 }));
        if second {
            g.nodes.push(node("Conv", Attrs::new(), &[x, v], sum));
        }
        g.nodes.push(node("Conv", Attrs::new(), &[x, w], turned));
        let attrs = Attrs::new().with("axis", crate::ops::Attr::Int(1));
        let parts = if second { [sum, turned] } else { [turned, turned] };
        g.nodes.push(node("Concat", attrs, &parts, y));
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        g
    }

    #[test]
    fn products_write_into_their_concatenation() {
        // Channels [1, 2] and [3, 4]: their sum, the second one, twice the first.
        for (second, want, steps) in
            [(true, &[4u8, 6, 3, 4, 2, 4][..], 2), (false, &[3, 4, 2, 4, 3, 4, 2, 4], 2)]
        {
            let model = Model::from_graph(concatenation(second)).unwrap();
            let concats = model.plan().steps().iter().filter(|s| s.kernel().ends_with("+concat"));
            assert_eq!(concats.count(), if second { 2 } else { 0 });
            assert_eq!(model.plan().steps().iter().filter(|s| s.op != "Layout").count(), steps);
            for threads in [1, 2] {
                let mut session = model.session(threads);
                let mut y = vec![0u8; want.len()];
                session.predict(&[&[1u8, 2, 3, 4]], &mut [&mut y]).unwrap();
                assert_eq!(y, want);
            }
            // The concatenation is shown when all of it is there, then in the order of the output.
            let x = Tensor::from_slice(&[1, 2, 1, 2], &[1u8, 2, 3, 4]);
            let y_id = model.graph().outputs[0];
            let mut shown = Vec::new();
            let mut observe = |id, view: TensorView| {
                if id == y_id {
                    shown.push(view.bytes.to_vec());
                }
            };
            model.session(1).run_observed(&[("x", &x)], &mut observe).unwrap();
            let last: Vec<u8> =
                (0..2).flat_map(|p| want.chunks_exact(2).map(move |channel| channel[p])).collect();
            assert_eq!(shown, [last, want.to_vec()]);
        }
    }

    #[test]
    fn channels_last_input_is_taken_as_it_is() {
        let mut graph = float_graph();
        let x = graph.inputs[0];
        graph.values[x].layout = crate::Layout::ChannelsLast;
        let mut session = Model::from_graph(graph).unwrap().session(1);
        assert_eq!(session.inputs()[0].shape, [1, 1, 3, 2]);
        let mut y = [0f32; 6];
        session.predict(&[&[1f32, 3., 2., 1., 3., -1.]], &mut [&mut y]).unwrap();
        assert_eq!(y, [0., 1., 4., 3., 1., 0.]);
    }

    #[test]
    fn wrong_calls_are_errors() {
        let mut session = Model::from_graph(float_graph()).unwrap().session(1);
        let mut y = [0f32; 6];
        let message = |r: Result<()>| r.unwrap_err().to_string();
        assert!(
            message(session.predict(&[&[0f32; 5]], &mut [&mut y]))
                .contains("input `x` has 5 elements")
        );
        assert!(
            message(session.predict(&[&[0f32; 6]], &mut [&mut y[..2]]))
                .contains("output `y` has 2")
        );
        assert!(message(session.predict(&[&[0u8; 6]], &mut [&mut y])).contains("has no scale"));
        assert!(
            message(session.predict::<f32, f32>(&[], &mut [&mut y])).contains("0 inputs given")
        );
        let t = Tensor::from_slice(&[1, 6], &[0f32; 6]);
        assert!(
            message(session.run(&[("x", &t)], None).map(drop))
                .contains("the model takes [1, 2, 1, 3]")
        );
        assert!(message(session.run(&[("z", &t)], None).map(drop)).contains("no input `z`"));
        assert!(message(session.run(&[], None).map(drop)).contains("`x` is missing"));
    }

    #[test]
    fn invalid_graphs_are_errors() {
        let mut g = float_graph();
        g.values[3].shape = vec![1, 2, 1, 4];
        assert!(Model::from_graph(g).is_err_and(|e| e.to_string().contains("declared")));
        let mut g = float_graph();
        g.nodes.swap(0, 1);
        assert!(
            Model::from_graph(g)
                .is_err_and(|e| e.to_string().contains("before anything computes it"))
        );
        let mut g = float_graph();
        g.values[0].shape = vec![1, 2, 1 << 40, 1 << 40];
        assert!(matches!(Model::from_graph(g), Err(Error::TooLarge { .. })));
        let mut g = quantized_graph();
        g.values[0].quant = Some(QuantParams::per_tensor(f32::NAN, 0));
        assert!(Model::from_graph(g).is_err());
    }
}
