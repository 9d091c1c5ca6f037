//! `$(VAR)` expansion in env values, commands and arguments, as upstream's `expansion.Expand`: `$$` escapes, an unknown
//! name stays as written. Pure text; called by env and when a container's configuration is made.

use std::collections::BTreeMap;

/// Expands `$(NAME)` from `vars`.
pub fn expand(input: &str, vars: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.as_bytes().first() {
            Some(b'$') => {
                out.push('$');
                rest = &rest[1..];
            }
            Some(b'(') => match rest.find(')') {
                Some(end) => {
                    let name = &rest[1..end];
                    match vars.get(name) {
                        Some(value) => out.push_str(value),
                        None => out.push_str(&format!("$({name})")),
                    }
                    rest = &rest[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = &rest[1..];
                }
            },
            _ => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

/// Expansion that must know every name, as `subPathExpr` demands.
pub fn expand_strict(input: &str, vars: &BTreeMap<String, String>) -> Result<String, String> {
    let mut missing = Vec::new();
    let mut rest = input.replace("$$", "");
    while let Some(start) = rest.find("$(") {
        let Some(end) = rest[start..].find(')') else { break };
        let name = rest[start + 2..start + end].to_owned();
        if !vars.contains_key(&name) {
            missing.push(name);
        }
        rest = rest[start + end + 1..].to_owned();
    }
    if missing.is_empty() { Ok(expand(input, vars)) } else { Err(format!("missing value for \"{}\"", missing.join("\", \""))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let vars = BTreeMap::from([("VAR_A".to_owned(), "A".to_owned()), ("VAR_EMPTY".to_owned(), String::new())]);
        for (input, want) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_A)___", "___A___"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$(VAR_X)", "$(VAR_X)"),
            ("$(VAR_EMPTY)x", "x"),
            ("$VAR_A", "$VAR_A"),
            ("foo$", "foo$"),
            ("$(", "$("),
            ("$((VAR_A))", "$((VAR_A))"),
            ("f00-$(VAR_A", "f00-$(VAR_A"),
            ("é$(VAR_A)é", "éAé"),
        ] {
            assert_eq!(expand(input, &vars), want, "{input}");
        }
        assert_eq!(expand_strict("a/$(VAR_A)", &vars), Ok("a/A".to_owned()));
        assert!(expand_strict("a/$(NOPE)", &vars).is_err());
    }
}
