//! When events go to where they are kept: at once, or later and several together. Called by the log and the webhook.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// `--audit-log-mode`, `--audit-webhook-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mode {
    /// Before the request goes on.
    #[default]
    Blocking,
    /// The same, and a request that cannot be noted when it comes is not served.
    BlockingStrict,
    /// Later, by somebody else.
    Batch(Batching),
}

/// How events are gathered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batching {
    /// So many at most wait.
    pub buffer: usize,
    pub events_max: usize,
    pub wait_max: Duration,
    /// Batches a second, and how many at once; `None`: as fast as they come.
    pub throttle: Option<(f64, f64)>,
}

impl Mode {
    /// By upstream's names. `Err`: why not, of the plugin of that name.
    pub fn parse(plugin: &str, text: &str, batching: Batching) -> Result<Self, String> {
        match text {
            "blocking" => return Ok(Self::Blocking),
            "blocking-strict" => return Ok(Self::BlockingStrict),
            "batch" => {}
            _ => return Err(format!("invalid audit {plugin} mode {text}, allowed modes are \"batch,blocking,blocking-strict\"")),
        }
        let positive = |what: &str, value: f64| {
            if value > 0.0 { Ok(()) } else { Err(format!("invalid audit batch {plugin} {what} {value}, must be a positive number")) }
        };
        positive("buffer size", batching.buffer as f64)?;
        positive("max batch size", batching.events_max as f64)?;
        if let Some((rate, burst)) = batching.throttle {
            positive("throttle QPS", rate)?;
            positive("throttle burst", burst)?;
        }
        Ok(Self::Batch(batching))
    }
}

/// Events as they come, in batches.
pub struct Batches {
    events: mpsc::Receiver<Value>,
    how: Batching,
    tokens: f64,
    filled: Instant,
}

impl Batches {
    /// Where events go in, and where their batches come out.
    pub fn new(how: Batching) -> (mpsc::Sender<Value>, Self) {
        let (sender, events) = mpsc::channel(how.buffer.max(1));
        (sender, Self { events, how, tokens: how.throttle.map_or(0.0, |(_, burst)| burst), filled: Instant::now() })
    }

    /// The next batch, when it may go; an empty one when no more will come. What was gathered is not lost when this is dropped:
    /// the batch comes in as `gathered`.
    pub async fn next(&mut self, gathered: &mut Vec<Value>) {
        if gathered.is_empty() {
            match self.events.recv().await {
                Some(first) => gathered.push(first),
                None => return,
            }
        }
        let full = async {
            while gathered.len() < self.how.events_max
                && let Some(event) = self.events.recv().await
            {
                gathered.push(event);
            }
        };
        // What is there by then goes.
        drop(tokio::time::timeout(self.how.wait_max, full).await);
        let Some((rate, burst)) = self.how.throttle else { return };
        self.tokens = (self.tokens + self.filled.elapsed().as_secs_f64() * rate).min(burst);
        self.filled = Instant::now();
        if self.tokens < 1.0 {
            tokio::time::sleep(Duration::from_secs_f64((1.0 - self.tokens) / rate)).await;
        }
        self.tokens -= 1.0;
    }

    /// What is left when the server stops.
    pub fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Batching = Batching { buffer: 100, events_max: 3, wait_max: Duration::from_secs(5), throttle: None };

    #[test]
    fn modes_are_checked_as_upstream_does() {
        assert_eq!(Mode::parse("log", "blocking", Batching { buffer: 0, ..HOW }), Ok(Mode::Blocking), "what is not used is not looked at");
        assert_eq!(Mode::parse("log", "batch", HOW), Ok(Mode::Batch(HOW)));
        let why = |how| Mode::parse("webhook", "batch", how).unwrap_err();
        assert_eq!(why(Batching { buffer: 0, ..HOW }), "invalid audit batch webhook buffer size 0, must be a positive number");
        let throttled = Batching { throttle: Some((0.0, 15.0)), ..HOW };
        assert_eq!(why(throttled), "invalid audit batch webhook throttle QPS 0, must be a positive number");
        let never = Mode::parse("log", "never", HOW).unwrap_err();
        assert_eq!(never, "invalid audit log mode never, allowed modes are \"batch,blocking,blocking-strict\"");
    }

    #[tokio::test(start_paused = true)]
    async fn batches_go_when_full_or_old_and_not_too_fast() {
        let (events, mut batches) = Batches::new(Batching { throttle: Some((1.0, 2.0)), ..HOW });
        for number in 0..4 {
            events.try_send(number.into()).unwrap();
        }
        let began = Instant::now();
        let mut sizes = Vec::new();
        for _ in 0..2 {
            let mut batch = Vec::new();
            batches.next(&mut batch).await;
            sizes.push((batch.len(), began.elapsed().as_secs()));
        }
        assert_eq!(sizes, [(3, 0), (1, 5)]);
        let began = Instant::now();
        for _ in 0..3 {
            events.try_send(0.into()).unwrap();
            let mut batch = Vec::new();
            batches.next(&mut batch).await;
        }
        assert!(began.elapsed() >= Duration::from_secs(15));
        events.try_send(7.into()).unwrap();
        assert_eq!(batches.rest(), [Value::from(7)]);
    }
}
