//! ArgMin: the index of the smallest element along one axis. Opsets 1, 11, 12 (last index), 13.
//! See ArgMax, which has the same attributes.

use super::*;

/// ONNX ArgMin. The output is `i64`.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgMin(
    /// The axis and which of equal elements.
    pub ArgMax,
);

impl Operator for ArgMin {
    const NAME: &'static str = "ArgMin";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        ArgMax::from_attrs(attrs).map(ArgMin)
    }

    fn to_attrs(&self) -> Attrs {
        self.0.to_attrs()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        self.0.infer(inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        self.0.select(inputs, outputs, true);
    }

    fn layout(&self, inputs: &[Option<Spec>]) -> LayoutRule {
        self.0.layout(inputs)
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        ArgMin(self.0.to_channels_last(rank))
    }

    fn quantization(&self) -> Quantization {
        Quantization::Codes
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn the_smallest() {
        for (last, want) in [(false, [1i64, 0]), (true, [2, 0])] {
            let op = ArgMax { axis: 1, keepdims: false, select_last_index: last };
            let y = run_f32(&ArgMin(op).into(), &[(&[2, 3], &[4., -1., -1., 0., 1., 2.])]);
            assert_eq!((y.shape(), y.data::<i64>()), (&[2][..], &want[..]));
        }
    }
}
