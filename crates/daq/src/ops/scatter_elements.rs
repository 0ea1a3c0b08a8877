//! ScatterElements: a copy of `x` with `x[indices[i][j]][j]` met by `updates[i][j]`, along axis 0
//! or another. Opsets 11, 13, 16 (reduction), 18; Scatter of 9 is the same.

use super::gather_elements::{for_each_index, infer_indices};
use super::moves::{sized, strides};
use super::scatter::Reduction;
use super::*;
use crate::for_any_type;

/// ONNX ScatterElements. Updates beyond the axis, which the standard forbids, are an error where
/// the indices are constant and left out where they are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterElements {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// How an update meets the element that is there.
    pub reduction: Reduction,
}

impl Operator for ScatterElements {
    const NAME: &'static str = "ScatterElements";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let reduction = Reduction::from_attrs(attrs)?;
        Ok(ScatterElements { axis: attrs.int("axis", 0)?, reduction })
    }

    fn to_attrs(&self) -> Attrs {
        self.reduction.to_attrs(Attrs::new().with("axis", Attr::Int(self.axis)))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        infer_indices(inputs, self.axis)?;
        self.reduction.check(inputs)?;
        if required(inputs, 2)?.shape != required(inputs, 1)?.shape {
            return Err(shape_error("updates and indices must have one shape", inputs));
        }
        let x = required(inputs, 0)?;
        sized(x.dtype, x.shape.clone(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, indices, updates] = [0, 1, 2].map(|i| inputs[i].expect("checked by infer"));
        let axis = normalize_axis(self.axis, x.shape.len()).expect("checked by infer");
        let (dim, stride) = (x.shape[axis] as i64, strides(x.shape)[axis]);
        outputs[0].bytes.copy_from_slice(x.bytes);
        for_any_type!(x.dtype, T => {
            let (updates, y) = (updates.data::<T>(), outputs[0].data_mut::<T>());
            for_each_index(x.shape, &indices, axis, |i, rest, index| {
                if (0..dim).contains(&index) {
                    let y = &mut y[rest + index as usize * stride];
                    *y = self.reduction.of(*y, updates[i]);
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_computed;
    use super::*;

    #[test]
    fn updates_meet_elements() {
        let x = Tensor::from_slice(&[1, 3], &[1f32, 2., 3.]);
        let indices = Tensor::from_slice(&[1, 3], &[-1i64, 0, 9]);
        let updates = Tensor::from_slice(&[1, 3], &[10f32, 0., 5.]);
        for (reduction, want) in [
            (Reduction::None, [0., 2., 10.]),
            (Reduction::Add, [1., 2., 13.]),
            (Reduction::Mul, [0., 2., 30.]),
            (Reduction::Min, [0., 2., 3.]),
            (Reduction::Max, [1., 2., 10.]),
        ] {
            let op = ScatterElements { axis: 1, reduction };
            assert_eq!(ScatterElements::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let inputs = [Some(&x), Some(&indices), Some(&updates)];
            let y = evaluate_computed(&op.into(), &inputs);
            assert_eq!(y.data::<f32>(), want, "{reduction:?}");
        }
        let spec = |dtype, n| Some(Spec::new(dtype, &[n]));
        let (f, i) = (DType::F32, DType::I64);
        let op = Op::from(ScatterElements { axis: 0, reduction: Reduction::Add });
        for inputs in [
            [spec(f, 3), spec(i, 2), spec(f, 1)],
            [spec(f, 3), spec(i, 2), spec(i, 2)],
            [spec(f, 3), spec(f, 2), spec(f, 2)],
            [spec(DType::Bool, 3), spec(i, 2), spec(DType::Bool, 2)],
        ] {
            assert!(op.infer(&inputs).is_err(), "{inputs:?}");
        }
    }
}
