//! AveragePool: the mean of each window. Opsets 1, 7 (count_include_pad), 10 (ceil_mode), 11, 19
//! (dilations), 22.
//!
//! `y = (0.0 + x_0 + x_1 + ...) / n`, the pixels row by row, in f32. `n` counts the pixels inside of
//! the input; with `count_include_pad` those inside of input and padding, which leaves out what
//! `ceil_mode` lets a last window reach beyond the padding.

use daq_kernels::{AveragePoolF32, ConvShape};

use super::pixels::*;
use super::spatial::{Axis, Window};
use super::*;

/// ONNX AveragePool, of any number of spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePool {
    /// Kernel, strides, dilations and padding.
    pub window: Window,
    /// Whether padding counts as zeros.
    pub count_include_pad: bool,
}

/// How many taps of an output position lie inside of input and padding.
fn taps_inside(axis: &Axis, position: usize) -> usize {
    let end = axis.pad_begin + axis.input + axis.pad_end;
    (0..axis.kernel).filter(|k| position * axis.stride + k * axis.dilation < end).count()
}

impl AveragePool {
    /// Whether every window lies inside of input and padding.
    fn whole_windows([h, w]: &[Axis; 2]) -> bool {
        [h, w].iter().all(|axis| taps_inside(axis, axis.output - 1) == axis.kernel)
    }

    /// Averages output pixels; `load` and `store` are between elements and real numbers.
    fn pixels<T: Copy>(
        &self,
        (s, axes): &(ConvShape, [Axis; 2]),
        x: &[T],
        pixels: std::ops::Range<usize>,
        y: &mut [T],
        load: impl Fn(T) -> f32,
        store: impl Fn(f32) -> T,
    ) {
        let first = pixels.start;
        let mut sums = vec![0f32; s.in_c];
        for_each_window(s, pixels, |i, taps| {
            sums.fill(0.0);
            for &tap in taps.iter().flatten() {
                sums.iter_mut().zip(&x[tap..]).for_each(|(sum, &x)| *sum += load(x));
            }
            let pixel = first + i;
            let count = match self.count_include_pad {
                false => taps.iter().flatten().count(),
                true => {
                    taps_inside(&axes[0], pixel / s.out_w % s.out_h)
                        * taps_inside(&axes[1], pixel % s.out_w)
                }
            };
            let y = &mut y[i * s.in_c..][..s.in_c];
            y.iter_mut().zip(&sums).for_each(|(y, &sum)| *y = store(sum / count as f32));
        });
    }
}

impl Operator for AveragePool {
    const NAME: &'static str = "AveragePool";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let count_include_pad = attrs.flag("count_include_pad", false)?;
        Ok(AveragePool { window: Window::of_pool(attrs)?, count_include_pad })
    }

    fn to_attrs(&self) -> Attrs {
        let include = self.count_include_pad.then_some(Attr::Int(1));
        self.window.to_attrs(Attrs::new()).with_some("count_include_pad", include)
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        if planes::many_axes(inputs) {
            allow(inputs, 0, &[DType::F32, DType::U8, DType::I8], "f32, u8, i8")?;
            return planes::infer(&self.window, inputs);
        }
        let (s, _) = pool_shape(&self.window, inputs)?;
        allow(inputs, 0, &[DType::F32, DType::U8, DType::I8], "f32, u8, i8")?;
        window_output(&s, required(inputs, 0)?.dtype, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        if x.shape.len() > 4 {
            let data = x.data::<f32>();
            return planes::run(&self.window, x.shape, y.data_mut(), |taps, whole| {
                let sum = taps.iter().fold(0.0, |sum, &tap| sum + data[tap]);
                sum / if self.count_include_pad { whole } else { taps.len() } as f32
            });
        }
        let s = pool_shape(&self.window, &view_specs(inputs)).expect("checked by infer");
        let all = s.0.all_pixels();
        self.pixels(&s, x.data::<f32>(), all, y.data_mut(), |x| x, |y| y);
    }

    fn operations(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        window_operations(&self.window, inputs, outputs)
    }

    fn layout(&self, inputs: &[Option<Spec>]) -> LayoutRule {
        if planes::many_axes(inputs) { LayoutRule::Plain } else { LayoutRule::ChannelsLast }
    }

    fn quantization(&self) -> Quantization {
        Quantization::Averages
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let shapes = pool_shape(&self.window, &operand_specs(compile)).ok()?;
        let (s, axes) = shapes;
        let (input, output) = (compile.input(0)?, *compile.outputs.first()?);
        if compile.clamp.is_some() || s.in_c == 0 || s.out_h * s.out_w == 0 {
            return None;
        }
        let exact = !self.count_include_pad || Self::whole_windows(&axes);
        if input.dtype == DType::F32 && exact {
            let kernel = AveragePoolF32::new(&s, self.count_include_pad, compile.isa);
            return compiled("average_pool_f32", move |inputs, y, pool| {
                let x = inputs[0].expect("checked by infer").data::<f32>();
                let run = |pixels, y: &mut [f32]| kernel.run(x, pixels, y);
                over_pixels(pool, y.data_mut(), s.out_c, s.out_w, run);
            });
        }
        if !input.is_quantized() || !output.is_quantized() {
            return None;
        }
        let (op, xq, yq) = (self.clone(), input.quant?.clone(), output.quant?.clone());
        compiled("average_pool_u8", move |inputs, y, pool| {
            let x = inputs[0].expect("checked by infer").data::<u8>();
            let load = |q: u8| xq.real(q.into());
            let store = |x: f32| yq.code(x, 0, 255) as u8;
            let run = |pixels, y: &mut [u8]| op.pixels(&shapes, x, pixels, y, load, store);
            over_pixels(pool, y.data_mut(), s.out_c, s.out_w, run);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;
    use crate::QuantParams;

    fn pool(kernel: i64, stride: i64, pads: [i64; 4], ceil: bool, include: bool) -> AveragePool {
        let attrs = Attrs::new()
            .with("kernel_shape", Attr::Ints(vec![kernel; 2]))
            .with("strides", Attr::Ints(vec![stride; 2]))
            .with("pads", Attr::Ints(pads.to_vec()))
            .with("ceil_mode", Attr::Int(ceil.into()))
            .with("count_include_pad", Attr::Int(include.into()));
        let op = AveragePool::from_attrs(&attrs).unwrap();
        assert_eq!(AveragePool::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    #[test]
    fn means_as_onnxruntime_computes_them() {
        let x: Vec<f32> = (1..=25).map(|v| v as f32).collect();
        let x = Tensor::from_slice(&[1, 1, 5, 5], &x);
        let none = [0; 4];
        let clipped = vec![4., 6., 7.5, 14., 16., 17.5, 21.5, 23.5, 25.];
        for (op, expected) in [
            (pool(2, 2, none, false, false), vec![4., 6., 14., 16.]),
            (pool(2, 2, none, true, false), clipped.clone()),
            (pool(2, 2, none, true, true), clipped),
            (pool(3, 3, [1, 1, 0, 0], true, false), vec![4., 6.5, 16.5, 19.]),
            (pool(3, 3, [1, 1, 0, 0], true, true), vec![1.7777778, 4.3333335, 11., 19.]),
            (pool(4, 3, [1, 1, 1, 1], true, false), vec![7., 9., 17., 19.]),
            (pool(4, 3, [1, 1, 1, 1], true, true), vec![3.9375, 5.0625, 9.5625, 10.6875]),
        ] {
            let y = evaluate_plain(&op.clone().into(), &[Some(&x)]).unwrap();
            assert_eq!(y[0].data::<f32>(), expected, "{op:?}");
        }
    }

    #[test]
    fn codes_are_averaged_as_real_numbers() {
        let x = Tensor::from_slice(&[1, 1, 2, 2], &[1u8, 2, 4, 3]);
        let quant = QuantParams::per_tensor(0.5, 1);
        let op = pool(2, 1, [0; 4], false, false);
        let out = [(DType::U8, quant.clone())];
        let y = evaluate(&op.into(), &[Some((&x, Some(&quant)))], &out).unwrap();
        // (0 + 0.5 + 1.5 + 1) / 4 = 0.75: 1.5 steps, to even 2, + 1.
        assert_eq!(y[0].data::<u8>(), [3]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        let quant = QuantParams::per_tensor(0.037, 119);
        for (channels, size, op, f32_kernel) in [
            (1, 5, pool(3, 1, [1; 4], false, false), true),
            (17, 9, pool(2, 2, [0; 4], true, true), false),
            (64, 13, pool(3, 2, [1, 0, 0, 1], true, false), true),
            (33, 7, pool(3, 1, [1; 4], false, true), true),
        ] {
            let spec = Spec::new(DType::F32, &[2, channels, size, size]);
            let shape = Layout::ChannelsLast.physical(&op.infer(&[Some(spec)]).unwrap()[0].shape);
            let shape_in = [2, size, size, channels];
            let op: Op = op.into();
            let x = noise(&shape_in);
            let out = (DType::F32, shape.as_slice(), None);
            assert_kernel_is_run(&op, &[Some((&x, None))], &[], out, f32_kernel);
            let x = code_noise(DType::U8, &shape_in);
            let out = (DType::U8, shape.as_slice(), Some(&quant));
            assert_kernel_is_run(&op, &[Some((&x, Some(&quant)))], &[], out, true);
        }
    }
}
