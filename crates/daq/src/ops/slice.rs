//! Slice: along each axis the elements `start, start + step, ...` before `end`. Opsets 1
//! (attributes), 10 (inputs, steps), 11, 13.

use super::moves::{MoveKernel, Moves, ints, moved, normalize_axes, strides};
use super::*;

/// ONNX Slice with constant bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The first index by axis; negative counts from the end.
    pub starts: Vec<i64>,
    /// The index to stop before; negative counts from the end.
    pub ends: Vec<i64>,
    /// The axes; `None` for the first ones.
    pub axes: Option<Vec<i64>>,
    /// The steps; `None` for 1. Not 0.
    pub steps: Option<Vec<i64>>,
}

/// The part of one axis that is kept.
#[derive(Clone, Copy)]
struct Part {
    start: i64,
    step: i64,
    count: usize,
}

impl Slice {
    /// One part for each axis.
    fn parts(&self, shape: &[usize]) -> Result<Vec<Part>, OpError> {
        let n = self.starts.len();
        let axes = match &self.axes {
            Some(axes) => normalize_axes(axes, shape.len())?,
            None => normalize_axes(&(0..n as i64).collect::<Vec<_>>(), shape.len())?,
        };
        let steps = self.steps.clone().unwrap_or_else(|| vec![1; n]);
        for (name, len) in [("ends", self.ends.len()), ("axes", axes.len()), ("steps", steps.len())]
        {
            if len != n {
                return Err(OpError::attribute(name, format!("has {len} elements, must have {n}")));
            }
        }
        let mut parts: Vec<_> =
            shape.iter().map(|&count| Part { start: 0, step: 1, count }).collect();
        for (i, &axis) in axes.iter().enumerate() {
            let (dim, step) = (shape[axis] as i64, steps[i]);
            if step == 0 {
                return Err(OpError::attribute("steps", "0 is not allowed"));
            }
            let (low, high) = if step > 0 { (0, dim) } else { (-1, dim - 1) };
            let bound = |i: i64| if i < 0 { i + dim } else { i };
            let start = bound(self.starts[i]).clamp(low.max(0).min(high), high);
            let end = bound(self.ends[i]).clamp(low, high);
            let span = if step > 0 { end - start } else { start - end };
            let count = if span > 0 { (span as u64).div_ceil(step.unsigned_abs()) } else { 0 };
            parts[axis] = Part { start, step, count: count as usize };
        }
        Ok(parts)
    }

    fn moves(&self, shape: &[usize]) -> Moves {
        let parts = self.parts(shape).expect("checked by infer");
        let table = |(part, stride): (&Part, usize)| {
            let offset = |i| (part.start + i as i64 * part.step) as usize * stride;
            (0..part.count).map(|i| offset(i) as u32).collect()
        };
        Moves::new(parts.iter().zip(strides(shape)).map(table).collect())
    }
}

impl Operator for Slice {
    const NAME: &'static str = "Slice";
    const INPUTS: usize = 5;
    const ATTR_INPUTS: &'static [AttrInput] = &[
        AttrInput { index: 1, name: "starts", since: 10 },
        AttrInput { index: 2, name: "ends", since: 10 },
        AttrInput { index: 3, name: "axes", since: 10 },
        AttrInput { index: 4, name: "steps", since: 10 },
    ];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let needed = |name| {
            attrs.get_ints(name)?.ok_or_else(|| OpError::attribute(name, "is missing"))
        };
        Ok(Slice {
            starts: needed("starts")?,
            ends: needed("ends")?,
            axes: attrs.get_ints("axes")?,
            steps: attrs.get_ints("steps")?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("starts", ints(self.starts.iter().copied()))
            .with("ends", ints(self.ends.iter().copied()))
            .with_some("axes", self.axes.clone().map(ints))
            .with_some("steps", self.steps.clone().map(ints))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        moved(x.dtype, x.shape.clone(), inputs)?;
        let parts = self.parts(&x.shape)?;
        moved(x.dtype, parts.iter().map(|p| p.count).collect(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        self.moves(x.shape).run(x.dtype.size(), 0, x.bytes, outputs[0].bytes, None);
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        let axes = match &self.axes {
            Some(axes) => axes.clone(),
            None => (0..self.starts.len() as i64).collect(),
        };
        let axes = normalize_axes(&axes, rank).expect("checked by infer");
        let last = |a: usize| Layout::ChannelsLast.physical_axis(a, rank) as i64;
        Slice { axes: Some(axes.into_iter().map(last).collect()), ..self.clone() }
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

    fn slice(starts: &[i64], ends: &[i64], axes: Option<&[i64]>, steps: Option<&[i64]>) -> Slice {
        let list = |l: &[i64]| ints(l.iter().copied());
        let attrs = Attrs::new()
            .with("starts", list(starts))
            .with("ends", list(ends))
            .with_some("axes", axes.map(list))
            .with_some("steps", steps.map(list));
        let op = Slice::from_attrs(&attrs).unwrap();
        assert_eq!(Slice::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    #[test]
    fn parts_of_axes() {
        const MAX: i64 = i64::MAX;
        const MIN: i64 = i64::MIN;
        let x = Tensor::from_slice(&[2, 4], &[0u8, 1, 2, 3, 10, 11, 12, 13]);
        for (op, shape, data) in [
            (slice(&[1], &[2], None, None), [1, 4], vec![10, 11, 12, 13]),
            (slice(&[0, 1], &[MAX, 3], None, None), [2, 2], vec![1, 2, 11, 12]),
            (slice(&[-2], &[MAX], Some(&[-1]), None), [2, 2], vec![2, 3, 12, 13]),
            (slice(&[0], &[MAX], Some(&[1]), Some(&[3])), [2, 2], vec![0, 3, 10, 13]),
            (
                slice(&[-1], &[MIN], Some(&[1]), Some(&[-1])),
                [2, 4],
                vec![3, 2, 1, 0, 13, 12, 11, 10],
            ),
            (slice(&[MAX], &[0], Some(&[1]), Some(&[-2])), [2, 2], vec![3, 1, 13, 11]),
            (slice(&[MAX], &[MIN], Some(&[1]), Some(&[MIN])), [2, 1], vec![3, 13]),
            (slice(&[3], &[1], Some(&[1]), None), [2, 0], vec![]),
            (slice(&[-9], &[-3], Some(&[1]), None), [2, 1], vec![0, 10]),
            (slice(&[9], &[MAX], Some(&[1]), None), [2, 0], vec![]),
            (slice(&[-9], &[MIN], Some(&[1]), Some(&[-1])), [2, 1], vec![0, 10]),
        ] {
            let y = evaluate_plain(&op.clone().into(), &[Some(&x)]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<u8>()), (&shape[..], &data[..]), "{op:?}");
        }
        let empty = Tensor::zeros(DType::F32, &[0, 2]);
        for step in [1, -1] {
            let op = slice(&[0], &[5], None, Some(&[step]));
            assert_eq!(evaluate_plain(&op.into(), &[Some(&empty)]).unwrap()[0].shape(), [0, 2]);
        }
    }

    #[test]
    fn axes_move_with_the_channels() {
        let op = slice(&[1, 0], &[2, 5], Some(&[1, -1]), None).to_channels_last(4);
        assert_eq!(op.axes, Some(vec![3, 2]));
        assert_eq!(slice(&[0, 1], &[1, 2], None, None).to_channels_last(4).axes, Some(vec![0, 3]));
    }

    #[test]
    fn misfits_are_errors() {
        let x = [Some(Spec::new(DType::F32, &[2, 3]))];
        for op in [
            slice(&[0, 0, 0], &[1, 1, 1], None, None),
            slice(&[0], &[1, 1], None, None),
            slice(&[0], &[1], Some(&[2]), None),
            slice(&[0, 0], &[1, 1], Some(&[0, -2]), None),
            slice(&[0], &[1], None, Some(&[0])),
        ] {
            assert!(op.infer(&x).is_err(), "{op:?}");
        }
    }
}
