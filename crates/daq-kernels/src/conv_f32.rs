//! Float convolution and fully connected layers, with one defined order of operations.
//!
//! Floats do not add associatively, so "the same on every CPU" needs a definition of the order:
//! an output starts as its bias; for every tap `(ky, kx)` in order and every input channel of the
//! group in order it becomes `fma(a, w, acc)`, rounded once; the clamp comes last. A tap in the
//! padding is multiplied like any other, with `a = 0.0` (so an infinite weight there gives NaN,
//! as it does where the padded input is written out). Vector kernels keep that order, since they
//! are vectors over outputs, never over the sum.

use crate::{ConvShape, Isa};
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::float32x4_t;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use std::arch::wasm32::v128;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128, __m256, __m512};
use std::ops::Range;

/// What a [`ConvF32`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct ConvF32Params<'a> {
    /// The geometry; `ConvShape::gemm` makes a fully connected layer of it.
    pub shape: ConvShape,
    /// Weights in ONNX order, `[out_c, in_c / groups, kernel_h, kernel_w]`.
    pub weights: &'a [f32],
    /// One value for each output channel, or empty for zeros.
    pub bias: &'a [f32],
    /// The fused activation: the least and the greatest output. `(-inf, inf)` is none. NaN
    /// passes through, and so does `-0.0` at a bound of `0.0`.
    pub clamp: (f32, f32),
}

impl ConvF32Params<'_> {
    /// The bias of output channel `channel`.
    pub(crate) fn bias_of(&self, channel: usize) -> f32 {
        self.bias.get(channel).copied().unwrap_or(0.0)
    }

    /// The weight from channel `ic` of the group at tap `tap` to output channel `oc`.
    pub(crate) fn weight(&self, oc: usize, tap: usize, ic: usize) -> f32 {
        self.weights[(oc * self.shape.group_in() + ic) * self.shape.taps() + tap]
    }
}

/// One implementation with its packed weights.
pub(crate) trait PackedConv: Send + Sync {
    /// As [`ConvF32::run`], which has checked that `input` is as long as the shape says, that
    /// `pixels` is a range of its output pixels and that `output` holds exactly those.
    fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]);
}

/// An entry of the family's list.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) isa: Isa,
    /// Whether it computes this geometry.
    pub(crate) fits: fn(&ConvShape) -> bool,
    /// Packs the weights. Called only where `isa` is supported.
    pub(crate) pack: fn(&ConvF32Params) -> Box<dyn PackedConv>,
}

/// Every float convolution, best first, scalar last.
pub(crate) static KERNELS: &[Entry] = &[
    #[cfg(target_arch = "x86_64")]
    crate::depthwise_f32::depthwise::<__m512>("avx512-depthwise", Isa::Avx512),
    #[cfg(target_arch = "x86_64")]
    crate::conv_f32_vector::rows::<__m512>("avx512-rows", Isa::Avx512),
    #[cfg(target_arch = "x86_64")]
    crate::conv_f32_vector::dense::<__m512>("avx512", Isa::Avx512),
    #[cfg(target_arch = "x86_64")]
    crate::depthwise_f32::depthwise::<__m256>("avx2-depthwise", Isa::Avx2),
    #[cfg(target_arch = "x86_64")]
    crate::conv_f32_vector::rows::<__m256>("avx2-rows", Isa::Avx2),
    #[cfg(target_arch = "x86_64")]
    crate::conv_f32_vector::dense::<__m256>("avx2", Isa::Avx2),
    #[cfg(target_arch = "aarch64")]
    crate::depthwise_f32::depthwise::<float32x4_t>("neon-depthwise", Isa::Neon),
    #[cfg(target_arch = "aarch64")]
    crate::conv_f32_vector::rows::<float32x4_t>("neon-rows", Isa::Neon),
    #[cfg(target_arch = "aarch64")]
    crate::conv_f32_vector::dense::<float32x4_t>("neon", Isa::Neon),
    #[cfg(target_arch = "x86_64")]
    crate::depthwise_f32::depthwise::<__m128>("sse41-depthwise", Isa::Sse41),
    #[cfg(target_arch = "x86_64")]
    crate::conv_f32_vector::rows::<__m128>("sse41-rows", Isa::Sse41),
    #[cfg(target_arch = "x86_64")]
    crate::conv_f32_vector::dense::<__m128>("sse41", Isa::Sse41),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    crate::depthwise_f32::depthwise::<v128>("simd128-depthwise", Isa::Simd128),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    crate::conv_f32_vector::rows::<v128>("simd128-rows", Isa::Simd128),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    crate::conv_f32_vector::dense::<v128>("simd128", Isa::Simd128),
    Entry { name: "scalar", isa: Isa::Scalar, fits: |_| true, pack: Scalar::pack },
];

/// A float convolution with its weights packed for one kernel.
///
/// Activations are `[batch, height, width, channels]`. Every kernel gives the same bits (a NaN is
/// a NaN, whatever its payload).
pub struct ConvF32 {
    shape: ConvShape,
    name: &'static str,
    kernel: Box<dyn PackedConv>,
}

impl std::fmt::Debug for ConvF32 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConvF32").field("kernel", &self.name).field("shape", &self.shape).finish()
    }
}

impl ConvF32 {
    /// Packs the weights for the best kernel within `isa`.
    ///
    /// # Panics
    /// If a length does not match the shape, the channels are not multiples of the groups, or
    /// the shape's sizes overflow.
    pub fn new(params: &ConvF32Params, isa: Isa) -> ConvF32 {
        let best = kernels_for(&params.shape).find(|entry| entry.isa <= isa);
        Self::with_entry(params, best.expect("the scalar kernel computes every shape"))
    }

    /// Packs the weights for the kernel of that name; `None` where it does not run on this CPU or
    /// does not compute this shape.
    ///
    /// # Panics
    /// As [`new`](Self::new) does.
    pub fn with_kernel(params: &ConvF32Params, name: &str) -> Option<ConvF32> {
        let entry = kernels_for(&params.shape).find(|entry| entry.name == name)?;
        Some(Self::with_entry(params, entry))
    }

    /// The names of the kernels that compute `shape` on this CPU, best first, scalar last.
    pub fn kernel_names(shape: &ConvShape) -> Vec<&'static str> {
        kernels_for(shape).map(|entry| entry.name).collect()
    }

    fn with_entry(params: &ConvF32Params, entry: &'static Entry) -> ConvF32 {
        let shape = params.shape;
        check_shape(&shape);
        assert_eq!(params.weights.len(), shape.weight_len(), "number of weights of {shape:?}");
        let bias = params.bias.len();
        assert!(bias == 0 || bias == shape.out_c, "{bias} biases for {shape:?}");
        ConvF32 { shape, name: entry.name, kernel: (entry.pack)(params) }
    }

    /// The kernel in use.
    pub fn kernel_name(&self) -> &'static str {
        self.name
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Computes the output pixels `pixels`, counted over `batch * out_h * out_w`, from the whole
    /// input. `output` holds exactly those pixels, `out_c` values each. Any range will do;
    /// callers split the pixels over threads.
    ///
    /// # Panics
    /// If the lengths or the range do not match the shape.
    pub fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]) {
        check_run(&self.shape, input, &pixels, output);
        self.kernel.run(input, pixels, output);
    }
}

fn kernels_for(shape: &ConvShape) -> impl Iterator<Item = &'static Entry> {
    KERNELS.iter().filter(|entry| entry.isa.is_supported() && (entry.fits)(shape))
}

/// Panics unless the sizes that the kernels index by make sense and do not overflow.
pub(crate) fn check_shape(shape: &ConvShape) {
    let s = shape;
    let groups =
        s.in_c.is_multiple_of(s.groups) && s.out_c.is_multiple_of(s.groups) && s.groups > 0;
    assert!(groups, "channels are not multiples of the groups: {s:?}");
    let sizes = [
        &[s.batch, s.in_h, s.in_w, s.in_c][..],
        &[s.batch, s.out_h, s.out_w, s.out_c],
        &[s.out_c, s.in_c, s.kernel_h, s.kernel_w],
        &[s.out_h, s.stride_h],
        &[s.out_w, s.stride_w],
        &[s.kernel_h, s.dilation_h],
        &[s.kernel_w, s.dilation_w],
        &[s.pad_top],
        &[s.pad_left],
    ];
    let small = |size: &[usize]| {
        let product = size.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        product.is_some_and(|product| product < isize::MAX as usize / 64)
    };
    assert!(sizes.into_iter().all(small), "sizes overflow: {s:?}");
}

/// Panics unless the arguments of a `run` match the shape.
pub(crate) fn check_run<X, Y>(shape: &ConvShape, input: &[X], pixels: &Range<usize>, output: &[Y]) {
    assert_eq!(input.len(), shape.input_len(), "length of the input of {shape:?}");
    let inside = pixels.start <= pixels.end && pixels.end <= shape.pixels();
    assert!(inside, "pixels {pixels:?} of {shape:?}");
    assert_eq!(output.len(), pixels.len() * shape.out_c, "length of the output of {shape:?}");
}

/// `value` held within the bounds; a NaN stays, as does a zero equal to a bound. The order of the
/// comparisons is that of the instructions `maxps(low, v)` and `minps(high, v)`.
#[inline(always)]
pub(crate) fn clamp(value: f32, (low, high): (f32, f32)) -> f32 {
    let value = if low > value { low } else { value };
    if high < value { high } else { value }
}

/// Output pixels one after another, as `(picture, row, column)`.
#[derive(Clone, Copy)]
pub(crate) struct PixelWalk {
    pub(crate) n: usize,
    pub(crate) y: usize,
    pub(crate) x: usize,
}

impl PixelWalk {
    /// Starts at output pixel `index`. There must be output pixels.
    pub(crate) fn new(shape: &ConvShape, index: usize) -> Self {
        let (row, x) = (index / shape.out_w, index % shape.out_w);
        PixelWalk { n: row / shape.out_h, y: row % shape.out_h, x }
    }

    /// Goes to the next pixel.
    #[inline]
    pub(crate) fn step(&mut self, shape: &ConvShape) {
        self.x += 1;
        if self.x == shape.out_w {
            self.x = 0;
            self.y += 1;
            if self.y == shape.out_h {
                self.y = 0;
                self.n += 1;
            }
        }
    }

    /// The input row under kernel row `ky`, or `None` in the padding.
    #[inline]
    pub(crate) fn input_row(&self, shape: &ConvShape, ky: usize) -> Option<usize> {
        let row = (self.y * shape.stride_h + ky * shape.dilation_h).wrapping_sub(shape.pad_top);
        (row < shape.in_h).then_some(row)
    }

    /// The input column under kernel column `kx`, or `None` in the padding.
    #[inline]
    pub(crate) fn input_column(&self, shape: &ConvShape, kx: usize) -> Option<usize> {
        let column = (self.x * shape.stride_w + kx * shape.dilation_w).wrapping_sub(shape.pad_left);
        (column < shape.in_w).then_some(column)
    }

    /// Where the channels of tap `(ky, kx)` begin in the input, or `None` in the padding.
    #[inline]
    pub(crate) fn tap(&self, shape: &ConvShape, ky: usize, kx: usize) -> Option<usize> {
        let row = self.input_row(shape, ky)?;
        let column = self.input_column(shape, kx)?;
        Some(((self.n * shape.in_h + row) * shape.in_w + column) * shape.in_c)
    }
}

/// The definition, in portable Rust.
struct Scalar {
    shape: ConvShape,
    clamp: (f32, f32),
    bias: Vec<f32>,
    /// `[out_c, taps, in_c / groups]`.
    weights: Vec<f32>,
}

impl Scalar {
    fn pack(params: &ConvF32Params) -> Box<dyn PackedConv> {
        let shape = params.shape;
        let mut weights = Vec::with_capacity(shape.weight_len());
        for oc in 0..shape.out_c {
            for tap in 0..shape.taps() {
                weights.extend((0..shape.group_in()).map(|ic| params.weight(oc, tap, ic)));
            }
        }
        let bias = (0..shape.out_c).map(|oc| params.bias_of(oc)).collect();
        Box::new(Scalar { shape, clamp: params.clamp, bias, weights })
    }
}

impl PackedConv for Scalar {
    fn run(&self, input: &[f32], pixels: Range<usize>, output: &mut [f32]) {
        let shape = &self.shape;
        if output.is_empty() {
            return;
        }
        let (depth, group_out) = (shape.group_in(), shape.group_out());
        let mut at = PixelWalk::new(shape, pixels.start);
        for pixel in output.chunks_exact_mut(shape.out_c) {
            pixel.copy_from_slice(&self.bias);
            for ky in 0..shape.kernel_h {
                for kx in 0..shape.kernel_w {
                    let tap = ky * shape.kernel_w + kx;
                    let source = at.tap(shape, ky, kx).map(|start| &input[start..][..shape.in_c]);
                    for (oc, acc) in pixel.iter_mut().enumerate() {
                        let first = oc / group_out * depth;
                        let weights = &self.weights[(oc * shape.taps() + tap) * depth..][..depth];
                        for (ic, &weight) in weights.iter().enumerate() {
                            let value = source.map_or(0.0, |source| source[first + ic]);
                            *acc = value.mul_add(weight, *acc);
                        }
                    }
                }
            }
            for value in pixel {
                *value = clamp(*value, self.clamp);
            }
            at.step(shape);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{Random, isas, random_shape, same_bits};

    const NONE: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

    /// One output from the formula, in f64.
    fn naive(params: &ConvF32Params, input: &[f32], pixel: usize, oc: usize) -> f64 {
        let s = &params.shape;
        let (n, y, x) = (pixel / s.out_w / s.out_h, pixel / s.out_w % s.out_h, pixel % s.out_w);
        let mut sum = params.bias.get(oc).map_or(0.0, |&bias| f64::from(bias));
        for ic in 0..s.in_c / s.groups {
            for ky in 0..s.kernel_h {
                for kx in 0..s.kernel_w {
                    let iy = (y * s.stride_h + ky * s.dilation_h) as i64 - s.pad_top as i64;
                    let ix = (x * s.stride_w + kx * s.dilation_w) as i64 - s.pad_left as i64;
                    if iy < 0 || ix < 0 || iy >= s.in_h as i64 || ix >= s.in_w as i64 {
                        continue;
                    }
                    let channel = oc / (s.out_c / s.groups) * (s.in_c / s.groups) + ic;
                    let row = n * s.in_h + iy as usize;
                    let value = input[(row * s.in_w + ix as usize) * s.in_c + channel];
                    let weight = ((oc * (s.in_c / s.groups) + ic) * s.kernel_h + ky) * s.kernel_w;
                    sum += f64::from(value) * f64::from(params.weights[weight + kx]);
                }
            }
        }
        sum.clamp(params.clamp.0.into(), params.clamp.1.into())
    }

    /// Runs every kernel over `pixels`; scalar must be near the formula, others equal scalar.
    fn check(params: &ConvF32Params, input: &[f32], pixels: Range<usize>) {
        let shape = &params.shape;
        let run = |name: &str| {
            let conv = ConvF32::with_kernel(params, name).unwrap();
            let mut output = vec![9.0; pixels.len() * shape.out_c];
            conv.run(input, pixels.clone(), &mut output);
            output
        };
        let names = ConvF32::kernel_names(shape);
        assert_eq!(names.last(), Some(&"scalar"));
        let scalar = run("scalar");
        for (at, &value) in scalar.iter().enumerate() {
            let expected = naive(params, input, pixels.start + at / shape.out_c, at % shape.out_c);
            let close = (f64::from(value) - expected).abs() < 1e-4;
            assert!(close, "{value} instead of {expected}: {shape:?}");
        }
        for name in names {
            assert!(same_bits(&run(name), &scalar), "{name} over {pixels:?} of {shape:?}");
        }
    }

    fn check_random(mut shape: ConvShape, random: &mut Random) {
        if shape.pixels() > 400 {
            shape.batch = 1;
        }
        let input = random.floats(shape.input_len());
        let weights = random.floats(shape.weight_len());
        let bias = if random.below(4) == 0 { vec![] } else { random.floats(shape.out_c) };
        let clamp = [NONE, (0.0, f32::INFINITY), (0.0, 0.5), (-1.0, 1.0)][random.below(4)];
        let params = ConvF32Params { shape, weights: &weights, bias: &bias, clamp };
        let start = random.below(shape.pixels() + 1);
        let end = start + random.below(shape.pixels() - start + 1);
        check(&params, &input, start..end);
        check(&params, &input, shape.all_pixels());
    }

    #[test]
    fn dense_and_grouped() {
        let mut random = Random::new(1);
        for _ in 0..500 {
            let mut shape = random_shape(&mut random);
            shape.groups = [1, 1, 1, 2, 3][random.below(5)];
            shape.in_c = shape.groups * (1 + random.below(20));
            shape.out_c = shape.groups * (1 + random.below(40));
            check_random(shape, &mut random);
        }
    }

    #[test]
    fn few_input_channels() {
        let mut random = Random::new(2);
        for _ in 0..200 {
            let mut shape = random_shape(&mut random);
            (shape.in_c, shape.out_c) = (1 + random.below(4), 1 + random.below(40));
            shape.dilation_w = 1;
            shape.kernel_w = 2 + random.below(6);
            check_random(shape, &mut random);
        }
    }

    #[test]
    fn depthwise() {
        let mut random = Random::new(3);
        for case in 0..400 {
            let mut shape = random_shape(&mut random);
            shape.groups = 2 + case % 80;
            (shape.in_c, shape.out_c) = (shape.groups, shape.groups);
            if case % 2 == 0 {
                // The common geometries, wide enough for an interior.
                (shape.in_h, shape.in_w) = (5 + random.below(4), 8 + random.below(30));
                (shape.kernel_h, shape.kernel_w) = [(3, 3), (5, 5)][random.below(2)];
                (shape.dilation_h, shape.dilation_w) = (1, 1);
                (shape.pad_top, shape.pad_left) = (shape.kernel_h / 2, shape.kernel_w / 2);
                shape.stride_h = 1 + random.below(2);
                shape.stride_w = shape.stride_h;
                shape.out_h = (shape.in_h - 1) / shape.stride_h + 1;
                shape.out_w = (shape.in_w - 1) / shape.stride_w + 1;
            }
            check_random(shape, &mut random);
        }
    }

    #[test]
    fn pointwise_and_gemm() {
        let mut random = Random::new(4);
        for _ in 0..200 {
            let (k, n) = (random.below(200), 1 + random.below(150));
            let m = if random.below(3) == 0 { 1 } else { 1 + random.below(40) };
            check_random(ConvShape::gemm(m, k, n), &mut random);
        }
        // More pixels than one block holds; a sum in several parts of one tap, and of several taps.
        check_random(ConvShape::gemm(500, 70, 9), &mut random);
        check_random(ConvShape::gemm(40, 3000, 24), &mut random);
        let gemm = ConvShape::gemm(7, 600, 2 * 25);
        check_random(ConvShape { kernel_w: 9, pad_left: 4, groups: 2, ..gemm }, &mut random);
    }

    #[test]
    fn empty_sizes_give_the_bias() {
        let gemm = ConvShape::gemm(2, 0, 3);
        for shape in [gemm, ConvShape { kernel_w: 3, ..gemm }, ConvShape { in_w: 0, ..gemm }] {
            let (weights, bias) = (vec![0.0; shape.weight_len()], [1.0, 2.0, 3.0]);
            let params = ConvF32Params { shape, weights: &weights, bias: &bias, clamp: NONE };
            for name in ConvF32::kernel_names(&shape) {
                let mut output = [9.0; 6];
                ConvF32::with_kernel(&params, name).unwrap().run(&[], 0..2, &mut output);
                assert_eq!(output, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0], "{name}");
            }
        }
    }

    /// What the definition says of padding, NaN, infinities and zeros, on every kernel.
    #[test]
    fn special_values_by_hand() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let row = |in_c, groups| ConvShape {
            in_w: 3,
            out_w: 3,
            kernel_w: 3,
            pad_left: 1,
            in_c,
            out_c: groups,
            groups,
            ..ConvShape::gemm(1, 1, 1)
        };
        // (input of one channel, weights, bias, clamp, outputs)
        type Case = ([f32; 3], [f32; 3], f32, (f32, f32), [f32; 3]);
        let cases: &[Case] = &[
            ([1.0, 2.0, 3.0], [1.0, 10.0, 100.0], 0.5, NONE, [210.5, 321.5, 32.5]),
            ([1.0, 2.0, 3.0], [inf, 1.0, 0.0], 0.0, NONE, [nan, inf, inf]),
            ([1.0, nan, 3.0], [0.0, 1.0, 0.0], 0.0, (0.0, 6.0), [nan, nan, nan]),
            ([nan, 5.0, 9.0], [0.0, 1.0, 0.0], 0.0, (0.0, 6.0), [nan, nan, 6.0]),
            // A padded tap adds +0.0 to the -0.0 of the bias, as does 1.0 * 0.0.
            ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], -0.0, NONE, [0.0, 0.0, 0.0]),
            ([-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], -0.0, (0.0, 6.0), [0.0, -0.0, 0.0]),
        ];
        for (values, weights, bias, clamp, expected) in cases {
            // One channel alone, the same depthwise in each of 11 channels, and 20 wide groups.
            for groups in [1, 11, 20] {
                let shape = row(groups, groups);
                let spread = |v: &[f32]| -> Vec<f32> {
                    v.iter().flat_map(|&v| std::iter::repeat_n(v, groups)).collect()
                };
                let (bias, clamp) = (vec![*bias; groups], *clamp);
                let weights = weights.repeat(groups);
                let params = ConvF32Params { shape, weights: &weights, bias: &bias, clamp };
                for name in ConvF32::kernel_names(&shape) {
                    let mut output = vec![9.0; 3 * groups];
                    let conv = ConvF32::with_kernel(&params, name).unwrap();
                    conv.run(&spread(values), 0..3, &mut output);
                    assert!(same_bits(&output, &spread(expected)), "{name}: {output:?}");
                }
            }
        }
    }

    #[test]
    fn best_kernels() {
        let gemm = ConvShape::gemm(1, 1, 1);
        let depthwise = ConvShape { in_c: 8, out_c: 8, groups: 8, ..gemm };
        let first = ConvShape { in_c: 3, kernel_w: 3, ..gemm };
        for (shape, form) in [(gemm, ""), (depthwise, "-depthwise"), (first, "-rows")] {
            let weights = vec![0.0; shape.weight_len()];
            let params = ConvF32Params { shape, weights: &weights, bias: &[], clamp: NONE };
            for isa in isas() {
                let form = if isa == Isa::Scalar { "" } else { form };
                // Newer instruction sets add nothing for floats.
                let with_floats = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Scalar];
                let isa = with_floats.into_iter().find(|&with| with <= isa).unwrap();
                let form = if isa == Isa::Scalar { "" } else { form };
                let best = format!("{}{form}", isa.name());
                assert_eq!(ConvF32::new(&params, isa).kernel_name(), best);
            }
        }
    }
}
