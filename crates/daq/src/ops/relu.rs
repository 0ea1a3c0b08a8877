//! Relu: `max(x, 0)`.

use super::*;

/// ONNX Relu. Since opset 6; 14 adds integers.
#[derive(Clone, Debug, PartialEq)]
pub struct Relu;

impl Operator for Relu {
    const NAME: &'static str = "Relu";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Relu)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![required(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].as_ref().expect("checked by infer").data::<f32>();
        for (y, &x) in outputs[0].data_mut::<f32>().iter_mut().zip(x) {
            *y = if x < 0.0 { 0.0 } else { x };
        }
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::Table
    }

    fn clamp(&self) -> Option<(f32, f32)> {
        Some((0.0, f32::INFINITY))
    }
}
