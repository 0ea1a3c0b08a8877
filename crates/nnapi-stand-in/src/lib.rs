//! A stand-in for Android's `libneuralnetworks.so`, for tests on machines that are no phones.
//!
//! It has the C functions of `NeuralNetworks.h` that daq uses, records and checks every call (order,
//! counts, types, scales, lifetimes; see `rules.rs`), and computes with daq's scalar kernels. A call
//! that breaks a rule fails with the header's result code, and its text is kept for the test to read. Where
//! drivers are lenient it is strict: operations come in the order in which they run, and no operand
//! is left over.
//!
//! What a test says to it goes through the `stand_in_` functions: the feature level that it pretends
//! to have, and which operations it does not support. It cannot say how a driver rounds.
//!
//! Handles are numbers that nobody dereferences, so a stale or foreign one is noticed.
#![cfg(unix)]
#![allow(non_snake_case)]

mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daq::Tensor;
use daq_kernels::Isa;
use rules::{Operand, Operation};

type Raw = *mut c_void;

const INCOMPLETE: c_int = 2;
const UNEXPECTED_NULL: c_int = 3;
const BAD_DATA: c_int = 4;
const OP_FAILED: c_int = 5;
const BAD_STATE: c_int = 6;

/// Values up to this many bytes are copied, longer ones referred to.
const COPIED: usize = 128;

/// What a call breaks: the result code and a text.
type Called<T = ()> = Result<T, (c_int, String)>;

fn bad<T>(code: c_int, why: impl Into<String>) -> Called<T> {
    Err((code, why.into()))
}

/// A value that the caller keeps: where it is, how long, and what it was.
#[derive(Clone, Copy)]
struct Referred {
    at: usize,
    len: usize,
    sum: u64,
}

#[derive(Default)]
struct Model {
    operands: Vec<Operand>,
    operations: Vec<Operation>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    identified: bool,
    finished: bool,
    relaxed: bool,
    referred: Vec<Referred>,
    memories: Vec<usize>,
    compiled: Option<Arc<daq::Model>>,
}

struct Compilation {
    model: usize,
    finished: bool,
}

struct Execution {
    compilation: usize,
    inputs: Vec<Option<(usize, usize)>>,
    outputs: Vec<Option<(usize, usize)>>,
    started: bool,
}

enum Object {
    Model(Model),
    Compilation(Compilation),
    Execution(Execution),
    /// What the run gave.
    Event(c_int),
    /// The compilation, and whether a run uses it.
    Burst(usize, bool),
    /// A file and the part of it.
    Memory(Arc<File>, usize, usize),
}

struct State {
    level: i64,
    refused: BTreeSet<i32>,
    objects: BTreeMap<usize, Object>,
    next: usize,
    calls: BTreeMap<&'static str, u32>,
    broken: Vec<String>,
    /// Whether runs fail.
    fails: bool,
    /// What was set last; -1 before.
    preference: i32,
}

static STATE: Mutex<State> = Mutex::new(State {
    level: 31,
    refused: BTreeSet::new(),
    objects: BTreeMap::new(),
    next: 1,
    calls: BTreeMap::new(),
    broken: Vec::new(),
    fails: false,
    preference: -1,
});

/// The devices: an accelerator, and the CPU as Android has it.
const DEVICES: [(&CStr, c_int); 2] = [(c"stand-in", 4), (c"nnapi-reference", 2)];

/// Where device handles start; other objects stay below.
const FIRST_DEVICE: usize = 1 << 40;

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a call, runs it, and keeps what it breaks.
fn call(name: &'static str, run: impl FnOnce(&mut State) -> Called) -> c_int {
    let mut state = state();
    *state.calls.entry(name).or_default() += 1;
    let result = run(&mut state);
    state.report(name, result)
}

macro_rules! objects {
    ($($get:ident, $kind:ident: $t:ty;)*) => {
        impl State { $(
            fn $get(&mut self, handle: usize) -> Called<&mut $t> {
                match self.objects.get_mut(&handle) {
                    Some(Object::$kind(object)) => Ok(object),
                    _ => bad(UNEXPECTED_NULL, concat!("no such ", stringify!($get))),
                }
            }
        )* }
    };
}

objects! {
    model, Model: Model;
    compilation, Compilation: Compilation;
    execution, Execution: Execution;
}

impl State {
    fn report(&mut self, name: &str, result: Called) -> c_int {
        match result {
            Ok(()) => 0,
            Err((code, why)) => {
                self.broken.push(format!("{name}: {why}"));
                code
            }
        }
    }

    /// Keeps an object and gives its handle.
    ///
    /// # Safety
    /// Null, or a place for a handle.
    unsafe fn hand_out(&mut self, place: *mut Raw, object: Object) -> Called {
        self.next += 1;
        // SAFETY: as the caller says.
        unsafe { give(place, self.next as Raw) }?;
        self.objects.insert(self.next, object);
        Ok(())
    }

    fn open_model(&mut self, handle: Raw) -> Called<&mut Model> {
        let model = self.model(handle as usize)?;
        match model.finished {
            true => bad(BAD_STATE, "the model is finished"),
            false => Ok(model),
        }
    }

    fn finished_model(&mut self, handle: usize) -> Called<&mut Model> {
        let model = self.model(handle)?;
        match model.finished {
            true => Ok(model),
            false => bad(BAD_STATE, "the model is not finished"),
        }
    }

    fn finished_compilation(&mut self, handle: usize) -> Called<&mut Compilation> {
        let compilation = self.compilation(handle)?;
        match compilation.finished {
            true => Ok(compilation),
            false => bad(BAD_STATE, "the compilation is not finished"),
        }
    }

    /// Removes an object that nothing else is made of.
    fn free(&mut self, handle: Raw, is_kind: fn(&Object) -> bool) -> Called {
        let handle = handle as usize;
        if handle == 0 {
            return Ok(());
        }
        if !self.objects.get(&handle).is_some_and(is_kind) {
            return bad(UNEXPECTED_NULL, "it was freed before, or is something else");
        }
        let needs = |object: &Object| match object {
            Object::Compilation(c) => c.model == handle,
            Object::Execution(e) => e.compilation == handle,
            Object::Burst(compilation, _) => *compilation == handle,
            Object::Model(m) => m.memories.contains(&handle),
            Object::Event(_) | Object::Memory(..) => false,
        };
        let needed = self.objects.values().any(needs);
        self.objects.remove(&handle);
        match needed {
            true => bad(BAD_STATE, "it was freed before what was made of it"),
            false => Ok(()),
        }
    }
}

/// A number that tells whether bytes changed (FNV-1a).
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// # Safety
/// `at` must have `len` bytes to read.
unsafe fn bytes<'a>(at: usize, len: usize) -> &'a [u8] {
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(at as *const u8, len) }
}

/// # Safety
/// Null, or `len` numbers to read.
unsafe fn list<'a>(at: *const u32, len: u32) -> Called<&'a [u32]> {
    match (len, at.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => bad(UNEXPECTED_NULL, "a list is null"),
        // SAFETY: as the caller says.
        _ => Ok(unsafe { std::slice::from_raw_parts(at, len as usize) }),
    }
}

/// # Safety
/// Null, or a place for a handle.
unsafe fn give<T>(place: *mut T, value: T) -> Called {
    if place.is_null() {
        return bad(UNEXPECTED_NULL, "the place for the result is null");
    }
    // SAFETY: as the caller says.
    unsafe { place.write(value) };
    Ok(())
}

/// The library that cargo built, for the tests of the crate that calls.
///
/// # Panics
/// In a program that cargo did not put beside it.
pub fn built() -> PathBuf {
    let program = std::env::current_exe().expect("a test has a path");
    let mut places = program.ancestors().skip(1).map(|dir| dir.join("libnnapi_stand_in.so"));
    places.find(|path| path.exists()).expect("cargo builds the library")
}

// What a test says.

/// Pretends to have a feature level (27 to 31, then 1000006 and on).
#[unsafe(no_mangle)]
pub extern "C" fn stand_in_set_level(level: i64) {
    state().level = level;
}

/// Does not support an operation from now on.
#[unsafe(no_mangle)]
pub extern "C" fn stand_in_refuse(operation: i32) {
    state().refused.insert(operation);
}

/// Whether runs fail from now on.
#[unsafe(no_mangle)]
pub extern "C" fn stand_in_fail(fails: bool) {
    state().fails = fails;
}

/// How often a function was called, by its name after `ANeuralNetworks`.
///
/// # Safety
/// A text that ends in 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stand_in_calls(name: *const c_char) -> u32 {
    // SAFETY: as the caller says.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    state().calls.get(name.as_ref()).copied().unwrap_or(0)
}

/// The preference that was set last; -1 where none was.
#[unsafe(no_mangle)]
pub extern "C" fn stand_in_preference() -> c_int {
    state().preference
}

/// Objects that were not freed.
#[unsafe(no_mangle)]
pub extern "C" fn stand_in_alive() -> usize {
    state().objects.len()
}

/// Writes the rules that were broken so far, one a line, and forgets them; gives the length, which
/// may be more than fits.
///
/// # Safety
/// `len` bytes to write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stand_in_broken(place: *mut u8, len: usize) -> usize {
    let text = std::mem::take(&mut state().broken).join("\n");
    let n = len.min(text.len());
    // SAFETY: as the caller says.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), place, n) };
    text.len()
}

// Models.

/// `ANeuralNetworksOperandType`.
#[repr(C)]
pub struct OperandType {
    code: i32,
    dimension_count: u32,
    dimensions: *const u32,
    scale: f32,
    zero_point: i32,
}

/// `ANeuralNetworksSymmPerChannelQuantParams`.
#[repr(C)]
pub struct ChannelScales {
    dimension: u32,
    count: u32,
    scales: *const f32,
}

/// Functions of the header, each with the name under which its calls are counted. All have the header's
/// contract: handles that the library gave, pointers with as many elements as the call says.
macro_rules! functions {
    ($($name:ident = $symbol:ident($($arg:ident: $t:ty),*) |$state:ident| $body:block)*) => { $(
        /// See `NeuralNetworks.h`.
        ///
        /// # Safety
        /// As the header says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol($($arg: $t),*) -> c_int {
            call(stringify!($name), |$state| $body)
        }
    )* };
}

/// Functions that free.
macro_rules! frees {
    ($($name:ident = $symbol:ident: $kind:pat,)*) => { $(
        /// See `NeuralNetworks.h`.
        ///
        /// # Safety
        /// As the header says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(handle: Raw) {
            call(stringify!($name), |state| state.free(handle, |object| matches!(object, $kind)));
        }
    )* };
}

frees! {
    Model_free = ANeuralNetworksModel_free: Object::Model(_),
    Compilation_free = ANeuralNetworksCompilation_free: Object::Compilation(_),
    Execution_free = ANeuralNetworksExecution_free: Object::Execution(_),
    Event_free = ANeuralNetworksEvent_free: Object::Event(_),
    Burst_free = ANeuralNetworksBurst_free: Object::Burst(..),
    Memory_free = ANeuralNetworksMemory_free: Object::Memory(..),
}

functions! {
    Model_create = ANeuralNetworksModel_create(model: *mut Raw) |state| {
        // SAFETY: the header's contract.
        unsafe { state.hand_out(model, Object::Model(Model::default())) }
    }

    Model_addOperand = ANeuralNetworksModel_addOperand(model: Raw, of: *const OperandType) |state| {
        let level = state.level;
        let model = state.open_model(model)?;
        // SAFETY: the header's contract.
        let Some(of) = (unsafe { of.as_ref() }) else {
            return bad(UNEXPECTED_NULL, "the type is null");
        };
        // SAFETY: the header's contract.
        let shape = unsafe { list(of.dimensions, of.dimension_count) }?;
        let operand = Operand {
            code: of.code,
            shape: shape.iter().map(|&d| d as usize).collect(),
            scale: of.scale,
            zero_point: of.zero_point,
            ..Operand::default()
        };
        operand.check(level).map_err(|why| (BAD_DATA, why))?;
        model.operands.push(operand);
        Ok(())
    }

    Model_setOperandSymmPerChannelQuantParams =
        ANeuralNetworksModel_setOperandSymmPerChannelQuantParams(model: Raw, index: i32, of: *const ChannelScales)
    |state| {
        let model = state.open_model(model)?;
        // SAFETY: the header's contract.
        let Some(of) = (unsafe { of.as_ref() }) else {
            return bad(UNEXPECTED_NULL, "the scales are null");
        };
        let Some(operand) = model.operands.get_mut(index as usize) else {
            return bad(BAD_DATA, format!("there is no operand {index}"));
        };
        if operand.code != rules::TENSOR_QUANT8_SYMM_PER_CHANNEL {
            return bad(BAD_DATA, "scales per channel are for TENSOR_QUANT8_SYMM_PER_CHANNEL");
        }
        let dimension = of.dimension as usize;
        if operand.shape.get(dimension) != Some(&(of.count as usize)) || of.scales.is_null() {
            return bad(BAD_DATA, format!("{} scales along dimension {dimension} of {:?}", of.count, operand.shape));
        }
        // SAFETY: the header's contract.
        let scales = unsafe { std::slice::from_raw_parts(of.scales, of.count as usize) };
        if !scales.iter().all(|s| *s > 0.0 && s.is_finite()) {
            return bad(BAD_DATA, "scales per channel are above 0");
        }
        operand.channels = Some((dimension, scales.to_vec()));
        Ok(())
    }

    Model_setOperandValue = ANeuralNetworksModel_setOperandValue(model: Raw, index: i32, buffer: *const c_void, length: usize) |state| {
        let model = state.open_model(model)?;
        let operand = settable(model, index, length)?;
        if buffer.is_null() {
            return bad(UNEXPECTED_NULL, "the value is null");
        }
        // SAFETY: the header's contract.
        let value = unsafe { bytes(buffer as usize, length) };
        operand.value = Some(value.to_vec());
        if length > COPIED {
            let sum = sum(value);
            model.referred.push(Referred { at: buffer as usize, len: length, sum });
        }
        Ok(())
    }

    Model_setOperandValueFromMemory =
        ANeuralNetworksModel_setOperandValueFromMemory(model: Raw, index: i32, memory: Raw, offset: usize, length: usize)
    |state| {
        let Some(Object::Memory(file, start, size)) = state.objects.get(&(memory as usize)) else {
            return bad(UNEXPECTED_NULL, "no such memory");
        };
        let (file, start, size) = (file.clone(), *start, *size);
        let model = state.open_model(model)?;
        let operand = settable(model, index, length)?;
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return bad(BAD_DATA, format!("{length} bytes from {offset} of a memory of {size}"));
        }
        let mut value = vec![0; length];
        file.read_exact_at(&mut value, (start + offset) as u64).map_err(|e| (BAD_DATA, e.to_string()))?;
        operand.value = Some(value);
        model.memories.push(memory as usize);
        Ok(())
    }

    Model_addOperation =
        ANeuralNetworksModel_addOperation(model: Raw, code: i32, input_count: u32, inputs: *const u32, output_count: u32, outputs: *const u32)
    |state| {
        let model = state.open_model(model)?;
        // SAFETY: the header's contract.
        let (inputs, outputs) = unsafe { (list(inputs, input_count)?, list(outputs, output_count)?) };
        let (inputs, outputs) = (indices(model, inputs)?, indices(model, outputs)?);
        model.operations.push(Operation { code, inputs, outputs });
        Ok(())
    }

    Model_identifyInputsAndOutputs =
        ANeuralNetworksModel_identifyInputsAndOutputs(model: Raw, input_count: u32, inputs: *const u32, output_count: u32, outputs: *const u32)
    |state| {
        let model = state.open_model(model)?;
        if model.identified {
            return bad(BAD_STATE, "inputs and outputs are named once");
        }
        // SAFETY: the header's contract.
        let (inputs, outputs) = unsafe { (list(inputs, input_count)?, list(outputs, output_count)?) };
        let (inputs, outputs) = (indices(model, inputs)?, indices(model, outputs)?);
        if inputs.is_empty() || outputs.is_empty() {
            return bad(BAD_DATA, "a model has inputs and outputs");
        }
        (model.inputs, model.outputs, model.identified) = (inputs, outputs, true);
        Ok(())
    }

    Model_relaxComputationFloat32toFloat16 =
        ANeuralNetworksModel_relaxComputationFloat32toFloat16(model: Raw, allow: bool)
    |state| {
        if state.level < 28 {
            return bad(BAD_STATE, "16-bit floats come with level 28");
        }
        state.open_model(model)?.relaxed = allow;
        Ok(())
    }

    Model_finish = ANeuralNetworksModel_finish(model: Raw) |state| {
        let level = state.level;
        let model = state.open_model(model)?;
        if !model.identified {
            return bad(INCOMPLETE, "inputs and outputs are not named");
        }
        let graph =
            rules::graph_of(&model.operands, &model.operations, &model.inputs, &model.outputs, level)
                .map_err(|why| (BAD_DATA, why))?;
        let compiled = daq::Model::from_graph_for(graph, Isa::Scalar);
        model.compiled = Some(Arc::new(compiled.map_err(|e| (BAD_DATA, e.to_string()))?));
        model.finished = true;
        Ok(())
    }

    Model_getSupportedOperationsForDevices =
        ANeuralNetworksModel_getSupportedOperationsForDevices(model: Raw, devices: *const Raw, count: u32, supported: *mut bool)
    |state| {
        check_devices(devices, count)?;
        let refused = state.refused.clone();
        let model = state.finished_model(model as usize)?;
        for (i, operation) in model.operations.iter().enumerate() {
            // SAFETY: the header's contract: as many places as operations.
            unsafe { supported.add(i).write(!refused.contains(&operation.code)) };
        }
        Ok(())
    }

    Memory_createFromFd = ANeuralNetworksMemory_createFromFd(size: usize, protect: c_int, fd: c_int, offset: usize, memory: *mut Raw) |state| {
        if protect != 1 {
            return bad(BAD_DATA, "the stand-in reads files only");
        }
        if size == 0 || fd < 0 {
            return bad(BAD_DATA, "a memory has a file and a size");
        }
        // SAFETY: the caller's descriptor is open during the call.
        let file = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned();
        let file = File::from(file.map_err(|e| (BAD_DATA, e.to_string()))?);
        let length = file.metadata().map_or(0, |about| about.len());
        if (offset as u64).saturating_add(size as u64) > length {
            return bad(BAD_DATA, format!("{size} bytes from {offset} of a file of {length}"));
        }
        // SAFETY: the header's contract.
        unsafe { state.hand_out(memory, Object::Memory(Arc::new(file), offset, size)) }
    }

    // Compilations.

    Compilation_create = ANeuralNetworksCompilation_create(model: Raw, compilation: *mut Raw) |state| {
        state.finished_model(model as usize)?;
        // SAFETY: the header's contract.
        unsafe { state.hand_out(compilation, Object::Compilation(Compilation { model: model as usize, finished: false })) }
    }

    Compilation_createForDevices =
        ANeuralNetworksCompilation_createForDevices(model: Raw, devices: *const Raw, count: u32, compilation: *mut Raw)
    |state| {
        check_devices(devices, count)?;
        let refused = state.refused.clone();
        let model_of = state.finished_model(model as usize)?;
        if let Some(operation) = model_of.operations.iter().find(|o| refused.contains(&o.code)) {
            return bad(BAD_DATA, format!("the devices do not support operation {}", operation.code));
        }
        // SAFETY: the header's contract.
        unsafe { state.hand_out(compilation, Object::Compilation(Compilation { model: model as usize, finished: false })) }
    }

    Compilation_setPreference = ANeuralNetworksCompilation_setPreference(compilation: Raw, preference: i32) |state| {
        if state.compilation(compilation as usize)?.finished {
            return bad(BAD_STATE, "the compilation is finished");
        }
        match preference {
            0..=2 => {
                state.preference = preference;
                Ok(())
            }
            _ => bad(BAD_DATA, format!("there is no preference {preference}")),
        }
    }

    Compilation_finish = ANeuralNetworksCompilation_finish(compilation: Raw) |state| {
        let compilation = state.compilation(compilation as usize)?;
        if std::mem::replace(&mut compilation.finished, true) {
            return bad(BAD_STATE, "the compilation is finished");
        }
        Ok(())
    }

    Burst_create = ANeuralNetworksBurst_create(compilation: Raw, burst: *mut Raw) |state| {
        state.finished_compilation(compilation as usize)?;
        // SAFETY: the header's contract.
        unsafe { state.hand_out(burst, Object::Burst(compilation as usize, false)) }
    }

    // Executions.

    Execution_create = ANeuralNetworksExecution_create(compilation: Raw, execution: *mut Raw) |state| {
        let model = state.finished_compilation(compilation as usize)?.model;
        let model = state.model(model)?;
        let (inputs, outputs) = (vec![None; model.inputs.len()], vec![None; model.outputs.len()]);
        // SAFETY: the header's contract.
        unsafe { state.hand_out(execution, Object::Execution(Execution {
            compilation: compilation as usize,
            inputs,
            outputs,
            started: false,
        })) }
    }

    Execution_setInput =
        ANeuralNetworksExecution_setInput(execution: Raw, index: i32, _of: *const OperandType, buffer: *const c_void, length: usize)
    |state| {
        set_end(state, execution, index, buffer as usize, length, true)
    }

    Execution_setOutput =
        ANeuralNetworksExecution_setOutput(execution: Raw, index: i32, _of: *const OperandType, buffer: *mut c_void, length: usize)
    |state| {
        set_end(state, execution, index, buffer as usize, length, false)
    }
}

/// The operand that a value of some length is set for.
fn settable(model: &mut Model, index: i32, length: usize) -> Called<&mut Operand> {
    if model.inputs.contains(&(index as usize)) {
        return bad(BAD_DATA, format!("operand {index} is an input"));
    }
    let Some(operand) = model.operands.get_mut(index as usize) else {
        return bad(BAD_DATA, format!("there is no operand {index}"));
    };
    if operand.value.is_some() {
        return bad(BAD_DATA, format!("operand {index} has a value"));
    }
    match length == operand.len() {
        true => Ok(operand),
        false => bad(BAD_DATA, format!("{length} bytes for an operand of {}", operand.len())),
    }
}

fn indices(model: &Model, given: &[u32]) -> Called<Vec<usize>> {
    let all: Vec<usize> = given.iter().map(|&i| i as usize).collect();
    match all.iter().find(|&&i| i >= model.operands.len()) {
        Some(i) => bad(BAD_DATA, format!("there is no operand {i}")),
        None => Ok(all),
    }
}

fn check_devices(devices: *const Raw, count: u32) -> Called {
    if devices.is_null() || count == 0 {
        return bad(UNEXPECTED_NULL, "no devices are given");
    }
    // SAFETY: the header's contract.
    let devices = unsafe { std::slice::from_raw_parts(devices, count as usize) };
    let mut seen = BTreeSet::new();
    for &device in devices {
        device_of(device)?;
        if !seen.insert(device as usize) {
            return bad(BAD_DATA, "a device is given twice");
        }
    }
    Ok(())
}

fn device_of(device: Raw) -> Called<(&'static CStr, c_int)> {
    let index = (device as usize).checked_sub(FIRST_DEVICE);
    let found = index.and_then(|index| DEVICES.get(index).copied());
    found.ok_or((UNEXPECTED_NULL, "no such device".into()))
}

fn set_end(
    state: &mut State,
    execution: Raw,
    index: i32,
    buffer: usize,
    length: usize,
    input: bool,
) -> Called {
    let compilation = state.execution(execution as usize)?.compilation;
    let model = state.compilation(compilation)?.model;
    let model = state.model(model)?;
    let (name, ends) = if input { ("input", &model.inputs) } else { ("output", &model.outputs) };
    let Some(&operand) = ends.get(index as usize) else {
        return bad(BAD_DATA, format!("there is no {name} {index}"));
    };
    let needed = model.operands[operand].len();
    if length != needed {
        return bad(BAD_DATA, format!("{length} bytes for {name} {index} of {needed}"));
    }
    if buffer == 0 {
        return bad(UNEXPECTED_NULL, format!("{name} {index} is null"));
    }
    let execution = state.execution(execution as usize)?;
    if execution.started {
        return bad(BAD_STATE, "the execution has started");
    }
    let ends = if input { &mut execution.inputs } else { &mut execution.outputs };
    match ends[index as usize].replace((buffer, length)) {
        Some(_) => bad(BAD_STATE, format!("{name} {index} is set twice")),
        None => Ok(()),
    }
}

/// Runs an execution; the state is not locked while the model runs.
fn execute(name: &'static str, execution: Raw, burst: Option<Raw>, level: i64) -> c_int {
    let start = || -> Called<_> {
        let mut state = state();
        *state.calls.entry(name).or_default() += 1;
        if state.level < level {
            return bad(BAD_STATE, format!("it comes with level {level}"));
        }
        let this = state.execution(execution as usize)?;
        if std::mem::replace(&mut this.started, true) {
            return bad(BAD_STATE, "an execution runs once");
        }
        let ends =
            |ends: &[Option<(usize, usize)>]| ends.iter().copied().collect::<Option<Vec<_>>>();
        let (Some(inputs), Some(outputs)) = (ends(&this.inputs), ends(&this.outputs)) else {
            return bad(BAD_DATA, "an input or output is not set");
        };
        let compilation = this.compilation;
        if let Some(burst) = burst {
            match state.objects.get_mut(&(burst as usize)) {
                Some(Object::Burst(of, busy)) if *of == compilation => {
                    if std::mem::replace(busy, true) {
                        return bad(BAD_STATE, "a burst serves one execution at a time");
                    }
                }
                _ => return bad(BAD_DATA, "the burst is not of this compilation"),
            }
        }
        let model = state.finished_compilation(compilation)?.model;
        let model = state.finished_model(model)?;
        for referred in &model.referred {
            // SAFETY: the header's contract: long values stay where they are.
            if sum(unsafe { bytes(referred.at, referred.len) }) != referred.sum {
                return bad(
                    BAD_DATA,
                    "a value of more than 128 bytes has changed since it was set",
                );
            }
        }
        let Some(compiled) = model.compiled.clone() else {
            return bad(BAD_STATE, "the model is not finished");
        };
        if state.fails {
            return bad(OP_FAILED, "the test wants it to fail");
        }
        Ok((compiled, inputs, outputs))
    };
    let run = |(model, inputs, outputs): (Arc<daq::Model>, Vec<_>, Vec<_>)| -> Called {
        let mut session = model.session(1);
        let given: HashMap<String, Tensor> = session
            .inputs()
            .iter()
            .zip(inputs)
            .map(|(port, (at, len))| {
                // SAFETY: the header's contract: buffers live until the run ends.
                let bytes = unsafe { bytes(at, len) };
                (port.name.clone(), Tensor::from_bytes(port.dtype, &port.shape, bytes))
            })
            .collect();
        let given: Vec<_> = given.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let computed = session.run(&given, None).map_err(|e| (OP_FAILED, e.to_string()))?;
        for (tensor, (at, len)) in computed.iter().zip(outputs) {
            // SAFETY: the header's contract: nobody else has them meanwhile.
            let place = unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len) };
            place.copy_from_slice(tensor.bytes());
        }
        Ok(())
    };
    let result = start().and_then(run);
    let mut state = state();
    if let Some(Object::Burst(_, busy)) = burst.and_then(|b| state.objects.get_mut(&(b as usize))) {
        *busy = false;
    }
    state.report(name, result)
}

/// Starts an execution that is over at once, and gives its event.
fn start(name: &'static str, execution: Raw, event: *mut Raw, level: i64) -> c_int {
    let result = execute(name, execution, None, level);
    // SAFETY: the header's contract.
    match unsafe { state().hand_out(event, Object::Event(result)) } {
        Ok(()) => 0,
        Err((code, _)) => code,
    }
}

/// See `NeuralNetworks.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ANeuralNetworksExecution_compute(execution: Raw) -> c_int {
    execute("Execution_compute", execution, None, 29)
}

/// See `NeuralNetworks.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ANeuralNetworksExecution_burstCompute(
    execution: Raw,
    burst: Raw,
) -> c_int {
    execute("Execution_burstCompute", execution, Some(burst), 29)
}

/// See `NeuralNetworks.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ANeuralNetworksExecution_startCompute(
    execution: Raw,
    event: *mut Raw,
) -> c_int {
    start("Execution_startCompute", execution, event, 27)
}

/// See `NeuralNetworks.h`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ANeuralNetworksExecution_startComputeWithDependencies(
    execution: Raw,
    _dependencies: *const Raw,
    _count: u32,
    _duration: u64,
    event: *mut Raw,
) -> c_int {
    start("Execution_startComputeWithDependencies", execution, event, 30)
}

functions! {
    Event_wait = ANeuralNetworksEvent_wait(event: Raw) |state| {
        match state.objects.get(&(event as usize)) {
            Some(Object::Event(0)) => Ok(()),
            Some(Object::Event(code)) => bad(*code, "the run failed"),
            _ => bad(UNEXPECTED_NULL, "no such event"),
        }
    }

    // Devices.

    getDeviceCount = ANeuralNetworks_getDeviceCount(count: *mut u32) |_state| {
        // SAFETY: the header's contract.
        unsafe { give(count, DEVICES.len() as u32) }
    }

    getDevice = ANeuralNetworks_getDevice(index: u32, device: *mut Raw) |_state| {
        if index as usize >= DEVICES.len() {
            return bad(BAD_DATA, format!("there is no device {index}"));
        }
        // SAFETY: the header's contract.
        unsafe { give(device, (FIRST_DEVICE + index as usize) as Raw) }
    }

    Device_getName = ANeuralNetworksDevice_getName(device: Raw, name: *mut *const c_char) |_state| {
        // SAFETY: the header's contract.
        unsafe { give(name, device_of(device)?.0.as_ptr()) }
    }

    Device_getVersion = ANeuralNetworksDevice_getVersion(device: Raw, version: *mut *const c_char) |_state| {
        device_of(device)?;
        // SAFETY: the header's contract.
        unsafe { give(version, c"1".as_ptr()) }
    }

    Device_getType = ANeuralNetworksDevice_getType(device: Raw, kind: *mut i32) |_state| {
        // SAFETY: the header's contract.
        unsafe { give(kind, device_of(device)?.1) }
    }

    Device_getFeatureLevel = ANeuralNetworksDevice_getFeatureLevel(device: Raw, level: *mut i64) |state| {
        device_of(device)?;
        // SAFETY: the header's contract.
        unsafe { give(level, state.level) }
    }
}

/// See `NeuralNetworks.h`.
#[unsafe(no_mangle)]
pub extern "C" fn ANeuralNetworks_getRuntimeFeatureLevel() -> i64 {
    state().level
}
