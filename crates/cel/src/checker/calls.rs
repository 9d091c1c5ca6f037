//! Calls: which overloads fit the arguments.

use crate::ast::{Expr, Literal, Node};
use crate::checker::{CallInfo, Checker};
use crate::decls::{self, Function};
use crate::types::Type;
use crate::unify::Unifier;

impl Checker<'_, '_, '_> {
    pub(super) fn call(&mut self, expr: &Expr, function: &str, target: Option<&Expr>, args: &[Expr]) {
        if function == "_?._" {
            return self.optional_select(expr, args);
        }
        for arg in args {
            self.check(arg);
        }
        let Some(target) = target else {
            let name = function.strip_prefix('.').unwrap_or(function);
            return match decls::function(name) {
                Some(found) => self.resolve(expr, found, None, args, false),
                None => self.undeclared(expr, function),
            };
        };
        if let Some(name) = target.qualified_name()
            && !self.scopes.iter().any(|(local, _)| **local == *name)
            && let Some(found) = self.function(&format!("{}.{function}", name.strip_prefix('.').unwrap_or(&name)))
        {
            return self.resolve(expr, found, None, args, true);
        }
        self.check(target);
        match decls::function(function) {
            Some(found) => self.resolve(expr, found, Some(target), args, false),
            None => self.undeclared(expr, function),
        }
    }

    /// Mutations have a library of their own.
    fn function(&self, name: &str) -> Option<&'static Function> {
        decls::function(name).filter(|_| self.env.mutation || !name.starts_with("jsonpatch."))
    }

    fn undeclared(&mut self, expr: &Expr, name: &str) {
        self.report(expr.at, format!("undeclared reference to '{name}' (in container '')"));
        self.set(expr, Type::Error);
    }

    fn optional_select(&mut self, expr: &Expr, args: &[Expr]) {
        let [operand, field] = args else { return };
        self.check(operand);
        self.check(field);
        let Node::Literal(Literal::String(name)) = &field.node else {
            self.report(field.at, "unsupported optional field selection".to_owned());
            return;
        };
        let of = self.field_of(expr, operand, name, true);
        self.set(expr, of);
        if let Some(function) = decls::function("_?._") {
            self.found.calls.insert(expr.id, CallInfo { function, overloads: vec!["select_optional_field"], namespaced: false });
        }
    }

    fn resolve(&mut self, expr: &Expr, function: &'static Function, target: Option<&Expr>, args: &[Expr], namespaced: bool) {
        let given: Vec<Type> = target.into_iter().chain(args).map(|a| self.type_of(a)).collect();
        let mut result: Option<Type> = None;
        let mut fitting = Vec::new();
        for overload in function.overloads.iter().filter(|o| o.member == target.is_some()) {
            let base = self.unifier.reserve(overload.type_params);
            let wanted: Vec<Type> = overload.params.iter().map(|p| Unifier::instantiate(p, base)).collect();
            if !self.unifier.all_assignable(&given, &wanted) {
                continue;
            }
            fitting.push(overload.id);
            let of = self.unifier.resolve(&Unifier::instantiate(&overload.result, base), false);
            result = Some(match result {
                None => of,
                Some(previous) if previous == of => of,
                Some(_) => Type::Dyn,
            });
        }
        let Some(of) = result else {
            let shown: Vec<String> = given.iter().map(|t| self.shown(t).to_string()).collect();
            let signature = match (target, shown.split_first()) {
                (Some(_), Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            self.report(expr.at, format!("found no matching overload for '{}' applied to '{signature}'", function.name));
            self.set(expr, Type::Error);
            return;
        };
        self.set(expr, of);
        self.found.calls.insert(expr.id, CallInfo { function, overloads: fitting, namespaced });
    }
}
