//! `daq run --dynamic`: pictures and arrays of differing shapes.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use daq::{Graph, Tensor};
use daq_quant::dataset::{self, DatasetKind};
use daq_quant::dynamic::DynamicModel;
use daq_quant::npy::Array;
use daq_quant::npz::{read_npz, write_npz};
use daq_quant::onnx;
use daq_quant::preprocess::Preprocess;
use daq_quant::samples::{to_array, to_tensor};

use crate::messages;
use crate::model;
use crate::options::usage;
use crate::run::{Args, Said, print, summary};

/// Runs the command on each file. Outputs are written as `NAME/FILE`, since their shapes differ.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    if model::is_daq(&args.model)? {
        let shown = args.model.display();
        return Err(usage(format!("{shown}: a .daq file's shapes are settled; leave --dynamic")));
    }
    let mut model = DynamicModel::open(&args.model, args.threads)?;
    let carried = Graph { metadata: onnx::metadata(&args.model)?, ..Graph::default() };
    let names = model::class_names(&carried, args.labels.as_deref())?;
    let settings = args.preprocess.settings(model::preprocess(&carried, &args.model)?)?;
    let (mut kept, mut said) = (Vec::new(), Vec::new());
    let (mut count, mut failed) = (0, 0);
    let mut files = Vec::new();
    for path in &args.inputs {
        let (kind, found) = dataset::files(path)?;
        files.extend(found.into_iter().map(|path| (kind, path)));
    }
    let mut stems = HashSet::new();
    let twice = files.iter().map(|(_, path)| stem(path)).find(|file| !stems.insert(file.clone()));
    if let (Some(file), true) = (twice, args.output.is_some()) {
        bail!("two files are called `{file}`, as are their outputs then; rename one");
    }
    for (kind, path) in files {
        count += 1;
        let one = match sample(&mut model, kind, &path, &settings) {
            Ok(outputs) => outputs,
            Err(e) => {
                failed += 1;
                let (why, name) = (e.to_string(), path.display().to_string());
                let named = why.starts_with(&name);
                messages::line(&if named {
                    format!("error: {why}")
                } else {
                    format!("error: {name}: {why}")
                });
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
            let file = stem(&path);
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

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn sample(
    model: &mut DynamicModel,
    kind: DatasetKind,
    path: &Path,
    settings: &Preprocess,
) -> Result<Vec<(daq::Port, Tensor)>> {
    let npz = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"));
    let arrays: Vec<(String, Array)> = match (kind, model.inputs()) {
        (DatasetKind::Arrays, _) if npz => read_npz(path)?,
        (DatasetKind::Arrays, [input]) => vec![(input.name.clone(), Array::read_npy(path)?)],
        (DatasetKind::Pictures, [input]) => {
            let target = settings.target_of(&input.shape, path)?;
            let data = settings.load(path, &target)?;
            vec![(input.name.clone(), Array::new(target.shape(), data.into()))]
        }
        (_, inputs) => bail!("the model has {} inputs; give an .npz file", inputs.len()),
    };
    let inputs: Vec<_> = arrays.iter().map(|(name, array)| (name, to_tensor(array))).collect();
    let inputs: Vec<_> = inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
    Ok(model.run(&inputs)?)
}
