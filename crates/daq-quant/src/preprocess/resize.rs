//! From a decoded picture to one of the target size: geometry, and filters that agree with Pillow's.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::options::{Interpolation, PadPlace, Resize, Size};

/// 8-bit pixels, rows from the top, channels (1 or 3) innermost.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) data: Vec<u8>,
}

/// Where the pixels of the target come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placement {
    /// The size of the resized piece.
    pub(super) size: Size,
    /// Its left and top edge in the target.
    pub(super) at: (usize, usize),
    /// The rectangle of the source that becomes the piece: left, top, width, height.
    pub(super) from: [f64; 4],
}

/// Half to even, as Python's `round`, which training pipelines centre their crops with.
fn half(n: usize) -> usize {
    n / 2 + usize::from(n % 4 == 3)
}

impl Placement {
    /// The geometry of `resize` for a source of `width` x `height` pixels.
    pub(super) fn new(resize: Resize, width: usize, height: usize, target: Size) -> Self {
        let (w, h) = (width as f64, height as f64);
        let all = [0.0, 0.0, w, h];
        let scaled = |n: f64, limit: usize| (n.round() as usize).clamp(1, limit);
        match resize {
            Resize::Stretch => Self { size: target, at: (0, 0), from: all },
            Resize::Crop(ratio) => {
                // The whole picture is resized to cover (bw, bh), its long side truncated as torchvision does ...
                let grown = |n: usize| (n as f64 / super::options::short(ratio)).round() as usize;
                let (bw, bh) = (grown(target.width), grown(target.height));
                let (rw, rh) = match width as u128 * bh as u128 >= height as u128 * bw as u128 {
                    true => ((bh as u128 * width as u128 / height as u128) as usize, bh),
                    false => (bw, (bw as u128 * height as u128 / width as u128) as usize),
                };
                // ... but only the part that is kept gets computed: the same filter taps, without the
                // gigantic picture that a very long one would become.
                let (x, y) = (half(rw - target.width), half(rh - target.height));
                let (sx, sy) = (w / rw as f64, h / rh as f64);
                let (x, y) = (x as f64 * sx, y as f64 * sy);
                let from_width = (target.width as f64 * sx).min(w - x);
                let from_height = (target.height as f64 * sy).min(h - y);
                Self { size: target, at: (0, 0), from: [x, y, from_width, from_height] }
            }
            Resize::Pad(place) => {
                let size = match place {
                    PadPlace::Right => {
                        let width = scaled((target.height as f64 * w / h).ceil(), target.width);
                        Size { height: target.height, width }
                    }
                    PadPlace::TopLeft | PadPlace::Center => {
                        let scale = (target.width as f64 / w).min(target.height as f64 / h);
                        Size {
                            width: scaled(w * scale, target.width),
                            height: scaled(h * scale, target.height),
                        }
                    }
                };
                let at = match place {
                    PadPlace::Center => {
                        ((target.width - size.width) / 2, (target.height - size.height) / 2)
                    }
                    _ => (0, 0),
                };
                Self { size, at, from: all }
            }
        }
    }
}

/// Resizes the rectangle that `place` names.
///
/// # Errors
/// The text of the resizer's error; sizes out of its range are the only known cause.
pub(super) fn resize(
    pixels: Pixels,
    how: Interpolation,
    place: &Placement,
) -> Result<Pixels, String> {
    let Size { width, height } = place.size;
    let [left, top, from_width, from_height] = place.from;
    let filter = match how {
        Interpolation::Nearest => return Ok(nearest(&pixels, place)),
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic => FilterType::CatmullRom,
        Interpolation::Area => FilterType::Box,
    };
    // Pillow filters the rows first and keeps 8 bits between; done the other way round, bicubic overshoots
    // are cut off elsewhere. Only rows that the second pass reads are computed.
    let reach = 2.0 * (from_height / height as f64).max(1.0) + 2.0;
    let first = (top - reach).floor().max(0.0);
    let rows = (top + from_height + reach).ceil().min(pixels.height as f64) - first;
    let between = convolve(&pixels, filter, [left, first, from_width, rows], width, rows as usize)?;
    convolve(&between, filter, [0.0, top - first, width as f64, from_height], width, height)
}

/// Makes the rectangle `from` (left, top, width, height) into `width` x `height` pixels.
fn convolve(
    pixels: &Pixels,
    filter: FilterType,
    from: [f64; 4],
    width: usize,
    height: usize,
) -> Result<Pixels, String> {
    let kind = if pixels.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let side = |n: usize| u32::try_from(n).map_err(|e| e.to_string());
    let source = ImageRef::new(side(pixels.width)?, side(pixels.height)?, &pixels.data, kind)
        .map_err(|e| e.to_string())?;
    let mut out = Image::new(side(width)?, side(height)?, kind);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(filter))
        .crop(from[0], from[1], from[2], from[3])
        .use_alpha(false);
    Resizer::new().resize(&source, &mut out, &options).map_err(|e| e.to_string())?;
    Ok(Pixels { width, height, channels: pixels.channels, data: out.into_vec() })
}

/// The source pixel under each target pixel's centre.
fn nearest(pixels: &Pixels, place: &Placement) -> Pixels {
    let Size { width, height } = place.size;
    let [left, top, from_width, from_height] = place.from;
    let under = |start: f64, length: f64, n: usize, limit: usize| -> Vec<usize> {
        let step = length / n as f64;
        (0..n).map(|i| ((start + (i as f64 + 0.5) * step) as usize).min(limit - 1)).collect()
    };
    let columns = under(left, from_width, width, pixels.width);
    let c = pixels.channels;
    let mut data = Vec::with_capacity(width * height * c);
    for y in under(top, from_height, height, pixels.height) {
        let row = &pixels.data[y * pixels.width * c..][..pixels.width * c];
        columns.iter().for_each(|&x| data.extend_from_slice(&row[x * c..][..c]));
    }
    Pixels { width, height, channels: c, data }
}
