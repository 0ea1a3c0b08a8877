//! ConvInteger: the convolution of 8-bit integers, each less its zero point, in 32 bits. Opset 10.
//! What dynamic quantization makes of Conv.

use super::conv::for_each_product;
use super::dense::sums;
use super::mat_mul_integer::{BYTES, check_zero_point, zero_points};
use super::pixels::{operand_specs, view_specs};
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
    const INPUTS: usize = 4;

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
        let s = self.0.shape(&view_specs(&inputs[..2])).expect("checked by infer");
        let (x, w) = (eval::codes(&x), eval::codes(&w));
        let y = outputs[0].data_mut::<i32>();
        for_each_product(&s, |output, c, products| {
            let (mut acc, wz) = (0i32, if wz.len() == 1 { wz[0] } else { wz[c] });
            // Beyond the picture there is the zero point: nothing.
            products(&mut |x_at, k| {
                let x = x_at.map_or(0, |i| x[i] - xz);
                acc = acc.wrapping_add(x * (w[k] - wz));
            });
            y[output] = acc;
        });
    }

    fn layout(&self, _: &[Option<Spec>]) -> LayoutRule {
        LayoutRule::ChannelsLast
    }

    fn compile(&self, compile: &Compile) -> Option<Box<dyn Kernel>> {
        let shape = self.0.shape(&operand_specs(compile)[..2]).ok()?;
        let zero_points = match compile.input(3) {
            Some(_) => zero_points(Some(compile.constant(3)?.view())),
            None => vec![0],
        };
        sums(compile, shape, compile.constant(1)?, &zero_points)
    }

    fn macs(&self, inputs: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        self.0.macs(inputs, outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;
    use crate::ops::pixels::{assert_kernel_is_run, code_noise};

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

    #[test]
    fn kernels_equal_the_reference() {
        let zero_point = Tensor::scalar(131u8);
        for (group, x_shape, w_shape, y_shape) in [
            (1, [2, 9, 7, 20], [18, 20, 3, 3], [2, 5, 4, 18]),
            (24, [1, 6, 8, 24], [24, 1, 3, 3], [1, 3, 4, 24]),
            (2, [1, 6, 8, 8], [6, 4, 1, 1], [1, 3, 4, 6]),
        ] {
            let pad = (w_shape[2] / 2) as i64;
            let attrs = Attrs::new()
                .with("group", Attr::Int(group))
                .with("strides", Attr::Ints(vec![2, 2]))
                .with("pads", Attr::Ints(vec![pad; 4]));
            let op = Op::from(ConvInteger::from_attrs(&attrs).unwrap());
            let x = code_noise(DType::U8, &x_shape);
            for (dtype, wz) in [
                (DType::I8, Tensor::scalar(0i8)),
                (DType::I8, code_noise(DType::I8, &w_shape[..1])),
                (DType::U8, Tensor::scalar(100u8)),
            ] {
                let w = code_noise(dtype, &w_shape);
                let inputs = [&x, &w, &zero_point, &wz].map(|t| Some((t, None)));
                let out = (DType::I32, &y_shape[..], None);
                assert_kernel_is_run(&op, &inputs, &[1, 3], out, true);
            }
        }
    }
}
