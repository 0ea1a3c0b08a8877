//! Pow: `a^b` with broadcasting. Opsets 7, 12, 13, 15.
//!
//! A square is `a * a`, exactly. Integers wrap; a negative exponent gives the inverse cut to an
//! integer: `1` and `-1` keep their size, all else gives 0. Floats take integer exponents, and integers
//! real ones: that power is cut to an integer, held within the type.

use super::*;
use crate::tensor::Element;

/// ONNX Pow.
#[derive(Clone, Debug, PartialEq)]
pub struct Pow;

fn real(a: f32, b: f32) -> f32 {
    if b == 2.0 { a * a } else { libm::powf(a, b) }
}

fn integer(a: i64, b: i64) -> i64 {
    match (a, b) {
        (1, _) => 1,
        (-1, _) => 1 - 2 * (b & 1),
        (_, b) if b < 0 => 0,
        // An even number to the 64th wraps to 0, and odd ones repeat after 2^62: the low 32 bits
        // of the exponent alone would do neither.
        _ => {
            let (mut result, mut square, mut left) = (1i64, a, b);
            while left > 0 {
                if left & 1 == 1 {
                    result = result.wrapping_mul(square);
                }
                square = square.wrapping_mul(square);
                left >>= 1;
            }
            result
        }
    }
}

/// Integers to real powers.
fn powers<T: Element>(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    f: impl Fn(T, f64) -> T,
) {
    let [a, b] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
    let (x, exponents, shape) = (a.data::<T>(), b.data::<f32>(), outputs[0].shape);
    let y = outputs[0].data_mut::<T>();
    binary::for_each_row(shape, [a.shape, b.shape], |first, len, [(i, di), (j, dj)]| {
        for (k, y) in y[first..first + len].iter_mut().enumerate() {
            *y = f(x[i + k * di], exponents[j + k * dj].into());
        }
    });
}

impl Operator for Pow {
    const NAME: &'static str = "Pow";
    const INPUTS: usize = 2;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Pow)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let mut inputs = inputs.to_vec();
        let base = required(&inputs, 0)?.dtype;
        let (float, whole) = (base == DType::F32, matches!(base, DType::I32 | DType::I64));
        if let (true, Some(Some(exponent))) = (float, inputs.get_mut(1))
            && matches!(exponent.dtype, DType::I32 | DType::I64)
        {
            exponent.dtype = DType::F32;
        }
        if let (true, Some(Some(exponent))) = (whole, inputs.get_mut(1))
            && exponent.dtype == DType::F32
        {
            exponent.dtype = base;
        }
        binary::infer_two(&inputs, unary::NUMBERS)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let exponent = inputs[1].expect("checked by infer");
        match outputs[0].dtype {
            DType::I32 if exponent.dtype == DType::F32 => {
                return powers::<i32>(inputs, outputs, |a, b| libm::pow(a.into(), b) as i32);
            }
            DType::I64 if exponent.dtype == DType::F32 => {
                return powers::<i64>(inputs, outputs, |a, b| libm::pow(a as f64, b) as i64);
            }
            _ => {}
        }
        if outputs[0].dtype != DType::F32 || exponent.dtype == DType::F32 {
            return binary::fold_numbers(inputs, outputs, real, integer);
        }
        let exponent = Tensor::from_slice(exponent.shape, &eval::dequantize(&exponent));
        binary::fold_numbers(&[inputs[0], Some(exponent.view())], outputs, real, integer);
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
    fn floats() {
        let (a, b) = ([2f32, -2., -8., 0., 0., 1.1, 9.], [0.5f32, 2., 0.25, 0., -1., 2., 0.5]);
        let y = run_f32(&Pow.into(), &[(&[7], &a), (&[7], &b)]);
        let want = [std::f32::consts::SQRT_2, 4., f32::NAN, 1., f32::INFINITY, 1.1 * 1.1, 3.];
        assert_near(y.data(), &want);
        let (a, b) = (Tensor::from_slice(&[2], &[1.5f32, -2.]), Tensor::from_slice(&[], &[3i64]));
        let y = eval::evaluate_plain(&Pow.into(), &[Some(&a), Some(&b)]).unwrap();
        assert_eq!(y[0].data::<f32>(), [3.375, -8.]);
    }

    #[test]
    fn integers_and_codes() {
        let y = run_i64(&Pow.into(), &[&[2, -3, 0, 2, 0, 1, -1, -1, 2], &[10, 3, 0, -1, -1, -1, -3, 4, 70]]);
        assert_eq!(y, [1024, -27, 1, 0, 0, 1, -1, 1, 0]);
        assert_eq!(run_i64(&Pow.into(), &[&[3], &[1 << 62]]), [1]);
        assert_eq!(run_i32(&Pow.into(), &[&[2, -3, 7], &[10, 3, -2]]), [1024, -27, 0]);
        // Reals 1, 3, -2 squared at a scale of 0.5.
        let inputs = [(&[3usize][..], &[20u8, 40, 0][..], 0.1, 10), (&[1][..], &[8u8][..], 0.25, 0)];
        let inputs = [(inputs[0].0, &[30u8, 50, 0][..], 0.1, 20), inputs[1]];
        assert_eq!(run_u8(&Pow.into(), &inputs, 0.5, 0), [2, 18, 8]);
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |dtype| Some(Spec::new(dtype, &[2]));
        let op = Op::from(Pow);
        assert!(op.infer(&[spec(DType::I64), spec(DType::I32)]).is_err());
        assert!(op.infer(&[spec(DType::Bool), spec(DType::Bool)]).is_err());
        assert!(op.infer(&[spec(DType::F32)]).is_err());
        assert!(op.infer(&[]).is_err());
    }

    #[test]
    fn integers_to_real_powers() {
        let b = Tensor::from_slice(&[5], &[2f32, 0.5, -1.0, 3.7, 40.0]);
        let a = Tensor::from_slice(&[5], &[-3i32, 10, 2, 2, 2]);
        let y = eval::evaluate_plain(&Pow.into(), &[Some(&a), Some(&b)]).unwrap();
        assert_eq!(y[0].data::<i32>(), [9, 3, 0, 12, i32::MAX]);
        let a = Tensor::from_slice(&[1], &[2i64]);
        let y = eval::evaluate_plain(&Pow.into(), &[Some(&a), Some(&b)]).unwrap();
        assert_eq!(y[0].data::<i64>(), [4, 1, 0, 12, 1 << 40]);
    }
}
