//! A PriorityLevelConfiguration as far as serving needs it, with upstream's defaults for what it leaves out.

use serde_json::Value;

/// How many waiting requests are kept in which queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: usize,
    pub hand_size: usize,
    pub queue_length_limit: usize,
}

/// What happens to a request for which there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    Queue(Queuing),
    Reject,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityLevel {
    pub name: String,
    pub uid: String,
    /// Requests run at once, whatever the limit.
    pub exempt: bool,
    pub shares: u32,
    pub lendable_percent: u32,
    /// `None`: as much as there is.
    pub borrowing_limit_percent: Option<u32>,
    pub response: Response,
}

fn number(value: &Value, path: &str, default: u32) -> u32 {
    value.pointer(path).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
}

impl PriorityLevel {
    /// Reads the object, served or stored. `None` for one without a name.
    pub fn parse(object: &Value) -> Option<Self> {
        let name = object.pointer("/metadata/name")?.as_str()?.to_owned();
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let exempt = object.pointer("/spec/type").and_then(Value::as_str) == Some("Exempt");
        let part = object.pointer(if exempt { "/spec/exempt" } else { "/spec/limited" }).unwrap_or(&Value::Null);
        let response = match part.pointer("/limitResponse/type").and_then(Value::as_str) {
            Some("Queue") => Response::Queue(Queuing {
                queues: number(part, "/limitResponse/queuing/queues", 64).clamp(1, 10_000_000) as usize,
                hand_size: number(part, "/limitResponse/queuing/handSize", 8).clamp(1, 15) as usize,
                queue_length_limit: number(part, "/limitResponse/queuing/queueLengthLimit", 50).max(1) as usize,
            }),
            _ => Response::Reject,
        };
        Some(Self {
            name,
            uid,
            exempt,
            shares: number(part, "/nominalConcurrencyShares", if exempt { 0 } else { 30 }),
            lendable_percent: number(part, "/lendablePercent", 0).min(100),
            borrowing_limit_percent: part.get("borrowingLimitPercent").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()),
            response,
        })
    }

    /// How many queues a flow may be in; 1 where there are none.
    pub fn hand_size(&self) -> usize {
        match self.response {
            Response::Queue(queuing) => queuing.hand_size,
            Response::Reject => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_upstreams() {
        let level = PriorityLevel::parse(&json!({"metadata": {"name": "a"}, "spec": {"type": "Limited", "limited": {
            "limitResponse": {"type": "Queue"}}}}))
        .unwrap();
        let queuing = Queuing { queues: 64, hand_size: 8, queue_length_limit: 50 };
        assert_eq!((level.shares, level.response, level.borrowing_limit_percent), (30, Response::Queue(queuing), None));
        let exempt = PriorityLevel::parse(&json!({"metadata": {"name": "e"}, "spec": {"type": "Exempt"}})).unwrap();
        assert!(exempt.exempt && exempt.shares == 0);
        assert_eq!(PriorityLevel::parse(&json!({})), None);
    }
}
