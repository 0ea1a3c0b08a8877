//! ConvTranspose: every input pixel adds its multiple of the kernel to the output. Opsets 1, 11, 22.
//!
//! Output position `t` reads input `(t + pad - k * dilation) / stride` for each kernel position `k`
//! that divides evenly, the greatest `k` first. Floats: `acc = bias`, then `acc = fma(x, w, acc)`
//! over rows, columns and input channels in that order, outside of the input as `0.0`. Codes:
//! `rne(f32(bias + sum((x - zx) * (w - zw))) * (sx * sw / sy)) + zy`.
//!
//! The outputs of one remainder by the stride are a convolution of stride 1 over some of the
//! kernel; the compiled form is these convolutions.

use daq_kernels::ConvShape;

use super::dense::{Dense, check_types, permuted};
use super::eval::{codes, quant, requantize};
use super::moves::{ints, sized};
use super::pixels::*;
use super::spatial::{AutoPad, Window};
use super::*;
use crate::quant::QuantParams;

/// ONNX ConvTranspose, 1-D and 2-D. Input `[N, C, H, W]`, weights `[C, M / group, kH, kW]`, bias `[M]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose {
    /// Kernel, strides, dilations and padding.
    pub window: Window,
    /// Groups.
    pub group: usize,
    /// Added to the output's size at the end, by spatial axis; empty for 0.
    pub output_padding: Vec<i64>,
    /// The output's spatial size, which then decides the padding; empty for none.
    pub output_shape: Vec<i64>,
}

/// The longest spatial axis of an output: the reference keeps a list of its columns.
const MOST_PIXELS: i64 = 1 << 20;

/// One spatial axis, resolved.
#[derive(Clone, Copy, Debug)]
struct Axis {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
}

/// Everything resolved.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    batch: usize,
    in_c: usize,
    out_c: usize,
    groups: usize,
    axes: [Axis; 2],
}

impl Axis {
    /// Input and kernel position of each product of output `t`; `None` outside of the input.
    fn taps(&self, t: usize) -> Vec<(Option<usize>, usize)> {
        let source = |k: usize| {
            let at = (t + self.pad) as i64 - (k * self.dilation) as i64;
            let stride = self.stride as i64;
            let index = usize::try_from(at / stride).ok().filter(|&i| at >= 0 && i < self.input);
            (at % stride == 0).then_some((index, k))
        };
        (0..self.kernel).rev().filter_map(source).collect()
    }

    /// The first output of remainder `r`, and how many there are.
    fn phase(&self, r: usize) -> (usize, usize) {
        let first = (r + self.stride - self.pad % self.stride) % self.stride;
        (first, self.output.saturating_sub(first).div_ceil(self.stride))
    }

    /// Kernel positions of remainder `r`, and the padding of its convolution.
    fn phase_kernel(&self, r: usize) -> Option<(usize, usize)> {
        let taps = self.kernel.saturating_sub(r).div_ceil(self.stride);
        let first = (self.phase(r).0 + self.pad) / self.stride;
        (taps > 0 && self.dilation == 1 && taps > first).then(|| (taps, taps - 1 - first))
    }
}

impl ConvTranspose {
    fn geometry(&self, inputs: &[Option<Spec>]) -> Result<Geometry, OpError> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        sized(x.dtype, x.shape.clone(), inputs)?;
        let rank = x.shape.len();
        if w.shape.len() != rank || !(3..=4).contains(&rank) {
            return Err(shape_error("input and weights must both have rank 3 or 4", inputs));
        }
        let (in_c, g) = (x.shape[1], self.group);
        let out_c = w.shape[1].saturating_mul(g);
        if w.shape[0] != in_c || in_c % g != 0 || out_c == 0 {
            let why = format!("weights do not fit {in_c} channels in {g} groups");
            return Err(shape_error(why, inputs));
        }
        if let Some(Some(bias)) = inputs.get(2)
            && bias.shape != [out_c]
        {
            return Err(shape_error(format!("the bias must have shape [{out_c}]"), inputs));
        }
        let (window, n) = (&self.window, rank - 2);
        if !window.kernel.is_empty() && window.kernel != w.shape[2..] {
            return Err(shape_error(format!("kernel_shape is {:?}", window.kernel), inputs));
        }
        let lists = [
            ("strides", window.strides.len(), n),
            ("dilations", window.dilations.len(), n),
            ("pads", window.pads.len(), 2 * n),
            ("output_padding", self.output_padding.len(), n),
            ("output_shape", self.output_shape.len(), n),
        ];
        if let Some((name, len, n)) = lists.iter().find(|(_, len, n)| *len != 0 && len != n) {
            return Err(OpError::attribute(*name, format!("has {len} elements, must have {n}")));
        }
        let of = |list: &[usize], i: usize, default: usize| *list.get(i).unwrap_or(&default);
        let axis = |i: usize| {
            let (input, kernel) = (x.shape[2 + i], w.shape[2 + i]);
            let (stride, dilation) = (of(&window.strides, i, 1), of(&window.dilations, i, 1));
            let extra = self.output_padding.get(i).copied().unwrap_or(0);
            let misfit = || shape_error(format!("spatial axis {i} has no size"), inputs);
            if input == 0 || kernel == 0 || input > 1 << 31 || kernel > 1 << 31 {
                return Err(misfit());
            }
            let full = ((input - 1) * stride + (kernel - 1) * dilation + 1) as i64 + extra;
            let asked = match window.auto_pad {
                _ if !self.output_shape.is_empty() => Some(self.output_shape[i]),
                AutoPad::SameUpper | AutoPad::SameLower => Some((input * stride) as i64),
                _ => None,
            };
            let (begin, output) = match asked {
                Some(output) => {
                    let total = (full - output.min(full)).max(0);
                    let upper = window.auto_pad == AutoPad::SameUpper;
                    (if upper { total / 2 } else { total - total / 2 }, output)
                }
                None if window.auto_pad == AutoPad::Valid => (0, full),
                None => {
                    let (begin, end) = (of(&window.pads, i, 0), of(&window.pads, n + i, 0));
                    (begin as i64, full - begin as i64 - end as i64)
                }
            };
            if !(1..=MOST_PIXELS).contains(&output) {
                return Err(misfit());
            }
            let (output, pad) = (output as usize, begin as usize);
            Ok(Axis { input, output, kernel, stride, dilation, pad })
        };
        check_taps([w.shape[2], w.shape.get(3).copied().unwrap_or(1)], inputs)?;
        let row = Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad: 0 };
        let axes = if n == 2 { [axis(0)?, axis(1)?] } else { [row, axis(0)?] };
        Ok(Geometry { batch: x.shape[0], in_c, out_c, groups: g, axes })
    }
}

impl Geometry {
    /// Calls `f(output, channel, products)` for each output element; `products(g)` calls
    /// `g(input, weight)` in the order that defines float results.
    fn for_each_product(
        &self,
        mut f: impl FnMut(usize, usize, &dyn Fn(&mut dyn FnMut(Option<usize>, usize))),
    ) {
        let [h, w] = &self.axes;
        let (gi, go) = (self.in_c / self.groups, self.out_c / self.groups);
        let columns: Vec<_> = (0..w.output).map(|x| w.taps(x)).collect();
        for row in 0..self.batch * h.output {
            let (n, rows) = (row / h.output, h.taps(row % h.output));
            for (x, columns) in columns.iter().enumerate() {
                for c in 0..self.out_c {
                    let first = c / go * gi;
                    f((row * w.output + x) * self.out_c + c, c, &|g| {
                        for (y, ky) in &rows {
                            for (x, kx) in columns {
                                let pixel =
                                    y.zip(*x).map(|(y, x)| (n * h.input + y) * w.input + x);
                                for i in first..first + gi {
                                    let k = (i * go + c % go) * h.kernel + ky;
                                    g(pixel.map(|p| p * self.in_c + i), k * w.kernel + kx);
                                }
                            }
                        }
                    });
                }
            }
        }
    }

    /// One multiplier for each output channel; the weights' scales repeat in each group.
    fn multipliers(&self, x: &QuantParams, w: &QuantParams, y: &QuantParams) -> Vec<f32> {
        let go = self.out_c / self.groups;
        (0..self.out_c).map(|c| x.scale[0] * w.scale_of(c % go) / y.scale[0]).collect()
    }

    /// The convolution of remainders `ry` and `rx`, and where its weights come from; `None` where
    /// it would need a negative padding.
    fn phase(&self, ry: usize, rx: usize, weights: &Tensor) -> Option<(ConvShape, Tensor)> {
        let [h, w] = self.axes;
        let ((kernel_h, pad_top), (kernel_w, pad_left)) =
            (h.phase_kernel(ry)?, w.phase_kernel(rx)?);
        let shape = ConvShape {
            batch: self.batch,
            in_h: h.input,
            in_w: w.input,
            in_c: self.in_c,
            out_h: h.phase(ry).1,
            out_w: w.phase(rx).1,
            out_c: self.out_c,
            kernel_h,
            kernel_w,
            stride_h: 1,
            stride_w: 1,
            dilation_h: 1,
            dilation_w: 1,
            pad_top,
            pad_left,
            groups: self.groups,
        };
        let (gi, go) = (self.in_c / self.groups, self.out_c / self.groups);
        let index = |at: usize| {
            let (ty, tx) = (at / kernel_w % kernel_h, at % kernel_w);
            let (i, c) = (at / (kernel_h * kernel_w) % gi, at / (kernel_h * kernel_w * gi));
            let (ky, kx) = (ry + (kernel_h - 1 - ty) * h.stride, rx + (kernel_w - 1 - tx) * w.stride);
            (((c / go * gi + i) * go + c % go) * h.kernel + ky) * w.kernel + kx
        };
        Some((shape, permuted(weights, &[self.out_c, gi, kernel_h, kernel_w], index)))
    }

    /// Whether the columns of a row are the channels of one convolution: none reads another window
    /// than its neighbours of the same `phases[ry * stride + rx]`.
    fn rows_are_joined(&self, phases: &[(ConvShape, Tensor)]) -> bool {
        let w = &self.axes[1];
        let alternate = |rx: usize| w.phase(rx) == (rx, w.output / w.stride);
        self.groups == 1
            && (0..w.stride).all(alternate)
            && phases.chunks(w.stride).all(|row| row.iter().all(|(shape, _)| *shape == row[0].0))
    }

    /// A kernel that runs `phases[ry * columns + rx]` on rows of pixels and spreads them out:
    /// `run(phase, input, pixels, output)`. With one of the `columns`, a phase computes whole rows.
    fn spread<T: crate::tensor::Element, P: Send + Sync + 'static>(
        self,
        name: &'static str,
        phases: Vec<P>,
        columns: usize,
        run: impl Fn(&P, &[T], std::ops::Range<usize>, &mut [T]) + Send + Sync + 'static,
    ) -> Option<Box<dyn Kernel>> {
        let [h, w] = self.axes;
        let channels = self.out_c;
        compiled(name, move |inputs, y, pool| {
            let x = inputs[0].expect("checked by infer").data::<T>();
            pool.for_each_chunk(y.data_mut::<T>(), w.output * channels, |row, y| {
                let (n, oy) = (row / h.output, row % h.output);
                let ry = (oy + h.pad) % h.stride;
                let (first_row, rows) = h.phase(ry);
                let row = n * rows + (oy - first_row) / h.stride;
                if columns == 1 {
                    let count = w.output / w.stride;
                    return run(&phases[ry], x, row * count..(row + 1) * count, y);
                }
                PART.with_borrow_mut(|part| {
                    let len = w.output.div_ceil(w.stride) * channels;
                    let words = (len * size_of::<T>()).div_ceil(8);
                    part.resize(words.max(part.len()), 0);
                    let part: &mut [T] = bytemuck::cast_slice_mut(&mut part[..words]);
                    for rx in 0..columns {
                        let (first, count) = w.phase(rx);
                        let part = &mut part[..count * channels];
                        let phase = &phases[ry * columns + rx];
                        run(phase, x, row * count..(row + 1) * count, part);
                        for (i, part) in part.chunks_exact(channels).enumerate() {
                            y[(first + i * w.stride) * channels..][..channels]
                                .copy_from_slice(part);
                        }
                    }
                });
            });
        })
    }
}

thread_local! {
    /// Some pixels of a row before they are spread out; reused from call to call.
    static PART: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(vec![]) };
}

/// Tensors one after another along axis 0; at least one, of equal shapes.
fn stacked<'a>(tensors: impl ExactSizeIterator<Item = &'a Tensor> + Clone) -> Tensor {
    let first = tensors.clone().next().expect("at least one");
    let shape: Vec<_> =
        [first.shape()[0] * tensors.len()].into_iter().chain(first.shape()[1..].to_vec()).collect();
    let bytes: Vec<u8> = tensors.flat_map(|tensor| tensor.bytes().to_vec()).collect();
    Tensor::from_bytes(first.dtype(), &shape, &bytes)
}

impl Operator for ConvTranspose {
    const NAME: &'static str = "ConvTranspose";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let group = attrs.int("group", 1)?;
        let group = usize::try_from(group).ok().filter(|g| (1..=1 << 20).contains(g));
        let list = |name| {
            let list = attrs.get_ints(name)?.unwrap_or_default();
            match list.iter().find(|v| !(0..=1 << 31).contains(*v)) {
                Some(v) => Err(OpError::attribute(name, format!("{v} is not allowed"))),
                None => Ok(list),
            }
        };
        Ok(ConvTranspose {
            window: Window::from_attrs(attrs)?,
            group: group.ok_or_else(|| OpError::attribute("group", "must be positive"))?,
            output_padding: list("output_padding")?,
            output_shape: list("output_shape")?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        let list = |l: &[i64]| (!l.is_empty()).then(|| ints(l.iter().copied()));
        self.window
            .to_attrs(Attrs::new().with("group", Attr::Int(self.group as i64)))
            .with_some("output_padding", list(&self.output_padding))
            .with_some("output_shape", list(&self.output_shape))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        check_types(inputs)?;
        let g = self.geometry(inputs)?;
        let x = required(inputs, 0)?;
        let mut shape = vec![g.batch, g.out_c];
        shape.extend((x.shape.len() == 4).then_some(g.axes[0].output));
        shape.push(g.axes[1].output);
        sized(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, w) = (inputs[0].expect("checked by infer"), inputs[1].expect("checked by infer"));
        let (bias, y) = (inputs.get(2).copied().flatten(), &mut outputs[0]);
        let g = self.geometry(&view_specs(inputs)).expect("checked by infer");
        if x.dtype == DType::F32 {
            let (x, w, y) = (x.data::<f32>(), w.data::<f32>(), y.data_mut::<f32>());
            let bias = bias.map(|b| b.data::<f32>());
            return g.for_each_product(|output, c, products| {
                let mut acc = bias.map_or(0.0, |b| b[c]);
                products(&mut |x_at, k| acc = x_at.map_or(0.0, |i| x[i]).mul_add(w[k], acc));
                y[output] = acc;
            });
        }
        let (xq, wq, yq) = (quant(&x), quant(&w), y.quant.expect("codes have a quantization"));
        let multipliers = g.multipliers(xq, wq, yq);
        let bias = bias.map(|b| b.data::<i32>());
        let (x, w) = (codes(&x), codes(&w));
        g.for_each_product(|output, c, products| {
            let mut acc = bias.map_or(0, |b| b[c]);
            let zw = wq.zero_point_of(c % (g.out_c / g.groups));
            products(&mut |x_at, k| {
                let x = x_at.map_or(0, |i| x[i] - xq.zero_point[0]);
                acc = acc.wrapping_add(x * (w[k] - zw));
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
        let (Ok(x), Ok(w)) = (required(inputs, 0), required(inputs, 1)) else { return 0 };
        let channels = x.shape.get(1).copied().unwrap_or(1).max(1) as u64;
        let count = |s: &Spec| s.shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        count(x).saturating_mul(count(w)) / channels
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let g = self.geometry(&operand_specs(compile)).ok()?;
        let (x, y) = (compile.input(0)?, compile.outputs.first()?);
        let weights = compile.constant(1)?;
        let bias = match compile.input(2) {
            Some(_) => Some(compile.constant(2)?),
            None => None,
        };
        let [h, w] = g.axes;
        // A convolution for each phase: not for strides that nobody uses.
        const MAX_PHASES: usize = 64;
        let too_many = h.stride * w.stride > MAX_PHASES;
        if g.batch == 0 || too_many || h.stride > h.output || w.stride > w.output {
            return None;
        }
        let phases: Option<Vec<_>> = (0..h.stride * w.stride)
            .map(|i| g.phase(i / w.stride, i % w.stride, weights))
            .collect();
        let (multipliers, zero_points) = match (x.quant, compile.input(1)?.quant, y.quant) {
            (Some(xq), Some(wq), Some(yq)) if x.is_quantized() => {
                let go = g.out_c / g.groups;
                let zero_points = (0..g.out_c).map(|c| wq.zero_point_of(c % go)).collect();
                (g.multipliers(xq, wq, yq), zero_points)
            }
            _ => (vec![], vec![]),
        };
        let (mut phases, mut columns, mut bias) = (phases?, w.stride, bias.cloned());
        let (mut multipliers, mut zero_points) = (multipliers, zero_points);
        if columns > 1 && g.rows_are_joined(&phases) {
            let joined = |row: &[(ConvShape, Tensor)]| {
                let shape = ConvShape { out_c: g.out_c * w.stride, ..row[0].0 };
                (shape, stacked(row.iter().map(|(_, weights)| weights)))
            };
            phases = phases.chunks(columns).map(joined).collect();
            bias = bias.map(|bias| stacked(vec![&bias; columns].into_iter()));
            (multipliers, zero_points) = (multipliers.repeat(columns), zero_points.repeat(columns));
            columns = 1;
        }
        let dense = phases.iter().map(|(shape, weights)| Dense {
            shape: *shape,
            weights,
            bias: bias.as_ref(),
            multipliers: &multipliers,
            weight_zero_points: &zero_points,
        });
        if x.dtype == DType::F32 {
            let kernels: Vec<_> = dense.map(|d| d.f32(compile)).collect::<Option<_>>()?;
            return g.spread("conv_transpose_f32", kernels, columns, |k, x, pixels, y| {
                k.run(x, pixels, y);
            });
        }
        let kernels: Vec<_> = dense.map(|d| d.u8(compile)).collect::<Option<_>>()?;
        g.spread("conv_transpose_u8", kernels, columns, |k, x, pixels, y| k.run(x, pixels, y))
    }
}

#[cfg(test)]
mod tests {
    use super::eval::{evaluate, evaluate_plain};
    use super::*;

    fn op(lists: &[(&str, &[i64])], auto_pad: &str, group: i64) -> ConvTranspose {
        let attrs = Attrs::new()
            .with("group", Attr::Int(group))
            .with("auto_pad", Attr::Str(auto_pad.into()));
        let attrs = lists.iter().fold(attrs, |a, (n, l)| a.with(n, Attr::Ints(l.to_vec())));
        let op = ConvTranspose::from_attrs(&attrs).unwrap();
        assert_eq!(ConvTranspose::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    /// Expected numbers from onnxruntime.
    #[test]
    fn outputs_as_onnxruntime_computes_them() {
        let count = |n: i32| (1..=n).map(|v| v as f32).collect::<Vec<_>>();
        let x = Tensor::from_slice(&[1, 1, 2, 3], &count(6));
        let w = Tensor::from_slice(&[1, 1, 3, 3], &count(9));
        let stride: (&str, &[i64]) = ("strides", &[2, 2]);
        let lower = [
            5, 14, 10, 24, 15, 18, 16, 40, 26, 60, 36, 45, 20, 44, 25, 54, 30, 36, 32, 71, 40, 87,
            48, 54,
        ];
        let upper = [
            1, 2, 5, 4, 9, 6, 4, 5, 14, 10, 24, 15, 11, 16, 40, 26, 60, 36, 16, 20, 44, 25, 54, 30,
        ];
        let shape: (&str, &[i64]) = ("output_shape", &[4, 6]);
        for (op, expected) in [
            (
                op(&[], "NOTSET", 1),
                &[1, 4, 10, 12, 9, 8, 26, 56, 54, 36, 23, 62, 119, 102, 63, 28, 67, 118, 93, 54][..],
            ),
            (op(&[stride, ("pads", &[1; 4]), ("output_padding", &[1, 1])], "NOTSET", 1), &lower),
            (
                op(&[("strides", &[2, 1]), ("dilations", &[1, 2]), ("pads", &[0, 1, 1, 0])], "NOTSET", 1),
                &[2, 5, 4, 9, 6, 9, 8, 17, 10, 21, 12, 18, 19, 43, 26, 57, 33, 45, 20, 44, 25, 54, 30, 36],
            ),
            (op(&[stride, shape], "NOTSET", 1), &lower),
            (op(&[stride], "SAME_UPPER", 1), &upper),
            (op(&[stride], "SAME_LOWER", 1), &lower),
            (op(&[stride, shape], "SAME_UPPER", 1), &upper),
        ] {
            let y = evaluate_plain(&op.clone().into(), &[Some(&x), Some(&w)]).unwrap();
            let y: Vec<i32> = y[0].data::<f32>().iter().map(|&v| v as i32).collect();
            assert_eq!(y, expected, "{op:?}");
        }
        let x = Tensor::from_slice(&[1, 4, 1, 1], &count(4));
        let w = Tensor::from_slice(&[4, 2, 1, 2], &count(16));
        let b = Tensor::from_slice(&[4], &[100f32, 200., 300., 400.]);
        let y = evaluate_plain(&op(&[], "", 2).into(), &[Some(&x), Some(&w), Some(&b)]).unwrap();
        assert_eq!(y[0].data::<f32>(), [111., 114., 217., 220., 379., 386., 493., 500.]);
    }

    #[test]
    fn codes_follow_the_requantize_rule() {
        let x = Tensor::from_slice(&[1, 1, 2], &[3u8, 5]);
        let w = Tensor::from_slice(&[1, 2, 2], &[1i8, 2, -1, 3]);
        let b = Tensor::from_slice(&[2], &[0i32, 4]);
        let (xq, wq) =
            (QuantParams::per_tensor(0.5, 1), QuantParams::per_channel(vec![0.5, 0.25], 1));
        let inputs = [Some((&x, Some(&xq))), Some((&w, Some(&wq))), Some((&b, None))];
        let out = [(DType::U8, QuantParams::per_tensor(0.25, 10))];
        let y = evaluate(&op(&[], "", 1).into(), &inputs, &out).unwrap();
        // Codes 2 and 4: 2, 4 + 4, 8 times 1; (-2 + 4, 6 - 4 + 4, 12 + 4) times 0.5.
        assert_eq!(y[0].data::<u8>(), [12, 18, 18, 11, 13, 18]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        let ints4: (&str, &[i64]) = ("pads", &[1; 4]);
        for (x, w, op, kernel) in [
            ([1, 5, 6, 24], [24, 24, 2, 2], op(&[("strides", &[2, 2])], "", 1), true),
            ([2, 3, 4, 24], [24, 1, 2, 2], op(&[("strides", &[2, 2])], "", 1), true),
            ([1, 5, 4, 8], [8, 5, 3, 3], op(&[("strides", &[2, 2]), ints4, ("output_padding", &[1, 1])], "", 1), true),
            ([1, 5, 4, 8], [8, 6, 4, 4], op(&[("strides", &[2, 2]), ints4], "", 2), true),
            ([1, 4, 4, 3], [3, 2, 3, 3], op(&[], "", 1), true),
            ([1, 4, 4, 3], [3, 2, 3, 3], op(&[("dilations", &[2, 2])], "", 1), false),
            ([1, 4, 4, 3], [3, 2, 1, 1], op(&[("strides", &[2, 2])], "", 1), false),
        ] {
            let spec = |shape: &[usize]| Some(Spec::new(DType::F32, shape));
            let inferred = op.infer(&[spec(&[x[0], x[3], x[1], x[2]]), spec(&w)]).unwrap();
            let shape = Layout::ChannelsLast.physical(&inferred[0].shape);
            let out_c = w[1] * op.group;
            let op: Op = op.into();
            let (a, b, c) = (noise(&x), noise(&w), noise(&[out_c]));
            let inputs = [Some((&a, None)), Some((&b, None)), Some((&c, None))];
            assert_kernel_is_run(&op, &inputs, &[1, 2], (DType::F32, &shape, None), kernel);
            let xq = QuantParams::per_tensor(0.021, 113);
            let wq = QuantParams::per_channel((1..=w[1]).map(|c| c as f32 * 1e-3).collect(), 1);
            let yq = QuantParams::per_tensor(0.31, 9);
            let (a, b) = (code_noise(DType::U8, &x), code_noise(DType::I8, &w));
            let inputs = [Some((&a, Some(&xq))), Some((&b, Some(&wq)))];
            let out = (DType::U8, shape.as_slice(), Some(&yq));
            assert_kernel_is_run(&op, &inputs, &[1], out, kernel);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |shape: &[usize]| Some(Spec::new(DType::F32, shape));
        for (op, x, w) in [
            (op(&[], "", 1), vec![1, 2, 3, 3], vec![3, 1, 2, 2]),
            (op(&[], "", 2), vec![1, 3, 3, 3], vec![3, 1, 2, 2]),
            (op(&[], "", 1), vec![1, 2, 3], vec![2, 1, 2, 2]),
            (op(&[("pads", &[5; 4])], "", 1), vec![1, 1, 3, 3], vec![1, 1, 2, 2]),
            (op(&[("strides", &[1 << 20; 2])], "", 1), vec![1, 1, 9, 9], vec![1, 1, 2, 2]),
            (op(&[("strides", &[2])], "", 1), vec![1, 1, 3, 3], vec![1, 1, 2, 2]),
            (op(&[], "", 1), vec![1, 1, 0, 3], vec![1, 1, 2, 2]),
        ] {
            assert!(op.infer(&[spec(&x), spec(&w)]).is_err(), "{op:?}");
        }
        let negative = Attrs::new().with("output_padding", Attr::Ints(vec![-1, 0]));
        assert!(ConvTranspose::from_attrs(&negative).is_err());
    }
}
