//! Where a model runs: flags that `run` and `bench` share.

use anyhow::Result;
use clap::Args;
use daq::backend::{Backend, Options, Preference};
use daq::{Error, Graph, Model};

use crate::options::usage;

/// Where a model runs, and how.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Where it runs")]
pub struct BackendArgs {
    /// cpu: on daq's own kernels, exactly; nnapi: on Android's accelerators, with what they do not take
    /// on the CPU; auto: on NNAPI where it is there, else on the CPU
    #[arg(long, value_name = "WHERE", default_value = "cpu")]
    pub backend: Backend,
    /// NNAPI: the device by its name [default: all but CPUs]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// NNAPI: what the driver shall favour: low-power, fast-single-answer or sustained-speed [default:
    /// fast-single-answer]
    #[arg(long, value_name = "WHAT")]
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
        if self.backend == Backend::Cpu && given {
            return Err(usage(
                "--device, --preference and --allow-fp16 are for --backend nnapi or auto",
            ));
        }
        let options = Options {
            device: self.device.clone(),
            preference: self.preference.unwrap_or_default(),
            allow_fp16: self.allow_fp16,
            ..Options::default()
        };
        Model::on(self.backend, graph, &options).map_err(|e| match e {
            Error::Call(why) => usage(why),
            other => other.into(),
        })
    }
}
