//! Reads from the web, where the operator lets models go: whatever address they choose, only hosts
//! on the list are asked, and only at addresses that all the world can reach.

use http::Uri;
use http::header::LOCATION;
use serde_json::{Value, json};

use super::text;
use crate::canon::Effect;
use crate::config::{self, BuiltinTool, Web};
use crate::net::client::Reach;
use crate::tool::egress::{Request, Site};
use crate::tool::kept::Net;
use crate::tool::{Answer, Failure, FailureKind, Invocation};

/// Redirects that are followed, each looked at like the first address.
const MOST_REDIRECTS: usize = 5;
const LONGEST_ADDRESS: usize = 4000;

/// What may be fetched.
#[derive(Debug)]
pub(in crate::tool) struct Fetch {
    net: Net,
    hosts: Vec<String>,
    reach: Reach,
    terms: config::Tool,
}

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["url"],
        "additionalProperties": false,
        "properties": {
            "url": {"type": "string", "maxLength": LONGEST_ADDRESS, "description": "http or https"},
        },
    })
}

// === impl Fetch ===

impl Fetch {
    pub(super) fn new(net: &Net, tool: &BuiltinTool, terms: &config::Tool) -> Self {
        Self {
            net: net.clone(),
            hosts: tool.hosts.clone(),
            reach: if tool.allow_private { Reach::Inner } else { Reach::Public },
            terms: terms.clone(),
        }
    }

    pub(super) async fn run(&self, call: &Invocation) -> Result<Answer, Failure> {
        let mut address = text(&call.args, "url").to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let (origin, path) = self.admit(&address)?;
            let site = Site::within(&self.net, &origin, self.reach, &Web::default(), &self.terms);
            let site = site.map_err(|why| Failure::new(FailureKind::Refused, why))?;
            let request = Request {
                method: "GET",
                path: &path,
                headers: &[],
                body: None,
                effect: Effect::Read,
                keyed: false,
            };
            let reply = site.open(request, call).await?;
            let next = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            match (reply.status, next) {
                (301 | 302 | 303 | 307 | 308, Some(next)) => {
                    address = resolve(&origin, &path, next)
                        .ok_or_else(|| Failure::new(FailureKind::Refused, "it leads nowhere"))?;
                }
                _ => return site.receive(reply).await?.into_answer(),
            }
        }
        Err(Failure::new(FailureKind::Refused, "it leads on and on"))
    }

    /// Scheme and host, and what stands behind them, of an address that may be fetched.
    fn admit(&self, address: &str) -> Result<(String, String), Failure> {
        let refuse = |message: &str| Err(Failure::new(FailureKind::Refused, message));
        let Ok(uri) = address.split('#').next().unwrap_or_default().parse::<Uri>() else {
            return refuse("the address is not a URL; signs beyond ASCII must be percent-encoded");
        };
        let (Some(scheme @ ("http" | "https")), Some(authority)) =
            (uri.scheme_str(), uri.authority())
        else {
            return refuse("only http and https addresses can be fetched");
        };
        if authority.as_str().contains('@') {
            return refuse("an address with a user name is not fetched");
        }
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if !self.hosts.iter().any(|allowed| is_meant(allowed, &host)) {
            return refuse(&format!("the host {host:?} is not on the list"));
        }
        let usual = matches!(
            (scheme, authority.port_u16()),
            (_, None) | ("http", Some(80)) | ("https", Some(443))
        );
        let named =
            self.hosts.iter().any(|allowed| *allowed == authority.as_str().to_ascii_lowercase());
        if !usual && !named {
            return refuse("that port is not on the list");
        }
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Ok((format!("{scheme}://{authority}"), undotted(path)))
    }
}

/// `example.com` is that host, `*.example.com` those below it, and `example.com:8080` that port too.
fn is_meant(allowed: &str, host: &str) -> bool {
    let port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let allowed = match allowed.rsplit_once(':') {
        Some((name, number)) if port(number) => name,
        _ => allowed,
    };
    match allowed.strip_prefix("*.") {
        Some(above) => {
            host.strip_suffix(above).is_some_and(|below| below.ends_with('.') && below.len() > 1)
        }
        None => allowed == host,
    }
}

/// A path without its segments `.` and `..` (RFC 3986, section 5.2.4), before its query.
fn undotted(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut kept = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            ".." => {
                kept.pop();
            }
            "." => {}
            segment => kept.push(segment),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    format!("/{}{query}", kept.join("/"))
}

/// Where a redirect leads (RFC 3986, section 5, as far as servers use it).
fn resolve(origin: &str, path: &str, location: &str) -> Option<String> {
    if let Some(rest) = location.strip_prefix("//") {
        let (scheme, _) = origin.split_once("://")?;
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{origin}{location}"));
    }
    // What has a scheme is an address of its own.
    let first = location.split(['/', '?', '#']).next().unwrap_or_default();
    if first.contains(':') {
        return Some(location.to_owned());
    }
    let path = path.split('?').next().unwrap_or_default();
    if location.starts_with('?') {
        return Some(format!("{origin}{path}{location}"));
    }
    let (folder, _) = path.rsplit_once('/')?;
    Some(format!("{origin}{folder}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(hosts: &[&str]) -> Fetch {
        let tool = BuiltinTool {
            name: "fetch".to_owned(),
            hosts: hosts.iter().map(ToString::to_string).collect(),
            allow_private: false,
        };
        Fetch::new(&Net::alone(), &tool, &config::Tool::default())
    }

    #[test]
    fn only_hosts_on_the_list_are_fetched_from() {
        let fetch = fetch(&["example.com", "*.docs.example", "api.example:8443"]);
        for good in [
            "https://example.com/a?b=c#d",
            "http://EXAMPLE.com",
            "https://example.com:443/",
            "https://a.docs.example/",
            "https://b.a.docs.example/",
            "https://api.example:8443/",
        ] {
            assert!(fetch.admit(good).is_ok(), "{good}");
        }
        for bad in [
            "https://docs.example/",
            "https://evil.example/",
            "https://notexample.com/",
            "https://example.com.evil.example/",
            "https://example.com@evil.example/",
            "https://user@example.com/",
            "https://example.com:22/",
            "https://evildocs.example/",
            "file:///etc/passwd",
            "ftp://example.com/",
            "//example.com/",
            "/etc/passwd",
            "example.com",
            "https://example.com\\@evil.example/",
            "https://127.0.0.1/",
            "http://[::1]/",
        ] {
            assert!(fetch.admit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_leads_up_is_not_sent_as_it_is() {
        let fetch = fetch(&["example.com"]);
        for (address, path) in [
            ("/a/b/../x?y=../z", "/a/x?y=../z"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/../../x/", "/x/"),
            ("//a/..b/...", "//a/..b/..."),
            ("/", "/"),
            ("?q", "/?q"),
        ] {
            let (_, found) = fetch.admit(&format!("https://example.com{address}")).unwrap();
            assert_eq!(found, path, "{address}");
        }
    }

    #[test]
    fn a_redirect_is_an_address_like_any_other() {
        let of = |location| resolve("https://example.com", "/a/b?c", location).unwrap();
        assert_eq!(of("https://other.example/x"), "https://other.example/x");
        assert_eq!(of("//other.example/x"), "https://other.example/x");
        assert_eq!(of("/x"), "https://example.com/x");
        assert_eq!(of("x"), "https://example.com/a/x");
        assert_eq!(of("?page=2"), "https://example.com/a/b?page=2");
        assert_eq!(of("/login?next=https://a/"), "https://example.com/login?next=https://a/");
        assert_eq!(of("x?next=https://a/"), "https://example.com/a/x?next=https://a/");
    }
}
