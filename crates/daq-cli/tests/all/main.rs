//! The tests of the command in one program, which links what it shares once.

mod common;
mod compare;
mod errors;
mod lint;
#[cfg(unix)]
mod nnapi;
mod same_bits;
mod workflow;
