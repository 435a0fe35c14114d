//! What a server has besides tools: resources, prompts, and help with writing their arguments. It is
//! asked in its own words, and its answers come as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use rmcp::ServiceError;
use rmcp::model::{ClientRequest, ErrorData, ServerCapabilities, SubscriptionFilter};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answer::{as_value, failure};
use super::aside::Listener;
use super::exchange::{Ended, Terms, exchange};
use super::link::Session;
use super::news::Change;
use super::{MOST_PAGES, Server};

/// Which resources of a server are watched.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// By how many.
    counts: BTreeMap<String, usize>,
    /// What the server was asked to tell of.
    asked: BTreeSet<String>,
    /// Ends what listens to a server of the newer protocol.
    hearing: Option<oneshot::Sender<()>>,
}

/// A resource is watched as long as somebody has this.
#[derive(Debug)]
pub struct Watch {
    server: Arc<Server>,
    uri: String,
}

// === impl Server ===

impl Server {
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Agents have its tools, and nobody else.
    pub fn is_internal(&self) -> bool {
        self.pool.terms.internal
    }

    /// What it says that it can do; nothing, as long as it is not there.
    pub async fn capabilities(&self) -> ServerCapabilities {
        match self.session().await {
            Ok(session) => session.capabilities(),
            Err(_) => ServerCapabilities::default(),
        }
    }

    /// Asks it, and gives what it answers.
    pub async fn ask(
        &self,
        (method, params): (&str, Value),
        listener: Option<&Listener>,
    ) -> Result<Value, ErrorData> {
        let session = self.session().await?;
        let request = json!({"method": method, "params": params});
        let request: ClientRequest = serde_json::from_value(request)
            .map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
        let terms = Terms {
            meta: Map::new(),
            silence: self.pool.terms.timeout,
            deadline: Instant::now() + self.pool.mcp.total_timeout,
            answer: None,
            listener,
            sampling: self.pool.mcp.sampling,
        };
        match exchange(&session, request, terms, &mut None).await {
            Ok(result) => self.passable(as_value(&result)),
            Err(Ended::Lost(ServiceError::McpError(error))) => Err(error),
            Err(Ended::Unsent(error) | Ended::Lost(error)) => {
                Err(ErrorData::internal_error(failure(error).message, None))
            }
            Err(Ended::Asks(_)) => {
                let message = "the server wants to know something, and nobody can be asked";
                Err(ErrorData::internal_error(message, None))
            }
        }
    }

    /// What it may ask for before it answers.
    fn passable(&self, result: Value) -> Result<Value, ErrorData> {
        let asked = result["inputRequests"].as_object();
        let wants_model = |it: &Value| it["method"] == "sampling/createMessage";
        if !self.pool.mcp.sampling && asked.is_some_and(|it| it.values().any(wants_model)) {
            let message = "the server wants to ask a model, which it may not";
            return Err(ErrorData::internal_error(message, None));
        }
        Ok(result)
    }

    /// All pages of a list, what each item is under `key`.
    pub async fn list(&self, method: &str, key: &str) -> Result<Vec<Value>, ErrorData> {
        let (mut all, mut cursor) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let params = cursor.take().map_or_else(|| json!({}), |it| json!({"cursor": it}));
            let mut page = self.ask((method, params), None).await?;
            if let Value::Array(items) = page[key].take() {
                all.extend(items);
            }
            match page["nextCursor"].take() {
                Value::String(next) if !next.is_empty() => cursor = Some(next),
                _ => return Ok(all),
            }
        }
        Ok(all)
    }

    /// Has it tell of changes of a resource, which go to the board.
    pub async fn watch(self: &Arc<Self>, uri: &str) -> Result<Watch, ErrorData> {
        let watch = Watch { server: Arc::clone(self), uri: uri.to_owned() };
        *self.watched().counts.entry(uri.to_owned()).or_default() += 1;
        let session = self.session().await?;
        self.listen(&session, false).await?;
        Ok(watch)
    }

    /// The same as soon as it can be asked for that.
    pub fn watch_when_there(self: &Arc<Self>, uri: &str) -> Watch {
        let watch = Watch { server: Arc::clone(self), uri: uri.to_owned() };
        *self.watched().counts.entry(uri.to_owned()).or_default() += 1;
        self.pool.changed.notify_one();
        watch
    }

    pub(super) fn is_watched(&self) -> bool {
        !self.watched().counts.is_empty()
    }

    /// Sees to it that it tells of what is watched, and of nothing else.
    pub(super) async fn hear(&self, is_old: bool) {
        let Some(session) = self.pool.first().open_now().await else { return };
        let is_anew = session.mark_heard() || (is_old && session.is_old());
        if let Err(error) = self.listen(&session, is_anew).await {
            let (server, why) = (&*self.name, &*error.message);
            tracing::debug!(server, why, "an MCP server does not tell of its resources");
        }
    }

    /// In the older protocol by one request for each resource, in the newer by a stream for all.
    async fn listen(&self, session: &Session, is_anew: bool) -> Result<(), ErrorData> {
        let _turn = self.listening.lock().await;
        let (wanted, asked) = {
            let watched = self.watched();
            let wanted: BTreeSet<String> = watched.counts.keys().cloned().collect();
            (wanted, if is_anew { BTreeSet::new() } else { watched.asked.clone() })
        };
        if !session.is_old() {
            if is_anew || wanted != asked {
                self.stream(session, wanted);
            }
            return Ok(());
        }
        let mut result = Ok(());
        for uri in wanted.difference(&asked) {
            let begun = self.ask(("resources/subscribe", json!({"uri": uri})), None).await;
            if let Err(error) = begun {
                result = Err(error);
            }
        }
        for uri in asked.difference(&wanted) {
            let _ = self.ask(("resources/unsubscribe", json!({"uri": uri})), None).await;
        }
        self.watched().asked = wanted;
        result
    }

    fn stream(&self, session: &Session, wanted: BTreeSet<String>) {
        let (end, ended) = oneshot::channel();
        let filter = filter(&session.capabilities(), &wanted);
        {
            let mut watched = self.watched();
            watched.asked = wanted;
            watched.hearing = Some(end);
        }
        let Some(filter) = filter else { return };
        let (session, changed) = (session.clone(), Arc::clone(&self.pool.changed));
        let news = self.news.clone();
        self.tasks.spawn(async move {
            let hear = |change| match change {
                Change::Tools => changed.notify_one(),
                other => news.tell(other),
            };
            tokio::select! {
                () = session.listen(filter, hear) => {}
                _ = ended => {}
            }
        });
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn session(&self) -> Result<Session, ErrorData> {
        let deadline = Instant::now() + self.pool.mcp.connect_timeout;
        let session = self.pool.first().session(deadline).await;
        session.map_err(|why| ErrorData::internal_error(why.message, None))
    }
}

/// What is asked to be told of, as far as the server can; nothing, if it can tell of nothing.
fn filter(can: &ServerCapabilities, uris: &BTreeSet<String>) -> Option<SubscriptionFilter> {
    let mut filter = SubscriptionFilter::default();
    let yes = |can: Option<bool>| can.filter(|can| *can);
    filter.tools_list_changed = yes(can.tools.as_ref().and_then(|it| it.list_changed));
    filter.prompts_list_changed = yes(can.prompts.as_ref().and_then(|it| it.list_changed));
    filter.resources_list_changed = yes(can.resources.as_ref().and_then(|it| it.list_changed));
    let tells = yes(can.resources.as_ref().and_then(|it| it.subscribe)).is_some();
    if tells && !uris.is_empty() {
        filter.resource_subscriptions = Some(uris.iter().cloned().collect());
    }
    (filter != SubscriptionFilter::default()).then_some(filter)
}

// === impl Watch ===

impl Watch {
    /// Whether it is this very server that is asked, and none of another config.
    pub fn is_at(&self, server: &Arc<Server>) -> bool {
        Arc::ptr_eq(&self.server, server)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.server.watched();
        if let Some(count) = watched.counts.get_mut(&self.uri) {
            *count -= 1;
            if *count == 0 {
                watched.counts.remove(&self.uri);
                self.server.pool.changed.notify_one();
            }
        }
    }
}
