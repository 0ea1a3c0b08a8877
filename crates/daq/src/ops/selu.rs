//! Selu: `gamma * x`, below zero `gamma * alpha * (e^x - 1)`. Opsets 6, 22.

use super::*;

/// ONNX Selu: `gamma * x`, below zero `gamma * alpha * (e^x - 1)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Selu {
    /// The limit far below zero, negated and divided by `gamma`.
    pub alpha: f32,
    /// The slope above zero.
    pub gamma: f32,
}

impl Operator for Selu {
    const NAME: &'static str = "Selu";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Selu { alpha: attrs.float("alpha", 1.673_263_2)?, gamma: attrs.float("gamma", 1.050_701)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("alpha", Attr::Float(self.alpha)).with("gamma", Attr::Float(self.gamma))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| self.gamma * if x < 0.0 { self.alpha * libm::expm1f(x) } else { x });
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
        assert_unary(Selu { alpha: 2.0, gamma: 3.0 }, &[(-1.0, -3.7927234), (0.0, 0.0), (1.5, 4.5)]);
    }
}
