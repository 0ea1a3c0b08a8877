//! ConvInteger: the convolution of 8-bit integers, each less its zero point, in 32 bits. Opset 10.
//! What dynamic quantization makes of Conv.

use super::mat_mul_integer::{BYTES, check_zero_point, zero_points};
use super::spatial::as_2d;
use super::*;

/// ONNX ConvInteger. Inputs 2 and 3 are the zero points: one of the picture, and one of the weights
/// or one by output channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvInteger(
    /// Kernel, strides, dilations, padding and groups.
    pub Conv,
);

impl ConvInteger {
    /// Conv's own inputs, in float.
    fn float(inputs: &[Option<Spec>]) -> Result<[Option<Spec>; 2], OpError> {
        let float = |i: usize| Ok(Some(Spec::new(DType::F32, &BYTES.input(inputs, i)?.shape)));
        Ok([float(0)?, float(1)?])
    }
}

impl Operator for ConvInteger {
    const NAME: &'static str = "ConvInteger";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        Conv::from_attrs(attrs).map(ConvInteger)
    }

    fn to_attrs(&self) -> Attrs {
        self.0.to_attrs()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let shape = self.0.infer(&Self::float(inputs)?)?.remove(0).shape;
        check_zero_point(inputs, 2, 0, 1)?;
        check_zero_point(inputs, 3, 1, required(inputs, 1)?.shape[0])?;
        moves::sized(DType::I32, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, w] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
        let input = |i: usize| inputs.get(i).copied().flatten();
        let (xz, wz) = (zero_points(input(2))[0], zero_points(input(3)));
        let specs = [x, w].map(|v| Some(Spec::new(DType::F32, v.shape)));
        let axes = self.0.window.resolve(&specs, Some(&w.shape[2..])).expect("checked by infer");
        let [h, v] = as_2d(&axes);
        let (in_c, out_c, per_group) = (x.shape[1], w.shape[0], w.shape[1]);
        let taps = h.kernel * v.kernel;
        let weight = |(i, q): (usize, i32)| {
            q - if wz.len() == 1 { wz[0] } else { wz[i / (per_group * taps)] }
        };
        let w: Vec<i32> = eval::codes(&w).into_iter().enumerate().map(weight).collect();
        let x: Vec<i32> = eval::codes(&x).into_iter().map(|q| q - xz).collect();
        let (plane, out_plane) = (h.input * v.input, h.output * v.output);
        let per_out = out_c / self.0.group;
        let pictures = outputs[0].data_mut::<i32>().chunks_exact_mut((out_c * out_plane).max(1));
        for (n, picture) in pictures.enumerate() {
            for (c, y) in picture.chunks_exact_mut(out_plane.max(1)).enumerate() {
                y.fill(0);
                for k in 0..per_group * taps {
                    let (channel, tap) = (c / per_out * per_group + k / taps, k % taps);
                    let (row, column) = (tap / v.kernel, tap % v.kernel);
                    let w = w[c * per_group * taps + k];
                    let x = &x[(n * in_c + channel) * plane..][..plane];
                    for (i, y) in y.iter_mut().enumerate() {
                        // Beyond the picture there is the zero point: nothing.
                        let at = |axis: &spatial::Axis, position: usize, tap: usize| {
                            let at = position * axis.stride + tap * axis.dilation;
                            at.checked_sub(axis.pad_begin).filter(|&at| at < axis.input)
                        };
                        let row = at(&h, i / v.output, row);
                        if let (Some(row), Some(column)) = (row, at(&v, i % v.output, column)) {
                            *y = y.wrapping_add(x[row * v.input + column] * w);
                        }
                    }
                }
            }
        }
    }

    fn macs(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        self.0.macs(inputs, outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn padding_counts_nothing() {
        let attrs = Attrs::new().with("pads", Attr::Ints(vec![0, 1, 0, 0]));
        let op = ConvInteger::from_attrs(&attrs).unwrap();
        let x = Tensor::from_slice(&[1, 1, 1, 3], &[11u8, 12, 14]);
        let w = Tensor::from_slice(&[2, 1, 1, 2], &[1i8, 2, 5, 6]);
        let (xz, wz) = (Tensor::scalar(10u8), Tensor::from_slice(&[2], &[0i8, 5]));
        let inputs = [Some(&x), Some(&w), Some(&xz), Some(&wz)];
        let y = evaluate_plain(&op.into(), &inputs).unwrap();
        assert_eq!(y[0].shape(), [1, 2, 1, 3]);
        assert_eq!(y[0].data::<i32>(), [2, 5, 10, 1, 2, 4]);
    }

    #[test]
    fn groups_keep_their_channels() {
        let attrs = Attrs::new().with("group", Attr::Int(2));
        let op = ConvInteger::from_attrs(&attrs).unwrap();
        let x = Tensor::from_slice(&[1, 2, 1, 2], &[1u8, 2, 3, 4]);
        let w = Tensor::from_slice(&[4, 1, 1, 1], &[1u8, 2, 3, 4]);
        let y = evaluate_plain(&op.clone().into(), &[Some(&x), Some(&w)]).unwrap();
        assert_eq!(y[0].data::<i32>(), [1, 2, 2, 4, 9, 12, 12, 16]);
        let spec = |dtype, shape: &[usize]| Some(Spec::new(dtype, shape));
        let (x, w) = (spec(DType::U8, &[1, 2, 1, 2]), spec(DType::F32, &[4, 1, 1, 1]));
        assert!(Op::from(op).infer(&[x, w]).is_err());
    }
}
