//! Squeeze: removes axes of size 1. Opsets 1, 11 (negative axes), 13 (axes as an input), 21.

use super::moves::{copy, ints, normalize_axes, sized};
use super::*;

/// ONNX Squeeze.
#[derive(Clone, Debug, PartialEq)]
pub struct Squeeze {
    /// The axes to remove; `None` for every axis of size 1.
    pub axes: Option<Vec<i64>>,
}

impl Operator for Squeeze {
    const NAME: &'static str = "Squeeze";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "axes", since: 13 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Squeeze { axes: attrs.get_ints("axes")? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with_some("axes", self.axes.clone().map(ints))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        let axes = match &self.axes {
            Some(axes) => normalize_axes(axes, x.shape.len())?,
            None => (0..x.shape.len()).filter(|&i| x.shape[i] == 1).collect(),
        };
        if let Some(axis) = axes.iter().find(|&&i| x.shape[i] != 1) {
            return Err(shape_error(format!("axis {axis} is not of size 1"), inputs));
        }
        let kept = (0..x.shape.len()).filter(|i| !axes.contains(i)).map(|i| x.shape[i]);
        sized(x.dtype, kept.collect(), inputs)
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
    fn axes_of_one_disappear() {
        let x = Tensor::from_slice(&[1, 3, 1, 2], &(0..6).collect::<Vec<i64>>());
        for (axes, expected) in [
            (None, Some(vec![3, 2])),
            (Some(vec![0]), Some(vec![3, 1, 2])),
            (Some(vec![-2, 0]), Some(vec![3, 2])),
            (Some(vec![]), Some(vec![1, 3, 1, 2])),
            (Some(vec![1]), None),
            (Some(vec![0, -4]), None),
            (Some(vec![4]), None),
        ] {
            let op = Squeeze::from_attrs(&Attrs::new().with_some("axes", axes.map(ints))).unwrap();
            let y = evaluate_plain(&op.into(), &[Some(&x)]).ok();
            assert_eq!(y.as_ref().map(|y| y[0].shape().to_vec()), expected);
            assert!(y.is_none_or(|y| y[0].bytes() == x.bytes()));
        }
    }
}
