//! Round trips, and files that are damaged or made to mislead.

use super::*;
use crate::attrs::{Attr, Attrs};
use crate::graph::{Node, Value};
use crate::layout::Layout;
use crate::ops::Op;
use crate::quant::QuantParams;
use crate::tensor::{DType, Tensor};

fn op(name: &str, attrs: Attrs) -> Op {
    Op::from_attrs(name, &attrs).expect("a known operator").expect("valid attributes")
}

fn node(name: &str, op: Op, inputs: &[Option<usize>], outputs: &[usize]) -> Node {
    let doc = format!("what {name} does");
    Node { name: name.into(), op, inputs: inputs.to_vec(), outputs: outputs.to_vec(), doc }
}

/// A quantized convolution without bias and a Relu, a constant of every type beside them.
fn sample() -> Graph {
    let mut g =
        Graph { name: "sample".into(), doc: "of tests \u{1f980}".into(), ..Graph::default() };
    g.metadata.insert(PREPROCESS_KEY.into(), r#"{"size": [224, 224]}"#.into());
    g.metadata.insert(LABELS_KEY.into(), "cat\ndog".into());
    let mut x =
        Value::new("x", DType::U8, &[1, 2, 5, 4]).with_quant(QuantParams::per_tensor(0.1, 128));
    x.layout = Layout::ChannelsLast;
    let x = g.add_value(x);
    let codes: Vec<i8> = (-54..54).collect();
    let scales = QuantParams::per_channel((1..=6).map(|i| 1.0 / i as f32).collect(), 0);
    let w = Value::constant("w", Tensor::from_slice(&[6, 2, 3, 3], &codes)).with_quant(scales);
    let w = g.add_value(w);
    let y = g.add_value(
        Value::new("y", DType::U8, &[1, 6, 3, 2]).with_quant(QuantParams::per_tensor(3.5e-5, 7)),
    );
    let z = g.add_value(
        Value::new("z", DType::U8, &[1, 6, 3, 2]).with_quant(QuantParams::per_tensor(2.5e-5, 0)),
    );
    for (name, data) in [
        ("f32", Tensor::from_slice(&[2, 2], &[f32::MIN_POSITIVE, -0.0, f32::NAN, f32::INFINITY])),
        ("u8", Tensor::from_slice(&[3], &[0u8, 1, 255])),
        ("i8", Tensor::from_slice(&[2], &[-128i8, 127])),
        ("i32", Tensor::scalar(i32::MIN)),
        ("i64", Tensor::from_slice(&[1, 1], &[i64::MIN])),
        ("bool", Tensor::from_bytes(DType::Bool, &[2], &[0, 1])),
        ("none", Tensor::from_slice::<f32>(&[0], &[])),
        ("u8 again", Tensor::from_slice(&[3, 1], &[0u8, 1, 255])),
    ] {
        g.add_value(Value::constant(name, data));
    }
    g.nodes.push(node("conv", op("Conv", Attrs::new()), &[Some(x), Some(w), None], &[y]));
    g.nodes.push(node("", op("Relu", Attrs::new()), &[Some(y)], &[z]));
    (g.inputs, g.outputs) = (vec![x], vec![z]);
    g
}

/// Float operators with attributes of every kind that operators have.
fn operators() -> Graph {
    let mut g = Graph::default();
    g.inputs = vec![g.add_value(Value::new("x", DType::F32, &[1, 2, 6, 4]))];
    let ints = |name: &str, v: &[i64]| Attrs::new().with(name, Attr::Ints(v.to_vec()));
    let pads = ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1]).with("mode", Attr::Str("reflect".into()));
    let starts = ints("starts", &[-3]).with("ends", Attr::Ints(vec![i64::MAX]));
    let fill = Attr::Tensor(Tensor::from_slice(&[1], &[0.5f32]));
    let clip = Attrs::new().with("min", Attr::Float(-0.0)).with("max", Attr::Float(6.0));
    let axis = Attrs::new().with("axis", Attr::Int(-1));
    for (name, attrs, inputs) in [
        ("Pad", pads, &[0][..]),
        ("Clip", clip, &[1]),
        ("Concat", axis, &[2, 2]),
        ("Slice", starts.with("axes", Attr::Ints(vec![2])), &[3]),
        ("Reshape", ints("shape", &[0, -1]), &[4]),
        ("Unsqueeze", ints("axes", &[1]), &[5]),
        ("Transpose", ints("perm", &[2, 0, 1]), &[6]),
        ("ConstantOfShape", ints("shape", &[1]).with("value", fill), &[]),
        ("Add", Attrs::new(), &[7, 8]),
    ] {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let mut node = node("", op(name, attrs), &inputs, &[g.values.len()]);
        node.doc.clear();
        let spec = node.op.infer(&g.input_specs(&node)).unwrap().remove(0);
        g.add_value(Value::new(name, spec.dtype, &spec.shape));
        g.nodes.push(node);
    }
    g.outputs = vec![g.values.len() - 1];
    g
}

fn tensors(graph: &Graph) -> impl Iterator<Item = &Tensor> {
    graph.values.iter().filter_map(|v| v.data.as_ref())
}

fn why(bytes: &[u8]) -> String {
    match from_bytes(bytes) {
        Err(Error::File { why, .. }) => why,
        Err(other) => panic!("another kind of error: {other}"),
        Ok(_) => panic!("read without an error"),
    }
}

/// Makes the checksum right again after a change.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let covered = bytes.len() - UNCHECKED;
    let checksum = crc32fast::hash(&bytes[..covered]).to_le_bytes();
    bytes[covered..covered + 4].copy_from_slice(&checksum);
    bytes
}

/// Replaces the only place where `from` stands.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i..].starts_with(from)).collect();
    assert_eq!(places.len(), 1, "{from:?} is not at one place");
    let mut bytes = bytes.to_vec();
    bytes[places[0]..][..to.len()].copy_from_slice(to);
    sealed(bytes)
}

#[test]
fn graphs_come_back_equal_and_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.daq");
    for graph in [Graph::default(), sample(), operators()] {
        let bytes = to_bytes(&graph).unwrap();
        assert_eq!(bytes, to_bytes(&graph.clone()).unwrap(), "bytes are not deterministic");
        assert!(is_daq(&bytes) && !is_daq(b"\x08\x07ONNX model"));
        // Over an older file, too.
        write(&graph, &path).unwrap();
        write(&graph, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        for back in [from_bytes(&bytes).unwrap(), read(&path).unwrap()] {
            assert_eq!(back, graph);
            assert!(tensors(&back).all(|t| (t.bytes().as_ptr() as usize).is_multiple_of(64)));
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
}

/// A file within a file opens where it lies and, where tensors would not be aligned, as a copy.
#[test]
fn a_part_of_a_file_is_read() {
    let bytes = to_bytes(&sample()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for offset in [0usize, 4, 64, 4096, 5000] {
        let path = dir.path().join("package");
        std::fs::write(&path, [&vec![7; offset][..], &bytes, b"the end"].concat()).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let (start, len) = (offset as u64, bytes.len() as u64);
        let graph = read_part(&file, start, len).unwrap();
        assert_eq!(to_bytes(&graph).unwrap(), bytes, "at {offset}");
        assert!(tensors(&graph).all(|t| t.bytes().as_ptr().addr().is_multiple_of(64)));

        let error = |offset, len| read_part(&file, offset, len).unwrap_err().to_string();
        assert!(error(start, len + 100).contains("the file ends at"));
        assert!(error(u64::MAX, 2).contains("the file ends at"));
        assert!(error(start, len - 1).contains("copy it again"));
        assert!(error(start + 1, len).contains("is not a .daq file"));
        assert!(error(start, 0).contains("is empty"));
    }
}

#[test]
fn equal_constants_are_stored_once() {
    let mut graph = Graph::default();
    let one = Tensor::from_slice(&[4096], &[1.5f32; 4096]);
    graph.add_value(Value::constant("a", one.clone()));
    let single = to_bytes(&graph).unwrap().len();
    graph.add_value(Value::constant("b", one));
    let double = to_bytes(&graph).unwrap().len();
    assert!(double < single + 256, "{single} bytes, then {double}");
}

#[test]
fn attributes_of_every_kind_come_back() {
    let tensor = Tensor::from_slice(&[2, 1], &[1i64, -1]);
    let attrs = Attrs::new()
        .with("int", Attr::Int(i64::MIN))
        .with("zero", Attr::Int(0))
        .with("float", Attr::Float(f32::MAX))
        .with("negative zero", Attr::Float(-0.0))
        .with("str", Attr::Str("\u{e9}".into()))
        .with("no str", Attr::Str(String::new()))
        .with("ints", Attr::Ints(vec![i64::MAX, 0, -1]))
        .with("no ints", Attr::Ints(vec![]))
        .with("floats", Attr::Floats(vec![0.1, -0.0, f32::NEG_INFINITY]))
        .with("tensor", Attr::Tensor(tensor))
        .with("no tensor", Attr::Tensor(Tensor::from_slice::<f32>(&[0, 3], &[])));
    let graph = sample();
    let bytes = write::file_with(&graph, &[attrs.clone(), Attrs::new()]).unwrap();
    let back = read::attrs_of(&MappedFile::from_bytes(&bytes), 0).unwrap();
    assert_eq!(back, attrs);
    let Some(Attr::Float(zero)) = back.map.get("negative zero") else { panic!("no float") };
    assert!(zero.is_sign_negative());
}

#[test]
fn every_flipped_byte_and_every_cut_is_found() {
    let bytes = to_bytes(&sample()).unwrap();
    for i in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut broken = bytes.clone();
            broken[i] ^= flip;
            why(&broken);
        }
        why(&bytes[..i]);
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let bytes = to_bytes(&sample()).unwrap();
    let end = bytes.len();
    let with = |at: usize, to: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        sealed(bytes)
    };
    let head_len = |n: u64| with(end - TRAILER, &n.to_le_bytes());
    let mut longer = bytes.clone();
    longer.extend_from_slice(&bytes[end - TRAILER..]);
    let mut damaged = bytes.clone();
    damaged[end - 40] ^= 1;
    let cases = [
        (vec![], "is empty"),
        (b"\x89PNG\r\n\x1a\n picture".to_vec(), "is not a .daq file"),
        (b"1234DAQ1".to_vec(), "is cut short"),
        (bytes[..end - 1].to_vec(), "is cut short"),
        (longer, "bytes and says"),
        (damaged, "checksum does not match"),
        (head_len(u64::MAX), "a head of 18446744073709551615 bytes"),
        (head_len(0), "head is malformed"),
        (head_len(100), "head is malformed"),
        (with(0, &u32::MAX.to_le_bytes()), "head is malformed"),
        (patched(&bytes, b"conv\0", b"c\xffnv\0"), "head is malformed"),
        (patched(&bytes, b"Conv\0", b"Conw\0"), "node 0 `conv` (Conw): this daq does not have"),
        (patched(&bytes, b"bool\0", b"none\0"), "two values are named `none`"),
        // The shape of `w`, after the length of the vector.
        (
            patched(&bytes, &words(&[6, 0, 2, 0, 3, 0, 3, 0]), &words(&[7])),
            "value `w`: bytes 0 + 108 of the data are not 64-byte aligned i8 [7, 2, 3, 3]",
        ),
        (
            patched(&bytes, &words(&[6, 0, 2, 0, 3, 0, 3, 0]), &words(&[6, 1])),
            "value `w`: has an axis of length 4294967302",
        ),
        // The place of `w` in the data.
        (
            patched(&bytes, &words(&[0, 0, 108, 0]), &words(&[1 << 30])),
            "value `w`: bytes 1073741824 + 108 of the data lie outside of the file's data",
        ),
        (patched(&bytes, &words(&[0, 0, 108, 0]), &[0xff; 16]), "lie outside of the file's data"),
        (patched(&bytes, &words(&[0, 0, 108, 0]), &words(&[32])), "64-byte aligned"),
        // The inputs of `conv`: 0, 1 and none.
        (patched(&bytes, &words(&[3, 0, 1, !0]), &words(&[3, 0, 99])), "value 99 is named"),
        (patched(&bytes, &words(&[3, 0, 1, !0]), &words(&[3, !1])), "value -2 is named"),
        (patched(&bytes, &words(&[3, 0, 1, !0]), &words(&[3, 0, 3])), "before anything computes"),
        (patched(&bytes, &3.5e-5f32.to_le_bytes(), &[0; 4]), "scale 0 is not positive"),
    ];
    for (bytes, expected) in cases {
        let why = why(&bytes);
        assert!(why.contains(expected), "{why:?} does not say {expected:?}");
    }
}

#[test]
fn a_newer_version_names_the_daq_that_reads_it() {
    // Of a later version only the first two fields of the head are known.
    for (version, reader, expected) in [
        (VERSION + 1, "0.9.0", "reads up to 1; use daq \"0.9.0\" or newer"),
        (u32::MAX, "\n\u{7}", "use daq \"\\n\\u{7}\" or newer"),
        (0, "0.1.0", "format version 0"),
        (VERSION, "0.1.0", "head is malformed"),
    ] {
        let mut head = flatbuffers::FlatBufferBuilder::new();
        let reader = Some(head.create_string(reader));
        let root = generated::Header::create(&mut head, &generated::HeaderArgs { version, reader });
        head.finish(root, Some(MAGIC));
        let mut bytes = head.finished_data().to_vec();
        let head_len = bytes.len();
        bytes.resize(head_len.next_multiple_of(ALIGN), 0);
        bytes.extend_from_slice(&(head_len as u64).to_le_bytes());
        bytes.extend_from_slice(&((bytes.len() + 16) as u64).to_le_bytes());
        bytes.extend_from_slice(b"crc.DAQ1");
        let why = why(&sealed(bytes));
        assert!(why.contains(expected), "{why:?} does not say {expected:?}");
    }
}

fn words(of: &[u32]) -> Vec<u8> {
    of.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn paths_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere/model.daq");
    for result in
        [read(&missing).map(drop), read(folder.path()).map(drop), write(&sample(), &missing)]
    {
        let Err(Error::File { path, .. }) = result else { panic!("{result:?}") };
        assert!(path.starts_with(&*folder.path().to_string_lossy()));
    }
    // A folder cannot be replaced by a file, and the file written beside it must go.
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("kept"), "").unwrap();
    assert!(matches!(write(&sample(), &taken), Err(Error::File { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
    let empty = folder.path().join("empty.daq");
    fs::write(&empty, "").unwrap();
    assert!(read(&empty).unwrap_err().to_string().contains("is empty"));
}

/// Numbers that forged files like to hold.
const TEMPTING: [u32; 10] =
    [0, 1, 2, 64, 0x7f, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 4000, ..Default::default() })]

    /// With the checksum made right, only the other checks stand between a change and a panic.
    #[test]
    fn mutations_never_panic(
        which in 0..2usize,
        bytes in proptest::collection::vec((0.0..1.0f64, proptest::num::u8::ANY), 0..4),
        words in proptest::collection::vec((0.0..1.0f64, 0..TEMPTING.len()), 0..4),
        cut in proptest::option::weighted(0.1, 0.0..1.0f64),
    ) {
        let mut file = to_bytes(&[sample, operators][which]()).unwrap();
        let at = |part: f64, len: usize| (part * len as f64) as usize;
        let changed = file.len() - UNCHECKED;
        for (part, byte) in bytes {
            file[at(part, changed)] = byte;
        }
        for (part, word) in words {
            let place = at(part, changed) / 4 * 4;
            file[place..][..4].copy_from_slice(&TEMPTING[word].to_le_bytes());
        }
        if let Some(part) = cut {
            let start = file.len() - TRAILER;
            let from = at(part, start);
            file.drain(from..start);
            let total = file.len() as u64;
            file[from + 8..from + 16].copy_from_slice(&total.to_le_bytes());
        }
        if let Ok(graph) = from_bytes(&sealed(file)) {
            graph.validate().unwrap();
            let _ = crate::robustness::compile_and_run(&graph, 1.0);
        }
    }
}
