//! InstanceNormalization: `(x - mean) / sqrt(variance + epsilon) * scale + bias` for each channel of
//! each picture (Ulyanov, Vedaldi and Lempitsky, 2016). Opsets 6, 22.

use super::*;

/// ONNX InstanceNormalization.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceNormalization {
    /// Added to the variance.
    pub epsilon: f32,
}

/// Normalizes each group of `len` elements that follow one another.
pub(crate) fn normalize(x: &[f32], len: usize, epsilon: f32, y: &mut [f32]) {
    let groups = x.chunks_exact(len.max(1)).zip(y.chunks_exact_mut(len.max(1)));
    for (x, y) in groups {
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / len as f64;
        let square = |&x: &f32| (f64::from(x) - mean) * (f64::from(x) - mean);
        let variance = x.iter().map(square).sum::<f64>() / len as f64;
        let inverse = 1.0 / (variance + f64::from(epsilon)).sqrt();
        for (y, &x) in y.iter_mut().zip(x) {
            *y = ((f64::from(x) - mean) * inverse) as f32;
        }
    }
}

/// `y = y * scale + bias`, both for each of the channels that take turns every `inner` elements.
pub(crate) fn by_channel(y: &mut [f32], inner: usize, scale: &[f32], bias: &[f32]) {
    for (i, y) in y.chunks_exact_mut(inner.max(1)).enumerate() {
        let c = i % scale.len();
        y.iter_mut().for_each(|y| *y = *y * scale[c] + bias[c]);
    }
}

impl Operator for InstanceNormalization {
    const NAME: &'static str = "InstanceNormalization";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(InstanceNormalization { epsilon: attrs.float("epsilon", 1e-5)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("epsilon", Attr::Float(self.epsilon))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::FLOATS.input(inputs, 0)?;
        if x.shape.len() < 3 {
            return Err(shape_error("needs batch, channels and space", inputs));
        }
        for index in [1, 2] {
            if unary::FLOATS.input(inputs, index)?.shape != x.shape[1..2] {
                return Err(shape_error(format!("input {index} must be one by channel"), inputs));
            }
        }
        Ok(vec![x.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, scale, bias] = [0, 1, 2].map(|i| inputs[i].expect("checked by infer"));
        let (space, y) = (x.shape[2..].iter().product(), outputs[0].data_mut::<f32>());
        normalize(x.data(), space, self.epsilon, y);
        by_channel(y, space, scale.data(), bias.data());
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn each_channel_alone() {
        let op = InstanceNormalization { epsilon: 0.0 };
        let x = [1f32, 3., -4., 0.];
        let inputs = [(&[1usize, 2, 2][..], &x[..]), (&[2], &[2., 3.]), (&[2], &[0.5, 0.])];
        assert_near(run_f32(&op.clone().into(), &inputs).data(), &[-1.5, 2.5, -3., 3.]);
        assert_eq!(InstanceNormalization::from_attrs(&op.to_attrs()), Ok(op.clone()));
        let specs = [floats(&[1, 2, 2]), floats(&[3]), floats(&[2])];
        assert!(Op::from(op).infer(&specs).is_err());
    }
}
