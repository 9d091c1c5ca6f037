//! Types of expressions: every reference resolved, every call matched with its overloads. cel-go's checker and its texts.
//! Called by `Env::compile`.

mod calls;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Expr, FieldInit, Fold, Literal, Node};
use crate::decls::{self, Function};
use crate::env::Env;
use crate::source::Source;
use crate::types::Type;
use crate::unify::{Unifier, more_general};

/// What the checker found out, by expression id.
#[derive(Default)]
pub(crate) struct Findings {
    pub types: Vec<Type>,
    /// Of calls.
    pub calls: BTreeMap<usize, CallInfo>,
    /// Variables and types that identifiers and chains of selections name.
    pub names: BTreeMap<usize, Name>,
}

#[derive(Clone)]
pub(crate) struct CallInfo {
    pub function: &'static Function,
    /// Ids of the overloads that fit.
    pub overloads: Vec<&'static str>,
    /// Whether the target was only the function's namespace.
    pub namespaced: bool,
}

#[derive(Clone)]
pub(crate) enum Name {
    Variable(Arc<str>),
    Type(Type),
}

pub(crate) struct Checker<'e, 's, 't> {
    env: &'e Env,
    source: &'s mut Source<'t>,
    unifier: Unifier,
    scopes: Vec<(Arc<str>, Type)>,
    found: Findings,
}

/// Findings; problems are reported in `source`.
pub(crate) fn check(env: &Env, source: &mut Source<'_>, expr: &Expr, ids: usize) -> Findings {
    let found = Findings { types: vec![Type::Dyn; ids], ..Findings::default() };
    let mut checker = Checker { env, source, unifier: Unifier::default(), scopes: Vec::new(), found };
    checker.check(expr);
    let Checker { unifier, mut found, .. } = checker;
    for of in &mut found.types {
        *of = unifier.resolve(of, true);
    }
    found
}

impl Checker<'_, '_, '_> {
    fn report(&mut self, at: usize, message: String) {
        self.source.report(at, message);
    }

    fn set(&mut self, expr: &Expr, of: Type) {
        self.found.types[expr.id] = of;
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.found.types[expr.id].clone()
    }

    /// A type as errors show it.
    fn shown(&self, of: &Type) -> Type {
        self.unifier.resolve(of, true)
    }

    fn check(&mut self, expr: &Expr) {
        match &expr.node {
            Node::Literal(literal) => self.set(expr, literal_type(literal)),
            Node::Ident(name) => self.ident(expr, name),
            Node::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Node::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Node::List { items, optional } => self.list(expr, items, optional),
            Node::Map(_) => self.map(expr),
            Node::Struct { name, fields } => self.object(expr, name, fields),
            Node::Fold(fold) => self.fold(expr, fold),
            Node::Broken => self.set(expr, Type::Error),
        }
    }

    fn lookup(&self, name: &str) -> Option<(Name, Type)> {
        let (name, absolute) = name.strip_prefix('.').map_or((name, false), |n| (n, true));
        if !absolute && let Some((local, of)) = self.scopes.iter().rev().find(|(n, _)| **n == *name) {
            return Some((Name::Variable(local.clone()), of.clone()));
        }
        if let Some(of) = self.env.variables.get(name) {
            return Some((Name::Variable(name.into()), of.clone()));
        }
        let named = self.named_type(name)?;
        Some((Name::Type(named.clone()), Type::type_of(named)))
    }

    fn named_type(&self, name: &str) -> Option<Type> {
        if self.env.mutation && (name == "JSONPatch" || name == "Object" || name.starts_with("Object.")) {
            return Some(decls::mutation_type(name));
        }
        decls::named_type(name)
    }

    fn ident(&mut self, expr: &Expr, name: &str) {
        match self.lookup(name) {
            Some((what, of)) => {
                self.found.names.insert(expr.id, what);
                self.set(expr, of);
            }
            None => {
                self.report(expr.at, format!("undeclared reference to '{name}' (in container '')"));
                self.set(expr, Type::Error);
            }
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, test: bool) {
        // The whole may be a name with dots; a local variable hides those.
        if !test
            && let Some(name) = expr.qualified_name()
            && !self.scopes.iter().any(|(local, _)| name.split('.').next() == Some(&**local))
            && let Some((what, of)) = self.lookup(&name)
        {
            self.found.names.insert(expr.id, what);
            self.set(expr, of);
            return;
        }
        self.check(operand);
        let of = self.field_of(expr, operand, field, false);
        self.set(expr, if test { Type::Bool } else { self.unifier.resolve(&of, false) });
    }

    fn field_of(&mut self, expr: &Expr, operand: &Expr, field: &str, optional: bool) -> Type {
        let target = self.unifier.resolve(&self.type_of(operand), false);
        let (target, wrapped) = match target {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, false),
        };
        let of = match &target {
            Type::Map(map) => map.value.clone(),
            Type::Object(object) => match self.object_field(object, field) {
                Some(of) => of,
                None => {
                    self.report(expr.at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                // Types of libraries are objects without fields.
                let message = match other {
                    Type::Opaque(name) if name.starts_with("kubernetes.authorization.") => format!("undefined field '{field}'"),
                    _ => format!("type '{}' does not support field selection", self.shown(other)),
                };
                self.report(expr.at, message);
                Type::Dyn
            }
        };
        if wrapped || optional { Type::optional(of) } else { of }
    }

    fn object_field(&self, object: &crate::types::ObjectType, field: &str) -> Option<Type> {
        if let Some(found) = object.fields.get(field) {
            return Some(found.of.clone());
        }
        // Mutations write any field: the result is judged as the object it makes.
        (self.env.mutation && (object.name == "Object" || object.name.starts_with("Object."))).then_some(Type::Dyn)
    }

    /// The type of elements that must be alike.
    fn join(&mut self, at: usize, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.unifier.assignable(&previous, &current) || self.unifier.assignable(&current, &previous) {
            return if more_general(&previous, &current) { previous } else { current };
        }
        let message = format!("expected type '{}' but found '{}'", self.shown(&previous), self.shown(&current));
        self.report(at, message);
        previous
    }

    /// The type inside an element marked `?`.
    fn unwrap_optional(&mut self, expr: &Expr) -> Type {
        match self.unifier.resolve(&self.type_of(expr), false) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                let message = format!("expected type 'optional_type({0})' but found '{0}'", self.shown(&other));
                self.report(expr.at, message);
                other
            }
        }
    }

    fn list(&mut self, expr: &Expr, items: &[Expr], optional: &[bool]) {
        let mut elem = None;
        for (item, optional) in items.iter().zip(optional) {
            self.check(item);
            let of = if *optional { self.unwrap_optional(item) } else { self.type_of(item) };
            elem = Some(self.join(item.at, elem, of));
        }
        let elem = elem.unwrap_or_else(|| self.unifier.fresh());
        self.set(expr, Type::list(elem));
    }

    fn map(&mut self, expr: &Expr) {
        let Node::Map(entries) = &expr.node else { return };
        let (mut key, mut value) = (None, None);
        for entry in entries {
            self.check(&entry.key);
            let of = self.type_of(&entry.key);
            key = Some(self.join(entry.key.at, key, of));
            self.check(&entry.value);
            let of = if entry.optional { self.unwrap_optional(&entry.value) } else { self.type_of(&entry.value) };
            value = Some(self.join(entry.value.at, value, of));
        }
        let (key, value) = match (key, value) {
            (Some(key), Some(value)) => (key, value),
            _ => (self.unifier.fresh(), self.unifier.fresh()),
        };
        self.set(expr, Type::map(key, value));
    }

    fn object(&mut self, expr: &Expr, name: &str, fields: &[FieldInit]) {
        let of = match self.lookup(name) {
            Some((Name::Type(of @ Type::Object(_)), _)) => of,
            Some((Name::Type(of), _)) => {
                self.report(expr.at, format!("'{of}' is not a message type"));
                Type::Error
            }
            Some((Name::Variable(_), of)) => {
                self.report(expr.at, format!("'{of}' is not a type"));
                Type::Error
            }
            None => {
                self.report(expr.at, format!("undeclared reference to '{name}' (in container '')"));
                Type::Error
            }
        };
        for field in fields {
            self.check(&field.value);
            let Type::Object(object) = &of else { continue };
            let Some(wanted) = self.object_field(object, &field.name) else {
                self.report(field.at, format!("undefined field '{}'", field.name));
                continue;
            };
            let given = if field.optional { self.unwrap_optional(&field.value) } else { self.type_of(&field.value) };
            if !self.unifier.assignable(&given, &wanted) {
                let message = format!(
                    "expected type of field '{}' is '{}' but provided type is '{}'",
                    field.name,
                    self.shown(&wanted),
                    self.shown(&given)
                );
                self.report(field.at, message);
            }
        }
        self.set(expr, of);
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) {
        self.check(&fold.range);
        self.check(&fold.init);
        let range = self.unifier.resolve(&self.type_of(&fold.range), false);
        let accu = self.type_of(&fold.init);
        let (first, second) = match &range {
            Type::List(list) if fold.var2.is_some() => (Type::Int, list.elem.clone()),
            Type::List(list) => (list.elem.clone(), Type::Error),
            Type::Map(map) => (map.key.clone(), map.value.clone()),
            Type::Dyn | Type::Error => (Type::Dyn, Type::Dyn),
            Type::Param(_) => {
                self.unifier.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let shown = self.shown(other);
                self.report(
                    fold.range.at,
                    format!("expression of type '{shown}' cannot be range of a comprehension (must be list, map, or dynamic)"),
                );
                (Type::Error, Type::Error)
            }
        };
        let outer = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        let inner = self.scopes.len();
        self.scopes.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.scopes.push((var2.clone(), second));
        }
        self.check(&fold.condition);
        self.demand(&fold.condition, &Type::Bool);
        self.check(&fold.step);
        self.demand(&fold.step, &accu);
        self.scopes.truncate(inner);
        self.check(&fold.result);
        self.scopes.truncate(outer);
        let of = self.unifier.resolve(&self.type_of(&fold.result), false);
        self.set(expr, of);
    }

    fn demand(&mut self, expr: &Expr, wanted: &Type) {
        let given = self.type_of(expr);
        if !self.unifier.assignable(&given, wanted) {
            let message = format!("expected type '{}' but found '{}'", self.shown(wanted), self.shown(&given));
            self.report(expr.at, message);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
