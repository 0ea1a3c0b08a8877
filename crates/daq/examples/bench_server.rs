//! Loads a model once and times it whenever asked, so that other runtimes can be timed in between.
//!
//! `bench_server MODEL.daq INPUT.f32 THREADS`, where `INPUT.f32` holds the floats of all inputs, little-endian,
//! in order. Says `ready LOAD FIRST`: the nanoseconds from opening the file to a session, and those of the first
//! inference. Then answers lines on stdin:
//!
//! - `run WARM N`: WARM inferences that are not measured, then N that are; their nanoseconds, on one line
//! - `output FILE`: writes the floats of all outputs there; `done`
//!
//! Floats go in and come out, whatever the model holds inside. `benches/peers` speaks to this program.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use daq::{Model, Port, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, threads] = &args[..] else {
        return Err("usage: bench_server MODEL.daq INPUT.f32 THREADS".into());
    };
    let floats = read_floats(input)?;

    let start = Instant::now();
    let mut session = Model::open(model)?.session(threads.parse()?);
    let load = start.elapsed();
    let inputs = split(&floats, &session.inputs()).ok_or("the input file has a wrong size")?;
    let mut outputs: Vec<_> = session.outputs().iter().map(|p| vec![0f32; len(p)]).collect();
    let first = time(&mut session, &inputs, &mut outputs)?;
    println!("ready {} {first}", load.as_nanos());

    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["run", warm, n] => {
                for _ in 0..warm.parse()? {
                    time(&mut session, &inputs, &mut outputs)?;
                }
                let times: Result<Vec<_>, Box<dyn Error>> = (0..n.parse()?)
                    .map(|_| Ok(time(&mut session, &inputs, &mut outputs)?.to_string()))
                    .collect();
                println!("{}", times?.join(" "));
            }
            ["output", file] => {
                let bytes: Vec<u8> =
                    outputs.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
                std::fs::write(file, bytes)?;
                println!("done");
            }
            _ => return Err(format!("not a request: {line}").into()),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The nanoseconds of one inference.
fn time(session: &mut Session, inputs: &[&[f32]], outputs: &mut [Vec<f32>]) -> daq::Result<u128> {
    let mut outputs: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let start = Instant::now();
    session.predict(inputs, &mut outputs)?;
    Ok(start.elapsed().as_nanos())
}

fn len(port: &Port) -> usize {
    port.shape.iter().product()
}

/// The part of `floats` that belongs to each port.
fn split<'a>(mut floats: &'a [f32], ports: &[&Port]) -> Option<Vec<&'a [f32]>> {
    let mut parts = Vec::new();
    for port in ports {
        let (part, rest) = floats.split_at_checked(len(port))?;
        parts.push(part);
        floats = rest;
    }
    floats.is_empty().then_some(parts)
}

fn read_floats(path: &str) -> std::io::Result<Vec<f32>> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
