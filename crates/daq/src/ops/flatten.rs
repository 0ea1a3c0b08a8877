//! Flatten: the axes before `axis` as rows, the others as columns. Opsets 1, 9, 11 (negative axis),
//! 13, 21.

use super::moves::{copy, sized};
use super::*;

/// ONNX Flatten.
#[derive(Clone, Debug, PartialEq)]
pub struct Flatten {
    /// The first axis of the columns; may count from the end, may be the rank.
    pub axis: i64,
}

impl Operator for Flatten {
    const NAME: &'static str = "Flatten";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Flatten { axis: attrs.int("axis", 1)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        sized(x.dtype, x.shape.clone(), inputs)?;
        let rank = x.shape.len();
        let axis = match self.axis {
            axis if axis == rank as i64 => rank,
            axis => normalize_axis(axis, rank)?,
        };
        let (rows, cols) = x.shape.split_at(axis);
        sized(x.dtype, vec![rows.iter().product(), cols.iter().product()], inputs)
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
    fn axes_become_rows_and_columns() {
        let x = Tensor::from_slice(&[2, 3, 4], &(0..24).collect::<Vec<u8>>());
        for (axis, expected) in [
            (0, Some([1, 24])),
            (1, Some([2, 12])),
            (3, Some([24, 1])),
            (-1, Some([6, 4])),
            (-3, Some([1, 24])),
            (4, None),
            (-4, None),
        ] {
            let op = Flatten::from_attrs(&Attrs::new().with("axis", Attr::Int(axis))).unwrap();
            let y = evaluate_plain(&op.into(), &[Some(&x)]).ok();
            assert_eq!(y.as_ref().map(|y| y[0].shape()), expected.as_ref().map(|s| &s[..]));
            assert!(y.is_none_or(|y| y[0].bytes() == x.bytes()));
        }
    }
}
