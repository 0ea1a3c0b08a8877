//! From the bytes of a `.daq` file to a [`Graph`]. Nothing in the file is trusted: the checksum
//! finds damage, everything else here finds files made to mislead.

use std::collections::BTreeMap;
use std::ops::Range;

use flatbuffers::{Follow, Verifiable, VerifierOptions};

use super::generated as fb;
use super::{ALIGN, MAGIC, TRAILER, UNCHECKED, VERSION, is_daq};
use crate::attrs::{Attr, Attrs, OPSET};
use crate::graph::{Graph, Node, Value, ValueId};
use crate::layout::Layout;
use crate::ops::Op;
use crate::quant::QuantParams;
use crate::tensor::{DType, MAX_RANK, MAX_TENSOR_BYTES, MappedFile, Tensor, checked_bytes};

/// The longest head: a graph of a million nodes fits, and it bounds what is copied out of a file.
const MAX_HEAD: usize = 256 << 20;

/// How often over a head's bytes may be named: FlatBuffers lets tables be shared, so that a small
/// head could stand for a vast graph. daq shares vtables alone, which a factor of 16 covers.
const MAX_SHARING: usize = 16;

const MAX_TABLES: usize = 4 << 20;
const MAX_DEPTH: usize = 8;

type Found<T> = Result<T, String>;

/// The graph in a file; its constants are parts of `file`.
pub(super) fn graph(file: &MappedFile) -> Found<Graph> {
    let (head, data) = sections(file.bytes())?;
    let head = &file.bytes()[head];
    let header = verified::<fb::Header>(head)?;
    let (version, reader) = (header.version(), header.reader());
    if version > VERSION {
        let reader: String = reader.chars().take(32).collect();
        return Err(format!(
            "has format version {version}, and this daq ({}) reads up to {VERSION}; \
             use daq {reader:?} or newer",
            env!("CARGO_PKG_VERSION")
        ));
    }
    if version == 0 {
        return Err("has format version 0, which does not exist; write it again".into());
    }
    let model = verified::<fb::Model>(head)?;
    let reader = Reader { file, data, opset: model.opset() };
    reader.graph(model)
}

/// Checks the frame of a file and finds its head and its data section.
fn sections(bytes: &[u8]) -> Found<(Range<usize>, Range<usize>)> {
    if bytes.is_empty() {
        return Err("is empty; write or copy it again".into());
    }
    if !is_daq(bytes) {
        return Err("is not a .daq file; `daq quantize` makes one of an ONNX model".into());
    }
    let cut =
        || format!("is cut short or damaged ({} bytes, no end mark); copy it again", bytes.len());
    let damaged = |what: &str| format!("is damaged ({what}); copy it again");
    // The identifier takes 8 bytes already: a head and a trailer that overlap are refused below.
    let (before, trailer) = bytes.split_last_chunk::<TRAILER>().ok_or_else(cut)?;
    if !trailer.ends_with(MAGIC.as_bytes()) {
        return Err(cut());
    }
    let number = |at: usize| {
        let mut le = [0; 8];
        le.copy_from_slice(&trailer[at..at + 8]);
        u64::from_le_bytes(le)
    };
    let (head_len, total) = (number(0), number(8));
    let checksum = number(16) as u32;
    if total != bytes.len() as u64 {
        return Err(damaged(&format!("it has {} bytes and says {total}", bytes.len())));
    }
    if checksum != crc32fast::hash(&bytes[..bytes.len() - UNCHECKED]) {
        return Err(damaged("its checksum does not match"));
    }
    let head = usize::try_from(head_len).ok().filter(|&n| n <= before.len()).unwrap_or(usize::MAX);
    if head > MAX_HEAD {
        return Err(damaged(&format!("a head of {head_len} bytes")));
    }
    Ok((0..head, head.next_multiple_of(ALIGN)..before.len()))
}

/// The root of a head, all of it verified.
fn verified<'a, T: Follow<'a> + Verifiable + 'a>(
    head: &'a [u8],
) -> Found<<flatbuffers::ForwardsUOffset<T> as Follow<'a>>::Inner> {
    let options = VerifierOptions {
        max_depth: MAX_DEPTH,
        max_tables: MAX_TABLES,
        max_apparent_size: MAX_SHARING * head.len(),
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, head)
        .map_err(|e| format!("its head is malformed: {}; write it again", e.to_string().trim()))
}

/// The attributes of the node at `index`, as they stand in a file.
#[cfg(test)]
pub(super) fn attrs_of(file: &MappedFile, index: usize) -> Found<Attrs> {
    let (head, data) = sections(file.bytes())?;
    let model = verified::<fb::Model>(&file.bytes()[head])?;
    Reader { file, data, opset: model.opset() }.attrs(model.nodes().get(index))
}

struct Reader<'a> {
    file: &'a MappedFile,
    data: Range<usize>,
    opset: u32,
}

impl Reader<'_> {
    fn graph(&self, model: fb::Model) -> Found<Graph> {
        let opset = i64::from(self.opset);
        if !(1..=OPSET).contains(&opset) {
            return Err(format!("its operator set is {opset}; this daq knows 1 to {OPSET}"));
        }
        let mut metadata = BTreeMap::new();
        for entry in model.metadata() {
            if metadata.insert(entry.key().to_string(), entry.value().to_string()).is_some() {
                return Err(format!("metadata `{}` is given twice", entry.key()));
            }
        }
        let values: Vec<Value> = model
            .values()
            .iter()
            .map(|v| self.value(v).map_err(|why| format!("value `{}`: {why}", v.name())))
            .collect::<Found<_>>()?;
        let nodes = model.nodes().iter().enumerate().map(|(i, n)| {
            let (name, op) = (n.name(), n.op());
            self.node(n, values.len()).map_err(|why| format!("node {i} `{name}` ({op}): {why}"))
        });
        let graph = Graph {
            name: model.name().to_string(),
            doc: model.doc().to_string(),
            metadata,
            nodes: nodes.collect::<Found<_>>()?,
            inputs: ids(model.inputs().iter(), values.len())?,
            outputs: ids(model.outputs().iter(), values.len())?,
            values,
        };
        graph.validate().map_err(|e| e.to_string())?;
        Ok(graph)
    }

    fn value(&self, value: fb::Value) -> Found<Value> {
        let (dtype, shape) = (dtype(value.dtype())?, shape(value.shape().iter())?);
        let quant = match (value.scale(), value.zero_point()) {
            (None, None) => None,
            (Some(scale), Some(zero_point)) => Some(QuantParams {
                scale: scale.iter().collect(),
                zero_point: zero_point.iter().collect(),
                axis: value.axis() as usize,
            }),
            _ => return Err("has a scale or a zero point without the other".into()),
        };
        let data = value.data().map(|span| self.tensor(dtype, &shape, span)).transpose()?;
        let layout = match value.layout() {
            fb::Layout::Plain => Layout::Plain,
            fb::Layout::ChannelsLast => Layout::ChannelsLast,
            other => return Err(format!("has the unknown layout {}", other.0)),
        };
        Ok(Value { name: value.name().to_string(), dtype, shape, quant, data, layout })
    }

    fn node(&self, node: fb::Node, values: usize) -> Found<Node> {
        let attrs = self.attrs(node)?;
        let op = Op::from_attrs(node.op(), &attrs)
            .ok_or("this daq does not have the operator; use the daq that wrote the file")?
            .map_err(|e| e.to_string())?;
        let input = |i: i32| if i == -1 { Ok(None) } else { id(i, values).map(Some) };
        Ok(Node {
            name: node.name().to_string(),
            op,
            inputs: node.inputs().iter().map(input).collect::<Found<_>>()?,
            outputs: ids(node.outputs().iter(), values)?,
            doc: node.doc().to_string(),
        })
    }

    fn attrs(&self, node: fb::Node) -> Found<Attrs> {
        let mut attrs = Attrs::of_opset(self.opset.into());
        for attr in node.attrs() {
            let name = attr.name();
            let value = self.attr(attr).map_err(|why| format!("attribute `{name}`: {why}"))?;
            if attrs.map.insert(name.to_string(), value).is_some() {
                return Err(format!("attribute `{name}` is given twice"));
            }
        }
        Ok(attrs)
    }

    fn attr(&self, attr: fb::Attr) -> Found<Attr> {
        let missing = "has no value of its kind";
        Ok(match attr.kind() {
            fb::AttrKind::Int => Attr::Int(attr.int().ok_or(missing)?),
            fb::AttrKind::Float => Attr::Float(attr.float().ok_or(missing)?),
            fb::AttrKind::Str => Attr::Str(attr.str().ok_or(missing)?.to_string()),
            fb::AttrKind::Ints => Attr::Ints(attr.ints().ok_or(missing)?.iter().collect()),
            fb::AttrKind::Floats => Attr::Floats(attr.floats().ok_or(missing)?.iter().collect()),
            fb::AttrKind::Tensor => {
                let t = attr.tensor().ok_or(missing)?;
                let shape = shape(t.shape().iter())?;
                Attr::Tensor(self.tensor(dtype(t.dtype())?, &shape, t.data())?)
            }
            other => return Err(format!("has the unknown kind {}", other.0)),
        })
    }

    /// The part of the file at `span`.
    fn tensor(&self, dtype: DType, shape: &[usize], span: &fb::Span) -> Found<Tensor> {
        let place = || format!("bytes {} + {} of the data", span.offset(), span.length());
        let offset = usize::try_from(span.offset()).ok();
        let start = offset.and_then(|o| self.data.start.checked_add(o));
        let length = usize::try_from(span.length()).ok();
        let end = start.zip(length).and_then(|(s, n)| s.checked_add(n));
        let range = start.zip(end).filter(|&(_, end)| end <= self.data.end);
        let (start, end) =
            range.ok_or_else(|| format!("{} lie outside of the file's data", place()))?;
        let tensor = self
            .file
            .tensor(dtype, shape, start..end)
            .ok_or_else(|| format!("{} are not {ALIGN}-byte aligned {dtype} {shape:?}", place()))?;
        match dtype == DType::Bool && tensor.bytes().iter().any(|&b| b > 1) {
            true => Err("has a bool that is neither 0 nor 1".into()),
            false => Ok(tensor),
        }
    }
}

/// A shape whose every partial product is within the limits, axes of length 0 left aside.
fn shape(dims: impl ExactSizeIterator<Item = u64>) -> Found<Vec<usize>> {
    if dims.len() > MAX_RANK {
        return Err(format!("has {} axes; at most {MAX_RANK} are allowed", dims.len()));
    }
    let limit = |d: u64| usize::try_from(d).ok().filter(|_| d <= MAX_TENSOR_BYTES);
    let shape: Vec<usize> = dims
        .map(|d| limit(d).ok_or_else(|| format!("has an axis of length {d}")))
        .collect::<Found<_>>()?;
    let ones: Vec<usize> = shape.iter().map(|&d| d.max(1)).collect();
    checked_bytes("a tensor", DType::U8, &ones).map_err(|e| e.to_string())?;
    Ok(shape)
}

fn id(id: i32, values: usize) -> Found<ValueId> {
    usize::try_from(id)
        .ok()
        .filter(|&i| i < values)
        .ok_or_else(|| format!("value {id} is named, but there are only {values}"))
}

fn ids(of: impl Iterator<Item = i32>, values: usize) -> Found<Vec<ValueId>> {
    of.map(|i| id(i, values)).collect()
}

fn dtype(dtype: fb::DType) -> Found<DType> {
    Ok(match dtype {
        fb::DType::F32 => DType::F32,
        fb::DType::U8 => DType::U8,
        fb::DType::I8 => DType::I8,
        fb::DType::I32 => DType::I32,
        fb::DType::I64 => DType::I64,
        fb::DType::Bool => DType::Bool,
        other => return Err(format!("has the unknown element type {}", other.0)),
    })
}
