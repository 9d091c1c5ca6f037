//! A schema as [`Types`]: what server-side apply, managed fields and OpenAPI's readers run on. Upstream derives the same from
//! the OpenAPI it publishes for the resource.

use std::collections::HashMap;

use super::{Additional, Kind, ListType, ObjectMeta, Schema};
use crate::schema::{Field, List, Map, Omit, Scalar, Struct, Topology, Type, TypeId, Types};

impl Schema {
    /// The types of a whole resource. `meta` is copied in, so that the result stands alone.
    ///
    /// `decode::decode` is not for these types, which know nothing of Go: custom resources go through [`Schema::decode`].
    pub fn to_types(&self, meta: ObjectMeta<'_>) -> (Types, TypeId) {
        let mut maker = Maker {
            types: Types::default(),
            object_meta: TypeId::default(),
            text: TypeId::default(),
            scalar: TypeId::default(),
            deduced: TypeId::default(),
        };
        maker.text = maker.types.add(Type::Scalar(Scalar::String));
        maker.scalar = maker.types.add(Type::Scalar(Scalar::IntOrString));
        // Whatever is there decides its own form: maps merge, lists are atomic.
        maker.deduced = maker.types.add(Type::Scalar(Scalar::FieldsV1));
        maker.object_meta = Copier { from: meta.types, made: HashMap::new() }.copy(meta.ty, &mut maker.types);
        let root = maker.structure(self, true, Unknown::of(self, Unknown::Refused));
        (maker.types, root)
    }
}

struct Maker {
    types: Types,
    object_meta: TypeId,
    text: TypeId,
    /// Of a text with a format, which is any scalar here.
    scalar: TypeId,
    deduced: TypeId,
}

/// What becomes of unknown fields: who keeps them keeps them in all that is below, too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Refused,
    Kept,
}

impl Unknown {
    fn of(schema: &Schema, above: Self) -> Self {
        if schema.preserve_unknown { Self::Kept } else { above }
    }
}

impl Maker {
    fn make(&mut self, schema: &Schema, above: Unknown) -> TypeId {
        let unknown = Unknown::of(schema, above);
        match schema.kind {
            // Neither numbers nor texts are insisted on: a type is not published.
            _ if schema.int_or_string => self.deduced,
            Some(Kind::String) if matches!(format(schema), "" | "byte") => self.text,
            Some(Kind::String) => self.scalar,
            Some(Kind::Boolean) => self.types.add(Type::Scalar(Scalar::Bool)),
            Some(Kind::Integer) => self.types.add(Type::Scalar(Scalar::Int64)),
            Some(Kind::Number) => self.types.add(Type::Scalar(Scalar::Float64)),
            Some(Kind::Array) => {
                let elem = schema.items.as_ref().map_or(self.deduced, |items| self.make(items, unknown));
                let topology = match schema.list_type {
                    Some(ListType::Set) => Topology::Set,
                    Some(ListType::Map) => Topology::Map(schema.list_map_keys.clone()),
                    Some(ListType::Atomic) | None => Topology::Atomic,
                };
                self.types.add(Type::List(List { elem, topology, wrapped: false }))
            }
            Some(Kind::Object) => self.object(schema, unknown),
            None => self.deduced,
        }
    }

    fn object(&mut self, schema: &Schema, unknown: Unknown) -> TypeId {
        let values = match &schema.additional {
            Some(Additional::Schema(values)) => Some(self.make(values, unknown)),
            Some(Additional::Allowed(true)) => Some(self.deduced),
            // An object of which nothing is said is free-form.
            None if schema.properties.is_empty() && !schema.embedded_resource => Some(self.deduced),
            _ => None,
        };
        match values {
            Some(elem) if schema.properties.is_empty() => self.types.add(Type::Map(Map { elem, atomic: schema.atomic })),
            _ => self.structure(schema, schema.embedded_resource, unknown),
        }
    }

    fn structure(&mut self, schema: &Schema, resource: bool, unknown: Unknown) -> TypeId {
        let mut fields = Vec::with_capacity(schema.properties.len() + 3);
        if resource {
            fields.push(field("apiVersion", self.text));
            fields.push(field("kind", self.text));
            fields.push(field("metadata", self.object_meta));
        }
        let required = schema.checks.as_ref().map_or(&[][..], |c| c.required.as_slice());
        for (name, property) in &schema.properties {
            if resource && fields.iter().any(|f| f.name == *name) {
                continue;
            }
            let ty = self.make(property, unknown);
            fields.push(Field {
                required: required.contains(name),
                nullable: property.nullable,
                default: property.default.clone(),
                ..field(name, ty)
            });
        }
        let made = Struct { fields, atomic: schema.atomic, preserve_unknown: unknown == Unknown::Kept, ..Struct::default() };
        self.types.add(Type::Struct(made))
    }
}

fn format(schema: &Schema) -> &str {
    schema.checks.as_ref().map_or("", |checks| &checks.format)
}

fn field(name: &str, ty: TypeId) -> Field {
    Field { name: name.to_owned(), ty, pointer: true, omit: Omit::Empty, ..Field::default() }
}

/// Copies a type and all it refers to into another arena.
struct Copier<'t> {
    from: &'t Types,
    made: HashMap<TypeId, TypeId>,
}

impl Copier<'_> {
    fn copy(&mut self, id: TypeId, to: &mut Types) -> TypeId {
        if let Some(made) = self.made.get(&id) {
            return *made;
        }
        let made = to.add(Type::Any);
        self.made.insert(id, made);
        let mut ty = self.from.get(id).clone();
        match &mut ty {
            Type::Struct(s) => s.fields.iter_mut().for_each(|f| f.ty = self.copy(f.ty, to)),
            Type::List(list) => list.elem = self.copy(list.elem, to),
            Type::Map(map) => map.elem = self.copy(map.elem, to),
            Type::Scalar(_) | Type::Any | Type::Either(_) => {}
        }
        to.set(made, ty);
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn topologies_and_forms_come_from_the_schema() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "metadata": {"type": "object"},
            "plain": {"type": "array", "items": {"type": "string"}},
            "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "map": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "required": ["port"], "properties": {
                    "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"},
                }},
            },
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "ios": {"x-kubernetes-int-or-string": true},
            "ip": {"type": "string", "format": "ipv4"},
            "bytes": {"type": "string", "format": "byte"},
            "kept": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "inner": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        }}))
        .unwrap();
        let mut facts = Types::default();
        let name = facts.add(Type::Scalar(Scalar::String));
        let own = Struct { name: "ObjectMeta".to_owned(), fields: vec![field("name", name)], ..Struct::default() };
        let ty = facts.add(Type::Struct(own));
        let (types, root) = schema.to_types(ObjectMeta { types: &facts, ty });
        let root = types.get(root).as_struct().unwrap();
        let of = |name: &str| types.get(root.field(name).unwrap().ty);
        assert_eq!(of("metadata").as_struct().unwrap().name, "ObjectMeta");
        let topology = |name: &str| match of(name) {
            Type::List(list) => list.topology.clone(),
            _ => panic!("{name} is no list"),
        };
        assert_eq!(topology("plain"), Topology::Atomic);
        assert_eq!(topology("set"), Topology::Set);
        assert_eq!(topology("map"), Topology::Map(vec!["port".to_owned(), "protocol".to_owned()]));
        let Type::List(list) = of("map") else { panic!("no list") };
        let item = types.get(list.elem).as_struct().unwrap();
        assert_eq!(item.field("protocol").unwrap().default, Some(json!("TCP")));
        assert!(item.field("port").unwrap().required);
        assert!(matches!(of("whole"), Type::Map(Map { atomic: true, .. })));
        assert!(matches!(of("free"), Type::Map(_)));
        assert!(matches!(of("ios"), Type::Scalar(Scalar::FieldsV1)));
        assert!(matches!(of("ip"), Type::Scalar(Scalar::IntOrString)));
        assert!(matches!(of("bytes"), Type::Scalar(Scalar::String)));
        let inner = of("kept").as_struct().unwrap().field("inner").unwrap();
        assert!(types.get(inner.ty).as_struct().unwrap().preserve_unknown);
    }
}
