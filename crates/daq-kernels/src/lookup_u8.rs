//! Table lookup: every unary function of an 8-bit code, exact by construction.

use crate::requantize::requantize;
use crate::{Isa, Kernel};

type Entry = unsafe fn(&[u8; 256], &[u8], &mut [u8]);

/// Every kernel, best first and scalar last.
pub static KERNELS: &[Kernel<Entry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "lookup_64__avx2", isa: Isa::Avx2, entry: avx2 },
    Kernel { name: "lookup__scalar", isa: Isa::Scalar, entry: scalar },
];

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

/// The table as 16 rows of 16, each looked up by `vpshufb` with the low half of the code. Row `i`
/// counts where the high half is `i`: there the exclusive or with `i` clears it, and elsewhere the
/// saturating addition leaves bit 7 set, for which `vpshufb` yields 0.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    use std::arch::x86_64::*;
    let bias = _mm256_set1_epi8(0x70);
    let whole = output.len() / 64 * 64;
    for at in (0..whole).step_by(64) {
        // SAFETY: `at + 64` is within both slices, whose equal lengths were checked; the rows are
        // 16 times 16 bytes of the table.
        unsafe {
            let load = |at: usize| _mm256_loadu_si256(input.as_ptr().add(at).cast());
            let codes = [load(at), load(at + 32)];
            let mut found = [_mm256_setzero_si256(); 2];
            for i in 0..16 {
                let row = _mm_loadu_si128(table.as_ptr().add(i * 16).cast());
                let row = _mm256_broadcastsi128_si256(row);
                let high = _mm256_set1_epi8((i * 16) as i8);
                for (found, codes) in found.iter_mut().zip(codes) {
                    let index = _mm256_adds_epu8(_mm256_xor_si256(codes, high), bias);
                    *found = _mm256_or_si256(*found, _mm256_shuffle_epi8(row, index));
                }
            }
            _mm256_storeu_si256(output.as_mut_ptr().add(at).cast(), found[0]);
            _mm256_storeu_si256(output.as_mut_ptr().add(at + 32).cast(), found[1]);
        }
    }
    scalar(table, &input[whole..], &mut output[whole..]);
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
