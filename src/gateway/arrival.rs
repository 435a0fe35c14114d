//! Takes in a request: its body, capped and looked through while it arrives.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::call::Call;
use super::chain::Wishes;
use super::lease::{ByteBudget, Lease};
use super::relayed::Relayed;
use super::upload::Upload;
use crate::canon::{
    CallId, ChatRequest, Content, Dialect, Message, Part, Relay, Role, Sampling, Surface, Tool,
};
use crate::config::{Server, ToolPairs};
use crate::dialect::marks::Mark;
use crate::dialect::passage::Sight;
use crate::dialect::peek::{Envelope, Fault, Scanner};
use crate::dialect::sampling::sampling;
use crate::dialect::splice::Payload;
use crate::dialect::{ClientSide, Misread, keepsake, pairs, references};
use crate::error::{Error, Kind};
use crate::net::client::CDN_LOOP;
use crate::net::patience::Busy;
use crate::net::shed::Permit;

/// Headers of a client that its provider is given; all others end here.
static PASSED_ON: [HeaderName; 3] = [
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

pub(super) const BETA: &str = "anthropic-beta";
pub(super) const VERSION: &str = "anthropic-version";

/// Bytes a second that a body has to bring once its `body_timeout` is over: a call that comes in one
/// by one keeps its place from others.
const SLOWEST: usize = 1024;

/// A request at the door.
pub struct Arrival<B> {
    pub ask: Ask,
    pub headers: HeaderMap,
    pub body: B,
    /// `None` when too much is in flight already.
    pub permit: Option<Permit>,
    /// Tells the client's connection that it is being served.
    pub busy: Busy,
}

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub surface: Surface,
    /// The model, where the path names it and the body need not.
    pub model: Option<String>,
    /// Whether the answer is streamed, where the path says it and not the body.
    pub stream: Option<bool>,
    /// What is passed on as it is.
    pub relay: Option<Relay>,
    /// The object of a provider's that is asked for, where it is not a model.
    pub filed: Option<Filed>,
    /// Not an answer is wanted but how it would be got.
    pub explains: bool,
    /// The call that this one is another time: chance falls as it did then.
    pub id: Option<CallId>,
}

/// What a path says of files and batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filed {
    /// Empty where no single one is asked for.
    pub id: String,
    /// What the URL's query says.
    pub query: Vec<(String, String)>,
}

/// A request that was read and understood as far as routing needs.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) payload: Payload,
    pub(super) envelope: Envelope,
    pub(super) extra: Vec<(HeaderName, HeaderValue)>,
    pub(super) relayed: Option<Relayed>,
    /// The client's `anthropic-beta`, of which each target takes what it knows.
    pub(super) betas: Option<String>,
    /// The client's `anthropic-version`.
    pub(super) version: Option<HeaderValue>,
    /// It ends with what another target has said already.
    carried_on: bool,
    /// Who keeps the files that it refers to: no other can be asked.
    pub(super) keeper: Option<Arc<str>>,
    /// The body in our own words, once that was needed.
    chat: OnceLock<Result<Asked, Misread>>,
    /// What was read of the body is what counts, and not its bytes.
    rewritten: bool,
    /// It never had a body: it came in our own words.
    own: bool,
    lease: Arc<Lease>,
}

/// A question in our own words.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) request: ChatRequest,
    /// Tool calls or results that stood alone were completed.
    pub(super) repaired: bool,
    /// What the client did not carry was put back into it.
    pub(super) restored: bool,
    /// It asked for more output than the route allows.
    pub(super) capped: bool,
}

impl Asked {
    /// Lets the answer have `most` tokens and no more.
    fn cap(&mut self, most: u64) {
        let wanted = &mut self.request.sampling.max_tokens;
        if wanted.is_none_or(|wanted| wanted > most) {
            *wanted = Some(most);
            self.capped = true;
        }
    }

    /// Whether the client set breakpoints of the prompt cache itself.
    pub(super) fn has_cache_marks(&self) -> bool {
        let in_tools = self
            .request
            .tools
            .iter()
            .any(|tool| matches!(tool, Tool::Function { cache: Some(_), .. }));
        let parts = self.request.messages.iter().flat_map(|message| &message.parts);
        in_tools || parts.into_iter().any(|part| part.cache.is_some())
    }
}

/// Why a body could not be taken in.
pub(super) enum Unreadable {
    Refused(Error),
    /// The client stopped sending.
    Gone,
    /// It could, but no model is asked.
    ForAgent(Box<Question>),
}

// === impl Filed ===

impl Filed {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads a body to its end. It is checked while it arrives and neither parsed nor copied.
pub(super) async fn read<B>(
    mut body: B,
    (ask, headers): (&Ask, &HeaderMap),
    server: &Server,
    budget: &ByteBudget,
) -> Result<Box<Question>, Unreadable>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if let Some(length) = declared.and_then(|text| text.parse::<usize>().ok()) {
        check_size(length, server)?;
    }
    let lease = budget.lease();
    let mut scanner = Scanner::default();
    let mut payload = Payload::default();
    let begun = Instant::now();
    loop {
        let slow = || refused(Kind::InvalidRequest, "The body arrived too slowly.");
        let frame = match tokio::time::timeout(server.body_timeout, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(Unreadable::Gone),
            Ok(None) => break,
            Err(_) => return Err(slow()),
        };
        let due = Duration::from_secs((payload.len() / SLOWEST) as u64) + server.body_timeout;
        if begun.elapsed() > due {
            return Err(slow());
        }
        let Ok(data) = frame.into_data() else { continue };
        check_size(payload.len() + data.len(), server)?;
        lease.grow(data.len()).map_err(Unreadable::Refused)?;
        scanner.feed(&data).map_err(|fault| malformed(&fault, headers))?;
        payload.gather(data);
    }
    let mut envelope = scanner.finish().map_err(|fault| malformed(&fault, headers))?;
    if let Some(model) = &ask.model {
        envelope.model.clone_from(model);
    } else if envelope.model.is_empty() {
        let message = "`model` is missing; name a route or `provider/model`.";
        return Err(refused(Kind::InvalidRequest, message));
    }
    envelope.stream = ask.stream.unwrap_or(envelope.stream);
    let relayed = ask.relay.map(Relayed::json);
    let mut question = Question::new((payload, lease), envelope, headers, relayed);
    if ask.surface.dialect() == Some(Dialect::Messages) {
        question.note_api(headers);
    }
    Ok(question)
}

impl Question {
    pub(super) fn new(
        (payload, lease): (Payload, Lease),
        envelope: Envelope,
        headers: &HeaderMap,
        relayed: Option<Relayed>,
    ) -> Box<Self> {
        let passed_on = PASSED_ON.iter().filter_map(|name| {
            let value = headers.get(name)?;
            Some((name.clone(), value.clone()))
        });
        let extra = passed_on.collect();
        let mut question = Box::new(Self {
            payload,
            envelope,
            extra,
            relayed,
            betas: None,
            version: None,
            carried_on: false,
            keeper: None,
            chat: OnceLock::new(),
            rewritten: false,
            own: false,
            lease: Arc::new(lease),
        });
        question.came_by(headers);
        question
    }

    /// Notes which gateways its call has come through, for those whom it goes on to.
    pub(super) fn came_by(&mut self, headers: &HeaderMap) {
        let marks = headers.get_all(CDN_LOOP).iter();
        self.extra.extend(marks.map(|mark| (CDN_LOOP, mark.clone())));
    }

    /// Notes which form of Anthropic's API its client wants.
    pub(super) fn note_api(&mut self, headers: &HeaderMap) {
        let betas = headers.get_all(BETA).iter().filter_map(|value| value.to_str().ok());
        let betas = betas.collect::<Vec<_>>().join(",");
        self.betas = Some(betas).filter(|betas| !betas.is_empty());
        self.version = headers.get(VERSION).cloned();
    }

    /// Whether it may refer to what a provider keeps.
    pub(super) fn may_refer(&self, surface: Surface) -> bool {
        let reads = surface.dialect().is_some() || surface == Surface::Images;
        let is_json = self.relayed.as_ref().is_none_or(Relayed::is_json);
        reads && is_json && references::may_refer(surface.dialect(), |mark| self.bears(mark))
    }

    /// Whether its bytes bear a mark. Few are searched for it: most are told by how the strings of
    /// the body begin.
    pub(super) fn bears(&self, mark: &Mark) -> bool {
        self.envelope.beginnings.may_bear(mark) && self.payload.bears(mark)
    }

    /// One without a body.
    pub(super) fn bare(headers: &HeaderMap, relayed: Relayed) -> Box<Self> {
        let lease = ByteBudget::unbound();
        Self::new((Payload::default(), lease), Envelope::default(), headers, Some(relayed))
    }

    /// One that the gateway asks itself.
    pub(super) fn made(body: Bytes) -> Result<Box<Self>, Error> {
        let (nothing, lease) = (Payload::default(), ByteBudget::unbound());
        let mut question =
            Self::new((nothing, lease), Envelope::default(), &HeaderMap::new(), None);
        let model = read_envelope(&body)?.model;
        question.replace(body)?;
        question.envelope.model = model;
        Ok(question)
    }

    /// One that comes in our own words.
    pub(super) fn spoken(request: ChatRequest) -> Box<Self> {
        let envelope = Envelope {
            model: request.model.clone(),
            stream: request.stream,
            choices: 1,
            ..Envelope::default()
        };
        // Nothing that our words do not say, and so the same question as one that is as plain.
        let body = Payload::from(Bytes::from_static(b"{}"));
        let lease = ByteBudget::unbound();
        let mut question = Self::new((body, lease), envelope, &HeaderMap::new(), None);
        let _ = question.chat.set(Ok(Asked {
            request,
            repaired: false,
            restored: false,
            capped: false,
        }));
        (question.rewritten, question.own) = (true, true);
        question
    }

    /// How its answer is to be drawn, as far as a look at it tells.
    pub(super) fn sampling(&self) -> Sampling {
        let read = self.chat.get().and_then(|read| read.as_ref().ok());
        match (read, self.payload.parts()) {
            (Some(asked), _) => asked.request.sampling.clone(),
            (None, [body]) => sampling(body).unwrap_or_default(),
            (None, _) => Sampling::default(),
        }
    }

    /// Whether it came in our own words, so that its bytes say nothing of it.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    /// Holds it to what its route says of answers' length and of tool calls that stand alone.
    pub(super) fn keeps_to(&mut self, wishes: &Wishes) -> Result<(), Error> {
        let Some(Ok(asked)) = self.chat.get_mut() else { return Ok(()) };
        if let Err(orphan) = pairs::check(&asked.request.messages) {
            if wishes.tool_pairs == Some(ToolPairs::Strict) {
                return Err(Error::invalid(orphan.to_string()));
            }
            asked.request.messages = pairs::repair(std::mem::take(&mut asked.request.messages));
            asked.repaired = true;
        }
        if let Some(most) = wishes.max_output_tokens {
            asked.cap(most);
        }
        Ok(())
    }

    /// The same question once more; `None` if it cannot be had twice. Shares the bytes.
    pub(super) fn copy(&self) -> Option<Self> {
        if self.relayed.is_some() {
            return None;
        }
        Some(Self {
            payload: self.payload.clone(),
            envelope: self.envelope.clone(),
            extra: self.extra.clone(),
            relayed: None,
            betas: self.betas.clone(),
            version: self.version.clone(),
            carried_on: false,
            keeper: self.keeper.clone(),
            chat: if self.rewritten { self.chat.clone() } else { OnceLock::new() },
            rewritten: self.rewritten,
            own: self.own,
            lease: Arc::clone(&self.lease),
        })
    }

    /// Puts what was said so far at its end, for a target that carries on; false if it cannot be.
    pub(super) fn carries_on(&mut self, said: &str, sight: &Sight) -> bool {
        let Some(Ok(asked)) = self.chat.get_mut() else { return false };
        let text = said.trim_end().to_owned();
        let part = Part::new(Content::Text { text, citations: Vec::new() });
        let messages = &mut asked.request.messages;
        // A second break: what was put there for the first one is a part of it.
        if self.carried_on {
            messages.pop();
        }
        messages.push(Message { role: Role::Assistant, parts: vec![part], name: None });
        if let Some(most) = &mut asked.request.sampling.max_tokens {
            *most = most.saturating_sub(sight.written).max(1);
        }
        self.carried_on = true;
        true
    }

    pub(super) fn is_carried_on(&self) -> bool {
        self.carried_on
    }

    /// What of it is still arriving.
    pub(super) fn rest(&self) -> Option<&Upload> {
        self.relayed.as_ref()?.rest.as_ref()
    }

    /// Puts another body in the place of this one.
    pub(super) fn replace(&mut self, body: Bytes) -> Result<(), Error> {
        self.lease.grow(body.len().saturating_sub(self.payload.len()))?;
        let envelope = read_envelope(&body)?;
        self.envelope = Envelope {
            model: std::mem::take(&mut self.envelope.model),
            stream: self.envelope.stream,
            previous: self.envelope.previous.take(),
            ..envelope
        };
        self.payload = body.into();
        Ok(())
    }

    /// Lets the answer have so many tokens and no more. The question must have been read.
    pub(super) fn cap(&mut self, surface: Surface, most: u64) -> Result<(), Error> {
        if surface == Surface::Completions {
            return self.cap_completion(most);
        }
        if let Some(Ok(asked)) = self.chat.get_mut() {
            asked.cap(most);
        }
        Ok(())
    }

    /// Whether its answer may be shorter than its client has said.
    pub(super) fn is_capped(&self) -> bool {
        self.chat.get().is_some_and(|asked| asked.as_ref().is_ok_and(|asked| asked.capped))
    }

    /// A text completion passes as it is, in a language of its own, so its limit is set in it.
    pub(super) fn cap_completion(&mut self, most: u64) -> Result<(), Error> {
        let mut body: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&self.payload.to_bytes())
                .map_err(|fault| Error::invalid(format!("The body cannot be read: {fault}.")))?;
        let asked = body.get("max_tokens").and_then(serde_json::Value::as_u64);
        if asked.is_some_and(|asked| asked <= most) {
            return Ok(());
        }
        body.insert("max_tokens".to_owned(), most.into());
        self.replace(serde_json::Value::Object(body).to_string().into())
    }

    /// It will be read once more, for another route, which lets the answer have so many tokens.
    pub(super) fn forget(&mut self, most: Option<u64>) {
        match (self.chat.get_mut(), most) {
            // Its bytes are not what may be sent any more.
            (Some(Ok(asked)), Some(most)) if self.rewritten => asked.cap(most),
            _ if self.rewritten => {}
            _ => self.chat = OnceLock::new(),
        }
    }

    /// Nobody is to see its bytes as they came: it has been changed in our own words, or its answer
    /// has to be read.
    pub(super) fn mark_rewritten(&mut self) {
        self.rewritten = true;
    }

    pub(super) fn is_rewritten(&self) -> bool {
        self.rewritten
    }

    /// The body in our own words, to be changed. It must have been read.
    pub(super) fn request_mut(&mut self) -> Result<&mut ChatRequest, &Misread> {
        match self.chat.get_mut() {
            Some(Ok(asked)) => Ok(&mut asked.request),
            Some(Err(misread)) => Err(misread),
            None => Err(const { &Misread(Cow::Borrowed("The body was not read.")) }),
        }
    }

    /// Reads the body into our own words, once, however many targets need it.
    pub(super) async fn understand(&self, call: &Call) {
        if self.chat.get().is_some() {
            return;
        }
        let wishes = call.wishes();
        let tool_pairs = wishes.and_then(|wishes| wishes.tool_pairs);
        let mut asked = self.read_chat(call.client(), tool_pairs);
        if let (Ok(asked), Some(most)) =
            (&mut asked, wishes.and_then(|wishes| wishes.max_output_tokens))
        {
            asked.cap(most);
        }
        if let Ok(asked) = &mut asked {
            keepsake::check(&mut asked.request.messages);
        }
        if let (Ok(Asked { request, restored, .. }), Some(owner)) = (&mut asked, call.owner()) {
            let missing = keepsake::missing(&request.messages);
            if !missing.is_empty() {
                let kept = call.gateway.shelf.keepsakes(&owner, missing).await;
                *restored = !kept.is_empty();
                keepsake::restore(&mut request.messages, &kept);
            }
        }
        // Only this call's own walk reads it, so nobody was faster.
        let _ = self.chat.set(asked);
    }

    /// Reads the body into our own words and leaves all of it as it is: results of tools may answer
    /// calls that it does not tell of.
    pub(super) fn read_as_it_is(&mut self, client: &dyn ClientSide) {
        let read = client.read_request(&self.payload.to_bytes()).map(|request| {
            let (model, stream) = (self.envelope.model.clone(), self.envelope.stream);
            let request = ChatRequest { model, stream, ..request };
            Asked { request, repaired: false, restored: false, capped: false }
        });
        self.chat = read.into();
    }

    /// The body in our own words, once it was understood.
    pub(super) fn chat(&self) -> Result<&Asked, &Misread> {
        self.chat
            .get()
            .unwrap_or(const { &Err(Misread(Cow::Borrowed("The body was not read."))) })
            .as_ref()
    }

    fn read_chat(
        &self,
        client: &dyn ClientSide,
        tool_pairs: Option<ToolPairs>,
    ) -> Result<Asked, Misread> {
        let mut request = client.read_request(&self.payload.to_bytes())?;
        request.model.clone_from(&self.envelope.model);
        request.stream = self.envelope.stream;
        let Err(orphan) = pairs::check(&request.messages) else {
            return Ok(Asked { request, repaired: false, restored: false, capped: false });
        };
        if tool_pairs == Some(ToolPairs::Strict) {
            return Err(Misread::new(orphan.to_string()));
        }
        request.messages = pairs::repair(request.messages);
        Ok(Asked { request, repaired: true, restored: false, capped: false })
    }
}

fn read_envelope(body: &Bytes) -> Result<Envelope, Error> {
    let mut scanner = Scanner::default();
    let read = scanner.feed(body).and_then(|()| scanner.finish());
    read.map_err(|fault| Error::invalid(fault.to_string()))
}

fn check_size(length: usize, server: &Server) -> Result<(), Unreadable> {
    if length <= server.max_body {
        return Ok(());
    }
    let message =
        format!("The body has {length} bytes or more; the limit is {} bytes.", server.max_body);
    Err(refused(Kind::TooLarge, message))
}

fn malformed(fault: &Fault, headers: &HeaderMap) -> Unreadable {
    let coding = headers.get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    let Some(coding) = coding.filter(|coding| !coding.eq_ignore_ascii_case("identity")) else {
        return refused(Kind::InvalidRequest, fault.to_string());
    };
    let message = format!("The body is compressed (`content-encoding: {coding}`); send it plain.");
    let error = Error::new(Kind::InvalidRequest, message);
    Unreadable::Refused(Error { status: Some(415), ..error })
}

pub(super) fn refused(
    kind: Kind,
    message: impl Into<std::borrow::Cow<'static, str>>,
) -> Unreadable {
    Unreadable::Refused(Error::new(kind, message))
}
