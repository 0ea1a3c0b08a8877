//! Running on Android's accelerators through NNAPI, with the rest on our kernels.
//!
//! [`Model::on_nnapi`] splits a graph: what the device takes is built as NNAPI models and compiled
//! for it, everything else runs where it always does, in one [`Plan`]. Sessions are those of any
//! model. A node stays on the CPU where NNAPI has no such operator at the device's level, where its
//! scales break one of NNAPI's rules ([`crate::lint`]; `daq convert --target` mends them), or where
//! the device says that it does not support it.
//!
//! Numbers may differ from ours: a driver rounds as it likes, and daq's exactness ends at its door.

mod codes;
mod describe;
mod library;
mod partition;

use std::sync::Arc;

use daq_kernels::{Isa, Pool};

pub use crate::backend::{Execution, Options, Preference};
use crate::compile::Kernel;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::plan::{Part, Plan};
use crate::session::Model;
use crate::tensor::{TensorView, TensorViewMut};
use describe::{Description, describe};
use library::{Compilation, Handle, Library};

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// It runs on the phone's CPU.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// Made for neural networks.
    Accelerator,
    /// Something else, or unknown.
    Other,
}

/// A device that NNAPI can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name, as in [`Options::device`].
    pub name: String,
    /// The version of its driver.
    pub version: String,
    /// What it is.
    pub kind: DeviceKind,
    /// The API level whose operators it knows: 27 to 31, then 1000006 and on.
    pub level: u32,
}

/// The devices of this phone; none before API level 29.
///
/// # Errors
/// No library.
pub fn devices(options: &Options) -> Result<Vec<Device>> {
    let found = Library::load(options)?.devices()?;
    Ok(found.into_iter().map(|(device, _)| device).collect())
}

impl Model {
    /// Compiles a graph for NNAPI, and for this CPU what stays there (`daq -v` says which nodes, and
    /// why; [`Plan::steps`] show what runs where).
    ///
    /// # Errors
    /// No library, no such device, a graph that is invalid, a driver that refuses.
    pub fn on_nnapi(graph: Graph, options: &Options) -> Result<Model> {
        graph.validate()?;
        let library = Library::load(options)?;
        let target = Target::choose(library, options)?;
        let (graph, parts) = target.parts(graph)?;
        let plan = Plan::compile_with(&graph, Isa::best(), parts)?;
        Ok(Model::new(graph, plan))
    }

    /// As [`on_nnapi`](Self::on_nnapi) where that is possible, else as
    /// [`from_graph`](Self::from_graph), with a warning in the log.
    ///
    /// # Errors
    /// A graph that cannot run on the CPU either.
    pub fn on_nnapi_or_cpu(graph: Graph, options: &Options) -> Result<Model> {
        match Model::on_nnapi(graph.clone(), options) {
            Err(error @ Error::Nnapi(_)) => {
                log::warn!("{error}; this model runs on the CPU then");
                Model::from_graph(graph)
            }
            model => model,
        }
    }
}

/// The library with the devices that were chosen.
struct Target<'a> {
    library: Arc<Library>,
    devices: Vec<Handle>,
    /// The level whose rules hold.
    level: u32,
    /// What steps say where they run.
    name: String,
    options: &'a Options,
}

impl Target<'_> {
    fn choose(library: Arc<Library>, options: &Options) -> Result<Target<'_>> {
        let (all, level) = (library.devices()?, library.level());
        let names = || {
            let names: Vec<_> = all.iter().map(|(d, _)| format!("`{}`", d.name)).collect();
            names.join(", ")
        };
        let chosen: Vec<_> = match &options.device {
            _ if all.is_empty() && options.device.is_none() => Vec::new(),
            Some(name) => all.iter().filter(|(device, _)| device.name == *name).collect(),
            None => all.iter().filter(|(device, _)| device.kind != DeviceKind::Cpu).collect(),
        };
        if chosen.is_empty() && (!all.is_empty() || options.device.is_some()) {
            let why = match &options.device {
                Some(name) => format!("no device `{name}`; there are {}", names()),
                None => format!(
                    "no accelerator, only {} on the CPU, where daq's own kernels run; \
                     name it to use it all the same",
                    names()
                ),
            };
            return Err(Error::Nnapi(format!("{}: {why}", library.path().display())));
        }
        let name = match chosen.as_slice() {
            [] => "nnapi".into(),
            all => all.iter().map(|(device, _)| device.name.as_str()).collect::<Vec<_>>().join("+"),
        };
        // What one does not know, another may: each says so itself.
        let most = chosen.iter().map(|(device, _)| device.level).max().unwrap_or(level);
        let devices = chosen.iter().map(|(_, handle)| *handle).collect();
        Ok(Target { library, devices, level: level.min(most), name, options })
    }

    /// The graph with its nodes in runs, and those of the device compiled.
    fn parts(&self, graph: Graph) -> Result<(Graph, Vec<Part>)> {
        let mut taken: Vec<bool> = (0..graph.nodes.len())
            .map(|i| match describe(&graph, &[i], self.level) {
                Ok(_) => true,
                Err((_, why)) => {
                    stays(&graph, i, &why);
                    false
                }
            })
            .collect();
        // A node that is refused splits its part, and the pieces are asked about again.
        loop {
            let (graph, runs) = partition::reorder(&graph, &taken);
            let mut refused = Vec::new();
            let mut models = Vec::new();
            for run in runs {
                let nodes: Vec<usize> = run.clone().collect();
                match describe(&graph.0, &nodes, self.level) {
                    Ok(description) => match self.build(&graph.0, &description)? {
                        Ok(model) => models.push((run, description, model)),
                        Err(nodes) => refused.extend(nodes),
                    },
                    Err((node, why)) => {
                        stays(&graph.0, node, &why);
                        refused.push(node);
                    }
                }
            }
            if refused.is_empty() {
                let parts = models.into_iter().map(|(run, description, model)| {
                    let model = Compilation::new(model, &self.devices, self.options)?;
                    let operations = description.operations.len();
                    let name = format!("{}, {operations} operations", self.name);
                    let ends = |ends: Vec<describe::End>| {
                        ends.into_iter().map(|(id, layout, _)| (id, layout)).collect()
                    };
                    Ok(Part {
                        nodes: run,
                        inputs: ends(description.inputs),
                        outputs: ends(description.outputs),
                        op: "NNAPI",
                        kernel: Box::new(OnDevice { name, model }) as _,
                    })
                });
                return Ok((graph.0, parts.collect::<Result<_>>()?));
            }
            for node in refused {
                taken[graph.1[node]] = false;
            }
        }
    }

    /// A model that the devices take, or the nodes that they do not.
    fn build(
        &self,
        graph: &Graph,
        description: &Description,
    ) -> Result<Result<library::Model, Vec<usize>>> {
        let model = library::Model::new(&self.library, description, self.options.allow_fp16)?;
        let Some(supported) = model.supported(&self.devices)? else { return Ok(Ok(model)) };
        let operations = description.operations.iter().zip(supported);
        let mut refused: Vec<usize> =
            operations.filter(|(_, supported)| !supported).map(|(op, _)| op.node).collect();
        refused.dedup();
        for &node in &refused {
            stays(graph, node, "the device does not support it");
        }
        Ok(if refused.is_empty() { Ok(model) } else { Err(refused) })
    }
}

fn stays(graph: &Graph, node: usize, why: &str) {
    let node = &graph.nodes[node];
    log::info!("NNAPI: `{}` ({}) stays on the CPU: {why}", graph.node_name(node), node.op.name());
}

/// A part of a graph on a device.
struct OnDevice {
    name: String,
    model: Compilation,
}

impl Kernel for OnDevice {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, inputs: &[Option<TensorView>], outputs: &mut [TensorViewMut], pool: &Pool) {
        self.try_run(inputs, outputs, pool).expect("plans ask `try_run`");
    }

    fn try_run(
        &self,
        inputs: &[Option<TensorView>],
        outputs: &mut [TensorViewMut],
        _: &Pool,
    ) -> Result<()> {
        let inputs: Vec<&[u8]> = inputs.iter().flatten().map(|input| input.bytes).collect();
        let mut outputs: Vec<&mut [u8]> =
            outputs.iter_mut().map(|output| &mut *output.bytes).collect();
        self.model.run(&inputs, &mut outputs)
    }
}
