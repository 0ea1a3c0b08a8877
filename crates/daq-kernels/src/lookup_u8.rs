//! Table lookup: every unary function of an 8-bit code, exact by construction.

use crate::requantize::requantize;
use crate::{Isa, Kernel};

type Entry = unsafe fn(&[u8; 256], &[u8], &mut [u8]);

/// Every kernel, best first and scalar last.
pub static KERNELS: &[Kernel<Entry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "lookup_64__avx512vbmi", isa: Isa::Avx512Vbmi, entry: avx512vbmi },
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "lookup_64__avx2", isa: Isa::Avx2, entry: avx2 },
    #[cfg(target_arch = "aarch64")]
    Kernel { name: "lookup_16__neon", isa: Isa::Neon, entry: neon },
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

/// The table as 16 rows of 16, each looked up by `vpshufb` with the low half of the code, which
/// yields 0 where bit 7 is set.
///
/// Subtracting 16 from row to row, and staying negative once below 0, a code counts in the rows up
/// to its own and in none after it. So that those before it cancel out, every row but the first is
/// held as its difference (exclusive or) from the one before. Codes of 128 and above are negative
/// from the start; with bit 7 turned over they take the same way through the upper half.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    use std::arch::x86_64::*;
    let sixteen = _mm256_set1_epi8(16);
    let top_bit = _mm256_set1_epi8(-128);
    let mut rows = [_mm256_setzero_si256(); 16];
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: 16 rows of 16 bytes are the table.
        let load = |i: usize| unsafe { _mm_loadu_si128(table.as_ptr().add(i * 16).cast()) };
        let before = if i % 8 == 0 { _mm_setzero_si128() } else { load(i - 1) };
        *row = _mm256_broadcastsi128_si256(_mm_xor_si128(load(i), before));
    }
    let whole = output.len() / 64 * 64;
    for at in (0..whole).step_by(64) {
        for at in [at, at + 32] {
            // SAFETY: `at + 32` is within both slices, whose equal lengths were checked.
            unsafe {
                let mut lower = _mm256_loadu_si256(input.as_ptr().add(at).cast());
                let mut upper = _mm256_xor_si256(lower, top_bit);
                let mut found = _mm256_setzero_si256();
                for i in 0..8 {
                    found = _mm256_xor_si256(found, _mm256_shuffle_epi8(rows[i], lower));
                    found = _mm256_xor_si256(found, _mm256_shuffle_epi8(rows[i + 8], upper));
                    lower = _mm256_subs_epi8(lower, sixteen);
                    upper = _mm256_subs_epi8(upper, sixteen);
                }
                _mm256_storeu_si256(output.as_mut_ptr().add(at).cast(), found);
            }
        }
    }
    scalar(table, &input[whole..], &mut output[whole..]);
}

/// `vpermi2b` looks the low 7 bits of a code up in half of the table; the top bit chooses the half.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn avx512vbmi(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    use std::arch::x86_64::*;
    // SAFETY: four vectors of 64 bytes are the table.
    let quarter = |i: usize| unsafe { _mm512_loadu_si512(table.as_ptr().add(i * 64).cast()) };
    let quarters = [quarter(0), quarter(1), quarter(2), quarter(3)];
    for at in (0..output.len()).step_by(64) {
        let mask = u64::MAX >> (64 - (output.len() - at).min(64));
        // SAFETY: of the 64 bytes at `at`, the mask leaves those within both slices, whose equal
        // lengths the caller checked.
        unsafe {
            let codes = _mm512_maskz_loadu_epi8(mask, input.as_ptr().add(at).cast());
            let low = _mm512_permutex2var_epi8(quarters[0], codes, quarters[1]);
            let high = _mm512_permutex2var_epi8(quarters[2], codes, quarters[3]);
            let found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high);
            _mm512_mask_storeu_epi8(output.as_mut_ptr().add(at).cast(), mask, found);
        }
    }
}

/// `tbl` looks codes below 64 up in four registers, and yields 0 for others; `tbx` leaves those alone.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon(table: &[u8; 256], input: &[u8], output: &mut [u8]) {
    use std::arch::aarch64::*;
    // SAFETY: four quarters of 64 bytes are the table.
    let quarters = [0, 64, 128, 192].map(|at| unsafe { vld1q_u8_x4(table.as_ptr().add(at)) });
    let whole = output.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: `at + 16` is within both slices, whose equal lengths the caller checked.
        unsafe {
            let codes = vld1q_u8(input.as_ptr().add(at));
            let mut found = vqtbl4q_u8(quarters[0], codes);
            for (i, quarter) in (1..).zip(&quarters[1..]) {
                found = vqtbx4q_u8(found, *quarter, vsubq_u8(codes, vdupq_n_u8(i * 64)));
            }
            vst1q_u8(output.as_mut_ptr().add(at), found);
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
