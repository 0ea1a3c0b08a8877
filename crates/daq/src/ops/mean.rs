//! Mean: the mean of its inputs with broadcasting. Opsets 6, 8, 13.

use super::binary::{fold_numbers, infer_many};
use super::*;

/// ONNX Mean: the sum from the first input to the last, divided by their number.
#[derive(Clone, Debug, PartialEq)]
pub struct Mean;

impl Operator for Mean {
    const NAME: &'static str = "Mean";
    const INPUTS: usize = usize::MAX;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Mean)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        infer_many(inputs, unary::REALS)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        fold_numbers(inputs, outputs, |a, b| a + b, i64::wrapping_add);
        let count = inputs.len() as f32;
        outputs[0].data_mut::<f32>().iter_mut().for_each(|y| *y /= count);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::FloatInside
    }
}
