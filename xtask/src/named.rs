//! Tests by their names, as texts of the project name them: `crate::module::test`. Reads sources, runs nothing. `breakages`
//! and `conformance` ask it whether a test they name is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A test function's files, by crate and name.
pub struct Tests(BTreeMap<(String, String), Vec<PathBuf>>);

impl Tests {
    /// Those of all crates. A package's name is its directory's.
    pub fn read(root: &Path) -> Result<Self> {
        let mut found: BTreeMap<_, Vec<PathBuf>> = BTreeMap::new();
        let crates = root.join("crates");
        for entry in fs::read_dir(&crates).with_context(|| format!("reading {}", crates.display()))? {
            let dir = entry?.path();
            let package = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut todo = vec![dir.clone()];
            while let Some(at) = todo.pop() {
                if at.is_dir() {
                    for entry in fs::read_dir(&at)? {
                        todo.push(entry?.path());
                    }
                } else if at.extension().is_some_and(|e| e == "rs") {
                    for name in tests_of(&fs::read_to_string(&at)?) {
                        let path = at.strip_prefix(&dir).unwrap_or(&at).to_owned();
                        found.entry((package.clone(), name)).or_default().push(path);
                    }
                }
            }
        }
        Ok(Self(found))
    }

    /// Whether there is a test `crate::module::name`. Each module must be a directory or file of its path, but for `tests`,
    /// which may stand in the file it tests.
    pub fn has(&self, test: &str) -> bool {
        let mut parts: Vec<&str> = test.split("::").collect();
        let (Some(name), true) = (parts.pop(), !parts.is_empty()) else { return false };
        let package = parts.remove(0);
        let files = self.0.get(&(package.to_owned(), name.to_owned()));
        let holds = |file: &PathBuf| {
            let file = file.with_extension("");
            let dirs: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
            parts.iter().all(|module| *module == "tests" || dirs.iter().any(|dir| dir == module))
        };
        files.is_some_and(|files| files.iter().any(holds))
    }
}

/// The functions below a `#[test]` of some sort.
fn tests_of(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some((before, after)) = line.split_once("fn ")
            && matches!(before.trim(), "" | "async")
            && std::mem::take(&mut marked)
        {
            names.push(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_functions_are_tests() {
        let text = "#[test]\nfn a() {}\nfn b() {}\n    #[tokio::test(start_paused = true)]\n    #[ignore]\n    async fn c(x in any()) {\n";
        assert_eq!(tests_of(text), ["a", "c"]);
        let tests = Tests(BTreeMap::from([(("p".to_owned(), "a".to_owned()), vec![PathBuf::from("src/m/n.rs")])]));
        for (name, want) in [("p::m::n::a", true), ("p::n::tests::a", true), ("p::o::a", false), ("q::m::n::a", false), ("a", false)] {
            assert_eq!(tests.has(name), want, "{name}");
        }
    }
}
