//! NegativeLogLikelihoodLoss: minus the log probability of each target, weighted. Opsets 12, 13, 22.

use super::*;

/// What becomes of the losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReduction {
    /// They stay.
    None,
    /// Their sum over the sum of their weights.
    Mean,
    /// Their sum.
    Sum,
}

const NAMES: [(&str, LossReduction); 3] =
    [("none", LossReduction::None), ("mean", LossReduction::Mean), ("sum", LossReduction::Sum)];

/// ONNX NegativeLogLikelihoodLoss. Targets beyond the classes count nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct NegativeLogLikelihoodLoss {
    /// What becomes of the losses.
    pub reduction: LossReduction,
    /// A target that counts nothing.
    pub ignore_index: Option<i64>,
}

impl NegativeLogLikelihoodLoss {
    /// The losses of log probabilities `x`, `[batch, classes, space...]`.
    pub(crate) fn loss(
        &self,
        shape: &[usize],
        x: &[f32],
        inputs: &[Option<TensorView>],
        output: &mut TensorViewMut,
    ) {
        let targets = unary::indices(&inputs[1].expect("checked by infer"));
        let weights = inputs.get(2).copied().flatten().map(|w| w.data::<f32>());
        let (classes, inner) = (shape[1], shape[2..].iter().product::<usize>());
        let of = |i: usize| {
            let target = targets[i];
            let known = self.ignore_index != Some(target);
            let class = usize::try_from(target).ok().filter(|&c| known && c < classes)?;
            let weight = weights.map_or(1.0, |w| w[class]);
            Some((weight, -x[(i / inner * classes + class) * inner + i % inner] * weight))
        };
        let y = output.data_mut::<f32>();
        if self.reduction == LossReduction::None {
            return y.iter_mut().enumerate().for_each(|(i, y)| *y = of(i).map_or(0.0, |l| l.1));
        }
        let (mut weight, mut loss) = (0.0, 0.0);
        for (w, l) in (0..targets.len()).filter_map(of) {
            weight += w;
            loss += l;
        }
        y[0] = if self.reduction == LossReduction::Mean { loss / weight } else { loss };
    }
}

impl Operator for NegativeLogLikelihoodLoss {
    const NAME: &'static str = "NegativeLogLikelihoodLoss";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let wanted = attrs.get_str("reduction")?.unwrap_or("mean");
        let found = NAMES.iter().find(|(name, _)| *name == wanted).map(|(_, r)| *r);
        let unknown = || OpError::attribute("reduction", format!("`{wanted}` is unknown"));
        let ignore_index = attrs.get_int("ignore_index")?;
        Ok(NegativeLogLikelihoodLoss { reduction: found.ok_or_else(unknown)?, ignore_index })
    }

    fn to_attrs(&self) -> Attrs {
        let name = NAMES.iter().find(|(_, r)| *r == self.reduction).map_or("", |(name, _)| *name);
        Attrs::new()
            .with("reduction", Attr::Str(name.into()))
            .with_some("ignore_index", self.ignore_index.map(Attr::Int))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let (x, target) = (unary::FLOATS.input(inputs, 0)?, unary::INDICES.input(inputs, 1)?);
        let [batch, classes, space @ ..] = &x.shape[..] else {
            return Err(shape_error("needs batch and classes", inputs));
        };
        if target.shape != [&[*batch], space].concat() {
            return Err(shape_error("the targets do not fit the scores", inputs));
        }
        if inputs.get(2).is_some_and(Option::is_some)
            && unary::FLOATS.input(inputs, 2)?.shape != [*classes]
        {
            return Err(shape_error("there must be a weight for each class", inputs));
        }
        let shape = match self.reduction {
            LossReduction::None => target.shape.clone(),
            _ => vec![],
        };
        moves::sized(x.dtype, shape, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        self.loss(x.shape, x.data(), inputs, &mut outputs[0]);
    }
}
