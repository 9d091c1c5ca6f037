//! What is said about a request on the side: warnings that reach the client as headers, annotations of its audit event.
//! One per request, made by the chain, which also hands out what was gathered; anything on the way may add to it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// More text than this, in bytes, is cut: upstream's limit of all warnings together, and of one when that is exceeded.
const TOTAL_BYTES_MAX: usize = 4096;
const SHORTENED_BYTES: usize = 256;

#[derive(Debug, Default)]
pub struct Notes {
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<BTreeMap<String, String>>,
}

impl Notes {
    /// Empty and repeated texts are left out; control characters become spaces.
    pub fn warn(&self, text: impl Into<String>) {
        let text: String = text.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut all = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !text.is_empty() && !all.contains(&text) {
            all.push(text);
        }
    }

    pub fn warn_of(&self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| self.warn(text));
    }

    /// The first value of a key stays.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        let (mut all, value) = (self.annotations.lock().unwrap_or_else(PoisonError::into_inner), value.into());
        match all.get(key) {
            None => drop(all.insert(key.to_owned(), value)),
            Some(there) if *there != value => tracing::warn!(key, "an audit annotation was set twice"),
            Some(_) => {}
        }
    }

    /// All warnings, shortened where they are too long together.
    pub fn take_warnings(&self) -> Vec<String> {
        let all = std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        if all.iter().map(String::len).sum::<usize>() <= TOTAL_BYTES_MAX {
            return all;
        }
        let mut left = TOTAL_BYTES_MAX;
        let mut out = Vec::new();
        for text in all {
            let short = &text[..text.floor_char_boundary(SHORTENED_BYTES)];
            if short.len() > left {
                break;
            }
            left -= short.len();
            out.push(short.to_owned());
        }
        out
    }

    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_said_once_and_cut_when_too_long() {
        let notes = Notes::default();
        for text in ["a", "", "a", "b\nc"] {
            notes.warn(text);
        }
        assert_eq!(notes.take_warnings(), ["a", "b c"]);
        for i in 0..30 {
            notes.warn(format!("{i}{}", "ä".repeat(400)));
        }
        let cut = notes.take_warnings();
        assert_eq!(cut.len(), 16);
        assert!(cut.iter().all(|t| t.len() <= SHORTENED_BYTES));
    }

    #[test]
    fn the_first_annotation_of_a_key_stays() {
        let notes = Notes::default();
        notes.annotate("x/k", "1");
        notes.annotate("x/k", "2");
        assert_eq!(notes.annotations()["x/k"], "1");
    }
}
