//! Portkey's queries as conditions in CEL, and the targets that they lead to.

use serde_json::{Value as Json, json};

use super::Place;
use crate::cli::import::draft::Section;
use crate::cli::import::report::Report;
use crate::cli::import::source::Source;

/// What of a call can be asked, as they and we call it; whether it is text.
const PARAMETERS: [(&str, &str, bool); 3] = [
    ("params.model", "request.model", true),
    ("params.stream", "request.stream", false),
    ("params.max_tokens", "request.max_tokens", false),
];
const COMPARED: [(&str, &str); 6] =
    [("$eq", "=="), ("$ne", "!="), ("$gt", ">"), ("$gte", ">="), ("$lt", "<"), ("$lte", "<=")];

/// A route whose targets are for the calls of one condition each, and the default behind them.
pub(super) fn section(
    places: &[Place],
    strategy: Option<&mut Source<'_>>,
    report: &Report,
) -> Option<Section> {
    let strategy = strategy?;
    let mut section = Section::default();
    let mut seen: Vec<String> = Vec::new();
    let find = |label: &str| places.iter().find(|place| place.label == label);
    let path = strategy.at("conditions");
    for (path, value) in strategy.list("conditions") {
        let Some(mut condition) = Source::new(path, value, report) else { continue };
        let then = condition.text("then").unwrap_or_default();
        let query = condition.take("query").unwrap_or_default();
        let at = condition.path.clone();
        condition.rest(&super::ADVICE);
        let (Some(place), Some(when)) = (find(&then), cel(&query)) else {
            let text = "asks for what a condition cannot know, or leads nowhere; write `when` of a \
                        target or a route by hand";
            report.lost(&at, text);
            continue;
        };
        for target in &place.targets {
            if seen.contains(target) {
                report.lost(&at, format!("`{target}` has a condition already; write a route"));
                continue;
            }
            seen.push(target.clone());
            section.push("targets", json!({"target": target, "when": when}));
        }
    }
    if let Some(label) = strategy.text("default") {
        let default = find(&label).map(|place| place.targets.as_slice()).unwrap_or_default();
        if default.is_empty() {
            report.todo(&strategy.at("default"), "leads nowhere; it was left out");
        }
        let own = |target: &&String| !seen.contains(target);
        for target in default.iter().filter(own) {
            section.push("targets", target.as_str());
        }
    }
    let text = "conditions ask for `x-switchpoint-tags: a=b` in the place of metadata, and \
                `request.model` is the route's name; the default also takes over when the others \
                have failed";
    report.changed(&path, text);
    section.get("targets")?;
    Some(section)
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
