//! Tables of a graph, and what they change in one.

use daq::Value;

use super::*;

/// `z = Flatten(Conv(x, w, b))` in 8 bits, then in float `r = Relu(dequantized z)`.
fn graph() -> Graph {
    let mut g = Graph::default();
    let shape = [1, 2, 1, 3];
    let tensor = |scale, zero_point| Some(QuantParams::per_tensor(scale, zero_point));
    let constant = |name: &str, data: Tensor, scale: [f32; 2]| {
        let quant = Some(QuantParams::per_channel(scale.to_vec(), 0));
        Value { quant, ..Value::constant(name, data) }
    };
    let value = |name: &str, dtype, shape: &[usize], quant| {
        let value = Value::new(name, dtype, shape);
        Value { quant, ..value }
    };
    for value in [
        value("x", DType::U8, &[1, 1, 1, 3], tensor(0.5, 10)),
        constant("w", Tensor::from_slice(&[2, 1, 1, 1], &[127i8, -127]), [0.25, 0.125]),
        constant("b", Tensor::from_slice(&[2], &[100i32, -40]), [0.125, 0.0625]),
        value("y", DType::U8, &shape, tensor(1.0, 0)),
        value("z", DType::U8, &[1, 6], tensor(1.0, 0)),
        value("f", DType::F32, &[1, 6], None),
        value("r", DType::F32, &[1, 6], None),
    ] {
        g.add_value(value);
    }
    let nodes: [(&str, &[usize], usize); 4] = [
        ("Conv", &[0, 1, 2], 3),
        ("Flatten", &[3], 4),
        ("DequantizeLinear", &[4], 5),
        ("Relu", &[5], 6),
    ];
    for (op, inputs, output) in nodes {
        let inputs = inputs.iter().map(|&i| Some(i)).collect();
        let name = format!("the_{op}");
        let op = Op::from_attrs(op, &daq::ops::Attrs::new()).unwrap().unwrap();
        g.nodes.push(daq::Node { name, op, inputs, outputs: vec![output], doc: String::new() });
    }
    (g.inputs, g.outputs) = (vec![0], vec![6]);
    g.validate().unwrap();
    g
}

const OF_GRAPH: &str = "x 1 0.5 1 10 quant8_asymm\n\
    w 2 0.25 0.125 1 0 quant8_symm_per_channel\n\
    b -2 x w 0 int32\n\
    y 1 1.0 1 0 quant8_asymm\n\
    z 1 1.0 1 0 quant8_asymm\n\
    dequantize after: z\n";

#[test]
fn the_table_of_a_graph_changes_nothing_in_it() {
    let table = Table::of(&graph()).unwrap();
    assert_eq!(table.to_text(), OF_GRAPH);
    let mut same = graph();
    assert_eq!(Table::from_text(OF_GRAPH).unwrap().apply(&mut same), Ok(0));
    assert_eq!(format!("{same:?}"), format!("{:?}", graph()));
}

#[test]
fn biases_and_moved_values_follow_what_the_table_changes() {
    type Scales<'a> = (&'a [f32], &'a [i32], f32);
    // The line, then the bias's scales and codes, and the scale of z.
    let cases: [(&str, Scales); 4] = [
        // b[1] is -40 * 0.0625 = -2.5, which is -20 * 0.125.
        ("w 2 0.25 0.25 1 0 quant8_symm_per_channel", (&[0.125, 0.125], &[100, -20], 1.0)),
        ("x 1 1 1 10 quant8_asymm", (&[0.25, 0.125], &[50, -20], 1.0)),
        // 12.5 / 0.375 = 33.3 and -2.5 / 0.1875 = -13.3
        ("x 1 1.5 1 10 quant8_asymm", (&[0.375, 0.1875], &[33, -13], 1.0)),
        ("y 1 2 1 7 quant8_asymm", (&[0.125, 0.0625], &[100, -40], 2.0)),
    ];
    for (line, (scale, codes, of_z)) in cases {
        let mut g = graph();
        assert_eq!(Table::from_text(line).unwrap().apply(&mut g), Ok(1), "{line}");
        let [b, y, z] = ["b", "y", "z"].map(|name| g.find_value(name).unwrap());
        assert_eq!(g.values[b].quant.as_ref().unwrap().scale, scale, "{line}");
        assert_eq!(g.values[b].data.as_ref().unwrap().data::<i32>(), codes, "{line}");
        assert_eq!(g.values[z].quant.as_ref().unwrap().scale, [of_z], "{line}");
        assert_eq!(g.values[z].quant, g.values[y].quant, "{line}");
    }
}

#[test]
fn float_outputs_take_a_scale_for_their_callers() {
    let mut g = graph();
    let table = Table::from_text("r 1 0.25 1 3 quant8_asymm").unwrap();
    assert_eq!(table.apply(&mut g), Ok(1));
    let r = &g.values[g.find_value("r").unwrap()];
    assert_eq!((r.dtype, r.quant.clone()), (DType::F32, Some(QuantParams::per_tensor(0.25, 3))));
    // And it stays in the table of what is then written.
    let text = Table::of(&g).unwrap().to_text();
    assert!(text.contains("\nr 1 0.25 1 3 quant8_asymm\n"), "{text}");
    assert_eq!(Table::from_text(&text).unwrap().apply(&mut graph()), Ok(1));
}

#[test]
fn entries_that_do_not_fit_are_named() {
    for (line, why) in [
        ("q 1 0.5 1 0 quant8_asymm", "`q`, which the model does not have"),
        ("x 1 0.5 1 0 quant8_asymm\ndequantize after: q", "`q`, which"),
        ("f 1 0.5 1 0 quant8_asymm", "`f`: the tensor is float"),
        ("x 1 0.5 1 0 quant8_symm", "`x`: is quant8_symm, but the model holds u8"),
        ("w 3 1 1 1 1 0 quant8_symm_per_channel", "`w`: has 3 scales, the model 2"),
        ("x 1 1e-9 1 10 quant8_asymm", "`b`: the bias does not fit in 32 bits"),
    ] {
        let error = Table::from_text(line).unwrap().apply(&mut graph()).unwrap_err();
        assert!(error.to_string().contains(why), "{line}: {error}");
    }
    let mut g = graph();
    g.values[3].name = "y 1".into();
    assert_eq!(Table::of(&g), Err(TableError::Name("y 1".into())));
}

const TEXT: &str = "x 1 0.5 1 128 quant8_asymm\n\
    w 2 0.25 0.1 1 0 quant8_symm_per_channel\n\
    b -2 x w 0 int32\n\
    dequantize after: y\n";

#[test]
fn text_reads_back_as_written() {
    let table = Table::from_text(TEXT).unwrap();
    assert_eq!(table.to_text(), TEXT);
    assert_eq!(table.dequantize_after, ["y"]);
    let loose = TEXT
        .replace(' ', "\t  ")
        .replace("dequantize\t  after:", "dequantize after:")
        .replace('\n', "\r\n\n");
    assert_eq!(Table::from_text(&loose), Ok(table));
}

#[test]
fn scales_read_back_to_the_same_bits() {
    for bits in [0x3a83126fu32, 0x00000001, 0x7f7fffff, 0x3eaaaaab] {
        let scale = vec![f32::from_bits(bits)];
        let own =
            Entry::Own { scale: scale.clone(), zero_point: vec![0], kind: "quant8_asymm".into() };
        let table = Table { entries: vec![("t".into(), own)], dequantize_after: vec![] };
        assert_eq!(Table::from_text(&table.to_text()), Ok(table));
    }
}

#[test]
fn bad_lines_are_named() {
    for (line, why) in [
        ("x", "ends before the count of scales"),
        ("x 1", "ends before the last scale"),
        ("x 2 0.5 0.5 1", "ends before the last zero point"),
        ("x 1 -0.5 1 0 quant8_asymm", "not a positive scale"),
        ("x 1 nan 1 0 quant8_asymm", "not a positive scale"),
        ("x 99999999999 1", "not a count"),
        ("x 1 0.5 1 256 quant8_asymm", "zero point 256 is outside"),
        ("x 1 0.5 1 0 quant9", "type `quant9` is unknown"),
        ("x 1 0.5 1 0 quant8_asymm more", "`more` stands after"),
        ("x 3 1 1 1 2 0 0 quant8_symm_per_channel", "2 zero points for 3"),
        ("b -2 x 0 int32", "ends before the type"),
        ("x 1 0.5 1 0 quant8_asymm\nx 1 0.5 1 0 quant8_asymm", "already"),
        ("dequantize after:", "needs a tensor"),
        ("", "no entry"),
    ] {
        let error = Table::from_text(line).unwrap_err().to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
}
