//! The end of a node's way into the graph: its outputs are inferred, or computed where constant.

use daq::attrs::{Attr, Attrs};
use daq::ops::Quantization;
use daq::ops::eval::{Quantized, evaluate};
use daq::tensor::checked_bytes;
use daq::{DType, Node, Op, OpError, QuantParams, Value, ValueId};

use super::OnnxError;
use super::call::Call;
use super::qdq::{self, Blocks};
use super::qoperator::Taken;
use super::read::Importer;

/// Limits of what is computed while reading: elements of one output, and of all outputs together.
const FOLD_ELEMENTS: usize = 16 << 20;
const FOLD_ALL_ELEMENTS: usize = 128 << 20;

/// The most multiply-accumulate operations of a node that is computed while reading.
const FOLD_MACS: u64 = 1 << 28;

impl Importer<'_> {
    /// Emits `op` on input 0 shaped as `flat`, and shapes its output back.
    pub(super) fn emit_around(
        &mut self,
        call: &mut Call,
        op: Op,
        flat: Vec<i64>,
    ) -> Result<Result<(), OnnxError>, OpError> {
        let shape = call.spec(&self.graph, 0)?.shape.iter().map(|&d| d as i64).collect();
        let outputs = std::mem::take(&mut call.outputs);
        let output = outputs.first().cloned().unwrap_or_default();
        let between =
            [self.unique(&format!("{output}_flat")), self.unique(&format!("{output}_of_flat"))];
        let reshape = |shape: Vec<i64>| {
            let attrs = Attrs::new().with("shape", Attr::Ints(shape));
            Op::from_attrs("Reshape", &attrs).unwrap_or_else(|| {
                Err(OpError::unsupported("Reshape", "use operator set 13 for this operator"))
            })
        };
        let name = std::mem::take(&mut call.name);
        let steps = [
            (reshape(flat)?, between[0].clone(), String::new()),
            (op, between[1].clone(), name),
            (reshape(shape)?, output, String::new()),
        ];
        for (op, output, name) in steps {
            call.name = name;
            call.outputs = vec![output];
            if let Err(e) = self.emit(call, op, None)? {
                return Ok(Err(e));
            }
            call.inputs = vec![self.ids.get(&call.outputs[0]).copied()];
        }
        Ok(Ok(()))
    }

    /// Emits one operator under a name of its own and gives its output.
    fn emit_step(
        &mut self,
        call: &Call,
        (op, attrs): (&str, Attrs),
        inputs: &[Option<ValueId>],
        output: &str,
        quant: Option<(DType, QuantParams)>,
    ) -> Result<Result<ValueId, OnnxError>, OpError> {
        let op = Op::from_attrs(op, &attrs);
        let op = op.ok_or_else(|| OpError::unsupported(call.op.clone(), "use another form"))??;
        let step = Call {
            label: call.label.clone(),
            name: String::new(),
            doc: String::new(),
            op: call.op.clone(),
            attrs,
            inputs: inputs.to_vec(),
            outputs: vec![output.to_string()],
            around: None,
        };
        Ok(self.emit(&step, op, quant)?.map(|()| self.ids[output]))
    }

    /// Emits an operator that takes and gives codes, some of them signed, as a float one between
    /// DequantizeLinear and QuantizeLinear: folding makes their codes unsigned where it can.
    pub(super) fn emit_through_floats(
        &mut self,
        call: &mut Call,
        taken: Taken,
    ) -> Result<Result<(), OnnxError>, OpError> {
        let output = call.outputs.first().cloned().unwrap_or_default();
        let mut reals = call.inputs.clone();
        for (id, quant) in reals.iter_mut().zip(taken.inputs) {
            let (Some(codes), Some(quant)) = (*id, quant) else { continue };
            let codes = match self.read_as(codes, quant)? {
                Ok(codes) => codes,
                Err(e) => return Ok(Err(e)),
            };
            let name = self.unique(&format!("{}_DequantizeLinear", self.graph.values[codes].name));
            let op = ("DequantizeLinear", Attrs::new());
            match self.emit_step(call, op, &[Some(codes)], &name, None)? {
                Ok(real) => *id = Some(real),
                Err(e) => return Ok(Err(e)),
            }
        }
        let name = self.unique(&format!("{output}_QuantizeLinear_Input"));
        let attrs = std::mem::take(&mut call.attrs);
        let real = match self.emit_step(call, (&call.op, attrs), &reals, &name, None)? {
            Ok(real) => real,
            Err(e) => return Ok(Err(e)),
        };
        let op = ("QuantizeLinear", Attrs::new());
        Ok(self.emit_step(call, op, &[Some(real)], &output, taken.output)?.map(|_| ()))
    }

    /// Emits a QuantizeLinear or DequantizeLinear with a scale for each block as the arithmetic
    /// that it stands for.
    pub(super) fn emit_blocks(
        &mut self,
        call: &mut Call,
    ) -> Result<Result<(), OnnxError>, OpError> {
        let Blocks { scale, zero_point, codes } = qdq::take_blocks(call, &self.graph)?;
        let output = call.outputs.first().cloned().unwrap_or_default();
        let constant = |this: &mut Self, what: &str, tensor| {
            let name = this.unique(&format!("{output}_{what}"));
            Some(this.add(Value::constant(name, tensor)))
        };
        let scale = constant(self, "scale", scale);
        let zero_point = constant(self, "zero_point", zero_point);
        let cast = |to: DType| {
            let number = super::tensor::data_type(to).map_or(0, |t| t as i64);
            ("Cast", Attrs::new().with("to", Attr::Int(number)))
        };
        let plain = |op| (op, Attrs::new());
        let (low, high) = if codes == DType::I8 { (-128.0, 127.0) } else { (0.0, 255.0) };
        let bounds = Attrs::new().with("min", Attr::Float(low)).with("max", Attr::Float(high));
        let steps = match call.op.as_str() {
            "QuantizeLinear" => vec![
                (plain("Div"), scale),
                (plain("Round"), None),
                (plain("Add"), zero_point),
                (("Clip", bounds), None),
                (cast(codes), None),
            ],
            _ => vec![(cast(DType::F32), None), (plain("Sub"), zero_point), (plain("Mul"), scale)],
        };
        let mut at = call.inputs[0];
        let count = steps.len();
        for (i, (step, other)) in steps.into_iter().enumerate() {
            let name = match i + 1 == count {
                true => output.clone(),
                false => self.unique(&format!("{output}_{}", step.0)),
            };
            let inputs: Vec<_> = std::iter::once(at).chain(other.map(Some)).collect();
            match self.emit_step(call, step, &inputs, &name, None)? {
                Ok(id) => at = Some(id),
                Err(e) => return Ok(Err(e)),
            }
        }
        Ok(Ok(()))
    }

    /// Adds the node, or its outputs where they are constant. `quant` is of a QuantizeLinear's
    /// output.
    pub(super) fn emit(
        &mut self,
        call: &Call,
        op: Op,
        quant: Option<(DType, QuantParams)>,
    ) -> Result<Result<(), OnnxError>, OpError> {
        let inputs = call.inputs.clone();
        let outputs = Vec::new();
        let (name, doc) = (call.name.clone(), call.doc.clone());
        let mut node = Node { name, op, inputs, outputs, doc };
        let specs = self.graph.input_specs(&node);
        let mut inferred = node.op.infer(&specs)?;
        if inferred.len() < call.outputs.len() {
            return Err(OpError::unsupported(
                format!("output {} `{}`", inferred.len(), call.outputs[inferred.len()]),
                "remove what reads it",
            ));
        }
        inferred.truncate(call.outputs.len());
        if let (Some((dtype, _)), Some(first)) = (&quant, inferred.first_mut()) {
            first.dtype = *dtype;
        }
        for spec in &inferred {
            if let Err(source) = checked_bytes(&call.label, spec.dtype, &spec.shape) {
                let source = Box::new(source);
                return Ok(Err(OnnxError::Graph { file: self.file.to_string(), source }));
            }
        }
        let elements = inferred.iter().map(|s| s.shape.iter().product::<usize>()).sum::<usize>();
        // Codes that stand for real numbers are computed when the model runs.
        let coded = node.inputs.iter().flatten().any(|&id| self.graph.values[id].quant.is_some());
        let foldable = !coded
            && elements <= FOLD_ELEMENTS
            && self.folded + elements <= FOLD_ALL_ELEMENTS
            && node.op.macs(&specs, &inferred) <= FOLD_MACS;
        if foldable && let Some(inputs) = self.constant_inputs(&node) {
            let quants: Vec<_> = quant.iter().cloned().collect();
            let data = evaluate(&node.op, &inputs, &quants)?;
            self.folded += elements;
            let done = self.constants(call, data);
            if let (Ok(()), Some((_, quant)), Some(name)) = (&done, quant, call.outputs.first())
                && let Some(&id) = self.ids.get(name)
            {
                self.graph.values[id].quant = Some(quant);
            }
            return Ok(done);
        }
        for (i, (name, spec)) in call.outputs.iter().zip(&inferred).enumerate() {
            let name = match name.as_str() {
                "" => self.unique(&format!("{}_unread_{i}", call.label)),
                name => name.to_string(),
            };
            let id = self.add(Value::new(name, spec.dtype, &spec.shape));
            node.outputs.push(id);
        }
        if let (Some((_, quant)), Some(&id)) = (quant, node.outputs.first()) {
            self.graph.values[id].quant = Some(quant);
        } else if node.op.quantization() == Quantization::Moves
            && let Some(&Some(x)) = node.inputs.first()
        {
            // Moved codes mean what they meant before.
            let x = &self.graph.values[x];
            let quant = x.quant.clone().filter(|q| x.dtype.is_code() && q.is_per_tensor());
            for &id in &node.outputs {
                let moved = self.graph.values[id].dtype.is_code();
                self.graph.values[id].quant = quant.clone().filter(|_| moved);
            }
        }
        self.graph.nodes.push(node);
        Ok(Ok(()))
    }

    /// The inputs' elements, where all are constant.
    fn constant_inputs(&self, node: &Node) -> Option<Vec<Option<Quantized<'_>>>> {
        let data = |id: &Option<ValueId>| match id {
            None => Some(None),
            Some(id) => Some(Some((self.graph.values[*id].data.as_ref()?, None))),
        };
        node.inputs.iter().map(data).collect()
    }
}
