//! The library `libneuralnetworks.so`, loaded at run time: its functions, and its objects as ours.
//!
//! `NeuralNetworks.h` is a C header of plain functions on opaque pointers. All `unsafe` of the backend
//! is here; what the header demands of a caller is stated where it is kept.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex, PoisonError};

use super::codes;
use super::describe::{Description, Operand};
use super::{Device, DeviceKind, Execution, Options};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The library on Android.
const NAME: &str = "libneuralnetworks.so";

/// Names another one.
const VARIABLE: &str = "DAQ_NNAPI_LIBRARY";

/// Values up to this many bytes are copied.
const COPIED: usize = 128;

/// `PROT_READ`.
const READ: c_int = 1;

const PAGE: u64 = 1 << 16;

type Raw = *mut c_void;

/// `ANeuralNetworksOperandType`.
#[repr(C)]
struct OperandType {
    code: i32,
    dimension_count: u32,
    dimensions: *const u32,
    scale: f32,
    zero_point: i32,
}

/// `ANeuralNetworksSymmPerChannelQuantParams`.
#[repr(C)]
struct ChannelScales {
    dimension: u32,
    count: u32,
    scales: *const f32,
}

macro_rules! functions {
    (
        since 27 { $($name:ident = $symbol:literal: fn($($arg:ty),*) $(-> $ret:ty)?;)* }
        later { $($later:ident = $since:literal: fn($($larg:ty),*) $(-> $lret:ty)?;)* }
    ) => {
        /// The functions by their name after `ANeuralNetworks`; later ones where the library has them.
        struct Functions {
            $($name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            $($later: Option<unsafe extern "C" fn($($larg),*) $(-> $lret)?>,)*
        }

        impl Functions {
            fn load(library: &libloading::Library) -> Result<Functions, libloading::Error> {
                // SAFETY: the types are those of the header, which freezes them; the pointers are
                // used only while `Library` holds the library.
                unsafe {
                    Ok(Functions {
                        $($name: *library.get(concat!("ANeuralNetworks", $symbol).as_bytes())?,)*
                        $($later: library
                            .get(concat!("ANeuralNetworks", $since).as_bytes())
                            .ok()
                            .map(|symbol| *symbol),)*
                    })
                }
            }
        }
    };
}

functions! {
    since 27 {
        model_create = "Model_create": fn(*mut Raw) -> c_int;
        model_free = "Model_free": fn(Raw);
        model_finish = "Model_finish": fn(Raw) -> c_int;
        add_operand = "Model_addOperand": fn(Raw, *const OperandType) -> c_int;
        set_value = "Model_setOperandValue": fn(Raw, i32, *const c_void, usize) -> c_int;
        set_value_from_memory = "Model_setOperandValueFromMemory": fn(Raw, i32, Raw, usize, usize) -> c_int;
        add_operation = "Model_addOperation": fn(Raw, i32, u32, *const u32, u32, *const u32) -> c_int;
        identify = "Model_identifyInputsAndOutputs": fn(Raw, u32, *const u32, u32, *const u32) -> c_int;
        memory_from_fd = "Memory_createFromFd": fn(usize, c_int, c_int, usize, *mut Raw) -> c_int;
        memory_free = "Memory_free": fn(Raw);
        compilation_create = "Compilation_create": fn(Raw, *mut Raw) -> c_int;
        compilation_free = "Compilation_free": fn(Raw);
        set_preference = "Compilation_setPreference": fn(Raw, i32) -> c_int;
        compilation_finish = "Compilation_finish": fn(Raw) -> c_int;
        execution_create = "Execution_create": fn(Raw, *mut Raw) -> c_int;
        execution_free = "Execution_free": fn(Raw);
        set_input = "Execution_setInput": fn(Raw, i32, *const OperandType, *const c_void, usize) -> c_int;
        set_output = "Execution_setOutput": fn(Raw, i32, *const OperandType, *mut c_void, usize) -> c_int;
        start_compute = "Execution_startCompute": fn(Raw, *mut Raw) -> c_int;
        event_wait = "Event_wait": fn(Raw) -> c_int;
        event_free = "Event_free": fn(Raw);
    }
    later {
        relax = "Model_relaxComputationFloat32toFloat16": fn(Raw, bool) -> c_int;
        device_count = "_getDeviceCount": fn(*mut u32) -> c_int;
        device = "_getDevice": fn(u32, *mut Raw) -> c_int;
        device_name = "Device_getName": fn(Raw, *mut *const c_char) -> c_int;
        device_version = "Device_getVersion": fn(Raw, *mut *const c_char) -> c_int;
        device_type = "Device_getType": fn(Raw, *mut i32) -> c_int;
        device_level = "Device_getFeatureLevel": fn(Raw, *mut i64) -> c_int;
        supported = "Model_getSupportedOperationsForDevices": fn(Raw, *const Raw, u32, *mut bool) -> c_int;
        create_for_devices = "Compilation_createForDevices": fn(Raw, *const Raw, u32, *mut Raw) -> c_int;
        set_channels = "Model_setOperandSymmPerChannelQuantParams": fn(Raw, i32, *const ChannelScales) -> c_int;
        compute = "Execution_compute": fn(Raw) -> c_int;
        burst_create = "Burst_create": fn(Raw, *mut Raw) -> c_int;
        burst_free = "Burst_free": fn(Raw);
        burst_compute = "Execution_burstCompute": fn(Raw, Raw) -> c_int;
        start_fenced = "Execution_startComputeWithDependencies": fn(Raw, *const Raw, u32, u64, *mut Raw) -> c_int;
        runtime_level = "_getRuntimeFeatureLevel": fn() -> i64;
    }
}

/// The loaded library.
pub(super) struct Library {
    functions: Functions,
    path: PathBuf,
    /// Last, so that it goes last.
    _library: libloading::Library,
}

fn failed(what: impl fmt::Display, code: c_int) -> Error {
    Error::Nnapi(format!("{what}: {}", codes::result(code)))
}

fn check(what: impl fmt::Display, code: c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(failed(what, code)) }
}

impl Library {
    /// Loads the library that the options, else the environment, else Android name.
    pub(super) fn load(options: &Options) -> Result<Arc<Library>> {
        let named = || std::env::var_os(VARIABLE).map(PathBuf::from);
        let path = options.library.clone().or_else(named).unwrap_or_else(|| NAME.into());
        let wrong = |why: libloading::Error| {
            Error::Nnapi(format!(
                "{}: {why}; Android has it since 8.1 (API level 27), elsewhere run on the CPU",
                path.display()
            ))
        };
        // SAFETY: whoever names a library trusts what it does on loading; Android's does nothing.
        let library = unsafe { libloading::Library::new(&path) }.map_err(wrong)?;
        let functions = Functions::load(&library).map_err(wrong)?;
        Ok(Arc::new(Library { functions, path, _library: library }))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The API level that it offers: what it says, or what its functions came with.
    pub(super) fn level(&self) -> u32 {
        let f = &self.functions;
        match f.runtime_level {
            // SAFETY: it takes nothing.
            Some(level) => unsafe { level() }.try_into().unwrap_or(31),
            None if f.start_fenced.is_some() => 30,
            None if f.supported.is_some() && f.device_count.is_some() => 29,
            None if f.relax.is_some() => 28,
            None => 27,
        }
    }

    /// Its devices; none before API level 29, where it chooses itself.
    pub(super) fn devices(&self) -> Result<Vec<(Device, Handle)>> {
        let f = &self.functions;
        let (Some(count), Some(get), Some(name), Some(version), Some(kind), Some(level)) = (
            f.device_count,
            f.device,
            f.device_name,
            f.device_version,
            f.device_type,
            f.device_level,
        ) else {
            return Ok(Vec::new());
        };
        let mut n = 0;
        // SAFETY: `n` outlives the call.
        check("listing devices", unsafe { count(&mut n) })?;
        let one = |i| {
            let (mut raw, mut text, mut number, mut features) = (null_mut(), [null(); 2], 0, 0);
            let what = format!("asking about device {i}");
            // SAFETY: what is written to outlives the calls; the device lives as long as the library.
            unsafe {
                check(&what, get(i, &mut raw))?;
                check(&what, name(raw, &mut text[0]))?;
                check(&what, version(raw, &mut text[1]))?;
                check(&what, kind(raw, &mut number))?;
                check(&what, level(raw, &mut features))?;
            }
            let [name, version] = text.map(|text| match text.is_null() {
                true => String::new(),
                // SAFETY: the library gives a text that ends in 0 and lives as long as it does.
                false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
            });
            let kind = match number {
                2 => DeviceKind::Cpu,
                3 => DeviceKind::Gpu,
                4 => DeviceKind::Accelerator,
                _ => DeviceKind::Other,
            };
            let level = features.try_into().unwrap_or(29);
            Ok((Device { name, version, kind, level }, Handle(raw)))
        };
        (0..n).map(one).collect()
    }
}

/// A device of a library, valid as long as that.
#[derive(Clone, Copy)]
pub(super) struct Handle(Raw);

// SAFETY: a device is only asked about, which the header allows from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// A finished model.
pub(super) struct Model {
    raw: Raw,
    /// The elements that the library refers to instead of copying: those of more than 128 bytes.
    _constants: Vec<Tensor>,
    /// Parts of files that it maps itself, by descriptor and start.
    memories: Vec<(c_int, u64, Raw)>,
    /// After the object that it made.
    library: Arc<Library>,
    operations: usize,
    /// Bytes of each input and output.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

// SAFETY: a finished model is not changed, and any thread may use it.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        let f = &self.library.functions;
        // SAFETY: made by the library and freed once, after the compilation that owns the model.
        unsafe {
            (f.model_free)(self.raw);
            self.memories.iter().for_each(|memory| (f.memory_free)(memory.2));
        }
    }
}

impl Model {
    /// Builds what a description says.
    pub(super) fn new(
        library: &Arc<Library>,
        description: &Description,
        fp16: bool,
    ) -> Result<Model> {
        let f = &library.functions;
        let mut raw = null_mut();
        // SAFETY: `raw` outlives the call.
        check("creating a model", unsafe { (f.model_create)(&mut raw) })?;
        let bytes = |(_, _, operand): &(_, _, u32)| description.operands[*operand as usize].len();
        let mut model = Model {
            raw,
            _constants: Vec::new(),
            memories: Vec::new(),
            library: library.clone(),
            operations: description.operations.len(),
            inputs: description.inputs.iter().map(bytes).collect(),
            outputs: description.outputs.iter().map(bytes).collect(),
        };
        for (i, operand) in description.operands.iter().enumerate() {
            model.operand(i as i32, operand)?;
        }
        for (i, op) in description.operations.iter().enumerate() {
            let (inputs, outputs) = (&op.inputs, &op.outputs);
            // SAFETY: lists and their lengths; the library copies them.
            let code = unsafe {
                (f.add_operation)(
                    raw,
                    op.code,
                    inputs.len() as u32,
                    inputs.as_ptr(),
                    outputs.len() as u32,
                    outputs.as_ptr(),
                )
            };
            check(format!("adding operation {i} (code {})", op.code), code)?;
        }
        let ends = |ends: &[(_, _, u32)]| ends.iter().map(|end| end.2).collect::<Vec<u32>>();
        let (inputs, outputs) = (ends(&description.inputs), ends(&description.outputs));
        // SAFETY: as above.
        let code = unsafe {
            (f.identify)(
                raw,
                inputs.len() as u32,
                inputs.as_ptr(),
                outputs.len() as u32,
                outputs.as_ptr(),
            )
        };
        check("naming inputs and outputs", code)?;
        if let (true, Some(relax)) = (fp16, f.relax) {
            // SAFETY: the model is not finished yet.
            check("allowing 16-bit floats", unsafe { relax(raw, true) })?;
        }
        // SAFETY: finished once, here.
        check("finishing a model", unsafe { (f.model_finish)(raw) })?;
        Ok(model)
    }

    fn operand(&mut self, index: i32, operand: &Operand) -> Result<()> {
        let library = self.library.clone();
        let f = &library.functions;
        let what = || format!("adding operand {index}");
        let of = OperandType {
            code: operand.code,
            dimension_count: operand.shape.len() as u32,
            dimensions: if operand.shape.is_empty() { null() } else { operand.shape.as_ptr() },
            scale: operand.scale,
            zero_point: operand.zero_point,
        };
        // SAFETY: the library copies the type and its dimensions.
        check(what(), unsafe { (f.add_operand)(self.raw, &of) })?;
        if let Some((dimension, scales)) = &operand.channels {
            let Some(set) = f.set_channels else {
                return Err(Error::Nnapi("this library knows no scales per channel".into()));
            };
            let (count, pointer) = (scales.len() as u32, scales.as_ptr());
            let of = ChannelScales { dimension: *dimension, count, scales: pointer };
            // SAFETY: the library copies the scales.
            check(what(), unsafe { set(self.raw, index, &of) })?;
        }
        if let Some(value) = &operand.value {
            let bytes = value.bytes();
            let code = match self.memory(value)? {
                // SAFETY: the memory is of this library and reaches over the elements.
                Some((memory, at)) => unsafe {
                    (f.set_value_from_memory)(self.raw, index, memory, at, bytes.len())
                },
                // SAFETY: a value of more than 128 bytes must stay as and where it is as long as the
                // model: the tensor's storage is shared and never written to, and is kept below.
                None => unsafe {
                    (f.set_value)(self.raw, index, bytes.as_ptr().cast(), bytes.len())
                },
            };
            check(what(), code)?;
            self._constants.push(value.clone());
        }
        Ok(())
    }

    /// The memory that a large tensor of a mapped file lies in, and where: a driver takes it from the
    /// file without a copy through this process.
    fn memory(&mut self, value: &Tensor) -> Result<Option<(Raw, usize)>> {
        let Some((file, at, part)) = value.file().filter(|_| value.bytes().len() > COPIED) else {
            return Ok(None);
        };
        // A multiple of every page size that Android has.
        let (fd, start) = (file.as_raw_fd(), part.start / PAGE * PAGE);
        let known = self.memories.iter().find(|memory| (memory.0, memory.1) == (fd, start));
        let memory = match known {
            Some(memory) => memory.2,
            None => {
                let (f, mut raw) = (&self.library.functions, null_mut());
                let size = (part.end - start) as usize;
                // SAFETY: an open file that reaches so far, to read; the library maps it.
                let code = unsafe { (f.memory_from_fd)(size, READ, fd, start as usize, &mut raw) };
                check("mapping the model's file", code)?;
                self.memories.push((fd, start, raw));
                raw
            }
        };
        Ok(Some((memory, (at - start) as usize)))
    }

    /// Which operations the devices take, where the library can tell.
    pub(super) fn supported(&self, devices: &[Handle]) -> Result<Option<Vec<bool>>> {
        let (Some(supported), false) = (self.library.functions.supported, devices.is_empty())
        else {
            return Ok(None);
        };
        let devices: Vec<Raw> = devices.iter().map(|device| device.0).collect();
        let mut all = vec![false; self.operations];
        // SAFETY: a finished model, a list and its length, and as many answers as it has operations.
        let code = unsafe {
            supported(self.raw, devices.as_ptr(), devices.len() as u32, all.as_mut_ptr())
        };
        check("asking which operations are supported", code)?;
        Ok(Some(all))
    }
}

/// A model compiled for devices.
pub(super) struct Compilation {
    raw: Raw,
    /// Bursts that no run uses.
    bursts: Mutex<Vec<Burst>>,
    execution: Execution,
    /// After the object made of it.
    model: Model,
}

struct Burst(Raw);

// SAFETY: a burst serves one run at a time, which takes it out of the list; no thread is its own.
unsafe impl Send for Burst {}
// SAFETY: a finished compilation is not changed; executions may be made of it on any thread.
unsafe impl Send for Compilation {}
// SAFETY: as above.
unsafe impl Sync for Compilation {}

impl Drop for Compilation {
    fn drop(&mut self) {
        let f = &self.model.library.functions;
        let bursts = self.bursts.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = f.burst_free {
            // SAFETY: made by `Burst_create`; whoever has `&mut self` has no run left.
            bursts.drain(..).for_each(|burst| unsafe { free(burst.0) });
        }
        // SAFETY: made by `Compilation_create` and freed once, with all its executions gone.
        unsafe { (f.compilation_free)(self.raw) }
    }
}

impl Compilation {
    /// Compiles for devices, or for those that the library chooses where there are none.
    pub(super) fn new(model: Model, devices: &[Handle], options: &Options) -> Result<Compilation> {
        let f = &model.library.functions;
        let mut raw = null_mut();
        let devices: Vec<Raw> = devices.iter().map(|device| device.0).collect();
        let code = match f.create_for_devices {
            // SAFETY: a finished model, a list and its length; `raw` outlives the call.
            Some(create) if !devices.is_empty() => unsafe {
                create(model.raw, devices.as_ptr(), devices.len() as u32, &mut raw)
            },
            // SAFETY: as above.
            _ => unsafe { (f.compilation_create)(model.raw, &mut raw) },
        };
        check("creating a compilation", code)?;
        let (bursts, execution) = (Mutex::default(), options.execution);
        let compilation = Compilation { raw, bursts, execution, model };
        let f = &compilation.model.library.functions;
        // SAFETY: not finished yet.
        let code = unsafe { (f.set_preference)(raw, options.preference as i32) };
        check("setting the preference", code)?;
        // SAFETY: finished once, here.
        check("compiling", unsafe { (f.compilation_finish)(raw) })?;
        Ok(compilation)
    }

    /// Runs the model from bytes to bytes, one for each input and output in order.
    pub(super) fn run(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) -> Result<()> {
        let f = &self.model.library.functions;
        let fits = inputs.iter().map(|i| i.len()).eq(self.model.inputs.iter().copied())
            && outputs.iter().map(|o| o.len()).eq(self.model.outputs.iter().copied());
        if !fits {
            return Err(Error::Nnapi("buffers of other sizes than the model's".into()));
        }
        let mut raw = null_mut();
        // SAFETY: a finished compilation; `raw` outlives the call.
        check("creating an execution", unsafe { (f.execution_create)(self.raw, &mut raw) })?;
        let execution = Running { raw, free: f.execution_free };
        for (i, bytes) in inputs.iter().enumerate() {
            // SAFETY: the bytes outlive the execution, which ends before this function does.
            let code =
                unsafe { (f.set_input)(raw, i as i32, null(), bytes.as_ptr().cast(), bytes.len()) };
            check(format!("setting input {i}"), code)?;
        }
        for (i, bytes) in outputs.iter_mut().enumerate() {
            // SAFETY: as above, and nobody else has these.
            let code = unsafe {
                (f.set_output)(raw, i as i32, null(), bytes.as_mut_ptr().cast(), bytes.len())
            };
            check(format!("setting output {i}"), code)?;
        }
        let done = self.compute(raw);
        drop(execution);
        done
    }

    fn compute(&self, raw: Raw) -> Result<()> {
        let f = &self.model.library.functions;
        let bursts = || self.bursts.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.execution, f.burst_create, f.burst_compute, f.start_fenced, f.compute) {
            (Execution::Burst, Some(create), Some(compute), _, _) => {
                let idle = bursts().pop();
                let burst = match idle {
                    Some(burst) => burst,
                    None => {
                        let mut burst = null_mut();
                        // SAFETY: a finished compilation; `burst` outlives the call.
                        check("creating a burst", unsafe { create(self.raw, &mut burst) })?;
                        Burst(burst)
                    }
                };
                // SAFETY: all inputs and outputs are set; the burst is of the same compilation and
                // nobody else uses it.
                let code = unsafe { compute(raw, burst.0) };
                bursts().push(burst);
                check("running", code)
            }
            (Execution::Fenced, _, _, Some(start), _) => {
                let mut event = null_mut();
                // SAFETY: all inputs and outputs are set; nothing to wait for, no deadline.
                check("starting", unsafe { start(raw, null(), 0, 0, &mut event) })?;
                self.wait(event)
            }
            (_, _, _, _, Some(compute)) => {
                // SAFETY: all inputs and outputs are set.
                check("running", unsafe { compute(raw) })
            }
            _ => {
                let mut event = null_mut();
                // SAFETY: all inputs and outputs are set.
                check("starting", unsafe { (f.start_compute)(raw, &mut event) })?;
                self.wait(event)
            }
        }
    }

    /// Waits for a run that was started. It has ended then, also where it failed.
    fn wait(&self, event: Raw) -> Result<()> {
        let f = &self.model.library.functions;
        let event = Running { raw: event, free: f.event_free };
        // SAFETY: an event that a start gave.
        check("running", unsafe { (f.event_wait)(event.raw) })
    }
}

/// An object that is freed when its run ends.
struct Running {
    raw: Raw,
    free: unsafe extern "C" fn(Raw),
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: made by the library and freed once.
        unsafe { (self.free)(self.raw) }
    }
}
