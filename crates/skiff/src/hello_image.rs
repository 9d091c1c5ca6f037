//! The image that ships inside the binary: `skiff/hello`, made of one static program and links to it.

use anyhow::{Context, Result};
use runtime::Images;

/// The program, compiled by the build script.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

/// The image's names; the short one means Docker's registry, as everywhere.
pub const NAME: &str = "docker.io/skiff/hello:latest";

/// What the program can be called as; `crates/hello` has the same table.
const APPLETS: [&str; 17] = [
    "cat", "date", "echo", "env", "false", "hello", "hostname", "id", "ls", "mkdir", "nslookup", "rm", "sh", "sleep", "touch", "true", "wget",
];

/// Puts the image into a node's store, unless this very image is there already.
pub async fn ensure(images: &Images) -> Result<()> {
    images.ensure_builtin(NAME, PROGRAM, &APPLETS).await.context("making the image skiff/hello")
}
