//! What comparisons and logic of two inputs share: broadcasting, types, and a macro.

use std::cmp::Ordering;

use super::binary::for_each_row;
use super::unary::Types;
use super::*;
use crate::tensor::Element;

/// Numbers that can be compared.
pub(crate) const COMPARABLE: Types =
    Types(&[DType::F32, DType::U8, DType::I8, DType::I32, DType::I64], "f32, u8, i8, i32, i64");

/// The same with truth values, for equality.
pub(crate) const ANYTHING: Types = Types(
    &[DType::F32, DType::U8, DType::I8, DType::I32, DType::I64, DType::Bool],
    "f32, u8, i8, i32, i64, bool",
);

/// Truth values.
pub(crate) const TRUTH: Types = Types(&[DType::Bool], "bool");

/// Two inputs of one type that broadcast; the output is `bool`.
pub(crate) fn infer(inputs: &[Option<Spec>], types: Types) -> Result<Vec<Spec>, OpError> {
    let [_, _] = inputs else {
        return Err(shape_error("takes two inputs", inputs));
    };
    let a = types.input(inputs, 0)?;
    let b = required(inputs, 1)?;
    if b.dtype != a.dtype {
        return Err(OpError::Type { index: 1, dtype: b.dtype, allowed: "the type of input 0" });
    }
    let shape = broadcast(&a.shape, &b.shape)
        .ok_or_else(|| shape_error("the shapes do not broadcast", inputs))?;
    Ok(vec![Spec { dtype: DType::Bool, shape }])
}

/// `f` of how each two elements compare, which for a NaN is not at all.
pub(crate) fn order(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    f: fn(Option<Ordering>) -> bool,
) {
    let dtype = inputs[0].expect("checked by infer").dtype;
    crate::for_any_type!(dtype, T => map::<T>(inputs, outputs, |a, b| f(a.partial_cmp(&b))));
}

/// `f` of each two truth values.
pub(crate) fn logic(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    f: fn(bool, bool) -> bool,
) {
    map::<u8>(inputs, outputs, |a, b| f(a != 0, b != 0));
}

/// `f` of each two elements.
fn map<T: Element>(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    f: impl Fn(T, T) -> bool,
) {
    let [a, b] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
    let shape = outputs[0].shape;
    let (x, y, out) = (a.data::<T>(), b.data::<T>(), outputs[0].data_mut::<u8>());
    for_each_row(shape, [a.shape, b.shape], |first, len, [(i, di), (j, dj)]| {
        for (k, z) in out[first..first + len].iter_mut().enumerate() {
            *z = f(x[i + k * di], y[j + k * dj]).into();
        }
    });
}

/// Defines a comparison: its documentation, name, types, and its function of an [`order`] or of
/// truth values ([`logic`]). Codes are compared as they are.
macro_rules! compare {
    ($(#[$doc:meta])* $name:ident, $types:ident, $map:ident, $f:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name;

        impl Operator for $name {
            const NAME: &'static str = stringify!($name);
            const INPUTS: usize = 2;

            fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
                Ok($name)
            }

            fn to_attrs(&self) -> Attrs {
                Attrs::new()
            }

            fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
                compare::infer(inputs, compare::$types)
            }

            fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
                compare::$map(inputs, outputs, $f);
            }

            fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
                LayoutRule::Any
            }
        }
    };
}
pub(crate) use compare;

#[cfg(test)]
mod tests {
    use super::super::eval::evaluate_plain;
    use super::*;

    fn truth(op: impl Into<Op>, a: &Tensor, b: &Tensor) -> Vec<u8> {
        evaluate_plain(&op.into(), &[Some(a), Some(b)]).unwrap()[0].data::<u8>().to_vec()
    }

    #[test]
    fn comparisons() {
        let a = Tensor::from_slice(&[2, 2], &[1f32, 2., f32::NAN, 3.]);
        let b = Tensor::from_slice(&[2], &[2f32, 2.]);
        assert_eq!(truth(Less, &a, &b), [1, 0, 0, 0]);
        assert_eq!(truth(LessOrEqual, &a, &b), [1, 1, 0, 0]);
        assert_eq!(truth(Greater, &a, &b), [0, 0, 0, 1]);
        assert_eq!(truth(GreaterOrEqual, &a, &b), [0, 1, 0, 1]);
        assert_eq!(truth(Equal, &a, &b), [0, 1, 0, 0]);
        let (a, b) = (Tensor::scalar(-1i64), Tensor::from_slice(&[3], &[-2i64, -1, 1 << 40]));
        assert_eq!(truth(Less, &a, &b), [0, 0, 1]);
        assert_eq!(truth(Equal, &a, &b), [0, 1, 0]);
    }

    #[test]
    fn logic() {
        let a = Tensor::from_bytes(DType::Bool, &[4], &[0, 0, 1, 1]);
        let b = Tensor::from_bytes(DType::Bool, &[4], &[0, 1, 0, 1]);
        assert_eq!(truth(And, &a, &b), [0, 0, 0, 1]);
        assert_eq!(truth(Or, &a, &b), [0, 1, 1, 1]);
        assert_eq!(truth(Xor, &a, &b), [0, 1, 1, 0]);
        assert_eq!(truth(Equal, &a, &b), [1, 0, 0, 1]);
        let y = evaluate_plain(&Not.into(), &[Some(&a)]).unwrap();
        assert_eq!(y[0].data::<u8>(), [1, 1, 0, 0]);
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |dtype, n| Some(Spec::new(dtype, &[n]));
        let (f, i, b) = (DType::F32, DType::I64, DType::Bool);
        for inputs in [
            vec![],
            vec![spec(f, 2)],
            vec![spec(f, 2), None],
            vec![spec(f, 2), spec(f, 3)],
            vec![spec(f, 2), spec(i, 2)],
            vec![spec(b, 2), spec(b, 2)],
        ] {
            assert!(Op::from(Less).infer(&inputs).is_err(), "{inputs:?}");
        }
        assert!(Op::from(And).infer(&[spec(f, 2), spec(f, 2)]).is_err());
        assert!(Op::from(Not).infer(&[spec(f, 2)]).is_err());
    }
}
