//! Times every 8-bit convolution kernel, on one thread, over a list of layers.
//!
//! `conv_u8_rates LAYERS [normal|small|full]`: each line of the file is
//! `in_h in_w in_c out_c kernel stride pad depthwise`. Weights are normally distributed up to 127
//! (as quantized networks have them), small enough for the fastest form, or of the full range.

use std::time::Instant;

use daq_kernels::conv_u8::KERNELS;
use daq_kernels::{ConvShape, ConvU8, ConvU8Params, WeightsU8};

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("usage: conv_u8_rates LAYERS [normal|small|full]");
    let values = args.next().unwrap_or("normal".into());
    let text = std::fs::read_to_string(&path).expect("cannot read the list of layers");
    let mut totals = vec![[(0.0, 0u64); 3]; KERNELS.len()];
    for line in text.lines() {
        let numbers: Vec<usize> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let &[in_h, in_w, in_c, out_c, kernel, stride, pad, depthwise] = &numbers[..] else {
            panic!("not a layer: {line}");
        };
        let shape = ConvShape {
            batch: 1,
            in_h,
            in_w,
            in_c,
            out_h: (in_h + 2 * pad - kernel) / stride + 1,
            out_w: (in_w + 2 * pad - kernel) / stride + 1,
            out_c,
            kernel_h: kernel,
            kernel_w: kernel,
            stride_h: stride,
            stride_w: stride,
            dilation_h: 1,
            dilation_w: 1,
            pad_top: pad,
            pad_left: pad,
            groups: if depthwise == 1 { in_c } else { 1 },
        };
        print!("{line:28}");
        let class = if depthwise == 1 { 0 } else { 1 + usize::from(kernel > 1) };
        for (kernel, totals) in KERNELS.iter().zip(&mut totals) {
            if let Some(seconds) = seconds(&shape, kernel, &values) {
                totals[class].0 += seconds;
                totals[class].1 += shape.macs();
                print!("  {:5.1}", shape.macs() as f64 / seconds * 1e-9);
            } else {
                print!("      -");
            }
        }
        println!();
    }
    for (kernel, totals) in KERNELS.iter().zip(totals) {
        println!("{}", kernel.name);
        for (class, (seconds, macs)) in ["depthwise", "1x1", "kxk"].iter().zip(totals) {
            let rate = macs as f64 / seconds * 1e-9;
            println!("  {class:10} {:8.3} ms {rate:6.1} GMAC/s", seconds * 1e3);
        }
    }
}

/// The best of several runs, where the kernel computes this layer on this CPU.
fn seconds(
    shape: &ConvShape,
    kernel: &'static daq_kernels::ConvU8Kernel,
    values: &str,
) -> Option<f64> {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as i32
    };
    let weights: Vec<i8> = (0..shape.weight_len())
        .map(|_| match values {
            "small" => (random() % 63 - 31) as i8,
            "full" => random() as i8,
            // The sum of 12 uniform values, of standard deviation 32.
            _ => ((0..12).map(|_| random() % 65 - 32).sum::<i32>() / 2).clamp(-127, 127) as i8,
        })
        .collect();
    let input: Vec<u8> = (0..shape.input_len()).map(|_| random() as u8).collect();
    let params = ConvU8Params {
        shape: *shape,
        weights: WeightsU8::I8(&weights),
        bias: &[],
        input_zero_point: 5,
        multipliers: &vec![1e-3; shape.out_c],
        output_zero_point: 5,
    };
    if !kernel.isa.is_supported() || !(kernel.supports)(&params) {
        return None;
    }
    let conv = ConvU8::with_kernel(&params, kernel);
    let mut output = vec![0; shape.pixels() * shape.out_c];
    let mut best = f64::MAX;
    let begin = Instant::now();
    for run in 0.. {
        let start = Instant::now();
        conv.run(&input, shape.all_pixels(), &mut output);
        best = best.min(start.elapsed().as_secs_f64());
        if run >= 2 && begin.elapsed().as_millis() > 15 {
            break;
        }
    }
    Some(best)
}
