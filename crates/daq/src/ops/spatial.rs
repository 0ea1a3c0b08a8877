//! Kernel, stride, dilation and padding attributes that convolutions and poolings share.

use super::{Attr, Attrs, OpError, Spec, required, shape_error};

/// The `auto_pad` attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoPad {
    /// Use `pads`.
    NotSet,
    /// Pad so that the output is `ceil(input / stride)`, the odd one at the end.
    SameUpper,
    /// Likewise, the odd one at the beginning.
    SameLower,
    /// No padding.
    Valid,
}

/// A window that slides over the spatial axes. Lists may be empty, which means the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Kernel size by spatial axis.
    pub kernel: Vec<usize>,
    /// Strides by spatial axis; empty for 1.
    pub strides: Vec<usize>,
    /// Dilations by spatial axis; empty for 1.
    pub dilations: Vec<usize>,
    /// Padding at all beginnings, then all ends; empty for 0.
    pub pads: Vec<usize>,
    /// Padding chosen by the operator.
    pub auto_pad: AutoPad,
    /// Round the output size up (poolings only).
    pub ceil_mode: bool,
}

/// One spatial axis of a window over an input, everything resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Input size.
    pub input: usize,
    /// Output size.
    pub output: usize,
    /// Kernel size.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Dilation.
    pub dilation: usize,
    /// Padding at the beginning.
    pub pad_begin: usize,
    /// Padding at the end.
    pub pad_end: usize,
}

fn sizes(attrs: &Attrs, name: &str, least: i64) -> Result<Vec<usize>, OpError> {
    let list = attrs.get_ints(name)?.unwrap_or_default();
    list.iter()
        .map(|&v| {
            let fits = v >= least && v <= 1 << 20;
            fits.then_some(v as usize).ok_or_else(|| {
                OpError::attribute(name, format!("{v} is not allowed, {least} is the least"))
            })
        })
        .collect()
}

impl Window {
    /// Reads `kernel_shape`, `strides`, `dilations`, `pads` and `auto_pad`.
    pub fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let auto_pad = match attrs.get_str("auto_pad")? {
            None | Some("NOTSET") | Some("") => AutoPad::NotSet,
            Some("SAME_UPPER") => AutoPad::SameUpper,
            Some("SAME_LOWER") => AutoPad::SameLower,
            Some("VALID") => AutoPad::Valid,
            Some(other) => {
                return Err(OpError::attribute("auto_pad", format!("`{other}` is unknown")));
            }
        };
        Ok(Window {
            kernel: sizes(attrs, "kernel_shape", 1)?,
            strides: sizes(attrs, "strides", 1)?,
            dilations: sizes(attrs, "dilations", 1)?,
            pads: sizes(attrs, "pads", 0)?,
            auto_pad,
            ceil_mode: false,
        })
    }

    /// As [`from_attrs`](Self::from_attrs), with a pool's `ceil_mode`.
    pub fn of_pool(attrs: &Attrs) -> Result<Self, OpError> {
        let ceil_mode = attrs.flag("ceil_mode", false)?;
        Ok(Window { ceil_mode, ..Window::from_attrs(attrs)? })
    }

    /// Adds the attributes that differ from their defaults.
    pub fn to_attrs(&self, attrs: Attrs) -> Attrs {
        let ints = |v: &[usize]| {
            (!v.is_empty()).then(|| Attr::Ints(v.iter().map(|&x| x as i64).collect()))
        };
        let auto_pad = match self.auto_pad {
            AutoPad::NotSet => None,
            AutoPad::SameUpper => Some("SAME_UPPER"),
            AutoPad::SameLower => Some("SAME_LOWER"),
            AutoPad::Valid => Some("VALID"),
        };
        attrs
            .with_some("kernel_shape", ints(&self.kernel))
            .with_some("strides", ints(&self.strides))
            .with_some("dilations", ints(&self.dilations))
            .with_some("pads", ints(&self.pads))
            .with_some("auto_pad", auto_pad.map(|s| Attr::Str(s.into())))
            .with_some("ceil_mode", self.ceil_mode.then_some(Attr::Int(1)))
    }

    /// Resolves the window over input 0 (`[batch, channels, space...]`) of one or two spatial axes:
    /// one entry for each. `kernel` is the weights' kernel where the operator has weights.
    pub fn resolve(
        &self,
        inputs: &[Option<Spec>],
        kernel: Option<&[usize]>,
    ) -> Result<Vec<Axis>, OpError> {
        if required(inputs, 0)?.shape.len() > 4 {
            return Err(shape_error(
                "needs one or two spatial axes after batch and channels",
                inputs,
            ));
        }
        self.resolve_any(inputs, kernel)
    }

    /// As [`resolve`](Self::resolve), for any number of spatial axes.
    pub fn resolve_any(
        &self,
        inputs: &[Option<Spec>],
        kernel: Option<&[usize]>,
    ) -> Result<Vec<Axis>, OpError> {
        let input = &required(inputs, 0)?.shape;
        let space = input.get(2..).unwrap_or_default();
        if space.is_empty() {
            return Err(shape_error("needs spatial axes after batch and channels", inputs));
        }
        if space.iter().any(|&n| n > 1 << 31) {
            return Err(shape_error("the picture is too large", inputs));
        }
        let rank = space.len();
        let kernel = kernel.unwrap_or(&self.kernel);
        let of = |list: &[usize], name: &str, n: usize, default: usize| match list.len() {
            0 => Ok(vec![default; n]),
            len if len == n => Ok(list.to_vec()),
            len => Err(OpError::attribute(name, format!("has {len} elements, must have {n}"))),
        };
        let empty = kernel.contains(&0);
        if empty || kernel.len() != rank || (!self.kernel.is_empty() && self.kernel != kernel) {
            return Err(shape_error(
                format!("kernel {kernel:?} does not fit (kernel_shape {:?})", self.kernel),
                inputs,
            ));
        }
        let strides = of(&self.strides, "strides", rank, 1)?;
        let dilations = of(&self.dilations, "dilations", rank, 1)?;
        let pads = of(&self.pads, "pads", 2 * rank, 0)?;
        (0..rank)
            .map(|i| {
                let extent = (kernel[i] - 1) * dilations[i] + 1;
                let (input_size, stride) = (space[i], strides[i]);
                let same = input_size.div_ceil(stride);
                let total = ((same.max(1) - 1) * stride + extent).saturating_sub(input_size);
                let (pad_begin, pad_end) = match self.auto_pad {
                    AutoPad::NotSet => (pads[i], pads[rank + i]),
                    AutoPad::Valid => (0, 0),
                    AutoPad::SameUpper => (total / 2, total - total / 2),
                    AutoPad::SameLower => (total - total / 2, total / 2),
                };
                let padded = input_size + pad_begin + pad_end;
                let room = padded.checked_sub(extent).ok_or_else(|| {
                    shape_error(
                        format!("a kernel of extent {extent} does not fit in {padded}"),
                        inputs,
                    )
                })?;
                let mut output = room / stride + 1;
                // The last window must start inside the input or its beginning padding.
                if self.ceil_mode && room % stride != 0 && output * stride < input_size + pad_begin
                {
                    output += 1;
                }
                let (kernel, dilation) = (kernel[i], dilations[i]);
                Ok(Axis { input: input_size, output, kernel, stride, dilation, pad_begin, pad_end })
            })
            .collect()
    }
}

/// Two spatial axes, a single one taking the second place: 1-D is 2-D with one row.
pub fn as_2d(axes: &[Axis]) -> [Axis; 2] {
    let row =
        Axis { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, pad_begin: 0, pad_end: 0 };
    match axes {
        [h, w] => [*h, *w],
        [w] => [row, *w],
        _ => unreachable!("resolve gives one or two axes"),
    }
}
