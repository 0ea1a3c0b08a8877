//! What goes to stderr: warnings of the libraries, and the progress bar that they must not tear.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use log::{LevelFilter, Log, Metadata, Record};

struct Logger;

/// The bar that is on the screen, if any.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            line(&format!("{level}: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Sends the libraries' messages to stderr: warnings by default.
pub fn start(verbose: u8, quiet: bool) {
    log::set_max_level(match (quiet, verbose) {
        (true, _) => LevelFilter::Error,
        (_, 0) => LevelFilter::Warn,
        (_, 1) => LevelFilter::Info,
        _ => LevelFilter::Trace,
    });
    // Only fails where a logger is set already, and there is no other.
    let _ = log::set_logger(&Logger);
}

/// Writes a line to stderr, above the progress bar. A closed stderr is no reason to fail.
pub fn line(text: &str) {
    let write = || drop(writeln!(std::io::stderr(), "{text}"));
    match &*BAR.lock().unwrap_or_else(|e| e.into_inner()) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Counts samples, with a bar where somebody is looking.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
}

impl Progress {
    /// Starts at 0 of `count`. `what` is said before the bar.
    pub fn new(what: &'static str, count: usize) -> Self {
        let seen = std::io::stderr().is_terminal() && log::max_level() >= LevelFilter::Warn;
        let target = if seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = "{prefix} {wide_bar} {pos}/{len}  {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(count as u64), target).with_style(style);
        bar.set_prefix(what);
        *BAR.lock().unwrap_or_else(|e| e.into_inner()) = seen.then(|| bar.clone());
        Progress { bar, start: Instant::now() }
    }

    /// One more is done.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// Takes the bar away; the time since the start.
    pub fn finish(self) -> Duration {
        let _ = BAR.lock().unwrap_or_else(|e| e.into_inner()).take();
        self.bar.finish_and_clear();
        self.start.elapsed()
    }
}

/// The stages of a longer work, a bar for each.
#[derive(Default)]
pub struct Stages(Mutex<Option<Progress>>);

impl daq_quant::pipeline::Progress for Stages {
    fn stage(&self, what: &'static str, count: usize) {
        let mut bar = self.0.lock().unwrap_or_else(|e| e.into_inner());
        bar.take().map(Progress::finish);
        *bar = Some(Progress::new(what, count));
    }

    fn step(&self) {
        if let Some(bar) = &*self.0.lock().unwrap_or_else(|e| e.into_inner()) {
            bar.step();
        }
    }
}

impl Drop for Stages {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).take().map(Progress::finish);
    }
}

/// Says which samples could not be used, the first few by name.
pub fn skipped(samples: &[(String, String)]) {
    const SHOWN: usize = 5;
    for (name, why) in samples.iter().take(SHOWN) {
        let why = why.strip_prefix(&format!("{name}: ")).unwrap_or(why);
        log::warn!("skipped {name}: {why}");
    }
    if samples.len() > SHOWN {
        log::warn!("skipped {} more", samples.len() - SHOWN);
    }
}
