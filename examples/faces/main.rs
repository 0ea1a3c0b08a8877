//! Draws a box around each face: `faces MODEL.daq PICTURE OUT.png`, with an UltraFace model of 320 x 240
//! pixels (RGB, `(x - 127) / 128`), without its postprocessing: outputs are `scores`, pairs of background and
//! face, and `boxes`, each against a box that stands at its place beforehand.

use std::error::Error;

use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};

const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const LEAST_SCORE: f32 = 0.7;
/// Two boxes that share more of their union than this are one face.
const MOST_OVERLAP: f32 = 0.3;

/// The boxes that stand at each place of a grid: the grid's step, and the sides of its squares, in pixels.
const GRIDS: [(usize, &[f32]); 4] = [
    (8, &[10.0, 16.0, 24.0]),
    (16, &[32.0, 48.0]),
    (32, &[64.0, 96.0]),
    (64, &[128.0, 192.0, 256.0]),
];

struct Face {
    score: f32,
    /// Left, top, right and bottom, from 0 to 1.
    sides: [f32; 4],
}

impl Face {
    fn area(&self) -> f32 {
        let [left, top, right, bottom] = self.sides;
        (right - left).max(0.0) * (bottom - top).max(0.0)
    }

    /// The share of their union that both cover.
    fn overlap(&self, other: &Face) -> f32 {
        let (a, b) = (self.sides, other.sides);
        let sides = [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])];
        let both = Face { score: 0.0, sides }.area();
        both / (self.area() + other.area() - both).max(f32::MIN_POSITIVE)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(picture), Some(out)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: faces MODEL.daq PICTURE OUT.png".into());
    };
    let mut session = daq::Model::open(model)?.session(1);
    let lengths: Vec<usize> = session.outputs().iter().map(|o| o.shape.iter().product()).collect();
    let places = squares();
    if lengths != [2 * places.len(), 4 * places.len()] {
        return Err(format!(
            "outputs of {lengths:?} elements are not 2 scores and 4 sides of {} boxes",
            places.len()
        )
        .into());
    }

    let mut picture = image::open(picture)?.to_rgb8();
    let small = resize(&picture, WIDTH as u32, HEIGHT as u32, FilterType::Triangle).into_raw();
    let real = |c: usize, p: usize| (f32::from(small[3 * p + c]) - 127.0) / 128.0;
    let input: Vec<f32> =
        (0..3).flat_map(|c| (0..WIDTH * HEIGHT).map(move |p| real(c, p))).collect();
    let (mut scores, mut boxes) = (vec![0f32; lengths[0]], vec![0f32; lengths[1]]);
    session.predict(&[&input], &mut [&mut scores, &mut boxes])?;

    for face in faces(&scores, &boxes, &places) {
        let size = [picture.width(), picture.height()];
        let at =
            |i: usize| (face.sides[i].clamp(0.0, 1.0) * (size[i % 2] - 1) as f32).round() as u32;
        let sides = [at(0), at(1), at(2), at(3)];
        println!("{:.3} at {}, {} to {}, {}", face.score, sides[0], sides[1], sides[2], sides[3]);
        draw(&mut picture, sides);
    }
    picture.save(out)?;
    Ok(())
}

/// Centre and side of each square, in pixels, in the order of the model's outputs.
fn squares() -> Vec<[f32; 3]> {
    let mut squares = Vec::new();
    for (step, sides) in GRIDS {
        for y in 0..HEIGHT.div_ceil(step) {
            for x in 0..WIDTH.div_ceil(step) {
                let centre = |i: usize| (i as f32 + 0.5) * step as f32;
                squares.extend(sides.iter().map(|&side| [centre(x), centre(y), side]));
            }
        }
    }
    squares
}

/// The faces, surest first; where boxes overlap, the surest (non-maximum suppression).
fn faces(scores: &[f32], boxes: &[f32], squares: &[[f32; 3]]) -> Vec<Face> {
    let places = scores.chunks_exact(2).zip(boxes.chunks_exact(4)).zip(squares);
    let mut found: Vec<Face> = places
        .filter(|((score, _), _)| score[1] >= LEAST_SCORE)
        .map(|((score, b), &[x, y, side])| {
            // As single-shot detectors are trained: offsets in tenths of the square, logarithms of sizes in fifths.
            let (x, y) = (x + 0.1 * b[0] * side, y + 0.1 * b[1] * side);
            let (half_width, half_height) =
                ((0.2 * b[2]).exp() * side / 2.0, (0.2 * b[3]).exp() * side / 2.0);
            let (width, height) = (WIDTH as f32, HEIGHT as f32);
            let sides = [
                (x - half_width) / width,
                (y - half_height) / height,
                (x + half_width) / width,
                (y + half_height) / height,
            ];
            Face { score: score[1], sides }
        })
        .collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Face> = Vec::new();
    for face in found {
        if kept.iter().all(|k| k.overlap(&face) <= MOST_OVERLAP) {
            kept.push(face);
        }
    }
    kept
}

fn draw(picture: &mut RgbImage, [left, top, right, bottom]: [u32; 4]) {
    let wide = 1 + picture.width().min(picture.height()) / 200;
    for y in top..=bottom {
        for x in left..=right {
            if x < left + wide || x + wide > right || y < top + wide || y + wide > bottom {
                picture.put_pixel(x, y, Rgb([255, 200, 0]));
            }
        }
    }
}
