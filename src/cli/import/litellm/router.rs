//! From the deployments of each name to a route, with its order, weights and fallbacks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::deployment::Deployment;
use super::settings::{Fallback, Settings};
use crate::cli::import::draft::{Draft, Section};
use crate::cli::import::fallbacks;
use crate::cli::import::report::Report;
use crate::cli::import::source;
use crate::cli::import::values::{self, whole_weights};

/// The deployments by the name that clients ask for, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Router {
    groups: Vec<(String, Vec<Deployment>)>,
    /// What stands here for a name of theirs: a route or a target.
    names: BTreeMap<String, String>,
    /// Routes that are no other names of others.
    own: BTreeSet<String>,
    /// Names with a `*`, and the targets, with one, that stand for them.
    patterns: Vec<(String, String)>,
}

/// Which strategy of ours each of theirs is, and what is different.
const STRATEGIES: [(&str, &str, &str); 7] = [
    ("simple-shuffle", "weighted", ""),
    ("latency-based-routing", "fastest", ""),
    ("least-busy", "fastest", "goes by the time to the first token and by calls in flight"),
    ("usage-based-routing", "weighted", "limits are kept exactly; the rest goes by weight"),
    ("usage-based-routing-v2", "weighted", "limits are kept exactly; the rest goes by weight"),
    ("cost-based-routing", "cheapest", ""),
    ("lowest-cost", "cheapest", ""),
];
/// The most attempts that a route may have.
const MOST_ATTEMPTS: u64 = 20;

// === impl Router ===

impl Router {
    pub(super) fn add(&mut self, deployment: Deployment) {
        match self.groups.iter_mut().find(|(name, _)| *name == deployment.group) {
            Some((_, group)) => group.push(deployment),
            None => self.groups.push((deployment.group.clone(), vec![deployment])),
        }
    }

    pub(super) fn write(mut self, settings: &mut Settings, draft: &mut Draft, report: &Report) {
        let strategy = Self::strategy(settings, report);
        for (name, group) in std::mem::take(&mut self.groups) {
            if group.iter().any(Deployment::is_pattern) {
                self.patterns.extend(group.first().map(|it| (name.clone(), it.target())));
                Self::pattern(&name, &group, draft, report);
            } else {
                self.route(&name, group, strategy, draft, report);
            }
        }
        self.aliases(settings, draft, report);
        for fallback in &settings.fallbacks {
            self.fallback(fallback, draft, report);
        }
        if let Some(retries) = settings.retries {
            attempts(retries, draft);
        }
        fallbacks::drop_useless(draft, report);
    }

    fn strategy(settings: &Settings, report: &Report) -> &'static str {
        let Some((path, named)) = &settings.strategy else { return "weighted" };
        let Some((_, ours, note)) = STRATEGIES.iter().find(|(name, ..)| name == named) else {
            report.lost(path, "there is no such strategy; `weighted` stands in its place");
            return "weighted";
        };
        if !note.is_empty() {
            report.changed(path, format!("`strategy = \"{ours}\"`: {note}"));
        }
        ours
    }

    /// Whatever a pattern matches is called by `provider/model`.
    fn pattern(name: &str, group: &[Deployment], draft: &mut Draft, report: &Report) {
        for deployment in group {
            let provider = &deployment.provider;
            let ours = format!("{provider}/*");
            if *name != ours || deployment.model != "*" {
                let text = format!(
                    "clients name such models `{provider}/MODEL` here; one that only this provider \
                     lists in `models` is also found by its bare name"
                );
                report.changed(&deployment.path, text);
            }
            draft.section("providers", provider).comment(format!(
                "Any model of it can be called as {provider}/MODEL, as far as the key allows it."
            ));
        }
        if group.len() > 1 {
            let text = "several deployments of one pattern are not balanced; write routes";
            report.lost(&group[1].path, text);
        }
    }

    fn route(
        &mut self,
        name: &str,
        group: Vec<Deployment>,
        strategy: &'static str,
        draft: &mut Draft,
        report: &Report,
    ) {
        let mut turns: BTreeMap<u64, Vec<Deployment>> = BTreeMap::new();
        for deployment in group {
            turns.entry(deployment.order.unwrap_or(1)).or_default().push(deployment);
        }
        let mut turns = turns.into_values();
        let Some(first) = turns.next() else { return };
        let direct = (first[0].target() == *name && first.len() == 1 && turns.len() == 0)
            .then(|| name.split_once('/'))
            .flatten();
        if let Some((provider, model)) = direct {
            // It is called by that name as it is.
            draft.section("providers", provider).push("models", model);
            self.names.insert(name.to_owned(), name.to_owned());
            return;
        }
        let ours = draft.fresh("routes", &source::section_name(name));
        if ours != *name {
            let text = format!("a route's name has letters, digits and . _ - only: it is `{ours}`");
            report.changed(&first[0].path, format!("{text}, and clients must ask for that"));
        }
        self.names.insert(name.to_owned(), ours.clone());
        self.own.insert(ours.clone());
        let mut section = section(&first, strategy, report);
        for (place, turn) in turns.enumerate() {
            let next = draft.fresh("routes", &format!("{ours}.order-{}", place + 2));
            let mut later = self::section(&turn, strategy, report);
            later.comment(format!("Takes over when `{ours}` has failed: the later `order`."));
            draft.insert("routes", &next, later);
            fallbacks::add(&mut section, "general", &next);
        }
        draft.insert("routes", &ours, section);
    }

    /// A route for each other name.
    fn aliases(&mut self, settings: &Settings, draft: &mut Draft, report: &Report) {
        for (alias, model, path) in &settings.aliases {
            let Some(ours) = &self.find(model) else {
                report.todo(path, format!("`{model}` is no model of the file; it was left out"));
                continue;
            };
            let mut section = match draft.find("routes", ours) {
                Some(section) => section.clone(),
                None => Section::default().push("targets", ours.as_str()).clone(),
            };
            section.comment(format!("Another name of `{ours}`."));
            let name = source::section_name(alias);
            if draft.find("routes", &name).is_some() {
                report.changed(path, "is the name of a model, too; that one counts");
                continue;
            }
            draft.insert("routes", &name, section);
            self.names.insert(alias.clone(), name);
        }
    }

    fn fallback(&self, fallback: &Fallback, draft: &mut Draft, report: &Report) {
        let to: Vec<String> = fallback
            .to
            .iter()
            .filter_map(|name| {
                let ours = self.find(name);
                if ours.is_none() {
                    let text = format!("`{name}` is no model of the file; it was left out");
                    report.todo(&fallback.path, text);
                }
                ours
            })
            .collect();
        let from = if fallback.from == "*" {
            draft.names("routes")
        } else if let Some(ours) = self.find(&fallback.from) {
            self.alike(&ours, draft)
        } else {
            report.todo(&fallback.path, "is for no model of the file; it was left out");
            return;
        };
        let default = fallback.from == "*";
        for name in from {
            let Some(section) = draft.find("routes", &name) else {
                report.lost(&fallback.path, format!("`{name}` is called as it is; write a route"));
                continue;
            };
            let mut section = section.clone();
            if default && (fallbacks::has(&section, fallback.kind) || name.contains(".order-")) {
                continue;
            }
            for target in to.iter().filter(|target| **target != name) {
                fallbacks::add(&mut section, fallback.kind, target);
            }
            draft.insert("routes", &name, section);
        }
    }

    /// What stands here for a name of theirs, be it one that only a pattern matches.
    fn find(&self, name: &str) -> Option<String> {
        let matched = |(pattern, target): &(String, String)| {
            let (before, after) = pattern.split_once('*')?;
            let meant = name.strip_prefix(before)?.strip_suffix(after)?;
            Some((pattern.len(), target.replacen('*', meant, 1)))
        };
        let by_pattern = || self.patterns.iter().filter_map(matched).max().map(|(_, name)| name);
        self.names.get(name).cloned().or_else(by_pattern)
    }

    /// The route, and those that are other names of it.
    fn alike(&self, ours: &str, draft: &Draft) -> Vec<String> {
        let targets =
            draft.find("routes", ours).and_then(|section| section.get("targets").cloned());
        let same = |name: &String| {
            let section = draft.find("routes", name);
            let theirs = section.and_then(|section| section.get("targets"));
            *name == ours
                || (theirs.is_some() && theirs == targets.as_ref() && !self.own.contains(name))
        };
        let names: Vec<String> = draft.names("routes").into_iter().filter(same).collect();
        if names.is_empty() { vec![ours.to_owned()] } else { names }
    }
}

/// The targets of one turn, balanced among themselves.
fn section(group: &[Deployment], strategy: &str, report: &Report) -> Section {
    let mut section = Section::default();
    let weights = weights(group);
    let mut targets: Vec<(String, Json)> = Vec::new();
    for (deployment, weight) in group.iter().zip(weights) {
        let name = deployment.target();
        if targets.iter().any(|(known, _)| *known == name) {
            let text = "is the same model with the same key as one above; it was left out";
            report.changed(&deployment.path, text);
            continue;
        }
        let target = values::target(&name, weight);
        targets.push((name, target));
    }
    let several = targets.len() > 1;
    section.set("targets", targets.into_iter().map(|(_, target)| target).collect::<Vec<_>>());
    if several {
        section.set("strategy", strategy);
    }
    if let Some(most) = group.iter().filter_map(|deployment| deployment.max_output).min() {
        section.set("max_output_tokens", most);
        let text = "bounds what clients ask for; there it was what they got who asked for nothing";
        report.changed(&format!("{}.litellm_params.max_tokens", group[0].path), text);
    }
    section
}

/// Whole numbers in the same proportion; none where nobody has a weight.
fn weights(group: &[Deployment]) -> Vec<Option<u64>> {
    let mut written: Vec<Option<f64>> = group.iter().map(|deployment| deployment.weight).collect();
    if written.iter().all(Option::is_none) {
        // Where nobody says a weight, LiteLLM goes by the limits.
        written = group.iter().map(|deployment| deployment.pace).collect();
    }
    if group.len() < 2 || written.iter().all(Option::is_none) {
        return vec![None; group.len()];
    }
    whole_weights(written.into_iter().map(|weight| weight.unwrap_or(1.0)))
}

/// Theirs count for one name; ours for the whole way of a call.
fn attempts(retries: u64, draft: &mut Draft) {
    for name in draft.names("routes") {
        let Some(section) = draft.find("routes", &name) else { continue };
        let mut section = section.clone();
        let targets = section.get("targets").and_then(Json::as_array).map_or(0, Vec::len) as u64;
        let general = fallbacks::count(&section, "general");
        let least = if general > 0 { targets + general } else { 1 };
        let wanted = (retries + 1) * (1 + general);
        section.set("attempts", wanted.max(least).min(MOST_ATTEMPTS));
        draft.insert("routes", &name, section);
    }
}
