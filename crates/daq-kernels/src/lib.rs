//! Exact 8-bit and float neural network kernels: slices in, slices out.
//!
//! Every kernel family keeps one list, best first and scalar last. The scalar kernel is the
//! definition; every other entry equals it bit for bit, on every CPU and for every number of
//! threads. Dispatch, tests and benchmarks walk the same list.

// Elsewhere there are few kernels but the scalar ones, and what vectors share is not all used.
#![cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]

pub mod add_u8;
pub mod channels_f32;
#[cfg(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))]
mod codes_f32;
mod conv_f32;
mod conv_f32_vector;
pub mod conv_i32;
mod conv_shape;
pub mod conv_u8;
#[cfg(target_arch = "x86_64")]
mod conv_u8_amx;
#[cfg(target_arch = "x86_64")]
mod conv_u8_amx_codes;
#[cfg(target_arch = "x86_64")]
mod conv_u8_amx_tiles;
mod conv_u8_dense;
mod conv_u8_f32;
#[cfg(target_arch = "x86_64")]
mod conv_u8_panel;
mod conv_u8_quads;
mod conv_u8_scalar;
mod conv_u8_taps;
#[cfg(target_arch = "x86_64")]
mod conv_u8_tile;
#[cfg(target_arch = "x86_64")]
mod conv_u8_vnni;
mod depthwise_f32;
mod depthwise_quads;
#[cfg(target_arch = "x86_64")]
mod depthwise_u8;
#[cfg(target_arch = "x86_64")]
mod depthwise_vnni;

mod elementwise_f32;
#[cfg(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))]
mod fused;
mod ints;
mod isa;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod large_pages;
mod layout;
pub mod lookup_u8;
mod matmul_f32;
pub mod mul_u8;
mod pool;
mod pool_f32;
pub mod pool_u8;
mod quads;
#[cfg(target_arch = "aarch64")]
mod quads_neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod quads_wasm;
#[cfg(target_arch = "x86_64")]
mod quads_x86;
pub mod quantize;
pub mod range_f32;
mod requantize;
pub mod resize_u8;
pub mod softmax;
#[cfg(test)]
mod test_util;
mod tile_f32;
mod vector_f32;
mod window;
mod winograd_u8;

pub use add_u8::{AddU8, BinaryU8Params};
pub use channels_f32::{ChannelsF32, channels_f32};
pub use conv_f32::{ConvF32, ConvF32Params};
pub use conv_i32::{ConvI32, ConvI32Kernel};
pub use conv_shape::ConvShape;
pub use conv_u8::{ConvU8, ConvU8Kernel, ConvU8Params, WeightsU8};
pub use conv_u8_f32::ConvU8F32;
pub use elementwise_f32::{BinaryF32, OperandF32, binary_f32, clamp_f32, scale_sums};
pub use isa::Isa;
pub use kernel::Kernel;
pub use layout::{nchw_to_nhwc, nchw_to_nhwc_u8, nhwc_to_nchw};
pub use lookup_u8::{lookup_u8, requantize_table, requantize_u8};
pub use matmul_f32::matmul_f32;
pub use mul_u8::MulU8;
pub use pool::Pool;
pub use pool_f32::{AveragePoolF32, GlobalAveragePoolF32, MaxPoolF32};
pub use pool_u8::{GlobalAveragePoolU8, GlobalAveragePoolU8Params, MaxPoolU8};
pub use quantize::{dequantize_u8_f32, quantize_f32_u8, quantize_nchw_to_nhwc};
pub use range_f32::{RangeF32, range_f32};
pub use requantize::requantize;
pub use resize_u8::{Mix, ResizeU8, ResizeU8Params};
pub use softmax::{SoftmaxU8Params, softmax_f32, softmax_u8};

/// Every kernel that is in a list: its family, its name, and what it needs of the CPU; those of a family
/// best first.
pub fn kernels() -> Vec<(&'static str, &'static str, Isa)> {
    fn list<F>(
        family: &'static str,
        list: &'static [Kernel<F>],
    ) -> Vec<(&'static str, &'static str, Isa)> {
        list.iter().map(|kernel| (family, kernel.name, kernel.isa)).collect()
    }
    let mut all: Vec<_> =
        conv_u8::KERNELS.iter().map(|kernel| ("conv_u8", kernel.name, kernel.isa)).collect();
    all.extend(conv_i32::KERNELS.iter().map(|kernel| ("conv_i32", kernel.name, kernel.isa)));
    all.extend(conv_f32::KERNELS.iter().map(|kernel| ("conv_f32", kernel.name, kernel.isa)));
    all.extend(list("add_u8", add_u8::KERNELS));
    all.extend(list("mul_u8", mul_u8::KERNELS));
    all.extend(list("lookup_u8", lookup_u8::KERNELS));
    all.extend(list("max_pool_u8", pool_u8::MAX_KERNELS));
    all.extend(list("global_average_pool_u8", pool_u8::SUM_KERNELS));
    all.extend(list("resize_u8", resize_u8::KERNELS));
    all.extend(list("softmax", softmax::KERNELS));
    all.extend(list("quantize_f32_u8", quantize::QUANTIZE_KERNELS));
    all.extend(list("dequantize_u8_f32", quantize::DEQUANTIZE_KERNELS));
    all.extend(list("range_f32", range_f32::KERNELS));
    all.extend(list("channels_f32", channels_f32::KERNELS));
    all.extend(list("interleave3", layout::INTERLEAVE3_KERNELS));
    all
}
