//! Names: which are identifiers, and how property names are escaped to become ones. Upstream's `cel.Escape`.

/// Words of the language, which a property can only be spelt by escaping.
const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// Whether a text is an identifier that is no reserved word.
pub fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !is_reserved(text)
}

pub(crate) fn is_reserved(text: &str) -> bool {
    text == "while" || RESERVED.contains(&text)
}

/// How an expression spells a property; `None` if it cannot.
pub fn escape(property: &str) -> Option<String> {
    let first = property.bytes().next()?;
    if first.is_ascii_digit() {
        return None;
    }
    if is_reserved(property) {
        return Some(format!("__{property}__"));
    }
    let mut out = String::with_capacity(property.len());
    let mut rest = property;
    while let Some(c) = rest.chars().next() {
        let took = match c {
            _ if rest.starts_with("__") => {
                out.push_str("__underscores__");
                2
            }
            '.' => {
                out.push_str("__dot__");
                1
            }
            '-' => {
                out.push_str("__dash__");
                1
            }
            '/' => {
                out.push_str("__slash__");
                1
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => {
                out.push(c);
                1
            }
            _ => return None,
        };
        rest = &rest[took..];
    }
    Some(out)
}

/// The property an escaped name stands for; `None` if it is no escape of anything.
pub fn unescape(name: &str) -> Option<String> {
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && is_reserved(word)
    {
        return Some(word.to_owned());
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        let Some(at) = rest.find("__") else {
            out.push_str(rest);
            break;
        };
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        let known = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
        let (spelt, means) = known.into_iter().find(|(spelt, _)| tail.starts_with(spelt))?;
        out.push_str(means);
        rest = &tail[spelt.len()..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_back() {
        for (property, spelt) in [
            ("a", "a"),
            ("foo-bar", "foo__dash__bar"),
            ("x.y/z", "x__dot__y__slash__z"),
            ("a__b", "a__underscores__b"),
            ("namespace", "__namespace__"),
            ("_a_", "_a_"),
        ] {
            assert_eq!(escape(property).unwrap(), spelt);
            assert_eq!(unescape(spelt).unwrap(), property);
        }
        assert_eq!(escape("1a"), None);
        assert_eq!(escape("a b"), None);
        assert_eq!(escape(""), None);
        assert!(is_identifier("_a1") && !is_identifier("1a") && !is_identifier("in") && !is_identifier(""));
    }
}
