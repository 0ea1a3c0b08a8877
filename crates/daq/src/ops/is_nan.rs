//! IsNaN: whether a float is no number. Opsets 9, 13, 20.

use super::*;

/// ONNX IsNaN.
#[derive(Clone, Debug, PartialEq)]
pub struct IsNaN;

impl Operator for IsNaN {
    const NAME: &'static str = "IsNaN";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(IsNaN)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![Spec { dtype: DType::Bool, shape: unary::FLOATS.input(inputs, 0)?.shape.clone() }])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer").data::<f32>();
        let pairs = outputs[0].bytes.iter_mut().zip(x);
        pairs.for_each(|(y, x)| *y = x.is_nan().into());
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }
}
