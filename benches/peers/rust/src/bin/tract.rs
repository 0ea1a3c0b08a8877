//! tract, on an ONNX model, optimized when it is loaded.

use peers::{Result, serve};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::multithread::{Executor, set_default_executor};

fn main() -> Result<()> {
    serve(|path, floats, threads| {
        if threads > 1 {
            set_default_executor(Executor::multithread(threads));
        }
        let model = tract_onnx::onnx().model_for_path(path)?.into_optimized()?;
        let shape = model
            .input_fact(0)?
            .shape
            .as_concrete()
            .ok_or("the input's shape is not fixed")?
            .to_vec();
        let model = model.into_runnable()?;
        let input = Tensor::from_shape(&shape, &floats)?;
        Ok(move || {
            let outputs = model.run(tvec!(input.clone().into()))?;
            Ok(outputs[0].cast_to::<f32>()?.view().as_slice::<f32>()?.to_vec())
        })
    })
}
