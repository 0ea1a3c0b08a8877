//! The words that preprocessing options are written in, the same on the command line, in TOML and in JSON.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A word that an option does not know.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{option} `{value}` is not known; use {allowed}")]
pub struct OptionError {
    /// Which option.
    pub option: &'static str,
    /// What was given.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

/// How a picture of any size becomes one of the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Resize {
    /// `stretch`: to the target size, whatever the aspect ratio.
    #[default]
    Stretch,
    /// `crop:R` with R in (0, 1]: the central rectangle of the target's aspect ratio whose side is R of the
    /// picture's short side, resized to the target. `crop:0.875` is the usual evaluation of ImageNet models.
    Crop(f32),
    /// `pad`, `pad:center` or `pad:right`: keeping the aspect ratio, and filling the rest of the target.
    Pad(PadPlace),
}

/// Where [`Resize::Pad`] puts the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadPlace {
    /// `pad`: as large as fits inside the target, at the top left; filled at the right or the bottom.
    TopLeft,
    /// `pad:center`: as large as fits inside the target, in its middle.
    Center,
    /// `pad:right`: always the full target height, filled at the right; a picture too wide for the
    /// target is squeezed to its width. What recognisers of text lines (PP-OCR) are trained with.
    Right,
}

const RESIZES: &str = "stretch, crop:R with a number R above 0 and at most 1 (such as crop:0.875), pad, pad:center \
                       or pad:right";

impl FromStr for Resize {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text {
            "stretch" => return Ok(Self::Stretch),
            "pad" => return Ok(Self::Pad(PadPlace::TopLeft)),
            "pad:center" => return Ok(Self::Pad(PadPlace::Center)),
            "pad:right" => return Ok(Self::Pad(PadPlace::Right)),
            _ => {}
        }
        let ratio = text.strip_prefix("crop:").and_then(|r| r.parse().ok());
        match ratio.filter(|r| *r > 0.0 && *r <= 1.0) {
            Some(ratio) => Ok(Self::Crop(ratio)),
            None => Err(OptionError { option: "resize", value: text.to_owned(), allowed: RESIZES }),
        }
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stretch => f.write_str("stretch"),
            Self::Crop(ratio) => write!(f, "crop:{ratio}"),
            Self::Pad(PadPlace::TopLeft) => f.write_str("pad"),
            Self::Pad(PadPlace::Center) => f.write_str("pad:center"),
            Self::Pad(PadPlace::Right) => f.write_str("pad:right"),
        }
    }
}

/// How pixels are interpolated. When shrinking, all but `nearest` weigh every source pixel (antialiasing),
/// as Pillow does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interpolation {
    /// `bilinear`: a triangle filter.
    #[default]
    Bilinear,
    /// `bicubic`: the Catmull-Rom filter (a = -0.5), as Pillow's.
    Bicubic,
    /// `nearest`: one source pixel each.
    Nearest,
    /// `area`: the mean of the source pixels under the target pixel (Pillow's BOX).
    Area,
}

/// The order of the channels that the model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Color {
    /// `rgb`.
    #[default]
    Rgb,
    /// `bgr`, as models trained with OpenCV want.
    Bgr,
    /// `gray`: 0.299 R + 0.587 G + 0.114 B; repeated when the model reads three channels.
    Gray,
}

macro_rules! words {
    ($t:ident, $option:literal, $allowed:literal, $($word:literal => $variant:ident),*) => {
        impl FromStr for $t {
            type Err = OptionError;

            fn from_str(text: &str) -> Result<Self, OptionError> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(OptionError { option: $option, value: text.to_owned(), allowed: $allowed }),
                }
            }
        }

        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)* })
            }
        }
    };
}
words!(Interpolation, "interpolation", "bilinear, bicubic, nearest or area",
    "bilinear" => Bilinear, "bicubic" => Bicubic, "nearest" => Nearest, "area" => Area);
words!(Color, "color", "rgb, bgr or gray", "rgb" => Rgb, "bgr" => Bgr, "gray" => Gray);

/// The longest side of a picture that is made.
pub(super) const MOST_SIDE: usize = 16_384;

/// A picture size, written `224` (square), `48x192` (height x width), or `48x?` where the width follows
/// from each picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows; 0 where they are open.
    pub height: usize,
    /// Columns; 0 where they are open.
    pub width: usize,
}

impl FromStr for Size {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let (height, width) = text.split_once('x').unwrap_or((text, text));
        let side = |text: &str| match text {
            "?" => Some(0),
            text => text.parse().ok().filter(|side| (1..=MOST_SIDE).contains(side)),
        };
        match (side(height), side(width)) {
            (Some(height), Some(width)) if height + width > 0 => Ok(Self { height, width }),
            _ => Err(OptionError {
                option: "size",
                value: text.to_owned(),
                allowed: "a number such as 224, or height x width such as 48x192 or 48x?; sides are 1 to 16384",
            }),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [height, width] = [self.height, self.width].map(|side| match side {
            0 => "?".to_owned(),
            side => side.to_string(),
        });
        match height == width {
            true => write!(f, "{height}"),
            false => write!(f, "{height}x{width}"),
        }
    }
}

/// One number for every channel, or one for each of three, in the model's channel order. Written `127.5`
/// or `123.675,116.28,103.53`; in TOML and JSON also as a number or a list of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct PerChannel(Vec<f32>);

impl PerChannel {
    /// One value, or three.
    ///
    /// # Errors
    /// [`OptionError`] for another count or a value that is not finite.
    pub fn new(values: &[f32]) -> Result<Self, OptionError> {
        match matches!(values.len(), 1 | 3) && values.iter().all(|v| v.is_finite()) {
            true => Ok(Self(values.to_vec())),
            false => Err(Self::error(&format!("{values:?}"))),
        }
    }

    fn error(value: &str) -> OptionError {
        OptionError {
            option: "mean or std",
            value: value.to_owned(),
            allowed: "one number for all channels or three, in units of 0 to 255, such as 123.675,116.28,103.53",
        }
    }

    /// The one or three values.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// The value of channel `c`.
    pub(super) fn channel(&self, c: usize) -> f32 {
        self.0[c.min(self.0.len() - 1)]
    }
}

impl FromStr for PerChannel {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let values: Result<Vec<f32>, _> = text.split(',').map(|v| v.trim().parse()).collect();
        values.ok().and_then(|v| Self::new(&v).ok()).ok_or_else(|| Self::error(text))
    }
}

impl fmt::Display for PerChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, value) in self.0.iter().enumerate() {
            write!(f, "{}{value}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// The double that prints as short as the float, so that files say 123.675 and not 123.67500305175781.
pub(super) fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl Serialize for PerChannel {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => to.serialize_f64(short(*one)),
            many => to.collect_seq(many.iter().map(|&v| short(v))),
        }
    }
}

impl<'de> Deserialize<'de> for PerChannel {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = PerChannel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a list of three numbers")
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<PerChannel, E> {
                PerChannel::new(&[v as f32]).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<PerChannel, E> {
                self.visit_f64(v as f64)
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<PerChannel, E> {
                self.visit_f64(v as f64)
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<PerChannel, E> {
                v.parse().map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PerChannel, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element::<f32>()? {
                    values.push(value);
                }
                PerChannel::new(&values).map_err(de::Error::custom)
            }
        }
        from.deserialize_any(Values)
    }
}

macro_rules! serde_as_words {
    ($($t:ident),*) => {
        $(impl Serialize for $t {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        })*
    };
}
serde_as_words!(Resize, Interpolation, Color, Size);

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways<T: FromStr<Err = OptionError> + fmt::Display>(
        words: &[&str],
        wrong: &[&str],
        allowed: &str,
    ) {
        for word in words {
            assert_eq!(word.parse::<T>().map(|v| v.to_string()), Ok((*word).to_owned()));
        }
        for word in wrong {
            let error =
                word.parse::<T>().err().unwrap_or_else(|| panic!("`{word}` was taken")).to_string();
            assert!(error.contains(allowed) && error.contains(&format!("`{word}`")), "{error}");
        }
    }

    #[test]
    fn words_are_read_and_written() {
        both_ways::<Resize>(
            &["stretch", "crop:0.875", "crop:1", "pad", "pad:center", "pad:right"],
            &["", "Crop", "crop", "crop:0", "crop:1.5", "crop:nan", "crop:x", "pad:left"],
            "crop:0.875",
        );
        both_ways::<Interpolation>(
            &["bilinear", "bicubic", "nearest", "area"],
            &["lanczos"],
            "nearest or area",
        );
        both_ways::<Color>(&["rgb", "bgr", "gray"], &["RGB", "yuv"], "bgr or gray");
        both_ways::<Size>(
            &["224", "48x192", "16384", "48x?", "?x48"],
            &["0", "x", "224x", "0x5", "-1", "1x2x3", "16385x1", "999999x999999", "?", "?x?"],
            "48x192 or 48x?; sides are 1 to 16384",
        );
        both_ways::<PerChannel>(
            &["127.5", "1,2,3"],
            &["", "1,2", "1,2,3,4", "nan", "inf", "a"],
            "three",
        );
    }
}
