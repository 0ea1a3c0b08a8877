//! Unsqueeze: inserts axes of size 1. Opsets 1, 11 (negative axes), 13 (axes as an input), 21.

use super::moves::{copy, ints, normalize_axes, sized};
use super::*;

/// ONNX Unsqueeze.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsqueeze {
    /// The new axes' places in the output; may count from its end.
    pub axes: Vec<i64>,
}

impl Operator for Unsqueeze {
    const NAME: &'static str = "Unsqueeze";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "axes", since: 13 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let axes = attrs.get_ints("axes")?;
        Ok(Unsqueeze { axes: axes.ok_or_else(|| OpError::attribute("axes", "is missing"))? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("axes", ints(self.axes.iter().copied()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        let rank = x.shape.len() + self.axes.len();
        let axes = normalize_axes(&self.axes, rank)?;
        let mut rest = x.shape.iter().copied();
        let shape = (0..rank).map(|i| match axes.contains(&i) {
            true => 1,
            false => rest.next().expect("as many as axes are left"),
        });
        sized(x.dtype, shape.collect(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        copy(inputs, outputs);
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
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn axes_of_one_appear() {
        let x = Tensor::from_slice(&[3, 2], &[0f32, 1., 2., 3., 4., 5.]);
        for (axes, expected) in [
            (vec![0], Some(vec![1, 3, 2])),
            (vec![-1], Some(vec![3, 2, 1])),
            (vec![3, 0], Some(vec![1, 3, 2, 1])),
            (vec![-4, 2], Some(vec![1, 3, 1, 2])),
            (vec![0, -4], None),
            (vec![3], None),
        ] {
            let op = Unsqueeze::from_attrs(&Attrs::new().with("axes", ints(axes))).unwrap();
            let y = evaluate_plain(&op.into(), &[Some(&x)]).ok();
            assert_eq!(y.as_ref().map(|y| y[0].shape().to_vec()), expected);
            assert!(y.is_none_or(|y| y[0].bytes() == x.bytes()));
        }
        assert!(Unsqueeze::from_attrs(&Attrs::new()).is_err());
    }
}
