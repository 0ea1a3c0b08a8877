//! Every 8-bit convolution kernel over layers of well-known networks, on one thread.
//!
//! `cargo bench -p daq-kernels` prints criterion's statistics, then a table of GMAC/s and of the
//! percentage of the ceiling: what the CPU multiplies and adds per second when nothing else is done,
//! measured in the same run. `cargo bench -p daq-kernels -- 56x56` runs some of them.
//!
//! Winograd kernels do with fewer multiplications, so that their share may pass 100 %.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use daq_kernels::conv_i32::{self, ConvI32};
use daq_kernels::conv_u8::KERNELS;
use daq_kernels::{ConvShape, ConvU8, ConvU8Params, Isa, WeightsU8};

/// `in_h in_w in_c out_c kernel stride depthwise`, padded so that stride 1 keeps the size.
const LAYERS: &[(&str, [usize; 7])] = &[
    ("first 3x3", [224, 224, 3, 32, 3, 2, 0]),
    ("first 7x7", [224, 224, 3, 64, 7, 2, 0]),
    ("1x1", [112, 112, 16, 96, 1, 1, 0]),
    ("1x1", [56, 56, 24, 144, 1, 1, 0]),
    ("1x1", [56, 56, 144, 24, 1, 1, 0]),
    ("1x1", [56, 56, 256, 64, 1, 1, 0]),
    ("1x1", [28, 28, 512, 128, 1, 1, 0]),
    ("1x1", [14, 14, 96, 576, 1, 1, 0]),
    ("1x1", [14, 14, 576, 96, 1, 1, 0]),
    ("1x1", [14, 14, 256, 1024, 1, 1, 0]),
    ("1x1", [7, 7, 320, 1280, 1, 1, 0]),
    ("3x3", [56, 56, 64, 64, 3, 1, 0]),
    ("3x3", [28, 28, 128, 128, 3, 1, 0]),
    ("3x3", [14, 14, 256, 256, 3, 1, 0]),
    ("3x3", [7, 7, 512, 512, 3, 1, 0]),
    ("3x3/2", [28, 28, 256, 256, 3, 2, 0]),
    ("depthwise 3x3", [112, 112, 32, 32, 3, 1, 1]),
    ("depthwise 3x3", [56, 56, 144, 144, 3, 1, 1]),
    ("depthwise 3x3/2", [56, 56, 144, 144, 3, 2, 1]),
    ("depthwise 3x3", [14, 14, 384, 384, 3, 1, 1]),
    ("depthwise 5x5", [28, 28, 120, 120, 5, 1, 1]),
    ("matrix-vector", [1, 1, 1280, 1000, 1, 1, 0]),
];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    // The quickest run of each, by layer and kernel.
    let best: RefCell<BTreeMap<(usize, usize), f64>> = RefCell::default();
    for (row, (class, layer)) in LAYERS.iter().enumerate() {
        let (shape, name) = (shape_of(layer), name_of(class, layer));
        let mut group = criterion.benchmark_group(&name);
        group.throughput(Throughput::Elements(shape.macs()));
        let weights = weights(shape.weight_len());
        let input: Vec<u8> =
            (0..shape.input_len()).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
        let params = ConvU8Params {
            shape,
            weights: WeightsU8::I8(&weights),
            bias: &[],
            input_zero_point: 5,
            multipliers: &vec![1e-3; shape.out_c],
            output_zero_point: 5,
        };
        let mut bench = |column: usize, run: &mut dyn FnMut()| {
            group.bench_function(names_and_isas()[column].0, |bencher| {
                bencher.iter_custom(|runs| {
                    let mut total = Duration::ZERO;
                    for _ in 0..runs {
                        let start = Instant::now();
                        run();
                        let took = start.elapsed();
                        total += took;
                        let mut best = best.borrow_mut();
                        let least = best.entry((row, column)).or_insert(f64::MAX);
                        *least = least.min(took.as_secs_f64());
                    }
                    total
                });
            });
        };
        // The definition is a hundred times slower, and not meant to be fast.
        let is_benched = |isa: Isa| isa != Isa::Scalar && isa.is_supported();
        for (column, kernel) in KERNELS.iter().enumerate() {
            if is_benched(kernel.isa) && (kernel.supports)(&params) {
                let conv = ConvU8::with_kernel(&params, kernel);
                let mut output = vec![0; shape.pixels() * shape.out_c];
                bench(column, &mut || conv.run(&input, shape.all_pixels(), &mut output));
            }
        }
        for (column, kernel) in (KERNELS.len()..).zip(conv_i32::KERNELS) {
            if is_benched(kernel.isa) && (kernel.supports)(&shape) {
                let conv = ConvI32::with_kernel(shape, params.weights, kernel);
                let mut output = vec![0; shape.pixels() * shape.out_c];
                bench(column, &mut || conv.run(&input, 5, shape.all_pixels(), &mut output));
            }
        }
        group.finish();
    }
    table(&best.into_inner());
    criterion.final_summary();
}

/// The kernels that give codes, then those that give sums.
fn names_and_isas() -> Vec<(&'static str, Isa)> {
    let all = daq_kernels::kernels().into_iter();
    let products = all.filter(|(family, ..)| matches!(*family, "conv_u8" | "conv_i32"));
    products.map(|(_, name, isa)| (name, isa)).collect()
}

/// Prints GMAC/s and the share of the ceiling.
fn table(best: &BTreeMap<(usize, usize), f64>) {
    println!("\nceilings on one thread, GMAC/s (u8 * i8 into 32 bits):");
    let ceilings: Vec<(Isa, f64)> =
        Isa::ALL.iter().filter_map(|&isa| Some((isa, ceiling(isa)?))).collect();
    ceilings.iter().for_each(|(isa, rate)| println!("  {:12} {rate:6.0}", isa.name()));
    println!("\n{:32} {:36} {:>8} {:>8} {:>6}", "layer", "kernel", "us", "GMAC/s", "share");
    for (&(row, column), &seconds) in best {
        let (class, layer) = &LAYERS[row];
        let ((kernel, isa), macs) = (names_and_isas()[column], shape_of(layer).macs() as f64);
        let rate = macs / seconds * 1e-9;
        let ceiling = ceilings.iter().rfind(|(has, _)| *has <= isa);
        let share = ceiling.map_or(f64::NAN, |(_, ceiling)| 100.0 * rate / ceiling);
        println!(
            "{:32} {:36} {:8.1} {rate:8.1} {share:5.0} %",
            name_of(class, layer),
            kernel,
            seconds * 1e6
        );
    }
}

fn name_of(class: &str, [h, w, in_c, out_c, ..]: &[usize; 7]) -> String {
    format!("{class} {h}x{w}x{in_c} to {out_c}")
}

fn shape_of(&[in_h, in_w, in_c, out_c, kernel, stride, depthwise]: &[usize; 7]) -> ConvShape {
    let pad = kernel / 2;
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

/// About normally distributed up to 127, as per-channel scales leave them: which form an AVX2 kernel
/// takes depends on their size.
fn weights(len: usize) -> Vec<i8> {
    let mut state = 1u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i32
    };
    // Sums of 12 uniform values, of standard deviation 32.
    let mut weight =
        || ((0..12).map(|_| random() % 65 - 32).sum::<i32>() / 2).clamp(-127, 127) as i8;
    (0..len).map(|_| weight()).collect()
}

/// The rate at which an instruction set multiplies and adds 8-bit numbers from registers, exactly;
/// `None` where this CPU lacks it or it adds nothing to the one before.
#[cfg(target_arch = "x86_64")]
fn ceiling(isa: Isa) -> Option<f64> {
    const ROUNDS: u64 = 2_000_000;
    let (run, macs): (fn(u64), u64) = match isa {
        // SAFETY: `is_supported` is asked before it is called.
        Isa::Avx2 => (|rounds| unsafe { ceilings::avx2(rounds) }, 8 * 32),
        // SAFETY: as above.
        Isa::Avx512Vnni => (|rounds| unsafe { ceilings::vnni(rounds) }, 16 * 64),
        // SAFETY: as above.
        Isa::Amx => (|rounds| unsafe { ceilings::amx(rounds) }, 4 * 16 * 16 * 64),
        _ => return None,
    };
    if !isa.is_supported() {
        return None;
    }
    let seconds = (0..5).map(|_| {
        let start = Instant::now();
        run(black_box(ROUNDS));
        start.elapsed().as_secs_f64()
    });
    Some((ROUNDS * macs) as f64 / seconds.fold(f64::MAX, f64::min) * 1e-9)
}

#[cfg(not(target_arch = "x86_64"))]
fn ceiling(_: Isa) -> Option<f64> {
    None
}

#[cfg(target_arch = "x86_64")]
mod ceilings {
    use std::arch::asm;

    /// 8 times `vpmaddubsw`, `vpmaddwd` and `vpaddd`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(rounds: u64) {
        for _ in 0..rounds {
            // SAFETY: only registers change, and they are named.
            unsafe {
                asm!(
                    ".irp r,0,1,2,3,4,5,6,7",
                    "vpmaddubsw ymm15, ymm8, ymm9",
                    "vpmaddwd ymm15, ymm15, ymm10",
                    "vpaddd ymm\\r, ymm\\r, ymm15",
                    ".endr",
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                    out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _, out("ymm15") _,
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
    }

    /// 16 times `vpdpbusd`.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn vnni(rounds: u64) {
        for _ in 0..rounds {
            // SAFETY: only registers change, and they are named.
            unsafe {
                asm!(
                    ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                    "vpdpbusd zmm\\r, zmm16, zmm17",
                    ".endr",
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _,
                    out("zmm5") _, out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _,
                    out("zmm10") _, out("zmm11") _, out("zmm12") _, out("zmm13") _, out("zmm14") _,
                    out("zmm15") _,
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
    }

    /// 4 times `tdpbusd` on whole tiles.
    pub(super) unsafe fn amx(rounds: u64) {
        #[repr(align(64))]
        struct Config([u8; 64]);
        // Palette 1; 64 bytes a row, 16 rows a tile.
        let mut config = Config([0; 64]);
        config.0[0] = 1;
        for tile in 0..8 {
            (config.0[16 + 2 * tile], config.0[48 + tile]) = (64, 16);
        }
        // SAFETY: the configuration is a valid one, and only tiles change, which nothing else uses.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "2:",
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "tdpbusd tmm2, tmm5, tmm6",
                "tdpbusd tmm3, tmm5, tmm7",
                "dec {rounds}",
                "jnz 2b",
                "tilerelease",
                config = in(reg) &config,
                rounds = inout(reg) rounds => _,
                options(readonly, nostack)
            );
        }
    }
}
