//! What calls are estimated to cost, and how large their results get.

use crate::ast::{Expr, Literal, Node};
use crate::budget::Estimate;
use crate::cost::{Arg, Coster, EntrySize, UNKNOWN};
use crate::eval::costs::{LIST, PER_CHAR, PER_REGEX_CHAR, selector, times};
use crate::library::regex_size;
use crate::types::Type;

struct CallCost {
    cost: Estimate,
    /// Of the result.
    size: Option<Estimate>,
}

impl From<Estimate> for CallCost {
    fn from(cost: Estimate) -> Self {
        Self { cost, size: None }
    }
}

impl Coster<'_> {
    pub(super) fn call(&mut self, expr: &Expr) -> Estimate {
        let Node::Call { target, args, .. } = &expr.node else { return Estimate::fixed(0) };
        let Some(info) = self.found.calls.get(&expr.id).cloned() else { return Estimate::fixed(0) };
        if info.function.name == "dyn"
            && let [arg] = args.as_slice()
        {
            let cost = self.cost(arg).plus(Estimate::fixed(1));
            self.copy_sizes(expr, arg);
            return cost;
        }
        let (mut costs, mut known) = (Vec::new(), Vec::new());
        for arg in args {
            costs.push(self.cost(arg));
            known.push(self.arg(arg));
        }
        let mut sum = Estimate::fixed(0);
        // A namespace is a target to upstream's estimates too, though it is no argument.
        let target = match target {
            Some(target) if info.namespaced => {
                sum = sum.plus(self.cost(target));
                None
            }
            Some(target) => {
                sum = sum.plus(self.cost(target));
                Some(self.arg(target))
            }
            None => None,
        };
        let (mut cost, mut size) = (Estimate { min: u64::MAX, max: 0 }, None);
        for overload in &info.overloads {
            let one = self.one(expr, info.function.name, overload, target.as_ref(), &known, &costs);
            cost = cost.union(one.cost);
            size = match (size, one.size) {
                (Some(a), Some(b)) => Some(Estimate::union(a, b)),
                (a, b) => a.or(b),
            };
            if let ("index_list" | "index_map", [operand, _]) = (*overload, args.as_slice()) {
                size = self.entry_size(operand).map(|e| e.value);
                let mut path = self.path(operand);
                path.push(if *overload == "index_list" { "@items" } else { "@values" }.to_owned());
                self.paths.insert(expr.id, path);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.computed.insert(expr.id, size);
        }
        sum.plus(cost)
    }

    fn one(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Arg<'_>>,
        args: &[Arg<'_>],
        costs: &[Estimate],
    ) -> CallCost {
        let spent = costs.iter().fold(Estimate::fixed(0), |a, b| a.plus(*b));
        let found = self.of_lists(function, overload, target, args);
        if let Some(found) = found.or_else(|| self.of_library(function, overload, target, args)) {
            return CallCost { cost: found.cost.plus(spent), size: found.size };
        }
        match (overload, costs) {
            ("logical_or" | "logical_and", [left, right]) => Estimate { min: left.min, max: left.plus(*right).max }.into(),
            ("conditional", [condition, yes, no]) => {
                let [_, a, b] = args else { return spent.into() };
                let size = or_unknown(a).union(or_unknown(b));
                if let (Some(a), Some(b)) = (self.entry_size(a.expr), self.entry_size(b.expr)) {
                    self.entries.insert(expr.id, union(a, b));
                }
                CallCost { cost: condition.plus(yes.union(*no)), size: Some(size) }
            }
            ("add_string" | "add_bytes" | "add_list", _) => {
                let [a, b] = args else { return spent.into() };
                let size = or_unknown(a).plus(or_unknown(b));
                if let (Some(a), Some(b)) = (self.entry_size(a.expr), self.entry_size(b.expr)) {
                    self.entries.insert(expr.id, union(a, b));
                }
                let cost = if overload == "add_list" { Estimate::fixed(1) } else { size.scaled(PER_CHAR) };
                CallCost { cost: cost.plus(spent), size: Some(size) }
            }
            _ => {
                let found = of_standard(overload, target, args);
                CallCost { cost: found.cost.plus(spent), size: found.size }
            }
        }
    }

    /// The size of an argument, by what the caller knows of inputs if need be.
    fn size_of(&self, arg: &Arg<'_>) -> Estimate {
        arg.size.or_else(|| self.known(&arg.path)).unwrap_or(UNKNOWN)
    }

    /// Of a list's elements.
    fn element_size(&self, list: &Arg<'_>) -> Estimate {
        if list.path.is_empty() {
            return UNKNOWN;
        }
        let mut path = list.path.clone();
        path.push("@items".to_owned());
        self.known(&path).unwrap_or(UNKNOWN)
    }

    /// The extension of lists: of what is made, or of all pairs where items are compared.
    fn of_lists(&self, function: &str, overload: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> Option<CallCost> {
        let made = |factor: f64, size: Estimate| {
            let cost = size.scaled(factor).plus(Estimate::fixed(1 + LIST));
            Some(CallCost { cost, size: Some(size) })
        };
        let pairs = |list: &Arg<'_>| {
            let size = self.size_of(list);
            let texts = overload.contains("_string_") || overload.contains("_bytes_");
            made(if texts { 2.0 + PER_CHAR } else { 2.0 }, size.by(size))
        };
        let number = |arg: Option<&Arg<'_>>| match arg.map(|a| &a.expr.node) {
            Some(Node::Literal(Literal::Int(n))) => Some(u64::try_from(*n).unwrap_or(0)),
            _ => None,
        };
        match function {
            "slice" => {
                let size = self.size_of(target?);
                let (from, to) = (number(args.first()).unwrap_or(0), number(args.get(1)).unwrap_or(size.max));
                made(1.0, Estimate::fixed(to.wrapping_sub(from)))
            }
            "lists.range" => made(1.0, Estimate::fixed(number(args.first()).unwrap_or(u64::MAX))),
            "reverse" => made(1.0, self.size_of(target?)),
            "flatten" => {
                let depth = if args.is_empty() { 1 } else { number(args.first()).unwrap_or(u64::MAX) };
                made(depth as f64, self.size_of(target?))
            }
            "distinct" | "sort" => pairs(target?),
            "@sortByAssociatedKeys" => pairs(args.first()?),
            _ => None,
        }
    }

    fn of_library(&self, function: &str, overload: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> Option<CallCost> {
        let one = Some(Estimate::fixed(1).into());
        let first = args.first();
        let walk = |arg: &Arg<'_>| self.size_of(arg).scaled(PER_CHAR);
        match function {
            "check" => Some(Estimate::fixed(350_000).into()),
            "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed" | "reason" | "error"
            | "errored" => one,
            "fieldSelector" | "labelSelector" => {
                let length = self.size_of(first?);
                Some(Estimate { min: selector(length.min), max: selector(length.max) }.into())
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => Some(self.over_list(target?)),
            "url" | "jsonpatch.escapeKey" => {
                let first = first?;
                Some(CallCost { cost: walk(first), size: Some(self.size_of(first)) })
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let target = target?;
                Some(CallCost { cost: walk(target), size: Some(self.size_of(target)) })
            }
            "replace" => Some(self.replace(target?, args)),
            "split" => Some(self.split(target?, args)),
            "join" => Some(self.join(target?, first)),
            "find" | "findAll" => {
                let size = self.size_of(target?);
                let pattern = self.size_of(first?).scaled(PER_REGEX_CHAR);
                let cost = size.plus(Estimate::fixed(1)).scaled(PER_CHAR).by(pattern);
                Some(CallCost { cost, size: Some(Estimate { min: 0, max: size.max }) })
            }
            "ip" if overload == "cidr_ip" => one,
            "ip" | "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => Some(walk(first?).into()),
            "ip.isCanonical" => Some(self.size_of(first?).scaled(2.0 * PER_CHAR).into()),
            "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast" => one,
            "containsIP" | "containsCIDR" => Some(self.contains(function, overload, first?)),
            "sign" | "asInteger" | "isInteger" | "asApproximateFloat" | "isGreaterThan" | "isLessThan" | "compareTo" | "add" | "sub"
            | "major" | "minor" | "patch" | "format.named" => one,
            "validate" => {
                let text = self.size_of(first?).plus(Estimate::fixed(1)).scaled(PER_CHAR);
                Some(text.by(Estimate::fixed(times(regex_size("uri"), PER_REGEX_CHAR))).into())
            }
            "sets.contains" | "sets.intersects" | "sets.equivalent" => {
                let product = self.size_of(first?).by(self.size_of(args.get(1)?));
                let factor = if function == "sets.equivalent" { 2 } else { 1 };
                Some(product.by(Estimate::fixed(factor)).plus(Estimate::fixed(1)).into())
            }
            "_==_" if args.iter().all(|a| matches!(a.of, Type::Opaque(name) if name != crate::opaque::names::URL)) => one,
            _ => None,
        }
    }

    fn over_list(&self, target: &Arg<'_>) -> CallCost {
        let size = self.size_of(target);
        let Type::List(list) = &target.of else { return size.scaled(PER_CHAR).into() };
        let element = match list.elem {
            Type::String | Type::Bytes => Estimate::fixed(1).plus(self.element_size(target).scaled(PER_CHAR)),
            _ => Estimate::fixed(1),
        };
        size.by(element).into()
    }

    fn replace(&self, target: &Arg<'_>, args: &[Arg<'_>]) -> CallCost {
        let size = self.size_of(target);
        let (Some(from), Some(to)) = (args.first().map(|a| self.size_of(a)), args.get(1).map(|a| self.size_of(a))) else {
            return Estimate::fixed(1).into();
        };
        let ceil = |a: u64, b: u64| (a as f64 / b as f64).ceil() as u64;
        let (most, most_kept) = match from.min {
            0 => (size.max.saturating_add(1), size.max),
            n if to.max <= n => (0, size.max),
            n => (ceil(size.max, n), 0),
        };
        let (least, least_kept) = match from.max {
            0 => (size.min.saturating_add(1), size.min),
            n if n <= to.min => (0, size.min),
            n => (ceil(size.min, n), 0),
        };
        let result = Estimate { min: least, max: most }.by(to).plus(Estimate { min: least_kept, max: most_kept });
        CallCost { cost: size.scaled(2.0 * PER_CHAR), size: Some(result) }
    }

    fn split(&self, target: &Arg<'_>, args: &[Arg<'_>]) -> CallCost {
        let size = self.size_of(target);
        let limit = match args.get(1).map(|a| &a.expr.node) {
            Some(Node::Literal(Literal::Int(n))) => u64::try_from(*n).unwrap_or(size.max),
            _ => size.max,
        };
        CallCost { cost: size.scaled(2.0 * PER_CHAR), size: Some(Estimate { min: 0, max: limit }) }
    }

    fn join(&self, target: &Arg<'_>, separator: Option<&Arg<'_>>) -> CallCost {
        let list = self.size_of(target);
        let mut size = list.by(self.element_size(target));
        if let Some(separator) = separator {
            let gaps = Estimate { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
            size = size.plus(self.size_of(separator).by(gaps));
        }
        CallCost { cost: size.scaled(PER_CHAR), size: Some(size) }
    }

    fn contains(&self, function: &str, overload: &str, other: &Arg<'_>) -> CallCost {
        let address = Estimate { min: 4, max: 16 };
        let mut cost = address.plus(address).scaled(PER_CHAR);
        if function == "containsCIDR" {
            cost = cost.plus(address.scaled(PER_CHAR)).plus(Estimate::fixed(1));
        }
        if overload.ends_with("_string") {
            cost = cost.plus(self.size_of(other).scaled(PER_CHAR));
        }
        cost.into()
    }
}

fn or_unknown(arg: &Arg<'_>) -> Estimate {
    arg.size.unwrap_or(UNKNOWN)
}

fn union(a: EntrySize, b: EntrySize) -> EntrySize {
    EntrySize { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) }
}

fn of_standard(overload: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> CallCost {
    let at = |i: usize| args.get(i).map_or(UNKNOWN, or_unknown);
    let target_size = target.map_or(UNKNOWN, or_unknown);
    match overload {
        "string_to_bytes" => {
            let size = Estimate { min: at(0).min, max: at(0).max.saturating_mul(4) };
            CallCost { cost: at(0).scaled(PER_CHAR), size: Some(size) }
        }
        "bytes_to_string" => CallCost { cost: at(0).scaled(PER_CHAR), size: Some(Estimate { min: at(0).min / 4, max: at(0).max }) },
        "strings_quote" => {
            let size = Estimate { min: at(0).min.saturating_add(2), max: at(0).max.saturating_mul(2).saturating_add(2) };
            CallCost { cost: at(0).scaled(PER_CHAR), size: Some(size) }
        }
        "string_format" => target_size.scaled(PER_CHAR).into(),
        "starts_with_string" | "ends_with_string" => at(0).scaled(PER_CHAR).into(),
        "in_list" => at(1).into(),
        "matches_string" => target_size.plus(Estimate::fixed(1)).scaled(PER_CHAR).by(at(0).scaled(PER_REGEX_CHAR)).into(),
        "contains_string" => target_size.scaled(PER_CHAR).by(at(0).scaled(PER_CHAR)).into(),
        _ if crate::library::compares_contents(overload) => {
            let max = at(0).max.min(at(1).max);
            Estimate { min: u64::from(max > 0), max }.scaled(PER_CHAR).into()
        }
        _ => Estimate::fixed(1).into(),
    }
}
