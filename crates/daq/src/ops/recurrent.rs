//! What RNN, GRU and LSTM share: attributes, shapes, and the walk over sequences.
//!
//! Each step of each sequence computes `x W^T + Wb` for all gates; the cell does the rest.

use super::moves::sized;
use super::*;

/// A function of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// 0 where negative.
    Relu,
}

const ACTIVATIONS: [(&str, Activation); 3] =
    [("Sigmoid", Activation::Sigmoid), ("Tanh", Activation::Tanh), ("Relu", Activation::Relu)];

impl Activation {
    pub(crate) fn of(self, x: f32) -> f32 {
        match self {
            Activation::Sigmoid => 1.0 / (1.0 + libm::expf(-x)),
            Activation::Tanh => libm::tanhf(x),
            Activation::Relu => x.max(0.0),
        }
    }
}

/// The attributes that all three have.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// Whether each direction walks backwards: one or two.
    pub backwards: Vec<bool>,
    /// Elements of the state.
    pub hidden_size: i64,
    /// The functions of the gates, those of each direction after one another.
    pub activations: Vec<Activation>,
    /// Bounds what goes into a function, where it is given.
    pub clip: Option<f32>,
    /// Whether the batch comes first, else the sequence.
    pub batch_first: bool,
}

/// What one direction of a cell works with.
pub(crate) struct Weights<'a> {
    hidden: usize,
    activations: &'a [Activation],
    clip: Option<f32>,
    recurrent: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) peepholes: Option<&'a [f32]>,
}

impl Weights<'_> {
    /// Row `j` of gate `gate` of the recurrent weights times a state.
    pub(crate) fn product(&self, gate: usize, j: usize, state: &[f32]) -> f32 {
        let row = &self.recurrent[(gate * self.hidden + j) * self.hidden..][..self.hidden];
        row.iter().zip(state).fold(0.0, |sum, (w, h)| sum + w * h)
    }

    /// The function `f` of a state, which is not bounded.
    pub(crate) fn of_state(&self, f: usize, x: f32) -> f32 {
        self.activations[f].of(x)
    }

    /// The function `f` of a gate's input.
    pub(crate) fn activate(&self, f: usize, x: f32) -> f32 {
        let x = self.clip.map_or(x, |clip| x.clamp(-clip, clip));
        self.activations[f].of(x)
    }
}

/// A kind of cell.
pub(crate) trait Cell {
    /// How many gates it has.
    const GATES: usize;
    /// The functions that it has where none are given.
    const DEFAULT: &'static [Activation];
    /// Whether it has a state `c` beside its output `h`.
    const TWO_STATES: bool;

    /// One step: `gates` holds `x W^T + Wb` by gate.
    fn step(&self, weights: &Weights, gates: &[f32], h: &mut [f32], c: &mut [f32]);
}

impl Recurrent {
    pub(crate) fn from_attrs<C: Cell>(attrs: &Attrs) -> Result<Self, OpError> {
        let backwards = match attrs.get_str("direction")? {
            None | Some("forward") => vec![false],
            Some("reverse") => vec![true],
            Some("bidirectional") => vec![false, true],
            Some(other) => {
                return Err(OpError::attribute("direction", format!("`{other}` is unknown")));
            }
        };
        let activations = match attrs.get_str("activations")? {
            None => C::DEFAULT.repeat(backwards.len()),
            Some(names) => {
                let of = |name: &str| {
                    let found = ACTIVATIONS.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
                    let why = || {
                        OpError::unsupported(
                            format!("the activation `{name}`"),
                            "use Sigmoid, Tanh or Relu",
                        )
                    };
                    found.map(|(_, a)| *a).ok_or_else(why)
                };
                names.split(',').map(of).collect::<Result<Vec<_>, _>>()?
            }
        };
        let wanted = C::DEFAULT.len() * backwards.len();
        if activations.len() != wanted {
            let why = format!("has {} functions, must have {wanted}", activations.len());
            return Err(OpError::attribute("activations", why));
        }
        // Of functions that daq does not have.
        attrs.get_floats("activation_alpha")?;
        attrs.get_floats("activation_beta")?;
        let hidden = attrs.get_int("hidden_size")?;
        let hidden_size = hidden
            .filter(|n| (1..=1 << 20).contains(n))
            .ok_or_else(|| OpError::attribute("hidden_size", "must be given and positive"))?;
        let clip = attrs.get_float("clip")?.filter(|c| *c > 0.0);
        let batch_first = attrs.flag("layout", false)?;
        Ok(Recurrent { backwards, hidden_size, activations, clip, batch_first })
    }

    pub(crate) fn to_attrs(&self) -> Attrs {
        let direction = match self.backwards[..] {
            [false] => "forward",
            [true] => "reverse",
            _ => "bidirectional",
        };
        let name =
            |a: &Activation| ACTIVATIONS.iter().find(|(_, b)| a == b).map_or("", |(name, _)| *name);
        let names: Vec<_> = self.activations.iter().map(name).collect();
        Attrs::new()
            .with("direction", Attr::Str(direction.into()))
            .with("hidden_size", Attr::Int(self.hidden_size))
            .with("activations", Attr::Str(names.join(",")))
            .with_some("clip", self.clip.map(Attr::Float))
            .with("layout", Attr::Int(self.batch_first.into()))
    }

    /// Steps, sequences and elements of an input.
    fn sizes(&self, x: &[usize]) -> Option<[usize; 3]> {
        match (x, self.batch_first) {
            (&[steps, batch, width], false) | (&[batch, steps, width], true) => {
                Some([steps, batch, width])
            }
            _ => None,
        }
    }

    fn state(&self, batch: usize) -> Vec<usize> {
        let (directions, hidden) = (self.backwards.len(), self.hidden_size as usize);
        match self.batch_first {
            true => vec![batch, directions, hidden],
            false => vec![directions, batch, hidden],
        }
    }

    pub(crate) fn infer<C: Cell>(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
        let x = unary::FLOATS.input(inputs, 0)?;
        let misfit = |what: &str| shape_error(format!("{what} does not fit"), inputs);
        let [steps, batch, width] = self.sizes(&x.shape).ok_or_else(|| misfit("the input"))?;
        let (directions, hidden) = (self.backwards.len(), self.hidden_size as usize);
        let rows = C::GATES * hidden;
        let check = |index: usize, what: &str, shape: &[usize]| {
            if !inputs.get(index).is_some_and(Option::is_some) {
                return Ok(());
            }
            match unary::FLOATS.input(inputs, index)?.shape == shape {
                true => Ok(()),
                false => Err(misfit(what)),
            }
        };
        required(inputs, 1)?;
        required(inputs, 2)?;
        check(1, "W", &[directions, rows, width])?;
        check(2, "R", &[directions, rows, hidden])?;
        check(3, "B", &[directions, 2 * rows])?;
        check(5, "initial_h", &self.state(batch))?;
        if C::TWO_STATES {
            check(6, "initial_c", &self.state(batch))?;
            check(7, "P", &[directions, 3 * hidden])?;
        }
        if let Some(Some(lengths)) = inputs.get(4)
            && (lengths.dtype != DType::I32 || lengths.shape != [batch])
        {
            return Err(misfit("sequence_lens"));
        }
        let all = match self.batch_first {
            true => vec![batch, steps, directions, hidden],
            false => vec![steps, directions, batch, hidden],
        };
        let state = sized(DType::F32, self.state(batch), inputs)?;
        let states = if C::TWO_STATES { [state.clone(), state].concat() } else { state };
        Ok([sized(DType::F32, all, inputs)?, states].concat())
    }

    pub(crate) fn macs<C: Cell>(&self, inputs: &[Option<Spec>]) -> u64 {
        let Some(Some(x)) = inputs.first() else { return 0 };
        let Some([steps, batch, width]) = self.sizes(&x.shape) else { return 0 };
        let rows = self.backwards.len() as u64 * C::GATES as u64 * self.hidden_size as u64;
        let each = rows.saturating_mul(width as u64 + self.hidden_size as u64);
        each.saturating_mul(steps as u64).saturating_mul(batch as u64)
    }

    pub(crate) fn run<C: Cell>(
        &self,
        cell: &C,
        inputs: &[Option<TensorView>],
        outputs: &mut [TensorViewMut],
    ) {
        let x = inputs[0].expect("checked by infer");
        let [steps, batch, width] = self.sizes(x.shape).expect("checked by infer");
        let (directions, hidden) = (self.backwards.len(), self.hidden_size as usize);
        let rows = C::GATES * hidden;
        let floats = |i: usize| inputs.get(i).copied().flatten().map(|v| v.data::<f32>());
        let (x, w) = (x.data::<f32>(), floats(1).expect("checked by infer"));
        let r = floats(2).expect("checked by infer");
        let lengths = inputs.get(4).copied().flatten().map(|v| v.data::<i32>());
        let none = vec![0f32; 2 * rows];
        // Where the state of a sequence lies, and the output of a step.
        let state = |d: usize, b: usize| {
            let row = if self.batch_first { b * directions + d } else { d * batch + b };
            row * hidden..(row + 1) * hidden
        };
        outputs.iter_mut().for_each(|output| output.bytes.fill(0));
        let mut gates = vec![0f32; rows];
        for (d, &backwards) in self.backwards.iter().enumerate() {
            let w = &w[d * rows * width..][..rows * width];
            let bias = floats(3).map_or(&none[..], |b| &b[d * 2 * rows..][..2 * rows]);
            let weights = Weights {
                hidden,
                activations: &self.activations[d * C::DEFAULT.len()..][..C::DEFAULT.len()],
                clip: self.clip,
                recurrent: &r[d * rows * hidden..][..rows * hidden],
                bias: &bias[rows..],
                peepholes: floats(7)
                    .filter(|_| C::TWO_STATES)
                    .map(|p| &p[d * 3 * hidden..][..3 * hidden]),
            };
            for b in 0..batch {
                let start = |i: usize| {
                    floats(i).map_or_else(|| vec![0.0; hidden], |s| s[state(d, b)].to_vec())
                };
                let mut h = start(5);
                let mut c = if C::TWO_STATES { start(6) } else { vec![] };
                let length = lengths.map_or(steps, |l| (l[b].max(0) as usize).min(steps));
                for step in 0..length {
                    let t = if backwards { length - 1 - step } else { step };
                    let row = if self.batch_first { b * steps + t } else { t * batch + b };
                    let x = &x[row * width..][..width];
                    for (j, gate) in gates.iter_mut().enumerate() {
                        let w = &w[j * width..][..width];
                        *gate = w.iter().zip(x).fold(0.0, |sum, (w, x)| sum + w * x) + bias[j];
                    }
                    cell.step(&weights, &gates, &mut h, &mut c);
                    let at = match self.batch_first {
                        true => (b * steps + t) * directions + d,
                        false => (t * directions + d) * batch + b,
                    };
                    outputs[0].data_mut::<f32>()[at * hidden..][..hidden].copy_from_slice(&h);
                }
                for (output, last) in outputs.iter_mut().skip(1).zip([&h, &c]) {
                    output.data_mut::<f32>()[state(d, b)].copy_from_slice(last);
                }
            }
        }
    }
}

/// Defines an operator over a [`Cell`]: its documentation, type, name in ONNX, number of inputs, and a
/// flag that it has beside the others' attributes.
macro_rules! recurrent {
    ($(#[$doc:meta])* $name:ident, $onnx:literal, $inputs:literal $(, $(#[$flag_doc:meta])* $flag:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            /// Directions, sizes and functions.
            pub recurrent: recurrent::Recurrent,
            $($(#[$flag_doc])* pub $flag: bool,)?
        }

        impl Operator for $name {
            const NAME: &'static str = $onnx;
            const INPUTS: usize = $inputs;

            fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
                Ok($name {
                    recurrent: recurrent::Recurrent::from_attrs::<$name>(attrs)?,
                    $($flag: attrs.flag(stringify!($flag), false)?,)?
                })
            }

            fn to_attrs(&self) -> Attrs {
                let attrs = self.recurrent.to_attrs();
                $(let attrs = attrs.with(stringify!($flag), Attr::Int(self.$flag.into()));)?
                attrs
            }

            fn infer(&self, inputs: &[Option<Spec>]) -> Result<Vec<Spec>, OpError> {
                self.recurrent.infer::<$name>(inputs)
            }

            fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut]) {
                self.recurrent.run(self, inputs, outputs);
            }

            fn macs(&self, inputs: &[Option<Spec>], _: &[Spec]) -> u64 {
                self.recurrent.macs::<$name>(inputs)
            }
        }
    };
}
pub(crate) use recurrent;
