//! What ScatterElements and ScatterND share: how an update meets the element that is there.

use super::*;

/// What becomes of an element and its update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The update takes its place.
    None,
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

const NAMES: [(&str, Reduction); 5] = [
    ("none", Reduction::None),
    ("add", Reduction::Add),
    ("mul", Reduction::Mul),
    ("min", Reduction::Min),
    ("max", Reduction::Max),
];

impl Reduction {
    pub(crate) fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let wanted = attrs.get_str("reduction")?.unwrap_or("none");
        let found = NAMES.iter().find(|(name, _)| *name == wanted).map(|(_, r)| *r);
        found.ok_or_else(|| OpError::attribute("reduction", format!("`{wanted}` is unknown")))
    }

    pub(crate) fn to_attrs(self, attrs: Attrs) -> Attrs {
        let name = NAMES.iter().find(|(_, r)| *r == self).map_or("none", |(name, _)| *name);
        attrs.with("reduction", Attr::Str(name.into()))
    }

    /// Whether elements of the type can meet so.
    pub(crate) fn check(self, inputs: &[Option<Spec>]) -> Result<(), OpError> {
        let (x, updates) = (required(inputs, 0)?, required(inputs, 2)?);
        if updates.dtype != x.dtype {
            let allowed = "the type of input 0";
            return Err(OpError::Type { index: 2, dtype: updates.dtype, allowed });
        }
        match self {
            Reduction::None => Ok(()),
            _ => unary::NUMBERS.input(inputs, 0).map(|_| ()),
        }
    }

    /// The element that comes of `old` and its update.
    pub(crate) fn of<T: Number>(self, old: T, update: T) -> T {
        match self {
            Reduction::None => update,
            Reduction::Add => old.add(update),
            Reduction::Mul => old.mul(update),
            Reduction::Min => {
                if update < old {
                    update
                } else {
                    old
                }
            }
            Reduction::Max => {
                if update > old {
                    update
                } else {
                    old
                }
            }
        }
    }
}

/// Elements that can be added and multiplied; integers wrap.
pub(crate) trait Number: crate::tensor::Element {
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
}

impl Number for f32 {
    fn add(self, other: f32) -> f32 {
        self + other
    }

    fn mul(self, other: f32) -> f32 {
        self * other
    }
}

macro_rules! integer {
    ($($t:ty),*) => { $(impl Number for $t {
        fn add(self, other: $t) -> $t {
            self.wrapping_add(other)
        }

        fn mul(self, other: $t) -> $t {
            self.wrapping_mul(other)
        }
    })* };
}
integer!(u8, i8, i32, i64);
