//! The native side of `dev.daq`: what the class `Native` declares. It translates and checks; Java
//! holds the locks that keep a model open while it is used.
//!
//! Errors become exceptions: `IllegalArgumentException` for a wrong call, `DaqException` for a model
//! that cannot be used, `IllegalStateException` for a panic.

#![allow(missing_docs, reason = "the class `Native` documents its functions")]

use std::any::Any;

use daq::backend::{Backend, Options, Preference};
use daq::tensor::Element;
use daq::{DType, Error, Graph, Layout, Model, Port, Sessions};
use jni::errors::ErrorPolicy;
use jni::objects::{
    JByteArray, JByteBuffer, JClass, JFloatArray, JIntArray, JObject, JObjectArray, JString,
};
use jni::strings::JNIString;
use jni::sys::{jboolean, jfloat, jint, jintArray, jlong, jobject, jstring};
use jni::{Env, EnvUnowned};

/// Why a call failed.
enum Failure {
    Daq(Error),
    Jni(jni::errors::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Daq(error)
    }
}

impl From<jni::errors::Error> for Failure {
    fn from(error: jni::errors::Error) -> Self {
        Failure::Jni(error)
    }
}

fn wrong(why: impl Into<String>) -> Failure {
    Failure::Daq(Error::Call(why.into()))
}

/// Failures as Java exceptions.
struct Throw;

impl Throw {
    fn throw(env: &mut Env, class: &str, why: &str) -> jni::errors::Result<()> {
        if env.exception_check() {
            return Ok(());
        }
        match env.throw_new(JNIString::from(class), JNIString::from(why)) {
            Ok(()) | Err(jni::errors::Error::JavaException) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl<T: Default> ErrorPolicy<T, Failure> for Throw {
    type Captures<'local: 'native, 'native> = ();

    fn on_error<'local: 'native, 'native>(
        env: &mut Env<'local>,
        _: &mut (),
        failure: Failure,
    ) -> jni::errors::Result<T> {
        match failure {
            Failure::Daq(Error::Call(why)) => {
                Self::throw(env, "java/lang/IllegalArgumentException", &why)?;
            }
            Failure::Daq(other) => Self::throw(env, "dev/daq/DaqException", &other.to_string())?,
            Failure::Jni(e) => Self::throw(env, "dev/daq/DaqException", &format!("JNI: {e}"))?,
        }
        Ok(T::default())
    }

    fn on_panic<'local: 'native, 'native>(
        env: &mut Env<'local>,
        _: &mut (),
        panic: Box<dyn Any + Send>,
    ) -> jni::errors::Result<T> {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let why = format!("an error in daq, please report it: {said}");
        Self::throw(env, "java/lang/IllegalStateException", &why)?;
        Ok(T::default())
    }
}

/// Gives a model to Java. `options` are threads, backend, preference, and whether floats may have 16 bits.
fn opened(
    env: &mut Env,
    options: &JIntArray,
    load: Result<Graph, Failure>,
) -> Result<jlong, Failure> {
    let mut given = [0; 4];
    options.get_region(env, 0, &mut given)?;
    let [threads, backend, preference, allow_fp16] = given;
    let threads = usize::try_from(threads).ok().filter(|t| (1..=256).contains(t));
    let threads = threads.ok_or_else(|| wrong("threads: give 1 to 256"))?;
    let backend = match backend {
        0 => Backend::Cpu,
        1 => Backend::Nnapi,
        _ => Backend::Auto,
    };
    let preference = match preference {
        0 => Preference::LowPower,
        1 => Preference::FastSingleAnswer,
        _ => Preference::SustainedSpeed,
    };
    let options = Options { preference, allow_fp16: allow_fp16 != 0, ..Options::default() };
    let model = Model::on(backend, load?, &options)?;
    Ok(Box::into_raw(Box::new(Sessions::new(model, threads))) as jlong)
}

/// The model of a handle.
///
/// # Safety
/// `handle` is one of `opened` that `close` did not get yet, as `dev.daq.Handle` sees to.
unsafe fn sessions<'a>(handle: jlong) -> &'a Sessions {
    // SAFETY: the caller's promise.
    unsafe { &*(handle as *const Sessions) }
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_openFile<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    path: JString<'local>,
    options: JIntArray<'local>,
) -> jlong {
    env.with_env(|env| {
        let path = path.try_to_string(env)?;
        opened(env, &options, daq::format::read(path.as_ref()).map_err(Failure::from))
    })
    .resolve::<Throw>()
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_openBytes<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    bytes: JByteArray<'local>,
    options: JIntArray<'local>,
) -> jlong {
    env.with_env(|env| {
        let bytes = env.convert_byte_array(&bytes)?;
        opened(env, &options, daq::format::from_bytes(&bytes).map_err(Failure::from))
    })
    .resolve::<Throw>()
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_openDescriptor<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    fd: jint,
    offset: jlong,
    length: jlong,
    options: JIntArray<'local>,
) -> jlong {
    env.with_env(|env| opened(env, &options, part(fd, offset, length))).resolve::<Throw>()
}

#[cfg(unix)]
fn part(fd: jint, offset: jlong, length: jlong) -> Result<Graph, Failure> {
    use std::fs::File;
    use std::mem::ManuallyDrop;
    use std::os::fd::FromRawFd;

    if fd < 0 || offset < 0 || length < 0 {
        return Err(wrong(format!(
            "descriptor {fd}, offset {offset}, length {length}: none may be negative"
        )));
    }
    // SAFETY: a descriptor that is not open makes reads fail; that it stays the caller's is what
    // ManuallyDrop is for.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    Ok(daq::format::read_part(&file, offset as u64, length as u64)?)
}

#[cfg(not(unix))]
fn part(_: jint, _: jlong, _: jlong) -> Result<Graph, Failure> {
    Err(wrong("file descriptors are for Unix and Android; use readFile or readBuffer"))
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_close<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
) {
    env.with_env(|_| {
        // SAFETY: `dev.daq.Handle` gives each handle here once, when nobody uses it.
        drop(unsafe { Box::from_raw(handle as *mut Sessions) });
        Ok::<(), Failure>(())
    })
    .resolve::<Throw>()
}

/// Port `index` of the inputs or outputs.
///
/// # Safety
/// As for [`sessions`].
unsafe fn port<'a>(handle: jlong, output: jboolean, index: jint) -> Result<&'a Port, Failure> {
    // SAFETY: the caller's promise.
    let plan = unsafe { sessions(handle) }.model().plan();
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let found = match output {
        true => plan.outputs().nth(index),
        false => plan.inputs().nth(index),
    };
    found.ok_or_else(|| wrong(format!("there is no tensor {index}")))
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_count<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    output: jboolean,
) -> jint {
    env.with_env(|_| {
        // SAFETY: Java keeps the handle open.
        let plan = unsafe { sessions(handle) }.model().plan();
        let count = if output { plan.outputs().count() } else { plan.inputs().count() };
        Ok::<_, Failure>(count as jint)
    })
    .resolve::<Throw>()
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_name<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    output: jboolean,
    index: jint,
) -> jstring {
    env.with_env(|env| {
        // SAFETY: Java keeps the handle open.
        let port = unsafe { port(handle, output, index) }?;
        Ok::<_, Failure>(Returned(env.new_string(&port.name)?.into_raw()))
    })
    .resolve::<Throw>()
    .0
}

/// The element type, the layout, whether it has a scale, the zero point, then the shape.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_describe<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    output: jboolean,
    index: jint,
) -> jintArray {
    env.with_env(|env| {
        // SAFETY: Java keeps the handle open.
        let port = unsafe { port(handle, output, index) }?;
        let dtype = match port.dtype {
            DType::F32 => 0,
            DType::U8 => 1,
            DType::I8 => 2,
            DType::I32 => 3,
            DType::I64 => 4,
            _ => 5,
        };
        let quant = port.quant.as_ref();
        let layout = i32::from(port.layout == Layout::ChannelsLast);
        let zero_point = quant.map_or(0, |q| q.zero_point_of(0));
        let mut all = vec![dtype, layout, i32::from(quant.is_some()), zero_point];
        for &n in &port.shape {
            all.push(i32::try_from(n).map_err(|_| wrong(format!("a dimension of {n}")))?);
        }
        let array = env.new_int_array(all.len())?;
        array.set_region(env, 0, &all)?;
        Ok::<_, Failure>(Returned(array.into_raw()))
    })
    .resolve::<Throw>()
    .0
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_scale<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    output: jboolean,
    index: jint,
) -> jfloat {
    env.with_env(|_| {
        // SAFETY: Java keeps the handle open.
        let port = unsafe { port(handle, output, index) }?;
        Ok::<_, Failure>(port.quant.as_ref().map_or(0.0, |q| q.scale_of(0)))
    })
    .resolve::<Throw>()
}

/// A reference for Java; null where the call failed.
struct Returned(jobject);

impl Default for Returned {
    fn default() -> Self {
        Returned(std::ptr::null_mut())
    }
}

/// Predicts from a float[] or byte[] for the only input; output `output` as a new array of the
/// kind asked for.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_predictArray<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    input: JObject<'local>,
    codes_in: jboolean,
    codes_out: jboolean,
    output: jint,
) -> jobject {
    env.with_env(|env| {
        // SAFETY: Java keeps the handle open.
        let sessions = unsafe { sessions(handle) };
        let output = output as usize;
        let raw = match codes_in {
            true => {
                // SAFETY: Java says which of the two types it is.
                let array = unsafe { JByteArray::from_raw(env, input.as_raw()) };
                let codes = env.convert_byte_array(&array)?;
                match codes_out {
                    true => bytes(env, &predict::<u8, u8>(sessions, &codes, output)?)?,
                    false => floats(env, &predict::<u8, f32>(sessions, &codes, output)?)?,
                }
            }
            false => {
                // SAFETY: Java says which of the two types it is.
                let array = unsafe { JFloatArray::from_raw(env, input.as_raw()) };
                let mut real = vec![0f32; array.len(env)?];
                array.get_region(env, 0, &mut real)?;
                match codes_out {
                    true => bytes(env, &predict::<f32, u8>(sessions, &real, output)?)?,
                    false => floats(env, &predict::<f32, f32>(sessions, &real, output)?)?,
                }
            }
        };
        Ok::<_, Failure>(Returned(raw))
    })
    .resolve::<Throw>()
    .0
}

fn bytes(env: &mut Env, codes: &[u8]) -> Result<jobject, Failure> {
    Ok(env.byte_array_from_slice(codes)?.into_raw())
}

fn floats(env: &mut Env, real: &[f32]) -> Result<jobject, Failure> {
    let array = env.new_float_array(real.len())?;
    array.set_region(env, 0, real)?;
    Ok(array.into_raw())
}

/// One input; the output asked for.
fn predict<I: Element, O: Element>(
    sessions: &Sessions,
    input: &[I],
    output: usize,
) -> Result<Vec<O>, Failure> {
    let plan = sessions.model().plan();
    let len = |p: &Port| p.shape.iter().product::<usize>();
    let mut outputs: Vec<Vec<O>> =
        plan.outputs().map(|p| vec![bytemuck::Zeroable::zeroed(); len(p)]).collect();
    let mut slices: Vec<&mut [O]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    sessions.with(|s| s.predict(&[input], &mut slices))?;
    match output < outputs.len() {
        true => Ok(outputs.swap_remove(output)),
        false => Err(wrong(format!("there is no output {output}"))),
    }
}

/// Predicts from direct buffers into direct buffers. `places` are the first element and the number
/// of elements of each input, then of each output.
#[unsafe(no_mangle)]
pub extern "system" fn Java_dev_daq_Native_predictBuffers<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    inputs: JObjectArray<'local>,
    outputs: JObjectArray<'local>,
    places: JIntArray<'local>,
    codes_in: jboolean,
    codes_out: jboolean,
) {
    env.with_env(|env| {
        // SAFETY: Java keeps the handle open.
        let sessions = unsafe { sessions(handle) };
        let count = [inputs.len(env)?, outputs.len(env)?];
        let mut places_read = vec![0; 2 * (count[0] + count[1])];
        places.get_region(env, 0, &mut places_read)?;
        let (first, second) = places_read.split_at(2 * count[0]);
        let width = |codes: bool| if codes { 1 } else { size_of::<f32>() };
        let inputs = regions(env, "input", &inputs, first, width(codes_in))?;
        let outputs = regions(env, "output", &outputs, second, width(codes_out))?;
        disjoint(&inputs, &outputs)?;
        // SAFETY: each region is inside of its buffer, aligned, and overlaps no output; the buffers
        // live for this call, since their arrays refer to them.
        unsafe {
            match (codes_in, codes_out) {
                (false, false) => direct::<f32, f32>(sessions, &inputs, &outputs),
                (false, true) => direct::<f32, u8>(sessions, &inputs, &outputs),
                (true, false) => direct::<u8, f32>(sessions, &inputs, &outputs),
                (true, true) => direct::<u8, u8>(sessions, &inputs, &outputs),
            }
        }
    })
    .resolve::<Throw>()
}

/// Part of a direct buffer: address, elements, bytes of an element.
struct Region {
    start: *mut u8,
    len: usize,
    width: usize,
}

fn regions(
    env: &mut Env,
    what: &str,
    buffers: &JObjectArray,
    places: &[jint],
    width: usize,
) -> Result<Vec<Region>, Failure> {
    let mut all = Vec::new();
    for (i, place) in places.chunks_exact(2).enumerate() {
        let buffer: JObject = buffers.get_element(env, i)?;
        if buffer.is_null() {
            return Err(wrong(format!("{what} {i} is null")));
        }
        // SAFETY: Java gives ByteBuffer or FloatBuffer, which the two functions below take alike.
        let buffer = unsafe { JByteBuffer::from_raw(env, buffer.into_raw()) };
        let start = env.get_direct_buffer_address(&buffer)?;
        let capacity = env.get_direct_buffer_capacity(&buffer)?;
        let (at, len) = (place[0] as usize, place[1] as usize);
        if at.checked_add(len).is_none_or(|end| end > capacity) {
            return Err(wrong(format!("{what} {i} ends outside of its buffer")));
        }
        let start = start.wrapping_add(at * width);
        if !start.addr().is_multiple_of(width) {
            return Err(wrong(format!("{what} {i} is not aligned to {width} bytes")));
        }
        all.push(Region { start, len, width });
    }
    Ok(all)
}

/// Whether no output overlaps an input or another output.
fn disjoint(inputs: &[Region], outputs: &[Region]) -> Result<(), Failure> {
    let range = |r: &Region| (r.start.addr(), r.start.addr() + r.len * r.width);
    for (i, output) in outputs.iter().enumerate() {
        let (from, to) = range(output);
        let mut others = inputs.iter().chain(&outputs[i + 1..]).map(range);
        if others.any(|(a, b)| a < to && from < b) {
            return Err(wrong(format!(
                "output {i} overlaps another buffer; give each memory of its own"
            )));
        }
    }
    Ok(())
}

/// # Safety
/// The regions are of live memory, aligned for their types, and no output overlaps another region.
unsafe fn direct<I: Element, O: Element>(
    sessions: &Sessions,
    inputs: &[Region],
    outputs: &[Region],
) -> Result<(), Failure> {
    let inputs: Vec<&[I]> = inputs
        .iter()
        // SAFETY: the caller's promise; a direct buffer's address is never null.
        .map(|r| unsafe { std::slice::from_raw_parts(r.start.cast(), r.len) })
        .collect();
    let mut outputs: Vec<&mut [O]> = outputs
        .iter()
        // SAFETY: as above.
        .map(|r| unsafe { std::slice::from_raw_parts_mut(r.start.cast(), r.len) })
        .collect();
    Ok(sessions.with(|s| s.predict(&inputs, &mut outputs))?)
}
