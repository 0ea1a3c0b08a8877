//! Not: the other truth value. Opset 1. Tests stand in `compare.rs`.

use super::*;

/// ONNX Not.
#[derive(Clone, Debug, PartialEq)]
pub struct Not;

impl Operator for Not {
    const NAME: &'static str = "Not";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Not)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![compare::TRUTH.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        outputs[0].bytes.iter_mut().zip(x.bytes).for_each(|(y, x)| *y = (*x == 0).into());
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }
}
