//! A page that shows a colleague how good a quantization is, and why: one HTML file without
//! anything from elsewhere.
//!
//! The page is well-formed XML too, so that it can be checked and read by programs; the numbers in
//! it are those of a [`Comparison`], each in a `data` element with its full value.

mod chart;
mod picture;
mod verdict;

use std::path::Path;

use minijinja::{AutoEscape, Environment, Value, context};
use serde::Serialize;

use crate::compare::{Comparison, Example, OperatorError};
use crate::evaluate::MOST_SQNR_DB;
use crate::preprocess::Preprocess;
use crate::preprocess_check::PreprocessCheck;
pub use verdict::{Level, Levels, Verdict};

/// What a report is made of.
pub struct Report<'a> {
    /// The float model's file.
    pub float: &'a Path,
    /// The 8-bit model's file.
    pub quantized: &'a Path,
    /// Their sizes in bytes.
    pub sizes: [u64; 2],
    /// How long they take, where measured.
    pub speed: Option<Speed>,
    /// Share of the multiply-accumulate operations in 8 bits; `None` where there is none.
    pub macs_8bit: Option<f64>,
    /// What was found.
    pub comparison: &'a Comparison,
    /// What the check of the preprocessing found.
    pub check: Option<&'a PreprocessCheck>,
    /// The preprocessing, where samples are pictures.
    pub preprocess: Option<&'a Preprocess>,
    /// The file of each of the comparison's examples, where they are pictures.
    pub pictures: Vec<Option<&'a Path>>,
    /// What classes are called; may be empty.
    pub class_names: &'a [String],
    /// Flags that would help, measured.
    pub suggestions: Option<&'a Suggestions>,
    /// Every option used.
    pub options: Vec<UsedOption>,
}

/// How long one picture takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// The float model's fastest run, in milliseconds.
    pub float_ms: f64,
    /// The 8-bit model's fastest run, in milliseconds.
    pub quantized_ms: f64,
    /// Runs of each.
    pub runs: usize,
    /// Whether the runs took about equally long; else the times are no ground for a comparison.
    pub steady: bool,
    /// Threads used.
    pub threads: usize,
    /// The instruction set.
    pub isa: String,
}

/// The instruction set that models run on here, as [`Speed::isa`].
pub fn isa_name() -> &'static str {
    daq_kernels::Isa::best().name()
}

/// An option and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UsedOption {
    /// As on the command line: `--calibration`.
    pub flag: String,
    /// Its value.
    pub value: String,
    /// Whether it was given; else it is the default.
    pub given: bool,
}

/// Flags for `daq quantize`, and what each was measured to bring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suggestions {
    /// Samples that the trials were calibrated with.
    pub calibrated: usize,
    /// Other samples that they were measured on (the same ones where there are few).
    pub measured: usize,
    /// The model as it is, made again with the calibration samples.
    pub base: Trial,
    /// What was tried, the best first.
    pub trials: Vec<Trial>,
}

/// One way to quantize, measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// The flags to add; empty for the model as it is.
    pub flags: String,
    /// Output SQNR in dB.
    pub sqnr_db: f64,
    /// What it gains, in dB.
    pub gain_db: f64,
    /// Agreement with the float model; `None` where outputs are no scores.
    pub agreement: Option<f64>,
    /// Share of the multiply-accumulate operations in 8 bits.
    pub macs_8bit: Option<f64>,
}

/// How many of the worst operators are shown.
const WORST: usize = 10;

/// A class as it is shown.
#[derive(Serialize)]
struct Answer {
    class: usize,
    name: String,
    probability: f32,
    /// In percent, for the bar.
    width: String,
    /// Whether it is the labelled one.
    right: bool,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    picture: Option<String>,
    agrees: bool,
    label: Option<String>,
    float: Vec<Answer>,
    quantized: Vec<Answer>,
}

#[derive(Serialize)]
struct Row<'a> {
    number: usize,
    operator: &'a OperatorError,
    local_level: Level,
    accumulated_level: Level,
    because: Vec<String>,
    histogram: Option<String>,
    weights: Option<String>,
}

impl Report<'_> {
    /// The page.
    ///
    /// # Errors
    /// None that a file or model can cause: the template does not fit the data.
    pub fn render(&self) -> Result<String, minijinja::Error> {
        let mut env = Environment::new();
        env.set_auto_escape_callback(|_| AutoEscape::Html);
        env.add_filter("percent", |share: f64| format!("{:.1}\u{202f}%", 100.0 * share));
        env.add_filter("share", |share: f64| match share {
            x if x > 0.0 && x < 0.001 => format!("{:.3}\u{202f}%", 100.0 * x),
            _ => format!("{:.1}\u{202f}%", 100.0 * share),
        });
        env.add_filter("db", |db: f64| decibels(db));
        env.add_filter("signed", |x: f64| format!("{x:+.1}").replace('-', "\u{2212}"));
        env.add_filter("number", |x: f64| number(x));
        env.add_filter("bytes", |n: f64| bytes(n));
        env.add_filter("count", |n: u64| thousands(n));
        env.add_template("report.html", include_str!("report.html"))?;
        let c = self.comparison;
        let worst = c.worst();
        let worst: Vec<Row> =
            worst.iter().take(WORST).map(|&i| row(i, &c.operators[i], true)).collect();
        let all: Vec<Row> = c.operators.iter().enumerate().map(|(i, o)| row(i, o, false)).collect();
        let (float, quantized) = (file_name(self.float), file_name(self.quantized));
        let [before, after] = self.sizes;
        let examples: Vec<Shown> =
            c.examples.iter().enumerate().map(|(i, e)| self.example(i, e)).collect();
        let in_8_bits = c.operators.iter().filter(|o| o.codes).count();
        env.get_template("report.html")?.render(context! {
            css => Value::from_safe_string(include_str!("report.css").into()),
            version => env!("CARGO_PKG_VERSION"),
            float, quantized,
            verdict => verdict::verdict(c, self.check),
            c => c,
            before, after,
            smaller => before as f64 / (after.max(1)) as f64,
            size_share => after as f64 / (before.max(1)) as f64,
            speed => self.speed,
            faster => self.speed.as_ref().map(|s| s.float_ms / s.quantized_ms.max(1e-9)),
            macs_8bit => self.macs_8bit,
            in_8_bits,
            charts => [chart::depth(c, chart::WIDE), chart::depth(c, chart::NARROW)],
            first => c.first_that_hurts.map(|i| row(i, &c.operators[i], false)),
            worst, all, examples,
            check => self.check,
            preprocess => self.preprocess.map(settings),
            suggestions => self.suggestions,
            options => self.options,
        })
    }

    fn example(&self, i: usize, e: &Example) -> Shown {
        let named = |class: usize| match self.class_names.get(class) {
            Some(name) => name.clone(),
            None => format!("class {class}"),
        };
        let answers = |best: &[(usize, f32)]| {
            best.iter()
                .map(|&(class, probability)| Answer {
                    class,
                    name: named(class),
                    probability,
                    width: format!("{:.1}", 100.0 * probability.clamp(0.0, 1.0)),
                    right: e.class == Some(class),
                })
                .collect()
        };
        let path = self.pictures.get(i).copied().flatten();
        Shown {
            name: e.name.clone(),
            picture: path.and_then(|p| picture::data_uri(p).ok()),
            agrees: e.agrees(),
            label: e.class.map(named),
            float: answers(&e.float),
            quantized: answers(&e.quantized),
        }
    }
}

fn row(number: usize, operator: &OperatorError, drawn: bool) -> Row<'_> {
    let spread = operator.output.as_ref().filter(|_| drawn);
    let weights = operator.weights.as_ref().filter(|_| drawn);
    Row {
        number,
        operator,
        local_level: operator.local.map_or(Level::Good, |d| verdict::of_operator(d.sqnr_db)),
        accumulated_level: verdict::of_accumulated(operator.accumulated.sqnr_db),
        because: operator.causes(),
        histogram: spread.map(|s| chart::activations(s, &operator.tensor)),
        weights: weights.map(|w| chart::weights(w, &operator.node)),
    }
}

fn settings(p: &Preprocess) -> Vec<(&'static str, String)> {
    let mut shown = vec![
        ("resize", p.resize.to_string()),
        ("interpolation", p.interpolation.to_string()),
        ("color", p.color.to_string()),
        ("mean", p.mean.to_string()),
        ("std", p.std.to_string()),
        ("pad value", p.pad_value.to_string()),
    ];
    shown.extend(p.size.map(|size| ("size", size.to_string())));
    shown
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn decibels(db: f64) -> String {
    match db >= MOST_SQNR_DB {
        true => "exact".into(),
        false => format!("{db:.1}\u{202f}dB").replace('-', "\u{2212}"),
    }
}

/// Three significant digits.
fn number(x: f64) -> String {
    let digits = match x.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{x:.digits$}");
    let text = if text.trim_start_matches('-').bytes().all(|b| matches!(b, b'0' | b'.')) {
        if x == 0.0 { "0".into() } else { format!("{x:.1e}") }
    } else {
        text
    };
    text.replace('-', "\u{2212}")
}

fn bytes(n: f64) -> String {
    match n {
        ..1e3 => format!("{n}\u{202f}bytes"),
        ..1e6 => format!("{:.1}\u{202f}kB", n / 1e3),
        _ => format!("{:.2}\u{202f}MB", n / 1e6),
    }
}

/// A large count, short.
fn thousands(n: u64) -> String {
    match n {
        0..1000 => n.to_string(),
        1000..1_000_000 => format!("{:.1}\u{202f}k", n as f64 / 1e3),
        _ => format!("{:.1}\u{202f}M", n as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_readable() {
        let shown = [0.0, 1.0, -1.25, 12.345, 123.4, 0.0123, 0.00001].map(number);
        assert_eq!(shown, ["0", "1.00", "\u{2212}1.25", "12.3", "123", "0.012", "1.0e\u{2212}5"]);
        assert_eq!(decibels(MOST_SQNR_DB), "exact");
        assert_eq!(decibels(-3.04), "\u{2212}3.0\u{202f}dB");
        assert_eq!(
            (bytes(999.0), bytes(13_992_262.0)),
            ("999\u{202f}bytes".into(), "13.99\u{202f}MB".into())
        );
    }
}
