//! Joining stored bytes, which hold no resourceVersion, with a revision, without parsing them again. Used by `entry`.

use bytes::{BufMut as _, Bytes, BytesMut};
use store::Revision;

/// Where the first member of the object's metadata begins. `None`: the bytes are no JSON object with a metadata object.
pub fn insertion_point(bytes: &[u8]) -> Option<usize> {
    let mut at = skip_space(bytes, 0);
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    at += 1;
    loop {
        at = skip_space(bytes, at);
        let key_end = string_end(bytes, at)?;
        let key = &bytes[at..key_end];
        at = skip_space(bytes, key_end);
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        at = skip_space(bytes, at + 1);
        if key == b"\"metadata\"" {
            return (bytes.get(at) == Some(&b'{')).then_some(at + 1);
        }
        at = skip_space(bytes, value_end(bytes, at)?);
        if bytes.get(at) != Some(&b',') {
            return None;
        }
        at += 1;
    }
}

/// The members of a JSON object as they are written: names and values. Ends where the bytes make no sense.
pub fn members(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = skip_space(bytes, 0);
    std::iter::from_fn(move || {
        if !matches!(bytes.get(at), Some(b'{' | b',')) {
            return None;
        }
        let from = skip_space(bytes, at + 1);
        let to = string_end(bytes, from)?;
        let colon = skip_space(bytes, to);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let value = skip_space(bytes, colon + 1);
        let end = value_end(bytes, value)?;
        at = skip_space(bytes, end);
        Some((bytes.get(from + 1..to - 1)?, bytes.get(value..end)?))
    })
}

/// The object with its resourceVersion.
pub fn splice(bytes: &[u8], revision: Revision) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len() + 48);
    append(&mut out, bytes, insertion_point(bytes), revision);
    out.freeze()
}

/// Appends the object with its resourceVersion, which goes in at `point`.
pub(super) fn append(out: &mut BytesMut, bytes: &[u8], point: Option<usize>, revision: Revision) {
    let Some(point) = point else {
        out.extend_from_slice(bytes);
        return;
    };
    out.reserve(bytes.len() + 48);
    out.extend_from_slice(&bytes[..point]);
    out.put_slice(b"\"resourceVersion\":\"");
    append_decimal(out, revision.0);
    let empty = bytes.get(skip_space(bytes, point)) == Some(&b'}');
    out.put_slice(if empty { b"\"" } else { b"\"," });
    out.extend_from_slice(&bytes[point..]);
}

/// Appends the object without the members before its metadata, which the store puts first but for kind and apiVersion.
pub(super) fn append_item(out: &mut BytesMut, bytes: &[u8], point: Option<usize>, revision: Revision) {
    const METADATA: &[u8] = b"\"metadata\":{";
    match point.filter(|p| bytes[..*p].ends_with(METADATA)) {
        Some(point) => {
            out.put_u8(b'{');
            append(out, &bytes[point - METADATA.len()..], Some(METADATA.len()), revision);
        }
        None => append(out, bytes, point, revision),
    }
}

/// Appends the value of the metadata.
pub(super) fn append_metadata(out: &mut BytesMut, bytes: &[u8], point: Option<usize>, revision: Revision) {
    let end = point.and_then(|p| value_end(bytes, p - 1));
    match (point, end) {
        (Some(point), Some(end)) => append(out, &bytes[point - 1..end], Some(1), revision),
        _ => out.put_slice(b"{}"),
    }
}

fn append_decimal(out: &mut BytesMut, mut n: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r')) {
        at += 1;
    }
    at
}

/// The end of the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The end of the value that begins at `at`.
fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' if depth == 0 => return Some(at),
            _ => at += 1,
        }
        if depth == 0 && matches!(bytes.get(at), None | Some(b',' | b'}')) {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_goes_into_the_objects_own_metadata() {
        let cases = [
            (r#"{"kind":"X","metadata":{"name":"a"}}"#, r#"{"kind":"X","metadata":{"resourceVersion":"7","name":"a"}}"#),
            (r#"{"metadata":{},"z":1}"#, r#"{"metadata":{"resourceVersion":"7"},"z":1}"#),
            (
                r#"{"a":{"metadata":{"x":[1,{"y":"}"}]}},"b":"\"metadata\":{","metadata":{"n":1}}"#,
                r#"{"a":{"metadata":{"x":[1,{"y":"}"}]}},"b":"\"metadata\":{","metadata":{"resourceVersion":"7","n":1}}"#,
            ),
            (r#" { "a" : -1.5e3 , "metadata" : { } }"#, r#" { "a" : -1.5e3 , "metadata" : {"resourceVersion":"7" } }"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("{", "{"),
            (r#"{"a":""#, r#"{"a":""#),
            (r#"{"metadata":null}"#, r#"{"metadata":null}"#),
        ];
        for (stored, sent) in cases {
            assert_eq!(splice(stored.as_bytes(), Revision(7)), sent.as_bytes(), "{stored}");
        }
        assert_eq!(splice(br#"{"metadata":{}}"#, Revision(u64::MAX)).len(), 15 + 38 + 2);
    }

    #[test]
    fn members_are_told_apart() {
        let told = |text: &'static str| -> Vec<(String, String)> {
            let text_of = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            members(text.as_bytes()).map(|(key, value)| (text_of(key), text_of(value))).collect()
        };
        let two = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let want = vec![two("a", "{\"x\":[1,{}]}"), two("b\\\"", "\",}\""), two("c", "1"), two("d", "[]")];
        assert_eq!(told(r#"{"a":{"x":[1,{}]},"b\"":",}","c":1,"d":[]}"#), want);
        assert_eq!(told(r#" { "a" : {} , "b" : [ ] }"#).len(), 2);
        for nothing in ["{}", "", "[1,2]", "null", "{\"a\"", "{\"a\":", "\"a\"", "{\"a\\"] {
            assert_eq!(told(nothing), [], "{nothing}");
        }
    }

    #[test]
    fn items_and_metadata_are_cut_out() {
        let cases = [
            (
                r#"{"kind":"X","apiVersion":"v1","metadata":{"name":"a","labels":{"}":"{\""}},"data":{"metadata":{}}}"#,
                r#"{"metadata":{"resourceVersion":"7","name":"a","labels":{"}":"{\""}},"data":{"metadata":{}}}"#,
                r#"{"resourceVersion":"7","name":"a","labels":{"}":"{\""}}"#,
            ),
            (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#, r#"{"resourceVersion":"7"}"#),
            (r#"{"kind":"X"}"#, r#"{"kind":"X"}"#, "{}"),
        ];
        for (stored, item, metadata) in cases {
            let point = insertion_point(stored.as_bytes());
            let mut out = BytesMut::new();
            append_item(&mut out, stored.as_bytes(), point, Revision(7));
            assert_eq!(out, item.as_bytes(), "{stored}");
            out.clear();
            append_metadata(&mut out, stored.as_bytes(), point, Revision(7));
            assert_eq!(out, metadata.as_bytes(), "{stored}");
        }
    }
}
