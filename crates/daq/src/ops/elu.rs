//! Elu: `x`, below zero `alpha * (e^x - 1)`. Opsets 6, 22.

use super::*;

/// ONNX Elu: `x`, below zero `alpha * (e^x - 1)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Elu {
    /// The limit far below zero, negated.
    pub alpha: f32,
}

impl Operator for Elu {
    const NAME: &'static str = "Elu";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Elu { alpha: attrs.float("alpha", 1.0)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("alpha", Attr::Float(self.alpha))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| if x < 0.0 { self.alpha * libm::expm1f(x) } else { x });
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
        assert_unary(Elu { alpha: 2.0 }, &[(-1.0, -1.2642411), (0.0, 0.0), (1.5, 1.5), (-90.0, -2.0)]);
    }
}
