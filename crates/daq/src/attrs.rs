//! Format-neutral attributes: what the ONNX and `.daq` readers hand to an operator.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::error::OpError;
use crate::tensor::Tensor;

/// One attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// A string.
    Str(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// A tensor.
    Tensor(Tensor),
}

impl Attr {
    fn kind(&self) -> &'static str {
        match self {
            Attr::Int(_) => "an integer",
            Attr::Float(_) => "a float",
            Attr::Str(_) => "a string",
            Attr::Ints(_) => "a list of integers",
            Attr::Floats(_) => "a list of floats",
            Attr::Tensor(_) => "a tensor",
        }
    }
}

/// The operator set whose forms `Attrs` hold once read, and in which ONNX is written.
pub const OPSET: i64 = 17;

/// An operator's attributes by their ONNX names. Inputs that must be constant (the shape of
/// Reshape, the bounds of Clip) are attributes here, whatever the file's operator set made them.
#[derive(Clone, Debug)]
pub struct Attrs {
    /// The operator set version whose defaults hold.
    pub opset: i64,
    /// The attributes that are present.
    pub map: BTreeMap<String, Attr>,
    /// Those that the file has as inputs. A number may be a list of one there, and the other way round.
    pub inputs: BTreeSet<&'static str>,
    /// The names that were asked for.
    asked: RefCell<BTreeSet<String>>,
}

impl Default for Attrs {
    fn default() -> Self {
        Attrs::of_opset(OPSET)
    }
}

/// Whatever was asked for by now.
impl PartialEq for Attrs {
    fn eq(&self, other: &Self) -> bool {
        (self.opset, &self.map, &self.inputs) == (other.opset, &other.map, &other.inputs)
    }
}

fn wrong<T>(name: &str, found: &Attr, wanted: &str) -> Result<T, OpError> {
    Err(OpError::attribute(name, format!("is {}, must be {wanted}", found.kind())))
}

impl Attrs {
    /// No attribute, in the newest form.
    pub fn new() -> Self {
        Self::default()
    }

    /// No attribute, in the form of an operator set.
    pub fn of_opset(opset: i64) -> Self {
        let (map, inputs) = (BTreeMap::new(), BTreeSet::new());
        Attrs { opset, map, inputs, asked: RefCell::default() }
    }

    /// An attribute of any type, where present.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        let found = self.map.get(name)?;
        self.asked.borrow_mut().insert(name.to_string());
        Some(found)
    }

    /// Refuses attributes that nobody has asked for: what they say would be left out.
    ///
    /// # Errors
    /// [`OpError::Attribute`].
    pub fn all_asked(&self) -> Result<(), OpError> {
        let asked = self.asked.borrow();
        match self.map.keys().find(|&name| !asked.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let why = "is none of this operator's; remove it, or correct its name";
                Err(OpError::attribute(name, why))
            }
        }
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &str, value: Attr) -> Self {
        self.map.insert(name.to_string(), value);
        self
    }

    /// Adds an attribute where there is a value.
    pub fn with_some(self, name: &str, value: Option<Attr>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// An integer, where present.
    pub fn get_int(&self, name: &str) -> Result<Option<i64>, OpError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Int(v)) => Ok(Some(*v)),
            Some(Attr::Ints(v)) if v.len() == 1 && self.inputs.contains(name) => Ok(Some(v[0])),
            Some(other) => wrong(name, other, "an integer"),
        }
    }

    /// An integer, or its default.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, OpError> {
        Ok(self.get_int(name)?.unwrap_or(default))
    }

    /// A boolean given as an integer, or its default.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, OpError> {
        match self.int(name, default as i64)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(OpError::attribute(name, format!("is {other}, must be 0 or 1"))),
        }
    }

    /// A float, where present.
    pub fn get_float(&self, name: &str) -> Result<Option<f32>, OpError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Float(v)) => Ok(Some(*v)),
            Some(Attr::Floats(v)) if v.len() == 1 && self.inputs.contains(name) => Ok(Some(v[0])),
            Some(other) => wrong(name, other, "a float"),
        }
    }

    /// A float, or its default.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, OpError> {
        Ok(self.get_float(name)?.unwrap_or(default))
    }

    /// Integers, where present.
    pub fn get_ints(&self, name: &str) -> Result<Option<Vec<i64>>, OpError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Ints(v)) => Ok(Some(v.clone())),
            Some(Attr::Int(v)) if self.inputs.contains(name) => Ok(Some(vec![*v])),
            Some(other) => wrong(name, other, "a list of integers"),
        }
    }

    /// Floats, where present.
    pub fn get_floats(&self, name: &str) -> Result<Option<Vec<f32>>, OpError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Floats(v)) => Ok(Some(v.clone())),
            Some(Attr::Float(v)) if self.inputs.contains(name) => Ok(Some(vec![*v])),
            Some(other) => wrong(name, other, "a list of floats"),
        }
    }

    /// A string, where present.
    pub fn get_str(&self, name: &str) -> Result<Option<&str>, OpError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Str(v)) => Ok(Some(v)),
            Some(other) => wrong(name, other, "a string"),
        }
    }

    /// A tensor, where present.
    pub fn get_tensor(&self, name: &str) -> Result<Option<&Tensor>, OpError> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Tensor(v)) => Ok(Some(v)),
            Some(other) => wrong(name, other, "a tensor"),
        }
    }
}
