//! A request's seat: held while it runs, given back when dropped. Also for one whose client went away while it waited.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flowcontrol::queueset::RequestId;
use flowcontrol::{Refusal, Ticket, Work};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::level::Entered;
use super::{Refused, Schema};

pub struct Seat {
    pub schema: Arc<Schema>,
    /// `None`: of an exempt level.
    ticket: Option<Ticket>,
    seats: f64,
    since: Instant,
    pub waited: Duration,
}

impl Seat {
    /// When the request began to run.
    pub fn since(&self) -> std::time::Instant {
        self.since.into_std()
    }

    pub(super) fn exempt(schema: Arc<Schema>) -> Self {
        schema.level.exempt_running.fetch_add(1, Ordering::Relaxed);
        Self::begin(schema, None, 1, Duration::ZERO)
    }

    fn begin(schema: Arc<Schema>, ticket: Option<Ticket>, seats: u32, waited: Duration) -> Self {
        let seats = f64::from(seats);
        schema.dispatched.add(1.0);
        schema.executing.add(1.0);
        schema.executing_seats.add(seats);
        Self { schema, ticket, seats, since: Instant::now(), waited }
    }

    pub(super) async fn get(schema: Arc<Schema>, flow: u64, work: Work, wait_max: Duration) -> Result<Self, Refused> {
        match schema.level.enter(flow, work) {
            Entered::Run(ticket) => {
                schema.waited.observe(0.0);
                Ok(Self::begin(schema, Some(ticket), work.seats, Duration::ZERO))
            }
            Entered::Refused(why) => Err(refused(schema, why)),
            Entered::Wait(id, given) => {
                let mut waiting = Waiting { schema: schema.clone(), id, given: Some(given) };
                schema.inqueue.add(1.0);
                let since = Instant::now();
                let Some(receiver) = waiting.given.as_mut() else { return Err(refused(schema, Refusal::Cancelled)) };
                let ticket = tokio::time::timeout(wait_max, receiver).await;
                match ticket {
                    Ok(Ok(ticket)) => {
                        waiting.given = None;
                        schema.waited.observe(since.elapsed().as_secs_f64());
                        Ok(Self::begin(schema, Some(ticket), work.seats, since.elapsed()))
                    }
                    Ok(Err(_)) => Err(refused(schema, Refusal::Cancelled)),
                    Err(_) => Err(refused(schema, Refusal::TimeOut)),
                }
            }
        }
    }
}

fn refused(schema: Arc<Schema>, why: Refusal) -> Refused {
    schema.level.refused(why);
    Refused { schema, why }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.schema.execution.observe(self.since.elapsed().as_secs_f64());
        self.schema.executing.add(-1.0);
        self.schema.executing_seats.add(-self.seats);
        match self.ticket.take() {
            Some(ticket) => self.schema.level.leave(ticket),
            None => drop(self.schema.level.exempt_running.fetch_sub(1, Ordering::Relaxed)),
        }
    }
}

/// A place in a queue; given up when dropped before its turn.
struct Waiting {
    schema: Arc<Schema>,
    id: RequestId,
    given: Option<oneshot::Receiver<Ticket>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.schema.inqueue.add(-1.0);
        if let Some(given) = self.given.take() {
            self.schema.level.give_up(self.id, given);
        }
    }
}
