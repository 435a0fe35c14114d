//! Everything the operators' door can do, one row each. The router, the answers to wrong paths and
//! methods, who is let in, and the `OpenAPI` document are all made of these rows.

use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use super::guard::Right;
use super::query::{EXPORT, FILTER, GROUPS, MEMBERS, PAGE, Parameter, TRAIL};
use super::{AdminApi, Answer, Asked, audit, config, directory, export, ledger, openapi, operate};
use crate::gateway::Body;
use crate::gateway::directory::Kind;
use crate::net::shed::BoxFuture;

/// One thing that can be asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) method: &'static Method,
    /// With `{id}` for one segment, or `{route}` for all that is left.
    pub(super) path: &'static str,
    /// Its name in the `OpenAPI` document.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [&'static [Parameter]],
    /// The schema of its body.
    pub(super) takes: Option<&'static str>,
    /// The schema of its answer, or its media type.
    pub(super) gives: &'static str,
    pub(super) makes: Makes,
    pub(super) handler: Handler,
}

/// Whether what it makes is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Makes {
    Nothing,
    /// An entry; the same `Idempotency-Key` makes one only.
    Entry,
    /// A change that adds up; the same `Idempotency-Key` makes it once.
    Sum,
}

/// Who answers. What is open to all never learns who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handler {
    Open(fn(&AdminApi, &HeaderMap) -> http::Response<Body>),
    Guarded(Right, fn(AdminApi, Asked) -> BoxFuture<Answer>),
}

/// Why no row fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    Path,
    /// The methods that the path takes.
    Method(String),
}

type Guarded = fn(AdminApi, Asked) -> BoxFuture<Answer>;

const fn open(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    gives: &'static str,
    handler: fn(&AdminApi, &HeaderMap) -> http::Response<Body>,
) -> Operation {
    let handler = Handler::Open(handler);
    let (method, makes) = (&Method::GET, Makes::Nothing);
    Operation { method, path, id, summary, query: &[], takes: None, gives, makes, handler }
}

const fn row(
    (method, path): (&'static Method, &'static str),
    (id, summary): (&'static str, &'static str),
    gives: &'static str,
    (right, handler): (Right, Guarded),
) -> Operation {
    let handler = Handler::Guarded(right, handler);
    let makes = Makes::Nothing;
    Operation { method, path, id, summary, query: &[], takes: None, gives, makes, handler }
}

impl Operation {
    const fn asks(self, query: &'static [&'static [Parameter]]) -> Self {
        Self { query, ..self }
    }

    const fn takes(self, schema: &'static str) -> Self {
        Self { takes: Some(schema), ..self }
    }

    const fn makes(self, makes: Makes) -> Self {
        Self { makes, ..self }
    }

    /// What stands where the path has its braces, if this is such a path; empty without any.
    fn fits(&self, path: &str) -> Option<String> {
        let Some((before, behind)) = self.path.split_once('{') else {
            return (self.path == path).then(String::new);
        };
        let (name, after) = behind.split_once('}')?;
        let found = path.strip_prefix(before)?.strip_suffix(after)?;
        let is_one = name == "route" || !found.contains('/');
        let text = || percent_decode_str(found).decode_utf8().ok().map(String::from);
        if found.is_empty() || !is_one { None } else { text() }
    }

    fn is_exact(&self) -> bool {
        !self.path.contains('{')
    }
}

fn at_once(answer: Answer) -> BoxFuture<Answer> {
    Box::pin(std::future::ready(answer))
}

pub(super) fn operations() -> impl Iterator<Item = &'static Operation> {
    TABLE.iter().flat_map(|rows| rows.iter())
}

/// The row that is asked for, and what its path names.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Operation, String), Misfit> {
    let mut fitting: Vec<(&Operation, String)> =
        operations().filter_map(|row| Some((row, row.fits(path)?))).collect();
    if fitting.iter().any(|(row, _)| row.is_exact()) {
        fitting.retain(|(row, _)| row.is_exact());
    }
    if fitting.is_empty() {
        return Err(Misfit::Path);
    }
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    let allowed: Vec<&str> = fitting.iter().map(|(row, _)| row.method.as_str()).collect();
    let allowed = allowed.join(", ");
    let found = fitting.into_iter().find(|(row, _)| row.method == wanted);
    found.ok_or(Misfit::Method(allowed))
}

/// What keys, users, teams and orgs have in common.
macro_rules! entries {
    ($kind:ident, $one:literal, $name:literal, $rights:expr) => {
        &[
            row(
                (&Method::GET, concat!("/admin/", $one, "s")),
                (
                    concat!("list", $name, "s"),
                    concat!("All ", $one, "s, from the file and made here"),
                ),
                concat!($name, "List"),
                (Right::SeeOwn, |api, asked| at_once(directory::list(&api, &asked, Kind::$kind))),
            )
            .asks(&[PAGE, MEMBERS]),
            row(
                (&Method::POST, concat!("/admin/", $one, "s")),
                (concat!("create", $name), concat!("Makes a ", $one)),
                $name,
                ($rights, |api, asked| Box::pin(directory::create(api, asked, Kind::$kind))),
            )
            .takes(concat!("New", $name))
            .makes(Makes::Entry),
            row(
                (&Method::GET, concat!("/admin/", $one, "s/{id}")),
                (concat!("get", $name), concat!("One ", $one)),
                $name,
                (Right::SeeOwn, |api, asked| Box::pin(directory::get(api, asked, Kind::$kind))),
            ),
            row(
                (&Method::PATCH, concat!("/admin/", $one, "s/{id}")),
                (concat!("change", $name), "Changes the fields that are sent (RFC 7396)"),
                $name,
                ($rights, |api, asked| Box::pin(directory::change(api, asked, Kind::$kind))),
            )
            .takes(concat!($name, "Patch")),
            row(
                (&Method::DELETE, concat!("/admin/", $one, "s/{id}")),
                (concat!("delete", $name), concat!("Ends a ", $one, " at once")),
                "Deleted",
                ($rights, |api, asked| Box::pin(directory::delete(api, asked, Kind::$kind))),
            ),
            row(
                (&Method::POST, concat!("/admin/", $one, "s/{id}/topup")),
                (concat!("topUp", $name), concat!("Adds to a budget of a ", $one)),
                "ToppedUp",
                ($rights, |api, asked| Box::pin(directory::top_up(api, asked, Kind::$kind))),
            )
            .takes("TopUp")
            .makes(Makes::Sum),
        ]
    };
}

static TABLE: &[&[Operation]] = &[
    entries!(Key, "key", "Key", Right::ChangeOwn),
    &[row(
        (&Method::POST, "/admin/keys/{id}/rotate"),
        ("rotateKey", "Gives a key a new secret; the old one works on for the overlap"),
        "Key",
        (Right::ChangeOwn, |api, asked| Box::pin(directory::rotate(api, asked))),
    )
    .takes("Rotation")],
    entries!(User, "user", "User", Right::ChangeOwn),
    entries!(Team, "team", "Team", Right::Change),
    entries!(Org, "org", "Org", Right::Change),
    LEDGER,
    CONFIG,
    HOUSE,
];

const LEDGER: &[Operation] = &[
    row(
        (&Method::GET, "/admin/usage"),
        ("getUsage", "Sums of calls by what they have in common, in whole hours, dearest first"),
        "Usage",
        (Right::SeeOwn, |api, asked| Box::pin(ledger::usage(api, asked))),
    )
    .asks(&[GROUPS, FILTER]),
    row(
        (&Method::GET, "/admin/usage/export"),
        ("exportUsage", "The same as a file of any length, in the order of the groups"),
        "text/csv",
        (Right::SeeOwn, |api, asked| Box::pin(export::usage(api, asked))),
    )
    .asks(&[EXPORT, GROUPS, FILTER]),
    row(
        (&Method::GET, "/admin/calls"),
        ("listCalls", "Calls, newest first"),
        "CallList",
        (Right::SeeOwn, |api, asked| Box::pin(ledger::calls(api, asked))),
    )
    .asks(&[PAGE, FILTER]),
    row(
        (&Method::GET, "/admin/calls/export"),
        ("exportCalls", "All calls of a filter as a file, newest first"),
        "text/csv",
        (Right::SeeOwn, |api, asked| Box::pin(export::calls(api, asked))),
    )
    .asks(&[EXPORT, FILTER]),
    row(
        (&Method::GET, "/admin/calls/{id}"),
        ("getCall", "One call by its x-request-id"),
        "Call",
        (Right::SeeOwn, |api, asked| Box::pin(ledger::call(api, asked))),
    ),
    row(
        (&Method::GET, "/admin/audit"),
        ("listChanges", "Who changed what, newest first"),
        "AuditList",
        (Right::See, |api, asked| Box::pin(audit::list(api, asked))),
    )
    .asks(&[PAGE, TRAIL]),
    row(
        (&Method::GET, "/admin/audit/verify"),
        ("verifyAudit", "Whether the trail of changes is whole"),
        "AuditVerdict",
        (Right::See, |api, asked| Box::pin(audit::verify(api, asked))),
    ),
];

const CONFIG: &[Operation] = &[
    row(
        (&Method::GET, "/admin/config"),
        ("getConfig", "The config in force, without its secrets, and why the last one was refused"),
        "ConfigState",
        (Right::See, |api, _| at_once(Ok(config::get(&api)))),
    ),
    row(
        (&Method::POST, "/admin/config/check"),
        ("checkConfig", "Everything that is wrong with a config; it is not served"),
        "ConfigVerdict",
        (Right::Own, |api, asked| Box::pin(config::check(api, asked))),
    )
    .takes("ConfigText"),
    row(
        (&Method::POST, "/admin/config/diff"),
        ("diffConfig", "What a config, a generation, or else the file would change"),
        "ConfigDiff",
        (Right::Change, |api, asked| Box::pin(config::diff(api, asked))),
    )
    .takes("ConfigSubject"),
    row(
        (&Method::POST, "/admin/config/apply"),
        ("applyConfig", "Serves a config from the next call on, and writes it to the file"),
        "ConfigState",
        (Right::Own, |api, asked| Box::pin(config::apply(api, asked))),
    )
    .takes("ConfigOrder"),
    row(
        (&Method::POST, "/admin/config/rollback"),
        ("rollBackConfig", "Serves an earlier generation again; without a number the one before"),
        "ConfigState",
        (Right::Change, |api, asked| Box::pin(config::roll_back(api, asked))),
    )
    .takes("ConfigReturn"),
    row(
        (&Method::POST, "/admin/config/promote"),
        ("promoteConfig", "Serves the config on trial to all calls"),
        "ConfigState",
        (Right::Change, |api, asked| Box::pin(config::promote(api, asked))),
    ),
    row(
        (&Method::POST, "/admin/config/abort"),
        ("abortConfig", "Takes the config on trial back"),
        "ConfigState",
        (Right::Change, |api, asked| Box::pin(config::abort(api, asked))),
    ),
    row(
        (&Method::POST, "/admin/config/reload"),
        ("reloadConfig", "Reads the config file again"),
        "ConfigState",
        (Right::Change, |api, asked| Box::pin(config::reload(api, asked))),
    ),
    row(
        (&Method::GET, "/admin/config/generations"),
        ("listGenerations", "Every config that was accepted here, by whom and when, newest first"),
        "GenerationList",
        (Right::See, |api, asked| Box::pin(config::list(api, asked))),
    )
    .asks(&[PAGE]),
    row(
        (&Method::GET, "/admin/config/generations/{id}"),
        ("getGeneration", "One of them, with its text"),
        "Generation",
        (Right::See, |api, asked| Box::pin(config::one(api, asked))),
    ),
];

const SURFACE: &[Parameter] = &[Parameter {
    name: "surface",
    about: "What the route is asked for; else as its models are made for",
    schema: r#"{"type":"string","enum":["chat","embeddings"]}"#,
}];

const HOUSE: &[Operation] = &[
    row(
        (&Method::GET, "/admin/cache"),
        ("getCache", "How much is remembered"),
        "CacheState",
        (Right::See, |api, _| at_once(Ok(operate::cache(&api)))),
    ),
    row(
        (&Method::POST, "/admin/cache/purge"),
        ("purgeCache", "Forgets answers: those of a route, of a key or team, or all"),
        "CachePurged",
        (Right::Change, |api, asked| Box::pin(operate::purge(api, asked))),
    )
    .takes("CachePurge"),
    row(
        (&Method::GET, "/admin/targets"),
        ("listTargets", "How each target is"),
        "TargetList",
        (Right::See, |api, _| at_once(Ok(operate::targets(&api)))),
    ),
    row(
        (&Method::POST, "/admin/drills/{route}"),
        ("drill", "Asks every target of a route for a few words"),
        "Drill",
        (Right::Change, |api, asked| Box::pin(operate::drill(api, asked))),
    )
    .asks(&[SURFACE]),
    row(
        (&Method::GET, "/admin/openapi.json"),
        ("getOpenapi", "This document"),
        "Document",
        (Right::SeeOwn, |_, _| at_once(Ok(openapi::told()))),
    ),
    open("/metrics", "getMetrics", "Prometheus metrics", "text/plain", operate::metrics),
    open("/healthz", "getHealth", "Whether the process lives", "Status", operate::health),
    open("/readyz", "getReadiness", "Whether new calls are wanted", "Status", operate::readiness),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_row_or_is_told_what_it_takes() {
        let id = |method, path| find(&method, path).map(|(row, name)| (row.id, name));
        assert_eq!(id(Method::GET, "/admin/keys"), Ok(("listKeys", String::new())));
        assert_eq!(id(Method::HEAD, "/admin/keys/a%2Fb"), Ok(("getKey", "a/b".to_owned())));
        assert_eq!(id(Method::POST, "/admin/keys/a/rotate"), Ok(("rotateKey", "a".to_owned())));
        assert_eq!(id(Method::GET, "/admin/calls/export"), Ok(("exportCalls", String::new())));
        assert_eq!(id(Method::GET, "/admin/calls/x"), Ok(("getCall", "x".to_owned())));
        assert_eq!(id(Method::POST, "/admin/drills/a/b"), Ok(("drill", "a/b".to_owned())));
        for path in ["/admin", "/admin/keys/", "/admin/keys/a/b", "/admin/keys/%FF", "/"] {
            assert_eq!(id(Method::GET, path), Err(Misfit::Path), "{path}");
        }
        let allowed = Misfit::Method("GET, PATCH, DELETE".to_owned());
        assert_eq!(id(Method::PUT, "/admin/keys/a"), Err(allowed));
        assert_eq!(id(Method::POST, "/metrics"), Err(Misfit::Method("GET".to_owned())));
    }

    #[test]
    fn no_two_rows_share_a_name_or_a_method_and_path() {
        let rows: Vec<_> = operations().collect();
        for row in &rows {
            let same = |other: &&&Operation| {
                other.id == row.id || (other.method, other.path) == (row.method, row.path)
            };
            assert_eq!(rows.iter().filter(same).count(), 1, "{}", row.id);
        }
    }
}
