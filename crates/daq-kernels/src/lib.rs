//! Exact 8-bit and float neural network kernels: slices in, slices out.
//!
//! Every kernel family keeps one list, best first and scalar last. The scalar kernel is the
//! definition; every other entry equals it bit for bit, on every CPU and for every number of
//! threads. Dispatch, tests and benchmarks walk the same list.

mod conv_shape;
mod isa;
mod pool;

pub use conv_shape::ConvShape;
pub use isa::Isa;
pub use pool::Pool;
