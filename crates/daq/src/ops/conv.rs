//! Conv: grouped, depthwise, dilated, padded, 1-D and 2-D.

use daq_kernels::ConvShape;

use super::spatial::{Window, as_2d};
use super::dense::{Dense, check_types, scales};
use super::eval::{codes, quant, store_sum};
use super::moves::sized;
use super::pixels::{check_taps, for_each_window, operand_specs, view_specs, window_output};
use super::*;
use crate::quant::requantize_multipliers;

/// ONNX Conv. Input `[N, C, H, W]` (or `[N, C, L]`), weights `[M, C / group, kH, kW]`, bias `[M]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Kernel, strides, dilations and padding.
    pub window: Window,
    /// Groups; the input channels for a depthwise convolution.
    pub group: usize,
}

impl Conv {
    /// The geometry over a logical input `x` and weights `w`.
    pub(crate) fn shape(&self, inputs: &[Option<Spec>]) -> Result<ConvShape, OpError> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        if w.shape.len() != x.shape.len() || x.shape.len() < 3 {
            return Err(shape_error("input and weights must both have rank 3 or 4", inputs));
        }
        let [h, kw] = as_2d(&self.window.resolve(inputs, Some(&w.shape[2..]))?);
        check_taps([h.kernel, kw.kernel], inputs)?;
        let (in_c, out_c) = (x.shape[1], w.shape[0]);
        let g = self.group;
        if g == 0 || out_c % g != 0 || w.shape[1].checked_mul(g) != Some(in_c) || out_c == 0 {
            return Err(shape_error(format!("weights do not fit {in_c} channels in {g} groups"), inputs));
        }
        if let Some(Some(bias)) = inputs.get(2)
            && bias.shape != [out_c]
        {
            return Err(shape_error(format!("the bias must have shape [{out_c}]"), inputs));
        }
        Ok(ConvShape {
            batch: x.shape[0],
            in_h: h.input,
            in_w: kw.input,
            in_c,
            out_h: h.output,
            out_w: kw.output,
            out_c,
            kernel_h: h.kernel,
            kernel_w: kw.kernel,
            stride_h: h.stride,
            stride_w: kw.stride,
            dilation_h: h.dilation,
            dilation_w: kw.dilation,
            pad_top: h.pad_begin,
            pad_left: kw.pad_begin,
            groups: g,
        })
    }
}

impl Operator for Conv {
    const NAME: &'static str = "Conv";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let group = attrs.int("group", 1)?;
        let group = usize::try_from(group).ok().filter(|&g| g > 0);
        Ok(Conv {
            window: Window::from_attrs(attrs)?,
            group: group.ok_or_else(|| OpError::attribute("group", "must be positive"))?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        self.window.to_attrs(Attrs::new().with("group", Attr::Int(self.group as i64)))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        check_types(inputs)?;
        sized(x.dtype, x.shape.clone(), inputs)?;
        let s = self.shape(inputs)?;
        window_output(&s, x.dtype, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let w = inputs[1].expect("checked by infer");
        let bias = inputs.get(2).copied().flatten();
        let s = self.shape(&view_specs(inputs)).expect("checked by infer");
        let y = &mut outputs[0];
        if x.dtype == DType::F32 {
            let bias = bias.map(|b| b.data::<f32>());
            return convolve_f32(&s, x.data(), w.data(), bias, y.data_mut());
        }
        let (xq, wq) = (quant(&x), quant(&w));
        let multipliers = requantize_multipliers(xq, wq, y.code_quant(), s.out_c);
        let bias = bias.map(|b| b.data::<i32>());
        let (x, w) = (codes(&x), codes(&w));
        let zero_point = xq.zero_point[0];
        for_each_product(&s, |output, c, products| {
            let mut acc = bias.map_or(0, |b| b[c]);
            let zw = wq.zero_point_of(c);
            products(&mut |x_at, k| {
                let x = x_at.map_or(0, |i| x[i] - zero_point);
                acc = acc.wrapping_add(x * (w[k] - zw));
            });
            store_sum(y, output, acc, multipliers[c]);
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
    }

    fn quantization(&self) -> Quantization {
        Quantization::Weighted
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let shape = self.shape(&operand_specs(compile)).ok()?;
        let weights = compile.constant(1)?;
        let bias = match compile.input(2) {
            Some(_) => Some(compile.constant(2)?),
            None => None,
        };
        let (multipliers, zero_points) = scales(compile, shape.out_c);
        let multipliers = &multipliers;
        Dense { shape, weights, bias, multipliers, weight_zero_points: zero_points }
            .compile(compile)
    }

    fn macs(&self, inputs: &[Option<Spec>], _: &[Spec]) -> u64 {
        self.shape(inputs).map_or(0, |s| s.macs())
    }
}

/// Calls `f(output, channel, products)` for each output element; `products(g)` calls
/// `g(input, weight)` tap by tap, then by input channel, with `None` for the input in the padding.
/// That order defines float results.
pub(crate) fn for_each_product(
    s: &ConvShape,
    mut f: impl FnMut(usize, usize, &dyn Fn(&mut dyn FnMut(Option<usize>, usize))),
) {
    let (gi, taps) = (s.group_in(), s.taps());
    for_each_window(s, s.all_pixels(), |pixel, offsets| {
        for c in 0..s.out_c {
            let first = c / s.group_out() * gi;
            f(pixel * s.out_c + c, c, &|g| {
                for (tap, offset) in offsets.iter().enumerate() {
                    for i in 0..gi {
                        g(offset.map(|o| o + first + i), (c * gi + i) * taps + tap);
                    }
                }
            });
        }
    });
}

/// The float convolution: `acc = bias`, then `acc = fma(x, w, acc)` in order; padding multiplies
/// as `0.0`.
pub(crate) fn convolve_f32(
    s: &ConvShape,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    for_each_product(s, |output, c, products| {
        let mut acc = bias.map_or(0.0, |b| b[c]);
        products(&mut |x_at, k| acc = x_at.map_or(0.0, |i| x[i]).mul_add(w[k], acc));
        y[output] = acc;
    });
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;
    use crate::QuantParams;
    use crate::ops::pixels::{assert_kernel_is_run, code_noise, noise};

    fn conv(attrs: Attrs) -> Op {
        Conv::from_attrs(&attrs).unwrap().into()
    }

    #[test]
    fn a_3x3_window_sums_its_neighbours() {
        let x = Tensor::from_slice(&[1, 1, 3, 3], &[1f32, 2., 3., 4., 5., 6., 7., 8., 9.]);
        let w = Tensor::from_slice(&[1, 1, 3, 3], &[1f32; 9]);
        let pads = Attr::Ints(vec![1, 1, 1, 1]);
        let y = evaluate_plain(&conv(Attrs::new().with("pads", pads)), &[Some(&x), Some(&w)]).unwrap();
        assert_eq!(y[0].data::<f32>(), [12., 21., 16., 27., 45., 33., 24., 39., 28.]);
    }

    #[test]
    fn codes_follow_the_requantize_rule() {
        // x = (3 - 1) * 0.5 = 1 and (255 - 1) * 0.5 = 127; w = 2 * 0.25; bias 4 * 0.125.
        let x = Tensor::from_slice(&[1, 1, 1, 2], &[3u8, 255]);
        let w = Tensor::from_slice(&[1, 1, 1, 1], &[2i8]);
        let b = Tensor::from_slice(&[1], &[4i32]);
        let xq = QuantParams::per_tensor(0.5, 1);
        let wq = QuantParams::per_channel(vec![0.25], 0);
        let bq = QuantParams::per_channel(vec![0.125], 0);
        let inputs = [Some((&x, Some(&xq))), Some((&w, Some(&wq))), Some((&b, Some(&bq)))];
        let outputs = [(DType::U8, QuantParams::per_tensor(0.4, 10))];
        let y = evaluate(&conv(Attrs::new()), &inputs, &outputs).unwrap();
        // (1 * 0.5 + 0.5) / 0.4 = 2.5 -> 2, + 10; (63.5 + 0.5) / 0.4 = 160, + 10.
        assert_eq!(y[0].data::<u8>(), [12, 170]);
    }

    #[test]
    fn floats_are_not_rounded() {
        let x = Tensor::from_slice(&[1, 1, 1, 2], &[3u8, 255]);
        let w = Tensor::from_slice(&[2, 1, 1, 1], &[2i8, -3]);
        let b = Tensor::from_slice(&[2], &[4i32, 1]);
        let xq = QuantParams::per_tensor(0.5, 1);
        let wq = QuantParams::per_channel(vec![0.25, 0.5], 0);
        let inputs = [Some((&x, Some(&xq))), Some((&w, Some(&wq))), Some((&b, None))];
        // The scale is for callers that take codes.
        let outputs = [(DType::F32, QuantParams::per_tensor(100.0, 10))];
        let y = evaluate(&conv(Attrs::new()), &inputs, &outputs).unwrap();
        // (2 * 2 + 4) / 8, (254 * 2 + 4) / 8; (2 * -3 + 1) / 4, (254 * -3 + 1) / 4.
        assert_eq!(y[0].data::<f32>(), [1.0, 64.0, -1.25, -190.25]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        for (x, w, group, strides, dilations, pads) in [
            ([1, 5, 6, 3], [8, 3, 3, 3], 1, [2, 2], [1, 1], [1, 1, 1, 1]),
            ([2, 7, 7, 16], [33, 16, 1, 1], 1, [1, 1], [1, 1], [0, 0, 0, 0]),
            ([1, 9, 8, 24], [24, 1, 3, 3], 24, [1, 1], [1, 1], [1, 1, 1, 1]),
            ([1, 9, 8, 24], [24, 1, 5, 5], 24, [2, 1], [1, 1], [2, 1, 3, 2]),
            ([1, 8, 8, 6], [4, 3, 2, 3], 2, [1, 2], [2, 2], [1, 0, 0, 1]),
        ] {
            let attrs = Attrs::new()
                .with("group", Attr::Int(group))
                .with("strides", Attr::Ints(strides.to_vec()))
                .with("dilations", Attr::Ints(dilations.to_vec()))
                .with("pads", Attr::Ints(pads.to_vec()));
            let op = conv(attrs);
            let spec = |shape: &[usize]| Some(Spec::new(DType::F32, shape));
            let inferred = op.infer(&[spec(&[x[0], x[3], x[1], x[2]]), spec(&w)]).unwrap();
            let shape = Layout::ChannelsLast.physical(&inferred[0].shape);
            let (a, b, c) = (noise(&x), noise(&w), noise(&w[..1]));
            let inputs = [Some((&a, None)), Some((&b, None)), Some((&c, None))];
            assert_kernel_is_run(&op, &inputs, &[1, 2], (DType::F32, &shape, None), true);

            let xq = QuantParams::per_tensor(0.021, 113);
            let wq = QuantParams::per_channel((1..=w[0]).map(|c| c as f32 * 1e-3).collect(), 0);
            let yq = QuantParams::per_tensor(0.31, 9);
            let (a, b) = (code_noise(DType::U8, &x), code_noise(DType::I8, &w));
            let c = Tensor::from_slice(&w[..1], &(0..w[0]).map(|c| c as i32 * 997).collect::<Vec<_>>());
            let inputs = [Some((&a, Some(&xq))), Some((&b, Some(&wq))), Some((&c, None))];
            let out = (DType::U8, shape.as_slice(), Some(&yq));
            assert_kernel_is_run(&op, &inputs, &[1, 2], out, true);
            let floats = (DType::F32, shape.as_slice(), None);
            assert_kernel_is_run(&op, &inputs, &[1, 2], floats, true);
            let b = code_noise(DType::U8, &w);
            let wq = QuantParams::per_tensor(2e-3, 77);
            let inputs = [Some((&a, Some(&xq))), Some((&b, Some(&wq)))];
            assert_kernel_is_run(&op, &inputs, &[1], out, true);
            assert_kernel_is_run(&op, &inputs, &[1], floats, true);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |shape: &[usize]| Some(Spec::new(DType::F32, shape));
        let op = conv(Attrs::new());
        for (x, w) in [
            (vec![1, 3, 4, 4], vec![2, 4, 3, 3]),
            (vec![1, 3, 2, 2], vec![2, 3, 3, 3]),
            (vec![1, 3, 4], vec![2, 3, 3, 3]),
            (vec![3], vec![3]),
            (vec![1, 1, 4, 4], vec![1, 1, 0, 3]),
            (vec![1, 1, usize::MAX, 4], vec![1, 1, 1, 1]),
        ] {
            assert!(op.infer(&[spec(&x), spec(&w)]).is_err(), "{x:?} {w:?}");
        }
        assert_eq!(op.infer(&[None]), Err(OpError::MissingInput { index: 0 }));
        assert!(Conv::from_attrs(&Attrs::new().with("group", Attr::Int(0))).is_err());
        assert!(Conv::from_attrs(&Attrs::new().with("strides", Attr::Ints(vec![0, 1]))).is_err());
    }
}
