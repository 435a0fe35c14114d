//! How tools reach the net: by the client of everything else, to addresses that were looked at, with
//! the operator's credentials, and never on to where a redirect leads.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use encoding_rs::{Encoding, UTF_8};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio::time::{Instant, timeout};

use super::credential::{Papers, Worn};
use super::kept::Net;
use super::{Answer, Failure, FailureKind, Invocation, Sent, text};
use crate::canon::{Content, Effect, Media, MediaKind, Part, Source};
use crate::config::{self, Secret, Web};
use crate::dialect::splice::Payload;
use crate::net::client::{Fault, Origin, Outgoing, Place, Reach, Reply};

/// The longest wait for a connection, and for a credential: a part of an attempt's time, so that
/// what was certainly not sent does not end as what may have been.
const CONNECT: Duration = Duration::from_secs(10);
/// Of an answer that is a failure, what the model is told.
const LONGEST_REASON: usize = 500;
/// A document says in so many bytes how it is encoded.
const LONGEST_HEAD: usize = 1024;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("switchpoint/", env!("CARGO_PKG_VERSION")));

/// One server that tools talk to.
pub(crate) struct Site {
    origin: Arc<Origin>,
    /// Of the address, without a `/` at its end.
    base: String,
    papers: Papers,
    connect: Duration,
    max_result: usize,
    /// The operator wrote its address: it may know what a client wants tools to know.
    is_ours: bool,
}

/// One request to a site.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Behind the path of the site's address, with its query. Everything in it is encoded.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(HeaderName, HeaderValue)],
    /// What it is, and the bytes.
    pub(crate) body: Option<(HeaderValue, Bytes)>,
    /// What must not happen twice goes over a connection of its own.
    pub(crate) effect: Effect,
    /// `Idempotency-Key` is sent where the effect asks for one.
    pub(crate) keyed: bool,
}

/// What a site answered, with success.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// There was more.
    pub(crate) truncated: bool,
}

// === impl Site ===

impl Site {
    /// The server at `url`, which the operator wrote: nothing of it may be chosen by who calls.
    pub(crate) fn new(
        net: &Net,
        url: &str,
        web: &Web,
        terms: &config::Tool,
    ) -> Result<Self, String> {
        let reach = if web.allow_private { Reach::Inner } else { Reach::Public };
        let site = Self::within(net, url, reach, web, terms)?;
        Ok(Self { is_ours: true, ..site })
    }

    pub(crate) fn within(
        net: &Net,
        url: &str,
        reach: Reach,
        web: &Web,
        terms: &config::Tool,
    ) -> Result<Self, String> {
        let (place, base) = place(url, web)?;
        let origin = net.client.origin_within(&place, reach);
        let origin = origin.map_err(|error| format!("ca: {error}"))?;
        let plain = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json, */*;q=0.8")),
            (USER_AGENT, AGENT),
        ]);
        Ok(Self {
            origin,
            base,
            papers: Papers::new(web, plain, net, reach)?,
            connect: CONNECT.min(terms.timeout / 3),
            max_result: terms.max_result,
            is_ours: false,
        })
    }

    /// Sends a request and takes in its answer: what is no success is a failure.
    pub(crate) async fn call(
        &self,
        request: Request<'_>,
        call: &Invocation,
    ) -> Result<Received, Failure> {
        let reply = self.open(request, call).await?;
        self.receive(reply).await
    }

    /// Takes in what was answered, which is a failure where it is no success.
    pub(crate) async fn receive(&self, reply: Reply) -> Result<Received, Failure> {
        let (status, headers) = (reply.status, reply.headers.clone());
        let limit = if (200..300).contains(&status) { self.max_result } else { 4 * LONGEST_REASON };
        let (body, truncated) = read(reply, limit).await?;
        let body = self.without_secrets(body);
        let received = Received { status, headers, body, truncated };
        match status {
            200..=299 => Ok(received),
            _ => Err(received.refusal()),
        }
    }

    /// Sends a request and gives its answer as it begins, whatever it says. A credential that is
    /// refused is looked up or fetched anew, once.
    pub(crate) async fn open(
        &self,
        request: Request<'_>,
        call: &Invocation,
    ) -> Result<Reply, Failure> {
        let began = Instant::now();
        let (reply, worn) = self.send(&request, call).await?;
        if reply.status != 401 || !self.renew(&worn, began).await {
            return Ok(reply);
        }
        drop(reply);
        Ok(self.send(&request, call).await?.0)
    }

    async fn renew(&self, worn: &Arc<Worn>, began: Instant) -> bool {
        timeout(self.connect, self.papers.renew(worn, began)).await.unwrap_or(false)
    }

    /// Everything that it waits for before it sends is bounded, so that it is known that nothing
    /// was sent.
    async fn send(
        &self,
        request: &Request<'_>,
        call: &Invocation,
    ) -> Result<(Reply, Arc<Worn>), Failure> {
        let mut extra = request.headers.to_vec();
        let papers = async { Ok((self.papers.worn().await, self.papers.token().await?)) };
        let papers = timeout(self.connect, papers).await.unwrap_or_else(|_| {
            let message = "the server of its credentials did not answer";
            Err(Failure::new(FailureKind::Unreachable, message))
        });
        let (worn, token) = papers?;
        extra.extend(token);
        if request.keyed && request.effect != Effect::Read {
            extra.extend(value(IDEMPOTENCY_KEY, &call.idempotency_key));
        }
        if self.is_ours {
            extra.extend(call.passed.fields().filter_map(field));
        } else {
            extra.extend(call.passed.parent().filter_map(field));
        }
        let body = request.body.as_ref().map(|(_, body)| body.clone()).unwrap_or_default();
        let body = Payload::from(body);
        let path = format!("{}{}", self.base, request.path);
        let outgoing = Outgoing {
            method: request.method,
            path: if path.is_empty() { "/" } else { &path },
            headers: &worn.headers,
            extra: &extra,
            content_type: request.body.as_ref().map(|(content_type, _)| content_type),
            body: &body,
            rest: None,
            left: None,
        };
        let sent = match request.effect {
            Effect::Once => self.origin.send_anew(outgoing, self.connect).await,
            Effect::Read | Effect::Idempotent => self.origin.send(outgoing, self.connect).await,
        };
        Ok((sent.map_err(|fault| failure(&fault))?, worn))
    }

    /// Servers that show what they were sent must not show it to models.
    pub(crate) fn without_secrets(&self, body: Bytes) -> Bytes {
        self.papers.without_secrets(body)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Site({}{})", self.origin.authority(), self.base)
    }
}

/// Where an address leads, and the path in it.
pub(super) fn place(url: &str, web: &Web) -> Result<(Place, String), String> {
    let wrong = || "its address is not a URL".to_owned();
    let mut parts = url.parse::<Uri>().map_err(|_| wrong())?.into_parts();
    let root = PathAndQuery::from_static("/");
    let path = parts.path_and_query.replace(root.clone()).unwrap_or(root);
    let address = Uri::from_parts(parts).map_err(|_| wrong())?;
    let place = Place { address, proxy: web.proxy.clone(), ca: web.ca.clone() };
    Ok((place, path.as_str().trim_end_matches('/').to_owned()))
}

/// Those that must not be seen in an answer.
pub(super) fn telling<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Vec<String> {
    let secrets = secrets.into_iter().filter(|secret| secret.is_telling());
    secrets.flat_map(|secret| text::spellings(secret.expose())).collect()
}

/// A header that never prints.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| "a secret cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn field((name, text): (&'static str, &str)) -> Option<(HeaderName, HeaderValue)> {
    value(HeaderName::from_static(name), text)
}

fn value(name: HeaderName, text: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((name, HeaderValue::from_str(text).ok()?))
}

/// An answer up to `limit`, and whether there was more.
pub(super) async fn read(mut reply: Reply, limit: usize) -> Result<(Bytes, bool), Failure> {
    let mut body = BytesMut::new();
    loop {
        let more = poll_fn(|context| reply.body.poll_data(context, &mut body)).await;
        match more {
            Ok(true) if body.len() <= limit => {}
            Ok(false) if body.len() <= limit => return Ok((body.freeze(), false)),
            Ok(_) => {
                body.truncate(limit);
                return Ok((body.freeze(), true));
            }
            Err(_) => {
                let failure = Failure::new(FailureKind::Unreachable, "its answer broke off");
                return Err(failure.sent(Sent::Maybe));
            }
        }
    }
}

/// What models are told of a request that was not answered. Addresses are not theirs to know.
pub(super) fn failure(fault: &Fault) -> Failure {
    match fault {
        _ if fault.forbidden().is_some() => {
            Failure::new(FailureKind::Refused, "its address must not be reached from here")
        }
        Fault::Connect(_) => Failure::new(FailureKind::Unreachable, "it cannot be reached"),
        Fault::Closed { .. } | Fault::Upload(_) => {
            Failure::new(FailureKind::Unreachable, "the connection to it broke").sent(Sent::Maybe)
        }
        Fault::Malformed(_) => {
            Failure::new(FailureKind::BadOutput, "its answer is not HTTP").sent(Sent::Maybe)
        }
    }
}

// === impl Received ===

impl Received {
    fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn media_type(&self) -> String {
        let media_type = self.content_type().split(';').next().unwrap_or_default();
        media_type.trim().to_ascii_lowercase()
    }

    /// For the model: JSON and texts as they are, images as such, and of all else only a note.
    pub(crate) fn into_answer(self) -> Result<Answer, Failure> {
        let media_type = self.media_type();
        let (raw, truncated) = (self.body.clone(), self.truncated);
        let answer = Answer { raw, truncated, ..Answer::default() };
        if let Some(kind) = media_kind(&media_type).filter(|_| !truncated) {
            let data = BASE64_STANDARD.encode(&self.body);
            let media = Media::new(kind, Source::base64(&media_type, data));
            return Ok(Answer { parts: vec![Part::new(Content::Media(media))], ..answer });
        }
        let is_json = media_type == "application/json" || media_type.ends_with("+json");
        if !is_json && !is_text(&media_type, &self.body) {
            let note = format!("[{media_type}, {} bytes]", self.body.len());
            return Ok(Answer { parts: vec![Part::text(note)], ..answer });
        }
        let said = decode(&self.body, self.content_type(), &media_type);
        let value = if truncated { None } else { text::read_json(&said) };
        if is_json && value.is_none() && !truncated && !said.trim().is_empty() {
            let failure =
                Failure::new(FailureKind::BadOutput, "its answer is not the JSON it says");
            return Err(failure.sent(Sent::Maybe));
        }
        Ok(Answer { parts: vec![Part::text(said)], value, ..answer })
    }

    /// What an answer means that is no success.
    fn refusal(&self) -> Failure {
        let (kind, sent) = match self.status {
            401 | 403 => (FailureKind::Auth, Sent::Refused),
            429 => (FailureKind::RateLimited, Sent::Refused),
            status @ 400..=499 => (FailureKind::Status(status), Sent::Refused),
            status => (FailureKind::Status(status), Sent::Maybe),
        };
        let said = decode(&self.body, self.content_type(), &self.media_type());
        let said = text::clean(&said);
        let said = said.trim();
        let message = match self.status {
            401 | 403 => format!("HTTP {}: it does not let us in", self.status),
            300..=399 => format!("HTTP {}: it leads elsewhere, which is not followed", self.status),
            status if said.is_empty() => format!("HTTP {status}"),
            status => format!("HTTP {status}: {}", text::head(said, LONGEST_REASON)),
        };
        Failure::new(kind, message).sent(sent).retry_after(retry_after(&self.headers))
    }
}

/// Whether models can read it as it stands.
fn is_text(media_type: &str, body: &[u8]) -> bool {
    const KINDS: [&str; 12] = [
        "graphql",
        "javascript",
        "json",
        "json-seq",
        "json5",
        "jsonl",
        "ndjson",
        "sql",
        "toml",
        "www-form-urlencoded",
        "xml",
        "yaml",
    ];
    match media_type.split_once('/') {
        None => media_type.is_empty(),
        Some(("text", _)) => true,
        // Nothing is said of it.
        Some(("application", "octet-stream")) => is_plain(body),
        Some((_, kind)) => {
            let kind = kind.rsplit(['+', '.']).next().unwrap_or(kind);
            let kind = kind.strip_prefix("x-").unwrap_or(kind);
            KINDS.contains(&kind)
        }
    }
}

/// Whether nothing but letters is in it.
fn is_plain(body: &[u8]) -> bool {
    let said = match std::str::from_utf8(body) {
        Ok(said) => said,
        // It may have been cut within one.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !said.is_empty() && !said.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

fn media_kind(media_type: &str) -> Option<MediaKind> {
    match media_type {
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" => Some(MediaKind::Image),
        "audio/wav" | "audio/x-wav" | "audio/mpeg" => Some(MediaKind::Audio),
        _ => None,
    }
}

/// A text in whichever encoding it says it has: by its first bytes (a byte order mark), by its
/// `content-type`, or by itself; else in UTF-8.
fn decode(body: &[u8], content_type: &str, media_type: &str) -> String {
    let named = |label: String| Encoding::for_label(label.as_bytes());
    let by_itself = || match media_type {
        "text/html" | "application/xhtml+xml" => label_within(body, "charset"),
        _ if media_type.ends_with("xml") => label_within(body, "encoding"),
        _ => None,
    };
    let encoding = label_behind(content_type, "charset")
        .and_then(named)
        // What could be read so far is not in UTF-16, whatever it says.
        .or_else(|| Some(named(by_itself()?)?.output_encoding()));
    encoding.unwrap_or(UTF_8).decode(body).0.into_owned()
}

/// What the beginning of a document says of its encoding, as browsers look for it.
fn label_within(body: &[u8], word: &str) -> Option<String> {
    let head = &body[..body.len().min(LONGEST_HEAD)];
    label_behind(&String::from_utf8_lossy(head), word)
}

/// `{word}="label"`, with or without its quotes.
fn label_behind(text: &str, word: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let after = |start: usize| text[start + word.len()..].trim_start().strip_prefix('=');
    let rest = text.match_indices(word).find_map(|(start, _)| after(start))?;
    let label = rest.trim_start().trim_start_matches(['"', '\'']);
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
    let end = label.find(|c| !is_part(c)).unwrap_or(label.len());
    Some(label[..end].to_owned())
}

/// Seconds; dates say nothing that is worth a clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_in_the_encoding_that_it_says_it_has() {
        let html = b"<html><head><meta charset=\"windows-1251\"></head>\xcf\xf0\xe8\xe2\xe5\xf2";
        let old = b"<meta http-equiv=content-type content='text/html; charset=euc-kr'>\xb0\xa1";
        let xml = b"<?xml version='1.0' encoding='ISO-8859-15'?><a>\xa4</a>";
        let utf16 = b"\xff\xfeh\0\xe9\0";
        for (body, content_type, end) in [
            (&b"caf\xe9"[..], "text/plain; charset=iso-8859-1", "café"),
            (b"caf\xe9", "text/plain; Charset=\"Latin1\"", "café"),
            (b"\x93\xfa\x96{", "text/plain;charset=Shift_JIS", "日本"),
            (b"\xc4\xe3\xba\xc3", "text/csv; charset=gb2312; header=present", "你好"),
            (html, "text/html", "Привет"),
            (old, "text/html", "가"),
            (xml, "application/xml", "<a>€</a>"),
            (utf16, "text/plain", "hé"),
            (b"\xef\xbb\xbfna\xc3\xafve", "text/plain", "naïve"),
            (b"na\xc3\xafve charset=latin1", "text/plain; charset=none-such", "charset=latin1"),
            (b"na\xc3\xafve", "application/json", "naïve"),
        ] {
            let media_type = content_type.split(';').next().unwrap_or_default();
            let said = decode(body, content_type, media_type);
            assert!(said.ends_with(end), "{content_type}: {said}");
            assert!(!said.contains(char::REPLACEMENT_CHARACTER), "{said}");
        }
    }
}
