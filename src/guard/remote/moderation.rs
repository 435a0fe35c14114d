//! A provider's moderation endpoint, as OpenAI spells it.

use serde_json::{Value, json};

use super::{Failure, Finding, Opinion, Subject};

pub(super) fn body(model: &str, subject: &Subject<'_>) -> Value {
    let model = model.split_once('/').map_or(model, |(_, model)| model);
    json!({"model": model, "input": subject.texts})
}

/// What is flagged; with categories, only those; with a threshold, by score rather than by flag.
pub(super) fn read(
    body: &Value,
    asked: usize,
    wanted: &[String],
    threshold: Option<f32>,
) -> Result<Opinion, Failure> {
    let wrong = |what: &str| Failure::Answer(what.to_owned());
    let results = body["results"].as_array().ok_or_else(|| wrong("it has no `results`"))?;
    if results.len() < asked {
        return Err(wrong("texts were left out"));
    }
    let mut opinion = Opinion::default();
    for result in results {
        let categories = result["categories"]
            .as_object()
            .ok_or_else(|| wrong("a result has no `categories`"))?;
        for (name, flagged) in categories {
            let score = result["category_scores"][name].as_f64().map(narrow);
            let met = match (threshold, score) {
                (Some(threshold), Some(score)) => score >= threshold,
                _ => flagged.as_bool() == Some(true),
            };
            if met && (wanted.is_empty() || wanted.contains(name)) {
                opinion.findings.push(Finding { label: label(name), score, reason: None });
            }
        }
        let told = !opinion.findings.is_empty() || !wanted.is_empty() || threshold.is_some();
        if result["flagged"].as_bool() == Some(true) && !told {
            opinion.findings.push(Finding { label: "flagged".to_owned(), ..Finding::default() });
        }
    }
    Ok(opinion)
}

/// Labels of metrics must not be whatever somebody sends.
fn label(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    name.chars().filter(|c| allowed(*c)).take(40).collect()
}

/// Scores lie between 0 and 1, where an `f32` is exact enough.
#[expect(clippy::cast_possible_truncation, reason = "a score needs no more digits")]
fn narrow(score: f64) -> f32 {
    score as f32
}
