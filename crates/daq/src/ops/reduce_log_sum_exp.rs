//! ReduceLogSumExp: the logarithm of the sum of exponentials over some axes. Opsets 11 (negative
//! axes), 13, 18 (axes as an input).
//!
//! The largest is subtracted before and added after, so that nothing overflows.

use super::*;

/// ONNX ReduceLogSumExp with constant axes.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceLogSumExp(reduce::Axes);

impl Operator for ReduceLogSumExp {
    const NAME: &'static str = "ReduceLogSumExp";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "axes", since: 18 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(ReduceLogSumExp(reduce::Axes::from_attrs(attrs)?))
    }

    fn to_attrs(&self) -> Attrs {
        self.0.to_attrs()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        unary::REALS.input(inputs, 0)?;
        self.0.infer(inputs, true)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let (data, y) = (x.data::<f32>(), outputs[0].data_mut::<f32>());
        let mut largest = vec![f32::NEG_INFINITY; y.len()];
        self.0.for_each(x.shape, |o, i| largest[o] = largest[o].max(data[i]));
        // What is infinite is not subtracted: infinity less itself is no number.
        largest.iter_mut().filter(|m| !m.is_finite()).for_each(|m| *m = 0.0);
        y.fill(0.0);
        self.0.for_each(x.shape, |o, i| y[o] += libm::expf(data[i] - largest[o]));
        y.iter_mut().zip(&largest).for_each(|(y, m)| *y = libm::logf(*y) + m);
    }

    fn quantization(&self) -> Quantization {
        Quantization::FloatInside
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn nothing_overflows() {
        let op = Op::from_attrs("ReduceLogSumExp", &Attrs::new().with("axes", Attr::Ints(vec![1])));
        let op = op.unwrap().unwrap();
        let y = run_f32(&op, &[(&[2, 2], &[500., 500., 0., f32::NEG_INFINITY])]);
        assert_near(y.data(), &[500. + 2f32.ln(), 0.]);
        let y = run_f32(&op, &[(&[1, 2], &[f32::NEG_INFINITY; 2])]);
        assert_eq!(y.data::<f32>(), [f32::NEG_INFINITY]);
    }
}
