//! Reshape: the same elements under another shape. Opsets 1 (attribute), 5, 13, 14 (`allowzero`).

use super::moves::{copy, ints, sized};
use super::*;

/// ONNX Reshape with a constant shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    /// The new shape; -1 (at most once) for what remains, 0 for the input's axis of that place.
    pub shape: Vec<i64>,
    /// Whether 0 means an empty axis instead.
    pub allow_zero: bool,
}

impl Operator for Reshape {
    const NAME: &'static str = "Reshape";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "shape", since: 5 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let shape = attrs.get_ints("shape")?;
        Ok(Reshape {
            shape: shape.ok_or_else(|| OpError::attribute("shape", "is missing"))?,
            allow_zero: attrs.flag("allowzero", false)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("shape", ints(self.shape.iter().copied()))
            .with_some("allowzero", self.allow_zero.then_some(Attr::Int(1)))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        sized(x.dtype, x.shape.clone(), inputs)?;
        let bad = |why: &str| Err(shape_error(format!("{:?}: {why}", self.shape), inputs));
        let mut shape = Vec::with_capacity(self.shape.len());
        let mut open = None;
        for (i, &n) in self.shape.iter().enumerate() {
            shape.push(match n {
                -1 if open.is_some() => return bad("more than one -1"),
                -1 => {
                    open = Some(i);
                    1
                }
                0 if !self.allow_zero => match x.shape.get(i) {
                    Some(&n) => n,
                    None => return bad("a 0 beyond the input's rank"),
                },
                n if n < 0 => return bad("a negative axis"),
                n => n as usize,
            });
        }
        let total: usize = x.shape.iter().product();
        let known = shape.iter().try_fold(1usize, |p, &n| p.checked_mul(n));
        let Some(known) = known else { return bad("too many elements") };
        match open {
            Some(_) if known == 0 || !total.is_multiple_of(known) => {
                return bad(&format!("{total} elements cannot be divided"));
            }
            Some(i) => shape[i] = total / known,
            None if known != total => return bad(&format!("the input has {total} elements")),
            None => {}
        }
        sized(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        copy(inputs, outputs);
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }

    fn is_view(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn shapes_resolve_or_are_refused() {
        let x = Tensor::from_slice(&[2, 3, 4], &(0..24).collect::<Vec<i32>>());
        let empty = Tensor::zeros(DType::U8, &[0, 3]);
        for (x, shape, allow_zero, expected) in [
            (&x, vec![4, 6], false, Some(vec![4, 6])),
            (&x, vec![0, -1], false, Some(vec![2, 12])),
            (&x, vec![-1], false, Some(vec![24])),
            (&x, vec![2, 0, 2, -1], false, Some(vec![2, 3, 2, 2])),
            (&x, vec![-1, 5], false, None),
            (&x, vec![-1, -1], false, None),
            (&x, vec![24, 1, 1, 0], false, None),
            (&x, vec![-2, 12], false, None),
            (&x, vec![i64::MAX, i64::MAX], false, None),
            (&x, vec![0, -1], true, None),
            (&empty, vec![3, 0], true, Some(vec![3, 0])),
            (&empty, vec![0, 3], false, Some(vec![0, 3])),
        ] {
            let attrs = Attrs::new()
                .with("shape", ints(shape.clone()))
                .with("allowzero", Attr::Int(allow_zero.into()));
            let op = Reshape::from_attrs(&attrs).unwrap();
            assert_eq!(Reshape::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = evaluate_plain(&op.into(), &[Some(x)]).ok();
            let found = y.as_ref().map(|y| y[0].shape().to_vec());
            assert_eq!(found, expected, "{shape:?}");
            assert!(y.is_none_or(|y| y[0].bytes() == x.bytes()));
        }
    }
}
