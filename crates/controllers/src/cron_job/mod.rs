//! CronJob: starts Jobs by the clock. Upstream's `pkg/controller/cronjob`.
//!
//! A Job's name comes from its scheduled minute, so starting it twice is impossible. The status follows from the Jobs that
//! are there: a pass that made a Job is followed by one that sees it and writes it down.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::cron::{self, Schedule};
use serde_json::{Value, json};

use crate::action::{Action, Event, Outcome, Target, reference};
use crate::view::{Context, Key, View, Watch};
use crate::{Controller, meta};

pub const CONTROLLER: Controller = Controller {
    name: "cronjob-controller",
    identity: "cronjob-controller",
    component: "cronjob-controller",
    watches: &[
        Watch::CronJobs(|_, cron| vec![meta::key(cron)]),
        Watch::Jobs(|_, job| meta::controller_key::<CronJob, _>(job).into_iter().collect()),
    ],
    reconcile,
};

/// The time that a Job was made for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Looks a little late, so that the time has surely come.
const DELTA: Duration = Duration::from_millis(100);
/// Missed times from which on the user is told.
const MANY: i64 = 100;

pub fn reconcile(view: &View<'_>, key: &Key, context: &Context<'_>) -> Outcome {
    let Some(cron) = view.cron_jobs.get(&key.namespace, &key.name) else { return Outcome::nothing() };
    let spec = &cron.spec;
    let jobs = view.jobs.controlled_by(meta::uid(&*cron));
    let mut pass = Pass {
        cron: &cron,
        spec,
        context,
        status: cron.status.clone().unwrap_or_default(),
        events: Vec::new(),
        changes: Vec::new(),
        told: None,
        wait: None,
    };
    pass.follow(&jobs);
    pass.clean_up(&jobs);
    if !meta::is_deleting(&*cron) {
        pass.start(view, &jobs);
    }
    let mut outcome = Outcome::from(pass.changes);
    let mut first: Vec<Action> = Action::update_status(&*cron, &cron.status, &pass.status).into_iter().collect();
    first.extend(pass.events.into_iter().map(Action::Record));
    outcome.actions.splice(0..0, first);
    outcome.requeue_after = pass.wait;
    outcome.memory = pass.told;
    outcome
}

fn finished(job: &Job) -> Option<&str> {
    let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let last = |kind: &str| matches!(kind, "Complete" | "Failed");
    conditions.find(|one| last(&one.type_) && one.status == "True").map(|one| one.type_.as_str())
}

fn scheduled_time(job: &Job) -> Option<Timestamp> {
    meta::annotation(job, SCHEDULED)?.parse().ok()
}

struct Pass<'a> {
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    context: &'a Context<'a>,
    status: CronJobStatus,
    events: Vec<Event>,
    changes: Vec<Action>,
    /// What the user was told last, not to tell it again.
    told: Option<Value>,
    wait: Option<Duration>,
}

impl Pass<'_> {
    fn active(&self) -> &[ObjectReference] {
        self.status.active.as_deref().unwrap_or_default()
    }

    fn is_active(&self, job: &Job) -> bool {
        self.active().iter().any(|one| one.uid.as_deref() == Some(meta::uid(job)))
    }

    fn forget(&mut self, uid: &str) {
        let active = self.status.active.get_or_insert_default();
        active.retain(|one| one.uid.as_deref() != Some(uid));
        if active.is_empty() {
            self.status.active = None;
        }
    }

    /// Tells once, until something else is told.
    fn tell(&mut self, event: Event) {
        let told = json!([event.reason, event.message]);
        if self.context.memory != Some(&told) {
            self.events.push(event);
        }
        self.told = Some(told);
    }

    /// Brings the status up to what the Jobs are.
    fn follow(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            match (self.is_active(job), finished(job)) {
                (false, None) if scheduled_time(job).is_some() => self.status.active.get_or_insert_default().push(reference_of(job)),
                (false, None) => {
                    let text = format!("Saw a job that the controller did not create or forgot: {}", meta::name(&**job));
                    self.tell(Event::warning(self.cron, "UnexpectedJob", text));
                }
                (true, Some(condition)) => {
                    self.forget(meta::uid(&**job));
                    let text = format!("Saw completed job: {}, condition: {condition}", meta::name(&**job));
                    self.events.push(Event::normal(self.cron, "SawCompletedJob", text));
                }
                _ => {}
            }
            let last = self.status.last_schedule_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
            if let Some(time) = scheduled_time(job).filter(|time| *time > last) {
                self.status.last_schedule_time = Some(meta::time(time));
            }
            let done = job.status.as_ref().and_then(|status| status.completion_time.as_ref()).filter(|_| finished(job) == Some("Complete"));
            let before = self.status.last_successful_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
            if let Some(done) = done.filter(|done| done.0 > before) {
                self.status.last_successful_time = Some(done.clone());
            }
        }
        let gone: Vec<ObjectReference> =
            self.active().iter().filter(|one| jobs.iter().all(|job| one.uid.as_deref() != Some(meta::uid(&**job)))).cloned().collect();
        for one in gone {
            self.forget(one.uid.as_deref().unwrap_or_default());
            let text = format!("Active job went missing: {}", one.name.unwrap_or_default());
            self.events.push(Event::normal(self.cron, "MissingJob", text));
        }
    }

    /// Deletes the oldest finished Jobs beyond the limits.
    fn clean_up(&mut self, jobs: &[Arc<Job>]) {
        let limits = [("Complete", self.spec.successful_jobs_history_limit), ("Failed", self.spec.failed_jobs_history_limit)];
        for (condition, limit) in limits {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let mut ended: Vec<&Arc<Job>> = jobs.iter().filter(|job| finished(job) == Some(condition)).collect();
            let started = |job: &Job| job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            ended.sort_by_key(|job| (started(job).unwrap_or(Timestamp::MAX), meta::name(&***job).to_owned()));
            let surplus = ended.len().saturating_sub(limit);
            let going = ended.into_iter().take(surplus).filter(|job| !meta::is_deleting(&***job)).map(|job| self.delete(job));
            let going: Vec<Action> = going.collect();
            self.changes.extend(going);
        }
    }

    fn delete(&self, job: &Job) -> Action {
        let done = Event::normal(self.cron, "SuccessfulDelete", format!("Deleted job {}", meta::name(job)));
        let failed = Event::warning(self.cron, "FailedDelete", "Deleted job: {}".to_owned());
        let mut action = Action::delete(job).tell_done(done).tell_failed(failed);
        if let Action::Delete { propagation, .. } = &mut action {
            *propagation = Some("Background");
        }
        action
    }

    /// Starts the Job whose time has come.
    fn start(&mut self, view: &View<'_>, jobs: &[Arc<Job>]) {
        let Some((schedule, zone)) = self.schedule() else { return };
        let now = self.context.now;
        let due = match self.most_recent(&schedule, true) {
            Ok(due) => due,
            Err(why) => {
                let text = format!("invalid schedule: {} : {why}", self.spec.schedule);
                self.tell(Event::warning(self.cron, "InvalidSchedule", text));
                return;
            }
        };
        self.wait = self.next_wait(&schedule);
        let Some(at) = due.last else { return };
        let deadline = self.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if deadline.is_some_and(|deadline| at.checked_add(deadline).is_ok_and(|end| end < now)) {
            let text = format!("Missed scheduled time to start a job: {}", at.strftime("%a, %d %b %Y %H:%M:%S +0000"));
            self.tell(Event::warning(self.cron, "MissSchedule", text));
            return;
        }
        let name = format!("{}-{}", meta::name(self.cron), at.as_second() / 60);
        let started = self.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == at);
        if started || view.jobs.get(meta::namespace(self.cron), &name).is_some() {
            return;
        }
        if due.missed > MANY {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(Event::warning(self.cron, "TooManyMissedTimes", text.to_owned()));
        }
        // What is seen may be older than the deletion: its Job would be collected, not be seen, and be made again.
        let live = Action::RequireLive { target: Target::of(self.cron), uid: meta::uid(self.cron).to_owned() };
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.active().is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.tell(Event::normal(self.cron, "JobAlreadyActive", text.to_owned()));
                return;
            }
            Some("Replace") => {
                self.changes.push(live);
                let replaced: Vec<Action> =
                    jobs.iter().filter(|job| self.is_active(job) && !meta::is_deleting(&***job)).map(|job| self.delete(job)).collect();
                self.changes.extend(replaced);
            }
            _ => self.changes.push(live),
        }
        self.create(name, at, &zone);
    }

    fn create(&mut self, name: String, at: Timestamp, zone: &TimeZone) {
        let template = &self.spec.job_template;
        let of_template = template.metadata.clone().unwrap_or_default();
        let mut annotations = of_template.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED.to_owned(), rfc3339(at, zone));
        let metadata = ObjectMeta {
            namespace: Some(meta::namespace(self.cron).to_owned()),
            labels: of_template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controller_ref(self.cron)]),
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let job = Job { metadata, spec: template.spec.clone(), status: None };
        let done = Event::normal(self.cron, "SuccessfulCreate", format!("Created job {name}"));
        let failed = Event::warning(self.cron, "FailedCreate", "Error creating job: {}".to_owned());
        self.changes.push(Action::create(&job).tell_done(done).tell_failed(failed));
    }

    /// The schedule and its time zone; none when it is suspended or cannot be read.
    fn schedule(&mut self) -> Option<(Schedule, TimeZone)> {
        let zone = match self.spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => match cron::time_zone(name) {
                Some(zone) => zone,
                None => {
                    let text = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                    self.tell(Event::warning(self.cron, "UnknownTimeZone", text));
                    return None;
                }
            },
        };
        if self.spec.suspend == Some(true) {
            return None;
        }
        match Schedule::parse(&self.spec.schedule, zone.clone()) {
            Ok(schedule) => Some((schedule, zone)),
            Err(why) => {
                let text = format!("unparseable schedule: {:?} : {why}", self.spec.schedule);
                self.tell(Event::warning(self.cron, "UnparseableSchedule", text));
                None
            }
        }
    }

    /// Upstream's `mostRecentScheduleTime`: the newest time that is not after now, and about how many came since the last.
    fn most_recent(&self, schedule: &Schedule, within_deadline: bool) -> Result<Due, &'static str> {
        let now = self.context.now;
        let mut earliest = self.status.last_schedule_time.as_ref().map_or_else(|| meta::created(self.cron), |time| time.0);
        if let (true, Some(seconds)) = (within_deadline, self.spec.starting_deadline_seconds) {
            earliest = earliest.max(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
        }
        let none = Due { earliest, last: None, missed: 0 };
        let Some(first) = schedule.next(earliest).filter(|first| *first <= now) else { return Ok(none) };
        let Some(second) = schedule.next(first).filter(|second| *second <= now) else {
            return Ok(Due { last: Some(first), ..none });
        };
        let between = second.duration_since(first).as_secs();
        if between < 1 {
            return Err("time difference between two schedules is less than 1 second");
        }
        let missed = now.duration_since(first).as_secs() / between + 1;
        // Not from the first: after a long pause there may be millions between.
        let skip = SignedDuration::from_secs((missed - 2).max(0).saturating_mul(between));
        let mut at = schedule.next(first.checked_add(skip).unwrap_or(first));
        let mut last = None;
        while let Some(time) = at.filter(|time| *time <= now) {
            last = Some(time);
            at = schedule.next(time);
        }
        Ok(Due { earliest, last, missed })
    }

    /// How long until the next time.
    fn next_wait(&self, schedule: &Schedule) -> Option<Duration> {
        let from = match self.most_recent(schedule, false) {
            Ok(Due { last: Some(last), .. }) => last,
            Ok(Due { earliest, missed: 0, .. }) => earliest,
            _ => self.context.now,
        };
        let next = schedule.next(from)?;
        Some(meta::unsigned(next.duration_since(self.context.now)) + DELTA)
    }
}

struct Due {
    earliest: Timestamp,
    last: Option<Timestamp>,
    missed: i64,
}

fn reference_of(job: &Job) -> ObjectReference {
    reference(job)
}

/// A time at a place, as Go writes it.
fn rfc3339(at: Timestamp, zone: &TimeZone) -> String {
    let local = at.to_zoned(zone.clone());
    if local.offset().seconds() == 0 {
        local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }
}

#[cfg(test)]
mod tests;
