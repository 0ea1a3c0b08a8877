//! Counts the instructions of each kernel under valgrind, and compares them with those on record.
//!
//! Valgrind shows a CPU with AVX2 and nothing newer, so these are the scalar and AVX2 kernels.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

/// The counts on record.
const FILE: &str = "docs/instructions.txt";
/// By how much a count may grow before it is an error; compilers differ a little.
const TOLERANCE: f64 = 1.10;

/// Counts; with `write` puts them on record, otherwise says where there are more than on record.
pub fn count(root: &Path, write: bool) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: valgrind is not installed");
        return Ok(());
    }
    // A program beside the library, since an example would wait for all that tests and benches need.
    let build = ["build", "--quiet", "--release", "-p", "daq-kernels", "--bin", "kernel_runs"];
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    if !Command::new(cargo).args(build).current_dir(root).status()?.success() {
        bail!("kernel_runs does not build");
    }
    let target = std::env::var("CARGO_TARGET_DIR").map_or(root.join("target"), Into::into);
    let binary = target.join("release/kernel_runs");
    let list = valgrind(&binary, &[])?.0;
    let record = std::fs::read_to_string(root.join(FILE)).unwrap_or_default();
    let record: BTreeMap<String, f64> = record.lines().filter_map(parse).collect();
    let mut text = String::from(HEADER);
    let mut worse = 0;
    let lines: Vec<&str> = list.lines().collect();
    for (line, count) in lines.iter().zip(side_by_side(&lines, |line| count_of(&binary, line))) {
        let count = count?;
        let [kernel, layer, macs] = fields(line)?;
        let macs: u64 = macs.parse()?;
        let share = macs as f64 / count as f64;
        writeln!(text, "{kernel:28} {layer:10} {count:9} {share:7.2}")?;
        if let Some(&before) = record.get(&format!("{kernel} {layer}"))
            && count as f64 > before * TOLERANCE
        {
            println!("{kernel} {layer}: {count} instructions, {before} on record");
            worse += 1;
        }
    }
    print!("{text}");
    if write {
        std::fs::write(root.join(FILE), text)?;
    } else if worse > 0 {
        bail!("{worse} kernels take over a tenth more instructions than {FILE} says");
    }
    Ok(())
}

/// The kernel, the layer and its products.
fn fields(line: &str) -> Result<[&str; 3]> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    fields.try_into().map_err(|_| anyhow!("unexpected line `{line}`"))
}

/// The instructions of one run of a line's kernel and layer.
fn count_of(binary: &Path, line: &str) -> Result<i64> {
    let [kernel, layer, _] = fields(line)?;
    let runs = |count| Ok::<_, anyhow::Error>(valgrind(binary, &[kernel, layer, count])?.1);
    // The difference leaves out start-up and packing; the first run lets memory grow.
    Ok((runs("3")? - runs("1")?) / 2)
}

/// What `of` gives for each item, worked out on all cores.
fn side_by_side<T: Sync, R: Send>(items: &[T], of: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let of = &of;
        let mut threads = Vec::new();
        for items in items.chunks(share) {
            threads.push(scope.spawn(move || Vec::from_iter(items.iter().map(of))));
        }
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread panicked")).collect()
    })
}

const HEADER: &str = "# kernel, layer, instructions of one run, products per instruction\n\
                      # written by: cargo xtask instructions --write\n";

fn parse(line: &str) -> Option<(String, f64)> {
    let mut fields = line.split_whitespace();
    let name = format!("{} {}", fields.next()?, fields.next()?);
    Some((name, fields.next()?.parse().ok()?))
}

/// What the program prints, and how many instructions it takes.
fn valgrind(binary: &Path, args: &[&str]) -> Result<(String, i64)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(binary)
        .args(args)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("valgrind {}: {said}", binary.display());
    }
    let count = said.lines().find_map(|line| line.split("Collected :").nth(1));
    let count = count.and_then(|count| count.trim().parse().ok());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((text, count.with_context(|| format!("valgrind counted nothing: {said}"))?))
}
