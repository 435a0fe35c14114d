//! Reads from the web, where the operator lets models go: whatever address they choose, only hosts
//! on the list are asked, and only at addresses that all the world can reach.

use http::header::LOCATION;
use serde_json::{Value, json};
use url::{Position, Url};

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
        let mut address = read(text(&call.args, "url"), None)?;
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
            match (reply.status, reply.headers.get(LOCATION)) {
                (301 | 302 | 303 | 307 | 308, Some(next)) => {
                    // Servers write letters beyond ASCII as they are, too.
                    let next = String::from_utf8_lossy(next.as_bytes()).into_owned();
                    address = read(&next, Some(&address))?;
                }
                _ => return site.receive(reply).await?.into_answer(),
            }
        }
        Err(Failure::new(FailureKind::Refused, "it leads on and on"))
    }

    /// Scheme and host, and what stands behind them, of an address that may be fetched.
    fn admit(&self, address: &Url) -> Result<(String, String), Failure> {
        let refuse = |message: &str| Err(Failure::new(FailureKind::Refused, message));
        let (scheme @ ("http" | "https"), Some(name)) = (address.scheme(), address.host_str())
        else {
            return refuse("only http and https addresses can be fetched");
        };
        if !address.username().is_empty() || address.password().is_some() {
            return refuse("an address with a user name is not fetched");
        }
        let host = name.trim_end_matches('.');
        if !self.hosts.iter().any(|allowed| is_meant(allowed, host)) {
            return refuse(&format!("the host {host:?} is not on the list"));
        }
        // The usual one of its scheme is none here.
        let port = address.port().map(|port| format!(":{port}")).unwrap_or_default();
        let authority = format!("{name}{port}");
        if !port.is_empty() && !self.hosts.contains(&authority) {
            return refuse("that port is not on the list");
        }
        let path = &address[Position::BeforePath..Position::AfterQuery];
        Ok((format!("{scheme}://{authority}"), path.to_owned()))
    }
}

/// An address as browsers read it (the WHATWG's URL standard), which may say where it leads from
/// the one `before` it.
fn read(address: &str, before: Option<&Url>) -> Result<Url, Failure> {
    let read = match before {
        // Readers differ on what it means.
        _ if address.contains('\\') => None,
        Some(before) => before.join(address).ok(),
        None => address.parse().ok(),
    };
    read.ok_or_else(|| Failure::new(FailureKind::Refused, "the address is not a URL"))
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

    fn admitted(fetch: &Fetch, address: &str) -> Result<(String, String), Failure> {
        fetch.admit(&read(address, None)?)
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
            "https://bücher.docs.example/",
        ] {
            assert!(admitted(&fetch, good).is_ok(), "{good}");
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
            "http://2130706433/",
            "https://example。com.evil.example/",
        ] {
            assert!(admitted(&fetch, bad).is_err(), "{bad}");
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
            ("/größe?name=Zoë#a", "/gr%C3%B6%C3%9Fe?name=Zo%C3%AB"),
            ("/a b?c=\"d\"", "/a%20b?c=%22d%22"),
        ] {
            let (_, found) = admitted(&fetch, &format!("https://example.com{address}")).unwrap();
            assert_eq!(found, path, "{address}");
        }
    }

    #[test]
    fn a_redirect_is_an_address_like_any_other() {
        let before = read("https://example.com/a/b?c", None).unwrap();
        let of = |location| read(location, Some(&before)).unwrap().to_string();
        assert_eq!(of("https://other.example/x"), "https://other.example/x");
        assert_eq!(of("//other.example/x"), "https://other.example/x");
        assert_eq!(of("/x"), "https://example.com/x");
        assert_eq!(of("x"), "https://example.com/a/x");
        assert_eq!(of("?page=2"), "https://example.com/a/b?page=2");
        assert_eq!(of("/login?next=https://a/"), "https://example.com/login?next=https://a/");
        assert_eq!(of("x?next=https://a/"), "https://example.com/a/x?next=https://a/");
        assert_eq!(of("/größe"), "https://example.com/gr%C3%B6%C3%9Fe");
        assert!(read("\\\\evil.example/", Some(&before)).is_err());
    }
}
