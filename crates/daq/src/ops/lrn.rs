//! LRN: `x / (bias + alpha / size * sum(x^2))^beta`, the sum over neighbouring channels.
//! Opsets 1, 13.

use super::*;

/// ONNX LRN (local response normalization). Channel `c` sees those from `c - (size - 1) / 2` to
/// `c + size / 2`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lrn {
    /// How many channels are summed.
    pub size: usize,
    /// The weight of their mean square.
    pub alpha: f32,
    /// The exponent.
    pub beta: f32,
    /// What is added.
    pub bias: f32,
}

impl Operator for Lrn {
    const NAME: &'static str = "LRN";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let size = attrs.get_int("size")?.and_then(|size| usize::try_from(size).ok());
        Ok(Lrn {
            size: size
                .filter(|size| (1..=1 << 20).contains(size))
                .ok_or_else(|| OpError::attribute("size", "must be given and positive"))?,
            alpha: attrs.float("alpha", 0.0001)?,
            beta: attrs.float("beta", 0.75)?,
            bias: attrs.float("bias", 1.0)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("size", Attr::Int(self.size as i64))
            .with("alpha", Attr::Float(self.alpha))
            .with("beta", Attr::Float(self.beta))
            .with("bias", Attr::Float(self.bias))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::REALS.input(inputs, 0)?;
        if x.shape.len() < 2 {
            return Err(shape_error("needs a batch and a channel axis", inputs));
        }
        Ok(vec![x.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let channels = x.shape[x.shape.len() - 1].max(1);
        let pixels = x.data::<f32>().chunks_exact(channels);
        for (x, y) in pixels.zip(outputs[0].data_mut::<f32>().chunks_exact_mut(channels)) {
            for c in 0..channels {
                let first = c.saturating_sub((self.size - 1) / 2);
                let end = (c + self.size / 2 + 1).min(channels);
                let sum = x[first..end].iter().fold(0.0, |sum, x| sum + x * x);
                let scale = self.bias + self.alpha / self.size as f32 * sum;
                y[c] = x[c] / libm::powf(scale, self.beta);
            }
        }
    }

    fn operations(&self, _: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        let neighbours = |y: &Spec| y.shape.get(1).map_or(1, |&c| self.size.min(c)) as u64;
        outputs.iter().map(|y| elements(y).saturating_mul(neighbours(y))).sum()
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
    }

    fn quantization(&self) -> Quantization {
        Quantization::FloatInside
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    const X: [f32; 8] = [1., 2., 3., 4., 5., 6., 7., 8.];

    #[test]
    fn channels_are_normalized_by_their_neighbours() {
        let op: Op = Lrn { size: 3, alpha: 0.3, beta: 0.75, bias: 1.5 }.into();
        let y = run_f32(&op, &[(&[1, 4, 1, 2], &X)]);
        let want = [
            0.5029734, 0.78159, 0.8972093, 0.91963655, 0.9027146, 0.8713603, 1.3584872, 1.2810515,
        ];
        assert_near(y.data(), &want);
        assert_eq!(Op::from_attrs("LRN", &op.to_attrs()), Some(Ok(op)));
        // An even size looks one channel further ahead: 1 / (0 + 1 / 2 * (1 + 9)), 3 / (9 / 2).
        let op: Op = Lrn { size: 2, alpha: 1.0, beta: 1.0, bias: 0.0 }.into();
        let y = run_f32(&op, &[(&[1, 2], &[1., 3.])]);
        assert_near(y.data(), &[0.2, 2.0 / 3.0]);
    }

    #[test]
    fn codes_defaults_and_misfits() {
        let op: Op = Lrn { size: 1, alpha: 1.0, beta: 1.0, bias: 1.0 }.into();
        // 2 / (1 + 4) = 0.4, -1 / (1 + 1) = -0.5.
        let x = (&[1usize, 2][..], &[30u8, 0][..], 0.1, 10);
        assert_eq!(run_u8(&op, &[x], 0.1, 5), [9, 0]);
        let of = |size| Lrn::from_attrs(&Attrs::new().with("size", Attr::Int(size)));
        assert_eq!(of(5), Ok(Lrn { size: 5, alpha: 0.0001, beta: 0.75, bias: 1.0 }));
        assert!(of(0).is_err() && of(i64::MAX).is_err() && Lrn::from_attrs(&Attrs::new()).is_err());
        assert!(op.infer(&[floats(&[3])]).is_err());
        assert!(op.infer(&[None]).is_err());
    }
}
