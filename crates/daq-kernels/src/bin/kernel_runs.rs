//! Runs one convolution kernel some times over one small layer: what `cargo xtask instructions` counts.
//!
//! `kernel_runs` lists kernels and layers; `kernel_runs KERNEL LAYER RUNS` runs. Counts of the same binary
//! do not depend on the load of the machine, as times do.

use std::process::exit;

use daq_kernels::conv_u8::KERNELS;
use daq_kernels::{ConvShape, ConvU8, ConvU8Params, WeightsU8};

/// `in_h in_w in_c out_c kernel stride depthwise`, padded so that stride 1 keeps the size.
const LAYERS: &[(&str, [usize; 7])] = &[
    ("first", [32, 32, 3, 32, 3, 2, 0]),
    ("1x1-few", [16, 16, 16, 96, 1, 1, 0]),
    ("1x1-many", [7, 7, 320, 64, 1, 1, 0]),
    ("3x3", [16, 16, 64, 64, 3, 1, 0]),
    ("depthwise", [16, 16, 96, 96, 3, 1, 1]),
    ("vector", [1, 1, 256, 64, 1, 1, 0]),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let run = match args.as_slice() {
        [] => None,
        [kernel, layer, runs] => Some((kernel, layer, runs.parse::<usize>().unwrap_or(1))),
        _ => {
            eprintln!("usage: kernel_runs [KERNEL LAYER RUNS]");
            exit(2)
        }
    };
    for (name, layer) in LAYERS {
        let shape = shape_of(layer);
        let weights: Vec<i8> =
            (0..shape.weight_len()).map(|i| ((i * 2_654_435_761) >> 11) as i8 / 2).collect();
        let params = ConvU8Params {
            shape,
            weights: WeightsU8::I8(&weights),
            bias: &[],
            input_zero_point: 5,
            multipliers: &vec![1e-3; shape.out_c],
            output_zero_point: 5,
        };
        for kernel in KERNELS.iter().filter(|k| k.isa.is_supported() && (k.supports)(&params)) {
            match run {
                None => println!("{} {name} {}", kernel.name, shape.macs()),
                Some((wanted, layer, runs)) if *wanted == kernel.name && layer == name => {
                    let conv = ConvU8::with_kernel(&params, kernel);
                    let input: Vec<u8> = (0..shape.input_len()).map(|i| (i * 31) as u8).collect();
                    let mut output = vec![0; shape.pixels() * shape.out_c];
                    (0..runs).for_each(|_| conv.run(&input, shape.all_pixels(), &mut output));
                    return;
                }
                Some(_) => {}
            }
        }
    }
    if run.is_some() {
        eprintln!("no such kernel and layer on this CPU");
        exit(2);
    }
}

fn shape_of(&[in_h, in_w, in_c, out_c, kernel, stride, depthwise]: &[usize; 7]) -> ConvShape {
    let pad = kernel / 2;
    ConvShape {
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
        pad_top: pad,
        pad_left: pad,
        groups: if depthwise == 1 { in_c } else { 1 },
        ..ConvShape::gemm(1, 1, 1)
    }
}
