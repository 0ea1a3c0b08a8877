//! DeformConv: a convolution whose taps are moved by offsets that are computed (Dai and others,
//! 2017), and weighed by a mask (Zhu and others, 2019). Opsets 19, 22.

use super::moves::sized;
use super::spatial::{Window, as_2d};
use super::*;

/// ONNX DeformConv of pictures. Inputs: picture, weights, offsets, bias, mask.
#[derive(Clone, Debug, PartialEq)]
pub struct DeformConv {
    /// Kernel, strides, dilations, padding and groups.
    pub conv: Conv,
    /// Groups of input channels with offsets of their own.
    pub offset_group: usize,
}

impl Operator for DeformConv {
    const NAME: &'static str = "DeformConv";
    const INPUTS: usize = 5;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let groups = attrs.int("offset_group", 1)?;
        let groups = usize::try_from(groups).ok().filter(|&g| g > 0);
        let offset_group =
            groups.ok_or_else(|| OpError::attribute("offset_group", "must be positive"))?;
        Ok(DeformConv { conv: Conv::from_attrs(attrs)?, offset_group })
    }

    fn to_attrs(&self) -> Attrs {
        self.conv.to_attrs().with("offset_group", Attr::Int(self.offset_group as i64))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let given = |i: usize| inputs.get(i).is_some_and(Option::is_some);
        for index in (0..5).filter(|&i| i < 3 || given(i)) {
            unary::FLOATS.input(inputs, index)?;
        }
        let mut specs = vec![inputs[0].clone(), inputs[1].clone()];
        specs.extend(given(3).then(|| inputs[3].clone()));
        let output = self.conv.infer(&specs)?.remove(0);
        let (x, w, offset) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let &[batch, _, height, width] = &output.shape[..] else {
            return Err(shape_error("needs pictures of rank 4", inputs));
        };
        let taps = w.shape[2] * w.shape[3];
        let places = [batch, self.offset_group.saturating_mul(2 * taps), height, width];
        let masks = [batch, self.offset_group.saturating_mul(taps), height, width];
        let mask_fits = !given(4) || required(inputs, 4)?.shape == masks;
        if offset.shape != places || !mask_fits || x.shape[1] % self.offset_group != 0 {
            return Err(shape_error("offsets or mask do not fit", inputs));
        }
        sized(output.dtype, output.shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, w, offset] = [0, 1, 2].map(|i| inputs[i].expect("checked by infer"));
        let [bias, mask] =
            [3, 4].map(|i| inputs.get(i).copied().flatten().map(|v| v.data::<f32>()));
        let specs = [x, w].map(|v| Some(Spec::new(DType::F32, v.shape)));
        let window: &Window = &self.conv.window;
        let axes = window.resolve(&specs, Some(&w.shape[2..])).expect("checked by infer");
        let [h, v] = as_2d(&axes);
        let (taps, plane, out) = (h.kernel * v.kernel, h.input * v.input, h.output * v.output);
        let (in_c, out_c, per_group) = (x.shape[1], w.shape[0], w.shape[1]);
        let per_offset = in_c / self.offset_group;
        let (data, w, offset) = (x.data::<f32>(), w.data::<f32>(), offset.data::<f32>());
        let y = outputs[0].data_mut::<f32>();
        // Each channel of the picture under each tap, then products as in any convolution.
        let mut moved = vec![0f32; in_c * taps * out];
        for n in 0..x.shape[0] {
            for (k, moved) in moved.chunks_exact_mut(out.max(1)).enumerate() {
                let (c, tap) = (k / taps, k % taps);
                let group = n * self.offset_group + c / per_offset;
                let picture = &data[(n * in_c + c) * plane..][..plane];
                for (i, moved) in moved.iter_mut().enumerate() {
                    let by = |axis: usize| offset[((group * taps + tap) * 2 + axis) * out + i];
                    let at = |axis: &spatial::Axis, position: usize, tap: usize, by: f32| {
                        let at = position * axis.stride + tap * axis.dilation;
                        at as f32 - axis.pad_begin as f32 + by
                    };
                    let row = at(&h, i / v.output, tap / v.kernel, by(0));
                    let column = at(&v, i % v.output, tap % v.kernel, by(1));
                    let share = mask.map_or(1.0, |m| m[(group * taps + tap) * out + i]);
                    *moved = share * between(picture, h.input, v.input, row, column);
                }
            }
            let per_out = out_c / self.conv.group;
            for c in 0..out_c {
                let y = &mut y[(n * out_c + c) * out..][..out];
                y.fill(bias.map_or(0.0, |b| b[c]));
                for k in 0..per_group * taps {
                    let channel = c / per_out * per_group + k / taps;
                    let moved = &moved[(channel * taps + k % taps) * out..][..out];
                    let w = w[c * per_group * taps + k];
                    y.iter_mut().zip(moved).for_each(|(y, x)| *y += w * x);
                }
            }
        }
    }

    fn macs(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        self.conv.macs(inputs, outputs)
    }
}

/// The picture between four pixels, 0 beyond it.
fn between(picture: &[f32], height: usize, width: usize, row: f32, column: f32) -> f32 {
    let (top, left) = (row.floor(), column.floor());
    let pixel = |r: f32, c: f32| {
        let inside = r >= 0.0 && c >= 0.0 && r < height as f32 && c < width as f32;
        if inside { picture[r as usize * width + c as usize] } else { 0.0 }
    };
    let (down, along) = (row - top, column - left);
    pixel(top, left) * (1.0 - down) * (1.0 - along)
        + pixel(top, left + 1.0) * (1.0 - down) * along
        + pixel(top + 1.0, left) * down * (1.0 - along)
        + pixel(top + 1.0, left + 1.0) * down * along
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn taps_move() {
        let op = DeformConv::from_attrs(&Attrs::new()).unwrap();
        let x = (&[1usize, 1, 1, 3][..], &[1f32, 2., 4.][..]);
        let w = (&[1usize, 1, 1, 1][..], &[2f32][..]);
        // Not at all, half a pixel to the right, one up and so beyond the picture.
        let offset = (&[1usize, 2, 1, 3][..], &[0f32, 0., -1., 0., 0.5, 0.][..]);
        let y = run_f32(&op.clone().into(), &[x, w, offset]);
        assert_eq!(y.data::<f32>(), [2., 6., 0.]);
        let y = run_f32(&op.clone().into(), &[x, w, offset, (&[1], &[1.])]);
        assert_eq!(y.data::<f32>(), [3., 7., 1.]);
        let specs = [floats(&[1, 1, 1, 3]), floats(&[1, 1, 1, 1]), floats(&[1, 1, 1, 3])];
        assert!(Op::from(op).infer(&specs).is_err());
    }
}
