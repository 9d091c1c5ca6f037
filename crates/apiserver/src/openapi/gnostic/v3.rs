//! A version 3 document as protobuf: gnostic's `openapi.v3.Document`.

use serde_json::Value;

use super::{Message, additional, any, map, members, wrap};

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
    out.message(4, &map(&openapi["paths"], path_item));
    out.part(5, openapi, "components", components);
    out.0
}

fn components(components: &Value) -> Message {
    let mut out = Message::default();
    out.part(1, components, "schemas", |schemas| map(schemas, schema));
    out.part(7, components, "securitySchemes", |schemes| map(schemes, security_scheme));
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
        out.part(number, item, method, operation);
    }
    out.parts(13, item, "parameters", parameter);
    out.extensions(14, item);
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, operation, "tags");
    out.text(2, operation, "summary");
    out.text(3, operation, "description");
    out.text(5, operation, "operationId");
    out.parts(6, operation, "parameters", parameter);
    out.part(7, operation, "requestBody", request_body);
    out.part(8, operation, "responses", responses);
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
        out.part(10, parameter, "schema", schema);
        out.part(13, parameter, "content", content);
        out.extensions(14, parameter);
        out
    })
}

fn request_body(body: &Value) -> Message {
    or_reference(body, |body| {
        let mut out = Message::default();
        out.text(1, body, "description");
        out.part(2, body, "content", content);
        out.flag(3, body, "required");
        out.extensions(4, body);
        out
    })
}

fn content(content: &Value) -> Message {
    map(content, media_type)
}

fn media_type(media: &Value) -> Message {
    let mut out = Message::default();
    out.part(1, media, "schema", schema);
    out.extensions(5, media);
    out
}

fn responses(responses: &Value) -> Message {
    let mut out = Message::default();
    out.part(1, responses, "default", response);
    out.named(2, members(responses).filter(|(code, _)| code.len() == 3), response);
    out.extensions(3, responses);
    out
}

fn response(response: &Value) -> Message {
    or_reference(response, |response| {
        let mut out = Message::default();
        out.text(1, response, "description");
        out.part(3, response, "content", content);
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
    out.part(7, schema, "example", any);
    out.text(9, schema, "title");
    bounds(&mut out, schema);
    out.texts(23, schema, "required");
    out.parts(24, schema, "enum", any);
    out.text(25, schema, "type");
    for (number, key) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        out.parts(number, schema, key, self::schema);
    }
    out.part(29, schema, "not", plain_schema);
    out.part(30, schema, "items", |item| wrap(1, &self::schema(item)));
    out.part(31, schema, "properties", |properties| map(properties, self::schema));
    out.part(32, schema, "additionalProperties", |given| additional(given, self::schema));
    out.part(33, schema, "default", default);
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
