//! Which instruction sets a kernel may use.

use std::sync::OnceLock;

/// An instruction set that kernels are written for, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust; the definition of every result.
    Scalar,
    /// x86-64 with AVX2 and FMA.
    Avx2,
}

impl Isa {
    /// Every instruction set, least capable first.
    pub const ALL: &'static [Isa] = &[Isa::Scalar, Isa::Avx2];

    /// The name that `DAQ_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
        }
    }

    /// Whether this CPU has it.
    pub fn is_supported(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 => false,
        }
    }

    /// The most capable one of this CPU, or a lower one where the environment variable
    /// `DAQ_ISA` names it. A name that is unknown or not supported here is ignored.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let supported = || Isa::ALL.iter().rev().copied().filter(|isa| isa.is_supported());
            std::env::var("DAQ_ISA")
                .ok()
                .and_then(|name| supported().find(|isa| isa.name() == name))
                .or_else(|| supported().next())
                .unwrap_or(Isa::Scalar)
        })
    }
}
