//! One entry of a family's list, and the rule by which a list is searched.

use crate::Isa;

/// One implementation of a family: its name, what it needs of the CPU, and its entry point.
///
/// A family's list holds these best first and scalar last.
#[derive(Debug)]
pub struct Kernel<F: 'static> {
    /// Unique name: what it computes, how, and the instruction set after `__`.
    pub name: &'static str,
    /// The instruction set that the entry point executes.
    pub isa: Isa,
    /// The entry point. Those of an instruction set above scalar are `unsafe` to call: the caller
    /// answers for the CPU having it, which [`Kernel::pick`] and [`Kernel::check`] establish.
    pub(crate) entry: F,
}

impl<F> Kernel<F> {
    /// The first entry that needs no more than `isa` and that this CPU can execute.
    pub fn pick(list: &'static [Kernel<F>], isa: Isa) -> &'static Kernel<F> {
        list.iter()
            .find(|kernel| kernel.isa <= isa && kernel.isa.is_supported())
            .expect("every list ends with a scalar kernel")
    }

    /// Makes sure that this CPU can execute the kernel.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub(crate) fn check(&self) {
        assert!(self.isa.is_supported(), "this CPU cannot execute kernel {}", self.name);
    }
}
