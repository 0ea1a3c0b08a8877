//! Celu: `x`, below zero `alpha * (e^(x / alpha) - 1)`. Opsets 12.

use super::*;

/// ONNX Celu: `x`, below zero `alpha * (e^(x / alpha) - 1)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Celu {
    /// The limit far below zero, negated.
    pub alpha: f32,
}

impl Operator for Celu {
    const NAME: &'static str = "Celu";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Celu { alpha: attrs.float("alpha", 1.0)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("alpha", Attr::Float(self.alpha))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| if x < 0.0 { self.alpha * libm::expm1f(x / self.alpha) } else { x });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::Table
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        assert_unary(Celu { alpha: 2.0 }, &[(-1.0, -0.7869387), (0.0, 0.0), (1.5, 1.5), (-90.0, -2.0)]);
    }
}
