//! SpaceToDepth: `b * b` pixels become channels,
//! `y[n, (i*b + j)*C + c, h, w] = x[n, c, h*b + i, w*b + j]`. Opsets 1, 13.

use super::depth_to_space::block_size;
use super::moves::{MoveKernel, Moves, moved, strides};
use super::*;

/// ONNX SpaceToDepth.
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceToDepth {
    /// The block's side.
    pub block: usize,
}

impl SpaceToDepth {
    /// From channels-last input.
    fn moves(&self, x: &[usize]) -> Moves {
        let (b, s) = (self.block, strides(x));
        Moves::strided(
            &[x[0], x[1] / b, x[2] / b, b, b, x[3]],
            &[s[0], b * s[1], b * s[2], s[1], s[2], 1],
        )
    }
}

impl Operator for SpaceToDepth {
    const NAME: &'static str = "SpaceToDepth";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(SpaceToDepth { block: block_size(attrs)? })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new().with("blocksize", Attr::Int(self.block as i64))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        moved(x.dtype, x.shape.clone(), inputs)?;
        let b = self.block;
        let &[n, c, h, w] = x.shape.as_slice() else {
            return Err(shape_error("the input must have rank 4", inputs));
        };
        if h % b != 0 || w % b != 0 {
            return Err(shape_error(format!("{h}x{w} pixels are not blocks of {b}x{b}"), inputs));
        }
        moved(x.dtype, vec![n, c * b * b, h / b, w / b], inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        self.moves(x.shape).run(x.dtype.size(), 0, x.bytes, outputs[0].bytes, None);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
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
    fn pixels_become_channels() {
        // Two channels of 2x4.
        let x = Tensor::from_slice(&[1, 2, 2, 4], &(0..16).collect::<Vec<i32>>());
        let op = SpaceToDepth::from_attrs(&Attrs::new().with("blocksize", Attr::Int(2))).unwrap();
        assert_eq!(SpaceToDepth::from_attrs(&op.to_attrs()), Ok(op.clone()));
        let y = evaluate_plain(&op.clone().into(), &[Some(&x)]).unwrap();
        assert_eq!(y[0].shape(), [1, 8, 1, 2]);
        assert_eq!(y[0].data::<i32>(), [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]);
        // And back.
        let back = DepthToSpace { block: 2, column_row_depth: false };
        assert_eq!(evaluate_plain(&back.into(), &[Some(&y[0])]).unwrap(), [x]);
        for shape in [vec![1, 2, 3, 4], vec![2, 2], vec![1, usize::MAX / 2, 2, 2]] {
            assert!(op.infer(&[Some(Spec::new(DType::U8, &shape))]).is_err(), "{shape:?}");
        }
    }
}
