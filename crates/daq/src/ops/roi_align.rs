//! RoiAlign: boxes of a picture, each as a small one (He, Gkioxari, Dollar and Girshick, 2017).
//! Opsets 10, 16 (half pixels), 22.

use super::moves::sized;
use super::*;

/// ONNX RoiAlign: input 0 is the pictures, 1 the boxes as x1, y1, x2, y2, 2 the picture of each box.
#[derive(Clone, Debug, PartialEq)]
pub struct RoiAlign {
    /// The largest of the samples rather than their mean.
    pub max: bool,
    /// Rows of the output.
    pub output_height: i64,
    /// Columns of the output.
    pub output_width: i64,
    /// Samples by axis for each output element; 0 for as many as input elements.
    pub sampling_ratio: i64,
    /// Elements of the picture by unit of the boxes.
    pub spatial_scale: f32,
    /// Whether boxes are moved by half an element, since opset 16.
    pub half_pixel: bool,
}

/// The most output elements by axis, and samples by axis for each.
const MOST: i64 = 4096;

/// A sample between four pixels: their offsets and shares; none beyond the picture.
fn sample(y: f32, x: f32, height: usize, width: usize) -> [(usize, f32); 4] {
    let beyond = |at: f32, n: usize| at < -1.0 || at > n as f32 || at.is_nan();
    if beyond(y, height) || beyond(x, width) {
        return [(0, 0.0); 4];
    }
    let axis = |at: f32, n: usize| {
        let at = at.max(0.0);
        match at as usize >= n - 1 {
            true => (n - 1, n - 1, 0.0),
            false => (at as usize, at as usize + 1, at - at.floor()),
        }
    };
    let ((top, bottom, down), (left, right, along)) = (axis(y, height), axis(x, width));
    [
        (top * width + left, (1.0 - down) * (1.0 - along)),
        (top * width + right, (1.0 - down) * along),
        (bottom * width + left, down * (1.0 - along)),
        (bottom * width + right, down * along),
    ]
}

impl Operator for RoiAlign {
    const NAME: &'static str = "RoiAlign";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let half_pixel = match attrs.get_str("coordinate_transformation_mode")? {
            None => attrs.opset >= 16,
            Some("half_pixel") => true,
            Some("output_half_pixel") => false,
            Some(other) => {
                let why = format!("`{other}` is unknown");
                return Err(OpError::attribute("coordinate_transformation_mode", why));
            }
        };
        let max = match attrs.get_str("mode")? {
            None | Some("avg") => false,
            Some("max") => true,
            Some(other) => {
                return Err(OpError::attribute("mode", format!("is `{other}`, not avg or max")));
            }
        };
        let size = |name: &str, least, default| {
            let n = attrs.int(name, default)?;
            let fits = (least..=MOST).contains(&n).then_some(n);
            fits.ok_or_else(|| OpError::attribute(name, format!("{n} is not in {least} to {MOST}")))
        };
        Ok(RoiAlign {
            max,
            output_height: size("output_height", 1, 1)?,
            output_width: size("output_width", 1, 1)?,
            sampling_ratio: size("sampling_ratio", 0, 0)?,
            spatial_scale: attrs.float("spatial_scale", 1.0)?,
            half_pixel,
        })
    }

    fn to_attrs(&self) -> Attrs {
        let mode = if self.half_pixel { "half_pixel" } else { "output_half_pixel" };
        Attrs::new()
            .with("mode", Attr::Str(if self.max { "max" } else { "avg" }.into()))
            .with("output_height", Attr::Int(self.output_height))
            .with("output_width", Attr::Int(self.output_width))
            .with("sampling_ratio", Attr::Int(self.sampling_ratio))
            .with("spatial_scale", Attr::Float(self.spatial_scale))
            .with("coordinate_transformation_mode", Attr::Str(mode.into()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (x, boxes) = (unary::FLOATS.input(inputs, 0)?, unary::FLOATS.input(inputs, 1)?);
        let of = unary::INDICES.input(inputs, 2)?;
        let &[batch, channels, height, width] = &x.shape[..] else {
            return Err(shape_error("needs pictures of rank 4", inputs));
        };
        if batch * height * width == 0 || boxes.shape != [of.shape.iter().product(), 4] {
            return Err(shape_error("boxes and their pictures do not fit", inputs));
        }
        let size = [self.output_height as usize, self.output_width as usize];
        sized(x.dtype, vec![boxes.shape[0], channels, size[0], size[1]], inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, boxes, of] = [0, 1, 2].map(|i| inputs[i].expect("checked by infer"));
        let &[batch, channels, height, width] = x.shape else { return };
        let (rows, columns) = (self.output_height as usize, self.output_width as usize);
        let (data, plane) = (x.data::<f32>(), height * width);
        let y = outputs[0].data_mut::<f32>();
        let offset = if self.half_pixel { 0.5 } else { 0.0 };
        for (b, (corners, picture)) in
            boxes.data::<f32>().chunks_exact(4).zip(unary::indices(&of)).enumerate()
        {
            let at = |i: usize| corners[i] * self.spatial_scale - offset;
            let least = if self.half_pixel { f32::NEG_INFINITY } else { 1.0 };
            let size = |low: usize, high: usize| (at(high) - at(low)).max(least);
            let (step_y, step_x) = (size(1, 3) / rows as f32, size(0, 2) / columns as f32);
            let count = |step: f32| match self.sampling_ratio {
                0 => (step.ceil().clamp(0.0, MOST as f32)) as usize,
                n => n as usize,
            };
            let (down, along) = (count(step_y), count(step_x));
            let picture = picture.clamp(0, batch as i64 - 1) as usize;
            for cell in 0..rows * columns {
                let place = |start: f32, step: f32, cell: usize, i: usize, n: usize| {
                    start + step * cell as f32 + step * (i as f32 + 0.5) / n as f32
                };
                let samples: Vec<_> = (0..down * along)
                    .map(|i| {
                        let y = place(at(1), step_y, cell / columns, i / along, down);
                        let x = place(at(0), step_x, cell % columns, i % along, along);
                        sample(y, x, height, width)
                    })
                    .collect();
                for c in 0..channels {
                    let plane = &data[(picture * channels + c) * plane..][..plane];
                    let parts = samples.iter().map(|s| s.map(|(i, share)| plane[i] * share));
                    y[(b * channels + c) * rows * columns + cell] = match self.max {
                        // The largest of the weighted pixels, as the standard has it.
                        true => parts.flatten().fold(f32::NEG_INFINITY, f32::max),
                        false => {
                            parts.map(|p| p.iter().sum::<f32>()).sum::<f32>()
                                / samples.len().max(1) as f32
                        }
                    };
                }
            }
        }
    }

    fn operations(&self, _: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        let samples = self.sampling_ratio.max(2) as u64;
        outputs.first().map_or(0, elements).saturating_mul(4 * samples * samples)
    }
}
