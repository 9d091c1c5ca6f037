//! The version 2 document as protobuf: gnostic's `openapi.v2.Document`, which is all that client-go asks for. Written field by
//! field from the JSON document; the numbers are gnostic's.

pub mod v3;

use serde_json::Value;

/// A message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number << 3 | 2));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A text that is there and not empty.
    fn text(&mut self, number: u32, of: &Value, key: &str) {
        if let Some(text) = of.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u32, of: &Value, key: &str) {
        for text in items(of, key).filter_map(Value::as_str) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn flag(&mut self, number: u32, of: &Value, key: &str) {
        if of.get(key) == Some(&Value::Bool(true)) {
            self.varint(u64::from(number << 3));
            self.0.push(1);
        }
    }

    fn double(&mut self, number: u32, of: &Value, key: &str) {
        if let Some(value) = of.get(key).and_then(Value::as_f64) {
            self.varint(u64::from(number << 3 | 1));
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn number(&mut self, number: u32, of: &Value, key: &str) {
        if let Some(value) = of.get(key).and_then(Value::as_u64) {
            self.varint(u64::from(number << 3));
            self.varint(value);
        }
    }

    fn message(&mut self, number: u32, message: &Message) {
        self.bytes(number, &message.0);
    }

    /// What is under a key, where there is something.
    fn part(&mut self, number: u32, of: &Value, key: &str, write: impl FnOnce(&Value) -> Message) {
        if let Some(part) = of.get(key) {
            self.message(number, &write(part));
        }
    }

    /// Each item of the list under a key.
    fn parts(&mut self, number: u32, of: &Value, key: &str, write: impl Fn(&Value) -> Message) {
        for item in items(of, key) {
            self.message(number, &write(item));
        }
    }

    /// The members of a map as `Named...` messages.
    fn named<'a>(&mut self, number: u32, members: impl Iterator<Item = (&'a String, &'a Value)>, write: fn(&Value) -> Message) {
        for (name, value) in members {
            let mut member = Message::default();
            member.bytes(1, name.as_bytes());
            member.message(2, &write(value));
            self.message(number, &member);
        }
    }

    /// Members that begin with `x-`.
    fn extensions(&mut self, number: u32, of: &Value) {
        self.named(number, members(of).filter(|(k, _)| k.starts_with("x-")), any);
    }
}

fn members(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of.as_object().into_iter().flatten()
}

fn items<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    of.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// The members of a map, in a message of their own.
fn map(of: &Value, write: fn(&Value) -> Message) -> Message {
    let mut out = Message::default();
    out.named(1, members(of), write);
    out
}

/// `additionalProperties`: a schema, or whether there may be any.
fn additional(given: &Value, schema: fn(&Value) -> Message) -> Message {
    let Value::Bool(allowed) = given else { return wrap(1, &schema(given)) };
    let mut out = Message::default();
    out.0.extend_from_slice(&[2 << 3, u8::from(*allowed)]);
    out
}

/// One message around another.
fn wrap(number: u32, message: &Message) -> Message {
    let mut out = Message::default();
    out.message(number, message);
    out
}

/// Any value, as YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, machinery::yaml::to_string(value).as_bytes());
    out
}

/// The document.
pub fn document(swagger: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, swagger, "swagger");
    if let Some(info) = swagger.get("info") {
        let mut message = Message::default();
        message.text(1, info, "title");
        message.text(2, info, "version");
        out.message(2, &message);
    }
    let mut paths = Message::default();
    paths.named(2, members(&swagger["paths"]), path_item);
    out.message(8, &paths);
    out.message(9, &map(&swagger["definitions"], schema));
    out.parts(12, swagger, "security", |requirement| map(requirement, strings));
    out.message(13, &map(&swagger["securityDefinitions"], api_key));
    out.0
}

fn strings(list: &Value) -> Message {
    let mut out = Message::default();
    for text in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
        out.bytes(1, text.as_bytes());
    }
    out
}

fn api_key(definition: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, definition, "type");
    out.text(2, definition, "name");
    out.text(3, definition, "in");
    out.text(4, definition, "description");
    wrap(2, &out)
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")] {
        out.part(number, item, method, operation);
    }
    out.parts(9, item, "parameters", parameter);
    out.extensions(10, item);
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, operation, "tags");
    out.text(3, operation, "description");
    out.text(5, operation, "operationId");
    out.texts(6, operation, "produces");
    out.texts(7, operation, "consumes");
    out.parts(8, operation, "parameters", parameter);
    let mut responses = Message::default();
    responses.named(1, operation.get("responses").into_iter().flat_map(members), response);
    out.message(9, &responses);
    out.texts(10, operation, "schemes");
    out.extensions(13, operation);
    out
}

fn response(response: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, response, "description");
    out.part(2, response, "schema", |given| wrap(1, &schema(given)));
    wrap(1, &out)
}

/// A `ParametersItem`.
fn parameter(parameter: &Value) -> Message {
    let mut out = Message::default();
    if parameter.get("$ref").is_some() {
        out.text(1, parameter, "$ref");
        return wrap(2, &out);
    }
    // Where each kind of parameter has its fields.
    let (kind, [required, place, description, name, ty, unique]) = match parameter["in"].as_str() {
        Some("body") => {
            out.text(1, parameter, "description");
            out.text(2, parameter, "name");
            out.text(3, parameter, "in");
            out.flag(4, parameter, "required");
            out.part(5, parameter, "schema", schema);
            return wrap(1, &wrap(1, &out));
        }
        Some("path") => (4, [1, 2, 3, 4, 5, 19]),
        _ => (3, [1, 2, 3, 4, 6, 20]),
    };
    out.flag(required, parameter, "required");
    out.text(place, parameter, "in");
    out.text(description, parameter, "description");
    out.text(name, parameter, "name");
    out.text(ty, parameter, "type");
    out.flag(unique, parameter, "uniqueItems");
    wrap(1, &wrap(2, &wrap(kind, &out)))
}

fn schema(schema: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, schema, "$ref");
    out.text(2, schema, "format");
    out.text(3, schema, "title");
    out.text(4, schema, "description");
    out.part(5, schema, "default", any);
    out.double(7, schema, "maximum");
    out.double(9, schema, "minimum");
    out.flag(8, schema, "exclusiveMaximum");
    out.flag(10, schema, "exclusiveMinimum");
    for (number, key) in
        [(11, "maxLength"), (12, "minLength"), (14, "maxItems"), (15, "minItems"), (17, "maxProperties"), (18, "minProperties")]
    {
        out.number(number, schema, key);
    }
    out.text(13, schema, "pattern");
    out.texts(19, schema, "required");
    out.parts(20, schema, "enum", any);
    out.part(21, schema, "additionalProperties", |given| additional(given, self::schema));
    if schema.get("type").is_some() {
        let mut item = Message::default();
        item.text(1, schema, "type");
        out.message(22, &item);
    }
    out.part(23, schema, "items", |item| wrap(1, &self::schema(item)));
    out.parts(24, schema, "allOf", self::schema);
    out.part(25, schema, "properties", |properties| map(properties, self::schema));
    out.extensions(31, schema);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::document;

    #[test]
    fn numbers_are_those_of_gnostic() {
        let swagger = json!({"swagger": "2.0", "info": {"title": "K", "version": "1"}, "paths": {}, "definitions": {
            "A": {"type": "object", "required": ["b"], "properties": {"b": {"$ref": "#/definitions/B"}}, "x-kubernetes-map-type": "atomic"}}});
        let written = document(&swagger);
        let head = b"\x0a\x032.0\x12\x06\x0a\x01K\x12\x011\x42\x00";
        assert!(written.starts_with(head), "{written:?}");
        let required_and_type = b"\x9a\x01\x01b\xb2\x01\x08\x0a\x06object";
        let properties = b"\xca\x01\x18\x0a\x16\x0a\x01b\x12\x11\x0a\x0f#/definitions/B";
        let extension = b"\xfa\x01\x22\x0a\x15x-kubernetes-map-type\x12\x09\x12\x07atomic\n";
        let schema = [&required_and_type[..], properties, extension].concat();
        assert!(written.windows(schema.len()).any(|w| w == schema), "{written:?}\n{schema:?}");
    }
}
