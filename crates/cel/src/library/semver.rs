//! Semantic versions: `semver('1.2.3').isLessThan(...)`.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::opaque::Opaque;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    (
        "semver",
        |_, a| parsed(a).map(|v| Value::Opaque(Opaque::Semver(Arc::new(v)))),
        &[("string_to_semver", "(string) -> Semver"), ("string_bool_to_semver", "(string, bool) -> Semver")],
    ),
    (
        "isSemver",
        |_, a| Ok(Value::Bool(parsed(a).is_ok())),
        &[("is_semver_string", "(string) -> bool"), ("is_semver_string_bool", "(string, bool) -> bool")],
    ),
    ("major", |_, a| number(a, 0), &[("semver_major", "Semver.() -> int")]),
    ("minor", |_, a| number(a, 1), &[("semver_minor", "Semver.() -> int")]),
    ("patch", |_, a| number(a, 2), &[("semver_patch", "Semver.() -> int")]),
    ("isLessThan", |_, a| Ok(Value::Bool(order(a)?.is_lt())), &[("semver_is_less_than", "Semver.(Semver) -> bool")]),
    ("isGreaterThan", |_, a| Ok(Value::Bool(order(a)?.is_gt())), &[("semver_is_greater_than", "Semver.(Semver) -> bool")]),
    ("compareTo", |_, a| Ok(Value::Int(order(a)? as i64)), &[("semver_compare_to", "Semver.(Semver) -> int")]),
];

/// A semantic version 2.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<String>,
    build: String,
}

impl Version {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("Version string empty");
        }
        let (text, build) = text.split_once('+').map_or((text, None), |(t, b)| (t, Some(b)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(t, p)| (t, Some(p)));
        let mut parts = core.split('.');
        let mut numbers = [0; 3];
        for slot in &mut numbers {
            let part = parts.next().ok_or("No Major.Minor.Patch elements found")?;
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err("Invalid character(s) found in version number");
            }
            if part.len() > 1 && part.starts_with('0') {
                return Err("Version number must not contain leading zeroes");
            }
            *slot = part.parse().map_err(|_| "value out of range")?;
        }
        if parts.next().is_some() {
            return Err("Invalid character(s) found in patch number");
        }
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let pre: Vec<String> = pre.map(|p| p.split('.').map(str::to_owned).collect()).unwrap_or_default();
        if !pre.iter().all(|p| word(p)) || !build.is_none_or(|b| b.split('.').all(word)) {
            return Err("Invalid character(s) found in prerelease or build");
        }
        if pre.iter().any(|p| p.len() > 1 && p.starts_with('0') && p.bytes().all(|b| b.is_ascii_digit())) {
            return Err("Numeric PreRelease version must not contain leading zeroes");
        }
        Ok(Self { numbers, pre, build: build.unwrap_or_default().to_owned() })
    }

    /// By precedence; build metadata does not count.
    pub fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => pre_order(&self.pre, &other.pre),
        })
    }
}

fn pre_order(a: &[String], b: &[String]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// Without a leading `v`, with leading zeros removed and missing parts filled up.
fn normalize(text: &str) -> Result<String, &'static str> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
    for part in parts.iter_mut().filter(|p| p.len() > 1) {
        let bare = part.trim_start_matches('0');
        *part = if bare.starts_with(|c: char| c.is_ascii_digit()) { bare.to_owned() } else { format!("0{bare}") };
    }
    if parts.len() < 3 && parts.last().is_some_and(|p| p.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data");
    }
    parts.resize(parts.len().max(3), "0".to_owned());
    Ok(parts.join("."))
}

fn parsed(args: &[Value<'_>]) -> Result<Version, EvalError> {
    let text = str_arg(&args[0])?;
    let parsed = match args.get(1) {
        Some(Value::Bool(true)) => normalize(text).and_then(|t| Version::parse(&t)),
        Some(Value::Bool(false)) | None => Version::parse(text),
        Some(_) => return Err(EvalError::no_such_overload()),
    };
    parsed.map_err(EvalError::new)
}

fn version<'v>(value: &'v Value<'_>) -> Result<&'v Version, EvalError> {
    match value {
        Value::Opaque(Opaque::Semver(version)) => Ok(version),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn number<'a>(args: &[Value<'a>], at: usize) -> Outcome<'a> {
    Ok(Value::Int(i64::try_from(version(&args[0])?.numbers[at]).unwrap_or(i64::MAX)))
}

fn order(args: &[Value<'_>]) -> Result<Ordering, EvalError> {
    Ok(version(&args[0])?.order(version(&args[1])?))
}
