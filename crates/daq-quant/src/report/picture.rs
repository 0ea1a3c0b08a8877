//! Small pictures inside of the page.

use std::io::Cursor;
use std::path::Path;

use base64::Engine;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};

use crate::preprocess::decode_rgb;

/// The longest side; twice what is shown, for dense screens.
const SIDE: u32 = 320;

/// A small JPEG of a picture file as a `data:` URI.
pub(super) fn data_uri(path: &Path) -> Result<String, String> {
    let picture = decode_rgb(path)?;
    let scale = (f64::from(SIDE) / f64::from(picture.width().max(picture.height()))).min(1.0);
    let side = |n: u32| ((f64::from(n) * scale).round() as u32).max(1);
    let small =
        resize(&picture, side(picture.width()), side(picture.height()), FilterType::Triangle);
    let mut bytes = Cursor::new(Vec::new());
    let encoder = JpegEncoder::new_with_quality(&mut bytes, 72);
    small.write_with_encoder(encoder).map_err(|e| e.to_string())?;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes.into_inner());
    Ok(format!("data:image/jpeg;base64,{text}"))
}
