//! The kernels of AVX-VNNI on CPUs without it, their products computed by a handler of SIGILL, and by
//! the same handler one instruction at a time on CPUs that have it.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::arch::x86_64::*;
use std::sync::atomic::Ordering;

use daq_kernels::conv_u8::KERNELS;
use daq_kernels::{ConvShape, ConvU8, ConvU8Params, Isa, WeightsU8};

mod trap;

/// Runs code whose products the handler computes, and says how many those were.
fn trapped<T>(native: bool, run: impl FnOnce() -> T) -> (T, u64) {
    let before = trap::COMPUTED.load(Ordering::Relaxed);
    let result = if native { trap::each_step(run) } else { run() };
    (result, trap::COMPUTED.load(Ordering::Relaxed) - before)
}

/// The four forms in registers and in memory, on sums that overflow: all eight results.
#[target_feature(enable = "avx2,avxvnni")]
fn forms(sums: &[i32; 8], codes: &[u8; 32], weights: &[i8; 32]) -> [[i32; 8]; 6] {
    // SAFETY: the arrays hold what a register does; loads and stores need no alignment. Sums go
    // through a register of high and one of low number, memory is addressed with and without index.
    unsafe {
        let load = |from: *const u8| _mm256_loadu_si256(from.cast());
        let (s, c, w) =
            (load(sums.as_ptr().cast()), load(codes.as_ptr()), load(weights.as_ptr().cast::<u8>()));
        let low = _mm256_castsi256_si128;
        let (half, quarter) = (weights.as_ptr().wrapping_sub(64), 16u64);
        let (mut high, mut indexed) = (s, s);
        std::arch::asm!(
            "{{vex}} vpdpbusd ymm15, {c}, ymmword ptr [{at}]",
            "{{vex}} vpdpbusd {indexed}, {c}, ymmword ptr [{half} + {quarter} * 4]",
            c = in(ymm_reg) c,
            at = in(reg) weights,
            half = in(reg) half,
            quarter = in(reg) quarter,
            indexed = inout(ymm_reg) indexed,
            inout("ymm15") high,
            options(nostack, readonly)
        );
        [
            _mm256_dpbusd_avx_epi32(s, c, w),
            _mm256_dpbusds_avx_epi32(s, c, w),
            _mm256_zextsi128_si256(_mm_dpbusd_avx_epi32(low(s), low(c), low(w))),
            _mm256_zextsi128_si256(_mm_dpbusds_avx_epi32(low(s), low(c), low(w))),
            high,
            indexed,
        ]
        .map(|all| {
            let mut to = [0; 8];
            _mm256_storeu_si256(to.as_mut_ptr().cast(), all);
            to
        })
    }
}

fn check_forms(native: bool) {
    let sums = [0, 1000, i32::MAX, i32::MIN, -7, i32::MAX - 10, 5, -1];
    let mut codes = [255; 32];
    codes[..8].copy_from_slice(&[1, 2, 3, 4, 200, 100, 50, 25]);
    codes[16..20].copy_from_slice(&[0, 0, 0, 9]);
    let mut weights = [127; 32];
    weights[..8].copy_from_slice(&[10, -20, 30, -40, -128, 127, -128, 127]);
    weights[12..16].copy_from_slice(&[-128; 4]);
    weights[16..20].copy_from_slice(&[1, 1, 1, -3]);
    // By hand: 10 - 40 + 90 - 160; -25600 + 12700 - 6400 + 3175; 4 * 255 * 127; 4 * 255 * -128; -27.
    let products = [-100, -16125, 129_540, -130_560, -27, 129_540, 129_540, 129_540];
    let wrapped: [i32; 8] = std::array::from_fn(|i| sums[i].wrapping_add(products[i]));
    assert_eq!(wrapped[1..4], [-15125, i32::MIN + 129_539, i32::MAX - 130_559]);
    let saturated = [-100, -15125, i32::MAX, i32::MIN, -34, i32::MAX, 129_545, 129_539];
    let low = |all: [i32; 8]| std::array::from_fn(|i| if i < 4 { all[i] } else { 0 });
    let wanted = [wrapped, saturated, low(wrapped), low(saturated), wrapped, wrapped];
    // SAFETY: the CPU executes AVX2, and AVX-VNNI by itself or by the handler.
    let (got, computed) = trapped(native, || unsafe { forms(&sums, &codes, &weights) });
    assert_eq!((got, computed), (wanted, 6));
    if native {
        // SAFETY: the CPU has both.
        assert_eq!(unsafe { forms(&sums, &codes, &weights) }, wanted, "the CPU's own");
    }
}

/// A layer and its numbers: all ends of their ranges, or one number everywhere.
fn check_layer(native: bool, shape: ConvShape, (code, weight): (Option<u8>, Option<i8>)) -> u64 {
    let mut state = 0x9e37_79b9_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 24
    };
    let input: Vec<u8> = (0..shape.input_len())
        .map(|_| code.unwrap_or([0, 255, 1, 128][random() as usize % 4]))
        .collect();
    let weights: Vec<i8> = (0..shape.weight_len())
        .map(|_| weight.unwrap_or([-128, 127, -127, 3][random() as usize % 4]))
        .collect();
    let multipliers: Vec<f32> = (0..shape.out_c).map(|c| [0.0004, 0.01][c % 2]).collect();
    let params = ConvU8Params {
        shape,
        weights: WeightsU8::I8(&weights),
        bias: &[],
        input_zero_point: 77,
        multipliers: &multipliers,
        output_zero_point: 101,
    };
    let run = |kernel| {
        let (conv, mut output) =
            (ConvU8::with_kernel(&params, kernel), vec![0; shape.pixels() * shape.out_c]);
        let ((), computed) = match kernel.isa {
            Isa::AvxVnni => trapped(native, || conv.run(&input, 0..shape.pixels(), &mut output)),
            _ => (conv.run(&input, 0..shape.pixels(), &mut output), 0),
        };
        (output, computed)
    };
    let scalar = KERNELS.last().expect("a scalar kernel");
    let (wanted, _) = run(scalar);
    let mut all = 0;
    for kernel in KERNELS.iter().filter(|kernel| kernel.isa == Isa::AvxVnni) {
        if (kernel.supports)(&params) && !kernel.name.contains("winograd") {
            let (output, computed) = run(kernel);
            assert_eq!(output, wanted, "{}: {shape:?} {code:?} {weight:?}", kernel.name);
            assert!(computed > 0, "{}: the handler saw no product", kernel.name);
            all += computed;
        }
    }
    all
}

#[test]
fn kernels_of_avxvnni_equal_scalar_where_a_handler_computes_their_products() {
    if !Isa::Avx2.is_supported() {
        println!("SKIPPED: this CPU has no AVX2");
        return;
    }
    let native = Isa::AvxVnni.is_supported();
    trap::install();
    if !native {
        // SAFETY: the handler above executes it.
        unsafe { Isa::emulate_avxvnni() };
    }
    check_forms(native);
    let fills =
        [(None, None), (Some(255), Some(-128)), (Some(255), Some(127)), (Some(0), Some(-128))];
    let mut computed = 0;
    for n in 1..=36 {
        let dense = ConvShape::gemm(3, n, 37 - n);
        let depthwise = ConvShape {
            in_c: n,
            out_c: n,
            groups: n,
            in_h: 3,
            in_w: 4,
            out_h: 2,
            out_w: 3,
            kernel_h: 3,
            kernel_w: 3,
            pad_top: 1,
            pad_left: 1,
            ..ConvShape::gemm(1, n, n)
        };
        computed += check_layer(native, dense, fills[n % 4]);
        computed += check_layer(native, depthwise, fills[n / 2 % 4]);
    }
    println!("{} products of AVX-VNNI computed by the handler", computed);
}
