//! ScatterND: a copy of `x` whose slices, at positions that the last axis of the indices holds,
//! meet those of the updates. Opsets 11, 13, 16 (reduction), 18.

use super::gather_nd::{infer_slices, offsets};
use super::moves::sized;
use super::scatter::Reduction;
use super::*;
use crate::for_any_type;

/// ONNX ScatterND. Updates beyond an axis, which the standard forbids, are an error where the
/// indices are constant and left out where they are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct ScatterND {
    /// How an update meets the element that is there.
    pub reduction: Reduction,
}

impl Operator for ScatterND {
    const NAME: &'static str = "ScatterND";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(ScatterND { reduction: Reduction::from_attrs(attrs)? })
    }

    fn to_attrs(&self) -> Attrs {
        self.reduction.to_attrs(Attrs::new())
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let slice = infer_slices(inputs, 0)?;
        self.reduction.check(inputs)?;
        let indices = &required(inputs, 1)?.shape;
        if required(inputs, 2)?.shape != [&indices[..indices.len() - 1], &slice].concat() {
            return Err(shape_error("the updates do not fit data and indices", inputs));
        }
        let x = required(inputs, 0)?;
        sized(x.dtype, x.shape.clone(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, indices, updates] = [0, 1, 2].map(|i| inputs[i].expect("checked by infer"));
        let depth = indices.shape.last().copied().unwrap_or(1);
        let slice: usize = x.shape[depth..].iter().product();
        outputs[0].bytes.copy_from_slice(x.bytes);
        let offsets = offsets(x.shape, &indices, 0, false);
        for_any_type!(x.dtype, T => {
            let y = outputs[0].data_mut::<T>();
            for (updates, offset) in updates.data::<T>().chunks_exact(slice.max(1)).zip(offsets) {
                let Some(offset) = offset else { continue };
                for (y, &update) in y[offset..][..slice].iter_mut().zip(updates) {
                    *y = self.reduction.of(*y, update);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_computed;
    use super::*;

    #[test]
    fn slices_meet_slices() {
        let x = Tensor::from_slice(&[3, 2], &[1i32, 2, 3, 4, 5, 6]);
        let indices = Tensor::from_slice(&[3, 1], &[-1i64, 0, 3]);
        let updates = Tensor::from_slice(&[3, 2], &[10i32, 20, 30, 40, 50, 60]);
        for (reduction, want) in
            [(Reduction::None, [30, 40, 3, 4, 10, 20]), (Reduction::Add, [31, 42, 3, 4, 15, 26])]
        {
            let op = ScatterND { reduction };
            assert_eq!(ScatterND::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let inputs = [Some(&x), Some(&indices), Some(&updates)];
            let y = evaluate_computed(&op.into(), &inputs);
            assert_eq!(y.data::<i32>(), want, "{reduction:?}");
        }
        let spec = |dtype, shape: &[usize]| Some(Spec::new(dtype, shape));
        let (f, i) = (DType::F32, DType::I64);
        let op = Op::from(ScatterND { reduction: Reduction::None });
        for inputs in [
            [spec(f, &[3, 2]), spec(i, &[2, 1]), spec(f, &[2])],
            [spec(f, &[3, 2]), spec(i, &[2, 3]), spec(f, &[2])],
            [spec(f, &[3, 2]), spec(i, &[2, 2]), spec(i, &[2])],
        ] {
            assert!(op.infer(&inputs).is_err(), "{inputs:?}");
        }
    }
}
