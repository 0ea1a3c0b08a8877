//! Times the float convolutions of a list of layers, on one thread, as a model would run them:
//! layer after layer, each reading the memory that the one before has written.
//!
//! `conv_f32_rates LAYERS [REPEATS]`: each line of the file is
//! `in_h in_w in_c out_c kernel stride pad depthwise`. Prints for each layer its kernel, the best
//! time and the rate. `DAQ_ISA` chooses the kernels.

use std::time::Instant;

use daq_kernels::{ConvF32, ConvF32Params, ConvShape, Isa};

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("usage: conv_f32_rates LAYERS [REPEATS]");
    let repeats: usize = args.next().map_or(20, |n| n.parse().expect("REPEATS is a number"));
    let text = std::fs::read_to_string(&path).expect("cannot read the list of layers");
    let convs: Vec<ConvF32> = text.lines().map(|line| conv(parse(line))).collect();
    let len = |conv: &ConvF32| conv.shape().input_len().max(output_len(conv.shape()));
    let most = convs.iter().map(len).max().unwrap_or(0);
    // Activations of a session begin at a cache line.
    let mut memory = [0, 1].map(|_| vec![0.5f32; most + 16]);
    let [mut from, mut to] = memory.each_mut().map(|values| {
        let start = values.as_ptr().align_offset(64).min(16);
        &mut values[start..]
    });
    let mut best = vec![f64::MAX; convs.len()];
    for _ in 0..repeats {
        for (conv, best) in convs.iter().zip(&mut best) {
            let shape = conv.shape();
            let (input, output) = (&from[..shape.input_len()], &mut to[..output_len(shape)]);
            let start = Instant::now();
            conv.run(input, shape.all_pixels(), output);
            *best = best.min(start.elapsed().as_secs_f64());
            std::mem::swap(&mut from, &mut to);
        }
    }
    for ((line, conv), seconds) in text.lines().zip(&convs).zip(&best) {
        let rate = conv.shape().macs() as f64 / seconds * 1e-9;
        println!("{line:28} {:18} {:8.1} us {rate:6.1} GMAC/s", conv.kernel_name(), seconds * 1e6);
    }
    println!("{:.3} ms", best.iter().sum::<f64>() * 1e3);
}

fn output_len(shape: &ConvShape) -> usize {
    shape.pixels() * shape.out_c
}

fn parse(line: &str) -> ConvShape {
    let numbers: Vec<usize> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let &[in_h, in_w, in_c, out_c, kernel, stride, pad, depthwise] = &numbers[..] else {
        panic!("not a layer: {line}");
    };
    ConvShape {
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
    }
}

/// The best kernel, with bounds that keep the values ordinary over many layers.
fn conv(shape: ConvShape) -> ConvF32 {
    let weights: Vec<f32> = (0..shape.weight_len()).map(|i| (i % 11) as f32 - 5.0).collect();
    let params = ConvF32Params { shape, weights: &weights, bias: &[], clamp: (-1.0, 1.0) };
    ConvF32::new(&params, Isa::best())
}
