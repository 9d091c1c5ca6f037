//! How many keys lie between two: the ordered map of a cache knows no sizes, and counting what remains after a page cost ten
//! times what the page did. Kept by [`super::state`] beside its map, and cloned with it; synchronous.
//!
//! The keys are cut into stretches of some hundreds, of which a second, small map knows the first key and the number. Only a key
//! that comes or goes changes a number: a new value under a known key, which is what most writes are, costs nothing. Of a million
//! keys a count adds up 2,000 numbers at most and walks over two stretches.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use store::Key;

/// A stretch that grows beyond this becomes two.
const STRETCH_MAX: usize = 1024;
/// A stretch that shrinks below this becomes part of the one before it.
const STRETCH_MIN: usize = STRETCH_MAX / 4;

/// The number of keys from this one on to the next stretch. The first one begins at the empty key, before all others.
#[derive(Clone)]
pub(super) struct Counts(OrdMap<Key, usize>);

impl Counts {
    /// Of a whole map.
    pub(super) fn of<V: Clone>(map: &OrdMap<Key, V>) -> Self {
        let mut stretches: Vec<(Key, usize)> = vec![(Arc::from(""), 0)];
        for (at, key) in map.keys().enumerate() {
            match stretches.last_mut() {
                Some((_, count)) if at == 0 || *count < STRETCH_MAX / 2 => *count += 1,
                _ => stretches.push((key.clone(), 1)),
            }
        }
        Counts(stretches.into_iter().collect())
    }

    fn stretch_of(&self, key: &str) -> (Key, usize) {
        self.0.get_prev(key).map_or_else(|| (Arc::from(""), 0), |(first, count)| (first.clone(), *count))
    }

    /// Notes a key that the map has only now.
    pub(super) fn add<V: Clone>(&mut self, key: &str, map: &OrdMap<Key, V>) {
        let (first, count) = self.stretch_of(key);
        let count = count + 1;
        let keep = if count > STRETCH_MAX { count / 2 } else { count };
        if keep < count
            && let Some((middle, _)) = map.range::<_, str>((Bound::Included(&*first), Bound::Unbounded)).nth(keep)
        {
            self.0.insert(middle.clone(), count - keep);
        }
        self.0.insert(first, keep);
    }

    /// Notes a key that the map has no more.
    pub(super) fn remove(&mut self, key: &str) {
        let (first, count) = self.stretch_of(key);
        let count = count.saturating_sub(1);
        let before = self.0.range::<_, str>((Bound::Unbounded, Bound::Excluded(&*first))).next_back();
        match before.map(|(key, n)| (key.clone(), n + count)) {
            Some((before, together)) if count < STRETCH_MIN && together <= STRETCH_MAX => {
                self.0.remove(&first);
                self.0.insert(before, together);
            }
            _ => drop(self.0.insert(first, count)),
        }
    }

    /// How many keys of the map these are of lie between two: `from` is one of them, `to` is not.
    pub(super) fn between<V: Clone>(&self, from: &str, to: &str, map: &OrdMap<Key, V>) -> usize {
        if from >= to {
            return 0;
        }
        let walk = |from: &str, to: &str| map.range::<_, str>((Bound::Included(from), Bound::Excluded(to))).count();
        let (first, last) = (self.stretch_of(from).0, self.stretch_of(to).0);
        if first == last {
            return walk(from, to);
        }
        let whole: usize = self.0.range::<_, str>((Bound::Included(&*first), Bound::Excluded(&*last))).map(|(_, count)| count).sum();
        whole - walk(&first, from) + walk(&last, to)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u16) -> Key {
        format!("/r/{n:05}").into()
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So many keys in a row.
        Add(u16, u16),
        Remove(u16, u16),
        Rebuild,
        Count(u16, u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..5000u16, 1..1500u16).prop_map(|(at, n)| Step::Add(at, n)),
            3 => (0..5000u16, 1..1500u16).prop_map(|(at, n)| Step::Remove(at, n)),
            1 => Just(Step::Rebuild),
            8 => (0..7000u16, 0..7000u16).prop_map(|(a, b)| Step::Count(a, b)),
        ]
    }

    /// The map with its counts, and the plain set they must agree with.
    #[derive(Default)]
    struct Pair {
        map: OrdMap<Key, ()>,
        counts: Option<Counts>,
        model: BTreeSet<Key>,
    }

    impl Pair {
        fn take(&mut self, step: &Step) {
            let map = &self.map;
            let counts = self.counts.get_or_insert_with(|| Counts::of(map));
            match step {
                Step::Add(at, n) => (*at..at + n).map(key).for_each(|key| {
                    if self.model.insert(key.clone()) {
                        self.map.insert(key.clone(), ());
                        counts.add(&key, &self.map);
                    }
                }),
                Step::Remove(at, n) => (*at..at + n).map(key).for_each(|key| {
                    if self.model.remove(&key) {
                        self.map.remove(&key);
                        counts.remove(&key);
                    }
                }),
                Step::Rebuild => *counts = Counts::of(&self.map),
                Step::Count(a, b) => {
                    let (a, b) = (key(*a), key(*b));
                    let want = if a < b { self.model.range(a.clone()..b.clone()).count() } else { 0 };
                    assert_eq!(counts.between(&a, &b, &self.map), want);
                    assert_eq!(counts.between("", &b, &self.map), self.model.range(..b.clone()).count());
                }
            }
            assert_eq!(counts.0.values().sum::<usize>(), self.model.len());
            assert!(counts.0.values().all(|n| *n <= STRETCH_MAX));
            // No two neighbours are small, so there are never many stretches.
            let sizes: Vec<usize> = counts.0.values().copied().collect();
            assert!(sizes.len() <= 2 + 2 * self.model.len() / STRETCH_MIN, "{sizes:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn counts_are_those_of_a_plain_set(steps in prop::collection::vec(step(), 1..60)) {
            let mut pair = Pair::default();
            steps.iter().for_each(|step| pair.take(step));
        }
    }

    #[test]
    fn a_clone_keeps_its_counts() {
        let map: OrdMap<Key, ()> = (0..3000).map(|n| (key(n), ())).collect();
        let counts = Counts::of(&map);
        let (mut later, mut more) = (counts.clone(), map.clone());
        for n in 3000..9000 {
            more.insert(key(n), ());
            later.add(&key(n), &more);
        }
        assert_eq!((counts.between("", "/s", &map), later.between("", "/s", &more)), (3000, 9000));
    }
}
