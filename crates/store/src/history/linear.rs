//! The search for an order: depth first over which call comes next, never the same set of calls with the same state twice.

use std::collections::HashSet;

use super::{Answer, Call, Expecting, Operation};

/// Gives up after so many tries and so many for each call; a correct history needs few more than it has calls.
const TRIES_MAX: u64 = 1_000_000;
const TRIES_PER_CALL_MAX: u64 = 100;

type State = Option<u64>;

/// What the key holds after the call, if the call can come next and be answered so.
fn apply(operation: &Operation, state: State) -> Option<State> {
    let holds = |expecting| match expecting {
        Expecting::Anything => true,
        Expecting::Absent => state.is_none(),
        Expecting::Value(number) => state == Some(number),
    };
    match (operation.call, operation.answer) {
        (Call::Put(number, expecting), Some(Answer::Written(_)) | None) => holds(expecting).then_some(Some(number)),
        (Call::Delete(expecting), Some(Answer::Written(_)) | None) => (holds(expecting) && state.is_some()).then_some(None),
        (Call::Put(_, expecting) | Call::Delete(expecting), Some(Answer::Refused(seen))) => {
            (!holds(expecting) && seen.is_none_or(|seen| seen == state)).then_some(state)
        }
        (Call::Delete(_), Some(Answer::Nothing)) => state.is_none().then_some(state),
        (Call::Get, Some(Answer::Read(seen))) => (seen == state).then_some(state),
        _ => None,
    }
}

impl Operation {
    fn revision(&self) -> Option<u64> {
        if let Some(Answer::Written(revision)) = self.answer { revision } else { None }
    }
}

/// One choice: calls that could come next, and which of them was taken.
struct Choice {
    candidates: Vec<usize>,
    next: usize,
    state: State,
    taken: Option<usize>,
    /// The latest time at which a call that is done was begun.
    begun: u64,
}

struct Search<'a> {
    operations: Vec<&'a Operation>,
    done: Vec<bool>,
    /// Calls without an answer.
    unknown: Vec<usize>,
    /// All answered calls before this one are done.
    low: usize,
    answered_left: usize,
    /// Of the set of calls that are done.
    hash: u128,
    visited: HashSet<(u128, State)>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let mut sorted: Vec<&Operation> = operations.iter().collect();
        sorted.sort_by_key(|o| o.called);
        let unknown: Vec<usize> = (0..sorted.len()).filter(|i| sorted[*i].answer.is_none()).collect();
        Search {
            done: vec![false; sorted.len()],
            low: 0,
            answered_left: sorted.len() - unknown.len(),
            unknown,
            operations: sorted,
            hash: 0,
            visited: HashSet::new(),
        }
    }

    /// What can come next: calls that began before any other call that is not done was answered.
    fn candidates(&self, begun: u64, state: State) -> Vec<usize> {
        let (mut found, mut first_answer) = (Vec::new(), u64::MAX);
        for (i, operation) in self.operations.iter().enumerate().skip(self.low) {
            if operation.called > first_answer {
                break;
            }
            if !self.done[i] && operation.answer.is_some() {
                first_answer = first_answer.min(operation.answered);
                found.push(i);
            }
        }
        found.retain(|i| self.operations[*i].called <= first_answer);
        let possible = |i: &usize| {
            let operation = self.operations[*i];
            !self.done[*i] && operation.called <= first_answer && operation.answered >= begun
        };
        let unknown: Vec<usize> = self.unknown.iter().copied().filter(possible).collect();
        // What changes nothing and fits now may as well come now, unless a call that nobody knows of had to come before it
        // (`tests::a_write_that_could_only_come_before_the_kill_is_not_forestalled`).
        let last_chance = unknown.iter().map(|i| self.operations[*i].answered).min().unwrap_or(u64::MAX);
        let fits = |i: &&usize| self.operations[**i].called <= last_chance && apply(self.operations[**i], state) == Some(state);
        if let Some(i) = found.iter().find(fits) {
            return vec![*i];
        }
        // Revisions order the writes.
        let first_write = found.iter().filter_map(|i| self.operations[*i].revision()).min();
        found.retain(|i| self.operations[*i].revision().is_none_or(|r| Some(r) == first_write));
        found.extend(unknown);
        found
    }

    fn toggle(&mut self, i: usize) {
        self.done[i] = !self.done[i];
        self.hash ^= mixed(i as u64);
        if self.operations[i].answer.is_some() {
            match self.done[i] {
                true => self.answered_left -= 1,
                false => self.answered_left += 1,
            }
        }
        self.low = if self.done[i] { self.low } else { self.low.min(i) };
        while self.low < self.done.len() && (self.done[self.low] || self.operations[self.low].answer.is_none()) {
            self.low += 1;
        }
    }

    fn run(mut self) -> Result<(), String> {
        let mut stack = vec![Choice { candidates: self.candidates(0, None), next: 0, state: None, taken: None, begun: 0 }];
        let (mut tries, mut furthest) = (0, (usize::MAX, String::new()));
        while let Some(choice) = stack.last_mut() {
            if let Some(taken) = choice.taken.take() {
                self.toggle(taken);
            }
            if self.answered_left < furthest.0 {
                furthest = (self.answered_left, self.stuck(&choice.candidates, choice.state));
            }
            if self.answered_left == 0 {
                return Ok(());
            }
            let Some(candidate) = choice.candidates.get(choice.next).copied() else {
                stack.pop();
                continue;
            };
            choice.next += 1;
            tries += 1;
            if tries > TRIES_MAX + TRIES_PER_CALL_MAX * self.done.len() as u64 {
                return Err(format!("undecided after {tries} tries; {}", furthest.1));
            }
            let Some(state) = apply(self.operations[candidate], choice.state) else { continue };
            if !self.visited.insert((self.hash ^ mixed(candidate as u64), state)) {
                continue;
            }
            choice.taken = Some(candidate);
            let begun = choice.begun.max(self.operations[candidate].called);
            self.toggle(candidate);
            stack.push(Choice { candidates: self.candidates(begun, state), next: 0, state, taken: None, begun });
        }
        Err(format!("no order explains the answers; {}", furthest.1))
    }

    fn stuck(&self, candidates: &[usize], state: State) -> String {
        let shown: Vec<String> = candidates.iter().take(8).map(|i| format!("{:?}", self.operations[*i])).collect();
        format!(
            "{} calls before it are explained, it holds {state:?}, and next are {}",
            self.done.len() - self.answered_left,
            shown.join(", ")
        )
    }
}

/// A number as good as random, so that sets can be told apart by the sum of their members'.
fn mixed(i: u64) -> u128 {
    let half = |seed: u64| u128::from(mix::scramble(i.wrapping_add(1).wrapping_mul(mix::STEP) ^ seed));
    half(0x0123_4567_89ab_cdef) << 64 | half(0xfedc_ba98_7654_3210)
}

pub(super) fn check(operations: &[Operation]) -> Result<(), String> {
    Search::new(operations).run()
}
