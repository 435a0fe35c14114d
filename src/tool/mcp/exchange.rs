//! One request to a server, and what becomes of it until it is answered: silence is timed, what the
//! server asks is brought to somebody, and it is called off when nobody waits for it any more.

use std::time::Duration;

use futures_util::FutureExt;
use rmcp::model::{
    CancelledNotification, CancelledNotificationParam, ClientRequest, MetaObject, RequestId,
    RequestMetaObject, ServerResult,
};
use rmcp::service::{Peer, PeerRequestOptions};
use rmcp::{RoleClient, ServiceError};
use serde_json::{Map, Value};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::aside::Listener;
use super::ear::{Asker, Question};
use super::link::Session;

const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// What a request goes by.
pub(super) struct Terms<'a> {
    pub(super) meta: Map<String, Value>,
    /// The longest that nothing may be heard of it.
    pub(super) silence: Duration,
    pub(super) deadline: Instant,
    /// What a person has said to an earlier one.
    pub(super) answer: Option<Value>,
    pub(super) listener: Option<&'a Listener>,
    /// Models may be asked for it.
    pub(super) sampling: bool,
}

/// Why there is no answer.
pub(super) enum Ended {
    /// It has not even been handed over.
    Unsent(ServiceError),
    Lost(ServiceError),
    /// A person must say something first.
    Asks(Question),
}

/// A request that is called off when nobody waits for it any more.
struct Pending<'a> {
    peer: &'a Peer<RoleClient>,
    id: Option<RequestId>,
}

/// `sent` is the id of the request, as soon as it has one.
pub(super) async fn exchange(
    session: &Session,
    request: ClientRequest,
    terms: Terms<'_>,
    sent: &mut Option<RequestId>,
) -> Result<ServerResult, Ended> {
    let left = terms.deadline.saturating_duration_since(Instant::now());
    let silence = terms.silence.min(left);
    let mut options = PeerRequestOptions::with_timeout(left);
    options = options.with_meta(meta(session, &terms));
    if let Some(level) = terms.listener.and_then(|it| it.logs.level()) {
        session.hear_from(level).await;
    }
    let (ask, mut wanted) = oneshot::channel();
    let (pulse, mut heard) = watch::channel(0);
    let begin = |token| Asker {
        answer: terms.answer.clone(),
        ask: Some(ask),
        has_answered: false,
        listener: terms.listener.cloned(),
        token,
        pulse,
    };
    let sending = session.peer().send_request_with_option(request, options);
    let handle = session.calls().begin(sending, begin).await.map_err(Ended::Unsent)?;
    let id = handle.id.clone();
    *sent = Some(id.clone());
    let mut pending = Pending { peer: session.peer(), id: Some(id.clone()) };
    let mut response = std::pin::pin!(handle.await_response());
    let result = loop {
        let is_asking = *heard.borrow_and_update() > 0;
        tokio::select! {
            biased;
            Ok(question) = &mut wanted, if !wanted.is_terminated() => break Err(Ended::Asks(question)),
            result = &mut response => {
                pending.id = None;
                break result.map_err(Ended::Lost);
            }
            Ok(()) = heard.changed() => {}
            // People may take their time.
            () = sleep(silence), if !is_asking => {
                break Err(Ended::Lost(ServiceError::Timeout { timeout: silence }));
            }
        }
    };
    drop(pending);
    session.calls().end(&id).await;
    result
}

/// What stands beside the request: in the newer protocol also what its client can be asked.
fn meta(session: &Session, terms: &Terms<'_>) -> RequestMetaObject {
    let mut meta = terms.meta.clone();
    if let Some(listener) = terms.listener.filter(|_| !session.is_old()) {
        let mut can = super::answer::as_value(&listener.can);
        if let Some(can) = can.as_object_mut().filter(|_| !terms.sampling) {
            can.remove("sampling");
        }
        meta.insert(CAPABILITIES.to_owned(), can);
        if let Some(level) = listener.logs.level() {
            meta.insert(LOG_LEVEL.to_owned(), Value::from(level));
        }
    }
    RequestMetaObject(MetaObject(meta))
}

// === impl Pending ===

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let reason = Some("nobody waits for it any more".to_owned());
        let params = CancelledNotificationParam::new(Some(id), reason);
        let notification = CancelledNotification::new(params);
        // It is in the queue after the first poll, and nobody waits until it is sent.
        let _ = self.peer.send_notification(notification.into()).now_or_never();
    }
}
