//! Whether what a person answers is what a run has asked for, looked at before the run hears of it.

use serde_json::{Value, json};

use super::begin::halted;
use super::demanded::fits_schema;
use super::people::MOST_QUESTIONS;
use super::run::{Run, Stage};
use super::staff::Staff;
use crate::error::{Error, Kind};
use crate::store::runs::RunRow;
use crate::tool;

/// What a user has written to a run that asks something.
#[derive(Debug)]
pub enum Written {
    /// It is this answer, to this question, or to whatever is open.
    Fits { request: Option<String>, values: Value },
    /// It is none: the user is asked once more, in these words, unless that was done before.
    Unfit { request: String, again: Option<String> },
}

impl Staff {
    /// Fails with what is wrong; the run goes on waiting then. `request`: which question is
    /// answered; the only one, if it is not said.
    pub(super) async fn check_answer(
        &self,
        row: &RunRow,
        request: Option<&str>,
        values: &Value,
    ) -> Result<(), Error> {
        let run = self.load(row).await.map_err(halted)?.run;
        fits(&run, request, values)
    }

    /// Reads what a user has written as the answer to the form that is open. What does not fit is
    /// no word to the run, which waits on.
    pub(super) async fn written(&self, row: &RunRow, text: &str) -> Result<Written, Error> {
        let run = self.load(row).await.map_err(halted)?.run;
        let declines = text.trim() == "null";
        let form = run.calls.iter().find_map(|call| match &call.stage {
            Stage::Asking { request, message, schema, fills, .. } => {
                Some((request, message, schema.as_ref(), fills.as_slice()))
            }
            _ => None,
        });
        let Some((request, message, Some(schema), fills)) = form.filter(|_| !declines) else {
            let request = form.map(|(request, ..)| request.clone());
            let values = if declines { Value::Null } else { Value::from(text) };
            return Ok(Written::Fits { request, values });
        };
        let request = request.clone();
        Ok(match read(text, schema, fills) {
            Ok(values) => Written::Fits { request: Some(request), values },
            Err(wrong) => {
                let again = format!("{wrong}\n\n{message}{}", expected(schema));
                let again = (run.questions < MOST_QUESTIONS).then_some(again);
                Written::Unfit { request, again }
            }
        })
    }
}

/// What a text says to a form: the JSON that it is, the text itself, or the only thing that is
/// wanted.
fn read(text: &str, schema: &Value, fills: &[String]) -> Result<Value, String> {
    let whole = Value::from(text);
    let meant = serde_json::from_str::<Value>(text.trim()).ok();
    let is_object = meant.as_ref().is_some_and(Value::is_object);
    let mut tried: Vec<Value> = meant.iter().filter(|it| it.is_object()).cloned().collect();
    tried.push(whole.clone());
    tried.extend(meant.iter().filter(|it| !it.is_object()).cloned());
    if let Some(only) = the_only(schema) {
        let values = std::iter::once(whole).chain(meant);
        tried.extend(values.map(|value| json!({only.as_str(): value})));
    } else if names(schema, "properties").is_some_and(|names| names.is_empty()) {
        // There is nothing to fill in: whatever is said lets it go on.
        tried.push(json!({}));
    }
    let mut wrong = String::new();
    for values in tried {
        match fits_form(schema, fills, &values) {
            Ok(()) => return Ok(values),
            // Of an object, that is what is wrong with it, and not with its text.
            Err(error) if !is_object || wrong.is_empty() => wrong = error.message.to_string(),
            Err(_) => {}
        }
    }
    Err(wrong)
}

/// The only thing that a form demands, or the only thing that it has.
fn the_only(schema: &Value) -> Option<String> {
    let all = [names(schema, "required"), names(schema, "properties")];
    all.into_iter().flatten().find_map(|names| match names.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    })
}

fn names(schema: &Value, key: &str) -> Option<Vec<String>> {
    match schema.get(key)? {
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).map(Into::into).collect()),
        Value::Object(map) => Some(map.keys().cloned().collect()),
        _ => None,
    }
}

/// What a form has, for those who see it only as text.
fn expected(schema: &Value) -> String {
    let fields: Vec<String> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, about)| match about.get("type").and_then(Value::as_str) {
            Some(kind) => format!("`{name}` ({kind})"),
            None => format!("`{name}`"),
        })
        .collect();
    if fields.len() < 2 {
        return String::new();
    }
    format!(" Answer with a JSON object that has {}, or `null` to decline.", fields.join(", "))
}

fn fits(run: &Run, request: Option<&str>, values: &Value) -> Result<(), Error> {
    let asked = run.calls.iter().find_map(|call| match &call.stage {
        Stage::Asking { request: own, schema, fills, .. }
            if request.is_none_or(|wanted| wanted == own) =>
        {
            Some((schema.as_ref(), fills.as_slice()))
        }
        _ => None,
    });
    match asked {
        Some((Some(schema), fills)) => fits_form(schema, fills, values),
        Some((None, _)) => Ok(()),
        None if run.escalated.is_some() => fits_output(run, values),
        None => {
            let which = request.map_or_else(String::new, |request| format!(" `{request}`"));
            let message = format!("There is no open question{which} that this could answer.");
            Err(Error::new(Kind::InvalidTransition, message))
        }
    }
}

/// An answer to a question that came with a form.
fn fits_form(schema: &Value, fills: &[String], values: &Value) -> Result<(), Error> {
    // Nothing is the word of whoever does not want to answer.
    if values.is_null() || !tool::is_schema(schema) {
        return Ok(());
    }
    let whole = match (values, fills) {
        (Value::Object(_), _) | (_, []) => values.clone(),
        // Where one thing is missing, the answer is that.
        (value, [only]) => json!({only: value}),
        _ => values.clone(),
    };
    let whole = tool::mcp::filled(whole, schema);
    tool::check_value(schema, &whole).map_err(|wrong| unfit("`values`", &wrong))
}

/// What a person says in the place of an agent that has given up.
fn fits_output(run: &Run, values: &Value) -> Result<(), Error> {
    let answer = values.get("answer").and_then(Value::as_str);
    let (Some(answer), Some(schema)) = (answer, run.output_schema()) else {
        return Ok(());
    };
    fits_schema(answer, schema).map_err(|wrong| unfit("`values.answer`", &wrong))
}

fn unfit(what: &str, wrong: &str) -> Error {
    let message = format!("{what} is not what was asked for: {wrong}. The run still waits.");
    Error::new(Kind::Unprocessable, message)
}
