//! What may go wrong in a run, and how often: chosen from the seed. Some seeds have many kinds of faults, some a few often
//! ones, so that rare combinations come up, too.

use client::Entropy;

#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    /// In a thousand requests, so many do not arrive, and so many answers.
    pub lost_requests: u64,
    pub lost_answers: u64,
    pub delay_ms_max: u64,
    /// Longest life of a watch; 0: as long as it likes.
    pub watch_seconds_max: u64,
    pub watch_lag_ms_max: u64,
    /// In a thousand pieces of a watch, so many arrive twice.
    pub watch_twice: u64,
    /// In a thousand writes of the store, so many are not done, done without an answer, or told to conflict.
    pub store_refused: u64,
    pub store_unanswered: u64,
    pub store_conflicts: u64,
    /// In a thousand deliveries of a watch of the store, so many end it.
    pub store_watch_cut: u64,
    pub store_watch_lag_ms_max: u64,
    /// Mean minutes between; 0: never.
    pub manager_restarts: u64,
    pub scheduler_restarts: u64,
    pub server_crashes: u64,
    /// The disk dies in the middle of something.
    pub disk_deaths: u64,
    pub clock_jumps: u64,
    pub node_silences: u64,
    pub node_restarts: u64,
    pub node_removals: u64,
    /// Clocks of nodes differ from the others' by up to so many seconds.
    pub node_skew_seconds: u64,
}

impl Profile {
    pub fn from_seed(seed: u64) -> Self {
        let entropy = Entropy::from_seed(seed ^ 0x000f_ac70);
        let busy = 1 + entropy.below(3);
        // Each kind is there in one, two or three of four seeds.
        let some = |least: u64, most: u64| if entropy.below(4) < busy { least + entropy.below(most - least + 1) } else { 0 };
        Self {
            lost_requests: some(1, 30),
            lost_answers: some(1, 30),
            delay_ms_max: 1 + some(1, 50),
            watch_seconds_max: some(20, 300),
            watch_lag_ms_max: some(10, 1000),
            watch_twice: some(1, 30),
            store_refused: some(1, 20),
            store_unanswered: some(1, 20),
            store_conflicts: some(1, 30),
            store_watch_cut: some(1, 5),
            store_watch_lag_ms_max: some(10, 1000),
            manager_restarts: some(1, 6),
            scheduler_restarts: some(1, 6),
            server_crashes: some(2, 10),
            disk_deaths: some(2, 10),
            clock_jumps: some(2, 8),
            node_silences: some(2, 12),
            node_restarts: some(2, 12),
            node_removals: some(4, 15),
            node_skew_seconds: some(1, 120),
        }
    }

    /// Nothing goes wrong; requests take a moment.
    pub fn calm() -> Self {
        Self { delay_ms_max: 5, ..Self::default() }
    }
}
