//! Every 8-bit convolution kernel against the formula, written as a plain loop over 64-bit sums.

use daq_kernels::conv_i32::{self, ConvI32};
use daq_kernels::conv_u8::{KERNELS, Tail};
use daq_kernels::{
    AddU8, BinaryU8Params, ConvShape, ConvU8, ConvU8F32, ConvU8Kernel, ConvU8Params, Isa, WeightsU8,
};

/// A small generator (xorshift), so that every run tests the same cases.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// The data of one convolution, owned.
#[derive(Debug)]
struct Case {
    shape: ConvShape,
    input: Vec<u8>,
    weights: Vec<i16>,
    weight_zero_point: Option<Vec<u8>>,
    bias: Vec<i32>,
    input_zero_point: u8,
    multipliers: Vec<f32>,
    output_zero_point: u8,
}

/// How large the values of a case are.
#[derive(Clone, Copy, Debug)]
enum Values {
    /// Codes of the whole range.
    Uniform,
    /// Weights mostly small, so that the forms that need it apply to some panels and not to others.
    Small,
    /// 0 and 255 against -128, -127 and 127.
    Extreme,
    /// 255 against 127 everywhere, or against -128: every saturating instruction would saturate.
    Worst(i16),
    /// 255 against weights whose sums of two and of four lie at the saturation bound.
    Bound,
    /// u8 weights with zero points at the ends.
    Asymmetric,
}

const VALUES: [Values; 8] = [
    Values::Uniform,
    Values::Small,
    Values::Small,
    Values::Extreme,
    Values::Worst(127),
    Values::Worst(-128),
    Values::Bound,
    Values::Asymmetric,
];

fn case(shape: ConvShape, values: Values, random: &mut Random) -> Case {
    let input = (0..shape.input_len())
        .map(|_| match values {
            Values::Extreme => random.pick(&[0, 255]),
            Values::Worst(_) | Values::Bound => 255,
            _ => random.next() as u8,
        })
        .collect();
    let asymmetric = matches!(values, Values::Asymmetric);
    let small = [3, 15, 31, 32, 60, 64][random.below(6)];
    let weights = (0..shape.weight_len())
        .map(|_| match values {
            Values::Uniform => random.next() as u8 as i8 as i16,
            Values::Small if random.below(2000) == 0 => random.pick(&[127, -128]),
            Values::Small => random.below(2 * small + 1) as i16 - small as i16,
            Values::Extreme => random.pick(&[-128, -127, 127]),
            Values::Worst(weight) => weight,
            Values::Bound => {
                let size = random.pick(&[32, 64]) + i16::from(random.below(500) == 0);
                if random.below(300) == 0 { -size } else { size }
            }
            Values::Asymmetric => random.next() as u8 as i16,
        })
        .collect();
    let weight_zero_point = asymmetric.then(|| {
        let len = random.pick(&[1, shape.out_c]);
        (0..len).map(|_| random.pick(&[0, 7, 128, 255])).collect()
    });
    let biases = if random.below(4) == 0 { 0 } else { shape.out_c };
    let bias = (0..biases).map(|_| random.next() as i16 as i32 * 4).collect();
    let spread = (shape.group_in() * shape.taps()).max(1) as f32;
    let multipliers =
        (0..shape.out_c).map(|_| (random.below(900) + 100) as f32 * 1e-5 / spread.sqrt()).collect();
    Case {
        shape,
        input,
        weights,
        weight_zero_point,
        bias,
        input_zero_point: random.pick(&[0, 255, 128, 3]),
        multipliers,
        output_zero_point: random.pick(&[0, 255, 128, 101]),
    }
}

impl Case {
    fn with_params<T>(&self, then: impl FnOnce(&ConvU8Params) -> T) -> T {
        let signed: Vec<i8>;
        let unsigned: Vec<u8>;
        let weights = match &self.weight_zero_point {
            None => {
                signed = self.weights.iter().map(|&w| w as i8).collect();
                WeightsU8::I8(&signed)
            }
            Some(zero_point) => {
                unsigned = self.weights.iter().map(|&w| w as u8).collect();
                WeightsU8::U8 { codes: &unsigned, zero_point }
            }
        };
        then(&ConvU8Params {
            shape: self.shape,
            weights,
            bias: &self.bias,
            input_zero_point: self.input_zero_point,
            multipliers: &self.multipliers,
            output_zero_point: self.output_zero_point,
        })
    }

    /// The formula: `requantize(bias + sum((x - x_zp) * (w - w_zp)))`, padding being `x_zp`.
    fn expected(&self, sums: &[i64]) -> Vec<u8> {
        let code = |(i, sum): (usize, &i64)| {
            let out = i % self.shape.out_c;
            let acc = sum + i64::from(self.bias.get(out).copied().unwrap_or(0));
            let scaled = (acc as f32 * self.multipliers[out]).round_ties_even();
            let code = f64::from(scaled) + f64::from(self.output_zero_point);
            code.clamp(0.0, 255.0) as u8
        };
        sums.iter().enumerate().map(code).collect()
    }

    fn sums(&self) -> Vec<i64> {
        let s = &self.shape;
        let mut output = Vec::new();
        for image in 0..s.batch {
            for (y, x) in (0..s.out_h).flat_map(|y| (0..s.out_w).map(move |x| (y, x))) {
                for out in 0..s.out_c {
                    let mut acc = 0;
                    let w_zp = match &self.weight_zero_point {
                        None => 0,
                        Some(all) if all.len() == 1 => i64::from(all[0]),
                        Some(each) => i64::from(each[out]),
                    };
                    for (ky, kx) in
                        (0..s.kernel_h).flat_map(|ky| (0..s.kernel_w).map(move |kx| (ky, kx)))
                    {
                        let in_y = (y * s.stride_h + ky * s.dilation_h) as i64 - s.pad_top as i64;
                        let in_x = (x * s.stride_w + kx * s.dilation_w) as i64 - s.pad_left as i64;
                        if !(0..s.in_h as i64).contains(&in_y)
                            || !(0..s.in_w as i64).contains(&in_x)
                        {
                            continue;
                        }
                        let pixel = (image * s.in_h + in_y as usize) * s.in_w + in_x as usize;
                        for c in 0..s.group_in() {
                            let channel = out / s.group_out() * s.group_in() + c;
                            let code = i64::from(self.input[pixel * s.in_c + channel]);
                            let at = ((out * s.group_in() + c) * s.kernel_h + ky) * s.kernel_w + kx;
                            acc += (code - i64::from(self.input_zero_point))
                                * (i64::from(self.weights[at]) - w_zp);
                        }
                    }
                    output.push(acc);
                }
            }
        }
        output
    }

    /// Runs every kernel over all pixels, and over one arbitrary range.
    fn check(&self, values: Values, random: &mut Random) {
        let s = &self.shape;
        let sums = self.sums();
        if matches!(values, Values::Uniform | Values::Worst(-128) | Values::Asymmetric) {
            self.check_sums(&sums, values, random);
        }
        let want = self.expected(&sums);
        for kernel in self.with_params(usable) {
            let conv = self.with_params(|params| ConvU8::with_kernel(params, kernel));
            let mut got = vec![0xAA; want.len()];
            conv.run(&self.input, s.all_pixels(), &mut got);
            if let Some(at) = (0..want.len()).find(|&at| got[at] != want[at]) {
                panic!(
                    "{}: pixel {}, channel {}: {} instead of {} ({values:?}, {s:?})",
                    kernel.name,
                    at / s.out_c,
                    at % s.out_c,
                    got[at],
                    want[at]
                );
            }
            // In parts, by several threads, with something done to every code.
            let table: [u8; 256] = std::array::from_fn(|code| (code * 7 + 3) as u8);
            let other: Vec<u8> = (0u8..=255).cycle().take(want.len()).collect();
            let addition = BinaryU8Params {
                a_scale: 0.1,
                a_zero_point: 3,
                b_scale: 0.17,
                b_zero_point: 250,
                output_scale: 0.15,
                output_zero_point: 90,
            };
            let add = AddU8::new(&addition, Isa::Scalar);
            let sum = |a: &[u8], b: &[u8]| {
                let mut sum = vec![0; a.len()];
                add.run(a, b, &mut sum);
                sum
            };
            let of_table: Vec<u8> = want.iter().map(|&code| table[usize::from(code)]).collect();
            let tail = |other, product_first| Tail::Add { kernel: &add, other, product_first };
            let (first, second) = (sum(&want, &other), sum(&other, &want));
            let tails = [
                (Tail::Table(&table), of_table),
                (tail(Some(&other), true), first.clone()),
                (tail(Some(&other), false), second.clone()),
                (tail(None, true), first),
                (tail(None, false), second),
            ];
            for threads in [1, 2, 3] {
                let pool = daq_kernels::Pool::new(threads);
                got.fill(0xAA);
                conv.run_on(&pool, &self.input, &mut got, None);
                assert!(got == want, "{} on {threads} threads ({values:?}, {s:?})", kernel.name);
                for (tail, want) in &tails {
                    got.copy_from_slice(&other);
                    conv.run_on(&pool, &self.input, &mut got, Some(*tail));
                    let name = kernel.name;
                    let form = std::mem::discriminant(tail);
                    assert!(got == *want, "{name} with {form:?}, {threads} ({values:?}, {s:?})");
                }
                // Into channels 3.. of pixels that have 5 more.
                let all = s.out_c + 5;
                let mut beside = vec![0xAA; s.pixels() * all];
                conv.run_beside(&pool, &self.input, &mut beside, 3..3 + s.out_c);
                for (got, want) in beside.chunks_exact(all).zip(want.chunks_exact(s.out_c.max(1))) {
                    let (before, rest) = got.split_at(3);
                    assert!(
                        rest[..s.out_c] == *want
                            && [before, &rest[s.out_c..]].concat() == [0xAA; 5],
                        "{} beside others, {threads} ({values:?}, {s:?})",
                        kernel.name
                    );
                }
            }
            let first = random.below(s.pixels() + 1);
            let last = first + random.below(s.pixels() - first + 1);
            let mut part = vec![0xAA; (last - first) * s.out_c];
            conv.run(&self.input, first..last, &mut part);
            let want = &want[first * s.out_c..last * s.out_c];
            assert!(part == want, "{} pixels {first}..{last} ({values:?}, {s:?})", kernel.name);
        }
    }
}

impl Case {
    /// `clamp((bias + sum) * multiplier)`
    fn expected_floats(&self, sums: &[i64], (low, high): (f32, f32)) -> Vec<f32> {
        let float = |(i, sum): (usize, &i64)| {
            let out = i % self.shape.out_c;
            let acc = sum + i64::from(self.bias.get(out).copied().unwrap_or(0));
            (acc as f32 * self.multipliers[out]).max(low).min(high)
        };
        sums.iter().enumerate().map(float).collect()
    }

    /// Every kernel that gives the sums, as they are and as floats, over all pixels and over one
    /// arbitrary range.
    fn check_sums(&self, sums: &[i64], values: Values, random: &mut Random) {
        let s = &self.shape;
        let want: Vec<i32> = sums.iter().map(|&sum| sum as i32).collect();
        let clamp = random.pick(&[(f32::NEG_INFINITY, f32::INFINITY), (0.0, 6.0)]);
        let want_floats = self.expected_floats(sums, clamp);
        for kernel in conv_i32::KERNELS.iter().filter(|k| k.isa.is_supported()) {
            if !(kernel.supports)(s) {
                continue;
            }
            let weights = |params: &ConvU8Params| ConvI32::with_kernel(*s, params.weights, kernel);
            let conv = self.with_params(weights);
            let floats = self.with_params(|params| ConvU8F32::with_kernel(params, clamp, kernel));
            let first = random.below(s.pixels() + 1);
            let last = first + random.below(s.pixels() - first + 1);
            for pixels in [s.all_pixels(), first..last] {
                let part = pixels.start * s.out_c..pixels.end * s.out_c;
                let (want, mut got) = (&want[part.clone()], vec![0x55; part.len()]);
                conv.run(&self.input, self.input_zero_point, pixels.clone(), &mut got);
                assert!(got == want, "{} pixels {pixels:?} ({values:?}, {s:?})", kernel.name);
                let (want, mut got) = (&want_floats[part.clone()], vec![f32::NAN; part.len()]);
                floats.run(&self.input, pixels.clone(), &mut got);
                let of = "floats of";
                assert!(got == want, "{of} {} pixels {pixels:?} ({values:?}, {s:?})", kernel.name);
            }
        }
    }
}

fn usable(params: &ConvU8Params) -> Vec<&'static ConvU8Kernel> {
    KERNELS.iter().filter(|k| k.isa.is_supported() && (k.supports)(params)).collect()
}

fn random_shape(random: &mut Random) -> ConvShape {
    let depthwise = random.below(3) == 0;
    let (kernel_h, kernel_w) =
        random.pick(&[(1, 1), (3, 3), (5, 5), (1, 3), (3, 2), (7, 7), (2, 4)]);
    let (dilation_h, dilation_w) = random.pick(&[(1, 1), (1, 1), (1, 1), (2, 2), (1, 3), (2, 1)]);
    let (pad_top, pad_left) = (random.below(kernel_h), random.below(kernel_w));
    let (stride_h, stride_w) = random.pick(&[(1, 1), (1, 1), (2, 2), (1, 2), (3, 1)]);
    let (in_h, in_w) = (1 + random.below(11), 1 + random.below(14));
    let groups = if depthwise { 2 + random.below(60) } else { random.pick(&[1, 1, 1, 2, 3]) };
    let channels = |random: &mut Random| match depthwise {
        true => groups,
        false => groups * (1 + random.below(40)),
    };
    // Padding after the last row and column is whatever the output size implies.
    let out =
        |len: usize, kernel: usize, stride: usize, dilation: usize, before: usize, after: usize| {
            (len + before + after).saturating_sub((kernel - 1) * dilation + 1) / stride + 1
        };
    let (after_h, after_w) = (random.below(kernel_h), random.below(kernel_w));
    ConvShape {
        batch: 1 + random.below(2),
        in_h,
        in_w,
        in_c: channels(random),
        out_h: out(in_h, kernel_h, stride_h, dilation_h, pad_top, after_h),
        out_w: out(in_w, kernel_w, stride_w, dilation_w, pad_left, after_w),
        out_c: channels(random),
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        dilation_h,
        dilation_w,
        pad_top,
        pad_left,
        groups,
    }
}

#[test]
fn random_shapes() {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    for i in 0..600 {
        let shape = random_shape(&mut random);
        let values = VALUES[i % VALUES.len()];
        case(shape, values, &mut random).check(values, &mut random);
    }
}

#[test]
fn every_tail_of_channels() {
    let mut random = Random(99);
    for channels in 1..=40 {
        let pointwise = |in_c, out_c| ConvShape {
            in_h: 3,
            in_w: 3,
            out_h: 3,
            out_w: 3,
            in_c,
            out_c,
            ..ConvShape::gemm(1, 1, 1)
        };
        let spatial = |in_c, out_c, groups| ConvShape {
            kernel_h: 3,
            kernel_w: 3,
            pad_top: 1,
            pad_left: 1,
            groups,
            ..pointwise(in_c, out_c)
        };
        for shape in [
            pointwise(channels, 17),
            pointwise(19, channels),
            spatial(channels, 5, 1),
            spatial(6, channels, 1),
            spatial(2 * channels, 4, 2),
            spatial(channels, channels, channels),
            // Several outputs for each input channel.
            spatial(channels, 2 * channels, channels),
            ConvShape::gemm(1 + channels % 6, channels, 40 - channels % 3),
            // Panels of every width.
            ConvShape::gemm(1 + channels % 9, 5, 7 * channels),
        ] {
            for values in VALUES {
                case(shape, values, &mut random).check(values, &mut random);
            }
        }
    }
}

/// A depthwise convolution by a square window in the middle of its padding; its sizes are to be filled in.
fn square_depthwise(kernel: usize, stride: usize, channels: usize) -> ConvShape {
    ConvShape {
        kernel_h: kernel,
        kernel_w: kernel,
        stride_h: stride,
        stride_w: stride,
        pad_top: kernel / 2,
        pad_left: kernel / 2,
        groups: channels,
        ..ConvShape::gemm(1, channels, channels)
    }
}

#[test]
fn depthwise_weights_beyond_8_bits_in_one_row_or_two() {
    let mut random = Random(7);
    for (kernel, stride, channels) in
        [(3, 1, 5), (3, 1, 70), (3, 2, 20), (3, 2, 64), (5, 1, 40), (5, 2, 16), (5, 2, 67)]
    {
        let (in_h, in_w) = (6, 21);
        let (out_h, out_w) = ((in_h - 1) / stride + 1, (in_w - 1) / stride + 1);
        let shape =
            ConvShape { in_h, in_w, out_h, out_w, ..square_depthwise(kernel, stride, channels) };
        for (rows, zero_point, beyond) in [(1, 60, 255), (1, 200, 0), (2, 60, 255), (1, 0, 255)] {
            let values = Values::Asymmetric;
            let mut case = case(shape, values, &mut random);
            case.weight_zero_point = Some(vec![zero_point]);
            let first = random.below(kernel + 1 - rows);
            for (i, weight) in case.weights.iter_mut().enumerate() {
                let row = i / kernel % kernel;
                let far = (first..first + rows).contains(&row) && random.below(4) == 0;
                *weight = if far { beyond } else { 72 + random.below(56) as i16 };
            }
            case.check(values, &mut random);
        }
    }
}

#[test]
fn few_dense_weights_beyond_8_bits() {
    let mut random = Random(11);
    let window = ConvShape {
        in_h: 5,
        in_w: 8,
        in_c: 3,
        kernel_h: 3,
        kernel_w: 3,
        ..ConvShape::gemm(1, 3, 40)
    };
    let window = ConvShape { out_h: 3, out_w: 6, ..window };
    // Of one step or several, one vector or several, in panels of one width or two.
    for shape in [(20, 30, 12), (37, 70, 40), (5, 130, 70)]
        .map(|(m, k, n)| ConvShape::gemm(m, k, n))
        .into_iter()
        .chain([window])
    {
        for (few, zero_point, beyond) in [(1, 60, 255), (2, 200, 0), (3, 0, 255)] {
            let values = Values::Asymmetric;
            let mut case = case(shape, values, &mut random);
            case.weight_zero_point = Some(vec![zero_point]);
            case.weights.iter_mut().for_each(|w| *w = 72 + random.below(56) as i16);
            for _ in 0..few {
                let at = random.below(case.weights.len());
                case.weights[at] = beyond;
            }
            case.check(values, &mut random);
        }
    }
}

#[test]
fn many_weights_and_a_small_output() {
    let mut random = Random(13);
    // At least 256 KiB of weights, at most eight tiles of pixels; the last panel of channels is a part.
    let window = ConvShape {
        in_h: 7,
        in_w: 7,
        out_h: 7,
        out_w: 7,
        kernel_h: 3,
        kernel_w: 3,
        pad_top: 1,
        pad_left: 1,
        ..ConvShape::gemm(1, 110, 268)
    };
    let strided = ConvShape { stride_h: 2, stride_w: 2, out_h: 4, out_w: 4, ..window };
    // Every other row and column, in planes of their own.
    let planes = ConvShape { in_c: 128, out_c: 236, ..strided };
    let single = ConvShape { in_c: 320, kernel_h: 1, kernel_w: 1, out_c: 827, ..strided };
    let single = ConvShape { pad_top: 0, pad_left: 0, ..single };
    for shape in [window, strided, planes, single, ConvShape::gemm(50, 1030, 259)] {
        for values in [Values::Uniform, Values::Extreme] {
            case(shape, values, &mut random).check(values, &mut random);
        }
    }
}

#[test]
fn a_first_layer() {
    let mut random = Random(19);
    for (in_c, kernel, pad) in [(3, 7, 3), (3, 3, 1), (4, 5, 0), (1, 7, 2)] {
        let (in_h, in_w) = (17, 41);
        let out = |len: usize| (len + 2 * pad - kernel) / 2 + 1;
        let shape = ConvShape {
            in_h,
            in_w,
            in_c,
            out_h: out(in_h),
            out_w: out(in_w),
            out_c: 40,
            kernel_h: kernel,
            kernel_w: kernel,
            stride_h: 2,
            stride_w: 2,
            pad_top: pad,
            pad_left: pad,
            ..ConvShape::gemm(1, in_c, 40)
        };
        case(shape, Values::Uniform, &mut random).check(Values::Uniform, &mut random);
    }
}

#[test]
fn many_inputs_and_an_addition() {
    let mut random = Random(17);
    let window = ConvShape {
        in_h: 6,
        in_w: 9,
        out_h: 6,
        out_w: 9,
        kernel_h: 3,
        kernel_w: 3,
        pad_top: 1,
        pad_left: 1,
        ..ConvShape::gemm(1, 70, 64)
    };
    for shape in [window, ConvShape::gemm(45, 260, 82), ConvShape::gemm(45, 260, 70)] {
        for values in [Values::Uniform, Values::Extreme, Values::Asymmetric] {
            case(shape, values, &mut random).check(values, &mut random);
        }
    }
}

#[test]
fn large_sums_stay_exact() {
    let mut random = Random(7);
    // The last ones take several blocks of pixels.
    let wide = ConvShape { in_w: 900, out_w: 900, ..ConvShape::gemm(1, 40, 9) };
    let first = ConvShape { in_h: 40, out_h: 40, kernel_h: 3, pad_top: 1, ..wide };
    let first = ConvShape { in_c: 3, in_w: 41, out_w: 39, kernel_w: 3, ..first };
    // Depthwise rows of every length up to several tiles, of strides with kernels of their own.
    let rows = (1..=35).flat_map(|w| [(3, 1), (3, 2), (5, 1), (5, 2)].map(move |of| (w, of)));
    let rows = rows.map(|(out_w, (kernel, stride))| {
        let channels = 1 + out_w * 37 % 150;
        let (in_w, out_h) = (out_w * stride, 6 / stride);
        ConvShape { in_h: 6, in_w, out_h, out_w, ..square_depthwise(kernel, stride, channels) }
    });
    // 3x3 of stride 1 in whole vectors of channels: every remainder of the tiles of 4x4.
    let squares = (1..=9).flat_map(|h| (1..=9).map(move |w| (h, w))).map(|(out_h, out_w)| {
        let pad_left = out_w % 3;
        ConvShape {
            batch: 1 + out_w % 2,
            in_h: out_h,
            in_w: (out_w + 2 - pad_left).max(1),
            out_h,
            out_w,
            kernel_h: 3,
            kernel_w: 3,
            pad_top: 1,
            pad_left,
            ..ConvShape::gemm(
                1,
                16 * (1 + (out_h + 2 * out_w) % 5),
                1 + (out_h * 37 + out_w * 11) % 140,
            )
        }
    });
    let tall =
        ConvShape { in_h: 35, in_w: 30, out_h: 33, out_w: 28, kernel_h: 3, kernel_w: 3, ..wide };
    let tall = ConvShape { in_c: 32, out_c: 24, ..tall };
    let rows = rows.chain(squares).chain([tall]);
    let large = [ConvShape::gemm(1, 4096, 33), ConvShape::gemm(5, 2050, 16), wide, first];
    for shape in large {
        for values in VALUES {
            case(shape, values, &mut random).check(values, &mut random);
        }
    }
    // Values take turns, so that every tail meets most of them at one width or another.
    for (nth, shape) in rows.enumerate() {
        for values in VALUES.into_iter().cycle().skip(nth * 3).take(3) {
            case(shape, values, &mut random).check(values, &mut random);
        }
    }
}

/// Nothing to sum, or nothing to write.
#[test]
fn empty_dimensions() {
    let mut random = Random(5);
    let taps = ConvShape { kernel_h: 0, kernel_w: 0, ..ConvShape::gemm(3, 4, 2) };
    let depthwise = ConvShape { kernel_w: 0, groups: 4, ..ConvShape::gemm(3, 4, 4) };
    for shape in [
        ConvShape::gemm(3, 0, 2),
        ConvShape::gemm(0, 4, 2),
        ConvShape::gemm(3, 4, 0),
        taps,
        depthwise,
    ] {
        case(shape, Values::Uniform, &mut random).check(Values::Uniform, &mut random);
    }
}

/// Numbers worked out by hand, for every kernel.
#[test]
fn by_hand() {
    // One pixel, x = [3, 5, 7] around zero point 2: [1, 3, 5]. Two outputs with weights [1, 2, 3]
    // and [-1, 0, 1]: 22 and 4, plus biases 2 and -9: 24 and -5; times 1/8 and 1/2: 3 and -2.5,
    // which ties to -2; plus 10.
    let shape = ConvShape::gemm(1, 3, 2);
    let params = ConvU8Params {
        shape,
        weights: WeightsU8::I8(&[1, 2, 3, -1, 0, 1]),
        bias: &[2, -9],
        input_zero_point: 2,
        multipliers: &[0.125, 0.5],
        output_zero_point: 10,
    };
    // The same weights as u8 codes of zero points 1 and 4.
    let asymmetric = ConvU8Params {
        weights: WeightsU8::U8 { codes: &[2, 3, 4, 3, 4, 5], zero_point: &[1, 4] },
        ..params
    };
    for params in [&params, &asymmetric] {
        for kernel in usable(params) {
            let mut output = [0; 2];
            ConvU8::with_kernel(params, kernel).run(&[3, 5, 7], 0..1, &mut output);
            assert_eq!(output, [13, 8], "{}", kernel.name);
        }
    }

    // A 3x3 sum over a 2x2 picture of two channels, padded by 1: each output is the sum of the
    // whole picture around zero point 1. Channel 0 sums to 1+2+3+4 = 10, channel 1 (doubled) to 8.
    let shape = ConvShape {
        in_h: 2,
        in_w: 2,
        out_h: 2,
        out_w: 2,
        in_c: 2,
        out_c: 2,
        kernel_h: 3,
        kernel_w: 3,
        pad_top: 1,
        pad_left: 1,
        groups: 2,
        ..ConvShape::gemm(1, 1, 1)
    };
    let weights: Vec<i8> = [[1i8; 9], [2; 9]].concat();
    let params = ConvU8Params {
        shape,
        weights: WeightsU8::I8(&weights),
        bias: &[],
        input_zero_point: 1,
        multipliers: &[1.0, 1.0],
        output_zero_point: 0,
    };
    for kernel in usable(&params) {
        let mut output = [0; 8];
        ConvU8::with_kernel(&params, kernel).run(&[2, 2, 3, 2, 4, 2, 5, 2], 0..4, &mut output);
        assert_eq!(output, [10, 8, 10, 8, 10, 8, 10, 8], "{}", kernel.name);
    }
}

#[test]
fn list_is_best_first_and_scalar_last() {
    for (i, kernel) in KERNELS.iter().enumerate() {
        let better = |later: &ConvU8Kernel| later.isa > kernel.isa;
        assert!(!KERNELS[i..].iter().any(better), "{}", kernel.name);
    }
    assert_eq!(KERNELS.last().map(|kernel| kernel.isa), Some(Isa::Scalar));
}
