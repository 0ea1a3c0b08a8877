//! Where a model runs: on daq's own kernels, or with the feature `nnapi` on Android's accelerators.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Result;
use crate::graph::Graph;
use crate::session::Model;

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// On daq's own kernels, exactly.
    #[default]
    Cpu,
    /// On Android's accelerators through NNAPI; what they do not take on daq's kernels.
    Nnapi,
    /// As `Nnapi` where the phone has it, else as `Cpu`, with a warning in the log.
    Auto,
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "cpu" => Ok(Backend::Cpu),
            "nnapi" => Ok(Backend::Nnapi),
            "auto" => Ok(Backend::Auto),
            _ => Err(format!("unknown backend `{name}`; give cpu, nnapi or auto")),
        }
    }
}

/// What a driver shall favour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// The battery.
    LowPower = 0,
    /// The time of one answer.
    #[default]
    FastSingleAnswer = 1,
    /// The number of answers a second, as for the frames of a camera.
    SustainedSpeed = 2,
}

impl FromStr for Preference {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "low-power" => Ok(Preference::LowPower),
            "fast-single-answer" => Ok(Preference::FastSingleAnswer),
            "sustained-speed" => Ok(Preference::SustainedSpeed),
            _ => Err(format!(
                "unknown preference `{name}`; give low-power, fast-single-answer or sustained-speed"
            )),
        }
    }
}

/// How a run is handed over. What a library does not have is replaced by `Plain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Execution {
    /// One call that waits, or before API level 29 a start and a wait.
    #[default]
    Plain,
    /// A burst: a channel to the driver that stays open between runs. Since API level 29.
    Burst,
    /// A start that gives a fence to wait for. Since API level 30.
    Fenced,
}

/// How to use NNAPI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The library; `None` for what the environment variable `DAQ_NNAPI_LIBRARY` names, else Android's
    /// `libneuralnetworks.so`.
    pub library: Option<PathBuf>,
    /// The device by its name, since API level 29; `None` for all that are not CPUs.
    pub device: Option<String>,
    /// What the driver shall favour.
    pub preference: Preference,
    /// Whether floats may be computed with 16 bits, since API level 28.
    pub allow_fp16: bool,
    /// How a run is handed over.
    pub execution: Execution,
}

impl Model {
    /// Compiles a graph for a backend. `options` are NNAPI's; the CPU has no use for them.
    ///
    /// # Errors
    /// A graph that cannot run; [`Error::Call`](crate::Error::Call) where NNAPI is asked for, be it by `Auto`, in a build
    /// without the feature `nnapi`; what NNAPI says, where it must be used.
    pub fn on(backend: Backend, graph: Graph, options: &Options) -> Result<Model> {
        match backend {
            Backend::Cpu => Model::from_graph(graph),
            #[cfg(feature = "nnapi")]
            Backend::Nnapi => Model::on_nnapi(graph, options),
            #[cfg(feature = "nnapi")]
            Backend::Auto => Model::on_nnapi_or_cpu(graph, options),
            #[cfg(not(feature = "nnapi"))]
            Backend::Nnapi | Backend::Auto => {
                let _ = options;
                let why = "this daq was built without NNAPI; build it with --features nnapi";
                Err(crate::Error::Call(why.into()))
            }
        }
    }
}
