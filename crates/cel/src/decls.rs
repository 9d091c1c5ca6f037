//! The table of functions: their overloads as text, parsed once, and what runs them. Libraries are its rows.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::error::EvalError;
use crate::library;
use crate::opaque::names;
use crate::regexes::Regexes;
use crate::types::{ObjectType, Type};
use crate::value::Value;

/// Runs a call. Arguments have been checked only as far as types were known.
pub(crate) type Run = for<'a> fn(&mut Regexes<'_>, &[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// A row: name, what runs it, its overloads as id and signature.
///
/// Signatures read `(int, int) -> int`, or `string.(string) -> bool` for members. `A` and `B` stand for any type.
pub(crate) type Row = (&'static str, Run, &'static [(&'static str, &'static str)]);

pub(crate) struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
}

pub(crate) struct Overload {
    pub id: &'static str,
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
    pub type_params: u32,
    pub run: Run,
}

static TABLE: LazyLock<BTreeMap<&'static str, Function>> = LazyLock::new(|| {
    let mut table: BTreeMap<&'static str, Function> = BTreeMap::new();
    for (name, run, overloads) in library::ROWS.iter().copied().flatten() {
        let function = table.entry(name).or_insert(Function { name, overloads: Vec::new() });
        for (id, signature) in *overloads {
            function.overloads.push(overload(id, signature, *run));
        }
    }
    table
});

pub(crate) fn function(name: &str) -> Option<&'static Function> {
    TABLE.get(name)
}

fn overload(id: &'static str, signature: &str, run: Run) -> Overload {
    let (head, result) = signature.rsplit_once("->").unwrap_or((signature, "dyn"));
    let (receiver, list) = match head.trim().strip_prefix('(') {
        Some(list) => (None, list),
        None => head.trim().split_once(".(").map_or((None, ""), |(r, list)| (Some(r), list)),
    };
    let list = list.trim_end().strip_suffix(')').unwrap_or(list);
    let params: Vec<Type> = receiver.into_iter().chain(split(list)).map(parse_type).collect();
    let type_params = if signature.contains('B') { 2 } else { 1 };
    Overload { id, member: receiver.is_some(), params, result: parse_type(result), type_params, run }
}

/// Splits at commas outside parentheses.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0, 0, Vec::new());
    for (i, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&list[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&list[start..]);
    out.into_iter().map(str::trim).filter(|p| !p.is_empty()).collect()
}

fn parse_type(text: &str) -> Type {
    let text = text.trim();
    if let Some((head, inner)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let mut parts = split(inner).into_iter().map(parse_type);
        let first = parts.next().unwrap_or(Type::Dyn);
        return match head {
            "list" => Type::list(first),
            "map" => Type::map(first, parts.next().unwrap_or(Type::Dyn)),
            "optional" => Type::optional(first),
            _ => Type::type_of(first),
        };
    }
    match text {
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "dyn" => Type::Dyn,
        other => names::ALL.iter().find(|(short, _)| *short == other).map_or(Type::Error, |(_, name)| Type::Opaque(name)),
    }
}

/// Types by the names expressions use for them.
pub(crate) fn named_type(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "string" => Type::String,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::type_of(Type::Dyn),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        other => Type::Opaque(names::ALL.iter().find(|(_, name)| *name == other)?.1),
    })
}

/// `JSONPatch`, `Object` and all objects within it.
pub(crate) fn mutation_type(name: &str) -> Type {
    let of = ObjectType::new(name);
    let of = match name {
        "JSONPatch" => of.field("op", Type::String).field("path", Type::String).field("from", Type::String).field("value", Type::Dyn),
        _ => of,
    };
    Type::Object(Arc::new(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_understood() {
        let mut ids = std::collections::BTreeSet::new();
        for function in TABLE.values() {
            for overload in &function.overloads {
                let known = |t: &Type| !t.to_string().contains("!error!");
                assert!(overload.params.iter().all(known) && known(&overload.result), "{}", overload.id);
                assert!(ids.insert(overload.id), "{} is there twice", overload.id);
            }
        }
        assert!(ids.len() > 200, "{} overloads", ids.len());
    }
}
