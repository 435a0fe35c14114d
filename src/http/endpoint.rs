//! The whole public surface on one screen.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::canon::Surface;

/// What can be asked of the public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Infer(Surface),
    Models,
    Model(String),
    Health,
    Ready,
}

/// Why a request is for nothing here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotServed {
    Path(Cow<'static, str>),
    Method { message: String, allowed: &'static str },
}

/// The fixed paths, with the method that each takes.
const PATHS: &[(&str, &Method, Endpoint)] = &[
    ("/v1/chat/completions", &Method::POST, Endpoint::Infer(Surface::Chat)),
    ("/v1/completions", &Method::POST, Endpoint::Infer(Surface::Completions)),
    ("/v1/embeddings", &Method::POST, Endpoint::Infer(Surface::Embeddings)),
    ("/v1/models", &Method::GET, Endpoint::Models),
    ("/healthz", &Method::GET, Endpoint::Health),
    ("/readyz", &Method::GET, Endpoint::Ready),
];

const MODEL: &str = "/v1/models/";

pub(super) fn find(method: &Method, path: &str) -> Result<Endpoint, NotServed> {
    let fixed = PATHS.iter().find(|(fixed, ..)| *fixed == path);
    let model = path.strip_prefix(MODEL).filter(|id| !id.is_empty());
    let (wanted, endpoint) = match (fixed, model) {
        (Some((_, wanted, endpoint)), _) => (*wanted, endpoint.clone()),
        (None, Some(id)) => {
            let id = percent_decode_str(id).decode_utf8_lossy().into_owned();
            (&Method::GET, Endpoint::Model(id))
        }
        (None, None) => return Err(NotServed::Path(hint(path))),
    };
    let head = *method == Method::HEAD && *wanted == Method::GET;
    if method == wanted || head {
        return Ok(endpoint);
    }
    let allowed = if *wanted == Method::GET { "GET" } else { "POST" };
    Err(NotServed::Method { message: format!("{path} takes {allowed}, not {method}."), allowed })
}

/// The commonest mistake is a base URL with `/v1` twice or not at all.
fn hint(path: &str) -> Cow<'static, str> {
    let doubled = path.strip_prefix("/v1").unwrap_or_default();
    let missing = format!("/v1{path}");
    let known = |path: &str| PATHS.iter().any(|(fixed, ..)| *fixed == path);
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

    #[test]
    fn finds_every_door_and_says_what_is_wrong_at_the_others() {
        assert_eq!(find(&Method::POST, "/v1/chat/completions"), Ok(Endpoint::Infer(Surface::Chat)));
        assert_eq!(
            find(&Method::GET, "/v1/models/openai%2Fgpt-5"),
            Ok(Endpoint::Model("openai/gpt-5".into()))
        );
        assert_eq!(
            find(&Method::GET, "/v1/models/openai/gpt-5"),
            Ok(Endpoint::Model("openai/gpt-5".into()))
        );
        assert!(matches!(
            find(&Method::GET, "/v1/embeddings"),
            Err(NotServed::Method { allowed: "POST", .. })
        ));
        for (path, word) in [
            ("/v1/v1/models", "twice"),
            ("/chat/completions", "must end in"),
            ("/x", "nothing at this path"),
        ] {
            let Err(NotServed::Path(message)) = find(&Method::GET, path) else { panic!("{path}") };
            assert!(message.contains(word), "{path}: {message}");
        }
    }
}
