//! Attributes and inputs of operators beside those that onnxruntime takes: `tests/data/make_attributes.py`
//! writes the table and says what it holds.

use std::collections::BTreeMap;
use std::path::Path;

use daq::attrs::{Attr, Attrs};
use daq::{DType, Op, OpError, Spec};

/// What the reader changes before an operator sees it.
const REWRITTEN: &[&str] = &["noop_with_empty_axes"];

/// The attributes of a line, but those without a value.
fn attributes(opset: i64, words: &[&str]) -> Attrs {
    let mut attrs = Attrs::of_opset(opset);
    for word in words {
        let (name, value) = word.split_once('=').expect("NAME=KIND:VALUE");
        let Some((kind, value)) = value.split_once(':') else { continue };
        let int = |v: &str| v.parse().expect("an integer");
        let float = |v: &str| v.parse().expect("a float");
        let value = match kind {
            "i" => Attr::Int(int(value)),
            "f" => Attr::Float(float(value)),
            "I" => Attr::Ints(value.split(',').map(int).collect()),
            "F" => Attr::Floats(value.split(',').map(float).collect()),
            // RNN's default is one for each of two directions.
            _ => Attr::Str(value.split(',').next().unwrap_or_default().to_string()),
        };
        if !REWRITTEN.contains(&name) {
            attrs = attrs.with(name, value);
        }
    }
    attrs
}

/// With constant inputs as the reader makes them attributes.
fn with_inputs(op: &str, mut attrs: Attrs) -> Attrs {
    for input in Op::attr_inputs(op) {
        let value = match input.name {
            "k" | "axis" | "depth" => Attr::Int(1),
            "ratio" | "min" | "max" | "value" => Attr::Float(0.5),
            "training_mode" => Attr::Int(0),
            "scales" | "roi" => Attr::Floats(vec![1.0]),
            "size" => Attr::Ints(vec![1, 1, 4, 4]),
            _ => Attr::Ints(vec![1]),
        };
        attrs.map.entry(input.name.to_string()).or_insert(value);
        attrs.inputs.insert(input.name);
    }
    attrs
}

#[test]
fn operators_take_the_attributes_and_inputs_that_onnxruntime_takes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/attributes.txt");
    let text = std::fs::read_to_string(path).expect("the table");
    let (mut most, mut read) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (opset, op, inputs) = (words[0].parse().expect("a number"), words[1], words[2]);
        if !Op::NAMES.contains(&op) {
            continue;
        }
        let inputs = inputs.parse().unwrap_or(usize::MAX);
        most.entry(op).and_modify(|most: &mut usize| *most = inputs.max(*most)).or_insert(inputs);
        let attrs = with_inputs(op, attributes(opset, &words[3..]));
        match Op::from_attrs(op, &attrs).expect("a known operator") {
            Ok(op) => _ = read.insert(op.name(), op),
            // QuantizeLinear's and DequantizeLinear's are the reader's, and it turns older Softmaxes.
            Err(why) => assert!(
                op.ends_with("quantizeLinear")
                    || op == "QuantizeLinear"
                    || (op.ends_with("oftmax") || op == "Hardmax") && opset < 13,
                "{line}: {why}"
            ),
        }
        let more = attrs.with("unknown", Attr::Int(1));
        let why = Op::from_attrs(op, &more).expect("a known operator").unwrap_err();
        let refused =
            matches!(&why, OpError::Attribute { why, .. } if why.contains("none of this"));
        assert!(
            refused || opset < 13 && (op.ends_with("oftmax") || op == "Hardmax"),
            "{line}: {why}"
        );
    }
    assert!(read.len() > 120, "{} operators were read", read.len());
    for (name, op) in read {
        let infer =
            |count: usize| op.infer(&vec![Some(Spec::new(DType::F32, &[1, 1, 4, 4])); count]);
        let too_many = |count| match infer(count) {
            Err(OpError::TooManyInputs { .. }) => true,
            Err(OpError::Shape { why, .. }) => why == "takes two inputs",
            _ => false,
        };
        let (most, many) = (most[name].min(50), most[name] == usize::MAX);
        assert!(!too_many(most), "{name} with {most} inputs");
        assert!(many || too_many(most + 1), "{name} with {} inputs", most + 1);
    }
}
