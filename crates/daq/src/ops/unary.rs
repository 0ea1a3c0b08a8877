//! What functions of one number share: types, the loop, and a macro for those without attributes.

use super::{DType, OpError, Spec, TensorView, TensorViewMut, required};

/// Element types that an operator takes, with their text for errors.
pub(crate) struct Types(pub &'static [DType], pub &'static str);

/// Real numbers, as floats or as codes.
pub(crate) const REALS: Types =
    Types(&[DType::F32, DType::U8, DType::I8], "f32 and 8-bit codes (u8, i8)");

/// Real numbers, and the integers of shape arithmetic.
pub(crate) const NUMBERS: Types = Types(
    &[DType::F32, DType::U8, DType::I8, DType::I32, DType::I64],
    "f32, i32, i64 and 8-bit codes (u8, i8)",
);

/// Real numbers as floats alone.
pub(crate) const FLOATS: Types = Types(&[DType::F32], "f32");

/// Indices and counts.
pub(crate) const INDICES: Types = Types(&[DType::I32, DType::I64], "i32, i64");

/// Integers; bytes count as numbers.
pub(crate) const INTEGERS: Types =
    Types(&[DType::U8, DType::I8, DType::I32, DType::I64], "u8, i8, i32, i64");

impl Types {
    /// Input `index`, where it is of one of the types.
    pub fn input<'a>(&self, inputs: &'a [Option<Spec>], index: usize) -> Result<&'a Spec, OpError> {
        let spec = required(inputs, index)?;
        if self.0.contains(&spec.dtype) {
            return Ok(spec);
        }
        Err(OpError::Type { index, dtype: spec.dtype, allowed: self.1 })
    }
}

/// The elements of an input of [`INDICES`].
pub(crate) fn indices(view: &TensorView) -> Vec<i64> {
    match view.dtype {
        DType::I32 => view.data::<i32>().iter().map(|&i| i.into()).collect(),
        _ => view.data::<i64>().to_vec(),
    }
}

/// Applies `f` to each float.
pub(crate) fn map(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    f: impl Fn(f32) -> f32,
) {
    let x = inputs[0].expect("checked by infer").data::<f32>();
    for (y, &x) in outputs[0].data_mut::<f32>().iter_mut().zip(x) {
        *y = f(x);
    }
}

/// Applies `f` to each integer and wraps the result to the type; `false` for floats.
pub(crate) fn map_integers(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    f: impl Fn(i64) -> i64,
) -> bool {
    let x = inputs[0].expect("checked by infer");
    match x.dtype {
        DType::I32 => {
            for (y, &x) in outputs[0].data_mut::<i32>().iter_mut().zip(x.data::<i32>()) {
                *y = f(x.into()) as i32;
            }
        }
        DType::I64 => {
            for (y, &x) in outputs[0].data_mut::<i64>().iter_mut().zip(x.data::<i64>()) {
                *y = f(x);
            }
        }
        _ => return false,
    }
    true
}

/// Defines an operator without attributes: its documentation, name and function of a float, and
/// that of an integer where it takes those.
macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $real:expr $(, integers: $integer:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name;

        impl Operator for $name {
            const NAME: &'static str = stringify!($name);

            fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
                Ok($name)
            }

            fn to_attrs(&self) -> Attrs {
                Attrs::new()
            }

            fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
                let integers: &[fn(i64) -> i64] = &[$($integer)?];
                let types = if integers.is_empty() { unary::REALS } else { unary::NUMBERS };
                Ok(vec![types.input(inputs, 0)?.clone()])
            }

            fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
                $( if unary::map_integers(inputs, outputs, $integer) {
                    return;
                } )?
                unary::map(inputs, outputs, $real);
            }

            fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
                LayoutRule::Any
            }

            fn quantization(&self) -> Quantization {
                Quantization::Table
            }
        }
    };
}
pub(crate) use unary;

/// What tests of elementwise operators share.
#[cfg(test)]
pub(crate) mod testing {
    use crate::ops::eval::{evaluate, evaluate_plain};
    use crate::ops::*;
    use crate::quant::QuantParams;

    /// A spec of floats.
    pub fn floats(shape: &[usize]) -> Option<Spec> {
        Some(Spec::new(DType::F32, shape))
    }

    /// Asserts that two lists of floats agree to `1e-6` of their size; NaN equals NaN.
    pub fn assert_near(got: &[f32], want: &[f32]) {
        let near = |(g, w): (&f32, &f32)| {
            (g.is_nan() && w.is_nan()) || g == w || (g - w).abs() <= 1e-6 * w.abs()
        };
        let all = got.len() == want.len() && got.iter().zip(want).all(near);
        assert!(all, "got {got:?}\nwant {want:?}");
    }

    /// Runs an operator on floats, each a shape and its elements.
    pub fn run_f32(op: &Op, inputs: &[(&[usize], &[f32])]) -> Tensor {
        let tensors: Vec<_> = inputs.iter().map(|(s, x)| Tensor::from_slice(s, x)).collect();
        let inputs: Vec<_> = tensors.iter().map(Some).collect();
        evaluate_plain(op, &inputs).unwrap().remove(0)
    }

    /// Runs a unary operator on a list of integers.
    pub fn run_i64(op: &Op, inputs: &[&[i64]]) -> Vec<i64> {
        let tensors: Vec<_> = inputs.iter().map(|x| Tensor::from_slice(&[x.len()], x)).collect();
        let inputs: Vec<_> = tensors.iter().map(Some).collect();
        evaluate_plain(op, &inputs).unwrap()[0].data::<i64>().to_vec()
    }

    /// As [`run_i64`], with 32-bit integers.
    pub fn run_i32(op: &Op, inputs: &[&[i32]]) -> Vec<i32> {
        let tensors: Vec<_> = inputs.iter().map(|x| Tensor::from_slice(&[x.len()], x)).collect();
        let inputs: Vec<_> = tensors.iter().map(Some).collect();
        evaluate_plain(op, &inputs).unwrap()[0].data::<i32>().to_vec()
    }

    /// Runs an operator on codes, each a shape, codes, scale and zero point, into codes.
    pub fn run_u8(
        op: &Op,
        inputs: &[(&[usize], &[u8], f32, i32)],
        scale: f32,
        zero_point: i32,
    ) -> Vec<u8> {
        let tensors: Vec<_> = inputs
            .iter()
            .map(|(s, x, scale, zp)| {
                (Tensor::from_slice(s, x), QuantParams::per_tensor(*scale, *zp))
            })
            .collect();
        let inputs: Vec<_> = tensors.iter().map(|(t, q)| Some((t, Some(q)))).collect();
        let outputs = [(DType::U8, QuantParams::per_tensor(scale, zero_point))];
        evaluate(op, &inputs, &outputs).unwrap()[0].data::<u8>().to_vec()
    }

    /// Asserts what a unary operator gives for each float.
    pub fn assert_unary(op: impl Into<Op>, cases: &[(f32, f32)]) {
        let op = op.into();
        let (x, want): (Vec<f32>, Vec<f32>) = cases.iter().copied().unzip();
        let y = run_f32(&op, &[(&[x.len()], &x)]);
        assert_near(y.data(), &want);
        for (got, want) in y.data::<f32>().iter().zip(&want).filter(|(_, w)| **w == 0.0) {
            assert_eq!(got.is_sign_negative(), want.is_sign_negative(), "{got} {want}");
        }
        assert!(op.infer(&[]).is_err());
        assert!(op.infer(&[Some(Spec::new(DType::Bool, &[2]))]).is_err());
        assert_eq!(Op::from_attrs(op.name(), &op.to_attrs()), Some(Ok(op)));
    }
}
