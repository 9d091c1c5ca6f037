//! A version 3 document as protobuf: gnostic's `openapi.v3.Document`.

use serde_json::Value;

use super::{Message, any, items, members, wrap};

/// The document.
pub fn document(openapi: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, openapi, "openapi");
    if let Some(info) = openapi.get("info") {
        let mut message = Message::default();
        message.text(1, info, "title");
        message.text(2, info, "description");
        message.text(6, info, "version");
        out.message(2, &message);
    }
    let empty = Value::Null;
    let mut paths = Message::default();
    paths.named(1, members(openapi.get("paths").unwrap_or(&empty)), path_item);
    out.message(4, &paths);
    if let Some(components) = openapi.get("components") {
        out.message(5, &self::components(components));
    }
    out.0
}

/// The members of a map, in a message of their own.
fn map(of: &Value, write: fn(&Value) -> Message) -> Message {
    let mut out = Message::default();
    out.named(1, members(of), write);
    out
}

fn components(components: &Value) -> Message {
    let mut out = Message::default();
    if let Some(schemas) = components.get("schemas") {
        out.message(1, &map(schemas, schema));
    }
    if let Some(security) = components.get("securitySchemes") {
        out.message(7, &map(security, security_scheme));
    }
    out
}

fn security_scheme(scheme: &Value) -> Message {
    let mut out = Message::default();
    for (number, key) in [(1, "type"), (2, "description"), (3, "name"), (4, "in"), (5, "scheme"), (6, "bearerFormat")] {
        out.text(number, scheme, key);
    }
    wrap(1, &out)
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (number, key) in [(2, "summary"), (3, "description")] {
        out.text(number, item, key);
    }
    for (number, method) in [(4, "get"), (5, "put"), (6, "post"), (7, "delete"), (8, "options"), (9, "head"), (10, "patch"), (11, "trace")]
    {
        if let Some(operation) = item.get(method) {
            out.message(number, &self::operation(operation));
        }
    }
    for parameter in items(item, "parameters") {
        out.message(13, &self::parameter(parameter));
    }
    out.extensions(14, item);
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, operation, "tags");
    out.text(2, operation, "summary");
    out.text(3, operation, "description");
    out.text(5, operation, "operationId");
    for parameter in items(operation, "parameters") {
        out.message(6, &self::parameter(parameter));
    }
    if let Some(body) = operation.get("requestBody") {
        out.message(7, &self::request_body(body));
    }
    if let Some(responses) = operation.get("responses") {
        out.message(8, &self::responses(responses));
    }
    out.flag(10, operation, "deprecated");
    out.extensions(13, operation);
    out
}

/// A message, or, in its other field, what it refers to.
fn or_reference(of: &Value, write: impl FnOnce(&Value) -> Message) -> Message {
    if of.get("$ref").is_none() {
        return wrap(1, &write(of));
    }
    let mut reference = Message::default();
    for (number, key) in [(1, "$ref"), (2, "summary"), (3, "description")] {
        reference.text(number, of, key);
    }
    wrap(2, &reference)
}

fn parameter(parameter: &Value) -> Message {
    or_reference(parameter, |parameter| {
        let mut out = Message::default();
        for (number, key) in [(1, "name"), (2, "in"), (3, "description")] {
            out.text(number, parameter, key);
        }
        for (number, key) in [(4, "required"), (5, "deprecated"), (6, "allowEmptyValue")] {
            out.flag(number, parameter, key);
        }
        out.text(7, parameter, "style");
        out.flag(8, parameter, "explode");
        out.flag(9, parameter, "allowReserved");
        if let Some(schema) = parameter.get("schema") {
            out.message(10, &self::schema(schema));
        }
        if let Some(content) = parameter.get("content") {
            out.message(13, &map(content, media_type));
        }
        out.extensions(14, parameter);
        out
    })
}

fn request_body(body: &Value) -> Message {
    or_reference(body, |body| {
        let mut out = Message::default();
        out.text(1, body, "description");
        if let Some(content) = body.get("content") {
            out.message(2, &map(content, media_type));
        }
        out.flag(3, body, "required");
        out.extensions(4, body);
        out
    })
}

fn media_type(media: &Value) -> Message {
    let mut out = Message::default();
    if let Some(schema) = media.get("schema") {
        out.message(1, &self::schema(schema));
    }
    out.extensions(5, media);
    out
}

fn responses(responses: &Value) -> Message {
    let mut out = Message::default();
    if let Some(other) = responses.get("default") {
        out.message(1, &response(other));
    }
    out.named(2, members(responses).filter(|(code, _)| code.len() == 3), response);
    out.extensions(3, responses);
    out
}

fn response(response: &Value) -> Message {
    or_reference(response, |response| {
        let mut out = Message::default();
        out.text(1, response, "description");
        if let Some(content) = response.get("content") {
            out.message(3, &map(content, media_type));
        }
        out.extensions(5, response);
        out
    })
}

/// A `SchemaOrReference`.
fn schema(schema: &Value) -> Message {
    or_reference(schema, plain_schema)
}

fn bounds(out: &mut Message, schema: &Value) {
    out.double(10, schema, "multipleOf");
    out.double(11, schema, "maximum");
    out.flag(12, schema, "exclusiveMaximum");
    out.double(13, schema, "minimum");
    out.flag(14, schema, "exclusiveMinimum");
    out.number(15, schema, "maxLength");
    out.number(16, schema, "minLength");
    out.text(17, schema, "pattern");
    out.number(18, schema, "maxItems");
    out.number(19, schema, "minItems");
    out.flag(20, schema, "uniqueItems");
    out.number(21, schema, "maxProperties");
    out.number(22, schema, "minProperties");
}

fn plain_schema(schema: &Value) -> Message {
    let mut out = Message::default();
    for (number, key) in [(1, "nullable"), (3, "readOnly"), (4, "writeOnly"), (8, "deprecated")] {
        out.flag(number, schema, key);
    }
    if let Some(example) = schema.get("example") {
        out.message(7, &any(example));
    }
    out.text(9, schema, "title");
    bounds(&mut out, schema);
    out.texts(23, schema, "required");
    for value in items(schema, "enum") {
        out.message(24, &any(value));
    }
    out.text(25, schema, "type");
    for (number, key) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        for part in items(schema, key) {
            out.message(number, &self::schema(part));
        }
    }
    if let Some(not) = schema.get("not") {
        out.message(29, &plain_schema(not));
    }
    if let Some(item) = schema.get("items") {
        out.message(30, &wrap(1, &self::schema(item)));
    }
    if let Some(properties) = schema.get("properties") {
        out.message(31, &map(properties, self::schema));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.0.extend_from_slice(&[2 << 3, u8::from(*allowed)]);
            out.message(32, &item);
        }
        Some(values) => out.message(32, &wrap(1, &self::schema(values))),
        None => {}
    }
    if let Some(default) = schema.get("default") {
        out.message(33, &self::default(default));
    }
    out.text(34, schema, "description");
    out.text(35, schema, "format");
    out.extensions(36, schema);
    out
}

/// Only plain values have a form; of others it is said that there is one.
fn default(value: &Value) -> Message {
    let mut out = Message::default();
    match value {
        Value::Number(number) => {
            out.varint(1 << 3 | 1);
            out.0.extend_from_slice(&number.as_f64().unwrap_or_default().to_le_bytes());
        }
        Value::Bool(set) => out.0.extend_from_slice(&[2 << 3, u8::from(*set)]),
        Value::String(text) => out.bytes(3, text.as_bytes()),
        _ => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::document;

    fn contains(written: &[u8], part: &[u8]) -> bool {
        written.windows(part.len()).any(|w| w == part)
    }

    #[test]
    fn numbers_are_those_of_gnostic() {
        let openapi = json!({
            "openapi": "3.0.0", "info": {"title": "K", "version": "1"},
            "paths": {"/p": {"get": {"operationId": "o", "responses": {"200": {"description": "OK", "content": {"a/b": {"schema": {"$ref": "#/R"}}}}}}}},
            "components": {"schemas": {"A": {"type": "object", "required": ["b"], "properties": {
                "b": {"allOf": [{"$ref": "#/B"}], "default": {}}, "c": {"type": "string", "default": "x"}},
                "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"}}},
        });
        let written = document(&openapi);
        assert!(written.starts_with(b"\x0a\x053.0.0\x12\x06\x0a\x01K\x32\x011\x22"), "{written:?}");
        // Reference #/R: 0a 03 "#/R" in 12 05, in the media type's schema 0a 07.
        assert!(contains(&written, b"\x12\x09\x0a\x07\x12\x05\x0a\x03#/R"), "{written:?}");
        // The operation's identity (5) and its answer's code (2: name, value).
        assert!(contains(&written, b"\x2a\x01o") && contains(&written, b"\x0a\x03200\x12"));
        // allOf is 26, an object's default 33 without anything in it; a text's is in its field 3.
        assert!(contains(&written, b"\xd2\x01\x07\x12\x05\x0a\x03#/B\x8a\x02\x00"), "{written:?}");
        assert!(contains(&written, b"\xca\x01\x06string\x8a\x02\x03\x1a\x01x"), "{written:?}");
        // required 23, type 25, additionalProperties 32, extensions 36.
        assert!(contains(&written, b"\xba\x01\x01b\xca\x01\x06object"), "{written:?}");
        assert!(
            contains(
                &written,
                b"\x82\x02\x0d\x0a\x0b\x0a\x09\xca\x01\x06string\xa2\x02\x22\x0a\x15x-kubernetes-map-type\x12\x09\x12\x07atomic\n"
            ),
            "{written:?}"
        );
    }
}
