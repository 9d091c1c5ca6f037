//! `skiff node`: extra nodes of a local cluster, to try out what happens when one is lost.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nix::sys::signal::Signal;

use crate::Place;
use crate::supervisor::Report;

#[derive(Args)]
pub struct NodeArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Kill a node's agent, as if its machine had failed
    Stop { name: String },
    /// Bring it back
    Start { name: String },
}

pub fn run(arguments: &NodeArgs) -> Result<()> {
    let dirs = arguments.place.dirs()?;
    let report = Report::read(&dirs).context("the cluster does not run: start it with `skiff up`")?;
    let (Action::Stop { name } | Action::Start { name }) = &arguments.action;
    let Some(child) = report.children.get(name).filter(|_| name != "daemon") else {
        let known: Vec<&str> = report.children.keys().map(String::as_str).filter(|n| *n != "daemon").collect();
        bail!(
            "{name:?} is not an extra node of this cluster; there are: {}",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        );
    };
    match (&arguments.action, child.process.filter(crate::process::Identity::alive)) {
        (Action::Stop { .. }, Some(process)) => process.signal(Signal::SIGKILL),
        (Action::Stop { .. }, None) => {
            println!("{name} is already stopped.");
            Ok(())
        }
        (Action::Start { .. }, Some(_)) => {
            println!("{name} already runs.");
            Ok(())
        }
        (Action::Start { .. }, None) => report.supervisor.signal(Signal::SIGHUP),
    }
}
