//! What only shows when the sections are seen together: names that lead nowhere, and
//! combinations that can never work.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::Uri;
use sha2::{Digest, Sha256};

use super::problem::{Report, child, suggestion};
use super::route::{Route, Strategy, split};
use super::{Config, Key, Role, RouteCache, check_agents, guard, means, tool};

/// Requests say `agent/NAME` for agents, so no provider may be called so.
const AGENT: &str = "agent";

pub(super) fn check(config: &Config, kinds: &[&str], report: &Report) {
    check_listeners(config, report);
    check_kinds(config, kinds, report);
    check_circles(config, report);
    for model in config.models.keys() {
        check_model(config, model, report);
    }
    for (name, route) in &config.routes {
        let path = child("routes", name);
        check_targets(config, &path, route, report);
        check_fallbacks(config, name, &path, route, report);
        check_tasks(config, &path, route, report);
        check_semantic(config, &path, route, report);
        check_idle(config, &path, route, report);
    }
    if let Some(Err(message)) = config.cache.embedder().map(|name| find_model(config, name)) {
        report.problem("cache.semantic.route", message);
    }
    for (name, key) in &config.keys {
        check_grants(config, &child("keys", name), key, report);
    }
    check_hierarchy(config, report);
    check_issuers(config, report);
    check_sampled(config, report);
    check_recorded(config, report);
    check_twins(&config.keys, report);
    guard::check(config, report);
    tool::check(config, report);
    check_agents::check(config, report);
}

fn check_sampled(config: &Config, report: &Report) {
    let sampled = config.telemetry.otlp.iter().flat_map(|otlp| otlp.routes.keys());
    // Calls of a provider's model, without a route, have this one.
    let known = |name: &&String| config.routes.contains_key(*name) || *name == "direct";
    for name in sampled.filter(|name| !known(name)) {
        let hint = suggestion(name, config.routes.keys().map(String::as_str));
        let path = child("telemetry.otlp.routes", name);
        report.problem(&path, format!("there is no route \"{name}\"{hint}"));
    }
}

/// Patterns are known by what they match. A key may also be made at run time.
fn check_recorded(config: &Config, report: &Report) {
    let Some(record) = &config.record else { return };
    for (at, written) in record.routes.iter().enumerate() {
        let mut known = config.routes.keys().map(String::as_str).chain(["direct"]);
        if !known.any(|name| means(written, name)) {
            let hint = suggestion(written, config.routes.keys().map(String::as_str));
            let path = format!("record.routes[{at}]");
            report.problem(&path, format!("there is no route \"{written}\"{hint}"));
        }
    }
    for (at, written) in record.keys.iter().enumerate() {
        if !config.keys.keys().any(|name| means(written, name)) {
            let hint = suggestion(written, config.keys.keys().map(String::as_str));
            let path = format!("record.keys[{at}]");
            report.warn(&path, format!("there is no key \"{written}\" in the config{hint}"));
        }
    }
}

fn check_listeners(config: &Config, report: &Report) {
    let (server, admin) = (&config.server, &config.admin);
    if admin.listen.port() != 0 && server.listen.contains(&admin.listen) {
        // Either side may be the default, so blame the one that was written.
        let path = if report.mentions("admin.listen") { "admin.listen" } else { "server.listen" };
        report.problem(path, format!("{} is taken by both [server] and [admin]", admin.listen));
    }
    if server.max_body > server.body_budget {
        let path = if report.mentions("server.max_body") {
            "server.max_body"
        } else {
            "server.body_budget"
        };
        report.problem(
            path,
            format!(
                "`max_body` ({} bytes) exceeds `body_budget` ({} bytes), so the largest bodies \
                 could never be read",
                server.max_body, server.body_budget
            ),
        );
    }
}

fn check_kinds(config: &Config, kinds: &[&str], report: &Report) {
    for (name, provider) in &config.providers {
        let path = child("providers", name);
        if name == AGENT {
            report.problem(&path, "this name is reserved for agents");
        }
        // An empty kind was already reported as missing.
        if !provider.kind.is_empty() && !kinds.contains(&provider.kind.as_str()) {
            let kind = &provider.kind;
            let hint = suggestion(kind, kinds.iter().copied());
            report.problem(
                &child(&path, "kind"),
                format!("no provider kind is called \"{kind}\"{hint}"),
            );
        }
    }
}

/// No provider is the gateway itself, as far as that shows: what is asked there comes back.
fn check_circles(config: &Config, report: &Report) {
    for (name, provider) in &config.providers {
        let address: Option<Uri> = provider.base_url.as_ref().and_then(|url| url.parse().ok());
        let Some(address) = address.filter(|address| is_own(config, address)) else { continue };
        let authority = address.authority().map_or("", |authority| authority.as_str());
        let message = format!(
            "{authority} is where this gateway itself listens: a route that leads there and back is \
             refused after some rounds"
        );
        report.warn(&child(&child("providers", name), "base_url"), message);
    }
}

/// Whether a listener of this gateway answers there.
fn is_own(config: &Config, address: &Uri) -> bool {
    let port = if address.scheme_str() == Some("https") { 443 } else { 80 };
    let port = address.port_u16().unwrap_or(port);
    let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
    let ip: Option<IpAddr> = host.parse().ok();
    let is_near = host.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback());
    config.server.listen.iter().any(|listen| {
        let everywhere = listen.ip().is_unspecified() || host.eq_ignore_ascii_case("localhost");
        let is_there = ip == Some(listen.ip())
            || is_near && everywhere && (listen.ip().is_loopback() || listen.ip().is_unspecified());
        listen.port() == port && is_there
    })
}

/// An entry without a `/` was already reported.
fn check_model(config: &Config, name: &str, report: &Report) {
    if let Some((provider, _)) = name.split_once('/')
        && let Err(message) = find_provider(config, provider)
    {
        report.problem(&child("models", name), message);
    }
}

fn check_targets(config: &Config, path: &str, route: &Route, report: &Report) {
    for (position, target) in route.targets.iter().enumerate() {
        if let Err(message) = find_provider(config, &target.provider) {
            report.problem(&format!("{path}.targets[{position}]"), message);
        }
    }
    if let Some(shadow) = &route.shadow
        && let Err(message) = find_provider(config, &shadow.target.provider)
    {
        report.problem(&format!("{path}.shadow.target"), message);
    }
}

/// Fallbacks lead to other routes or to targets, and can be reached.
fn check_fallbacks(config: &Config, name: &str, path: &str, route: &Route, report: &Report) {
    for (kind, names) in route.fallbacks.lists() {
        for (position, fallback) in names.iter().enumerate() {
            let path = format!("{path}.fallbacks.{kind}[{position}]");
            let found = match split(fallback) {
                _ if fallback == name => Err("a route cannot fall back on itself".to_owned()),
                Some((provider, _)) if !config.routes.contains_key(fallback) => {
                    find_provider(config, provider)
                }
                _ => find_route(config, fallback).map(|_| ()),
            };
            if let Err(message) = found {
                report.problem(&path, message);
            }
        }
    }
    let general = route.fallbacks.general.len();
    let most = route.attempts.map_or(usize::MAX, |attempts| attempts as usize);
    if general > 0 && route.targets.len() >= most {
        let message = format!(
            "can never be reached: the {most} attempts are used up by the route's own targets"
        );
        report.problem(&format!("{path}.fallbacks.general"), message);
    }
}

/// Each kind of work has a route that goes to targets itself.
fn check_tasks(config: &Config, path: &str, route: &Route, report: &Report) {
    let tasks = route.tasks.iter().map(|(task, name)| (format!("{path}.tasks.{task}"), name));
    let default = route.default.iter().map(|name| (format!("{path}.default"), name));
    let asked =
        route.classifier.route.iter().map(|name| (format!("{path}.classifier.route"), name));
    for (path, name) in tasks.chain(default).chain(asked) {
        let found = find_route(config, name).and_then(|route| match route.strategy {
            Strategy::Task => Err(format!("\"{name}\" decides by task itself")),
            _ => Ok(()),
        });
        if let Err(message) = found {
            report.problem(&path, message);
        }
    }
}

/// Whoever wants answers to similar questions says who embeds them.
fn check_semantic(config: &Config, path: &str, route: &Route, report: &Report) {
    let Some(cache) = &route.cache else { return };
    if !cache.semantic.as_ref().is_some_and(|semantic| semantic.wanted) {
        return;
    }
    let path = format!("{path}.cache.semantic");
    let Some(semantic) = config.cache.semantic(Some(cache)) else {
        report.problem(&path, "needs a `route` to embed questions by, here or in [cache]");
        return;
    };
    if let Err(message) = find_model(config, &semantic.route) {
        report.problem(&path, message);
    }
}

/// What does no harm and has no effect either, so that it is hardly what was meant.
fn check_idle(config: &Config, path: &str, route: &Route, report: &Report) {
    let ignores = matches!(route.strategy, Strategy::Ordered);
    let weighted = route.targets.iter().position(|target| target.weight.is_some());
    if let Some(place) = weighted.filter(|_| ignores) {
        let path = format!("{path}.targets[{place}]");
        report.warn(&path, "targets are asked in their order, so `weight` needs a `strategy`");
    }
    let is_alone = route.targets.len() == 1
        && route.fallbacks.lists().iter().all(|(_, names)| names.is_empty());
    if route.hedge.is_some() && is_alone {
        report.warn(&child(path, "hedge"), "there is no second target that could be raced");
    }
    let wants_similar =
        |cache: &RouteCache| cache.semantic.as_ref().is_some_and(|semantic| semantic.wanted);
    if route.cache.as_ref().is_some_and(wants_similar)
        && config.cache.terms(route.cache.as_ref()).is_none()
    {
        let path = child(&child(path, "cache"), "semantic");
        report.warn(&path, "nothing is remembered here: write `mode = \"on\"`");
    }
}

/// A route, or a model of a provider.
pub(super) fn find_model(config: &Config, name: &str) -> Result<(), String> {
    match split(name) {
        Some((provider, _)) if !config.routes.contains_key(name) => find_provider(config, provider),
        _ => find_route(config, name).map(|_| ()),
    }
}

fn find_route<'a>(config: &'a Config, name: &str) -> Result<&'a Route, String> {
    config.routes.get(name).ok_or_else(|| {
        let hint = suggestion(name, config.routes.keys().map(String::as_str));
        format!("no route is called \"{name}\"{hint}")
    })
}

/// What it names as routes and models can match something.
pub(super) fn check_grants(config: &Config, path: &str, key: &Key, report: &Report) {
    for (position, grant) in key.routes.iter().flatten().enumerate() {
        if let Err(message) = find_grant(config, grant) {
            report.problem(&format!("{}[{position}]", child(path, "routes")), message);
        }
    }
    for (position, model) in key.models.iter().flatten().enumerate() {
        let found = match model.split_once('/') {
            Some(_) => find_grant(config, model),
            None if model == "*" => Ok(()),
            None => Err(format!("{model:?} is not a model; write \"provider/model\"")),
        };
        if let Err(message) = found {
            report.problem(&format!("{}[{position}]", child(path, "models")), message);
        }
    }
    let patterns = [("agents", &key.agents), ("tools", &key.tools)];
    for (name, written) in patterns {
        for (position, pattern) in written.iter().flatten().enumerate() {
            if pattern.strip_suffix('*').unwrap_or(pattern).contains('*') {
                let path = format!("{}[{position}]", child(path, name));
                report.problem(&path, format!("{pattern:?}: a `*` may only stand at the end"));
            }
        }
    }
}

/// Every key, user and team belongs to somebody there is.
fn check_hierarchy(config: &Config, report: &Report) {
    for (name, key) in &config.keys {
        let path = child("keys", name);
        check_member(&path, "user", key.user.as_ref(), &config.users, report);
        check_member(&path, "team", key.team.as_ref(), &config.teams, report);
        let user = key.user.as_ref().and_then(|name| config.users.get(name));
        let team = key.team.as_ref().or_else(|| user?.team.as_ref());
        if key.role == Some(Role::TeamAdmin) && team.is_none() {
            report.warn(&child(&path, "role"), "is of a team, and it has none; write `team`");
        }
    }
    for (name, user) in &config.users {
        let path = child("users", name);
        check_member(&path, "team", user.team.as_ref(), &config.teams, report);
    }
    for (name, team) in &config.teams {
        let path = child("teams", name);
        check_member(&path, "org", team.org.as_ref(), &config.orgs, report);
    }
}

/// The keys and teams that tokens lead to exist, and no token has two readings.
fn check_issuers(config: &Config, report: &Report) {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, oidc) in &config.oidc {
        let path = child("auth.oidc", name);
        check_member(&path, "key", oidc.key.as_ref(), &config.keys, report);
        for (claimed, team) in
            oidc.teams.iter().filter(|(_, team)| !config.teams.contains_key(*team))
        {
            let hint = suggestion(team, config.teams.keys().map(String::as_str));
            let message = format!("no team is called \"{team}\"{hint}");
            report.problem(&child(&format!("{path}.teams"), claimed), message);
        }
        if let Some(other) = known.insert(&oidc.issuer, name).filter(|_| !oidc.issuer.is_empty()) {
            report.problem(
                &format!("{path}.issuer"),
                format!("is that of \"{other}\" already; `audience` takes several"),
            );
        }
    }
}

fn check_member<T>(
    path: &str,
    kind: &str,
    name: Option<&String>,
    known: &BTreeMap<String, T>,
    report: &Report,
) {
    let Some(name) = name.filter(|name| !known.contains_key(*name)) else { return };
    let hint = suggestion(name, known.keys().map(String::as_str));
    report.problem(&format!("{path}.{kind}"), format!("no {kind} is called \"{name}\"{hint}"));
}

/// Whether a key's grant can ever match something.
fn find_grant(config: &Config, grant: &str) -> Result<(), String> {
    let (name, is_pattern) = match grant.strip_suffix('*') {
        Some(name) => (name, true),
        None => (grant, false),
    };
    if name.contains('*') {
        return Err(format!("{grant:?}: a `*` may only stand at the end"));
    }
    match name.split_once('/') {
        Some((_, "")) if !is_pattern => Err(format!("{grant:?} names nothing after the `/`")),
        Some((AGENT, _)) => Ok(()),
        Some((provider, _)) => find_provider(config, provider),
        None if is_pattern => Ok(()),
        None => find_route(config, name).map(|_| ()),
    }
}

fn find_provider(config: &Config, name: &str) -> Result<(), String> {
    if config.providers.contains_key(name) {
        return Ok(());
    }
    let hint = suggestion(name, config.providers.keys().map(String::as_str));
    Err(format!("no provider is called \"{name}\"{hint}"))
}

/// Two keys with one secret could not be told apart.
fn check_twins(keys: &BTreeMap<String, Key>, report: &Report) {
    let mut owners: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    for (name, key) in keys {
        let hashed = key.secret.as_ref().map(|secret| Sha256::digest(secret.expose()).into());
        let Some(digest) = hashed.or(key.hash) else { continue };
        if let Some(owner) = owners.insert(digest, name) {
            report.problem(
                &child("keys", name),
                format!("has the same secret as the key \"{owner}\""),
            );
        }
    }
}
