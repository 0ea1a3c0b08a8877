//! AffineGrid: the places of GridSample for an affine map of the output. Opset 20.

use super::moves::{ints, sized};
use super::*;

/// ONNX AffineGrid with a constant size.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineGrid {
    /// Whether -1 and 1 are the centres of the outer elements, else their outer edges.
    pub align_corners: bool,
    /// The shape of GridSample's output: batch, channels, space.
    pub size: Vec<i64>,
}

impl Operator for AffineGrid {
    const NAME: &'static str = "AffineGrid";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "size", since: 20 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let size = attrs.get_ints("size")?.ok_or_else(|| OpError::attribute("size", "is missing"))?;
        let fits = |n: &i64| (1..=1 << 20).contains(n);
        if !(4..=5).contains(&size.len()) || !size.iter().all(fits) {
            let why = format!("{size:?} is not batch, channels and two or three axes");
            return Err(OpError::attribute("size", why));
        }
        Ok(AffineGrid { align_corners: attrs.flag("align_corners", false)?, size })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("align_corners", Attr::Int(self.align_corners.into()))
            .with("size", ints(self.size.iter().copied()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::FLOATS.input(inputs, 0)?;
        let size: Vec<usize> = self.size.iter().map(|&n| n as usize).collect();
        let axes = size.len() - 2;
        if x.shape != [size[0], axes, axes + 1] {
            return Err(shape_error(format!("must be {axes} rows by picture"), inputs));
        }
        sized(x.dtype, [&size[..1], &size[2..], &[axes]].concat(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let theta = inputs[0].expect("checked by infer").data::<f32>();
        let space: Vec<usize> = self.size[2..].iter().map(|&n| n as usize).collect();
        let axes = space.len();
        let points: usize = space.iter().product();
        for (p, place) in outputs[0].data_mut::<f32>().chunks_exact_mut(axes).enumerate() {
            let (picture, mut rest) = (p / points, p % points);
            // The last axis comes first.
            let own: Vec<f32> = space
                .iter()
                .rev()
                .map(|&n| {
                    let i = (rest % n) as f32;
                    rest /= n;
                    match self.align_corners {
                        true if n == 1 => -1.0,
                        true => 2.0 * i / (n as f32 - 1.0) - 1.0,
                        false => (2.0 * i + 1.0) / n as f32 - 1.0,
                    }
                })
                .collect();
            let rows = theta[picture * axes * (axes + 1)..].chunks_exact(axes + 1);
            for (y, row) in place.iter_mut().zip(rows) {
                *y = row.iter().zip(&own).map(|(a, b)| a * b).sum::<f32>() + row[axes];
            }
        }
    }
}
