//! `daq run --dynamic`: arrays of differing shapes.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use daq::Tensor;
use daq_quant::dynamic::DynamicModel;
use daq_quant::npy::Array;
use daq_quant::npz::{read_npz, write_npz};
use daq_quant::samples::{to_array, to_tensor};

use crate::messages;
use crate::model;
use crate::options::usage;
use crate::run::{Args, Said, print, summary};

/// Runs the command on each array. Outputs are written as `NAME/FILE`, since their shapes differ.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    if model::is_daq(&args.model)? {
        let shown = args.model.display();
        return Err(usage(format!("{shown}: a .daq file's shapes are settled; leave --dynamic")));
    }
    let mut model = DynamicModel::open(&args.model, args.threads)?;
    let names = model::class_names(&daq::Graph::default(), args.labels.as_deref())?;
    let (mut kept, mut said) = (Vec::new(), Vec::new());
    let (mut count, mut failed) = (0, 0);
    for path in files(&args.inputs)? {
        count += 1;
        let one = match sample(&mut model, &path) {
            Ok(outputs) => outputs,
            Err(e) => {
                failed += 1;
                messages::line(&format!("error: {}: {e}", path.display()));
                continue;
            }
        };
        let outputs = one.iter().map(|(port, t)| summary(port, t, args.top, &names)).collect();
        let one_said = Said { input: path.display().to_string(), outputs };
        match args.json {
            true => said.push(one_said),
            false => print(&one_said, out)?,
        }
        if args.output.is_some() {
            let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let named = one.iter().map(|(port, t)| (format!("{}/{file}", port.name), to_array(t)));
            kept.extend(named);
        }
    }
    if let Some(path) = args.output.as_ref().filter(|_| !kept.is_empty()) {
        write_npz(path, kept.iter().map(|(name, array)| (name.as_str(), array)))?;
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&said)?)?;
    }
    match failed {
        0 => Ok(()),
        n => bail!("{n} of {count} could not be run; see above"),
    }
}

/// The files, and those of folders in the order of their names.
fn files(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in inputs {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside: Vec<PathBuf> =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        inside.retain(|p| p.extension().is_some_and(|e| e == "npy" || e == "npz"));
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

fn sample(model: &mut DynamicModel, path: &Path) -> Result<Vec<(daq::Port, Tensor)>> {
    let arrays: Vec<(String, Array)> = match path.extension() {
        Some(e) if e == "npz" => read_npz(path)?,
        Some(e) if e == "npy" => match model.inputs() {
            [name] => vec![(name.clone(), Array::read_npy(path)?)],
            names => bail!("the model has {} inputs; give an .npz file", names.len()),
        },
        _ => bail!("--dynamic takes .npy and .npz files"),
    };
    let inputs: Vec<_> = arrays.iter().map(|(name, array)| (name, to_tensor(array))).collect();
    let inputs: Vec<_> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    Ok(model.run(&inputs)?)
}
