//! The skiff binary: the composition root. Only wiring, command lines and the life of a local cluster live here.

mod instance;
mod log;
mod roles;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Kubernetes in Rust, complete, in one small binary.
#[derive(Parser)]
#[command(name = "skiff", version, propagate_version = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the API server alone
    #[command(name = "kube-apiserver")]
    KubeApiserver(Box<roles::kube_apiserver::Flags>),
    /// Run the controllers alone
    #[command(name = "kube-controller-manager")]
    KubeControllerManager(roles::kube_controller_manager::Flags),
    /// Run the scheduler alone
    #[command(name = "kube-scheduler")]
    KubeScheduler(roles::kube_scheduler::Flags),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::KubeApiserver(flags) => roles::kube_apiserver::run(&flags),
        Command::KubeControllerManager(flags) => roles::kube_controller_manager::run(&flags),
        Command::KubeScheduler(flags) => roles::kube_scheduler::run(&flags),
    };
    result.map_or_else(|e| failed(&e), |()| ExitCode::SUCCESS)
}

/// Prints what was being done, what went wrong and what to try, innermost cause last.
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("skiff: {error:#}");
    ExitCode::FAILURE
}
