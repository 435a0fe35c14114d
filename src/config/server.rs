//! `[server]` and `[admin]`: the two listeners and what they put up with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::provider::texts;
use super::reader::{Field, Section};
use super::secret::{Literal, Secret};
use super::value;

pub(super) const SERVER_KEYS: &[&str] = &[
    "listen",
    "tls",
    "max_body",
    "max_upload",
    "body_budget",
    "drain",
    "drain_delay",
    "keepalive",
    "head_timeout",
    "body_timeout",
    "idle_timeout",
    "batch_poll",
    "max_connections",
    "max_in_flight",
    "workers",
    "guards",
];
pub(super) const TLS_KEYS: &[&str] = &["cert", "key"];
pub(super) const ADMIN_KEYS: &[&str] = &["listen", "key"];

/// The public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub listen: Vec<SocketAddr>,
    pub tls: Option<Tls>,
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// The largest form with a file in it, in bytes: those are passed on and not held.
    pub max_upload: usize,
    /// All request bodies held at once in the process, in bytes.
    pub body_budget: usize,
    /// Grace for open streams at shutdown.
    pub drain: Duration,
    /// How long to keep accepting after SIGTERM while readiness already says no.
    pub drain_delay: Duration,
    /// Silence on a stream before a keep-alive is sent.
    pub keepalive: Duration,
    /// From accepting a connection to the end of a request's headers.
    pub head_timeout: Duration,
    /// Silence while a request body is read.
    pub body_timeout: Duration,
    /// Silence on a client connection between requests.
    pub idle_timeout: Duration,
    /// How often batches whose end was not seen yet are looked at.
    pub batch_poll: Duration,
    pub max_connections: usize,
    pub max_in_flight: usize,
    /// Worker threads; 0 means one per core.
    pub workers: usize,
    /// What every call is guarded by.
    pub guards: Vec<String>,
}

/// The certificate chain and its private key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The listener for operators: admin API, console and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    pub listen: SocketAddr,
    pub key: Option<Secret>,
}

// === impl Server ===

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![loopback(4000)],
            tls: None,
            max_body: 64 << 20,
            max_upload: 1 << 30,
            body_budget: 1 << 30,
            drain: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            keepalive: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(2),
            batch_poll: Duration::from_mins(15),
            max_connections: 20_000,
            max_in_flight: 10_000,
            workers: 0,
            guards: Vec::new(),
        }
    }
}

impl Server {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let usual = Self::default();
        let deadline = |key, usual| section.read(key, value::deadline).unwrap_or(usual);
        let pause = |key, usual| section.read(key, value::pause).unwrap_or(usual);
        let size = |key, usual| section.read(key, value::size).unwrap_or(usual);
        let count = |key, least, usual| {
            section.read(key, |value| value::count(value, least)).unwrap_or(usual)
        };
        Self {
            listen: section.get("listen").map_or(usual.listen, |field| addresses(&field)),
            tls: section.get("tls").and_then(|field| Tls::read(&field)),
            max_body: size("max_body", usual.max_body),
            max_upload: size("max_upload", usual.max_upload),
            body_budget: size("body_budget", usual.body_budget),
            drain: pause("drain", usual.drain),
            drain_delay: pause("drain_delay", usual.drain_delay),
            keepalive: deadline("keepalive", usual.keepalive),
            head_timeout: deadline("head_timeout", usual.head_timeout),
            body_timeout: deadline("body_timeout", usual.body_timeout),
            idle_timeout: deadline("idle_timeout", usual.idle_timeout),
            batch_poll: deadline("batch_poll", usual.batch_poll),
            max_connections: count("max_connections", 1, usual.max_connections),
            max_in_flight: count("max_in_flight", 1, usual.max_in_flight),
            workers: section
                .read("workers", |value| value::whole(value, 0..=1024))
                .and_then(|workers| usize::try_from(workers).ok())
                .unwrap_or(usual.workers),
            guards: texts(section, "guards"),
        }
    }
}

fn addresses(field: &Field<'_>) -> Vec<SocketAddr> {
    if !field.is_list() {
        return field.read(value::address).into_iter().collect();
    }
    let elements = field.list().unwrap_or_default();
    if elements.is_empty() {
        field.fail("must name at least one address");
    }
    elements.iter().filter_map(|element| element.read(value::address)).collect()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

// === impl Tls ===

impl Tls {
    fn read(field: &Field<'_>) -> Option<Self> {
        let section = field.section(TLS_KEYS)?;
        let file = |key| {
            let path = section.require(key)?.read(value::text)?;
            Some(section.report.beside(&path))
        };
        let (cert, key) = (file("cert"), file("key"));
        Some(Self { cert: cert?, key: key? })
    }
}

// === impl Admin ===

impl Default for Admin {
    fn default() -> Self {
        Self { listen: loopback(4001), key: None }
    }
}

impl Admin {
    /// Whether strangers could reach the admin API without a key. Such a config is refused; ask
    /// again after changing `listen`.
    pub fn is_exposed(&self) -> bool {
        self.key.is_none() && !self.listen.ip().is_loopback()
    }

    pub(super) fn read(section: &Section<'_>) -> Self {
        let usual = Self::default();
        let key = section.get("key");
        let admin = Self {
            listen: section.read("listen", value::address).unwrap_or(usual.listen),
            key: key.as_ref().and_then(|field| Secret::read(field, Literal::Warned)),
        };
        if key.is_none() && admin.is_exposed() {
            section.report.problem(
                &format!("{}.listen", section.path),
                format!("{} is not loopback, so `key` must be set", admin.listen),
            );
        }
        admin
    }
}
