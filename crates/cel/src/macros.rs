//! Macros: calls that stand for loops, presence tests and bindings. Called by the parser, which hands it every call.

use std::sync::Arc;

use crate::ast::{ACCU, Expr, Fold, Literal, Node};
use crate::parser::{Parser, Stop};

type Parsed = Result<Expr, Stop>;

/// The call, or what it stands for. `at` is the opening parenthesis.
pub(crate) fn expand(p: &mut Parser<'_, '_>, at: usize, target: Option<Expr>, function: Arc<str>, args: Vec<Expr>) -> Parsed {
    let Some(target) = target else {
        return if &*function == "has" && args.len() == 1 { has(p, at, args) } else { plain(p, at, None, function, args) };
    };
    let namespace = matches!(&target.node, Node::Ident(name) if &**name == "cel");
    match (&*function, args.len()) {
        ("bind", 3) if namespace && p.bindings => bind(p, at, args),
        ("sortBy", 2) => sort_by(p, at, target, args),
        ("optMap", 2) => optional(p, at, target, args, true),
        ("optFlatMap", 2) => optional(p, at, target, args, false),
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3) => quantifier(p, at, target, &function, args),
        ("map", 2 | 3) | ("filter", 2) => collect(p, at, target, &function, args),
        ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => transform(p, at, target, &function, args),
        _ => plain(p, at, Some(target), function, args),
    }
}

fn plain(p: &mut Parser<'_, '_>, at: usize, target: Option<Expr>, function: Arc<str>, args: Vec<Expr>) -> Parsed {
    Ok(p.node(at, Node::Call { function, target: target.map(Box::new), args }))
}

fn fail<T>(p: &mut Parser<'_, '_>, at: usize, why: &str) -> Result<T, Stop> {
    p.source.report(at, why);
    Err(Stop)
}

fn name(p: &mut Parser<'_, '_>, arg: &Expr, why: &str) -> Result<Arc<str>, Stop> {
    match &arg.node {
        Node::Ident(name) if &**name == "__result__" => fail(p, arg.at, "iteration variable overwrites accumulator variable"),
        Node::Ident(name) if !name.starts_with('.') => Ok(name.clone()),
        _ => fail(p, arg.at, why),
    }
}

fn take<const N: usize>(args: Vec<Expr>) -> Result<[Expr; N], Stop> {
    args.try_into().map_err(|_| Stop)
}

fn has(p: &mut Parser<'_, '_>, at: usize, args: Vec<Expr>) -> Parsed {
    let [arg] = take(args)?;
    match arg.node {
        Node::Select { operand, field, test: false } => Ok(p.node(at, Node::Select { operand, field, test: true })),
        _ => fail(p, arg.at, "invalid argument to has() macro"),
    }
}

fn ident(p: &mut Parser<'_, '_>, at: usize, name: &str) -> Expr {
    p.node(at, Node::Ident(name.into()))
}

fn literal(p: &mut Parser<'_, '_>, at: usize, literal: Literal) -> Expr {
    p.node(at, Node::Literal(literal))
}

fn list(p: &mut Parser<'_, '_>, at: usize, items: Vec<Expr>) -> Expr {
    let optional = vec![false; items.len()];
    p.node(at, Node::List { items, optional })
}

fn quantifier(p: &mut Parser<'_, '_>, at: usize, range: Expr, function: &str, args: Vec<Expr>) -> Parsed {
    let mut args = args.into_iter().rev();
    let predicate = args.next().ok_or(Stop)?;
    let mut vars = Vec::new();
    for arg in args.rev() {
        vars.push(name(p, &arg, "argument must be a simple name")?);
    }
    let accu = ident(p, at, ACCU);
    let (init, condition, step, result);
    match function {
        "all" => {
            init = literal(p, at, Literal::Bool(true));
            condition = p.call(at, "@not_strictly_false", vec![accu]);
            let accu = ident(p, at, ACCU);
            step = p.call(at, "_&&_", vec![accu, predicate]);
            result = ident(p, at, ACCU);
        }
        "exists" => {
            init = literal(p, at, Literal::Bool(false));
            let not = p.call(at, "!_", vec![accu]);
            condition = p.call(at, "@not_strictly_false", vec![not]);
            let accu = ident(p, at, ACCU);
            step = p.call(at, "_||_", vec![accu, predicate]);
            result = ident(p, at, ACCU);
        }
        _ => {
            init = literal(p, at, Literal::Int(0));
            condition = literal(p, at, Literal::Bool(true));
            let one = literal(p, at, Literal::Int(1));
            let plus = p.call(at, "_+_", vec![accu, one]);
            let same = ident(p, at, ACCU);
            step = p.call(at, "_?_:_", vec![predicate, plus, same]);
            let (accu, one) = (ident(p, at, ACCU), literal(p, at, Literal::Int(1)));
            result = p.call(at, "_==_", vec![accu, one]);
        }
    }
    fold(p, at, range, vars, [init, condition, step, result])
}

fn fold(p: &mut Parser<'_, '_>, at: usize, range: Expr, vars: Vec<Arc<str>>, parts: [Expr; 4]) -> Parsed {
    let [init, condition, step, result] = parts;
    let mut vars = vars.into_iter();
    let (var, var2) = (vars.next().ok_or(Stop)?, vars.next());
    if var2.as_ref() == Some(&var) {
        return fail(p, at, &format!("duplicate variable name: {var}"));
    }
    Ok(p.node(at, Node::Fold(Box::new(Fold { range, var, var2, accu: ACCU.into(), init, condition, step, result }))))
}

/// A loop that starts from `init` and steps only where the filter holds.
fn collecting(p: &mut Parser<'_, '_>, at: usize, range: Expr, vars: Vec<Arc<str>>, init: Expr, filter: Option<Expr>, step: Expr) -> Parsed {
    let condition = literal(p, at, Literal::Bool(true));
    let step = match filter {
        Some(filter) => {
            let same = ident(p, at, ACCU);
            p.call(at, "_?_:_", vec![filter, step, same])
        }
        None => step,
    };
    let result = ident(p, at, ACCU);
    fold(p, at, range, vars, [init, condition, step, result])
}

fn collect(p: &mut Parser<'_, '_>, at: usize, range: Expr, function: &str, args: Vec<Expr>) -> Parsed {
    let mut args = args.into_iter();
    let first = args.next().ok_or(Stop)?;
    let var = name(p, &first, "argument is not an identifier")?;
    let last = args.next_back().ok_or(Stop)?;
    let (filter, item) = if function == "filter" { (Some(last), first) } else { (args.next(), last) };
    let init = list(p, at, Vec::new());
    let (accu, one) = (ident(p, at, ACCU), list(p, at, vec![item]));
    let step = p.call(at, "_+_", vec![accu, one]);
    collecting(p, at, range, vec![var], init, filter, step)
}

/// `list.sortBy(e, key)`: the list is named, and sorted by the list of its keys.
fn sort_by(p: &mut Parser<'_, '_>, at: usize, target: Expr, args: Vec<Expr>) -> Parsed {
    if !matches!(target.node, Node::List { .. } | Node::Select { .. } | Node::Ident(_) | Node::Fold(_) | Node::Call { .. }) {
        return fail(p, target.at, "sortBy can only be applied to a list, identifier, comprehension, call or select expression");
    }
    let held = "@__sortBy_input__";
    let range = ident(p, at, held);
    let keys = collect(p, at, range, "map", args)?;
    let list = ident(p, at, held);
    let sorted = p.node(at, Node::Call { function: "@sortByAssociatedKeys".into(), target: Some(Box::new(list)), args: vec![keys] });
    Ok(binding(p, at, held.into(), target, sorted))
}

fn transform(p: &mut Parser<'_, '_>, at: usize, range: Expr, function: &str, args: Vec<Expr>) -> Parsed {
    let mut args = args.into_iter();
    let (first, second) = (args.next().ok_or(Stop)?, args.next().ok_or(Stop)?);
    let var = name(p, &first, "argument must be a simple name")?;
    let var2 = name(p, &second, "argument must be a simple name")?;
    let last = args.next_back().ok_or(Stop)?;
    let filter = args.next();
    let accu = ident(p, at, ACCU);
    let (init, step) = match function {
        "transformList" => {
            let one = list(p, at, vec![last]);
            (list(p, at, Vec::new()), p.call(at, "_+_", vec![accu, one]))
        }
        "transformMap" => {
            let key = ident(p, at, &var);
            (p.node(at, Node::Map(Vec::new())), p.call(at, "cel.@mapInsert", vec![accu, key, last]))
        }
        _ => (p.node(at, Node::Map(Vec::new())), p.call(at, "cel.@mapInsert", vec![accu, last])),
    };
    collecting(p, at, range, vec![var, var2], init, filter, step)
}

fn binding(p: &mut Parser<'_, '_>, at: usize, var: Arc<str>, init: Expr, result: Expr) -> Expr {
    let range = list(p, at, Vec::new());
    let condition = literal(p, at, Literal::Bool(false));
    let step = ident(p, at, &var);
    p.node(at, Node::Fold(Box::new(Fold { range, var: "#unused".into(), var2: None, accu: var, init, condition, step, result })))
}

fn bind(p: &mut Parser<'_, '_>, at: usize, args: Vec<Expr>) -> Parsed {
    let [var, init, result] = take(args)?;
    let var = name(p, &var, "cel.bind() variable names must be simple identifiers")?;
    Ok(binding(p, at, var, init, result))
}

/// `target.optMap(v, e)`: e over the value, if there is one.
fn optional(p: &mut Parser<'_, '_>, at: usize, target: Expr, args: Vec<Expr>, wrap: bool) -> Parsed {
    let [var, body] = take(args)?;
    let why =
        if wrap { "optMap() variable name must be a simple identifier" } else { "optFlatMap() variable name must be a simple identifier" };
    let var = name(p, &var, why)?;
    // The target is named so that it is evaluated once.
    let held = "@target";
    let member = |p: &mut Parser<'_, '_>, function: &str| {
        let target = ident(p, at, held);
        p.node(at, Node::Call { function: function.into(), target: Some(Box::new(target)), args: Vec::new() })
    };
    let (present, value) = (member(p, "hasValue"), member(p, "value"));
    let inner = binding(p, at, var, value, body);
    let inner = if wrap { p.call(at, "optional.of", vec![inner]) } else { inner };
    let none = p.call(at, "optional.none", Vec::new());
    let choice = p.call(at, "_?_:_", vec![present, inner, none]);
    Ok(binding(p, at, held.into(), target, choice))
}
