//! JSON paths that name one field of a schema: `.spec.a`, `.spec['a-b']`. Upstream's `cel.ValidFieldPath`.

use machinery::structural::Schema;

/// A path and the schema it leads to.
pub struct FieldPath<'s> {
    /// As a field path: `spec.a`, entries of maps in brackets.
    pub text: String,
    /// The first field.
    pub root: String,
    pub schema: &'s Schema,
}

/// Follows a path, or says why it leads nowhere.
pub fn field_path<'s>(path: &str, schema: &'s Schema, brackets: bool) -> Result<FieldPath<'s>, String> {
    let mut found = FieldPath { text: String::new(), root: String::new(), schema };
    let mut rest = path;
    while let Some(token) = next(&mut rest) {
        let name = match token {
            "." => next(&mut rest).ok_or("unexpected end of JSON path")?.to_owned(),
            "[" if !brackets => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = next(&mut rest).ok_or("unexpected end of JSON path")?;
                let inner = quoted.strip_prefix('\'').and_then(|q| q.strip_suffix('\''));
                let inner = inner.filter(|_| quoted.len() >= 2).ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                unescape(inner)?
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        found.step(&name)?;
        if token == "[" {
            match next(&mut rest) {
                None => return Err("unexpected end of JSON path".to_owned()),
                Some("]") => {}
                Some(other) => return Err(format!("expected ] but got {other}")),
            }
        }
    }
    Ok(found)
}

impl FieldPath<'_> {
    fn step(&mut self, name: &str) -> Result<(), String> {
        const NOWHERE: &str = "does not refer to a valid field";
        if !self.schema.properties.is_empty() {
            self.schema = self.schema.properties.get(name).ok_or(NOWHERE)?;
            if !self.text.is_empty() {
                self.text.push('.');
            }
            self.text.push_str(name);
        } else {
            self.schema = self.schema.additional_schema().ok_or(NOWHERE)?;
            self.text.push_str(&format!("[{name}]"));
        }
        if self.root.is_empty() {
            name.clone_into(&mut self.root);
        }
        Ok(())
    }
}

/// The next delimiter, or what stands up to it; a quoted string is one piece.
fn next<'a>(rest: &mut &'a str) -> Option<&'a str> {
    if rest.is_empty() {
        return None;
    }
    let bytes = rest.as_bytes();
    let end = if bytes[0] == b'\'' {
        (1..bytes.len()).find(|i| bytes[*i] == b'\'' && bytes[i - 1] != b'\\').map_or(bytes.len(), |i| i + 1)
    } else {
        bytes.iter().position(|b| matches!(b, b'.' | b'[' | b']')).map_or(bytes.len(), |i| i.max(1))
    };
    let (token, after) = rest.split_at_checked(end)?;
    *rest = after;
    Some(token)
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some(c @ ('\'' | '\\')) => c,
            Some(other) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
            None => '\\',
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_through_the_schema_or_say_why_not() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a-b": {"type": "string"}, "m": {"type": "object", "additionalProperties": {"type": "string"}}}},
        }}))
        .unwrap();
        for (path, wanted) in [
            (".spec.a-b", Ok("spec.a-b")),
            (".spec['a-b']", Ok("spec.a-b")),
            ("['spec'].m.x", Ok("spec.m[x]")),
            (".spec.m['it\\'s']", Ok("spec.m[it's]")),
            ("", Ok("")),
            ("spec", Err("expected [ or . but got: spec")),
            (".spec.zz", Err("does not refer to a valid field")),
            (".spec.", Err("unexpected end of JSON path")),
            (".spec[0]", Err("expected single quoted string but got 0")),
            (".spec['a-b'", Err("unexpected end of JSON path")),
            (".spec['a\\x']", Err("invalid string literal: invalid escape char \\x")),
        ] {
            let found = field_path(path, &schema, true).map(|f| f.text);
            assert_eq!(found.as_deref().map_err(String::as_str), wanted, "{path}");
        }
        assert_eq!(field_path(".spec['a-b']", &schema, false).err().as_deref(), Some("array notation is not allowed"));
    }
}
