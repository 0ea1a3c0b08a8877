//! Conv: grouped, depthwise, dilated, padded, 1-D and 2-D.

use daq_kernels::ConvShape;

use super::spatial::{Window, as_2d};
use super::eval::{codes, quant, requantize};
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
        let s = self.shape(inputs)?;
        let x = required(inputs, 0)?;
        let mut shape = vec![s.batch, s.out_c];
        if x.shape.len() == 4 {
            shape.push(s.out_h);
        }
        shape.push(s.out_w);
        Ok(vec![Spec { dtype: x.dtype, shape }])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let w = inputs[1].expect("checked by infer");
        let bias = inputs.get(2).copied().flatten();
        let s = self.shape(&logical_specs(inputs)).expect("checked by infer");
        let y = &mut outputs[0];
        if x.dtype == DType::F32 {
            let (x, w, out) = (x.data::<f32>(), w.data::<f32>(), y.data_mut::<f32>());
            let bias = bias.map(|b| b.data::<f32>());
            for_each_output(&s, |output, pixel, c| {
                let mut acc = bias.map_or(0.0, |b| b[c]);
                pixel.for_each_tap(&s, c, |i, k| acc = x[i].mul_add(w[k], acc));
                out[output] = acc;
            });
            return;
        }
        let (xq, wq, yq) = (quant(&x), quant(&w), y.quant.expect("quantized").clone());
        let multipliers = requantize_multipliers(xq, wq, &yq, s.out_c);
        let bias = bias.map(|b| b.data::<i32>());
        let (x, w) = (codes(&x), codes(&w));
        for_each_output(&s, |output, pixel, c| {
            let mut acc = bias.map_or(0, |b| b[c]);
            let (zx, zw) = (xq.zero_point[0], wq.zero_point_of(c));
            pixel.for_each_tap(&s, c, |i, k| {
                acc = acc.wrapping_add((x[i] - zx) * (w[k] - zw));
            });
            y.bytes[output] = requantize(acc, multipliers[c], yq.zero_point[0]);
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
    }

    fn quantization(&self) -> Quantization {
        Quantization::Weighted
    }

    fn macs(&self, inputs: &[Option<Spec>], _: &[Spec]) -> u64 {
        self.shape(inputs).map_or(0, |s| s.macs())
    }
}

/// The specs of channels-last inputs as `infer` would see them.
fn logical_specs(inputs: &[Option<TensorView>]) -> Vec<Option<Spec>> {
    let spec = |v: &TensorView| Spec::new(v.dtype, v.shape);
    let mut specs: Vec<_> = inputs.iter().map(|v| v.as_ref().map(spec)).collect();
    if let Some(Some(x)) = specs.first_mut() {
        let channels = x.shape.pop().expect("rank 3 or 4");
        x.shape.insert(1, channels);
    }
    specs
}

/// An output pixel of a convolution.
struct Pixel {
    batch: usize,
    y: usize,
    x: usize,
}

fn for_each_output(s: &ConvShape, mut f: impl FnMut(usize, &Pixel, usize)) {
    for p in s.all_pixels() {
        let pixel = Pixel { batch: p / (s.out_h * s.out_w), y: p / s.out_w % s.out_h, x: p % s.out_w };
        for c in 0..s.out_c {
            f(p * s.out_c + c, &pixel, c);
        }
    }
}

impl Pixel {
    /// Calls `f(input index, weight index)` for each tap inside of the picture, tap by tap, then
    /// by input channel: the order that defines float results.
    fn for_each_tap(&self, s: &ConvShape, c: usize, mut f: impl FnMut(usize, usize)) {
        let (gi, first) = (s.group_in(), c / s.group_out() * s.group_in());
        for ky in 0..s.kernel_h {
            let y = (self.y * s.stride_h + ky * s.dilation_h).wrapping_sub(s.pad_top);
            for kx in 0..s.kernel_w {
                let x = (self.x * s.stride_w + kx * s.dilation_w).wrapping_sub(s.pad_left);
                if y >= s.in_h || x >= s.in_w {
                    continue;
                }
                let input = ((self.batch * s.in_h + y) * s.in_w + x) * s.in_c + first;
                for i in 0..gi {
                    f(input + i, ((c * gi + i) * s.kernel_h + ky) * s.kernel_w + kx);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;
    use crate::QuantParams;

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
    fn misfits_are_errors() {
        let spec = |shape: &[usize]| Some(Spec::new(DType::F32, shape));
        let op = conv(Attrs::new());
        for (x, w) in [
            (vec![1, 3, 4, 4], vec![2, 4, 3, 3]),
            (vec![1, 3, 2, 2], vec![2, 3, 3, 3]),
            (vec![1, 3, 4], vec![2, 3, 3, 3]),
            (vec![3], vec![3]),
        ] {
            assert!(op.infer(&[spec(&x), spec(&w)]).is_err(), "{x:?} {w:?}");
        }
        assert_eq!(op.infer(&[None]), Err(OpError::MissingInput { index: 0 }));
        assert!(Conv::from_attrs(&Attrs::new().with("group", Attr::Int(0))).is_err());
        assert!(Conv::from_attrs(&Attrs::new().with("strides", Attr::Ints(vec![0, 1]))).is_err());
    }
}
