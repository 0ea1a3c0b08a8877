//! Resize: pictures scaled to another size. Opsets 10 (scales), 11 (coordinate transformations,
//! sizes), 13, 18 (axes), 19.
//!
//! An output position has a source coordinate (see [`Coordinates`]). `nearest` rounds it; `linear`
//! clamps it to the picture and mixes the four pixels around it,
//! `(1-dx)*(1-dy)*p00 + dx*(1-dy)*p01 + (1-dx)*dy*p10 + dx*dy*p11` from left to right in f32; where
//! both pixels of an axis are the same one, each counts one half. `cubic` mixes four pixels of each of
//! four rows, then those, by Keys' polynomial of the distance; beyond the picture there is its edge.
//! `antialias` mixes more pixels where it shrinks: distances count by the scale, and shares add up to 1.

use std::ops::Range;

use daq_kernels::{Mix, ResizeU8, ResizeU8Params};

use super::moves::{MoveKernel, Moves, ints, moved, normalize_axes, strides, table};
use super::pixels::*;
use super::*;

/// The source coordinate of output position `i` of `n` from `m` input positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// `(i + 0.5) / scale - 0.5`
    HalfPixel,
    /// The same around the middle of the picture that the exact scale would give.
    HalfPixelSymmetric,
    /// Half pixel, but 0 where `n` is 1.
    PytorchHalfPixel,
    /// `i * (m - 1) / (n - 1)`
    AlignCorners,
    /// `i / scale`
    Asymmetric,
    /// `(i + 0.5) / scale`
    TfHalfPixelForNn,
    /// `roi.start * (m - 1) + i * (roi.end - roi.start) * (m - 1) / (n - 1)`: a part of the picture, with a
    /// value of its own beyond it.
    TfCropAndResize,
}

/// How `nearest` rounds a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NearestMode {
    /// To the nearest, halves down.
    RoundPreferFloor,
    /// To the nearest, halves up.
    RoundPreferCeil,
    /// Down.
    Floor,
    /// Up.
    Ceil,
}

/// What an output position is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResizeMode {
    /// One pixel.
    Nearest(NearestMode),
    /// Two pixels of each axis, by their distance.
    Linear,
    /// Four pixels of each axis.
    Cubic {
        /// The slope of the polynomial at distance 1.
        slope: f32,
        /// Pixels beyond the picture do not count, and the others make up for them.
        exclude_outside: bool,
    },
}

const COORDINATES: &[(&str, Coordinates)] = &[
    ("half_pixel", Coordinates::HalfPixel),
    ("half_pixel_symmetric", Coordinates::HalfPixelSymmetric),
    ("pytorch_half_pixel", Coordinates::PytorchHalfPixel),
    ("align_corners", Coordinates::AlignCorners),
    ("asymmetric", Coordinates::Asymmetric),
    ("tf_half_pixel_for_nn", Coordinates::TfHalfPixelForNn),
    ("tf_crop_and_resize", Coordinates::TfCropAndResize),
];

const NEAREST: &[(&str, NearestMode)] = &[
    ("round_prefer_floor", NearestMode::RoundPreferFloor),
    ("round_prefer_ceil", NearestMode::RoundPreferCeil),
    ("floor", NearestMode::Floor),
    ("ceil", NearestMode::Ceil),
];

/// ONNX Resize of pictures with constant scales or sizes; batch and channels stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// How pixels are chosen and mixed.
    pub mode: ResizeMode,
    /// Where an output position lies in the input.
    pub coordinates: Coordinates,
    /// Whether shrinking weighs all pixels; not for `nearest`.
    pub antialias: bool,
    /// Factors by axis; empty where `sizes` tells.
    pub scales: Vec<f32>,
    /// Output sizes by axis; empty where `scales` tells. With both, `scales` tell coordinates only.
    pub sizes: Vec<i64>,
    /// What [`Coordinates::TfCropAndResize`] takes: where the axes begin, then where they end, of 0 to 1.
    pub roi: Vec<f32>,
    /// What is beyond the picture there.
    pub extrapolation: f32,
    /// The axes that scales or sizes speak of; `None` for all.
    pub axes: Option<Vec<i64>>,
}

/// The longest output axis: a plan keeps what each of its positions mixes.
const MOST_PIXELS: f64 = 1048576.0;

/// One axis, resolved.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    input: usize,
    output: usize,
    scale: f32,
    roi: [f32; 2],
}

/// The pixels that one position of an axis mixes cubically, and what each counts.
#[derive(Clone, Copy, Debug)]
struct Cubic {
    at: [usize; 4],
    share: [f32; 4],
}

/// A linear resize over channels-last data.
struct Linear {
    rows: Vec<Mix>,
    columns: Vec<Mix>,
    in_h: usize,
    in_w: usize,
    channels: usize,
}

impl Scaled {
    fn coordinate(&self, mode: Coordinates, i: usize) -> f32 {
        let (x, n, m) = (i as f32, self.output as f32, self.input as f32);
        let half = (x + 0.5) / self.scale - 0.5;
        match mode {
            Coordinates::TfCropAndResize => {
                let [start, end] = self.roi;
                match self.output {
                    1 => 0.5 * (start + end) * (m - 1.0),
                    _ => start * (m - 1.0) + x * (end - start) * (m - 1.0) / (n - 1.0),
                }
            }
            _ if self.scale == 1.0 => x,
            Coordinates::HalfPixel => half,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = n / (self.scale * m);
                let center = m / 2.0;
                center * (1.0 - adjustment) + half
            }
            Coordinates::PytorchHalfPixel if self.output > 1 => half,
            Coordinates::AlignCorners if self.output > 1 => x * (m - 1.0) / (n - 1.0),
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners => 0.0,
            Coordinates::Asymmetric => x / self.scale,
            Coordinates::TfHalfPixelForNn => (x + 0.5) / self.scale,
        }
    }

    fn nearest(&self, mode: NearestMode, coordinates: Coordinates, i: usize) -> usize {
        let x = self.coordinate(coordinates, i);
        let rounded = match mode {
            NearestMode::RoundPreferFloor => (x - 0.5).ceil(),
            NearestMode::RoundPreferCeil => (x + 0.5).floor(),
            NearestMode::Floor => x.floor(),
            NearestMode::Ceil => x.ceil(),
        };
        (rounded.max(0.0) as usize).min(self.input - 1)
    }

    fn mix(&self, coordinates: Coordinates, i: usize) -> Mix {
        let last = self.input - 1;
        let x = self.coordinate(coordinates, i).clamp(0.0, last as f32);
        let low = (x as usize).min(last);
        let high = (low + 1).min(last);
        let share = match low == high {
            true => [0.5, 0.5],
            false => [(x - high as f32).abs(), (x - low as f32).abs()],
        };
        Mix { at: [low, high], share }
    }

    fn cubic(&self, coordinates: Coordinates, slope: f32, exclude_outside: bool, i: usize) -> Cubic {
        let x = self.coordinate(coordinates, i);
        let (low, last) = (x.floor(), self.input as f32 - 1.0);
        let share = |k: usize| {
            let t = (x - low - (k as f32 - 1.0)).abs();
            match exclude_outside && !(0.0..=last).contains(&(low + k as f32 - 1.0)) {
                true => 0.0,
                false => keys(slope, t),
            }
        };
        let mut share = [0, 1, 2, 3].map(share);
        let sum: f32 = share.iter().sum();
        if exclude_outside && sum != 0.0 {
            share = share.map(|s| s / sum);
        }
        let at = |k: usize| (low + k as f32 - 1.0).clamp(0.0, last) as usize;
        Cubic { at: [0, 1, 2, 3].map(at), share }
    }

    /// What a position mixes where pixels count by the distance on the smaller of both scales.
    fn antialiased(&self, mode: ResizeMode, x: f32) -> Vec<(usize, f32)> {
        let (reach, exclude_outside) = match mode {
            ResizeMode::Cubic { exclude_outside, .. } => (2.0, exclude_outside),
            _ => (1.0, false),
        };
        let (shrink, last) = (self.scale.min(1.0), self.input as i64 - 1);
        let (low, far) = (x.floor() as i64, (reach / shrink).ceil() as i64);
        let tap = |at: i64| {
            let t = (at as f32 - x).abs() * shrink;
            let share = match mode {
                _ if exclude_outside && !(0..=last).contains(&at) => 0.0,
                ResizeMode::Cubic { slope, .. } => keys(slope, t),
                _ => (1.0 - t).max(0.0),
            };
            (at.clamp(0, last) as usize, share)
        };
        let taps: Vec<_> = (low - far + 1..=low + far).map(tap).collect();
        let sum: f32 = taps.iter().map(|(_, share)| share).sum();
        taps.into_iter().map(|(at, share)| (at, share / sum)).collect()
    }
}

/// Keys' polynomial of a distance.
fn keys(slope: f32, t: f32) -> f32 {
    let a = slope;
    match t {
        ..=1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
        ..=2.0 => ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a,
        _ => 0.0,
    }
}

/// The pixels that one position of an axis mixes, and what each counts; `None` beyond the picture.
type Taps = Option<Vec<(usize, f32)>>;

/// Any resize over channels-last data.
struct Weighed {
    rows: Vec<Taps>,
    columns: Vec<Taps>,
    in_h: usize,
    in_w: usize,
    channels: usize,
    beyond: f32,
}

impl Weighed {
    /// Computes output pixels.
    fn pixels(&self, x: &[f32], pixels: Range<usize>, y: &mut [f32]) {
        let (width, channels) = (self.columns.len(), self.channels);
        for (pixel, y) in pixels.zip(y.chunks_exact_mut(channels)) {
            let row = pixel / width;
            let picture = row / self.rows.len();
            let (row, column) = (&self.rows[row % self.rows.len()], &self.columns[pixel % width]);
            let (Some(row), Some(column)) = (row, column) else {
                y.fill(self.beyond);
                continue;
            };
            y.fill(0.0);
            for (at, row_share) in row {
                let line = &x[(picture * self.in_h + at) * self.in_w * channels..];
                for (c, y) in y.iter_mut().enumerate() {
                    let mixed = column.iter().map(|(at, share)| share * line[at * channels + c]);
                    *y += row_share * mixed.sum::<f32>();
                }
            }
        }
    }
}

/// A cubic resize over channels-last data.
struct CubicResize {
    rows: Vec<Cubic>,
    columns: Vec<Cubic>,
    in_h: usize,
    in_w: usize,
    channels: usize,
}

impl CubicResize {
    /// Computes output pixels.
    fn pixels(&self, x: &[f32], pixels: Range<usize>, y: &mut [f32]) {
        let (width, channels) = (self.columns.len(), self.channels);
        for (pixel, y) in pixels.zip(y.chunks_exact_mut(channels)) {
            let row = pixel / width;
            let (picture, row) = (row / self.rows.len(), self.rows[row % self.rows.len()]);
            let column = self.columns[pixel % width];
            y.fill(0.0);
            for (at, row_share) in row.at.into_iter().zip(row.share) {
                let line = (picture * self.in_h + at) * self.in_w;
                let p = column.at.map(|at| &x[(line + at) * channels..][..channels]);
                let s = column.share;
                for (c, y) in y.iter_mut().enumerate() {
                    let mixed = s[0] * p[0][c] + s[1] * p[1][c] + s[2] * p[2][c] + s[3] * p[3][c];
                    *y += row_share * mixed;
                }
            }
        }
    }
}

impl Linear {
    /// Computes output pixels.
    fn pixels(&self, x: &[f32], pixels: Range<usize>, y: &mut [f32]) {
        let (width, channels) = (self.columns.len(), self.channels);
        for (pixel, y) in pixels.zip(y.chunks_exact_mut(channels)) {
            let row = pixel / width;
            let (picture, row) = (row / self.rows.len(), self.rows[row % self.rows.len()]);
            let column = self.columns[pixel % width];
            let at = |r: usize, c: usize| {
                let offset = ((picture * self.in_h + row.at[r]) * self.in_w + column.at[c]) * channels;
                &x[offset..][..channels]
            };
            let share = |r: usize, c: usize| column.share[c] * row.share[r];
            let (p00, p01, p10, p11) = (at(0, 0), at(0, 1), at(1, 0), at(1, 1));
            let (s00, s01, s10, s11) = (share(0, 0), share(0, 1), share(1, 0), share(1, 1));
            for (c, y) in y.iter_mut().enumerate() {
                *y = s00 * p00[c] + s01 * p01[c] + s10 * p10[c] + s11 * p11[c];
            }
        }
    }
}

impl Resize {
    /// Height and width over a logical input; rank 3 has one row.
    fn scaled(&self, inputs: &[Option<Spec>]) -> Result<[Scaled; 2], OpError> {
        let shape = &required(inputs, 0)?.shape;
        let rank = shape.len();
        if rank != 3 && rank != 4 {
            return Err(shape_error("the input must have rank 3 or 4", inputs));
        }
        let axes = match &self.axes {
            Some(axes) => normalize_axes(axes, rank)?,
            None => (0..rank).collect(),
        };
        let n = axes.len();
        let crops = self.coordinates == Coordinates::TfCropAndResize;
        for (name, len, wanted, optional) in [
            ("scales", self.scales.len(), n, !self.sizes.is_empty()),
            ("sizes", self.sizes.len(), n, true),
            ("roi", self.roi.len(), 2 * n, !crops),
        ] {
            if len != wanted && !(len == 0 && optional) {
                let why = format!("has {len} elements for {n} axes");
                return Err(OpError::attribute(name, why));
            }
        }
        if crops && self.sizes.is_empty() {
            let what = "Resize by scales of what tf_crop_and_resize takes";
            return Err(OpError::unsupported(what, "give sizes"));
        }
        if let Some(limit) = self.roi.iter().find(|limit| !limit.is_finite()) {
            return Err(OpError::attribute("roi", format!("has {limit}")));
        }
        let mut all: Vec<_> =
            shape.iter().map(|&n| Scaled { input: n, output: n, scale: 1.0, roi: [0.0, 1.0] }).collect();
        for (i, &axis) in axes.iter().enumerate() {
            let input = shape[axis];
            let (output, scale) = match self.sizes.get(i) {
                Some(&n) => {
                    let own = n as f32 / input as f32;
                    (n as f64, self.scales.get(i).copied().unwrap_or(own))
                }
                None => {
                    ((self.scales[i] * input as f32).floor() as f64, self.scales[i])
                }
            };
            let fits = scale.is_finite()
                && scale > 0.0
                && (1.0..=MOST_PIXELS).contains(&output)
                // Sizes and scales together are those that rounding tells apart.
                && (self.sizes.is_empty() || (f64::from(scale) * input as f64 - output).abs() < 0.51);
            let roi = match crops {
                true => [self.roi[i], self.roi[n + i]],
                false => [0.0, 1.0],
            };
            if axis < 2 && (scale != 1.0 || roi != [0.0, 1.0]) {
                let what = format!("Resize of axis {axis} (batch or channels)");
                return Err(OpError::unsupported(what, "resize the spatial axes alone"));
            }
            if axis >= 2 && (!fits || input == 0) {
                let why = format!("axis {axis} of {input} cannot become {output}");
                return Err(shape_error(why, inputs));
            }
            if axis >= 2 {
                all[axis] = Scaled { input, output: output as usize, scale, roi };
            }
        }
        let row = Scaled { input: 1, output: 1, scale: 1.0, roi: [0.0, 1.0] };
        Ok(if rank == 4 { [all[2], all[3]] } else { [row, all[2]] })
    }

    fn linear(&self, [h, w]: [Scaled; 2], channels: usize) -> Linear {
        let axis = |axis: Scaled| (0..axis.output).map(|i| axis.mix(self.coordinates, i)).collect();
        Linear { rows: axis(h), columns: axis(w), in_h: h.input, in_w: w.input, channels }
    }

    /// Whether it is computed as [`Weighed`].
    fn is_weighed(&self) -> bool {
        self.antialias || self.coordinates == Coordinates::TfCropAndResize
    }

    fn weighed(&self, [h, w]: [Scaled; 2], channels: usize) -> Weighed {
        let taps = |axis: &Scaled, i: usize| {
            let x = axis.coordinate(self.coordinates, i);
            let crops = self.coordinates == Coordinates::TfCropAndResize;
            if crops && !(0.0..=axis.input as f32 - 1.0).contains(&x) {
                return None;
            }
            Some(match self.mode {
                ResizeMode::Nearest(mode) => vec![(axis.nearest(mode, self.coordinates, i), 1.0)],
                mode if self.antialias => axis.antialiased(mode, x),
                ResizeMode::Linear => {
                    let Mix { at, share } = axis.mix(self.coordinates, i);
                    at.into_iter().zip(share).collect()
                }
                ResizeMode::Cubic { slope, exclude_outside } => {
                    let Cubic { at, share } = axis.cubic(self.coordinates, slope, exclude_outside, i);
                    at.into_iter().zip(share).collect()
                }
            })
        };
        let axis = |axis: Scaled| (0..axis.output).map(|i| taps(&axis, i)).collect();
        let (rows, columns, beyond) = (axis(h), axis(w), self.extrapolation);
        Weighed { rows, columns, in_h: h.input, in_w: w.input, channels, beyond }
    }

    fn cubic(
        &self,
        [h, w]: [Scaled; 2],
        channels: usize,
        (slope, exclude_outside): (f32, bool),
    ) -> CubicResize {
        let of = |axis: &Scaled, i| axis.cubic(self.coordinates, slope, exclude_outside, i);
        let axis = |axis: Scaled| (0..axis.output).map(|i| of(&axis, i)).collect();
        CubicResize { rows: axis(h), columns: axis(w), in_h: h.input, in_w: w.input, channels }
    }

    fn moves(&self, mode: NearestMode, [h, w]: [Scaled; 2], x: &[usize]) -> Moves {
        let shape = [x[0], h.input, w.input, x[x.len() - 1]];
        let strides = strides(&shape);
        let axis = |axis: &Scaled, stride: usize| -> Vec<u32> {
            let at = |i| axis.nearest(mode, self.coordinates, i) * stride;
            (0..axis.output).map(|i| at(i) as u32).collect()
        };
        Moves::new(vec![
            table(shape[0], strides[0]),
            axis(&h, strides[1]),
            axis(&w, strides[2]),
            table(shape[3], 1),
        ])
    }
}

/// The entry of a table of names that attribute `name` asks for.
fn choice<T: Copy>(
    attrs: &Attrs,
    name: &str,
    default: T,
    table: &[(&str, T)],
) -> Result<T, OpError> {
    let Some(wanted) = attrs.get_str(name)? else { return Ok(default) };
    let found = table.iter().find(|(n, _)| *n == wanted).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<_> = table.iter().map(|(n, _)| *n).collect();
        let remedy = format!("use one of {}", names.join(", "));
        OpError::unsupported(format!("Resize with {name} `{wanted}`"), remedy)
    })
}

/// The name of a table's entry.
fn name_of<T: PartialEq>(table: &[(&str, T)], value: &T) -> Attr {
    let name = table.iter().find(|(_, v)| v == value).map_or("", |(name, _)| *name);
    Attr::Str(name.into())
}

impl Operator for Resize {
    const NAME: &'static str = "Resize";
    const INPUTS: usize = 4;
    const ATTR_INPUTS: &'static [AttrInput] = &[
        AttrInput { index: 1, name: "scales", since: 10 },
        AttrInput { index: 1, name: "roi", since: 11 },
        AttrInput { index: 2, name: "scales", since: 11 },
        AttrInput { index: 3, name: "sizes", since: 11 },
    ];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let (coordinates, rounding) = match attrs.opset {
            ..11 => (Coordinates::Asymmetric, NearestMode::Floor),
            _ => (Coordinates::HalfPixel, NearestMode::RoundPreferFloor),
        };
        let rounding = choice(attrs, "nearest_mode", rounding, NEAREST)?;
        let (nearest, linear) = (ResizeMode::Nearest(rounding), ResizeMode::Linear);
        let slope = attrs.float("cubic_coeff_a", -0.75)?;
        let exclude_outside = attrs.flag("exclude_outside", false)?;
        let cubic = ResizeMode::Cubic { slope, exclude_outside };
        let modes = [("nearest", nearest), ("linear", linear), ("cubic", cubic)];
        let mode = choice(attrs, "mode", nearest, &modes)?;
        let antialias = attrs.flag("antialias", false)? && mode != nearest;
        choice(attrs, "keep_aspect_ratio_policy", (), &[("stretch", ())])?;
        let scales = match attrs.get("scales") {
            Some(Attr::Ints(empty)) if empty.is_empty() => None,
            _ => attrs.get_floats("scales")?,
        };
        let sizes = match attrs.get("sizes") {
            Some(Attr::Floats(empty)) if empty.is_empty() => None,
            _ => attrs.get_ints("sizes")?,
        };
        let coordinates =
            choice(attrs, "coordinate_transformation_mode", coordinates, COORDINATES)?;
        let crops = coordinates == Coordinates::TfCropAndResize;
        let roi = attrs.get_floats("roi")?.filter(|_| crops);
        let extrapolation = attrs.float("extrapolation_value", 0.0)?;
        Ok(Resize {
            mode,
            coordinates,
            antialias,
            roi: roi.unwrap_or_default(),
            extrapolation: if crops { extrapolation } else { 0.0 },
            scales: scales.unwrap_or_default(),
            sizes: sizes.unwrap_or_default(),
            axes: attrs.get_ints("axes")?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        let scales = (!self.scales.is_empty()).then(|| Attr::Floats(self.scales.clone()));
        let sizes = (!self.sizes.is_empty()).then(|| ints(self.sizes.iter().copied()));
        let attrs = match self.mode {
            ResizeMode::Nearest(mode) => Attrs::new()
                .with("mode", Attr::Str("nearest".into()))
                .with("nearest_mode", name_of(NEAREST, &mode)),
            ResizeMode::Linear => Attrs::new().with("mode", Attr::Str("linear".into())),
            ResizeMode::Cubic { slope, exclude_outside } => Attrs::new()
                .with("mode", Attr::Str("cubic".into()))
                .with("cubic_coeff_a", Attr::Float(slope))
                .with("exclude_outside", Attr::Int(exclude_outside.into())),
        };
        let crops = self.coordinates == Coordinates::TfCropAndResize;
        attrs
            .with("coordinate_transformation_mode", name_of(COORDINATES, &self.coordinates))
            .with_some("antialias", self.antialias.then_some(Attr::Int(1)))
            .with_some("roi", crops.then(|| Attr::Floats(self.roi.clone())))
            .with_some("extrapolation_value", crops.then_some(Attr::Float(self.extrapolation)))
            .with_some("scales", scales)
            .with_some("sizes", sizes)
            .with_some("axes", self.axes.clone().map(ints))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        moved(x.dtype, x.shape.clone(), inputs)?;
        if !matches!(self.mode, ResizeMode::Nearest(_)) || self.is_weighed() {
            let allowed = "f32, u8, i8 where pixels are mixed";
            allow(inputs, 0, &[DType::F32, DType::U8, DType::I8], allowed)?;
        }
        let [h, w] = self.scaled(inputs)?;
        let mut shape = x.shape[..2].to_vec();
        shape.extend((x.shape.len() == 4).then_some(h.output));
        shape.push(w.output);
        moved(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        let scaled = self.scaled(&view_specs(inputs)).expect("checked by infer");
        let channels = x.shape[x.shape.len() - 1];
        let pixels = || 0..y.shape.iter().product::<usize>() / channels;
        match self.mode {
            _ if y.is_empty() => {}
            _ if self.is_weighed() => {
                let weighed = self.weighed(scaled, channels);
                weighed.pixels(x.data::<f32>(), pixels(), y.data_mut());
            }
            ResizeMode::Nearest(mode) => {
                let moves = self.moves(mode, scaled, x.shape);
                moves.run(x.dtype.size(), 0, x.bytes, y.bytes, None);
            }
            ResizeMode::Linear => {
                let linear = self.linear(scaled, channels);
                linear.pixels(x.data::<f32>(), pixels(), y.data_mut());
            }
            ResizeMode::Cubic { slope, exclude_outside } => {
                let cubic = self.cubic(scaled, channels, (slope, exclude_outside));
                cubic.pixels(x.data::<f32>(), pixels(), y.data_mut());
            }
        }
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
    }

    fn quantization(&self) -> Quantization {
        match self.mode {
            _ if self.is_weighed() => Quantization::FloatInside,
            ResizeMode::Nearest(_) => Quantization::Moves,
            ResizeMode::Linear => Quantization::Averages,
            // It overshoots, so that the output has a range of its own.
            ResizeMode::Cubic { .. } => Quantization::FloatInside,
        }
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let (x, y) = (compile.input(0)?, *compile.outputs.first()?);
        let scaled = self.scaled(&operand_specs(compile)).ok()?;
        if compile.clamp.is_some() || y.is_empty() {
            return None;
        }
        let (channels, width) = (x.shape[x.shape.len() - 1], scaled[1].output);
        let floats = x.dtype == DType::F32 && y.dtype == DType::F32;
        match self.mode {
            _ if self.is_weighed() && floats => {
                let weighed = self.weighed(scaled, channels);
                return compiled("resize_weighed_f32", move |inputs, y, pool| {
                    let x = inputs[0].expect("checked by infer").data::<f32>();
                    let run = |pixels, y: &mut [f32]| weighed.pixels(x, pixels, y);
                    over_pixels(pool, y.data_mut(), channels, width, run);
                });
            }
            _ if self.is_weighed() => return None,
            ResizeMode::Nearest(mode) => {
                let moves = self.moves(mode, scaled, x.shape);
                return Some(Box::new(MoveKernel { moves, fill: 0 }));
            }
            ResizeMode::Cubic { slope, exclude_outside } if floats => {
                let cubic = self.cubic(scaled, channels, (slope, exclude_outside));
                return compiled("resize_cubic_f32", move |inputs, y, pool| {
                    let x = inputs[0].expect("checked by infer").data::<f32>();
                    let run = |pixels, y: &mut [f32]| cubic.pixels(x, pixels, y);
                    over_pixels(pool, y.data_mut(), channels, width, run);
                });
            }
            ResizeMode::Cubic { .. } => return None,
            ResizeMode::Linear => {}
        }
        let linear = self.linear(scaled, channels);
        if floats {
            return compiled("resize_linear_f32", move |inputs, y, pool| {
                let x = inputs[0].expect("checked by infer").data::<f32>();
                let run = |pixels, y: &mut [f32]| linear.pixels(x, pixels, y);
                over_pixels(pool, y.data_mut(), channels, width, run);
            });
        }
        if !x.is_quantized() || !y.is_quantized() {
            return None;
        }
        let (xq, yq) = (x.quant?, y.quant?);
        let params = ResizeU8Params {
            input_scale: xq.scale[0],
            input_zero_point: u8::try_from(xq.zero_point[0]).ok()?,
            output_scale: yq.scale[0],
            output_zero_point: u8::try_from(yq.zero_point[0]).ok()?,
        };
        let resize = ResizeU8::new(&params, &linear.columns, channels, compile.isa);
        compiled(resize.kernel_name(), move |inputs, y, pool| {
            let x = inputs[0].expect("checked by infer").data::<u8>();
            pool.for_each_chunk(y.data_mut(), width * channels, |row, y| {
                let (picture, mix) =
                    (row / linear.rows.len(), linear.rows[row % linear.rows.len()]);
                let row = |at: usize| {
                    let len = linear.in_w * channels;
                    &x[(picture * linear.in_h + at) * len..][..len]
                };
                resize.run(mix.at.map(row), mix.share, y);
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;
    use crate::QuantParams;

    fn resize(mode: &str, coordinates: &str, rounding: &str, scales: &[f32]) -> Resize {
        let text = |s: &str| Attr::Str(s.into());
        let attrs = Attrs::new()
            .with("mode", text(mode))
            .with("coordinate_transformation_mode", text(coordinates))
            .with("nearest_mode", text(rounding))
            .with("scales", Attr::Floats(scales.to_vec()));
        let op = Resize::from_attrs(&attrs).unwrap();
        assert_eq!(Resize::from_attrs(&op.to_attrs()), Ok(op.clone()));
        op
    }

    fn picture() -> Tensor {
        Tensor::from_slice(&[1, 1, 2, 3], &[1f32, 3., 2., 7., 5., 4.])
    }

    /// Output rows of scale 1.7 and the output of scale 0.5, from onnxruntime. A row is named by
    /// the columns it shows and by whether it is the second one.
    #[test]
    fn nearest_as_onnxruntime_rounds() {
        let low = [1f32, 1., 3., 2., 2.];
        for (coordinates, rounding, rows, half) in [
            ("half_pixel", "round_prefer_floor", [low, low, [7., 7., 5., 4., 4.]], 1.),
            ("half_pixel", "round_prefer_ceil", [low, low, [7., 7., 5., 4., 4.]], 5.),
            ("half_pixel", "floor", [[1., 1., 1., 3., 2.]; 3], 1.),
            (
                "half_pixel",
                "ceil",
                [[1., 3., 3., 2., 2.], [7., 5., 5., 4., 4.], [7., 5., 5., 4., 4.]],
                5.,
            ),
            ("half_pixel_symmetric", "round_prefer_floor", [low, low, [7., 7., 5., 4., 4.]], 3.),
            (
                "half_pixel_symmetric",
                "floor",
                [[1., 1., 3., 3., 2.], [1., 1., 3., 3., 2.], [7., 7., 5., 5., 4.]],
                3.,
            ),
            ("pytorch_half_pixel", "round_prefer_ceil", [low, low, [7., 7., 5., 4., 4.]], 1.),
            (
                "align_corners",
                "round_prefer_floor",
                [[1., 1., 3., 3., 2.], [1., 1., 3., 3., 2.], [7., 7., 5., 5., 4.]],
                1.,
            ),
            (
                "align_corners",
                "round_prefer_ceil",
                [[1., 3., 3., 2., 2.], [7., 5., 5., 4., 4.], [7., 5., 5., 4., 4.]],
                1.,
            ),
            (
                "asymmetric",
                "round_prefer_floor",
                [[1., 3., 3., 2., 2.], [7., 5., 5., 4., 4.], [7., 5., 5., 4., 4.]],
                1.,
            ),
            (
                "asymmetric",
                "floor",
                [[1., 1., 3., 3., 2.], [1., 1., 3., 3., 2.], [7., 7., 5., 5., 4.]],
                1.,
            ),
            (
                "asymmetric",
                "ceil",
                [[1., 3., 2., 2., 2.], [7., 5., 4., 4., 4.], [7., 5., 4., 4., 4.]],
                1.,
            ),
            // By hand: (i + 0.5) / 1.7 = 0.29, 0.88, 1.47, 2.06, 2.65; at half the size 1.
            ("tf_half_pixel_for_nn", "floor", [[1., 1., 3., 2., 2.], [1., 1., 3., 2., 2.], [7., 7., 5., 4., 4.]], 5.),
        ] {
            let run = |scale: f32| {
                let op = resize("nearest", coordinates, rounding, &[1.0, 1.0, scale, scale]);
                evaluate_plain(&op.into(), &[Some(&picture())]).unwrap().remove(0)
            };
            let name = format!("{coordinates} {rounding}");
            assert_eq!(run(1.7).data::<f32>(), rows.concat(), "{name}");
            assert_eq!(run(0.5).data::<f32>(), [half], "{name}");
        }
    }

    #[test]
    fn linear_as_onnxruntime_mixes() {
        let half_pixel = [
            1.0, 2.0, 2.833333, 2.166667, 2.5, 3.0, 3.333333, 2.666667, 5.5, 5.0, 4.333333,
            3.666667, 7.0, 6.0, 4.833333, 4.166667,
        ];
        for (coordinates, expected, half) in [
            ("half_pixel", half_pixel, 4.0),
            ("pytorch_half_pixel", half_pixel, 1.0),
            (
                "half_pixel_symmetric",
                [
                    1.0, 2.333333, 2.666667, 2.0, 2.5, 3.166667, 3.166667, 2.5, 5.5, 4.833333,
                    4.166667, 3.5, 7.0, 5.666667, 4.666667, 4.0,
                ],
                4.0,
            ),
            (
                "align_corners",
                [
                    1.0, 2.333333, 2.666667, 2.0, 3.0, 3.444444, 3.333333, 2.666667, 5.0,
                    4.555555, 4.0, 3.333333, 7.0, 5.666667, 4.666667, 4.0,
                ],
                1.0,
            ),
            (
                "asymmetric",
                [
                    1.0, 2.333333, 2.666667, 2.0, 4.0, 4.0, 3.666667, 3.0, 7.0, 5.666667,
                    4.666667, 4.0, 7.0, 5.666667, 4.666667, 4.0,
                ],
                1.0,
            ),
        ] {
            for (scales, expected) in [([2.0, 1.5], &expected[..]), ([0.5, 0.5], &[half])] {
                let op = resize("linear", coordinates, "floor", &[1.0, 1.0, scales[0], scales[1]]);
                let y = evaluate_plain(&op.into(), &[Some(&picture())]).unwrap();
                let y = y[0].data::<f32>();
                assert_eq!(y.len(), expected.len());
                let close = y.iter().zip(expected).all(|(a, b): (&f32, &f32)| (a - b).abs() < 2e-6);
                assert!(close, "{coordinates} {y:?}");
            }
        }
    }

    #[test]
    fn cubic_as_onnxruntime_mixes() {
        let half_pixel = [
            0.1569554, 1.671875, 2.855777, 1.974628, 2.264432, 3.0, 3.404551, 2.615632, 5.735571,
            5.1875, 4.308414, 3.671405, 7.843048, 6.515625, 4.857188, 4.31241,
        ];
        let inside = [
            0.3157901, 1.636678, 2.827702, 1.963059, 2.16579, 2.852941, 3.350866, 2.540888, 5.83421,
            5.264706, 4.388264, 3.686683, 7.68421, 6.480969, 4.911428, 4.264513,
        ];
        let align_corners = [
            1.0, 2.481482, 2.907407, 2.0, 2.888888, 3.507544, 3.397117, 2.629629, 5.111111,
            4.714681, 3.97325, 3.370371, 7.0, 5.740744, 4.462961, 4.0,
        ];
        let cubic = |slope, exclude_outside| ResizeMode::Cubic { slope, exclude_outside };
        for (coordinates, mode, twice, less) in [
            ("half_pixel", cubic(-0.75, false), half_pixel, [4.027059, 3.340744]),
            ("half_pixel", cubic(-0.5, true), inside, [4.01692, 3.302053]),
            ("align_corners", cubic(-0.75, false), align_corners, [1.0, 2.0]),
        ] {
            for (scales, expected) in [([2.0, 1.5], &twice[..]), ([0.5, 0.7], &less[..])] {
                let scales = [1.0, 1.0, scales[0], scales[1]];
                let op = Resize { mode, ..resize("cubic", coordinates, "floor", &scales) };
                assert_eq!(Resize::from_attrs(&op.to_attrs()), Ok(op.clone()));
                let y = evaluate_plain(&op.into(), &[Some(&picture())]).unwrap();
                let y = y[0].data::<f32>();
                assert_eq!(y.len(), expected.len());
                let close = y.iter().zip(expected).all(|(a, b): (&f32, &f32)| (a - b).abs() < 3e-6);
                assert!(close, "{coordinates} {mode:?} {y:?}");
            }
        }
    }

    fn assert_mixes(op: Resize, x: &Tensor, expected: &[f32]) {
        assert_eq!(Resize::from_attrs(&op.to_attrs()), Ok(op.clone()));
        let what = format!("{op:?}");
        let y = evaluate_plain(&op.into(), &[Some(x)]).unwrap();
        let y = y[0].data::<f32>();
        let close = y.iter().zip(expected).all(|(a, b): (&f32, &f32)| (a - b).abs() < 3e-6);
        assert!(y.len() == expected.len() && close, "{what} {y:?}");
    }

    #[test]
    fn antialias_as_onnxruntime_mixes() {
        let data = [1f32, 3., 2., 6., 5., 7., 5., 4., 0., 2., 2., 8., 1., 3., 9., 4., 4., 6., 2., 1.];
        let x = Tensor::from_slice(&[1, 1, 4, 5], &data);
        let cubic = |slope, exclude_outside| ResizeMode::Cubic { slope, exclude_outside };
        for (mode, scales, expected) in [
            (ResizeMode::Linear, [0.6, 0.5], &[3.375, 3.3906252, 4.541667, 3.3472226][..]),
            (cubic(-0.75, false), [0.6, 0.5], &[3.5128012, 3.2439287, 5.0459, 2.9459627]),
            (
                cubic(-0.5, true),
                [0.5, 1.4],
                &[
                    3.7184465, 4.284358, 4.0774527, 2.6487603, 2.8012798, 3.5980976, 4.3228354,
                    3.4116988, 5.0758915, 5.639533, 3.6157026, 2.1876128, 3.0995514, 4.790219,
                ],
            ),
        ] {
            let op = resize("linear", "half_pixel", "floor", &[1.0, 1.0, scales[0], scales[1]]);
            assert_mixes(Resize { mode, antialias: true, ..op }, &x, expected);
        }
        let (antialias, sizes) = (true, vec![1, 1, 2, 3]);
        let op = Resize { antialias, sizes, ..resize("linear", "align_corners", "floor", &[]) };
        assert_mixes(op, &x, &[2.7222223, 3.166667, 4.305556, 3.8333335, 4.2500005, 2.8333333]);
    }

    #[test]
    fn a_part_of_the_picture_as_onnxruntime_takes_it() {
        let crop = |mode, sizes: [i64; 2], roi: [f32; 4]| Resize {
            sizes: vec![1, 1, sizes[0], sizes[1]],
            roi: vec![0.0, 0.0, roi[0], roi[1], 1.0, 1.0, roi[2], roi[3]],
            extrapolation: 9.0,
            ..resize(mode, "tf_crop_and_resize", "round_prefer_floor", &[])
        };
        let beyond = [0.25, 0.5, 1.0, 1.2];
        for (mode, expected) in [
            ("nearest", [3.0, 3.0, 2.0, 9.0, 5.0, 5.0, 4.0, 9.0, 5.0, 5.0, 4.0, 9.0]),
            (
                "linear",
                [
                    3.5, 3.0333333, 2.5666666, 9.0, 4.25, 3.7833333, 3.3166666, 9.0, 5.0,
                    4.5333333, 4.0666666, 9.0,
                ],
            ),
            (
                "cubic",
                [
                    3.453125, 3.0994947, 2.509713, 9.0, 4.279297, 3.7611663, 3.3307442, 9.0, 5.0,
                    4.3383694, 4.0469627, 9.0,
                ],
            ),
        ] {
            assert_mixes(crop(mode, [3, 4], beyond), &picture(), &expected);
        }
        // By hand: of an axis whose size stays, onnxruntime takes all.
        assert_mixes(crop("linear", [1, 3], [0.0, 0.5, 0.5, 1.0]), &picture(), &[3.5, 3.0, 2.5]);
        let lower = crop("linear", [2, 3], [0.5, 0.0, 1.0, 1.0]);
        assert_mixes(lower, &picture(), &[4.0, 4.0, 3.0, 7.0, 5.0, 4.0]);
        let infer = |op: Resize| op.infer(&[Some(Spec::new(DType::F32, &[1, 1, 2, 3]))]);
        let whole = crop("linear", [1, 3], [0.0, 0.0, 1.0, 1.0]);
        assert!(infer(whole.clone()).is_ok());
        for op in [
            Resize { roi: vec![], ..whole.clone() },
            Resize { roi: vec![0.5, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], ..whole.clone() },
            Resize { roi: vec![f32::NAN; 8], ..whole.clone() },
            Resize { sizes: vec![], scales: vec![1.0; 4], ..whole.clone() },
            // No size of that scale.
            Resize { scales: vec![1.0, 1.0, 1e-30, 1.0], ..whole },
        ] {
            assert!(infer(op.clone()).is_err(), "{op:?}");
        }
    }

    #[test]
    fn sizes_axes_and_one_dimension() {
        let op = Resize { scales: vec![], sizes: vec![3, 4], axes: Some(vec![-2, 3]), ..resize("linear", "asymmetric", "floor", &[]) };
        let y = evaluate_plain(&op.into(), &[Some(&picture())]).unwrap();
        let expected = [1.0, 2.5, 2.5, 2.0, 5.0, 4.5, 3.833333, 3.333333, 7.0, 5.5, 4.5, 4.0];
        let y = y[0].data::<f32>();
        assert!(y.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 2e-6), "{y:?}");
        let x = Tensor::from_slice(&[1, 2, 2], &[1u8, 2, 3, 4]);
        let op = resize("nearest", "asymmetric", "floor", &[1.0, 1.0, 2.0]);
        let y = evaluate_plain(&op.into(), &[Some(&x)]).unwrap();
        assert_eq!(y[0].data::<u8>(), [1, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn kernels_equal_the_reference() {
        let (xq, yq) = (QuantParams::per_tensor(0.03, 100), QuantParams::per_tensor(0.03, 100));
        for (channels, mode, scales) in
            [
                (1, "nearest", [2.0, 2.0]),
                (24, "linear", [2.0, 1.3]),
                (3, "linear", [0.6, 1.0]),
                (5, "cubic", [1.7, 0.6]),
                (4, "antialiased", [0.4, 0.6]),
            ]
        {
            let antialias = mode == "antialiased";
            let scales = [1.0, 1.0, scales[0], scales[1]];
            let name = if antialias { "linear" } else { mode };
            let op = Resize { antialias, ..resize(name, "half_pixel", "floor", &scales) };
            let spec = Spec::new(DType::F32, &[2, channels, 7, 9]);
            let shape = Layout::ChannelsLast.physical(&op.infer(&[Some(spec)]).unwrap()[0].shape);
            let (x, op) = (noise(&[2, 7, 9, channels]), Op::from(op));
            assert_kernel_is_run(&op, &[Some((&x, None))], &[], (DType::F32, &shape, None), true);
            let x = code_noise(DType::U8, &[2, 7, 9, channels]);
            let out = (DType::U8, shape.as_slice(), Some(&yq));
            let on_codes = mode == "nearest" || mode == "linear";
            assert_kernel_is_run(&op, &[Some((&x, Some(&xq)))], &[], out, on_codes);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let spec = |shape: &[usize]| [Some(Spec::new(DType::F32, shape))];
        let op = |scales: &[f32]| resize("nearest", "asymmetric", "floor", scales);
        for (scales, shape) in [
            (vec![1.0, 1.0, 2.0], vec![1, 1, 2, 2]),
            (vec![1.0, 2.0, 2.0, 2.0], vec![1, 1, 2, 2]),
            (vec![1.0, 1.0, 0.1, 1.0], vec![1, 1, 2, 2]),
            (vec![1.0, 1.0, -1.0, 1.0], vec![1, 1, 2, 2]),
            (vec![1.0, 1.0, f32::INFINITY, 1.0], vec![1, 1, 2, 2]),
            (vec![1.0, 1.0, 1e30, 1.0], vec![1, 1, 2, 2]),
            (vec![1.0, 1.0, 1e6, 1e6], vec![1, 1, 2, 2]),
            (vec![1.0, 1.0, 2.0, 2.0], vec![1, 1, 0, 2]),
            (vec![1.0, 1.0], vec![1, 1]),
            (vec![], vec![1, 1, 2, 2]),
        ] {
            assert!(op(&scales).infer(&spec(&shape)).is_err(), "{scales:?} {shape:?}");
        }
        for (name, value) in [("mode", "area"), ("coordinate_transformation_mode", "half")] {
            assert!(Resize::from_attrs(&Attrs::new().with(name, Attr::Str(value.into()))).is_err());
        }
    }
}
