//! Cast: elements as another type. Opsets 6, 9, 13, 19.
//!
//! Floats become integers towards zero; what does not fit in 32 bits (64 for `i64`), and NaN,
//! becomes the lowest such integer. Integers then wrap to narrower types. All but 0 is true.

use super::*;
use crate::for_any_type;

/// ONNX Cast.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast {
    /// The type to cast to.
    pub to: DType,
}

/// ONNX's numbers of the types.
const TYPES: [(i64, DType); 6] = [
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (6, DType::I32),
    (7, DType::I64),
    (9, DType::Bool),
];

fn truncate(x: f32, to: DType) -> i64 {
    let half = if to == DType::I64 { 2f32.powi(63) } else { 2f32.powi(31) };
    if x >= -half && x < half { x as i64 } else { -half as i64 }
}

/// Elements on their way to a type that is not a float.
#[expect(clippy::unnecessary_cast, reason = "one arm of many types casts i64 to itself")]
fn integers(x: &TensorView, to: DType) -> Vec<i64> {
    match x.dtype {
        DType::F32 if to == DType::Bool => {
            x.data::<f32>().iter().map(|&x| (x != 0.0).into()).collect()
        }
        DType::F32 => x.data::<f32>().iter().map(|&x| truncate(x, to)).collect(),
        _ => for_any_type!(x.dtype, T => x.data::<T>().iter().map(|&x| x as i64).collect()),
    }
}

impl Operator for Cast {
    const NAME: &'static str = "Cast";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let number = attrs.get_int("to")?;
        let number = number.ok_or_else(|| OpError::attribute("to", "is missing"))?;
        // Of types that daq does not have.
        attrs.int("saturate", 1)?;
        attrs.get_str("round_mode")?;
        match TYPES.iter().find(|(n, _)| *n == number) {
            Some(&(_, to)) => Ok(Cast { to }),
            None => Err(OpError::unsupported(
                format!("a cast to ONNX type {number}"),
                "cast to float, uint8, int8, int32, int64 or bool, or export the model in float32",
            )),
        }
    }

    fn to_attrs(&self) -> Attrs {
        let (number, _) = TYPES.iter().find(|(_, t)| *t == self.to).expect("every type is listed");
        Attrs::new().with("to", Attr::Int(*number))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        Ok(vec![Spec { dtype: self.to, shape: required(inputs, 0)?.shape.clone() }])
    }

    #[expect(clippy::unnecessary_cast, reason = "one arm of many types casts f32 to itself")]
    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let y = &mut outputs[0];
        if x.dtype == y.dtype {
            return y.bytes.copy_from_slice(x.bytes);
        }
        if y.dtype == DType::F32 {
            let y = y.data_mut::<f32>();
            for_any_type!(x.dtype, T => {
                y.iter_mut().zip(x.data::<T>()).for_each(|(y, &x)| *y = x as f32);
            });
            return;
        }
        let to = y.dtype;
        let integers = integers(&x, to);
        if to == DType::Bool {
            let truth = integers.iter().map(|&x| (x != 0).into());
            return y.bytes.iter_mut().zip(truth).for_each(|(y, truth): (_, u8)| *y = truth);
        }
        for_any_type!(to, T => {
            y.data_mut::<T>().iter_mut().zip(&integers).for_each(|(y, &x)| *y = x as T);
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Element;

    fn cast(x: &Tensor, to: DType) -> Tensor {
        eval::evaluate_plain(&Cast { to }.into(), &[Some(x)]).unwrap().remove(0)
    }

    fn check<A: Element, B: Element>(to: DType, x: &[A], want: &[B]) {
        let y = cast(&Tensor::from_slice(&[x.len()], x), to);
        assert_eq!(y, Tensor::from_bytes(to, &[x.len()], bytemuck::cast_slice(want)), "{x:?} {y:?}");
    }

    #[test]
    fn floats() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let (low, lowest) = (i32::MIN, i64::MIN);
        check(DType::I32, &[1.9f32, -1.9, 3e9, -3e9, nan, inf], &[1, -1, low, low, low, low]);
        let long = [1, -1, 3_000_000_000, lowest, lowest, lowest];
        check(DType::I64, &[1.9f32, -1.9, 3e9, 1e20, nan, -inf], &long);
        let wide = [1.9f32, -1.9, 255.9, 256., 300., -300., nan, inf, 1e10];
        check(DType::U8, &wide, &[1u8, 255, 255, 0, 44, 212, 0, 0, 0]);
        check(DType::I8, &wide, &[1i8, -1, -1, 0, 44, -44, 0, 0, 0]);
        check(DType::Bool, &[0f32, -0.0, 0.1, nan], &[0u8, 0, 1, 1]);
        check(DType::F32, &[0.5f32, -2.], &[0.5f32, -2.]);
    }

    #[test]
    fn integers() {
        check(DType::I32, &[1i64, -1, (1 << 40) + 5, 1 << 31], &[1, -1, 5, i32::MIN]);
        check(DType::U8, &[1i64, -1, 300], &[1u8, 255, 44]);
        check(DType::I64, &[200u8], &[200i64]);
        check(DType::I64, &[-5i8], &[-5i64]);
        check(DType::F32, &[-5i32, 1 << 24], &[-5f32, 16_777_216.]);
        check(DType::Bool, &[0i64, -7, 256, 1 << 40], &[0u8, 1, 1, 1]);
        let truth = Tensor::from_bytes(DType::Bool, &[2], &[1, 0]);
        assert_eq!(cast(&truth, DType::F32).data::<f32>(), [1., 0.]);
        assert_eq!(cast(&truth, DType::I64).data::<i64>(), [1, 0]);
    }

    #[test]
    fn attributes() {
        for (number, to) in TYPES {
            let op = Cast::from_attrs(&Attrs::new().with("to", Attr::Int(number))).unwrap();
            assert_eq!(op, Cast { to });
            assert_eq!(Cast::from_attrs(&op.to_attrs()), Ok(op));
        }
        let half = Cast::from_attrs(&Attrs::new().with("to", Attr::Int(10)));
        assert!(matches!(half, Err(OpError::Unsupported { .. })));
        assert!(Cast::from_attrs(&Attrs::new()).is_err());
        assert!(Cast { to: DType::I64 }.infer(&[]).is_err());
    }
}
