//! `skiff image`: load, list and remove images on every node of the cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use cri::v1::{ImageSpec, ImageStatusRequest, ListImagesRequest, RemoveImageRequest};

use crate::instance::{Dirs, Instance};
use crate::supervisor::Report;
use crate::{Place, control};

#[derive(Args)]
pub struct ImageArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Load images from a tar: docker-archive or OCI layout, gzip or not
    Load { file: PathBuf },
    /// List images
    #[command(alias = "list")]
    Ls,
    /// Remove an image
    #[command(alias = "remove")]
    Rm { image: String },
}

pub fn run(arguments: &ImageArgs) -> Result<()> {
    let dirs = arguments.place.dirs()?;
    let instance = dirs.load()?.context("no cluster lives here: start one with `skiff up`")?;
    Report::read(&dirs).context("the cluster is stopped: start it with `skiff up`")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &arguments.action {
            Action::Load { file } => load(&dirs, &instance, file).await,
            Action::Ls => list(&dirs, &instance).await,
            Action::Rm { image } => remove(&dirs, &instance, image).await,
        }
    })
}

async fn load(dirs: &Dirs, instance: &Instance, file: &std::path::Path) -> Result<()> {
    let file = std::fs::canonicalize(file).with_context(|| format!("opening {}", file.display()))?;
    let mut loaded = Vec::new();
    for node in instance.node_names() {
        loaded = control::load(dirs, &node, &file).await.with_context(|| format!("loading {} on {node}", file.display()))?;
    }
    for name in loaded {
        println!("Loaded {name}");
    }
    Ok(())
}

async fn runtime_of(dirs: &Dirs, node: &str) -> Result<cri::Clients> {
    let socket = dirs.node_run(node).join("cri.sock");
    cri::connect(&socket).await.with_context(|| format!("reaching the runtime of {node} at {}", socket.display()))
}

async fn list(dirs: &Dirs, instance: &Instance) -> Result<()> {
    // Name to id, size and how many nodes have it.
    let mut all: BTreeMap<String, (String, u64, usize)> = BTreeMap::new();
    for node in instance.node_names() {
        let answer = runtime_of(dirs, &node).await?.images.list_images(ListImagesRequest::default()).await.context("listing images")?;
        for image in answer.into_inner().images {
            let names = if image.repo_tags.is_empty() { image.repo_digests.clone() } else { image.repo_tags.clone() };
            for name in if names.is_empty() { vec![image.id.clone()] } else { names } {
                all.entry(name).or_insert_with(|| (image.id.clone(), image.size, 0)).2 += 1;
            }
        }
    }
    println!("{:<50} {:<14} {:>10} {:>6}", "IMAGE", "ID", "SIZE", "NODES");
    for (name, (id, size, nodes)) in all {
        let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
        println!("{name:<50} {short:<14} {:>10} {:>6}", sized(size), format!("{nodes}/{}", instance.nodes));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn sized(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

async fn remove(dirs: &Dirs, instance: &Instance, image: &str) -> Result<()> {
    let mut found = false;
    for node in instance.node_names() {
        let mut client = runtime_of(dirs, &node).await?.images;
        let spec = Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() });
        let status =
            client.image_status(ImageStatusRequest { image: spec.clone(), verbose: false }).await.context("looking for the image")?;
        if status.into_inner().image.is_some() {
            found = true;
            client.remove_image(RemoveImageRequest { image: spec }).await.with_context(|| format!("removing {image} on {node}"))?;
        }
    }
    if !found {
        bail!("no node has an image {image:?}; `skiff image ls` lists what there is");
    }
    println!("Removed {image}");
    Ok(())
}
