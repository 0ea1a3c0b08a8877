//! Runs a model on a file of raw elements: the Rust side of `examples/same_bytes.sh`.
//!
//! `raw MODEL.daq f32|u8 f32|u8 INPUT OUTPUT [RUNS]` predicts; with RUNS as many times, and prints
//! the least microseconds that one took. `raw MODEL.daq real|code INPUT OUTPUT` makes real numbers of
//! codes or codes of real numbers, at the scale of the input.

use std::error::Error;
use std::fs;
use std::time::Instant;

use daq::tensor::Element;
use daq::{Model, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut session = Model::open(args.first().ok_or("which model?")?)?.session(1);
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
