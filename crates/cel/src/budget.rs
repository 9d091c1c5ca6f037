//! Costs: what one evaluation and all evaluations of a request may cost, and what an expression may cost at most.

/// The most one evaluation may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all rules of one object, or all expressions of one policy and binding, may cost together.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// What the match conditions of one webhook or policy may cost together.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;

/// What is left to spend. Evaluations subtract what they cost.
#[derive(Clone, Debug)]
pub struct Budget {
    remaining: u64,
    per_call: u64,
    spent: u64,
    exhausted: bool,
}

impl Budget {
    pub fn new(total: u64) -> Self {
        Self { remaining: total, per_call: PER_CALL_LIMIT, spent: 0, exhausted: false }
    }

    /// For one evaluation may cost more or less than [`PER_CALL_LIMIT`].
    pub fn per_call(mut self, limit: u64) -> Self {
        self.per_call = limit;
        self
    }

    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// All that was spent so far.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Whether an evaluation cost more than was left.
    pub fn exhausted(&self) -> bool {
        self.exhausted
    }

    pub(crate) fn call_limit(&self) -> u64 {
        self.per_call
    }

    /// False when more is spent than was left.
    pub(crate) fn spend(&mut self, cost: u64) -> bool {
        self.spent = self.spent.saturating_add(cost);
        self.exhausted |= cost > self.remaining;
        self.remaining = self.remaining.saturating_sub(cost);
        !self.exhausted
    }
}

/// The least and the most something costs or holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub min: u64,
    pub max: u64,
}

/// Knows how large inputs can get. The path names a variable, then fields (as spelt in expressions), `@items`, `@keys` or
/// `@values`; the answer is the most elements or characters, `None` when unbounded or unknown.
pub trait SizeEstimator {
    fn max_size(&self, path: &[String]) -> Option<u64>;
}

impl<F: Fn(&[String]) -> Option<u64>> SizeEstimator for F {
    fn max_size(&self, path: &[String]) -> Option<u64> {
        self(path)
    }
}
