//! Shrink: floats between `-lambd` and `lambd` become 0, others move by `bias` towards it. Opset 9.

use super::*;

/// ONNX Shrink.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrink {
    /// Below it, in magnitude, all is 0.
    pub lambd: f32,
    /// How far the others move.
    pub bias: f32,
}

impl Operator for Shrink {
    const NAME: &'static str = "Shrink";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Shrink { lambd: attrs.float("lambd", 0.5)?, bias: attrs.float("bias", 0.0)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("lambd", Attr::Float(self.lambd)).with("bias", Attr::Float(self.bias))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| match x {
            x if x < -self.lambd => x + self.bias,
            x if x > self.lambd => x - self.bias,
            _ => 0.0,
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::Table
    }
}
