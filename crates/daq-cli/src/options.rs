//! Flags that several commands share.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use daq_quant::preprocess::{
    Color, Interpolation, PerChannel, Preprocess, Resize, SettingsError, Size,
};

/// Flags that parse but do not go together; the exit code is 2, as for other wrong usage.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\nFor more, try '--help'.", self.0)
    }
}

impl std::error::Error for Usage {}

/// Wrong usage, as an error.
pub fn usage(why: impl Into<String>) -> anyhow::Error {
    Usage(why.into()).into()
}

/// How pictures become tensors. What is not given comes from the model where it knows, else from
/// the defaults of ImageNet models.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Preparing pictures")]
pub struct PreprocessArgs {
    /// How a picture gets the model's size: stretch, crop:0.875, pad, pad:center or pad:right
    #[arg(long, value_name = "HOW")]
    pub resize: Option<Resize>,
    /// bilinear, bicubic, nearest or area
    #[arg(long, value_name = "HOW")]
    pub interpolation: Option<Interpolation>,
    /// The order of the channels: rgb, bgr or gray
    #[arg(long, value_name = "ORDER", visible_alias = "colour")]
    pub color: Option<Color>,
    /// Subtracted from each pixel (0 to 255): one number, or one per channel
    #[arg(long, value_name = "M,M,M", allow_hyphen_values = true)]
    pub mean: Option<PerChannel>,
    /// Divides the difference: one number, or one per channel
    #[arg(long, value_name = "S,S,S", allow_hyphen_values = true)]
    pub std: Option<PerChannel>,
    /// The pixel (0 to 255) that fills what `pad` leaves empty
    #[arg(long = "pad-value", alias = "pad_value", value_name = "PIXEL")]
    pub pad_value: Option<f32>,
    /// The picture's size, where the model leaves it open: 224, or height x width as 48x192; with
    /// --dynamic also 48x?
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// A TOML file with these settings; flags override it
    #[arg(long, value_name = "FILE.toml")]
    pub preprocess: Option<PathBuf>,
}

impl PreprocessArgs {
    /// The settings: flags before the file, the file before `known` (the model's own).
    pub fn settings(&self, known: Option<Preprocess>) -> anyhow::Result<Preprocess> {
        let mut settings = match &self.preprocess {
            Some(path) => Preprocess::from_toml_file(path)?,
            None => known.unwrap_or_default(),
        };
        macro_rules! take {
            ($($field:ident),*) => {
                $(if let Some(value) = &self.$field { settings.$field = value.clone(); })*
            };
        }
        take!(resize, interpolation, color, mean, std, pad_value);
        settings.size = self.size.or(settings.size);
        // Reading back what was put together checks it as a file is checked; the file and the model
        // have been, so what is wrong is a flag.
        Preprocess::from_json(&settings.to_json()).map_err(|e| match e {
            SettingsError::Text { why, .. } => usage(why),
            e => e.into(),
        })
    }
}

/// The shape of an input: `NAME=1,3,224,224`.
#[derive(Clone, Debug, PartialEq)]
pub struct InputShape {
    /// The input's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl FromStr for InputShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not NAME=D,D,D, such as input=1,3,224,224");
        let (name, shape) = text.rsplit_once('=').ok_or_else(wrong)?;
        let shape: Result<Vec<usize>, _> = shape.split(',').map(|d| d.trim().parse()).collect();
        match shape {
            Ok(shape) if !name.is_empty() && !shape.contains(&0) => {
                Ok(InputShape { name: name.into(), shape })
            }
            _ => Err(wrong()),
        }
    }
}

/// Shapes of inputs that a model leaves open.
#[derive(Args, Clone, Debug, Default)]
pub struct ShapeArgs {
    /// The shape of an input, where an .onnx model leaves it open (repeatable)
    #[arg(long = "shape", value_name = "INPUT=1,3,224,224")]
    pub shapes: Vec<InputShape>,
}

/// What the pictures show, where somebody knows.
#[derive(Args, Clone, Debug, Default)]
pub struct LabelArgs {
    /// The classes of the pictures [default: labels.txt in the folder, where there is one]
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Added to each label: 1 where the model's class 0 is the background
    #[arg(long = "class-offset", alias = "class_offset", value_name = "N", default_value_t = 0)]
    pub class_offset: usize,
}

/// Which samples of a folder, and how many at once.
#[derive(Args, Clone, Debug)]
pub struct SampleArgs {
    /// Use this many samples, chosen by --seed; all where left out
    #[arg(long, value_name = "N", value_parser = positive)]
    pub samples: Option<usize>,
    /// Chooses the samples, the same ones everywhere
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Threads that prepare samples and run the model [default: number of CPUs]
    #[arg(long = "num_workers", alias = "num-workers", value_name = "N", value_parser = positive)]
    pub num_workers: Option<usize>,
}

impl SampleArgs {
    /// The number of threads.
    pub fn workers(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, |n| n.get());
        self.num_workers.unwrap_or_else(cpus)
    }
}

/// A number from 1 to a million, for counts of things that take memory or time each.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        _ => Err("must be a whole number from 1 to 1000000".into()),
    }
}

/// A number of threads.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1024) => Ok(n),
        _ => Err("must be a whole number from 1 to 1024".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_parse() {
        let shape = |t: &str| t.parse::<InputShape>().map(|s| (s.name, s.shape));
        assert_eq!(shape("x=1,3,8,8"), Ok(("x".into(), vec![1, 3, 8, 8])));
        assert_eq!(shape("a=b:0=7"), Ok(("a=b:0".into(), vec![7])));
        for wrong in ["x", "=1", "x=", "x=1,", "x=0", "x=-1", "x=1x2"] {
            let error = shape(wrong).unwrap_err();
            assert!(error.contains("input=1,3,224,224"), "{error}");
        }
    }

    #[test]
    fn flags_override_the_file_and_that_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.toml");
        std::fs::write(&file, "mean = 1\nstd = 2\n").unwrap();
        let model = Preprocess::from_json(r#"{"mean": 5, "std": 6, "color": "bgr"}"#).unwrap();
        let flags = PreprocessArgs { mean: Some("7".parse().unwrap()), ..Default::default() };
        let all = PreprocessArgs { preprocess: Some(file), ..flags.clone() };
        let values = |p: Preprocess| (p.mean.to_string(), p.std.to_string(), p.color);
        let got = values(flags.settings(Some(model.clone())).unwrap());
        assert_eq!(got, ("7".into(), "6".into(), Color::Bgr));
        let got = values(all.settings(Some(model)).unwrap());
        assert_eq!(got, ("7".into(), "2".into(), Color::Rgb));
        let zero = PreprocessArgs { std: Some("0".parse().unwrap()), ..Default::default() };
        assert!(zero.settings(None).unwrap_err().to_string().contains("divided by 0"));
    }
}
