//! The sums of an 8-bit convolution or matrix product in 32 bits: what dynamic quantization
//! multiplies with, whose input has another scale and zero point in each run.
//!
//! `y = sum((x - x_zp) * (w - w_zp))` modulo 2^32, where a padded position counts nothing. Kernels
//! multiply plain codes, padding being 0; `x_zp * sum(w - w_zp)` over the taps inside the picture is
//! taken off afterwards.

use std::cell::RefCell;
use std::ops::Range;

use crate::conv_f32::check_run;
use crate::conv_u8::{ConvU8Params, PackedConv, Part};
use crate::conv_u8_dense::DenseConv;
#[cfg(target_arch = "x86_64")]
use crate::conv_u8_panel::{DOUBLED, Panel};
use crate::conv_u8_quads::QuadPanel;
use crate::quads::Quads;
#[cfg(target_arch = "aarch64")]
use crate::quads_neon::{Neon, NeonDot, NeonI8mm};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use crate::quads_wasm::Simd128;
#[cfg(target_arch = "x86_64")]
use crate::quads_x86::{Avx512Vnni, AvxVnni, Sse41};
#[cfg(target_arch = "x86_64")]
use crate::vector_f32::Vector;
use crate::vector_f32::Work;
use crate::window::{Window, tap_offsets};
use crate::{ConvShape, Isa, WeightsU8};

/// One kernel of the family.
#[derive(Debug)]
pub struct ConvI32Kernel {
    /// Unique name, the instruction set after `__`.
    pub name: &'static str,
    /// What the CPU must have.
    pub isa: Isa,
    /// Whether it can compute such a convolution.
    pub supports: fn(&ConvShape) -> bool,
    pack: fn(&ConvU8Params) -> Box<dyn PackedConv>,
}

/// Every kernel, best first and scalar last.
pub static KERNELS: &[ConvI32Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    depthwise("qsums_depthwise__avx512", Isa::Avx512, |params| {
        Box::new(Plain::new(params, through::<std::arch::x86_64::__m512>))
    }),
    #[cfg(target_arch = "x86_64")]
    depthwise("qsums_depthwise__avx2", Isa::Avx2, |params| {
        Box::new(Plain::new(params, through::<std::arch::x86_64::__m256>))
    }),
    #[cfg(target_arch = "x86_64")]
    dense::<Avx512Vnni>("qsums_6x16c4__avx512vnni", Isa::Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    dense::<AvxVnni>("qsums_6x16c4__avxvnni", Isa::AvxVnni),
    #[cfg(target_arch = "x86_64")]
    ConvI32Kernel {
        name: "qsums_4x16_doubled__avx2",
        isa: Isa::Avx2,
        supports: is_dense,
        pack: |params| Box::new(DenseConv::<Panel<DOUBLED, true>>::new(params)),
    },
    #[cfg(target_arch = "x86_64")]
    dense::<Sse41>("qsums_2x16c4__sse41", Isa::Sse41),
    #[cfg(target_arch = "aarch64")]
    dense::<NeonI8mm>("qsums_6x16c8__neoni8mm", Isa::NeonI8mm),
    #[cfg(target_arch = "aarch64")]
    dense::<NeonDot>("qsums_6x16c4__neondot", Isa::NeonDot),
    #[cfg(target_arch = "aarch64")]
    dense::<Neon<true>>("qsums_4x16c2__neon", Isa::Neon),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    dense::<Simd128>("qsums_2x16c4__simd128", Isa::Simd128),
    ConvI32Kernel {
        name: "qsums__scalar",
        isa: Isa::Scalar,
        supports: |_| true,
        pack: |params| Box::new(Plain::new(params, plainly)),
    },
];

#[cfg(target_arch = "x86_64")]
const fn depthwise(
    name: &'static str,
    isa: Isa,
    pack: fn(&ConvU8Params) -> Box<dyn PackedConv>,
) -> ConvI32Kernel {
    ConvI32Kernel { name, isa, supports: ConvShape::is_depthwise, pack }
}

const fn dense<Q: Quads>(name: &'static str, isa: Isa) -> ConvI32Kernel {
    ConvI32Kernel {
        name,
        isa,
        supports: is_dense,
        pack: |params| Box::new(DenseConv::<QuadPanel<Q, true>>::new(params)),
    }
}

fn is_dense(shape: &ConvShape) -> bool {
    !shape.is_depthwise() && shape.weight_len() > 0
}

/// The best kernel that needs no more than `isa` and that this CPU has.
pub(crate) fn best(shape: &ConvShape, isa: Isa) -> &'static ConvI32Kernel {
    KERNELS
        .iter()
        .filter(|k| k.isa <= isa && k.isa.is_supported())
        .find(|k| (k.supports)(shape))
        .expect("the scalar kernel supports everything")
}

impl ConvI32Kernel {
    /// The weights in the order that the kernel reads, with the bias and the input's zero point to
    /// begin with; neither multipliers nor the output's zero point are read.
    ///
    /// # Panics
    /// If a length contradicts the shape, the groups do not divide the channels, a stride is 0, or
    /// this CPU or the kernel does not support it.
    pub(crate) fn pack(&self, params: &ConvU8Params) -> Box<dyn PackedConv> {
        params.check();
        assert!(
            self.isa.is_supported() && (self.supports)(&params.shape),
            "kernel {} cannot compute {:?} on this CPU",
            self.name,
            params.shape
        );
        (self.pack)(params)
    }
}

/// A convolution into sums, its weights in the order that its kernel reads.
#[derive(Debug)]
pub struct ConvI32 {
    shape: ConvShape,
    kernel: &'static ConvI32Kernel,
    packed: Box<dyn PackedConv>,
    /// `[taps, out_c]`: the sum of each tap's weights.
    tap_sums: Vec<i32>,
    /// `[out_c]`: the sum of all of them.
    sums: Vec<i32>,
}

thread_local! {
    /// What is taken off the sums of each channel; reused from call to call.
    static LESS: RefCell<Vec<i32>> = RefCell::default();
}

impl ConvI32 {
    /// Packs the weights for the best kernel that needs no more than `isa` and that this CPU has.
    ///
    /// # Panics
    /// If a length contradicts the shape, the groups do not divide the channels, or a stride is 0.
    pub fn new(shape: ConvShape, weights: WeightsU8, isa: Isa) -> ConvI32 {
        ConvI32::with_kernel(shape, weights, best(&shape, isa))
    }

    /// Packs the weights for `kernel`; for tests and benchmarks, which walk [`KERNELS`].
    ///
    /// # Panics
    /// As [`ConvI32::new`], and if this CPU or the kernel does not support it.
    pub fn with_kernel(
        shape: ConvShape,
        weights: WeightsU8,
        kernel: &'static ConvI32Kernel,
    ) -> ConvI32 {
        let multipliers = vec![1.0; shape.out_c];
        let params = ConvU8Params {
            shape,
            weights,
            bias: &[],
            input_zero_point: 0,
            multipliers: &multipliers,
            output_zero_point: 0,
        };
        let packed = kernel.pack(&params);
        let (taps, group_in) = (shape.taps(), shape.group_in());
        let mut row = vec![0i16; taps * group_in];
        let mut tap_sums = vec![0i32; taps * shape.out_c];
        for out in 0..shape.out_c {
            params.weights_of(out, &mut row);
            for (tap, weights) in row.chunks_exact(group_in.max(1)).enumerate() {
                let sum = weights.iter().fold(0i32, |sum, &w| sum.wrapping_add(w.into()));
                tap_sums[tap * shape.out_c + out] = sum;
            }
        }
        let mut sums = vec![0i32; shape.out_c];
        for tap in tap_sums.chunks_exact(shape.out_c.max(1)) {
            add(&mut sums, tap);
        }
        ConvI32 { shape, kernel, packed, tap_sums, sums }
    }

    /// The name of the kernel in use.
    pub fn kernel_name(&self) -> &'static str {
        self.kernel.name
    }

    /// Computes the output pixels `pixels`, counted through `[batch, out_h, out_w]`.
    ///
    /// `input` is all of `[batch, in_h, in_w, in_c]`, `zero_point` its zero point; `output` is
    /// `[pixels.len(), out_c]`. Disjoint ranges may run at the same time on several threads.
    ///
    /// # Panics
    /// If a length contradicts the shape.
    pub fn run(&self, input: &[u8], zero_point: u8, pixels: Range<usize>, output: &mut [i32]) {
        let (shape, out_c) = (&self.shape, self.shape.out_c);
        check_run(shape, input, &pixels, output);
        if output.is_empty() {
            return;
        }
        let part = Part { pixels: pixels.clone(), channels: 0..out_c };
        // SAFETY: the lengths and the pixels were checked above; kernels of sums write 4 bytes for
        // each channel, and a pixel has `out_c` of them.
        unsafe { self.packed.run(input, part, output.as_mut_ptr().cast(), out_c * 4) }
        if zero_point == 0 {
            return;
        }
        LESS.with_borrow_mut(|less| {
            less.clear();
            less.extend(self.sums.iter().map(|sum| sum.wrapping_mul(zero_point.into())));
            let mut window = Window::new(shape, pixels.start);
            for y in output.chunks_exact_mut(out_c) {
                if window.inside(shape, 1).is_some() {
                    subtract(y, less);
                } else {
                    window.for_each_tap(shape, |tap, inside| {
                        let sums = &self.tap_sums[tap * out_c..][..out_c];
                        for (y, sum) in y.iter_mut().zip(sums).filter(|_| inside.is_some()) {
                            *y = y.wrapping_sub(sum.wrapping_mul(zero_point.into()));
                        }
                    });
                }
                window.advance(shape, 1);
            }
        });
    }
}

fn add(to: &mut [i32], from: &[i32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.wrapping_add(*from));
}

fn subtract(to: &mut [i32], from: &[i32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.wrapping_sub(*from));
}

/// Plain loops: the definition, and with vectors the depthwise convolution, of whose neighbouring
/// channels each has sums of its own.
#[derive(Debug)]
struct Plain {
    shape: ConvShape,
    /// `[out_c, taps, group_in]`; of a depthwise convolution, `[taps, channels]`.
    weights: Vec<i16>,
    /// One for each output channel, or none.
    bias: Vec<i32>,
    input_zero_point: i32,
    offsets: Vec<usize>,
    run: unsafe fn(PlainWork),
}

struct PlainWork<'a> {
    conv: &'a Plain,
    input: &'a [u8],
    first: usize,
    /// `[pixels, out_c]`
    output: &'a mut [i32],
}

/// The loops, compiled for the instruction set of `V`.
///
/// # Safety
/// This CPU has it.
#[cfg(target_arch = "x86_64")]
unsafe fn through<V: Vector>(work: PlainWork) {
    // SAFETY: by the caller.
    unsafe { V::run(work) }
}

/// The loops as they are.
///
/// # Safety
/// None is needed; the other entries of the list need some.
unsafe fn plainly(work: PlainWork) {
    // SAFETY: plain Rust.
    unsafe { work.run() }
}

impl Plain {
    fn new(params: &ConvU8Params, run: unsafe fn(PlainWork)) -> Plain {
        let shape = params.shape;
        let len = shape.taps() * shape.group_in();
        let (mut weights, mut row) = (vec![0; shape.weight_len()], vec![0; len]);
        for out in 0..shape.out_c {
            params.weights_of(out, &mut row);
            let (first, step) =
                if shape.is_depthwise() { (out, shape.out_c) } else { (out * len, 1) };
            let places = weights.iter_mut().skip(first).step_by(step);
            places.zip(&row).for_each(|(to, &weight)| *to = weight);
        }
        let (bias, input_zero_point) = (params.bias.to_vec(), params.input_zero_point.into());
        Plain { shape, weights, bias, input_zero_point, offsets: tap_offsets(&shape), run }
    }
}

impl PackedConv for Plain {
    unsafe fn run(&self, input: &[u8], part: Part, output: *mut u8, _: usize) {
        let (first, len) = (part.pixels.start, part.pixels.len() * self.shape.out_c);
        // SAFETY: by `ConvI32::run`, the only caller, which gives all channels of `i32`s and made sure
        // of the instruction set.
        unsafe {
            let output = std::slice::from_raw_parts_mut(output.cast::<i32>(), len);
            (self.run)(PlainWork { conv: self, input, first, output });
        }
    }
}

impl Work for PlainWork<'_> {
    #[inline(always)]
    unsafe fn run(self) {
        let PlainWork { conv, input, first, output } = self;
        let shape = &conv.shape;
        let mut window = Window::new(shape, first);
        for y in output.chunks_exact_mut(shape.out_c) {
            match &*conv.bias {
                [] => y.fill(0),
                bias => y.copy_from_slice(bias),
            }
            match window.inside(shape, 1) {
                Some(at) => {
                    for (tap, offset) in conv.offsets.iter().enumerate() {
                        conv.add_tap(input, tap, at + offset, y);
                    }
                }
                None => window.for_each_tap(shape, |tap, at| {
                    if let Some(at) = at {
                        conv.add_tap(input, tap, at, y);
                    }
                }),
            }
            window.advance(shape, 1);
        }
    }
}

impl Plain {
    /// Adds the products of a tap whose pixel begins at `at`.
    #[inline(always)]
    fn add_tap(&self, input: &[u8], tap: usize, at: usize, y: &mut [i32]) {
        let (s, zero_point) = (&self.shape, self.input_zero_point);
        let x = &input[at..][..s.in_c];
        if s.is_depthwise() {
            let weights = &self.weights[tap * s.out_c..][..s.out_c];
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(weights) {
                *y = y.wrapping_add((i32::from(x) - zero_point) * i32::from(w));
            }
            return;
        }
        let (group_in, group_out) = (s.group_in(), s.group_out());
        for (out, y) in y.iter_mut().enumerate() {
            let x = &x[out / group_out * group_in..][..group_in];
            let weights = &self.weights[(out * s.taps() + tap) * group_in..][..group_in];
            for (&x, &w) in x.iter().zip(weights) {
                *y = y.wrapping_add((i32::from(x) - zero_point) * i32::from(w));
            }
        }
    }
}
