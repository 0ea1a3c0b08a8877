//! From a file to 8-bit pixels, safely: files come from anywhere, so sizes are limited before anything is
//! allocated, and a picture that was cut off is an error rather than a grey patch in the calibration.

use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};

use super::options::Size;
use super::resize::Pixels;

/// A decoded picture may take this much memory: 64 megapixels in colour.
const MAX_DECODED: u64 = 192 << 20;
/// Longest side; it keeps a forged size out even when the picture is thin.
const MAX_SIDE: u32 = 32_768;
/// A JPEG or PNG file larger than this is not a picture to calibrate with.
const MAX_FILE: u64 = 256 << 20;

/// The size of a picture, from the start of its file.
pub(super) fn size(path: &Path) -> Result<Size, String> {
    let reader = ImageReader::open(path).map_err(|e| e.to_string())?;
    let reader = reader.with_guessed_format().map_err(|e| e.to_string())?;
    if !matches!(reader.format(), Some(ImageFormat::Jpeg | ImageFormat::Png)) {
        return Err("neither a JPEG nor a PNG".into());
    }
    match reader.into_dimensions().map_err(|e| e.to_string())? {
        (0, _) | (_, 0) => Err("the picture has no pixels".into()),
        (width, height) => Ok(Size { height: height as usize, width: width as usize }),
    }
}

/// Decodes a JPEG or PNG to one channel or to three (RGB). The format is taken from the content, not the
/// name. Alpha is dropped, 16-bit samples are rounded to 8, palettes expanded, and the EXIF orientation is
/// ignored: all as Pillow's `convert("RGB")`, which training pipelines use. Grey pictures stay grey.
pub(super) fn decode(path: &Path, gray: bool) -> Result<Pixels, String> {
    let mut file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("the file is larger than {} MiB", MAX_FILE >> 20));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.by_ref().take(MAX_FILE).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    decode_bytes(&bytes, gray)
}

fn decode_bytes(bytes: &[u8], gray: bool) -> Result<Pixels, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let format = reader.format();
    if !matches!(format, Some(ImageFormat::Jpeg | ImageFormat::Png)) {
        return Err("neither a JPEG nor a PNG".into());
    }
    if format == Some(ImageFormat::Jpeg) && !jpeg_is_complete(bytes) {
        return Err("truncated: the JPEG has no end".into());
    }
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| match e {
        image::ImageError::Limits(_) => {
            let (mib, side) = (MAX_DECODED >> 20, MAX_SIDE);
            format!("larger than {mib} MiB decoded, or a side longer than {side} pixels")
        }
        e => e.to_string(),
    })?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if width == 0 || height == 0 {
        return Err("the picture has no pixels".into());
    }
    let (channels, data) = if picture.color().has_color() {
        let rgb = match picture {
            DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
            other => other.into_rgb8().into_raw(),
        };
        if gray { (1, rgb.as_chunks().0.iter().map(luma).collect()) } else { (3, rgb) }
    } else {
        (1, picture.into_luma8().into_raw())
    };
    Ok(Pixels { width, height, channels, data })
}

/// The ITU-R 601 luma, in Pillow's fixed point.
fn luma(&[r, g, b]: &[u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// Whether the marker that ends a JPEG follows its scans. The decoder fills what is missing with grey.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xff)) {
        at += offset + 1;
        match bytes.get(at) {
            Some(0xd9) => return true,
            // Padding before a marker.
            Some(0xff) => {}
            // A stuffed zero and restart markers belong to a scan.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            // Any other marker starts a segment, which may hold anything, a thumbnail's end included.
            Some(_) => match bytes.get(at + 1..at + 3) {
                Some(&[high, low]) => at += 1 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Luma, LumaA, Rgb, Rgba};

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn gradient() -> DynamicImage {
        ImageBuffer::from_fn(40, 30, |x, y| Rgb([x as u8 * 6, y as u8 * 8, 128])).into()
    }

    #[test]
    fn every_kind_of_png_becomes_8_bits() {
        let cases: [(DynamicImage, bool, &[u8]); 8] = [
            (ImageBuffer::from_pixel(1, 1, Rgb([1u8, 2, 3])).into(), false, &[1, 2, 3]),
            // 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
            (ImageBuffer::from_pixel(1, 1, Rgb([200u8, 100, 50])).into(), true, &[124]),
            (ImageBuffer::from_pixel(1, 1, Rgba([9u8, 8, 7, 0])).into(), false, &[9, 8, 7]),
            (ImageBuffer::from_pixel(1, 1, Luma([77u8])).into(), false, &[77]),
            (ImageBuffer::from_pixel(1, 1, LumaA([77u8, 3])).into(), false, &[77]),
            (ImageBuffer::from_pixel(1, 1, Luma([0x8000u16])).into(), false, &[128]),
            (
                ImageBuffer::from_pixel(1, 1, Rgb([0u16, 0xffff, 257 * 20])).into(),
                false,
                &[0, 255, 20],
            ),
            (ImageBuffer::from_pixel(1, 1, Rgba([257u16, 514, 771, 9])).into(), false, &[1, 2, 3]),
        ];
        for (picture, gray, expected) in cases {
            let read = decode_bytes(&encoded(&picture, ImageFormat::Png), gray).unwrap();
            assert_eq!(
                (read.width, read.height, read.data.as_slice()),
                (1, 1, expected),
                "{:?}",
                picture.color()
            );
        }
    }

    #[test]
    fn jpegs_come_close() {
        let read = decode_bytes(&encoded(&gradient(), ImageFormat::Jpeg), false).unwrap();
        let original = gradient().into_rgb8().into_raw();
        let worst = read.data.iter().zip(&original).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst < Some(24), "{worst:?}");
    }

    #[test]
    fn truncated_pictures_are_errors_and_flipped_bits_no_panic() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let whole = encoded(&gradient(), format);
            for cut in 0..whole.len() - if format == ImageFormat::Png { 12 } else { 0 } {
                assert!(decode_bytes(&whole[..cut], false).is_err(), "{format:?} cut at {cut}");
            }
            for at in 0..whole.len() {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << (at % 8);
                let _ = decode_bytes(&flipped, false);
            }
        }
    }

    #[test]
    fn forged_sizes_are_refused() {
        let mut jpeg = encoded(&gradient(), ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x7f; 4]);
        let error = decode_bytes(&jpeg, false).unwrap_err();
        assert!(error.contains("192 MiB"), "{error}");
        for text in [&b""[..], b"GIF89a", b"hello", b"\xff\xd8\xff"] {
            decode_bytes(text, false).unwrap_err();
        }
    }
}
