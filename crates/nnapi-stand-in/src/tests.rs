//! Each rule has a model that breaks it.

use std::ptr::{null, null_mut};

use super::*;
use rules::*;

fn floats(shape: &[usize]) -> Operand {
    Operand { code: TENSOR_FLOAT32, shape: shape.to_vec(), ..Operand::default() }
}

fn codes(shape: &[usize], scale: f32, zero_point: i32) -> Operand {
    let shape = shape.to_vec();
    Operand { code: TENSOR_QUANT8_ASYMM, shape, scale, zero_point, ..Operand::default() }
}

fn bytes_of(operand: Operand) -> Operand {
    let value = Some(vec![1; operand.len()]);
    Operand { value, ..operand }
}

fn int(value: i32) -> Operand {
    let value = Some(value.to_le_bytes().to_vec());
    Operand { code: INT32, value, ..Operand::default() }
}

fn real(value: f32) -> Operand {
    let value = Some(value.to_le_bytes().to_vec());
    Operand { code: FLOAT32, value, ..Operand::default() }
}

fn boolean(value: bool) -> Operand {
    Operand { code: BOOL, value: Some(vec![value.into()]), ..Operand::default() }
}

fn list(shape: &[usize], values: &[i32]) -> Operand {
    let value = Some(values.iter().flat_map(|v| v.to_le_bytes()).collect());
    Operand { code: TENSOR_INT32, shape: shape.to_vec(), value, ..Operand::default() }
}

fn bias(channels: usize, scale: f32) -> Operand {
    Operand { scale, ..bytes_of(Operand { code: TENSOR_INT32, ..floats(&[channels]) }) }
}

fn per_channel(shape: &[usize], dimension: usize) -> Operand {
    let code = TENSOR_QUANT8_SYMM_PER_CHANNEL;
    let channels = Some((dimension, vec![0.5; shape[dimension]]));
    Operand { channels, ..bytes_of(Operand { code, ..floats(shape) }) }
}

/// What is said of one operation on these inputs with this output; the first input is given.
fn verdict(level: i64, code: i32, inputs: &[Operand], output: Operand) -> String {
    let mut operands = inputs.to_vec();
    operands.push(output);
    let n = inputs.len();
    let operation = Operation { code, inputs: (0..n).collect(), outputs: vec![n] };
    match graph_of(&operands, &[operation], &[0], &[n], level) {
        Ok(graph) => daq::Model::from_graph_for(graph, Isa::Scalar).map(|_| String::new()).unwrap(),
        Err(why) => why,
    }
}

/// Inputs of a convolution from 2 channels to 3 by 1x1.
fn conv(w: Operand, b: Operand) -> Vec<Operand> {
    let x =
        if w.code == TENSOR_FLOAT32 { floats(&[1, 4, 4, 2]) } else { codes(&[1, 4, 4, 2], 0.5, 3) };
    let mut all = vec![x, w, b];
    all.extend([0, 0, 0, 0, 1, 1, 0].map(int));
    all
}

fn with(mut inputs: Vec<Operand>, index: usize, operand: Operand) -> Vec<Operand> {
    inputs[index] = operand;
    inputs
}

#[track_caller]
fn says(verdict: String, expected: &str) {
    assert_eq!(verdict.is_empty(), expected.is_empty(), "`{verdict}`, not `{expected}`");
    assert!(verdict.contains(expected), "`{verdict}` does not say `{expected}`");
}

#[test]
fn rules_of_operands() {
    let check = |level, operand: Operand| operand.check(level).err().unwrap_or_default();
    says(check(27, floats(&[1, 2])), "");
    says(check(27, Operand { scale: 0.5, ..floats(&[2]) }), "has no scale");
    says(check(27, floats(&[])), "a tensor has dimensions");
    says(check(27, floats(&[1; 5])), "up to 4");
    says(check(27, floats(&[1, 0])), "dimensions are known");
    says(check(27, codes(&[1], 0.0, 0)), "above 0");
    says(check(27, codes(&[1], f32::INFINITY, 0)), "above 0");
    says(check(27, codes(&[1], 0.5, 256)), "within 0..=255");
    says(check(27, codes(&[1], 0.5, -1)), "within 0..=255");
    let signed = |zero| Operand { code: TENSOR_QUANT8_ASYMM_SIGNED, ..codes(&[1], 0.5, zero) };
    says(check(29, signed(0)), "comes with level 30");
    says(check(30, signed(-128)), "");
    says(check(30, signed(128)), "within -128..=127");
    says(check(28, per_channel(&[2, 1], 0)), "comes with level 29");
    says(check(29, Operand { scale: 0.5, ..per_channel(&[2, 1], 0) }), "leave scale");
    says(check(27, Operand { zero_point: 1, ..bias(2, 0.5) }), "zero point 0");
    says(check(27, Operand { shape: vec![1], ..int(1) }), "a scalar has no dimensions");
    says(check(27, Operand { scale: 1.0, ..int(1) }), "a scalar has no scale");
    says(check(28, boolean(true)), "BOOL comes with level 29");
    says(check(27, Operand { code: 42, ..floats(&[1]) }), "no operand has type 42");
}

#[test]
fn rules_of_models() {
    let graph =
        |operands: &[Operand], operations: &[Operation], inputs: &[usize], outputs: &[usize]| {
            graph_of(operands, operations, inputs, outputs, 31).err().unwrap_or_default()
        };
    let relu = |from, to| Operation { code: 19, inputs: vec![from], outputs: vec![to] };
    let x = floats(&[1, 2]);
    let three = [x.clone(), x.clone(), x.clone()];
    let chain = [relu(0, 1), relu(1, 2)];
    says(graph(&three, &chain, &[0], &[2]), "");
    says(graph(&three, &[relu(1, 2), relu(0, 1)], &[0], &[2]), "before anything computes it");
    says(graph(&three, &[relu(0, 1), relu(0, 1)], &[0], &[1]), "computed twice");
    says(graph(&three, &[relu(1, 2)], &[0, 1, 2], &[2]), "computed twice");
    let fixed = [x.clone(), bytes_of(x.clone())];
    says(graph(&fixed, &[relu(0, 1)], &[0], &[1]), "both given and computed");
    says(graph(&three, &[relu(0, 1)], &[0], &[1]), "operand 2 is not constant, given or computed");
    says(graph(&three, &[relu(0, 1)], &[0, 2], &[2]), "output operand 2 is not computed");
    let given = [bytes_of(x.clone()), x.clone()];
    says(graph(&given, &[relu(0, 1)], &[0], &[1]), "is an input and has a value");
    let two = Operation { outputs: vec![1, 2], ..relu(0, 1) };
    says(graph(&three, &[two], &[0], &[1]), "one output");
    let none = Operation { outputs: vec![], ..relu(0, 1) };
    says(graph(&three, &[none], &[0], &[1]), "no inputs or no outputs");
    let loose = Operand { channels: None, ..per_channel(&[2, 1], 0) };
    says(graph(&[x.clone(), x, loose], &[relu(0, 1)], &[0], &[1]), "are not set");
}

#[test]
fn rules_of_convolutions() {
    let weights = || bytes_of(codes(&[3, 1, 1, 2], 0.25, 100));
    let good = || conv(weights(), bias(3, 0.125));
    let y = |scale| codes(&[1, 4, 4, 3], scale, 0);
    let float = conv(bytes_of(floats(&[3, 1, 1, 2])), bytes_of(floats(&[3])));
    says(verdict(27, 3, &float, floats(&[1, 4, 4, 3])), "");
    says(verdict(27, 3, &good(), y(0.2)), "");
    says(verdict(28, 3, &good(), y(0.125)), "above input * weights");
    says(verdict(29, 3, &good(), y(0.125)), "");
    says(verdict(29, 3, &good(), floats(&[1, 4, 4, 3])), "another type");
    says(verdict(29, 3, &good(), codes(&[1, 3, 4, 3], 0.2, 0)), "is computed");
    says(verdict(29, 3, &conv(weights(), bias(3, 0.126)), y(0.2)), "input * weights");
    says(verdict(29, 3, &conv(weights(), bias(2, 0.125)), y(0.2)), "shape [3]");
    says(verdict(29, 3, &conv(weights(), bytes_of(floats(&[3]))), y(0.2)), "TENSOR_INT32");
    let mixed = with(float, 2, bias(3, 0.125));
    says(verdict(29, 3, &mixed, floats(&[1, 4, 4, 3])), "bias of floats");
    let many = conv(per_channel(&[3, 1, 1, 2], 0), bias(3, 0.0));
    says(verdict(29, 3, &many, y(0.2)), "");
    says(verdict(29, 3, &with(many, 2, bias(3, 0.25)), y(0.2)), "bias has scale 0");
    let other = conv(per_channel(&[3, 1, 1, 2], 3), bias(3, 0.0));
    says(verdict(29, 3, &other, y(0.2)), "along dimension 0");
    says(verdict(29, 3, &good()[..9], y(0.2)), "9 inputs");
    says(verdict(29, 3, &with(good(), 3, int(-1)), y(0.2)), "at least 0");
    says(verdict(29, 3, &with(good(), 7, int(0)), y(0.2)), "at least 1");
    says(verdict(29, 3, &with(good(), 9, int(4)), y(0.2)), "no fused activation 4");
    says(verdict(29, 3, &with(good(), 3, real(0.0)), y(0.2)), "a scalar of type INT32");
    says(
        verdict(29, 3, &with(good(), 1, codes(&[3, 1, 1, 2], 0.25, 100)), y(0.2)),
        "constant weights",
    );
    let deep = conv(bytes_of(codes(&[3, 1, 1, 4], 0.25, 100)), bias(3, 0.125));
    says(verdict(29, 3, &deep, y(0.2)), "the input's depth");
    let flat = with(good(), 0, codes(&[4, 4, 2], 0.5, 3));
    says(verdict(29, 3, &flat, y(0.2)), "4 dimensions");
    let dilated = [good(), vec![boolean(false), int(2), int(2)]].concat();
    says(verdict(29, 3, &dilated, y(0.2)), "");
    says(verdict(28, 3, &dilated, y(0.2)), "comes with level 29");
    let nchw = [good(), vec![boolean(true)]].concat();
    says(verdict(29, 3, &nchw, y(0.2)), "NHWC only");

    let depthwise = |w: Operand, b: Operand| with([conv(w, b), vec![int(0)]].concat(), 9, int(2));
    let good = depthwise(per_channel(&[1, 1, 1, 4], 3), bias(4, 0.0));
    let y = codes(&[1, 4, 4, 4], 0.2, 0);
    says(verdict(29, 4, &good, y.clone()), "");
    says(verdict(29, 4, &with(good, 9, int(1)), y.clone()), "the input's depth times 1");
    let tall = depthwise(per_channel(&[2, 1, 1, 4], 3), bias(4, 0.0));
    says(verdict(29, 4, &tall, y.clone()), "shape [1, h, w, depth]");
    let wrong = depthwise(per_channel(&[1, 1, 1, 4], 0), bias(4, 0.0));
    says(verdict(29, 4, &wrong, y.clone()), "along dimension 3");

    let grouped = [conv(per_channel(&[4, 1, 1, 1], 0), bias(4, 0.0)), vec![int(0), boolean(false)]];
    let grouped = with(grouped.concat(), 9, int(2));
    says(verdict(29, 55, &grouped, y.clone()), "");
    says(verdict(29, 55, &with(grouped.clone(), 9, int(3)), y.clone()), "do not fit 3 groups");
    says(verdict(29, 55, &grouped[..11], y), "11 inputs");
}

#[test]
fn rules_of_dense_layers() {
    let inputs = |w: Operand, b: Operand| vec![codes(&[2, 6], 0.5, 3), w, b, int(0)];
    let weights = bytes_of(codes(&[3, 6], 0.25, 100));
    let good = inputs(weights, bias(3, 0.125));
    let y = |scale| codes(&[2, 3], scale, 0);
    says(verdict(27, 9, &good, y(0.2)), "");
    says(verdict(28, 9, &good, y(0.1)), "above input * weights");
    let many = inputs(per_channel(&[3, 6], 0), bias(3, 0.0));
    says(verdict(29, 9, &many, y(0.2)), "no scales per channel");
    says(
        verdict(29, 9, &with(good.clone(), 0, codes(&[2, 7], 0.5, 3)), y(0.2)),
        "no multiple of 6",
    );
    says(verdict(29, 9, &with(good.clone(), 0, codes(&[12], 0.5, 3)), y(0.2)), "at least 2");
    says(verdict(29, 9, &good[..3], y(0.2)), "3 inputs");
}

#[test]
fn rules_of_other_operations() {
    let x = || codes(&[1, 4, 4, 2], 0.5, 3);
    let f = || floats(&[1, 4, 4, 2]);
    // Sums and products.
    says(verdict(27, 0, &[x(), bytes_of(x()), int(0)], codes(&[1, 4, 4, 2], 0.9, 7)), "");
    says(verdict(27, 0, &[x(), bytes_of(f()), int(0)], x()), "one type");
    says(verdict(27, 0, &[x(), bytes_of(x())], x()), "2 inputs");
    says(verdict(31, 18, &[x(), bytes_of(x()), int(0)], codes(&[1, 4, 4, 2], 0.25, 0)), "product");
    says(verdict(31, 18, &[x(), bytes_of(x()), int(0)], codes(&[1, 4, 4, 2], 0.26, 0)), "");
    says(verdict(31, 30, &[x(), bytes_of(x()), int(0)], x()), "floats only");
    says(verdict(27, 30, &[f(), bytes_of(f()), int(0)], f()), "level 28");
    says(verdict(28, 36, &[x(), bytes_of(x()), int(0)], x()), "level 29");
    says(verdict(28, 65, &[f(), bytes_of(f())], f()), "level 29");
    says(verdict(29, 66, &[f(), bytes_of(x())], f()), "one type");
    // Pools.
    let pool = |x: Operand, pad: i32, filter: i32| {
        let mut all = vec![x];
        all.extend([pad, 0, 0, 0, 1, 1, filter, filter, 0].map(int));
        all
    };
    let y = codes(&[1, 3, 4, 2], 0.5, 3);
    says(verdict(27, 17, &pool(x(), 1, 2), y.clone()), "");
    says(verdict(27, 1, &pool(x(), 2, 2), y.clone()), "padding is smaller");
    says(verdict(27, 1, &pool(x(), 1, 2), codes(&[1, 3, 4, 2], 0.4, 3)), "the same scale");
    says(verdict(27, 1, &pool(codes(&[4, 4, 2], 0.5, 3), 1, 2), y.clone()), "4 dimensions");
    says(verdict(27, 1, &pool(x(), 1, 2)[..9], y), "9 inputs");
    // Concatenation.
    let other = codes(&[1, 4, 4, 2], 0.4, 3);
    let y = codes(&[1, 4, 4, 4], 0.5, 3);
    says(verdict(28, 2, &[x(), bytes_of(x()), int(3)], y.clone()), "");
    says(verdict(28, 2, &[x(), bytes_of(other.clone()), int(3)], y.clone()), "the output's scale");
    says(verdict(29, 2, &[x(), bytes_of(other), int(3)], y.clone()), "");
    says(verdict(29, 2, &[x(), bytes_of(f()), int(3)], y.clone()), "one type");
    says(verdict(29, 2, &[x()], y), "no tensors");
    // Functions.
    let unit = |scale, zero| codes(&[1, 4, 4, 2], scale, zero);
    says(verdict(27, 14, &[x()], unit(1.0 / 256.0, 0)), "");
    says(verdict(27, 14, &[x()], unit(1.0 / 255.0, 0)), "has scale");
    says(verdict(28, 28, &[x()], unit(1.0 / 128.0, 128)), "level 29");
    says(verdict(29, 28, &[x()], unit(1.0 / 128.0, 127)), "zero point 128");
    says(verdict(29, 99, &[x()], x()), "level 30");
    says(verdict(27, 19, &[x()], unit(0.25, 3)), "the same scale");
    let integers = || Operand { value: None, ..bias(2, 0.5) };
    says(verdict(27, 19, &[integers()], integers()), "does not take");
    says(verdict(27, 25, &[x(), real(1.0)], unit(1.0 / 256.0, 0)), "");
    says(verdict(27, 25, &[x(), real(1.0)], unit(0.25, 0)), "has scale");
    says(verdict(28, 25, &[f(), real(1.0), int(1)], f()), "the choice of an axis");
    let three = floats(&[4, 4, 2]);
    says(verdict(28, 25, &[three.clone(), real(1.0)], three), "2 or 4 dimensions");
    says(verdict(27, 25, &[f(), int(1)], f()), "a scalar of type FLOAT32");
    // Conversions.
    says(verdict(27, 6, &[x()], f()), "");
    says(verdict(27, 6, &[f()], f()), "holds codes");
    says(verdict(28, 72, &[f()], x()), "level 29");
    says(verdict(29, 72, &[x()], x()), "holds floats");
    says(verdict(29, 72, &[f()], f()), "output holds codes");
    // Moves.
    let flat = list(&[1], &[32]);
    says(verdict(27, 22, &[x(), flat.clone()], codes(&[32], 0.5, 3)), "");
    says(verdict(27, 22, &[x(), flat.clone()], codes(&[32], 0.4, 3)), "the same scale");
    says(verdict(27, 22, &[x(), list(&[2], &[4, 8])], codes(&[32], 0.5, 3)), "has shape [1]");
    says(
        verdict(27, 22, &[x(), Operand { value: None, ..flat }], codes(&[32], 0.5, 3)),
        "input 1 is not constant",
    );
    let order = list(&[4], &[0, 3, 1, 2]);
    let y = codes(&[1, 2, 4, 4], 0.5, 3);
    says(verdict(27, 37, &[x(), order.clone()], y.clone()), "level 28");
    says(verdict(28, 37, &[x(), order], y.clone()), "");
    says(verdict(28, 37, &[x(), list(&[3], &[0, 2, 1])], y), "has shape [4]");
    let pads = list(&[4, 2], &[0, 0, 1, 0, 0, 0, 0, 0]);
    let y = |scale| codes(&[1, 5, 4, 2], scale, 3);
    says(verdict(28, 32, &[x(), pads.clone()], y(0.5)), "level 29");
    says(verdict(29, 32, &[x(), pads.clone()], y(0.5)), "");
    says(verdict(29, 32, &[x(), pads.clone()], y(0.4)), "the same scale");
    says(verdict(29, 69, &[x(), pads.clone(), real(1.0)], y(0.5)), "a scalar of type INT32");
    says(verdict(28, 32, &[f(), list(&[4, 2], &[-1; 8])], floats(&[1, 5, 4, 2])), "not negative");
    let parts = |y: Operand| verdict(29, 87, &[x(), int(3), int(1)], y);
    says(parts(x()), "");
    says(parts(codes(&[1, 4, 4, 2], 0.4, 3)), "the same scale");
    says(verdict(29, 87, &[x(), int(3), int(2)], x()), "as many outputs");
    says(verdict(28, 87, &[x(), int(3), int(1)], x()), "level 29");
    says(verdict(27, 31, &[f(), list(&[1], &[1]), int(1)], floats(&[1, 1, 4, 2])), "level 28");
    says(
        verdict(28, 31, &[x(), list(&[1], &[1]), int(1)], codes(&[1, 1, 4, 2], 0.4, 3)),
        "same scale",
    );
    says(verdict(27, 5, &[codes(&[1, 2, 2, 8], 0.5, 3), int(2)], x()), "");
    says(verdict(27, 5, &[codes(&[1, 2, 2, 8], 0.4, 3), int(2)], x()), "the same scale");
    says(verdict(27, 26, &[x(), int(0)], x()), "at least 1");
    // Sizes.
    let larger = floats(&[1, 6, 8, 2]);
    let sizes = |x: Operand| vec![x, int(8), int(6)];
    says(verdict(27, 23, &sizes(f()), larger.clone()), "");
    says(verdict(27, 23, &sizes(f()), floats(&[1, 8, 6, 2])), "is computed");
    says(verdict(28, 23, &sizes(x()), codes(&[1, 6, 8, 2], 0.5, 3)), "level 29");
    let how = |corners, half| [sizes(f()), [false, corners, half].map(boolean).to_vec()].concat();
    says(verdict(29, 23, &how(false, true), larger.clone()), "level 30");
    says(verdict(30, 94, &how(true, true), larger.clone()), "not both");
    says(verdict(30, 94, &sizes(f()), larger), "3 inputs");
    says(verdict(31, 7, &[f()], f()), "has no operation 7");
}

/// The functions in order, each called wrongly first.
#[test]
fn rules_of_calls() {
    let broken = || {
        let mut text = vec![0; 4096];
        // SAFETY: as many bytes as said.
        let n = unsafe { stand_in_broken(text.as_mut_ptr(), text.len()) };
        text.truncate(n);
        String::from_utf8(text).unwrap()
    };
    let expect = |code: c_int, wanted: c_int, why: &str| {
        says(broken(), why);
        assert_eq!(code, wanted, "{why}");
    };
    // SAFETY: handles are numbers; every pointer is valid for what the call says of it.
    unsafe {
        let mut model = null_mut();
        expect(
            ANeuralNetworksModel_create(null_mut()),
            UNEXPECTED_NULL,
            "place for the result is null",
        );
        expect(ANeuralNetworksModel_create(&mut model), 0, "");
        let dims = [1u32, 40];
        let of = |code, n: u32| OperandType {
            code,
            dimension_count: n,
            dimensions: dims.as_ptr(),
            scale: 0.0,
            zero_point: 0,
        };
        expect(
            ANeuralNetworksModel_addOperand(null_mut(), &of(3, 2)),
            UNEXPECTED_NULL,
            "no such model",
        );
        expect(ANeuralNetworksModel_addOperand(model, null()), UNEXPECTED_NULL, "the type is null");
        expect(ANeuralNetworksModel_addOperand(model, &of(42, 2)), BAD_DATA, "type 42");
        for (code, n) in [(3, 2), (3, 2), (0, 0), (3, 2)] {
            expect(ANeuralNetworksModel_addOperand(model, &of(code, n)), 0, "");
        }
        let mut long = [1f32; 40];
        let long = long.as_mut_ptr();
        let at = |x: *const f32| x.cast::<c_void>();
        let set = |i, from, n| ANeuralNetworksModel_setOperandValue(model, i, from, n);
        expect(set(9, at(long), 4), BAD_DATA, "no operand 9");
        expect(set(1, at(long), 4), BAD_DATA, "4 bytes for an operand of 160");
        expect(set(1, null(), 160), UNEXPECTED_NULL, "the value is null");
        expect(set(1, at(long), 160), 0, "");
        expect(set(1, at(long), 160), BAD_DATA, "operand 1 has a value");
        let scales = ChannelScales { dimension: 0, count: 1, scales: long };
        let channels = ANeuralNetworksModel_setOperandSymmPerChannelQuantParams;
        expect(channels(model, 0, &scales), BAD_DATA, "are for TENSOR_QUANT8_SYMM_PER_CHANNEL");
        let add = |inputs: &[u32]| {
            ANeuralNetworksModel_addOperation(model, 0, inputs.len() as u32, inputs.as_ptr(), 1, &3)
        };
        expect(add(&[0, 1, 9]), BAD_DATA, "no operand 9");
        expect(
            ANeuralNetworksModel_addOperation(model, 0, 3, null(), 1, &3),
            UNEXPECTED_NULL,
            "a list is null",
        );
        expect(ANeuralNetworksModel_finish(model), INCOMPLETE, "are not named");
        let name = ANeuralNetworksModel_identifyInputsAndOutputs;
        expect(name(model, 0, null(), 1, &3), BAD_DATA, "a model has inputs");
        expect(name(model, 1, &0, 1, &3), 0, "");
        expect(name(model, 1, &0, 1, &3), BAD_STATE, "named once");
        expect(set(0, at(long), 160), BAD_DATA, "operand 0 is an input");
        // Operand 2 is the number of the activation, but a float.
        expect(set(2, at(long), 4), 0, "");
        expect(add(&[0, 1, 2]), 0, "");
        expect(
            ANeuralNetworksModel_finish(model),
            BAD_DATA,
            "operation 0 (code 0): input 2 is a scalar of type INT32",
        );
        let mut compilation = null_mut();
        let compile = ANeuralNetworksCompilation_create(model, &mut compilation);
        expect(compile, BAD_STATE, "the model is not finished");
        ANeuralNetworksModel_free(model);
        expect(0, 0, "");
        ANeuralNetworksModel_free(model);
        expect(0, 0, "freed before");

        // One that is right.
        expect(ANeuralNetworksModel_create(&mut model), 0, "");
        for (code, n) in [(3, 2), (3, 2), (1, 0), (3, 2)] {
            expect(ANeuralNetworksModel_addOperand(model, &of(code, n)), 0, "");
        }
        let set = |i, from, n| ANeuralNetworksModel_setOperandValue(model, i, from, n);
        expect(set(1, at(long), 160), 0, "");
        expect(set(2, [0u8; 4].as_ptr().cast(), 4), 0, "");
        expect(ANeuralNetworksModel_addOperation(model, 0, 3, [0, 1, 2].as_ptr(), 1, &3), 0, "");
        expect(name(model, 1, &0, 1, &3), 0, "");
        expect(ANeuralNetworksModel_finish(model), 0, "");
        expect(ANeuralNetworksModel_finish(model), BAD_STATE, "the model is finished");
        expect(
            ANeuralNetworksModel_addOperand(model, &of(3, 2)),
            BAD_STATE,
            "the model is finished",
        );
        let devices = ANeuralNetworksCompilation_createForDevices;
        expect(devices(model, null(), 0, &mut compilation), UNEXPECTED_NULL, "no devices");
        expect(devices(model, &model, 1, &mut compilation), UNEXPECTED_NULL, "no such device");
        expect(ANeuralNetworksCompilation_create(model, &mut compilation), 0, "");
        let mut execution = null_mut();
        let create = ANeuralNetworksExecution_create;
        expect(create(compilation, &mut execution), BAD_STATE, "the compilation is not finished");
        let preference = ANeuralNetworksCompilation_setPreference;
        expect(preference(compilation, 3), BAD_DATA, "no preference 3");
        expect(ANeuralNetworksCompilation_finish(compilation), 0, "");
        expect(ANeuralNetworksCompilation_finish(compilation), BAD_STATE, "is finished");
        expect(preference(compilation, 1), BAD_STATE, "is finished");
        expect(create(compilation, &mut execution), 0, "");
        let (x, mut y) = ([2f32; 40], [0f32; 40]);
        let input =
            |i, n| ANeuralNetworksExecution_setInput(execution, i, null(), at(x.as_ptr()), n);
        let place = y.as_mut_ptr().cast::<c_void>();
        let output = |n| ANeuralNetworksExecution_setOutput(execution, 0, null(), place, n);
        expect(input(1, 160), BAD_DATA, "there is no input 1");
        expect(input(0, 156), BAD_DATA, "156 bytes for input 0 of 160");
        expect(input(0, 160), 0, "");
        expect(input(0, 160), BAD_STATE, "input 0 is set twice");
        expect(output(161), BAD_DATA, "161 bytes for output 0 of 160");
        expect(output(160), 0, "");
        let mut burst = null_mut();
        expect(
            ANeuralNetworksBurst_create(model, &mut burst),
            UNEXPECTED_NULL,
            "no such compilation",
        );
        expect(ANeuralNetworksExecution_compute(execution), 0, "");
        assert_eq!(y, [3.0; 40]);
        expect(ANeuralNetworksExecution_compute(execution), BAD_STATE, "runs once");
        expect(input(0, 160), BAD_STATE, "has started");
        ANeuralNetworksExecution_free(execution);
        expect(0, 0, "");
        // An output that is not set.
        expect(create(compilation, &mut execution), 0, "");
        expect(ANeuralNetworksExecution_compute(execution), BAD_DATA, "is not set");
        ANeuralNetworksExecution_free(execution);
        // A value of more than 128 bytes that changes.
        long.add(7).write(5.0);
        expect(create(compilation, &mut execution), 0, "");
        let input = ANeuralNetworksExecution_setInput(execution, 0, null(), at(x.as_ptr()), 160);
        expect(input, 0, "");
        let output = ANeuralNetworksExecution_setOutput(execution, 0, null(), place, 160);
        expect(output, 0, "");
        expect(
            ANeuralNetworksExecution_burstCompute(execution, burst),
            BAD_DATA,
            "not of this compilation",
        );
        ANeuralNetworksExecution_free(execution);
        expect(create(compilation, &mut execution), 0, "");
        ANeuralNetworksExecution_setInput(execution, 0, null(), at(x.as_ptr()), 160);
        ANeuralNetworksExecution_setOutput(execution, 0, null(), place, 160);
        let mut event = null_mut();
        expect(
            ANeuralNetworksExecution_startCompute(execution, &mut event),
            0,
            "has changed since it was set",
        );
        expect(ANeuralNetworksEvent_wait(event), BAD_DATA, "the run failed");
        ANeuralNetworksEvent_free(event);
        expect(0, 0, "");
        // Freed in the wrong order.
        ANeuralNetworksModel_free(model);
        expect(0, 0, "freed before what was made of it");
        ANeuralNetworksCompilation_free(compilation);
        expect(0, 0, "freed before what was made of it");
        ANeuralNetworksExecution_free(execution);
        expect(0, 0, "");
        assert_eq!(stand_in_alive(), 0);
        // A part of a file that is not there.
        let mut memory = null_mut();
        let from_fd = ANeuralNetworksMemory_createFromFd;
        expect(from_fd(1, 3, 0, 0, &mut memory), BAD_DATA, "reads files only");
        expect(from_fd(0, 1, 0, 0, &mut memory), BAD_DATA, "has a file and a size");
    }
}
