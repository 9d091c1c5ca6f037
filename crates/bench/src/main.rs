//! The budgets, measured: loads a server (its own, or any other) over real TLS from this separate process, or the storage
//! engine directly, and prints a table. Asserts nothing.

mod api;
mod bare;
mod batch;
mod connection;
mod engine;
mod fill;
mod idle;
mod kubeconfig;
mod load;
mod million;
mod reads;
mod report;
mod server;
mod startup;
mod watch;
mod writes;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures skiff against its budgets.")]
struct Cli {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Subcommand)]
enum What {
    /// Requests on ConfigMaps and pods.
    Api,
    /// Reads alone.
    Reads,
    /// Writes alone.
    Writes,
    /// The storage engine, without a server.
    Store,
    /// What durability costs: bytes and syncs of a batch, and of a busy hour's writes.
    Batch,
    /// One change to many watchers.
    Watch,
    /// From the start of the process to /readyz.
    Start,
    /// Idle memory and CPU.
    Memory,
    /// A million objects.
    Million,
    /// What the machine can do at best; started by the others.
    #[command(hide = true)]
    Bare,
}

#[derive(clap::Args)]
pub struct Options {
    /// The address of a server that runs already: it gets the same load as one of our own, in turns.
    #[arg(long, global = true, requires = "kubeconfig")]
    against: Option<String>,
    /// How to get into it; without an address to measure against, that server alone is measured.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// Its process, to account CPU and memory.
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// The skiff binary to start; the one of this build if not given.
    #[arg(long, global = true, env = "SKIFF")]
    binary: Option<PathBuf>,
    /// Where data goes; a temporary directory if not given. Its disk is what is measured.
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    /// How long each measurement takes.
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, global = true, default_value_t = 64)]
    connections: usize,
    /// Only the operations whose name contains this.
    #[arg(long, global = true)]
    only: Option<String>,
    #[arg(long, global = true, default_value_t = 1000)]
    watchers: usize,
    /// How many objects `million` makes of each kind.
    #[arg(long, global = true, default_value_t = 1_000_000)]
    objects: usize,
}

impl Options {
    fn binary(&self) -> anyhow::Result<PathBuf> {
        self.binary.clone().map_or_else(trial::skiff, Ok)
    }

    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.1, 3600.0))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { what, options } = Cli::parse();
    match what {
        What::Store => engine::run(&options).await,
        What::Batch => batch::run(&options).await,
        What::Million => million::run(&options).await,
        What::Bare => bare::serve().await,
        What::Reads => api::reads(&options).await,
        What::Writes => api::writes(&options).await,
        What::Api => api::run(&options).await,
        What::Watch => watch::run(&options).await,
        What::Start => startup::start(&options).await,
        What::Memory => idle::memory(&options).await,
    }
}
