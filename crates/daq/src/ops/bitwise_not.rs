//! BitwiseNot: the other bits of each integer. Opset 18.

use super::*;

/// ONNX BitwiseNot.
#[derive(Clone, Debug, PartialEq)]
pub struct BitwiseNot;

impl Operator for BitwiseNot {
    const NAME: &'static str = "BitwiseNot";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(BitwiseNot)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::INTEGERS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer").bytes;
        outputs[0].bytes.iter_mut().zip(x).for_each(|(y, x)| *y = !x);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }
}
