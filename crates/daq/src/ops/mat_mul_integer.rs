//! MatMulInteger: the product of matrices of 8-bit integers, each less its zero point, in 32 bits.
//! Opset 10. What dynamic quantization makes of MatMul and Gemm.

use daq_kernels::ConvShape;

use super::dense::{sums, transposed};
use super::*;

/// ONNX MatMulInteger. Inputs 2 and 3 are the zero points: one, or for `a` one by row and for `b`
/// one by column.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMulInteger;

/// 8-bit integers.
pub(crate) const BYTES: unary::Types = unary::Types(&[DType::U8, DType::I8], "u8, i8");

/// Checks that a zero point is of the type of input `of` and is one, or `count` along the axis that
/// may have several.
pub(crate) fn check_zero_point(
    inputs: &[Option<Spec>],
    index: usize,
    of: usize,
    count: usize,
) -> Result<(), OpError> {
    let Some(z) = inputs.get(index).and_then(Option::as_ref) else { return Ok(()) };
    if z.dtype != required(inputs, of)?.dtype {
        let allowed = "the type of what it is the zero point of";
        return Err(OpError::Type { index, dtype: z.dtype, allowed });
    }
    let len = z.shape.iter().product::<usize>();
    match len == 1 || len == count && z.shape.iter().filter(|&&n| n != 1).count() == 1 {
        true => Ok(()),
        false => Err(OpError::unsupported(
            format!("zero points of shape {:?}", z.shape),
            format!("use one, or {count} of rank 1"),
        )),
    }
}

/// The zero points of an input; 0 where none is given.
pub(crate) fn zero_points(input: Option<TensorView>) -> Vec<i32> {
    input.map_or(vec![0], |view| eval::codes(&view))
}

impl MatMulInteger {
    /// MatMul's own rules, on floats of the same shapes.
    fn product(inputs: &[Option<Spec>]) -> Result<Vec<usize>, OpError> {
        let float = |i: usize| Ok(Some(Spec::new(DType::F32, &BYTES.input(inputs, i)?.shape)));
        let mut specs = Op::from(MatMul).infer(&[float(0)?, float(1)?])?;
        Ok(specs.remove(0).shape)
    }
}

impl Operator for MatMulInteger {
    const NAME: &'static str = "MatMulInteger";
    const INPUTS: usize = 4;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(MatMulInteger)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let shape = Self::product(inputs)?;
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let rows = if a.shape.len() < 2 { 1 } else { a.shape[a.shape.len() - 2] };
        let columns = if b.shape.len() < 2 { 1 } else { b.shape[b.shape.len() - 1] };
        check_zero_point(inputs, 2, 0, rows)?;
        check_zero_point(inputs, 3, 1, columns)?;
        moves::sized(DType::I32, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [a, b] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
        let input = |i: usize| inputs.get(i).copied().flatten();
        let (az, bz) = (zero_points(input(2)), zero_points(input(3)));
        let depth = a.shape.last().copied().unwrap_or(1);
        let rows = if a.shape.len() < 2 { 1 } else { a.shape[a.shape.len() - 2] };
        let columns = if b.shape.len() < 2 { 1 } else { b.shape[b.shape.len() - 1] };
        let of = |zs: &[i32], i: usize| if zs.len() == 1 { zs[0] } else { zs[i] };
        let (row, column) = ((depth * rows).max(1), columns.max(1));
        let less = |codes: Vec<i32>, z: &dyn Fn(usize) -> i32| -> Vec<i32> {
            codes.into_iter().enumerate().map(|(i, q)| q - z(i)).collect()
        };
        let x = less(eval::codes(&a), &|i| of(&az, i % row / depth));
        let w = less(eval::codes(&b), &|i| of(&bz, i % column));
        // Both stacks of matrices broadcast to the output's.
        let lead = |shape: &[usize]| shape[..shape.len().saturating_sub(2)].to_vec();
        let (a_lead, b_lead) = (lead(a.shape), lead(b.shape));
        let stack = broadcast(&a_lead, &b_lead).expect("checked by infer");
        let y = outputs[0].data_mut::<i32>();
        y.fill(0);
        binary::for_each_row(&stack, [&a_lead, &b_lead], |first, len, [(i, di), (j, dj)]| {
            for k in 0..len {
                let x = &x[(i + k * di) * rows * depth..][..rows * depth];
                let w = &w[(j + k * dj) * depth * columns..][..depth * columns];
                let y = &mut y[(first + k) * rows * columns..][..rows * columns];
                for (r, y) in y.chunks_exact_mut(column).enumerate() {
                    for (d, w) in w.chunks_exact(column).enumerate() {
                        let x = x[r * depth + d];
                        y.iter_mut().zip(w).for_each(|(y, w)| *y = y.wrapping_add(x * w));
                    }
                }
            }
        });
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (a, b) = (compile.input(0)?, compile.constant(1)?);
        let &[k, n] = b.shape() else { return None };
        let zero_points = match compile.input(3) {
            Some(_) => zero_points(Some(compile.constant(3)?.view())),
            None => vec![0],
        };
        let shape = ConvShape::gemm(a.len().checked_div(k)?, k, n);
        sums(compile, shape, &transposed(b, [k, n]), &zero_points)
    }

    fn macs(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        let depth = inputs[0].as_ref().and_then(|s| s.shape.last()).copied().unwrap_or(1);
        outputs.first().map_or(0, elements).saturating_mul(depth as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;
    use crate::ops::pixels::{assert_kernel_is_run, code_noise};

    #[test]
    fn products_less_zero_points() {
        let a = Tensor::from_slice(&[2, 2], &[11u8, 12, 13, 10]);
        let b = Tensor::from_slice(&[2, 2], &[1i8, -1, 2, 0]);
        let one = Tensor::scalar(10u8);
        let rows = Tensor::from_slice(&[2], &[10u8, 11]);
        let columns = Tensor::from_slice(&[2], &[0i8, 1]);
        for (az, bz, want) in [
            (None, None, [35, -11, 33, -13]),
            (Some(&one), None, [5, -1, 3, -3]),
            (Some(&rows), None, [5, -1, 0, -2]),
            (Some(&one), Some(&columns), [5, -4, 3, -6]),
        ] {
            let op = MatMulInteger.into();
            let y = evaluate_plain(&op, &[Some(&a), Some(&b), az, bz]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<i32>()), (&[2, 2][..], &want[..]));
        }
        // A stack of matrices by a vector.
        let a = Tensor::from_slice(&[2, 1, 2], &[1u8, 2, 3, 4]);
        let b = Tensor::from_slice(&[2], &[-1i8, 1]);
        let y = evaluate_plain(&MatMulInteger.into(), &[Some(&a), Some(&b)]).unwrap();
        assert_eq!((y[0].shape(), y[0].data::<i32>()), (&[2, 1][..], &[1, 1][..]));
    }

    #[test]
    fn kernels_equal_the_reference() {
        let b = code_noise(DType::I8, &[70, 33]);
        let unsigned = code_noise(DType::U8, &[70, 33]);
        let (none, one) = (Tensor::scalar(0i8), Tensor::scalar(-7i8));
        let each = code_noise(DType::U8, &[33]);
        for a_shape in [&[5, 70][..], &[2, 3, 70], &[70]] {
            let a = code_noise(DType::U8, a_shape);
            let shape = [&a_shape[..a_shape.len() - 1], &[33]].concat();
            for (b, z) in [(&b, None), (&b, Some(&none)), (&b, Some(&one)), (&unsigned, Some(&each))] {
                for az in [None, Some(&Tensor::scalar(131u8))] {
                    let inputs = [Some(&a), Some(b), az, z].map(|t| t.map(|t| (t, None)));
                    let out = (DType::I32, shape.as_slice(), None);
                    assert_kernel_is_run(&MatMulInteger.into(), &inputs, &[1, 3], out, true);
                }
            }
        }
        let (a, z) = (code_noise(DType::I8, &[5, 70]), Tensor::scalar(3i8));
        let inputs = [Some((&a, None)), Some((&b, None)), Some((&z, None))];
        let out = (DType::I32, &[5, 33][..], None);
        assert_kernel_is_run(&MatMulInteger.into(), &inputs, &[1], out, false);
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |dtype, shape: &[usize]| Some(Spec::new(dtype, shape));
        let (u, i) = (DType::U8, DType::I8);
        let (a, b) = (spec(u, &[2, 3]), spec(i, &[3, 2]));
        for inputs in [
            vec![a.clone(), a.clone()],
            vec![a.clone(), spec(DType::F32, &[3, 2])],
            vec![a.clone(), b.clone(), spec(i, &[])],
            vec![a.clone(), b.clone(), spec(u, &[3])],
            vec![a.clone(), b.clone(), None, spec(i, &[3])],
        ] {
            assert!(Op::from(MatMulInteger).infer(&inputs).is_err(), "{inputs:?}");
        }
    }
}
