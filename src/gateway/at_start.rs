//! What of a config is read at the start only, and takes effect at the next one.

use crate::config::{Admin, Config, Difference, Server, Store, Telemetry};

/// What the process was started with.
#[derive(Debug)]
pub(super) struct AtStart {
    server: Server,
    admin: Admin,
    store: Store,
    telemetry: Telemetry,
}

/// Whether a config says something else.
type Differs = fn(&AtStart, &Config) -> bool;

const TABLE: [(&str, Differs); 18] = [
    ("server.listen", |old, new| old.server.listen != new.server.listen),
    ("server.tls", |old, new| old.server.tls != new.server.tls),
    ("server.workers", |old, new| old.server.workers != new.server.workers),
    ("server.max_connections", |old, new| old.server.max_connections != new.server.max_connections),
    ("server.head_timeout", |old, new| old.server.head_timeout != new.server.head_timeout),
    ("server.idle_timeout", |old, new| old.server.idle_timeout != new.server.idle_timeout),
    ("admin.listen", |old, new| old.admin.listen != new.admin.listen),
    ("admin.key", |old, new| key(&old.admin) != key(&new.admin)),
    ("store.url", |old, new| old.store.url != new.store.url),
    ("store.journal", |old, new| old.store.journal != new.store.journal),
    ("store.retention", |old, new| old.store.retention_days != new.store.retention_days),
    ("store.shared", |old, new| old.store.shared != new.store.shared),
    ("store.shared_ca", |old, new| old.store.shared_ca != new.store.shared_ca),
    ("store.replicas", |old, new| old.store.replicas != new.store.replicas),
    ("telemetry.log", |old, new| old.telemetry.log != new.telemetry.log),
    ("telemetry.level", |old, new| old.telemetry.level != new.telemetry.level),
    ("telemetry.access_log", |old, new| old.telemetry.access_log != new.telemetry.access_log),
    ("telemetry.otlp", |old, new| old.telemetry.otlp != new.telemetry.otlp),
];

fn key(admin: &Admin) -> Option<&str> {
    admin.key.as_ref().map(crate::config::Secret::expose)
}

impl AtStart {
    pub(super) fn of(config: &Config) -> Self {
        let Config { server, admin, store, telemetry, .. } = config.clone();
        Self { server, admin, store, telemetry }
    }

    /// What `next` says otherwise.
    pub(super) fn differs(&self, next: &Config) -> Vec<&'static str> {
        let differing = TABLE.iter().filter(|(_, differs)| differs(self, next));
        differing.map(|(name, _)| *name).collect()
    }
}

/// What of these changes takes effect at the next start only.
pub fn at_next_start(changes: &[Difference]) -> Vec<&'static str> {
    let names = TABLE.iter().map(|(name, _)| *name);
    names.filter(|name| changes.iter().any(|change| is_within(change, name))).collect()
}

/// Whether all of them do.
pub(super) fn are_for_next_start(changes: &[Difference]) -> bool {
    let is_known = |change: &Difference| TABLE.iter().any(|(name, _)| is_within(change, name));
    !changes.is_empty() && changes.iter().all(is_known)
}

fn is_within(change: &Difference, name: &str) -> bool {
    let rest = change.path.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
