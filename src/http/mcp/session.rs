//! What is remembered of a client between its requests, and how it hears of what changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rmcp::RoleServer;
use rmcp::service::{Peer, ServiceError, SubscriptionContext};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::offer::Visit;
use crate::access::{Caller, CallerRef};
use crate::gateway::Gateway;
use crate::tool::mcp::{Change, Told, Watch};

/// What one session knows. It is dropped with it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// From which level on logs are wanted.
    level: Mutex<Option<String>>,
    /// By their addresses here.
    watched: Mutex<BTreeMap<String, (Watch, Seen)>>,
    /// Closed with the session.
    alive: watch::Sender<()>,
}

/// A resource as its server tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) server: Arc<str>,
    pub(super) own: String,
}

// === impl State ===

impl State {
    pub(super) fn level(&self) -> Option<String> {
        lock(&self.level).clone()
    }

    pub(super) fn set_level(&self, level: String) {
        *lock(&self.level) = Some(level);
    }

    pub(super) fn watch(&self, uri: String, watch: (Watch, Seen)) {
        lock(&self.watched).insert(uri, watch);
    }

    pub(super) fn unwatch(&self, uri: &str) {
        lock(&self.watched).remove(uri);
    }

    /// Has the servers of now tell of what is watched, where a config has put others in the place
    /// of those of before. Says which resources that are; one that is not there any more, or not
    /// for this client, is not watched any more.
    async fn renew(&self, gateway: &Arc<Gateway>, caller: &CallerRef) -> Vec<String> {
        let uris: Vec<String> = lock(&self.watched).keys().cloned().collect();
        if uris.is_empty() {
            return uris;
        }
        // Looked at anew: what it may have is by the config, too.
        let visit = gateway.recognise(caller).await.ok();
        let visit = visit.map(|caller| Visit { caller, house: gateway.snapshot() });
        let mut renewed = Vec::new();
        for uri in uris {
            let Some((server, own)) = visit.as_ref().and_then(|visit| visit.resource(&uri)) else {
                self.unwatch(&uri);
                continue;
            };
            let is_same = |(watch, _): &(Watch, Seen)| watch.is_at(&server);
            if !lock(&self.watched).get(&uri).is_none_or(is_same) {
                let seen = Seen { server: Arc::clone(server.name()), own };
                self.watch(uri.clone(), (server.watch_when_there(&seen.own), seen));
                renewed.push(uri);
            }
        }
        renewed
    }

    /// What a resource is called here whose server has told that it changed.
    fn watched(&self, server: Option<&Arc<str>>, own: &str) -> Option<String> {
        let is_it = |seen: &Seen| Some(&seen.server) == server && seen.own == own;
        let watched = lock(&self.watched);
        watched.iter().find(|(_, (_, seen))| is_it(seen)).map(|(uri, _)| uri.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a client of the older protocol what changes, as long as its session lasts.
pub(super) fn keep_told(
    gateway: &Arc<Gateway>,
    state: &Arc<State>,
    caller: &Caller,
    peer: Peer<RoleServer>,
) {
    let mut news = gateway.snapshot().toolbox.news();
    let (mut alive, state) = (state.alive.subscribe(), Arc::downgrade(state));
    let mut draining = gateway.draining();
    let (caller, tasks, gateway) =
        (CallerRef::of(caller), gateway.tasks.clone(), Arc::clone(gateway));
    tasks.spawn(async move {
        loop {
            let told = tokio::select! {
                told = next(&mut news) => told,
                // It is closed, and never told anything.
                _ = alive.changed() => return,
                _ = draining.wait_for(|drains| *drains) => return,
            };
            if pass(&gateway, &caller, told, &state, &peer).await.is_err() {
                return;
            }
        }
    });
}

async fn pass(
    gateway: &Arc<Gateway>,
    caller: &CallerRef,
    told: Told,
    state: &Weak<State>,
    peer: &Peer<RoleServer>,
) -> Result<(), ServiceError> {
    if let (true, Some(state)) = (told.is_of_all(), state.upgrade()) {
        for uri in state.renew(gateway, caller).await {
            // It may have changed while nobody told of it.
            peer.notify_resource_updated(updated(uri)).await?;
        }
    }
    match told.change {
        Change::Tools => peer.notify_tool_list_changed().await,
        Change::Prompts => peer.notify_prompt_list_changed().await,
        Change::Resources => peer.notify_resource_list_changed().await,
        Change::Updated(own) => {
            let state = state.upgrade().ok_or(ServiceError::TransportClosed)?;
            match state.watched(told.server.as_ref(), &own) {
                Some(uri) => peer.notify_resource_updated(updated(uri)).await,
                None => Ok(()),
            }
        }
    }
}

/// Tells a client of the newer protocol what it has asked to be told, until it is called off.
pub(super) async fn tell(gateway: &Arc<Gateway>, visit: Visit, context: SubscriptionContext) {
    let mut news = gateway.snapshot().toolbox.news();
    let state = State::default();
    for uri in context.accepted().resource_subscriptions.iter().flatten() {
        let Some((server, own)) = visit.resource(uri) else { continue };
        if let Ok(watch) = server.watch(&own).await {
            let seen = Seen { server: Arc::clone(server.name()), own };
            state.watch(uri.clone(), (watch, seen));
        }
    }
    // What it began with must not stay for as long as it listens.
    let caller = CallerRef::of(&visit.caller);
    drop(visit);
    let mut draining = gateway.draining();
    loop {
        let told = tokio::select! {
            told = next(&mut news) => told,
            () = context.cancelled() => return,
            _ = draining.wait_for(|drains| *drains) => return,
        };
        let sink = context.sink();
        if told.is_of_all() {
            for uri in state.renew(gateway, &caller).await {
                let _ = sink.notify_resource_updated(uri).await;
            }
        }
        let sent = match told.change {
            Change::Tools => sink.notify_tool_list_changed().await,
            Change::Prompts => sink.notify_prompt_list_changed().await,
            Change::Resources => sink.notify_resource_list_changed().await,
            Change::Updated(own) => match state.watched(told.server.as_ref(), &own) {
                Some(uri) => sink.notify_resource_updated(uri).await,
                None => continue,
            },
        };
        // What it did not want is left out there; who has left is cancelled.
        drop(sent);
    }
}

fn updated(uri: String) -> rmcp::model::ResourceUpdatedNotificationParam {
    rmcp::model::ResourceUpdatedNotificationParam::new(uri)
}

/// The next that is told. Whoever has missed some is told that all may be otherwise.
async fn next(news: &mut Receiver<Told>) -> Told {
    loop {
        match news.recv().await {
            Ok(told) => return told,
            Err(RecvError::Lagged(_)) => {
                return Told { server: None, change: Change::Resources };
            }
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
