//! Says how a call would go, by the code that serves calls, without a server and without sending.

use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{ExplainArguments, complain, complain_all, config_path, load_as_written, located, say};
use crate::config::{self, Config, Secret, StoreUrl};
use crate::gateway::{Ask, Gateway, Snapshot};
use crate::net::client::Client;
use crate::store::Store;
use crate::telemetry::{Format, Log, Telemetry};

/// What the call shows, whoever it is. No listener is open that would take it.
const SECRET: &str = "sk-sp-explain";
/// The key that calls where none is named.
const NOBODY: &str = "explain";

/// Why there is no explanation.
enum Failed {
    /// The exit code, once everything was said.
    Said(ExitCode),
    Because(String),
}

pub(super) fn run(arguments: &ExplainArguments) -> ExitCode {
    match explain(arguments) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(Failed::Said(code)) => code,
        Err(Failed::Because(message)) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

fn explain(arguments: &ExplainArguments) -> Result<String, Failed> {
    let gateway = build(arguments)?;
    let ask = Ask::explained(arguments.surface.as_deref())
        .map_err(|error| Failed::Because(error.message.into_owned()))?;
    let headers = headers(&arguments.headers).map_err(Failed::Because)?;
    let mut body = Vec::new();
    io::stdin().lock().read_to_end(&mut body).map_err(broken)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let asked = gateway.explain(ask, headers, body.into());
    let (status, told) = runtime.block_on(asked);
    let told = match serde_json::from_slice::<Value>(&told) {
        Ok(told) => format!("{told:#}"),
        Err(_) => String::from_utf8_lossy(&told).into_owned(),
    };
    if status.is_success() { Ok(told) } else { Err(Failed::Because(told)) }
}

/// The gateway that `serve` would run, but for its store: what was kept may belong to one that
/// runs now.
fn build(arguments: &ExplainArguments) -> Result<Arc<Gateway>, Failed> {
    let path = config_path(arguments.config.clone());
    let said = |problems: Vec<_>| Failed::Said(complain_all(&problems));
    let mut config = load_as_written(path.as_deref()).map_err(said)?;
    show_secret(&mut config, arguments.key.as_deref()).map_err(Failed::Because)?;
    // It counts for itself: what others have used is theirs.
    config.store.shared = None;
    let client = Client::new(1);
    let snapshot = Snapshot::build(config, 1, (&client, Arc::default(), Arc::default()))
        .map_err(|problems| said(located(path.as_deref(), &problems)))?;
    let because = |error: &dyn std::fmt::Display| Failed::Because(error.to_string());
    let store =
        Store::open(&config::Store::at(StoreUrl::Memory)).map_err(|error| because(&error))?;
    let log = Log::start(Format::Text, false, Box::new(io::sink())).map_err(broken)?;
    let telemetry = Telemetry::new(log).map_err(|error| because(&error))?;
    Ok(Gateway::new(snapshot, client, store, telemetry))
}

/// Lets the call be made by the named key, or by one without limits.
pub(super) fn show_secret(config: &mut Config, named: Option<&str>) -> Result<(), String> {
    let caller = match named {
        None => config::Key::default(),
        Some(name) => {
            let known = config.keys.get(name).cloned();
            known.ok_or_else(|| format!("There is no key `{name}` in the config."))?
        }
    };
    let secret = Some(Secret::new(SECRET.to_owned()));
    let caller = config::Key { secret, hash: None, ..caller };
    config.keys.insert(named.unwrap_or(NOBODY).to_owned(), caller);
    Ok(())
}

fn headers(written: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in written {
        let parts = header.split_once(':').and_then(|(name, value)| {
            let name = name.trim().parse::<HeaderName>().ok()?;
            Some((name, value.trim().parse::<HeaderValue>().ok()?))
        });
        let (name, value) =
            parts.ok_or_else(|| format!("`{header}` is no header; write `name: value`."))?;
        headers.append(name, value);
    }
    bearer(&mut headers)?;
    Ok(headers)
}

/// Shows the secret that was lent.
pub(super) fn bearer(headers: &mut HeaderMap) -> Result<(), String> {
    let bearer = HeaderValue::from_str(&format!("Bearer {SECRET}"));
    headers.insert(AUTHORIZATION, bearer.map_err(|error| error.to_string())?);
    Ok(())
}

fn broken(error: impl std::fmt::Display) -> Failed {
    Failed::Because(error.to_string())
}
