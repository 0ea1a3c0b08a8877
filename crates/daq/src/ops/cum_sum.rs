//! CumSum: sums from the beginning of an axis on. Opsets 11, 14.

use super::scatter::Number;
use super::*;
use crate::for_any_type;

/// ONNX CumSum along a constant axis.
#[derive(Clone, Debug, PartialEq)]
pub struct CumSum {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether an element is left out of its own sum.
    pub exclusive: bool,
    /// Whether sums run from the end.
    pub reverse: bool,
}

/// Numbers that are added as they are.
const NUMBERS: unary::Types =
    unary::Types(&[DType::F32, DType::I32, DType::I64], "f32, i32, i64");

impl Operator for CumSum {
    const NAME: &'static str = "CumSum";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "axis", since: 11 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(CumSum {
            axis: attrs.get_int("axis")?.ok_or_else(|| OpError::attribute("axis", "is missing"))?,
            exclusive: attrs.flag("exclusive", false)?,
            reverse: attrs.flag("reverse", false)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("axis", Attr::Int(self.axis))
            .with("exclusive", Attr::Int(self.exclusive.into()))
            .with("reverse", Attr::Int(self.reverse.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = NUMBERS.input(inputs, 0)?;
        normalize_axis(self.axis, x.shape.len())?;
        Ok(vec![x.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let axis = normalize_axis(self.axis, x.shape.len()).expect("checked by infer");
        let (len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
        for_any_type!(x.dtype, T => {
            let (x, y) = (x.data::<T>(), outputs[0].data_mut::<T>());
            for start in (0..x.len()).step_by((len * inner).max(1)) {
                for first in start..start + inner {
                    let mut sum = T::default();
                    for k in 0..len {
                        let k = if self.reverse { len - 1 - k } else { k };
                        let i = first + k * inner;
                        let with = sum.add(x[i]);
                        y[i] = if self.exclusive { sum } else { with };
                        sum = with;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn sums_from_either_end() {
        let x = [1f32, 2., 3., 4., 5., 6.];
        for (axis, exclusive, reverse, want) in [
            (1, false, false, [1., 3., 6., 4., 9., 15.]),
            (1, true, false, [0., 1., 3., 0., 4., 9.]),
            (-1, false, true, [6., 5., 3., 15., 11., 6.]),
            (0, true, true, [4., 5., 6., 0., 0., 0.]),
        ] {
            let op = CumSum { axis, exclusive, reverse };
            assert_eq!(CumSum::from_attrs(&op.to_attrs()), Ok(op.clone()));
            assert_eq!(run_f32(&op.into(), &[(&[2, 3], &x)]).data::<f32>(), want);
        }
    }
}
