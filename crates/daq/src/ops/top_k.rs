//! TopK: the largest or smallest elements along one axis, and their indices. Opsets 10 (k as an
//! input), 11 (largest, sorted).

use std::cmp::Ordering;

use super::moves::sized;
use super::*;
use crate::for_any_type;

/// ONNX TopK with a constant k. They come in order whether or not that is asked for; of equal
/// elements the one of lower index comes first, and a NaN is larger than all.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// How many.
    pub k: i64,
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// The largest rather than the smallest.
    pub largest: bool,
}

impl Operator for TopK {
    const NAME: &'static str = "TopK";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "k", since: 10 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        attrs.flag("sorted", true)?;
        Ok(TopK {
            k: attrs.get_int("k")?.ok_or_else(|| OpError::attribute("k", "is missing"))?,
            axis: attrs.int("axis", -1)?,
            largest: attrs.flag("largest", true)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("k", Attr::Int(self.k))
            .with("axis", Attr::Int(self.axis))
            .with("largest", Attr::Int(self.largest.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::NUMBERS.input(inputs, 0)?;
        let axis = normalize_axis(self.axis, x.shape.len())?;
        let mut shape = x.shape.clone();
        shape[axis] = usize::try_from(self.k).ok().filter(|&k| k <= x.shape[axis]).ok_or_else(
            || OpError::attribute("k", format!("{} of {} elements", self.k, x.shape[axis])),
        )?;
        let indices = sized(DType::I64, shape.clone(), inputs)?;
        Ok([vec![Spec { dtype: x.dtype, shape }], indices].concat())
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let axis = normalize_axis(self.axis, x.shape.len()).expect("checked by infer");
        let (len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
        let (k, rows) = (self.k as usize, x.shape[..axis].iter().product::<usize>() * inner);
        let mut order: Vec<usize> = Vec::new();
        for_any_type!(x.dtype, T => {
            let x = x.data::<T>();
            for row in 0..rows {
                let (outer, column) = (row / inner, row % inner);
                let at = |i: usize| x[(outer * len + i) * inner + column];
                let by_size = |a: usize, b: usize| {
                    let nan = |x: T| x.partial_cmp(&x).is_none();
                    let (a, b) = (at(a), at(b));
                    a.partial_cmp(&b).unwrap_or_else(|| nan(a).cmp(&nan(b)))
                };
                order.clear();
                order.extend(0..len);
                match self.largest {
                    true => sort(&mut order, &|a, b| by_size(b, a)),
                    false => sort(&mut order, &by_size),
                }
                for (j, &i) in order.iter().take(k).enumerate() {
                    let target = (outer * k + j) * inner + column;
                    outputs[0].data_mut::<T>()[target] = at(i);
                    if let Some(indices) = outputs.get_mut(1) {
                        indices.data_mut::<i64>()[target] = i as i64;
                    }
                }
            }
        });
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }
}

/// Sorts indices so that equal elements stay in order; compiled once for all types.
fn sort(order: &mut [usize], by: &dyn Fn(usize, usize) -> Ordering) {
    order.sort_by(|&a, &b| by(a, b));
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn in_order() {
        let x = Tensor::from_slice(&[2, 3], &[2f32, 5., 5., f32::NAN, -1., 7.]);
        for (k, axis, largest, values, indices) in [
            (2, 1, true, vec![5., 5., f32::NAN, 7.], vec![1, 2, 0, 2]),
            (1, -1, false, vec![2., -1.], vec![0, 1]),
            (1, 0, true, vec![f32::NAN, 5., 7.], vec![1, 0, 1]),
            (0, 1, true, vec![], vec![]),
        ] {
            let op = TopK { k, axis, largest };
            assert_eq!(TopK::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = evaluate_plain(&op.into(), &[Some(&x)]).unwrap();
            unary::testing::assert_near(y[0].data(), &values);
            assert_eq!(y[1].data::<i64>(), indices);
        }
        for k in [-1, 4] {
            let spec = [Some(Spec::new(DType::F32, &[2, 3]))];
            assert!(Op::from(TopK { k, axis: 1, largest: true }).infer(&spec).is_err());
        }
    }
}
