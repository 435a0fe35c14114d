//! What whole-house tests stand on: a scripted upstream, the real gateway, and a plain client.

pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod database;
pub(crate) mod gateway;
pub(crate) mod recording;
pub(crate) mod replies;
pub(crate) mod script;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod vendors;

pub(crate) use self::gateway::Gateway;
pub(crate) use self::script::{Gate, Script};
pub(crate) use self::upstream::Upstream;
pub(crate) use self::vendors::{Fleet, Vendor};

use std::time::Duration;

use tokio::time::Instant;

/// Longer than anything here may take; on a busy machine it costs nothing but on failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `condition` holds. The one place in the tests where time is let pass.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    within(PATIENCE, what, condition)
}

/// The same with a limit that the promise itself names.
pub(crate) async fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
