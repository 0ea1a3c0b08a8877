//! Mod: the remainder of a division, with broadcasting. Opsets 10, 13.
//!
//! It has the sign of the divisor, or with `fmod` that of the dividend; by the integer 0 it is 0.

use super::*;

/// ONNX Mod.
#[derive(Clone, Debug, PartialEq)]
pub struct Mod {
    /// Whether the remainder has the sign of the dividend, as C's `fmod`.
    pub fmod: bool,
}

fn floored(a: f32, b: f32) -> f32 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}

fn floored_integers(a: i64, b: i64) -> i64 {
    let rest = a.checked_rem(b).unwrap_or(0);
    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
}

impl Operator for Mod {
    const NAME: &'static str = "Mod";
    const INPUTS: usize = 2;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Mod { fmod: attrs.flag("fmod", false)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("fmod", Attr::Int(self.fmod.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let specs = binary::infer_two(inputs, unary::NUMBERS)?;
        if !self.fmod && specs[0].dtype == DType::F32 {
            return Err(OpError::attribute("fmod", "must be 1 for floats"));
        }
        Ok(specs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        match self.fmod {
            true => {
                let integers = |a: i64, b: i64| a.checked_rem(b).unwrap_or(0);
                binary::fold_numbers(inputs, outputs, |a, b| a % b, integers);
            }
            false => binary::fold_numbers(inputs, outputs, floored, floored_integers),
        }
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
    fn signs() {
        let inputs: [&[i64]; 2] = [&[-4, 7, 5, 4, -7, 8, 3, i64::MIN], &[2, -3, 8, -2, 3, 5, 0, -1]];
        assert_eq!(run_i64(&Mod { fmod: false }.into(), &inputs), [0, -2, 5, 0, 2, 3, 0, 0]);
        assert_eq!(run_i64(&Mod { fmod: true }.into(), &inputs), [0, 1, 5, 0, -1, 3, 0, 0]);
        let (a, b) = ([-4.3f32, 7.2, 5.0], [2.1f32, -3.4, 8.0]);
        let y = run_f32(&Mod { fmod: true }.into(), &[(&[3], &a), (&[3], &b)]);
        let near = y.data::<f32>().iter().zip([-0.1f32, 0.4, 5.0]);
        assert!(near.into_iter().all(|(y, want)| (y - want).abs() < 1e-6), "{y:?}");
        assert_eq!(floored(-4.0, 3.0), 2.0);
        let op = Op::from(Mod { fmod: false });
        assert!(op.infer(&[floats(&[2]), floats(&[2])]).is_err());
        assert_eq!(Op::from_attrs("Mod", &op.to_attrs()), Some(Ok(op)));
    }
}
