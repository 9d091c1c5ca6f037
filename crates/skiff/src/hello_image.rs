//! The image that ships inside the binary: `skiff/hello`, made of one static program and links to it.

use anyhow::{Context, Result};
use runtime::images::{ImageConfig, Images, Program};

/// The program, compiled by the build script.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

/// What the program can be called as; `crates/hello` has the same table.
const LINKS: [&str; 17] = [
    "/bin/cat",
    "/bin/date",
    "/bin/echo",
    "/bin/env",
    "/bin/false",
    "/bin/hostname",
    "/bin/id",
    "/bin/ls",
    "/bin/mkdir",
    "/bin/nslookup",
    "/bin/rm",
    "/bin/sh",
    "/bin/sleep",
    "/bin/tar",
    "/bin/touch",
    "/bin/true",
    "/bin/wget",
];

/// Puts the image into a node's store, unless this very image is there already.
pub async fn ensure(images: &Images) -> Result<()> {
    let images = images.clone();
    let built = tokio::task::spawn_blocking(move || {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        let config = ImageConfig { entrypoint: vec!["/bin/hello".to_owned()], env: vec![path], ..ImageConfig::default() };
        images.build(&Program { image: "skiff/hello", bytes: PROGRAM, path: "/bin/hello", links: &LINKS, config })
    });
    built.await.context("making the image skiff/hello panicked")?.context("making the image skiff/hello")?;
    Ok(())
}
