//! Transpose: `y[i_perm[0], i_perm[1], ...] = x[i_0, i_1, ...]`. Opsets 1, 13, 21.

use super::moves::{MoveKernel, Moves, ints, moved, normalize_axes, strides};
use super::*;

/// ONNX Transpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    /// The input axis of each output axis; `None` for the reverse order.
    pub perm: Option<Vec<i64>>,
}

impl Transpose {
    fn perm(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        match &self.perm {
            None => Ok((0..rank).rev().collect()),
            Some(perm) if perm.len() == rank && perm.iter().all(|&p| p >= 0) => {
                normalize_axes(perm, rank)
            }
            Some(perm) => {
                Err(OpError::attribute("perm", format!("{perm:?} does not fit rank {rank}")))
            }
        }
    }

    fn moves(&self, shape: &[usize]) -> Moves {
        let perm = self.perm(shape.len()).expect("checked by infer");
        let strides = strides(shape);
        let pick = |of: &[usize]| perm.iter().map(|&p| of[p]).collect::<Vec<_>>();
        Moves::strided(&pick(shape), &pick(&strides))
    }
}

impl Operator for Transpose {
    const NAME: &'static str = "Transpose";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Transpose { perm: attrs.get_ints("perm")? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with_some("perm", self.perm.clone().map(ints))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        let perm = self.perm(x.shape.len())?;
        moved(x.dtype, perm.iter().map(|&p| x.shape[p]).collect(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        self.moves(x.shape).run(x.dtype.size(), 0, x.bytes, outputs[0].bytes, None);
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let moves = self.moves(compile.input(0)?.shape);
        compile.clamp.is_none().then(|| Box::new(MoveKernel { moves, fill: 0 }) as _)
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn axes_change_places() {
        let x = Tensor::from_slice(&[2, 1, 3], &[1i32, 2, 3, 4, 5, 6]);
        for (perm, shape, data) in [
            (None, [3, 1, 2], [1, 4, 2, 5, 3, 6]),
            (Some(vec![1, 0, 2]), [1, 2, 3], [1, 2, 3, 4, 5, 6]),
            (Some(vec![1, 2, 0]), [1, 3, 2], [1, 4, 2, 5, 3, 6]),
        ] {
            let op = Transpose { perm };
            assert_eq!(Transpose::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = evaluate_plain(&op.into(), &[Some(&x)]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<i32>()), (&shape[..], &data[..]));
        }
        let scalar = Tensor::scalar(7u8);
        let y = evaluate_plain(&Transpose { perm: None }.into(), &[Some(&scalar)]).unwrap();
        assert_eq!(y, [scalar]);
    }

    #[test]
    fn misfits_are_errors() {
        let x = [Some(Spec::new(DType::F32, &[2, 3]))];
        for perm in [vec![0], vec![0, 0], vec![0, 2], vec![0, -1], vec![0, 1, 2]] {
            assert!(Transpose { perm: Some(perm.clone()) }.infer(&x).is_err(), "{perm:?}");
        }
    }
}
