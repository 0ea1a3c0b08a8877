//! Split: parts of `x` along `axis`. Opsets 1, 2, 11 (negative axis), 13 (sizes as an input), 18
//! (`num_outputs`).

use daq_kernels::Pool;

use super::moves::{Moves, ints, moved, strides, table};
use super::*;

/// ONNX Split with constant sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The axis; may count from the end.
    pub axis: i64,
    /// The parts' sizes; `None` for equal ones, the last one smaller where it must be.
    pub split: Option<Vec<i64>>,
    /// The number of parts where `split` does not tell.
    pub num_outputs: Option<i64>,
}

/// The most parts.
const MOST_PARTS: usize = 4096;

/// The most table entries of all parts together.
const MOST_ENTRIES: usize = 1 << 26;

impl Split {
    /// Size of each part.
    fn sizes(&self, dim: usize) -> Result<Vec<usize>, OpError> {
        if let Some(split) = &self.split {
            let sizes: Result<Vec<usize>, _> = split.iter().map(|&n| n.try_into()).collect();
            let sum = |s: &Vec<usize>| s.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
            return sizes.ok().filter(|s| sum(s) == Some(dim)).ok_or_else(|| {
                OpError::attribute("split", format!("{split:?} must be parts of {dim}"))
            });
        }
        let Some(parts) = self.num_outputs else {
            return Err(OpError::attribute("split", "is missing, and `num_outputs` too"));
        };
        let most = dim.clamp(1, MOST_PARTS);
        let count = usize::try_from(parts).ok().filter(|n| (1..=most).contains(n));
        let misfit = || {
            let why = format!("an axis of {dim} does not give {parts} parts");
            OpError::attribute("num_outputs", why)
        };
        let count = count.ok_or_else(misfit)?;
        let size = dim.div_ceil(count);
        let last = dim.checked_sub(size * (count - 1)).ok_or_else(misfit)?;
        let mut sizes = vec![size; count];
        sizes[count - 1] = last;
        Ok(sizes)
    }

    /// One copy for each part of an input of `shape`.
    fn parts(&self, shape: &[usize]) -> Vec<Moves> {
        let axis = normalize_axis(self.axis, shape.len()).expect("checked by infer");
        let (sizes, strides) = (self.sizes(shape[axis]).expect("checked by infer"), strides(shape));
        let all: Vec<Vec<u32>> = shape.iter().zip(strides).map(|(&n, s)| table(n, s)).collect();
        let mut start = 0;
        let part = |&size: &usize| {
            let mut tables = all.clone();
            tables[axis] = all[axis][start..start + size].to_vec();
            start += size;
            Moves::new(tables)
        };
        sizes.iter().map(part).collect()
    }
}

impl Operator for Split {
    const NAME: &'static str = "Split";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "split", since: 13 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Split {
            axis: attrs.int("axis", 0)?,
            split: attrs.get_ints("split")?.filter(|s| !s.is_empty()),
            num_outputs: attrs.get_int("num_outputs")?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("axis", Attr::Int(self.axis))
            .with_some("split", self.split.clone().map(ints))
            .with_some("num_outputs", self.num_outputs.map(Attr::Int))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        moved(x.dtype, x.shape.clone(), inputs)?;
        let axis = normalize_axis(self.axis, x.shape.len())?;
        let part = |size: usize| {
            let mut part = x.clone();
            part.shape[axis] = size;
            part
        };
        let sizes = self.sizes(x.shape[axis])?;
        // Each part has tables of its own.
        let tables = x.shape.iter().sum::<usize>().saturating_mul(sizes.len());
        if sizes.len() > MOST_PARTS || tables > MOST_ENTRIES {
            return Err(shape_error(format!("{} parts are too many", sizes.len()), inputs));
        }
        Ok(sizes.into_iter().map(part).collect())
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        for (moves, y) in self.parts(x.shape).iter().zip(outputs) {
            moves.run(x.dtype.size(), 0, x.bytes, y.bytes, None);
        }
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::Any
    }

    fn to_channels_last(&self, rank: usize) -> Self {
        let axis = normalize_axis(self.axis, rank).expect("checked by infer");
        Split { axis: Layout::ChannelsLast.physical_axis(axis, rank) as i64, ..self.clone() }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let parts = Parts(self.parts(compile.input(0)?.shape));
        compile.clamp.is_none().then(|| Box::new(parts) as _)
    }
}

/// A compiled Split: one copy for each output.
struct Parts(Vec<Moves>);

impl Kernel for Parts {
    fn name(&self) -> String {
        "split".into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let x = inputs[0].expect("checked by infer");
        for (moves, y) in self.0.iter().zip(outputs) {
            moves.run(x.dtype.size(), 0, x.bytes, y.bytes, Some(pool));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    fn split(axis: i64, split: Option<&[i64]>, num_outputs: Option<i64>) -> Split {
        let op = Split { axis, split: split.map(<[i64]>::to_vec), num_outputs };
        assert_eq!(Split::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    #[test]
    fn parts_of_an_axis() {
        let x = Tensor::from_slice(&[2, 3], &[1u8, 2, 3, 4, 5, 6]);
        for (op, parts) in [
            (split(1, Some(&[1, 2]), None), vec![vec![1, 4], vec![2, 3, 5, 6]]),
            (split(-1, Some(&[0, 3]), None), vec![vec![], vec![1, 2, 3, 4, 5, 6]]),
            (split(0, None, Some(2)), vec![vec![1, 2, 3], vec![4, 5, 6]]),
            (split(1, None, Some(2)), vec![vec![1, 2, 4, 5], vec![3, 6]]),
        ] {
            let y = evaluate_plain(&op.clone().into(), &[Some(&x)]).unwrap();
            let y: Vec<_> = y.iter().map(|y| y.data::<u8>().to_vec()).collect();
            assert_eq!(y, parts, "{op:?}");
        }
        assert_eq!(split(1, None, Some(2)).to_channels_last(4).axis, 3);
    }

    #[test]
    fn misfits_are_errors() {
        let x = [Some(Spec::new(DType::F32, &[2, 5]))];
        for op in [
            split(1, Some(&[1, 2]), None),
            split(1, Some(&[-1, 6]), None),
            split(1, Some(&[i64::MAX, i64::MAX, i64::MAX]), None),
            split(2, Some(&[5]), None),
            split(1, None, None),
            split(1, None, Some(0)),
            split(1, None, Some(i64::MAX)),
            split(1, None, Some(4)),
        ] {
            assert!(op.infer(&x).is_err(), "{op:?}");
        }
    }
}
