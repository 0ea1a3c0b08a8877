//! From a decoded picture to one of the target size: geometry, and filters that agree with Pillow's.

use fast_image_resize::images::TypedImage;
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

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
    pub(super) from: [usize; 4],
}

impl Placement {
    /// The geometry of `resize` for a source of `width` x `height` pixels.
    pub(super) fn new(resize: Resize, width: usize, height: usize, target: Size) -> Self {
        let (w, h) = (width as f64, height as f64);
        let all = [0, 0, width, height];
        let scaled = |n: f64, limit: usize| (n.round() as usize).clamp(1, limit);
        match resize {
            Resize::Stretch => Self { size: target, at: (0, 0), from: all },
            Resize::Crop(ratio) => {
                // The largest rectangle of the target's shape, then the ratio of its sides, truncated.
                let unit = (w / target.width as f64).min(h / target.height as f64)
                    * super::options::short(ratio);
                let side = |n: usize, limit: usize| ((n as f64 * unit) as usize).clamp(1, limit);
                let (cw, ch) = (side(target.width, width), side(target.height, height));
                let from = [(width - cw) / 2, (height - ch) / 2, cw, ch];
                Self { size: target, at: (0, 0), from }
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

/// Cuts the rectangle that `place` names and resizes it; the filters see nothing around it.
///
/// # Errors
/// The text of the resizer's error; sizes out of its range are the only known cause.
pub(super) fn resize(
    pixels: Pixels,
    how: Interpolation,
    place: &Placement,
) -> Result<Pixels, String> {
    let Size { width, height } = place.size;
    let pixels = cut(pixels, place.from);
    let filter = match how {
        Interpolation::Nearest => return Ok(nearest(&pixels, place.size)),
        Interpolation::Bilinear => FilterType::Bilinear,
        Interpolation::Bicubic => FilterType::CatmullRom,
        Interpolation::Area => FilterType::Box,
    };
    // Pillow filters the rows first and keeps 8 bits between; done the other way round, bicubic overshoots
    // are cut off elsewhere.
    let rows = pixels.height;
    let between = convolve(pixels, filter, width, rows)?;
    convolve(between, filter, width, height)
}

/// The rectangle `[left, top, width, height]` of a picture.
fn cut(pixels: Pixels, [left, top, width, height]: [usize; 4]) -> Pixels {
    if (width, height) == (pixels.width, pixels.height) {
        return pixels;
    }
    let c = pixels.channels;
    let mut data = Vec::with_capacity(width * height * c);
    for row in pixels.data.chunks_exact(pixels.width * c).skip(top).take(height) {
        data.extend_from_slice(&row[left * c..][..width * c]);
    }
    Pixels { width, height, channels: c, data }
}

/// Filters a picture to `width` x `height` pixels.
fn convolve(
    mut pixels: Pixels,
    filter: FilterType,
    width: usize,
    height: usize,
) -> Result<Pixels, String> {
    let channels = pixels.channels;
    let mut out = Pixels { width, height, channels, data: vec![0; width * height * channels] };
    match channels {
        1 => convolve_as::<U8>(&mut pixels, filter, &mut out)?,
        _ => convolve_as::<U8x3>(&mut pixels, filter, &mut out)?,
    }
    Ok(out)
}

/// Filters pixels of one type. Each pair of types of a source and a target compiles all filters once more:
/// `Resizer::resize` would for every type of pixel, and a source that is only read for its own type.
fn convolve_as<P: PixelTrait>(
    from: &mut Pixels,
    filter: FilterType,
    to: &mut Pixels,
) -> Result<(), String> {
    fn image<P: PixelTrait>(of: &mut Pixels) -> Result<TypedImage<'_, P>, String> {
        let side = |n: usize| u32::try_from(n).map_err(|e| e.to_string());
        TypedImage::from_buffer(side(of.width)?, side(of.height)?, &mut of.data)
            .map_err(|e| e.to_string())
    }
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    Resizer::new()
        .resize_typed(&image::<P>(from)?, &mut image::<P>(to)?, &options)
        .map_err(|e| e.to_string())
}

/// The source pixel under each target pixel's centre.
fn nearest(pixels: &Pixels, Size { width, height }: Size) -> Pixels {
    // Adding steps, as Pillow does, decides ties as Pillow does.
    let under = |n: usize, length: usize| -> Vec<usize> {
        let step = length as f64 / n as f64;
        let centres = std::iter::successors(Some(step * 0.5), |at| Some(at + step));
        centres.take(n).map(|at| (at as usize).min(length - 1)).collect()
    };
    let columns = under(width, pixels.width);
    let c = pixels.channels;
    let mut data = Vec::with_capacity(width * height * c);
    for y in under(height, pixels.height) {
        let row = &pixels.data[y * pixels.width * c..][..pixels.width * c];
        columns.iter().for_each(|&x| data.extend_from_slice(&row[x * c..][..c]));
    }
    Pixels { width, height, channels: c, data }
}
