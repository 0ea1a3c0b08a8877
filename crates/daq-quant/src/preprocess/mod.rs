//! From a picture file to the numbers a model reads.
//!
//! A quantized model is only as good as the pictures that calibrated it, and those must be prepared just
//! as in training. So every step here does what Pillow and torchvision do, and the settings are written
//! once, in a file or on the command line, and stored with the model.
//!
//! ```toml
//! resize = "crop:0.875"            # stretch (default), crop:R, pad, pad:center, pad:right
//! interpolation = "bilinear"       # default; bicubic, nearest, area
//! color = "rgb"                    # default; bgr, gray
//! mean = [123.675, 116.28, 103.53] # default; units of 0 to 255; one number serves every channel
//! std = [58.395, 57.12, 57.375]    # default
//! pad_value = 0                    # default; a pixel's value, so it is normalised like the others
//! size = "224"                     # only where the model's input leaves the size open; or "48x192", "48x?"
//! ```

mod options;
mod picture;
mod resize;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

pub use options::{Color, Interpolation, OptionError, PadPlace, PerChannel, Resize, Size};
use resize::{Pixels, Placement};

/// The steps from a picture to a model's input; the defaults are the ImageNet ones with `stretch`.
///
/// As strings and in files, unknown keys and words are errors that name what is allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// How the picture gets the model's size.
    pub resize: Resize,
    /// How pixels are interpolated.
    pub interpolation: Interpolation,
    /// The order of the channels.
    pub color: Color,
    /// Subtracted from each pixel, in units of 0 to 255.
    pub mean: PerChannel,
    /// Divides the difference, in units of 0 to 255.
    pub std: PerChannel,
    /// The value of padded pixels, 0 to 255, before `mean` and `std` are applied. For zeros after them,
    /// give the mean's value.
    #[serde(serialize_with = "as_short")]
    pub pad_value: f32,
    /// The size to make, where the model's input does not say or another is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
}

fn as_short<S: Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(options::short(*value))
}

impl Default for Preprocess {
    fn default() -> Self {
        let three = |values| PerChannel::new(values).expect("three finite numbers");
        Self {
            resize: Resize::default(),
            interpolation: Interpolation::default(),
            color: Color::default(),
            mean: three(&[123.675, 116.28, 103.53]),
            std: three(&[58.395, 57.12, 57.375]),
            pad_value: 0.0,
            size: None,
        }
    }
}

/// The order of a picture tensor's axes; both have one picture (N = 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Batch, channels, rows, columns.
    Nchw,
    /// Batch, rows, columns, channels.
    Nhwc,
}

/// The picture tensor that a model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageTarget {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// The order of the axes.
    pub layout: Layout,
}

impl ImageTarget {
    /// The tensor's shape, with a batch of one.
    pub fn shape(&self) -> Vec<usize> {
        match self.layout {
            Layout::Nchw => vec![1, self.channels, self.height, self.width],
            Layout::Nhwc => vec![1, self.height, self.width, self.channels],
        }
    }
}

/// Why a picture did not become a tensor.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file is missing, damaged, too large or no picture.
    #[error("{}: cannot decode the picture: {why}", .path.display())]
    Decode {
        /// The picture.
        path: PathBuf,
        /// What was wrong with it.
        why: String,
    },
    /// The settings do not fit the model; every picture would fail.
    #[error("{0}")]
    Settings(String),
}

/// Why a file or string of settings was refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is no valid settings; the message names the key and what is allowed.
    #[error("{place}: {why}")]
    Text {
        /// The file, or what the string was.
        place: String,
        /// What was wrong.
        why: String,
    },
}

impl Preprocess {
    /// Reads a TOML file; a key that is not there keeps its default.
    ///
    /// # Errors
    /// [`SettingsError`] naming the file, the line and the key.
    pub fn from_toml_file(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let read = toml::from_str(&text).map_err(|e| e.to_string());
        Self::checked(read, || path.display().to_string())
    }

    /// The settings as the text of a TOML file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a flat table of strings and numbers")
    }

    /// Reads what [`Preprocess::to_json`] wrote.
    ///
    /// # Errors
    /// [`SettingsError::Text`].
    pub fn from_json(text: &str) -> Result<Self, SettingsError> {
        let read = serde_json::from_str(text).map_err(|e| e.to_string());
        Self::checked(read, || "preprocessing in JSON".to_owned())
    }

    /// The settings on one line, to be stored in a model's metadata.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a flat table of strings and numbers")
    }

    fn checked(
        read: Result<Self, String>,
        place: impl Fn() -> String,
    ) -> Result<Self, SettingsError> {
        let checked = read.and_then(|settings| settings.check().map(|()| settings));
        checked
            .map_err(|why| SettingsError::Text { place: place(), why: why.trim_end().to_owned() })
    }

    /// What words alone cannot rule out.
    fn check(&self) -> Result<(), String> {
        if self.std.values().contains(&0.0) {
            return Err(format!("std = {}: a channel cannot be divided by 0", self.std));
        }
        if !(0.0..=255.0).contains(&self.pad_value) {
            return Err(format!("pad_value = {}: must be 0 to 255", self.pad_value));
        }
        match self.resize {
            Resize::Crop(ratio) if !(ratio > 0.0 && ratio <= 1.0) => {
                Err(format!("resize = crop:{ratio}: the ratio must be above 0 and at most 1"))
            }
            _ => Ok(()),
        }
    }

    /// The picture tensor for a model input of shape `dims` (`None` where it is open). Rank 4 with 1 or 3
    /// channels second (NCHW, preferred when both fit) or last (NHWC), and a batch of one or open.
    /// [`Preprocess::size`] goes before the model's own height and width.
    ///
    /// # Errors
    /// [`PictureError::Settings`] if the input takes no picture, its size is open and none is given, or the
    /// colour settings do not fit its channels.
    pub fn target(&self, dims: &[Option<usize>]) -> Result<ImageTarget, PictureError> {
        self.target_within(dims, None)
    }

    /// [`Preprocess::target`] for the picture at `path`, which decides what the model and [`Preprocess::size`] leave
    /// open: one side in proportion to the other, rounded up, or its own size.
    ///
    /// # Errors
    /// Those of [`Preprocess::target`]; [`PictureError::Decode`] for what is no picture.
    pub fn target_of(
        &self,
        dims: &[Option<usize>],
        path: &Path,
    ) -> Result<ImageTarget, PictureError> {
        let own = picture::size(path)
            .map_err(|why| PictureError::Decode { path: path.to_owned(), why })?;
        self.target_within(dims, Some(own))
    }

    fn target_within(
        &self,
        dims: &[Option<usize>],
        own: Option<Size>,
    ) -> Result<ImageTarget, PictureError> {
        let fail = |why: String| Err(PictureError::Settings(why));
        let shown = || {
            let dims: Vec<_> =
                dims.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
            format!("the model's input of shape [{}]", dims.join(", "))
        };
        self.check().map_err(PictureError::Settings)?;
        let is_channels = |d: Option<usize>| matches!(d, Some(1 | 3));
        let (layout, channels, height, width) = match *dims {
            [_, c, h, w] if is_channels(c) => (Layout::Nchw, c, h, w),
            [_, h, w, c] if is_channels(c) => (Layout::Nhwc, c, h, w),
            _ => {
                let why = "takes no picture (expected rank 4 with 1 or 3 channels, NCHW or NHWC); give .npy or .npz";
                return fail(format!("{} {why}", shown()));
            }
        };
        if dims[0].is_some_and(|n| n != 1) {
            return fail(format!(
                "{} wants several pictures at once; make its batch 1 or open",
                shown()
            ));
        }
        let size = self.size.unwrap_or(Size { height: 0, width: 0 });
        let side = |wanted: usize, model| Some(wanted).filter(|&side| side > 0).or(model);
        let (height, width) = match (side(size.height, height), side(size.width, width), own) {
            (Some(height), Some(width), _) => (height, width),
            (Some(height), None, Some(own)) => {
                (height, height.saturating_mul(own.width).div_ceil(own.height))
            }
            (None, Some(width), Some(own)) => {
                (width.saturating_mul(own.height).div_ceil(own.width), width)
            }
            (None, None, Some(own)) => (own.height, own.width),
            (.., None) => {
                let why = "leaves the picture's size open; give one (size)";
                return fail(format!("{} {why}", shown()));
            }
        };
        let target = ImageTarget { height, width, channels: channels.unwrap_or(3), layout };
        self.check_target(&target)?;
        Ok(target)
    }

    fn check_target(&self, target: &ImageTarget) -> Result<(), PictureError> {
        let ImageTarget { height, width, channels, .. } = *target;
        let fail = |why: String| Err(PictureError::Settings(why));
        if !matches!(channels, 1 | 3) {
            return fail(format!("a picture has 1 or 3 channels, not {channels}"));
        }
        if channels == 1 && self.color != Color::Gray {
            return fail(format!(
                "the model reads one channel but color is {}; make it gray",
                self.color
            ));
        }
        if channels == 1 && (self.mean.values().len() > 1 || self.std.values().len() > 1) {
            let why = "the model reads one channel; give mean and std as one number each";
            return fail(format!("{why}, not {} and {}", self.mean, self.std));
        }
        if height == 0 || width == 0 || height.max(width) > options::MOST_SIDE {
            return fail(format!(
                "a picture of {height} x {width} cannot be made; sides are 1 to {}",
                options::MOST_SIDE
            ));
        }
        Ok(())
    }

    /// Decodes and prepares one picture: `target`'s elements, (pixel - mean) / std, in its layout.
    ///
    /// JPEG and PNG are told apart by content. As in Pillow and torchvision, the EXIF orientation is
    /// ignored and alpha is dropped; 16-bit samples are rounded to 8; a grey picture fills three channels
    /// alike. A picture cut off half-way is an error.
    ///
    /// # Errors
    /// [`PictureError::Decode`] for this picture, [`PictureError::Settings`] when no picture could work.
    pub fn load(&self, path: &Path, target: &ImageTarget) -> Result<Vec<f32>, PictureError> {
        self.check().map_err(PictureError::Settings)?;
        self.check_target(target)?;
        picture::decode(path, self.color == Color::Gray)
            .and_then(|pixels| self.fit(pixels, target))
            .map_err(|why| PictureError::Decode { path: path.to_owned(), why })
    }

    fn fit(&self, pixels: Pixels, target: &ImageTarget) -> Result<Vec<f32>, String> {
        let size = Size { height: target.height, width: target.width };
        let place = Placement::new(self.resize, pixels.width, pixels.height, size);
        let pixels = resize::resize(pixels, self.interpolation, &place)?;

        // A pixel has 256 values: normalising becomes a look-up.
        let normal = |c: usize, x: f32| (x - self.mean.channel(c)) / self.std.channel(c);
        let tables: Vec<[f32; 256]> =
            (0..target.channels).map(|c| std::array::from_fn(|x| normal(c, x as f32))).collect();
        let (area, channels) = (target.height * target.width, target.channels);
        let (pixel_step, channel_step) = match target.layout {
            Layout::Nchw => (1, area),
            Layout::Nhwc => (channels, 1),
        };
        let mut out = vec![0f32; area * channels];
        for (c, table) in tables.iter().enumerate() {
            if (pixels.width, pixels.height) != (target.width, target.height) {
                let fill = normal(c, self.pad_value);
                out[c * channel_step..]
                    .iter_mut()
                    .step_by(pixel_step)
                    .take(area)
                    .for_each(|v| *v = fill);
            }
            let from = match (pixels.channels, self.color) {
                (1, _) => 0,
                (_, Color::Bgr) => 2 - c,
                _ => c,
            };
            for (y, row) in pixels.data.chunks_exact(pixels.width * pixels.channels).enumerate() {
                let start = (place.at.1 + y) * target.width + place.at.0;
                let to =
                    out[c * channel_step + start * pixel_step..].iter_mut().step_by(pixel_step);
                for (v, x) in to.zip(row[from..].iter().step_by(pixels.channels)) {
                    *v = table[usize::from(*x)];
                }
            }
        }
        Ok(out)
    }
}

/// Decodes a picture to 8-bit RGB, as [`Preprocess::load`] reads it, within the same limits.
pub(crate) fn decode_rgb(path: &Path) -> Result<image::RgbImage, String> {
    let pixels = picture::decode(path, false)?;
    let data = match pixels.channels {
        1 => pixels.data.iter().flat_map(|&x| [x; 3]).collect(),
        _ => pixels.data,
    };
    let (width, height) = (pixels.width as u32, pixels.height as u32);
    image::RgbImage::from_raw(width, height, data).ok_or_else(|| "the picture is damaged".into())
}

#[cfg(test)]
mod tests;
