//! ReduceMean: the mean over some axes. Opsets 1, 11 (negative axes), 13, 18 (axes as an input).
//!
//! Floats: `(0.0 + x_0 + x_1 + ...) / n` in the order of memory. Codes:
//! `rne(acc * (sa / (sc * n))) + zc` with `acc` the sum of `q - za`.

use super::eval::{quant, requantize};
use super::global_average_pool::mean_kernel;
use super::moves::{ints, normalize_axes, sized};
use super::pixels::allow;
use super::*;

/// ONNX ReduceMean with constant axes.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceMean {
    /// The axes; empty for all.
    pub axes: Vec<i64>,
    /// Whether the axes stay, with size 1.
    pub keep_dims: bool,
    /// Whether no axes means that nothing is reduced.
    pub noop_with_empty_axes: bool,
    /// Whether `run` is given channels-last data (`axes` are logical all the same).
    channels_last: bool,
}

impl ReduceMean {
    pub(crate) fn axes(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        match self.axes.is_empty() {
            true if self.noop_with_empty_axes => Ok(vec![]),
            true => Ok((0..rank).collect()),
            false => normalize_axes(&self.axes, rank),
        }
    }

    /// Whether it is a global average pooling: over height and width of pictures.
    fn is_global(&self, rank: usize) -> bool {
        let axes = self.axes(rank).unwrap_or_default();
        rank == 4 && (axes == [2, 3] || axes == [3, 2])
    }

    /// Calls `f(output, input)` for each input element in the order of memory; gives the number
    /// of elements in each mean.
    fn for_each(&self, shape: &[usize], mut f: impl FnMut(usize, usize)) -> usize {
        let rank = shape.len();
        let axes = self.axes(rank).expect("checked by infer");
        let layout = match self.channels_last || self.is_global(rank) {
            true => Layout::ChannelsLast,
            false => Layout::Plain,
        };
        let axes: Vec<_> = axes.into_iter().map(|a| layout.physical_axis(a, rank)).collect();
        let mut strides = vec![0; rank];
        let mut stride = 1;
        for axis in (0..rank).rev().filter(|a| !axes.contains(a)) {
            strides[axis] = stride;
            stride *= shape[axis];
        }
        let mut index = vec![0; rank];
        let mut output = 0;
        for i in 0..shape.iter().product() {
            f(output, i);
            for axis in (0..rank).rev() {
                index[axis] += 1;
                output += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                output -= strides[axis] * shape[axis];
                index[axis] = 0;
            }
        }
        axes.iter().map(|&a| shape[a]).product()
    }
}

impl Operator for ReduceMean {
    const NAME: &'static str = "ReduceMean";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "axes", since: 18 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(ReduceMean {
            axes: attrs.get_ints("axes")?.unwrap_or_default(),
            keep_dims: attrs.flag("keepdims", true)?,
            noop_with_empty_axes: attrs.flag("noop_with_empty_axes", false)?,
            channels_last: false,
        })
    }

    fn to_attrs(&self) -> Attrs {
        let noop = self.noop_with_empty_axes.then_some(Attr::Int(1));
        Attrs::new()
            .with_some("axes", (!self.axes.is_empty()).then(|| ints(self.axes.iter().copied())))
            .with("keepdims", Attr::Int(self.keep_dims.into()))
            .with_some("noop_with_empty_axes", noop)
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        allow(inputs, 0, &[DType::F32, DType::U8], "f32, u8")?;
        let x = required(inputs, 0)?;
        sized(x.dtype, x.shape.clone(), inputs)?;
        let axes = self.axes(x.shape.len())?;
        if axes.iter().any(|&a| x.shape[a] == 0) {
            return Err(shape_error("the mean of nothing", inputs));
        }
        let size = |i: usize| match axes.contains(&i) {
            false => Some(x.shape[i]),
            true => self.keep_dims.then_some(1),
        };
        sized(x.dtype, (0..x.shape.len()).filter_map(size).collect(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        if x.dtype == DType::F32 {
            let (x_data, y) = (x.data::<f32>(), y.data_mut::<f32>());
            y.fill(0.0);
            let count = self.for_each(x.shape, |o, i| y[o] += x_data[i]);
            y.iter_mut().for_each(|y| *y /= count as f32);
            return;
        }
        let (xq, yq) = (quant(&x), y.quant.expect("codes have a quantization"));
        let (codes, zero_point) = (x.data::<u8>(), i64::from(xq.zero_point[0]));
        let mut sums = vec![0i64; y.len()];
        let count = self.for_each(x.shape, |o, i| sums[o] += i64::from(codes[i]) - zero_point);
        let multiplier = xq.scale[0] / (yq.scale[0] * count as f32);
        for (y, sum) in y.bytes.iter_mut().zip(sums) {
            let acc = sum.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
            *y = requantize(acc, multiplier, yq.zero_point[0]);
        }
    }

    fn layout(&self, inputs: &[Option<Spec>]) -> LayoutRule {
        match required(inputs, 0) {
            Ok(x) if self.is_global(x.shape.len()) => LayoutRule::ChannelsLast,
            _ if self.keep_dims => LayoutRule::Any,
            _ => LayoutRule::Plain,
        }
    }

    fn to_channels_last(&self, _: usize) -> Self {
        ReduceMean { channels_last: true, ..self.clone() }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Integer
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let global = self.is_global(compile.input(0)?.shape.len()) && !self.channels_last;
        global.then(|| mean_kernel(compile)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;
    use crate::QuantParams;
    use crate::layout::to_channels_last;
    use crate::ops::pixels::{assert_kernel_is_run, code_noise, noise};

    fn mean(axes: &[i64], keep_dims: bool) -> ReduceMean {
        let attrs = Attrs::new()
            .with("axes", ints(axes.iter().copied()))
            .with("keepdims", Attr::Int(keep_dims.into()));
        let op = ReduceMean::from_attrs(&attrs).unwrap();
        assert_eq!(ReduceMean::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    #[test]
    fn means_over_axes() {
        let x: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let x = Tensor::from_slice(&[2, 3, 2, 2], &x);
        let noop = ReduceMean { noop_with_empty_axes: true, ..mean(&[], true) };
        for (op, shape, data) in [
            (mean(&[2, 3], true), vec![2, 3, 1, 1], vec![1.5, 5.5, 9.5, 13.5, 17.5, 21.5]),
            (mean(&[-1, -2], false), vec![2, 3], vec![1.5, 5.5, 9.5, 13.5, 17.5, 21.5]),
            (mean(&[1], true), vec![2, 1, 2, 2], vec![4., 5., 6., 7., 16., 17., 18., 19.]),
            (mean(&[0, -1], false), vec![3, 2], vec![6.5, 8.5, 10.5, 12.5, 14.5, 16.5]),
            (mean(&[], false), vec![], vec![11.5]),
            (noop, x.shape().to_vec(), x.data().to_vec()),
        ] {
            let y = evaluate_plain(&op.clone().into(), &[Some(&x)]).unwrap();
            assert_eq!((y[0].shape(), y[0].data::<f32>()), (&shape[..], &data[..]), "{op:?}");
        }
        // Over the channels of channels-last data.
        let last = to_channels_last(&x);
        let op: Op = mean(&[1, 3], true).to_channels_last(4).into();
        let mut bytes = [0f32; 4];
        let bytes = bytemuck::cast_slice_mut(&mut bytes);
        let y = TensorViewMut { dtype: DType::F32, shape: &[2, 2, 1, 1], quant: None, bytes };
        let mut y = [y];
        op.run(&[Some(last.view())], &mut y);
        assert_eq!(y[0].data_mut::<f32>(), [4.5, 6.5, 16.5, 18.5]);
    }

    #[test]
    fn codes_are_summed_exactly() {
        let x = Tensor::from_slice(&[2, 2], &[11u8, 14, 10, 0]);
        let (xq, yq) = (QuantParams::per_tensor(0.5, 10), QuantParams::per_tensor(0.5, 3));
        let op = mean(&[1], false).into();
        let y = evaluate(&op, &[Some((&x, Some(&xq)))], &[(DType::U8, yq)]).unwrap();
        assert_eq!(y[0].data::<u8>(), [5, 0]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        let (xq, yq) = (QuantParams::per_tensor(0.031, 101), QuantParams::per_tensor(0.011, 77));
        let op: Op = mean(&[2, 3], false).into();
        let x = noise(&[2, 7, 5, 33]);
        assert_kernel_is_run(&op, &[Some((&x, None))], &[], (DType::F32, &[2, 33], None), true);
        let x = code_noise(DType::U8, &[2, 7, 5, 33]);
        let out = (DType::U8, &[2, 33][..], Some(&yq));
        assert_kernel_is_run(&op, &[Some((&x, Some(&xq)))], &[], out, true);
    }

    #[test]
    fn misfits_are_errors() {
        for (op, dtype, shape) in [
            (mean(&[2], true), DType::F32, vec![1, 2]),
            (mean(&[0, -2], true), DType::F32, vec![1, 2]),
            (mean(&[0], true), DType::F32, vec![0, 2]),
            (mean(&[0], true), DType::I64, vec![1, 2]),
        ] {
            assert!(op.infer(&[Some(Spec::new(dtype, &shape))]).is_err(), "{op:?}");
        }
    }
}
