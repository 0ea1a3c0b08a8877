//! GatherElements: `y[i][j] = x[indices[i][j]][j]` along axis 0, likewise along others. Opsets 11, 13.

use super::moves::{sized, strides};
use super::*;
use crate::for_any_type;

/// ONNX GatherElements. Indices beyond the axis, which the standard forbids, are an error where
/// they are constant and take its nearest end where they are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherElements {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

/// Calls `f(i, rest, index)` for each index: its position, the offset in a tensor of shape `x` that
/// the other axes make up, and the index counted from the beginning.
pub(crate) fn for_each_index(
    x: &[usize],
    indices: &TensorView,
    axis: usize,
    mut f: impl FnMut(usize, usize, i64),
) {
    let (x_strides, shape) = (strides(x), indices.shape);
    let mut at = vec![0; shape.len()];
    for (i, index) in unary::indices(indices).into_iter().enumerate() {
        let rest: usize =
            (0..shape.len()).filter(|&a| a != axis).map(|a| at[a] * x_strides[a]).sum();
        let index = if index < 0 { index.saturating_add(x[axis] as i64) } else { index };
        f(i, rest, index);
        for (n, &dim) in at.iter_mut().zip(shape).rev() {
            *n += 1;
            if *n < dim {
                break;
            }
            *n = 0;
        }
    }
}

/// Checks that indices have the rank of `x` and no more places than it beside `axis`.
pub(crate) fn infer_indices(inputs: &[Option<Spec>], axis: i64) -> Result<usize, OpError> {
    let (x, indices) = (required(inputs, 0)?, unary::INDICES.input(inputs, 1)?);
    let axis = normalize_axis(axis, x.shape.len())?;
    let within = |(a, (&i, &n)): (usize, (&usize, &usize))| a == axis || i <= n;
    if indices.shape.len() != x.shape.len()
        || !indices.shape.iter().zip(&x.shape).enumerate().all(within)
    {
        return Err(shape_error("the indices do not fit the data", inputs));
    }
    if x.shape[axis] == 0 && indices.shape.iter().all(|&n| n > 0) {
        return Err(shape_error("there is nothing to index", inputs));
    }
    sized(x.dtype, x.shape.clone(), inputs)?;
    Ok(axis)
}

impl Operator for GatherElements {
    const NAME: &'static str = "GatherElements";
    const INPUTS: usize = 2;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(GatherElements { axis: attrs.int("axis", 0)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        infer_indices(inputs, self.axis)?;
        sized(required(inputs, 0)?.dtype, required(inputs, 1)?.shape.clone(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, indices] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
        let axis = normalize_axis(self.axis, x.shape.len()).expect("checked by infer");
        let (last, stride) = (x.shape[axis] as i64 - 1, strides(x.shape)[axis]);
        for_any_type!(x.dtype, T => {
            let (x, shape, y) = (x.data::<T>(), x.shape, outputs[0].data_mut::<T>());
            for_each_index(shape, &indices, axis, |i, rest, index| {
                y[i] = x[rest + index.clamp(0, last) as usize * stride];
            });
        });
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_computed;
    use super::*;

    #[test]
    fn elements_by_index() {
        let x = Tensor::from_slice(&[2, 3], &[1u8, 2, 3, 4, 5, 6]);
        for (axis, indices, want) in [
            (1, Tensor::from_slice(&[2, 2], &[2i64, 0, -1, 1]), vec![3, 1, 6, 5]),
            (0, Tensor::from_slice(&[1, 3], &[1i32, 0, -1]), vec![4, 2, 6]),
            (-1, Tensor::from_slice(&[1, 2], &[7i32, -9]), vec![3, 1]),
        ] {
            let op = GatherElements { axis };
            let y = evaluate_computed(&op.into(), &[Some(&x), Some(&indices)]);
            assert_eq!((y.shape(), y.data::<u8>()), (indices.shape(), &want[..]));
        }
        let spec = |dtype, shape: &[usize]| Some(Spec::new(dtype, shape));
        let x = spec(DType::F32, &[2, 3]);
        for indices in [
            spec(DType::F32, &[1, 3]),
            spec(DType::I64, &[3]),
            spec(DType::I64, &[1, 4]),
            None,
        ] {
            assert!(Op::from(GatherElements { axis: 0 }).infer(&[x.clone(), indices]).is_err());
        }
    }
}
