//! GroupNormalization: as InstanceNormalization, over groups of channels (Wu and He, 2018). Opset 21;
//! in 18 scale and bias were by group.

use super::instance_normalization::{by_channel, normalize};
use super::*;

/// ONNX GroupNormalization.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupNormalization {
    /// Added to the variance.
    pub epsilon: f32,
    /// How many groups.
    pub num_groups: i64,
}

impl Operator for GroupNormalization {
    const NAME: &'static str = "GroupNormalization";
    const INPUTS: usize = 3;

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        if attrs.int("stash_type", 1)? != 1 {
            return Err(OpError::attribute("stash_type", "must be 1 (float)"));
        }
        let num_groups = attrs.get_int("num_groups")?;
        Ok(GroupNormalization {
            epsilon: attrs.float("epsilon", 1e-5)?,
            num_groups: num_groups.ok_or_else(|| OpError::attribute("num_groups", "is missing"))?,
        })
    }

    fn to_attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("epsilon", Attr::Float(self.epsilon));
        attrs.with("num_groups", Attr::Int(self.num_groups))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::FLOATS.input(inputs, 0)?;
        let channels = x.shape.get(1).copied().unwrap_or(0);
        let groups = usize::try_from(self.num_groups).unwrap_or(0);
        if groups == 0 || channels == 0 || channels % groups != 0 {
            let why = format!("{channels} channels do not make {} groups", self.num_groups);
            return Err(OpError::attribute("num_groups", why));
        }
        for index in [1, 2] {
            let by = &unary::FLOATS.input(inputs, index)?.shape;
            if *by != [channels] && *by != [groups] {
                let why = format!("input {index} must be one by channel, or by group");
                return Err(shape_error(why, inputs));
            }
        }
        Ok(vec![x.clone()])
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let [x, scale, bias] = [0, 1, 2].map(|i| inputs[i].expect("checked by infer"));
        let (space, y) = (x.shape[2..].iter().product::<usize>(), outputs[0].data_mut::<f32>());
        let channels = x.shape[1];
        normalize(x.data(), channels / self.num_groups as usize * space, self.epsilon, y);
        let all = |v: TensorView| -> Vec<f32> {
            let v = v.data::<f32>();
            (0..channels).map(|c| v[c * v.len() / channels]).collect()
        };
        by_channel(y, space, &all(scale), &all(bias));
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn channels_of_a_group_together() {
        let op = GroupNormalization { epsilon: 0.0, num_groups: 1 };
        let x = [1f32, 3., 1., 3.];
        let inputs = [(&[1usize, 2, 2][..], &x[..]), (&[2], &[2., 3.]), (&[2], &[0.5, 0.])];
        assert_near(run_f32(&op.clone().into(), &inputs).data(), &[-1.5, 2.5, -3., 3.]);
        let inputs = [(&[1usize, 2, 2][..], &x[..]), (&[1], &[2.]), (&[1], &[0.5])];
        assert_near(run_f32(&op.clone().into(), &inputs).data(), &[-1.5, 2.5, -1.5, 2.5]);
        assert_eq!(GroupNormalization::from_attrs(&op.to_attrs()), Ok(op));
        let specs = [floats(&[1, 3, 2]), floats(&[3]), floats(&[3])];
        let three = GroupNormalization { epsilon: 0.0, num_groups: 2 };
        assert!(Op::from(three).infer(&specs).is_err());
    }
}
