//! Protobuf of API objects, from the facts: trees to `application/vnd.kubernetes.protobuf` and back, byte for byte what the
//! generated Go code writes.

mod read;
mod write;

use serde_json::Value;

use crate::decode::{DecodeError, decode};
use crate::schema::{TypeId, Types};

use self::read::Reader;

/// Before every object.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// Deeper messages are refused, as deeper JSON is.
const DEPTH_MAX: usize = crate::json::DEPTH_MAX;

/// Why bytes are no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: wrong wireType = {found} for field {field}")]
    WrongWireType { found: u8, field: String },
    #[error("proto: integer overflow")]
    Overflow,
    #[error("message nested too deeply")]
    Depth,
    /// Raw JSON inside is malformed, or not of its type.
    #[error("{0}")]
    Content(String),
}

impl From<DecodeError> for ProtoError {
    fn from(error: DecodeError) -> Self {
        Self::Content(error.text)
    }
}

/// `runtime.Unknown`: an object's kind, and its bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
    pub content_encoding: String,
    pub content_type: String,
}

/// Takes the envelope off.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, ProtoError> {
    let body = bytes.strip_prefix(MAGIC.as_slice()).ok_or(ProtoError::NoMagic)?;
    let mut out = Envelope::default();
    let mut reader = Reader::new(body);
    while let Some((number, wire)) = reader.tag()? {
        match number {
            1 => {
                let mut meta = Reader::new(reader.bytes(wire, "TypeMeta")?);
                while let Some((number, wire)) = meta.tag()? {
                    match number {
                        1 => out.api_version = read::text(meta.bytes(wire, "APIVersion")?),
                        2 => out.kind = read::text(meta.bytes(wire, "Kind")?),
                        _ => meta.skip(wire)?,
                    }
                }
            }
            2 => out.raw = reader.bytes(wire, "Raw")?,
            3 => out.content_encoding = read::text(reader.bytes(wire, "ContentEncoding")?),
            4 => out.content_type = read::text(reader.bytes(wire, "ContentType")?),
            _ => reader.skip(wire)?,
        }
    }
    Ok(out)
}

/// Reads a message of type `ty` into a decoded tree. `apiVersion` and `kind` are in the envelope: the caller puts them in.
pub fn from_message(types: &Types, ty: TypeId, bytes: &[u8]) -> Result<Value, ProtoError> {
    let mut value = read::message(types, ty, bytes, 0)?;
    decode(types, ty, &mut value)?;
    Ok(value)
}

/// Reads an object in its envelope; `type_of` finds the type of an `apiVersion` and `kind`.
pub fn from_envelope(types: &Types, bytes: &[u8], type_of: impl Fn(&str, &str) -> Option<TypeId>) -> Result<Value, ProtoError> {
    let envelope = open(bytes)?;
    let ty = type_of(&envelope.api_version, &envelope.kind)
        .ok_or_else(|| ProtoError::Content(format!("no kind {:?} is registered for version {:?}", envelope.kind, envelope.api_version)))?;
    let mut value = from_message(types, ty, envelope.raw)?;
    if let Value::Object(map) = &mut value {
        map.insert("apiVersion".to_owned(), envelope.api_version.into());
        map.insert("kind".to_owned(), envelope.kind.into());
    }
    Ok(value)
}

/// A decoded tree as a message.
pub fn to_message(types: &Types, ty: TypeId, value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write::message(types, ty, value, &mut out);
    out
}

/// A message in its envelope.
pub fn seal(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    write::bytes_field(&mut meta, 1, api_version.as_bytes());
    write::bytes_field(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(message.len() + meta.len() + 20);
    out.extend_from_slice(MAGIC);
    write::bytes_field(&mut out, 1, &meta);
    write::bytes_field(&mut out, 2, message);
    write::bytes_field(&mut out, 3, b"");
    write::bytes_field(&mut out, 4, b"");
    out
}

/// A decoded tree in its envelope; its kind is the tree's.
pub fn to_envelope(types: &Types, ty: TypeId, value: &Value) -> Vec<u8> {
    let text = |key| value.get(key).and_then(Value::as_str).unwrap_or("");
    seal(text("apiVersion"), text("kind"), &to_message(types, ty, value))
}

/// The message of a list: its head, then the messages of its items, which every list has under the same number.
pub fn with_items<'a>(mut head: Vec<u8>, items: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    const ITEMS: u32 = 2;
    head.reserve(items.clone().map(|i| i.len() + 6).sum());
    items.for_each(|item| write::bytes_field(&mut head, ITEMS, item));
    head
}

/// A frame of a watch: the length, then a bare `WatchEvent` around a sealed object.
pub fn watch_frame(event: &str, sealed: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(sealed.len() + 8);
    write::bytes_field(&mut raw, 1, sealed);
    let mut message = Vec::with_capacity(raw.len() + 20);
    write::bytes_field(&mut message, 1, event.as_bytes());
    write::bytes_field(&mut message, 2, &raw);
    let mut out = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    out.extend_from_slice(&message);
    out
}
