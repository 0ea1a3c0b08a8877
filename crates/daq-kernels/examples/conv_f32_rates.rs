//! Times every float convolution kernel, on one thread, over a list of layers.
//!
//! `conv_f32_rates LAYERS [REPEATS]`: each line of the file is
//! `in_h in_w in_c out_c kernel stride pad depthwise`. Prints GMAC/s, and for each kernel the sum
//! of the best times of the layers that it computes.

use std::time::Instant;

use daq_kernels::{ConvF32, ConvF32Params, ConvShape};

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("usage: conv_f32_rates LAYERS [REPEATS]");
    let repeats: usize = args.next().map_or(20, |n| n.parse().expect("REPEATS is a number"));
    let text = std::fs::read_to_string(&path).expect("cannot read the list of layers");
    let layers: Vec<ConvShape> = text.lines().map(parse).collect();
    let convs: Vec<Vec<ConvF32>> = layers.iter().map(convs).collect();
    let mut best: Vec<Vec<f64>> = convs.iter().map(|convs| vec![f64::MAX; convs.len()]).collect();
    // Layer after layer, as a model runs them: the weights come from memory, not from the cache.
    for _ in 0..repeats {
        for (shape, (convs, best)) in layers.iter().zip(convs.iter().zip(&mut best)) {
            let input: Vec<f32> = (0..shape.input_len()).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut output = vec![0.0; shape.pixels() * shape.out_c];
            for (conv, best) in convs.iter().zip(best) {
                let start = Instant::now();
                conv.run(&input, shape.all_pixels(), &mut output);
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
    }
    let (mut sum, mut totals) = (0.0, std::collections::BTreeMap::<_, (f64, u64)>::new());
    for ((line, shape), (convs, best)) in text.lines().zip(&layers).zip(convs.iter().zip(&best)) {
        print!("{line:28}");
        for (conv, seconds) in convs.iter().zip(best) {
            print!("  {} {:.1}", conv.kernel_name(), shape.macs() as f64 / seconds * 1e-9);
            let total = totals.entry(conv.kernel_name()).or_default();
            *total = (total.0 + seconds, total.1 + shape.macs());
        }
        sum += best[0];
        println!();
    }
    for (name, (seconds, macs)) in totals {
        let rate = macs as f64 / seconds * 1e-9;
        println!("{name:20} {:8.3} ms {rate:6.1} GMAC/s", seconds * 1e3);
    }
    println!("{:20} {:8.3} ms", "first kernel of each", sum * 1e3);
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

/// One for each vector kernel of this CPU.
fn convs(shape: &ConvShape) -> Vec<ConvF32> {
    let weights: Vec<f32> = (0..shape.weight_len()).map(|i| (i % 11) as f32 - 5.0).collect();
    let clamp = (f32::NEG_INFINITY, f32::INFINITY);
    let params = ConvF32Params { shape: *shape, weights: &weights, bias: &[], clamp };
    let names = ConvF32::kernel_names(shape);
    let vector = &names[..names.len().saturating_sub(1).max(1)];
    vector.iter().filter_map(|name| ConvF32::with_kernel(&params, name)).collect()
}
