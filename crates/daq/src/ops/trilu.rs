//! Trilu: the upper or lower triangle of matrices, the rest 0. Opset 14.

use super::moves::sized;
use super::*;
use crate::for_any_type;

/// ONNX Trilu with a constant diagonal.
#[derive(Clone, Debug, PartialEq)]
pub struct Trilu {
    /// Whether the part above the diagonal stays, else that below.
    pub upper: bool,
    /// The diagonal: 0 the main one, 1 the one above it. It stays in both parts.
    pub k: i64,
}

impl Operator for Trilu {
    const NAME: &'static str = "Trilu";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "k", since: 14 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Trilu { upper: attrs.flag("upper", true)?, k: attrs.int("k", 0)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("upper", Attr::Int(self.upper.into())).with("k", Attr::Int(self.k))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        if x.shape.len() < 2 {
            return Err(shape_error("needs matrices", inputs));
        }
        sized(x.dtype, x.shape.clone(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let [.., rows, columns] = x.shape else { return };
        for_any_type!(x.dtype, T => {
            let pairs = outputs[0].data_mut::<T>().iter_mut().zip(x.data::<T>());
            for (i, (y, &x)) in pairs.enumerate() {
                let (row, column) = (i / columns % rows, i % columns);
                let above = (column as i64).saturating_sub(row as i64).saturating_sub(self.k);
                let stays = if self.upper { above >= 0 } else { above <= 0 };
                *y = if stays { x } else { T::default() };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn triangles() {
        let x = [1f32, 2., 3., 4., 5., 6.];
        for (upper, k, want) in [
            (true, 0, [1., 2., 3., 0., 5., 6.]),
            (false, 0, [1., 0., 0., 4., 5., 0.]),
            (true, 1, [0., 2., 3., 0., 0., 6.]),
            (false, -1, [0., 0., 0., 4., 0., 0.]),
            (false, i64::MAX, x),
            (true, i64::MIN, x),
        ] {
            let op = Trilu { upper, k };
            let y = run_f32(&op.clone().into(), &[(&[1, 2, 3], &x)]);
            assert_eq!(y.data::<f32>(), want, "{op:?}");
            assert_eq!(Trilu::from_attrs(&op.to_attrs()), Ok(op));
        }
        assert!(Trilu { upper: true, k: 0 }.infer(&[floats(&[3])]).is_err());
        assert!(Trilu { upper: true, k: 0 }.infer(&[]).is_err());
    }
}
