//! Deliberate breakages: each patch of `xtask/breakages` takes one guard away, and the test it names must then fail. `run`
//! tries them in a scratch worktree, one by one; `check`, which tidy runs, only looks whether each still applies and its test
//! is still there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::named::Tests;

const DIR: &str = "xtask/breakages";
const LIST: &str = "docs/breakages.md";

pub struct Breakage {
    pub name: String,
    patch: PathBuf,
    /// What `cargo test` takes before the test's name: `-p PACKAGE` and the target.
    target: Vec<String>,
    /// The test's path in its target.
    test: String,
}

impl Breakage {
    fn read(patch: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&patch)?;
        let line = text.lines().find_map(|l| l.strip_prefix("# test: "));
        let line = line.with_context(|| format!("{}: no line `# test: -p PACKAGE TARGET TEST`", patch.display()))?;
        let mut target: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let test = target.pop().unwrap_or_default();
        ensure!(target.len() >= 3 && target[0] == "-p", "{}: `# test:` names no package and target", patch.display());
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, patch, target, test })
    }

    /// `crate::module::test`.
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.target[1], self.test)
    }
}

/// All of them, by name.
pub fn all(root: &Path) -> Result<Vec<Breakage>> {
    let mut patches = Vec::new();
    for entry in fs::read_dir(root.join(DIR)).context(DIR)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "patch") {
            patches.push(path);
        }
    }
    patches.sort();
    patches.into_iter().map(Breakage::read).collect()
}

/// What is wrong with the patches as they lie there, one line each.
pub fn check(root: &Path, tests: &Tests) -> Result<Vec<String>> {
    let list = fs::read_to_string(root.join(LIST)).context(LIST)?;
    let mut found = Vec::new();
    for breakage in all(root)? {
        let (name, test) = (&breakage.name, breakage.full_name());
        if !tests.has(&test) {
            found.push(format!("{DIR}/{name}.patch: there is no test {test}"));
        }
        if !list.contains(&format!("`{name}`")) || !list.contains(&format!("`{test}`")) {
            found.push(format!("{LIST}: says nothing of `{name}` and `{test}`"));
        }
        let tried = git(root, &["apply", "--check"], Some(&breakage.patch))?;
        if !tried.status.success() {
            let why = String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; ");
            found.push(format!("{DIR}/{name}.patch: applies no more: {why}"));
        }
    }
    Ok(found)
}

/// Tries those named, or all: each test passes as things are, and fails with its patch.
pub fn run(root: &Path, names: &[String]) -> Result<()> {
    let mut chosen = all(root)?;
    if let Some(unknown) = names.iter().find(|n| !chosen.iter().any(|b| b.name == **n)) {
        bail!("there is no {DIR}/{unknown}.patch");
    }
    chosen.retain(|b| names.is_empty() || names.contains(&b.name));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let scratch = target.join("breakages-tree");
    prepare(root, &scratch)?;
    let mut wrong = Vec::new();
    for breakage in &chosen {
        let outcome = test(&scratch, &target, breakage)?;
        println!("{}: unbroken: {outcome:?}", breakage.full_name());
        if outcome != Outcome::Passed {
            wrong.push(format!("{}: {} does not pass as things are: {outcome:?}", breakage.name, breakage.full_name()));
        }
    }
    for breakage in &chosen {
        let applied = git(&scratch, &["apply"], Some(&breakage.patch))?;
        ensure!(applied.status.success(), "{}: {}", breakage.name, String::from_utf8_lossy(&applied.stderr));
        let outcome = test(&scratch, &target, breakage);
        let undone = git(&scratch, &["checkout", "-q", "--", "."], None)?;
        ensure!(undone.status.success(), "{}: cannot be taken back", breakage.name);
        let outcome = outcome?;
        println!("{}: {} {outcome:?}", breakage.name, breakage.full_name());
        if outcome != Outcome::Failed {
            wrong.push(format!("{}: {} does not notice: {outcome:?}", breakage.name, breakage.full_name()));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} breakages, each noticed", chosen.len());
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// It does not build, or no such test ran: proves nothing.
    Neither,
}

fn test(scratch: &Path, target: &Path, breakage: &Breakage) -> Result<Outcome> {
    let mut command = Command::new("cargo");
    command.arg("test").arg("-q").args(&breakage.target).args(["--", "--exact", &breakage.test]);
    let output = command.current_dir(scratch).env("CARGO_TARGET_DIR", target).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    // The words of libtest: a build that fails, or a filter that finds nothing, says neither.
    if output.status.success() && said.contains(" 1 passed; 0 failed;") {
        return Ok(Outcome::Passed);
    }
    if !output.status.success() && said.contains(" 0 passed; 1 failed;") {
        return Ok(Outcome::Failed);
    }
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(Outcome::Neither)
}

/// A worktree of what is committed. It is kept, so that the next run builds little.
fn prepare(root: &Path, scratch: &Path) -> Result<()> {
    let head = git(root, &["rev-parse", "HEAD"], None)?;
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    let at = scratch.to_string_lossy();
    let done = if scratch.join(".git").exists() {
        git(scratch, &["checkout", "-q", "--force", "--detach", &head], None)?
    } else {
        git(root, &["worktree", "add", "-q", "--force", "--detach", &at, &head], None)?
    };
    ensure!(done.status.success(), "{}: {}", scratch.display(), String::from_utf8_lossy(&done.stderr));
    Ok(())
}

fn git(dir: &Path, arguments: &[&str], file: Option<&Path>) -> Result<Output> {
    let file = file.map(fs::canonicalize).transpose()?;
    Command::new("git").args(arguments).args(file).current_dir(dir).output().context("running git")
}
