//! What operators see of the health of targets.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::gateway::Snapshot;
use crate::route::health::board::Standing;
use crate::route::health::{Reason, Status};

/// The same moment on both clocks.
#[derive(Debug, Clone, Copy)]
struct Now {
    instant: Instant,
    system: SystemTime,
}

/// Every configured target, and what is known of it by each key.
pub(super) fn list(house: &Snapshot) -> Value {
    let now = Now { instant: Instant::now(), system: SystemTime::now() };
    let standings = house.standings();
    let targets: Vec<Value> = standings.iter().map(|one| describe(one, now)).collect();
    json!({"data": targets})
}

fn describe(standing: &Standing, now: Now) -> Value {
    let status = standing.status(now.instant);
    let keys = standing.lanes.iter().enumerate().map(|(place, lane)| {
        let status = lane.status(now.instant);
        json!({
            "key": place,
            "state": status.state.name(),
            "reason": status.reason.map(Reason::name),
            "since": now.time(status.since),
            "until": now.time(status.until),
            "last_error": last_error(&status, now),
        })
    });
    let keys: Vec<Value> = keys.collect();
    let errors = standing.lanes.iter().map(|lane| lane.status(now.instant));
    let latest = errors.max_by_key(|status| status.last_error.map(|(_, at)| at));
    json!({
        "provider": standing.provider,
        "model": standing.model,
        "state": status.map(|status| status.state.name()),
        "reason": status.and_then(|status| status.reason).map(Reason::name),
        "since": now.time(status.and_then(|status| status.since)),
        "until": now.time(status.and_then(|status| status.until)),
        "last_error": latest.and_then(|status| last_error(&status, now)),
        "latency_ms": standing.load.latest().map(|took| took.as_millis()),
        "in_flight": standing.load.in_flight(),
        "keys": keys,
    })
}

fn last_error(status: &Status, now: Now) -> Option<Value> {
    let (reason, at) = status.last_error?;
    Some(json!({"reason": reason.name(), "at": now.time(Some(at))}))
}

// === impl Now ===

impl Now {
    /// The time of the day at which this was, or will be.
    fn time(self, at: Option<Instant>) -> Option<String> {
        let at = at?;
        let ahead = at.saturating_duration_since(self.instant);
        let time = match ahead {
            Duration::ZERO => self.system.checked_sub(self.instant.saturating_duration_since(at)),
            ahead => self.system.checked_add(ahead),
        };
        Some(humantime::format_rfc3339_millis(time?).to_string())
    }
}
