//! EyeLike: a matrix of the input's shape with ones on a diagonal. Opsets 9, 22.

use super::*;
use crate::for_any_type;

/// ONNX EyeLike.
#[derive(Clone, Debug, PartialEq)]
pub struct EyeLike {
    /// The type; the input's where it is left out.
    pub dtype: Option<DType>,
    /// The diagonal: 0 the main one, 1 the one above it.
    pub k: i64,
}

impl Operator for EyeLike {
    const NAME: &'static str = "EyeLike";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let dtype = match attrs.get_int("dtype")? {
            None => None,
            Some(to) => Some(Cast::from_attrs(&Attrs::new().with("to", Attr::Int(to)))?.to),
        };
        Ok(EyeLike { dtype, k: attrs.int("k", 0)? })
    }

    fn to_attrs(&self) -> Attrs {
        let number = self.dtype.and_then(|to| Cast { to }.to_attrs().map.remove("to"));
        Attrs::new().with_some("dtype", number).with("k", Attr::Int(self.k))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = required(inputs, 0)?;
        match x.shape[..] {
            [_, _] => moves::sized(self.dtype.unwrap_or(x.dtype), x.shape.clone(), inputs),
            _ => Err(shape_error("needs a matrix", inputs)),
        }
    }

    fn run(&self, _: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let &[_, columns] = outputs[0].shape else { return };
        for_any_type!(outputs[0].dtype, T => {
            for (i, y) in outputs[0].data_mut::<T>().iter_mut().enumerate() {
                let above = (i % columns) as i64 - (i / columns) as i64;
                *y = (above == self.k) as u8 as T;
            }
        });
    }
}
