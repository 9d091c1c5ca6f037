//! A patched object as upstream prints it when it refuses one: what the patch went into is sorted by key, because it was taken
//! apart; what it did not touch is in the order of the Go struct, because it was kept as bytes.

use serde_json::Value;

use crate::schema::{Field, Struct, Type, TypeId, Types};

/// `touched` is a tree of the objects the patch went into: a merge patch itself, or [`super::JsonPatch::touched`].
pub fn shown(types: &Types, ty: TypeId, object: &Value, touched: &Value) -> String {
    let mut out = String::with_capacity(1024);
    print(types, Some(ty), object, Some(touched), &mut out);
    out
}

fn print(types: &Types, ty: Option<TypeId>, value: &Value, touched: Option<&Value>, out: &mut String) {
    let touched = touched.filter(|t| t.is_object());
    match value {
        Value::Object(map) => {
            let known: Option<&Struct> = ty.and_then(|id| types.get(id).as_struct());
            let item = ty.and_then(|id| match types.get(id) {
                Type::Map(m) => Some(m.elem),
                _ => None,
            });
            let field = |key: &str| known.and_then(|s| s.field(key));
            let mut keys: Vec<&String> = map.keys().collect();
            if let (Some(known), None) = (known, touched) {
                let place = |key: &String| known.fields.iter().position(|f| f.name == *key).unwrap_or(usize::MAX);
                keys.sort_by_key(|k| place(k));
            }
            out.push('{');
            for (at, key) in keys.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                text(key, out);
                out.push(':');
                print(types, field(key).map(|f: &Field| f.ty).or(item), &map[key], touched.and_then(|t| t.get(key)), out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            let item = ty.and_then(|id| match types.get(id) {
                Type::List(l) => Some(l.elem),
                _ => None,
            });
            out.push('[');
            for (at, value) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                print(types, item, value, touched.and_then(|t| t.get(at.to_string())), out);
            }
            out.push(']');
        }
        Value::String(s) => text(s, out),
        other => out.push_str(&other.to_string()),
    }
}

/// A JSON string with Go's escapes for HTML.
fn text(s: &str, out: &mut String) {
    let quoted = Value::String(s.to_owned()).to_string();
    if quoted.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        let escaped = quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        out.push_str(&escaped.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"));
    } else {
        out.push_str(&quoted);
    }
}
