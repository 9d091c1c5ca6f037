//! Field selectors: the grammar of `?fieldSelector=`, its escapes and its error texts (`k8s.io/apimachinery/pkg/fields`).
//! Which fields a resource knows is in `kinds`; this parses, and matches against whoever can look a field up.

use std::fmt;

/// `field=value` or `field!=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub field: String,
    pub value: String,
    pub negated: bool,
}

/// All terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub terms: Vec<Term>,
}

impl Selector {
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// `lookup` answers a field's value, `""` for one that is not set.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|t| (lookup(&t.field) == t.value) != t.negated)
    }
}

/// Parses a selector. The error is upstream's text.
pub fn parse(text: &str) -> Result<Selector, String> {
    let mut parts = split_terms(text);
    parts.sort_unstable();
    let mut terms = Vec::new();
    for part in parts.into_iter().filter(|p| !p.is_empty()) {
        let Some((field, negated, value)) = split_term(part) else {
            return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
        };
        terms.push(Term { field: field.to_owned(), value: unescape(value)?, negated });
    }
    Ok(Selector { terms })
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = term[i..].strip_prefix(operator) {
                return Some((&term[..i], negated, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            // Upstream prints the code of the character.
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", c as u32)),
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(&term.field)?;
            f.write_str(if term.negated { "!=" } else { "=" })?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match() {
        let lookup = |field: &str| if field == "metadata.name" { "a" } else { "" };
        for (text, matches) in
            [("", true), ("metadata.name=a", true), ("metadata.name==a,x=", true), ("metadata.name!=a", false), ("x!=y", true), (",", true)]
        {
            assert_eq!(parse(text).unwrap().matches(lookup), matches, "{text}");
        }
    }

    #[test]
    fn errors_read_as_upstreams() {
        for (text, error) in [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("a=b,metadata.name>a", "invalid selector: 'a=b,metadata.name>a'; can't understand 'metadata.name>a'"),
            ("metadata.name=\\", "invalid field selector: invalid escape sequence: \\"),
            ("metadata.name=none\\q", "invalid field selector: invalid escape sequence: \\q"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn text_round_trips(field in "[a-z.]{1,8}", value in "\\PC{0,12}", negated: bool) {
            let selector = Selector { terms: vec![Term { field, value, negated }] };
            proptest::prop_assert_eq!(parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
