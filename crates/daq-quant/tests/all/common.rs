//! What the tests that compare with onnxruntime share.

use daq::ops::eval::{evaluate, quantize};
use daq::{DType, Graph, Tensor, TensorViewMut};
use daq_quant::npy::{Array, ArrayData};

/// An array of a file as a tensor.
pub fn tensor(array: &Array) -> Tensor {
    match &array.data {
        ArrayData::F32(v) => Tensor::from_slice(&array.shape, v),
        ArrayData::U8(v) => Tensor::from_slice(&array.shape, v),
        ArrayData::I8(v) => Tensor::from_slice(&array.shape, v),
        ArrayData::I32(v) => Tensor::from_slice(&array.shape, v),
        ArrayData::I64(v) => Tensor::from_slice(&array.shape, v),
        ArrayData::Bool(v) => {
            let bytes: Vec<u8> = v.iter().map(|&b| b.into()).collect();
            Tensor::from_bytes(DType::Bool, &array.shape, &bytes)
        }
    }
}

/// Runs a graph node by node through the operators' reference. Floats that are given for codes are
/// quantized; with `floats`, codes are taken as the real numbers that they stand for.
pub fn reference(
    graph: &Graph,
    inputs: &[(String, Tensor)],
    floats: bool,
) -> Result<Vec<Tensor>, String> {
    let mut values: Vec<Option<Tensor>> = graph.values.iter().map(|v| v.data.clone()).collect();
    for &id in &graph.inputs {
        let value = &graph.values[id];
        let given = inputs.iter().find(|(name, _)| *name == value.name);
        let (_, given) = given.ok_or(format!("unexpected input `{}`", value.name))?;
        values[id] = Some(if value.dtype == given.dtype() {
            given.clone()
        } else {
            let mut bytes = vec![0; given.len() * value.dtype.size()];
            quantize(
                given.data(),
                &mut TensorViewMut {
                    dtype: value.dtype,
                    shape: &value.shape,
                    quant: value.quant.as_ref(),
                    bytes: &mut bytes,
                },
            );
            Tensor::from_bytes(value.dtype, &value.shape, &bytes)
        });
    }
    for node in &graph.nodes {
        let input = |id: &usize| (values[*id].as_ref().unwrap(), graph.values[*id].quant.as_ref());
        let inputs: Vec<_> = node.inputs.iter().map(|id| id.as_ref().map(input)).collect();
        let quantized = node.outputs.iter().map(|&id| &graph.values[id]);
        let quantized = quantized.filter_map(|v| Some((v.dtype, v.quant.clone()?)));
        let quantized: Vec<_> = quantized.filter(|(dtype, _)| dtype.is_code()).collect();
        let outputs = evaluate(&node.op, &inputs, &quantized)
            .map_err(|e| graph.node_error(node, e).to_string())?;
        for (&id, output) in node.outputs.iter().zip(outputs) {
            values[id] = Some(output);
        }
    }
    let output = |&id: &usize| {
        let (tensor, quant) = (values[id].clone().unwrap(), graph.values[id].quant.as_ref());
        match floats && tensor.dtype().is_code() && quant.is_some() {
            true => {
                let real = daq::ops::eval::dequantize(&tensor.quantized_view(quant));
                Tensor::from_slice(tensor.shape(), &real)
            }
            false => tensor,
        }
    };
    Ok(graph.outputs.iter().map(output).collect())
}

/// Whether floats are within `1e-4` of each expected one and `of_largest` of the greatest.
pub fn is_close(result: &[f32], expected: &[f32], of_largest: f32) -> Result<(), String> {
    let finite = expected.iter().filter(|e| e.is_finite());
    let slack = of_largest * finite.fold(0.0, |most: f32, e| most.max(e.abs())) + 1e-6;
    let close = |r: f32, e: f32| {
        r == e || (r - e).abs() <= 1e-4 * e.abs() + slack || (r.is_nan() && e.is_nan())
    };
    let mut wrong = result.iter().zip(expected).enumerate().filter(|(_, (r, e))| !close(**r, **e));
    let count = wrong.clone().count();
    match wrong.next() {
        None => Ok(()),
        Some((i, (r, e))) => Err(format!(
            "{count} of {} elements are wrong, the first at {i}: {r} instead of {e}",
            expected.len()
        )),
    }
}

/// Fails with all failures, one a line.
pub fn fail(failures: &[String]) {
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}
