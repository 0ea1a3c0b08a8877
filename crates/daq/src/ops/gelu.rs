//! Gelu: `x * P(X <= x)` of a normal distribution (Hendrycks and Gimpel, 2016). Opset 20.

use super::*;

/// ONNX Gelu.
#[derive(Clone, Debug, PartialEq)]
pub struct Gelu {
    /// Whether it is approximated with tanh.
    pub tanh: bool,
}

fn gelu(x: f32, tanh: bool) -> f32 {
    match tanh {
        true => {
            let slope = std::f32::consts::FRAC_2_PI.sqrt();
            0.5 * x * (1.0 + libm::tanhf(slope * (x + 0.044715 * x * x * x)))
        }
        false => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
    }
}

impl Operator for Gelu {
    const NAME: &'static str = "Gelu";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        match attrs.get_str("approximate")? {
            None | Some("none") => Ok(Gelu { tanh: false }),
            Some("tanh") => Ok(Gelu { tanh: true }),
            Some(other) => {
                Err(OpError::attribute("approximate", format!("is `{other}`, not none or tanh")))
            }
        }
    }

    fn to_attrs(&self) -> Attrs {
        let approximate = if self.tanh { "tanh" } else { "none" };
        Attrs::new().with("approximate", Attr::Str(approximate.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| gelu(x, self.tanh));
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
        assert_unary(Gelu { tanh: false }, &[(0.0, 0.0), (1.0, 0.8413447), (-1.0, -0.15865526)]);
        assert_unary(Gelu { tanh: true }, &[(0.0, 0.0), (1.0, 0.841192), (-1.0, -0.15880801)]);
        let wrong = Attrs::new().with("approximate", Attr::Str("sigmoid".into()));
        assert!(Gelu::from_attrs(&wrong).is_err());
    }
}
