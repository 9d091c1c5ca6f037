//! Breaks things at random times while faults are on: kills components, the API server and the disk, sets clocks, takes
//! nodes away. What breaks comes back.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::World;

/// How often it is asked whether something is to break.
const LOOK: Duration = Duration::from_secs(5);
const CLOCK_JUMP_SECONDS_MAX: u64 = 5400;

pub(crate) fn start(world: &World, tasks: &mut JoinSet<()>) {
    tasks.spawn(server(world.clone()));
    tasks.spawn(everything_else(world.clone()));
}

/// Whether something that happens every so many minutes, on average, happens now.
fn happens(world: &World, minutes: u64) -> bool {
    let looks = minutes * 60 / LOOK.as_secs();
    world.faults.are_on() && minutes > 0 && world.faults.entropy.below(looks.max(1)) == 0
}

/// The API server dies by itself, or because its disk does.
async fn server(world: World) {
    let profile = world.faults.profile.clone();
    loop {
        tokio::time::sleep(LOOK).await;
        let died = world.gateway.disk().is_some_and(|disk| disk.is_dead());
        if !died && happens(&world, profile.disk_deaths) {
            world.gateway.doom(world.faults.entropy.below(40));
        }
        if died || happens(&world, profile.server_crashes) {
            let kind = if died { "disk died" } else { "API server killed" };
            world.journal.fault(kind, "");
            let down = Duration::from_millis(100 + world.faults.entropy.below(40_000));
            if let Err(error) = world.gateway.crash(&world, down).await {
                world.journal.violate(format!("the API server does not come back: {error}"));
            }
            world.journal.note("the API server is back");
        }
    }
}

async fn everything_else(world: World) {
    let profile = world.faults.profile.clone();
    let entropy = world.faults.entropy.clone();
    loop {
        tokio::time::sleep(LOOK).await;
        if !world.faults.are_on() {
            world.clock.set_skew_ms(0);
        }
        for (part, minutes) in [("manager", profile.manager_restarts), ("scheduler", profile.scheduler_restarts)] {
            if happens(&world, minutes) {
                // Not always on the tick, but between any two of its changes.
                let left = entropy.below(8);
                world.journal.fault("component killed", &format!("{part} after {left} more changes"));
                world.crash_after(part, left);
            }
        }
        if happens(&world, profile.clock_jumps) {
            let seconds = entropy.below(CLOCK_JUMP_SECONDS_MAX).cast_signed() - (CLOCK_JUMP_SECONDS_MAX / 3).cast_signed();
            world.journal.fault("clock set", &format!("to {seconds} s off"));
            world.clock.set_skew_ms(seconds * 1000);
        }
        let node = usize::try_from(entropy.below(world.options.nodes as u64)).unwrap_or(0);
        if happens(&world, profile.node_restarts) {
            world.journal.fault("kubelet restarted", &format!("node-{node}"));
            world.parts.kill(&format!("node-{node}"));
        }
        if happens(&world, profile.node_silences) {
            let seconds = 20 + entropy.below(900);
            world.journal.fault("node silent", &format!("node-{node} for {seconds} s"));
            world.hosts.silence(node, Duration::from_secs(seconds));
        }
        if happens(&world, profile.node_removals) {
            let seconds = 1 + entropy.below(600);
            world.journal.fault("node removed", &format!("node-{node} for {seconds} s"));
            world.hosts.remove(node, Duration::from_secs(seconds));
            world.delete_node(node).await;
        }
    }
}
