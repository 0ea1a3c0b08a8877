//! Softmax: `exp(x) / sum(exp(x))` along one axis. Opsets 1, 11, 13.
//!
//! Before opset 13 the sum ran over `axis` (1 by default) and all axes behind it.

use super::*;

/// ONNX Softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax(
    /// Where it runs.
    pub SoftmaxAxis,
);

/// Where Softmax and LogSoftmax run.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxAxis {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Over that axis and all behind it: the form before opset 13. As an attribute it is named
    /// `flatten`, which ONNX does not know; its newer sets write a Reshape instead.
    pub flatten: bool,
}

impl SoftmaxAxis {
    pub(crate) fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let old = attrs.opset < 13;
        let axis = attrs.int("axis", if old { 1 } else { -1 })?;
        // At the last axis both forms are the same.
        let flatten = axis != -1 && attrs.flag("flatten", old)?;
        Ok(SoftmaxAxis { axis, flatten })
    }

    pub(crate) fn to_attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("axis", Attr::Int(self.axis));
        attrs.with_some("flatten", self.flatten.then_some(Attr::Int(1)))
    }

    /// The axis from the front. The old form may name the end of the shape, too.
    fn of(&self, rank: usize) -> Result<usize, OpError> {
        if self.flatten && self.axis == rank as i64 {
            return Ok(rank);
        }
        normalize_axis(self.axis, rank)
    }

    pub(crate) fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::REALS.input(inputs, 0)?;
        self.of(x.shape.len())?;
        Ok(vec![x.clone()])
    }

    pub(crate) fn layout(&self) -> LayoutRule {
        if self.flatten { LayoutRule::Plain } else { LayoutRule::Any }
    }

    pub(crate) fn to_channels_last(&self, rank: usize) -> Self {
        SoftmaxAxis { axis: channels_last_axis(self.axis, rank), ..self.clone() }
    }

    /// Subtracts the largest element; then the sum of exponentials divides them, or its logarithm
    /// is subtracted. The sum is taken in order.
    pub(crate) fn run(
        &self,
        inputs: &[Option<TensorView>],
        outputs: &mut [TensorViewMut],
        logarithm: bool,
    ) {
        let x = inputs[0].expect("checked by infer");
        let axis = self.of(x.shape.len()).expect("checked by infer");
        let (len, inner) = match self.flatten {
            true => (x.shape[axis..].iter().product(), 1),
            false => (x.shape[axis], x.shape[axis + 1..].iter().product()),
        };
        let (x, y) = (x.data::<f32>(), outputs[0].data_mut::<f32>());
        for start in (0..x.len()).step_by((len * inner).max(1)) {
            for first in start..start + inner {
                let row = || (0..len).map(|k| first + k * inner);
                let largest = row().fold(f32::NEG_INFINITY, |m, i| if x[i] > m { x[i] } else { m });
                let mut sum = 0.0;
                for i in row() {
                    let power = libm::expf(x[i] - largest);
                    sum += power;
                    y[i] = if logarithm { x[i] - largest } else { power };
                }
                let log = libm::logf(sum);
                row().for_each(|i| if logarithm { y[i] -= log } else { y[i] /= sum });
            }
        }
    }
}

impl Operator for Softmax {
    const NAME: &'static str = "Softmax";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        SoftmaxAxis::from_attrs(attrs).map(Softmax)
    }

    fn to_attrs(&self) -> Attrs {
        self.0.to_attrs()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        self.0.infer(inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        self.0.run(inputs, outputs, false);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        self.0.layout()
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        Softmax(self.0.to_channels_last(rank))
    }

    fn quantization(&self) -> Quantization {
        Quantization::FloatInside
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    fn op(axis: Option<i64>, opset: i64) -> Op {
        let attrs = Attrs { opset, ..Attrs::new() };
        Softmax::from_attrs(&attrs.with_some("axis", axis.map(Attr::Int))).unwrap().into()
    }

    const X: [f32; 6] = [1., 2., 3., 0., 0., 0.];

    #[test]
    fn axes_and_opsets() {
        let third = 1.0 / 3.0;
        let rows = [0.09003057, 0.244_728_48, 0.665_240_94, third, third, third];
        let columns = [0.7310586, 0.880_797, 0.95257413, 0.268_941_43, 0.119_202_92, 0.047_425_874];
        let whole = [0.081_893_54, 0.222_609_73, 0.605_115_95, 0.030_126_95, 0.030_126_95, 0.030_126_95];
        for (axis, opset, shape, want) in [
            (None, 13, &[2, 3][..], rows),
            (Some(1), 17, &[2, 3], rows),
            (Some(0), 13, &[2, 3], columns),
            (Some(-2), 13, &[1, 2, 3], columns),
            (None, 11, &[2, 3], rows),
            (None, 11, &[2, 3, 1, 1], rows),
            (None, 11, &[1, 2, 3], whole),
            (Some(-2), 12, &[1, 2, 3], whole),
            (Some(0), 9, &[2, 3], whole),
        ] {
            let op = op(axis, opset);
            let y = run_f32(&op, &[(shape, &X)]);
            assert_near(y.data(), &want);
            assert_eq!(Op::from_attrs("Softmax", &op.to_attrs()), Some(Ok(op)));
        }
    }

    #[test]
    fn extremes() {
        let nan = f32::NAN;
        let x = [1000., 0., f32::NEG_INFINITY, 1., nan, 2.];
        let y = run_f32(&op(None, 13), &[(&[2, 3], &x)]);
        assert_near(y.data(), &[1., 0., 0., nan, nan, nan]);
        assert_eq!(run_f32(&op(None, 13), &[(&[2, 0], &[])]).len(), 0);
    }

    #[test]
    fn codes() {
        // Reals 0, 0, 1: e^0 / (2 + e) = 0.2119, 0.5761, times 256 = 54.3, 147.5 (147.489).
        let x = (&[1usize, 3][..], &[5u8, 5, 15][..], 0.1, 5);
        assert_eq!(run_u8(&op(None, 13), &[x], 1.0 / 256.0, 0), [54, 54, 147]);
    }

    #[test]
    fn channels_last_moves_the_axis() {
        assert_eq!(op(Some(1), 13).to_channels_last(4), op(Some(3), 13));
        assert_eq!(op(Some(-1), 13).to_channels_last(4), op(Some(2), 13));
        assert_eq!(op(Some(1), 13).layout(&[]), LayoutRule::Any);
        assert_eq!(op(Some(1), 12).layout(&[]), LayoutRule::Plain);
    }

    #[test]
    fn misfits_are_errors() {
        assert!(op(Some(2), 13).infer(&[floats(&[2, 3])]).is_err());
        assert!(op(Some(3), 9).infer(&[floats(&[2, 3])]).is_err());
        assert!(op(None, 13).infer(&[floats(&[])]).is_err());
        assert!(op(None, 13).infer(&[Some(Spec::new(DType::I64, &[2]))]).is_err());
        assert!(op(None, 13).infer(&[]).is_err());
    }
}
