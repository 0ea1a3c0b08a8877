//! The C interface of the daq runtime; `include/daq.h` is made of it by `cargo xtask header`.
//!
//! Every function checks its pointers, sizes and indices as far as C lets anyone check them, and
//! turns panics into a status, so that no call ends the caller's process (in the profile
//! `minimal` a panic does).
#![allow(non_camel_case_types, reason = "these are the names that C sees")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use daq::backend::{self, Backend, Preference};
use daq::{DType, Graph, Layout, Model, Port, Sessions};

mod buffers;
mod error;
#[cfg(test)]
mod tests;

use buffers::{Given, disjoint};
use error::{Failure, set_last_error};

/// What a call came to. Where it is not DAQ_STATUS_OK, daq_last_error says what was wrong.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum daq_status {
    /// Done.
    Ok = 0,
    /// A null pointer, a wrong size, an unknown index, an element type that a tensor does not have.
    Argument = 1,
    /// The model cannot be used: no such file, damaged, cut short, made by a newer daq; no NNAPI where
    /// that was asked for.
    Model = 2,
    /// An error in daq itself; the model can still be used and closed.
    Internal = 3,
}

/// The type in which a model holds a tensor.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum daq_type {
    /// 32-bit float.
    F32 = 0,
    /// Unsigned byte.
    U8 = 1,
    /// Signed byte.
    I8 = 2,
    /// 32-bit integer.
    I32 = 3,
    /// 64-bit integer.
    I64 = 4,
    /// A byte that is 0 or 1.
    Bool = 5,
}

/// The order of a tensor's elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum daq_layout {
    /// Row-major as ONNX has it: batch, channels, rows, columns.
    Plain = 0,
    /// Channels last: batch, rows, columns, channels.
    ChannelsLast = 1,
}

/// Where a model runs. NNAPI is for libraries that were built with the feature `nnapi`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum daq_backend {
    /// On daq's own kernels, exactly.
    Cpu = 0,
    /// On Android's accelerators, with what they do not take on the CPU.
    Nnapi = 1,
    /// On NNAPI where the phone has it, else on the CPU.
    Auto = 2,
}

/// What the drivers of accelerators shall favour.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum daq_preference {
    /// The time of one answer.
    FastSingleAnswer = 0,
    /// The battery.
    LowPower = 1,
    /// The number of answers a second, as for the frames of a camera.
    SustainedSpeed = 2,
}

/// How to run a model. All zeros, and a null pointer in place of it, are the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct daq_options {
    /// Threads that share the work of one call, the caller's included: 1 to 256; 0 is 1. The results
    /// are the same bit for bit.
    pub threads: u32,
    /// A daq_backend.
    pub backend: u32,
    /// A daq_preference; on the CPU it changes nothing.
    pub preference: u32,
    /// 1 lets accelerators compute floats with 16 bits; on the CPU it changes nothing.
    pub allow_fp16: u32,
    /// Must be 0.
    pub reserved: [u32; 4],
}

impl daq_options {
    /// What they say, as daq takes it.
    fn checked(self) -> Result<(usize, Backend, backend::Options), Failure> {
        if self.reserved != [0; 4] {
            let why = "the reserved fields of daq_options are not 0; start from all zeros";
            return Err(Failure::argument(why));
        }
        if self.threads > 256 {
            return Err(Failure::argument(format!("{} threads; give 1 to 256", self.threads)));
        }
        let backend = match self.backend {
            0 => Backend::Cpu,
            1 => Backend::Nnapi,
            2 => Backend::Auto,
            n => return Err(Failure::argument(format!("there is no backend {n}; give 0 to 2"))),
        };
        let preference = match self.preference {
            0 => Preference::FastSingleAnswer,
            1 => Preference::LowPower,
            2 => Preference::SustainedSpeed,
            n => return Err(Failure::argument(format!("there is no preference {n}; give 0 to 2"))),
        };
        let allow_fp16 = match self.allow_fp16 {
            0 => false,
            1 => true,
            n => return Err(Failure::argument(format!("allow_fp16 is {n}; give 0 or 1"))),
        };
        let options = backend::Options { preference, allow_fp16, ..Default::default() };
        Ok((self.threads as usize, backend, options))
    }
}

/// An input or output of a model. What its pointers show lives until daq_close.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct daq_tensor {
    /// Its name, UTF-8.
    pub name: *const c_char,
    /// The type in which the model holds it; callers may use float or uint8_t where it is one of
    /// these and `quantized`.
    pub element_type: daq_type,
    /// The order of the elements.
    pub layout: daq_layout,
    /// `rank` dimensions, outermost first, in the order of `layout`.
    pub shape: *const usize,
    /// The number of dimensions.
    pub rank: usize,
    /// The number of elements, the product of the dimensions.
    pub elements: usize,
    /// Whether it has a scale: real = (code - zero_point) * scale.
    pub quantized: bool,
    /// The scale; 0 where it is not quantized.
    pub scale: f32,
    /// The code of 0, from 0 to 255; 0 where it is not quantized.
    pub zero_point: i32,
}

/// A model that was opened. Any number of threads may use one at the same time: each call works in
/// memory of its own, and calls share the threads of the options. daq_close must come after all
/// other calls.
pub struct daq_model {
    sessions: Sessions,
    inputs: Vec<Described>,
    outputs: Vec<Described>,
}

/// A port with its name and shape as C takes them.
struct Described {
    name: CString,
    port: Port,
}

impl Described {
    fn of(port: &Port) -> Result<Self, Failure> {
        let name = CString::new(port.name.as_str())
            .map_err(|_| Failure::model(format!("the name {:?} holds a zero byte", port.name)))?;
        Ok(Described { name, port: port.clone() })
    }

    fn tensor(&self) -> Result<daq_tensor, Failure> {
        let Port { dtype, shape, layout, quant, .. } = &self.port;
        let element_type = match dtype {
            DType::F32 => daq_type::F32,
            DType::U8 => daq_type::U8,
            DType::I8 => daq_type::I8,
            DType::I32 => daq_type::I32,
            DType::I64 => daq_type::I64,
            DType::Bool => daq_type::Bool,
            other => return Err(Failure::model(format!("{other} is no type of the C interface"))),
        };
        let layout = match layout {
            Layout::Plain => daq_layout::Plain,
            Layout::ChannelsLast => daq_layout::ChannelsLast,
        };
        Ok(daq_tensor {
            name: self.name.as_ptr(),
            element_type,
            layout,
            shape: shape.as_ptr(),
            rank: shape.len(),
            elements: shape.iter().product(),
            quantized: quant.is_some(),
            scale: quant.as_ref().map_or(0.0, |q| q.scale_of(0)),
            zero_point: quant.as_ref().map_or(0, |q| q.zero_point_of(0)),
        })
    }
}

/// Runs the inside of a function: errors and panics become a status and the thread's last error.
fn guard(inside: impl FnOnce() -> Result<(), Failure>) -> daq_status {
    match catch_unwind(AssertUnwindSafe(inside)) {
        Ok(Ok(())) => daq_status::Ok,
        Ok(Err(failure)) => {
            set_last_error(failure.why);
            failure.status
        }
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            set_last_error(format!("an error in daq, please report it: {said}"));
            daq_status::Internal
        }
    }
}

/// Opens a model by `load` and gives it to the caller.
///
/// # Safety
/// `options` and `model` are null or point to what their types say.
unsafe fn open(
    options: *const daq_options,
    model: *mut *mut daq_model,
    load: impl FnOnce() -> Result<Graph, Failure>,
) -> daq_status {
    guard(|| {
        if model.is_null() {
            return Err(Failure::argument("model is null; give the address of a pointer"));
        }
        // SAFETY: not null, and the caller's promise.
        unsafe { model.write(ptr::null_mut()) };
        // SAFETY: the caller's promise.
        let options = unsafe { options.as_ref() }.copied().unwrap_or_default();
        let (threads, backend, options) = options.checked()?;
        let sessions = Sessions::new(Model::on(backend, load()?, &options)?, threads);
        let plan = sessions.model().plan();
        let inputs = plan.inputs().map(Described::of).collect::<Result<_, _>>()?;
        let outputs = plan.outputs().map(Described::of).collect::<Result<_, _>>()?;
        let opened = Box::into_raw(Box::new(daq_model { sessions, inputs, outputs }));
        // SAFETY: as above.
        unsafe { model.write(opened) };
        Ok(())
    })
}

/// Opens a .daq file. Its weights are used where they lie in the file, which must not be changed in
/// place while the model is open; replacing it by renaming is fine.
///
/// # Safety
/// `path` is null or a string that ends with a zero byte; `options` is null or points to options;
/// `model` is null or points to a pointer, which becomes null on failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_open(
    path: *const c_char,
    options: *const daq_options,
    model: *mut *mut daq_model,
) -> daq_status {
    let load = || {
        if path.is_null() {
            return Err(Failure::argument("path is null"));
        }
        // SAFETY: not null, and the caller's promise.
        let path = unsafe { CStr::from_ptr(path) };
        Ok(daq::format::read(path_of(path)?)?)
    };
    // SAFETY: the caller's promise.
    unsafe { open(options, model, load) }
}

#[cfg(unix)]
fn path_of(path: &CStr) -> Result<&std::path::Path, Failure> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(path.to_bytes()).as_ref())
}

#[cfg(not(unix))]
fn path_of(path: &CStr) -> Result<&std::path::Path, Failure> {
    match path.to_str() {
        Ok(path) => Ok(path.as_ref()),
        Err(_) => Err(Failure::argument("path is not UTF-8")),
    }
}

/// Opens a .daq file that is in memory: `size` bytes at `bytes`. They are copied.
///
/// # Safety
/// `bytes` is null or points to `size` bytes; `options` and `model` as for daq_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_open_memory(
    bytes: *const c_void,
    size: usize,
    options: *const daq_options,
    model: *mut *mut daq_model,
) -> daq_status {
    let load = || {
        // SAFETY: the caller's promise.
        let bytes = unsafe { buffers::slice("bytes", bytes.cast::<u8>(), size) }?;
        Ok(daq::format::from_bytes(bytes)?)
    };
    // SAFETY: the caller's promise.
    unsafe { open(options, model, load) }
}

/// Opens a .daq file that is part of an open file: `size` bytes from `offset` on, as Android's
/// AssetFileDescriptor gives them. Where `offset` is a multiple of 64 the bytes are used where they
/// lie, else they are copied. The descriptor stays the caller's and may be closed at once.
///
/// # Safety
/// `options` and `model` as for daq_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_open_fd(
    fd: i32,
    offset: u64,
    size: u64,
    options: *const daq_options,
    model: *mut *mut daq_model,
) -> daq_status {
    // SAFETY: the caller's promise.
    unsafe { open(options, model, || open_part(fd, offset, size)) }
}

#[cfg(unix)]
fn open_part(fd: i32, offset: u64, size: u64) -> Result<Graph, Failure> {
    use std::os::fd::FromRawFd;
    if fd < 0 {
        return Err(Failure::argument(format!("{fd} is no file descriptor")));
    }
    // SAFETY: not -1. The file is never dropped, so that the descriptor is not closed here; one that
    // is not open gives an error from the system.
    let file = std::mem::ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(fd) });
    Ok(daq::format::read_part(&file, offset, size)?)
}

#[cfg(not(unix))]
fn open_part(_fd: i32, _offset: u64, _size: u64) -> Result<Graph, Failure> {
    Err(Failure::argument("file descriptors are for Unix; use daq_open or daq_open_memory"))
}

/// Closes a model; null is fine. Nothing that it gave may be used afterwards.
///
/// # Safety
/// `model` is null or comes from one of the open functions, is not closed yet, and is not in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_close(model: *mut daq_model) {
    guard(|| {
        if !model.is_null() {
            // SAFETY: the caller's promise: it is a box of `open` that nobody else has.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// The number of inputs; 0 where `model` is null.
///
/// # Safety
/// `model` is null or an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_input_count(model: *const daq_model) -> usize {
    // SAFETY: the caller's promise.
    unsafe { model.as_ref() }.map_or(0, |m| m.inputs.len())
}

/// The number of outputs; 0 where `model` is null.
///
/// # Safety
/// `model` is null or an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_output_count(model: *const daq_model) -> usize {
    // SAFETY: the caller's promise.
    unsafe { model.as_ref() }.map_or(0, |m| m.outputs.len())
}

/// Describes input `index`, counted from 0.
///
/// # Safety
/// `model` is null or an open model, `tensor` is null or points to a daq_tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_input(
    model: *const daq_model,
    index: usize,
    tensor: *mut daq_tensor,
) -> daq_status {
    // SAFETY: the caller's promise.
    unsafe { describe("input", model, |m| &m.inputs, index, tensor) }
}

/// Describes output `index`, counted from 0.
///
/// # Safety
/// `model` is null or an open model, `tensor` is null or points to a daq_tensor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_output(
    model: *const daq_model,
    index: usize,
    tensor: *mut daq_tensor,
) -> daq_status {
    // SAFETY: the caller's promise.
    unsafe { describe("output", model, |m| &m.outputs, index, tensor) }
}

/// # Safety
/// As for daq_input.
unsafe fn describe(
    what: &str,
    model: *const daq_model,
    ports: fn(&daq_model) -> &[Described],
    index: usize,
    tensor: *mut daq_tensor,
) -> daq_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let ports = ports(unsafe { model_of(model) }?);
        let found = ports.get(index).ok_or_else(|| {
            Failure::argument(format!("there is no {what} {index}, the model has {}", ports.len()))
        })?;
        if tensor.is_null() {
            return Err(Failure::argument("tensor is null"));
        }
        // SAFETY: not null, and the caller's promise.
        unsafe { tensor.write(found.tensor()?) };
        Ok(())
    })
}

/// # Safety
/// `model` is null or an open model.
unsafe fn model_of<'a>(model: *const daq_model) -> Result<&'a daq_model, Failure> {
    // SAFETY: the caller's promise.
    unsafe { model.as_ref() }.ok_or_else(|| Failure::argument("model is null"))
}

/// # Safety
/// As for daq_predict_f32_f32.
unsafe fn predict<I: daq::tensor::Element, O: daq::tensor::Element>(
    model: *const daq_model,
    inputs: Given<*const I>,
    outputs: Given<*mut O>,
) -> daq_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let model = unsafe { model_of(model) }?;
        // Counts first: the model's tell how many pointers to look at.
        inputs.count("inputs", model.inputs.len())?;
        outputs.count("outputs", model.outputs.len())?;
        // SAFETY: the caller's promise.
        let (inputs, outputs) = unsafe { (inputs.buffers("inputs")?, outputs.buffers("outputs")?) };
        for ((_, given), described) in inputs.iter().zip(&model.inputs) {
            buffers::size("input", &described.port, *given)?;
        }
        for ((_, given), described) in outputs.iter().zip(&model.outputs) {
            buffers::size("output", &described.port, *given)?;
        }
        let read = buffers::ranges(&inputs, size_of::<I>(), |p| p.addr());
        let written = buffers::ranges(&outputs, size_of::<O>(), |p| p.addr());
        disjoint(&read, &written)?;
        // SAFETY: the caller's promise; the sizes are the model's, and no output overlaps anything.
        let inputs = unsafe { buffers::shared(&inputs) }?;
        // SAFETY: as above.
        let mut outputs = unsafe { buffers::unique(&outputs) }?;
        Ok(model.sessions.with(|s| s.predict(&inputs, &mut outputs))?)
    })
}

/// Runs the model: real numbers in, real numbers out.
///
/// `inputs` holds `input_count` pointers, one to the elements of each input in the model's order,
/// and `input_sizes` their numbers of elements; likewise `outputs`. An output must not overlap
/// another buffer.
///
/// # Safety
/// `model` is null or an open model; the arrays hold as many entries as the counts say, and each
/// buffer as many elements as its size says. Null pointers and wrong counts and sizes are errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_predict_f32_f32(
    model: *const daq_model,
    inputs: *const *const f32,
    input_sizes: *const usize,
    input_count: usize,
    outputs: *const *mut f32,
    output_sizes: *const usize,
    output_count: usize,
) -> daq_status {
    let inputs = Given { pointers: inputs, sizes: input_sizes, count: input_count };
    let outputs = Given { pointers: outputs, sizes: output_sizes, count: output_count };
    // SAFETY: the caller's promise.
    unsafe { predict(model, inputs, outputs) }
}

/// Runs the model: real numbers in, codes out; see daq_predict_f32_f32.
///
/// # Safety
/// As for daq_predict_f32_f32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_predict_f32_u8(
    model: *const daq_model,
    inputs: *const *const f32,
    input_sizes: *const usize,
    input_count: usize,
    outputs: *const *mut u8,
    output_sizes: *const usize,
    output_count: usize,
) -> daq_status {
    let inputs = Given { pointers: inputs, sizes: input_sizes, count: input_count };
    let outputs = Given { pointers: outputs, sizes: output_sizes, count: output_count };
    // SAFETY: the caller's promise.
    unsafe { predict(model, inputs, outputs) }
}

/// Runs the model: codes in, real numbers out; see daq_predict_f32_f32.
///
/// # Safety
/// As for daq_predict_f32_f32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_predict_u8_f32(
    model: *const daq_model,
    inputs: *const *const u8,
    input_sizes: *const usize,
    input_count: usize,
    outputs: *const *mut f32,
    output_sizes: *const usize,
    output_count: usize,
) -> daq_status {
    let inputs = Given { pointers: inputs, sizes: input_sizes, count: input_count };
    let outputs = Given { pointers: outputs, sizes: output_sizes, count: output_count };
    // SAFETY: the caller's promise.
    unsafe { predict(model, inputs, outputs) }
}

/// Runs the model: codes in, codes out; see daq_predict_f32_f32.
///
/// # Safety
/// As for daq_predict_f32_f32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_predict_u8_u8(
    model: *const daq_model,
    inputs: *const *const u8,
    input_sizes: *const usize,
    input_count: usize,
    outputs: *const *mut u8,
    output_sizes: *const usize,
    output_count: usize,
) -> daq_status {
    let inputs = Given { pointers: inputs, sizes: input_sizes, count: input_count };
    let outputs = Given { pointers: outputs, sizes: output_sizes, count: output_count };
    // SAFETY: the caller's promise.
    unsafe { predict(model, inputs, outputs) }
}

/// What was wrong with the last call of this thread that failed, as text in UTF-8; empty where none
/// did. It lives until the thread's next failing call.
#[unsafe(no_mangle)]
pub extern "C" fn daq_last_error() -> *const c_char {
    error::last_error()
}

/// The version of this library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn daq_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
