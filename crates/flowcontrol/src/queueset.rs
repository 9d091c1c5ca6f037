//! One priority level's queues: fair queuing with virtual time, as upstream's `queueset` does it. Each flow may use a hand of
//! queues; the queue whose next request would finish first in virtual time goes next. A request takes the seats of its
//! [`Work`], and a write keeps some for a while after it ended.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::demand::{Integrator, Stats};
use crate::level::{Queuing, Response};
use crate::shard;
use crate::work::Work;

/// What a request is taken to last until it has, in seconds.
const ESTIMATE: f64 = 0.003;

/// Names a request to the queue set that knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// The right to run; handed back to [`QueueSet::finish`].
#[derive(Debug)]
pub struct Ticket {
    queue: usize,
    width: u32,
    work: Work,
    started: Duration,
}

#[derive(Debug)]
pub enum Arrival {
    Run(Ticket),
    /// It runs when [`QueueSet::dispatch`] names it.
    Wait(RequestId),
    Refused(Refusal),
}

/// Upstream's `reason` of a rejected request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
    Cancelled,
}

impl Refusal {
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

struct Waiting {
    id: RequestId,
    work: Work,
    width: u32,
    since: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Seats the waiting ones want.
    wanted: u64,
    executing: u32,
    seats: u64,
    next_start: f64,
}

impl Queue {
    fn active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }

    /// Seat-seconds queued up.
    fn queued(&self) -> f64 {
        self.waiting.iter().map(cost).sum()
    }
}

fn cost(request: &Waiting) -> f64 {
    work_of(request.work)
}

fn work_of(work: Work) -> f64 {
    f64::from(work.seats) * ESTIMATE + f64::from(work.final_seats) * work.after.as_secs_f64()
}

/// Seats that are given back later; the soonest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Lingering {
    until: std::cmp::Reverse<Duration>,
    queue: usize,
    seats: u32,
}

/// What a queue shows to whoever debugs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueState {
    pub waiting: usize,
    pub executing: u32,
    pub seats: u64,
    pub next_start: f64,
    pub queued_seconds: f64,
    /// Seats the waiting ones want, at first and at most.
    pub wanted_first: u64,
    pub wanted: u64,
}

/// What waits, for whoever debugs: queue, place in it, seats, since when.
pub type WaitingState = (usize, usize, RequestId, Work, Duration);

pub struct QueueSet {
    response: Response,
    limit: u32,
    queues: Vec<Queue>,
    lingering: BinaryHeap<Lingering>,
    seats: u64,
    executing: u32,
    waiting: usize,
    wanted: u64,
    active: usize,
    virtual_now: f64,
    updated: Duration,
    turn: usize,
    next_id: u64,
    demand: Integrator,
}

impl QueueSet {
    pub fn new(response: Response, limit: u32) -> Self {
        let mut set = Self {
            response,
            limit,
            queues: Vec::new(),
            lingering: BinaryHeap::new(),
            seats: 0,
            executing: 0,
            waiting: 0,
            wanted: 0,
            active: 0,
            virtual_now: 0.0,
            updated: Duration::ZERO,
            turn: 0,
            next_id: 0,
            demand: Integrator::default(),
        };
        set.configure(response, limit);
        set
    }

    /// Takes a changed configuration; requests that wait in queues that are no more still get their turn.
    pub fn configure(&mut self, response: Response, limit: u32) {
        self.response = response;
        self.limit = limit;
        let queues = match response {
            Response::Queue(Queuing { queues, .. }) => queues,
            Response::Reject => 1,
        };
        while self.queues.len() > queues && self.queues.last().is_some_and(|q| !q.active() && q.seats == 0) {
            self.queues.pop();
        }
        if self.queues.len() < queues {
            self.queues.resize_with(queues, Queue::default);
        }
    }

    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    pub fn executing(&self) -> u32 {
        self.executing
    }

    #[cfg(test)]
    pub fn seats_in_use(&self) -> u64 {
        self.seats
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn virtual_now(&self) -> f64 {
        self.virtual_now
    }

    pub fn queues(&self) -> impl Iterator<Item = QueueState> {
        self.queues.iter().map(|q| QueueState {
            waiting: q.waiting.len(),
            executing: q.executing,
            seats: q.seats,
            next_start: q.next_start,
            queued_seconds: q.queued(),
            wanted_first: q.waiting.iter().map(|w| u64::from(w.work.seats)).sum(),
            wanted: q.wanted,
        })
    }

    pub fn waiting_requests(&self) -> impl Iterator<Item = WaitingState> {
        let of_queue = |(number, queue): (usize, &Queue)| {
            let place = |(place, w): (usize, &Waiting)| (number, place, w.id, w.work, w.since);
            queue.waiting.iter().enumerate().map(place).collect::<Vec<_>>()
        };
        self.queues.iter().enumerate().flat_map(of_queue)
    }

    /// Virtual time goes as fast as each active queue is served.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.updated).as_secs_f64();
        if passed > 0.0 && self.active > 0 {
            let busy = ((self.seats + self.wanted) as f64).min(f64::from(self.limit));
            self.virtual_now += passed * busy / self.active as f64;
        }
        self.updated = self.updated.max(now);
        while let Some(next) = self.lingering.peek()
            && next.until.0 <= now
        {
            let Some(done) = self.lingering.pop() else { break };
            self.release(done.queue, done.seats);
        }
    }

    fn release(&mut self, queue: usize, seats: u32) {
        self.seats -= u64::from(seats);
        self.queues[queue].seats -= u64::from(seats);
    }

    fn note_demand(&mut self, now: Duration) {
        self.demand.set(now, self.seats + self.wanted);
    }

    /// Whether so many seats are free. One that is wider than the limit may run alone.
    fn fits(&self, width: u32) -> bool {
        if width > self.limit {
            return self.seats == 0 && self.limit > 0;
        }
        self.seats + u64::from(width) <= u64::from(self.limit)
    }

    /// A request of a flow comes in.
    pub fn arrive(&mut self, now: Duration, flow: u64, work: Work) -> Arrival {
        self.advance(now);
        let width = work.seats.max(work.final_seats).max(1);
        let (queue, length_limit) = match self.response {
            Response::Reject => (0, 0),
            Response::Queue(queuing) => (self.choose(flow, queuing), queuing.queue_length_limit),
        };
        let free = self.waiting == 0 && self.fits(width);
        if !free {
            if length_limit == 0 {
                return Arrival::Refused(Refusal::ConcurrencyLimit);
            }
            if self.queues[queue].waiting.len() >= length_limit {
                return Arrival::Refused(Refusal::QueueFull);
            }
        }
        let virtual_now = self.virtual_now;
        if !self.queues[queue].active() {
            self.active += 1;
            self.queues[queue].next_start = virtual_now;
        }
        if free {
            let ticket = self.start(now, queue, work, width);
            self.note_demand(now);
            return Arrival::Run(ticket);
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let entry = &mut self.queues[queue];
        entry.waiting.push_back(Waiting { id, work, width, since: now });
        entry.wanted += u64::from(width);
        self.waiting += 1;
        self.wanted += u64::from(width);
        self.note_demand(now);
        Arrival::Wait(id)
    }

    /// The queue of the flow's hand with the least in it.
    fn choose(&self, flow: u64, queuing: Queuing) -> usize {
        let (mut best, mut least) = (0, f64::INFINITY);
        shard::deal(flow, queuing.queues.min(self.queues.len()), queuing.hand_size, |card| {
            let queue = &self.queues[card];
            let load = queue.queued() + queue.seats as f64 * ESTIMATE;
            if load < least {
                (best, least) = (card, load);
            }
        });
        best
    }

    fn start(&mut self, now: Duration, queue: usize, work: Work, width: u32) -> Ticket {
        let entry = &mut self.queues[queue];
        entry.executing += 1;
        entry.seats += u64::from(width);
        entry.next_start += work_of(work);
        self.executing += 1;
        self.seats += u64::from(width);
        Ticket { queue, width, work, started: now }
    }

    /// A request has ended; ask [`QueueSet::dispatch`] who is next.
    pub fn finish(&mut self, now: Duration, ticket: Ticket) {
        self.advance(now);
        let Ticket { queue, width, work, started } = ticket;
        let took = now.saturating_sub(started).as_secs_f64();
        let entry = &mut self.queues[queue];
        entry.executing -= 1;
        // It was put down with an estimate.
        entry.next_start -= (ESTIMATE - took) * f64::from(work.seats);
        self.executing -= 1;
        let kept = if work.after.is_zero() { 0 } else { work.final_seats.min(width) };
        if kept > 0 {
            self.lingering.push(Lingering { until: std::cmp::Reverse(now + work.after), queue, seats: kept });
        }
        self.release(queue, width - kept);
        if !self.queues[queue].active() {
            self.active -= 1;
        }
        self.note_demand(now);
    }

    /// A waiting request is not wanted any more. `false`: it does not wait.
    pub fn cancel(&mut self, now: Duration, id: RequestId) -> bool {
        self.advance(now);
        for queue in &mut self.queues {
            let Some(place) = queue.waiting.iter().position(|w| w.id == id) else { continue };
            if let Some(gone) = queue.waiting.remove(place) {
                queue.wanted -= u64::from(gone.width);
                self.wanted -= u64::from(gone.width);
                self.waiting -= 1;
                if !queue.active() {
                    self.active -= 1;
                }
            }
            self.note_demand(now);
            return true;
        }
        false
    }

    /// The next waiting request there are seats for. To be asked until it answers `None`.
    pub fn dispatch(&mut self, now: Duration) -> Option<(RequestId, Duration, Ticket)> {
        self.advance(now);
        if self.waiting == 0 {
            return None;
        }
        let count = self.queues.len();
        let mut best: Option<(usize, f64)> = None;
        for offset in 0..count {
            let number = (self.turn + 1 + offset) % count;
            let queue = &self.queues[number];
            let Some(first) = queue.waiting.front() else { continue };
            let finish = queue.next_start + cost(first);
            if best.is_none_or(|(_, least)| finish < least) {
                best = Some((number, finish));
            }
        }
        let (number, _) = best?;
        let width = self.queues[number].waiting.front()?.width;
        if !self.fits(width) {
            return None;
        }
        self.turn = number;
        let queue = &mut self.queues[number];
        let next = queue.waiting.pop_front()?;
        queue.wanted -= u64::from(next.width);
        self.wanted -= u64::from(next.width);
        self.waiting -= 1;
        let ticket = self.start(now, number, next.work, next.width);
        Some((next.id, now.saturating_sub(next.since), ticket))
    }

    /// When seats come free that nobody will announce.
    pub fn next_release(&self) -> Option<Duration> {
        self.lingering.peek().map(|l| l.until.0)
    }

    /// Ends a period of demand.
    pub fn demand(&mut self, now: Duration) -> Stats {
        self.advance(now);
        self.demand.reset(now)
    }
}
