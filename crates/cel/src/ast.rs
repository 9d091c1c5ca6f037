//! Expressions as parsed, macros expanded. Made by the parser; read by the checker, the cost estimator and the planner.

use std::sync::Arc;

pub(crate) struct Expr {
    /// Unique within an expression; the checker's findings are kept by it.
    pub id: usize,
    /// Where errors point to, in code points.
    pub at: usize,
    pub node: Node,
}

pub(crate) enum Node {
    Literal(Literal),
    Ident(Arc<str>),
    Select {
        operand: Box<Expr>,
        field: Arc<str>,
        test: bool,
    },
    Call {
        function: Arc<str>,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    List {
        items: Vec<Expr>,
        optional: Vec<bool>,
    },
    Map(Vec<Entry>),
    Struct {
        name: Arc<str>,
        fields: Vec<FieldInit>,
    },
    Fold(Box<Fold>),
    /// What stands where a syntax error was.
    Broken,
}

pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

pub(crate) struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

pub(crate) struct FieldInit {
    pub name: Arc<str>,
    /// Of the colon.
    pub at: usize,
    pub value: Expr,
    pub optional: bool,
}

/// A loop, which every macro over collections becomes.
pub(crate) struct Fold {
    pub range: Expr,
    pub var: Arc<str>,
    pub var2: Option<Arc<str>>,
    pub accu: Arc<str>,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// The accumulator of macros; expressions cannot spell it.
pub(crate) const ACCU: &str = "@result";

impl Fold {
    /// `cel.bind()`: a loop over nothing that only names a value.
    pub fn is_bind(&self) -> bool {
        matches!(&self.range.node, Node::List { items, .. } if items.is_empty())
            && matches!(self.condition.node, Node::Literal(Literal::Bool(false)))
            && *self.accu != *ACCU
    }
}

impl Expr {
    /// `a.b.c` as one name.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.node {
            Node::Ident(name) => Some(name.to_string()),
            Node::Select { operand, field, test: false } => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }
}
