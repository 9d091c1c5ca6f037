//! Types: what the checker reasons with, and how JSON trees are read. Used by everything here and by whoever declares variables.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ident;

/// The type of an expression or variable.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything: checks are left to evaluation.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<ListType>),
    Map(Arc<MapType>),
    Object(Arc<ObjectType>),
    Optional(Arc<Type>),
    /// A type of a library with the type's name, as in `kubernetes.Quantity`.
    Opaque(&'static str),
    /// The type of a type: `type(int)`.
    Type(Arc<Type>),
    /// A variable of the checker.
    #[doc(hidden)]
    Param(u32),
    /// What follows from an error already reported.
    #[doc(hidden)]
    Error,
}

/// A list with its elements' type and what equality and `+` mean.
#[derive(Debug)]
pub struct ListType {
    pub elem: Type,
    pub semantics: ListSemantics,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListSemantics {
    #[default]
    Atomic,
    /// Order does not matter to equality; `+` is union.
    Set,
    /// Keyed by these properties (JSON names); `+` merges.
    Map(Vec<String>),
}

#[derive(Debug)]
pub struct MapType {
    pub key: Type,
    pub value: Type,
}

/// An object with declared fields.
#[derive(Clone, Debug)]
pub struct ObjectType {
    /// Shown in errors; two object types are the same when their names are.
    pub name: String,
    /// By the name expressions use.
    pub fields: BTreeMap<String, Field>,
}

#[derive(Clone, Debug)]
pub struct Field {
    /// The property's name in JSON.
    pub json: String,
    pub of: Type,
}

impl ObjectType {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), fields: BTreeMap::new() }
    }

    /// Adds a property by its JSON name, escaped as expressions must spell it; names that cannot be spelt are left out.
    pub fn field(mut self, json: &str, of: Type) -> Self {
        self.add(json, of);
        self
    }

    pub fn add(&mut self, json: &str, of: Type) {
        if let Some(name) = ident::escape(json) {
            self.fields.insert(name, Field { json: json.to_owned(), of });
        }
    }
}

impl Type {
    pub fn list(elem: Type) -> Self {
        Self::List(Arc::new(ListType { elem, semantics: ListSemantics::Atomic }))
    }

    pub fn list_of(elem: Type, semantics: ListSemantics) -> Self {
        Self::List(Arc::new(ListType { elem, semantics }))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new(MapType { key, value }))
    }

    pub fn optional(of: Type) -> Self {
        Self::Optional(Arc::new(of))
    }

    pub fn object(of: ObjectType) -> Self {
        Self::Object(Arc::new(of))
    }

    pub fn type_of(of: Type) -> Self {
        Self::Type(Arc::new(of))
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) => a.elem == b.elem,
            (Self::Map(a), Self::Map(b)) => a.key == b.key && a.value == b.value,
            (Self::Object(a), Self::Object(b)) => a.name == b.name,
            (Self::Optional(a), Self::Optional(b)) | (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other) && !self.has_parts(),
        }
    }
}

impl Type {
    fn has_parts(&self) -> bool {
        matches!(
            self,
            Self::List(_) | Self::Map(_) | Self::Object(_) | Self::Optional(_) | Self::Type(_) | Self::Opaque(_) | Self::Param(_)
        )
    }
}

/// As the checker's errors spell it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(l) => write!(f, "list({})", l.elem),
            Self::Map(m) => write!(f, "map({}, {})", m.key, m.value),
            Self::Object(o) => f.write_str(&o.name),
            Self::Optional(t) => write!(f, "optional_type({t})"),
            Self::Opaque(name) => f.write_str(name),
            Self::Type(t) => write!(f, "type({t})"),
            Self::Param(n) => write!(f, "_var{n}"),
            Self::Error => f.write_str("!error!"),
        }
    }
}
