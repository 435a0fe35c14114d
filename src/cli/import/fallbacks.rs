//! Fallbacks between the routes of a draft, and which of them could never help.

use serde_json::{Value as Json, json};

use super::draft::{Draft, Section};
use super::report::Report;
use crate::provider::{catalog, models};

pub(super) fn add(section: &mut Section, kind: &str, name: &str) {
    let mut names = of(section, kind);
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
    section.set_in("fallbacks", kind, json!(names));
}

pub(super) fn has(section: &Section, kind: &str) -> bool {
    !of(section, kind).is_empty()
}

pub(super) fn count(section: &Section, kind: &str) -> u64 {
    of(section, kind).len() as u64
}

pub(super) fn of(section: &Section, kind: &str) -> Vec<String> {
    let written = section.get("fallbacks").and_then(|fallbacks| fallbacks.get(kind));
    let names = written.and_then(Json::as_array).into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Takes out fallbacks for questions that are too long which lead to no larger window: a config
/// with one is refused.
pub(super) fn drop_useless(draft: &mut Draft, report: &Report) {
    for name in draft.names("routes") {
        let Some(mut section) = draft.find("routes", &name).cloned() else { continue };
        let Some(own) = window(draft, &targets(&section)) else { continue };
        let (useful, useless): (Vec<String>, Vec<String>) =
            of(&section, "context").into_iter().partition(|fallback| {
                let theirs = match draft.find("routes", fallback) {
                    Some(route) => targets(route),
                    None => vec![fallback.clone()],
                };
                window(draft, &theirs).is_none_or(|window| window > own)
            });
        for fallback in &useless {
            let text = format!("`{fallback}` takes no longer questions than `{name}` does");
            report.lost(&format!("context fallbacks of {name}"), text);
        }
        if !useless.is_empty() {
            section.set_in("fallbacks", "context", json!(useful)).prune("fallbacks");
            draft.insert("routes", &name, section);
        }
    }
}

fn targets(section: &Section) -> Vec<String> {
    let targets = section.get("targets").and_then(Json::as_array).into_iter().flatten();
    targets
        .filter_map(|target| target.as_str().or_else(|| target["target"].as_str()))
        .map(str::to_owned)
        .collect()
}

/// The largest window of these targets, if those of all are known.
fn window(draft: &Draft, targets: &[String]) -> Option<u64> {
    let windows = targets.iter().map(|target| {
        let written = draft.find("models", target).and_then(|section| section.get("context"));
        if let Some(window) = written.and_then(Json::as_u64) {
            return Some(window);
        }
        let (provider, model) = target.split_once('/')?;
        let kind = draft.find("providers", provider)?.get("kind")?.as_str()?;
        models::resolve(catalog::find(kind)?, model, None).context
    });
    windows.collect::<Option<Vec<u64>>>()?.into_iter().max()
}
