//! Shape: the axes `start..end` of the input's shape, as numbers. Opsets 1, 13, 15 (start, end),
//! 19, 21.

use super::*;

/// ONNX Shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The first axis; may count from the end.
    pub start: i64,
    /// The axis to stop before; may count from the end. `None` for all.
    pub end: Option<i64>,
}

impl Shape {
    fn part<'a>(&self, shape: &'a [usize]) -> &'a [usize] {
        let rank = shape.len() as i64;
        let bound = |i: i64| (if i < 0 { i + rank } else { i }).clamp(0, rank) as usize;
        let (start, end) = (bound(self.start), self.end.map_or(shape.len(), bound));
        &shape[start..end.max(start)]
    }
}

impl Operator for Shape {
    const NAME: &'static str = "Shape";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Shape { start: attrs.int("start", 0)?, end: attrs.get_int("end")? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with_some("start", (self.start != 0).then_some(Attr::Int(self.start)))
            .with_some("end", self.end.map(Attr::Int))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        Ok(vec![Spec::new(DType::I64, &[self.part(&x.shape).len()])])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        for (y, &n) in outputs[0].data_mut::<i64>().iter_mut().zip(self.part(x.shape)) {
            *y = n as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_shape() {
        let x = Tensor::zeros(DType::Bool, &[2, 3, 4]);
        for (start, end, expected) in [
            (0, None, vec![2, 3, 4]),
            (1, None, vec![3, 4]),
            (-1, None, vec![4]),
            (0, Some(-1), vec![2, 3]),
            (-9, Some(9), vec![2, 3, 4]),
            (2, Some(1), vec![]),
            (i64::MIN, Some(i64::MAX), vec![2, 3, 4]),
        ] {
            let op = Shape { start, end };
            assert_eq!(Shape::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = eval::evaluate_plain(&op.into(), &[Some(&x)]).unwrap();
            assert_eq!(y[0].data::<i64>(), expected);
        }
    }
}
