//! What the language itself defines beyond operators and conversions: sizes, tests on texts, matching.

use crate::decls::Row;
use crate::error::EvalError;
use crate::library::str_arg;
use crate::regexes::Regexes;
use crate::value::{Key, Map, Value};

type Outcome<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    (
        "size",
        size,
        &[
            ("size_string", "(string) -> int"),
            ("size_bytes", "(bytes) -> int"),
            ("size_list", "(list(A)) -> int"),
            ("size_map", "(map(A, B)) -> int"),
            ("string_size", "string.() -> int"),
            ("bytes_size", "bytes.() -> int"),
            ("list_size", "list(A).() -> int"),
            ("map_size", "map(A, B).() -> int"),
        ],
    ),
    ("contains", contains, &[("contains_string", "string.(string) -> bool")]),
    ("startsWith", starts_with, &[("starts_with_string", "string.(string) -> bool")]),
    ("endsWith", ends_with, &[("ends_with_string", "string.(string) -> bool")]),
    ("matches", matches, &[("matches", "(string, string) -> bool"), ("matches_string", "string.(string) -> bool")]),
    ("find", find, &[("string_find_string", "string.(string) -> string")]),
    (
        "findAll",
        find_all,
        &[
            ("string_find_all_string", "string.(string) -> list(string)"),
            ("string_find_all_string_int", "string.(string, int) -> list(string)"),
        ],
    ),
    ("dyn", same, &[("to_dyn", "(A) -> dyn")]),
    ("type", type_of, &[("type", "(A) -> type(A)")]),
    (
        "cel.@mapInsert",
        insert,
        &[("@mapInsert_map_key_value", "(map(A, B), A, B) -> map(A, B)"), ("@mapInsert_map_map", "(map(A, B), map(A, B)) -> map(A, B)")],
    ),
];

fn size<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    args[0].size().map(|n| Value::Int(i64::try_from(n).unwrap_or(i64::MAX))).ok_or_else(EvalError::no_such_overload)
}

fn contains<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(str_arg(&args[0])?.contains(str_arg(&args[1])?)))
}

fn starts_with<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(str_arg(&args[0])?.starts_with(str_arg(&args[1])?)))
}

fn ends_with<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(str_arg(&args[0])?.ends_with(str_arg(&args[1])?)))
}

fn matches<'a>(regexes: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern) = (str_arg(&args[0])?, str_arg(&args[1])?);
    Ok(Value::Bool(regexes.get(pattern)?.is_match(text)))
}

fn find<'a>(regexes: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern) = (str_arg(&args[0])?, str_arg(&args[1])?);
    let found = regexes.get(pattern)?.find(text).map_or("", |m| m.as_str());
    Ok(Value::string(found))
}

fn find_all<'a>(regexes: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern) = (str_arg(&args[0])?, str_arg(&args[1])?);
    let most = match args.get(2) {
        Some(Value::Int(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
        Some(_) => return Err(EvalError::no_such_overload()),
        None => usize::MAX,
    };
    let found = regexes.get(pattern)?;
    Ok(Value::list(found.find_iter(text).take(most).map(|m| Value::string(m.as_str())).collect()))
}

fn same<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(args[0].clone())
}

fn type_of<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Type(args[0].type_of()))
}

fn insert<'a>(_: &mut Regexes<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::Map(Map::Owned(into)) = &args[0] else { return Err(EvalError::no_such_overload()) };
    let mut into = (**into).clone();
    insert_into(&mut into, &args[1..])?;
    Ok(Value::Map(Map::Owned(into.into())))
}

/// A key and a value, or a map of them; no key may be there yet.
pub(crate) fn insert_into<'a>(into: &mut std::collections::BTreeMap<Key, Value<'a>>, what: &[Value<'a>]) -> Result<(), EvalError> {
    let mut one = |key: Key, value: Value<'a>| {
        let shown = key.to_string();
        match into.insert(key, value) {
            Some(_) => Err(EvalError::new(format!("insert failed: key {shown} already exists"))),
            None => Ok(()),
        }
    };
    match what {
        [key, value] => one(Key::of(key).ok_or_else(EvalError::no_such_overload)?, value.clone()),
        [Value::Map(map)] => {
            for key in map.keys() {
                if let Some(value) = map.get(&key) {
                    one(key, value)?;
                }
            }
            Ok(())
        }
        _ => Err(EvalError::no_such_overload()),
    }
}
