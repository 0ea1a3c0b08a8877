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
    /// x86-64 with AVX-512 F, BW, VL and DQ, beside AVX2 and FMA.
    Avx512,
    /// The same with VNNI: 8-bit products that add up in 32 bits without saturating.
    Avx512Vnni,
    /// The same with VBMI, whose permutations look bytes up in tables: Ice Lake, Zen 4 and later.
    Avx512Vbmi,
}

impl Isa {
    /// Every instruction set, least capable first.
    pub const ALL: &'static [Isa] =
        &[Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Avx512Vbmi];

    /// The name that `DAQ_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Vbmi => "avx512vbmi",
        }
    }

    /// Whether this CPU has it, and with it all less capable ones.
    pub fn is_supported(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_supported()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512dq")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                Isa::Avx512.is_supported() && std::arch::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vbmi => {
                Isa::Avx512Vnni.is_supported() && std::arch::is_x86_feature_detected!("avx512vbmi")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The most capable one of this CPU, or a lower one where the environment variable
    /// `DAQ_ISA` names it. A name that is unknown or not supported here is ignored.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::choose(std::env::var("DAQ_ISA").ok().as_deref()))
    }

    fn choose(wanted: Option<&str>) -> Isa {
        let supported = || Isa::ALL.iter().rev().copied().filter(|isa| isa.is_supported());
        wanted
            .and_then(|name| supported().find(|isa| isa.name() == name))
            .or_else(|| supported().next())
            .unwrap_or(Isa::Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_forces_and_an_unknown_one_is_ignored() {
        let best = Isa::choose(None);
        assert!(best.is_supported());
        for wanted in [Some("avx1024"), Some(""), Some("AVX2")] {
            assert_eq!(Isa::choose(wanted), best);
        }
        for &isa in Isa::ALL {
            let expected = if isa.is_supported() { isa } else { best };
            assert_eq!(Isa::choose(Some(isa.name())), expected);
        }
    }

    #[test]
    fn ordered_and_each_includes_the_lower_ones() {
        assert!(Isa::ALL.is_sorted());
        // Kernels of a lower instruction set run where a higher one was asked for.
        let supported: Vec<bool> = Isa::ALL.iter().map(|isa| isa.is_supported()).collect();
        assert!(supported.is_sorted_by(|lower, higher| lower >= higher), "{supported:?}");
    }
}
