//! BatchNormalization for inference: `(x - mean) / sqrt(var + epsilon) * scale + bias` by channel,
//! computed as `x * m + (bias - mean * m)` with `m = scale / sqrt(var + epsilon)`.
//! Opsets 7, 9, 14, 15.

use super::*;

/// ONNX BatchNormalization. Inputs `[N, C, ...]`, then scale, bias, mean and variance, each `[C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Added to the variance.
    pub epsilon: f32,
}

impl BatchNormalization {
    /// Multiplier and offset of a channel, from scale, bias, mean and variance.
    pub fn line(&self, [scale, bias, mean, variance]: [f32; 4]) -> (f32, f32) {
        let multiplier = scale / (variance + self.epsilon).sqrt();
        (multiplier, bias - mean * multiplier)
    }
}

impl Operator for BatchNormalization {
    const NAME: &'static str = "BatchNormalization";
    const INPUTS: usize = 5;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        if attrs.flag("training_mode", false)? {
            return Err(OpError::unsupported("training_mode", "export the model for inference"));
        }
        if !attrs.flag("spatial", true)? {
            return Err(OpError::unsupported("spatial = 0", "export with opset 9 or later"));
        }
        // Of training.
        attrs.float("momentum", 0.9)?;
        Ok(BatchNormalization { epsilon: attrs.float("epsilon", 1e-5)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("epsilon", Attr::Float(self.epsilon))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        const FLOAT: unary::Types = unary::Types(&[DType::F32], "f32");
        let x = FLOAT.input(inputs, 0)?;
        if x.shape.len() < 2 {
            return Err(shape_error("needs a batch and a channel axis", inputs));
        }
        for index in 1..5 {
            if FLOAT.input(inputs, index)?.shape != [x.shape[1]] {
                let why = format!("input {index} must have shape [{}]", x.shape[1]);
                return Err(shape_error(why, inputs));
            }
        }
        Ok(vec![x.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let data = |i: usize| inputs[i].expect("checked by infer").data::<f32>();
        let per_channel = [1, 2, 3, 4].map(data);
        let channels = per_channel[0].len();
        let lines: Vec<_> = (0..channels).map(|c| self.line(per_channel.map(|v| v[c]))).collect();
        let out = outputs[0].data_mut::<f32>().chunks_exact_mut(channels.max(1));
        for (x, y) in data(0).chunks_exact(channels.max(1)).zip(out) {
            for ((y, x), (multiplier, offset)) in y.iter_mut().zip(x).zip(&lines) {
                *y = x * multiplier + offset;
            }
        }
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn channels_are_normalized() {
        let op: Op = BatchNormalization { epsilon: 0.0 }.into();
        let four: [(&[usize], &[f32]); 4] =
            [(&[2], &[2., 3.]), (&[2], &[0.5, -1.]), (&[2], &[1., 2.]), (&[2], &[4., 0.25])];
        for (shape, x, want) in [
            (&[1, 2, 2][..], [1., 2., 3., 4.], [0.5, 1.5, 5., 11.]),
            (&[1, 2, 1, 2], [1., 2., 3., 4.], [0.5, 1.5, 5., 11.]),
            (&[2, 2], [1., 2., 3., 4.], [0.5, -1., 2.5, 11.]),
        ] {
            let mut inputs = vec![(shape, &x[..])];
            inputs.extend(four);
            assert_near(run_f32(&op, &inputs).data(), &want);
        }
        assert_eq!(Op::from_attrs("BatchNormalization", &op.to_attrs()), Some(Ok(op)));
    }

    #[test]
    fn misfits_are_errors() {
        let op = BatchNormalization::from_attrs(&Attrs::new()).unwrap();
        assert_eq!(op.epsilon, 1e-5);
        let with = |x: &[usize], c: usize| {
            let mut inputs = vec![floats(x)];
            inputs.extend((0..4).map(|_| floats(&[c])));
            op.infer(&inputs)
        };
        assert!(with(&[1, 2, 3, 3], 2).is_ok());
        assert!(with(&[1, 2, 3, 3], 3).is_err());
        assert!(with(&[2], 2).is_err());
        assert!(op.infer(&[floats(&[1, 2]), floats(&[2])]).is_err());
        for name in ["training_mode", "spatial"] {
            let value = Attr::Int((name == "training_mode").into());
            let op = BatchNormalization::from_attrs(&Attrs::new().with(name, value));
            assert!(matches!(op, Err(OpError::Unsupported { .. })), "{name}");
        }
    }
}
