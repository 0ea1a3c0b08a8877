//! Clip: `min(max(x, min), max)`, NaN stays. Opsets 1, 6 (attributes), 11, 12, 13 (inputs).

use super::*;

/// ONNX Clip. Floats and codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// The lower bound.
    pub min: Option<f32>,
    /// The upper bound; the stronger where it is below `min`.
    pub max: Option<f32>,
}

impl Clip {
    /// Both bounds, infinite where there is none.
    fn bounds(&self) -> (f32, f32) {
        (self.min.unwrap_or(f32::NEG_INFINITY), self.max.unwrap_or(f32::INFINITY))
    }
}

impl Operator for Clip {
    const NAME: &'static str = "Clip";
    const INPUTS: usize = 3;
    const ATTR_INPUTS: &'static [AttrInput] = &[
        AttrInput { index: 1, name: "min", since: 11 },
        AttrInput { index: 2, name: "max", since: 11 },
    ];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let bound = |name: &str| {
            let value = match attrs.get(name) {
                Some(Attr::Tensor(t)) if t.dtype() == DType::F32 && t.len() == 1 => {
                    Some(t.data::<f32>()[0])
                }
                Some(Attr::Int(v)) => Some(*v as f32),
                _ => attrs.get_float(name)?,
            };
            match value {
                Some(v) if v.is_nan() => Err(OpError::attribute(name, "must be a number")),
                value => Ok(value),
            }
        };
        Ok(Clip { min: bound("min")?, max: bound("max")? })
    }

    fn to_attrs(&self) -> Attrs {
        let attrs = Attrs::new().with_some("min", self.min.map(Attr::Float));
        attrs.with_some("max", self.max.map(Attr::Float))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![unary::REALS.input(inputs, 0)?.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (min, max) = self.bounds();
        unary::map(inputs, outputs, |x| {
            let x = if x < min { min } else { x };
            if x > max { max } else { x }
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn quantization(&self) -> Quantization {
        Quantization::Table
    }

    fn clamp(&self) -> Option<(f32, f32)> {
        let (min, max) = self.bounds();
        (min <= max).then_some((min, max))
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        elementwise::clamp_f32(self.clamp()?, compile)
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn floats() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases = [
            (-inf, -1.0),
            (-3.5, -1.0),
            (-1.0, -1.0),
            (-0.0, -0.0),
            (0.0, 0.0),
            (1.5, 1.5),
            (3.5, 2.0),
            (inf, 2.0),
            (nan, nan),
        ];
        assert_unary(Clip { min: Some(-1.0), max: Some(2.0) }, &cases);
    }

    #[test]
    fn bounds() {
        let clip = |min, max| Clip { min, max };
        assert_unary(clip(None, None), &[(-1e30, -1e30), (f32::INFINITY, f32::INFINITY)]);
        assert_unary(clip(Some(0.0), None), &[(-1.0, 0.0), (9.0, 9.0)]);
        // The upper bound wins, and nobody may fuse such a pair.
        assert_unary(clip(Some(2.0), Some(1.0)), &[(0.0, 1.0), (1.5, 1.0), (3.0, 1.0)]);
        assert_eq!(clip(Some(2.0), Some(1.0)).clamp(), None);
        assert_eq!(clip(Some(0.0), Some(6.0)).clamp(), Some((0.0, 6.0)));
        assert_eq!(clip(None, None).clamp(), Some((f32::NEG_INFINITY, f32::INFINITY)));
    }

    #[test]
    fn attributes() {
        let of = |value| Clip::from_attrs(&Attrs::new().with("max", value));
        let six = Clip { min: None, max: Some(6.0) };
        assert_eq!(of(Attr::Float(6.0)).as_ref(), Ok(&six));
        assert_eq!(of(Attr::Tensor(Tensor::scalar(6f32))).as_ref(), Ok(&six));
        assert!(of(Attr::Float(f32::NAN)).is_err());
        assert!(of(Attr::Tensor(Tensor::from_slice(&[2], &[1f32, 2.]))).is_err());
        let op: Op = six.into();
        assert!(op.infer(&[Some(Spec::new(DType::I64, &[2]))]).is_err());
    }

    #[test]
    fn codes() {
        // Reals -1, 3, 7 to 0, 3, 6.
        let x = (&[3usize][..], &[0u8, 40, 80][..], 0.1, 10);
        let op = Clip { min: Some(0.0), max: Some(6.0) };
        assert_eq!(run_u8(&op.into(), &[x], 0.05, 0), [0, 60, 120]);
    }
}
