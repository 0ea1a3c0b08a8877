//! Hardmax: 1 at the first largest element along one axis, 0 elsewhere. Opset 13; see Softmax for
//! older ones.

use super::*;
use softmax::SoftmaxAxis;

/// ONNX Hardmax.
#[derive(Clone, Debug, PartialEq)]
pub struct Hardmax(
    /// Where it runs.
    pub SoftmaxAxis,
);

impl Operator for Hardmax {
    const NAME: &'static str = "Hardmax";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        SoftmaxAxis::from_attrs(attrs).map(Hardmax)
    }

    fn to_attrs(&self) -> Attrs {
        self.0.to_attrs()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        self.0.infer(inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let axis = normalize_axis(self.0.axis, x.shape.len()).expect("checked by infer");
        let (len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
        let (x, y) = (x.data::<f32>(), outputs[0].data_mut::<f32>());
        y.fill(0.0);
        for start in (0..x.len()).step_by((len * inner).max(1)) {
            for first in start..start + inner {
                let larger = |best, i| if x[i] > x[best] { i } else { best };
                y[(1..len).map(|k| first + k * inner).fold(first, larger)] = 1.0;
            }
        }
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        Hardmax(self.0.to_channels_last(rank))
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
    fn the_first_largest() {
        let x = [1f32, 3., 3., 5., 0., 2.];
        for (axis, want) in [(1, [0., 1., 0., 1., 0., 0.]), (0, [0., 1., 1., 1., 0., 0.])] {
            let y = run_f32(&Hardmax(SoftmaxAxis { axis }).into(), &[(&[2, 3], &x)]);
            assert_eq!(y.data::<f32>(), want);
        }
    }
}
