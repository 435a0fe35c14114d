//! One connection to a server: opened when it is needed, opened again when it was lost, and closed
//! when nobody wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::{
    ClientRequest, ProtocolVersion, RequestId, ServerCapabilities, ServerNotification,
    SubscriptionFilter,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, Peer, RunningService,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::json;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout};

use super::Meters;
use super::answer::{in_words, no_session};
use super::aside::rank;
use super::child::Recipe;
use super::ear::{Calls, Ear};
use super::http::{SessionName, Way, Wire};
use super::news::{Change, News};
use crate::tool::{self, Failure, FailureKind};

/// How long nobody tries again after the first failure, and at most.
const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// A connection that lasted so long was a good one.
const STABLE: Duration = Duration::from_secs(10);
/// Calls by one session at the same time; more wait for each other.
const CONCURRENT: usize = 64;

/// How a server is reached.
#[derive(Debug)]
pub(super) enum Door {
    Http(Arc<Way>),
    Child(Recipe),
}

#[derive(Debug)]
pub(super) struct Link {
    door: Arc<Door>,
    state: Mutex<State>,
    /// Calls that go by it now.
    calls: AtomicUsize,
    /// The last attempt to open it failed.
    is_down: AtomicBool,
    connect_timeout: Duration,
    server: Arc<str>,
    around: Around,
}

/// What all connections to one server share.
#[derive(Debug, Clone)]
pub(super) struct Around {
    /// Rung when its tools may be others.
    pub(super) changed: Arc<Notify>,
    pub(super) news: News,
    pub(super) meters: Meters,
    /// Models may be asked for it.
    pub(super) sampling: bool,
}

#[derive(Debug)]
struct State {
    session: Option<Session>,
    /// In a row.
    failures: u32,
    rests_until: Option<Instant>,
    opened: Instant,
    /// When it was called last.
    used: Instant,
    /// It was closed because nobody wanted it.
    is_asleep: bool,
    was_open: bool,
    /// Why it could not be opened.
    why: Option<String>,
}

/// An open connection. Copies share it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    service: Arc<RunningService<RoleClient, Ear>>,
    /// Somebody listens for what changes.
    is_heard: Arc<AtomicBool>,
    /// From which level on it was asked to tell what it logs.
    level: Arc<Mutex<Option<String>>>,
    /// What the server calls it, over HTTP; `None` to a child.
    name: Option<Arc<SessionName>>,
}

/// A call's place on a link.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Link);

// === impl Link ===

impl Link {
    pub(super) fn new(
        door: Arc<Door>,
        server: &Arc<str>,
        connect_timeout: Duration,
        around: &Around,
    ) -> Self {
        let now = Instant::now();
        let state = State {
            session: None,
            failures: 0,
            rests_until: None,
            opened: now,
            used: now,
            is_asleep: false,
            was_open: false,
            why: None,
        };
        Self {
            door,
            state: Mutex::new(state),
            calls: AtomicUsize::new(0),
            is_down: AtomicBool::new(false),
            connect_timeout,
            server: Arc::clone(server),
            around: around.clone(),
        }
    }

    /// The least is the best to call by.
    pub(super) fn load(&self) -> (bool, usize) {
        (self.is_down.load(Ordering::Relaxed), self.calls.load(Ordering::Relaxed))
    }

    pub(super) fn enter(&self) -> Busy<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Busy(self)
    }

    /// The open session, or a new one. Who comes while it is opened waits, though not beyond
    /// `deadline`.
    pub(super) async fn session(&self, deadline: Instant) -> Result<Session, Failure> {
        let open = async {
            let mut state = self.state.lock().await;
            state.used = Instant::now();
            state.is_asleep = false;
            self.open(&mut state).await
        };
        tokio::time::timeout_at(deadline, open).await.unwrap_or_else(|_| {
            Err(Failure::new(FailureKind::Timeout, "the server could not be reached in time"))
        })
    }

    /// The session, if one is open.
    pub(super) async fn open_now(&self) -> Option<Session> {
        let state = self.state.lock().await;
        state.session.clone().filter(Session::is_open)
    }

    /// Opens it when it should be open and is not, closes it when nobody has wanted it for `idle`,
    /// and says why it is not open.
    pub(super) async fn tend(&self, idle: Option<Duration>) -> Option<String> {
        let mut state = self.state.lock().await;
        let is_idle = idle.is_some_and(|idle| state.used.elapsed() >= idle) && self.load().1 == 0;
        if is_idle && let Some(session) = state.session.take() {
            session.close();
            state.is_asleep = true;
        }
        if !state.is_asleep && self.open(&mut state).await.is_err() {
            return Some(state.why.clone().unwrap_or_default());
        }
        None
    }

    async fn open(&self, state: &mut State) -> Result<Session, Failure> {
        if let Some(session) = &state.session {
            if session.is_open() {
                return Ok(session.clone());
            }
            state.session = None;
            if state.opened.elapsed() < STABLE {
                state.rest();
            } else {
                state.failures = 0;
            }
        }
        if let Some(left) = state.rests_until.map(|until| until - Instant::now())
            && !left.is_zero()
        {
            let message = "the server is not there at the moment";
            return Err(Failure::new(FailureKind::Unavailable, message).retry_after(Some(left)));
        }
        let opened = timeout(self.connect_timeout, self.connect()).await;
        let opened = opened.unwrap_or(Err(ClientInitializeError::Cancelled));
        self.is_down.store(opened.is_err(), Ordering::Relaxed);
        match opened {
            Ok(session) => {
                if state.was_open {
                    self.around.meters.reconnects.with_label_values(&[&*self.server]).inc();
                    self.around.changed.notify_one();
                }
                state.was_open = true;
                state.opened = Instant::now();
                state.why = None;
                Ok(state.session.insert(session).clone())
            }
            Err(error) => {
                state.rest();
                let why = match &error {
                    ClientInitializeError::Cancelled => "it took too long".to_owned(),
                    error => in_words(error),
                };
                if state.why.as_ref() != Some(&why) {
                    let server = &*self.server;
                    tracing::warn!(server, why, "an MCP server cannot be reached");
                }
                state.why = Some(why);
                Err(no_session(&error))
            }
        }
    }

    async fn connect(&self) -> Result<Session, ClientInitializeError> {
        let (newer, older) = (ProtocolVersion::V_2026_07_28, ProtocolVersion::V_2025_11_25);
        let either = ClientLifecycleMode::Auto {
            preferred_versions: vec![newer],
            legacy_version: Some(older),
        };
        match self.connect_in(either).await {
            // Some say anything to what they have never heard of.
            Err(ClientInitializeError::ExpectedInitResult(_)) => {
                self.connect_in(ClientLifecycleMode::Initialize).await
            }
            connected => connected,
        }
    }

    async fn connect_in(
        &self,
        mode: ClientLifecycleMode,
    ) -> Result<Session, ClientInitializeError> {
        let calls = Arc::<Calls>::default();
        let Around { changed, news, sampling, meters } = self.around.clone();
        let ear = Ear { calls: Arc::clone(&calls), changed, news, sampling };
        let mut name = None;
        let service = match &*self.door {
            Door::Child(recipe) => {
                let pipe = recipe
                    .start(&meters, &calls)
                    .await
                    .map_err(|error| ClientInitializeError::ConnectionClosed(error.to_string()))?;
                ear.serve_with_lifecycle(pipe, mode).await?
            }
            Door::Http(way) => {
                let wire = Wire::new(way, &calls, self.renewed());
                name = Some(Arc::clone(wire.session()));
                let transport = StreamableHttpClientTransport::with_client(wire, settings());
                ear.serve_with_lifecycle(transport, mode).await?
            }
        };
        let service = Arc::new(service);
        Ok(Session { service, is_heard: Arc::default(), level: Arc::default(), name })
    }

    /// What is to be done when rmcp has begun another session by itself.
    fn renewed(&self) -> Arc<dyn Fn() + Send + Sync> {
        let Around { meters, changed, .. } = self.around.clone();
        let server = Arc::clone(&self.server);
        Arc::new(move || {
            meters.reconnects.with_label_values(&[&*server]).inc();
            changed.notify_one();
        })
    }
}

fn settings() -> StreamableHttpClientTransportConfig {
    // The wire knows where to; this is what rmcp says in its own logs.
    let mut settings = StreamableHttpClientTransportConfig::with_uri("/");
    settings = settings.max_concurrent_requests(CONCURRENT);
    let mut patience = ExponentialBackoff::default();
    patience.base_duration = FIRST_REST;
    patience.max_delay = Some(LONGEST_REST);
    settings.retry_config = Arc::new(patience);
    settings
}

// === impl State ===

impl State {
    fn rest(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(Instant::now() + rest_after(self.failures));
    }
}

/// How long a server is left alone that has failed so often in a row.
pub(super) fn rest_after(failures: u32) -> Duration {
    let rest = FIRST_REST * 2_u32.saturating_pow(failures.saturating_sub(1).min(10));
    rest.min(LONGEST_REST)
}

// === impl Session ===

impl Session {
    pub(super) fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    pub(super) fn calls(&self) -> &Arc<Calls> {
        &self.service.service().calls
    }

    /// Whether it began with a handshake.
    pub(super) fn is_old(&self) -> bool {
        self.peer().peer_info().is_none_or(|info| info.protocol_version.has_initialize())
    }

    /// What is told of a request that went by it.
    pub(super) fn wire(&self, request: Option<&RequestId>) -> tool::Wire {
        let protocol = self.peer().peer_info().map(|info| info.protocol_version.to_string());
        tool::Wire {
            transport: if self.name.is_some() { "tcp" } else { "pipe" }.to_owned(),
            protocol,
            session: self.name.as_ref().and_then(|name| name.get()),
            request: request.map(ToString::to_string).unwrap_or_default(),
            ..tool::Wire::default()
        }
    }

    pub(super) fn capabilities(&self) -> ServerCapabilities {
        self.peer().peer_info().map(|info| info.capabilities.clone()).unwrap_or_default()
    }

    /// Whether this is the first to ask whether somebody listens.
    pub(super) fn mark_heard(&self) -> bool {
        !self.is_heard.swap(true, Ordering::Relaxed)
    }

    /// Has a server of the older protocol tell what it logs from a level on, if it does not yet.
    /// Whoever wants less leaves the rest out.
    pub(super) async fn hear_from(&self, level: &str) {
        let mut asked = self.level.lock().await;
        let is_enough = asked.as_deref().is_some_and(|asked| rank(asked) <= rank(level));
        if is_enough || !self.is_old() || self.capabilities().logging.is_none() {
            return;
        }
        *asked = Some(level.to_owned());
        let request = json!({"method": "logging/setLevel", "params": {"level": level}});
        if let Ok(request) = serde_json::from_value::<ClientRequest>(request) {
            // It is the server's to say no.
            let _ = self.peer().send_request(request).await;
        }
    }

    /// Hears what changes, until it is closed: a server of the newer protocol only tells who has
    /// asked.
    pub(super) async fn listen(self, filter: SubscriptionFilter, hear: impl Fn(Change)) {
        let (peer, is_heard) = (self.peer().clone(), Arc::clone(&self.is_heard));
        // Nobody is to keep it open for this.
        drop(self);
        let Ok(mut subscription) = peer.listen(filter).await else { return };
        while let Ok(Some(notification)) = subscription.next().await {
            match notification {
                ServerNotification::PromptListChangedNotification(_) => hear(Change::Prompts),
                ServerNotification::ResourceListChangedNotification(_) => hear(Change::Resources),
                ServerNotification::ResourceUpdatedNotification(updated) => {
                    hear(Change::Updated(updated.params.uri));
                }
                _ => hear(Change::Tools),
            }
        }
        is_heard.store(false, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        !self.service.is_closed() && !self.peer().is_transport_closed()
    }

    /// Has it end, with its child if there is one.
    fn close(&self) {
        self.service.cancellation_token().cancel();
    }
}

// === impl Busy ===

impl Busy<'_> {
    pub(super) async fn session(&self, deadline: Instant) -> Result<Session, Failure> {
        self.0.session(deadline).await
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
