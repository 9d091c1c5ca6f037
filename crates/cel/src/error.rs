//! What goes wrong: expressions that do not compile, and evaluations that fail. The texts are cel-go's.

/// An expression that does not parse or check. Displays as upstream's message, snippets and carets included.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compilation failed: {issues}")]
pub struct CompileError {
    /// `ERROR: <input>:1:6: undefined field 'foo'\n | self.foo\n | .....^`, one after the other.
    pub issues: String,
}

/// What an [`EvalError`] means to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The expression met a value it cannot work with.
    Evaluation,
    /// One evaluation cost more than [`crate::PER_CALL_LIMIT`].
    CallLimit,
    /// The budget of all evaluations of a request is used up.
    BudgetExhausted,
}

/// An evaluation that gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    pub kind: ErrorKind,
    pub message: String,
}

impl EvalError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Evaluation, message: message.into() }
    }

    pub(crate) fn call_limit() -> Self {
        Self { kind: ErrorKind::CallLimit, message: "operation cancelled: actual cost limit exceeded".to_owned() }
    }

    pub(crate) fn budget() -> Self {
        Self {
            kind: ErrorKind::BudgetExhausted,
            message: "validation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
        }
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::new("no such overload")
    }

    pub(crate) fn no_such_key(key: impl std::fmt::Display) -> Self {
        Self::new(format!("no such key: {key}"))
    }
}
