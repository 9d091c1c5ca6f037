//! A JSON tree into the form Go gives it on the way through the typed struct: unknown fields dropped and reported, nulls and
//! omitted zeros removed, fields that Go always prints put in, times and quantities rewritten. With Go's error texts.
//!
//! Runs on the facts of built-in types. Custom resources have no Go struct: only their metadata comes through here.

mod scalar;

use serde_json::{Map, Value};

use crate::json::go_kind;

use crate::field::go_quote;
use crate::schema::{Either, Field, Omit, Scalar, Struct, Type, TypeId, Types};

/// Unknown fields beyond this many are dropped without being named, as upstream.
const STRICT_MAX: usize = 100;

/// Why a tree is not of its type, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DecodeError {
    /// As Go's JSON decoder says it: `json: cannot unmarshal string into Go struct field ...`.
    pub text: String,
    /// As the converter from maps says it, which strategic merge patches go through: `cannot restore slice from string`.
    pub restore: String,
}

impl DecodeError {
    fn plain(text: String) -> Self {
        Self { restore: text.clone(), text }
    }
}

/// Normalises `value` in place. The texts returned are strict errors: `unknown field "spec.foo"`.
pub fn decode(types: &Types, ty: TypeId, value: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut decoder = Decoder { types, strict: Vec::new(), keep_hollow: false };
    decoder.value(ty, None, value, None)?;
    Ok(decoder.strict)
}

/// As [`decode`], but empty lists and maps that were given stay, even where Go would not print them: between decoding and
/// storing, upstream's rules see them as Go does, not nil. [`omit`] takes them away.
pub fn decode_given(types: &Types, ty: TypeId, value: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut decoder = Decoder { types, strict: Vec::new(), keep_hollow: true };
    decoder.value(ty, None, value, None)?;
    Ok(decoder.strict)
}

/// Whether Go would leave out something of a tree from [`decode_given`].
pub fn has_hollow(types: &Types, ty: TypeId, value: &Value) -> bool {
    match (types.get(ty), value) {
        (Type::Struct(s), Value::Object(map)) => map
            .iter()
            .filter(|(_, item)| item.is_object() || item.is_array())
            .any(|(name, item)| s.field(name).is_some_and(|field| is_hollow(types, field, item) || has_hollow(types, field.ty, item))),
        (Type::List(list), Value::Array(items)) => items.iter().any(|item| has_hollow(types, list.elem, item)),
        (Type::Map(map_type), Value::Object(map)) => map.values().any(|item| has_hollow(types, map_type.elem, item)),
        _ => false,
    }
}

/// Leaves out what Go does not print: empty lists and maps of `omitempty` fields.
pub fn omit(types: &Types, ty: TypeId, value: &mut Value) {
    shorten(types, ty, value, false);
}

/// What becomes of a decoded tree once protobuf has stored it: what Go does not print goes, and other empty lists and maps come
/// back as null.
pub fn as_stored(types: &Types, ty: TypeId, value: &mut Value) {
    shorten(types, ty, value, true);
}

/// One walk for both: every write takes it.
fn shorten(types: &Types, ty: TypeId, value: &mut Value, nil: bool) {
    match (types.get(ty), value) {
        (Type::Struct(s), Value::Object(map)) => {
            let mut gone = Vec::new();
            for (name, item) in map.iter_mut().filter(|(_, item)| item.is_object() || item.is_array()) {
                let Some(field) = s.field(name) else { continue };
                if is_hollow(types, field, item) {
                    gone.push(name.clone());
                } else if nil && is_nil(types, field.ty, item) {
                    *item = Value::Null;
                } else {
                    shorten(types, field.ty, item, nil);
                }
            }
            gone.iter().for_each(|name| drop(map.remove(name)));
        }
        (Type::List(list), Value::Array(items)) => items.iter_mut().for_each(|item| shorten(types, list.elem, item, nil)),
        (Type::Map(map_type), Value::Object(map)) => map.values_mut().for_each(|item| shorten(types, map_type.elem, item, nil)),
        _ => {}
    }
}

fn is_nil(types: &Types, ty: TypeId, value: &Value) -> bool {
    match (types.get(ty), value) {
        (Type::List(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(entries)) => entries.is_empty(),
        _ => false,
    }
}

fn is_hollow(types: &Types, field: &Field, value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) && omitted(types, field, value)
        || value.as_object().is_some_and(Map::is_empty) && matches!(types.get(field.ty), Type::Map(_)) && omitted(types, field, value)
}

/// The strict errors of a request as one text, as upstream's `NewStrictDecodingError` joins them.
pub fn strict_text(errors: &[String]) -> String {
    format!("strict decoding error: {}", errors.join(", "))
}

/// What Go prints for a field that was not given; `None` where it prints nothing.
pub fn zero_field(types: &Types, field: &Field) -> Option<Value> {
    if field.omit == Omit::Zero || (field.pointer && field.omit != Omit::Never) {
        return None;
    }
    if field.pointer {
        return Some(Value::Null);
    }
    let by_value = match types.get(field.ty) {
        Type::Struct(_) | Type::Any | Type::Either(_) => true,
        Type::Scalar(s) => matches!(s, Scalar::Quantity | Scalar::IntOrString | Scalar::Time | Scalar::MicroTime | Scalar::Duration),
        Type::List(_) | Type::Map(_) => false,
    };
    // `omitempty` never leaves out a struct.
    (by_value || field.omit == Omit::Never).then(|| zero(types, field.ty))
}

/// Go's zero value of a type, printed.
pub fn zero(types: &Types, ty: TypeId) -> Value {
    match types.get(ty) {
        Type::Struct(s) => Value::Object(s.fields.iter().filter_map(|f| Some((f.name.clone(), zero_field(types, f)?))).collect()),
        Type::List(_) | Type::Map(_) | Type::Any => Value::Null,
        Type::Either(Either::SchemaOrBool(_)) => Value::Bool(false),
        Type::Either(_) => Value::Null,
        Type::Scalar(s) => match s {
            Scalar::String => Value::String(String::new()),
            Scalar::Bool => Value::Bool(false),
            Scalar::Quantity => Value::String("0".to_owned()),
            Scalar::Duration => Value::String("0s".to_owned()),
            Scalar::Bytes | Scalar::Time | Scalar::MicroTime | Scalar::FieldsV1 => Value::Null,
            _ => Value::from(0),
        },
    }
}

/// Indices of the fields that Go prints even where they were not given. Found once per type.
fn printed<'t>(types: &Types, s: &'t Struct) -> &'t [u16] {
    s.printed.get_or_init(|| {
        let always = |i: &u16| zero_field(types, &s.fields[usize::from(*i)]).is_some();
        (0..u16::try_from(s.fields.len()).unwrap_or(u16::MAX)).filter(always).collect()
    })
}

struct Decoder<'t> {
    types: &'t Types,
    strict: Vec<String>,
    keep_hollow: bool,
}

/// A field on the way to a value, on the stack; it becomes text only in an error.
#[derive(Clone, Copy)]
struct Frame<'a> {
    parent: Option<&'a Frame<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a Struct, &'a Field),
    Key(&'a str),
    Index(usize),
}

impl Frame<'_> {
    /// With indices and keys, as strict errors name fields.
    fn strict_path(&self) -> String {
        let mut out = self.parent.map(Frame::strict_path).unwrap_or_default();
        let name = match self.step {
            Step::Index(index) => {
                out.push_str(&format!("[{index}]"));
                return out;
            }
            Step::Field(_, field) => &field.name,
            Step::Key(key) => key,
        };
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(name);
        out
    }

    /// Fields only, inlined structs by their Go name: `spec.volumes.VolumeSource.nfs`.
    fn go_path(&self) -> String {
        let mut out = self.parent.map(Frame::go_path).unwrap_or_default();
        if let Step::Field(_, field) = self.step {
            for name in field.go_within.iter().chain([&field.name]) {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
        }
        out
    }

    fn innermost_field(&self) -> Option<(&Struct, &Field)> {
        match self.step {
            Step::Field(s, f) => Some((s, f)),
            _ => self.parent.and_then(Frame::innermost_field),
        }
    }
}

impl<'t> Decoder<'t> {
    fn value(&mut self, ty: TypeId, field: Option<&Field>, value: &mut Value, at: Option<&Frame<'_>>) -> Result<(), DecodeError> {
        let types = self.types;
        match types.get(ty) {
            Type::Any => Ok(()),
            Type::Struct(s) => match value {
                Value::Object(map) => self.structure(s, map, at),
                Value::Null => {
                    *value = zero(types, ty);
                    Ok(())
                }
                other => Err(self.mismatch(other, ty, field, at)),
            },
            Type::List(list) => match value {
                Value::Array(items) => {
                    for (index, item) in items.iter_mut().enumerate() {
                        let frame = Frame { parent: at, step: Step::Index(index) };
                        self.element(list.elem, field, item, &frame)?;
                    }
                    Ok(())
                }
                Value::Null => Ok(()),
                other => Err(self.mismatch(other, ty, field, at)),
            },
            Type::Map(map_type) => match value {
                Value::Object(map) => {
                    for (key, item) in map.iter_mut() {
                        let frame = Frame { parent: at, step: Step::Key(key) };
                        self.element(map_type.elem, field, item, &frame)?;
                    }
                    Ok(())
                }
                Value::Null => Ok(()),
                other => Err(self.mismatch(other, ty, field, at)),
            },
            Type::Either(either) => self.either(*either, value, at),
            Type::Scalar(s) => scalar::decode(*s, value).map_err(|refusal| match refusal {
                scalar::Refusal::Type { found, wanted } => {
                    let named = field.and_then(|f| named_item(&f.go_type, at));
                    let restore = format!("cannot convert {} to {}", go_value_type(value), scalar::go_kind(*s));
                    cannot_unmarshal(&found, named.unwrap_or(wanted), restore, at)
                }
                scalar::Refusal::Text(text) => DecodeError::plain(text),
            }),
        }
    }

    /// An item of a list or a map: a null is its zero value.
    fn element(&mut self, ty: TypeId, field: Option<&Field>, item: &mut Value, at: &Frame<'_>) -> Result<(), DecodeError> {
        if item.is_null() {
            *item = zero(self.types, ty);
            return Ok(());
        }
        self.value(ty, field, item, Some(at))
    }

    /// In place: most trees are what Go would print already, so the map is rebuilt nowhere, and only the few fields that Go
    /// always prints are looked for.
    fn structure(&mut self, s: &'t Struct, map: &mut Map<String, Value>, at: Option<&Frame<'_>>) -> Result<(), DecodeError> {
        let types = self.types;
        let mut gone: Vec<String> = Vec::new();
        for (name, value) in map.iter_mut() {
            let Some(field) = s.field(name) else {
                if !s.preserve_unknown {
                    self.unknown(name, at);
                    gone.push(name.clone());
                }
                continue;
            };
            if !value.is_null() {
                let frame = Frame { parent: at, step: Step::Field(s, field) };
                self.value(field.ty, Some(field), value, Some(&frame))?;
                if omitted(types, field, value) && !(self.keep_hollow && is_hollow(types, field, value)) {
                    gone.push(name.clone());
                }
            } else if let Some(zero) = zero_field(types, field) {
                *value = zero;
            } else {
                gone.push(name.clone());
            }
        }
        for name in gone {
            map.remove(&name);
        }
        for field in printed(types, s).iter().map(|i| &s.fields[usize::from(*i)]) {
            if !map.contains_key(&field.name) {
                map.extend(zero_field(types, field).map(|v| (field.name.clone(), v)));
            }
        }
        Ok(())
    }

    fn unknown(&mut self, name: &str, at: Option<&Frame<'_>>) {
        if self.strict.len() < STRICT_MAX {
            let path = Frame { parent: at, step: Step::Key(name) }.strict_path();
            self.strict.push(format!("unknown field {}", go_quote(&path)));
        }
    }

    fn either(&mut self, either: Either, value: &mut Value, at: Option<&Frame<'_>>) -> Result<(), DecodeError> {
        let (Either::SchemaOrArray(schema) | Either::SchemaOrBool(schema) | Either::SchemaOrStrings(schema)) = either;
        // Go decodes these by a method of their own, which drops what it does not know without a word.
        let told = self.strict.len();
        let done = self.either_of(either, schema, value, at);
        self.strict.truncate(told);
        done
    }

    fn either_of(&mut self, either: Either, schema: TypeId, value: &mut Value, at: Option<&Frame<'_>>) -> Result<(), DecodeError> {
        match (either, &mut *value) {
            (_, Value::Object(_)) => self.value(schema, None, value, at),
            (Either::SchemaOrArray(_), Value::Array(items)) => items.iter_mut().try_for_each(|item| self.value(schema, None, item, at)),
            (Either::SchemaOrStrings(_), Value::Array(items)) if items.iter().all(Value::is_string) => Ok(()),
            (Either::SchemaOrBool(_), Value::Bool(_)) | (_, Value::Null) => Ok(()),
            (Either::SchemaOrBool(_), _) => Err(DecodeError::plain("boolean or JSON schema expected".to_owned())),
            _ => {
                // Go drops what is neither.
                *value = Value::Null;
                Ok(())
            }
        }
    }

    fn mismatch(&self, found: &Value, ty: TypeId, field: Option<&Field>, at: Option<&Frame<'_>>) -> DecodeError {
        let given = go_value_type(found);
        let restore = match self.types.get(ty) {
            Type::List(_) => format!("cannot restore slice from {given}"),
            Type::Map(_) => format!("cannot restore map from {given}"),
            _ => format!("cannot restore struct from: {given}"),
        };
        cannot_unmarshal(go_kind(found), &self.go_type(ty, field), restore, at)
    }

    /// As `go_type`, where Go names the type itself and not what its JSON is.
    fn item_type(&self, ty: TypeId, field: Option<&Field>) -> String {
        match self.types.get(ty) {
            Type::Scalar(Scalar::Time) => "v1.Time".to_owned(),
            Type::Scalar(Scalar::Quantity) => "resource.Quantity".to_owned(),
            _ => self.go_type(ty, field),
        }
    }

    /// A type as Go prints it: `v1.PodSpec`, `[]v1.Volume`, `map[string]string`.
    fn go_type(&self, ty: TypeId, field: Option<&Field>) -> String {
        match self.types.get(ty) {
            Type::Struct(s) => {
                let mut parts = s.name.rsplit('.');
                let (name, version) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                format!("{version}.{name}")
            }
            Type::List(list) if list.wrapped => field.map(|f| f.go_type.clone()).unwrap_or_default(),
            Type::List(list) => format!("[]{}", self.item_type(list.elem, field)),
            Type::Map(_) if field.is_some_and(|f| f.go_type.starts_with("map[")) => field.map(|f| f.go_type.clone()).unwrap_or_default(),
            // The only map type with a name of its own.
            Type::Map(map) if matches!(self.types.get(map.elem), Type::Scalar(Scalar::Quantity)) => "v1.ResourceList".to_owned(),
            Type::Map(map) => format!("map[string]{}", self.item_type(map.elem, field)),
            Type::Scalar(s) => match field.map(|f| f.go_type.as_str()) {
                Some(named) if !named.is_empty() => named.to_owned(),
                _ => scalar::go_name(*s).to_owned(),
            },
            Type::Any | Type::Either(_) => "interface {}".to_owned(),
        }
    }
}

/// The name of a scalar's type in a field of a named type: `map[v1.ResourceName]v1.ClaimResourceStatus` names its values. What
/// is within lists within maps has no name, the list has it.
fn named_item<'f>(go_type: &'f str, at: Option<&Frame<'_>>) -> Option<&'f str> {
    let in_map = |frame: Option<&Frame<'_>>| frame.is_some_and(|f| matches!(f.step, Step::Key(_)));
    let in_list_in_map = at.is_some_and(|f| matches!(f.step, Step::Index(_)) && in_map(f.parent));
    let name = match go_type.strip_prefix("map[") {
        Some(rest) => rest.split_once(']').map(|(_, value)| value).filter(|value| value.contains('.'))?,
        None => go_type,
    };
    (!name.is_empty() && !in_list_in_map).then_some(name)
}

/// Whether Go leaves the field out with this value. Null is handled before.
fn omitted(types: &Types, field: &Field, value: &Value) -> bool {
    match field.omit {
        Omit::Never => false,
        _ if field.pointer => false,
        omit => match value {
            Value::String(s) => s.is_empty() && matches!(types.get(field.ty), Type::Scalar(Scalar::String | Scalar::Bytes)),
            Value::Number(n) => n.as_f64() == Some(0.0) && !matches!(types.get(field.ty), Type::Scalar(Scalar::IntOrString) | Type::Any),
            Value::Bool(b) => !b && !matches!(types.get(field.ty), Type::Any | Type::Either(_)),
            // An empty list of managed fields is a request to forget them: `apply::on_update` sees to it.
            Value::Array(items) => items.is_empty() && matches!(types.get(field.ty), Type::List(_)) && field.name != "managedFields",
            Value::Object(map) => match types.get(field.ty) {
                Type::Map(_) => map.is_empty(),
                Type::Struct(_) => omit == Omit::Zero && map.is_empty(),
                _ => false,
            },
            Value::Null => omit == Omit::Zero,
        },
    }
}

/// Go's `UnmarshalTypeError`.
fn cannot_unmarshal(found: &str, wanted: &str, restore: String, at: Option<&Frame<'_>>) -> DecodeError {
    let field = at.and_then(|frame| frame.innermost_field().map(|(s, _)| (s, frame.go_path())));
    let text = match field {
        Some((s, path)) => {
            let name = s.name.rsplit('.').next().unwrap_or("");
            format!("json: cannot unmarshal {found} into Go struct field {name}.{path} of type {wanted}")
        }
        None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
    };
    DecodeError { text, restore }
}

/// The kind of Go value a JSON value becomes.
fn go_value_type(value: &Value) -> &'static str {
    match value {
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Object(_) => "map",
        Value::Array(_) => "slice",
        other => go_kind(other),
    }
}
