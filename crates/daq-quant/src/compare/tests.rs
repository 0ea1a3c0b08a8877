use daq::ops::{Attrs, Op};
use daq::{Node, Value};

use super::*;
use crate::quantize::{QuantizeOptions, Ranges, quantize};
use crate::range::Range;

struct Rows(Vec<Result<[f32; 4], String>>);

impl Samples for Rows {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn name(&self, index: usize) -> String {
        format!("row {index}")
    }

    fn load(&self, index: usize) -> Result<Vec<(String, Tensor)>, String> {
        let row = self.0[index].clone()?;
        Ok(vec![("x".into(), Tensor::from_slice(&[1, 1, 1, 4], &row))])
    }
}

/// y = 2 x, z = y, both as convolutions of one weight.
fn float() -> Graph {
    let mut g = Graph::default();
    let shape = [1, 1, 1, 4];
    let x = g.add_value(Value::new("x", DType::F32, &shape));
    g.inputs = vec![x];
    let mut from = x;
    for (name, factor) in [("y", 2f32), ("z", 1.0)] {
        let w = Tensor::from_slice(&[1, 1, 1, 1], &[factor]);
        let w = g.add_value(Value::constant(format!("w_{name}"), w));
        let to = g.add_value(Value::new(name, DType::F32, &shape));
        let op = Op::from_attrs("Conv", &Attrs::new()).unwrap().unwrap();
        let inputs = vec![Some(from), Some(w)];
        let name = format!("make_{name}");
        g.nodes.push(Node { name, op, inputs, outputs: vec![to], doc: String::new() });
        from = to;
    }
    g.outputs = vec![from];
    g
}

/// All codes at a scale of 1: 0 to 255.
fn quantized() -> Graph {
    let range = Range { min: 0.0, max: 255.0 };
    let ranges: Ranges = ["x", "y", "z"].map(|n| (n.to_string(), range)).into();
    quantize(&float(), &ranges, &QuantizeOptions::default()).unwrap().graph
}

fn run(rows: Vec<Result<[f32; 4], String>>, workers: usize) -> Result<Comparison, CompareError> {
    let options = CompareOptions { classes: None, class_offset: 0, workers };
    compare(&float(), &quantized(), &Rows(rows), &options, &|| {})
}

fn db(signal: f64, noise: f64) -> f64 {
    10.0 * (signal / noise).log10()
}

#[test]
fn local_and_accumulated_errors_are_as_worked_out_by_hand() {
    let c = run(vec![Ok([0.4, 10.0, 20.2, 200.0]), Err("broken".into())], 2).unwrap();
    assert_eq!((c.n, c.skipped.as_slice()), (1, &[("row 1".into(), "broken".into())][..]));
    let [y, z] = c.operators.as_slice() else { panic!("{:?}", c.operators) };
    assert_eq!((y.node.as_str(), y.tensor.as_str(), y.op, y.macs), ("make_y", "y", "Conv", 4));
    // Float: 0.8, 20, 40.4, 400. In codes: x 0, 10, 20, 200, so y 0, 20, 40, and 255 for 400.
    let signal = 0.64 + 400.0 + 1632.16 + 160_000.0;
    let local = y.local.unwrap();
    assert!((local.sqnr_db - db(signal, 0.64 + 0.16 + 21_025.0)).abs() < 1e-5, "{local:?}");
    assert_eq!((local.max, y.accumulated), (145.0, local));
    // z alone is fed with 1, 20, 40, 255; in the network with 0, 20, 40, 255.
    let local = z.local.unwrap();
    assert!((local.sqnr_db - db(signal, 0.04 + 0.16 + 21_025.0)).abs() < 1e-5, "{local:?}");
    assert!((z.accumulated.sqnr_db - db(signal, 0.64 + 0.16 + 21_025.0)).abs() < 1e-5);
    let product = 0.8 + 400.0 + 1616.0 + 102_000.0;
    let codes = 1.0 + 400.0 + 1600.0 + 65_025.0;
    assert!((local.cosine - product / (signal * codes).sqrt()).abs() < 1e-6, "{local:?}");
    assert!((c.sqnr_db - z.accumulated.sqnr_db).abs() < 1e-9);
    // One of four values is beyond 255; the rest leaves nothing unused below the clipped one.
    let output = z.output.as_ref().unwrap();
    assert_eq!((output.low, output.high, output.clipped, output.max), (0.0, 255.0, 0.25, 400.0));
    assert!(output.unused < 0.01, "{output:?}");
    let weights = z.weights.as_ref().unwrap();
    assert_eq!((weights.scales, weights.histogram.counts.iter().sum::<u64>()), (1, 1));
    assert!(weights.difference.unwrap().sqnr_db > 100.0);
    assert_eq!((c.first().map(|o| o.node.as_str()), c.worst()), (Some("make_y"), vec![0, 1]));
    assert_eq!((c.agreement, c.examples.len()), (None, 0), "4 x 1 numbers are no row of scores");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let rows = |i: i32| Ok([0, 1, 2, 3].map(|k| ((i * 37 + k * 11) % 97) as f32 * 1.3));
    let one = run((0..50).map(rows).collect(), 1).unwrap();
    assert_eq!(run((0..50).map(rows).collect(), 3).unwrap(), one);
    assert_eq!(one.n, 50);
}

#[test]
fn models_that_do_not_fit_are_errors() {
    let options = CompareOptions { classes: None, class_offset: 0, workers: 1 };
    let rows = Rows(vec![Ok([0.0; 4])]);
    let message = |float: &Graph, quantized: &Graph| {
        compare(float, quantized, &rows, &options, &|| {}).unwrap_err().to_string()
    };
    assert!(message(&float(), &float()).contains("no 8-bit operator"));
    assert!(message(&quantized(), &quantized()).contains("give the float model first"));
    let mut wide = float();
    wide.values.iter_mut().filter(|v| v.data.is_none()).for_each(|v| v.shape[3] = 5);
    assert!(message(&wide, &quantized()).contains("inputs differ"));
    assert!(run(vec![Err("broken".into())], 1).unwrap_err().to_string().contains("row 0: broken"));
}

#[test]
fn scores_become_probabilities() {
    let row = |v: &[f32]| probabilities(&Tensor::from_slice(&[1, v.len()], v));
    assert_eq!(row(&[0.25, 0.75]), Some(vec![0.25, 0.75]));
    assert_eq!(row(&[3.0, 3.0]), Some(vec![0.5, 0.5]));
    let p = row(&[1000.0, 1000.0 + 3f32.ln()]).unwrap();
    assert!((p[1] - 0.75).abs() < 1e-3, "{p:?}");
    assert_eq!(row(&[1.0]), None);
    assert_eq!(probabilities(&Tensor::from_slice(&[2, 2], &[0f32; 4])), None);
}
