//! The grammar: tokens to expressions. Input is hostile: size and depth are limited. Called by `Env::compile`.

use std::sync::Arc;

use crate::ast::{Entry, Expr, FieldInit, Literal, Node};
use crate::ident;
use crate::lexer::{self, Lexed, Token};
use crate::macros;
use crate::source::Source;
use crate::unescape;

/// Code points of an expression.
const SIZE_MAX: usize = 100_000;
/// How deep expressions may nest, macros expanded.
const DEPTH_MAX: usize = 250;
/// What may begin an operand, as the grammar lists it.
const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Rank of the relations; below it is logic.
const RELATION: u8 = 2;
/// Operators with their ranks and functions. `in` is a word.
const BINARY: [(&str, u8, &str); 13] = [
    ("||", 0, "_||_"),
    ("&&", 1, "_&&_"),
    ("<", RELATION, "_<_"),
    ("<=", RELATION, "_<=_"),
    (">=", RELATION, "_>=_"),
    (">", RELATION, "_>_"),
    ("==", RELATION, "_==_"),
    ("!=", RELATION, "_!=_"),
    ("+", 3, "_+_"),
    ("-", 3, "_-_"),
    ("*", 4, "_*_"),
    ("/", 4, "_/_"),
    ("%", 4, "_%_"),
];

/// After one of these the rest is not looked at: there is a problem in the source.
pub(crate) struct Stop;
type Parsed<T> = Result<T, Stop>;

pub(crate) struct Parser<'s, 't> {
    pub source: &'s mut Source<'t>,
    tokens: Vec<Lexed>,
    at: usize,
    depth: usize,
    pub ids: usize,
    /// Whether `cel.bind` is a macro.
    pub bindings: bool,
}

/// The expression and how many ids it uses; `None` when problems were reported.
pub(crate) fn parse(source: &mut Source<'_>, bindings: bool) -> Option<(Expr, usize)> {
    let size = source.text().chars().count();
    if size > SIZE_MAX {
        source.report(0, format!("expression code point size exceeds limit: size: {size}, limit {SIZE_MAX}"));
        return None;
    }
    let tokens = lexer::lex(source);
    let mut parser = Parser { source, tokens, at: 0, depth: 0, ids: 0, bindings };
    let parsed = parser.whole();
    let ids = parser.ids;
    match parsed {
        Ok(expr) if !source.failed() => {
            if depth_of(&expr) > DEPTH_MAX * 2 {
                source.report(0, format!("expression recursion limit exceeded: {DEPTH_MAX}"));
                // Dropped here, the tree is no deeper than the parser's own limits let it grow.
                return None;
            }
            Some((expr, ids))
        }
        _ => None,
    }
}

impl Parser<'_, '_> {
    pub fn node(&mut self, at: usize, node: Node) -> Expr {
        self.ids += 1;
        Expr { id: self.ids - 1, at, node }
    }

    pub fn call(&mut self, at: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.node(at, Node::Call { function: function.into(), target: None, args })
    }

    fn current(&self) -> &Lexed {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn is(&self, op: &str) -> bool {
        matches!(&self.current().token, Token::Op(o) if *o == op)
    }

    fn next_is(&self, op: &str) -> bool {
        matches!(self.tokens.get(self.at + 1).map(|t| &t.token), Some(Token::Op(o)) if *o == op)
    }

    fn take(&mut self, op: &str) -> Option<usize> {
        let at = self.current().at;
        self.is(op).then(|| {
            self.at += 1;
            at
        })
    }

    fn stop<T>(&mut self, at: usize, message: String) -> Parsed<T> {
        self.source.report(at, message);
        Err(Stop)
    }

    fn mismatch<T>(&mut self, expecting: &str) -> Parsed<T> {
        let (at, text) = (self.current().at, self.current().text.clone());
        self.stop(at, format!("Syntax error: mismatched input '{text}' expecting {expecting}"))
    }

    /// A closing token; as the generated parser does, errors tell a missing one from one too many.
    fn close(&mut self, op: &str) -> Parsed<()> {
        if self.take(op).is_some() {
            return Ok(());
        }
        let (at, text) = (self.current().at, self.current().text.clone());
        let next_closes = self.next_is(op);
        if next_closes {
            self.stop(at, format!("Syntax error: extraneous input '{text}' expecting '{op}'"))
        } else if matches!(self.current().token, Token::End) {
            self.stop(at, format!("Syntax error: missing '{op}' at '{text}'"))
        } else {
            self.stop(at, format!("Syntax error: mismatched input '{text}' expecting '{op}'"))
        }
    }

    fn whole(&mut self) -> Parsed<Expr> {
        let expr = self.expr()?;
        if matches!(self.current().token, Token::End) {
            return Ok(expr);
        }
        let last = matches!(self.tokens.get(self.at + 1).map(|t| &t.token), Some(Token::End));
        let (at, text) = (self.current().at, self.current().text.clone());
        let kind = if last { "extraneous" } else { "mismatched" };
        self.stop(at, format!("Syntax error: {kind} input '{text}' expecting <EOF>"))
    }

    pub fn expr(&mut self) -> Parsed<Expr> {
        let depth = self.depth;
        self.descend(self.current().at)?;
        let condition = self.binary(0)?;
        let out = match self.take("?") {
            None => condition,
            Some(at) => {
                let yes = self.binary(0)?;
                self.close(":")?;
                let no = self.expr()?;
                self.call(at, "_?_:_", vec![condition, yes, no])
            }
        };
        self.depth = depth;
        Ok(out)
    }

    fn balance(&mut self, function: &str, terms: &mut [Option<Expr>], ats: &[usize]) -> Expr {
        if let [one] = terms {
            return one.take().unwrap_or(Expr { id: 0, at: 0, node: Node::Broken });
        }
        let mid = ats.len() / 2;
        let (left, right) = terms.split_at_mut(mid + 1);
        let left = self.balance(function, left, &ats[..mid]);
        let right = self.balance(function, right, &ats[mid + 1..]);
        self.call(ats[mid], function, vec![left, right])
    }

    /// The operator that comes next: rank and function.
    fn operator(&self) -> Option<(u8, &'static str)> {
        Some(match &self.current().token {
            Token::Op(op) => BINARY.iter().find(|(o, _, _)| o == op).map(|(_, rank, function)| (*rank, *function))?,
            Token::Ident(word) if word == "in" => (RELATION, "@in"),
            _ => return None,
        })
    }

    /// Operands joined by operators of at least this rank. Few frames for each level of nesting: it is the input that nests.
    fn binary(&mut self, least: u8) -> Parsed<Expr> {
        let depth = self.depth;
        let mut left = self.unary()?;
        while let Some((rank, function)) = self.operator().filter(|(rank, _)| *rank >= least) {
            if rank < RELATION {
                left = self.logical(left, rank, function)?;
                continue;
            }
            let at = self.current().at;
            self.at += 1;
            self.descend(at)?;
            let right = self.binary(rank + 1)?;
            left = self.call(at, function, vec![left, right]);
        }
        self.depth = depth;
        Ok(left)
    }

    /// Chains of one logical operator become balanced trees: long ones stay shallow.
    fn logical(&mut self, first: Expr, rank: u8, function: &str) -> Parsed<Expr> {
        let mut terms = vec![Some(first)];
        let mut ats = Vec::new();
        while self.operator().is_some_and(|(r, _)| r == rank) {
            ats.push(self.current().at);
            self.at += 1;
            terms.push(Some(self.binary(rank + 1)?));
        }
        Ok(self.balance(function, &mut terms, &ats))
    }

    fn descend(&mut self, at: usize) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.stop(at, format!("expression recursion limit exceeded: {DEPTH_MAX}"));
        }
        Ok(())
    }

    fn unary(&mut self) -> Parsed<Expr> {
        for (op, function) in [("!", "!_"), ("-", "-_")] {
            let Some(at) = self.take(op) else { continue };
            if op == "-" && matches!(self.current().token, Token::Int(_) | Token::Float(_)) {
                let literal = self.number(true, at)?;
                return self.members(literal);
            }
            let mut count = 1;
            while self.take(op).is_some() {
                count += 1;
            }
            let operand = self.member()?;
            return Ok(if count % 2 == 1 { self.call(at, function, vec![operand]) } else { operand });
        }
        self.member()
    }

    fn member(&mut self) -> Parsed<Expr> {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut expr: Expr) -> Parsed<Expr> {
        let depth = self.depth;
        loop {
            let at = self.current().at;
            if self.take(".").is_some() {
                expr = self.select(expr, at)?;
            } else if self.take("[").is_some() {
                let optional = self.take("?").is_some();
                let index = self.expr()?;
                self.close("]")?;
                expr = self.call(at, if optional { "_[?_]" } else { "_[_]" }, vec![expr, index]);
            } else if self.is("{") && expr.qualified_name().is_some() {
                self.at += 1;
                expr = self.object(expr.qualified_name().unwrap_or_default(), at)?;
            } else {
                self.depth = depth;
                return Ok(expr);
            }
            self.descend(at)?;
        }
    }

    fn select(&mut self, operand: Expr, at: usize) -> Parsed<Expr> {
        let optional = self.take("?").is_some();
        let field: Arc<str> = match &self.current().token {
            Token::Ident(word) if !matches!(word.as_str(), "in" | "true" | "false" | "null") => word.as_str().into(),
            Token::Quoted(name) => name.as_str().into(),
            _ => {
                let (bad, text) = (self.current().at, self.current().text.clone());
                let text = if matches!(self.current().token, Token::End) { String::new() } else { text };
                return self.stop(bad, format!("Syntax error: no viable alternative at input '.{text}'"));
            }
        };
        let field_at = self.current().at;
        let quoted = matches!(self.current().token, Token::Quoted(_));
        self.at += 1;
        if optional {
            let name = self.node(field_at, Node::Literal(Literal::String(field)));
            return Ok(self.call(at, "_?._", vec![operand, name]));
        }
        let open = self.current().at;
        if !quoted && self.take("(").is_some() {
            let args = self.arguments(")")?.0;
            return macros::expand(self, open, Some(operand), field, args);
        }
        Ok(self.node(at, Node::Select { operand: Box::new(operand), field, test: false }))
    }

    /// Expressions up to a closing token, and which of them were marked optional.
    fn arguments(&mut self, end: &str) -> Parsed<(Vec<Expr>, Vec<bool>)> {
        let (mut items, mut optional) = (Vec::new(), Vec::new());
        if self.take(end).is_some() {
            return Ok((items, optional));
        }
        // Calls and lists nest twice as deep as parentheses do: each is a node, and macros make more of them.
        let depth = self.depth;
        self.descend(self.current().at)?;
        loop {
            self.depth = depth + 1;
            optional.push(end == "]" && self.take("?").is_some());
            items.push(self.expr()?);
            if self.take(",").is_some() {
                if end == "]" && self.take(end).is_some() {
                    self.depth = depth;
                    return Ok((items, optional));
                }
                continue;
            }
            self.close(end)?;
            self.depth = depth;
            return Ok((items, optional));
        }
    }

    fn object(&mut self, name: String, at: usize) -> Parsed<Expr> {
        let mut fields = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let field: Arc<str> = match &self.current().token {
                Token::Ident(word) => word.as_str().into(),
                Token::Quoted(word) => word.as_str().into(),
                _ => return self.mismatch("{'}', '?', IDENTIFIER, ESC_IDENTIFIER}"),
            };
            self.at += 1;
            let colon = self.current().at;
            self.close(":")?;
            let value = self.expr()?;
            fields.push(FieldInit { name: field, at: colon, value, optional });
            if self.take(",").is_none() {
                self.close("}")?;
                break;
            }
        }
        Ok(self.node(at, Node::Struct { name: name.into(), fields }))
    }

    fn map(&mut self, at: usize) -> Parsed<Expr> {
        let mut entries = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let key = self.expr()?;
            self.close(":")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            if self.take(",").is_none() {
                self.close("}")?;
                break;
            }
        }
        Ok(self.node(at, Node::Map(entries)))
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let at = self.current().at;
        match self.current().token.clone() {
            Token::Ident(word) => self.word(&word, at, ""),
            Token::Op(".") if matches!(self.tokens.get(self.at + 1).map(|t| &t.token), Some(Token::Ident(_))) => {
                self.at += 1;
                let word = self.current().text.clone();
                let at = self.current().at;
                self.word(&word, at, ".")
            }
            Token::Op("(") => {
                self.at += 1;
                let inner = self.expr()?;
                self.close(")")?;
                Ok(inner)
            }
            Token::Op("[") => {
                self.at += 1;
                let (items, optional) = self.arguments("]")?;
                Ok(self.node(at, Node::List { items, optional }))
            }
            Token::Op("{") => {
                self.at += 1;
                self.map(at)
            }
            Token::Int(_) | Token::Uint(_) | Token::Float(_) => self.number(false, at),
            Token::String { .. } | Token::Bytes { .. } => self.text(at),
            _ => self.mismatch(OPERAND),
        }
    }

    fn text(&mut self, at: usize) -> Parsed<Expr> {
        let literal = match &self.current().token {
            Token::String { raw, body } => unescape::string(body, *raw).map(|text| Literal::String(text.into())),
            Token::Bytes { raw, body } => unescape::bytes(body, *raw).map(|bytes| Literal::Bytes(bytes.into())),
            _ => Err("invalid literal"),
        };
        self.at += 1;
        match literal {
            Ok(literal) => Ok(self.node(at, Node::Literal(literal))),
            Err(why) => self.stop(at, why.to_owned()),
        }
    }

    fn word(&mut self, word: &str, at: usize, dot: &str) -> Parsed<Expr> {
        let literal = match word {
            "true" => Some(Literal::Bool(true)),
            "false" => Some(Literal::Bool(false)),
            "null" => Some(Literal::Null),
            "in" => return self.mismatch(OPERAND),
            _ => None,
        };
        self.at += 1;
        if let Some(literal) = literal {
            return Ok(self.node(at, Node::Literal(literal)));
        }
        if ident::is_reserved(word) {
            return self.stop(at, format!("reserved identifier: {word}"));
        }
        let name: Arc<str> = format!("{dot}{word}").into();
        let open = self.current().at;
        if self.take("(").is_some() {
            let args = self.arguments(")")?.0;
            return macros::expand(self, open, None, name, args);
        }
        Ok(self.node(at, Node::Ident(name)))
    }

    fn number(&mut self, negative: bool, at: usize) -> Parsed<Expr> {
        let sign = if negative { "-" } else { "" };
        let digits = |text: &str| match text.strip_prefix("0x") {
            Some(hex) => (format!("{sign}{hex}"), 16),
            None => (format!("{sign}{text}"), 10),
        };
        let literal = match &self.current().token {
            Token::Int(text) => {
                let (text, radix) = digits(text);
                i64::from_str_radix(&text, radix).map(Literal::Int).map_err(|_| "invalid int literal")
            }
            Token::Uint(text) => {
                let (text, radix) = digits(text);
                u64::from_str_radix(&text, radix).map(Literal::Uint).map_err(|_| "invalid uint literal")
            }
            Token::Float(text) => {
                let parsed = format!("{sign}{text}").parse::<f64>().ok().filter(|f| f.is_finite());
                parsed.map(Literal::Double).ok_or("invalid double literal")
            }
            _ => Err("invalid literal"),
        };
        self.at += 1;
        match literal {
            Ok(literal) => Ok(self.node(at, Node::Literal(literal))),
            Err(why) => self.stop(at, why.to_owned()),
        }
    }
}

/// Levels of a tree. The parser's own limits bound the recursion.
fn depth_of(expr: &Expr) -> usize {
    let below = match &expr.node {
        Node::Literal(_) | Node::Ident(_) | Node::Broken => 0,
        Node::Select { operand, .. } => depth_of(operand),
        Node::Call { target, args, .. } => target.iter().map(|t| &**t).chain(args).map(depth_of).max().unwrap_or(0),
        Node::List { items, .. } => items.iter().map(depth_of).max().unwrap_or(0),
        Node::Map(entries) => entries.iter().map(|e| depth_of(&e.key).max(depth_of(&e.value))).max().unwrap_or(0),
        Node::Struct { fields, .. } => fields.iter().map(|f| depth_of(&f.value)).max().unwrap_or(0),
        Node::Fold(f) => [&f.range, &f.init, &f.condition, &f.step, &f.result].into_iter().map(depth_of).max().unwrap_or(0),
    };
    below + 1
}
