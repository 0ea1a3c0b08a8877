//! Where a model runs: flags that `run` and `bench` share.

use anyhow::Result;
use clap::{Args, ValueEnum};
use daq::{Graph, Model};

use crate::options::usage;

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// On daq's own kernels, exactly
    #[default]
    Cpu,
    /// On Android's accelerators; what they do not take on daq's kernels
    Nnapi,
    /// On NNAPI where it is there, else on the CPU
    Auto,
}

/// What a driver shall favour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preference {
    /// The battery
    LowPower,
    /// The time of one answer
    FastSingleAnswer,
    /// The number of answers a second
    SustainedSpeed,
}

/// Where a model runs, and how.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Where it runs")]
pub struct BackendArgs {
    /// On daq's own kernels or on Android's NNAPI
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    pub backend: Backend,
    /// NNAPI: the device by its name [default: all but CPUs]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// NNAPI: what the driver shall favour [default: fast-single-answer]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub preference: Option<Preference>,
    /// NNAPI: let it compute floats with 16 bits
    #[arg(long = "allow-fp16", alias = "allow_fp16")]
    pub allow_fp16: bool,
}

impl BackendArgs {
    /// The graph ready to run there.
    ///
    /// # Errors
    /// Wrong usage; what NNAPI says, where it was asked for.
    pub fn model(&self, graph: Graph) -> Result<Model> {
        let given = self.device.is_some() || self.preference.is_some() || self.allow_fp16;
        match self.backend {
            Backend::Cpu if given => Err(usage(
                "--device, --preference and --allow-fp16 are for --backend nnapi or auto",
            )),
            Backend::Cpu => Ok(Model::from_graph(graph)?),
            _ => self.on_nnapi(graph),
        }
    }

    #[cfg(feature = "nnapi")]
    fn on_nnapi(&self, graph: Graph) -> Result<Model> {
        let preference = self.preference.map(|preference| match preference {
            Preference::LowPower => daq::nnapi::Preference::LowPower,
            Preference::FastSingleAnswer => daq::nnapi::Preference::FastSingleAnswer,
            Preference::SustainedSpeed => daq::nnapi::Preference::SustainedSpeed,
        });
        let options = daq::nnapi::Options {
            device: self.device.clone(),
            preference: preference.unwrap_or_default(),
            allow_fp16: self.allow_fp16,
            ..daq::nnapi::Options::default()
        };
        Ok(match self.backend {
            Backend::Auto => Model::on_nnapi_or_cpu(graph, &options)?,
            _ => Model::on_nnapi(graph, &options)?,
        })
    }

    #[cfg(not(feature = "nnapi"))]
    fn on_nnapi(&self, graph: Graph) -> Result<Model> {
        let _ = graph;
        Err(usage(
            "this daq was built without NNAPI; build it with cargo build -p daq-cli --features nnapi",
        ))
    }
}
