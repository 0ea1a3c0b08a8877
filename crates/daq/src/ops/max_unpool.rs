//! MaxUnpool: the input's elements at the places that MaxPool took them from, 0 elsewhere. Opsets
//! 9, 11, 22.

use super::moves::{ints, sized};
use super::spatial::{AutoPad, Window};
use super::*;

/// ONNX MaxUnpool. Places beyond the output, which the standard forbids, are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct MaxUnpool {
    /// Kernel, strides and padding of the pooling.
    pub window: Window,
    /// The output's shape, where it is larger than what the pooling says.
    pub output_shape: Option<Vec<i64>>,
}

impl MaxUnpool {
    /// The shape that the places count in.
    fn pooled(&self, x: &[usize]) -> Option<Vec<usize>> {
        let (lead, space) = x.split_at_checked(2)?;
        let n = space.len();
        let w = &self.window;
        let of = |list: &[usize], i: usize, default| match list.len() {
            0 => Some(default),
            _ => list.get(i).copied(),
        };
        let size = |(i, &x): (usize, &usize)| {
            let pads = of(&w.pads, i, 0)?.checked_add(of(&w.pads, n + i, 0)?)?;
            let whole = x.checked_sub(1)?.checked_mul(of(&w.strides, i, 1)?)?;
            whole.checked_add(*w.kernel.get(i)?)?.checked_sub(pads)
        };
        let space: Option<Vec<usize>> = space.iter().enumerate().map(size).collect();
        Some([lead, &space?].concat())
    }
}

impl Operator for MaxUnpool {
    const NAME: &'static str = "MaxUnpool";
    const INPUTS: usize = 3;
    const ATTR_INPUTS: &'static [AttrInput] =
        &[AttrInput { index: 2, name: "output_shape", since: 9 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let window = Window::from_attrs(attrs)?;
        if window.auto_pad != AutoPad::NotSet || !window.dilations.is_empty() {
            return Err(OpError::unsupported("MaxUnpool with auto_pad", "give its pads"));
        }
        Ok(MaxUnpool { window, output_shape: attrs.get_ints("output_shape")? })
    }

    fn to_attrs(&self) -> Attrs {
        let shape = self.output_shape.as_ref().map(|s| ints(s.iter().copied()));
        self.window.to_attrs(Attrs::new()).with_some("output_shape", shape)
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (x, places) = (unary::FLOATS.input(inputs, 0)?, required(inputs, 1)?);
        if places.dtype != DType::I64 {
            return Err(OpError::Type { index: 1, dtype: places.dtype, allowed: "i64" });
        }
        let misfit = || shape_error("elements, places and kernel do not fit", inputs);
        let pooled = self.pooled(&x.shape).filter(|_| places.shape == x.shape);
        let pooled = pooled.ok_or_else(misfit)?;
        let Some(shape) = &self.output_shape else { return sized(x.dtype, pooled, inputs) };
        let shape: Result<Vec<usize>, _> = shape.iter().map(|&n| n.try_into()).collect();
        let shape = shape.map_err(|_| misfit())?;
        sized(x.dtype, pooled.clone(), inputs)?;
        match shape.len() == pooled.len() && shape.iter().zip(&pooled).all(|(n, p)| n >= p) {
            true => sized(x.dtype, shape, inputs),
            false => Err(OpError::attribute("output_shape", format!("is smaller than {pooled:?}"))),
        }
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, places] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
        let pooled = self.pooled(x.shape).expect("checked by infer");
        let (shape, count) = (outputs[0].shape, pooled.iter().product::<usize>());
        let y = outputs[0].data_mut::<f32>();
        y.fill(0.0);
        for (&x, &place) in x.data::<f32>().iter().zip(places.data::<i64>()) {
            let Some(mut place) = usize::try_from(place).ok().filter(|&p| p < count) else {
                continue;
            };
            let (mut offset, mut stride) = (0, 1);
            for (&n, &size) in pooled.iter().zip(shape).rev() {
                offset += place % n * stride;
                (place, stride) = (place / n, stride * size);
            }
            y[offset] = x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::eval::evaluate_plain;
    use super::*;

    #[test]
    fn back_to_their_places() {
        let x = Tensor::from_slice(&[1, 1, 2], &[5f32, 6.]);
        let places = Tensor::from_slice(&[1, 1, 2], &[1i64, 2]);
        for (shape, want) in [
            (None, vec![0., 5., 6., 0.]),
            (Some(vec![1, 1, 5]), vec![0., 5., 6., 0., 0.]),
        ] {
            let attrs = Attrs::new()
                .with("kernel_shape", ints([2]))
                .with("strides", ints([2]))
                .with_some("output_shape", shape.map(ints));
            let op = MaxUnpool::from_attrs(&attrs).unwrap();
            assert_eq!(MaxUnpool::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = evaluate_plain(&op.clone().into(), &[Some(&x), Some(&places)]).unwrap();
            assert_eq!(y[0].data::<f32>(), want);
            let float = Some(Spec::new(DType::F32, &[1, 1, 2]));
            assert!(Op::from(op).infer(&[float.clone(), float]).is_err());
        }
    }
}
