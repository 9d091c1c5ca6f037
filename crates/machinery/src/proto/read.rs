//! Messages to trees. Unknown fields are skipped, as Go does.

use base64::Engine as _;
use serde_json::{Map, Value};

use super::{DEPTH_MAX, ProtoError};
use crate::duration;
use crate::gotime::{self, Instant};
use crate::schema::{Either, Field, Scalar, Struct, Type, TypeId, Types, Wire};

/// A cursor over a message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// Bytes as text; what is no UTF-8 becomes U+FFFD.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, ProtoError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(ProtoError::Truncated)?;
            self.rest = rest;
            if shift >= 64 {
                return Err(ProtoError::Overflow);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ProtoError::Overflow)
    }

    /// The next field's number and wire type.
    pub fn tag(&mut self) -> Result<Option<(u32, u8)>, ProtoError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| ProtoError::Overflow)?;
        Ok(Some((number, (tag & 7).to_le_bytes()[0])))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ProtoError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(ProtoError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub fn bytes(&mut self, wire: u8, field: &str) -> Result<&'a [u8], ProtoError> {
        expect(wire, 2, field)?;
        let length = usize::try_from(self.varint()?).map_err(|_| ProtoError::Overflow)?;
        self.take(length)
    }

    fn number(&mut self, wire: u8, field: &str) -> Result<u64, ProtoError> {
        expect(wire, 0, field)?;
        self.varint()
    }

    pub fn skip(&mut self, wire: u8) -> Result<(), ProtoError> {
        match wire {
            0 => self.varint().map(|_| ()),
            1 => self.take(8).map(|_| ()),
            2 => self.bytes(wire, "").map(|_| ()),
            5 => self.take(4).map(|_| ()),
            other => Err(ProtoError::WireType(other)),
        }
    }
}

fn expect(found: u8, wanted: u8, field: &str) -> Result<(), ProtoError> {
    if found == wanted { Ok(()) } else { Err(ProtoError::WrongWireType { found, field: field.to_owned() }) }
}

pub(super) fn message(types: &Types, ty: TypeId, bytes: &[u8], depth: usize) -> Result<Value, ProtoError> {
    if depth > DEPTH_MAX {
        return Err(ProtoError::Depth);
    }
    match types.get(ty) {
        Type::Struct(s) => {
            let mut map = Map::new();
            structure(types, s, &s.wire, bytes, depth, &mut map)?;
            Ok(Value::Object(map))
        }
        Type::Scalar(scalar) => scalar_message(*scalar, bytes),
        Type::Any => raw(bytes),
        Type::Either(either) => union(types, *either, bytes, depth),
        Type::List(list) => {
            let mut items = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((number, wire)) = reader.tag()? {
                match number {
                    1 => items.push(element(types, list.elem, &mut reader, wire, "items", depth)?),
                    _ => reader.skip(wire)?,
                }
            }
            Ok(Value::Array(items))
        }
        Type::Map(_) => Ok(Value::Null),
    }
}

fn structure(
    types: &Types,
    s: &Struct,
    wires: &[Wire],
    bytes: &[u8],
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), ProtoError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.tag()? {
        match wires.binary_search_by_key(&number, Wire::number).ok().map(|at| &wires[at]) {
            None => reader.skip(wire)?,
            Some(Wire::Message(_, inner)) => {
                let bytes = reader.bytes(wire, "inline")?;
                structure(types, s, inner, bytes, depth, out)?;
            }
            Some(Wire::Field(_, index)) => {
                let Some(field) = s.fields.get(usize::from(*index)) else { continue };
                read_field(types, field, &mut reader, wire, depth, out)?;
            }
        }
    }
    Ok(())
}

fn read_field(
    types: &Types,
    field: &Field,
    reader: &mut Reader<'_>,
    wire: u8,
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), ProtoError> {
    match types.get(field.ty) {
        Type::List(list) => {
            let item = element(types, list.elem, reader, wire, &field.go_name, depth)?;
            match out.entry(field.name.clone()).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(items) => items.push(item),
                other => *other = Value::Array(vec![item]),
            }
        }
        Type::Map(map) => {
            let mut entry = Reader::new(reader.bytes(wire, &field.go_name)?);
            let (mut key, mut value) = (String::new(), None);
            while let Some((number, wire)) = entry.tag()? {
                match number {
                    1 => key = text(entry.bytes(wire, &field.go_name)?),
                    2 => value = Some(element(types, map.elem, &mut entry, wire, &field.go_name, depth)?),
                    _ => entry.skip(wire)?,
                }
            }
            let value = value.unwrap_or_else(|| crate::decode::zero(types, map.elem));
            if let Value::Object(entries) = out.entry(field.name.clone()).or_insert_with(|| Value::Object(Map::new())) {
                entries.insert(key, value);
            }
        }
        _ => {
            let value = element(types, field.ty, reader, wire, &field.go_name, depth)?;
            out.insert(field.name.clone(), value);
        }
    }
    Ok(())
}

fn element(types: &Types, ty: TypeId, reader: &mut Reader<'_>, wire: u8, field: &str, depth: usize) -> Result<Value, ProtoError> {
    let Type::Scalar(scalar) = types.get(ty) else {
        return message(types, ty, reader.bytes(wire, field)?, depth + 1);
    };
    Ok(match scalar {
        Scalar::String => Value::String(text(reader.bytes(wire, field)?)),
        Scalar::Bytes => Value::String(base64::engine::general_purpose::STANDARD.encode(reader.bytes(wire, field)?)),
        Scalar::Bool => Value::Bool(reader.number(wire, field)? != 0),
        #[expect(clippy::cast_possible_truncation, reason = "as the generated Go code reads an int32")]
        Scalar::Int32 => Value::from(reader.number(wire, field)? as u32 as i32),
        Scalar::Int64 => Value::from(reader.number(wire, field)?.cast_signed()),
        Scalar::Uint32 | Scalar::Uint64 => Value::from(reader.number(wire, field)?),
        Scalar::Float64 => {
            expect(wire, 1, field)?;
            let bytes = reader.take(8)?;
            Value::from(f64::from_le_bytes(bytes.try_into().unwrap_or_default()))
        }
        Scalar::Float32 => {
            expect(wire, 5, field)?;
            let bytes = reader.take(4)?;
            Value::from(f32::from_le_bytes(bytes.try_into().unwrap_or_default()))
        }
        other => scalar_message(*other, reader.bytes(wire, field)?)?,
    })
}

fn scalar_message(scalar: Scalar, bytes: &[u8]) -> Result<Value, ProtoError> {
    let (mut numbers, mut texts) = ([0u64; 4], [&[][..], &[], &[], &[]]);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.tag()? {
        match (number, wire) {
            (1..=3, 0) => numbers[number as usize] = reader.varint()?,
            (1..=3, 2) => texts[number as usize] = reader.bytes(wire, "")?,
            _ => reader.skip(wire)?,
        }
    }
    let seconds = numbers[1].cast_signed();
    Ok(match scalar {
        Scalar::Time | Scalar::MicroTime if bytes.is_empty() || seconds == gotime::ZERO_SECONDS => Value::Null,
        // Outside the years a time can be printed in.
        Scalar::Time | Scalar::MicroTime if !(gotime::ZERO_SECONDS..253_402_300_800).contains(&seconds) => {
            return Err(ProtoError::Content("time is out of range".to_owned()));
        }
        Scalar::Time => Value::String(gotime::format_seconds(seconds)),
        Scalar::MicroTime => {
            let nanos = u32::try_from(numbers[2]).unwrap_or(0).min(999_999_999);
            Value::String(gotime::format_micros(Instant { seconds, nanos }))
        }
        Scalar::Duration => Value::String(duration::format(seconds)),
        Scalar::Quantity => Value::String(text(texts[1])),
        Scalar::IntOrString if numbers[1] == 1 => Value::String(text(texts[3])),
        #[expect(clippy::cast_possible_truncation, reason = "as the generated Go code reads an int32")]
        Scalar::IntOrString => Value::from(numbers[2] as u32 as i32),
        Scalar::FieldsV1 => json(texts[1])?,
        _ => Value::Null,
    })
}

fn json(bytes: &[u8]) -> Result<Value, ProtoError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    crate::json::parse(bytes).map(|p| p.value).map_err(|e| ProtoError::Content(e.to_string()))
}

fn raw(bytes: &[u8]) -> Result<Value, ProtoError> {
    let mut reader = Reader::new(bytes);
    let mut out = Value::Null;
    while let Some((number, wire)) = reader.tag()? {
        match number {
            1 => out = json(reader.bytes(wire, "Raw")?)?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(out)
}

fn union(types: &Types, either: Either, bytes: &[u8], depth: usize) -> Result<Value, ProtoError> {
    let (Either::SchemaOrArray(schema) | Either::SchemaOrBool(schema) | Either::SchemaOrStrings(schema)) = either;
    let mut reader = Reader::new(bytes);
    let (mut one, mut many, mut allows) = (None, Vec::new(), false);
    while let Some((number, wire)) = reader.tag()? {
        match (either, number) {
            (Either::SchemaOrBool(_), 1) => allows = reader.number(wire, "Allows")? != 0,
            (Either::SchemaOrBool(_), 2) | (_, 1) => one = Some(message(types, schema, reader.bytes(wire, "Schema")?, depth + 1)?),
            (Either::SchemaOrArray(_), 2) => many.push(message(types, schema, reader.bytes(wire, "JSONSchemas")?, depth + 1)?),
            (Either::SchemaOrStrings(_), 2) => many.push(Value::String(text(reader.bytes(wire, "Property")?))),
            _ => reader.skip(wire)?,
        }
    }
    Ok(match (one, either) {
        (Some(one), _) => one,
        (None, Either::SchemaOrBool(_)) => Value::Bool(allows),
        (None, _) if many.is_empty() => Value::Null,
        (None, _) => Value::Array(many),
    })
}
