//! ArgMax: the index of the largest element along one axis. Opsets 1, 11, 12 (last index), 13.
//!
//! Codes are compared as they are: one scale, which is positive, keeps their order. A NaN is
//! never larger; a leading one stays.

use super::*;
use crate::for_any_type;

/// ONNX ArgMax. The output is `i64`.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgMax {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether the axis stays, with size 1.
    pub keepdims: bool,
    /// Of equal elements the last rather than the first.
    pub select_last_index: bool,
}

impl ArgMax {
    /// The index of the largest, or smallest, element of each row.
    pub(crate) fn select(
        &self,
        inputs: &[Option<TensorView>],
        outputs: &mut [TensorViewMut],
        smallest: bool,
    ) {
        let x = inputs[0].expect("checked by infer");
        let axis = normalize_axis(self.axis, x.shape.len()).expect("checked by infer");
        let (len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
        for_any_type!(x.dtype, T => {
            let x = x.data::<T>();
            for (i, y) in outputs[0].data_mut::<i64>().iter_mut().enumerate() {
                let first = i / inner * len * inner + i % inner;
                let at = |k: usize| x[first + k * inner];
                let mut best = 0;
                for k in 1..len {
                    let better = if smallest { at(k) < at(best) } else { at(k) > at(best) };
                    if better || (self.select_last_index && at(k) == at(best)) {
                        best = k;
                    }
                }
                *y = best as i64;
            }
        });
    }
}

impl Operator for ArgMax {
    const NAME: &'static str = "ArgMax";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(ArgMax {
            axis: attrs.int("axis", 0)?,
            keepdims: attrs.flag("keepdims", true)?,
            select_last_index: attrs.flag("select_last_index", false)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("axis", Attr::Int(self.axis))
            .with("keepdims", Attr::Int(self.keepdims.into()))
            .with("select_last_index", Attr::Int(self.select_last_index.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::NUMBERS.input(inputs, 0)?;
        let axis = normalize_axis(self.axis, x.shape.len())?;
        if x.shape[axis] == 0 {
            return Err(shape_error(format!("axis {axis} has no element"), inputs));
        }
        let mut shape = x.shape.clone();
        if self.keepdims {
            shape[axis] = 1;
        } else {
            shape.remove(axis);
        }
        Ok(vec![Spec { dtype: DType::I64, shape }])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        self.select(inputs, outputs, false);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        // Without the axis, the others would no longer be in channels-last order.
        if self.keepdims { LayoutRule::Any } else { LayoutRule::Plain }
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        ArgMax { axis: channels_last_axis(self.axis, rank), ..self.clone() }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Codes
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    fn op(axis: i64, keepdims: bool, select_last_index: bool) -> Op {
        ArgMax { axis, keepdims, select_last_index }.into()
    }

    #[test]
    fn indices() {
        let x = [1f32, 3., 3., 5., 5., 2.];
        for (axis, keepdims, last, shape, want) in [
            (-1, true, false, vec![2, 1], vec![1, 0]),
            (1, false, true, vec![2], vec![2, 1]),
            (0, true, false, vec![1, 3], vec![1, 1, 0]),
            (-2, false, false, vec![3], vec![1, 1, 0]),
        ] {
            let y = run_f32(&op(axis, keepdims, last), &[(&[2, 3], &x)]);
            assert_eq!((y.shape(), y.data::<i64>()), (&shape[..], &want[..]), "axis {axis}");
        }
        let nan = f32::NAN;
        let y = run_f32(&op(1, false, false), &[(&[2, 3], &[1., nan, 3., nan, 5., 2.])]);
        assert_eq!(y.data::<i64>(), [2, 0]);
    }

    #[test]
    fn codes_and_integers() {
        let x = Tensor::from_slice(&[1, 3], &[3u8, 200, 100]);
        let quant = crate::QuantParams::per_tensor(0.5, 7);
        let y = eval::evaluate(&op(1, true, false), &[Some((&x, Some(&quant)))], &[]).unwrap();
        assert_eq!(y[0].data::<i64>(), [1]);
        let x = Tensor::from_slice(&[3], &[-3i8, -100, 100]);
        let y = eval::evaluate_plain(&op(0, true, false), &[Some(&x)]).unwrap();
        assert_eq!(y[0].data::<i64>(), [2]);
        assert_eq!(run_i64(&op(0, true, false), &[&[-7, -5, -9]]), [1]);
    }

    #[test]
    fn channels_last_moves_the_axis() {
        let last = ArgMax { axis: -3, keepdims: true, select_last_index: false };
        assert_eq!(last.to_channels_last(4).axis, 3);
        assert_eq!(ArgMax { axis: 2, ..last.clone() }.to_channels_last(4).axis, 1);
        assert_eq!(last.layout(&[]), LayoutRule::Any);
        assert_eq!(ArgMax { keepdims: false, ..last }.layout(&[]), LayoutRule::Plain);
    }

    #[test]
    fn misfits_are_errors() {
        assert!(op(2, true, false).infer(&[floats(&[2, 3])]).is_err());
        assert!(op(-3, true, false).infer(&[floats(&[2, 3])]).is_err());
        assert!(op(0, true, false).infer(&[floats(&[])]).is_err());
        assert!(op(1, true, false).infer(&[floats(&[2, 0])]).is_err());
        assert!(op(0, true, false).infer(&[None]).is_err());
        assert!(op(i64::MIN, true, false).infer(&[floats(&[2])]).is_err());
    }
}
