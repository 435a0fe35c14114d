//! Portkey's queries as conditions in CEL, and the targets that they lead to.

use serde_json::{Value as Json, json};

use super::{Place, plain};
use crate::cli::import::draft::{Draft, Section};
use crate::cli::import::fallbacks;
use crate::cli::import::source::Source;

/// What of a call can be asked, as they and we call it; whether it is text.
const PARAMETERS: [(&str, &str, bool); 3] = [
    ("params.model", "request.model", true),
    ("params.stream", "request.stream", false),
    ("params.max_tokens", "request.max_tokens", false),
];
const COMPARED: [(&str, &str); 6] =
    [("$eq", "=="), ("$ne", "!="), ("$gt", ">"), ("$gte", ">="), ("$lt", "<"), ("$lte", "<=")];

/// Where calls go for which a condition holds; the default has none.
type Step<'p> = (&'p Place, Option<String>);

/// A route whose targets are for the calls of one condition each, and the default behind them. From
/// the first group on, or the first target that stands there already, the rest are fallbacks.
pub(super) fn section(
    places: &[Place],
    name: &str,
    strategy: Option<&mut Source<'_>>,
    draft: &mut Draft,
) -> Option<Section> {
    let strategy = strategy?;
    let mut steps = steps(places, strategy).into_iter().enumerate().peekable();
    let mut section = Section::default();
    while let Some((_, (place, when))) = steps.next_if(|(_, step)| is_simple(step.0, &section)) {
        for target in &place.targets {
            let target = match &when {
                Some(when) => json!({"target": target, "when": when}),
                None => json!(target),
            };
            section.push("targets", target);
        }
    }
    let mut behind = Vec::new();
    for (turn, (place, when)) in steps {
        let mut group = place.section.clone().unwrap_or_else(|| plain(&place.targets));
        let further = fallbacks::of(&group, "general");
        group.take("fallbacks");
        let at = if when.is_some() { behind.len() } else { 0 };
        if when.is_some() && !further.is_empty() {
            let text = "its own fallbacks stand behind all others, for calls of every condition";
            strategy.report.changed(&place.path, text);
        }
        let inner = group.take("when").and_then(|inner| inner.as_str().map(str::to_owned));
        let both = match (&inner, &when) {
            (Some(inner), Some(when)) => Some(format!("({when}) && ({inner})")),
            _ => inner.or(when),
        };
        group.set_some("when", both);
        if section.get("targets").is_none() {
            section = group;
        } else if group == plain(&place.targets) {
            place.targets.iter().for_each(|name| fallbacks::add(&mut section, "general", name));
        } else {
            let route = draft.fresh("routes", &format!("{name}.then-{}", turn + 1));
            draft.insert("routes", &route, group);
            fallbacks::add(&mut section, "general", &route);
        }
        behind.splice(at..at, further);
    }
    for name in &behind {
        fallbacks::add(&mut section, "general", name);
    }
    section.get("targets")?;
    Some(section)
}

/// The places in the order in which they are asked for.
fn steps<'p>(places: &'p [Place], strategy: &mut Source<'_>) -> Vec<Step<'p>> {
    let report = strategy.report;
    let named = |label: &str| places.iter().find(|it| !label.is_empty() && it.label == label);
    let mut steps: Vec<Step<'p>> = Vec::new();
    for (path, value) in strategy.list("conditions") {
        let Some(mut condition) = Source::new(path, value, report) else { continue };
        let then = condition.text("then").unwrap_or_default();
        let query = condition.take("query").unwrap_or_default();
        let at = condition.path.clone();
        condition.rest(&super::ADVICE);
        let (Some(place), Some(when)) = (named(&then), cel(&query)) else {
            let text = "asks for what a condition cannot know, or leads nowhere; write `when` of a \
                        target or a route by hand";
            report.lost(&at, text);
            continue;
        };
        match steps.iter().position(|(known, _)| known.label == then) {
            Some(first) => {
                // Those between the two have the first word.
                let between = steps[first + 1..].iter().filter_map(|(_, other)| other.as_ref());
                let others = between.map(|other| format!("!({other})")).chain([when.clone()]);
                let all = others.collect::<Vec<_>>().join(" && ");
                let earlier = steps[first].1.take().unwrap_or_default();
                steps[first].1 = Some(format!("{earlier} || {all}"));
            }
            None => steps.push((place, Some(when))),
        }
    }
    if let Some(label) = strategy.text("default") {
        match named(&label) {
            Some(place) => steps.push((place, None)),
            None => report.todo(&strategy.at("default"), "leads nowhere; it was left out"),
        }
    }
    let text = "conditions ask for `x-switchpoint-tags: a=b` in the place of metadata, and \
                `request.model` is the route's name; the default also takes over when the others \
                have failed";
    report.changed(&strategy.at("conditions"), text);
    steps
}

/// Whether it comes to targets that a route has not yet, and nothing else.
fn is_simple(place: &Place, section: &Section) -> bool {
    let known = super::named(section);
    place.section.as_ref().is_none_or(|group| *group == plain(&place.targets))
        && !place.targets.iter().any(|target| known.contains(target))
}

/// The query in CEL; `None` where that cannot say it.
fn cel(query: &Json) -> Option<String> {
    let parts: Option<Vec<String>> = query
        .as_object()?
        .iter()
        .map(|(key, value)| match (key.as_str(), value) {
            ("$and", Json::Array(queries)) => joined(queries, " && "),
            ("$or", Json::Array(queries)) => joined(queries, " || "),
            (name, value) => compare(name, value),
        })
        .collect();
    let parts = parts.filter(|parts| !parts.is_empty())?;
    Some(parts.join(" && "))
}

fn joined(queries: &[Json], between: &str) -> Option<String> {
    let parts: Option<Vec<String>> = queries.iter().map(cel).collect();
    let parts = parts.filter(|parts| !parts.is_empty())?;
    Some(format!("({})", parts.join(between)))
}

fn compare(name: &str, value: &Json) -> Option<String> {
    let (name, is_text) = if let Some(tag) = name.strip_prefix("metadata.") {
        (format!("tags[{}]", Json::from(tag)), true)
    } else {
        let (_, ours, is_text) = PARAMETERS.iter().find(|(theirs, ..)| *theirs == name)?;
        ((*ours).to_owned(), *is_text)
    };
    let Some(operators) = value.as_object() else {
        return Some(format!("{name} == {}", literal(value, is_text)?));
    };
    let parts: Option<Vec<String>> = operators
        .iter()
        .map(|(operator, value)| {
            if let Some((_, sign)) = COMPARED.iter().find(|(known, _)| known == operator) {
                let orders = !matches!(*sign, "==" | "!=");
                let value = literal(value, is_text)?;
                return (!(orders && is_text)).then(|| format!("{name} {sign} {value}"));
            }
            let values: Option<Vec<String>> =
                value.as_array()?.iter().map(|value| literal(value, is_text)).collect();
            let list = values?.join(", ");
            match operator.as_str() {
                "$in" => Some(format!("{name} in [{list}]")),
                "$nin" => Some(format!("!({name} in [{list}])")),
                _ => None,
            }
        })
        .collect();
    parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join(" && "))
}

/// A value of the kind that the other side has.
fn literal(value: &Json, is_text: bool) -> Option<String> {
    match (value, is_text) {
        (Json::String(_), true) | (Json::Bool(_) | Json::Number(_), false) => {
            Some(value.to_string())
        }
        (Json::Bool(_) | Json::Number(_), true) => Some(Json::from(value.to_string()).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_the_same_in_cel_or_nothing() {
        let said = |query: Json| cel(&query);
        assert_eq!(
            said(json!({"metadata.plan": {"$eq": "paid"}})).as_deref(),
            Some(r#"tags["plan"] == "paid""#)
        );
        assert_eq!(
            said(json!({"$or": [{"metadata.a": 1}, {"params.max_tokens": {"$gte": 100, "$lt": 200}}]}))
                .as_deref(),
            Some(r#"(tags["a"] == "1" || request.max_tokens >= 100 && request.max_tokens < 200)"#)
        );
        assert_eq!(
            said(json!({"params.model": {"$nin": ["a", "b"]}})).as_deref(),
            Some(r#"!(request.model in ["a", "b"])"#)
        );
        for unsaid in [
            json!({"params.temperature": {"$gt": 0.7}}),
            json!({"metadata.plan": {"$regex": "^p"}}),
            json!({"metadata.age": {"$gt": 3}}),
            json!({"$and": []}),
            json!({}),
            json!("no"),
        ] {
            assert_eq!(cel(&unsaid), None, "{unsaid}");
        }
    }
}
