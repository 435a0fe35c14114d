//! What the start prints: where to point a client, with a line that works.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::access::covers;
use crate::config::{self, Config, Source};

/// What was made at this start and is shown only now.
pub(super) struct Made {
    pub(super) key: Option<String>,
    pub(super) admin_key: Option<String>,
}

/// The text of the banner.
pub(super) fn text(config: &Config, api: &[SocketAddr], admin: SocketAddr, made: &Made) -> String {
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    let base = api.first().map_or_else(String::new, |address| format!("{scheme}://{address}/v1"));
    let mut text = format!("\nSwitchpoint {} is ready.\n\n", env!("CARGO_PKG_VERSION"));
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("base URL", &base);
    if let Some(key) = &made.key {
        line("API key", &format!("{key}  (made now, until the next start)"));
    } else {
        let keys = config.keys.iter().filter(|(_, key)| is_shown(key));
        line("API keys", &keys.map(|(name, _)| name.clone()).collect::<Vec<_>>().join(", "));
    }
    line("admin", &format!("http://{admin}  (metrics at /metrics)"));
    if let Some(key) = &made.admin_key {
        line("admin key", &format!("{key}  (made now, until the next start)"));
    }
    let source = match &config.source {
        Source::File(path) => path.display().to_string(),
        Source::Discovery => "none found; discovered what is at hand".to_owned(),
    };
    line("config", &source);
    line("providers", &config.providers.keys().cloned().collect::<Vec<_>>().join(", "));
    if !config.routes.is_empty() {
        line("routes", &config.routes.keys().cloned().collect::<Vec<_>>().join(", "));
    }
    let model = first_model(config);
    let key = made.key.as_deref().unwrap_or("YOUR_KEY");
    let insecure = if scheme == "https" { " --insecure" } else { "" };
    let _ = write!(
        text,
        "\nTry it:\n\n  curl{insecure} {base}/chat/completions -H 'Authorization: Bearer {key}' \
         -H 'Content-Type: application/json' \
         -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n"
    );
    text
}

/// What the first key may call: a model that answers for certain, else the first route.
fn first_model(config: &Config) -> String {
    let demo = config.providers.iter().find(|(_, provider)| provider.kind == "demo");
    let demo = demo.map(|(name, _)| format!("{name}/demo"));
    let key = config.keys.values().find(|key| is_shown(key));
    let may_call = |name: &String| key.is_none_or(|key| covers(key.routes.as_deref(), name));
    let mut known = demo.into_iter().chain(config.routes.keys().cloned());
    known.find(may_call).unwrap_or_else(|| "PROVIDER/MODEL".to_owned())
}

/// Templates are for nobody to call with.
fn is_shown(key: &config::Key) -> bool {
    key.secret.is_some() || key.hash.is_some()
}
