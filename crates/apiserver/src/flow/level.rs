//! A priority level in use: its queues behind a lock, and who waits in them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use flowcontrol::lending::{self, Claim, Limits};
use flowcontrol::queueset::RequestId;
use flowcontrol::{Arrival, PriorityLevel, QueueSet, Ticket, Work, work};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::metrics::{Metrics, table};

pub struct Level {
    pub name: String,
    pub spec: ArcSwap<PriorityLevel>,
    /// Requests of an exempt level that run.
    pub(super) exempt_running: AtomicU32,
    /// Refused, timed out, given up.
    refusals: [AtomicU32; 3],
    seats_max: AtomicU32,
    start: Instant,
    wake: Arc<Notify>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub set: QueueSet,
    pub limits: Limits,
    smoothed: f64,
    waiting: HashMap<RequestId, oneshot::Sender<Ticket>>,
}

pub(super) enum Entered {
    Run(Ticket),
    Wait(RequestId, oneshot::Receiver<Ticket>),
    Refused(flowcontrol::Refusal),
}

impl Level {
    pub(super) fn new(spec: PriorityLevel, limits: Limits, start: Instant, wake: Arc<Notify>) -> Self {
        let set = QueueSet::new(spec.response, limits.nominal.max(1));
        let state = State { set, limits, smoothed: 0.0, waiting: HashMap::new() };
        let seats_max = AtomicU32::new(work::seats_max(limits.nominal, spec.hand_size()));
        let name = spec.name.clone();
        Self {
            name,
            spec: ArcSwap::from_pointee(spec),
            exempt_running: AtomicU32::new(0),
            refusals: Default::default(),
            seats_max,
            start,
            wake,
            state: Mutex::new(state),
        }
    }

    pub(super) fn configure(&self, spec: PriorityLevel, limits: Limits) {
        let mut state = self.lock();
        if state.limits != limits || spec.response != self.spec.load().response {
            // What it borrowed and lent is settled in the next period.
            state.limits = limits;
            state.set.configure(spec.response, limits.nominal.max(1));
        }
        self.seats_max.store(work::seats_max(limits.nominal, spec.hand_size()), Ordering::Relaxed);
        self.spec.store(Arc::new(spec));
        self.dispatch(&mut state);
    }

    pub fn exempt(&self) -> bool {
        self.spec.load().exempt
    }

    pub(super) fn refused(&self, why: flowcontrol::Refusal) {
        use flowcontrol::Refusal::{Cancelled, ConcurrencyLimit, QueueFull, TimeOut};
        let at = match why {
            QueueFull | ConcurrencyLimit => 0,
            TimeOut => 1,
            Cancelled => 2,
        };
        self.refusals[at].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were refused, timed out, and gave up.
    pub(super) fn refusals(&self) -> [u32; 3] {
        [0, 1, 2].map(|at| self.refusals[at].load(Ordering::Relaxed))
    }

    pub fn seats_max(&self) -> u32 {
        self.seats_max.load(Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn enter(&self, flow: u64, work: Work) -> Entered {
        let mut state = self.lock();
        match state.set.arrive(self.now(), flow, work) {
            Arrival::Run(ticket) => Entered::Run(ticket),
            Arrival::Refused(why) => Entered::Refused(why),
            Arrival::Wait(id) => {
                let (sender, receiver) = oneshot::channel();
                state.waiting.insert(id, sender);
                // Seats may have come free that writes kept.
                self.dispatch(&mut state);
                self.wake.notify_one();
                Entered::Wait(id, receiver)
            }
        }
    }

    /// A request has ended.
    pub(super) fn leave(&self, ticket: Ticket) {
        let mut state = self.lock();
        state.set.finish(self.now(), ticket);
        self.dispatch(&mut state);
    }

    /// One that waited does not any more. What it was given meanwhile goes back.
    pub(super) fn give_up(&self, id: RequestId, mut given: oneshot::Receiver<Ticket>) {
        let mut state = self.lock();
        state.set.cancel(self.now(), id);
        state.waiting.remove(&id);
        if let Ok(ticket) = given.try_recv() {
            state.set.finish(self.now(), ticket);
        }
        self.dispatch(&mut state);
    }

    fn dispatch(&self, state: &mut State) {
        if state.set.waiting() == 0 {
            return;
        }
        while let Some((id, _, ticket)) = state.set.dispatch(self.now()) {
            let back = match state.waiting.remove(&id) {
                Some(sender) => sender.send(ticket).err(),
                None => Some(ticket),
            };
            if let Some(ticket) = back {
                state.set.finish(self.now(), ticket);
            }
        }
    }

    /// When seats that writes kept come free while somebody waits.
    pub(super) fn next_release(&self) -> Option<Duration> {
        let state = self.lock();
        if state.set.waiting() == 0 { None } else { state.set.next_release() }
    }

    pub(super) fn release(&self) {
        self.dispatch(&mut self.lock());
    }

    /// Ends a period of demand.
    pub(super) fn claim(&self, metrics: &Metrics) -> Claim {
        let mut state = self.lock();
        let period = state.set.demand(self.now());
        state.smoothed = lending::smooth(state.smoothed, period);
        let labels = [self.name.as_str()];
        metrics.set(&table::FLOW_DEMAND_AVERAGE, &labels, period.average);
        metrics.set(&table::FLOW_DEMAND_STDEV, &labels, period.deviation);
        metrics.set(&table::FLOW_DEMAND_PEAK, &labels, period.peak);
        metrics.set(&table::FLOW_DEMAND_SMOOTHED, &labels, state.smoothed);
        Claim { limits: state.limits, smoothed: state.smoothed, peak: period.peak }
    }

    pub(super) fn set_limit(&self, seats: u32) {
        let mut state = self.lock();
        // One seat at least: a level that nobody can use would be an outage.
        state.set.set_limit(seats.max(1));
        self.dispatch(&mut state);
    }

    pub(super) fn collect(&self, metrics: &Metrics) {
        let state = self.lock();
        let labels = [self.name.as_str()];
        metrics.set(&table::FLOW_NOMINAL_LIMIT, &labels, f64::from(state.limits.nominal));
        metrics.set(&table::FLOW_LOWER_LIMIT, &labels, f64::from(state.limits.least));
        metrics.set(&table::FLOW_UPPER_LIMIT, &labels, f64::from(state.limits.most));
        metrics.set(&table::FLOW_CURRENT_LIMIT, &labels, f64::from(state.set.limit()));
    }
}
