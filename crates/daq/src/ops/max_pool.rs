//! MaxPool: the greatest element of each window; padding takes no part. Opsets 1, 8, 10 (dilations,
//! ceil_mode), 11, 12 (8-bit types), 22.

use daq_kernels::{MaxPoolF32, MaxPoolU8};

use super::moves::sized;
use super::pixels::*;
use super::spatial::Window;
use super::*;
use crate::tensor::Element;

/// ONNX MaxPool, of any number of spatial axes. Also gives the place of each greatest element among
/// all elements of the input.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxPool {
    /// Kernel, strides, dilations and padding.
    pub window: Window,
    /// Whether places are counted by columns rather than rows.
    pub column_major: bool,
}

fn run<T: Element>(s: &daq_kernels::ConvShape, lowest: T, x: &[T], y: &mut [T]) {
    for_each_window(s, s.all_pixels(), |pixel, taps| {
        let y = &mut y[pixel * s.in_c..][..s.in_c];
        y.fill(lowest);
        for &tap in taps.iter().flatten() {
            for (y, &x) in y.iter_mut().zip(&x[tap..]) {
                // A NaN stays.
                *y = if *y >= x || y.partial_cmp(&y).is_none() { *y } else { x };
            }
        }
    });
}

impl MaxPool {
    fn run_as<T: Element>(
        &self,
        lowest: T,
        inputs: &[Option<TensorView>],
        outputs: &mut [TensorViewMut],
    ) {
        let x = inputs[0].expect("checked by infer");
        let data = x.data::<T>();
        if x.shape.len() > 4 {
            let larger = |a: usize, b: usize| if data[b] > data[a] { b } else { a };
            let places = |taps: &[usize]| taps.iter().copied().reduce(larger).unwrap_or(0);
            let [y, rest @ ..] = outputs else { return };
            planes::run(&self.window, x.shape, y.data_mut::<T>(), |taps, _| data[places(taps)]);
            if let [indices, ..] = rest {
                let y = indices.data_mut::<i64>();
                planes::run(&self.window, x.shape, y, |taps, _| places(taps) as i64);
            }
            return;
        }
        let (s, _) = pool_shape(&self.window, &view_specs(inputs)).expect("checked by infer");
        if let [_, indices, ..] = outputs {
            self.places(&s, data, indices.data_mut());
        }
        run(&s, lowest, data, outputs[0].data_mut());
    }

    /// The place of the greatest element of each window, of channels-last data.
    fn places<T: Element>(&self, s: &daq_kernels::ConvShape, x: &[T], y: &mut [i64]) {
        let plane = s.in_h * s.in_w;
        for_each_window(s, s.all_pixels(), |pixel, taps| {
            for (c, y) in y[pixel * s.in_c..][..s.in_c].iter_mut().enumerate() {
                let larger = |a: usize, b: usize| if x[b + c] > x[a + c] { b } else { a };
                let best = taps.iter().flatten().copied().reduce(larger).unwrap_or(0) / s.in_c;
                let (picture, at) = (best / plane, best % plane);
                let at = match self.column_major {
                    true => at % s.in_w * s.in_h + at / s.in_w,
                    false => at,
                };
                *y = ((picture * s.in_c + c) * plane + at) as i64;
            }
        });
    }
}

impl Operator for MaxPool {
    const NAME: &'static str = "MaxPool";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let column_major = attrs.flag("storage_order", false)?;
        Ok(MaxPool { window: Window::of_pool(attrs)?, column_major })
    }

    fn to_attrs(&self) -> Attrs {
        let order = self.column_major.then_some(Attr::Int(1));
        self.window.to_attrs(Attrs::new()).with_some("storage_order", order)
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        allow(inputs, 0, &[DType::F32, DType::U8, DType::I8], "f32, u8, i8")?;
        let mut outputs = match planes::many_axes(inputs) {
            true => planes::infer(&self.window, inputs)?,
            false => {
                let (s, _) = pool_shape(&self.window, inputs)?;
                window_output(&s, required(inputs, 0)?.dtype, inputs)?
            }
        };
        outputs.extend(sized(DType::I64, outputs[0].shape.clone(), inputs)?);
        Ok(outputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        match inputs[0].expect("checked by infer").dtype {
            DType::F32 => self.run_as(f32::NEG_INFINITY, inputs, outputs),
            DType::I8 => self.run_as(i8::MIN, inputs, outputs),
            _ => self.run_as(0u8, inputs, outputs),
        }
    }

    fn operations(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        window_operations(&self.window, inputs, outputs)
    }

    fn layout(&self, inputs: &[Option<Spec>]) -> LayoutRule {
        if planes::many_axes(inputs) { LayoutRule::Plain } else { LayoutRule::ChannelsLast }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (s, _) = pool_shape(&self.window, &operand_specs(compile)).ok()?;
        if compile.clamp.is_some() || s.in_c == 0 || compile.outputs.len() > 1 {
            return None;
        }
        match compile.input(0)?.dtype {
            DType::F32 => {
                let kernel = MaxPoolF32::new(&s, compile.isa);
                compiled("max_pool_f32", move |inputs, y, pool| {
                    let x = inputs[0].expect("checked by infer").data::<f32>();
                    let run = |pixels, y: &mut [f32]| kernel.run(x, pixels, y);
                    over_pixels(pool, y.data_mut(), s.out_c, s.out_w, run);
                })
            }
            DType::U8 => {
                let kernel = MaxPoolU8::new(&s, compile.isa);
                compiled("max_pool_u8", move |inputs, y, pool| {
                    let x = inputs[0].expect("checked by infer").data::<u8>();
                    let run = |pixels, y: &mut [u8]| kernel.run(x, pixels, y);
                    over_pixels(pool, y.data_mut(), s.out_c, s.out_w, run);
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    fn pool(lists: &[(&str, &[i64])], ceil_mode: i64) -> MaxPool {
        let attrs = lists.iter().fold(Attrs::new(), |a, (n, l)| a.with(n, Attr::Ints(l.to_vec())));
        let op = MaxPool::from_attrs(&attrs.with("ceil_mode", Attr::Int(ceil_mode))).unwrap();
        assert_eq!(MaxPool::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    #[test]
    fn windows_keep_their_greatest() {
        let x = [1i8, 2, 3, -4, -5, -6, 7, -8, 9];
        let kernel: (&str, &[i64]) = ("kernel_shape", &[2, 2]);
        for (op, expected) in [
            (pool(&[kernel], 0), vec![2, 3, 7, 9]),
            (pool(&[kernel, ("strides", &[2, 2])], 0), vec![2]),
            (pool(&[kernel, ("strides", &[2, 2])], 1), vec![2, 3, 7, 9]),
            (pool(&[kernel, ("dilations", &[2, 2])], 0), vec![9]),
            // Below the first row there is only padding: -5 wins over it.
            (
                pool(&[("kernel_shape", &[1, 2]), ("pads", &[0, 1, 0, 0])], 0),
                vec![1, 2, 3, -4, -4, -5, 7, 7, 9],
            ),
        ] {
            for negative in [false, true] {
                let floats: Vec<f32> = x.iter().map(|&v| v.into()).collect();
                let x = match negative {
                    true => Tensor::from_slice(&[1, 1, 3, 3], &x),
                    false => Tensor::from_slice(&[1, 1, 3, 3], &floats),
                };
                let y = &evaluate_plain(&op.clone().into(), &[Some(&x)]).unwrap()[0];
                let y: Vec<i8> = match negative {
                    true => y.data::<i8>().to_vec(),
                    false => y.data::<f32>().iter().map(|&v| v as i8).collect(),
                };
                assert_eq!(y, expected, "{op:?}");
            }
        }
        let x = Tensor::from_slice(&[1, 1, 4], &[1u8, 3, 2, 4]);
        let op = pool(&[("kernel_shape", &[2])], 0);
        assert_eq!(evaluate_plain(&op.into(), &[Some(&x)]).unwrap()[0].data::<u8>(), [3, 3, 4]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        for (channels, size, lists) in [
            (1, 5, vec![("kernel_shape", vec![3, 3]), ("pads", vec![1, 1, 1, 1])]),
            (17, 9, vec![("kernel_shape", vec![2, 3]), ("strides", vec![2, 1])]),
            (64, 13, vec![("kernel_shape", vec![3, 3]), ("strides", vec![2, 2]), ("pads", vec![1, 0, 0, 1])]),
            (33, 8, vec![("kernel_shape", vec![2, 2]), ("dilations", vec![3, 2])]),
        ] {
            let lists: Vec<_> = lists.iter().map(|(n, l)| (*n, l.as_slice())).collect();
            let op = pool(&lists, 1);
            let spec = Spec::new(DType::F32, &[2, channels, size, size]);
            let shape = Layout::ChannelsLast.physical(&op.infer(&[Some(spec)]).unwrap()[0].shape);
            let shape_in = [2, size, size, channels];
            for (dtype, x) in
                [(DType::F32, noise(&shape_in)), (DType::U8, code_noise(DType::U8, &shape_in))]
            {
                let op = op.clone().into();
                assert_kernel_is_run(&op, &[Some((&x, None))], &[], (dtype, &shape, None), true);
            }
        }
    }

    #[test]
    fn misfits_are_errors() {
        let op = pool(&[("kernel_shape", &[2, 2])], 0);
        for (dtype, shape) in [
            (DType::F32, vec![1, 1, 3]),
            (DType::F32, vec![1, 1, 1, 3]),
            (DType::I64, vec![1, 1, 3, 3]),
            (DType::F32, vec![1, 1, usize::MAX, 3]),
            (DType::F32, vec![]),
        ] {
            assert!(op.infer(&[Some(Spec::new(dtype, &shape))]).is_err(), "{shape:?}");
        }
    }
}
