//! From a gateway config of Portkey: the tree of strategies and targets becomes routes.

mod condition;
mod target;

use serde_json::{Map, Value as Json};

use self::target::Inherited;
use super::draft::{Draft, Section};
use super::fallbacks;
use super::report::Report;
use super::source::{self, Advice, Source};
use super::values::{self, whole_weights};

const ADVICE: Advice = Advice::new(include_str!("advice.tsv"));
/// What a route is called whose config says no name.
const USUAL: &str = "portkey";

/// What a node of the tree comes to.
struct Place {
    /// What `then` of a condition calls it.
    label: String,
    weight: f64,
    /// Its targets in their order; several for a group.
    targets: Vec<String>,
    /// The group's own section.
    section: Option<Section>,
    path: String,
}

pub(super) fn import(config: Json, report: &Report) -> Draft {
    let mut draft = Draft::default();
    let Some(mut root) = Source::new("", config, report) else { return draft };
    let wrapped = root.has("config");
    let name = ["slug", "name"].iter().filter(|_| wrapped).find_map(|key| root.text(key));
    let name = source::section_name(name.as_deref().unwrap_or(USUAL));
    let node = if wrapped { unwrap(root) } else { Some(root) };
    let Some(node) = node else { return draft };
    let Some(place) = read(node, &name, &Inherited::default(), &mut draft) else { return draft };
    let section = place.section.unwrap_or_else(|| plain(&place.targets));
    draft.insert("routes", &name, section);
    report.changed(
        &place.path,
        format!("is the route `{name}`: clients ask for it as `model`, not by a header"),
    );
    draft
}

/// The config in what the console exports.
fn unwrap(mut root: Source<'_>) -> Option<Source<'_>> {
    let (path, report) = (root.at("config"), root.report);
    let config = match root.take("config") {
        Some(Json::String(text)) => serde_json::from_str(&text).unwrap_or(Json::String(text)),
        Some(other) => other,
        None => Json::Null,
    };
    for key in ["id", "name", "slug", "workspace_id", "is_default", "status", "version_id"] {
        drop(root.take(key));
    }
    root.rest(&ADVICE);
    Source::new(path, config, report)
}

/// Both spellings of a key, as the one.
fn in_snakes(node: &mut Source<'_>) {
    for (name, _) in node.names() {
        let snake: String = name.chars().flat_map(in_snake).collect();
        if snake != name {
            node.rename(&name, &snake);
        }
    }
}

/// A capital letter is a new word.
fn in_snake(letter: char) -> impl Iterator<Item = char> {
    letter.is_ascii_uppercase().then_some('_').into_iter().chain([letter.to_ascii_lowercase()])
}

/// A node: a group with a strategy, or a target.
fn read(
    mut node: Source<'_>,
    name: &str,
    inherited: &Inherited,
    draft: &mut Draft,
) -> Option<Place> {
    in_snakes(&mut node);
    let above = inherited;
    let mut inherited = above.clone();
    inherited.take(&mut node);
    let weight = node.number("weight").unwrap_or(1.0);
    let label = node.text("name").unwrap_or_default();
    let path = if node.path.is_empty() { "config".to_owned() } else { node.path.clone() };
    let (targets, section) = if node.has("targets") {
        let section = group(&mut node, name, &inherited, draft)?;
        (named(&section), Some(section))
    } else {
        node.lose("strategy", "a strategy without targets has nothing to do");
        let Some(target) = target::read(&mut node, &inherited, draft) else {
            node.report.lost(&path, "was left out");
            return None;
        };
        let alone = !path.contains("targets");
        if !alone {
            inherited.lose_own(above, &node);
        }
        let section = alone.then(|| {
            let mut section = plain(std::slice::from_ref(&target));
            inherited.write(&mut section, 1);
            section
        });
        (vec![target], section)
    };
    node.rest(&ADVICE);
    Some(Place { label, weight, targets, section, path })
}

fn group(
    node: &mut Source<'_>,
    name: &str,
    inherited: &Inherited,
    draft: &mut Draft,
) -> Option<Section> {
    let mut strategy = node.table("strategy");
    let mode = strategy.as_mut().and_then(|strategy| strategy.text("mode"));
    let mut places = Vec::new();
    for (turn, (path, value)) in node.list("targets").into_iter().enumerate() {
        let Some(child) = Source::new(path, value, node.report) else { continue };
        let name = format!("{name}.{}", turn + 1);
        places.extend(read(child, &name, inherited, draft));
    }
    let report = node.report;
    let mut section = match mode.as_deref() {
        Some("loadbalance") => balanced(&places, report),
        Some("fallback") => one_by_one(places, name, draft),
        Some("conditional") => condition::section(&places, name, strategy.as_mut(), draft),
        Some("single") | None => {
            if places.len() > 1 {
                report.lost(&node.at("targets"), "only the first of them was ever asked");
            }
            let first = places.into_iter().next();
            first.map(|place| place.section.unwrap_or_else(|| plain(&place.targets)))
        }
        Some(_) => {
            let text = "there is no such strategy; the targets are tried in their order";
            report.lost(&format!("{}.mode", node.at("strategy")), text);
            one_by_one(places, name, draft)
        }
    }?;
    if let Some(strategy) = strategy {
        strategy.rest(&ADVICE);
    }
    let count = named(&section).len() as u64 + fallbacks::count(&section, "general");
    inherited.write(&mut section, count);
    Some(section)
}

fn plain(targets: &[String]) -> Section {
    let mut section = Section::default();
    section.set("targets", targets);
    section
}

/// The names of a section's targets.
fn named(section: &Section) -> Vec<String> {
    let targets = section.get("targets").and_then(Json::as_array).into_iter().flatten();
    let name =
        |target: &Json| target.as_str().or_else(|| target["target"].as_str()).map(str::to_owned);
    targets.filter_map(name).collect()
}

/// By weight. Of a group in it the first target has the share, and the others stand behind.
fn balanced(places: &[Place], report: &Report) -> Option<Section> {
    let weights = whole_weights(places.iter().map(|place| place.weight));
    let mut section = Section::default();
    let mut seen: Vec<String> = Vec::new();
    let mut behind = Vec::new();
    for (place, weight) in places.iter().zip(weights) {
        let mut targets = place.targets.iter();
        let Some(first) = targets.next() else { continue };
        if seen.contains(first) {
            report.changed(&place.path, format!("`{first}` stands there already; it was left out"));
            continue;
        }
        seen.push(first.clone());
        section.push("targets", values::target(first, weight));
        if place.targets.len() > 1 {
            let text = "is a group in a load balance: its first target has the share, the others \
                        are fallbacks of all, whatever their weights and conditions";
            report.changed(&place.path, text);
        }
        behind.extend(targets.cloned());
        behind.extend(place.section.iter().flat_map(|group| fallbacks::of(group, "general")));
    }
    section.get("targets")?;
    section.set("strategy", "weighted");
    for target in behind.iter().filter(|target| !seen.contains(target)) {
        fallbacks::add(&mut section, "general", target);
    }
    Some(section)
}

/// In their order. From the first group on, the rest are fallbacks, for a group is a route.
fn one_by_one(places: Vec<Place>, name: &str, draft: &mut Draft) -> Option<Section> {
    let mut places = places.into_iter().peekable();
    let first = places.next()?;
    let is_group = first.section.is_some();
    let mut section = first.section.unwrap_or_else(|| plain(&first.targets));
    while let Some(place) = places.next_if(|place| !is_group && place.section.is_none()) {
        let known = named(&section);
        let new = place.targets.into_iter().filter(|target| !known.contains(target));
        new.for_each(|target| {
            section.push("targets", target);
        });
    }
    for (turn, place) in places.enumerate() {
        match place.section {
            Some(group) => {
                let route = draft.fresh("routes", &format!("{name}.then-{}", turn + 2));
                // Nobody looks for the fallbacks of a fallback.
                let further = fallbacks::of(&group, "general");
                draft.insert("routes", &route, group);
                for name in [route].iter().chain(&further) {
                    fallbacks::add(&mut section, "general", name);
                }
            }
            None => {
                for target in &place.targets {
                    fallbacks::add(&mut section, "general", target);
                }
            }
        }
    }
    Some(section)
}

/// What a table says under one key, as another table's members.
fn insert(values: &mut Map<String, Json>, key: &str, value: Option<impl Into<Json>>) {
    if let Some(value) = value {
        values.insert(key.to_owned(), value.into());
    }
}
