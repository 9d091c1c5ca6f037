//! `docs/conformance.tsv`: upstream's conformance tests, and which test of ours takes the same steps. The table is written by
//! hand; this only checks it, for tidy.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::named::Tests;

const TABLE: &str = "docs/conformance.tsv";
/// Upstream's v1.36 has so many.
const ROWS: usize = 446;

/// What is wrong with the table, one line each.
pub fn check(root: &Path, tests: &Tests) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join(TABLE)).context(TABLE)?;
    Ok(judge(&text, tests, ROWS))
}

fn judge(text: &str, tests: &Tests, rows: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut last = "";
    for line in text.lines() {
        let Some((name, ours)) = line.split_once('\t') else {
            found.push(format!("{TABLE}: no tab in {line:?}"));
            continue;
        };
        if name <= last {
            found.push(format!("{TABLE}: {name:?} is not in order, or comes twice"));
        }
        last = name;
        let missing = ours.split(' ').filter(|test| *test != "-" && !tests.has(test));
        found.extend(missing.map(|test| format!("{TABLE}: there is no test {test:?} ({name})")));
    }
    let count = text.lines().count();
    if count != rows {
        found.push(format!("{TABLE}: {count} rows, upstream has {rows} tests"));
    }
    found
}
