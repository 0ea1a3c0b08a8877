//! Runs a model on a file of raw elements: the Rust side of `examples/same_bytes.sh`.
//!
//! `raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT [RUNS]` predicts; with RUNS as many times, and prints
//! the least microseconds that one took. `raw MODEL.daq f32|u8 f32|u8 INPUT beside LIBRARY daq|cpp RUNS`
//! predicts from Rust and through the C library (or pairs.cpp) by turns, in this process, and prints the
//! least microseconds of the latter and the median of what it takes over Rust, pair by pair, in percent: what both are
//! held up by is in both. `raw MODEL.daq real|code INPUT OUTPUT` makes real numbers of
//! codes or codes of real numbers, at the scale of the input.

use std::error::Error;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs;
use std::time::Instant;

use daq::tensor::Element;
use daq::{Model, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut session = Model::open(args.first().ok_or("which model?")?)?.session(1);
    if let [model, from, to, input, "beside", library, prefix, runs] = args[..] {
        let runs = runs.parse()?;
        let pairs = match (from, to) {
            ("f32", "f32") => beside::<f32, f32>,
            ("f32", "u8") => beside::<f32, u8>,
            ("u8", "f32") => beside::<u8, f32>,
            _ => beside::<u8, u8>,
        };
        let names = [format!("{prefix}_open"), format!("{prefix}_predict_{from}_{to}")];
        return pairs(&mut session, model, library, &names, input, runs);
    }
    let runs = args.get(5).map(|n| n.parse()).transpose()?;
    match args[1..] {
        ["f32", "f32", input, output, ..] => predict::<f32, f32>(&mut session, input, output, runs),
        ["f32", "u8", input, output, ..] => predict::<f32, u8>(&mut session, input, output, runs),
        ["u8", "f32", input, output, ..] => predict::<u8, f32>(&mut session, input, output, runs),
        ["u8", "u8", input, output, ..] => predict::<u8, u8>(&mut session, input, output, runs),
        [how @ ("real" | "code"), input, output] => {
            let quant = session.inputs()[0].quant.clone().ok_or("the input has no scale")?;
            let bytes = fs::read(input)?;
            let made: Vec<u8> = match how {
                "real" => bytes.iter().flat_map(|&c| quant.real(c.into()).to_le_bytes()).collect(),
                _ => elements::<f32>(&bytes).iter().map(|&x| quant.code(x, 0, 255) as u8).collect(),
            };
            Ok(fs::write(output, made)?)
        }
        _ => Err("raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT, or real|code INPUT OUTPUT".into()),
    }
}

fn elements<T: Element>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

type Predict<I, O> = unsafe extern "C" fn(
    *const c_void,
    *const *const I,
    *const usize,
    usize,
    *const *mut O,
    *const usize,
    usize,
) -> c_int;

fn beside<I: Element, O: Element>(
    session: &mut Session,
    model: &str,
    library: &str,
    [open, name]: &[String; 2],
    input: &str,
    runs: usize,
) -> Result<(), Box<dyn Error>> {
    type Open = unsafe extern "C" fn(*const c_char, *const c_void, *mut *mut c_void) -> c_int;
    let input = elements::<I>(&fs::read(input)?);
    let sizes: Vec<usize> =
        session.outputs().into_iter().map(|p| p.shape.iter().product()).collect();
    let buffers = || sizes.iter().map(|&n| vec![<O as bytemuck::Zeroable>::zeroed(); n]).collect();
    let (mut ours, mut theirs): (Vec<Vec<O>>, Vec<Vec<O>>) = (buffers(), buffers());
    let mut slices: Vec<&mut [O]> = ours.iter_mut().map(Vec::as_mut_slice).collect();
    let pointers: Vec<*mut O> = theirs.iter_mut().map(|o| o.as_mut_ptr()).collect();
    let path = CString::new(model)?;
    let mut opened = std::ptr::null_mut();
    // SAFETY: the functions have these types in daq.h; the path is a string, and null options are the
    // usual ones.
    let (_library, predict) = unsafe {
        let library = libloading::Library::new(library)?;
        let open_model: Open = *library.get(open.as_bytes())?;
        let predict: Predict<I, O> = *library.get(name.as_bytes())?;
        let status = open_model(path.as_ptr(), std::ptr::null(), &mut opened);
        if status != 0 {
            return Err(format!("{open} gives {status}").into());
        }
        (library, predict)
    };
    let (mut least, mut over) = (f64::INFINITY, Vec::new());
    for i in 0..runs + 4 {
        let mut rust = || {
            let start = Instant::now();
            session.predict(&[&input], &mut slices).map(|()| start.elapsed().as_secs_f64())
        };
        let c = || {
            let start = Instant::now();
            let (inputs, outputs) = ([input.as_ptr()], pointers.as_ptr());
            // SAFETY: the model is open, and each buffer as long as its size says.
            let status = unsafe {
                let (inputs, length) = (inputs.as_ptr(), &input.len());
                predict(opened, inputs, length, 1, outputs, sizes.as_ptr(), sizes.len())
            };
            match status {
                0 => Ok(start.elapsed().as_secs_f64()),
                _ => Err(format!("{name} gives {status}")),
            }
        };
        // Each is first as often as the other.
        let (rust, c) = match i % 2 {
            0 => (rust()?, c()?),
            _ => {
                let c = c()?;
                (rust()?, c)
            }
        };
        // The first ones find nothing in the caches.
        if i >= 4 {
            least = least.min(c);
            over.push(c / rust - 1.0);
        }
    }
    over.sort_by(f64::total_cmp);
    println!("{:.1} {:+.2}", least * 1e6, 100.0 * over[over.len() / 2]);
    assert!(ours == theirs, "{name} and Rust give other outputs");
    Ok(())
}

fn predict<I: Element, O: Element>(
    session: &mut Session,
    input: &str,
    output: &str,
    runs: Option<usize>,
) -> Result<(), Box<dyn Error>> {
    let input = elements::<I>(&fs::read(input)?);
    let sizes = session.outputs().into_iter().map(|p| p.shape.iter().product::<usize>());
    let mut outputs: Vec<Vec<O>> = sizes.map(|n| vec![bytemuck::Zeroable::zeroed(); n]).collect();
    let mut slices: Vec<&mut [O]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let mut least = f64::INFINITY;
    for _ in 0..runs.unwrap_or(1) {
        let start = Instant::now();
        session.predict(&[&input], &mut slices)?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    if runs.is_some() {
        println!("{:.1}", least * 1e6);
    }
    let bytes: Vec<u8> = outputs.iter().flat_map(|o| bytemuck::cast_slice(o)).copied().collect();
    Ok(fs::write(output, bytes)?)
}
