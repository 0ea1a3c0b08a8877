//! Compares each operator of a quantized model with another runtime's codes, fed with that runtime's
//! own: `codes MODEL.onnx CODES.npz... [--save FOLDER]`. An array of codes has the name of the tensor of codes in
//! the file, or of the float that it stands for. `benches/foreign/run.py` makes them. With `--save`,
//! what the operators gave is written under the same file names.
//!
//! Prints JSON: elements compared, how many differ, the largest difference in steps, operators
//! compared and left out, and each operator that differs.

use std::collections::HashMap;
use std::path::Path;

use daq::{DType, Graph, Model, Node, Tensor, Value, ValueId};
use daq_quant::npy::{Array, ArrayData};
use daq_quant::npz::{read_npz, write_npz};
use daq_quant::onnx::{ReadOptions, read};

type Codes = HashMap<String, Tensor>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let save = args.iter().position(|a| a == "--save");
    let folder = save.map(|at| args.drain(at..).nth(1).ok_or("--save FOLDER")).transpose()?;
    let mut args = args.into_iter();
    let model = args.next().ok_or("usage: codes MODEL.onnx CODES.npz... [--save FOLDER]")?;
    let graph = daq_quant::qdq::fold(&read(&model, &ReadOptions::default())?);
    let files: Vec<String> = args.collect();
    let known = load(&graph, files.first().ok_or("no file of codes")?)?;
    let (cut, left_out) = apart(&graph, &known);
    let compared = cut.outputs.len();
    let mut session = Model::from_graph(cut)?.session(2);
    let ports: Vec<String> = session.outputs().iter().map(|p| p.name.clone()).collect();
    let mut found = vec![(0u64, 0u64, 0u8); ports.len()];
    for file in &files {
        let codes = load(&graph, file)?;
        let inputs: Vec<(String, &Tensor)> = session
            .inputs()
            .iter()
            .map(|p| Some((p.name.clone(), codes.get(p.name.strip_prefix("given ")?)?)))
            .collect::<Option<_>>()
            .ok_or("the files hold codes of different tensors")?;
        let inputs: Vec<_> = inputs.iter().map(|(name, t)| (name.as_str(), *t)).collect();
        let outputs = session.run(&inputs, None)?;
        if let (Some(folder), Some(name)) = (&folder, Path::new(file).file_name()) {
            let array = |t: &Tensor| Array::new(t.shape().to_vec(), t.data::<u8>().to_vec().into());
            let arrays: Vec<Array> = outputs.iter().map(array).collect();
            let named = ports.iter().map(String::as_str).zip(&arrays);
            write_npz(&Path::new(folder).join(name), named)?;
        }
        for ((name, y), found) in ports.iter().zip(&outputs).zip(&mut found) {
            for (a, b) in y.data::<u8>().iter().zip(codes[name].data::<u8>()) {
                found.0 += 1;
                found.1 += u64::from(a != b);
                found.2 = found.2.max(a.abs_diff(*b));
            }
        }
    }
    let operators = ports.iter().zip(&found).filter(|(_, f)| f.1 > 0);
    let operators: Vec<_> = operators
        .map(|(name, (n, differ, most))| {
            serde_json::json!({"codes": name, "elements": n, "differ": differ, "most": most})
        })
        .collect();
    let report = serde_json::json!({
        "elements": found.iter().map(|f| f.0).sum::<u64>(),
        "differ": found.iter().map(|f| f.1).sum::<u64>(),
        "most": found.iter().map(|f| f.2).max(),
        "compared": compared,
        "left_out": left_out,
        "operators": operators,
    });
    println!("{report:#}");
    Ok(())
}

/// The codes of a file by the names of the graph's values, as `u8`.
fn load(graph: &Graph, file: &str) -> Result<Codes, String> {
    let arrays = read_npz(Path::new(file)).map_err(|e| e.to_string())?;
    let mut codes = Codes::new();
    for (name, array) in arrays {
        let bytes: Vec<u8> = match array.data {
            ArrayData::U8(codes) => codes,
            // Folding makes signed codes unsigned.
            ArrayData::I8(codes) => codes.iter().map(|&q| q as u8 ^ 0x80).collect(),
            _ => continue,
        };
        let tensor = Tensor::from_slice(&array.shape, &bytes);
        let fits =
            |v: &&Value| v.is_quantized() && v.dtype == DType::U8 && v.shape == tensor.shape();
        if graph.find_value(&name).map(|id| &graph.values[id]).filter(fits).is_some() {
            codes.insert(name, tensor);
        }
    }
    Ok(codes)
}

/// The operators on codes side by side, each fed with known codes where there are; and how many
/// give codes that nobody knows.
fn apart(graph: &Graph, known: &Codes) -> (Graph, usize) {
    let mut cut = Graph { nodes: vec![], inputs: vec![], outputs: vec![], ..graph.clone() };
    let mut given: HashMap<ValueId, ValueId> = HashMap::new();
    let mut left_out = 0;
    for node in &graph.nodes {
        let mut node: Node = node.clone();
        for id in node.inputs.iter_mut().flatten() {
            let value = &graph.values[*id];
            if value.data.is_none() && known.contains_key(&value.name) {
                *id = *given.entry(*id).or_insert_with(|| {
                    let name = format!("given {}", value.name);
                    let input = cut.add_value(Value { name, ..value.clone() });
                    cut.inputs.push(input);
                    input
                });
            } else if value.data.is_none() && graph.inputs.contains(id) && !cut.inputs.contains(id)
            {
                cut.inputs.push(*id);
            }
        }
        for &id in &node.outputs {
            let value = &graph.values[id];
            match known.contains_key(&value.name) {
                true => cut.outputs.push(id),
                false => left_out += usize::from(value.is_quantized()),
            }
        }
        cut.nodes.push(node);
    }
    cut.remove_unused();
    let used: Vec<ValueId> =
        cut.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
    cut.inputs.retain(|id| used.contains(id));
    (cut, left_out)
}
