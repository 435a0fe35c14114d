//! Arguments spelled as an operation's request: path, query, headers and body.

use http::{HeaderName, HeaderValue};
use percent_encoding::utf8_percent_encode;
use serde_json::{Map, Value};

use super::operation::{Argument, Operation, Place, Style};
use crate::tool::http::{ENCODED, check_segment, push};
use crate::tool::{Failure, FailureKind};

/// What is sent for one call.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Spelled {
    /// With its query.
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Value>,
}

// === impl Operation ===

impl Operation {
    /// Arguments that are null are not sent, but for those of the body.
    pub(super) fn spell(&self, args: &Value) -> Result<Spelled, Failure> {
        let mut spelled = Spelled { path: self.path.clone(), ..Spelled::default() };
        let mut query = String::new();
        let mut members = Map::new();
        for argument in &self.arguments {
            let Some(value) = args.get(&argument.name) else { continue };
            match argument.place {
                Place::Body => drop(members.insert(argument.written.clone(), value.clone())),
                Place::WholeBody => spelled.body = Some(value.clone()),
                Place::Path(style) => {
                    let text = joined(argument, value, style)?;
                    check_segment(&argument.name, &text)?;
                    let place = format!("{{{}}}", argument.written);
                    let text = utf8_percent_encode(&text, ENCODED).to_string();
                    spelled.path = spelled.path.replace(&place, &text);
                }
                _ if value.is_null() => {}
                Place::Query(style) => put(&mut query, argument, (value, style))?,
                Place::Header(style) => {
                    let text = joined(argument, value, style)?;
                    spelled.headers.push(header(argument, &text)?);
                }
            }
        }
        // What is left of the template would lead elsewhere.
        if spelled.path.split('/').any(|it| matches!(it, "." | "..") || it.contains(['{', '}'])) {
            let why = "an argument of the path is missing, or is `.` or `..`";
            return Err(Failure::new(FailureKind::Invalid, why));
        }
        if !members.is_empty() || self.needs_body() {
            spelled.body = Some(Value::Object(members));
        }
        if !query.is_empty() {
            let between = if spelled.path.contains('?') { '&' } else { '?' };
            spelled.path = format!("{}{between}{query}", spelled.path);
        }
        Ok(spelled)
    }

    /// Whether a body is sent that may be empty.
    fn needs_body(&self) -> bool {
        let in_body = |argument: &Argument| argument.place == Place::Body;
        matches!(self.method.as_str(), "POST" | "PUT" | "PATCH")
            && self.arguments.iter().any(in_body)
    }
}

fn put(
    query: &mut String,
    argument: &Argument,
    (value, style): (&Value, Style),
) -> Result<(), Failure> {
    let name = &argument.written;
    match (style, value) {
        (Style::Repeated, Value::Array(items)) => {
            for item in items {
                push(query, name, &text(argument, item)?);
            }
        }
        (Style::Repeated, Value::Object(members)) => {
            for (member, value) in members {
                push(query, member, &text(argument, value)?);
            }
        }
        (Style::Deep, Value::Object(members)) => {
            for (member, value) in members {
                push(query, &format!("{name}[{member}]"), &text(argument, value)?);
            }
        }
        (style, value) => push(query, name, &joined(argument, value, style)?),
    }
    Ok(())
}

fn header(argument: &Argument, text: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let name = HeaderName::try_from(&argument.written);
    let value = HeaderValue::from_str(text);
    match (name, value) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(invalid(argument, "cannot stand in a header")),
    }
}

/// One text of a value, whatever it is.
fn joined(argument: &Argument, value: &Value, style: Style) -> Result<String, Failure> {
    let (between, equals) = match style {
        Style::Json => return Ok(value.to_string()),
        Style::Joined(between, equals) => (between, equals),
        Style::Repeated | Style::Deep => (',', false),
    };
    let parts = match value {
        Value::Array(items) => {
            items.iter().map(|item| text(argument, item)).collect::<Result<Vec<_>, _>>()?
        }
        Value::Object(members) => {
            let sign = if equals { '=' } else { between };
            let member = |(name, value)| Ok(format!("{name}{sign}{}", text(argument, value)?));
            members.iter().map(member).collect::<Result<Vec<_>, Failure>>()?
        }
        plain => return text(argument, plain),
    };
    Ok(parts.join(&between.to_string()))
}

fn text(argument: &Argument, value: &Value) -> Result<String, Failure> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Err(invalid(argument, "is nested deeper than a parameter can be"))
        }
    }
}

fn invalid(argument: &Argument, why: &str) -> Failure {
    Failure::new(FailureKind::Invalid, format!("/{}: {why}", argument.name))
}
