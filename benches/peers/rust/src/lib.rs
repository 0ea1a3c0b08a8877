//! The protocol of `benches/peers` (see `worker.py` there) around a function that infers.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

/// What goes wrong here ends the process; `run.py` shows its last words.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Opens and serves a model: `PROGRAM MODEL.onnx INPUT.f32 THREADS [once]`.
///
/// `open` takes the model, the floats of its input and the number of threads; what it gives infers once and returns
/// the floats of the output.
pub fn serve<F: FnMut() -> Result<Vec<f32>>>(
    open: impl FnOnce(&Path, Vec<f32>, usize) -> Result<F>,
) -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(model), Some(input), Some(threads)) = (args.first(), args.get(1), args.get(2)) else {
        return Err("usage: PROGRAM MODEL.onnx INPUT.f32 THREADS [once]".into());
    };
    let bytes = std::fs::read(input)?;
    let floats: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();

    let start = Instant::now();
    let mut infer = open(Path::new(model), floats, threads.parse()?)?;
    let load = start.elapsed();
    let start = Instant::now();
    let mut output = infer()?;
    println!("ready {} {}", load.as_nanos(), start.elapsed().as_nanos());
    if args.len() > 3 {
        return Ok(());
    }

    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["run", warm, n] => {
                for _ in 0..warm.parse()? {
                    output = infer()?;
                }
                let mut times = Vec::new();
                for _ in 0..n.parse()? {
                    let start = Instant::now();
                    output = infer()?;
                    times.push(start.elapsed().as_nanos().to_string());
                }
                println!("{}", times.join(" "));
            }
            ["output", file] => {
                std::fs::write(
                    file,
                    output.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(),
                )?;
                println!("done");
            }
            _ => return Err(format!("not a request: {line}").into()),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}
