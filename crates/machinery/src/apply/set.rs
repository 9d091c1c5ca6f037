//! Sets of field paths, kept as the JSON tree of `FieldsV1` itself: `{"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}`.
//! A node without children, or with a `.`, is a member. So reading and writing `managedFields` costs nothing.

use serde_json::{Map, Value};

/// The children of a node: path element to node.
pub type Set = Map<String, Value>;

const SELF: &str = ".";

/// A node being built.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub member: bool,
    pub children: Set,
}

impl Node {
    fn of(value: &Value) -> Self {
        let Value::Object(map) = value else { return Self { member: true, children: Set::new() } };
        let mut children = map.clone();
        let member = map.is_empty() || children.remove(SELF).is_some();
        Self { member, children }
    }

    /// `None` for a node that is no member and has none below.
    pub fn into_value(self) -> Option<Value> {
        let Self { member, mut children } = self;
        if children.is_empty() {
            return member.then(|| Value::Object(Set::new()));
        }
        if member {
            children.insert(SELF.to_owned(), Value::Object(Set::new()));
        }
        Some(Value::Object(children))
    }

    /// Puts a child in, if there is anything in it.
    pub fn attach(&mut self, element: &str, child: Node) {
        if let Some(value) = child.into_value() {
            self.children.insert(element.to_owned(), value);
        }
    }
}

pub(super) fn is_member(node: &Value) -> bool {
    node.as_object().is_none_or(|m| m.is_empty() || m.contains_key(SELF))
}

/// The children of a node, without the mark of membership.
pub(super) fn children(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node.as_object().into_iter().flatten().filter(|(k, _)| *k != SELF)
}

pub(super) fn has_children(node: &Value) -> bool {
    children(node).next().is_some()
}

/// Everything in either.
pub(super) fn union(a: &Set, b: &Set) -> Set {
    let mut out = a.clone();
    add(&mut out, b);
    out
}

/// Makes `set` the union of both. In place: a write touches a few paths of sets with hundreds.
pub(super) fn add(set: &mut Set, more: &Set) {
    for (key, node) in more {
        match set.get_mut(key) {
            None => drop(set.insert(key.clone(), node.clone())),
            Some(mine) => join(mine, node),
        }
    }
}

fn join(mine: &mut Value, other: &Value) {
    let member = is_member(mine) || is_member(other);
    if !mine.is_object() {
        *mine = Value::Object(Set::new());
    }
    let Value::Object(map) = mine else { return };
    for (key, node) in children(other) {
        match map.get_mut(key) {
            None => drop(map.insert(key.clone(), node.clone())),
            Some(below) => join(below, node),
        }
    }
    mark(map, member);
}

/// Notes membership in the one form there is for it.
fn mark(map: &mut Set, member: bool) {
    let (marked, has_children) = (map.contains_key(SELF), map.keys().any(|k| k != SELF));
    if member && has_children && !marked {
        map.insert(SELF.to_owned(), Value::Object(Set::new()));
    } else if marked && !(member && has_children) {
        map.remove(SELF);
    }
}

/// Members of `a` that are no members of `b`.
pub(super) fn difference(a: &Set, b: &Set) -> Set {
    let mut out = a.clone();
    subtract(&mut out, b);
    out
}

/// Takes the members of `less` out of `set`, in place.
pub(super) fn subtract(set: &mut Set, less: &Set) {
    for (key, node) in less.iter().filter(|(k, _)| *k != SELF) {
        if set.get_mut(key).is_some_and(|mine| !keeps_any(mine, node)) {
            set.remove(key);
        }
    }
}

fn keeps_any(mine: &mut Value, less: &Value) -> bool {
    let member = is_member(mine) && !is_member(less);
    if !mine.is_object() {
        *mine = Value::Object(Set::new());
    }
    let Value::Object(map) = mine else { return member };
    if let Some(less) = less.as_object() {
        subtract(map, less);
    }
    mark(map, member);
    member || !map.is_empty()
}

/// Whether they have a member in common.
pub(super) fn intersects(a: &Set, b: &Set) -> bool {
    a.iter().filter(|(k, _)| *k != SELF).any(|(key, node)| {
        let Some(other) = b.get(key) else { return false };
        (is_member(node) && is_member(other))
            || node.as_object().zip(other.as_object()).is_some_and(|(below, other)| intersects(below, other))
    })
}

/// Whether the set is written in the one form there is for it: members without children are empty, marks stand beside children.
pub(super) fn is_canonical(set: &Set) -> bool {
    let node = |node: &Value| match node {
        Value::Object(map) => match map.get(SELF) {
            Some(mark) => map.len() > 1 && mark.as_object().is_some_and(Set::is_empty) && is_canonical(map),
            None => is_canonical(map),
        },
        _ => false,
    };
    set.iter().all(|(key, value)| key == SELF || node(value))
}

/// Whether all members of `a` are members of `b`.
pub(super) fn is_subset(a: &Set, b: &Set) -> bool {
    a.iter().filter(|(k, _)| *k != SELF).all(|(key, node)| {
        let Some(other) = b.get(key) else { return false };
        (!is_member(node) || is_member(other))
            && node.as_object().is_none_or(|below| !has_children(node) || other.as_object().is_some_and(|other| is_subset(below, other)))
    })
}

/// Members of both.
pub(super) fn intersection(a: &Set, b: &Set) -> Set {
    let mut out = Set::new();
    for (key, node) in a {
        let Some(other) = b.get(key) else { continue };
        let (x, y) = (Node::of(node), Node::of(other));
        let both = Node { member: x.member && y.member, children: intersection(&x.children, &y.children) };
        if let Some(value) = both.into_value() {
            out.insert(key.clone(), value);
        }
    }
    out
}

/// Takes out the dotted paths (`spec`, `metadata.labels`) with everything below them.
pub(super) fn exclude(set: &mut Set, paths: &[String]) {
    for path in paths {
        exclude_one(set, path);
    }
}

fn exclude_one(set: &mut Set, path: &str) {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let key = format!("f:{name}");
    if rest.is_empty() {
        set.remove(&key);
        return;
    }
    let Some(Value::Object(below)) = set.get_mut(&key) else { return };
    if below.is_empty() {
        return;
    }
    exclude_one(below, rest);
    if below.is_empty() {
        set.remove(&key);
    }
}

/// Takes out the exact members given as dotted paths; what is below them stays.
pub(super) fn strip(set: &mut Set, paths: &[&str]) {
    for path in paths {
        strip_one(set, path);
    }
}

fn strip_one(set: &mut Set, path: &str) {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let key = format!("f:{name}");
    let Some(Value::Object(node)) = set.get_mut(&key) else { return };
    if !rest.is_empty() {
        if !node.is_empty() {
            strip_one(node, rest);
            if node.is_empty() {
                set.remove(&key);
            }
        }
        return;
    }
    node.remove(SELF);
    if node.is_empty() {
        set.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(v: Value) -> Set {
        v.as_object().unwrap().clone()
    }

    #[test]
    fn sets_keep_members_apart_from_what_is_below() {
        let a = set(json!({"f:a": {}, "f:b": {"f:c": {}}}));
        let b = set(json!({"f:a": {"f:x": {}}, "f:b": {}}));
        assert_eq!(Value::Object(union(&a, &b)), json!({"f:a": {".": {}, "f:x": {}}, "f:b": {".": {}, "f:c": {}}}));
        assert_eq!(
            Value::Object(difference(&a, &b)),
            json!({"f:a": {}, "f:b": {"f:c": {}}}).as_object().map(|_| json!({"f:a": {}, "f:b": {"f:c": {}}})).unwrap()
        );
        assert_eq!(Value::Object(intersection(&union(&a, &b), &a)), json!({"f:a": {}, "f:b": {"f:c": {}}}));
    }

    fn any_set() -> impl Strategy<Value = Set> {
        let leaf = Just(json!({})).boxed();
        let node = leaf.prop_recursive(3, 20, 3, |inner| {
            proptest::collection::btree_map("(\\.|f:[a-c])", inner, 0..3)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| if k == "." { (k, json!({})) } else { (k, v) }).collect()))
        });
        proptest::collection::btree_map("f:[a-c]", node, 0..3).prop_map(|m| canonical(&m.into_iter().collect()))
    }

    /// `{"." : {}}` is the same as `{}`.
    fn canonical(set: &Set) -> Set {
        union(&Set::new(), set)
            .into_iter()
            .map(|(k, v)| {
                let node = Node::of(&v);
                let children = canonical(&node.children);
                (k, Node { member: node.member, children }.into_value().unwrap_or_else(|| json!({})))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn laws(a in any_set(), b in any_set()) {
            prop_assert_eq!(union(&a, &b), union(&b, &a));
            prop_assert_eq!(union(&a, &a), a.clone());
            prop_assert!(difference(&a, &a).is_empty());
            prop_assert_eq!(is_subset(&a, &b), difference(&a, &b).is_empty());
            prop_assert!(is_subset(&a, &union(&a, &b)) && is_subset(&intersection(&a, &b), &a));
            prop_assert_eq!(intersection(&a, &b), intersection(&b, &a));
            prop_assert_eq!(intersects(&a, &b), !intersection(&a, &b).is_empty());
            // What need not be done changes nothing: that is why it may be left out.
            prop_assert!(is_canonical(&a) && is_canonical(&b));
            if !intersects(&a, &b) {
                prop_assert_eq!(&difference(&a, &b), &a);
            }
            if is_subset(&b, &a) {
                prop_assert_eq!(&union(&a, &b), &a);
            }
            prop_assert!(is_canonical(&difference(&a, &b)) && is_canonical(&union(&a, &b)));
            prop_assert_eq!(union(&difference(&a, &b), &intersection(&a, &b)), a);
        }
    }
}
