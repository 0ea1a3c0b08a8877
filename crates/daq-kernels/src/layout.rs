//! Copies between channels-first and channels-last layouts.

/// Elements per side of the square that is transposed at a time, so that both sides stay in the
/// first-level cache whatever the number of channels.
const BLOCK: usize = 32;

/// Copies `[batch, channels, pixels]` (ONNX, NCHW) to `[batch, pixels, channels]` (NHWC).
///
/// # Panics
///
/// If a length is not `batch * channels * pixels`.
pub fn nchw_to_nhwc<T: Copy>(
    batch: usize,
    channels: usize,
    pixels: usize,
    input: &[T],
    output: &mut [T],
) {
    transpose(batch, channels, pixels, input, output);
}

/// Copies `[batch, pixels, channels]` (NHWC) to `[batch, channels, pixels]` (ONNX, NCHW).
///
/// # Panics
///
/// If a length is not `batch * channels * pixels`.
pub fn nhwc_to_nchw<T: Copy>(
    batch: usize,
    channels: usize,
    pixels: usize,
    input: &[T],
    output: &mut [T],
) {
    transpose(batch, pixels, channels, input, output);
}

/// Copies `batch` matrices of `rows * columns` to their transposes.
fn transpose<T: Copy>(batch: usize, rows: usize, columns: usize, input: &[T], output: &mut [T]) {
    let len = rows * columns;
    assert_eq!(input.len(), batch * len, "the input contradicts the shape");
    assert_eq!(output.len(), batch * len, "the output contradicts the shape");
    if len == 0 {
        return;
    }
    if rows == 1 || columns == 1 {
        output.copy_from_slice(input);
        return;
    }
    for (input, output) in input.chunks_exact(len).zip(output.chunks_exact_mut(len)) {
        for row0 in (0..rows).step_by(BLOCK) {
            let row1 = rows.min(row0 + BLOCK);
            for column0 in (0..columns).step_by(BLOCK) {
                let column1 = columns.min(column0 + BLOCK);
                for column in column0..column1 {
                    let to = &mut output[column * rows + row0..column * rows + row1];
                    let from = input[row0 * columns + column..].iter().step_by(columns);
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = *from;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{nchw_to_nhwc, nhwc_to_nchw};

    #[test]
    fn both_ways() {
        let mut nhwc = [0; 6];
        nchw_to_nhwc(1, 2, 3, &[1, 2, 3, 10, 20, 30], &mut nhwc);
        assert_eq!(nhwc, [1, 10, 2, 20, 3, 30]);

        for (batch, channels, pixels) in [(1, 1, 7), (2, 7, 1), (2, 3, 100), (1, 65, 33), (3, 0, 4)]
        {
            let nchw: Vec<u32> = (0..(batch * channels * pixels) as u32).collect();
            let mut nhwc = vec![0; nchw.len()];
            nchw_to_nhwc(batch, channels, pixels, &nchw, &mut nhwc);
            for (i, value) in nhwc.iter().enumerate() {
                let (image, at) = (i / (channels * pixels), i % (channels * pixels));
                let (pixel, channel) = (at / channels, at % channels);
                assert_eq!(*value as usize, (image * channels + channel) * pixels + pixel);
            }
            let mut back = vec![0; nchw.len()];
            nhwc_to_nchw(batch, channels, pixels, &nhwc, &mut back);
            assert_eq!(back, nchw);
        }
    }
}
