//! LpPool: `sum(|x|^p)^(1/p)` of each window. Opsets 2, 11, 18 (dilations, ceil_mode), 22.

use super::spatial::Window;
use super::*;

/// ONNX LpPool, of any number of spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub struct LpPool {
    /// Kernel, strides, dilations and padding.
    pub window: Window,
    /// The power.
    pub p: i64,
}

impl Operator for LpPool {
    const NAME: &'static str = "LpPool";

    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let p = attrs.int("p", 2)?;
        if !(1..=64).contains(&p) {
            return Err(OpError::attribute("p", format!("is {p}, must be 1 to 64")));
        }
        Ok(LpPool { window: Window::of_pool(attrs)?, p })
    }

    fn to_attrs(&self) -> Attrs {
        self.window.to_attrs(Attrs::new().with("p", Attr::Int(self.p)))
    }

    fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        unary::FLOATS.input(inputs, 0)?;
        planes::infer(&self.window, inputs)
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
        let x = inputs[0].expect("checked by infer");
        let data = x.data::<f32>();
        planes::run(&self.window, x.shape, outputs[0].data_mut(), |taps, _| {
            let power = |&tap: &usize| libm::powf(data[tap].abs(), self.p as f32);
            libm::powf(taps.iter().map(power).sum(), 1.0 / self.p as f32)
        });
    }

    fn operations(&self, _: &[Option<Spec>], outputs: &[Spec]) -> u64 {
        planes::operations(&self.window, outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::unary::testing::*;
    use super::*;

    #[test]
    fn powers() {
        for (p, want) in [(1, [7., 4., 0.]), (2, [5., 4., 0.])] {
            let attrs = Attrs::new()
                .with("kernel_shape", Attr::Ints(vec![2]))
                .with("pads", Attr::Ints(vec![0, 1]))
                .with("p", Attr::Int(p));
            let op = LpPool::from_attrs(&attrs).unwrap();
            assert_eq!(LpPool::from_attrs(&op.to_attrs()), Ok(op.clone()));
            let y = run_f32(&op.into(), &[(&[1, 1, 3], &[3., -4., 0.])]);
            assert_near(y.data(), &want);
        }
        assert!(LpPool::from_attrs(&Attrs::new().with("p", Attr::Int(0))).is_err());
    }
}
