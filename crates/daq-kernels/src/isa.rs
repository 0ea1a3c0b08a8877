//! Which instruction sets a kernel may use.

use std::cmp::Ordering;
use std::sync::OnceLock;
#[cfg(target_arch = "x86_64")]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether AVX-VNNI is executed though the CPU does not report it.
#[cfg(target_arch = "x86_64")]
static EMULATED: AtomicBool = AtomicBool::new(false);

/// An instruction set that kernels are written for.
///
/// `a < b` says that a CPU with `b` runs the kernels of `a` too. That is a partial order: AVX-VNNI
/// and AVX-512 both include AVX2, and neither includes the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust; the definition of every result.
    Scalar,
    /// x86-64 with SSE4.1: every one since 2008.
    Sse41,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// The same with VNNI for registers of AVX2: 8-bit products that add up in 32 bits without
    /// saturating. Alder Lake and later, Zen 5.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, VL and DQ, beside AVX2 and FMA.
    Avx512,
    /// The same with VNNI.
    Avx512Vnni,
    /// The same with VBMI, whose permutations look bytes up in tables: Ice Lake, Zen 4 and later.
    Avx512Vbmi,
    /// The same with AMX, tiles of 8-bit products: Sapphire Rapids and later, on Linux.
    Amx,
    /// aarch64; every one has it.
    Neon,
    /// aarch64 with dotprod, sums of four 8-bit products: Cortex-A75 and later, all Apple.
    NeonDot,
    /// The same with i8mm, 8-bit matrix products: Cortex-A510, A710 and later, Apple from M2 on.
    NeonI8mm,
    /// wasm32 with 128-bit vectors, known when the module is compiled.
    Simd128,
}

impl Isa {
    /// Every instruction set; each comes after those that it includes.
    pub const ALL: &'static [Isa] = &[
        Isa::Scalar,
        Isa::Sse41,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512,
        Isa::Avx512Vnni,
        Isa::Avx512Vbmi,
        Isa::Amx,
        Isa::Neon,
        Isa::NeonDot,
        Isa::NeonI8mm,
        Isa::Simd128,
    ];

    /// The name that `DAQ_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Sse41 => "sse41",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Vbmi => "avx512vbmi",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
            Isa::NeonDot => "neondot",
            Isa::NeonI8mm => "neoni8mm",
            Isa::Simd128 => "simd128",
        }
    }

    /// The next less capable one.
    fn lower(self) -> Option<Isa> {
        match self {
            Isa::Scalar => None,
            Isa::Sse41 | Isa::Neon | Isa::Simd128 => Some(Isa::Scalar),
            Isa::Avx2 => Some(Isa::Sse41),
            Isa::AvxVnni | Isa::Avx512 => Some(Isa::Avx2),
            Isa::Avx512Vnni => Some(Isa::Avx512),
            Isa::Avx512Vbmi => Some(Isa::Avx512Vnni),
            Isa::Amx => Some(Isa::Avx512Vbmi),
            Isa::NeonDot => Some(Isa::Neon),
            Isa::NeonI8mm => Some(Isa::NeonDot),
        }
    }

    /// Whether this CPU has it, and with it all less capable ones.
    pub fn is_supported(self) -> bool {
        self.lower().is_none_or(Isa::is_supported) && self.is_detected()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_detected(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        match self {
            Isa::Scalar => true,
            Isa::Sse41 => has!("sse4.1"),
            Isa::Avx2 => has!("avx2") && has!("fma"),
            Isa::AvxVnni => has!("avxvnni") || EMULATED.load(Relaxed),
            Isa::Avx512 => {
                has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq")
            }
            Isa::Avx512Vnni => has!("avx512vnni"),
            Isa::Avx512Vbmi => has!("avx512vbmi"),
            Isa::Amx => amx_is_allowed(),
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm | Isa::Simd128 => false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_detected(self) -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        match self {
            Isa::Scalar => true,
            Isa::Neon => has!("neon"),
            Isa::NeonDot => has!("dotprod"),
            Isa::NeonI8mm => has!("i8mm"),
            _ => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_detected(self) -> bool {
        self == Isa::Scalar || self == Isa::Simd128 && cfg!(target_feature = "simd128")
    }

    /// Counts AVX-VNNI as supported from now on, for tests that emulate it by a signal handler.
    ///
    /// # Safety
    ///
    /// `vpdpbusd` and `vpdpbusds` of AVX-VNNI do what they should on every thread.
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    pub unsafe fn emulate_avxvnni() {
        EMULATED.store(true, Relaxed);
    }

    /// The most capable one of this CPU, or a lower one where the environment variable
    /// `DAQ_ISA` names it. A name that is unknown or not supported here is ignored.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::choose(std::env::var("DAQ_ISA").ok().as_deref()))
    }

    fn choose(wanted: Option<&str>) -> Isa {
        let best_first = || Isa::ALL.iter().rev().copied();
        wanted
            .and_then(|name| best_first().find(|isa| isa.name() == name && isa.is_supported()))
            .or_else(|| best_first().find(|isa| isa.is_supported()))
            .unwrap_or(Isa::Scalar)
    }
}

/// Whether the CPU has AMX with 8-bit products and the kernel lets this process use it, which is asked for
/// here: threads have no room for tiles in their saved state before.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_is_allowed() -> bool {
    use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};
    /// `arch_prctl`, its request for a part of the state, and the part that holds tiles.
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        if __get_cpuid_max(0).0 < 7 || __cpuid_count(7, 0).edx & TILE_AND_INT8 != TILE_AND_INT8 {
            return false;
        }
        let result: i64;
        // SAFETY: the system call reads and writes no memory of ours; where the kernel does not know the
        // request, it refuses.
        unsafe {
            std::arch::asm!(
                "syscall",
                inout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    })
}

/// Other systems are not asked.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_is_allowed() -> bool {
    false
}

impl PartialOrd for Isa {
    fn partial_cmp(&self, other: &Isa) -> Option<Ordering> {
        let includes =
            |a: Isa, b: Isa| std::iter::successors(Some(a), |a| a.lower()).any(|a| a == b);
        match (includes(*self, *other), includes(*other, *self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
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
    fn each_includes_the_lower_ones() {
        let includes = |isa: Isa, other: Isa| other <= isa;
        for (i, &isa) in Isa::ALL.iter().enumerate() {
            assert!(includes(isa, Isa::Scalar) && includes(isa, isa));
            for &later in &Isa::ALL[i + 1..] {
                assert!(!includes(isa, later), "{later:?} comes after {isa:?}");
                // Kernels of a lower instruction set run where a higher one was asked for.
                assert!(!includes(later, isa) || !later.is_supported() || isa.is_supported());
            }
        }
        assert!(Isa::Avx2 < Isa::AvxVnni && Isa::Avx512Vbmi < Isa::Amx && Isa::Sse41 < Isa::Avx2);
        assert!(Isa::AvxVnni.partial_cmp(&Isa::Avx512Vnni).is_none());
        assert!(Isa::Neon < Isa::NeonI8mm && Isa::NeonI8mm.partial_cmp(&Isa::Avx2).is_none());
    }
}
