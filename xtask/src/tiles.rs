//! Counts the instructions of the inner loops of the dense kernels in the compiler's assembly, beside
//! what XNNPACK's tile for the same instruction set takes: the cost of a kernel on CPUs that are not
//! at hand.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The table on record.
const FILE: &str = "docs/tiles.txt";
const X86: &str = "x86_64-unknown-linux-gnu";
const ARM: &str = "aarch64-unknown-linux-gnu";

/// A dense kernel: where in the assembly it is, and the tile that XNNPACK's `gemm-config.c` takes.
struct Kernel {
    target: &'static str,
    name: &'static str,
    /// What the names of its functions contain.
    symbol: &'static str,
    /// Its multiplication, and the multiply-accumulates of one.
    dot: (&'static str, u32),
    peer: &'static str,
    /// Of XNNPACK's tile, for the same inputs of each pixel: multiplications, and loads of 8 or 16
    /// bytes of each pixel and of registers of weights.
    peer_counts: (u32, u32),
}

const KERNELS: &[Kernel] = &[
    Kernel {
        target: X86,
        name: "qconv_6x16c4__avxvnni",
        // The function that has its instructions; the name of the type is not in it.
        symbol: "quads_x867run_avx17h",
        dot: ("vpdpbusd", 32),
        peer: "5x8c8__avxvnni",
        peer_counts: (10, 5 + 2),
    },
    Kernel {
        target: X86,
        name: "qconv_6x64c4__avx512vnni",
        symbol: "conv_u8_vnni",
        dot: ("vpdpbusd", 64),
        peer: "7x16c8__avx512vnni",
        peer_counts: (14, 7 + 2),
    },
    Kernel {
        target: ARM,
        name: "qconv_4x16c2__neon",
        // NEON being always there, it is part of its caller.
        symbol: "conv_u8_quads..QuadPanel",
        // Three instructions for 16: the first multiplication counts.
        dot: ("smull", 16),
        peer: "2x8c2s4__neonv8_mlal",
        peer_counts: (16, 4 + 8),
    },
    Kernel {
        target: ARM,
        name: "qconv_6x16c4__neondot",
        symbol: "quads_neon..NeonDot",
        dot: ("sdot", 16),
        peer: "4x16c4__neondot",
        peer_counts: (64, 4 + 16),
    },
    Kernel {
        target: ARM,
        name: "qconv_6x16c8__neoni8mm",
        symbol: "quads_neon..NeonI8mm",
        dot: ("usmmla", 32),
        peer: "4x16c8__neoni8mm",
        peer_counts: (16, 4 + 8),
    },
];

/// Prints the table; with `write` puts it on record.
pub fn count(root: &Path, write: bool) -> Result<()> {
    let mut text = String::from(HEADER);
    for target in [X86, ARM] {
        let assembly = match assembly(root, target) {
            Ok(assembly) => assembly,
            Err(why) => {
                println!("SKIPPED: {target}: {why:#}");
                continue;
            }
        };
        for kernel in KERNELS.iter().filter(|kernel| kernel.target == target) {
            let best = loops(&assembly, kernel);
            let [dots, loads, others] =
                best.with_context(|| format!("no loop of {}", kernel.name))?;
            let (peer_dots, peer_loads) = kernel.peer_counts;
            let each = |count: u32, of: u32| f64::from(count) / f64::from(of);
            writeln!(
                text,
                "{:26} {:9} {:4} {dots:5} {loads:5} {others:6} {:10.2} {:11.2}  {:22} {:10.2}",
                kernel.name,
                kernel.dot.0,
                kernel.dot.1,
                each(loads, dots),
                each(others, dots),
                kernel.peer,
                each(peer_loads, peer_dots),
            )?;
        }
    }
    print!("{text}");
    if write {
        std::fs::write(root.join(FILE), text)?;
    }
    Ok(())
}

const HEADER: &str = "\
# Instructions of one turn of the inner loop: multiplications (and the products of each), loads, others.
# XNNPACK's loads are computed from its tile. Written by: cargo xtask tiles --write
# kernel                   instr.    macs  dots loads others  loads/dot  others/dot  XNNPACK                 loads/dot
";

/// The optimized assembly of `daq-kernels`.
fn assembly(root: &Path, target: &str) -> Result<String> {
    let folder = root.join("target/tiles");
    let status = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()))
        .current_dir(root)
        .env("CARGO_TARGET_DIR", &folder)
        .args(["rustc", "--quiet", "--release", "-p", "daq-kernels", "--lib", "--target", target])
        .args(["--", "--emit", "asm", "-C", "codegen-units=1", "-C", "debuginfo=0"])
        .status()?;
    ensure!(status.success(), "it does not build; rustup target add {target}");
    let folder = folder.join(target).join("release/deps");
    let newest = std::fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "s"))
        .max_by_key(|entry| entry.metadata().and_then(|about| about.modified()).ok());
    let path: PathBuf = newest.context("the compiler wrote no assembly")?.path();
    Ok(std::fs::read_to_string(path)?)
}

/// Multiplications, registers loaded and other instructions of the innermost loop of a kernel that
/// does the least beside multiplying: its full tile.
fn loops(assembly: &str, kernel: &Kernel) -> Option<[u32; 3]> {
    let mut all = Vec::new();
    let mut function: Vec<&str> = Vec::new();
    let mut wanted = false;
    for line in assembly.lines() {
        if line.starts_with("_ZN") {
            wanted = line.contains(kernel.symbol);
            function.clear();
        } else if line.contains(".cfi_endproc") {
            if wanted {
                loops_of(&function, kernel, &mut all);
            }
            wanted = false;
        } else if wanted {
            function.push(line.trim());
        }
    }
    let besides = |&[dots, loads, others]: &[u32; 3]| f64::from(loads + others) / f64::from(dots);
    all.into_iter().min_by(|a, b| besides(a).total_cmp(&besides(b)))
}

fn loops_of(function: &[&str], kernel: &Kernel, all: &mut Vec<[u32; 3]>) {
    let label = |name: &str| function.iter().position(|line| line.strip_suffix(':') == Some(name));
    // Backward branches, as the range of lines between.
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (end, line) in function.iter().enumerate() {
        let target = line.rsplit([' ', '\t', ',']).next().unwrap_or_default();
        let branch = line.starts_with(['j', 'b', 'c', 't']) && target.starts_with(".LBB");
        if let Some(start) = label(target).filter(|&start| branch && start < end) {
            found.push((start, end));
        }
    }
    for &(start, end) in &found {
        let inner = |&(a, b): &(usize, usize)| (a, b) != (start, end) && a >= start && b <= end;
        if found.iter().any(inner) {
            continue;
        }
        let mut counts = [0; 3];
        for line in &function[start..=end] {
            let is_instruction = !line.is_empty() && !line.starts_with(['.', '#', '/', ';']);
            if !is_instruction || line.ends_with(':') {
                continue;
            }
            // LLVM writes `{vex}` before instructions that AVX-512 has too.
            let name =
                line.trim_start_matches("{vex}").split_whitespace().next().unwrap_or_default();
            // A multiplication may read its weights from memory: that is a load of its own.
            let memory = match kernel.target {
                X86 => line.contains('(') && !line.ends_with(')') && !name.starts_with("lea"),
                _ => name.starts_with("ld"),
            };
            // `ldp` loads two registers.
            let loads = if name == "ldp" { 2 } else { u32::from(memory) };
            let dot = name.trim_end_matches('2') == kernel.dot.0;
            counts[0] += u32::from(dot);
            counts[1] += loads;
            counts[2] += u32::from(!dot && !memory);
        }
        if counts[0] > 0 {
            all.push(counts);
        }
    }
}
