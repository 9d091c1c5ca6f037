//! Regular expressions of a schema. Each is compiled when first needed and kept, as long as all of them together stay small.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use regex::Regex;

use crate::re2;

/// All compiled expressions of a schema may take this much memory; the rest is compiled for each use.
const BYTES_MAX: usize = 32 << 20;
/// An expression gets the first of these limits it fits in.
const STEPS: [usize; 5] = [1 << 14, 1 << 16, 1 << 18, 1 << 20, re2::BYTES_MAX];

type Compiled = Result<Regex, String>;

/// A regular expression. Equal ones of a schema are one.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: String,
    /// `None` inside: there is no room to keep it.
    compiled: Arc<OnceLock<Option<Compiled>>>,
    bytes_left: Arc<AtomicUsize>,
}

impl Pattern {
    /// Whether a text matches; why the expression is none otherwise.
    pub fn matches(&self, text: &str) -> Result<bool, String> {
        match self.compiled.get_or_init(|| self.compile()) {
            Some(compiled) => compiled.as_ref().map(|r| r.is_match(text)).map_err(Clone::clone),
            None => re2::compile(&self.text).map(|r| r.is_match(text)),
        }
    }

    fn compile(&self) -> Option<Compiled> {
        let mut made = None;
        for bytes in STEPS {
            let taken = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
            if taken.is_err() {
                // Nobody after this need try.
                self.bytes_left.store(0, Ordering::Relaxed);
                return None;
            }
            let compiled = re2::compile_within(&self.text, bytes);
            let sound = compiled.is_ok();
            made = Some(compiled);
            if sound {
                break;
            }
            self.bytes_left.fetch_add(bytes, Ordering::Relaxed);
        }
        made
    }
}

/// The expressions of one schema.
pub(super) struct Patterns {
    seen: BTreeMap<String, Pattern>,
    bytes_left: Arc<AtomicUsize>,
}

impl Patterns {
    pub fn new() -> Self {
        Self { seen: BTreeMap::new(), bytes_left: Arc::new(AtomicUsize::new(BYTES_MAX)) }
    }

    pub fn get(&mut self, text: &str) -> Pattern {
        if let Some(seen) = self.seen.get(text) {
            return seen.clone();
        }
        let made = Pattern { text: text.to_owned(), compiled: Arc::default(), bytes_left: self.bytes_left.clone() };
        self.seen.insert(text.to_owned(), made.clone());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_kept_while_there_is_room() {
        let mut patterns = Patterns::new();
        let (a, b) = (patterns.get("^a{1,500}$"), patterns.get("^a{1,500}$"));
        assert_eq!(a.matches("aaa"), Ok(true));
        assert!(b.compiled.get().is_some(), "equal ones are one");
        patterns.bytes_left.store(1, Ordering::Relaxed);
        let late = patterns.get("^b$");
        assert_eq!((late.matches("b"), late.matches("c")), (Ok(true), Ok(false)));
        assert!(matches!(late.compiled.get(), Some(None)));
        assert!(patterns.get("(").matches("").is_err());
    }
}
