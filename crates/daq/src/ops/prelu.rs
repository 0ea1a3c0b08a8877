//! PRelu: `x`, below zero `slope * x`, the slope broadcast to `x`. Opsets 6, 7, 9, 16.

use super::*;

/// ONNX PRelu.
#[derive(Clone, Debug, PartialEq)]
pub struct PRelu;

impl Operator for PRelu {
    const NAME: &'static str = "PRelu";
    const INPUTS: usize = 2;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(PRelu)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let specs = binary::infer_two(inputs, unary::REALS)?;
        if specs[0].shape != required(inputs, 0)?.shape {
            return Err(shape_error("the slope does not broadcast to the input", inputs));
        }
        Ok(specs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let prelu = |x, slope| if x < 0.0 { slope * x } else { x };
        binary::fold_numbers(inputs, outputs, prelu, |x, _| x);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
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
    fn floats_and_codes() {
        let x = [-1f32, 2., -3., 4., -5., f32::NAN];
        let y = run_f32(&PRelu.into(), &[(&[1, 2, 3], &x), (&[2, 1], &[0.1, 0.5])]);
        assert_near(y.data(), &[-0.1, 2., -0.3, 4., -2.5, f32::NAN]);
        // Reals -1, 2 with a slope of 0.5.
        let inputs = [(&[2usize][..], &[0u8, 30][..], 0.1, 10), (&[1][..], &[2u8][..], 0.25, 0)];
        assert_eq!(run_u8(&PRelu.into(), &inputs, 0.1, 10), [5, 30]);
    }

    #[test]
    fn misfits_are_errors() {
        let op = Op::from(PRelu);
        assert!(op.infer(&[floats(&[3]), floats(&[2, 3])]).is_err());
        assert!(op.infer(&[floats(&[3]), floats(&[2])]).is_err());
        assert!(op.infer(&[floats(&[3])]).is_err());
        let int = Some(Spec::new(DType::I64, &[3]));
        assert!(op.infer(&[int.clone(), int]).is_err());
    }
}
