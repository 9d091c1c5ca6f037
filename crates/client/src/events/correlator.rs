//! Decides what becomes of a happening: a new event, a higher count on one already written, or nothing. Synchronous and
//! without a clock. The rules and numbers are client-go's `EventCorrelator` (core/v1) and `eventBroadcasterImpl` (events.k8s.io/v1).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::Happening;

/// Distinct texts of one kind of event before they are combined, and the time they count for.
const SIMILAR_MAX: usize = 10;
const SIMILAR_SECONDS: i64 = 600;
/// Events about one object: this many at once, then one in so many seconds.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// Events and objects remembered.
const REMEMBERED_MAX: usize = 4096;
/// A series that is this old without being repeated is over; a running one is written this often.
const SERIES_SECONDS: i64 = 6 * 60;
const SERIES_REFRESH_SECONDS: i64 = 30 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// core/v1: `count`, `firstTimestamp`, `lastTimestamp`.
    Counted,
    /// events.k8s.io/v1: `eventTime`, `series`.
    Series,
}

/// One request to make.
#[derive(Debug)]
pub(crate) enum Step {
    Create {
        id: String,
        path: String,
        event: Value,
    },
    /// `event` is the whole, for when the old one is gone.
    Patch {
        id: String,
        path: String,
        name: String,
        patch: Value,
        event: Value,
    },
}

#[derive(Debug)]
struct Written {
    name: String,
    first: Timestamp,
    last: Timestamp,
    sent: Timestamp,
    count: i32,
}

#[derive(Debug, Default)]
struct Similar {
    texts: BTreeSet<String>,
    last: Timestamp,
}

/// A map that forgets its oldest entries.
#[derive(Debug)]
struct Bounded<V> {
    entries: BTreeMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Bounded<V> {
    fn new() -> Self {
        Self { entries: BTreeMap::new(), order: VecDeque::new() }
    }

    fn entry(&mut self, id: &str, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(id) {
            if self.order.len() >= REMEMBERED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
            self.order.push_back(id.to_owned());
        }
        self.entries.entry(id.to_owned()).or_insert_with(make)
    }
}

#[derive(Debug)]
pub(crate) struct Correlator {
    style: Style,
    component: String,
    instance: String,
    written: Bounded<Written>,
    similar: Bounded<Similar>,
    tokens: Bounded<(f64, Timestamp)>,
}

impl Correlator {
    pub fn new(style: Style, component: &str, instance: &str) -> Self {
        let (written, similar, tokens) = (Bounded::new(), Bounded::new(), Bounded::new());
        Self { style, component: component.to_owned(), instance: instance.to_owned(), written, similar, tokens }
    }

    pub fn correlate(&mut self, happening: Happening, now: Timestamp) -> Option<Step> {
        match self.style {
            Style::Counted => self.counted(happening, now),
            Style::Series => self.series(happening, now),
        }
    }

    /// Tells of the answer to a step: only what the server has can be counted up.
    pub fn remember(&mut self, step: &Step, answer: &Value) {
        let (Step::Create { id, .. } | Step::Patch { id, .. }) = step;
        if let (Some(written), Some(name)) = (self.written.entries.get_mut(id), answer["metadata"]["name"].as_str()) {
            written.name = name.to_owned();
        }
    }

    fn counted(&mut self, mut happening: Happening, now: Timestamp) -> Option<Step> {
        let object = object_id(&happening.regarding);
        let group = format!("{object}|{}|{}", happening.event_type.as_str(), happening.reason);
        let similar = self.similar.entry(&group, Similar::default);
        if seconds_between(similar.last, now) > SIMILAR_SECONDS {
            similar.texts.clear();
        }
        similar.last = now;
        if similar.texts.len() < SIMILAR_MAX {
            similar.texts.insert(happening.note.clone());
        }
        let id = if similar.texts.len() >= SIMILAR_MAX {
            happening.note = format!("(combined from similar events): {}", happening.note);
            group
        } else {
            format!("{group}|{}", happening.note)
        };
        if !self.take_token(&object, now) {
            return None;
        }
        let fresh = Written { name: String::new(), first: now, last: now, sent: now, count: 0 };
        let written = self.written.entry(&id, || fresh);
        written.count += 1;
        written.last = now;
        let (name, count, first) = (written.name.clone(), written.count, written.first);
        let event = self.counted_event(&happening, count, first, now);
        let path = event_path("/api/v1", &happening.regarding);
        if name.is_empty() {
            return Some(Step::Create { id, path, event });
        }
        let patch = json!({"count": count, "lastTimestamp": whole_seconds(now), "message": happening.note});
        Some(Step::Patch { id, path, name, patch, event })
    }

    fn series(&mut self, happening: Happening, now: Timestamp) -> Option<Step> {
        let related = happening.related.as_ref().map(object_id).unwrap_or_default();
        let object = object_id(&happening.regarding);
        let id = format!("{object}|{related}|{}|{}|{}", happening.event_type.as_str(), happening.reason, happening.action);
        let fresh = || Written { name: String::new(), first: now, last: now, sent: now, count: 0 };
        let written = self.written.entry(&id, fresh);
        if seconds_between(written.last, now) > SERIES_SECONDS {
            *written = fresh();
        }
        written.count += 1;
        written.last = now;
        let path = event_path("/apis/events.k8s.io/v1", &happening.regarding);
        if written.name.is_empty() {
            let event = self.series_event(&happening, now);
            return Some(Step::Create { id, path, event });
        }
        if written.count > 2 && seconds_between(written.sent, now) < SERIES_REFRESH_SECONDS {
            return None;
        }
        written.sent = now;
        let (name, series) = (written.name.clone(), json!({"count": written.count, "lastObservedTime": micros(now)}));
        let mut event = self.series_event(&happening, now);
        event["series"] = series.clone();
        Some(Step::Patch { id, path, name, patch: json!({"series": series}), event })
    }

    fn take_token(&mut self, object: &str, now: Timestamp) -> bool {
        let (tokens, at) = self.tokens.entry(object, || (BURST, now));
        let passed = now.duration_since(*at).as_secs_f64().max(0.0);
        *tokens = (*tokens + passed / REFILL_SECONDS).min(BURST);
        *at = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }

    fn counted_event(&self, happening: &Happening, count: i32, first: Timestamp, now: Timestamp) -> Value {
        let mut source = json!({"component": self.component});
        if !self.instance.is_empty() {
            source["host"] = self.instance.clone().into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": event_name(&happening.regarding, now), "namespace": event_namespace(&happening.regarding)},
            "involvedObject": happening.regarding,
            "reason": happening.reason,
            "message": happening.note,
            "source": source,
            "firstTimestamp": whole_seconds(first),
            "lastTimestamp": whole_seconds(now),
            "count": count,
            "type": happening.event_type.as_str(),
            "reportingComponent": self.component,
            "reportingInstance": self.instance,
        })
    }

    fn series_event(&self, happening: &Happening, now: Timestamp) -> Value {
        let mut event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event_name(&happening.regarding, now), "namespace": event_namespace(&happening.regarding)},
            "eventTime": micros(now),
            "reportingController": self.component,
            "reportingInstance": self.instance,
            "action": happening.action,
            "reason": happening.reason,
            "regarding": happening.regarding,
            "note": happening.note,
            "type": happening.event_type.as_str(),
        });
        if let Some(related) = &happening.related {
            event["related"] = json!(related);
        }
        event
    }
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> i64 {
    later.duration_since(earlier).as_secs()
}

fn object_id(object: &ObjectReference) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let (kind, namespace, name) = (part(&object.kind), part(&object.namespace), part(&object.name));
    format!("{kind}/{namespace}/{name}/{}/{}/{}", part(&object.uid), part(&object.api_version), part(&object.field_path))
}

/// Events about cluster-scoped objects live in `default`.
fn event_namespace(object: &ObjectReference) -> &str {
    object.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}

fn event_path(prefix: &str, object: &ObjectReference) -> String {
    format!("{prefix}/namespaces/{}/events", event_namespace(object))
}

fn event_name(object: &ObjectReference, now: Timestamp) -> String {
    format!("{}.{:x}", object.name.as_deref().unwrap_or_default(), now.as_nanosecond())
}

fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::EventType;
    use super::*;

    fn happening(note: &str) -> Happening {
        let regarding =
            ObjectReference { kind: Some("Pod".into()), name: Some("p".into()), namespace: Some("n".into()), ..Default::default() };
        Happening {
            regarding,
            related: None,
            event_type: EventType::Normal,
            reason: "Pulled".into(),
            action: "Pulling".into(),
            note: note.into(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(1_700_000_000 + seconds, 0).unwrap()
    }

    fn answer(correlator: &mut Correlator, step: &Step) {
        correlator.remember(step, &json!({"metadata": {"name": "e"}}));
    }

    #[test]
    fn the_same_event_is_counted() {
        let mut correlator = Correlator::new(Style::Counted, "kubelet", "node");
        let first = correlator.correlate(happening("x"), at(0)).unwrap();
        let Step::Create { path, event, .. } = &first else { panic!("{first:?}") };
        assert_eq!((path.as_str(), &event["count"]), ("/api/v1/namespaces/n/events", &json!(1)));
        answer(&mut correlator, &first);
        let Some(Step::Patch { patch, name, .. }) = correlator.correlate(happening("x"), at(5)) else { panic!("not a patch") };
        assert_eq!((name.as_str(), patch["count"].as_i64(), patch["lastTimestamp"].as_str()), ("e", Some(2), Some("2023-11-14T22:13:25Z")));
    }

    #[test]
    fn many_similar_events_are_combined_and_a_flood_is_dropped() {
        let mut correlator = Correlator::new(Style::Counted, "kubelet", "node");
        let mut texts = Vec::new();
        for n in 0..40 {
            let Some(step) = correlator.correlate(happening(&format!("text {n}")), at(0)) else { continue };
            let (Step::Create { event, .. } | Step::Patch { event, .. }) = &step;
            texts.push(event["message"].as_str().unwrap().to_owned());
            answer(&mut correlator, &step);
        }
        assert_eq!(texts.len(), 25);
        assert_eq!(texts.iter().filter(|text| text.starts_with("(combined from similar events): ")).count(), 16);
    }

    #[test]
    fn a_repeated_event_becomes_a_series() {
        let mut correlator = Correlator::new(Style::Series, "default-scheduler", "host");
        let first = correlator.correlate(happening("x"), at(0)).unwrap();
        answer(&mut correlator, &first);
        let Some(Step::Patch { patch, .. }) = correlator.correlate(happening("y"), at(1)) else { panic!("not a patch") };
        assert_eq!(patch["series"]["count"], 2);
        assert!(correlator.correlate(happening("y"), at(2)).is_none());
        assert!(matches!(correlator.correlate(happening("y"), at(1000)), Some(Step::Create { .. })));
    }
}
