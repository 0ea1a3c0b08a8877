//! Col2Im: pictures of which the input holds all blocks; what lies in several is added. Opset 18.

use super::moves::{ints, sized};
use super::spatial::Window;
use super::*;

/// ONNX Col2Im with constant sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Col2Im {
    /// The size of the pictures.
    pub image_shape: Vec<i64>,
    /// Strides, dilations and padding of the blocks, and their size as kernel.
    pub window: Window,
}

impl Col2Im {
    /// The blocks over a picture, by axis.
    fn axes(&self) -> Result<Vec<spatial::Axis>, OpError> {
        let mut picture = vec![1, 1];
        picture.extend(self.image_shape.iter().map(|&n| n as usize));
        self.window.resolve_any(&[Some(Spec::new(DType::F32, &picture))], None)
    }
}

impl Operator for Col2Im {
    const NAME: &'static str = "Col2Im";
    const INPUTS: usize = 3;
    const ATTR_INPUTS: &'static [AttrInput] = &[
        AttrInput { index: 1, name: "image_shape", since: 18 },
        AttrInput { index: 2, name: "block_shape", since: 18 },
    ];

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let list = |name: &str| {
            let list = attrs.get_ints(name)?;
            list.ok_or_else(|| OpError::attribute(name, "is missing"))
        };
        let image_shape = list("image_shape")?;
        if image_shape.is_empty() || !image_shape.iter().all(|n| (1..=1 << 20).contains(n)) {
            return Err(OpError::attribute("image_shape", "must be positive sizes"));
        }
        let mut block = Attrs::new().with("kernel_shape", ints(list("block_shape")?));
        for name in ["strides", "dilations", "pads"] {
            block = block.with_some(name, attrs.get(name).cloned());
        }
        Ok(Col2Im { image_shape, window: Window::from_attrs(&block)? })
    }

    fn to_attrs(&self) -> Attrs {
        let mut attrs = self.window.to_attrs(Attrs::new());
        let block = attrs.map.remove("kernel_shape");
        attrs.with_some("block_shape", block).with("image_shape", ints(self.image_shape.clone()))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::FLOATS.input(inputs, 0)?;
        let axes = self.axes()?;
        let taps: usize = axes.iter().map(|a| a.kernel).product();
        let blocks: usize = axes.iter().map(|a| a.output).product();
        if x.shape.len() != 3 || x.shape[1] % taps != 0 || x.shape[2] != blocks {
            let why = format!("must hold {taps} elements by channel of {blocks} blocks");
            return Err(shape_error(why, inputs));
        }
        let mut shape = vec![x.shape[0], x.shape[1] / taps];
        shape.extend(axes.iter().map(|a| a.input));
        sized(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let axes = self.axes().expect("checked by infer");
        let taps: usize = axes.iter().map(|a| a.kernel).product();
        let blocks = x.shape[2];
        let picture: usize = axes.iter().map(|a| a.input).product();
        let y = outputs[0].data_mut::<f32>();
        y.fill(0.0);
        for (i, &x) in x.data::<f32>().iter().enumerate() {
            let (mut block, row) = (i % blocks, i / blocks);
            let (mut tap, plane) = (row % taps, row / taps);
            let (mut offset, mut stride) = (Some(0), 1);
            for axis in axes.iter().rev() {
                let at = block % axis.output * axis.stride + tap % axis.kernel * axis.dilation;
                let at = at.checked_sub(axis.pad_begin).filter(|&at| at < axis.input);
                offset = offset.zip(at).map(|(offset, at)| offset + at * stride);
                (block, tap, stride) =
                    (block / axis.output, tap / axis.kernel, stride * axis.input);
            }
            if let Some(offset) = offset {
                y[plane * picture + offset] += x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn overlapping_blocks_add_up() {
        let attrs = Attrs::new()
            .with("image_shape", ints([1, 3]))
            .with("block_shape", ints([1, 2]));
        let op = Col2Im::from_attrs(&attrs).unwrap();
        assert_eq!(Col2Im::from_attrs(&op.to_attrs()), Ok(op.clone()));
        // Blocks (1, 3) and (2, 4).
        let y = run_f32(&op.clone().into(), &[(&[1, 2, 2], &[1., 2., 3., 4.])]);
        assert_eq!((y.shape(), y.data::<f32>()), (&[1, 1, 1, 3][..], &[1., 5., 4.][..]));
        assert!(Op::from(op).infer(&[floats(&[1, 3, 2])]).is_err());
    }
}
