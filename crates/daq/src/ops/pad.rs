//! Pad: `y[i] = x[i - begin]`, and outside of `x` a constant, the mirrored or the nearest element,
//! or `x` again.
//! Opsets 2 (attributes), 11 (inputs), 13, 18 (axes), 19.

use std::ops::Range;

use super::moves::{FILL, MoveKernel, Moves, ints, moved, normalize_axes, strides};
use super::*;
use crate::quant::QuantParams;

/// Where padding takes its elements from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// The constant value.
    Constant,
    /// Mirrored at the edge, the edge itself not repeated.
    Reflect,
    /// The element at the edge.
    Edge,
    /// The data again and again: what negative paddings leave of them.
    Wrap,
}

/// The modes' names in ONNX.
const MODES: &[(&str, PadMode)] = &[
    ("constant", PadMode::Constant),
    ("reflect", PadMode::Reflect),
    ("edge", PadMode::Edge),
    ("wrap", PadMode::Wrap),
];

/// What negative paddings leave of an axis of `n`.
fn kept(n: usize, (begin, end): (i64, i64)) -> Range<i64> {
    (-begin).max(0)..n as i64 + end.min(0)
}

/// ONNX Pad with constant paddings.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// Where padding takes its elements from.
    pub mode: PadMode,
    /// Padding at the beginnings of all axes, then at the ends; negative removes elements.
    pub pads: Vec<i64>,
    /// The constant, a real number also where the data are codes.
    pub value: f32,
    /// The axes that `pads` speak of; `None` for all.
    pub axes: Option<Vec<i64>>,
}

impl Pad {
    /// Beginning and end for each axis.
    pub(crate) fn by_axis(&self, rank: usize) -> Result<Vec<(i64, i64)>, OpError> {
        let axes = match &self.axes {
            Some(axes) => normalize_axes(axes, rank)?,
            None => (0..rank).collect(),
        };
        if self.pads.len() != 2 * axes.len() {
            let why = format!("{} paddings for {} axes", self.pads.len(), axes.len());
            return Err(OpError::attribute("pads", why));
        }
        if let Some(pad) = self.pads.iter().find(|p| p.unsigned_abs() > 1 << 31) {
            return Err(OpError::attribute("pads", format!("{pad} is too much")));
        }
        let mut pads = vec![(0, 0); rank];
        for (i, &axis) in axes.iter().enumerate() {
            pads[axis] = (self.pads[i], self.pads[axes.len() + i]);
        }
        Ok(pads)
    }

    fn moves(&self, x: &[usize], y: &[usize]) -> Moves {
        let pads = self.by_axis(x.len()).expect("checked by infer");
        let source = |axis: usize, i: usize| {
            let (n, i) = (x[axis] as i64, i as i64 - pads[axis].0);
            match self.mode {
                _ if (0..n).contains(&i) => Some(i),
                PadMode::Constant => None,
                PadMode::Edge => Some(i.clamp(0, n - 1)),
                PadMode::Wrap => {
                    let kept = kept(x[axis], pads[axis]);
                    Some(kept.start + (i - kept.start).rem_euclid(kept.end - kept.start))
                }
                PadMode::Reflect if i < 0 => Some(-i),
                PadMode::Reflect => Some(2 * (n - 1) - i),
            }
        };
        let offset = |axis: usize, stride: usize, i: usize| {
            source(axis, i).map_or(FILL, |s| (s as usize * stride) as u32)
        };
        let table = |(axis, stride): (usize, usize)| {
            (0..y[axis]).map(|i| offset(axis, stride, i)).collect()
        };
        Moves::new(strides(x).into_iter().enumerate().map(table).collect())
    }

    /// The bits of the constant: its code where the data are codes.
    fn fill(&self, dtype: DType, quant: Option<&QuantParams>) -> u64 {
        let code = |low, high| match quant {
            Some(q) => q.code(self.value, low, high),
            None => self.value as i32,
        };
        match dtype {
            DType::F32 => self.value.to_bits().into(),
            DType::U8 => code(0, 255) as u8 as u64,
            DType::I8 => code(-128, 127) as i8 as u8 as u64,
            DType::Bool => (self.value != 0.0) as u64,
            DType::I32 => self.value as i32 as u32 as u64,
            DType::I64 => self.value as i64 as u64,
        }
    }
}

impl Operator for Pad {
    const NAME: &'static str = "Pad";
    const INPUTS: usize = 4;
    const ATTR_INPUTS: &'static [AttrInput] = &[
        AttrInput { index: 1, name: "pads", since: 11 },
        AttrInput { index: 2, name: "value", since: 11 },
        AttrInput { index: 3, name: "axes", since: 18 },
    ];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let mode = attrs.get_str("mode")?.unwrap_or("constant");
        let mode = MODES.iter().find(|(name, _)| *name == mode).map(|(_, mode)| *mode).ok_or_else(
            || {
                let remedy = "use constant, reflect, edge or wrap";
                OpError::unsupported(format!("Pad in mode `{mode}`"), remedy)
            },
        )?;
        let pads = attrs.get_ints("pads")?;
        let value = match attrs.get("value") {
            Some(Attr::Int(v)) => *v as f32,
            Some(Attr::Ints(v)) if v.len() == 1 => v[0] as f32,
            _ => attrs.float("value", 0.0)?,
        };
        Ok(Pad {
            mode,
            pads: pads.ok_or_else(|| OpError::attribute("pads", "is missing"))?,
            value,
            axes: attrs.get_ints("axes")?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        let mode = MODES[1..].iter().find(|(_, mode)| *mode == self.mode);
        Attrs::new()
            .with("pads", ints(self.pads.iter().copied()))
            .with_some("mode", mode.map(|(name, _)| Attr::Str((*name).into())))
            .with_some("value", (self.value != 0.0).then_some(Attr::Float(self.value)))
            .with_some("axes", self.axes.clone().map(ints))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        moved(x.dtype, x.shape.clone(), inputs)?;
        let mut shape = Vec::new();
        for (&n, (begin, end)) in x.shape.iter().zip(self.by_axis(x.shape.len())?) {
            let len = n as i64 + begin + end;
            // An empty axis has nothing to mirror or repeat.
            let most = match self.mode {
                PadMode::Reflect => (n as i64 - 1).max(0),
                PadMode::Edge if n == 0 => 0,
                PadMode::Wrap if kept(n, (begin, end)).is_empty() => 0,
                _ => i64::MAX,
            };
            if len < 0 || begin.max(end) > most {
                let why = format!("paddings {begin} and {end} do not fit an axis of {n}");
                return Err(shape_error(why, inputs));
            }
            shape.push(len as usize);
        }
        moved(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        let fill = self.fill(x.dtype, x.quant);
        self.moves(x.shape, y.shape).run(x.dtype.size(), fill, x.bytes, y.bytes, None);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        let pads = Layout::ChannelsLast
            .physical(&(0..rank).collect::<Vec<_>>())
            .into_iter()
            .map(|axis| self.by_axis(rank).expect("checked by infer")[axis])
            .collect::<Vec<_>>();
        let pads = pads.iter().map(|p| p.0).chain(pads.iter().map(|p| p.1)).collect();
        Pad { pads, axes: None, ..self.clone() }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (x, y) = (compile.input(0)?, compile.outputs.first()?);
        let kernel =
            MoveKernel { moves: self.moves(x.shape, y.shape), fill: self.fill(x.dtype, x.quant) };
        compile.clamp.is_none().then(|| Box::new(kernel) as _)
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;

    fn pad(mode: &str, pads: &[i64], axes: Option<&[i64]>) -> Pad {
        let attrs = Attrs::new()
            .with("mode", Attr::Str(mode.into()))
            .with("pads", ints(pads.iter().copied()))
            .with("value", Attr::Float(9.0))
            .with_some("axes", axes.map(|a| ints(a.iter().copied())));
        let op = Pad::from_attrs(&attrs).unwrap();
        assert_eq!(Pad::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    #[test]
    fn modes_and_negative_pads() {
        let x = Tensor::from_slice(&[2, 3], &[1f32, 2., 3., 4., 5., 6.]);
        for (op, shape, data) in [
            (
                pad("constant", &[1, 0, 0, 2], None),
                [3, 5],
                vec![9., 9., 9., 9., 9., 1., 2., 3., 9., 9., 4., 5., 6., 9., 9.],
            ),
            (
                pad("reflect", &[0, 2, 1, 1], None),
                [3, 6],
                vec![3., 2., 1., 2., 3., 2., 6., 5., 4., 5., 6., 5., 3., 2., 1., 2., 3., 2.],
            ),
            (
                pad("edge", &[1, 1, 0, 2], None),
                [3, 6],
                vec![1., 1., 2., 3., 3., 3., 1., 1., 2., 3., 3., 3., 4., 4., 5., 6., 6., 6.],
            ),
            (pad("constant", &[-1, 1], Some(&[-1])), [2, 3], vec![2., 3., 9., 5., 6., 9.]),
            (pad("edge", &[0, -2, -1, 0], None), [1, 1], vec![3.]),
            (pad("constant", &[-3, 1], Some(&[1])), [2, 1], vec![9., 9.]),
            (
                pad("wrap", &[0, 4, 0, 1], None),
                [2, 8],
                vec![3., 1., 2., 3., 1., 2., 3., 1., 6., 4., 5., 6., 4., 5., 6., 4.],
            ),
            (
                pad("wrap", &[0, -1, 1, 2], None),
                [3, 4],
                vec![2., 3., 2., 3., 5., 6., 5., 6., 2., 3., 2., 3.],
            ),
        ] {
            let y = evaluate_plain(&op.clone().into(), &[Some(&x)]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<f32>()), (&shape[..], &data[..]), "{op:?}");
        }
    }

    #[test]
    fn codes_are_padded_with_the_code_of_the_value() {
        let x = Tensor::from_slice(&[2], &[1u8, 2]);
        let quant = QuantParams::per_tensor(0.5, 100);
        let out = [(DType::U8, quant.clone())];
        for (value, code) in [(9.0, 118), (0.0, 100), (1e9, 255), (-1e9, 0)] {
            let op = Pad { value, ..pad("constant", &[1, 0], None) };
            let y = evaluate(&op.into(), &[Some((&x, Some(&quant)))], &out).unwrap();
            assert_eq!(y[0].data::<u8>(), [code, 1, 2]);
        }
        let x = Tensor::from_slice(&[1], &[5i64]);
        let y = evaluate_plain(&pad("constant", &[0, 1], None).into(), &[Some(&x)]).unwrap();
        assert_eq!(y[0].data::<i64>(), [5, 9]);
    }

    #[test]
    fn axes_move_with_the_channels() {
        let op = pad("edge", &[1, 2, 3, 4, 5, 6, 7, 8], None).to_channels_last(4);
        assert_eq!(op.pads, [1, 3, 4, 2, 5, 7, 8, 6]);
        let op = pad("edge", &[1, 2], Some(&[1])).to_channels_last(3);
        assert_eq!(op.pads, [0, 0, 1, 0, 0, 2]);
    }

    #[test]
    fn misfits_are_errors() {
        for (op, shape) in [
            (pad("constant", &[0; 3], None), [2, 3]),
            (pad("constant", &[-3, 0, 0, 0], None), [2, 3]),
            (pad("constant", &[i64::MIN, 0, 0, 0], None), [2, 3]),
            (pad("constant", &[1 << 30, 1 << 30, 0, 0], None), [2, 3]),
            (pad("reflect", &[2, 0, 0, 0], None), [2, 3]),
            (pad("reflect", &[0, 0, 0, 1], None), [2, 1]),
            (pad("edge", &[0, 0, 1, 0], None), [0, 3]),
            (pad("reflect", &[0, 0, 1, 0], None), [0, 3]),
            (pad("edge", &[0, 0], Some(&[2])), [2, 3]),
            (pad("wrap", &[0, 0, 1, 0], None), [0, 3]),
            (pad("wrap", &[0, -3, 0, 1], None), [2, 3]),
        ] {
            assert!(op.infer(&[Some(Spec::new(DType::F32, &shape))]).is_err(), "{op:?}");
        }
        let other = Attrs::new().with("mode", Attr::Str("turn".into())).with("pads", ints([0, 0]));
        assert!(Pad::from_attrs(&other).is_err());
    }
}
