//! Where: elements of one input or another, by a third. Opsets 9, 16.

use super::binary::for_each_row;
use super::*;
use crate::for_any_type;

/// ONNX Where: `condition ? x : y`, with broadcasting.
#[derive(Clone, Debug, PartialEq)]
pub struct Where;

impl Operator for Where {
    const NAME: &'static str = "Where";
    const INPUTS: usize = 3;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Where)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (condition, x) = (compare::TRUTH.input(inputs, 0)?, required(inputs, 1)?);
        let y = required(inputs, 2)?;
        if y.dtype != x.dtype {
            return Err(OpError::Type { index: 2, dtype: y.dtype, allowed: "the type of input 1" });
        }
        let shape = broadcast(&x.shape, &y.shape).and_then(|s| broadcast(&condition.shape, &s));
        let shape = shape.ok_or_else(|| shape_error("the shapes do not broadcast", inputs))?;
        Ok(vec![Spec { dtype: x.dtype, shape }])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [c, x, y] = [0, 1, 2].map(|i| inputs[i].expect("checked by infer"));
        let shape = outputs[0].shape;
        let truth = c.data::<u8>();
        for_any_type!(x.dtype, T => {
            let (a, b, out) = (x.data::<T>(), y.data::<T>(), outputs[0].data_mut::<T>());
            let operands = [c.shape, x.shape, y.shape];
            for_each_row(shape, operands, |first, len, [(h, dh), (i, di), (j, dj)]| {
                for (k, z) in out[first..first + len].iter_mut().enumerate() {
                    let chosen = truth[h + k * dh] != 0;
                    *z = if chosen { a[i + k * di] } else { b[j + k * dj] };
                }
            });
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn elements_by_condition() {
        let c = Tensor::from_bytes(DType::Bool, &[2, 1], &[1, 0]);
        let x = Tensor::from_slice(&[3], &[1f32, 2., 3.]);
        let y = Tensor::scalar(-1f32);
        let z = evaluate_plain(&Where.into(), &[Some(&c), Some(&x), Some(&y)]).unwrap();
        assert_eq!((z[0].shape(), z[0].data::<f32>()), (&[2, 3][..], &[1., 2., 3., -1., -1., -1.][..]));
        let (x, y) = (Tensor::scalar(1i64 << 40), Tensor::from_slice(&[1], &[-1i64]));
        let z = evaluate_plain(&Where.into(), &[Some(&c), Some(&x), Some(&y)]).unwrap();
        assert_eq!((z[0].shape(), z[0].data::<i64>()), (&[2, 1][..], &[1 << 40, -1][..]));
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |dtype, n| Some(Spec::new(dtype, &[n]));
        let (f, b) = (DType::F32, DType::Bool);
        for inputs in [
            vec![spec(b, 2), spec(f, 2)],
            vec![spec(f, 2), spec(f, 2), spec(f, 2)],
            vec![spec(b, 2), spec(f, 2), spec(DType::I64, 2)],
            vec![spec(b, 2), spec(f, 3), spec(f, 1)],
        ] {
            assert!(Op::from(Where).infer(&inputs).is_err(), "{inputs:?}");
        }
    }
}
