//! Flow control: every request that is not long-running gets a seat of its priority level, waits for one, or is refused with
//! 429. What is decided lies in the crate `flowcontrol`; this holds the clock, the locks and those who wait. Called by the
//! chain; `follow` keeps the configuration, `debug` shows it.

pub mod debug;
pub mod estimate;
pub mod follow;
mod level;
mod seat;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use flowcontrol::{Digest, FlowSchema, PriorityLevel, Refusal, Work, lending, shard};
use http::HeaderValue;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use level::Level;
pub use seat::Seat;

use crate::config::Config;
use crate::metrics::{Histogram, Metrics, table};

/// How often levels lend each other seats.
const PERIOD: Duration = Duration::from_secs(10);

/// A FlowSchema in use.
pub struct Schema {
    pub spec: FlowSchema,
    pub level: Arc<Level>,
    pub schema_header: HeaderValue,
    pub level_header: HeaderValue,
    dispatched: Arc<Histogram>,
    executing: Arc<Histogram>,
    executing_seats: Arc<Histogram>,
    inqueue: Arc<Histogram>,
    execution: Arc<Histogram>,
    waited: Arc<Histogram>,
    estimated: Arc<Histogram>,
}

impl Schema {
    fn new(spec: FlowSchema, level: Arc<Level>, metrics: &Metrics) -> Self {
        let header = |uid: &str| HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""));
        let labels = [spec.name.as_str(), level.name.as_str()];
        let of = |desc| metrics.family(desc).with(&labels);
        Self {
            schema_header: header(&spec.uid),
            level_header: header(&level.spec.load().uid),
            dispatched: of(&table::FLOW_DISPATCHED),
            executing: of(&table::FLOW_EXECUTING),
            executing_seats: of(&table::FLOW_EXECUTING_SEATS),
            inqueue: of(&table::FLOW_INQUEUE),
            execution: metrics.family(&table::FLOW_EXECUTION).with(&[labels[0], labels[1], "regular"]),
            waited: metrics.family(&table::FLOW_WAIT).with(&["true", labels[0], labels[1]]),
            estimated: of(&table::FLOW_ESTIMATED_SEATS),
            spec,
            level,
        }
    }
}

/// All FlowSchemas in the order they are tried.
#[derive(Default)]
struct Table {
    schemas: Vec<Arc<Schema>>,
}

pub struct Flow {
    pub enabled: bool,
    /// Of the whole server.
    seats: u32,
    /// How long a request waits in a queue at most.
    wait_max: Duration,
    start: Instant,
    table: ArcSwap<Table>,
    levels: Mutex<BTreeMap<String, Arc<Level>>>,
    fair: Mutex<f64>,
    wake: Arc<Notify>,
}

/// A request that gets no seat.
pub struct Refused {
    pub schema: Arc<Schema>,
    pub why: Refusal,
}

impl Flow {
    pub fn new(config: &Config) -> Self {
        let seats = config.max_requests_inflight.saturating_add(config.max_mutating_requests_inflight);
        Self {
            enabled: config.priority_and_fairness && seats > 0,
            seats: u32::try_from(seats).unwrap_or(u32::MAX),
            wait_max: config.request_timeout / 4,
            start: Instant::now(),
            table: ArcSwap::default(),
            levels: Mutex::default(),
            fair: Mutex::new(1.0),
            wake: Arc::default(),
        }
    }

    fn levels(&self) -> Vec<Arc<Level>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes a configuration: all objects there are. Upstream adds the mandatory ones where they are missing; so does this.
    pub fn configure(&self, mut schemas: Vec<FlowSchema>, mut levels: Vec<PriorityLevel>, metrics: &Metrics) {
        for wanted in flowcontrol::defaults::priority_levels().iter().filter_map(PriorityLevel::parse) {
            if flowcontrol::defaults::MANDATORY.contains(&wanted.name.as_str()) && levels.iter().all(|l| l.name != wanted.name) {
                levels.push(wanted);
            }
        }
        for wanted in flowcontrol::defaults::flow_schemas().iter().filter_map(FlowSchema::parse) {
            if flowcontrol::defaults::MANDATORY.contains(&wanted.name.as_str()) && schemas.iter().all(|s| s.name != wanted.name) {
                schemas.push(wanted);
            }
        }
        let limits = lending::limits(self.seats, &levels.iter().collect::<Vec<_>>());
        let mut known = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| levels.iter().any(|l| l.name == *name));
        for (spec, limits) in levels.into_iter().zip(limits) {
            match known.get(&spec.name) {
                Some(level) => level.configure(spec, limits),
                None => {
                    let name = spec.name.clone();
                    known.insert(name, Arc::new(Level::new(spec, limits, self.start, self.wake.clone())));
                }
            }
        }
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let old = self.table.load();
        let schema = |spec: FlowSchema| {
            let level = known.get(&spec.level)?.clone();
            let same = |s: &&Arc<Schema>| s.spec == spec && Arc::ptr_eq(&s.level, &level) && s.level_header == *level.spec.load().uid;
            Some(old.schemas.iter().find(same).cloned().unwrap_or_else(|| Arc::new(Schema::new(spec, level, metrics))))
        };
        let schemas = schemas.into_iter().filter_map(schema).collect();
        self.table.store(Arc::new(Table { schemas }));
    }

    /// The FlowSchema of a request. `None` only before anything was configured.
    pub fn classify(&self, request: &Digest<'_>) -> Option<Arc<Schema>> {
        self.table.load().schemas.iter().find(|s| s.spec.matches(request)).cloned()
    }

    /// A seat, at once or after waiting for one. `work` is asked for with the most seats the level gives one request.
    pub async fn admit(&self, schema: Arc<Schema>, request: &Digest<'_>, work: impl FnOnce(u32) -> Work) -> Result<Seat, Refused> {
        if schema.level.exempt() {
            return Ok(Seat::exempt(schema));
        }
        let work = work(schema.level.seats_max());
        let flow = shard::flow_hash(&schema.spec.name, schema.spec.flow(request));
        schema.estimated.observe(f64::from(work.seats));
        Seat::get(schema, flow, work, self.wait_max).await
    }

    /// Lends seats from level to level every period, and gives back those that writes kept.
    pub async fn run(self: Arc<Self>, metrics: Arc<Metrics>, cancel: CancellationToken) {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = self.levels().iter().filter_map(|l| l.next_release()).min();
            let release = async {
                match next {
                    Some(at) => tokio::time::sleep_until(self.start + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                () = cancel.cancelled() => return,
                _ = period.tick() => self.lend(&metrics),
                () = self.wake.notified() => {}
                () = release => self.levels().iter().for_each(|l| l.release()),
            }
        }
    }

    fn lend(&self, metrics: &Metrics) {
        let levels = self.levels();
        let claims: Vec<lending::Claim> = levels.iter().map(|l| l.claim(metrics)).collect();
        let (seats, fair) = lending::allocate(&claims);
        for ((level, seats), claim) in levels.iter().zip(seats).zip(&claims) {
            metrics.set(&table::FLOW_TARGET, &[&level.name], claim.target());
            level.set_limit(seats);
        }
        *self.fair.lock().unwrap_or_else(PoisonError::into_inner) = fair;
    }

    /// Brings the gauges of levels up to date.
    pub fn collect(&self, metrics: &Metrics) {
        for level in self.levels() {
            level.collect(metrics);
        }
        metrics.set(&table::FLOW_FAIR_FRAC, &[], *self.fair.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
