//! IsInf: whether a float is infinite. Opsets 10, 20.

use super::*;

/// ONNX IsInf.
#[derive(Clone, Debug, PartialEq)]
pub struct IsInf {
    /// Whether it may be positive.
    pub positive: bool,
    /// Whether it may be negative.
    pub negative: bool,
}

impl Operator for IsInf {
    const NAME: &'static str = "IsInf";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(IsInf {
            positive: attrs.flag("detect_positive", true)?,
            negative: attrs.flag("detect_negative", true)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("detect_positive", Attr::Int(self.positive.into()))
            .with("detect_negative", Attr::Int(self.negative.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![Spec { dtype: DType::Bool, shape: unary::FLOATS.input(inputs, 0)?.shape.clone() }])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer").data::<f32>();
        for (y, &x) in outputs[0].bytes.iter_mut().zip(x) {
            let found = (self.positive && x == f32::INFINITY)
                || (self.negative && x == f32::NEG_INFINITY);
            *y = found.into();
        }
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }
}
