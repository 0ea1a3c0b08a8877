//! Windows over any number of spatial axes, in plain layout: for poolings of what is not a picture.

use super::moves::sized;
use super::spatial::{Axis, Window};
use super::*;

/// Whether input 0 has more spatial axes than a picture.
pub(crate) fn many_axes(inputs: &[Option<Spec>]) -> bool {
    inputs.first().is_some_and(|x| x.as_ref().is_some_and(|x| x.shape.len() > 4))
}

/// The most elements of a window.
const MOST_TAPS: usize = 1 << 20;

/// Type and shape of the output.
pub(crate) fn infer(window: &Window, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
    let x = required(inputs, 0)?;
    let axes = window.resolve_any(inputs, None)?;
    let taps = axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.kernel));
    if taps.is_none_or(|n| n > MOST_TAPS) {
        return Err(shape_error(format!("a window of {:?} is too large", window.kernel), inputs));
    }
    let mut shape = x.shape[..2].to_vec();
    shape.extend(axes.iter().map(|axis| axis.output));
    sized(x.dtype, shape, inputs)
}

/// [`Operator::operations`]: each output reads its window.
pub(crate) fn operations(window: &Window, outputs: &[Spec]) -> u64 {
    let taps = window.kernel.iter().fold(1u64, |n, &k| n.saturating_mul(k as u64));
    outputs.first().map_or(0, elements).saturating_mul(taps)
}

/// Each output element from its window: the places in the input of the taps inside of it, and how
/// many taps lie inside of input and padding. `shape` is the input's.
pub(crate) fn run<T>(
    window: &Window,
    shape: &[usize],
    y: &mut [T],
    mut f: impl FnMut(&[usize], usize) -> T,
) {
    let outputs = y.len();
    for_each(window, shape, outputs, &mut |i, taps, whole| y[i] = f(taps, whole));
}

/// Calls `f` with each of `count` output elements and what [`run`] says of it; compiled once.
fn for_each(
    window: &Window,
    shape: &[usize],
    count: usize,
    f: &mut dyn FnMut(usize, &[usize], usize),
) {
    let spec = [Some(Spec::new(DType::F32, shape))];
    let axes = window.resolve_any(&spec, None).expect("checked by infer");
    let plane: usize = shape[2..].iter().product();
    let outputs: usize = axes.iter().map(|axis| axis.output).product();
    let taps: usize = axes.iter().map(|axis| axis.kernel).product();
    let mut inside = Vec::new();
    for i in 0..count {
        let first = i / outputs.max(1) * plane;
        inside.clear();
        let mut whole = 0;
        for tap in 0..taps {
            let (offset, counts) = place(&axes, i % outputs, tap);
            inside.extend(offset.map(|offset| first + offset));
            whole += usize::from(counts);
        }
        f(i, &inside, whole);
    }
}

/// Where a tap of an output lies in its plane, where it does, and whether it lies inside of input
/// and padding.
fn place(axes: &[Axis], mut output: usize, mut tap: usize) -> (Option<usize>, bool) {
    let (mut offset, mut stride, mut counts) = (Some(0), 1, true);
    for axis in axes.iter().rev() {
        let at = output % axis.output * axis.stride + tap % axis.kernel * axis.dilation;
        counts &= at < axis.pad_begin + axis.input + axis.pad_end;
        let at = at.checked_sub(axis.pad_begin).filter(|&at| at < axis.input);
        offset = offset.zip(at).map(|(offset, at)| offset + at * stride);
        (output, tap, stride) = (output / axis.output, tap / axis.kernel, stride * axis.input);
    }
    (offset, counts)
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn cubes() {
        let x: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let attrs = Attrs::new()
            .with("kernel_shape", Attr::Ints(vec![2, 2, 2]))
            .with("pads", Attr::Ints(vec![0, 0, 1, 0, 0, 0]));
        let max = Op::from_attrs("MaxPool", &attrs).unwrap().unwrap();
        let x = [(&[1usize, 1, 2, 2, 2][..], &x[..])];
        let y = eval::evaluate_plain(&max, &[Some(&Tensor::from_slice(x[0].0, x[0].1))]).unwrap();
        assert_eq!((y[0].shape(), y[0].data::<f32>()), (&[1, 1, 1, 1, 2][..], &[6., 7.][..]));
        assert_eq!(y[1].data::<i64>(), [6, 7]);
        for (include, want) in [(0, [3., 3.5]), (1, [1.5, 3.5])] {
            let attrs = attrs.clone().with("count_include_pad", Attr::Int(include));
            let average = Op::from_attrs("AveragePool", &attrs).unwrap().unwrap();
            assert_eq!(run_f32(&average, &x).data::<f32>(), want);
        }
    }
}
