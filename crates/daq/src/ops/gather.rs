//! Gather: `y = x[.., indices, ..]` along `axis`. Opsets 1, 11 (negative indices), 13.

use super::moves::sized;
use super::*;

/// ONNX Gather. Indices beyond the axis, which the standard forbids, are an error where they are
/// constant and take its nearest end where they are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// The axis; may count from the end.
    pub axis: i64,
}

impl Operator for Gather {
    const NAME: &'static str = "Gather";
    const INPUTS: usize = 2;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Gather { axis: attrs.int("axis", 0)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (x, indices) = (required(inputs, 0)?, required(inputs, 1)?);
        if !matches!(indices.dtype, DType::I32 | DType::I64) {
            return Err(OpError::Type { index: 1, dtype: indices.dtype, allowed: "i32, i64" });
        }
        let axis = normalize_axis(self.axis, x.shape.len())?;
        if x.shape[axis] == 0 && indices.shape.iter().all(|&n| n > 0) {
            return Err(shape_error("there is nothing to gather from", inputs));
        }
        let mut shape = x.shape.clone();
        shape.splice(axis..=axis, indices.shape.iter().copied());
        sized(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let indices = inputs[1].expect("checked by infer");
        let axis = normalize_axis(self.axis, x.shape.len()).expect("checked by infer");
        let dim = x.shape[axis] as i64;
        let index = |i: i64| (if i < 0 { i.saturating_add(dim) } else { i }).clamp(0, dim - 1);
        let indices: Vec<i64> = match indices.dtype {
            _ if outputs[0].is_empty() => return,
            DType::I32 => indices.data::<i32>().iter().map(|&i| index(i.into())).collect(),
            _ => indices.data::<i64>().iter().map(|&i| index(i)).collect(),
        };
        let row = x.shape[axis + 1..].iter().product::<usize>() * x.dtype.size();
        let pictures = x.bytes.chunks_exact(row * dim as usize);
        let parts = outputs[0].bytes.chunks_exact_mut(row * indices.len());
        for (x, y) in pictures.zip(parts) {
            for (y, &i) in y.chunks_exact_mut(row).zip(&indices) {
                y.copy_from_slice(&x[i as usize * row..][..row]);
            }
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
    fn rows_by_index() {
        let x = Tensor::from_slice(&[2, 3], &[1u8, 2, 3, 4, 5, 6]);
        for (axis, indices, shape, data) in [
            (0, Tensor::scalar(1i64), vec![3], vec![4, 5, 6]),
            (1, Tensor::from_slice(&[2], &[-1i32, 0]), vec![2, 2], vec![3, 1, 6, 4]),
            (-2, Tensor::from_slice(&[1, 1], &[-2i64]), vec![1, 1, 3], vec![1, 2, 3]),
            (1, Tensor::from_slice(&[0], &[0i64; 0]), vec![2, 0], vec![]),
        ] {
            let op = Gather::from_attrs(&Attrs::new().with("axis", Attr::Int(axis))).unwrap();
            let y = evaluate_plain(&op.into(), &[Some(&x), Some(&indices)]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<u8>()), (&shape[..], &data[..]));
        }
    }

    #[test]
    fn indices_beyond_the_axis() {
        let x = Tensor::from_slice(&[2, 3], &[1u8, 2, 3, 4, 5, 6]);
        for indices in [[i64::MIN, i64::MAX], [-4, 3]] {
            let indices = Tensor::from_slice(&[2], &indices);
            let inputs = [Some(&x), Some(&indices)];
            let why = evaluate_plain(&Gather { axis: 1 }.into(), &inputs).unwrap_err().to_string();
            assert!(why.contains("axis 1 of length 3"), "{why}");
            let mut y = [0; 4];
            let output =
                TensorViewMut { dtype: DType::U8, shape: &[2, 2], quant: None, bytes: &mut y };
            Gather { axis: 1 }.run(&inputs.map(|t| t.map(Tensor::view)), &mut [output]);
            assert_eq!(y, [1, 3, 4, 6]);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |dtype, shape: &[usize]| Some(Spec::new(dtype, shape));
        for (axis, x, indices) in [
            (2, spec(DType::F32, &[2, 3]), spec(DType::I64, &[1])),
            (0, spec(DType::F32, &[]), spec(DType::I64, &[1])),
            (0, spec(DType::F32, &[2]), spec(DType::F32, &[1])),
            (0, spec(DType::F32, &[0]), spec(DType::I64, &[1])),
            (0, spec(DType::F32, &[2]), None),
        ] {
            assert!(Gather { axis }.infer(&[x, indices]).is_err());
        }
    }
}
