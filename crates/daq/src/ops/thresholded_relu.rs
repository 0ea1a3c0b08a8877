//! ThresholdedRelu: `x` above `alpha`, else 0. Opsets 10, 22.

use super::*;

/// ONNX ThresholdedRelu: `x` above `alpha`, else 0.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdedRelu {
    /// The threshold.
    pub alpha: f32,
}

impl Operator for ThresholdedRelu {
    const NAME: &'static str = "ThresholdedRelu";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(ThresholdedRelu { alpha: attrs.float("alpha", 1.0)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("alpha", Attr::Float(self.alpha))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| if x > self.alpha { x } else { 0.0 });
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
        assert_unary(ThresholdedRelu { alpha: 2.0 }, &[(-1.0, 0.0), (2.0, 0.0), (2.5, 2.5)]);
    }
}
