//! A config for those who wrote none: the providers whose keys are at hand.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::secret::{Secret, variable};
use super::{Config, Problem, Provider, Source, digest};

/// A local server that is up answers at once; one that is not must not delay the start.
const PROBE: Duration = Duration::from_millis(100);

/// Servers that people run on their own machine, with the ports they use unasked.
const LOCAL: [(&str, u16); 2] = [("ollama", 11434), ("vllm", 8000)];

/// The provider that needs nothing, so that a first call always works.
const ALWAYS: &str = "demo";

/// A provider kind and the environment variable that usually holds its key.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub kind: &'a str,
    pub variable: &'a str,
}

pub(super) fn discover(candidates: &[Candidate<'_>]) -> Config {
    discover_in(candidates, &LOCAL, variable)
}

fn discover_in(
    candidates: &[Candidate<'_>],
    local: &[(&str, u16)],
    variable: impl Fn(&str) -> Option<String>,
) -> Config {
    let mut providers = BTreeMap::from([(ALWAYS.to_owned(), keyless(ALWAYS))]);
    let mut warnings = Vec::new();
    for candidate in candidates {
        let Some(text) = variable(candidate.variable) else { continue };
        match Secret::checked(text) {
            Ok(secret) => {
                let provider = Provider { api_keys: vec![secret], ..keyless(candidate.kind) };
                providers.entry(candidate.kind.to_owned()).or_insert(provider);
            }
            Err(message) => warnings.push(Problem {
                path: candidate.variable.to_owned(),
                ..Problem::of_file(Path::new("environment"), message)
            }),
        }
    }
    for (kind, port) in local.iter().filter(|(_, port)| answers(*port)) {
        let base_url = Some(format!("http://127.0.0.1:{port}/v1"));
        let provider = Provider { base_url, ..keyless(kind) };
        providers.entry((*kind).to_owned()).or_insert(provider);
    }
    let names: Vec<&str> = providers.keys().map(String::as_str).collect();
    let hash = digest(&names.join("\n"));
    Config { providers, hash, warnings, ..Config::empty(Source::Discovery) }
}

fn keyless(kind: &str) -> Provider {
    Provider { kind: kind.to_owned(), ..Provider::default() }
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, PROBE).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn finds_the_providers_whose_key_is_set_and_always_the_demo() {
        let candidates = [
            Candidate { kind: "one", variable: "ONE_KEY" },
            Candidate { kind: "two", variable: "TWO_KEY" },
        ];
        let config =
            discover_in(&candidates, &[], |name| (name == "ONE_KEY").then(|| "sk-1".to_owned()));
        assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["demo", "one"]);
        assert_eq!(config.providers["one"].api_keys, [Secret::new("sk-1")]);
        assert_eq!(config.source, Source::Discovery);
        assert!(config.routes.is_empty() && config.warnings.is_empty());
    }

    #[test]
    fn finds_a_local_server_only_while_it_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = discover_in(&[], &[("near", port)], |_| None);
        let base_url = found.providers["near"].base_url.as_deref();
        assert_eq!(base_url, Some(format!("http://127.0.0.1:{port}/v1").as_str()));
        drop(listener);
        assert!(!discover_in(&[], &[("near", port)], |_| None).providers.contains_key("near"));
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_a_warning_that_does_not_show_it() {
        let candidates = [Candidate { kind: "one", variable: "ONE_KEY" }];
        let config = discover_in(&candidates, &[], |_| Some("canary\n".to_owned()));
        assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["demo"]);
        assert_eq!(
            config.warnings[0].to_string(),
            "environment: ONE_KEY: the secret contains a line break or another control character"
        );
    }
}
