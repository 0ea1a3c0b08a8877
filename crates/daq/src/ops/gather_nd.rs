//! GatherND: slices of `x` at positions that the last axis of the indices holds. Opsets 11, 12
//! (batch_dims), 13.

use super::moves::{sized, strides};
use super::*;

/// ONNX GatherND. Indices beyond an axis, which the standard forbids, are an error where they are
/// constant and take its nearest end where they are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct GatherND {
    /// How many leading axes data and indices share.
    pub batch_dims: i64,
}

/// The offset of each slice that `indices` name in a tensor of shape `x` below `lead` axes, with
/// what lies beyond at the nearest end where `clamp`, else `None`.
pub(crate) fn offsets(
    x: &[usize],
    indices: &TensorView,
    lead: usize,
    clamp: bool,
) -> Vec<Option<usize>> {
    let depth = *indices.shape.last().unwrap_or(&1);
    let strides = strides(x);
    let batch: usize = indices.shape[..lead].iter().product();
    let per_batch = indices.len() / depth.max(1) / batch.max(1);
    let batch_stride = x[lead..].iter().product::<usize>();
    let offset = |(k, index): (usize, &[i64])| {
        let mut offset = k / per_batch.max(1) * batch_stride;
        for (a, &i) in index.iter().enumerate() {
            let dim = x[lead + a] as i64;
            let i = if i < 0 { i.saturating_add(dim) } else { i };
            if !clamp && !(0..dim).contains(&i) {
                return None;
            }
            offset += i.clamp(0, dim - 1) as usize * strides[lead + a];
        }
        Some(offset)
    };
    unary::indices(indices).chunks_exact(depth.max(1)).enumerate().map(offset).collect()
}

/// Checks indices against the data below `lead` shared axes. Gives the shape of one slice.
pub(crate) fn infer_slices(inputs: &[Option<Spec>], lead: usize) -> Result<Vec<usize>, OpError> {
    let (x, indices) = (required(inputs, 0)?, unary::INDICES.input(inputs, 1)?);
    sized(x.dtype, x.shape.clone(), inputs)?;
    let depth = indices.shape.last().copied().unwrap_or(0);
    let shared = indices.shape.len() > lead && x.shape.get(..lead) == Some(&indices.shape[..lead]);
    if !shared || depth == 0 || lead + depth > x.shape.len() {
        return Err(shape_error("the indices do not fit the data", inputs));
    }
    if x.shape.contains(&0) {
        return Err(shape_error("there is nothing to index", inputs));
    }
    Ok(x.shape[lead + depth..].to_vec())
}

impl GatherND {
    fn lead(&self) -> Result<usize, OpError> {
        let fits = usize::try_from(self.batch_dims).ok().filter(|&b| b < 16);
        fits.ok_or_else(|| OpError::attribute("batch_dims", "is not a number of axes"))
    }
}

impl Operator for GatherND {
    const NAME: &'static str = "GatherND";
    const INPUTS: usize = 2;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let op = GatherND { batch_dims: attrs.int("batch_dims", 0)? };
        op.lead().map(|_| op)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("batch_dims", Attr::Int(self.batch_dims))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let slice = infer_slices(inputs, self.lead()?)?;
        let indices = &required(inputs, 1)?.shape;
        let shape = [&indices[..indices.len() - 1], &slice].concat();
        sized(required(inputs, 0)?.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, indices] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
        let lead = self.lead().expect("checked by from_attrs");
        let depth = indices.shape.last().copied().unwrap_or(1);
        let size = x.dtype.size();
        let slice = x.shape[lead + depth..].iter().product::<usize>() * size;
        let offsets = offsets(x.shape, &indices, lead, true);
        for (y, offset) in outputs[0].bytes.chunks_exact_mut(slice.max(1)).zip(offsets) {
            y.copy_from_slice(&x.bytes[offset.unwrap_or(0) * size..][..slice]);
        }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn slices_by_position() {
        let x = Tensor::from_slice(&[2, 2, 2], &[0i32, 1, 2, 3, 4, 5, 6, 7]);
        for (batch_dims, indices, shape, want) in [
            (0, Tensor::from_slice(&[2, 2], &[0i64, 1, 1, 0]), vec![2, 2], vec![2, 3, 4, 5]),
            (0, Tensor::from_slice(&[1, 3], &[-1i64, 0, -1]), vec![1], vec![5]),
            (1, Tensor::from_slice(&[2, 1], &[1i64, 0]), vec![2, 2], vec![2, 3, 4, 5]),
        ] {
            let op = GatherND { batch_dims };
            let y = evaluate_plain(&op.into(), &[Some(&x), Some(&indices)]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<i32>()), (&shape[..], &want[..]));
        }
        let spec = |dtype, shape: &[usize]| Some(Spec::new(dtype, shape));
        let x = spec(DType::F32, &[2, 3]);
        for indices in [spec(DType::F32, &[1, 2]), spec(DType::I64, &[3]), spec(DType::I64, &[])] {
            assert!(Op::from(GatherND { batch_dims: 0 }).infer(&[x.clone(), indices]).is_err());
        }
        assert!(GatherND::from_attrs(&Attrs::new().with("batch_dims", Attr::Int(-1))).is_err());
    }
}
