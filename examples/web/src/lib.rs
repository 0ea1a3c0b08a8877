//! The daq runtime for a web page: functions over numbers and memory that `daq.js` calls.
//!
//! A model takes one float input and gives its first output; both lie in memory that the page reads
//! and writes in place. Functions that fail return null (or 1), and [`daq_text`] then says why.

use std::cell::RefCell;
use std::fmt::Write;

use daq::{Layout, Model, Session};

thread_local! {
    /// What [`daq_text`] gives.
    static TEXT: RefCell<String> = RefCell::default();
}

/// A model that runs.
pub struct Runner {
    session: Session,
    input: Vec<f32>,
    outputs: Vec<Vec<f32>>,
}

fn say(text: String) {
    TEXT.set(text);
}

/// Memory for a file.
#[unsafe(no_mangle)]
pub extern "C" fn daq_alloc(len: usize) -> *mut u8 {
    Box::leak(vec![0; len].into_boxed_slice()).as_mut_ptr()
}

/// Opens a `.daq` file that lies in memory of [`daq_alloc`], and frees that memory. The text is then
/// about the model: lines of `key value`, where a value's own line ends are U+001E.
///
/// # Safety
///
/// `file` and `len` are of one call of [`daq_alloc`], and are not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_open(file: *mut u8, len: usize) -> *mut Runner {
    // SAFETY: the caller's promise: this is the box that `daq_alloc` leaked.
    let file = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(file, len)) };
    match open(&file) {
        Ok((runner, about)) => {
            say(about);
            Box::into_raw(Box::new(runner))
        }
        Err(why) => {
            say(why);
            std::ptr::null_mut()
        }
    }
}

fn open(file: &[u8]) -> Result<(Runner, String), String> {
    let model = Model::from_bytes(file).map_err(|e| e.to_string())?;
    let session = model.session(1);
    let (inputs, outputs) = (session.inputs(), session.outputs());
    let &[input] = inputs.as_slice() else {
        return Err(format!("the model takes {} inputs, the page gives one", inputs.len()));
    };
    let len = |shape: &[usize]| shape.iter().product::<usize>();
    let layout = if input.layout == Layout::ChannelsLast { "nhwc" } else { "nchw" };
    let shape = input.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut about =
        format!("isa {}\nlayout {layout}\nshape {shape}\n", daq_kernels::Isa::best().name());
    let first = outputs.first().ok_or("the model has no output")?;
    let _ = writeln!(about, "outputs {}", len(&first.shape));
    for (key, value) in &model.graph().metadata {
        let _ = writeln!(about, "{key} {}", value.replace('\n', "\u{1e}"));
    }
    let (input, outputs) = (
        vec![0.0; len(&input.shape)],
        outputs.iter().map(|port| vec![0.0; len(&port.shape)]).collect(),
    );
    Ok((Runner { session, input, outputs }, about))
}

/// The input's floats.
///
/// # Safety
///
/// `runner` is of [`daq_open`] and was not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_input(runner: *mut Runner) -> *mut f32 {
    // SAFETY: the caller's promise.
    unsafe { (*runner).input.as_mut_ptr() }
}

/// The first output's floats.
///
/// # Safety
///
/// As for [`daq_input`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_output(runner: *mut Runner) -> *const f32 {
    // SAFETY: the caller's promise; `open` made sure of an output.
    unsafe { (&(*runner).outputs)[0].as_ptr() }
}

/// Runs the model on its input; 0, or 1 where it fails.
///
/// # Safety
///
/// As for [`daq_input`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_run(runner: *mut Runner) -> u32 {
    // SAFETY: the caller's promise.
    let Runner { session, input, outputs } = unsafe { &mut *runner };
    let mut outputs: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    match session.predict(&[input.as_slice()], &mut outputs) {
        Ok(()) => 0,
        Err(why) => {
            say(why.to_string());
            1
        }
    }
}

/// Frees a model.
///
/// # Safety
///
/// As for [`daq_input`]; `runner` is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn daq_close(runner: *mut Runner) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(runner) });
}

/// UTF-8 of the last text, which the next call of any function may free.
#[unsafe(no_mangle)]
pub extern "C" fn daq_text() -> *const u8 {
    TEXT.with_borrow(|text| text.as_ptr())
}

/// Its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn daq_text_len() -> usize {
    TEXT.with_borrow(|text| text.len())
}
