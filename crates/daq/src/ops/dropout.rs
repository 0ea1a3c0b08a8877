//! Dropout: `y = x` in inference, and a mask that is all true. Opsets 1, 6, 7, 10, 12 (ratio
//! and training mode as inputs), 13, 22.

use super::moves::{copy, sized};
use super::*;

/// ONNX Dropout as it is when a model is used: nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout;

impl Operator for Dropout {
    const NAME: &'static str = "Dropout";
    const INPUTS: usize = 3;
    const ATTR_INPUTS: &'static [AttrInput] = &[
        AttrInput { index: 1, name: "ratio", since: 12 },
        AttrInput { index: 2, name: "training_mode", since: 12 },
    ];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let drops = attrs.get_float("ratio")?.is_none_or(|ratio| ratio != 0.0);
        let training = attrs.flag("training_mode", false)? && drops;
        let old_training = attrs.opset < 7 && !attrs.flag("is_test", false)?;
        // Of what is dropped, which is nothing.
        attrs.int("seed", 0)?;
        if training || old_training {
            let remedy = "export the model in inference mode";
            return Err(OpError::unsupported("Dropout in training mode", remedy));
        }
        Ok(Dropout)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        let mask = sized(DType::Bool, x.shape.clone(), inputs)?;
        Ok([sized(x.dtype, x.shape.clone(), inputs)?, mask].concat())
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        copy(inputs, outputs);
        if let Some(mask) = outputs.get_mut(1) {
            mask.bytes.fill(1);
        }
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
    fn nothing_is_dropped() {
        let x = Tensor::from_slice(&[3], &[1f32, 2., 3.]);
        let op = Dropout::from_attrs(&Attrs::new().with("ratio", Attr::Float(0.9))).unwrap();
        let y = eval::evaluate_plain(&op.into(), &[Some(&x)]).unwrap();
        assert_eq!(y, [x, Tensor::from_bytes(DType::Bool, &[3], &[1; 3])]);
        assert!(Dropout::from_attrs(&Attrs::new().with("training_mode", Attr::Int(1))).is_err());
        assert!(Dropout::from_attrs(&Attrs::of_opset(6)).is_err());
    }
}
