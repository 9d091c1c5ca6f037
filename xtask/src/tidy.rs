//! The rules of the tree that no compiler checks: headers, sizes, purity, crate edges, absent words. Run by
//! `cargo test -p xtask` and `cargo run -p xtask -- tidy`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::named::Tests;
use crate::{breakages, conformance};

/// Crates that decide and do nothing else.
const PURE: [&str; 11] =
    ["auth", "cel", "controllers", "descriptions", "flowcontrol", "kinds", "machinery", "mix", "netplan", "podsync", "scheduling"];

/// What a pure crate may not depend on: anything with a runtime, a clock, a socket or a file.
const IMPURE: [&str; 16] = [
    "tokio",
    "tokio-util",
    "futures",
    "hyper",
    "hyper-util",
    "tower",
    "kube",
    "nix",
    "rustix",
    "libc",
    "rand",
    "reqwest",
    "rustls",
    "tonic",
    "tracing",
    "tempfile",
];

/// Lines a file may have; `xtask/size-budget.tsv` lists those above it, and may only shrink.
const LINES_MAX: usize = 600;

/// Lines a function may have, head and braces counted; those of tests may hold a longer table of cases.
const FUNCTION_LINES_MAX: usize = 70;
const TEST_LINES_MAX: usize = 95;

/// Words that belong to a workplace, not to the project.
const ABSENT: [&str; 3] = ["/work/", "helper session", "index.crates.io"];

/// Checks every rule and returns each violation as one line.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let sources = sources(root)?;
    let mut found = Vec::new();
    headers(root, &sources, &mut found)?;
    sizes(root, &sources, &mut found)?;
    functions(root, &sources, &mut found)?;
    words(root, &sources, &mut found)?;
    let edges = edges(root)?;
    purity(&edges, &mut found);
    drawn(root, &edges, &mut found)?;
    places(root, &mut found)?;
    let tests = Tests::read(root)?;
    found.extend(breakages::check(root, &tests)?);
    found.extend(conformance::check(root, &tests)?);
    Ok(found)
}

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let mut todo = vec![root.join("crates"), root.join("xtask")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    todo.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    out.sort();
    Ok(out)
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn headers(root: &Path, sources: &[PathBuf], found: &mut Vec<String>) -> Result<()> {
    for path in sources {
        if !fs::read_to_string(path)?.starts_with("//!") {
            found.push(format!("{}: does not open with //! (what it is, what it is not, who calls it)", shown(root, path)));
        }
    }
    Ok(())
}

fn sizes(root: &Path, sources: &[PathBuf], found: &mut Vec<String>) -> Result<()> {
    let mut budget = BTreeMap::new();
    for line in fs::read_to_string(root.join("xtask/size-budget.tsv")).unwrap_or_default().lines() {
        if let Some((file, lines)) = line.split_once('\t') {
            budget.insert(file.to_owned(), lines.parse::<usize>().with_context(|| format!("size budget of {file}"))?);
        }
    }
    for path in sources {
        let name = shown(root, path);
        let lines = fs::read_to_string(path)?.lines().count();
        let allowed = budget.remove(&name).unwrap_or(LINES_MAX);
        if lines > allowed {
            found.push(format!("{name}: {lines} lines, {allowed} allowed; split it by meaning"));
        } else if allowed > LINES_MAX && lines + 50 < allowed {
            found.push(format!("{name}: {lines} lines; lower its budget of {allowed} in xtask/size-budget.tsv"));
        }
    }
    for gone in budget.keys() {
        found.push(format!("{gone}: in xtask/size-budget.tsv but not in the tree"));
    }
    Ok(())
}

/// How long each function is, by the indentation that rustfmt gives it.
fn functions(root: &Path, sources: &[PathBuf], found: &mut Vec<String>) -> Result<()> {
    for path in sources {
        let name = shown(root, path);
        let text = fs::read_to_string(path)?;
        let lines: Vec<&str> = text.lines().collect();
        let mut tests = name.contains("/tests/") || name.contains("tests.rs") || name.contains("_tests/");
        for (at, line) in lines.iter().enumerate() {
            tests |= *line == "#[cfg(test)]" && lines.get(at + 1).is_some_and(|next| next.ends_with('{'));
            let Some(function) = declared(line) else { continue };
            let indent = &line[..line.len() - line.trim_start().len()];
            let closes = |l: &&str| l.strip_prefix(indent).is_some_and(|l| !l.starts_with(' ') && l.ends_with(['}', ';']));
            let Some(end) = lines[at..].iter().position(closes) else { continue };
            let allowed = if tests { TEST_LINES_MAX } else { FUNCTION_LINES_MAX };
            if end + 1 > allowed {
                found.push(format!("{name}:{}: {function} has {} lines, {allowed} allowed; split it by meaning", at + 1, end + 1));
            }
        }
    }
    Ok(())
}

/// The name of the function that a line begins.
fn declared(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ").filter(|(before, _)| before.is_empty() || before.ends_with(' '))?;
    let qualifies =
        |word: &str| matches!(word, "async" | "const" | "unsafe" | "extern" | "\"C\"" | "pub" | "in") || word.starts_with("pub(");
    let known = before.split_whitespace().all(qualifies);
    known.then(|| after.split(['(', '<']).next().unwrap_or(after))
}

fn words(root: &Path, sources: &[PathBuf], found: &mut Vec<String>) -> Result<()> {
    for path in sources.iter().filter(|p| !p.ends_with("xtask/src/tidy.rs")) {
        let text = fs::read_to_string(path)?;
        for word in ABSENT.iter().filter(|w| text.contains(**w)) {
            found.push(format!("{}: says {word:?}", shown(root, path)));
        }
    }
    Ok(())
}

/// Direct dependencies of each crate, development ones left out.
fn edges(root: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let path = entry?.path();
        let manifest = path.join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else { continue };
        let mut inside = false;
        let mut deps = BTreeSet::new();
        for line in text.lines() {
            if line.starts_with('[') {
                inside = line == "[dependencies]" || line.starts_with("[target.") && line.ends_with(".dependencies]");
            } else if inside && let Some(name) = line.split(['.', '=', ' ']).next().filter(|n| !n.is_empty() && !n.starts_with('#')) {
                deps.insert(name.to_owned());
            }
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        out.insert(name, deps);
    }
    Ok(out)
}

fn purity(edges: &BTreeMap<String, BTreeSet<String>>, found: &mut Vec<String>) {
    for name in PURE {
        let Some(deps) = edges.get(name) else { continue };
        for dep in deps {
            let shell = edges.contains_key(dep) && !PURE.contains(&dep.as_str());
            if shell || IMPURE.contains(&dep.as_str()) {
                found.push(format!("crates/{name}: a pure crate may not depend on {dep}"));
            }
        }
    }
}

/// Every edge between our own crates stands in ARCHITECTURE.md as `from -> to, to`.
fn drawn(root: &Path, edges: &BTreeMap<String, BTreeSet<String>>, found: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        if let Some((from, to)) = line.trim().split_once(" -> ") {
            known.insert(from.trim(), to.split(',').map(str::trim).collect());
        }
    }
    for (from, deps) in edges {
        let have: BTreeSet<&str> = deps.iter().map(String::as_str).filter(|d| edges.contains_key(*d)).collect();
        let want = known.remove(from.as_str()).unwrap_or_default();
        for new in have.difference(&want) {
            found.push(format!("crates/{from}: depends on {new}, which the edges in ARCHITECTURE.md do not show"));
        }
        for old in want.difference(&have) {
            found.push(format!("ARCHITECTURE.md: shows {from} -> {old}, which is not there"));
        }
    }
    Ok(())
}

/// A document that names a place in the code, as a file's path in backticks and then a name in backticks, is right.
fn places(root: &Path, found: &mut Vec<String>) -> Result<()> {
    let mut documents = vec![root.join("ARCHITECTURE.md"), root.join("CONTRIBUTING.md"), root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        documents.push(entry?.path());
    }
    for path in documents.iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(path)?;
        let parts: Vec<&str> = text.split('`').collect();
        // Odd parts are inside backticks.
        for (i, part) in parts.iter().enumerate().skip(1).step_by(2).filter(|(_, p)| p.starts_with("crates/") && p.ends_with(".rs")) {
            let Ok(code) = fs::read_to_string(root.join(part)) else {
                found.push(format!("{}: names {part}, which is not there", shown(root, path)));
                continue;
            };
            let follows = parts.get(i + 1).is_some_and(|between| between.trim().is_empty());
            if let Some(name) = parts.get(i + 2).filter(|_| follows)
                && !code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name)
            {
                found.push(format!("{}: {name} is not in {part}", shown(root, path)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_functions_are_found_and_those_of_tests_may_be_longer() {
        let file = std::env::temp_dir().join(format!("skiff-tidy-{}.rs", std::process::id()));
        let body = "    work();\n".repeat(FUNCTION_LINES_MAX);
        let text = format!(
            "impl A {{\n    pub async fn brief(&self);\n}}\n\npub(crate) fn long() {{\n{body}}}\n\n#[cfg(test)]\nmod tests {{\n    fn tried() {{\n{body}    }}\n}}\n"
        );
        fs::write(&file, text).unwrap();
        let mut found = Vec::new();
        functions(&std::env::temp_dir(), std::slice::from_ref(&file), &mut found).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(":5: long has 72 lines, 70 allowed"), "{found:?}");
    }
}
