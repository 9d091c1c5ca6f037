//! What a level's queues promise, tried on simulated time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::level::{Queuing, Response};
use crate::queueset::{Arrival, QueueSet, Refusal, Ticket};
use crate::work::Work;

const QUEUING: Response = Response::Queue(Queuing { queues: 16, hand_size: 2, queue_length_limit: 50 });

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn run(arrival: Arrival) -> Ticket {
    match arrival {
        Arrival::Run(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_hold_and_the_next_one_runs_when_a_seat_is_free() {
    let mut set = QueueSet::new(QUEUING, 2);
    let a = run(set.arrive(ms(0), 1, Work::default()));
    let b = run(set.arrive(ms(0), 1, Work::default()));
    let Arrival::Wait(c) = set.arrive(ms(0), 1, Work::default()) else { panic!("three of two") };
    assert!(set.dispatch(ms(1)).is_none());
    set.finish(ms(2), a);
    let (id, waited, ticket) = set.dispatch(ms(2)).unwrap();
    assert_eq!((id, waited), (c, ms(2)));
    assert!(set.dispatch(ms(2)).is_none());
    set.finish(ms(3), b);
    set.finish(ms(3), ticket);
    assert_eq!((set.executing(), set.seats_in_use(), set.waiting()), (0, 0, 0));
}

#[test]
fn without_queues_or_with_full_ones_requests_are_refused() {
    let mut set = QueueSet::new(Response::Reject, 1);
    let _a = run(set.arrive(ms(0), 1, Work::default()));
    assert!(matches!(set.arrive(ms(0), 2, Work::default()), Arrival::Refused(Refusal::ConcurrencyLimit)));
    let mut set = QueueSet::new(Response::Queue(Queuing { queues: 1, hand_size: 1, queue_length_limit: 2 }), 1);
    let _a = run(set.arrive(ms(0), 1, Work::default()));
    let waiting: Vec<_> = (0..2).map(|_| set.arrive(ms(0), 1, Work::default())).collect();
    assert!(matches!(set.arrive(ms(0), 1, Work::default()), Arrival::Refused(Refusal::QueueFull)));
    let Arrival::Wait(first) = waiting[0] else { panic!() };
    assert!(set.cancel(ms(1), first) && !set.cancel(ms(1), first));
    assert!(matches!(set.arrive(ms(1), 1, Work::default()), Arrival::Wait(_)));
}

#[test]
fn a_write_keeps_seats_for_its_watchers() {
    let mut set = QueueSet::new(QUEUING, 3);
    let write = Work { seats: 1, final_seats: 3, after: ms(10) };
    let ticket = run(set.arrive(ms(0), 1, write));
    assert_eq!(set.seats_in_use(), 3);
    let Arrival::Wait(_) = set.arrive(ms(0), 2, Work::default()) else { panic!("all seats are taken") };
    set.finish(ms(5), ticket);
    assert_eq!((set.executing(), set.seats_in_use(), set.next_release()), (0, 3, Some(ms(15))));
    assert!(set.dispatch(ms(14)).is_none());
    assert!(set.dispatch(ms(15)).is_some());
}

#[test]
fn what_is_wider_than_the_limit_runs_alone() {
    let mut set = QueueSet::new(QUEUING, 2);
    let wide = Work { seats: 5, ..Work::default() };
    let ticket = run(set.arrive(ms(0), 1, wide));
    assert!(matches!(set.arrive(ms(0), 2, Work::default()), Arrival::Wait(_)));
    set.finish(ms(1), ticket);
    assert!(set.dispatch(ms(1)).is_some());
}

/// A flow that sends a hundred times as much gets no more than its share while the other always has something to do.
#[test]
fn an_elephant_does_not_trample_a_mouse() {
    let mut set = QueueSet::new(QUEUING, 4);
    let (elephant, mouse) = (crate::shard::flow_hash("s", "elephant"), crate::shard::flow_hash("s", "mouse"));
    let mut running: Vec<(u64, u64, Ticket)> = Vec::new();
    let mut owner = BTreeMap::new();
    let mut served = [0u32; 2];
    let mut refused = [0u32; 2];
    let mut mouse_out = 0;
    for now in 0..2000 {
        let ended: Vec<_> = running.extract_if(.., |(end, ..)| *end <= now).collect();
        for (_, flow, ticket) in ended {
            set.finish(ms(now), ticket);
            served[usize::from(flow == mouse)] += 1;
            mouse_out -= i32::from(flow == mouse);
        }
        let mut arriving = vec![elephant; 10];
        while mouse_out < 4 {
            arriving.insert(5, mouse);
            mouse_out += 1;
        }
        for flow in arriving {
            match set.arrive(ms(now), flow, Work::default()) {
                Arrival::Run(ticket) => running.push((now + 10, flow, ticket)),
                Arrival::Wait(id) => drop(owner.insert(id, flow)),
                Arrival::Refused(_) => {
                    refused[usize::from(flow == mouse)] += 1;
                    mouse_out -= i32::from(flow == mouse);
                }
            }
        }
        while let Some((id, _, ticket)) = set.dispatch(ms(now)) {
            running.push((now + 10, owner.remove(&id).unwrap(), ticket));
        }
        assert!(set.executing() <= 4);
    }
    // 800 can run in all; the mouse's two queues are worth a third to a half of them.
    assert!(served[1] > 200, "{served:?}");
    assert!(refused[1] == 0 && refused[0] > 1000, "{refused:?}");
}

proptest::proptest! {
    /// Whatever comes, in whatever order: nothing is lost, the limit holds, all comes to rest.
    #[test]
    fn accounts_always_balance(steps in proptest::collection::vec((0u8..4, 0u64..9, 1u32..4, 0u32..3), 1..200)) {
        let mut set = QueueSet::new(Response::Queue(Queuing { queues: 4, hand_size: 2, queue_length_limit: 3 }), 3);
        let (mut running, mut waiting, mut now) = (Vec::new(), Vec::new(), 0);
        for (what, flow, seats, after) in steps {
            now += 1;
            let work = Work { seats, final_seats: after, after: ms(u64::from(after)) };
            match what {
                0 | 1 => match set.arrive(ms(now), flow, work) {
                    Arrival::Run(ticket) => running.push(ticket),
                    Arrival::Wait(id) => waiting.push(id),
                    Arrival::Refused(_) => {}
                },
                2 => if let Some(ticket) = running.pop() { set.finish(ms(now), ticket) },
                _ => if let Some(id) = waiting.pop() { assert!(set.cancel(ms(now), id)) },
            }
            while let Some((id, _, ticket)) = set.dispatch(ms(now)) {
                waiting.retain(|w| *w != id);
                running.push(ticket);
            }
            assert_eq!((set.executing() as usize, set.waiting()), (running.len(), waiting.len()));
        }
        while !running.is_empty() || !waiting.is_empty() {
            now += 10;
            for ticket in running.drain(..) {
                set.finish(ms(now), ticket);
            }
            while let Some((id, _, ticket)) = set.dispatch(ms(now + 9)) {
                waiting.retain(|w| *w != id);
                running.push(ticket);
            }
        }
        set.demand(ms(now + 100));
        assert_eq!((set.executing(), set.seats_in_use(), set.waiting()), (0, 0, 0));
        assert!(set.queues().all(|q| q.seats == 0 && q.executing == 0));
    }
}
