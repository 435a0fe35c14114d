//! Brings the spans of finished calls to the collector, beside all calls: when it is slow or away,
//! they wait, and what is too much is dropped and counted.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, RETRY_AFTER, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Gateway;
use crate::config::{Otlp, Protocol};
use crate::dialect::splice::Payload;
use crate::net::client::{Called, Client, Origin, Outgoing, Place, Template, framed, gzip};
use crate::telemetry::{Batch, Refusal, Traces};

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
/// A longer answer is not read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A batch that is not taken is tried again, after a pause that doubles, for so long in all.
const TRIES: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The way to the collector.
pub struct Collector {
    origin: Arc<Origin>,
    path: String,
    headers: Template,
    protocol: Protocol,
    gzip: bool,
    timeout: Duration,
    interval: Duration,
}

/// An export that goes on until it is ended.
#[derive(Debug)]
pub struct Exporting {
    stop: watch::Sender<bool>,
    done: oneshot::Receiver<()>,
}

/// What one request came to.
enum Sent {
    Taken(Option<Refusal>),
    /// Again will do no better.
    Refused(String),
    Away(String, Option<Duration>),
}

// === impl Collector ===

impl Collector {
    /// The error says what is wrong with the section.
    pub fn new(otlp: &Otlp, client: &Client) -> Result<Self, String> {
        let address: Uri = otlp.endpoint.parse().map_err(|_| "endpoint: it is not a URL")?;
        let base = address.path().trim_end_matches('/');
        let path = match otlp.protocol {
            Protocol::Http => address.path().to_owned(),
            Protocol::Grpc => format!("{base}{GRPC_PATH}"),
        };
        let place = Place { address, proxy: None, ca: otlp.ca.clone() };
        let origin = client.origin(&place).map_err(|error| error.to_string())?;
        Ok(Self {
            origin,
            path,
            headers: Template::new(headers(otlp)?),
            protocol: otlp.protocol,
            gzip: otlp.gzip,
            timeout: otlp.timeout,
            interval: otlp.interval,
        })
    }

    /// Begins to export the traces of `gateway`, if it has any.
    pub fn start(self, gateway: &Arc<Gateway>) -> Option<Exporting> {
        let traces = Arc::clone(gateway.telemetry.traces.as_ref()?);
        let (stop, mut stopped) = watch::channel(false);
        let (tell, done) = oneshot::channel();
        let export = Arc::clone(gateway);
        // Not one of the gateway's own tasks: those are waited for before the last spans are cut.
        crate::net::tasks::Tasks::default().spawn(async move {
            while !*stopped.borrow() {
                tokio::select! {
                    () = sleep(self.interval) => {}
                    () = traces.enough() => {}
                    _ = stopped.changed() => {}
                }
                self.export(&export, &traces, &mut stopped).await;
            }
            let _ = tell.send(());
        });
        Some(Exporting { stop, done })
    }

    /// Sends all that waits.
    async fn export(
        &self,
        gateway: &Gateway,
        traces: &Traces,
        stopped: &mut watch::Receiver<bool>,
    ) {
        for batch in traces.take() {
            let sent = self.deliver(&batch, stopped).await;
            note(gateway, batch.spans, sent);
        }
    }

    /// Tries until it is taken or refused, time is over, or the process is about to end.
    async fn deliver(&self, batch: &Batch, stopped: &mut watch::Receiver<bool>) -> Sent {
        let Some(body) = self.body(batch) else {
            return Sent::Refused("the batch cannot be packed".to_owned());
        };
        let end = Instant::now() + TRIES;
        let mut pause = FIRST_PAUSE;
        loop {
            let sent = timeout(self.timeout, self.send(&body)).await;
            let sent = sent.unwrap_or_else(|_| Sent::Away("it did not answer".to_owned(), None));
            let Sent::Away(_, wait) = &sent else { return sent };
            let wait = wait.unwrap_or(pause);
            if *stopped.borrow() || wait > end.saturating_duration_since(Instant::now()) {
                return sent;
            }
            tokio::select! {
                () = sleep(wait) => {}
                _ = stopped.changed() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn body(&self, batch: &Batch) -> Option<Payload> {
        let packed = if self.gzip { gzip(&batch.message).ok() } else { None };
        let message = packed.as_ref().unwrap_or(&batch.message);
        match self.protocol {
            Protocol::Grpc => framed(message, packed.is_some()),
            Protocol::Http => {
                let mut payload = Payload::default();
                payload.push(Bytes::copy_from_slice(message));
                Some(payload)
            }
        }
    }

    async fn send(&self, body: &Payload) -> Sent {
        let outgoing = Outgoing {
            method: "POST",
            path: &self.path,
            headers: &self.headers,
            extra: &[],
            content_type: Some(match self.protocol {
                Protocol::Http => &PROTOBUF,
                Protocol::Grpc => &GRPC,
            }),
            body,
            rest: None,
            left: None,
        };
        match self.protocol {
            Protocol::Http => self.send_http(outgoing).await,
            Protocol::Grpc => match self.origin.call(outgoing, self.timeout).await {
                Ok(called) => of_grpc(&called),
                Err(fault) => Sent::Away(fault.to_string(), None),
            },
        }
    }

    async fn send_http(&self, outgoing: Outgoing<'_>) -> Sent {
        let mut reply = match self.origin.send(outgoing, self.timeout).await {
            Ok(reply) => reply,
            Err(fault) => return Sent::Away(fault.to_string(), None),
        };
        let mut answer = BytesMut::new();
        while answer.len() < LONGEST_ANSWER
            && let Ok(true) = poll_fn(|context| reply.body.poll_data(context, &mut answer)).await
        {
        }
        match reply.status {
            200..=299 => Sent::Taken(Refusal::read(&answer)),
            429 | 502..=504 => {
                let after = reply.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok());
                let after = after.and_then(|after| after.parse().ok()).map(Duration::from_secs);
                Sent::Away(format!("HTTP {}", reply.status), after)
            }
            status => Sent::Refused(format!("HTTP {status}")),
        }
    }
}

/// Counts what became of so many spans.
fn note(gateway: &Gateway, spans: u64, sent: Sent) {
    let count = |outcome, spans| {
        let series = &gateway.telemetry.metrics.trace_spans;
        series.with_label_values(&[outcome]).inc_by(spans);
    };
    match sent {
        Sent::Taken(None) => count("sent", spans),
        Sent::Taken(Some(Refusal { spans: refused, message })) => {
            let refused = refused.min(spans);
            count("sent", spans - refused);
            count("refused", refused);
            tracing::warn!(refused, %message, "the collector did not take all spans");
        }
        Sent::Refused(cause) => {
            count("refused", spans);
            tracing::warn!(spans, %cause, "the collector refused spans");
        }
        Sent::Away(cause, _) => {
            count("lost", spans);
            tracing::warn!(spans, %cause, "no collector took the spans");
        }
    }
}

/// By the table of the OTLP specification.
fn of_grpc(called: &Called) -> Sent {
    match (called.status, called.code) {
        (200, 0) => Sent::Taken(Refusal::read(&called.answer)),
        (200, 1 | 4 | 8 | 10 | 11 | 14 | 15) | (429 | 502..=504, _) => {
            Sent::Away(format!("gRPC {}: {}", called.code, called.message), None)
        }
        (200, code) => Sent::Refused(format!("gRPC {code}: {}", called.message)),
        (status, _) => Sent::Refused(format!("HTTP {status}")),
    }
}

fn headers(otlp: &Otlp) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if otlp.protocol == Protocol::Grpc {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if otlp.gzip {
        let name = match otlp.protocol {
            Protocol::Http => CONTENT_ENCODING,
            Protocol::Grpc => GRPC_ENCODING,
        };
        headers.insert(name, GZIP);
    }
    for (name, value) in &otlp.headers {
        let wrong = || format!("headers: {name:?} cannot be sent");
        let name = HeaderName::try_from(name).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value.expose()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

// === impl Exporting ===

impl Exporting {
    /// Sends what still waits, once, and returns when that is done.
    pub async fn end(self) {
        self.stop.send_replace(true);
        let _ = self.done.await;
    }
}
