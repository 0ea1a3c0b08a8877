//! rten, on an ONNX model; weights packed when it is loaded.

use std::sync::Arc;

use peers::{Result, serve};
use rten::{Dimension, ModelOptions, RunOptions, ThreadPool};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;

fn main() -> Result<()> {
    serve(|path, floats, threads| {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(path)?;
        let shape: Option<Vec<usize>> =
            model.input_shape(0).ok_or("the input has no shape")?.iter().map(fixed).collect();
        let input =
            Tensor::from_data(shape.ok_or("the input's shape is not fixed")?.as_slice(), floats);
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        Ok(move || {
            let options = RunOptions::default().with_thread_pool(Some(pool.clone()));
            let output: Tensor<f32> =
                model.run_one(input.view().into(), Some(options))?.try_into()?;
            Ok(output.to_vec())
        })
    })
}

fn fixed(dimension: &Dimension) -> Option<usize> {
    match dimension {
        Dimension::Fixed(n) => Some(*n),
        Dimension::Symbolic(_) => None,
    }
}
