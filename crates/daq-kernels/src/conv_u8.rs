//! 8-bit convolution and matrix product: the interface, its arithmetic, and the list of kernels.
//!
//! `y = requantize(bias + sum((x - x_zp) * (w - w_zp)))`, where a padded position counts as
//! `x = x_zp`. Weights are rearranged once, by [`ConvU8::new`], into what the chosen kernel reads;
//! `-x_zp * sum(w - w_zp)` goes into the bias there, so that kernels multiply plain codes and see
//! padding as a row filled with `x_zp`.
//!
//! Sums are kept modulo 2^32. They are exact where the true result fits 32 bits, which it does for
//! up to 33,025 products per output (65,793 with i8 weights) with nothing in the bias; what happens
//! on the way never matters.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::int32x4_t;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use std::arch::wasm32::v128;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m128i, __m256i, __m512i};
use std::cell::RefCell;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::conv_u8_amx::{self, AmxConv};
use crate::conv_u8_dense::DenseConv;
#[cfg(target_arch = "x86_64")]
use crate::conv_u8_panel::{self, BYTES, DOUBLED, WORDS};
use crate::conv_u8_quads::QuadPanel;
use crate::conv_u8_scalar::ScalarConv;
#[cfg(target_arch = "x86_64")]
use crate::conv_u8_vnni::VnniPanel;
use crate::depthwise_quads::QuadDepthwise;
#[cfg(target_arch = "x86_64")]
use crate::depthwise_u8::DepthwiseConv;
#[cfg(target_arch = "x86_64")]
use crate::depthwise_vnni::DepthwiseVnni;
use crate::ints::Ints;
use crate::quads::Quads;
#[cfg(target_arch = "aarch64")]
use crate::quads_neon::{Neon, NeonDot, NeonI8mm};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use crate::quads_wasm::Simd128;
#[cfg(target_arch = "x86_64")]
use crate::quads_x86::{AvxVnni, Sse41};
use crate::winograd_u8::{self, WinogradConv};
use crate::{AddU8, ConvShape, Isa, Pool, lookup_u8};

/// Weights in ONNX order, `[out_c, in_c / groups, kernel_h, kernel_w]`.
#[derive(Clone, Copy, Debug)]
pub enum WeightsU8<'a> {
    /// Symmetric: the zero point is 0.
    I8(&'a [i8]),
    /// Asymmetric.
    U8 {
        /// The weights' codes.
        codes: &'a [u8],
        /// One zero point per output channel, or one for all.
        zero_point: &'a [u8],
    },
}

/// Everything that defines an 8-bit convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvU8Params<'a> {
    /// Geometry. A fully connected layer is [`ConvShape::gemm`].
    pub shape: ConvShape,
    /// Weights.
    pub weights: WeightsU8<'a>,
    /// One value per output channel, of scale `x_scale * w_scale[c]`; empty means zeros.
    pub bias: &'a [i32],
    /// Zero point of the input, and the value of its padding.
    pub input_zero_point: u8,
    /// `x_scale * w_scale[c] / y_scale` for each output channel; finite and positive.
    pub multipliers: &'a [f32],
    /// Zero point of the output.
    pub output_zero_point: u8,
}

impl ConvU8Params<'_> {
    /// The weights of output channel `out` as `[taps, group_in]`, less their zero point: within
    /// -255..=255.
    pub(crate) fn weights_of(&self, out: usize, to: &mut [i16]) {
        let (taps, group_in) = (self.shape.taps(), self.shape.group_in());
        let codes = out * group_in * taps..(out + 1) * group_in * taps;
        fn put<T: Copy>(codes: &[T], taps: usize, to: &mut [i16], weight: impl Fn(T) -> i16) {
            let group_in = (codes.len() / taps.max(1)).max(1);
            for (tap, to) in to.chunks_exact_mut(group_in).enumerate().take(taps) {
                for (to, &code) in to.iter_mut().zip(codes[tap..].iter().step_by(taps)) {
                    *to = weight(code);
                }
            }
        }
        match self.weights {
            WeightsU8::I8(all) if taps == 1 => {
                to.iter_mut().zip(&all[codes]).for_each(|(to, &code)| *to = code.into());
            }
            WeightsU8::I8(all) => put(&all[codes], taps, to, i16::from),
            WeightsU8::U8 { codes: all, zero_point } => {
                let zero_point = i16::from(zero_point[if zero_point.len() == 1 { 0 } else { out }]);
                put(&all[codes], taps, to, |code| i16::from(code) - zero_point);
            }
        }
    }

    /// Whether every weight, less its zero point, lies within -128..=127.
    pub(crate) fn weights_fit_i8(&self) -> bool {
        self.weights_fit((-128, 127))
    }

    /// Whether every weight, less its zero point, lies within a range.
    pub(crate) fn weights_fit(&self, (low, high): (i16, i16)) -> bool {
        let within = |weight: i16| (low..=high).contains(&weight);
        match self.weights {
            WeightsU8::I8(codes) => {
                within(-128) && within(127) || codes.iter().all(|&code| within(code.into()))
            }
            WeightsU8::U8 { codes, zero_point } => {
                let fits =
                    |&code: &u8, zero_point: u8| within(i16::from(code) - i16::from(zero_point));
                match zero_point {
                    &[one] => codes.iter().all(|code| fits(code, one)),
                    each => {
                        codes.chunks_exact((codes.len() / each.len().max(1)).max(1)).zip(each).all(
                            |(codes, &zero_point)| codes.iter().all(|code| fits(code, zero_point)),
                        )
                    }
                }
            }
        }
    }

    /// Bias of every output channel with the input's zero point folded in.
    pub(crate) fn folded_bias(&self) -> Vec<i32> {
        let per_output = self.shape.group_in() * self.shape.taps();
        let sum = |out: usize| match self.weights {
            // Sums of 16 bits, of which a vector holds twice as many.
            WeightsU8::I8(codes) => codes[out * per_output..][..per_output]
                .chunks(128)
                .map(|codes| codes.iter().fold(0i16, |sum, &code| sum + i16::from(code)))
                .fold(0i32, |sum, some| sum.wrapping_add(i32::from(some))),
            WeightsU8::U8 { codes, zero_point } => {
                let zero_point =
                    if zero_point.len() == 1 { zero_point[0] } else { zero_point[out] };
                codes[out * per_output..][..per_output].iter().fold(0i32, |sum, &code| {
                    sum.wrapping_add(i32::from(code) - i32::from(zero_point))
                })
            }
        };
        (0..self.shape.out_c)
            .map(|out| {
                let bias = self.bias.get(out).copied().unwrap_or(0);
                bias.wrapping_sub(sum(out).wrapping_mul(i32::from(self.input_zero_point)))
            })
            .collect()
    }

    pub(crate) fn check(&self) {
        let shape = &self.shape;
        assert!(
            shape.groups > 0
                && shape.in_c.is_multiple_of(shape.groups)
                && shape.out_c.is_multiple_of(shape.groups),
            "{} groups do not divide {} input and {} output channels",
            shape.groups,
            shape.in_c,
            shape.out_c
        );
        assert!(shape.stride_h > 0 && shape.stride_w > 0, "a stride is 0");
        let len = match self.weights {
            WeightsU8::I8(codes) => codes.len(),
            WeightsU8::U8 { codes, zero_point } => {
                assert!(
                    zero_point.len() == 1 || zero_point.len() == shape.out_c,
                    "{} weight zero points for {} output channels",
                    zero_point.len(),
                    shape.out_c
                );
                codes.len()
            }
        };
        assert_eq!(len, shape.weight_len(), "the number of weights contradicts the shape");
        assert!(
            self.bias.is_empty() || self.bias.len() == shape.out_c,
            "{} biases for {} output channels",
            self.bias.len(),
            shape.out_c
        );
        assert_eq!(
            self.multipliers.len(),
            shape.out_c,
            "the number of multipliers contradicts the output channels"
        );
    }
}

/// Weights rearranged for one kernel, and the kernel itself.
pub(crate) trait PackedConv: Send + Sync + std::fmt::Debug {
    /// Computes a part of the output, which is not empty: pixel `p`, channel `c` is stored at
    /// `output + (p - pixels.start) * stride + (c - channels.start)`.
    ///
    /// # Safety
    ///
    /// `input` is as long as the shape says; the part lies within the shape, its channels being all
    /// or beginning at a multiple of [`channel_step`](Self::channel_step) and ending at another one
    /// or at the last channel; every place of the output can be written.
    unsafe fn run(&self, input: &[u8], part: Part, output: *mut u8, stride: usize);

    /// Whether [`run_adding`](Self::run_adding) does better than an addition of its own.
    fn adds(&self) -> bool {
        false
    }

    /// As [`run`](Self::run), with other codes added before codes are stored.
    ///
    /// # Safety
    ///
    /// As there. The kernel [adds](Self::adds), and the codes to add, as far apart as those of the output, can
    /// be read.
    unsafe fn run_adding(
        &self,
        _input: &[u8],
        _part: Part,
        _output: *mut u8,
        _stride: usize,
        _other: Other,
    ) {
        unreachable!("it does not add")
    }

    /// Where the channels can be cut into parts; `None` if they cannot.
    fn channel_step(&self) -> Option<usize> {
        None
    }

    /// Rows that are computed together.
    fn row_step(&self) -> usize {
        1
    }

    /// Parts for each thread. With several, one that is held up leaves its share to the others; but each
    /// part costs what it does not share with the next.
    fn parts_per_thread(&self) -> usize {
        4
    }
}

/// Some pixels and channels of an output.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) pixels: Range<usize>,
    pub(crate) channels: Range<usize>,
}

/// What [`ConvU8::run_on`] does to the codes of a product before it stores them.
#[derive(Clone, Copy, Debug)]
pub enum Tail<'a> {
    /// A function of the code, its value for each.
    Table(&'a [u8; 256]),
    /// An addition, of the codes at the same places of another tensor as large as the output.
    Add {
        /// The addition.
        kernel: &'a AddU8,
        /// The other tensor, or none for what lies where the output goes.
        other: Option<&'a [u8]>,
        /// Whether the product is the first operand.
        product_first: bool,
    },
}

impl Tail<'_> {
    /// Does it to some codes that belong at `at` of the output.
    fn run(&self, at: usize, codes: &[u8], output: &mut [u8]) {
        match self {
            Tail::Table(table) => lookup_u8(table, codes, output),
            Tail::Add { kernel, other, product_first } => {
                match other.map(|other| &other[at..][..codes.len()]) {
                    Some(other) if *product_first => kernel.run(codes, other, output),
                    Some(other) => kernel.run(other, codes, output),
                    None => kernel.run_over(codes, output, *product_first),
                }
            }
        }
    }
}

/// Codes to add to those of a part, from its first place on.
// Only tiles add as they store.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Other<'a> {
    pub(crate) kernel: &'a AddU8,
    pub(crate) codes: *const u8,
    pub(crate) product_first: bool,
}

/// Bytes of a product that are computed before its tail passes over them.
const TAIL_BYTES: usize = 96 * 1024;
/// Where weights are as many, which come from memory and not from a cache.
const MOST_TAIL_BYTES: usize = 256 * 1024;

/// One kernel of the family.
#[derive(Debug)]
pub struct ConvU8Kernel {
    /// Unique name, such as `qconv_4x16_words__avx2`.
    pub name: &'static str,
    /// The instruction set it executes.
    pub isa: Isa,
    /// Whether it computes this convolution.
    pub supports: fn(&ConvU8Params) -> bool,
    /// Whether it is faster at this shape than those after it.
    pub worthwhile: fn(&ConvShape) -> bool,
    pub(crate) pack: fn(&ConvU8Params) -> Box<dyn PackedConv>,
}

/// Every kernel, best first and scalar last.
pub static KERNELS: &[ConvU8Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    ConvU8Kernel {
        name: "qconv_32x32c64__amx",
        isa: Isa::Amx,
        supports: |params| params.shape.groups == 1 && has_weights(params),
        worthwhile: conv_u8_amx::is_faster_than_vnni,
        pack: |params| Box::new(AmxConv::new(params)),
    },
    #[cfg(target_arch = "x86_64")]
    ConvU8Kernel {
        // What `QuadDepthwise` does, which takes 1.3 times as long here: compilers make less of
        // registers behind a trait.
        name: "qdepthwise_64c4__avx512vnni",
        isa: Isa::Avx512Vnni,
        supports: |params| params.shape.is_depthwise() && has_weights(params),
        worthwhile: |_| true,
        pack: |params| Box::new(DepthwiseVnni::new(params)),
    },
    #[cfg(target_arch = "x86_64")]
    winograd::<__m512i>(
        "qwinograd_6x64__avx512vnni",
        Isa::Avx512Vnni,
        winograd_u8::is_faster_than_vnni,
    ),
    #[cfg(target_arch = "x86_64")]
    ConvU8Kernel {
        name: "qconv_6x64c4__avx512vnni",
        isa: Isa::Avx512Vnni,
        supports: |params| !params.shape.is_depthwise() && has_weights(params),
        worthwhile: |_| true,
        pack: |params| Box::new(DenseConv::<VnniPanel>::new(params)),
    },
    #[cfg(target_arch = "x86_64")]
    depthwise::<AvxVnni, false>("qdepthwise_32c4__avxvnni", Isa::AvxVnni),
    // That of AVX2 gains more than 8 sums of `vpdpbusd` can, half as many as AVX-512's.
    #[cfg(target_arch = "x86_64")]
    winograd::<__m256i>("qwinograd_6x16__avxvnni", Isa::AvxVnni, winograd_u8::is_faster_than_vnni),
    #[cfg(target_arch = "x86_64")]
    dense::<AvxVnni>("qconv_6x16c4__avxvnni", Isa::AvxVnni),
    #[cfg(target_arch = "x86_64")]
    ConvU8Kernel {
        name: "qdepthwise_2x32_words__avx2",
        isa: Isa::Avx2,
        supports: |params| params.shape.is_depthwise() && has_weights(params),
        worthwhile: |_| true,
        pack: |params| Box::new(DepthwiseConv::new(params)),
    },
    #[cfg(target_arch = "x86_64")]
    winograd::<__m256i>("qwinograd_6x16__avx2", Isa::Avx2, winograd_u8::is_faster_than_avx2),
    #[cfg(target_arch = "x86_64")]
    ConvU8Kernel {
        name: "qconv_4x16_doubled__avx2",
        isa: Isa::Avx2,
        supports: has_weights,
        worthwhile: |_| true,
        pack: |params| Box::new(DenseConv::<conv_u8_panel::Panel<DOUBLED>>::new(params)),
    },
    #[cfg(target_arch = "x86_64")]
    ConvU8Kernel {
        name: "qconv_4x16_bytes__avx2",
        isa: Isa::Avx2,
        supports: has_weights,
        worthwhile: |_| true,
        pack: |params| Box::new(DenseConv::<conv_u8_panel::Panel<BYTES>>::new(params)),
    },
    #[cfg(target_arch = "x86_64")]
    ConvU8Kernel {
        name: "qconv_4x16_words__avx2",
        isa: Isa::Avx2,
        supports: has_weights,
        worthwhile: |_| true,
        pack: |params| Box::new(DenseConv::<conv_u8_panel::Panel<WORDS>>::new(params)),
    },
    #[cfg(target_arch = "x86_64")]
    depthwise::<Sse41, true>("qdepthwise_16c4__sse41", Isa::Sse41),
    #[cfg(target_arch = "x86_64")]
    winograd::<__m128i>("qwinograd_6x8__sse41", Isa::Sse41, winograd_u8::is_faster_than_words),
    #[cfg(target_arch = "x86_64")]
    dense::<Sse41>("qconv_2x16c4__sse41", Isa::Sse41),
    #[cfg(target_arch = "aarch64")]
    depthwise::<NeonI8mm, true>("qdepthwise_16c4__neoni8mm", Isa::NeonI8mm),
    #[cfg(target_arch = "aarch64")]
    dense::<NeonI8mm>("qconv_6x16c8__neoni8mm", Isa::NeonI8mm),
    #[cfg(target_arch = "aarch64")]
    depthwise::<NeonDot, true>("qdepthwise_16c4__neondot", Isa::NeonDot),
    #[cfg(target_arch = "aarch64")]
    dense::<NeonDot>("qconv_6x16c4__neondot", Isa::NeonDot),
    #[cfg(target_arch = "aarch64")]
    depthwise::<Neon<true>, false>("qdepthwise_16_pairs__neon", Isa::Neon),
    #[cfg(target_arch = "aarch64")]
    depthwise::<Neon<false>, true>("qdepthwise_16__neon", Isa::Neon),
    #[cfg(target_arch = "aarch64")]
    winograd::<int32x4_t>("qwinograd_6x16__neon", Isa::Neon, winograd_u8::is_faster_than_words),
    #[cfg(target_arch = "aarch64")]
    dense::<Neon<true>>("qconv_4x16c2__neon", Isa::Neon),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    depthwise::<Simd128, true>("qdepthwise_16c4__simd128", Isa::Simd128),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    winograd::<v128>("qwinograd_6x8__simd128", Isa::Simd128, winograd_u8::is_faster_than_words),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    dense::<Simd128>("qconv_2x16c4__simd128", Isa::Simd128),
    ConvU8Kernel {
        name: "qconv__scalar",
        isa: Isa::Scalar,
        supports: |_| true,
        worthwhile: |_| true,
        pack: |params| Box::new(ScalarConv::new(params)),
    },
];

/// The depthwise convolution on registers of an instruction set. Without `ANY`, weights that one
/// multiplication does not take are left to the kernels that follow.
const fn depthwise<Q: Quads, const ANY: bool>(name: &'static str, isa: Isa) -> ConvU8Kernel {
    ConvU8Kernel {
        name,
        isa,
        supports: |params| {
            params.shape.is_depthwise()
                && has_weights(params)
                && (ANY || params.weights_fit(Q::RANGE))
        },
        worthwhile: |_| true,
        pack: |params| Box::new(QuadDepthwise::<Q>::new(params)),
    }
}

/// Winograd's convolution in vectors of an instruction set.
const fn winograd<V: Ints + std::fmt::Debug>(
    name: &'static str,
    isa: Isa,
    worthwhile: fn(&ConvShape) -> bool,
) -> ConvU8Kernel {
    ConvU8Kernel {
        name,
        isa,
        supports: winograd_u8::is_exact,
        worthwhile,
        pack: |params| Box::new(WinogradConv::<V>::new(params)),
    }
}

/// Every other convolution on registers of an instruction set.
const fn dense<Q: Quads>(name: &'static str, isa: Isa) -> ConvU8Kernel {
    ConvU8Kernel {
        name,
        isa,
        supports: |params| !params.shape.is_depthwise() && has_weights(params),
        worthwhile: |_| true,
        pack: |params| Box::new(DenseConv::<QuadPanel<Q>>::new(params)),
    }
}

/// Sums of nothing are left to the scalar kernel.
fn has_weights(params: &ConvU8Params) -> bool {
    params.shape.weight_len() > 0
}

/// An 8-bit convolution, ready to run: weights are already in the order that its kernel reads.
#[derive(Debug)]
pub struct ConvU8 {
    shape: ConvShape,
    kernel: &'static ConvU8Kernel,
    packed: Box<dyn PackedConv>,
}

impl ConvU8 {
    /// Packs the weights for the best kernel that needs no more than `isa` and that this CPU has.
    ///
    /// # Panics
    ///
    /// If a length contradicts the shape, the groups do not divide the channels, or a stride is 0.
    pub fn new(params: &ConvU8Params, isa: Isa) -> ConvU8 {
        let kernel = KERNELS
            .iter()
            .filter(|k| k.isa <= isa && k.isa.is_supported() && (k.worthwhile)(&params.shape))
            .find(|k| (k.supports)(params))
            .expect("the scalar kernel supports everything");
        ConvU8::with_kernel(params, kernel)
    }

    /// Packs the weights for `kernel`; for tests and benchmarks, which walk [`KERNELS`].
    ///
    /// # Panics
    ///
    /// As [`ConvU8::new`], and if this CPU or the kernel does not support it.
    pub fn with_kernel(params: &ConvU8Params, kernel: &'static ConvU8Kernel) -> ConvU8 {
        params.check();
        assert!(
            kernel.isa.is_supported() && (kernel.supports)(params),
            "kernel {} cannot compute {:?} on this CPU",
            kernel.name,
            params.shape
        );
        ConvU8 { shape: params.shape, kernel, packed: (kernel.pack)(params) }
    }

    /// The name of the kernel in use.
    pub fn kernel_name(&self) -> &'static str {
        self.kernel.name
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Computes the output pixels `pixels`, counted through `[batch, out_h, out_w]`.
    ///
    /// `input` is all of `[batch, in_h, in_w, in_c]`; `output` is `[pixels.len(), out_c]`. Disjoint
    /// ranges may run at the same time on several threads; whole output rows are the cheapest
    /// ranges. The first calls of a thread allocate scratch memory, later ones reuse it.
    ///
    /// # Panics
    ///
    /// If a length contradicts the shape.
    pub fn run(&self, input: &[u8], pixels: Range<usize>, output: &mut [u8]) {
        assert_eq!(input.len(), self.shape.input_len(), "the input contradicts the shape");
        assert!(
            pixels.start <= pixels.end && pixels.end <= self.shape.pixels(),
            "pixels {pixels:?} of {}",
            self.shape.pixels()
        );
        assert_eq!(
            output.len(),
            pixels.len() * self.shape.out_c,
            "the output contradicts the pixels"
        );
        if output.is_empty() {
            return;
        }
        let (channels, stride) = (0..self.shape.out_c, self.shape.out_c);
        // SAFETY: the lengths of input and output and the pixels were checked above.
        unsafe { self.packed.run(input, Part { pixels, channels }, output.as_mut_ptr(), stride) }
    }

    /// Computes the whole output on the threads of a pool, and hands its codes to `tail`, where there
    /// is one, a block at a time while they are in the cache.
    ///
    /// `input` is all of `[batch, in_h, in_w, in_c]`, `output` all of `[batch, out_h, out_w, out_c]`.
    ///
    /// # Panics
    ///
    /// If a length contradicts the shape.
    pub fn run_on(&self, pool: &Pool, input: &[u8], output: &mut [u8], tail: Option<Tail>) {
        let out_c = self.shape.out_c;
        match tail {
            None => self.run_beside(pool, input, output, 0..out_c),
            Some(Tail::Add { kernel, other, product_first }) if self.packed.adds() => {
                if let Some(other) = other {
                    assert_eq!(other.len(), output.len(), "the codes to add contradict the output");
                }
                self.run_parts(pool, input, output, out_c, true, |part, output| {
                    let at = part.pixels.start * out_c + part.channels.start;
                    // SAFETY: `run_parts` gives parts of the shape, each place to one of them only; there
                    // are as many other codes.
                    unsafe {
                        let output = output.add(at);
                        let codes = other.map_or(output.cast_const(), |other| other[at..].as_ptr());
                        let other = Other { kernel, codes, product_first };
                        self.packed.run_adding(input, part, output, out_c, other)
                    }
                });
            }
            // SAFETY: `run_parts` gives parts of the shape, each place to one of them only.
            Some(tail) => self.run_parts(pool, input, output, out_c, true, |part, output| unsafe {
                self.run_with_tail(input, part, output, tail)
            }),
        }
    }

    /// Computes the whole output into some of the channels of a larger one, as a concatenation has them.
    ///
    /// `input` is all of `[batch, in_h, in_w, in_c]`, `output` all of `[batch, out_h, out_w, any]`;
    /// `channels` are those to write, `out_c` of them.
    ///
    /// # Panics
    ///
    /// If a length contradicts the shape.
    pub fn run_beside(&self, pool: &Pool, input: &[u8], output: &mut [u8], channels: Range<usize>) {
        let all = output.len() / self.shape.pixels().max(1);
        assert!(
            channels.len() == self.shape.out_c && (output.is_empty() || channels.end <= all),
            "channels {channels:?} of {all} for {} output channels",
            self.shape.out_c
        );
        self.run_parts(pool, input, output, all, false, |part, output| {
            let at = part.pixels.start * all + channels.start + part.channels.start;
            // SAFETY: `run_parts` gives parts of the shape, each place to one of them only, and the
            // channels lie within the output's.
            unsafe { self.packed.run(input, part, output.add(at), all) }
        });
    }

    /// Calls `run` with each part of the output, of `all` channels, on the threads of a pool.
    fn run_parts(
        &self,
        pool: &Pool,
        input: &[u8],
        output: &mut [u8],
        all: usize,
        tail: bool,
        run: impl Fn(Part, *mut u8) + Sync,
    ) {
        assert_eq!(input.len(), self.shape.input_len(), "the input contradicts the shape");
        assert_eq!(output.len(), self.shape.pixels() * all, "the output contradicts the shape");
        if self.shape.pixels() * self.shape.out_c == 0 {
            return;
        }
        let split = Split::new(&self.shape, &*self.packed, pool.threads(), tail);
        pool.for_each_part(output, split.parts(), |i, output| run(split.part(i), output));
    }

    /// Computes a part, block by block, into memory of this thread, and the tail from there.
    ///
    /// # Safety
    ///
    /// As for [`PackedConv::run`]; `output` is the whole one.
    unsafe fn run_with_tail(&self, input: &[u8], part: Part, output: *mut u8, tail: Tail) {
        let (out_c, out_w) = (self.shape.out_c, self.shape.out_w);
        let Part { pixels, channels } = part;
        let width = channels.len();
        // As many bytes as weights, which each block reads anew.
        let weights = self.shape.weight_len() / out_c * width;
        let most = (weights.clamp(TAIL_BYTES, MOST_TAIL_BYTES) / width).max(32);
        let rows = self.packed.row_step() * out_w;
        let block = match most < rows {
            true if rows == out_w => most,
            true => rows,
            false => most / rows * rows,
        };
        // Of about equal size: each reads all of the weights.
        let blocks = pixels.len().div_ceil(block);
        let block =
            pixels.len().div_ceil(blocks).next_multiple_of(if block < rows { 1 } else { rows });
        BLOCK.with_borrow_mut(|codes| {
            for first in pixels.clone().step_by(block) {
                let pixels = first..pixels.end.min(first + block);
                if codes.len() < pixels.len() * width {
                    codes.resize(pixels.len() * width, 0);
                }
                let codes = &mut codes[..pixels.len() * width];
                let part = Part { pixels: pixels.clone(), channels: channels.clone() };
                // Whole pixels lie side by side in the output, parts of them do not.
                let run = if width == out_c { codes.len() } else { width };
                // SAFETY: by the caller; `codes` holds the block, and the runs are its pixels'.
                unsafe {
                    self.packed.run(input, part, codes.as_mut_ptr(), width);
                    for (i, codes) in codes.chunks_exact(run).enumerate() {
                        let at = (first + i) * out_c + channels.start;
                        tail.run(at, codes, std::slice::from_raw_parts_mut(output.add(at), run));
                    }
                }
            }
        });
    }
}

thread_local! {
    /// A block of a product before its tail; reused from call to call.
    static BLOCK: RefCell<Vec<u8>> = RefCell::default();
}

/// How an output is cut into parts for several threads.
#[derive(Clone, Copy, Debug)]
struct Split {
    pixels: usize,
    channels: usize,
    /// Pixels and channels of one part; the last ones may be smaller.
    pixels_of_part: usize,
    channels_of_part: usize,
}

/// The fewest pixels of a part: a multiple of the heights of all tiles.
const TILES: usize = 24;

impl Split {
    fn new(shape: &ConvShape, packed: &dyn PackedConv, threads: usize, tail: bool) -> Split {
        let (channel_step, row_step) = (packed.channel_step(), packed.row_step());
        let parts = threads * packed.parts_per_thread();
        let (pixels, channels) = (shape.pixels(), shape.out_c);
        let whole = Split { pixels, channels, pixels_of_part: pixels, channels_of_part: channels };
        if threads == 1 {
            return whole;
        }
        let rows = |parts: usize| {
            let (all, row) = (pixels.div_ceil(shape.out_w), shape.out_w);
            match channel_step {
                // Rows that are computed together stay so.
                _ if row_step > 1 => (pixels.div_ceil(parts)).next_multiple_of(row_step * row),
                // Any pixels will do.
                Some(_) => pixels.div_ceil(parts).max(TILES),
                // Whole rows, rather too many parts than too few to be shared evenly.
                None => (all / parts).max(1) * row,
            }
            .min(pixels)
        };
        // Every part reads all of the weights of its channels and all of the inputs of its pixels:
        // what is larger is cut.
        let steps = channel_step.map_or(1, |step| channels.div_ceil(step));
        match channel_step {
            Some(step) if steps >= threads && shape.weight_len() > shape.input_len() => {
                // A tail passes over the channels of one pixel at a time: they had better be many.
                let parts = if tail { threads } else { parts };
                let steps_of_part = steps.div_ceil(parts);
                let parts = steps.div_ceil(steps_of_part);
                let uneven = parts % threads != 0 && parts < threads * 3;
                Split {
                    pixels_of_part: if uneven { rows(threads) } else { pixels },
                    channels_of_part: steps_of_part * step,
                    ..whole
                }
            }
            _ => Split { pixels_of_part: rows(parts * row_step), ..whole },
        }
    }

    fn parts(&self) -> usize {
        self.pixels.div_ceil(self.pixels_of_part) * self.channels.div_ceil(self.channels_of_part)
    }

    /// Part `i`; those of the same channels follow one another.
    fn part(&self, i: usize) -> Part {
        let of_pixels = self.pixels.div_ceil(self.pixels_of_part);
        let cut = |i: usize, len: usize, all: usize| i * len..all.min((i + 1) * len);
        Part {
            pixels: cut(i % of_pixels, self.pixels_of_part, self.pixels),
            channels: cut(i / of_pixels, self.channels_of_part, self.channels),
        }
    }
}
