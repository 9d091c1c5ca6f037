//! Shuffle sharding (upstream's `shufflesharding.Dealer`): a flow's hash deals it a hand of distinct queues.

/// The largest hand there is.
pub const HAND_MAX: usize = 15;

/// The hash of a flow: of its FlowSchema and what tells its flows apart.
pub fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    // FNV-1a, then a finalizer: dealing uses the high bits as much as the low ones.
    let mut hash = mix::Fnv64::of(schema.bytes().chain([0]).chain(distinguisher.bytes()));
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Deals `hand` distinct cards of a deck, the same for the same hash. A hand larger than the deck or [`HAND_MAX`] is cut.
pub fn deal(mut hash: u64, deck: usize, hand: usize, mut pick: impl FnMut(usize)) {
    let hand = hand.min(deck).min(HAND_MAX);
    let mut remainders = [0usize; HAND_MAX];
    for (dealt, remainder) in remainders.iter_mut().enumerate().take(hand) {
        let left = (deck - dealt) as u64;
        *remainder = usize::try_from(hash % left).unwrap_or(0);
        hash /= left;
    }
    for i in 0..hand {
        let mut card = remainders[i];
        for j in (0..i).rev() {
            if card >= remainders[j] {
                card += 1;
            }
        }
        pick(card);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(hash: u64, deck: usize, hand: usize) -> Vec<usize> {
        let mut cards = Vec::new();
        deal(hash, deck, hand, |card| cards.push(card));
        cards
    }

    #[test]
    fn hands_are_distinct_cards_of_the_deck() {
        proptest::proptest!(|(hash: u64, deck in 1usize..600, hand in 1usize..16)| {
            let mut cards = dealt(hash, deck, hand);
            assert_eq!(cards.len(), hand.min(deck));
            assert!(cards.iter().all(|c| *c < deck));
            cards.sort_unstable();
            cards.dedup();
            assert_eq!(cards.len(), hand.min(deck));
        });
    }

    #[test]
    fn upstreams_examples() {
        // By hand: 10 of a deck of 4: remainders 2, 2, 0; the second 2 moves past the first, 0 stays.
        assert_eq!(dealt(10, 4, 3), [2, 3, 0]);
        assert_eq!(dealt(0, 3, 3), [0, 1, 2]);
    }

    #[test]
    fn flows_spread_over_all_queues() {
        let mut seen = [0u32; 16];
        for i in 0..1600 {
            deal(flow_hash("schema", &format!("user-{i}")), 16, 1, |card| seen[card] += 1);
        }
        assert!(seen.iter().all(|n| (50..200).contains(n)), "{seen:?}");
        assert_ne!(flow_hash("ab", "c"), flow_hash("a", "bc"));
    }
}
