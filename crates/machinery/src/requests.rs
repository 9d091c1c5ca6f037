//! What a pod as a whole asks for: requests, limits and the QoS class, over its containers, sidecars and init containers (`PodRequests`,
//! `PodLimits` and `ComputePodQOS` upstream). The scheduler, the kubelet and quotas must agree on it: this is the one place. It reads
//! neither trees nor typed pods; each caller says what a container asks for.

use std::collections::BTreeMap;

use crate::quantity::Quantity;

/// Amounts of resources, in whatever form the caller counts them.
pub trait Amounts: Clone + Default {
    type Amount: Clone;

    fn add(&mut self, other: &Self);
    /// Each amount becomes the greater of the two.
    fn raise(&mut self, other: &Self);
    fn set(&mut self, name: &str, amount: Self::Amount);
}

pub type List = BTreeMap<String, Quantity>;

impl Amounts for List {
    type Amount = Quantity;

    fn add(&mut self, other: &Self) {
        for (name, amount) in other {
            *self.entry(name.clone()).or_insert(Quantity::ZERO) += *amount;
        }
    }

    fn raise(&mut self, other: &Self) {
        for (name, amount) in other {
            let before = self.entry(name.clone()).or_insert(*amount);
            *before = (*before).max(*amount);
        }
    }

    fn set(&mut self, name: &str, amount: Quantity) {
        self.insert(name.to_owned(), amount);
    }
}

/// What the parts of a pod ask for, or are limited to.
#[derive(Clone, Debug, Default)]
pub struct Pod<A: Amounts> {
    pub containers: Vec<A>,
    /// In order, each with whether it is a sidecar.
    pub init_containers: Vec<(A, bool)>,
    /// What the pod as a whole names (KEP-2837).
    pub own: Vec<(String, A::Amount)>,
    pub overhead: A,
}

impl<A: Amounts> Pod<A> {
    pub fn requests(&self) -> A {
        let mut sum = self.at_most();
        sum.add(&self.overhead);
        sum
    }

    /// Containers and sidecars run together; each init container runs beside the sidecars before it. What the pod as a whole
    /// names takes their place.
    fn at_most(&self) -> A {
        let mut sum = A::default();
        self.containers.iter().for_each(|container| sum.add(container));
        let (mut sidecars, mut starting) = (A::default(), A::default());
        for (container, is_sidecar) in &self.init_containers {
            let mut beside = sidecars.clone();
            beside.add(container);
            starting.raise(&beside);
            if *is_sidecar {
                sum.add(container);
                sidecars = beside;
            }
        }
        sum.raise(&starting);
        for (name, amount) in &self.own {
            if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
                sum.set(name, amount.clone());
            }
        }
        sum
    }
}

impl Pod<List> {
    pub fn limits(&self) -> List {
        let mut sum = self.at_most();
        for (name, amount) in &self.overhead {
            // A limit that is not there stays away.
            if let Some(limit) = sum.get_mut(name) {
                *limit += *amount;
            }
        }
        sum
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the requests and limits of the pod as a whole where it has any, else of each of
/// its containers.
pub fn qos_class(resources: impl IntoIterator<Item = (List, List)>) -> &'static str {
    let (mut requests, mut limits) = (List::new(), List::new());
    let mut guaranteed = true;
    for (mut requested, mut limited) in resources {
        for list in [&mut requested, &mut limited] {
            list.retain(|name, amount| matches!(name.as_str(), "cpu" | "memory") && *amount > Quantity::ZERO);
        }
        guaranteed &= limited.len() == 2;
        requests.add(&requested);
        limits.add(&limited);
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> List {
        let one = |entry: &str| {
            let (name, amount) = entry.split_once('=').unwrap();
            (name.to_owned(), amount.parse().unwrap())
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn init_containers_take_turns_and_sidecars_add_up() {
        let of = |containers: &[&str], init: &[(&str, bool)], own: &str| Pod {
            containers: containers.iter().map(|c| list(c)).collect(),
            init_containers: init.iter().map(|(c, is_sidecar)| (list(c), *is_sidecar)).collect(),
            own: list(own).into_iter().collect(),
            overhead: list("cpu=10m memory=1Mi"),
        };
        for (pod, requests, limits) in [
            (of(&["cpu=1", "cpu=2"], &[], ""), "cpu=3010m memory=1Mi", "cpu=3010m"),
            (of(&["cpu=500m"], &[("cpu=100m", true), ("cpu=2", false)], ""), "cpu=2110m memory=1Mi", "cpu=2110m"),
            (of(&["cpu=500m"], &[("cpu=2", false), ("cpu=100m", true)], ""), "cpu=2010m memory=1Mi", "cpu=2010m"),
            (of(&["cpu=3"], &[("cpu=100m", true), ("cpu=2", false)], ""), "cpu=3110m memory=1Mi", "cpu=3110m"),
            (of(&["cpu=3 a/b=1"], &[], "cpu=1 a/b=5"), "a/b=1 cpu=1010m memory=1Mi", "a/b=1 cpu=1010m"),
        ] {
            assert_eq!((pod.requests(), pod.limits()), (list(requests), list(limits)));
        }
    }

    #[test]
    fn classes() {
        for (containers, wanted) in [
            (vec![("", "")], "BestEffort"),
            (vec![("cpu=0", "a/b=1")], "BestEffort"),
            (vec![("cpu=1", "")], "Burstable"),
            (vec![("cpu=1 memory=1Gi", "cpu=1 memory=1Gi")], "Guaranteed"),
            (vec![("cpu=1 memory=1Gi", "cpu=1 memory=1Gi"), ("", "")], "Burstable"),
            (vec![("cpu=500m memory=1Gi", "cpu=1 memory=1Gi")], "Burstable"),
            (vec![("", "cpu=1 memory=1Gi")], "Burstable"),
            (vec![("cpu=1", "cpu=1")], "Burstable"),
        ] {
            let read = containers.iter().map(|(requests, limits)| (list(requests), list(limits)));
            assert_eq!(qos_class(read), wanted, "{containers:?}");
        }
    }
}
