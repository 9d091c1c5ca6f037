//! Trees to messages. Non-pointers are always written, nil pointers, empty lists and nil bytes never.

use base64::Engine as _;
use serde_json::Value;

use crate::duration;
use crate::gotime;
use crate::schema::{Either, Field, Scalar, Struct, Type, TypeId, Types, Wire};

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn tag(out: &mut Vec<u8>, number: u32, wire: u32) {
    varint(out, u64::from(number << 3 | wire));
}

fn varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    tag(out, number, VARINT);
    varint(out, value);
}

pub(super) fn bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    tag(out, number, BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A nested message: written in place, then its length is put before it.
fn nested(out: &mut Vec<u8>, number: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    tag(out, number, BYTES);
    let start = out.len();
    fill(out);
    let mut length = Vec::with_capacity(4);
    varint(&mut length, (out.len() - start) as u64);
    out.splice(start..start, length);
}

pub(super) fn message(types: &Types, ty: TypeId, value: &Value, out: &mut Vec<u8>) {
    match types.get(ty) {
        Type::Struct(s) => structure(types, s, &s.wire, value, out),
        Type::Scalar(scalar) => scalar_message(*scalar, Some(value), out),
        Type::Any => raw(value, out),
        Type::Either(either) => union(types, *either, value, out),
        Type::List(list) => {
            for item in value.as_array().into_iter().flatten() {
                element(types, list.elem, 1, item, out);
            }
        }
        Type::Map(_) => {}
    }
}

fn structure(types: &Types, s: &Struct, wire: &[Wire], value: &Value, out: &mut Vec<u8>) {
    for item in wire {
        match item {
            Wire::Message(number, inner) => nested(out, *number, |out| structure(types, s, inner, value, out)),
            Wire::Field(_, index) => {
                let Some(field) = s.fields.get(usize::from(*index)) else { continue };
                write_field(types, field, value.get(&field.name).filter(|v| !v.is_null()), out);
            }
        }
    }
}

fn write_field(types: &Types, field: &Field, value: Option<&Value>, out: &mut Vec<u8>) {
    let number = field.proto;
    match (types.get(field.ty), value) {
        (Type::List(list), Some(Value::Array(items))) => {
            for item in items {
                element(types, list.elem, number, item, out);
            }
        }
        (Type::Map(map), Some(Value::Object(entries))) => {
            for (key, item) in entries {
                nested(out, number, |out| {
                    bytes_field(out, 1, key.as_bytes());
                    element(types, map.elem, 2, item, out);
                });
            }
        }
        (Type::List(_) | Type::Map(_) | Type::Scalar(Scalar::Bytes | Scalar::FieldsV1), None) => {}
        (_, None) if field.pointer => {}
        (_, value) => element(types, field.ty, number, value.unwrap_or(&Value::Null), out),
    }
}

/// A value under a number, whether a field, a list's item or a map's value.
fn element(types: &Types, ty: TypeId, number: u32, value: &Value, out: &mut Vec<u8>) {
    match types.get(ty) {
        Type::Scalar(scalar) => match scalar {
            Scalar::String => bytes_field(out, number, value.as_str().unwrap_or("").as_bytes()),
            Scalar::Bytes => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or("")).unwrap_or_default();
                bytes_field(out, number, &bytes);
            }
            Scalar::Bool => varint_field(out, number, u64::from(value.as_bool().unwrap_or(false))),
            // Negative numbers take ten bytes.
            Scalar::Int32 | Scalar::Int64 | Scalar::Uint32 | Scalar::Uint64 => {
                varint_field(out, number, value.as_i64().unwrap_or(0).cast_unsigned());
            }
            Scalar::Float64 => {
                tag(out, number, FIXED64);
                out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
            }
            Scalar::Float32 => {
                tag(out, number, FIXED32);
                #[expect(clippy::cast_possible_truncation, reason = "the field is a float32")]
                let narrow = value.as_f64().unwrap_or(0.0) as f32;
                out.extend_from_slice(&narrow.to_le_bytes());
            }
            _ => nested(out, number, |out| scalar_message(*scalar, Some(value).filter(|v| !v.is_null()), out)),
        },
        _ => nested(out, number, |out| message(types, ty, value, out)),
    }
}

/// Scalars that are messages here.
fn scalar_message(scalar: Scalar, value: Option<&Value>, out: &mut Vec<u8>) {
    let text = value.and_then(Value::as_str);
    match scalar {
        Scalar::Time | Scalar::MicroTime => {
            let Some(at) = text.and_then(|t| gotime::parse_rfc3339(t).ok()) else { return };
            varint_field(out, 1, at.seconds.cast_unsigned());
            varint_field(out, 2, if scalar == Scalar::Time { 0 } else { u64::from(at.nanos / 1000 * 1000) });
        }
        Scalar::Duration => {
            varint_field(out, 1, text.and_then(|t| duration::parse(t).ok()).unwrap_or(0).cast_unsigned());
        }
        Scalar::Quantity => bytes_field(out, 1, text.unwrap_or("0").as_bytes()),
        Scalar::IntOrString => {
            varint_field(out, 1, u64::from(text.is_some()));
            varint_field(out, 2, value.and_then(Value::as_i64).unwrap_or(0).cast_unsigned());
            bytes_field(out, 3, text.unwrap_or("").as_bytes());
        }
        Scalar::FieldsV1 => bytes_field(out, 1, value.map(Value::to_string).unwrap_or_default().as_bytes()),
        _ => {}
    }
}

/// `RawExtension` and `JSON`: the text.
fn raw(value: &Value, out: &mut Vec<u8>) {
    if !value.is_null() {
        bytes_field(out, 1, value.to_string().as_bytes());
    }
}

fn union(types: &Types, either: Either, value: &Value, out: &mut Vec<u8>) {
    match (either, value) {
        (Either::SchemaOrBool(schema), _) => {
            varint_field(out, 1, u64::from(value.is_object() || *value == Value::Bool(true)));
            if value.is_object() {
                nested(out, 2, |out| message(types, schema, value, out));
            }
        }
        (Either::SchemaOrArray(schema) | Either::SchemaOrStrings(schema), Value::Object(_)) => {
            nested(out, 1, |out| message(types, schema, value, out));
        }
        (Either::SchemaOrArray(schema), Value::Array(items)) => {
            items.iter().for_each(|item| nested(out, 2, |out| message(types, schema, item, out)));
        }
        (Either::SchemaOrStrings(_), Value::Array(items)) => {
            items.iter().for_each(|item| bytes_field(out, 2, item.as_str().unwrap_or("").as_bytes()));
        }
        _ => {}
    }
}
