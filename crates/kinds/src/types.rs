//! The types of the built-in API, built once from `facts/types.txt` (made by `xtask facts`).
//!
//! The table's syntax: `#name [atomic]` opens a struct; each line after it is a field: JSON name (`<` inlines a struct), Go
//! name (empty: the JSON name capitalised), type, flags. Types: `s b i l w x f d` scalars, `y` bytes, `q` quantity, `o`
//! IntOrString, `t` Time, `u` MicroTime, `D` Duration, `F` FieldsV1, `*` any JSON, `|a |b |s` the apiextensions unions,
//! a scalar's letter may be followed by the name of its Go type; `[T` list, `(T` list that is a message in protobuf, `{T` map, `@Name` a struct of the same package, `@~` and `@^` one of
//! `io.k8s.api.` and of meta/v1. Flags: protobuf number, letters `p`ointer, omit`e`mpty, omit`z`ero, `r`equired, and words
//! (`go:` a Go type that does not follow from the rest).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use machinery::schema::{Either, Field, List, Map, Omit, Scalar, Struct, Topology, Type, TypeId, Types};

static TYPES: LazyLock<Arc<Types>> = LazyLock::new(|| Arc::new(Loader::load(include_str!("../facts/types.txt"))));

/// All built-in types. Look one up by its swagger name: `types().named("io.k8s.api.core.v1.Pod")`.
pub fn types() -> &'static Types {
    &TYPES
}

/// The same, shared: what the rows of built-in resources hold.
pub fn shared_types() -> Arc<Types> {
    TYPES.clone()
}

/// A name as in the facts tables, in full: `~core.v1.Pod` is `io.k8s.api.core.v1.Pod`.
pub(crate) fn full_name(short: &str) -> String {
    if let Some(rest) = short.strip_prefix('~') {
        return format!("io.k8s.api.{rest}");
    }
    short.strip_prefix('^').map_or_else(|| short.to_owned(), |rest| format!("io.k8s.apimachinery.pkg.apis.meta.v1.{rest}"))
}

struct Source<'a> {
    atomic: bool,
    lines: Vec<&'a str>,
}

/// The inlined structs around a field.
#[derive(Clone)]
struct Within {
    numbers: Vec<u32>,
    names: Vec<String>,
    in_proto: bool,
}

struct Loader<'a> {
    types: Types,
    ids: HashMap<String, TypeId>,
    sources: HashMap<String, Source<'a>>,
    /// One id per scalar and per composed type text.
    composed: HashMap<String, TypeId>,
    /// Struct and field, see `make_granular`.
    granular: Vec<(String, String)>,
}

impl<'a> Loader<'a> {
    fn load(text: &'a str) -> Types {
        let mut loader = Loader {
            types: Types::default(),
            ids: HashMap::new(),
            sources: HashMap::new(),
            composed: HashMap::new(),
            granular: Vec::new(),
        };
        let mut order = Vec::new();
        for line in text.lines() {
            if line.starts_with("# ") {
                continue;
            }
            if let Some(head) = line.strip_prefix('#') {
                let (name, atomic) = head.strip_suffix(" atomic").map_or((head, false), |n| (n, true));
                let name = full_name(name);
                let id = loader.types.add(Type::Any);
                loader.ids.insert(name.clone(), id);
                loader.sources.insert(name.clone(), Source { atomic, lines: Vec::new() });
                order.push(name);
            } else if let Some(source) = order.last().and_then(|name| loader.sources.get_mut(name)) {
                source.lines.push(line);
            }
        }
        for name in order {
            let mut fields = Vec::new();
            loader.fields(&name, &Within { numbers: Vec::new(), names: Vec::new(), in_proto: true }, &mut fields);
            // Read for ever, never added to.
            fields.shrink_to_fit();
            let atomic = loader.sources.get(&name).is_some_and(|s| s.atomic);
            let id = loader.ids[&name];
            loader.types.set(id, Type::Struct(Struct { name, fields, atomic, ..Struct::default() }));
        }
        loader.make_granular();
        loader.types
    }

    fn fields(&mut self, name: &str, within: &Within, out: &mut Vec<Field>) {
        let lines = self.sources.get(name).map(|s| s.lines.clone()).unwrap_or_default();
        let package = name.rsplit_once('.').map_or("", |(p, _)| p);
        for line in lines {
            let mut cells = line.split('\t');
            let mut cell = || cells.next().unwrap_or("");
            let (json, go, ty, flags) = (cell(), cell(), cell(), cell());
            let mut field = Field { name: json.to_owned(), go_name: go_name(json, go), ..Field::default() };
            let mut list = (Topology::Atomic, false);
            flag_words(&mut field, &mut list, flags);
            if json == "<" {
                let inner = struct_name(ty.trim_start_matches('@'), package);
                let mut inside = within.clone();
                inside.numbers.extend((field.proto != 0).then_some(field.proto));
                inside.names.push(field.go_name);
                // TypeMeta travels in the envelope, not in the message.
                inside.in_proto &= !inner.ends_with(".TypeMeta");
                self.fields(&inner, &inside, out);
                continue;
            }
            if !within.in_proto {
                field.proto = 0;
            }
            field.proto_within = within.numbers.as_slice().into();
            field.go_within = within.names.as_slice().into();
            if field.go_type.is_empty() {
                field.go_type = go_type(ty, package);
            }
            if flags.split(' ').any(|w| w == "granular") {
                self.granular.push((name.to_owned(), field.name.clone()));
            }
            field.ty = self.type_of(ty, package, list);
            // A field of the outer struct hides one of an inlined struct, as in Go.
            match out.iter_mut().find(|f| f.name == field.name) {
                Some(hidden) if hidden.go_within.len() > within.names.len() => *hidden = field,
                Some(_) => {}
                None => out.push(field),
            }
        }
    }

    /// A field may say that its atomic struct is not atomic there: it gets a type of its own.
    fn make_granular(&mut self) {
        for (owner, name) in std::mem::take(&mut self.granular) {
            let Some(owner) = self.ids.get(&owner).copied() else { continue };
            let Some(mut changed) = self.types.get(owner).as_struct().cloned() else { continue };
            for field in changed.fields.iter_mut().filter(|f| f.name == name) {
                if let Some(inner) = self.types.get(field.ty).as_struct().cloned() {
                    field.ty = self.types.add(Type::Struct(Struct { atomic: false, ..inner }));
                }
            }
            self.types.set(owner, Type::Struct(changed));
        }
    }

    fn type_of(&mut self, text: &str, package: &str, (topology, atomic_map): (Topology, bool)) -> TypeId {
        let first = text.chars().next().unwrap_or('*');
        let rest = text.get(1..).unwrap_or("");
        if first == '@' {
            return self.ids.get(&struct_name(rest, package)).copied().unwrap_or_else(|| self.compose("*".to_owned(), Type::Any));
        }
        let made = match first {
            '[' | '(' => {
                let elem = self.type_of(rest, package, (Topology::Atomic, false));
                Type::List(List { elem, topology: topology.clone(), wrapped: first == '(' })
            }
            '{' => Type::Map(Map { elem: self.type_of(rest, package, (Topology::Atomic, false)), atomic: atomic_map }),
            '|' => {
                let schema = format!("{package}.JSONSchemaProps");
                let id = self.ids.get(&schema).copied().unwrap_or_default();
                Type::Either(match rest {
                    "a" => Either::SchemaOrArray(id),
                    "b" => Either::SchemaOrBool(id),
                    _ => Either::SchemaOrStrings(id),
                })
            }
            c => scalar(c).map_or(Type::Any, Type::Scalar),
        };
        let key = match &made {
            Type::List(l) => format!("[{} {topology:?} {}", l.elem.0, l.wrapped),
            Type::Map(m) => format!("{{{} {atomic_map}", m.elem.0),
            Type::Scalar(_) => text.get(..1).unwrap_or("").to_owned(),
            _ => text.to_owned(),
        };
        self.compose(key, made)
    }

    fn compose(&mut self, key: String, ty: Type) -> TypeId {
        if let Some(id) = self.composed.get(&key) {
            return *id;
        }
        let id = self.types.add(ty);
        self.composed.insert(key, id);
        id
    }
}

fn struct_name(text: &str, package: &str) -> String {
    if text.starts_with(['~', '^']) || text.contains('.') { full_name(text) } else { format!("{package}.{text}") }
}

fn go_name(json: &str, go: &str) -> String {
    if !go.is_empty() {
        return go.to_owned();
    }
    let mut name = json.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    name
}

/// The Go name of a named scalar: `sPullPolicy` in package `io.k8s.api.core.v1` is `v1.PullPolicy`.
fn go_type(ty: &str, package: &str) -> String {
    let scalar = ty.trim_start_matches(['[', '{', '(']);
    match scalar.get(1..) {
        Some("UID") => "types.UID".to_owned(),
        Some(name) if !name.is_empty() && !scalar.starts_with(['@', '|']) => {
            format!("{}.{name}", package.rsplit('.').next().unwrap_or(""))
        }
        _ => String::new(),
    }
}

fn scalar(c: char) -> Option<Scalar> {
    Some(match c {
        's' => Scalar::String,
        'b' => Scalar::Bool,
        'i' => Scalar::Int32,
        'l' => Scalar::Int64,
        'w' => Scalar::Uint32,
        'x' => Scalar::Uint64,
        'f' => Scalar::Float32,
        'd' => Scalar::Float64,
        'y' => Scalar::Bytes,
        'q' => Scalar::Quantity,
        'o' => Scalar::IntOrString,
        't' => Scalar::Time,
        'u' => Scalar::MicroTime,
        'D' => Scalar::Duration,
        'F' => Scalar::FieldsV1,
        _ => return None,
    })
}

fn flag_words(field: &mut Field, list: &mut (Topology, bool), flags: &str) {
    // A default may hold spaces; it comes last.
    let (flags, default) = flags.split_once("default:").map_or((flags, None), |(f, d)| (f, Some(d)));
    field.default = default.and_then(|d| serde_json::from_str(d).ok());
    for word in flags.split(' ').filter(|w| !w.is_empty()) {
        if let Ok(number) = word.parse() {
            field.proto = number;
        } else if let Some(keys) = word.strip_prefix("map:") {
            list.0 = Topology::Map(keys.split(',').map(str::to_owned).collect());
        } else if let Some(name) = word.strip_prefix("go:") {
            name.clone_into(&mut field.go_type);
        } else if let Some(key) = word.strip_prefix("merge:") {
            field.patch_merge = true;
            key.clone_into(&mut field.merge_key);
        } else {
            match word {
                "set" => list.0 = Topology::Set,
                "atomic" => list.1 = true,
                "retain" => field.patch_retain_keys = true,
                "granular" => {}
                letters => flag_letters(field, letters),
            }
        }
    }
}

fn flag_letters(field: &mut Field, letters: &str) {
    for letter in letters.chars() {
        match letter {
            'p' => field.pointer = true,
            'r' => field.required = true,
            'z' => field.omit = Omit::Zero,
            'e' if field.omit == Omit::Never => field.omit = Omit::Empty,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> &'static Struct {
        match types().get(types().named(name).unwrap()) {
            Type::Struct(s) => s,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn inlined_structs_are_flattened_and_keep_their_message() {
        let volume = of("io.k8s.api.core.v1.Volume");
        let empty_dir = volume.field("emptyDir").unwrap();
        assert_eq!((&*empty_dir.proto_within, empty_dir.proto, empty_dir.pointer), (&[2][..], 2, true));
        let rule = of("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations");
        assert_eq!(&*rule.field("apiGroups").unwrap().proto_within, &[2, 2]);
        assert_eq!(of("io.k8s.api.core.v1.Pod").field("kind").unwrap().proto, 0);
    }

    #[test]
    fn lists_know_how_they_merge() {
        let container = of("io.k8s.api.core.v1.Container");
        let ports = container.field("ports").unwrap();
        assert!(ports.patch_merge);
        assert_eq!(ports.merge_key, "containerPort");
        let Type::List(list) = types().get(ports.ty) else { panic!("not a list") };
        assert_eq!(list.topology, Topology::Map(vec!["containerPort".into(), "protocol".into()]));
        let port = of("io.k8s.api.core.v1.ContainerPort").field("protocol").unwrap();
        assert_eq!(port.default, Some("TCP".into()));
        assert_eq!(of("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").field("creationTimestamp").unwrap().omit, Omit::Zero);
    }
}
