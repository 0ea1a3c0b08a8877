//! LayerNormalization: `(x - mean) / sqrt(variance + epsilon) * scale + bias` over the axes from
//! `axis` on (Ba, Kiros and Hinton, 2016). Opset 17.

use super::binary::for_each_row;
use super::*;

/// ONNX LayerNormalization. Also gives the mean and `1 / sqrt(variance + epsilon)`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormalization {
    /// The first axis of the mean; negative counts from the end.
    pub axis: i64,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Operator for LayerNormalization {
    const NAME: &'static str = "LayerNormalization";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        if attrs.int("stash_type", 1)? != 1 {
            return Err(OpError::attribute("stash_type", "must be 1 (float)"));
        }
        Ok(LayerNormalization {
            axis: attrs.int("axis", -1)?,
            epsilon: attrs.float("epsilon", 1e-5)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("axis", Attr::Int(self.axis));
        attrs.with("epsilon", Attr::Float(self.epsilon))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        let count = if inputs.get(2).is_some_and(Option::is_some) { 3 } else { 2 };
        for index in 0..count {
            let spec = required(inputs, index)?;
            if spec.dtype != DType::F32 {
                return Err(OpError::Type { index, dtype: spec.dtype, allowed: "f32" });
            }
            if index > 0 && broadcast(&x.shape, &spec.shape).as_ref() != Some(&x.shape) {
                return Err(shape_error(format!("input {index} does not broadcast"), inputs));
            }
        }
        let axis = normalize_axis(self.axis, x.shape.len())?;
        if x.shape[axis..].contains(&0) {
            return Err(shape_error("the mean of nothing", inputs));
        }
        let mut shape = x.shape.clone();
        shape[axis..].fill(1);
        let rest = Spec { dtype: DType::F32, shape };
        Ok(vec![x.clone(), rest.clone(), rest])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, scale] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
        let axis = normalize_axis(self.axis, x.shape.len()).expect("checked by infer");
        let len: usize = x.shape[axis..].iter().product();
        let (first, rest) = outputs.split_first_mut().expect("checked by validation");
        let shape = first.shape;
        let y = first.data_mut::<f32>();
        let rows = x.data::<f32>().chunks_exact(len).zip(y.chunks_exact_mut(len));
        for (i, (x, y)) in rows.enumerate() {
            let mean = x.iter().sum::<f32>() / len as f32;
            let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / len as f32;
            let inverse = 1.0 / (variance + self.epsilon).sqrt();
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * inverse);
            for (output, value) in rest.iter_mut().zip([mean, inverse]) {
                output.data_mut::<f32>()[i] = value;
            }
        }
        let mut apply = |operand: TensorView, f: fn(f32, f32) -> f32| {
            let data = operand.data::<f32>();
            for_each_row(shape, [operand.shape], |first, len, [(i, step)]| {
                for (k, y) in y[first..first + len].iter_mut().enumerate() {
                    *y = f(*y, data[i + k * step]);
                }
            });
        };
        apply(scale, |y, s| y * s);
        if let Some(bias) = inputs.get(2).copied().flatten() {
            apply(bias, |y, b| y + b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn rows_get_mean_and_variance() {
        let op = LayerNormalization { axis: -1, epsilon: 0.0 };
        let x = [1f32, 3., -4., 0.];
        let inputs = [(&[2usize, 2][..], &x[..]), (&[2], &[2., 3.]), (&[2], &[0.5, 0.])];
        let y = run_f32(&op.clone().into(), &inputs);
        assert_near(y.data(), &[-1.5, 3., -1.5, 3.]);
        // Over all: mean 0, variance 26 / 4.
        let all = LayerNormalization { axis: 0, epsilon: 0.0 };
        let y = run_f32(&all.into(), &[(&[2, 2], &x), (&[], &[6.5f32.sqrt()])]);
        assert_near(y.data(), &x);
        let specs = op.infer(&[floats(&[2, 2]), floats(&[2])]).unwrap();
        assert_eq!(specs[1].shape, [2, 1]);
        assert_eq!(LayerNormalization::from_attrs(&op.to_attrs()), Ok(op));
    }

    #[test]
    fn misfits_are_errors() {
        let op = |axis| Op::from(LayerNormalization { axis, epsilon: 0.0 });
        assert!(op(-1).infer(&[floats(&[2, 2])]).is_err());
        assert!(op(2).infer(&[floats(&[2, 2]), floats(&[2])]).is_err());
        assert!(op(-1).infer(&[floats(&[2, 2]), floats(&[3])]).is_err());
        assert!(op(-1).infer(&[floats(&[2, 0]), floats(&[1])]).is_err());
    }
}
