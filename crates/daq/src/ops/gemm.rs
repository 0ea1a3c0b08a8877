//! Gemm: `y = alpha * a * b + beta * c`, `a` and `b` transposed where asked. Opsets 1, 6, 7, 9, 11
//! (`c` optional), 13.
//!
//! Floats, in this order: `acc = beta * c`, then `acc = fma(a[k], alpha * b[k], acc)` for each `k`.
//! Codes (alpha and beta 1): `rne(f32(c + sum((a - za) * (b - zb))) * (sa * sb / sc)) + zc`.

use daq_kernels::ConvShape;

use super::dense::{Dense, check_types, permuted, scales, transposed};
use super::eval::{codes, quant, store_sum};
use super::moves::{sized, strides};
use super::*;
use crate::quant::requantize_multipliers;

/// ONNX Gemm.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of `c`.
    pub beta: f32,
    /// Whether `a` is `[k, m]`.
    pub trans_a: bool,
    /// Whether `b` is `[n, k]`.
    pub trans_b: bool,
}

/// Rows, depth and columns.
#[derive(Clone, Copy)]
struct Size {
    m: usize,
    k: usize,
    n: usize,
}

impl Gemm {
    fn size(&self, a: &[usize], b: &[usize]) -> Option<Size> {
        let (&[a0, a1], &[b0, b1]) = (a, b) else { return None };
        let (m, k) = if self.trans_a { (a1, a0) } else { (a0, a1) };
        let (depth, n) = if self.trans_b { (b1, b0) } else { (b0, b1) };
        (k == depth).then_some(Size { m, k, n })
    }

    /// Where element `(k, n)` of `b` lies.
    fn b_at(&self, s: Size, k: usize, n: usize) -> usize {
        if self.trans_b { n * s.k + k } else { k * s.n + n }
    }
}

/// Strides of `c` over rows and columns.
fn c_strides(shape: &[usize]) -> [usize; 2] {
    let mut of = [0; 2];
    for (i, (&n, stride)) in shape.iter().zip(strides(shape)).enumerate() {
        of[i + 2 - shape.len()] = if n == 1 { 0 } else { stride };
    }
    of
}

impl Operator for Gemm {
    const NAME: &'static str = "Gemm";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Gemm {
            alpha: attrs.float("alpha", 1.0)?,
            beta: attrs.float("beta", 1.0)?,
            trans_a: attrs.flag("transA", false)?,
            trans_b: attrs.flag("transB", false)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with_some("alpha", (self.alpha != 1.0).then_some(Attr::Float(self.alpha)))
            .with_some("beta", (self.beta != 1.0).then_some(Attr::Float(self.beta)))
            .with_some("transA", self.trans_a.then_some(Attr::Int(1)))
            .with_some("transB", self.trans_b.then_some(Attr::Int(1)))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        check_types(inputs)?;
        let misfit = || shape_error("a and b must be matrices that fit", inputs);
        let Size { m, n, .. } = self.size(&a.shape, &b.shape).ok_or_else(misfit)?;
        if let Some(Some(c)) = inputs.get(2)
            && broadcast(&c.shape, &[m, n]).as_deref() != Some(&[m, n])
        {
            return Err(shape_error(format!("c must broadcast to [{m}, {n}]"), inputs));
        }
        if a.dtype == DType::U8 && (self.alpha != 1.0 || self.beta != 1.0) {
            let remedy = "fold the factors into the weights and the bias";
            return Err(OpError::unsupported("Gemm on codes with alpha or beta", remedy));
        }
        sized(a.dtype, vec![m, n], inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (a, b) = (inputs[0].expect("checked by infer"), inputs[1].expect("checked by infer"));
        let (c, y) = (inputs.get(2).copied().flatten(), &mut outputs[0]);
        let s = self.size(a.shape, b.shape).expect("checked by infer");
        let a_at = |m: usize, k: usize| if self.trans_a { k * s.m + m } else { m * s.k + k };
        let [row, column] = c.map_or([0; 2], |c| c_strides(c.shape));
        let elements = (0..s.m).flat_map(|m| (0..s.n).map(move |n| (m, n)));
        if a.dtype == DType::F32 {
            let (a, b, c) = (a.data::<f32>(), b.data::<f32>(), c.map(|c| c.data::<f32>()));
            for (y, (m, n)) in y.data_mut::<f32>().iter_mut().zip(elements) {
                *y = c.map_or(0.0, |c| self.beta * c[m * row + n * column]);
                for k in 0..s.k {
                    *y = a[a_at(m, k)].mul_add(self.alpha * b[self.b_at(s, k, n)], *y);
                }
            }
            return;
        }
        let (aq, bq) = (quant(&a), quant(&b));
        let multipliers = requantize_multipliers(aq, bq, y.code_quant(), s.n);
        let (a, b, c) = (codes(&a), codes(&b), c.map(|c| c.data::<i32>()));
        for (at, (m, n)) in elements.enumerate() {
            let mut acc = c.map_or(0, |c| c[m * row + n * column]);
            for k in 0..s.k {
                let b = b[self.b_at(s, k, n)] - bq.zero_point_of(n);
                acc = acc.wrapping_add((a[a_at(m, k)] - aq.zero_point[0]) * b);
            }
            store_sum(y, at, acc, multipliers[n]);
        }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Weighted
    }

    fn macs(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        let depth = |a: &Spec| a.shape.get(!self.trans_a as usize).copied().unwrap_or(0);
        let depth = required(inputs, 0).map_or(0, depth);
        outputs.iter().flat_map(|y| &y.shape).fold(depth as u64, |n, &d| n.saturating_mul(d as u64))
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (a, b) = (compile.input(0)?, compile.input(1)?);
        let s = self.size(a.shape, b.shape)?;
        let weights = compile.constant(1).filter(|_| !self.trans_a)?;
        let shape = ConvShape::gemm(s.m, s.k, s.n);
        let mut weights = match self.trans_b {
            true => weights.reshaped(&[s.n, s.k]),
            false => transposed(weights, [s.k, s.n]),
        };
        let scaled = |t: &Tensor, factor: f32| {
            let data: Vec<f32> = t.data::<f32>().iter().map(|&v| factor * v).collect();
            Tensor::from_slice(t.shape(), &data)
        };
        if weights.dtype() == DType::F32 {
            weights = scaled(&weights, self.alpha);
        }
        let bias = match compile.input(2) {
            None => None,
            Some(c) => {
                let [row, column] = c_strides(c.shape);
                let c = compile.constant(2).filter(|_| row == 0)?;
                let c = permuted(c, &[s.n], |n| n * column);
                Some(if c.dtype() == DType::F32 { scaled(&c, self.beta) } else { c })
            }
        };
        let (multipliers, zero_points) = scales(compile, s.n);
        Dense {
            shape,
            weights: &weights,
            bias: bias.as_ref(),
            multipliers: &multipliers,
            weight_zero_points: zero_points,
        }
        .compile(compile)
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;
    use crate::QuantParams;
    use crate::ops::pixels::{assert_kernel_is_run, code_noise, noise};

    fn gemm(alpha: f32, beta: f32, trans_a: bool, trans_b: bool) -> Gemm {
        let op = Gemm { alpha, beta, trans_a, trans_b };
        assert_eq!(Gemm::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    #[test]
    fn products_with_factors() {
        let a = Tensor::from_slice(&[2, 2], &[1f32, 2., 3., 4.]);
        let b = Tensor::from_slice(&[2, 2], &[5f32, 6., 7., 8.]);
        let c = Tensor::from_slice(&[2], &[10f32, 20.]);
        let column = Tensor::from_slice(&[2, 1], &[10f32, 20.]);
        for (op, c, expected) in [
            (gemm(1.0, 1.0, false, false), None, [19., 22., 43., 50.]),
            (gemm(1.0, 1.0, true, false), None, [26., 30., 38., 44.]),
            (gemm(1.0, 1.0, false, true), Some(&c), [27., 43., 49., 73.]),
            (gemm(0.5, 2.0, false, false), Some(&c), [29.5, 51., 41.5, 65.]),
            (gemm(1.0, 1.0, false, false), Some(&column), [29., 32., 63., 70.]),
        ] {
            let y = evaluate_plain(&op.clone().into(), &[Some(&a), Some(&b), c]).unwrap();
            assert_eq!(y[0].data::<f32>(), expected, "{op:?}");
        }
    }

    #[test]
    fn codes_follow_the_requantize_rule() {
        let a = Tensor::from_slice(&[1, 2], &[3u8, 5]);
        let b = Tensor::from_slice(&[2, 2], &[1i8, -2, 3, 4]);
        let c = Tensor::from_slice(&[2], &[4i32, 1]);
        let (aq, bq) =
            (QuantParams::per_tensor(0.5, 1), QuantParams::per_channel(vec![0.25, 0.5], 1));
        let inputs = [Some((&a, Some(&aq))), Some((&b, Some(&bq))), Some((&c, None))];
        let out = [(DType::U8, QuantParams::per_tensor(0.25, 10))];
        let y = evaluate(&gemm(1.0, 1.0, false, false).into(), &inputs, &out).unwrap();
        // (2 * 1 + 4 * 3 + 4) * 0.5 = 9; (2 * -2 + 4 * 4 + 1) * 1 = 13.
        assert_eq!(y[0].data::<u8>(), [19, 23]);
        // 18 * 0.125; 13 * 0.25, at its own scale.
        let out = [(DType::F32, QuantParams::per_tensor(0.25, 10))];
        let y = evaluate(&gemm(1.0, 1.0, false, false).into(), &inputs, &out).unwrap();
        assert_eq!(y[0].data::<f32>(), [2.25, 3.25]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        for (m, k, n) in [(1, 64, 10), (5, 33, 17), (1, 3, 1), (40, 16, 48)] {
            for trans_b in [false, true] {
                let b_shape = if trans_b { [n, k] } else { [k, n] };
                let (a, b, c) = (noise(&[m, k]), noise(&b_shape), noise(&[n]));
                let inputs = [Some((&a, None)), Some((&b, None)), Some((&c, None))];
                let op: Op = gemm(0.3, 1.7, false, trans_b).into();
                let out = (DType::F32, &[m, n][..], None);
                assert_kernel_is_run(&op, &inputs, &[1, 2], out, true);
                assert_kernel_is_run(&op, &inputs, &[2], out, false);
                let xq = QuantParams::per_tensor(0.021, 113);
                let scales = (1..=n).map(|c| c as f32 * 1e-3).collect();
                let wq = QuantParams::per_channel(scales, !trans_b as usize);
                let yq = QuantParams::per_tensor(0.31, 9);
                let (a, b) = (code_noise(DType::U8, &[m, k]), code_noise(DType::I8, &b_shape));
                let c = Tensor::from_slice(&[1, 1], &[4711i32]);
                let inputs = [Some((&a, Some(&xq))), Some((&b, Some(&wq))), Some((&c, None))];
                let op: Op = gemm(1.0, 1.0, false, trans_b).into();
                let out = (DType::U8, &[m, n][..], Some(&yq));
                assert_kernel_is_run(&op, &inputs, &[1, 2], out, true);
                let out = (DType::F32, &[m, n][..], None);
                assert_kernel_is_run(&op, &inputs, &[1, 2], out, true);
            }
        }
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |dtype, shape: &[usize]| Some(Spec::new(dtype, shape));
        let (f, u) = (DType::F32, DType::U8);
        let a = spec(f, &[2, 3]);
        for (op, inputs) in [
            (gemm(1.0, 1.0, false, false), vec![a.clone(), spec(f, &[2, 3])]),
            (gemm(1.0, 1.0, false, false), vec![a.clone(), spec(f, &[3])]),
            (gemm(1.0, 1.0, false, false), vec![a.clone(), spec(f, &[3, 4]), spec(f, &[2])]),
            (gemm(1.0, 1.0, false, false), vec![a.clone(), spec(u, &[3, 4])]),
            (gemm(2.0, 1.0, false, false), vec![spec(u, &[2, 3]), spec(u, &[3, 4])]),
            (gemm(1.0, 1.0, false, false), vec![a, None]),
        ] {
            assert!(op.infer(&inputs).is_err(), "{inputs:?}");
        }
    }
}
