//! GlobalMaxPool: the greatest element of each channel over all of space. Opsets 1, 22.

use super::global_average_pool::{batch_pixels_channels, global_output};
use super::pixels::allow;
use super::*;
use crate::tensor::Element;

/// ONNX GlobalMaxPool, over any number of spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalMaxPool;

fn run<T: Element>(x: &[T], y: &mut [T], pixels: usize, channels: usize) {
    if y.is_empty() {
        return;
    }
    let pictures = x.chunks_exact(pixels * channels);
    for (x, y) in pictures.zip(y.chunks_exact_mut(channels)) {
        y.copy_from_slice(&x[..channels]);
        for x in x.chunks_exact(channels) {
            for (y, &x) in y.iter_mut().zip(x) {
                // A NaN stays.
                *y = if *y >= x || y.partial_cmp(&y).is_none() { *y } else { x };
            }
        }
    }
}

impl Operator for GlobalMaxPool {
    const NAME: &'static str = "GlobalMaxPool";

    fn from_attrs(_: &Attrs) -> Result<Self, OpError> {
        Ok(GlobalMaxPool)
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        allow(inputs, 0, &[DType::F32, DType::U8, DType::I8], "f32, u8, i8")?;
        global_output(inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        let (_, pixels, channels) = batch_pixels_channels(x.shape);
        match x.dtype {
            DType::F32 => run::<f32>(x.data(), y.data_mut(), pixels, channels),
            DType::I8 => run::<i8>(x.data(), y.data_mut(), pixels, channels),
            _ => run::<u8>(x.data(), y.data_mut(), pixels, channels),
        }
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn the_greatest_of_each_channel() {
        let op: Op = GlobalMaxPool.into();
        let x = Tensor::from_slice(&[2, 2, 1, 2], &[-1f32, -2., 5., 9., 0., 0., 3., -3.]);
        let y = evaluate_plain(&op, &[Some(&x)]).unwrap();
        assert_eq!((y[0].shape(), y[0].data::<f32>()), (&[2, 2, 1, 1][..], &[-1., 9., 0., 3.][..]));
        let x = Tensor::from_slice(&[1, 1, 3], &[-9i8, -7, -8]);
        assert_eq!(evaluate_plain(&op, &[Some(&x)]).unwrap()[0].data::<i8>(), [-7]);
        for shape in [vec![1, 2], vec![1, 2, 0]] {
            assert!(op.infer(&[Some(Spec::new(DType::F32, &shape))]).is_err());
        }
    }
}
