//! Reductions other than the mean: one loop, and a macro for each. Opsets 1, 11 (negative axes),
//! 13, 18 (axes as an input; for ReduceSum 13).

use super::moves::{ints, normalize_axes, sized};
use super::*;

/// The axes and what becomes of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axes {
    /// The axes; empty for all.
    pub axes: Vec<i64>,
    /// Whether they stay, with size 1.
    pub keep_dims: bool,
}

/// A function of real numbers, and the one of integers.
type Pair = (fn(f32) -> f32, fn(i64) -> i64);

/// How one reduction computes: where it starts, its step, and its end.
pub(crate) struct Steps {
    pub start: (f32, i64),
    pub real: fn(f32, f32) -> f32,
    pub integer: fn(i64, i64) -> i64,
    pub end: Pair,
}

impl Axes {
    pub fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(Axes {
            axes: attrs.get_ints("axes")?.unwrap_or_default(),
            keep_dims: attrs.flag("keepdims", true)?,
        })
    }

    pub fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with_some("axes", (!self.axes.is_empty()).then(|| ints(self.axes.iter().copied())))
            .with("keepdims", Attr::Int(self.keep_dims.into()))
    }

    fn of(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        match self.axes.is_empty() {
            true => Ok((0..rank).collect()),
            false => normalize_axes(&self.axes, rank),
        }
    }

    /// Type and shape of the output. `of_nothing` says whether an empty axis may be reduced, whatever the
    /// type: the largest and the smallest, which truth has too, are infinite then.
    pub fn infer(&self, inputs: &[Option<Spec>], of_nothing: bool) -> Result<Vec<Spec>, OpError> {
        let truth = !of_nothing && required(inputs, 0)?.dtype == DType::Bool;
        let types = if truth { unary::Types(&[DType::Bool], "bool") } else { unary::NUMBERS };
        let x = types.input(inputs, 0)?;
        sized(x.dtype, x.shape.clone(), inputs)?;
        let axes = self.of(x.shape.len())?;
        let finite = !of_nothing && x.dtype != DType::F32;
        if finite && axes.iter().any(|&a| x.shape[a] == 0) {
            return Err(shape_error("the largest or smallest of nothing", inputs));
        }
        let size = |i: usize| match axes.contains(&i) {
            false => Some(x.shape[i]),
            true => self.keep_dims.then_some(1),
        };
        sized(x.dtype, (0..x.shape.len()).filter_map(size).collect(), inputs)
    }

    /// Calls `f(output, input)` for each input element in the order of memory.
    pub fn for_each(&self, shape: &[usize], mut f: impl FnMut(usize, usize)) {
        let axes = self.of(shape.len()).expect("checked by infer");
        let mut strides = vec![0; shape.len()];
        let mut stride = 1;
        for axis in (0..shape.len()).rev().filter(|a| !axes.contains(a)) {
            strides[axis] = stride;
            stride *= shape[axis];
        }
        let mut index = vec![0; shape.len()];
        let mut output = 0;
        for i in 0..shape.iter().product() {
            f(output, i);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                output += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                output -= strides[axis] * shape[axis];
                index[axis] = 0;
            }
        }
    }

    /// Folds floats, or integers with the result wrapped to the type.
    pub fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], steps: &Steps) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        if x.dtype == DType::F32 {
            let (data, y) = (x.data::<f32>(), y.data_mut::<f32>());
            y.fill(steps.start.0);
            self.for_each(x.shape, |o, i| y[o] = (steps.real)(y[o], data[i]));
            return y.iter_mut().for_each(|y| *y = (steps.end.0)(*y));
        }
        let data: Vec<i64> = match x.dtype {
            DType::I32 => x.data::<i32>().iter().map(|&v| v.into()).collect(),
            DType::I64 => x.data::<i64>().to_vec(),
            DType::Bool => x.bytes.iter().map(|&v| v.into()).collect(),
            _ => eval::codes(&x).into_iter().map(i64::from).collect(),
        };
        let mut all = vec![steps.start.1; y.len()];
        self.for_each(x.shape, |o, i| all[o] = (steps.integer)(all[o], data[i]));
        let all = all.into_iter().map(steps.end.1);
        match y.dtype {
            DType::I32 => y.data_mut::<i32>().iter_mut().zip(all).for_each(|(y, v)| *y = v as i32),
            DType::I64 => y.data_mut::<i64>().iter_mut().zip(all).for_each(|(y, v)| *y = v),
            // The low byte is the number, of either sign.
            _ => y.bytes.iter_mut().zip(all).for_each(|(y, v)| *y = v as u8),
        }
    }
}

/// Defines a reduction: its documentation, name, the operator set from which the axes are an
/// input, whether it may reduce nothing, and its steps.
macro_rules! reduction {
    ($(#[$doc:meta])* $name:ident, $since:literal, $of_nothing:literal, $steps:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(reduce::Axes);

        impl Operator for $name {
            const NAME: &'static str = stringify!($name);
            const INPUTS: usize = 2;
            const ATTR_INPUTS: &'static [AttrInput] =
                &[AttrInput { index: 1, name: "axes", since: $since }];

            fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
                Ok($name(reduce::Axes::from_attrs(attrs)?))
            }

            fn to_attrs(&self) -> Attrs {
                self.0.to_attrs()
            }

            fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
                self.0.infer(inputs, $of_nothing)
            }

            fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
                self.0.run(inputs, outputs, &$steps);
            }

            fn quantization(&self) -> Quantization {
                Quantization::FloatInside
            }
        }
    };
}
pub(crate) use reduction;

#[cfg(test)]
mod tests {
    use super::super::eval::evaluate_plain;
    use super::super::unary::testing::*;
    use super::*;

    fn op(name: &str, axes: &[i64], keep_dims: bool) -> Op {
        let attrs = Attrs::new()
            .with("axes", ints(axes.iter().copied()))
            .with("keepdims", Attr::Int(keep_dims.into()));
        let op = Op::from_attrs(name, &attrs).unwrap().unwrap();
        assert_eq!(Op::from_attrs(name, &op.to_attrs()), Some(Ok(op.clone())));
        op
    }

    #[test]
    fn truth_and_nothing_have_a_largest_and_a_smallest() {
        let truth = Tensor::from_bytes(DType::Bool, &[3, 2], &[1, 1, 1, 0, 0, 0]);
        let nothing = Tensor::from_slice::<f32>(&[2, 0], &[]);
        let (most, least) = (f32::INFINITY, f32::NEG_INFINITY);
        for (name, rows, none) in
            [("ReduceMax", [1u8, 1, 0], least), ("ReduceMin", [1, 0, 0], most)]
        {
            let op = op(name, &[1], false);
            let y = evaluate_plain(&op, &[Some(&truth)]).unwrap();
            assert_eq!((y[0].dtype(), y[0].bytes()), (DType::Bool, &rows[..]), "{name}");
            let y = evaluate_plain(&op, &[Some(&nothing)]).unwrap();
            assert_eq!(y[0].data::<f32>(), [none; 2], "{name}");
            assert!(op.infer(&[Some(Spec::new(DType::I32, &[2, 0]))]).is_err());
        }
        assert!(
            op("ReduceSum", &[1], false).infer(&[Some(Spec::new(DType::Bool, &[2, 2]))]).is_err()
        );
    }

    #[test]
    fn floats_over_one_axis_and_all() {
        let x = [1f32, -2., 3., 4., -5., 6.];
        for (name, rows, all) in [
            ("ReduceSum", [2f32, 5.], 7f32),
            ("ReduceMax", [3., 6.], 6.),
            ("ReduceMin", [-2., -5.], -5.),
            ("ReduceProd", [-6., -120.], 720.),
            ("ReduceL1", [6., 15.], 21.),
            ("ReduceL2", [14f32.sqrt(), 77f32.sqrt()], 91f32.sqrt()),
            ("ReduceSumSquare", [14., 77.], 91.),
            ("ReduceLogSum", [2f32.ln(), 5f32.ln()], 7f32.ln()),
        ] {
            let y = run_f32(&op(name, &[-1], true), &[(&[2, 3], &x)]);
            assert_eq!(y.shape(), [2, 1], "{name}");
            assert_near(y.data(), &rows);
            let y = run_f32(&op(name, &[], false), &[(&[2, 3], &x)]);
            assert_eq!(y.shape(), [0usize; 0], "{name}");
            assert_near(y.data(), &[all]);
        }
        let y = run_f32(&op("ReduceSum", &[0], false), &[(&[2, 3], &x)]);
        assert_eq!((y.shape(), y.data::<f32>()), (&[3][..], &[5., -7., 9.][..]));
    }

    #[test]
    fn integers_and_nothing() {
        let x = Tensor::from_slice(&[2, 2], &[3i64, -4, 1 << 40, 2]);
        for (name, want) in [
            ("ReduceSum", [-1, (1 << 40) + 2]),
            ("ReduceMax", [3, 1 << 40]),
            ("ReduceMin", [-4, 2]),
            ("ReduceProd", [-12, 1 << 41]),
            ("ReduceL1", [7, (1 << 40) + 2]),
        ] {
            let y = evaluate_plain(&op(name, &[1], false), &[Some(&x)]).unwrap();
            assert_eq!(y[0].data::<i64>(), want, "{name}");
        }
        let y = run_f32(&op("ReduceSum", &[1], true), &[(&[2, 0], &[])]);
        assert_eq!((y.shape(), y.data::<f32>()), (&[2, 1][..], &[0., 0.][..]));
        let y = run_f32(&op("ReduceProd", &[0], true), &[(&[0, 2], &[])]);
        assert_eq!(y.data::<f32>(), [1., 1.]);
        let none = [Some(Spec::new(DType::I64, &[2, 0]))];
        assert!(op("ReduceMax", &[1], true).infer(&none).is_err());
        assert!(op("ReduceSum", &[2], true).infer(&[floats(&[2, 3])]).is_err());
        assert!(op("ReduceSum", &[0], true).infer(&[]).is_err());
    }
}
