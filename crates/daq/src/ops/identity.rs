//! Identity: `y = x`. Opsets 1, 13, 14, 16, 19, 21.

use super::moves::{copy, sized};
use super::*;

/// ONNX Identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity;

impl Operator for Identity {
    const NAME: &'static str = "Identity";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Identity)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        sized(x.dtype, x.shape.clone(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        copy(inputs, outputs);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }

    fn is_view(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_stays() {
        let x = Tensor::from_slice(&[2, 1], &[3i64, -4]);
        let y = eval::evaluate_plain(&Identity.into(), &[Some(&x)]).unwrap();
        assert_eq!(y, [x]);
        assert_eq!(Identity.infer(&[]), Err(OpError::MissingInput { index: 0 }));
    }
}
