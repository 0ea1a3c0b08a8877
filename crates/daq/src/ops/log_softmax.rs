//! LogSoftmax: `x - ln(sum(exp(x)))` along one axis. Opset 13; see Softmax for older ones.

use super::*;
use softmax::SoftmaxAxis;

/// ONNX LogSoftmax.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSoftmax(
    /// Where it runs.
    pub SoftmaxAxis,
);

impl Operator for LogSoftmax {
    const NAME: &'static str = "LogSoftmax";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        SoftmaxAxis::from_attrs(attrs).map(LogSoftmax)
    }

    fn to_attrs(&self) -> Attrs {
        self.0.to_attrs()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        self.0.infer(inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        self.0.run(inputs, outputs, true);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        LogSoftmax(self.0.to_channels_last(rank))
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
    fn floats() {
        let op: Op = LogSoftmax::from_attrs(&Attrs::new()).unwrap().into();
        let y = run_f32(&op, &[(&[2, 3], &[1., 2., 3., 0., 0., -1000.])]);
        let half = -std::f32::consts::LN_2;
        let want = [-2.407_606, -1.407_605_9, -0.407_605_95, half, half, -1000.6931];
        assert_near(y.data(), &want);
        assert_eq!(Op::from_attrs("LogSoftmax", &op.to_attrs()), Some(Ok(op)));
    }
}
