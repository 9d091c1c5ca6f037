//! Regular expressions as RE2 reads them, compiled once per program where they are constant.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use crate::error::EvalError;

/// Bytes a compiled expression may take.
const SIZE_MAX: usize = 1 << 20;

/// Patterns that are not constant, per evaluation.
const MET_MAX: usize = 100;

/// What one evaluation uses: constants prepared with the program, and those met on the way.
pub(crate) struct Regexes<'p> {
    prepared: &'p BTreeMap<Arc<str>, Regex>,
    met: BTreeMap<String, Regex>,
}

impl<'p> Regexes<'p> {
    pub fn new(prepared: &'p BTreeMap<Arc<str>, Regex>) -> Self {
        Self { prepared, met: BTreeMap::new() }
    }

    pub fn get(&mut self, pattern: &str) -> Result<Regex, EvalError> {
        if let Some(found) = self.prepared.get(pattern).or_else(|| self.met.get(pattern)) {
            return Ok(found.clone());
        }
        // Compiling costs far more than matching, and costs do not show it.
        if self.met.len() >= MET_MAX {
            return Err(EvalError::call_limit());
        }
        let made = compile(pattern)?;
        self.met.insert(pattern.to_owned(), made.clone());
        Ok(made)
    }
}

pub(crate) fn compile(pattern: &str) -> Result<Regex, EvalError> {
    machinery::re2::compile_within(pattern, SIZE_MAX).map_err(EvalError::new)
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn expressions_mean_what_re2_means() {
        for (pattern, text, matches) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "१२३", false),
            (r"^[\w-]+$", "a-b_c", true),
            ("[[]", "[", true),
            ("[]a]", "]", true),
            ("[a&&b]", "&", true),
            ("^[[:alpha:]]+$", "abc", true),
            ("^[[:alpha:]]+$", "ab1", false),
            (r"\bfoo\b", "a foo b", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), matches, "{pattern} {text}");
        }
        assert!(compile("(").is_err());
        assert!(compile(r"a{1000}{1000}{1000}").is_err());
    }
}
