//! Linear resizing of pictures of 8-bit codes, channels last.

use std::cell::RefCell;

use crate::requantize::WHOLE;
use crate::{Isa, Kernel};

/// Where an output position lies between two input positions, and the share of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// The two positions.
    pub at: [usize; 2],
    /// Their shares.
    pub share: [f32; 2],
}

/// Scales and zero points of a resize; scales are finite and positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResizeU8Params {
    /// Scale of the input.
    pub input_scale: f32,
    /// Zero point of the input.
    pub input_zero_point: u8,
    /// Scale of the output.
    pub output_scale: f32,
    /// Zero point of the output.
    pub output_zero_point: u8,
}

/// Four neighbours of each output element, the shares of their columns and rows, and the output.
type Entry = fn(&ResizeU8Params, [&[u8]; 4], [&[f32]; 2], [f32; 2], &mut [u8]);
type UnsafeEntry = unsafe fn(&ResizeU8Params, [&[u8]; 4], [&[f32]; 2], [f32; 2], &mut [u8]);

/// Every kernel, best first and scalar last.
pub static KERNELS: &[Kernel<UnsafeEntry>] = &[
    #[cfg(target_arch = "x86_64")]
    Kernel { name: "qresize_linear__avx2", isa: Isa::Avx2, entry: avx2 },
    Kernel { name: "qresize_linear__scalar", isa: Isa::Scalar, entry: mix as Entry },
];

/// Rows of a resized picture: of real numbers `x = (q - zero_point) * scale`,
/// `(r0*c0)*x00 + (r0*c1)*x01 + (r1*c0)*x10 + (r1*c1)*x11` from left to right in f32, where `r` are the
/// shares of two rows and `c` those of two columns, quantized as by
/// [`quantize_f32_u8`](crate::quantize_f32_u8).
#[derive(Debug)]
pub struct ResizeU8 {
    params: ResizeU8Params,
    channels: usize,
    columns: Vec<[usize; 2]>,
    /// By output element of a row: pixel, then channel.
    shares: [Vec<f32>; 2],
    kernel: &'static Kernel<UnsafeEntry>,
}

thread_local! {
    /// The neighbours of a row's elements; reused from call to call.
    static NEIGHBOURS: RefCell<Vec<u8>> = RefCell::default();
}

impl ResizeU8 {
    /// Prepares rows of one output pixel for each of `columns`, of so many channels.
    pub fn new(params: &ResizeU8Params, columns: &[Mix], channels: usize, isa: Isa) -> ResizeU8 {
        ResizeU8::with_kernel(params, columns, channels, Kernel::pick(KERNELS, isa))
    }

    /// Prepares rows for one kernel of the list; for tests and benchmarks.
    ///
    /// # Panics
    ///
    /// If this CPU cannot execute the kernel.
    pub fn with_kernel(
        params: &ResizeU8Params,
        columns: &[Mix],
        channels: usize,
        kernel: &'static Kernel<UnsafeEntry>,
    ) -> ResizeU8 {
        kernel.check();
        let share = |i: usize| {
            columns.iter().flat_map(|mix| std::iter::repeat_n(mix.share[i], channels)).collect()
        };
        ResizeU8 {
            params: *params,
            channels,
            columns: columns.iter().map(|mix| mix.at).collect(),
            shares: [share(0), share(1)],
            kernel,
        }
    }

    /// The kernel's name.
    pub fn kernel_name(&self) -> &'static str {
        self.kernel.name
    }

    /// Computes a row, `[columns, channels]`, from two rows of the input, `[in_w, channels]`, and
    /// their shares.
    ///
    /// # Panics
    ///
    /// If a column lies beyond the input, or the output's length is another.
    pub fn run(&self, rows: [&[u8]; 2], share: [f32; 2], output: &mut [u8]) {
        let (channels, len) = (self.channels, self.shares[0].len());
        assert_eq!(output.len(), len, "the output contradicts the columns");
        if len == 0 {
            return;
        }
        NEIGHBOURS.with_borrow_mut(|neighbours| {
            if neighbours.len() < 4 * len {
                neighbours.resize(4 * len, 0);
            }
            let mut neighbours = neighbours[..4 * len].chunks_exact_mut(len);
            let neighbours: [&[u8]; 4] = std::array::from_fn(|i| {
                let to = neighbours.next().expect("there are four");
                let from = |column: &[usize; 2]| column[i % 2] * channels;
                if channels == 1 {
                    for (to, column) in to.iter_mut().zip(&self.columns) {
                        *to = rows[i / 2][from(column)];
                    }
                } else {
                    for (to, column) in to.chunks_exact_mut(channels).zip(&self.columns) {
                        to.copy_from_slice(&rows[i / 2][from(column)..][..channels]);
                    }
                }
                &*to
            });
            let shares = [&self.shares[0][..], &self.shares[1]];
            // SAFETY: `with_kernel` made sure that this CPU has the kernel's instruction set.
            unsafe { (self.kernel.entry)(&self.params, neighbours, shares, share, output) }
        });
    }
}

/// The rule, in a form that compilers turn into vectors: no branch, and no conversion that they
/// would have to check.
#[inline(always)]
fn mix(
    params: &ResizeU8Params,
    [a, b, c, d]: [&[u8]; 4],
    [left, right]: [&[f32]; 2],
    [upper, lower]: [f32; 2],
    output: &mut [u8],
) {
    let ResizeU8Params { input_scale, input_zero_point, output_scale, output_zero_point } = *params;
    let zero_point = f32::from(output_zero_point);
    let (lowest, highest) = (-zero_point, 255.0 - zero_point);
    let len = output.len();
    let (a, b, c, d, left, right) =
        (&a[..len], &b[..len], &c[..len], &d[..len], &left[..len], &right[..len]);
    for i in 0..len {
        let real = |code: u8| (i32::from(code) - i32::from(input_zero_point)) as f32 * input_scale;
        let sum = (left[i] * upper) * real(a[i]) + (right[i] * upper) * real(b[i]);
        let sum = sum + (left[i] * lower) * real(c[i]) + (right[i] * lower) * real(d[i]);
        let x = sum / output_scale;
        // A NaN becomes the lowest code.
        let x = if x > lowest { x } else { lowest };
        let x = if x < highest { x } else { highest };
        // The addition rounds, ties to even, and leaves the whole number in the last bits.
        output[i] = ((x + WHOLE).to_bits() as u8).wrapping_add(output_zero_point);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(
    params: &ResizeU8Params,
    neighbours: [&[u8]; 4],
    columns: [&[f32]; 2],
    rows: [f32; 2],
    output: &mut [u8],
) {
    mix(params, neighbours, columns, rows, output);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_worked_out_by_hand() {
        let params = ResizeU8Params {
            input_scale: 0.5,
            input_zero_point: 10,
            output_scale: 0.25,
            output_zero_point: 3,
        };
        // Two columns of two channels to three; the middle one a quarter from the second.
        let columns = [
            Mix { at: [0, 1], share: [1.0, 0.0] },
            Mix { at: [0, 1], share: [0.25, 0.75] },
            Mix { at: [1, 1], share: [0.5, 0.5] },
        ];
        for kernel in KERNELS.iter().filter(|kernel| kernel.isa.is_supported()) {
            let resize = ResizeU8::with_kernel(&params, &columns, 2, kernel);
            let mut output = [0; 6];
            // Channel 0, as 2(q - 10): upper 4, 12; lower 8, 0; half of each row.
            // 6; 0.25*6 + 0.75*6 = 6; 6. Channel 1: upper 490, -20; lower 490, 0:
            // 490; 0.25*490 + 0.75*-10 = 115; -10.
            resize.run([&[12, 255, 16, 0], &[14, 255, 10, 10]], [0.5, 0.5], &mut output);
            assert_eq!(output, [9, 255, 9, 118, 9, 0], "{}", kernel.name);
            // 0.25*5 + 0.75*0 in steps of the output's scale: 2.5 is a tie, to even.
            let odd = ResizeU8Params { input_scale: 0.25, ..params };
            let resize = ResizeU8::with_kernel(&odd, &columns[1..2], 1, kernel);
            resize.run([&[20, 10], &[0, 0]], [1.0, 0.0], &mut output[..1]);
            assert_eq!(output[0], 5, "{}", kernel.name);
        }
    }

    #[test]
    fn every_kernel_equals_scalar() {
        for (i, channels) in [1, 2, 3, 8, 19, 64].into_iter().enumerate() {
            let params = ResizeU8Params {
                input_scale: [0.02, 1e30, 1e-30][i % 3],
                input_zero_point: [0, 255, 128][i / 2],
                output_scale: [0.021, 1e30, 0.5][i % 3],
                output_zero_point: [255, 0, 127][i % 3],
            };
            let row = |seed: usize| -> Vec<u8> {
                (0..7 * channels).map(|j| (j * j * 31 + j * seed + channels) as u8).collect()
            };
            let (upper, lower) = (row(7), row(11));
            let columns: Vec<Mix> = (0..23)
                .map(|j| {
                    let share = j as f32 * 0.1 % 1.0;
                    Mix { at: [j % 6, j % 6 + 1], share: [1.0 - share, share] }
                })
                .collect();
            let outputs =
                KERNELS.iter().rev().filter(|kernel| kernel.isa.is_supported()).map(|kernel| {
                    let mut output = vec![0; 23 * channels];
                    let resize = ResizeU8::with_kernel(&params, &columns, channels, kernel);
                    resize.run([&upper, &lower], [0.3, 0.7], &mut output);
                    output
                });
            let outputs: Vec<_> = outputs.collect();
            assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "{channels}");
        }
    }
}
