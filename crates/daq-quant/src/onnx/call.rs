//! A node on its way from the file to the graph.

use std::collections::BTreeMap;

use daq::attrs::{Attr, Attrs};
use daq::{Graph, OpError, Spec, Tensor, ValueId};

/// A node whose inputs are known, before it becomes an [`Op`](daq::Op).
pub(super) struct Call {
    /// The node's name, or its first output's where it has none; for messages.
    pub label: String,
    /// The node's name; may be empty.
    pub name: String,
    /// The doc string.
    pub doc: String,
    /// The operator.
    pub op: String,
    /// The attributes; `opset` is that of the form they have by now.
    pub attrs: Attrs,
    /// The inputs by position.
    pub inputs: Vec<Option<ValueId>>,
    /// The outputs by position; empty names for those left out.
    pub outputs: Vec<String>,
    /// The shape in which the operator works on input 0, its output being shaped back.
    pub around: Option<Vec<i64>>,
}

impl Call {
    /// Type and shape of a required input.
    pub fn spec(&self, graph: &Graph, index: usize) -> Result<Spec, OpError> {
        let id = self.inputs.get(index).copied().flatten();
        let value = &graph.values[id.ok_or(OpError::MissingInput { index })?];
        Ok(Spec::new(value.dtype, &value.shape))
    }

    /// The elements of input `index`, where it is given; an error where it is not constant.
    pub fn constant<'a>(
        &self,
        graph: &'a Graph,
        index: usize,
        name: &str,
    ) -> Result<Option<&'a Tensor>, OpError> {
        let Some(id) = self.inputs.get(index).copied().flatten() else { return Ok(None) };
        let value = &graph.values[id];
        value.data.as_ref().map(Some).ok_or_else(|| {
            OpError::unsupported(
                format!("input {index} (`{name}`, here `{}`) computed at run time", value.name),
                "it must be constant: fix the input shapes with `--shape`, or simplify the model \
                 (constant folding) before",
            )
        })
    }

    /// The attributes.
    pub fn map(&mut self) -> &mut BTreeMap<String, Attr> {
        &mut self.attrs.map
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &str, value: Attr) {
        self.attrs.map.insert(name.to_string(), value);
    }
}
