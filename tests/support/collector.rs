//! A collector of traces that does as it is told: OTLP over HTTP and gRPC on one port, read by the
//! protocol's own definitions.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::until;

/// What it does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    /// Never answers.
    Stalls,
    /// Says that it is overloaded.
    Overloaded,
    /// Takes all spans but one.
    Picky,
}

pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

struct Seen {
    mood: Mood,
    exports: Vec<Export>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) resource: Resource,
    pub(crate) spans: Vec<Span>,
}

// === impl Collector ===

impl Collector {
    pub(crate) async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen { mood, exports: Vec::new() }));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&seen)));
        Self { address, seen, _tasks: tasks }
    }

    /// The lines of a gateway's `[telemetry]` that lead here.
    pub(crate) fn section(&self, more: &str) -> String {
        let address = self.address;
        format!(
            "[telemetry.otlp]\nendpoint = \"http://{address}\"\ninterval = \"20ms\"\n{more}\n\n"
        )
    }

    pub(crate) fn turns(&self, mood: Mood) {
        self.seen.lock().unwrap().mood = mood;
    }

    pub(crate) fn exports(&self) -> Vec<Export> {
        self.seen.lock().unwrap().exports.clone()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.exports().into_iter().flat_map(|export| export.spans).collect()
    }

    /// All spans, as soon as there are so many.
    pub(crate) async fn collected(&self, count: usize) -> Vec<Span> {
        until("spans are collected", || self.spans().len() >= count).await;
        self.spans()
    }
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Seen>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            let serve = service_fn(move |request| answer(request, Arc::clone(&seen)));
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), serve).await;
        });
    }
}

type Answer = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Piece>>>;
type Piece = Result<Frame<Bytes>, Infallible>;

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Seen>>,
) -> Result<Response<Answer>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mood = seen.lock().unwrap().mood;
    let grpc = head.headers.get("content-type").is_some_and(|kind| kind == "application/grpc");
    match mood {
        Mood::Stalls => std::future::pending().await,
        Mood::Overloaded => return Ok(overloaded(grpc)),
        Mood::Takes | Mood::Picky => {}
    }
    let export = read(head.uri.path(), head.headers, &body, grpc);
    seen.lock().unwrap().exports.push(export);
    // `ExportTraceServiceResponse`, which says of success nothing at all.
    let said = if mood == Mood::Picky { &b"\x0a\x0b\x08\x01\x12\x07too old"[..] } else { b"" };
    Ok(taken(said, grpc))
}

fn read(path: &str, headers: HeaderMap, body: &[u8], grpc: bool) -> Export {
    let (packed, body) = if grpc {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
        assert_eq!(length as usize, body.len() - 5, "one message and no more");
        (body[0] == 1, &body[5..])
    } else {
        (headers.get("content-encoding").is_some_and(|coding| coding == "gzip"), body)
    };
    let mut message = Vec::new();
    if packed {
        std::io::Read::read_to_end(&mut GzDecoder::new(body), &mut message).unwrap();
    } else {
        message.extend_from_slice(body);
    }
    let mut read = ExportTraceServiceRequest::decode(&message[..]).unwrap();
    assert_eq!(read.resource_spans.len(), 1);
    let of_resource = read.resource_spans.remove(0);
    let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans).collect();
    Export { path: path.to_owned(), headers, resource: of_resource.resource.unwrap(), spans }
}

fn taken(said: &[u8], grpc: bool) -> Response<Answer> {
    if !grpc {
        return response(200, vec![Frame::data(Bytes::copy_from_slice(said))]);
    }
    let length = u32::try_from(said.len()).unwrap().to_be_bytes();
    let message = [&[0], &length[..], said].concat();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    response(200, vec![Frame::data(message.into()), Frame::trailers(trailers)])
}

fn overloaded(grpc: bool) -> Response<Answer> {
    let mut response = response(if grpc { 200 } else { 503 }, Vec::new());
    if grpc {
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
    }
    response
}

fn response(status: u16, frames: Vec<Frame<Bytes>>) -> Response<Answer> {
    let pieces: Vec<Piece> = frames.into_iter().map(Ok).collect();
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(pieces)));
    *response.status_mut() = status.try_into().unwrap();
    response
}

/// The attribute of this name, as text.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(shown(found.value.as_ref().unwrap()))
}

fn shown(value: &AnyValue) -> String {
    match value.value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::ArrayValue(list) => list.values.iter().map(shown).collect::<Vec<_>>().join(","),
        other => panic!("{other:?}"),
    }
}
