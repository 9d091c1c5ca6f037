//! Which skiff is started: the one that is named, or the one beside this program, which `cargo run` brings up to date first.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Builds at most once in a process. Without cargo what is there is taken as it is.
pub fn find(named: Option<&Path>) -> Result<PathBuf> {
    static BESIDE: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = named.or(BESIDE.get().map(PathBuf::as_path)) {
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe().context("finding this program")?;
    let path = own.with_file_name("skiff");
    if let Some(cargo) = std::env::var_os("CARGO") {
        build(Path::new(&cargo), own.parent().is_some_and(|profile| profile.ends_with("release")))?;
    }
    if !path.exists() {
        bail!("{} is not there: build it (cargo build --release -p skiff), or name another with --binary", path.display());
    }
    Ok(BESIDE.get_or_init(|| path).clone())
}

/// In the profile that this program was built in.
fn build(cargo: &Path, release: bool) -> Result<()> {
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "skiff"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if release {
        command.arg("--release");
    }
    let status = command.status().with_context(|| format!("running {}", cargo.display()))?;
    if !status.success() {
        bail!("skiff does not build: {status}");
    }
    Ok(())
}
