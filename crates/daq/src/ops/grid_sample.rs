//! GridSample: the input at the places that a grid names, -1 to 1 from edge to edge (Jaderberg,
//! Simonyan, Zisserman and Kavukcuoglu, 2015). Opsets 16, 20 (more axes).

use super::moves::{sized, strides};
use super::*;

/// How places between elements are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// The neighbours, by distance.
    Linear,
    /// The nearest element; halves go to the even one.
    Nearest,
    /// A cubic convolution of four elements by axis, with a = -0.75.
    Cubic,
}

/// What lies beyond the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Zeros.
    Zeros,
    /// The nearest element.
    Border,
    /// The input mirrored, again and again.
    Reflection,
}

/// ONNX GridSample.
#[derive(Clone, Debug, PartialEq)]
pub struct GridSample {
    /// How places between elements are filled.
    pub sampling: Sampling,
    /// What lies beyond the input.
    pub padding: Padding,
    /// Whether -1 and 1 are the centres of the outer elements, else their outer edges.
    pub align_corners: bool,
}

const SAMPLING: [(&str, Sampling); 5] = [
    ("linear", Sampling::Linear),
    ("bilinear", Sampling::Linear),
    ("nearest", Sampling::Nearest),
    ("cubic", Sampling::Cubic),
    ("bicubic", Sampling::Cubic),
];

const PADDING: [(&str, Padding); 3] =
    [("zeros", Padding::Zeros), ("border", Padding::Border), ("reflection", Padding::Reflection)];

/// The weights of a cubic convolution (Keys, 1981) for four elements, the second at distance `t`.
pub(crate) fn cubic(t: f32, a: f32) -> [f32; 4] {
    let near = |d: f32| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    let far = |d: f32| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

impl GridSample {
    /// A place of -1 to 1 as a position among `n` elements.
    fn position(&self, x: f32, n: usize) -> f32 {
        let n = n as f32;
        let x = match self.align_corners {
            true => (x + 1.0) / 2.0 * (n - 1.0),
            false => ((x + 1.0) * n - 1.0) / 2.0,
        };
        let (low, high) = if self.align_corners { (0.0, n - 1.0) } else { (-0.5, n - 0.5) };
        match self.padding {
            Padding::Zeros => x,
            // A cubic convolution repeats the border under each of its elements instead.
            Padding::Border if self.sampling == Sampling::Cubic => x,
            Padding::Border => x.clamp(0.0, n - 1.0),
            Padding::Reflection => reflected(x, low, high),
        }
    }

    /// The element at `i`; `None` for a zero.
    fn element(&self, i: f32, n: usize) -> Option<usize> {
        let last = n as f32 - 1.0;
        let inside = (0.0..=last).contains(&i);
        let (low, high) = if self.align_corners { (0.0, last) } else { (-0.5, last + 0.5) };
        match self.padding {
            _ if inside => Some(i as usize),
            Padding::Zeros => None,
            Padding::Border => Some(i.clamp(0.0, last) as usize),
            Padding::Reflection => Some(reflected(i, low, high).clamp(0.0, last) as usize),
        }
    }

    /// The elements of one axis that a position mixes, and their shares.
    fn taps(&self, x: f32, n: usize) -> Vec<(Option<usize>, f32)> {
        let x = if x.is_finite() { x.clamp(-1e6, 1e6) } else { -2.0 };
        let low = x.floor();
        let at = |k: f32, share: f32| (self.element(low + k, n), share);
        match self.sampling {
            Sampling::Nearest => vec![(self.element(x.round_ties_even(), n), 1.0)],
            Sampling::Linear => vec![at(0.0, 1.0 - (x - low)), at(1.0, x - low)],
            Sampling::Cubic => {
                let shares = cubic(x - low, -0.75);
                shares.into_iter().enumerate().map(|(k, s)| at(k as f32 - 1.0, s)).collect()
            }
        }
    }
}

/// `x` mirrored at `low` and `high` until it lies between them.
fn reflected(x: f32, low: f32, high: f32) -> f32 {
    let range = high - low;
    if range <= 0.0 || !x.is_finite() {
        return low;
    }
    let distance = (x - low).abs();
    let (times, rest) = ((distance / range).floor(), distance % range);
    if times % 2.0 == 0.0 { low + rest } else { high - rest }
}

impl Operator for GridSample {
    const NAME: &'static str = "GridSample";
    const INPUTS: usize = 2;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let mode = attrs.get_str("mode")?.unwrap_or("linear");
        let padding = attrs.get_str("padding_mode")?.unwrap_or("zeros");
        let unknown = |name: &str, value: &str| {
            OpError::attribute(name, format!("`{value}` is unknown"))
        };
        let sampling = SAMPLING.iter().find(|(name, _)| *name == mode);
        let beyond = PADDING.iter().find(|(name, _)| *name == padding);
        Ok(GridSample {
            sampling: sampling.ok_or_else(|| unknown("mode", mode))?.1,
            padding: beyond.ok_or_else(|| unknown("padding_mode", padding))?.1,
            align_corners: attrs.flag("align_corners", false)?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        let mode = SAMPLING.iter().find(|(_, m)| *m == self.sampling).map_or("", |(name, _)| *name);
        let padding = PADDING.iter().find(|(_, p)| *p == self.padding).map_or("", |(name, _)| *name);
        Attrs::new()
            .with("mode", Attr::Str(mode.into()))
            .with("padding_mode", Attr::Str(padding.into()))
            .with("align_corners", Attr::Int(self.align_corners.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (x, grid) = (unary::FLOATS.input(inputs, 0)?, unary::FLOATS.input(inputs, 1)?);
        let space = x.shape.len().saturating_sub(2);
        let fits = (1..=4).contains(&space)
            && grid.shape.len() == x.shape.len()
            && grid.shape[0] == x.shape[0]
            && grid.shape[space + 1] == space;
        if !fits || x.shape.contains(&0) {
            return Err(shape_error("the grid does not fit the input", inputs));
        }
        let shape = [&x.shape[..2], &grid.shape[1..=space]].concat();
        sized(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, grid] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
        let (space, strides) = (&x.shape[2..], strides(&x.shape[2..]));
        let plane: usize = space.iter().product();
        let points: usize = grid.shape[1..=space.len()].iter().product();
        let (data, y) = (x.data::<f32>(), outputs[0].data_mut::<f32>());
        for (p, place) in grid.data::<f32>().chunks_exact(space.len()).enumerate() {
            // The grid names the last axis first.
            let mut taps: Vec<(Option<usize>, f32)> = vec![(Some(0), 1.0)];
            for (axis, (&n, &stride)) in space.iter().zip(&strides).enumerate() {
                let position = self.position(place[space.len() - 1 - axis], n);
                let own = self.taps(position, n);
                let mix = |&(offset, share): &(Option<usize>, f32)| {
                    let offset: Option<usize> = offset;
                    own.clone().into_iter().map(move |(i, s)| {
                        (offset.zip(i).map(|(offset, i)| offset + i * stride), share * s)
                    })
                };
                taps = taps.iter().flat_map(mix).collect();
            }
            let picture = p / points;
            for c in 0..x.shape[1] {
                let plane = &data[(picture * x.shape[1] + c) * plane..][..plane];
                let of = |&(offset, share): &(Option<usize>, f32)| {
                    offset.map_or(0.0, |offset| plane[offset] * share)
                };
                y[(picture * x.shape[1] + c) * points + p % points] = taps.iter().map(of).sum();
            }
        }
    }

    fn operations(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        let space = inputs[0].as_ref().map_or(2, |x| x.shape.len().saturating_sub(2)) as u32;
        let taps = match self.sampling {
            Sampling::Nearest => 1,
            Sampling::Linear => 2u64.saturating_pow(space),
            Sampling::Cubic => 4u64.saturating_pow(space),
        };
        outputs.first().map_or(0, elements).saturating_mul(taps)
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn places_between_and_beyond() {
        let x = [1f32, 2., 3., 4.];
        // The middle; the first element's centre; half an element and a whole one beyond the left.
        let grid = [0f32, 0., -0.5, -0.5, -1.0, -0.5, -1.5, -0.5];
        for (sampling, padding, want) in [
            (Sampling::Linear, Padding::Zeros, [2.5, 1., 0.5, 0.]),
            (Sampling::Linear, Padding::Border, [2.5, 1., 1., 1.]),
            (Sampling::Linear, Padding::Reflection, [2.5, 1., 1., 1.]),
            (Sampling::Nearest, Padding::Zeros, [1., 1., 1., 0.]),
        ] {
            let op = GridSample { sampling, padding, align_corners: false };
            assert_eq!(GridSample::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = run_f32(&op.into(), &[(&[1, 1, 2, 2], &x), (&[1, 2, 2, 2], &grid)]);
            assert_eq!(y.data::<f32>(), want, "{sampling:?} {padding:?}");
        }
        let attrs = Attrs::new().with("align_corners", Attr::Int(1));
        let op = Op::from(GridSample::from_attrs(&attrs).unwrap());
        let y = run_f32(&op, &[(&[1, 1, 2, 2], &x), (&[1, 1, 2, 2], &[-1., -1., 1., 0.])]);
        assert_eq!(y.data::<f32>(), [1., 3.]);
        assert!(op.infer(&[floats(&[1, 1, 2, 2]), floats(&[1, 1, 2, 3])]).is_err());
        assert!(op.infer(&[floats(&[1, 1, 2, 2]), floats(&[2, 1, 2, 2])]).is_err());
    }
}
