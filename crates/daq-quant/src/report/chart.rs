//! Drawings for the page, as SVG that takes its colours from the page's style.

use std::fmt::Write;

use minijinja::HtmlEscape;

use super::{decibels, number};
use crate::compare::{Bins, Comparison, HURTS_DB, Spread, WeightError};

/// The size of a chart in pixels, and how many numbers fit along its axis.
#[derive(Clone, Copy)]
pub(super) struct Size {
    width: f64,
    height: f64,
    ticks: usize,
    class: &'static str,
}

/// For a desktop.
pub(super) const WIDE: Size = Size { width: 1040.0, height: 330.0, ticks: 10, class: "wide" };

/// For a phone.
pub(super) const NARROW: Size = Size { width: 380.0, height: 300.0, ticks: 4, class: "narrow" };

/// The highest SQNR shown, in dB; what is above lies on the edge.
const TOP_DB: f64 = 50.0;

const LEFT: f64 = 36.0;
const RIGHT: f64 = 10.0;
const ABOVE: f64 = 20.0;
const BELOW: f64 = 26.0;

/// SQNR along the network: the accumulated error as a line, the operators' own as dots.
pub(super) fn depth(c: &Comparison, size: Size) -> String {
    let Size { width, height, ticks, class } = size;
    let count = c.operators.len().max(2) as f64;
    let x = |i: usize| LEFT + (width - LEFT - RIGHT) * (i as f64 + 0.5) / count;
    let y = |db: f64| ABOVE + (height - ABOVE - BELOW) * (1.0 - db.clamp(0.0, TOP_DB) / TOP_DB);
    let last = c.operators.last().map_or(0.0, |o| o.accumulated.sqnr_db);
    let title = format!(
        "SQNR along {} operators; the accumulated one ends at {}",
        c.operators.len(),
        decibels(last)
    );
    let mut svg = start(&format!("depth {class}"), width, height, &title);
    let (low, high) = (y(0.0), y(10.0));
    push(
        &mut svg,
        format_args!(
            r#"<rect class="poor" x="{LEFT}" y="{high:.1}" width="{:.1}" height="{:.1}"/>"#,
            width - LEFT - RIGHT,
            low - high
        ),
    );
    for db in [0, 10, 20, 30, 40, 50] {
        let at = y(f64::from(db));
        push(
            &mut svg,
            format_args!(
                r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="axis" x="{:.1}" y="{:.1}" text-anchor="end">{db}</text>"#,
                width - RIGHT,
                LEFT - 6.0,
                at + 4.0
            ),
        );
    }
    let step = (c.operators.len() / ticks).max(1);
    for i in (0..c.operators.len()).step_by(step) {
        push(
            &mut svg,
            format_args!(
                r#"<text class="axis" x="{:.1}" y="{:.1}" text-anchor="middle">{i}</text>"#,
                x(i),
                height - 8.0
            ),
        );
    }
    push(&mut svg, format_args!(r#"<text class="axis" x="{LEFT}" y="12">dB</text>"#));
    if let Some(i) = c.first_that_hurts {
        let at = x(i);
        let (anchor, text_x) =
            if at > width * 0.6 { ("end", at - 5.0) } else { ("start", at + 5.0) };
        push(
            &mut svg,
            format_args!(
                r#"<line class="first" x1="{at:.1}" x2="{at:.1}" y1="{ABOVE}" y2="{low:.1}"/><text class="note" x="{text_x:.1}" y="{:.1}" text-anchor="{anchor}">first that hurts: {i}</text>"#,
                ABOVE - 7.0
            ),
        );
    }
    let mut line = String::new();
    for (i, o) in c.operators.iter().enumerate() {
        let letter = if i == 0 { 'M' } else { 'L' };
        let _ = write!(line, "{letter}{:.1} {:.1}", x(i), y(o.accumulated.sqnr_db));
    }
    push(&mut svg, format_args!(r#"<path class="accumulated" d="{line}"/>"#));
    for (i, o) in c.operators.iter().enumerate().filter(|(_, o)| o.own_scale) {
        let Some(local) = o.local else { continue };
        let class = if local.sqnr_db < HURTS_DB { "local hurts" } else { "local" };
        let radius = if local.sqnr_db < HURTS_DB { 4.5 } else { 3.0 };
        push(
            &mut svg,
            format_args!(
                r#"<circle class="{class}" cx="{:.1}" cy="{:.1}" r="{radius}"><title>{i} {}: {} of its own, {} accumulated</title></circle>"#,
                x(i),
                y(local.sqnr_db),
                HtmlEscape(&clean(&o.node)),
                decibels(local.sqnr_db),
                decibels(o.accumulated.sqnr_db)
            ),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Where a tensor's values lie, beside the range of its codes.
pub(super) fn activations(s: &Spread, tensor: &str) -> String {
    let title = format!(
        "values of {} from {} to {}; the range of codes is {} to {}",
        clean(tensor),
        number(s.min.into()),
        number(s.max.into()),
        number(s.low.into()),
        number(s.high.into())
    );
    let bins = &s.histogram;
    let inside = |i: usize| {
        let middle = bins.start + bins.width * (i as f32 + 0.5);
        middle >= s.low && middle <= s.high
    };
    histogram(bins, Some((s.low, s.high)), inside, &title)
}

/// How often each code stands for a weight.
pub(super) fn weights(w: &WeightError, node: &str) -> String {
    let title = format!("how many weights of {} have which code", clean(node));
    histogram(&w.histogram, None, |_| true, &title)
}

/// Bars as high as the root of their counts, so that tails can be seen.
fn histogram(
    bins: &Bins,
    range: Option<(f32, f32)>,
    inside: impl Fn(usize) -> bool,
    title: &str,
) -> String {
    const WIDTH: f64 = 240.0;
    const HEIGHT: f64 = 56.0;
    let mut svg = start("histogram", WIDTH, HEIGHT, title);
    let n = bins.counts.len().max(1) as f64;
    if let Some((low, high)) = range {
        let x = |v: f32| WIDTH * f64::from((v - bins.start) / bins.width) / n;
        push(
            &mut svg,
            format_args!(
                r#"<rect class="range" x="{:.1}" y="0" width="{:.1}" height="{HEIGHT}"/>"#,
                x(low),
                x(high) - x(low)
            ),
        );
    }
    let most = bins.counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    for (class, wanted) in [("bars", true), ("bars beyond", false)] {
        let mut path = String::new();
        for (i, &count) in bins.counts.iter().enumerate() {
            if count == 0 || inside(i) != wanted {
                continue;
            }
            let height = ((count as f64 / most).sqrt() * (HEIGHT - 4.0)).max(1.5);
            let x = WIDTH * i as f64 / n;
            let width = (WIDTH / n - 0.4).max(0.5);
            let _ = write!(path, "M{x:.1} {HEIGHT}v{:.1}h{width:.1}V{HEIGHT}z", -height);
        }
        if !path.is_empty() {
            push(&mut svg, format_args!(r#"<path class="{class}" d="{path}"/>"#));
        }
    }
    svg.push_str("</svg>");
    svg
}

fn start(class: &str, width: f64, height: f64, title: &str) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="{class}" viewBox="0 0 {width} {height}" role="img" aria-label="{0}"><title>{0}</title>"#,
        HtmlEscape(title)
    )
}

fn push(svg: &mut String, text: std::fmt::Arguments) {
    // Writing to a String does not fail.
    let _ = svg.write_fmt(text);
}

/// Without characters that XML does not allow.
pub(super) fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
