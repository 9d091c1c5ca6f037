//! `/debug/api_priority_and_fairness/*`: upstream's dumps of levels, queues and waiting requests, as comma-separated tables.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Flow, Level};
use crate::http::respond::{self, Answer};

/// The dump of a name; `None`: there is none of that name.
pub fn serve(flow: &Flow, name: &str) -> Option<Answer> {
    let rows = match name {
        "dump_priority_levels" => levels(flow),
        "dump_queues" => queues(flow),
        "dump_requests" => requests(flow),
        _ => return None,
    };
    Some(respond::text(200, table(&rows)))
}

/// Columns in line, as Go's tabwriter sets them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let last = column + 1 == row.len();
            let padded = if last { cell.clone() } else { format!("{:width$}", format!("{cell},"), width = widths[column] + 2) };
            if out.write_str(&padded).is_err() {
                return out;
            }
        }
        out.push('\n');
    }
    out
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn yes(value: bool) -> String {
    value.to_string()
}

fn levels(flow: &Flow) -> Vec<Vec<String>> {
    let names = [
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ];
    let mut rows = vec![head(&names)];
    let all = flow.table.load();
    for level in flow.levels() {
        let state = level.lock();
        let active = state.set.queues().filter(|q| q.waiting > 0 || q.executing > 0).count();
        let executing = state.set.executing() + level.exempt_running.load(Ordering::Relaxed);
        let of_level = all.schemas.iter().filter(|s| Arc::ptr_eq(&s.level, &level));
        let dispatched: f64 = of_level.map(|s| s.dispatched.value()).sum();
        let idle = executing == 0 && state.set.waiting() == 0;
        let counts = level.refusals();
        rows.push(vec![
            level.name.clone(),
            active.to_string(),
            yes(idle),
            yes(false),
            state.set.waiting().to_string(),
            executing.to_string(),
            dispatched.to_string(),
            counts[0].to_string(),
            counts[1].to_string(),
            counts[2].to_string(),
        ]);
    }
    rows
}

fn queued(flow: &Flow) -> impl Iterator<Item = Arc<Level>> {
    flow.levels().into_iter().filter(|l| !l.exempt())
}

fn queues(flow: &Flow) -> Vec<Vec<String>> {
    let names = [
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ];
    let mut rows = vec![head(&names)];
    for level in queued(flow) {
        let state = level.lock();
        for (index, queue) in state.set.queues().enumerate() {
            rows.push(vec![
                level.name.clone(),
                index.to_string(),
                queue.waiting.to_string(),
                queue.executing.to_string(),
                queue.seats.to_string(),
                format!("{:.8}ss", queue.next_start),
                queue.wanted_first.to_string(),
                queue.wanted.to_string(),
                format!("{:.8}ss", queue.queued_seconds),
            ]);
        }
    }
    rows
}

fn requests(flow: &Flow) -> Vec<Vec<String>> {
    let names =
        ["PriorityLevelName", "QueueIndex", "RequestIndexInQueue", "WaitedSeconds", "InitialSeats", "FinalSeats", "AdditionalLatency"];
    let mut rows = vec![head(&names)];
    for level in queued(flow) {
        let (state, now) = (level.lock(), level.now());
        for (queue, place, _, work, since) in state.set.waiting_requests() {
            rows.push(vec![
                level.name.clone(),
                queue.to_string(),
                place.to_string(),
                format!("{:.6}", now.saturating_sub(since).as_secs_f64()),
                work.seats.to_string(),
                work.final_seats.to_string(),
                format!("{:?}", work.after),
            ]);
        }
    }
    rows
}
