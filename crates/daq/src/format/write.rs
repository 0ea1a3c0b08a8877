//! From a [`Graph`] to the bytes of a `.daq` file.

use std::collections::HashMap;

use flatbuffers::{FlatBufferBuilder, WIPOffset};

use super::generated as fb;
use super::{ALIGN, FIRST_READER, MAGIC, TRAILER, UNCHECKED, VERSION};
use crate::attrs::{Attr, Attrs, OPSET};
use crate::graph::{Graph, Node, Value, ValueId};
use crate::layout::Layout;
use crate::tensor::{DType, Tensor};

/// The whole file, of a valid graph.
pub(super) fn file(graph: &Graph) -> Result<Vec<u8>, String> {
    let attrs: Vec<Attrs> = graph.nodes.iter().map(|n| n.op.to_attrs()).collect();
    file_with(graph, &attrs)
}

/// The whole file, with the attributes of each node given apart.
pub(super) fn file_with(graph: &Graph, attrs: &[Attrs]) -> Result<Vec<u8>, String> {
    let mut writer = Writer::default();
    writer.model(graph, attrs)?;
    Ok(writer.finish())
}

#[derive(Default)]
struct Writer<'a> {
    head: FlatBufferBuilder<'a>,
    /// The constants by their place in the data section, in its order.
    data: Vec<(usize, &'a [u8])>,
    /// Where bytes that were already stored lie.
    stored: HashMap<&'a [u8], usize>,
    data_len: usize,
}

impl<'a> Writer<'a> {
    fn model(&mut self, graph: &'a Graph, attrs: &'a [Attrs]) -> Result<(), String> {
        let mut entries = Vec::new();
        for (key, value) in &graph.metadata {
            let args = fb::EntryArgs {
                key: Some(self.head.create_string(key)),
                value: Some(self.head.create_string(value)),
            };
            entries.push(fb::Entry::create(&mut self.head, &args));
        }
        let values: Vec<_> =
            graph.values.iter().map(|v| self.value(v)).collect::<Result<_, _>>()?;
        let nodes: Vec<_> = graph
            .nodes
            .iter()
            .zip(attrs)
            .map(|(node, attrs)| self.node(node, attrs))
            .collect::<Result<_, _>>()?;
        let args = fb::ModelArgs {
            version: VERSION,
            reader: Some(self.head.create_string(FIRST_READER)),
            opset: OPSET as u32,
            name: Some(self.head.create_string(&graph.name)),
            doc: Some(self.head.create_string(&graph.doc)),
            metadata: Some(self.head.create_vector(&entries)),
            values: Some(self.head.create_vector(&values)),
            nodes: Some(self.head.create_vector(&nodes)),
            inputs: Some(self.head.create_vector(&ids(&graph.inputs)?)),
            outputs: Some(self.head.create_vector(&ids(&graph.outputs)?)),
        };
        let model = fb::Model::create(&mut self.head, &args);
        self.head.finish(model, Some(MAGIC));
        Ok(())
    }

    fn value(&mut self, value: &'a Value) -> Result<WIPOffset<fb::Value<'a>>, String> {
        let data = value.data.as_ref().map(|t| self.span(t.bytes()));
        let quant = value.quant.as_ref();
        let axis = u32::try_from(quant.map_or(0, |q| q.axis));
        let args = fb::ValueArgs {
            name: Some(self.head.create_string(&value.name)),
            dtype: dtype(value.dtype),
            shape: Some(self.shape(&value.shape)),
            scale: quant.map(|q| self.head.create_vector(&q.scale)),
            zero_point: quant.map(|q| self.head.create_vector(&q.zero_point)),
            axis: axis.map_err(|_| format!("`{}`: the scales' axis is no axis", value.name))?,
            layout: match value.layout {
                Layout::Plain => fb::Layout::Plain,
                Layout::ChannelsLast => fb::Layout::ChannelsLast,
            },
            data: data.as_ref(),
        };
        Ok(fb::Value::create(&mut self.head, &args))
    }

    fn node(
        &mut self,
        node: &'a Node,
        attrs: &'a Attrs,
    ) -> Result<WIPOffset<fb::Node<'a>>, String> {
        let inputs: Vec<i32> =
            node.inputs.iter().map(|i| i.map_or(Ok(-1), id)).collect::<Result<_, _>>()?;
        let attrs: Vec<_> = attrs.map.iter().map(|(name, attr)| self.attr(name, attr)).collect();
        let args = fb::NodeArgs {
            name: Some(self.head.create_string(&node.name)),
            op: Some(self.head.create_string(node.op.name())),
            inputs: Some(self.head.create_vector(&inputs)),
            outputs: Some(self.head.create_vector(&ids(&node.outputs)?)),
            attrs: Some(self.head.create_vector(&attrs)),
            doc: Some(self.head.create_string(&node.doc)),
        };
        Ok(fb::Node::create(&mut self.head, &args))
    }

    fn attr(&mut self, name: &str, attr: &'a Attr) -> WIPOffset<fb::Attr<'a>> {
        let name = Some(self.head.create_string(name));
        let mut args = fb::AttrArgs { name, ..Default::default() };
        match attr {
            Attr::Int(v) => (args.kind, args.int) = (fb::AttrKind::Int, Some(*v)),
            Attr::Float(v) => (args.kind, args.float) = (fb::AttrKind::Float, Some(*v)),
            Attr::Str(v) => {
                (args.kind, args.str) = (fb::AttrKind::Str, Some(self.head.create_string(v)));
            }
            Attr::Ints(v) => {
                (args.kind, args.ints) = (fb::AttrKind::Ints, Some(self.head.create_vector(v)));
            }
            Attr::Floats(v) => {
                (args.kind, args.floats) = (fb::AttrKind::Floats, Some(self.head.create_vector(v)));
            }
            Attr::Tensor(v) => {
                (args.kind, args.tensor) = (fb::AttrKind::Tensor, Some(self.tensor(v)));
            }
        }
        fb::Attr::create(&mut self.head, &args)
    }

    fn tensor(&mut self, tensor: &'a Tensor) -> WIPOffset<fb::Tensor<'a>> {
        let data = self.span(tensor.bytes());
        let shape = self.shape(tensor.shape());
        let args =
            fb::TensorArgs { dtype: dtype(tensor.dtype()), shape: Some(shape), data: Some(&data) };
        fb::Tensor::create(&mut self.head, &args)
    }

    fn shape(&mut self, shape: &[usize]) -> WIPOffset<flatbuffers::Vector<'a, u64>> {
        let shape: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
        self.head.create_vector(&shape)
    }

    /// A place for bytes in the data section; equal bytes share one.
    fn span(&mut self, bytes: &'a [u8]) -> fb::Span {
        let offset = *self.stored.entry(bytes).or_insert_with(|| {
            let offset = self.data_len.next_multiple_of(ALIGN);
            self.data.push((offset, bytes));
            self.data_len = offset + bytes.len();
            offset
        });
        fb::Span::new(offset as u64, bytes.len() as u64)
    }

    fn finish(self) -> Vec<u8> {
        let head = self.head.finished_data();
        let start = head.len().next_multiple_of(ALIGN);
        let total = start + self.data_len + TRAILER;
        let mut file = Vec::with_capacity(total);
        file.extend_from_slice(head);
        for (offset, bytes) in self.data {
            file.resize(start + offset, 0);
            file.extend_from_slice(bytes);
        }
        file.resize(start + self.data_len, 0);
        file.extend_from_slice(&(head.len() as u64).to_le_bytes());
        file.extend_from_slice(&(total as u64).to_le_bytes());
        debug_assert_eq!(file.len(), total - UNCHECKED);
        file.extend_from_slice(&crc32fast::hash(&file).to_le_bytes());
        file.extend_from_slice(MAGIC.as_bytes());
        file
    }
}

fn id(id: ValueId) -> Result<i32, String> {
    i32::try_from(id).map_err(|_| format!("value {id} is beyond what the format counts"))
}

fn ids(of: &[ValueId]) -> Result<Vec<i32>, String> {
    of.iter().map(|&i| id(i)).collect()
}

fn dtype(dtype: DType) -> fb::DType {
    match dtype {
        DType::F32 => fb::DType::F32,
        DType::U8 => fb::DType::U8,
        DType::I8 => fb::DType::I8,
        DType::I32 => fb::DType::I32,
        DType::I64 => fb::DType::I64,
        DType::Bool => fb::DType::Bool,
    }
}
