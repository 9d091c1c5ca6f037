//! What a request costs: seats while it runs, and after a write the time its watchers take (upstream's `request` estimators).

use std::time::Duration;

const SEATS_MAX: u32 = 100;
const OBJECTS_PER_SEAT: u64 = 100;
const BYTES_PER_SEAT: u64 = 100_000;
const WATCHES_PER_SEAT: u64 = 10;
const EVENT_TIME: Duration = Duration::from_millis(5);
/// A level's limit is not to be filled by one request.
const SHARE_MAX: f64 = 0.15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub seats: u32,
    /// Kept for `after` when the request itself has ended.
    pub final_seats: u32,
    pub after: Duration,
}

impl Default for Work {
    fn default() -> Self {
        Self { seats: 1, final_seats: 0, after: Duration::ZERO }
    }
}

/// The most seats one request gets in a level.
pub fn seats_max(nominal: u32, hand_size: usize) -> u32 {
    let by_share = (f64::from(nominal) * SHARE_MAX).ceil() as u32;
    let by_hand = nominal / u32::try_from(hand_size).unwrap_or(1).max(1);
    by_share.min(by_hand.max(1)).clamp(1, SEATS_MAX)
}

/// A list of `stored` objects of `bytes` together, of which at most `limit` are wanted (0: all), `selective` where a selector
/// makes the server look at more than it answers.
pub fn list(stored: u64, bytes: u64, limit: u64, selective: bool, most: u32) -> Work {
    let looked_at = if limit == 0 || selective { stored } else { stored.min(limit.saturating_mul(2)) };
    let by_objects = looked_at.div_ceil(OBJECTS_PER_SEAT);
    let by_bytes = bytes.checked_div(stored).map_or(0, |each| each.saturating_mul(looked_at).div_ceil(BYTES_PER_SEAT));
    let seats = by_objects.max(by_bytes).clamp(1, u64::from(most.max(1)));
    Work { seats: u32::try_from(seats).unwrap_or(1), ..Work::default() }
}

/// A write that so many watches will hear of.
pub fn write(watches: u64, most: u32) -> Work {
    let seats = watches.div_ceil(WATCHES_PER_SEAT);
    if watches == 0 {
        return Work::default();
    }
    let most = u64::from(most.max(1));
    let given = seats.min(most);
    // The same work by fewer hands takes longer.
    let after = EVENT_TIME.mul_f64(seats as f64 / given as f64);
    Work { seats: 1, final_seats: u32::try_from(given).unwrap_or(1), after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_estimated_from_what_is_there() {
        let seats = |stored, bytes, limit, selective| list(stored, bytes, limit, selective, 10).seats;
        assert_eq!((seats(0, 0, 0, false), seats(100, 1, 0, false), seats(101, 1, 0, false), seats(9000, 1, 0, false)), (1, 1, 2, 10));
        assert_eq!((seats(9000, 1, 100, false), seats(9000, 1, 100, true)), (2, 10));
        assert_eq!(seats(10, 500_000, 0, false), 5, "few, but large");
        assert_eq!(write(0, 10), Work::default());
        assert_eq!(write(25, 10), Work { seats: 1, final_seats: 3, after: EVENT_TIME });
        assert_eq!(write(1000, 10), Work { seats: 1, final_seats: 10, after: EVENT_TIME * 10 });
        assert_eq!((seats_max(13, 1), seats_max(245, 6), seats_max(0, 6), seats_max(9000, 1)), (2, 37, 1, 100));
    }
}
