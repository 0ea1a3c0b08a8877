//! Which way up is a line of text? `orientation MODEL.daq FRAME.ppm`, a frame of 192 x 48 pixels as a
//! camera gives.

use std::error::Error;

const HEADER: &[u8] = b"P6\n192 48\n255\n";
const PIXELS: usize = 48 * 192;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(frame)) = (args.next(), args.next()) else {
        return Err("usage: orientation MODEL.daq FRAME.ppm".into());
    };
    let file = std::fs::read(frame)?;
    let frame = file.strip_prefix(HEADER).filter(|f| f.len() == 3 * PIXELS);
    let frame = frame.ok_or("the frame is no binary PPM of 192 x 48 pixels")?;
    // As the model was trained: planes of blue, green and red from -1 to 1.
    let real = |c: usize, p: usize| (f32::from(frame[3 * p + 2 - c]) - 127.5) / 127.5;
    let input: Vec<f32> = (0..3).flat_map(|c| (0..PIXELS).map(move |p| real(c, p))).collect();

    let mut scores = [0f32; 2];
    let mut session = daq::Model::open(model)?.session(1);
    session.predict(&[&input], &mut [&mut scores])?;
    let best = usize::from(scores[1] > scores[0]);
    println!("{} degrees, {:.4}", ["0", "180"][best], scores[best]);
    Ok(())
}
