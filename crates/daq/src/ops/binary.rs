//! What functions of two numbers share: broadcasting, types, the loop, and a macro.

use super::unary::Types;
use super::{DType, OpError, Spec, Tensor, TensorView, TensorViewMut, broadcast, shape_error};
use crate::quant::QuantParams;
use crate::tensor::Element;

/// Calls `f(first output element, length, [(first element, step) of each operand])` for each row
/// of the last axis. The operands' shapes must broadcast to `output`.
pub(crate) fn for_each_row<const N: usize>(
    output: &[usize],
    operands: [&[usize]; N],
    mut f: impl FnMut(usize, usize, [(usize, usize); N]),
) {
    rows(output, operands, &mut f);
}

/// As [`for_each_row`], compiled once for all functions.
fn rows<const N: usize>(
    output: &[usize],
    operands: [&[usize]; N],
    f: &mut dyn FnMut(usize, usize, [(usize, usize); N]),
) {
    let (row, outer) = output.split_last().map_or((1, &[][..]), |(&row, outer)| (row, outer));
    let rows: usize = outer.iter().product();
    if row == 0 {
        return;
    }
    // Steps by output axis: 0 where an operand repeats.
    let steps = operands.map(|shape| {
        let mut steps = vec![0; output.len()];
        let mut step = 1;
        for (s, &dim) in steps.iter_mut().rev().zip(shape.iter().rev()) {
            *s = if dim == 1 { 0 } else { step };
            step *= dim;
        }
        steps
    });
    let mut index = vec![0; outer.len()];
    for r in 0..rows {
        let operand = |i: usize| {
            let first = index.iter().zip(&steps[i]).map(|(x, step)| x * step).sum();
            (first, steps[i].last().copied().unwrap_or(0))
        };
        f(r * row, row, std::array::from_fn(operand));
        for (x, &dim) in index.iter_mut().zip(outer).rev() {
            *x += 1;
            if *x < dim {
                break;
            }
            *x = 0;
        }
    }
}

/// Folds the broadcast inputs with `f`, from the first to the last.
pub(crate) fn fold<T: Element>(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    f: impl Fn(T, T) -> T,
) {
    let shape = outputs[0].shape;
    let out = outputs[0].data_mut::<T>();
    for (n, view) in inputs.iter().enumerate() {
        let view = view.expect("checked by infer");
        let x = view.data::<T>();
        for_each_row(shape, [view.shape], |first, len, [(i, step)]| {
            for (k, y) in out[first..first + len].iter_mut().enumerate() {
                let x = x[i + k * step];
                *y = if n == 0 { x } else { f(*y, x) };
            }
        });
    }
}

/// Folds floats with `real`, or integers with `integer` and the result wrapped to the type.
pub(crate) fn fold_numbers(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    real: impl Fn(f32, f32) -> f32,
    integer: impl Fn(i64, i64) -> i64,
) {
    match outputs[0].dtype {
        DType::I32 => fold(inputs, outputs, |a: i32, b: i32| integer(a.into(), b.into()) as i32),
        DType::I64 => fold(inputs, outputs, integer),
        _ => fold(inputs, outputs, real),
    }
}

/// The broadcast of all inputs, which must be of one of `types` and of one type. Floats and codes
/// may meet; the output is float where an input is, else of input 0's type.
pub(crate) fn infer(inputs: &[Option<Spec>], types: Types) -> Result<Spec, OpError> {
    let real = |dtype: DType| dtype == DType::F32 || dtype.is_code();
    let mut output = types.input(inputs, 0)?.clone();
    for index in 1..inputs.len() {
        let Spec { dtype, shape } = types.input(inputs, index)?;
        if *dtype != output.dtype && !(real(*dtype) && real(output.dtype)) {
            let allowed = "the type of input 0";
            return Err(OpError::Type { index, dtype: *dtype, allowed });
        }
        if *dtype == DType::F32 {
            output.dtype = DType::F32;
        }
        output.shape = broadcast(&output.shape, shape)
            .ok_or_else(|| shape_error("the shapes do not broadcast", inputs))?;
    }
    Ok(output)
}

/// As [`infer`], for one input or more.
pub(crate) fn infer_many(inputs: &[Option<Spec>], types: Types) -> Result<Vec<Spec>, OpError> {
    Ok(vec![infer(inputs, types)?])
}

/// As [`infer`], for exactly two inputs.
pub(crate) fn infer_two(inputs: &[Option<Spec>], types: Types) -> Result<Vec<Spec>, OpError> {
    match inputs {
        [_, _] => Ok(vec![infer(inputs, types)?]),
        _ if inputs.len() < 2 => Err(OpError::MissingInput { index: inputs.len() }),
        _ => Err(shape_error("takes two inputs", inputs)),
    }
}

/// The quantization of two inputs and the output, where all three are 8-bit codes.
pub(crate) fn quants<'a>(
    inputs: &[Option<TensorView<'a>>],
    outputs: &[TensorViewMut<'a>],
) -> Option<[&'a QuantParams; 3]> {
    let (a, b) = (inputs[0]?, inputs[1]?);
    let codes = [a.dtype, b.dtype, outputs[0].dtype].iter().all(|dtype| dtype.is_code());
    if codes { Some([a.quant?, b.quant?, outputs[0].quant?]) } else { None }
}

/// `f` over two broadcast operands of codes. `f` gives codes within the output's range.
pub(crate) fn map_codes(
    inputs: &[Option<TensorView>],
    outputs: &mut [TensorViewMut],
    f: impl Fn(i32, i32) -> i32,
) {
    let wide = |view: TensorView| Tensor::from_slice(view.shape, &super::eval::codes(&view));
    let [a, b] = [0, 1].map(|i| wide(inputs[i].expect("checked by infer")));
    let shape = outputs[0].shape;
    let (x, y, out) = (a.data::<i32>(), b.data::<i32>(), &mut *outputs[0].bytes);
    for_each_row(shape, [a.shape(), b.shape()], |first, len, [(i, di), (j, dj)]| {
        for (k, z) in out[first..first + len].iter_mut().enumerate() {
            // The low byte is the code, of either sign.
            *z = f(x[i + k * di], y[j + k * dj]) as u8;
        }
    });
}

/// The lowest and highest code of a type.
pub(crate) fn code_range(dtype: DType) -> (i32, i32) {
    if dtype == DType::I8 { (-128, 127) } else { (0, 255) }
}

/// Defines an operator without attributes: its documentation, name, how many inputs it takes
/// (`infer_two` or `infer_many`), its function of two floats and of two integers, and the kernel for
/// floats where there is one. Between codes it is computed in float.
macro_rules! binary {
    ($(#[$doc:meta])* $name:ident, $infer:ident, $real:expr, integers: $integer:expr
        $(, kernel: $kernel:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name;

        impl Operator for $name {
            const NAME: &'static str = stringify!($name);
            // `infer` says how many.
            const INPUTS: usize = usize::MAX;

            fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
                Ok($name)
            }

            fn to_attrs(&self) -> Attrs {
                Attrs::new()
            }

            fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
                binary::$infer(inputs, unary::NUMBERS)
            }

            fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
                binary::fold_numbers(inputs, outputs, $real, $integer);
            }

            fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
                LayoutRule::Any
            }

            fn quantization(&self) -> Quantization {
                Quantization::FloatInside
            }

            $( fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
                elementwise::binary_f32($kernel, compile)
            } )?
        }
    };
}
pub(crate) use binary;

/// Defines an operator on the bits of integers: its documentation, name and function.
macro_rules! bitwise {
    ($(#[$doc:meta])* $name:ident, $f:expr) => {
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
                let mut outputs = compare::infer(inputs, unary::INTEGERS)?;
                outputs[0].dtype = required(inputs, 0)?.dtype;
                Ok(outputs)
            }

            fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
                match outputs[0].dtype {
                    DType::I32 => binary::fold::<i32>(inputs, outputs, $f),
                    DType::I64 => binary::fold::<i64>(inputs, outputs, $f),
                    DType::I8 => binary::fold::<i8>(inputs, outputs, $f),
                    _ => binary::fold::<u8>(inputs, outputs, $f),
                }
            }

            fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
                LayoutRule::Any
            }
        }
    };
}
pub(crate) use bitwise;

#[cfg(test)]
mod tests {
    use super::super::unary::testing::*;
    use super::super::*;

    #[test]
    fn operands_broadcast_both_ways() {
        let op: Op = Sub.into();
        let (column, row) = ([10f32, 20.], [1f32, 2., 3.]);
        let y = run_f32(&op, &[(&[2, 1], &column), (&[3], &row)]);
        assert_eq!((y.shape(), y.data::<f32>()), (&[2, 3][..], &[9., 8., 7., 19., 18., 17.][..]));
        // A channel vector over [1, 2, 2, 2] and a middle axis that repeats.
        let x: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let y = run_f32(&op, &[(&[1, 2, 2, 2], &x), (&[2, 1, 1], &[0.5, 1.5])]);
        assert_eq!(y.data::<f32>(), [-0.5, 0.5, 1.5, 2.5, 2.5, 3.5, 4.5, 5.5]);
        let y = run_f32(&op, &[(&[2, 1, 2], &x[..4]), (&[1, 2, 1], &x[..2])]);
        assert_eq!(y.data::<f32>(), [0., 1., -1., 0., 2., 3., 1., 2.]);
        let y = run_f32(&op, &[(&[], &[5.]), (&[], &[3.])]);
        assert_eq!((y.shape(), y.data::<f32>()), (&[][..], &[2.][..]));
        let y = run_f32(&op, &[(&[0, 2], &[]), (&[2], &[1., 2.])]);
        assert_eq!((y.shape(), y.len()), (&[0, 2][..], 0));
    }

    #[test]
    fn codes_and_floats_meet() {
        // Reals 1 and 5, with 0.5.
        let x = Tensor::from_slice(&[2], &[20u8, 60]);
        let half = Tensor::from_slice(&[1], &[0.5f32]);
        let quant = crate::QuantParams::per_tensor(0.1, 10);
        let inputs = [Some((&x, Some(&quant))), Some((&half, None))];
        let cases: [(Op, [f32; 2], [u8; 2]); 7] = [
            (Add.into(), [1.5, 5.5], [25, 65]),
            (Sub.into(), [0.5, 4.5], [15, 55]),
            (Mul.into(), [0.5, 2.5], [15, 35]),
            (Div.into(), [2., 10.], [30, 110]),
            (Max.into(), [1., 5.], [20, 60]),
            (PRelu.into(), [1., 5.], [20, 60]),
            (Pow.into(), [1., 5f32.sqrt()], [20, 32]),
        ];
        for (op, real, codes) in cases {
            let y = eval::evaluate(&op, &inputs, &[]).unwrap();
            assert_near(y[0].data(), &real);
            let y = eval::evaluate(&op, &inputs, &[(DType::U8, quant.clone())]).unwrap();
            assert_eq!(y[0].data::<u8>(), codes, "{}", op.name());
        }
        // Plain bytes without a scale count as they are.
        let y = eval::evaluate_plain(&Sub.into(), &[Some(&x), Some(&half)]).unwrap();
        assert_eq!(y[0].data::<f32>(), [19.5, 59.5]);
    }

    #[test]
    fn misfits_are_errors() {
        let op: Op = Sub.into();
        let shape = Spec::new(DType::I64, &[2]);
        let int = Some(shape.clone());
        let truth = Some(Spec::new(DType::Bool, &[2]));
        for inputs in [
            vec![],
            vec![floats(&[2])],
            vec![floats(&[2]), None],
            vec![floats(&[2]), floats(&[3])],
            vec![floats(&[2]), int.clone()],
            vec![int.clone(), floats(&[2])],
            vec![truth.clone(), truth],
            vec![floats(&[2]), floats(&[2]), floats(&[2])],
        ] {
            assert!(op.infer(&inputs).is_err(), "{inputs:?}");
        }
        assert_eq!(op.infer(&[int.clone(), int.clone()]), Ok(vec![shape]));
    }
}
