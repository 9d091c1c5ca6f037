//! What tests and measurements of several crates share: waiting for what takes time, a free port, whether there is root, and
//! the binary that is tried. Development only: nothing that ships depends on it.

mod binary;

pub use binary::skiff;

use std::time::Duration;

use tokio::time::Instant;

/// Far longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Whether tests that need root can run; says so where not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// A port of the loopback address that nobody had a moment ago.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until it is so.
///
/// # Panics
/// If it never is; `what` is told then.
pub async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    found(what, async || check().await.then_some(())).await;
}

/// Waits until there is something, and hands it out.
///
/// # Panics
/// If there never is; `what` is told then.
pub async fn found<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let given_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < given_up, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_what_was_looked_for() {
        let mut looks = 0;
        let third = async || {
            looks += 1;
            (looks == 3).then_some(looks)
        };
        assert_eq!(found("three looks", third).await, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not within 20s: the impossible")]
    async fn waiting_for_nothing_says_for_what() {
        until("the impossible", async || false).await;
    }
}
