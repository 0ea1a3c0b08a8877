//! OneHot: along a new axis, one value at each index and another elsewhere. Opsets 9, 11.

use super::moves::sized;
use super::unary::Types;
use super::*;
use crate::for_any_type;

/// Indices may be of any number type.
const NUMBERS: Types = Types(
    &[DType::F32, DType::U8, DType::I8, DType::I32, DType::I64],
    "f32, u8, i8, i32, i64",
);

/// ONNX OneHot with a constant depth. Input 2 holds the off and the on value.
#[derive(Clone, Debug, PartialEq)]
pub struct OneHot {
    /// The size of the new axis.
    pub depth: i64,
    /// The place of the new axis; negative counts from the end.
    pub axis: i64,
}

impl OneHot {
    fn axis(&self, indices: &[usize]) -> Result<usize, OpError> {
        normalize_axis(self.axis, indices.len() + 1)
    }
}

impl Operator for OneHot {
    const NAME: &'static str = "OneHot";
    const INPUTS: usize = 3;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "depth", since: 9 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let depth = match attrs.get("depth") {
            Some(Attr::Float(depth)) => *depth as i64,
            Some(Attr::Floats(depth)) if depth.len() == 1 => depth[0] as i64,
            _ => attrs.get_int("depth")?.ok_or_else(|| OpError::attribute("depth", "is missing"))?,
        };
        Ok(OneHot { depth, axis: attrs.int("axis", -1)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("depth", Attr::Int(self.depth)).with("axis", Attr::Int(self.axis))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (indices, values) = (NUMBERS.input(inputs, 0)?, required(inputs, 2)?);
        if values.shape != [2] {
            return Err(shape_error("there must be two values", inputs));
        }
        let depth = usize::try_from(self.depth).ok().filter(|&d| d > 0);
        let depth = depth.ok_or_else(|| OpError::attribute("depth", "must be positive"))?;
        let mut shape = indices.shape.clone();
        shape.insert(self.axis(&indices.shape)?, depth);
        sized(values.dtype, shape, inputs)
    }

    #[expect(clippy::unnecessary_cast, reason = "one arm of many types casts i64 to itself")]
    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [indices, values] = [0, 2].map(|i| inputs[i].expect("checked by infer"));
        let axis = self.axis(indices.shape).expect("checked by infer");
        let inner = indices.shape[axis..].iter().product::<usize>();
        let hot: Vec<i64> = for_any_type!(indices.dtype, T => {
            indices.data::<T>().iter().map(|&i| i as i64).collect()
        });
        for_any_type!(values.dtype, T => {
            let (values, y) = (values.data::<T>(), outputs[0].data_mut::<T>());
            y.fill(values[0]);
            for (i, &index) in hot.iter().enumerate() {
                let index = if index < 0 { index.saturating_add(self.depth) } else { index };
                if (0..self.depth).contains(&index) {
                    let row = i / inner * self.depth as usize + index as usize;
                    y[row * inner + i % inner] = values[1];
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn hot_and_cold() {
        let indices = Tensor::from_slice(&[3], &[1i64, -1, 5]);
        let values = Tensor::from_slice(&[2], &[0f32, 9.]);
        for (axis, want) in [(-1, [0., 9., 0., 9., 0., 0.]), (0, [0., 0., 0., 9., 9., 0.])] {
            let op = OneHot { depth: 2, axis };
            assert_eq!(OneHot::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = evaluate_plain(&op.into(), &[Some(&indices), None, Some(&values)]).unwrap();
            assert_eq!(y[0].data::<f32>(), want);
        }
        let specs = [Some(Spec::new(DType::I64, &[3])), None, Some(Spec::new(DType::F32, &[3]))];
        assert!(Op::from(OneHot { depth: 2, axis: 0 }).infer(&specs).is_err());
    }
}
