//! The strings extension, version 2. Positions count code points.

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::{LIST_MAX, TEXT_MAX, bounded, int_arg, str_arg, text_format};
use crate::regexes::Regexes;
use crate::value::Value;

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("charAt", char_at, &[("string_char_at_int", "string.(int) -> string")]),
    ("lowerAscii", |_, a| map(a, |s| s.to_ascii_lowercase()), &[("string_lower_ascii", "string.() -> string")]),
    ("upperAscii", |_, a| map(a, |s| s.to_ascii_uppercase()), &[("string_upper_ascii", "string.() -> string")]),
    ("trim", |_, a| map(a, |s| s.trim().to_owned()), &[("string_trim", "string.() -> string")]),
    (
        "replace",
        replace,
        &[
            ("string_replace_string_string", "string.(string, string) -> string"),
            ("string_replace_string_string_int", "string.(string, string, int) -> string"),
        ],
    ),
    (
        "split",
        split,
        &[("string_split_string", "string.(string) -> list(string)"), ("string_split_string_int", "string.(string, int) -> list(string)")],
    ),
    (
        "substring",
        substring,
        &[("string_substring_int", "string.(int) -> string"), ("string_substring_int_int", "string.(int, int) -> string")],
    ),
    ("join", join, &[("list_join", "list(string).() -> string"), ("list_join_string", "list(string).(string) -> string")]),
    ("format", text_format::format, &[("string_format", "string.(list(dyn)) -> string")]),
    ("strings.quote", |_, a| map(a, quote), &[("strings_quote", "(string) -> string")]),
    (
        "jsonpatch.escapeKey",
        |_, a| map(a, |s| s.replace('~', "~0").replace('/', "~1")),
        &[("string_jsonpatch_escapeKey_string", "(string) -> string")],
    ),
];

fn map<'a>(args: &[Value<'a>], with: impl Fn(&str) -> String) -> Outcome<'a> {
    Ok(Value::string(with(str_arg(&args[0])?)))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn out_of_range(index: i64) -> EvalError {
    EvalError::new(format!("index out of range: {index}"))
}

fn char_at<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, at) = (str_arg(&args[0])?, int_arg(&args[1])?);
    let index = usize::try_from(at).map_err(|_| out_of_range(at))?;
    let mut rest = text.chars().skip(index);
    match rest.next() {
        Some(c) => Ok(Value::string(c.to_string())),
        None if text.chars().count() == index => Ok(Value::string("")),
        None => Err(out_of_range(at)),
    }
}

/// Where a text begins within another, from a position on.
pub(crate) fn index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part) = (str_arg(&args[0])?, str_arg(&args[1])?);
    let from = args.get(2).map(int_arg).transpose()?.unwrap_or(0);
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    let size = text.chars().count();
    let start = usize::try_from(from).ok().filter(|n| *n < size);
    let start = match (start, args.len()) {
        (Some(start), _) => start,
        (None, 2) => return Ok(Value::Int(-1)),
        (None, _) => return Err(out_of_range(from)),
    };
    let skipped = text.char_indices().nth(start).map_or(text.len(), |(i, _)| i);
    Ok(Value::Int(match text[skipped..].find(part) {
        Some(found) => i64::try_from(start + text[skipped..skipped + found].chars().count()).unwrap_or(-1),
        None => -1,
    }))
}

/// Where a text last begins within another, up to a position.
pub(crate) fn last_index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part) = (str_arg(&args[0])?, str_arg(&args[1])?);
    let size = text.chars().count();
    let last = args.get(2).map(int_arg).transpose()?;
    if part.is_empty() {
        return Ok(Value::Int(last.unwrap_or(i64::try_from(size).unwrap_or(-1))));
    }
    let end = match last {
        Some(last) => match usize::try_from(last).ok().filter(|n| *n < size) {
            Some(n) => text.char_indices().nth(n).map_or(text.len(), |(i, _)| i),
            None => return Err(out_of_range(last)),
        },
        None => text.len(),
    };
    let window = text.len().min(end.saturating_add(part.len()));
    let window = (window..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
    let found = text[..window].rmatch_indices(part).map(|(i, _)| i).find(|i| *i <= end);
    Ok(Value::Int(found.map_or(-1, |i| i64::try_from(text[..i].chars().count()).unwrap_or(-1))))
}

fn replace<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, from, to) = (str_arg(&args[0])?, str_arg(&args[1])?, str_arg(&args[2])?);
    let most = args.get(3).map(int_arg).transpose()?.unwrap_or(-1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let hits = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() }.min(most);
    bounded(text.len().saturating_add(hits.saturating_mul(to.len())), TEXT_MAX)?;
    Ok(Value::string(text.replacen(from, to, most)))
}

fn split<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, by) = (str_arg(&args[0])?, str_arg(&args[1])?);
    let most = args.get(2).map(int_arg).transpose()?.unwrap_or(-1);
    if most == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let pieces = if by.is_empty() { text.chars().count() } else { text.matches(by).count() + 1 };
    bounded(pieces.min(most), LIST_MAX)?;
    if !by.is_empty() {
        return Ok(Value::list(text.splitn(most, by).map(Value::string).collect()));
    }
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if out.len() + 1 == most {
            out.push(Value::string(rest));
            break;
        }
        out.push(Value::string(c.to_string()));
        rest = &rest[c.len_utf8()..];
    }
    Ok(Value::list(out))
}

fn substring<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, from) = (str_arg(&args[0])?, int_arg(&args[1])?);
    let size = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let to = args.get(2).map(int_arg).transpose()?.unwrap_or(size);
    if args.len() > 2 && from > to {
        return Err(EvalError::new(format!("invalid substring range. start: {from}, end: {to}")));
    }
    for index in [from, to] {
        if index < 0 || index > size {
            return Err(out_of_range(index));
        }
    }
    let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
    let taken: String = text.chars().skip(from).take(to - from).collect();
    Ok(Value::string(taken))
}

fn join<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_such_overload()) };
    let separator = args.get(1).map(str_arg).transpose()?.unwrap_or("");
    let mut out = String::new();
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(str_arg(&item)?);
        bounded(out.len(), TEXT_MAX)?;
    }
    Ok(Value::string(out))
}
