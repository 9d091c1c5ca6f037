//! Which `skiff` is tried: that of the build which the running program is part of.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// Built anew, in the profile of the running program, where one of its sources is newer; where there is no cargo, what is
/// there is taken as it is.
pub fn skiff() -> Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = FOUND.get() {
        return Ok(path.clone());
    }
    let own = env::current_exe().context("finding this program")?;
    // Of target/PROFILE/deps/test, or of target/PROFILE/program.
    let profile = own.ancestors().skip(1).find(|p| !p.ends_with("deps")).context("this program is in no directory")?;
    let path = profile.join("skiff");
    if !is_fresh(&path)
        && let Some(cargo) = env::var_os("CARGO")
    {
        build(Path::new(&cargo), profile.ends_with("release"))?;
    }
    if !path.exists() {
        bail!("{} is not there: build it (cargo build -p skiff)", path.display());
    }
    Ok(FOUND.get_or_init(|| path).clone())
}

/// Whether no source that cargo lists for it (`skiff.d`) has changed since. Asking cargo itself would build all of it a second
/// time where the running program was built with other features, as in `cargo test --workspace`.
fn is_fresh(binary: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    let (Ok(built), Ok(list)) = (modified(binary), fs::read_to_string(binary.with_extension("d"))) else { return false };
    let Some((_, sources)) = list.split_once(": ") else { return false };
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    sources.split_whitespace().map(Path::new).chain([lock.as_path()]).all(|source| modified(source).is_ok_and(|at| at <= built))
}

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
