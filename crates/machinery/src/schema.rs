//! What is known of a type: fields, how lists merge, what Go would print. Built-in types come from `kinds`' facts,
//! custom resources from their OpenAPI schema; decoding, pruning, defaults, patches, apply, protobuf and OpenAPI all run
//! on this and on nothing else.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;

/// An index into [`Types`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// An arena of types. Types refer to each other by [`TypeId`], so recursive ones (JSONSchemaProps) need no care.
#[derive(Debug, Default)]
pub struct Types {
    types: Vec<Type>,
    by_name: HashMap<String, TypeId>,
}

#[derive(Clone, Debug)]
pub enum Type {
    Scalar(Scalar),
    Struct(Struct),
    List(List),
    Map(Map),
    /// Any JSON: `runtime.RawExtension`, `JSON`, `x-kubernetes-preserve-unknown-fields`.
    Any,
    /// A struct that Go marshals as one of two forms.
    Either(Either),
}

/// The hand-marshalled unions of apiextensions. The id is that of `JSONSchemaProps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either {
    /// `JSONSchemaPropsOrArray`: a schema, or a list of them.
    SchemaOrArray(TypeId),
    /// `JSONSchemaPropsOrBool`
    SchemaOrBool(TypeId),
    /// `JSONSchemaPropsOrStringArray`
    SchemaOrStrings(TypeId),
}

/// The leaf forms of the API. Each says both its JSON form and, for built-in types, its protobuf form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    String,
    /// Base64 in JSON.
    Bytes,
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Float32,
    Float64,
    Quantity,
    IntOrString,
    /// RFC 3339 with seconds; null when zero.
    Time,
    /// RFC 3339 with six decimals.
    MicroTime,
    /// Go's duration text.
    Duration,
    /// `metav1.FieldsV1`: any JSON object, raw bytes in protobuf.
    FieldsV1,
}

#[derive(Clone, Debug, Default)]
pub struct Struct {
    /// The swagger definition's name, e.g. `io.k8s.api.core.v1.Pod`; empty for the inner structs of custom resources.
    pub name: String,
    /// In Go's order. Inlined structs are already flattened.
    pub fields: Vec<Field>,
    /// Indices of `fields` sorted by JSON name; `Types` fills it in.
    pub sorted: Box<[u16]>,
    /// Indices of `fields` by a hash of the JSON name: a write looks hundreds of names up. `Types` fills it in.
    pub hashed: Box<[u16]>,
    /// What `decode` found out of `fields`: those that Go prints even where they were not given.
    pub printed: OnceLock<Box<[u16]>>,
    /// The protobuf message: its fields by number. `Types` fills it in.
    pub wire: Box<[Wire]>,
    /// `+structType=atomic` / `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    /// Unknown fields are kept (custom resources only).
    pub preserve_unknown: bool,
}

/// A field of a protobuf message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// The number, and the index in `Struct::fields`.
    Field(u32, u16),
    /// An inlined struct, which is a message of its own here.
    Message(u32, Box<[Wire]>),
}

impl Wire {
    pub fn number(&self) -> u32 {
        match self {
            Self::Field(number, _) | Self::Message(number, _) => *number,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Field {
    /// The JSON name.
    pub name: String,
    /// The Go name, for decode errors (`json: cannot unmarshal ... into Go struct field`).
    pub go_name: String,
    pub ty: TypeId,
    /// A Go pointer: absent and zero differ.
    pub pointer: bool,
    pub omit: Omit,
    pub required: bool,
    pub nullable: bool,
    /// The schema's default (`+default`, or `default` of a custom resource). A missing key of an associative list takes it;
    /// whether objects get it is up to `defaults`.
    pub default: Option<Value>,
    /// `patchStrategy`: any of merge, replace, retainKeys.
    pub patch_merge: bool,
    pub patch_retain_keys: bool,
    /// `patchMergeKey`; empty where there is none.
    pub merge_key: String,
    /// The protobuf field number; zero where there is none.
    pub proto: u32,
    /// For a field of an inlined struct that is a message of its own in protobuf: the numbers of the messages around it,
    /// outermost first. Mostly empty.
    pub proto_within: Box<[u32]>,
    /// The Go type of a named scalar (`v1.PullPolicy`), of the list's or map's items where the field is one,
    /// or the whole map (`map[v1.QualifiedName]resource.Quantity`); empty: Go's own.
    pub go_type: String,
    /// The inlined Go structs the field comes from, outermost first: decode errors name them (`spec.volumes.VolumeSource.nfs`).
    pub go_within: Box<[String]>,
}

/// When Go leaves a field out of its JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Omit {
    #[default]
    Never,
    /// `omitempty`: nil, zero scalars, empty lists and maps; never non-pointer structs.
    Empty,
    /// `omitzero`: also zero structs.
    Zero,
}

#[derive(Clone, Debug)]
pub struct List {
    pub elem: TypeId,
    pub topology: Topology,
    /// In protobuf a message with `items = 1` (`ExtraValue`).
    pub wrapped: bool,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    #[default]
    Atomic,
    Set,
    /// Associative, with its keys.
    Map(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Map {
    pub elem: TypeId,
    pub atomic: bool,
}

impl Types {
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// A named type (a swagger definition).
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    pub fn add(&mut self, mut ty: Type) -> TypeId {
        index(&mut ty);
        let id = TypeId(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        if let Type::Struct(s) = &ty
            && !s.name.is_empty()
        {
            self.by_name.entry(s.name.clone()).or_insert(id);
        }
        self.types.push(ty);
        id
    }

    /// Gives a type made earlier (a forward reference) its content.
    pub fn set(&mut self, id: TypeId, mut ty: Type) {
        index(&mut ty);
        if let Type::Struct(s) = &ty
            && !s.name.is_empty()
        {
            self.by_name.insert(s.name.clone(), id);
        }
        self.types[id.0 as usize] = ty;
    }
}

fn index(ty: &mut Type) {
    if let Type::Struct(s) = ty {
        let mut order: Vec<u16> = (0..u16::try_from(s.fields.len()).unwrap_or(u16::MAX)).collect();
        order.sort_by(|a, b| s.fields[usize::from(*a)].name.cmp(&s.fields[usize::from(*b)].name));
        s.sorted = order.into();
        s.hashed = hashed(&s.fields);
        s.printed = OnceLock::new();
        s.wire = message(&s.fields, &[]);
    }
}

/// No field.
const FREE: u16 = u16::MAX;

/// An open table of a power of two, at most half full.
fn hashed(fields: &[Field]) -> Box<[u16]> {
    let mut out = vec![FREE; (fields.len() * 2).next_power_of_two()];
    let mask = out.len() - 1;
    for (index, field) in fields.iter().enumerate() {
        let mut at = name_hash(&field.name) & mask;
        while out[at] != FREE {
            at = (at + 1) & mask;
        }
        out[at] = u16::try_from(index).unwrap_or(FREE);
    }
    out.into()
}

/// Names of one struct mostly differ in their length or in one of three letters.
fn name_hash(name: &str) -> usize {
    let bytes = name.as_bytes();
    let byte = |at: usize| usize::from(bytes.get(at).copied().unwrap_or(0));
    byte(0) ^ (byte(bytes.len() / 2) << 2) ^ (byte(bytes.len().wrapping_sub(1)) << 4) ^ (bytes.len() << 3)
}

/// The message of the fields inlined at `within`.
fn message(fields: &[Field], within: &[u32]) -> Box<[Wire]> {
    let mut out: Vec<Wire> = Vec::new();
    for (index, field) in fields.iter().enumerate().filter(|(_, f)| f.proto != 0 && f.proto_within.starts_with(within)) {
        match field.proto_within.get(within.len()) {
            None => out.push(Wire::Field(field.proto, u16::try_from(index).unwrap_or(u16::MAX))),
            Some(number) if !out.iter().any(|w| matches!(w, Wire::Message(n, _) if n == number)) => {
                out.push(Wire::Message(*number, message(fields, &[within, &[*number]].concat())));
            }
            Some(_) => {}
        }
    }
    out.sort_by_key(Wire::number);
    out.into()
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let mask = self.hashed.len().checked_sub(1)?;
        let mut at = name_hash(name) & mask;
        loop {
            // Half of the table is free, so the search ends.
            let field = self.fields.get(usize::from(self.hashed[at]))?;
            if field.name == name {
                return Some(field);
            }
            at = (at + 1) & mask;
        }
    }

    /// Fields in the order of their JSON names: the order of a JSON tree's maps.
    pub fn by_name(&self) -> impl Iterator<Item = &Field> {
        self.sorted.iter().map(|i| &self.fields[usize::from(*i)])
    }
}

impl Type {
    pub fn as_struct(&self) -> Option<&Struct> {
        match self {
            Type::Struct(s) => Some(s),
            _ => None,
        }
    }
}
