//! BitShift: `a << b` or `a >> b` of each two unsigned integers, with broadcasting. Opset 11.

use super::*;

/// ONNX BitShift of `u8`. A shift by 8 or more gives 0.
#[derive(Clone, Debug, PartialEq)]
pub struct BitShift {
    /// Towards the higher bits.
    pub left: bool,
}

impl Operator for BitShift {
    const NAME: &'static str = "BitShift";
    const INPUTS: usize = 2;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        match attrs.get_str("direction")? {
            Some("LEFT") => Ok(BitShift { left: true }),
            Some("RIGHT") => Ok(BitShift { left: false }),
            other => {
                let found = other.unwrap_or_default();
                Err(OpError::attribute("direction", format!("is `{found}`, not LEFT or RIGHT")))
            }
        }
    }

    fn to_attrs(&self) -> Attrs {
        let direction = if self.left { "LEFT" } else { "RIGHT" };
        Attrs::new().with("direction", Attr::Str(direction.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        binary::infer_two(inputs, unary::Types(&[DType::U8], "u8"))
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let shift: fn(u8, u8) -> u8 = match self.left {
            true => |a, b| a.checked_shl(b.into()).unwrap_or(0),
            false => |a, b| a.checked_shr(b.into()).unwrap_or(0),
        };
        binary::fold(inputs, outputs, shift);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }
}
