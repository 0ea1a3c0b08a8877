//! HardSigmoid: `clamp(alpha * x + beta, 0, 1)`. Opset 6.

use super::*;

/// ONNX HardSigmoid. The sigmoid made of straight lines.
#[derive(Clone, Debug, PartialEq)]
pub struct HardSigmoid {
    /// The slope.
    pub alpha: f32,
    /// The value at zero.
    pub beta: f32,
}

impl Operator for HardSigmoid {
    const NAME: &'static str = "HardSigmoid";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(HardSigmoid { alpha: attrs.float("alpha", 0.2)?, beta: attrs.float("beta", 0.5)? })
    }

    fn to_attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("alpha", Attr::Float(self.alpha));
        attrs.with("beta", Attr::Float(self.beta))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| (self.alpha * x + self.beta).clamp(0.0, 1.0));
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
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-inf, 0.0),
            (-3.5, 0.0),
            (-0.5, 0.0),
            (0.0, 0.25),
            (0.5, 0.5),
            (1.0, 0.75),
            (3.5, 1.0),
            (inf, 1.0),
            (nan, nan),
        ];
        assert_unary(HardSigmoid { alpha: 0.5, beta: 0.25 }, &cases);
    }

    #[test]
    fn codes_and_defaults() {
        let op = HardSigmoid::from_attrs(&Attrs::new()).unwrap();
        assert_eq!(op, HardSigmoid { alpha: 0.2, beta: 0.5 });
        // Reals -10, 0, 1: 0, 0.5, 0.7 of 255.
        let x = (&[3usize][..], &[0u8, 100, 110][..], 0.1, 100);
        assert_eq!(run_u8(&op.into(), &[x], 1.0 / 256.0, 0), [0, 128, 179]);
    }
}
