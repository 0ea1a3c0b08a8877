//! MatMul: products of the matrices in the last two axes, the axes before them broadcast; a vector
//! is a row on the left and a column on the right. Opsets 1, 9, 13.
//!
//! Floats: `acc = 0.0`, then `acc = fma(a[k], b[k], acc)` for each `k` in order. Codes:
//! `rne(f32(sum((a - za) * (b - zb))) * (sa * sb / sc)) + zc`.

use daq_kernels::{ConvShape, matmul_f32};

use super::dense::{Dense, check_types, scales, transposed};
use super::eval::{codes, quant, store_sum};
use super::moves::{rows_per_task, sized};
use super::pixels::compiled;
use super::*;
use crate::quant::requantize_multipliers;

/// ONNX MatMul.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMul;

/// The products of two inputs: for each, which matrix of `a` and which of `b`.
#[derive(Clone)]
struct Products {
    m: usize,
    k: usize,
    n: usize,
    pairs: Vec<(usize, usize)>,
    /// The output's shape.
    shape: Vec<usize>,
}

/// The most products of one MatMul: a plan keeps a list of them.
const MAX_BATCH: usize = 1 << 16;

impl Products {
    fn new(a: &[usize], b: &[usize]) -> Option<Self> {
        let (a_batch, m, k) = match a {
            [] => return None,
            [k] => (&[][..], 1, *k),
            [batch @ .., m, k] => (batch, *m, *k),
        };
        let (b_batch, depth, n) = match b {
            [] => return None,
            [k] => (&[][..], *k, 1),
            [batch @ .., k, n] => (batch, *k, *n),
        };
        let batch = broadcast(a_batch, b_batch)?;
        let count = batch.iter().try_fold(1usize, |p, &d| p.checked_mul(d))?;
        if k != depth || count > MAX_BATCH {
            return None;
        }
        // The matrix of one input for product `i`.
        let matrix = |of: &[usize], mut i: usize| {
            let (mut index, mut stride) = (0, 1);
            for (axis, &dim) in batch.iter().enumerate().rev() {
                let position = i % dim;
                i /= dim;
                if let Some(own) = (axis + of.len()).checked_sub(batch.len()) {
                    index += if of[own] == 1 { 0 } else { position * stride };
                    stride *= of[own];
                }
            }
            index
        };
        let pairs = (0..count).map(|i| (matrix(a_batch, i), matrix(b_batch, i))).collect();
        let mut shape = batch.clone();
        shape.extend((a.len() > 1).then_some(m));
        shape.extend((b.len() > 1).then_some(n));
        Some(Products { m, k, n, pairs, shape })
    }
}

impl Operator for MatMul {
    const NAME: &'static str = "MatMul";
    const INPUTS: usize = 2;

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(MatMul)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        check_types(inputs)?;
        if inputs.len() > 2 {
            return Err(shape_error("takes two inputs", inputs));
        }
        sized(a.dtype, vec![], inputs)?;
        let products = Products::new(&a.shape, &b.shape);
        let misfit = || shape_error("the matrices do not fit one another", inputs);
        sized(a.dtype, products.ok_or_else(misfit)?.shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (a, b) = (inputs[0].expect("checked by infer"), inputs[1].expect("checked by infer"));
        let y = &mut outputs[0];
        let Products { m, k, n, pairs, .. } =
            Products::new(a.shape, b.shape).expect("checked by infer");
        if y.is_empty() {
            return;
        }
        if a.dtype == DType::F32 {
            let (a, b) = (a.data::<f32>(), b.data::<f32>());
            for (y, (i, j)) in y.data_mut::<f32>().chunks_exact_mut(m * n).zip(pairs) {
                let (a, b) = (&a[i * m * k..][..m * k], &b[j * k * n..][..k * n]);
                for (at, y) in y.iter_mut().enumerate() {
                    let a = &a[at / n * k..][..k];
                    *y = (0..k).fold(0.0, |acc, p| a[p].mul_add(b[p * n + at % n], acc));
                }
            }
            return;
        }
        let (aq, bq) = (quant(&a), quant(&b));
        let multipliers = requantize_multipliers(aq, bq, y.code_quant(), n);
        let (a, b) = (codes(&a), codes(&b));
        for (product, (i, j)) in pairs.into_iter().enumerate() {
            let (a, b) = (&a[i * m * k..][..m * k], &b[j * k * n..][..k * n]);
            for at in 0..m * n {
                let (a, column) = (&a[at / n * k..][..k], at % n);
                let (za, zb) = (aq.zero_point[0], bq.zero_point_of(column));
                let add = |acc: i32, p: usize| {
                    acc.wrapping_add((a[p] - za) * (b[p * n + column] - zb))
                };
                let acc = (0..k).fold(0, add);
                store_sum(y, product * m * n + at, acc, multipliers[column]);
            }
        }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Weighted
    }

    fn macs(&self, inputs: &[Option<Spec>], _: &[Spec]) -> u64 {
        let (Ok(a), Ok(b)) = (required(inputs, 0), required(inputs, 1)) else { return 0 };
        let size = |p: Products| p.pairs.len() as u64 * (p.m * p.n) as u64 * p.k as u64;
        Products::new(&a.shape, &b.shape).map_or(0, size)
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (a, b) = (compile.input(0)?, compile.input(1)?);
        let Products { m, k, n, pairs, .. } = Products::new(a.shape, b.shape)?;
        if let (Some(weights), 2) = (compile.constant(1), b.shape.len()) {
            let shape = ConvShape::gemm(pairs.len() * m, k, n);
            let weights = &transposed(weights, [k, n]);
            let (multipliers, zero_points) = scales(compile, n);
            let multipliers = &multipliers;
            return Dense { shape, weights, bias: None, multipliers, weight_zero_points: zero_points }
                .compile(compile);
        }
        if a.dtype != DType::F32 || compile.clamp.is_some() || m * n * pairs.len() == 0 {
            return None;
        }
        let isa = compile.isa;
        compiled("matmul_f32", move |inputs, y, pool| {
            let a = inputs[0].expect("checked by infer").data::<f32>();
            let b = inputs[1].expect("checked by infer").data::<f32>();
            // Whole products where there are several, else rows of the one.
            let rows = if pairs.len() > 1 { m } else { rows_per_task(pool, m, n * k).min(m) };
            pool.for_each_chunk(y.data_mut::<f32>(), rows * n, |task, y| {
                let (product, first) = (task * rows / m, task * rows % m);
                let (i, j) = pairs[product];
                let count = y.len() / n;
                let a = &a[(i * m + first) * k..][..count * k];
                matmul_f32(count, k, n, a, &b[j * k * n..][..k * n], y, isa);
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;
    use crate::QuantParams;
    use crate::ops::pixels::{assert_kernel_is_run, code_noise, noise};

    #[test]
    fn matrices_vectors_and_batches() {
        let t = |shape: &[usize], data: &[f32]| Tensor::from_slice(shape, data);
        let square = t(&[2, 2], &[1., 2., 3., 4.]);
        for (a, b, shape, data) in [
            (square.clone(), t(&[2, 1], &[5., 6.]), vec![2, 1], vec![17., 39.]),
            (square.clone(), t(&[2], &[5., 6.]), vec![2], vec![17., 39.]),
            (t(&[2], &[5., 6.]), square.clone(), vec![2], vec![23., 34.]),
            (t(&[2], &[5., 6.]), t(&[2], &[1., 2.]), vec![], vec![17.]),
            (
                t(&[2, 1, 1, 2], &[1., 2., 3., 4.]),
                t(&[3, 2, 1], &[1., 0., 0., 1., 1., 1.]),
                vec![2, 3, 1, 1],
                vec![1., 2., 3., 3., 4., 7.],
            ),
            (t(&[0, 2], &[]), square.clone(), vec![0, 2], vec![]),
        ] {
            let y = evaluate_plain(&MatMul.into(), &[Some(&a), Some(&b)]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<f32>()), (&shape[..], &data[..]));
        }
    }

    #[test]
    fn codes_follow_the_requantize_rule() {
        let a = Tensor::from_slice(&[1, 2], &[3u8, 5]);
        let b = Tensor::from_slice(&[2, 1], &[12u8, 9]);
        let (aq, bq) = (QuantParams::per_tensor(0.5, 1), QuantParams::per_tensor(0.25, 10));
        let out = [(DType::U8, QuantParams::per_tensor(0.0625, 7))];
        let y = evaluate(&MatMul.into(), &[Some((&a, Some(&aq))), Some((&b, Some(&bq)))], &out);
        // 2 * 2 - 4 * 1 = 0.
        assert_eq!(y.unwrap()[0].data::<u8>(), [7]);
        let a = Tensor::from_slice(&[1, 2], &[6u8, 5]);
        let y = evaluate(&MatMul.into(), &[Some((&a, Some(&aq))), Some((&b, Some(&bq)))], &out);
        // 5 * 2 - 4 * 1 = 6, times 2.
        assert_eq!(y.unwrap()[0].data::<u8>(), [19]);
        let out = [(DType::F32, QuantParams::per_tensor(1.0, 0))];
        let y = evaluate(&MatMul.into(), &[Some((&a, Some(&aq))), Some((&b, Some(&bq)))], &out);
        assert_eq!(y.unwrap()[0].data::<f32>(), [0.75]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        for (a_shape, b_shape, shape) in [
            (vec![5, 33], vec![33, 17], vec![5, 17]),
            (vec![2, 3, 16], vec![16, 48], vec![2, 3, 48]),
            (vec![2, 1, 7, 9], vec![3, 9, 5], vec![2, 3, 7, 5]),
            (vec![70, 64], vec![64, 65], vec![70, 65]),
        ] {
            let (a, b) = (noise(&a_shape), noise(&b_shape));
            let inputs = [Some((&a, None)), Some((&b, None))];
            let out = (DType::F32, shape.as_slice(), None);
            for constant in [&[1][..], &[]] {
                assert_kernel_is_run(&MatMul.into(), &inputs, constant, out, true);
            }
            let xq = QuantParams::per_tensor(0.021, 113);
            let wq = QuantParams::per_tensor(0.003, 0);
            let yq = QuantParams::per_tensor(0.31, 9);
            let (a, b) = (code_noise(DType::U8, &a_shape), code_noise(DType::I8, &b_shape));
            let inputs = [Some((&a, Some(&xq))), Some((&b, Some(&wq)))];
            let out = (DType::U8, shape.as_slice(), Some(&yq));
            assert_kernel_is_run(&MatMul.into(), &inputs, &[1], out, b_shape.len() == 2);
            let out = (DType::F32, shape.as_slice(), None);
            assert_kernel_is_run(&MatMul.into(), &inputs, &[1], out, b_shape.len() == 2);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |shape: &[usize]| Some(Spec::new(DType::F32, shape));
        for (a, b) in [
            (vec![2, 3], vec![2, 3]),
            (vec![], vec![2]),
            (vec![2, 1, 3], vec![3, 3, 1]),
            (vec![1 << 16, 1], vec![1, 1 << 16]),
        ] {
            assert!(MatMul.infer(&[spec(&a), spec(&b)]).is_err(), "{a:?} {b:?}");
        }
    }
}
