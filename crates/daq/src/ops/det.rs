//! Det: the determinant of square matrices. Opsets 11, 22.

use super::*;

/// ONNX Det, by elimination with the largest pivot, in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Det;

fn determinant(matrix: &[f32], n: usize) -> f32 {
    let mut m: Vec<f64> = matrix.iter().map(|&x| x.into()).collect();
    let mut det = 1.0;
    for k in 0..n {
        let larger = |a: usize, b: usize| if m[b * n + k].abs() > m[a * n + k].abs() { b } else { a };
        let pivot = (k + 1..n).fold(k, larger);
        if m[pivot * n + k] == 0.0 {
            return 0.0;
        }
        if pivot != k {
            (0..n).for_each(|j| m.swap(pivot * n + j, k * n + j));
            det = -det;
        }
        det *= m[k * n + k];
        for i in k + 1..n {
            let factor = m[i * n + k] / m[k * n + k];
            for j in k..n {
                m[i * n + j] -= factor * m[k * n + j];
            }
        }
    }
    det as f32
}

impl Operator for Det {
    const NAME: &'static str = "Det";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(Det)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::FLOATS.input(inputs, 0)?;
        match &x.shape[..] {
            [lead @ .., a, b] if a == b => Ok(vec![Spec::new(x.dtype, lead)]),
            _ => Err(shape_error("needs square matrices", inputs)),
        }
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let n = x.shape.last().copied().unwrap_or(1);
        let y = outputs[0].data_mut::<f32>();
        // The determinant of nothing is 1.
        y.fill(1.0);
        let matrices = x.data::<f32>().chunks_exact((n * n).max(1));
        y.iter_mut().zip(matrices).for_each(|(y, m)| *y = determinant(m, n));
    }

    fn operations(&self, inputs: &[Option<Spec>], _: &[Spec]) -> u64 {
        let Some(Some(x)) = inputs.first() else { return 0 };
        elements(x).saturating_mul(x.shape.last().copied().unwrap_or(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn determinants() {
        let y = run_f32(&Det.into(), &[(&[2, 2, 2], &[0., 2., 3., 4., 1., 2., 2., 4.])]);
        assert_eq!((y.shape(), y.data::<f32>()), (&[2][..], &[-6., 0.][..]));
        assert!(Op::from(Det).infer(&[floats(&[2, 3])]).is_err());
    }
}
