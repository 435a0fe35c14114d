//! The whole public surface on one screen.

use std::borrow::Cow;

use http::header::UPGRADE;
use http::{Method, Request, Uri};
use percent_encoding::percent_decode_str;

use super::agents::table::{self as agents, Misfit, Operation};
use crate::canon::{Relay, Surface};
use crate::gateway::{Ask, Filed};

/// What can be asked of the public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Infer(Ask),
    /// How a call would go; by which door, the query may say.
    Explain,
    Models,
    Model(String),
    /// The same in Google's shape.
    GoogleModels,
    GoogleModel(String),
    /// What the caller has used of its budgets.
    Usage,
    /// A kept response, by its id.
    Response(Kept, String),
    /// Agents, their runs and their tools, with what the path names.
    Agents(&'static Operation, String),
    Health,
    Ready,
}

/// What is wanted of a kept response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Get,
    Delete,
    Cancel,
    InputItems,
}

/// Why a request is for nothing here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotServed {
    Path(Cow<'static, str>),
    Method { message: String, allowed: &'static str },
}

/// One door of the public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicDoor {
    pub method: &'static str,
    /// With `{id}` and `{model}` where the name of an object or a model stands.
    pub path: String,
    /// What is asked there; `None` where nothing goes to a provider.
    pub surface: Option<Surface>,
    /// What passes as it is.
    pub relay: Option<Relay>,
}

/// Every door of the public listener, from the tables by which they are found.
pub fn public_doors() -> Vec<PublicDoor> {
    let door = |method: &'static Method, path: String, endpoint: &Endpoint| {
        let surface = match endpoint {
            Endpoint::Infer(ask) => Some(ask.surface),
            _ => None,
        };
        PublicDoor { method: method.as_str(), path, surface, relay: None }
    };
    let mut doors: Vec<PublicDoor> =
        PATHS.iter().map(|(path, method, it)| door(method, (*path).to_owned(), it)).collect();
    let looks = GOOGLE.iter().map(|prefix| format!("{prefix}{{model}}"));
    doors.extend(looks.map(|path| door(&Method::GET, path, &Endpoint::Models)));
    for (prefix, (name, surface, stream)) in
        GOOGLE.iter().flat_map(|prefix| GOOGLE_METHODS.iter().map(move |row| (prefix, row)))
    {
        let path = format!("{prefix}{{model}}:{name}");
        if *stream {
            doors.push(door(&Method::POST, path.clone(), &infer(Surface::GenerateArray)));
        }
        let path = if *stream { format!("{path}?{EVENTS}") } else { path };
        doors.push(door(&Method::POST, path, &infer(*surface)));
    }
    let kept =
        KEPT.iter().map(|(method, behind, _)| (method, format!("{RESPONSES}{{id}}{behind}")));
    doors.extend(kept.map(|(method, path)| door(method, path, &Endpoint::Models)));
    let agents = agents::TABLE.iter();
    doors.extend(agents.map(|row| door(row.method, row.path.to_owned(), &Endpoint::Models)));
    for relay in Relay::all() {
        let at = |path: String| PublicDoor {
            method: relay.method(),
            path,
            surface: Some(relay.surface()),
            relay: Some(relay),
        };
        doors.push(at(format!("/v1{}", relay.path())));
        doors.extend((relay == Relay::Rerank).then(|| at(RERANK.to_owned())));
    }
    doors
}

const fn infer(surface: Surface) -> Endpoint {
    Endpoint::Infer(Ask {
        surface,
        model: None,
        stream: None,
        relay: None,
        filed: None,
        explains: false,
        id: None,
    })
}

/// The fixed paths, with the method that each takes.
const PATHS: &[(&str, &Method, Endpoint)] = &[
    ("/v1/chat/completions", &Method::POST, infer(Surface::Chat)),
    ("/v1/completions", &Method::POST, infer(Surface::Completions)),
    ("/v1/embeddings", &Method::POST, infer(Surface::Embeddings)),
    ("/v1/responses", &Method::POST, infer(Surface::Responses)),
    ("/v1/responses/compact", &Method::POST, infer(Surface::Compact)),
    ("/v1/responses/input_tokens", &Method::POST, infer(Surface::InputTokens)),
    ("/v1/messages", &Method::POST, infer(Surface::Messages)),
    ("/v1/messages/count_tokens", &Method::POST, infer(Surface::CountTokens)),
    ("/v1/explain", &Method::POST, Endpoint::Explain),
    ("/v1/me/usage", &Method::GET, Endpoint::Usage),
    ("/v1/models", &Method::GET, Endpoint::Models),
    ("/v1beta/models", &Method::GET, Endpoint::GoogleModels),
    ("/healthz", &Method::GET, Endpoint::Health),
    ("/readyz", &Method::GET, Endpoint::Ready),
];

/// Tools and agents, for clients of the Model Context Protocol. What methods it takes is a matter of
/// that.
pub(super) const MCP: &str = "/mcp";

const MODEL: &str = "/v1/models/";

/// Where Google's clients put the model, by the version of the API that they were told.
const GOOGLE: [&str; 2] = ["/v1beta/models/", MODEL];

/// A name with slashes some of them take for a path of its own.
const GOOGLE_PATH: &str = "/v1beta/";

/// The query by which Google's clients ask for a stream as events.
const EVENTS: &str = "alt=sse";

/// What Google calls what is asked, and whether the answer is streamed.
const GOOGLE_METHODS: [(&str, Surface, bool); 5] = [
    ("generateContent", Surface::Generate, false),
    ("streamGenerateContent", Surface::Generate, true),
    ("countTokens", Surface::GoogleCountTokens, false),
    ("embedContent", Surface::GoogleEmbeddings, false),
    ("batchEmbedContents", Surface::GoogleEmbeddings, false),
];

/// Behind it stands the id of a kept response.
const RESPONSES: &str = "/v1/responses/";

/// What is wanted of one, and what of its path stands behind the id.
const KEPT: [(&Method, &str, Kept); 4] = [
    (&Method::GET, "", Kept::Get),
    (&Method::DELETE, "", Kept::Delete),
    (&Method::POST, "/cancel", Kept::Cancel),
    (&Method::GET, "/input_items", Kept::InputItems),
];

/// Cohere's version of a path that is otherwise OpenAI's neighbour.
const RERANK: &str = "/v2/rerank";

pub(super) fn find(method: &Method, uri: &Uri) -> Result<Endpoint, NotServed> {
    let path = uri.path();
    let fixed = PATHS.iter().find(|(fixed, ..)| *fixed == path);
    if let Some((_, wanted, endpoint)) = fixed {
        return served(method, path, wanted).map(|()| endpoint.clone());
    }
    if let Some(found) = agents::find(method, path) {
        return found
            .map(|(operation, id)| Endpoint::Agents(operation, id))
            .map_err(|misfit| misfitting(method, path, &misfit));
    }
    let relayed: Vec<(Relay, Option<&str>)> = relayed(path).collect();
    if let Some((first, _)) = relayed.first() {
        let asked = relayed.iter().find(|(relay, _)| relay.method() == method.as_str());
        return asked.map(|(relay, id)| pass(*relay, *id)).ok_or_else(|| {
            let allowed = match (relayed.get(1).map(|(relay, _)| relay.method()), first.method()) {
                (None, only) => only,
                (Some("DELETE"), _) => "GET, DELETE",
                (Some(_), _) => "GET, POST",
            };
            NotServed::Method { message: format!("{path} takes {allowed}, not {method}."), allowed }
        });
    }
    let model = path.strip_prefix(MODEL).filter(|id| !id.is_empty());
    if let Some((kept, id, wanted)) = kept(method, path) {
        return if method == wanted {
            Ok(Endpoint::Response(kept, id))
        } else {
            let message = format!("{path} takes {wanted}, not {method}.");
            Err(NotServed::Method { message, allowed: wanted.as_str() })
        };
    }
    let google_model = path.strip_prefix(GOOGLE[0]).filter(|id| !id.is_empty());
    let (wanted, endpoint) = match (google(uri), model, google_model) {
        (Some(ask), ..) => (&Method::POST, Endpoint::Infer(ask)),
        (None, Some(id), _) => (&Method::GET, Endpoint::Model(decoded(id))),
        (None, None, Some(id)) => (&Method::GET, Endpoint::GoogleModel(decoded(id))),
        (None, None, None) => return Err(NotServed::Path(hint(path))),
    };
    served(method, path, wanted).map(|()| endpoint)
}

fn misfitting(method: &Method, path: &str, misfit: &Misfit) -> NotServed {
    match misfit {
        Misfit::Path => NotServed::Path("There is nothing at this path.".into()),
        Misfit::Method(allowed) => {
            let message = format!("{path} takes {allowed}, not {method}.");
            NotServed::Method { message, allowed }
        }
    }
}

/// Whether a path is asked for by the method that it takes.
fn served(method: &Method, path: &str, wanted: &Method) -> Result<(), NotServed> {
    if method == wanted || (*method == Method::HEAD && *wanted == Method::GET) {
        return Ok(());
    }
    let allowed = if *wanted == Method::GET { "GET" } else { "POST" };
    Err(NotServed::Method { message: format!("{path} takes {allowed}, not {method}."), allowed })
}

/// What is passed on as it is and has this path, with the object that the path names.
fn relayed(path: &str) -> impl Iterator<Item = (Relay, Option<&str>)> {
    let behind = if path == RERANK { Some("/rerank") } else { path.strip_prefix("/v1") };
    Relay::all().filter_map(move |relay| {
        let Some((before, after)) = relay.path().split_once("{id}") else {
            return (behind? == relay.path()).then_some((relay, None));
        };
        let id = behind?.strip_prefix(before)?.strip_suffix(after)?;
        (!id.is_empty() && !id.contains('/')).then_some((relay, Some(id)))
    })
}

fn pass(relay: Relay, id: Option<&str>) -> Endpoint {
    let filed = (!relay.has_model())
        .then(|| Filed { id: id.map(decoded).unwrap_or_default(), query: Vec::new() });
    let surface = relay.surface();
    Endpoint::Infer(Ask {
        surface,
        model: None,
        stream: None,
        relay: Some(relay),
        filed,
        explains: false,
        id: None,
    })
}

/// Whether a client would rather have a WebSocket (RFC 6455), at whatever path.
pub(super) fn wants_socket<B>(request: &Request<B>) -> bool {
    let upgrade = request.headers().get(UPGRADE);
    upgrade.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// `/v1/responses/ID…`, with the method that it takes.
fn kept(method: &Method, path: &str) -> Option<(Kept, String, &'static Method)> {
    let rest = path.strip_prefix(RESPONSES).filter(|rest| !rest.is_empty())?;
    let (id, behind) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let rows = || KEPT.iter().filter(|(_, known, _)| *known == behind);
    let asked = rows().find(|(wanted, ..)| *wanted == method);
    let (wanted, _, kept) = asked.or_else(|| rows().next())?;
    Some((*kept, decoded(id), wanted))
}

/// `/v1beta/models/MODEL:METHOD`; the model may have slashes.
fn google(uri: &Uri) -> Option<Ask> {
    let path = uri.path();
    let mut prefixes = GOOGLE.iter().chain([&GOOGLE_PATH]);
    let rest = prefixes.find_map(|prefix| path.strip_prefix(prefix))?;
    let (model, method) = rest.rsplit_once(':').filter(|(model, _)| !model.is_empty())?;
    let (_, surface, stream) = GOOGLE_METHODS.iter().find(|(name, ..)| *name == method)?;
    let events = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == EVENTS));
    let surface = if *stream && !events { &Surface::GenerateArray } else { surface };
    let (model, stream) = (Some(decoded(model)), Some(*stream));
    Some(Ask {
        surface: *surface,
        model,
        stream,
        relay: None,
        filed: None,
        explains: false,
        id: None,
    })
}

/// The pairs of a URL's query.
pub(super) fn parameters(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let text = |text: &str| decoded(&text.replace('+', " "));
    pairs.map(|(name, value)| (text(name), text(value))).collect()
}

pub(super) fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// The commonest mistake is a base URL with `/v1` twice or not at all.
fn hint(path: &str) -> Cow<'static, str> {
    let doubled = path.strip_prefix("/v1").unwrap_or_default();
    let missing = format!("/v1{path}");
    let known = |path: &str| {
        PATHS.iter().any(|(fixed, ..)| *fixed == path) || relayed(path).next().is_some()
    };
    if known(doubled) {
        "There is nothing here: the base URL of your client ends in `/v1` twice.".into()
    } else if known(&missing) {
        "There is nothing here: the base URL of your client must end in `/v1`.".into()
    } else {
        "There is nothing at this path.".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn the_object_of_a_path_is_decoded() {
        let Ok(Endpoint::Infer(ask)) = find(&Method::DELETE, &uri("/v1/files/file%2D1")) else {
            panic!()
        };
        assert_eq!(ask.relay, Some(Relay::DeleteFile));
        assert_eq!(ask.filed.map(|filed| filed.id).as_deref(), Some("file-1"));
    }

    #[test]
    fn every_door_that_is_listed_is_found_and_asks_what_is_said_of_it() {
        let doors = public_doors();
        assert!(doors.len() > 40, "{doors:?}");
        for door in doors {
            let path = door.path.replace("{id}", "x").replace("{model}", "p/m");
            let found = find(&door.method.parse().unwrap(), &uri(&path));
            let surface = match &found {
                Ok(Endpoint::Infer(ask)) => Some(ask.surface),
                Ok(_) => None,
                Err(error) => panic!("{door:?}: {error:?}"),
            };
            assert_eq!(surface, door.surface, "{door:?}");
        }
    }

    #[test]
    fn finds_every_door_and_says_what_is_wrong_at_the_others() {
        assert_eq!(find(&Method::POST, &uri("/v1/chat/completions")), Ok(infer(Surface::Chat)));
        assert_eq!(
            find(&Method::GET, &uri("/v1/models/openai%2Fgpt-5")),
            Ok(Endpoint::Model("openai/gpt-5".into()))
        );
        assert_eq!(
            find(&Method::GET, &uri("/v1/models/openai/gpt-5")),
            Ok(Endpoint::Model("openai/gpt-5".into()))
        );
        let google = |model: &str, stream| {
            let (model, stream) = (Some(model.to_owned()), Some(stream));
            let surface = Surface::Generate;
            Ok(Endpoint::Infer(Ask {
                surface,
                model,
                stream,
                relay: None,
                filed: None,
                explains: false,
                id: None,
            }))
        };
        // Some take a name with slashes for a path of its own.
        for prefix in ["/v1beta/models/", "/v1beta/"] {
            let path = format!("{prefix}openai/gpt-5:generateContent");
            assert_eq!(find(&Method::POST, &uri(&path)), google("openai/gpt-5", false));
        }
        assert_eq!(
            find(&Method::POST, &uri("/v1/models/fast:streamGenerateContent?alt=sse")),
            google("fast", true)
        );
        assert!(matches!(
            find(&Method::GET, &uri("/v1/embeddings")),
            Err(NotServed::Method { allowed: "POST", .. })
        ));
        for (path, allowed) in [
            ("/v1/files/x", "GET, DELETE"),
            ("/v1/batches", "GET, POST"),
            ("/v2/rerank", "POST"),
            ("/v1/files/x/content", "GET"),
        ] {
            let Err(NotServed::Method { allowed: said, .. }) = find(&Method::PUT, &uri(path))
            else {
                panic!("{path}")
            };
            assert_eq!(said, allowed, "{path}");
        }
        for (path, word) in [
            ("/v1/v1/models", "twice"),
            ("/audio/speech", "must end in"),
            ("/v1/files/a/b", "nothing at this path"),
            ("/chat/completions", "must end in"),
            ("/x", "nothing at this path"),
        ] {
            let Err(NotServed::Path(message)) = find(&Method::GET, &uri(path)) else {
                panic!("{path}")
            };
            assert!(message.contains(word), "{path}: {message}");
        }
    }
}
