//! Completion indexes: sets of them as text ("1,3-5"), and pods that carry one.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use crate::meta;
use crate::view::Context;

const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Intervals, in order.
pub struct Indexes(Vec<(usize, usize)>);

impl Indexes {
    pub fn from_set(set: &BTreeSet<usize>) -> Self {
        let mut intervals: Vec<(usize, usize)> = Vec::new();
        for index in set {
            match intervals.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => intervals.push((*index, *index)),
            }
        }
        Self(intervals)
    }

    /// What is not a number or an interval of at most a million is left out.
    pub fn parse(text: &str) -> Self {
        let interval = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
            (first <= last && last - first < 1_000_000).then_some((first, last))
        };
        Self(text.split(',').filter_map(interval).collect())
    }

    pub fn to_set(&self) -> BTreeSet<usize> {
        self.0.iter().flat_map(|(first, last)| *first..=*last).collect()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

pub fn index_of(pod: &Pod) -> Option<usize> {
    meta::annotation(pod, INDEX)?.parse().ok()
}

/// Gives a pod its index: in its name, hostname, label, annotation and environment.
pub fn mark(pod: &mut Pod, job: &Job, index: usize, context: &Context<'_>) -> Option<()> {
    let prefix = format!("{}-{index}-", meta::name(job));
    pod.metadata.name = Some(format!("{prefix}{}", context.name_suffix()));
    pod.metadata.generate_name = Some(prefix);
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.as_mut()?;
    if spec.hostname.is_none() {
        spec.hostname = Some(format!("{}-{index}", meta::name(job)));
    }
    let field_ref = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
    };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if env.iter().all(|one| one.name != variable.name) {
            env.push(variable.clone());
        }
    }
    Some(())
}
