//! Developer tasks: `cargo run -p xtask -- tidy | facts PATH_TO_REFERENCE | breakages [NAME..]`. Dispatch only; each task is a module.

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("tidy") => {
            let found = xtask::tidy::check(&root)?;
            if found.is_empty() {
                return Ok(());
            }
            bail!("{} untidy places:\n{}", found.len(), found.join("\n"));
        }
        Some("facts") => xtask::facts::run(arguments.get(1).map(String::as_str)),
        Some("breakages") => xtask::breakages::run(&root.canonicalize()?, &arguments[1..]),
        _ => bail!("usage: xtask tidy | facts PATH_TO_REFERENCE | breakages [NAME..]"),
    }
}
