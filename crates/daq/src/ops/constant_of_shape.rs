//! ConstantOfShape: a tensor of `shape` filled with one value. Opsets 9, 20, 21.

use super::moves::{ints, sized};
use super::*;

/// ONNX ConstantOfShape with a constant shape.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantOfShape {
    /// The shape.
    pub shape: Vec<i64>,
    /// The value: a tensor of one element, of rank 1.
    pub value: Tensor,
}

impl Operator for ConstantOfShape {
    const NAME: &'static str = "ConstantOfShape";
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 0, name: "shape", since: 9 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let shape = attrs.get_ints("shape")?;
        let value = attrs.get_tensor("value")?.cloned().unwrap_or_else(|| Tensor::scalar(0f32));
        if value.len() != 1 {
            let why = format!("has {} elements, must have one", value.len());
            return Err(OpError::attribute("value", why));
        }
        let shape = shape.ok_or_else(|| OpError::attribute("shape", "is missing"))?;
        Ok(ConstantOfShape { shape, value: value.reshaped(&[1]) })
    }

    fn to_attrs(&self) -> Attrs {
        let shape = ints(self.shape.iter().copied());
        Attrs::new().with("shape", shape).with("value", Attr::Tensor(self.value.clone()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let shape: Result<Vec<usize>, _> = self.shape.iter().map(|&n| n.try_into()).collect();
        let bad = |_| OpError::attribute("shape", format!("{:?} has a negative axis", self.shape));
        sized(self.value.dtype(), shape.map_err(bad)?, inputs)
    }

    fn run(&self, _: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let value = self.value.bytes();
        outputs[0].bytes.chunks_exact_mut(value.len()).for_each(|y| y.copy_from_slice(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_everywhere() {
        let attrs = |shape: &[i64]| Attrs::new().with("shape", ints(shape.iter().copied()));
        let with = |value| attrs(&[2, 1]).with("value", Attr::Tensor(value));
        for (attrs, expected) in [
            (attrs(&[2]), Some(Tensor::from_slice(&[2], &[0f32, 0.]))),
            (attrs(&[]), Some(Tensor::scalar(0f32))),
            (attrs(&[0, 2]), Some(Tensor::zeros(DType::F32, &[0, 2]))),
            (with(Tensor::from_slice(&[1], &[7i64])), Some(Tensor::from_slice(&[2, 1], &[7i64, 7]))),
            (with(Tensor::from_slice(&[2], &[7i64, 8])), None),
            (attrs(&[-1]), None),
            (attrs(&[1 << 40]), None),
        ] {
            let op = ConstantOfShape::from_attrs(&attrs);
            if let Ok(op) = &op {
                assert_eq!(ConstantOfShape::from_attrs(&op.to_attrs()), Ok(op.clone()));
            }
            let y = op.and_then(|op| eval::evaluate_plain(&op.into(), &[]));
            assert_eq!(y.ok().map(|mut y| y.remove(0)), expected);
        }
    }
}
