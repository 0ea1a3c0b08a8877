//! CenterCropPad: the middle of the input, or the input in the middle of zeros. Opset 18.

use super::moves::{FILL, Moves, ints, moved, normalize_axes, strides};
use super::*;

/// ONNX CenterCropPad with a constant shape.
#[derive(Clone, Debug, PartialEq)]
pub struct CenterCropPad {
    /// The sizes to come to.
    pub shape: Vec<i64>,
    /// The axes that have them; `None` for all.
    pub axes: Option<Vec<i64>>,
}

impl Operator for CenterCropPad {
    const NAME: &'static str = "CenterCropPad";
    const INPUTS: usize = 2;
    const ATTR_INPUTS: &'static [AttrInput] = &[AttrInput { index: 1, name: "shape", since: 18 }];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let shape = attrs.get_ints("shape")?;
        let shape = shape.ok_or_else(|| OpError::attribute("shape", "is missing"))?;
        Ok(CenterCropPad { shape, axes: attrs.get_ints("axes")? })
    }

    fn to_attrs(&self) -> Attrs {
        let axes = self.axes.as_ref().map(|axes| ints(axes.iter().copied()));
        Attrs::new().with("shape", ints(self.shape.iter().copied())).with_some("axes", axes)
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        let axes = match &self.axes {
            Some(axes) => normalize_axes(axes, x.shape.len())?,
            None => (0..x.shape.len()).collect(),
        };
        if axes.len() != self.shape.len() {
            let why = format!("has {} sizes for {} axes", self.shape.len(), axes.len());
            return Err(OpError::attribute("shape", why));
        }
        let mut shape = x.shape.clone();
        for (&axis, &n) in axes.iter().zip(&self.shape) {
            let size = usize::try_from(n);
            shape[axis] = size.map_err(|_| OpError::attribute("shape", format!("{n} is negative")))?;
        }
        moved(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let (x, y) = (inputs[0].expect("checked by infer"), &mut outputs[0]);
        let axis = |((&from, stride), &to): ((&usize, usize), &usize)| {
            let at = |i: usize| match to < from {
                true => Some(i + (from - to) / 2),
                false => i.checked_sub((to - from) / 2).filter(|&i| i < from),
            };
            (0..to).map(|i| at(i).map_or(FILL, |i| (i * stride) as u32)).collect()
        };
        let tables = x.shape.iter().zip(strides(x.shape)).zip(y.shape).map(axis).collect();
        let zero = x.quant.filter(|_| x.dtype.is_code()).map_or(0, |q| q.zero_point[0] as u64);
        Moves::new(tables).run(x.dtype.size(), zero, x.bytes, y.bytes, None);
    }

    fn quantization(&self) -> Quantization {
        Quantization::Moves
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn the_middle() {
        let x = [1f32, 2., 3., 4.];
        for (size, want) in
            [(2, vec![2., 3.]), (3, vec![1., 2., 3.]), (7, vec![0., 1., 2., 3., 4., 0., 0.])]
        {
            let op = CenterCropPad { shape: vec![size], axes: Some(vec![-1]) };
            assert_eq!(CenterCropPad::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = run_f32(&op.into(), &[(&[1, 4], &x)]);
            assert_eq!(y.data::<f32>(), want);
        }
        let op = CenterCropPad { shape: vec![2], axes: None };
        assert!(Op::from(op).infer(&[floats(&[1, 4])]).is_err());
    }
}
