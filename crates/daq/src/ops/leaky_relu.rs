//! LeakyRelu: `x`, below zero `alpha * x`. Opsets 6, 16.

use super::*;

/// ONNX LeakyRelu. Relu with a slope below zero.
#[derive(Clone, Debug, PartialEq)]
pub struct LeakyRelu {
    /// The slope below zero.
    pub alpha: f32,
}

impl Operator for LeakyRelu {
    const NAME: &'static str = "LeakyRelu";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(LeakyRelu { alpha: attrs.float("alpha", 0.01)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("alpha", Attr::Float(self.alpha))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| if x < 0.0 { self.alpha * x } else { x });
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
            (-inf, -inf),
            (-3.5, -0.35),
            (-0.0, -0.0),
            (0.0, 0.0),
            (0.5, 0.5),
            (inf, inf),
            (nan, nan),
        ];
        assert_unary(LeakyRelu { alpha: 0.1 }, &cases);
    }

    #[test]
    fn codes_and_defaults() {
        let op = LeakyRelu::from_attrs(&Attrs::new()).unwrap();
        assert_eq!(op.alpha, 0.01);
        // Reals -10, 0, 5 to -0.1, 0, 5.
        let x = (&[3usize][..], &[0u8, 100, 150][..], 0.1, 100);
        assert_eq!(run_u8(&op.into(), &[x], 0.05, 10), [8, 10, 110]);
        let wrong = Attrs::new().with("alpha", Attr::Str("x".into()));
        assert!(LeakyRelu::from_attrs(&wrong).is_err());
    }
}
