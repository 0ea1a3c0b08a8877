//! ReverseSequence: the beginning of each sequence of a batch backwards. Opset 10.

use super::moves::{sized, strides};
use super::*;

/// ONNX ReverseSequence. A length beyond the sequence, which the standard forbids, is the whole of
/// it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReverseSequence {
    /// The axis of sequences, 0 or 1.
    pub batch_axis: i64,
    /// The axis along which they run, the other one.
    pub time_axis: i64,
}

impl Operator for ReverseSequence {
    const NAME: &'static str = "ReverseSequence";
    const INPUTS: usize = 2;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let op = ReverseSequence {
            batch_axis: attrs.int("batch_axis", 1)?,
            time_axis: attrs.int("time_axis", 0)?,
        };
        match (op.batch_axis, op.time_axis) {
            (0, 1) | (1, 0) => Ok(op),
            _ => Err(OpError::attribute("time_axis", "the axes must be 0 and 1")),
        }
    }

    fn to_attrs(&self) -> Attrs {
        Attrs::new()
            .with("batch_axis", Attr::Int(self.batch_axis))
            .with("time_axis", Attr::Int(self.time_axis))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (x, lengths) = (required(inputs, 0)?, unary::INDICES.input(inputs, 1)?);
        if x.shape.len() < 2 || lengths.shape != [x.shape[self.batch_axis as usize]] {
            return Err(shape_error("there must be a length for each sequence", inputs));
        }
        sized(x.dtype, x.shape.clone(), inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, lengths] = [0, 1].map(|i| inputs[i].expect("checked by infer"));
        let (batch, time) = (self.batch_axis as usize, self.time_axis as usize);
        let (strides, size) = (strides(x.shape), x.dtype.size());
        let row = x.shape[2..].iter().product::<usize>() * size;
        for (b, length) in unary::indices(&lengths).into_iter().enumerate() {
            let length = length.clamp(0, x.shape[time] as i64) as usize;
            for t in 0..x.shape[time] {
                let from = if t < length { length - 1 - t } else { t };
                let at = |t: usize| (b * strides[batch] + t * strides[time]) * size;
                outputs[0].bytes[at(t)..][..row].copy_from_slice(&x.bytes[at(from)..][..row]);
            }
        }
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
    fn beginnings_backwards() {
        let x = Tensor::from_slice(&[2, 3], &[1u8, 2, 3, 4, 5, 6]);
        let lengths = Tensor::from_slice(&[2], &[2i64, 9]);
        let op = ReverseSequence { batch_axis: 0, time_axis: 1 };
        let y = evaluate_plain(&op.clone().into(), &[Some(&x), Some(&lengths)]).unwrap();
        assert_eq!(y[0].data::<u8>(), [2, 1, 3, 6, 5, 4]);
        assert_eq!(ReverseSequence::from_attrs(&op.to_attrs()), Ok(op));
        assert!(ReverseSequence::from_attrs(&Attrs::new().with("time_axis", Attr::Int(1))).is_err());
    }
}
