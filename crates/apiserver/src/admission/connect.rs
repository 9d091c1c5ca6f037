//! The options object of what connects (PodExecOptions and its like), read from the query by the facts of its type.

use machinery::gvk::GroupVersionKind;
use machinery::schema::{Scalar, Type};
use serde_json::{Map, Value, json};

use crate::chain::Call;

/// The options of a request; proxies have what follows them in the URL as their `path`.
pub fn options(call: &Call, kind: &GroupVersionKind) -> Value {
    let mut out = Map::new();
    let (types, ty) = (kinds::types(), kinds::table().type_of(kind));
    let fields = ty.and_then(|ty| types.get(ty).as_struct()).map(|s| s.fields.as_slice()).unwrap_or_default();
    for field in fields.iter().filter(|f| call.query.has(&f.name)) {
        let value = match types.get(field.ty) {
            Type::Scalar(Scalar::Bool) => json!(call.query.flag(&field.name)),
            Type::List(list) => {
                let numbers = matches!(types.get(list.elem), Type::Scalar(Scalar::Int32 | Scalar::Int64));
                let one = |text: &str| if numbers { text.parse::<i64>().map_or(Value::Null, |n| json!(n)) } else { json!(text) };
                call.query.all(&field.name).map(one).filter(|v| !v.is_null()).collect()
            }
            _ => json!(call.query.text(&field.name)),
        };
        out.insert(field.name.clone(), value);
    }
    if call.info.subresource == "proxy" {
        let rest = call.info.parts.get(3..).unwrap_or_default().join("/");
        out.insert("path".to_owned(), json!(format!("/{rest}")));
    }
    out.insert("kind".to_owned(), json!(kind.kind));
    out.insert("apiVersion".to_owned(), json!(kind.api_version()));
    Value::Object(out)
}
