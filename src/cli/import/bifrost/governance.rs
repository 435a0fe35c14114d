//! `governance` of Bifrost: virtual keys, teams and customers with their budgets and limits, and
//! those routing rules that go by the model's name.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::provider::Fleet;
use super::window::{pace, window};
use super::{ADVICE, secret};
use crate::cli::import::draft::{Draft, Section};
use crate::cli::import::fallbacks;
use crate::cli::import::report::Report;
use crate::cli::import::source::{self, Source};
use crate::cli::import::values::{decimal, target, whole_weights};

/// Budgets and limits by their id.
#[derive(Debug, Default)]
struct Terms {
    budgets: BTreeMap<String, (String, Json)>,
    limits: BTreeMap<String, Vec<(&'static str, String)>>,
    /// What a budget says of itself: the kind and id of its owner.
    owners: Vec<(&'static str, String, String)>,
}

const OWNERS: [(&str, &str); 3] =
    [("team_id", "teams"), ("virtual_key_id", "keys"), ("customer_id", "orgs")];

pub(super) fn read(mut governance: Source<'_>, fleet: &Fleet, lenient: bool, draft: &mut Draft) {
    let report = governance.report;
    let mut terms = Terms::default();
    for (path, value) in governance.list("budgets") {
        if let Some(budget) = Source::new(path, value, report) {
            terms.budget(budget);
        }
    }
    for (path, value) in governance.list("rate_limits") {
        if let Some(limit) = Source::new(path, value, report) {
            terms.limit(limit);
        }
    }
    for (list, kind) in [("customers", "orgs"), ("teams", "teams")] {
        for (path, value) in governance.list(list) {
            if let Some(one) = Source::new(path, value, report) {
                member(one, kind, &terms, draft);
            }
        }
    }
    for (path, value) in governance.list("virtual_keys") {
        if let Some(key) = Source::new(path, value, report) {
            virtual_key(key, fleet, lenient, &terms, draft);
        }
    }
    for (path, value) in governance.list("model_configs") {
        if let Some(model) = Source::new(path, value, report) {
            model_config(model, fleet, &terms, draft);
        }
    }
    for (path, value) in governance.list("routing_rules") {
        if let Some(rule) = Source::new(path, value, report) {
            rule_by_model(rule, fleet, draft);
        }
    }
    if governance.has("auth_config") {
        governance.lose("auth_config", "operators show the key of `[admin] key`");
    }
    governance.rest(&ADVICE);
}

// === impl Terms ===

impl Terms {
    fn budget(&mut self, mut from: Source<'_>) {
        let id = from.text("id").unwrap_or_default();
        drop(from.take("calendar_aligned"));
        for (key, kind) in OWNERS {
            if let Some(owner) = from.text(key) {
                self.owners.push((kind, owner, id.clone()));
            }
        }
        for key in ["provider_config_id", "model_config_id"] {
            from.lose(key, "budgets are those of keys, users, teams and orgs");
        }
        if let Some(budget) = budget(&mut from) {
            self.budgets.insert(id, (from.path.clone(), budget));
        }
        from.rest(&ADVICE);
    }

    fn limit(&mut self, mut from: Source<'_>) {
        let id = from.text("id").unwrap_or_default();
        drop((from.take("calendar_aligned"), from.take("metric")));
        let mut limits = Vec::new();
        for (ours, most, reset) in [
            ("requests", "request_max_limit", "request_reset_duration"),
            ("tokens", "token_max_limit", "token_reset_duration"),
        ] {
            let span = from.text(reset).unwrap_or_else(|| "1m".to_owned());
            let Some(most_allowed) = from.count(most) else { continue };
            let Some((pace, exact)) = pace(most_allowed, &span) else {
                let text = "a limit is of a second, minute, hour or day; for longer write a \
                            `budget` in tokens";
                from.report.lost(&from.at(reset), text);
                continue;
            };
            if !exact {
                from.changed(reset, format!("spans are s, m, h and d: it is {pace} here"));
            }
            limits.push((ours, pace));
        }
        self.limits.insert(id, limits);
        from.rest(&ADVICE);
    }

    /// Gives a section the budgets and limits that it names or that name it.
    fn give(&self, from: &mut Source<'_>, kind: &str, id: &str, section: &mut Section) {
        let owned = self.owners.iter().filter(|(owner, of, _)| *owner == kind && of == id);
        let mut budgets: Vec<String> = owned.map(|(_, _, budget)| budget.clone()).collect();
        if let Some(id) = from.text("budget_id") {
            if !self.budgets.contains_key(&id) {
                from.report.todo(&from.at("budget_id"), "is a budget that did not come along");
            }
            budgets.push(id);
        }
        for (path, budget) in budgets.iter().filter_map(|id| self.budgets.get(id)) {
            add_budget(section, path, budget, from.report);
        }
        for (path, value) in from.list("budgets") {
            let Some(mut line) = Source::new(path, value, from.report) else { continue };
            drop((line.take("id"), line.take("calendar_aligned")));
            if let Some(budget) = budget(&mut line) {
                add_budget(section, &line.path, &budget, line.report);
            }
            line.rest(&ADVICE);
        }
        drop(from.take("calendar_aligned"));
        let mut limits = from.texts("rate_limit_ids");
        limits.extend(from.text("rate_limit_id"));
        for id in limits {
            let Some(limits) = self.limits.get(&id) else {
                from.report.todo(&from.at("rate_limit_id"), "is a limit that is not there");
                continue;
            };
            for (kind, pace) in limits {
                add_limit(section, kind, pace, from);
            }
        }
    }
}

/// A budget in dollars.
fn budget(from: &mut Source<'_>) -> Option<Json> {
    let (most, span) = (from.number("max_limit")?, from.text("reset_duration")?);
    let Some(window) = window(&span) else {
        let text = "a budget's window is of minutes, hours, days, weeks or months";
        from.report.lost(&from.at("reset_duration"), text);
        return None;
    };
    Some(json!({"usd": decimal(&format!("{most:.6}")), "window": window}))
}

fn add_budget(section: &mut Section, path: &str, budget: &Json, report: &Report) {
    let same = |other: &Json| other["window"] == budget["window"];
    if section.get("budget").and_then(Json::as_array).into_iter().flatten().any(same) {
        report.lost(path, "there is one of the same window for the same owner already");
    } else {
        section.push("budget", budget.clone());
    }
}

/// Limits of several spans hold together.
fn add_limit(section: &mut Section, kind: &str, pace: &str, from: &Source<'_>) {
    let known = section.get("limits").and_then(|limits| limits.get(kind)).cloned();
    let mut paces: Vec<Json> = match known {
        Some(Json::Array(paces)) => paces,
        one => one.into_iter().collect(),
    };
    let span = |pace: &str| pace.split_once('/').map(|(_, span)| span.to_owned());
    if paces.iter().any(|other| other.as_str().and_then(span) == span(pace)) {
        let text =
            format!("there is a limit of {kind} of the same span for the same owner already");
        return from.report.lost(&from.at("rate_limit_ids"), text);
    }
    paces.push(json!(pace));
    let all = if paces.len() == 1 { json!(pace) } else { Json::Array(paces) };
    section.set_in("limits", kind, all);
}

/// A team or a customer.
fn member(mut from: Source<'_>, kind: &str, terms: &Terms, draft: &mut Draft) {
    let Some(id) = from.text("id") else { return from.rest(&ADVICE) };
    let mut section = Section::default();
    if let Some(name) = from.text("name").filter(|name| *name != id) {
        section.comment(name.replace(['\n', '\r'], " "));
    }
    if let Some(org) = from.text("customer_id") {
        section.set("org", source::section_name(&org));
        // It may be named before it is said what it is, or never.
        draft.section("orgs", &source::section_name(&org));
    }
    terms.give(&mut from, kind, &id, &mut section);
    from.rest(&ADVICE);
    draft.insert(kind, &source::section_name(&id), section);
}

fn virtual_key(
    mut from: Source<'_>,
    fleet: &Fleet,
    lenient: bool,
    terms: &Terms,
    draft: &mut Draft,
) {
    let report = from.report;
    let id = from.text("id").unwrap_or_default();
    let name = from.text("name").unwrap_or_else(|| id.clone());
    let name = draft.fresh("keys", &source::section_name(&name));
    if from.flag("is_active") == Some(false) {
        return report.lost(&from.path, "is not active; it was left out");
    }
    let mut section = Section::default();
    let usual = format!("{name}_KEY");
    let secret = secret(&mut from, "value", &usual).unwrap_or_else(|| {
        let variable = source::variable_name(&usual);
        report.todo(&from.path, format!("has no value in the file; set {variable} to it"));
        report.needs(&variable);
        format!("env:{variable}")
    });
    section.set("secret", secret);
    let configs = from.list("provider_configs");
    if !(configs.is_empty() && lenient) {
        section.set("models", grants(configs, fleet, lenient, report));
    }
    if let Some(team) = from.text("team_id") {
        section.set("team", source::section_name(&team));
        draft.section("teams", &source::section_name(&team));
    } else if let Some(customer) = from.text("customer_id") {
        let org = source::section_name(&customer);
        draft.section("orgs", &org);
        draft.section("teams", &org).set("org", org.as_str());
        section.set("team", org);
    }
    terms.give(&mut from, "keys", &id, &mut section);
    from.rest(&ADVICE);
    draft.insert("keys", &name, section);
}

/// Which models the configs of a key's providers let it use.
fn grants(
    configs: Vec<(String, Json)>,
    fleet: &Fleet,
    lenient: bool,
    report: &Report,
) -> Vec<String> {
    let mut grants = Vec::new();
    for (path, value) in configs {
        let Some(mut config) = Source::new(path, value, report) else { continue };
        let theirs = config.text("provider").unwrap_or_default();
        let mut models = config.texts("allowed_models");
        if models.is_empty() && lenient {
            models.push("*".to_owned());
        }
        let ours = fleet.ours(&theirs);
        if ours.is_empty() {
            report.todo(&config.at("provider"), "is no provider of the file; it was left out");
        }
        let denied = !lenient && config.peek("key_ids").is_some_and(|ids| *ids == json!([]));
        if denied || config.peek("key_ids").is_some_and(|ids| *ids == json!(["*"])) {
            drop(config.take("key_ids"));
        }
        for model in models.iter().filter(|_| !denied) {
            grants.extend(fleet.targets(&theirs, model).into_iter().map(|(target, _)| target));
        }
        config.rest(&ADVICE);
    }
    grants
}

fn model_config(mut from: Source<'_>, fleet: &Fleet, terms: &Terms, draft: &mut Draft) {
    let (model, provider) = (from.text("model_name"), from.text("provider"));
    let scope = from.text("scope").unwrap_or_else(|| "global".to_owned());
    let theirs = provider.unwrap_or_default();
    let ours = fleet.ours(&theirs);
    let (Some(model), [_, ..], "global") = (&model, ours, scope.as_str()) else {
        let text = "limits are those of one model of one provider; write others at keys and \
                    providers";
        return from.report.lost(&from.path, text);
    };
    drop(from.take("id"));
    let mut section = Section::default();
    terms.give(&mut from, "models", "", &mut section);
    if section.get("budget").is_some() {
        from.report.lost(&from.path, "budgets are those of keys, users, teams and orgs");
    }
    let Some(Json::Object(limits)) = section.take("limits") else { return from.rest(&ADVICE) };
    let (kind, names) = if model == "*" {
        ("providers", ours.to_vec())
    } else {
        let targets = fleet.targets(&theirs, model).into_iter();
        ("models", targets.map(|(target, _)| target).collect())
    };
    if kind == "providers" || names.len() > 1 {
        let text = format!("holds for each of these as a whole: `{}`", names.join("`, `"));
        from.report.changed(&from.path, text);
    }
    for name in names {
        for (of, paces) in &limits {
            let several =
                paces.as_array().map_or_else(|| std::slice::from_ref(paces), Vec::as_slice);
            for pace in several.iter().filter_map(Json::as_str) {
                add_limit(draft.section(kind, &name), of, pace, &from);
            }
        }
    }
    from.rest(&ADVICE);
}

/// A rule whose condition is the model's name is a route of that name.
fn rule_by_model(mut from: Source<'_>, fleet: &Fleet, draft: &mut Draft) {
    let expression = from.text("cel_expression").unwrap_or_else(|| "true".to_owned());
    let is_on = from.flag("enabled").unwrap_or(true);
    let scope = from.text("scope").unwrap_or_else(|| "global".to_owned());
    let model = of_model(&expression).filter(|_| scope == "global" && is_on);
    let Some(model) = model else {
        let text = "a route is named by the client; write one with the targets, its condition as \
                    `when` in CEL, and the way for all others as `fallbacks.general`";
        return from.report.lost(&from.path, text);
    };
    let full = |provider: Option<&str>, wanted: Option<&str>| {
        fleet.targets(provider.unwrap_or_default(), wanted.unwrap_or(&model))
    };
    let mut targets: Vec<(String, f64)> = Vec::new();
    for (path, value) in from.list("targets") {
        let Some(mut one) = Source::new(path, value, from.report) else { continue };
        let weight = one.number("weight").unwrap_or(1.0);
        let (provider, wanted) = (one.text("provider"), one.text("model"));
        let named = full(provider.as_deref(), wanted.as_deref());
        if named.is_empty() {
            one.report.todo(&one.path, "names no provider of the file; it was left out");
        }
        let whole: f64 = named.iter().map(|(_, own)| own).sum();
        targets.extend(named.into_iter().map(|(name, own)| (name, weight * own / whole)));
        one.lose("key_id", "write a provider for the key");
        one.rest(&ADVICE);
    }
    let weights = whole_weights(targets.iter().map(|(_, weight)| *weight));
    let mut section = Section::default();
    for ((name, _), weight) in targets.iter().zip(weights) {
        section.push("targets", target(name, weight.filter(|_| targets.len() > 1)));
    }
    if targets.len() > 1 {
        section.set("strategy", "weighted");
    }
    for fallback in from.texts("fallbacks") {
        let (provider, model) = match fallback.split_once('/') {
            Some((provider, model)) => (provider, Some(model)),
            None => (fallback.as_str(), None),
        };
        let named = full(Some(provider), model);
        if named.is_empty() {
            from.report.todo(&from.at("fallbacks"), "names no provider of the file");
        }
        for (name, _) in &named {
            fallbacks::add(&mut section, "general", name);
        }
    }
    drop((from.take("id"), from.take("name")));
    let (path, report) = (from.path.clone(), from.report);
    from.rest(&ADVICE);
    if section.get("targets").is_none() {
        return report.todo(&path, "has no target that is known here; it was left out");
    }
    let route = source::section_name(model.rsplit('/').next().unwrap_or(&model));
    report.changed(&path, format!("is the route `{route}`, which clients ask for by that name"));
    if draft.find("routes", &route).is_some_and(|before| *before != section) {
        report
            .changed(&path, format!("takes the place of the route `{route}` that was told before"));
    }
    draft.insert("routes", &route, section);
}

/// The model that `model == "NAME"` asks for.
fn of_model(expression: &str) -> Option<String> {
    let expression = expression.trim();
    let expression = expression.strip_prefix("request.").unwrap_or(expression);
    let quoted = expression.strip_prefix("model")?.trim_start().strip_prefix("==")?.trim();
    let name =
        ['"', '\''].iter().find_map(|quote| quoted.strip_prefix(*quote)?.strip_suffix(*quote))?;
    (!name.contains(['"', '\'', '&', '|'])).then(|| name.to_owned())
}
