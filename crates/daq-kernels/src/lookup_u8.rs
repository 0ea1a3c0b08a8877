//! Table lookup: every unary function of an 8-bit code, exact by construction.

use crate::requantize::requantize;
use crate::{Isa, Kernel};

type Entry = unsafe fn(&[u8; 256], &[u8], &mut [u8]);

/// Every kernel, best first and scalar last.
pub static KERNELS: &[Kernel<Entry>] =
    &[Kernel { name: "lookup__scalar", isa: Isa::Scalar, entry: scalar }];

/// Replaces every code by its entry in `table`.
///
/// # Panics
///
/// If the lengths differ.
pub fn lookup_u8(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    lookup_u8_with(Kernel::pick(KERNELS, Isa::best()), table, input, output);
}

/// As [`lookup_u8`], by one kernel of the list; for tests and benchmarks.
///
/// # Panics
///
/// If the lengths differ or this CPU cannot execute the kernel.
pub fn lookup_u8_with(
    kernel: &'static Kernel<Entry>,
    table: &[u8; 256],
    input: &[u8],
    output: &mut [u8],
) {
    kernel.check();
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    // SAFETY: `check` made sure that this CPU has the kernel's instruction set.
    unsafe { (kernel.entry)(table, input, output) }
}

/// The table that changes scale and zero point: `f32(q - in_zp) * (in_scale / out_scale)`, clamped,
/// rounded with ties to even, plus `out_zp`.
pub fn requantize_table(in_scale: f32, in_zp: u8, out_scale: f32, out_zp: u8) -> [u8; 256] {
    let ratio = in_scale / out_scale;
    std::array::from_fn(|code| requantize(code as i32 - i32::from(in_zp), ratio, out_zp))
}

/// Changes scale and zero point of every code, by [`requantize_table`].
///
/// # Panics
///
/// If the lengths differ.
pub fn requantize_u8(
    input: &[u8],
    in_scale: f32,
    in_zp: u8,
    out_scale: f32,
    out_zp: u8,
    output: &mut [u8],
) {
    lookup_u8(&requantize_table(in_scale, in_zp, out_scale, out_zp), input, output);
}

fn scalar(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    for (to, &from) in output.iter_mut().zip(input) {
        *to = table[usize::from(from)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_every_tail() {
        let table: [u8; 256] = std::array::from_fn(|i| ((i * i * 7 + i / 3) % 256) as u8);
        for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
            for len in (0..=256).chain([300, 1000]) {
                let input: Vec<u8> = (0..len).map(|i| (i * 37 + len) as u8).collect();
                let mut output = vec![0; len];
                lookup_u8_with(kernel, &table, &input, &mut output);
                for (to, from) in output.iter().zip(&input) {
                    assert_eq!(*to, table[usize::from(*from)], "{} {from}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn scale_change_by_hand() {
        let mut output = [0; 6];
        // Halving from zero point 10 to 100: 5 -> -2.5 -> -2, 11 -> 0.5 -> 0, 13 -> 1.5 -> 2.
        requantize_u8(&[5, 10, 11, 13, 0, 255], 0.5, 10, 1.0, 100, &mut output);
        assert_eq!(output, [98, 100, 100, 102, 95, 222]);
        requantize_u8(&[0, 10, 11, 13, 74, 255], 4.0, 10, 1.0, 5, &mut output);
        assert_eq!(output, [0, 5, 9, 17, 255, 255]);
    }
}
