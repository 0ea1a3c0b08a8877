//! Tile: the input repeated along each axis. Opsets 6, 13.

use super::moves::{MoveKernel, Moves, ints, moved, strides};
use super::*;

/// ONNX Tile with constant repeats.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// How often, by axis.
    pub repeats: Vec<i64>,
}

fn moves(x: &[usize], y: &[usize]) -> Moves {
    let axis = |((&n, stride), &repeated): ((&usize, usize), &usize)| {
        (0..repeated).map(|i| (i % n.max(1) * stride) as u32).collect()
    };
    Moves::new(x.iter().zip(strides(x)).zip(y).map(axis).collect())
}

impl Operator for Tile {
    const NAME: &'static str = "Tile";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "repeats", since: 6 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let repeats = attrs.get_ints("repeats")?;
        Ok(Tile { repeats: repeats.ok_or_else(|| OpError::attribute("repeats", "is missing"))? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("repeats", ints(self.repeats.iter().copied()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        let times = |(&n, &r): (&usize, &i64)| n.checked_mul(usize::try_from(r).ok()?);
        let shape: Option<Vec<_>> = x.shape.iter().zip(&self.repeats).map(times).collect();
        let shape = shape.filter(|_| self.repeats.len() == x.shape.len()).ok_or_else(|| {
            shape_error(format!("cannot be repeated {:?} times", self.repeats), inputs)
        })?;
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
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn repeated() {
        let y = run_f32(&Tile { repeats: vec![2, 3] }.into(), &[(&[1, 2], &[1., 2.])]);
        assert_eq!(y.shape(), [2, 6]);
        assert_eq!(y.data::<f32>(), [1., 2.].repeat(6));
        let y = run_f32(&Tile { repeats: vec![0] }.into(), &[(&[2], &[1., 2.])]);
        assert_eq!(y.shape(), [0]);
        for repeats in [vec![1], vec![1, -1], vec![1 << 40, 1 << 40]] {
            assert!(Op::from(Tile { repeats }).infer(&[floats(&[2, 2])]).is_err());
        }
    }
}
