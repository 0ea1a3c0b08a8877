//! SoftmaxCrossEntropyLoss: NegativeLogLikelihoodLoss of the LogSoftmax over the classes. Opsets
//! 12, 13.

use super::*;
use negative_log_likelihood_loss::NegativeLogLikelihoodLoss;
use crate::tensor::AlignedBytes;
use softmax::SoftmaxAxis;

/// ONNX SoftmaxCrossEntropyLoss. Also gives the log probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxCrossEntropyLoss(
    /// What becomes of the losses.
    pub NegativeLogLikelihoodLoss,
);

impl Operator for SoftmaxCrossEntropyLoss {
    const NAME: &'static str = "SoftmaxCrossEntropyLoss";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        NegativeLogLikelihoodLoss::from_attrs(attrs).map(SoftmaxCrossEntropyLoss)
    }

    fn to_attrs(&self) -> Attrs {
        self.0.to_attrs()
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let mut outputs = self.0.infer(inputs)?;
        outputs.push(required(inputs, 0)?.clone());
        Ok(outputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let mut logs = AlignedBytes::zeroed(x.bytes.len());
        let output =
            TensorViewMut { dtype: x.dtype, shape: x.shape, quant: None, bytes: logs.as_mut_slice() };
        SoftmaxAxis { axis: 1 }.run(inputs, &mut [output], true);
        let logs = Tensor::from_aligned(x.dtype, x.shape, logs);
        self.0.loss(x.shape, logs.data(), inputs, &mut outputs[0]);
        if let Some(output) = outputs.get_mut(1) {
            output.bytes.copy_from_slice(logs.bytes());
        }
    }
}
