//! Regular expressions as RE2 reads them, compiled once per program where they are constant.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::error::EvalError;

/// Bytes a compiled expression may take.
const SIZE_MAX: usize = 1 << 20;

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
        let made = compile(pattern)?;
        if self.met.len() < 64 {
            self.met.insert(pattern.to_owned(), made.clone());
        }
        Ok(made)
    }
}

pub(crate) fn compile(pattern: &str) -> Result<Regex, EvalError> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(SIZE_MAX)
        .dfa_size_limit(SIZE_MAX)
        .nest_limit(200)
        .build()
        .map_err(|_| EvalError::new(format!("error parsing regexp: invalid regular expression: `{pattern}`")))
}

/// What differs: RE2's `\d`, `\w`, `\s`, `\b` speak of ASCII, and its classes have no inner classes or set operations.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut class = false;
    let mut first = false;
    while let Some(c) = chars.next() {
        let was_first = std::mem::take(&mut first);
        match c {
            '\\' => match chars.next() {
                Some('d') => out.push_str(if class { "0-9" } else { "[0-9]" }),
                Some('w') => out.push_str(if class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                Some('s') => out.push_str(if class { r"\t\n\x0C\r " } else { r"[\t\n\x0C\r ]" }),
                Some('D') => out.push_str("[^0-9]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('S') => out.push_str(r"[^\t\n\x0C\r ]"),
                Some('b') if !class => out.push_str(r"(?-u:\b)"),
                Some('B') if !class => out.push_str(r"(?-u:\B)"),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if class && chars.peek() == Some(&':') => out.push('['),
            '[' if class => out.push_str(r"\["),
            '[' => {
                class = true;
                first = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.extend(chars.next());
                }
            }
            // A bracket that opens a class stands for itself.
            ']' if class && was_first => out.push_str(r"\]"),
            ']' if class && out.ends_with(':') => out.push(']'),
            ']' => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => out.extend(['\\', c]),
            '-' if class && chars.peek() == Some(&'-') => out.push_str(r"\-"),
            _ => out.push(c),
        }
    }
    out
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
