//! Runs `crates/daq/examples/digest.rs` on every instruction set that this machine has or can
//! emulate, and compares what it prints with the list on record. Every kernel of an instruction set that
//! was run must have computed some of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The list that holds everywhere.
const FILE: &str = "docs/digests.txt";
/// Which kernels ran, and how.
const KERNELS: &str = "docs/digests-kernels.txt";
/// Kernels that no model takes: forms of `qconv_4x16_doubled__avx2` to measure it by, which the kernels'
/// own tests run.
const UNTAKEN: &[&str] = &["qconv_4x16_bytes__avx2", "qconv_4x16_words__avx2"];
const ARM: &str = "aarch64-unknown-linux-musl";
const WASM: &str = "wasm32-wasip1";
/// What runs natively, where the CPU has it.
const NATIVE: &[&str] =
    &["scalar", "sse41", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512vbmi", "amx"];
const NATIVE_ARM: &[&str] = &["scalar", "neon", "neondot", "neoni8mm"];
/// CPUs that qemu shows, and the best instruction set of each.
const EMULATED: &[(&str, &str)] = &[
    ("cortex-a53", "scalar"),
    ("cortex-a53", "neon"),
    ("cortex-a76", "neondot"),
    ("max", "neoni8mm"),
];
/// Runs a WASI program whose path is its argument.
const NODE: &str = "
const { WASI } = require('node:wasi');
const [path, isa] = process.argv.slice(1);
const wasi = new WASI({ version: 'preview1', args: ['digest'], env: { DAQ_ISA: isa } });
const module = new WebAssembly.Module(require('node:fs').readFileSync(path));
wasi.start(new WebAssembly.Instance(module, wasi.getImportObject()));
";

/// Compares; with `write` puts the scalar kernels' list on record first.
pub fn compare(root: &Path, write: bool) -> Result<()> {
    let native = build(root, None)?;
    let run = |isa: &str| said(Command::new(&native).env("DAQ_ISA", isa));
    let file = root.join(FILE);
    if write {
        let list = run("scalar")?;
        let list = digests(&list).map(|line| format!("{line}\n")).collect::<String>();
        std::fs::write(&file, list)?;
    }
    let wanted = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mut wrong = 0;
    let mut ran: Vec<(String, Vec<String>)> = Vec::new();
    let mut idle = Vec::new();
    let mut check = |isa: &str, how: &str, said: String| {
        let first = said.lines().next().unwrap_or_default();
        // The program says whether a signal handler stands in for the CPU.
        let trapped = first == format!("# {isa}, trap");
        if first != format!("# {isa}") && !trapped {
            println!("SKIPPED: {isa}: not on this CPU ({how})");
            return;
        }
        let how = match (trapped, how) {
            (true, "native") => "trap",
            (true, how) => &format!("trap, {how}"),
            (false, how) => how,
        };
        for line in said.lines() {
            if let Some(name) = line.strip_prefix("# idle ") {
                idle.extend((!UNTAKEN.contains(&name)).then(|| format!("{name} ({how})")));
            }
            let Some(name) = line.strip_prefix("# ran ") else { continue };
            match ran.iter_mut().find(|(other, _)| other == name) {
                Some((_, all)) => all.push(how.into()),
                None => ran.push((name.into(), vec![how.into()])),
            }
        }
        let pairs = digests(&said).zip(wanted.lines());
        let other: Vec<_> =
            pairs.filter(|(a, b)| a != b).map(|(_, b)| b.split(' ').next()).collect();
        match other.as_slice() {
            [] if digests(&said).count() == wanted.lines().count() => {
                println!("{isa}: equal ({how})")
            }
            other => {
                println!(
                    "{isa}: OTHER DIGESTS ({how}): {:?}",
                    other.iter().flatten().collect::<Vec<_>>()
                );
                wrong += 1;
            }
        }
    };
    for isa in if cfg!(target_arch = "aarch64") { NATIVE_ARM } else { NATIVE } {
        check(isa, "native", run(isa)?);
    }
    if cfg!(target_arch = "x86_64") {
        // A CPU without AVX-VNNI, where a signal handler has to compute its products.
        match qemu(root, "qemu-x86_64-static") {
            Err(why) => println!("SKIPPED: avxvnni by the trap: {why:#}"),
            Ok(qemu) => check("avxvnni", "qemu, max", emulated(&qemu, &native, "max", "avxvnni")?),
        }
        match qemu(root, "qemu-aarch64-static").and_then(|qemu| Ok((qemu, build(root, Some(ARM))?)))
        {
            Err(why) => println!("SKIPPED: neon, neondot and neoni8mm: {why:#}"),
            Ok((qemu, program)) => {
                for (cpu, isa) in EMULATED {
                    let said = emulated(&qemu, &program, cpu, isa)?;
                    check(isa, &format!("qemu, {cpu}"), said);
                }
            }
        }
    }
    match build(root, Some(WASM)) {
        Err(why) => println!("SKIPPED: simd128: {why:#}"),
        Ok(program) => {
            for isa in ["scalar", "simd128"] {
                let mut node = Command::new("node");
                node.args(["--no-warnings", "-e", NODE]).arg(&program).arg(isa);
                match said(&mut node) {
                    Err(why) => println!("SKIPPED: {isa} of wasm: {why:#}"),
                    Ok(said) => check(isa, "wasm in node", said),
                }
            }
        }
    }
    ensure!(wrong == 0, "{wrong} instruction sets give other digests than {FILE}");
    ensure!(idle.is_empty(), "kernels that no model of the digest takes: {}", idle.join(", "));
    let file = root.join(KERNELS);
    if write {
        let line = |(name, how): &(String, Vec<String>)| format!("{name:36} {}\n", how.join("; "));
        std::fs::write(&file, ran.iter().map(line).collect::<String>())?;
    }
    let list = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let listed: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let missing: Vec<_> =
        ran.iter().map(|(name, _)| name.as_str()).filter(|name| !listed.contains(name)).collect();
    ensure!(missing.is_empty(), "{KERNELS} lacks {missing:?}: cargo xtask digest --write");
    println!("{} kernels ran", ran.len());
    Ok(())
}

/// The digests among what the program prints.
fn digests(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter(|line| !line.starts_with('#'))
}

/// Builds the example; gives its path.
fn build(root: &Path, target: Option<&str>) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root).args(["build", "--quiet", "--example", "digest"]);
    let folder = std::env::var("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let Some(target) = target else {
        // With the features that the tests have, so that both share what is built.
        cargo.arg("--workspace");
        ensure!(cargo.status()?.success(), "the example digest does not build");
        return Ok(folder.join("debug/examples/digest"));
    };
    let found =
        Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output()?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    ensure!(libraries.is_dir(), "no standard library; rustup target add {target}");
    cargo
        .args(["-p", "daq", "--target", target])
        // What only the tests use waits for no optimiser.
        .args(["--config", "profile.dev.package.proptest.opt-level=0"])
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld")
        .env("CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS", "-C target-feature=+simd128");
    ensure!(cargo.status()?.success(), "the example digest does not build for {target}");
    let file = if target == WASM { "digest.wasm" } else { "digest" };
    Ok(folder.join(target).join("debug/examples").join(file))
}

/// What a program prints on a CPU of qemu's.
fn emulated(qemu: &Path, program: &Path, cpu: &str, isa: &str) -> Result<String> {
    let run = Command::new(qemu).arg(program).env("QEMU_CPU", cpu).env("DAQ_ISA", isa).output()?;
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// The qemu of a CPU: that of the system, or one that was unpacked under `target/qemu`.
fn qemu(root: &Path, name: &str) -> Result<PathBuf> {
    for path in [PathBuf::from(name), root.join("target/qemu/usr/bin").join(name)] {
        if Command::new(&path).arg("--version").output().is_ok() {
            return Ok(path);
        }
    }
    bail!("{name} is not installed")
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} {error}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
