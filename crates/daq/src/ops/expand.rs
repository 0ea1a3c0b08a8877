//! Expand: `x` repeated to the numpy broadcast of its shape and `shape`. Opsets 8, 13.

use super::moves::{MoveKernel, Moves, ints, moved, strides};
use super::*;

/// ONNX Expand with a constant shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Expand {
    /// The shape to broadcast with.
    pub shape: Vec<i64>,
}

fn moves(x: &[usize], y: &[usize]) -> Moves {
    let lead = y.len() - x.len();
    let mut by_axis = vec![0; lead];
    by_axis.extend(x.iter().zip(strides(x)).map(|(&n, s)| if n == 1 { 0 } else { s }));
    Moves::strided(y, &by_axis)
}

impl Operator for Expand {
    const NAME: &'static str = "Expand";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "shape", since: 8 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let shape = attrs.get_ints("shape")?;
        Ok(Expand { shape: shape.ok_or_else(|| OpError::attribute("shape", "is missing"))? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("shape", ints(self.shape.iter().copied()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        let misfit = || shape_error(format!("does not broadcast with {:?}", self.shape), inputs);
        let shape: Result<Vec<usize>, _> = self.shape.iter().map(|&n| n.try_into()).collect();
        let shape = broadcast(&x.shape, &shape.map_err(|_| misfit())?).ok_or_else(misfit)?;
        moved(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        moves(x.shape, y.shape).run(x.dtype.size(), 0, x.bytes, y.bytes, None);
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let moves = moves(compile.input(0)?.shape, compile.outputs.first()?.shape);
        compile.clamp.is_none().then(|| Box::new(MoveKernel { moves, fill: 0 }) as _)
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn axes_of_one_repeat() {
        let x = Tensor::from_slice(&[2, 1], &[1u8, 2]);
        for (shape, expected) in [
            (vec![2, 3], Some((vec![2, 3], vec![1, 1, 1, 2, 2, 2]))),
            (vec![2, 1, 2], Some((vec![2, 2, 2], vec![1, 1, 2, 2, 1, 1, 2, 2]))),
            (vec![1], Some((vec![2, 1], vec![1, 2]))),
            (vec![], Some((vec![2, 1], vec![1, 2]))),
            (vec![0], Some((vec![2, 0], vec![]))),
            (vec![3, 1], None),
            (vec![-1, 1], None),
            (vec![1 << 40, 1, 1 << 40], None),
        ] {
            let op = Expand::from_attrs(&Attrs::new().with("shape", ints(shape))).unwrap();
            let y = evaluate_plain(&op.clone().into(), &[Some(&x)]).ok();
            let y = y.map(|y| (y[0].shape().to_vec(), y[0].data::<u8>().to_vec()));
            assert_eq!(y, expected, "{op:?}");
        }
    }
}
