//! DepthToSpace: blocks of channels become `b * b` pixels,
//! `y[n, c, h*b + i, w*b + j] = x[n, (i*b + j)*C + c, h, w]`, in mode CRD `x[n, (c*b + i)*b + j, h, w]`.
//! Opsets 1, 11 (CRD), 13.

use super::moves::{MoveKernel, Moves, moved, strides};
use super::*;

/// ONNX DepthToSpace.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthToSpace {
    /// The block's side.
    pub block: usize,
    /// Whether a channel's block lies together (CRD), instead of a pixel's channels (DCR).
    pub column_row_depth: bool,
}

/// The attribute `blocksize`.
pub(crate) fn block_size(attrs: &Attrs) -> Result<usize, OpError> {
    let block = attrs.int("blocksize", 0)?;
    usize::try_from(block)
        .ok()
        .filter(|&b| (1..=1 << 12).contains(&b))
        .ok_or_else(|| OpError::attribute("blocksize", format!("{block} is not a block size")))
}

impl DepthToSpace {
    /// From channels-last input.
    fn moves(&self, x: &[usize]) -> Moves {
        let (b, s) = (self.block, strides(x));
        let channels = x[3] / (b * b);
        let (row, column, channel) =
            if self.column_row_depth { (b, 1, b * b) } else { (b * channels, channels, 1) };
        Moves::strided(
            &[x[0], x[1], b, x[2], b, channels],
            &[s[0], s[1], row, s[2], column, channel],
        )
    }
}

impl Operator for DepthToSpace {
    const NAME: &'static str = "DepthToSpace";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let column_row_depth = match attrs.get_str("mode")? {
            None | Some("DCR") => false,
            Some("CRD") => true,
            Some(other) => {
                return Err(OpError::attribute("mode", format!("`{other}` is neither DCR nor CRD")));
            }
        };
        Ok(DepthToSpace { block: block_size(attrs)?, column_row_depth })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("blocksize", Attr::Int(self.block as i64))
            .with_some("mode", self.column_row_depth.then(|| Attr::Str("CRD".into())))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        moved(x.dtype, x.shape.clone(), inputs)?;
        let b = self.block;
        let &[n, c, h, w] = x.shape.as_slice() else {
            return Err(shape_error("the input must have rank 4", inputs));
        };
        if c % (b * b) != 0 {
            return Err(shape_error(format!("{c} channels are not blocks of {b}x{b}"), inputs));
        }
        moved(x.dtype, vec![n, c / (b * b), h * b, w * b], inputs)
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
    fn channels_become_pixels() {
        // Eight channels of 1x2: channel c holds 10c and 10c + 1.
        let x: Vec<u8> = (0..8).flat_map(|c| [10 * c, 10 * c + 1]).collect();
        let x = Tensor::from_slice(&[1, 8, 1, 2], &x);
        for (mode, expected) in [
            ("DCR", [0, 20, 1, 21, 40, 60, 41, 61, 10, 30, 11, 31, 50, 70, 51, 71]),
            ("CRD", [0, 10, 1, 11, 20, 30, 21, 31, 40, 50, 41, 51, 60, 70, 61, 71]),
        ] {
            let attrs = Attrs::new()
                .with("blocksize", Attr::Int(2))
                .with("mode", Attr::Str(mode.into()));
            let op = DepthToSpace::from_attrs(&attrs).unwrap();
            assert_eq!(DepthToSpace::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = evaluate_plain(&op.into(), &[Some(&x)]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<u8>()), (&[1, 2, 2, 4][..], &expected[..]));
        }
    }

    #[test]
    fn misfits_are_errors() {
        let op = DepthToSpace { block: 2, column_row_depth: false };
        for shape in [vec![1, 6, 2, 2], vec![1, 4, 2], vec![1, 4, usize::MAX / 2, 1]] {
            assert!(op.infer(&[Some(Spec::new(DType::U8, &shape))]).is_err(), "{shape:?}");
        }
        for block in [0, -1, i64::MAX] {
            let attrs = Attrs::new().with("blocksize", Attr::Int(block));
            assert!(DepthToSpace::from_attrs(&attrs).is_err());
        }
    }
}
