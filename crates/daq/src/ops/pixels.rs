//! What operators over channels-last pictures share: geometry, walking the windows, and splitting
//! the pixels over threads.

use std::ops::Range;

use daq_kernels::{ConvShape, Pool};

use super::moves::sized;
use super::spatial::{Window, as_2d};
use super::*;

/// The largest window, in pixels: plans and runs keep a list of them.
const MAX_TAPS: usize = 1 << 20;

/// Refuses a window of more than [`MAX_TAPS`] pixels.
pub(crate) fn check_taps([h, w]: [usize; 2], inputs: &[Option<Spec>]) -> Result<(), OpError> {
    match h.checked_mul(w).is_some_and(|taps| taps <= MAX_TAPS) {
        true => Ok(()),
        false => Err(shape_error(format!("a window of {h}x{w} is too large"), inputs)),
    }
}

/// [`Operator::operations`] of a pooling: each output reads its window.
pub(crate) fn window_operations(window: &Window, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
    if planes::many_axes(inputs) {
        return planes::operations(window, outputs);
    }
    let taps = pool_shape(window, inputs).map_or(1, |(s, _)| s.taps() as u64);
    outputs.iter().map(|y| elements(y).saturating_mul(taps)).sum()
}

/// The geometry of a pooling over a logical input.
pub(crate) fn pool_shape(
    window: &Window,
    inputs: &[Option<Spec>],
) -> Result<(ConvShape, [spatial::Axis; 2]), OpError> {
    let x = required(inputs, 0)?;
    sized(x.dtype, x.shape.clone(), inputs)?;
    let axes = as_2d(&window.resolve(inputs, None)?);
    let [h, w] = axes;
    check_taps([h.kernel, w.kernel], inputs)?;
    let shape = ConvShape {
        batch: x.shape[0],
        in_h: h.input,
        in_w: w.input,
        in_c: x.shape[1],
        out_h: h.output,
        out_w: w.output,
        out_c: x.shape[1],
        kernel_h: h.kernel,
        kernel_w: w.kernel,
        stride_h: h.stride,
        stride_w: w.stride,
        dilation_h: h.dilation,
        dilation_w: w.dilation,
        pad_top: h.pad_begin,
        pad_left: w.pad_begin,
        groups: x.shape[1].max(1),
    };
    Ok((shape, axes))
}

/// The output of a window operator over an input of that rank: 1-D is 2-D with one row.
pub(crate) fn window_output(
    s: &ConvShape,
    dtype: DType,
    inputs: &[Option<Spec>],
) -> Result<Vec<Spec>, OpError> {
    let mut shape = vec![s.batch, s.out_c];
    if required(inputs, 0)?.shape.len() == 4 {
        shape.push(s.out_h);
    }
    shape.push(s.out_w);
    sized(dtype, shape, inputs)
}

/// A logical shape, from a channels-last one.
pub(crate) fn logical(physical: &[usize]) -> Vec<usize> {
    let mut shape = physical.to_vec();
    if shape.len() >= 3 {
        let channels = shape.pop().expect("rank 3 or more");
        shape.insert(1, channels);
    }
    shape
}

/// The specs of inputs as `infer` would see them, where input 0 is channels-last.
pub(crate) fn logical_specs<'a>(
    inputs: impl Iterator<Item = Option<(DType, &'a [usize])>>,
) -> Vec<Option<Spec>> {
    let spec = |(i, x): (usize, Option<(DType, &[usize])>)| {
        let (dtype, shape) = x?;
        Some(Spec { dtype, shape: if i == 0 { logical(shape) } else { shape.to_vec() } })
    };
    inputs.enumerate().map(spec).collect()
}

/// [`logical_specs`] of what `run` is given.
pub(crate) fn view_specs(inputs: &[Option<TensorView>]) -> Vec<Option<Spec>> {
    logical_specs(inputs.iter().map(|v| v.as_ref().map(|v| (v.dtype, v.shape))))
}

/// [`logical_specs`] of what `compile` is given.
pub(crate) fn operand_specs(compile: &Compile) -> Vec<Option<Spec>> {
    logical_specs(compile.inputs.iter().map(|v| v.as_ref().map(|v| (v.dtype, v.shape))))
}

/// Calls `f(pixel - pixels.start, taps)` for each of the output pixels: `taps` holds, row by row,
/// the position of the input pixel's first channel, `None` in the padding.
pub(crate) fn for_each_window(
    s: &ConvShape,
    pixels: Range<usize>,
    mut f: impl FnMut(usize, &[Option<usize>]),
) {
    let mut taps = vec![None; s.taps()];
    for pixel in pixels.clone() {
        let (n, oy, ox) = (pixel / (s.out_h * s.out_w), pixel / s.out_w % s.out_h, pixel % s.out_w);
        for (i, tap) in taps.iter_mut().enumerate() {
            let (ky, kx) = (i / s.kernel_w, i % s.kernel_w);
            let y = (oy * s.stride_h + ky * s.dilation_h).wrapping_sub(s.pad_top);
            let x = (ox * s.stride_w + kx * s.dilation_w).wrapping_sub(s.pad_left);
            let inside = y < s.in_h && x < s.in_w;
            *tap = inside.then(|| ((n * s.in_h + y) * s.in_w + x) * s.in_c);
        }
        f(pixel - pixels.start, &taps);
    }
}

/// Splits output pixels of `channels` elements over the pool, `f(pixels, output)` for each part:
/// whole rows of `width` pixels where there are enough of them.
pub(crate) fn over_pixels<T: Send>(
    pool: &Pool,
    output: &mut [T],
    channels: usize,
    width: usize,
    f: impl Fn(Range<usize>, &mut [T]) + Sync,
) {
    if output.is_empty() {
        return;
    }
    let pixels = output.len() / channels;
    // The widest tiles of the kernels are 6 pixels.
    const TILES: usize = 24;
    let part = match pool.threads() {
        1 => pixels,
        threads => {
            let least = pixels.div_ceil(threads * 4);
            let unit = if least >= width { width } else { TILES };
            least.div_ceil(unit) * unit
        }
    };
    pool.for_each_chunk(output, part * channels, |i, chunk| {
        let first = i * part;
        f(first..first + chunk.len() / channels, chunk);
    });
}

/// Refuses an input whose type is not among `types`.
pub(crate) fn allow(
    inputs: &[Option<Spec>],
    index: usize,
    types: &[DType],
    allowed: &'static str,
) -> Result<(), OpError> {
    match inputs.get(index).and_then(Option::as_ref) {
        Some(x) if !types.contains(&x.dtype) => {
            Err(OpError::Type { index, dtype: x.dtype, allowed })
        }
        _ => Ok(()),
    }
}

/// A kernel made of a name and a closure.
pub(crate) struct Compiled<F> {
    /// The kernel's name.
    pub(crate) name: &'static str,
    /// What `run` does with one input and one output.
    pub(crate) run: F,
}

impl<F> Kernel for Compiled<F>
where
    F: Fn(&[Option<TensorView>], &mut TensorViewMut, &Pool) + Send + Sync,
{
    fn name(&self) -> String {
        self.name.into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        (self.run)(inputs, &mut outputs[0], pool);
    }
}

/// Boxes a [`Compiled`] kernel.
pub(crate) fn compiled<F>(name: &'static str, run: F) -> Option<Box<dyn Kernel>>
where
    F: Fn(&[Option<TensorView>], &mut TensorViewMut, &Pool) + Send + Sync + 'static,
{
    Some(Box::new(Compiled { name, run }))
}

/// For tests: the kernel that `compile` gives equals the reference, for every instruction set and
/// number of threads. Inputs and outputs are physical; `constant` says which inputs are.
#[cfg(test)]
pub(crate) fn assert_kernel_is_run(
    op: &Op,
    inputs: &[Option<(&Tensor, Option<&crate::QuantParams>)>],
    constant: &[usize],
    output: (DType, &[usize], Option<&crate::QuantParams>),
    expect_kernel: bool,
) {
    use crate::compile::Operand;
    use daq_kernels::Isa;
    let (dtype, shape, quant) = output;
    let len = shape.iter().product::<usize>() * dtype.size();
    let views: Vec<_> = inputs.iter().map(|t| t.map(|(t, q)| t.quantized_view(q))).collect();
    let result = |f: &dyn Fn(&mut [TensorViewMut])| {
        let mut bytes = crate::tensor::AlignedBytes::zeroed(len);
        bytes.as_mut_slice().fill(0x55);
        f(&mut [TensorViewMut { dtype, shape, quant, bytes: bytes.as_mut_slice() }]);
        bytes.as_slice().to_vec()
    };
    let expected = result(&|y| eval::run(op, &views, y));
    let operands: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let data = |t| constant.contains(&i).then_some(t);
            t.map(|(t, quant)| Operand { dtype: t.dtype(), shape: t.shape(), quant, data: data(t) })
        })
        .collect();
    let outputs = [Operand { dtype, shape, quant, data: None }];
    for &isa in Isa::ALL.iter().filter(|isa| isa.is_supported()) {
        let compile = Compile { isa, inputs: &operands, outputs: &outputs, clamp: None };
        let Some(kernel) = op.compile(&compile) else {
            assert!(!expect_kernel, "no kernel for {op:?}");
            continue;
        };
        assert!(expect_kernel, "a kernel for {op:?}");
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            let found = result(&|y| kernel.run(&views, y, &pool));
            assert!(
                found == expected,
                "{} of {op:?} on {shape:?}, {threads} threads",
                kernel.name()
            );
        }
    }
}

/// For tests: pseudo-random floats within -1..1 that use all of their bits.
#[cfg(test)]
pub(crate) fn noise(shape: &[usize]) -> Tensor {
    let hash = |i: usize| (i as u32 + 7).wrapping_mul(2654435761).wrapping_mul(40503) >> 8;
    let data: Vec<f32> =
        (0..shape.iter().product()).map(|i| hash(i) as f32 / (1 << 23) as f32 - 1.0).collect();
    Tensor::from_slice(shape, &data)
}

/// For tests: pseudo-random codes.
#[cfg(test)]
pub(crate) fn code_noise(dtype: DType, shape: &[usize]) -> Tensor {
    let bytes: Vec<u8> = (0..shape.iter().product())
        .map(|i: usize| ((i as u32 + 3).wrapping_mul(2654435761) >> 19) as u8)
        .collect();
    Tensor::from_bytes(dtype, shape, &bytes)
}
