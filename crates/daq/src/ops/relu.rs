//! Relu: `max(x, 0)`; NaN and -0 stay. Opsets 6, 13, 14.

use super::*;

/// ONNX Relu. Floats and codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Relu;

impl Operator for Relu {
    const NAME: &'static str = "Relu";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Relu)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        unary::map(inputs, outputs, |x| if x < 0.0 { 0.0 } else { x });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::Table
    }

    fn clamp(&self) -> Option<(f32, f32)> {
        Some((0.0, f32::INFINITY))
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        elementwise::clamp_f32((0.0, f32::INFINITY), compile)
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats_and_codes() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [(-inf, 0.0), (-0.5, 0.0), (-0.0, -0.0), (0.5, 0.5), (inf, inf), (nan, nan)];
        assert_unary(Relu, &cases);
        // Reals -1, 0, 2.
        let x = (&[3usize][..], &[0u8, 10, 30][..], 0.1, 10);
        assert_eq!(run_u8(&Relu.into(), &[x], 0.05, 0), [0, 0, 40]);
    }
}
