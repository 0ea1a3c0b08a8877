//! Kernels that elementwise operators share: large tensors in chunks for the pool, broadcasts as
//! blocks of rows that repeat.

use std::marker::PhantomData;

use daq_kernels::{AddU8, BinaryF32, BinaryU8Params, MulU8, OperandF32, Pool, lookup_u8};

use super::{Compile, DType, Kernel, Op, Quantization, TensorView, TensorViewMut, eval};
use crate::compile::Operand;
use crate::tensor::Element;

/// Elements for one task; below, splitting costs more than it gains.
const CHUNK: usize = 1 << 15;

/// Scale and zero point of an operand of `u8` codes of one scale.
pub(crate) fn u8_quant(operand: &Operand) -> Option<(f32, u8)> {
    let quant = operand.quant.filter(|q| q.is_per_tensor() && operand.dtype == DType::U8)?;
    Some((quant.scale[0], u8::try_from(quant.zero_point[0]).ok()?))
}

struct Unary<A, B, F>(&'static str, F, PhantomData<fn(A) -> B>);

impl<A: Element, B: Element, F: Fn(&[A], &mut [B]) + Send + Sync> Kernel for Unary<A, B, F> {
    fn name(&self) -> String {
        self.0.into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let x = inputs[0].expect("the plan gives it").data::<A>();
        pool.for_each_chunk(outputs[0].data_mut::<B>(), CHUNK, |i, y| {
            (self.1)(&x[i * CHUNK..][..y.len()], y);
        });
    }
}

/// A kernel of one input that computes each element on its own.
pub(crate) fn unary<A: Element, B: Element>(
    name: &'static str,
    f: impl Fn(&[A], &mut [B]) + Send + Sync + 'static,
) -> Box<dyn Kernel> {
    Box::new(Unary(name, f, PhantomData))
}

/// Clamps floats; for operators that do nothing else.
pub(crate) fn clamp_f32(bounds: (f32, f32), compile: &Compile) -> Option<Box<dyn Kernel>> {
    let (x, y, isa) = (compile.input(0)?, compile.outputs.first()?, compile.isa);
    let floats = x.dtype == DType::F32 && y.dtype == DType::F32;
    (floats && compile.clamp.is_none())
        .then(|| unary("clamp_f32", move |x, y| daq_kernels::clamp_f32(x, bounds, y, isa)))
}

/// The table of an operator that is a function of one code, made by running it on all 256.
pub(crate) fn table<'a>(op: &Op, compile: &Compile<'a>) -> Option<Box<dyn Kernel>> {
    let [y] = compile.outputs else { return None };
    let one_scale = |o: &Operand| o.dtype.is_code() && o.quant.is_some_and(|q| q.is_per_tensor());
    let varies = |o: &Option<Operand>| o.is_some_and(|o| o.data.is_none());
    let position = compile.inputs.iter().position(varies)?;
    let x = compile.inputs[position]?;
    let constants = compile.inputs.iter().enumerate().filter(|(i, _)| *i != position);
    let mut single = constants.map(|(_, o)| o.is_some_and(|o| o.data.is_some() && o.len() == 1));
    let of_one_code = match op.quantization() {
        Quantization::Table => compile.inputs.len() == 1,
        _ => is_pointwise(op) && compile.inputs.len() == 2 && single.all(|s| s),
    };
    if !of_one_code
        || compile.clamp.is_some()
        || !one_scale(&x)
        || !one_scale(y)
        || x.len() != y.len()
    {
        return None;
    }
    let all: [u8; 256] = std::array::from_fn(|code| code as u8);
    let mut table = [0; 256];
    let view = |o: &Operand<'a>| match o.data {
        Some(data) => TensorView { shape: &[1], ..data.quantized_view(o.quant) },
        None => TensorView { dtype: x.dtype, shape: &[256], quant: x.quant, bytes: &all },
    };
    let inputs: Vec<_> = compile.inputs.iter().map(|o| o.as_ref().map(view)).collect();
    let (dtype, quant) = (y.dtype, y.quant);
    let output = TensorViewMut { dtype, shape: &[256], quant, bytes: &mut table };
    eval::run(op, &inputs, &mut [output]);
    Some(Box::new(Table { table, position }))
}

/// Whether an operator combines two operands element by element.
pub(crate) fn is_pointwise(op: &Op) -> bool {
    use Op::{Add, Div, Max, Min, Mul, PRelu, Pow, Sub};
    matches!(op, Add(_) | Sub(_) | Mul(_) | Div(_) | Pow(_) | Min(_) | Max(_) | PRelu(_))
}

/// Codes of either sign, by their bytes.
struct Table {
    table: [u8; 256],
    /// Which input varies; another is a constant that the table holds.
    position: usize,
}

impl Kernel for Table {
    fn name(&self) -> String {
        "lookup_u8".into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let x = inputs[self.position].expect("the plan gives it").bytes;
        lookup(&self.table, x, outputs[0].bytes, pool);
    }
}

/// Replaces every code by its entry in `table`.
pub(crate) fn lookup(table: &[u8; 256], x: &[u8], y: &mut [u8], pool: &Pool) {
    pool.for_each_chunk(y, CHUNK, |i, y| lookup_u8(table, &x[i * CHUNK..][..y.len()], y));
}

/// An operand of a broadcast over an output of blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// As large as the output.
    Full,
    /// One row for each block, which repeats over it.
    Row(usize),
}

/// How two operands lie over an output: `blocks` blocks, in each of which at most one operand is a
/// row that repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Blocks {
    blocks: usize,
    len: usize,
    parts: [Part; 2],
}

impl Blocks {
    fn of(output: &[usize], operands: [&[usize]; 2]) -> Option<Blocks> {
        let total: usize = output.iter().product();
        let full = operands.map(|shape| shape.iter().product::<usize>() == total);
        let mut blocks = 1;
        let mut parts = [Part::Full; 2];
        if let Some(small) = full.iter().position(|full| !full) {
            if !full[1 - small] {
                return None;
            }
            let mut shape = vec![1; output.len() - operands[small].len()];
            shape.extend(operands[small]);
            // Equal axes, then ones, then equal axes.
            let rank = output.len();
            let suffix = (0..rank).rev().take_while(|&i| shape[i] == output[i]).count();
            let ones = (0..rank - suffix).rev().take_while(|&i| shape[i] == 1).count();
            let prefix = rank - suffix - ones;
            if shape[..prefix] != output[..prefix] {
                return None;
            }
            blocks = shape[..prefix].iter().product();
            parts[small] = Part::Row(shape[rank - suffix..].iter().product());
        }
        (total > 0).then(|| Blocks { blocks, len: total / blocks, parts })
    }

    /// Elements for one task: whole rows of one block, or whole blocks.
    fn chunk(&self) -> usize {
        let row = self.parts.iter().find_map(|part| match part {
            Part::Row(row) => Some(*row),
            Part::Full => None,
        });
        let unit = if self.blocks > 1 { self.len } else { row.unwrap_or(1) };
        unit * CHUNK.div_ceil(unit)
    }
}

struct Binary<T, F> {
    name: &'static str,
    blocks: Blocks,
    f: F,
    of: PhantomData<fn(T)>,
}

impl<T: Element, F: Fn(&[T], &[T], &mut [T]) + Send + Sync> Kernel for Binary<T, F> {
    fn name(&self) -> String {
        self.name.into()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        let [a, b] = [0, 1].map(|i| inputs[i].expect("the plan gives it").data::<T>());
        let (len, chunk) = (self.blocks.len, self.blocks.chunk());
        pool.for_each_chunk(outputs[0].data_mut::<T>(), chunk, |i, out| {
            for (j, out) in out.chunks_mut(len).enumerate() {
                let first = i * chunk + j * len;
                let slice = |operand: &'_ [T], part| match part {
                    Part::Full => first..first + out.len(),
                    Part::Row(row) => {
                        debug_assert_eq!(operand.len(), row * self.blocks.blocks);
                        first / len * row..(first / len + 1) * row
                    }
                };
                let [a_range, b_range] =
                    [slice(a, self.blocks.parts[0]), slice(b, self.blocks.parts[1])];
                (self.f)(&a[a_range], &b[b_range], out);
            }
        });
    }
}

/// A kernel of two inputs; `f` is given operands as long as the output, or a row to repeat.
fn binary<T: Element>(
    name: &'static str,
    compile: &Compile,
    f: impl Fn(&[T], &[T], &mut [T]) + Send + Sync + 'static,
) -> Option<Box<dyn Kernel>> {
    let ([Some(a), Some(b)], [y]) = (compile.inputs, compile.outputs) else { return None };
    let blocks = Blocks::of(y.shape, [a.shape, b.shape])?;
    Some(Box::new(Binary { name, blocks, f, of: PhantomData }))
}

/// Two floats, with the clamp that the plan may ask for.
pub(crate) fn binary_f32(op: BinaryF32, compile: &Compile) -> Option<Box<dyn Kernel>> {
    let mut operands = compile.inputs.iter().flatten().chain(compile.outputs);
    if operands.any(|operand| operand.dtype != DType::F32) {
        return None;
    }
    let (clamp, isa) = (compile.bounds(), compile.isa);
    binary("binary_f32", compile, move |a, b, out: &mut [f32]| {
        let [a, b] = [a, b].map(|x| f32_operand(x, out.len()));
        daq_kernels::binary_f32(op, a, b, clamp, out, isa);
    })
}

fn f32_operand(x: &[f32], output: usize) -> OperandF32<'_> {
    match x {
        &[value] => OperandF32::Scalar(value),
        _ if x.len() == output => OperandF32::Full(x),
        row => OperandF32::Row(row),
    }
}

fn u8_params(compile: &Compile) -> Option<BinaryU8Params> {
    let (a_scale, a_zero_point) = u8_quant(&compile.input(0)?)?;
    let (b_scale, b_zero_point) = u8_quant(&compile.input(1)?)?;
    let (output_scale, output_zero_point) = u8_quant(compile.outputs.first()?)?;
    compile.clamp.is_none().then_some(BinaryU8Params {
        a_scale,
        a_zero_point,
        b_scale,
        b_zero_point,
        output_scale,
        output_zero_point,
    })
}

/// The shortest row over which codes are added one row at a time.
const SHORTEST_ROW: usize = 16;

/// Add on codes.
pub(crate) fn add_u8(compile: &Compile) -> Option<Box<dyn Kernel>> {
    let shapes = [compile.input(0)?.shape, compile.input(1)?.shape];
    let parts = Blocks::of(compile.outputs.first()?.shape, shapes)?.parts;
    if parts.iter().any(|part| matches!(part, Part::Row(row) if *row < SHORTEST_ROW)) {
        return None;
    }
    let add = AddU8::new(&u8_params(compile)?, compile.isa);
    binary("add_u8", compile, move |a, b, out: &mut [u8]| {
        let row = a.len().min(b.len());
        for (i, out) in out.chunks_mut(row).enumerate() {
            let part = |x: &'_ [u8]| if x.len() == row { 0 } else { i * row };
            add.run(&a[part(a)..][..out.len()], &b[part(b)..][..out.len()], out);
        }
    })
}

/// Mul on codes; the shorter operand repeats.
pub(crate) fn mul_u8(compile: &Compile) -> Option<Box<dyn Kernel>> {
    let p = u8_params(compile)?;
    let swapped = BinaryU8Params {
        a_scale: p.b_scale,
        a_zero_point: p.b_zero_point,
        b_scale: p.a_scale,
        b_zero_point: p.a_zero_point,
        ..p
    };
    let [mul, swapped] = [p, swapped].map(|params| MulU8::new(&params, compile.isa));
    binary("mul_u8", compile, move |a, b, out: &mut [u8]| {
        if a.len() < b.len() { swapped.run(b, a, out) } else { mul.run(a, b, out) }
    })
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use daq_kernels::Isa;

    use super::*;
    use crate::ops::*;
    use crate::quant::QuantParams;

    /// Runs the kernel and the reference over the same random bytes and compares all bits.
    fn assert_equal(
        op: impl Into<Op>,
        inputs: &[(DType, &[usize], Option<QuantParams>)],
        output: (DType, &[usize], Option<QuantParams>),
        kernel: &str,
    ) {
        let op = op.into();
        let mut state = 1u32;
        let tensors: Vec<_> = inputs
            .iter()
            .map(|(dtype, shape, _)| {
                let mut tensor = vec![0u8; shape.iter().product::<usize>() * dtype.size()];
                for (i, byte) in tensor.iter_mut().enumerate() {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Floats of a moderate exponent, so that few are NaN or infinite.
                    let exponent = *dtype == DType::F32 && i % 4 == 3;
                    *byte = if exponent {
                        0x3f | (state >> 24) as u8 & 0x80
                    } else {
                        (state >> 24) as u8
                    };
                }
                Tensor::from_bytes(*dtype, shape, &tensor)
            })
            .collect();
        let quants: Vec<_> = inputs.iter().map(|(_, _, quant)| quant.as_ref()).collect();
        let operands: Vec<_> = tensors
            .iter()
            .zip(&quants)
            .map(|(t, quant)| {
                Some(Operand { dtype: t.dtype(), shape: t.shape(), quant: *quant, data: None })
            })
            .collect();
        let views: Vec<_> =
            tensors.iter().zip(&quants).map(|(t, q)| Some(t.quantized_view(*q))).collect();
        let (dtype, shape, quant) = output;
        let quant = quant.as_ref();
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let run = |f: &dyn Fn(&mut [TensorViewMut])| {
            let mut memory = crate::tensor::AlignedBytes::zeroed(bytes);
            f(&mut [TensorViewMut { dtype, shape, quant, bytes: memory.as_mut_slice() }]);
            memory.as_slice().to_vec()
        };
        let want = run(&|out| eval::run(&op, &views, out));
        assert!(want.iter().any(|&byte| byte != want[0]), "{op:?} computed nothing");
        for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_supported()) {
            let outputs = [Operand { dtype, shape, quant, data: None }];
            let compile = Compile { isa, inputs: &operands, outputs: &outputs, clamp: None };
            let compiled = op.compile(&compile).expect("a kernel");
            assert_eq!(compiled.name(), kernel);
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                let got = run(&|out| compiled.run(&views, out, &pool));
                assert!(got == want, "{op:?} {inputs:?} {isa:?} with {threads} threads");
            }
        }
    }

    fn quant(scale: f32, zero_point: i32) -> Option<QuantParams> {
        Some(QuantParams::per_tensor(scale, zero_point))
    }

    /// Two operand shapes and the output's.
    const SHAPES: &[[&[usize]; 3]] = &[
        [&[70_001], &[70_001], &[70_001]],
        [&[2, 40, 30, 17], &[2, 1, 1, 17], &[2, 40, 30, 17]],
        [&[1, 1, 1, 33], &[1, 40, 30, 33], &[1, 40, 30, 33]],
        [&[3, 50, 40], &[50, 40], &[3, 50, 40]],
        [&[5, 7, 16], &[16], &[5, 7, 16]],
    ];

    #[test]
    fn binary_kernels_equal_the_reference() {
        let f32s = |shape| (DType::F32, shape, None);
        let more: [[&[usize]; 3]; 3] = [
            [&[4, 3000], &[], &[4, 3000]],
            [&[1], &[4, 300], &[4, 300]],
            [&[2, 12, 9, 9], &[1, 12, 1, 1], &[2, 12, 9, 9]],
        ];
        for &[a, b, c] in SHAPES.iter().chain(&more[..2]) {
            for op in [Add.into(), Sub.into(), Mul.into(), Div.into(), Min.into(), Max.into()] {
                let op: Op = op;
                assert_equal(op, &[f32s(a), f32s(b)], f32s(c), "binary_f32");
            }
        }
        let [a, b, c] = more[2];
        assert_eq!(Blocks::of(c, [a, b]), None);
        let [a, b, c]: [&[usize]; 3] = [&[1, 12, 9, 9], &[1, 12, 1, 1], &[1, 12, 9, 9]];
        assert_equal(Mul, &[f32s(a), f32s(b)], f32s(c), "binary_f32");
        for &[a, b, c] in SHAPES {
            let u8s = |shape, scale, zp| (DType::U8, shape, quant(scale, zp));
            let inputs = [u8s(a, 0.02, 120), u8s(b, 0.013, 7)];
            assert_equal(Add, &inputs, u8s(c, 0.031, 100), "add_u8");
            assert_equal(Mul, &inputs, u8s(c, 0.017, 100), "mul_u8");
        }
    }

    #[test]
    fn unary_kernels_equal_the_reference() {
        let shape = &[3, 30_001][..];
        let (f, u) = ((DType::F32, shape, None), (DType::U8, shape, quant(0.01, 77)));
        let i = (DType::I8, shape, quant(0.03, -20));
        assert_equal(Relu, from_ref(&f), f.clone(), "clamp_f32");
        assert_equal(
            Clip { min: Some(-0.7), max: Some(0.8) },
            from_ref(&f),
            f.clone(),
            "clamp_f32",
        );
        assert_equal(QuantizeLinear::default(), from_ref(&f), u.clone(), "quantize_f32_u8");
        assert_equal(DequantizeLinear::default(), from_ref(&u), f, "dequantize_u8_f32");
        let y = (DType::U8, shape, quant(1.0 / 256.0, 0));
        for op in [Relu.into(), Sigmoid.into(), HardSwish.into(), LeakyRelu { alpha: 0.1 }.into()] {
            let op: Op = op;
            assert_equal(op.clone(), from_ref(&u), y.clone(), "lookup_u8");
            assert_equal(op, from_ref(&i), i.clone(), "lookup_u8");
        }
    }

    #[test]
    fn one_constant_on_either_side_makes_a_table() {
        let quant = |scale, zero_point| QuantParams::per_tensor(scale, zero_point);
        let (xq, cq, yq) = (quant(0.5, 3), quant(1.0, 0), quant(0.25, 100));
        let constant = Tensor::from_slice(&[1, 1], &[2u8]);
        // As many codes as take more than one task.
        let codes: Vec<u8> = (0..CHUNK + 999).map(|i| (i * 7) as u8).collect();
        let shape = [1, codes.len()];
        let x = TensorView { dtype: DType::U8, shape: &shape, quant: Some(&xq), bytes: &codes };
        for op in [Op::from(Sub), Div.into(), Mul.into(), Add.into(), Max.into()] {
            for position in [0, 1] {
                let varying =
                    Operand { dtype: DType::U8, shape: &shape, quant: Some(&xq), data: None };
                let fixed =
                    Operand { shape: &[1, 1], quant: Some(&cq), data: Some(&constant), ..varying };
                let c = constant.quantized_view(Some(&cq));
                let (inputs, views) = match position {
                    0 => ([Some(varying), Some(fixed)], [Some(x), Some(c)]),
                    _ => ([Some(fixed), Some(varying)], [Some(c), Some(x)]),
                };
                let outputs = [Operand { quant: Some(&yq), ..varying }];
                let compile =
                    Compile { isa: Isa::best(), inputs: &inputs, outputs: &outputs, clamp: None };
                let kernel = op.compile(&compile).expect("a kernel");
                assert_eq!(kernel.name(), "lookup_u8", "{op:?}");
                let run = |f: &dyn Fn(&mut [TensorViewMut])| {
                    let mut bytes = vec![0; codes.len()];
                    let quant = Some(&yq);
                    f(&mut [TensorViewMut {
                        dtype: DType::U8,
                        shape: &shape,
                        quant,
                        bytes: &mut bytes,
                    }]);
                    bytes
                };
                let table = run(&|y| kernel.run(&views, y, &Pool::new(2)));
                assert_eq!(table, run(&|y| eval::run(&op, &views, y)), "{op:?} {position}");
            }
        }
    }

    #[test]
    fn a_clamp_is_applied_in_the_same_pass_or_refused() {
        let (a, b) = (Tensor::from_slice(&[3], &[-5f32, 1., f32::NAN]), Tensor::scalar(2f32));
        let operand =
            |t| Operand { dtype: DType::F32, shape: Tensor::shape(t), quant: None, data: None };
        let (inputs, outputs) = ([Some(operand(&a)), Some(operand(&b))], [operand(&a)]);
        let (isa, clamp) = (Isa::best(), Some((0.0, 2.5)));
        let compile = Compile { isa, inputs: &inputs, outputs: &outputs, clamp };
        let kernel = Op::from(Add).compile(&compile).expect("a kernel");
        let mut memory = crate::tensor::AlignedBytes::zeroed(12);
        let output = TensorViewMut {
            dtype: DType::F32,
            shape: &[3],
            quant: None,
            bytes: memory.as_mut_slice(),
        };
        let views = [Some(a.view()), Some(b.view())];
        kernel.run(&views, &mut [output], &Pool::new(1));
        let y: &[f32] = bytemuck::cast_slice(memory.as_slice());
        assert!(y[..2] == [0., 2.5] && y[2].is_nan(), "{y:?}");
        let one = Compile { inputs: &inputs[..1], ..compile };
        assert!(Op::from(Relu).compile(&one).is_none());
        assert!(Op::from(Relu).compile(&Compile { clamp: None, ..one }).is_some());
    }
}
