//! Values. Whatever comes from a request stays a borrowed JSON tree, read step by step by its declared type.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::opaque::Opaque;
use crate::types::{ListSemantics, ObjectType, Type};
use crate::variables::{Authorizer, Prepared};

/// The result of an expression or a part of one.
#[derive(Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    /// An object made by the expression.
    Struct(Arc<Struct<'a>>),
    Optional(Option<Arc<Value<'a>>>),
    Type(Type),
    Opaque(Opaque<'a>),
}

/// A string, borrowed from its tree or shared.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

#[derive(Clone)]
pub enum List<'a> {
    Json { items: &'a [Json], elem: &'a Type, semantics: &'a ListSemantics },
    Owned(Arc<Vec<Value<'a>>>),
}

#[derive(Clone)]
pub enum Map<'a> {
    /// Keys as they are.
    Json {
        entries: &'a serde_json::Map<String, Json>,
        value: &'a Type,
    },
    /// Declared fields only, null ones are absent.
    Object {
        entries: &'a serde_json::Map<String, Json>,
        of: &'a ObjectType,
    },
    Owned(Arc<BTreeMap<Key, Value<'a>>>),
    Prepared(Arc<Prepared<'a>>),
}

/// What may be a map's key. Whole numbers of any type that are equal are one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    /// Beyond what an int holds.
    Uint(u64),
    String(Arc<str>),
}

/// `Object.spec{replicas: 3}`, `JSONPatch{op: "add"}`.
pub struct Struct<'a> {
    pub name: Arc<str>,
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(s) => s,
            Self::Shared(s) => s,
        }
    }
}

impl<'a> Value<'a> {
    /// Reads a tree by its declared type.
    pub fn json(tree: &'a Json, of: &'a Type) -> Self {
        crate::json::read(tree, of)
    }

    /// A plain tree, read as it is.
    pub fn dynamic(tree: &'a Json) -> Self {
        crate::json::read(tree, &Type::Dyn)
    }

    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    pub fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(List::Owned(Arc::new(items)))
    }

    pub fn map<K: Into<Arc<str>>>(entries: impl IntoIterator<Item = (K, Value<'a>)>) -> Self {
        let entries = entries.into_iter().map(|(k, v)| (Key::String(k.into()), v)).collect();
        Self::Map(Map::Owned(Arc::new(entries)))
    }

    /// The decision maker behind `authorizer`.
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Self {
        Self::Opaque(Opaque::Authorizer { authorizer, service_account: None })
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The value as a tree of its own; why it has none otherwise (a type, a library's value).
    pub fn to_json(&self) -> Result<Json, crate::EvalError> {
        crate::json::write(self)
    }

    /// What `size()` gives: characters, bytes, elements, entries.
    pub(crate) fn size(&self) -> Option<usize> {
        Some(match self {
            Self::String(s) => s.chars().count(),
            Self::Bytes(b) => b.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Struct(s) => s.fields.len(),
            _ => return None,
        })
    }

    /// As errors name it.
    pub(crate) fn type_name(&self) -> String {
        type_name(&self.type_of()).to_owned()
    }

    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(Map::Object { of, .. }) => Type::object(ObjectType::new(of.name.clone())),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Struct(s) => Type::object(ObjectType::new(s.name.to_string())),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Type(_) => Type::type_of(Type::Dyn),
            Self::Opaque(o) => Type::Opaque(o.type_name()),
        }
    }
}

impl From<bool> for Value<'_> {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<i64> for Value<'_> {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<String> for Value<'_> {
    fn from(s: String) -> Self {
        Self::string(s)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(s: &'a str) -> Self {
        Self::String(Text::Borrowed(s))
    }
}

/// The name of a type without its parameters.
pub(crate) fn type_name(of: &Type) -> &str {
    match of {
        Type::Null => "null_type",
        Type::Bool => "bool",
        Type::Int => "int",
        Type::Uint => "uint",
        Type::Double => "double",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Timestamp => "google.protobuf.Timestamp",
        Type::Duration => "google.protobuf.Duration",
        Type::List(_) => "list",
        Type::Map(_) => "map",
        Type::Object(object) => &object.name,
        Type::Optional(_) => "optional_type",
        Type::Opaque(name) => name,
        Type::Type(_) => "type",
        Type::Dyn | Type::Param(_) | Type::Error => "dyn",
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Uint(n) => write!(f, "{n}"),
            Self::String(s) => f.write_str(s),
        }
    }
}

impl Key {
    pub fn str(text: &str) -> Self {
        Self::String(text.into())
    }

    pub(crate) fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(n) => Self::Int(*n),
            Value::Uint(n) => i64::try_from(*n).map_or(Self::Uint(*n), Self::Int),
            Value::Double(d) if d.fract() == 0.0 && *d >= i64::MIN as f64 && *d < i64::MAX as f64 => Self::Int(*d as i64),
            Value::String(s) => Self::str(s),
            _ => return None,
        })
    }

    pub(crate) fn value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::Int(*n),
            Self::Uint(n) => Value::Uint(*n),
            Self::String(s) => Value::String(Text::Shared(s.clone())),
        }
    }
}

/// As error messages and test failures show it.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Uint(n) => write!(f, "{n}u"),
            Self::Double(d) => write!(f, "{d:?}"),
            Self::String(s) => write!(f, "{:?}", &**s),
            Self::Bytes(b) => write!(f, "b{:?}", String::from_utf8_lossy(b)),
            Self::Timestamp(t) => write!(f, "timestamp({t})"),
            Self::Duration(d) => write!(f, "duration({d}ns)"),
            Self::Optional(None) => f.write_str("optional.none()"),
            Self::Optional(Some(v)) => write!(f, "optional.of({v:?})"),
            Self::Type(t) => write!(f, "{t}"),
            Self::Opaque(o) => write!(f, "{}", o.type_name()),
            Self::List(_) | Self::Map(_) | Self::Struct(_) => match self.to_json() {
                Ok(tree) => write!(f, "{tree}"),
                Err(_) => write!(f, "{}", self.type_of()),
            },
        }
    }
}
