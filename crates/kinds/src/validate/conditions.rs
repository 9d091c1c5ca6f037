//! Conditions of `meta/v1` (`unversionedvalidation.ValidateConditions`), and kind references by path segment names.

use machinery::field::{Error, ErrorList, Path};
use machinery::names;
use serde_json::{Value, json};

use super::rules::{Seen, named, one_of};
use super::tree::{int0, list, opt, s};

const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
const REASON_MAX_BYTES: usize = 1024;
const MESSAGE_MAX_BYTES: usize = 32 * 1024;

/// `v[key]` as a list of conditions.
pub fn conditions(v: &Value, key: &str, p: &Path<'_>, e: &mut ErrorList) {
    let at = p.child(key);
    let mut seen = Seen::default();
    for (i, condition) in list(v, key).iter().enumerate() {
        let p = at.index(i);
        if seen.again(s(condition, "type")) {
            e.push(Error::duplicate(&p.child("type"), &json!(s(condition, "type"))));
        }
        one(condition, &p, e);
    }
}

fn one(c: &Value, p: &Path<'_>, e: &mut ErrorList) {
    named(&p.child("type"), s(c, "type"), names::qualified_name(s(c, "type")), e);
    one_of(&p.child("status"), s(c, "status"), &["False", "True", "Unknown"], e);
    if int0(c, "observedGeneration") < 0 {
        e.push(Error::invalid(&p.child("observedGeneration"), &c["observedGeneration"], "must be greater than or equal to zero"));
    }
    if opt(c, "lastTransitionTime").is_none() {
        e.push(Error::required(&p.child("lastTransitionTime"), ""));
    }
    let reason = s(c, "reason");
    if reason.is_empty() {
        e.push(Error::required(&p.child("reason"), ""));
    } else {
        if !is_reason(reason) {
            e.push(Error::invalid_str(&p.child("reason"), reason, REASON));
        }
        if reason.len() > REASON_MAX_BYTES {
            e.push(Error::too_long(&p.child("reason"), REASON_MAX_BYTES));
        }
    }
    if s(c, "message").len() > MESSAGE_MAX_BYTES {
        e.push(Error::too_long(&p.child("message"), MESSAGE_MAX_BYTES));
    }
}

fn is_reason(text: &str) -> bool {
    let b = text.as_bytes();
    b.first().is_some_and(u8::is_ascii_alphabetic)
        && b.last().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && b.iter().all(|b| b.is_ascii_alphanumeric() || b"_,:".contains(b))
}

/// A name that must be there and can stand in a path; `detail` is of the error where it is missing.
pub fn segment(v: &Value, key: &str, p: &Path<'_>, detail: &str, e: &mut ErrorList) {
    match s(v, key) {
        "" => e.push(Error::required(&p.child(key), detail)),
        value => named(&p.child(key), value, names::path_segment(value, false), e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        for (text, good) in
            [("A", true), ("ReasonA,ReasonB", true), ("A_", true), ("A:", false), ("1A", false), ("", false), ("A b", false)]
        {
            assert_eq!(is_reason(text), good, "{text}");
        }
    }
}
